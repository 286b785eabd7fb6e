//! The one error of this crate.

use nexa_proto::refusal::Refusal;
use nexa_types::Reason;
use tonic::{Code, Status};

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
    /// The connection was lost, or something between the client and the server answered in its place.
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
            | Self::Token
            | Self::Connect { .. }
            | Self::TooLong { .. }
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
            Self::Address { .. } => "use `http://HOST:PORT` or `unix:PATH`",
            Self::Connect { .. } => "start a server with `nexa dev`, or check the address",
            Self::Deadline => "ask again with the same request id: it is done at most once",
            Self::TooLong { .. } => "hand over less, or submit it as several workloads",
            Self::Token | Self::Transport { .. } => "",
        }
    }

    /// Whether the server could not be reached at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Transport { code: Code::Unavailable, .. })
    }

    /// Whether asking again may help, the call being safe to repeat.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) | Self::HeldBack(refusal) => nexa_proto::refusal::is_transient(refusal.reason),
            // What h2 says when the connection breaks in the middle of a call.
            Self::Transport { code, message } => match code {
                // The second is what a server says that sheds load before it looks at the call.
                Code::Unavailable | Code::ResourceExhausted => true,
                Code::Unknown | Code::Internal | Code::Cancelled => {
                    ["h2 protocol error", "transport error", "connection", "stream closed"]
                        .iter()
                        .any(|sign| message.contains(sign))
                }
                _ => false,
            },
            Self::Address { .. } | Self::Token | Self::Connect { .. } | Self::TooLong { .. } | Self::Deadline => false,
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        match (Refusal::from_status(&status), status.code()) {
            (Some(refusal), _) => Self::Refused(Box::new(refusal)),
            (None, Code::DeadlineExceeded) => Self::Deadline,
            // tonic reports its own `grpc-timeout` as a cancel.
            (None, Code::Cancelled) if status.message().contains("Timeout expired") => Self::Deadline,
            (None, code) => Self::Transport { code, message: status.message().to_owned() },
        }
    }
}
