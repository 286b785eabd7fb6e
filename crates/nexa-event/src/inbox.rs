//! How an input waits in an inbox: what it says, and where the trace of whoever sent it goes on.
//!
//! The bytes are those of [`Input`]. A trace is one more field of it, whichever input it is: an array of a variant's fields, as
//! [`codec`] writes it, gets its trace at [`TRACE_FIELD`], with nothing at the places between. Readers pass over fields that
//! they do not know, so those that know of no traces read the same input, and there is no need for a new format. Without a trace
//! there is not a byte more.
//!
//! Not here: what a trace means to whoever hears the input. The input itself does not know of it, and no decision rests on it.

use minicbor::{Decoder, Encoder};
use nexa_types::limits::SNAPSHOT_BYTES_MAX;

use crate::codec::{self, DecodeError};
use crate::envelope::TraceContext;
use crate::fact::Input;

/// The number of the trace among the fields of an input. No input ever has as many fields of its own.
pub const TRACE_FIELD: u64 = 15;
/// The most bytes that a trace adds: itself, nothing at the places before it, and a longer head of the array.
const TRACE_BYTES_MAX: usize = 64;

/// An input as it is stored. One that is about as long as anything stored may be goes without its trace, since it counts more.
#[must_use]
pub fn encode(input: &Input, trace: Option<&TraceContext>) -> Vec<u8> {
    let plain = codec::encode(input);
    match trace {
        Some(trace) if plain.len() + TRACE_BYTES_MAX <= SNAPSHOT_BYTES_MAX => {
            traced(&plain, trace).expect("an input is an array of its variant and fewer fields than the trace's number")
        }
        _ => plain,
    }
}

/// The bytes with a trace; `None` if they are not those of an input.
fn traced(plain: &[u8], trace: &TraceContext) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(plain);
    let (2, variant, fields) = (decoder.array().ok()??, decoder.u32().ok()?, decoder.array().ok()??) else {
        return None;
    };
    let missing = TRACE_FIELD.checked_sub(fields)?;
    let mut encoder = Encoder::new(Vec::with_capacity(plain.len() + TRACE_BYTES_MAX));
    encoder.array(2).ok()?.u32(variant).ok()?.array(TRACE_FIELD + 1).ok()?;
    encoder.writer_mut().extend_from_slice(&plain[decoder.position()..]);
    for _ in 0..missing {
        encoder.null().ok()?;
    }
    encoder.encode(trace).ok()?;
    Some(encoder.into_writer())
}

/// What was stored.
///
/// # Errors
/// [`DecodeError`] for anything but the bytes of one input, with a trace or without.
pub fn decode(bytes: &[u8]) -> Result<(Input, Option<TraceContext>), DecodeError> {
    Ok((codec::decode(bytes)?, trace(bytes)?))
}

fn trace(bytes: &[u8]) -> Result<Option<TraceContext>, minicbor::decode::Error> {
    let mut decoder = Decoder::new(bytes);
    decoder.array()?;
    decoder.u32()?;
    match decoder.array()? {
        Some(fields) if fields > TRACE_FIELD => {
            (0..TRACE_FIELD).try_for_each(|_| decoder.skip())?;
            decoder.decode()
        }
        // Of an unknown length, as nobody writes it, or without a trace.
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use nexa_types::{Epoch, Payload, Seq};

    use super::*;

    fn a_trace() -> TraceContext {
        TraceContext { trace: [7; 16], span: [8; 8] }
    }

    #[test]
    fn a_trace_comes_back_and_costs_nothing_where_there_is_none() {
        let input = Input::Credit { seq: Seq(3), branch: 1, taken: 512 };
        let plain = encode(&input, None);
        assert_eq!(plain, codec::encode(&input));
        assert_eq!(decode(&plain), Ok((input.clone(), None)));
        let traced = encode(&input, Some(&a_trace()));
        assert!(traced.len() <= plain.len() + TRACE_BYTES_MAX, "{}", traced.len());
        assert_eq!(decode(&traced), Ok((input, Some(a_trace()))));
    }

    #[test]
    fn an_input_that_is_as_long_as_one_may_be_goes_without_its_trace() {
        let input = |bytes: usize| Input::Message { from: String::new(), value: Payload::new(vec![0; bytes]) };
        let head = codec::encode(&input(SNAPSHOT_BYTES_MAX)).len() - SNAPSHOT_BYTES_MAX;
        for (spare, is_traced) in [(0, false), (TRACE_BYTES_MAX - 1, false), (TRACE_BYTES_MAX, true)] {
            let bytes = encode(&input(SNAPSHOT_BYTES_MAX - head - spare), Some(&a_trace()));
            assert!(bytes.len() <= SNAPSHOT_BYTES_MAX, "{}", bytes.len());
            assert_eq!(decode(&bytes).map(|(_, trace)| trace.is_some()), Ok(is_traced), "{spare} bytes spare");
        }
    }

    #[test]
    fn a_trace_that_is_damaged_is_not_used() {
        let mut bytes = encode(&Input::Cancel { reason: "enough".into(), epoch: Epoch(3) }, Some(&a_trace()));
        let end = bytes.len() - 1;
        assert!(decode(&bytes[..end]).is_err());
        bytes[end - 8] = 0x49;
        assert!(decode(&bytes).is_err(), "it says that it has nine bytes");
    }
}
