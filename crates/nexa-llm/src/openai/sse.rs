//! Server-sent events, read piece by piece.
//!
//! In:  bytes as the network cuts them. Out: the data of each event that is whole.
//! However the bytes are cut, the same events come out. Only `data` matters here; names, ids and comments are skipped.

/// An event or a line longer than this ends the stream, in bytes.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// What has been read of a stream.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    data: Option<String>,
    /// A line ended with `\r`; a `\n` that follows belongs to it.
    after_return: bool,
    is_started: bool,
}

/// An event is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {EVENT_BYTES_MAX} bytes")]
pub struct TooLong;

impl Events {
    /// Reads more bytes and passes on the data of each event that they complete.
    ///
    /// # Errors
    /// [`TooLong`]; the stream cannot be read on then.
    pub fn push(&mut self, bytes: &[u8], mut event: impl FnMut(String)) -> Result<(), TooLong> {
        for byte in bytes {
            let is_second_half = std::mem::take(&mut self.after_return) && *byte == b'\n';
            if is_second_half {
                continue;
            }
            match byte {
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    if let Some(data) = self.end_line() {
                        event(data);
                    }
                }
                _ => self.line.push(*byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !std::mem::replace(&mut self.is_started, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.data.take();
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, [].as_slice()),
        };
        if field == b"data" {
            let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => self.data = Some(value.into_owned()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], cuts: &[usize]) -> Vec<String> {
        let (mut events, mut seen, mut rest) = (Events::default(), Vec::new(), bytes);
        let mut cuts = cuts.iter().copied().chain(std::iter::repeat(7));
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(7).clamp(1, rest.len()));
            events.push(now, |data| seen.push(data)).expect("short enough");
            rest = later;
        }
        seen
    }

    #[test]
    fn comments_names_and_every_kind_of_line_end_are_understood() {
        let stream =
            "\u{FEFF}: hello\r\ndata: one\r\n\r\nevent: x\nid: 4\ndata:two\ndata:  three\n\ndata\r\rdata: cut off\n";
        assert_eq!(read(stream.as_bytes(), &[]), ["one", "two\n three", ""]);
    }

    #[test]
    fn an_endless_event_is_given_up() {
        let mut events = Events::default();
        let line = vec![b'x'; EVENT_BYTES_MAX / 2 + 1];
        assert_eq!(events.push(&line, |_| {}), Ok(()));
        assert_eq!(events.push(&line, |_| {}), Err(TooLong));
    }

    proptest! {
        #[test]
        fn however_the_network_cuts_it_the_events_are_the_same(
            events in prop::collection::vec("[ -~é€]{0,20}", 0..8),
            ends in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            cuts in prop::collection::vec(1..9_usize, 0..200),
        ) {
            let stream: String = events.iter().map(|data| format!("data: {data}{ends}: ping{ends}{ends}")).collect();
            prop_assert_eq!(read(stream.as_bytes(), &cuts), events);
        }

        #[test]
        fn any_bytes_give_the_same_events_in_any_cut(bytes in prop::collection::vec(prop::sample::select(b"data: \r\nx\xFF\xEF\xBB\xBF".to_vec()), 0..200), cuts in prop::collection::vec(1..9_usize, 0..200)) {
            prop_assert_eq!(read(&bytes, &cuts), read(&bytes, &[bytes.len().max(1)]));
        }
    }
}
