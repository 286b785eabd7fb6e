//! What went wrong below, and what that means to who asked.

use std::error::Error as StdError;
use std::io::{Error as IoError, ErrorKind};

use lance::Error as LanceError;
use nexa_ports::pages::{PagesError, Shard};

/// How the client of a bucket names itself in errors: of the network, and of a server that is not well.
const BUCKET: &str = "S3";
/// The same in one of a read behind the end of what is there, which is no trouble of the network.
#[cfg(feature = "s3")]
pub(crate) const SHORT: &str = "S3, an object that is too short";

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// A file is not there. Another may have compacted the shard meanwhile; if not, it is damage.
    #[error("{0}")]
    Lost(String),
    /// What is there is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The disk or the bucket does not answer.
    #[error("{0}")]
    Unreachable(String),
}

impl Trouble {
    /// As an error of a read, or of a write before anything was written.
    pub(crate) fn of(self, shard: Shard) -> PagesError {
        match self {
            Self::Lost(what) | Self::Damaged(what) => PagesError::Damaged { shard, what },
            Self::Unreachable(what) => PagesError::Unavailable(what),
        }
    }
}

impl From<LanceError> for Trouble {
    fn from(error: LanceError) -> Self {
        let said = error.to_string();
        // A file that cannot be decoded makes the strangest errors, so all is damage that neither the system nor the network
        // reported.
        match io_error(&error) {
            Some(ErrorKind::NotFound) => Self::Lost(said),
            Some(_) => Self::Unreachable(said),
            None if matches!(error, LanceError::NotFound { .. } | LanceError::DatasetNotFound { .. }) => {
                Self::Lost(said)
            }
            None => Self::Damaged(said),
        }
    }
}

/// What the system or the network said, if it was one of these.
fn io_error(error: &LanceError) -> Option<ErrorKind> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<IoError>()
            && io.raw_os_error().is_some()
        {
            return Some(io.kind());
        }
        match error.downcast_ref::<object_store::Error>() {
            Some(object_store::Error::NotFound { .. }) => return Some(ErrorKind::NotFound),
            Some(object_store::Error::Generic { store: BUCKET, .. }) => return Some(ErrorKind::Other),
            Some(object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }) => {
                return Some(ErrorKind::PermissionDenied);
            }
            _ => {}
        }
        next = error.source();
    }
    None
}
