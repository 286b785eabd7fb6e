//! How important rules hold a page to be: whether it has what people come back for and cannot say in other words.

use crate::calendar::month_number;
use crate::message::MemoryMessage;

/// Marks of a message on average that make a page as important as any.
const MARKS_FULL: u32 = 4;

/// 0 to 15: how much of numbers, dates, names of things, paths, addresses and ids a page's messages have.
pub(crate) fn importance(messages: &[MemoryMessage]) -> u8 {
    let marks: u32 = messages.iter().map(|message| marks(&message.text)).sum();
    let full = MARKS_FULL * messages.len().max(1) as u32;
    (marks.min(full) * 15 / full) as u8
}

/// Words that are not of a language. At most 255 of one message count: a listing is not more important than all else.
fn marks(text: &str) -> u32 {
    let mut count = 0u8;
    let mut is_first = true;
    for word in text.split_whitespace() {
        let inner = word.trim_matches(|letter: char| !letter.is_alphanumeric());
        let is_name = !is_first && inner.len() > 1 && inner.starts_with(char::is_uppercase);
        let is_mark = inner
            .contains(|letter: char| letter.is_ascii_digit() || matches!(letter, '/' | '@' | '_' | '\\'))
            || month_number(inner).is_some()
            || is_name;
        count = count.saturating_add(u8::from(is_mark));
        is_first = word.ends_with(['.', '!', '?']);
    }
    u32::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_paths_and_names_are_marks_and_talk_is_none() {
        assert_eq!(marks("That is really nice of you. Thanks a lot! See you"), 0);
        assert_eq!(marks("Flight LH433 leaves Oslo on 7 May, see /tmp/ticket.pdf"), 5);
        assert_eq!(marks(&"9 ".repeat(1_000)), 255);
    }
}
