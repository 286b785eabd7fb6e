//! `nexa run`: a program to its end, on a node inside this process.
//!
//! The node listens as any server does, on a Unix socket in the data folder, so `nexa ps` and `nexa approve` work on it from
//! another terminal. This command asks at the same door, without a connection to its own process.
//!
//! The same program with the same input has request ids that are derived from both and a number. The first number whose
//! workload has not ended, or does not exist, is the one to run: that is how a killed run is found again.

use std::path::{Path, PathBuf};

use nexa_cli::args::{Color, Output, RunArgs};
use nexa_cli::commands::{self, Following, Submission};
use nexa_cli::failure::{Exit, Failure};
use nexa_client::{Client, From, Options};
use nexa_gateway::doors::{Cover, Listen};
use nexa_proto::v1;
use nexa_telemetry::Door;
use nexa_types::{Reason, RequestId, TenantId, WorkloadId};

use crate::chain;
use crate::config::{self, Project};
use crate::wiring::{Porch, Who, wire};

/// The longest path of a Unix socket that every system takes, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Runs `nexa run`.
pub(crate) async fn run(args: RunArgs, output: Output, color: Color) -> Result<(), Failure> {
    let module = commands::compile(&args.file)?;
    let name = args.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut submission = Submission::of_module(&module, String::new(), &args.entry, &args.input, name.clone())?;

    let folder = args.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let project = Project::find(&folder.canonicalize()?)?.with(&args.models)?;
    let data = config::data_folder(args.data.as_deref())?;
    let door = args.metrics.as_deref().map(|address| Door::bind(Some(address))).transpose();
    let door = door.map_err(|error| Failure::usage(chain(&error)))?;
    let socket = Listen::Unix(socket(&data));
    let node =
        wire(&data, &project, &args.models, Who::local(None), (&socket, &Cover::Loopback), Porch::shared()).await?;
    let door =
        door.map(|door| door.open(vec![node.probes()])).transpose().map_err(|error| Failure::error(chain(&error)))?;
    if let Some(door) = &door {
        eprintln!("metrics on {}", door.url());
    }

    let work = async {
        let client = Client::beside(node.beside.clone(), Options::default())?;
        let identity = [module.hash().to_string().as_str(), &submission.entry, &submission.input_json].join("\n");
        let (hash, found) =
            tokio::try_join!(commands::put(&client, &module, &name), find_request(&client, &identity, args.new))?;
        submission.program = v1::workload_service_submit_request::Program::ModuleHash(hash);
        let (request, goes_on) = found;
        submission.request_id = uuid::Uuid::from_bytes(*request.as_bytes()).to_string();
        let accepted = submission.send(&client).await?;
        if goes_on && output == Output::Table {
            eprintln!("going on with {}; --new starts over", accepted.workload_id);
        }
        let closing = format!("data in {0}; to look at it: nexa dev --data {0}", data.display());
        let reach = format!(" --server {}", node.address);
        let following =
            Following { reach, closing, ..Following::of(accepted.workload_id, From::Snapshot, output, color) };
        commands::follow(&client, following).await
    };
    let result = tokio::select! {
        result = Box::pin(work) => result,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            eprintln!("\nstopped; the same command goes on");
            Err(Failure::told(Exit::Interrupted))
        }
        failure = node.failed() => Err(failure),
    };
    node.stop().await;
    if let Some(door) = door {
        door.close();
    }
    result
}

/// Where the node of a data folder listens: in the folder, or, if that path is too long for a socket, in the folder
/// for temporary files under a name made from it.
fn socket(data: &Path) -> PathBuf {
    let inside = data.join("nexa.sock");
    if inside.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return inside;
    }
    let name = blake3::hash(data.as_os_str().as_encoded_bytes()).to_hex();
    std::env::temp_dir().join(format!("nexa-{}.sock", &name[..16]))
}

/// The `number`th request of a program with an input.
fn request(identity: &str, number: u64) -> RequestId {
    let mut hasher = blake3::Hasher::new_derive_key("nexa.v1 run");
    hasher.update(&number.to_le_bytes());
    hasher.update(identity.as_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    // The bits that make it a UUID of version 8 (RFC 9562, section 5.8), as the door wants one.
    bytes[6] = bytes[6] & 0x0F | 0x80;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    RequestId::from_bytes(bytes)
}

/// What has become of the `number`th request.
async fn state(client: &Client, identity: &str, number: u64) -> Result<Option<v1::WorkloadState>, Failure> {
    let workload = WorkloadId::of(&TenantId::local(), request(identity, number));
    match client.workload(v1::WorkloadServiceGetRequest { workload_id: workload.to_string() }).await {
        Ok(found) => Ok(Some(found.workload.unwrap_or_default().state())),
        Err(error) if error.reason() == Some(Reason::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The request to send, and whether its workload exists already. Numbers are used without gaps, so the last used one is
/// found by doubling and halving.
async fn find_request(client: &Client, identity: &str, is_new: bool) -> Result<(RequestId, bool), Failure> {
    // `used` numbers exist for certain; `free` is the least that is known not to.
    let (mut used, mut free) = (0, 1);
    while state(client, identity, free - 1).await?.is_some() {
        used = free;
        free *= 2;
    }
    free -= 1;
    while used < free {
        let middle = used + (free - used) / 2;
        match state(client, identity, middle).await? {
            Some(_) => used = middle + 1,
            None => free = middle,
        }
    }
    if used > 0 && !is_new {
        let last = state(client, identity, used - 1).await?;
        if matches!(last, Some(v1::WorkloadState::Submitted | v1::WorkloadState::Running)) {
            return Ok((request(identity, used - 1), true));
        }
    }
    Ok((request(identity, used), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_other_inputs_and_other_numbers_are_other_requests() {
        assert_eq!(request("a", 0), request("a", 0));
        assert_ne!(request("a", 0), request("a", 1));
        assert_ne!(request("a", 0), request("b", 0));
        let version = uuid::Uuid::from_bytes(*request("a", 0).as_bytes()).get_version_num();
        assert_eq!(version, 8);
    }

    #[test]
    fn a_socket_never_has_too_long_a_path() {
        assert_eq!(socket(Path::new("/data")), Path::new("/data/nexa.sock"));
        let deep = PathBuf::from("/data").join("x".repeat(200));
        assert!(socket(&deep).as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        assert_ne!(socket(&deep), socket(&deep.join("y")));
    }
}
