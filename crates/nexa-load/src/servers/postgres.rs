//! PostgreSQL, with a database of its own.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::{Kept, Plan, find as find_binary, free_port, server};
use crate::LoadError;

const NAME: &str = "postgres";
/// Who owns everything in the database.
const USER: &str = "nexa";
/// Connections of one node at most, with room for its next start beside its last one.
const CONNECTIONS_PER_NODE: usize = 32;
/// Connections for whoever looks on.
const CONNECTIONS_SPARE: usize = 16;
/// One piece of the log is enough for a load. While a further one is made every commit waits until zeros were written over all
/// of it; a server that has run for a while has old ones to write over.
const WAL_SEGMENT_MIB: usize = 128;
/// Where Debian puts its versions.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Its programs.
pub(super) struct Binaries {
    initdb: PathBuf,
    postgres: PathBuf,
    is_ready: PathBuf,
}

impl Binaries {
    pub(super) fn find() -> Result<Self, LoadError> {
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        let found = |name| {
            find_binary(name, versions.iter().map(|(_, folder)| folder.clone())).ok_or(LoadError::Missing {
                name: "PostgreSQL",
                hint: "install it (`apt-get install postgresql`), or put `postgres`, `initdb` and `pg_isready` 15 or \
                       newer on the PATH",
            })
        };
        Ok(Self { initdb: found("initdb")?, postgres: found("postgres")?, is_ready: found("pg_isready")? })
    }
}

/// Starts it; gives the URL of its database.
pub(super) async fn start(binaries: &Binaries, folder: &Path, nodes: usize) -> Result<(Kept, String), LoadError> {
    let failed = |why: String| server(NAME, why, &folder.join("postgres.log"));
    let user = user().map_err(&failed)?;
    let password = secret();
    let kept_in = folder.join("password");
    let prepare = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(&kept_in, &password)?;
        std::fs::set_permissions(&kept_in, std::fs::Permissions::from_mode(0o600))?;
        if let Some((user, group)) = user {
            // It must be able to come to its own folder.
            let above = folder.parent().unwrap_or(folder);
            let mode = std::fs::metadata(above)?.permissions().mode();
            std::fs::set_permissions(above, std::fs::Permissions::from_mode(mode | 0o011))?;
            chown(folder, Some(user), Some(group))?;
            chown(&kept_in, Some(user), Some(group))?;
        }
        Ok(())
    };
    prepare().map_err(|source| LoadError::Folder { folder: folder.to_path_buf(), source })?;

    let mut made = Command::new(&binaries.initdb);
    made.args(["--pgdata=data", "--username", USER, "--auth=scram-sha-256", "--pwfile=password"])
        .args(["--encoding=UTF8", "--locale=C", "--no-instructions"])
        .arg(format!("--wal-segsize={WAL_SEGMENT_MIB}"))
        .current_dir(folder)
        .stdin(Stdio::null());
    if let Some((user, group)) = user {
        made.uid(user).gid(group);
    }
    let made = made.output().await.map_err(|error| failed(format!("`initdb` cannot be started: {error}")))?;
    if !made.status.success() {
        return Err(failed(format!("`initdb` failed: {}", String::from_utf8_lossy(&made.stderr).trim())));
    }
    let port = free_port().map_err(|error| failed(format!("there is no free port: {error}")))?;
    let settings = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        format!("max_connections={}", nodes * CONNECTIONS_PER_NODE + CONNECTIONS_SPARE),
        "shared_buffers=256MB".to_owned(),
        "max_wal_size=4GB".to_owned(),
    ];
    let mut args: Vec<OsString> = vec!["-D".into(), "data".into()];
    args.extend(settings.into_iter().flat_map(|setting| [OsString::from("-c"), setting.into()]));
    // SIGINT: connections are cut, and everything is written.
    let plan = Plan { name: NAME, binary: &binaries.postgres, args, folder, signal: "INT", user };
    let mut kept = Kept::start(plan).await?;
    let port_arg = port.to_string();
    kept.answers(async || {
        let mut asked = Command::new(&binaries.is_ready);
        asked.args(["-q", "-h", "127.0.0.1", "-p", &port_arg]).stdin(Stdio::null());
        asked.status().await.is_ok_and(|status| status.success())
    })
    .await?;
    Ok((kept, format!("postgres://{USER}:{password}@127.0.0.1:{port}/postgres")))
}

/// What nobody can guess.
fn secret() -> String {
    let random = [nexa_client::new_request_id(), nexa_client::new_request_id()].concat();
    blake3::hash(random.as_bytes()).to_hex()[..32].to_owned()
}

/// As whom it runs: it refuses to be root, whom `postgres` stands in for.
fn user() -> Result<Option<(u32, u32)>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let known =
        std::fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd cannot be read: {error}"))?;
    let ids = known.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.map(Some).ok_or_else(|| {
        "it does not run as root, and there is no user `postgres`: run this as another user, or make that one"
            .to_owned()
    })
}
