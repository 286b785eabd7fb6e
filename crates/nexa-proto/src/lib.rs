//! The public gRPC surface.
//!
//! - [`v1`]: messages, clients and servers, generated from `proto/nexa/v1`.
//! - [`internal_v1`]: the same for what nodes of a cluster say to each other, from `proto/nexa/internal/v1`.
//! - [`convert`]: to and from the words of `nexa-types`, where more than one side needs it.
//! - [`refusal`]: the one error of every door, and how it travels as a `google.rpc.Status`.
//!
//! Not here: what a request does (`nexa-gateway`), and when to ask again (`nexa-client`).

pub mod convert;
pub mod refusal;

/// Generated from `proto/nexa/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("nexa.v1");
}

/// Generated from `proto/nexa/internal/v1`: what nodes of one cluster say to each other, and nobody else.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod internal_v1 {
    tonic::include_proto!("nexa.internal.v1");
}

/// The encoded descriptors of everything in [`v1`], for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("nexa.v1");

/// The most bytes of one message, either way: a module or an input at its limit, and some room.
pub const MESSAGE_BYTES_MAX: usize = 20 << 20;

/// Beside a message that brings new work: its request id once more. A server that is full can tell by it what it accepted
/// before, and refuses the rest without reading the message. Never needed.
pub const REQUEST_ID: &str = "nexa-request-id";

/// How long a message is when it is sent, in bytes.
pub fn message_bytes(message: &impl prost::Message) -> usize {
    message.encoded_len()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_wire_holds_a_module_and_an_input_at_their_limits() {
        use nexa_types::limits::{INPUT_BYTES_MAX, MODULE_BYTES_MAX, SOURCE_BYTES_MAX};
        const { assert!(super::MESSAGE_BYTES_MAX > MODULE_BYTES_MAX + (1 << 20)) };
        const { assert!(super::MESSAGE_BYTES_MAX > SOURCE_BYTES_MAX + INPUT_BYTES_MAX + (1 << 20)) };
    }
}
