//! Texts: shared, and never changed while somebody else holds them.
//!
//! Most texts are short and lie behind one pointer. A text that grows (`s = s + t`) gets room to grow, so that a text
//! made of n parts is not copied n times. And a long text that arrives from another agent stays where it arrived: in
//! the bytes of its payload, which all who were sent it share.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use bytestring::ByteString;

/// From this many bytes on a text that is made of two gets room to grow.
pub(crate) const GROWING_MIN: usize = 256;

/// A text. 16 bytes; clones share it.
#[derive(Clone)]
pub struct Text(Form);

#[derive(Clone)]
enum Form {
    Plain(Arc<str>),
    Long(Arc<Long>),
}

#[derive(Clone)]
enum Long {
    /// With room at its end.
    Growing(String),
    /// A part of bytes that others hold too.
    Part(ByteString),
}

impl Text {
    /// A text that lies in bytes that others hold too.
    pub(crate) fn part(text: ByteString) -> Self {
        Self(Form::Long(Arc::new(Long::Part(text))))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::Plain(text) => text,
            Form::Long(long) => match &**long {
                Long::Growing(text) => text,
                Long::Part(text) => text,
            },
        }
    }

    /// Whether nobody else holds it.
    pub(crate) fn is_own(&mut self) -> bool {
        match &mut self.0 {
            Form::Plain(text) => Arc::get_mut(text).is_some(),
            Form::Long(long) => Arc::get_mut(long).is_some(),
        }
    }

    /// Whether both are one text in memory.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Plain(x), Form::Plain(y)) => Arc::ptr_eq(x, y),
            (Form::Long(x), Form::Long(y)) => Arc::ptr_eq(x, y),
            _ => false,
        }
    }

    /// Where it is in memory.
    pub(crate) fn address(&self) -> usize {
        match &self.0 {
            Form::Plain(text) => Arc::as_ptr(text).cast::<u8>() as usize,
            Form::Long(long) => Arc::as_ptr(long).cast::<u8>() as usize,
        }
    }

    /// Where it is, if others may hold it too.
    pub(crate) fn shared_address(&self) -> Option<usize> {
        let holders = match &self.0 {
            Form::Plain(text) => Arc::strong_count(text),
            Form::Long(long) => Arc::strong_count(long),
        };
        (holders > 1).then(|| self.address())
    }

    /// The text with another one at its end; changed in place if nobody else holds it and it has room.
    pub(crate) fn append(self, more: &str) -> Self {
        let len = self.len() + more.len();
        if let Form::Long(mut long) = self.0 {
            match Arc::get_mut(&mut long) {
                Some(Long::Growing(text)) => {
                    if text.capacity() < len {
                        text.reserve_exact(more.len().max(text.len() / 4));
                    }
                    text.push_str(more);
                    Self(Form::Long(long))
                }
                _ => joined(&Self(Form::Long(long)), more, len),
            }
        } else {
            joined(&self, more, len)
        }
    }
}

fn joined(text: &str, more: &str, len: usize) -> Text {
    let room = if len < GROWING_MIN { len } else { len + len / 4 };
    let mut joined = String::with_capacity(room);
    joined.push_str(text);
    joined.push_str(more);
    if len < GROWING_MIN { joined.into() } else { Text(Form::Long(Arc::new(Long::Growing(joined)))) }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl std::borrow::Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Form::Plain(text.into()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Form::Plain(text.into()))
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&mut str> for Text {
    fn from(text: &mut str) -> Self {
        Self::from(&*text)
    }
}

impl From<std::borrow::Cow<'_, str>> for Text {
    fn from(text: std::borrow::Cow<'_, str>) -> Self {
        Self::from(text.as_ref())
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self(Form::Plain(text))
    }
}

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        Self(Form::Plain(Arc::clone(text)))
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.as_str().hash(hasher);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(out)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_two_words() {
        assert_eq!((size_of::<Text>(), size_of::<crate::value::Value>()), (16, 24));
    }

    #[test]
    fn a_text_that_somebody_holds_stays_as_it_is() {
        for start in ["a".to_owned(), "a".repeat(1000)] {
            let held = Text::from(start.clone()).append("b");
            let longer = held.clone().append("c");
            assert_eq!(*held, format!("{start}b"));
            assert_eq!(*longer, format!("{start}bc"));
            assert_eq!(*longer.append("d"), format!("{start}bcd"));
            assert_eq!(*Text::part(start.as_str().into()).append("b"), format!("{start}b"));
        }
    }

    #[test]
    fn a_text_that_nobody_holds_grows_where_it_is() {
        let mut text = Text::from("x".repeat(GROWING_MIN)).append("y");
        let mut moves = 0;
        for _ in 0..100_000 {
            let before = text.as_ptr();
            text = text.append("z");
            moves += u32::from(!std::ptr::eq(before, text.as_ptr()));
        }
        assert!(moves < 40, "{moves}");
    }
}
