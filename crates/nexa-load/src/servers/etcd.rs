//! etcd, with one member.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Kept, Plan, ask, find as find_binary, free_port, server};
use crate::LoadError;

const NAME: &str = "etcd";
/// What to do where it is missing.
pub(super) const HINT: &str = "install it (`apt-get install etcd-server`), or put `etcd` 3.4 or newer on the PATH";

pub(super) fn find() -> Result<PathBuf, LoadError> {
    find_binary(NAME, ["/usr/bin".into(), "/usr/local/bin".into()]).ok_or(LoadError::Missing { name: NAME, hint: HINT })
}

/// Starts it; gives where it answers.
pub(super) async fn start(binary: &Path, folder: &Path) -> Result<(Kept, String), LoadError> {
    let unusable = |source| LoadError::Folder { folder: folder.to_path_buf(), source };
    std::fs::create_dir_all(folder).map_err(unusable)?;
    let ports = free_port().and_then(|client| Ok((client, free_port()?)));
    let (client, peer) = ports.map_err(|error| server(NAME, format!("there is no free port: {error}"), folder))?;
    let (client, peer) = (format!("127.0.0.1:{client}"), format!("127.0.0.1:{peer}"));
    let args = [
        "--data-dir=data".to_owned(),
        "--name=load".to_owned(),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster=load=http://{peer}"),
    ];
    let args = args.map(OsString::from).to_vec();
    let mut kept = Kept::start(Plan { name: NAME, binary, args, folder, signal: "TERM", user: None }).await?;
    kept.answers(async || ask(&client, "/health").await.is_ok_and(|said| said.contains("\"true\""))).await?;
    Ok((kept, client))
}
