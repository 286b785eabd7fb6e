//! How many files and sockets this process may have open.
//!
//! A model call in flight is a socket, and so is its other end when the endpoint is simulated here. The usual soft limit
//! is 1,024, for the sake of programs that cannot handle more; what a process may have is the hard limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. If that fails the process goes on with what it has.
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(?current, ?maximum, %error, "the limit of open files cannot be raised");
    }
}
