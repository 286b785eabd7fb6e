//! The one error of this crate.
//!
//! A call that fails has a [`Status`], whoever made it: the server, or the transport below the call when its connection could not
//! be had, or ended under it. The two mean different things, and their codes and texts overlap: a connection that ends may be
//! `Cancelled`, `Unknown`, `Internal` or `Unavailable`, by how far the call had come. So they are told apart by where they come
//! from: what the transport says is the [`source`](std::error::Error::source) of a status, and one that was sent has none.

use std::error::Error;

use nexa_proto::refusal::Refusal;
use nexa_types::Reason;
use tonic::{Code, Status, TimeoutExpired};

/// How the texts begin of what tonic makes of a stream that ends in good order before the call does: no error reaches it, hence
/// it is not the source of anything. A reset after the head of an answer comes so, by what hyper makes of it.
const CUT_OFF: [&str; 2] = ["protocol error: missing grpc-status trailer", "Unexpected EOF decoding stream"];
/// Causes of an error that are looked at.
const CAUSES_MAX: usize = 16;

/// Why a call gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The text is not an address.
    #[error("`{address}` is not an address of a server: {why}")]
    Address {
        /// The text.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The address wants TLS, and nobody was named whose signature counts.
    #[error("`{address}` needs the certificate of the authority that has signed the server's")]
    NoAuthority {
        /// The address.
        address: String,
    },
    /// The token has characters that cannot travel.
    #[error("the token has characters that cannot be sent")]
    Token,
    /// Nobody answers.
    #[error("no server answers at `{address}`")]
    Connect {
        /// Where.
        address: String,
        /// What the connection said.
        #[source]
        source: std::sync::Arc<tonic::transport::Error>,
    },
    /// The request is longer than a message may be; nothing was sent.
    #[error("the request has {bytes} bytes, more than the {max} of one message")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long one may be.
        max: usize,
    },
    /// The server said no.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The client said no in the server's place, which has no room for most of what it is asked; nothing was sent. See
    /// [`crate::throttle`].
    #[error(transparent)]
    HeldBack(Box<Refusal>),
    /// The deadline passed before an answer came.
    #[error("no answer within the deadline")]
    Deadline,
    /// There was no connection for the call, or it ended before the answer was whole. What the server did, if the call reached
    /// it, nobody knows.
    #[error("the connection for the call failed: {message}")]
    Lost {
        /// What the transport said.
        message: String,
    },
    /// Something between the client and the server answered in its place, or what answered is no server of this kind.
    #[error("the call failed: {message} ({code:?})")]
    Transport {
        /// The status code.
        code: Code,
        /// What came with it.
        message: String,
    },
}

impl ClientError {
    /// Why the server said no, or the client in its place.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) | Self::HeldBack(refusal) => Some(refusal.reason),
            Self::Deadline => Some(Reason::DeadlineExceeded),
            Self::Address { .. }
            | Self::NoAuthority { .. }
            | Self::Token
            | Self::Connect { .. }
            | Self::TooLong { .. }
            | Self::Lost { .. }
            | Self::Transport { .. } => None,
        }
    }

    /// What the server refused, or the client in its place, with its details.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) | Self::HeldBack(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What to do, for a person; empty if there is nothing to say.
    pub fn hint(&self) -> &str {
        match self {
            Self::Refused(refusal) | Self::HeldBack(refusal) => &refusal.hint,
            Self::Address { .. } => "use `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`",
            Self::NoAuthority { .. } => "give it with `--tls-ca FILE`: the `ca.pem` beside the server's certificate",
            Self::Connect { .. } => "start a server with `nexa dev`, or check the address",
            Self::Lost { .. } => "check that the server runs; a command with the same request id is done at most once",
            Self::Deadline => "ask again with the same request id: it is done at most once",
            Self::TooLong { .. } => "hand over less, or submit it as several workloads",
            Self::Token | Self::Transport { .. } => "",
        }
    }

    /// Whether no server answered: there is none, or the connection to it ended first.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Lost { .. } | Self::Transport { code: Code::Unavailable, .. })
    }

    /// Whether asking again may help, the call being safe to repeat.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) | Self::HeldBack(refusal) => nexa_proto::refusal::is_transient(refusal.reason),
            Self::Lost { .. } => true,
            // The second is what a server says that sheds load before it looks at the call.
            Self::Transport { code, .. } => matches!(code, Code::Unavailable | Code::ResourceExhausted),
            Self::Address { .. }
            | Self::NoAuthority { .. }
            | Self::Token
            | Self::Connect { .. }
            | Self::TooLong { .. }
            | Self::Deadline => false,
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        if let Some(refusal) = Refusal::from_status(&status) {
            return Self::Refused(Box::new(refusal));
        }
        match status.code() {
            Code::DeadlineExceeded => Self::Deadline,
            // tonic reports a `grpc-timeout` as a cancel: here its own, and a server's by its text.
            _ if causes(&status).any(|cause| cause.is::<TimeoutExpired>()) => Self::Deadline,
            Code::Cancelled if status.message().contains("Timeout expired") => Self::Deadline,
            _ if is_of_the_transport(&status) => Self::Lost { message: with_root(&status) },
            code => Self::Transport { code, message: status.message().to_owned() },
        }
    }
}

/// Whether no server made the status. What else the transport says of a connection (that we are to send less, that its keys are
/// too weak) is not that it ended.
fn is_of_the_transport(status: &Status) -> bool {
    let ended = matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal);
    ended && (status.source().is_some() || CUT_OFF.iter().any(|text| status.message().starts_with(text)))
}

/// What caused an error, what caused that, and so on.
fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let next: for<'a> fn(&&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> = |cause| (**cause).source();
    std::iter::successors(error.source(), next).take(CAUSES_MAX)
}

/// What a status says, and the first of its causes, which says more than those between.
fn with_root(status: &Status) -> String {
    let root = causes(status).last().map(ToString::to_string).unwrap_or_default();
    match status.message() {
        "" => root,
        said if said.contains(&root) => said.to_owned(),
        said => format!("{said}: {root}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_not_taken_for_a_lost_connection_whatever_its_words() {
        for code in [Code::Cancelled, Code::Unknown, Code::Internal] {
            let said = ClientError::from(Status::new(code, "transport error: h2 protocol error: connection closed"));
            assert!(matches!(said, ClientError::Transport { .. }) && !said.is_transient(), "{said}");
            assert!(!said.is_unreachable(), "{said}");
        }
    }

    #[test]
    fn what_the_transport_says_is_a_lost_connection_and_names_the_first_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let cause = tonic::ConnectError(Box::new(refused));
        let lost = ClientError::from(Status::from_error(Box::new(cause)));
        assert_eq!(lost.to_string(), "the connection for the call failed: connection refused");
        let lost = ClientError::from(Status::from_error("the wire is cut".into()));
        assert!(matches!(lost, ClientError::Lost { .. }) && lost.is_transient() && lost.is_unreachable(), "{lost}");
    }

    #[test]
    fn a_timeout_is_a_deadline_on_whichever_side_it_passed() {
        let here = Status::from_error(Box::new(TimeoutExpired(())));
        for status in [here, Status::cancelled("Timeout expired"), Status::deadline_exceeded("no")] {
            assert!(matches!(ClientError::from(status), ClientError::Deadline));
        }
    }
}
