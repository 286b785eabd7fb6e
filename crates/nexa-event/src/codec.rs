//! Bytes: CBOR (RFC 8949) with numbered fields.
//!
//! Hostile bytes give an error, never a panic, and never more memory than a small multiple of their length:
//! minicbor grows collections as elements arrive and does not trust announced lengths, and recursion through
//! `Failure::cause` ends at the input's own depth, which [`decode`] bounds before it starts.

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode};

/// How deep stored values may be nested. Facts nest less than a dozen deep but for `Failure::cause`, whose makers keep chains
/// short; reading one level of it takes up to 16 KiB of stack, and this many fit into any thread's.
pub const NESTING_MAX: usize = 64;

/// Why stored bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no CBOR of the wanted form.
    #[error("stored bytes are damaged or of an unknown form: {detail}")]
    Malformed {
        /// What the decoder met, and where.
        detail: String,
    },
    /// Something follows the value.
    #[error("{extra} bytes follow the value")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// Values are nested too deeply.
    #[error("values are nested more than {NESTING_MAX} deep")]
    TooDeep,
    /// A newer build wrote it.
    #[error("written in format {found}, this build reads up to {known}; upgrade this node first")]
    NewerFormat {
        /// The format of the bytes.
        found: u16,
        /// The newest that this build reads.
        known: u16,
    },
    /// The bytes are not those that were chained.
    #[error("the hash chain is broken: stored bytes were changed, lost or swapped")]
    ChainBroken,
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed { detail: error.to_string() }
    }
}

/// Encodes a value. Equal values give equal bytes.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to a vector cannot fail")
}

/// Decodes exactly one value.
///
/// # Errors
/// [`DecodeError`] for anything but the bytes of one value.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    bound_depth(bytes)?;
    let mut decoder = Decoder::new(bytes);
    let value = decoder.decode()?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        extra => Err(DecodeError::TrailingBytes { extra }),
    }
}

/// Cuts bytes into so many values that lie one after another, and nothing else.
///
/// # Errors
/// [`DecodeError`] if they are more or fewer.
pub fn items(bytes: &[u8], count: usize) -> Result<Vec<&[u8]>, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let mut items = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        let start = decoder.position();
        decoder.skip()?;
        items.push(&bytes[start..decoder.position()]);
    }
    match bytes.len() - decoder.position() {
        0 => Ok(items),
        extra => Err(DecodeError::TrailingBytes { extra }),
    }
}

/// Walks the tokens once, without recursion, and refuses nesting that could exhaust the stack.
fn bound_depth(bytes: &[u8]) -> Result<(), DecodeError> {
    // Each container and tag begins with a byte of its own kind. Mostly there are too few of these, wherever they stand.
    if bytes.iter().filter(|byte| (0x80..0xe0).contains(*byte)).count() <= NESTING_MAX {
        return Ok(());
    }
    // Open containers, each with the number of items it still waits for (`None`: until a break).
    let mut open: Vec<Option<u64>> = Vec::new();
    let mut decoder = Decoder::new(bytes);
    loop {
        let items = match decoder.datatype()? {
            Type::Array | Type::ArrayIndef => Some(decoder.array()?),
            Type::Map | Type::MapIndef => Some(decoder.map()?.map(|pairs| pairs.saturating_mul(2))),
            Type::Tag => {
                decoder.tag()?;
                continue;
            }
            Type::Break => {
                decoder.skip()?;
                open.pop();
                None
            }
            _ => {
                decoder.skip()?;
                None
            }
        };
        match items {
            Some(Some(0)) | None => {}
            Some(count) => {
                open.push(count);
                if open.len() > NESTING_MAX {
                    return Err(DecodeError::TooDeep);
                }
                continue;
            }
        }
        // An item is complete; so are the containers that it was the last item of.
        loop {
            match open.last_mut() {
                None => return Ok(()),
                Some(None) => break,
                Some(Some(left)) => {
                    *left -= 1;
                    if *left > 0 {
                        break;
                    }
                    open.pop();
                }
            }
        }
    }
}
