//! Turns the bytes of tokens into pieces of text.
//!
//! A piece never splits a character, and no piece shows a beginning of what turns out to be a stop text.
//! Bytes that are no character become U+FFFD, as in every other reader of text.

/// Text as it grows.
pub(super) struct Spool {
    stops: Vec<String>,
    text: String,
    /// Bytes of a character that is not whole yet; at most three.
    rest: Vec<u8>,
    shown: usize,
}

impl Spool {
    pub(super) fn new(stops: &[String]) -> Self {
        Self {
            stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(),
            text: String::new(),
            rest: Vec::new(),
            shown: 0,
        }
    }

    /// Adds bytes; `true` if a stop text has come, which is then cut off with all that follows.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        self.rest.extend_from_slice(bytes);
        let searched = self.text.len();
        self.decode(false);
        let found = self.stops.iter().filter_map(|stop| {
            let from = floor(&self.text, searched.saturating_sub(stop.len()));
            self.text[from..].find(stop.as_str()).map(|at| from + at)
        });
        match found.min() {
            Some(at) => {
                self.text.truncate(at);
                self.rest.clear();
                true
            }
            None => false,
        }
    }

    /// What may be shown and was not yet, with its offset.
    pub(super) fn piece(&mut self) -> Option<(usize, &str)> {
        let held = self.stops.iter().map(|stop| stop.len() - 1).max().unwrap_or(0);
        let until = floor(&self.text, self.text.len().saturating_sub(held));
        self.show(until)
    }

    /// Nothing more will come: the rest of what may be shown.
    pub(super) fn last_piece(&mut self) -> Option<(usize, &str)> {
        self.decode(true);
        self.show(self.text.len())
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn show(&mut self, until: usize) -> Option<(usize, &str)> {
        let from = self.shown;
        if until <= from {
            return None;
        }
        self.shown = until;
        Some((from, &self.text[from..until]))
    }

    fn decode(&mut self, is_last: bool) {
        let mut bytes = self.rest.as_slice();
        loop {
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    self.text.push_str(text);
                    bytes = &[];
                    break;
                }
                Err(error) => {
                    let (good, bad) = bytes.split_at(error.valid_up_to());
                    self.text.push_str(&String::from_utf8_lossy(good));
                    match error.error_len() {
                        Some(len) => {
                            self.text.push('\u{FFFD}');
                            bytes = &bad[len..];
                        }
                        None if is_last => {
                            self.text.push('\u{FFFD}');
                            bytes = &[];
                            break;
                        }
                        None => {
                            bytes = bad;
                            break;
                        }
                    }
                }
            }
        }
        self.rest = bytes.to_vec();
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(bytes: &[u8], cuts: &[usize], stops: &[String]) -> (String, String) {
        let mut spool = Spool::new(stops);
        let mut shown = String::new();
        let mut rest = bytes;
        let mut lengths = cuts.iter().copied().chain(std::iter::repeat(1));
        while !rest.is_empty() {
            let (now, later) = rest.split_at(lengths.next().unwrap_or(1).clamp(1, rest.len()));
            rest = later;
            let stopped = spool.push(now);
            if let Some((offset, piece)) = spool.piece() {
                assert_eq!(offset, shown.len());
                shown.push_str(piece);
            }
            if stopped {
                break;
            }
        }
        if let Some((offset, piece)) = spool.last_piece() {
            assert_eq!(offset, shown.len());
            shown.push_str(piece);
        }
        (shown, spool.into_text())
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_pieces_make_the_text(text in "[a-cé€😀]{0,40}", cuts in prop::collection::vec(1..6_usize, 40)) {
            let (shown, whole) = through(text.as_bytes(), &cuts, &[]);
            prop_assert_eq!(&shown, &whole);
            prop_assert_eq!(&whole, &text);
        }

        #[test]
        fn any_bytes_read_as_they_read_elsewhere(bytes in prop::collection::vec(any::<u8>(), 0..60), cuts in prop::collection::vec(1..6_usize, 40)) {
            let (shown, whole) = through(&bytes, &cuts, &[]);
            prop_assert_eq!(&shown, &whole);
            prop_assert_eq!(whole, String::from_utf8_lossy(&bytes).into_owned());
        }

        #[test]
        fn a_stop_text_is_never_shown_in_part(
            text in "[a-cé]{0,40}",
            stops in prop::collection::vec("[a-cé]{1,4}", 1..3),
            cuts in prop::collection::vec(1..6_usize, 40),
        ) {
            let (shown, whole) = through(text.as_bytes(), &cuts, &stops);
            prop_assert_eq!(&shown, &whole);
            prop_assert!(text.starts_with(&whole));
            prop_assert!(stops.iter().all(|stop| !whole.contains(stop.as_str())));
            let ends_early = whole.len() < text.len();
            prop_assert_eq!(ends_early, stops.iter().any(|stop| text.contains(stop.as_str())));
        }
    }
}
