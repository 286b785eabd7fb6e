//! The commands that talk to a server. Each is one function: arguments in, results on standard output.

mod agents;
mod approve;
mod certs;
mod check;
mod explain;
mod fmt;
mod follow;
mod formats;
mod graph;
mod list;
mod memory;
mod nodes;
mod plan;
mod submit;
mod test;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nexa_client::{Client, ClientError, Options};
use nexa_types::Reason;

use crate::args::ServerArgs;
use crate::failure::{Exit, Failure};

pub use agents::{cancel, send};
pub use approve::approve;
pub use certs::certs;
pub use check::check;
pub use explain::explain;
pub use fmt::fmt;
pub use follow::{Following, follow, watch};
pub use formats::formats;
pub use graph::{graph, graph_text};
pub use list::{logs, ps};
pub use memory::{memory, recall};
pub use nodes::{cordon, drain, migrate, nodes, rebalance, uncordon};
pub use plan::plan;
pub use submit::{Submission, compile, put, submit};
pub use test::test;

/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 4 << 10;
/// What the calls of this process are part of, as a W3C `traceparent`.
const TRACEPARENT: &str = "TRACEPARENT";
/// The bits of a file's mode that let somebody else than its owner read it.
const OTHERS_READ: u32 = 0o044;

/// Connects to the server of the command line.
pub async fn connect(args: &ServerArgs) -> Result<Client, Failure> {
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let authority = args.tls_ca.as_deref().map(|file| {
        std::fs::read_to_string(file).map_err(|error| {
            Failure::error(format!("cannot read the authority's certificate in {}: {error}", file.display()))
        })
    });
    let authority = authority.transpose()?;
    // Whoever runs this as a part of something larger says so as other programs are told.
    let traceparent = std::env::var(TRACEPARENT).ok();
    Ok(Client::connect(&args.server, Options { token, traceparent, authority, ..Options::default() }).await?)
}

/// The token that a file holds.
pub fn read_token(file: &Path) -> Result<String, Failure> {
    let unreadable = |error| Failure::error(format!("cannot read the token in {}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let mode = std::fs::metadata(file).map_err(unreadable)?.permissions().mode();
    if mode & OTHERS_READ != 0 {
        eprintln!("warning: others can read the token in {0}: run `chmod 600 {0}`", file.display());
    }
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(Failure::error(format!("{} holds no token", file.display())));
    }
    Ok(token.to_owned())
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error.reason() {
            Some(Reason::NotFound) => Exit::NotFound,
            Some(Reason::DeadlineExceeded) => Exit::Deadline,
            Some(
                Reason::Overloaded | Reason::StoreUnavailable | Reason::Draining | Reason::DiskFull | Reason::NoLeader,
            ) => Exit::Unavailable,
            Some(
                Reason::InvalidArgument
                | Reason::Unauthenticated
                | Reason::PermissionDenied
                | Reason::AlreadyExists
                | Reason::ProgramInvalid
                | Reason::AlreadyEnded
                | Reason::CursorInvalid
                | Reason::Internal
                | Reason::NotWaiting
                | Reason::DataCorrupt
                | Reason::NoNode
                | Reason::Unread,
            ) => Exit::Error,
            None if error.is_unreachable() => Exit::Unavailable,
            None => Exit::Error,
        };
        let mut message = error.to_string();
        for violation in error.refusal().map(|refusal| refusal.violations.as_slice()).unwrap_or_default() {
            let told = format!("{}: {}", violation.field, violation.description);
            // The message of a single violation is the violation.
            if !message.contains(&told) {
                message += &format!("\n  {told}");
            }
        }
        let come_back = error.refusal().and_then(|refusal| refusal.retry_after);
        let come_back = come_back.map(|wait| format!("come back in {:.1} s", wait.as_secs_f64()));
        let hint = [come_back.as_deref().unwrap_or(""), error.hint()];
        let hint = hint.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let hint = Some(hint).filter(|hint| !hint.is_empty());
        Self { exit, message, hint }
    }
}
