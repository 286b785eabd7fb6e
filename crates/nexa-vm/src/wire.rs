//! Bytes, written and read: the one small encoding that modules, values and snapshots share.
//!
//! Unsigned numbers are LEB128, signed ones zigzag, floats eight bytes little-endian, texts and byte strings a length
//! and their bytes. A reader never trusts a length: it refuses one that is longer than the bytes that are left, and it
//! accepts only the shortest form of a number, so equal things have equal bytes.

use bytes::Bytes;
use bytestring::ByteString;
use nexa_types::Payload;

use crate::value::Text;

/// From this many bytes on a text may share the bytes that it is read from.
const SHARED_MIN: usize = 4096;

/// Why bytes could not be read. The edges (`codec`, `module`, `snapshot`) wrap it in errors of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes ended in the middle of something.
    #[error("the bytes end too early, at offset {at}")]
    End {
        /// Where it was noticed.
        at: usize,
    },
    /// A number, tag or text that cannot be.
    #[error("{what} is not valid at offset {at}")]
    Bad {
        /// What was being read.
        what: &'static str,
        /// Where it was noticed.
        at: usize,
    },
}

/// Appends to a byte vector.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u64(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.u64(u64::from(value));
    }

    pub(crate) fn count(&mut self, value: usize) {
        self.u64(value as u64);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.u64((value << 1) as u64 ^ (value >> 63) as u64);
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    pub(crate) fn fixed_u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub(crate) fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                write(self, value);
            }
        }
    }
}

/// Reads what a [`Writer`] wrote, and survives what it did not.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Whose bytes they are, if texts may share them.
    payload: Option<&'b Payload>,
}

/// A payload as the owner of bytes that texts share.
struct Owner(Payload);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0, payload: None }
    }

    /// Reads a payload, with which a text that makes up most of it may share its bytes.
    pub(crate) fn of(payload: &'b Payload) -> Self {
        Self { payload: Some(payload), ..Self::new(payload.as_bytes()) }
    }

    pub(crate) fn bad(&self, what: &'static str) -> WireError {
        WireError::Bad { what, at: self.at }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next byte, which stays there.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.left() == 0
    }

    /// Refuses bytes after the last expected one.
    pub(crate) fn end(&self) -> Result<(), WireError> {
        if self.is_at_end() { Ok(()) } else { Err(self.bad("what follows the end")) }
    }

    pub(crate) fn raw(&mut self, len: usize) -> Result<&'b [u8], WireError> {
        let rest = &self.bytes[self.at..];
        let part = rest.get(..len).ok_or(WireError::End { at: self.at })?;
        self.at += len;
        Ok(part)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        let byte = *self.bytes.get(self.at).ok_or(WireError::End { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    /// Most numbers are below 128 and take one byte.
    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_u64(),
        }
    }

    fn long_u64(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for index in 0..10 {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if index == 9 && bits > 1 || index > 0 && byte == 0 {
                break;
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.bad("a number"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.u64()?).map_err(|_| self.bad("a number"))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        u16::try_from(self.u64()?).map_err(|_| self.bad("a number"))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, WireError> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn f64(&mut self) -> Result<f64, WireError> {
        let part = self.raw(8)?;
        let bits = u64::from_le_bytes(part.try_into().map_err(|_| self.bad("a float"))?);
        let value = f64::from_bits(bits);
        if value.is_nan() && bits != f64::NAN.to_bits() {
            return Err(self.bad("a float that is another NaN than the canonical one"));
        }
        Ok(value)
    }

    pub(crate) fn fixed_u32(&mut self) -> Result<u32, WireError> {
        let part = self.raw(4)?;
        Ok(u32::from_le_bytes(part.try_into().map_err(|_| self.bad("a word"))?))
    }

    /// A count of things that take at least one byte each, at most `max`.
    pub(crate) fn count(&mut self, max: usize) -> Result<usize, WireError> {
        let count = self.u64()?;
        match usize::try_from(count) {
            Ok(count) if count <= max && count <= self.left() => Ok(count),
            _ => Err(self.bad("a count")),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8], WireError> {
        let len = self.count(usize::MAX)?;
        self.raw(len)
    }

    pub(crate) fn str(&mut self) -> Result<&'b str, WireError> {
        let part = self.bytes()?;
        std::str::from_utf8(part).map_err(|_| self.bad("a text"))
    }

    /// A text, that shares the payload's bytes if it is long and most of them: so nobody holds much more than what he
    /// reads, and what was sent to many is there once.
    pub(crate) fn text(&mut self) -> Result<Text, WireError> {
        let text = self.str()?;
        match self.payload {
            Some(payload) if text.len() >= SHARED_MIN && text.len() > self.bytes.len() / 2 => {
                let bytes = Bytes::from_owner(Owner(payload.clone())).slice(self.at - text.len()..self.at);
                ByteString::try_from(bytes).map(Text::part).map_err(|_| self.bad("a text"))
            }
            _ => Ok(text.into()),
        }
    }

    pub(crate) fn string(&mut self) -> Result<String, WireError> {
        self.str().map(str::to_owned)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad("a bool")),
        }
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// `count` things, each read by `read`. The count was checked against the bytes that are left.
    pub(crate) fn list<T>(
        &mut self,
        max: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.count(max)?;
        let mut list = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_as_they_were_written(unsigned: u64, signed: i64) {
            let mut writer = Writer::new();
            writer.u64(unsigned);
            writer.i64(signed);
            let mut reader = Reader::new(&writer.bytes);
            prop_assert_eq!(reader.u64(), Ok(unsigned));
            prop_assert_eq!(reader.i64(), Ok(signed));
            prop_assert!(reader.is_at_end());
        }
    }

    #[test]
    fn a_number_has_only_its_shortest_form() {
        assert!(Reader::new(&[0x80, 0x00]).u64().is_err());
        assert!(Reader::new(&[0xFF; 11]).u64().is_err());
        assert_eq!(Reader::new(&[0x80, 0x01]).u64(), Ok(128));
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_before_anything_is_reserved() {
        assert!(Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1]).bytes().is_err());
    }
}
