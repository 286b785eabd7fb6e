//! The servers that a cluster needs start, answer, and leave nothing behind.

use std::path::Path;
use std::time::{Duration, Instant};

use nexa_load::LoadError;
use nexa_load::servers::Servers;

/// Processes that have a text in their command line.
fn processes_with(text: &str) -> usize {
    let all = std::fs::read_dir("/proc").expect("processes are listed").flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

async fn start(folder: &Path) -> Option<Servers> {
    match Servers::start(folder, 3).await {
        Ok(servers) => Some(servers),
        Err(LoadError::Missing { name, hint }) => {
            assert!(std::env::var_os("CI").is_none(), "{name} is missing: {hint}");
            eprintln!("SKIP: {name} is not installed, so that nothing is tested on it: {hint}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_database_and_etcd_start_answer_and_end() {
    let folder = tempfile::Builder::new().prefix("nexa-load-servers").tempdir().expect("a folder");
    let Some(mut servers) = start(folder.path()).await else { return };
    assert!(servers.have_failed().is_none());
    let (address, etcd) = (servers.store().to_owned(), servers.etcd().to_owned());
    let place =
        address.split('@').nth(1).and_then(|rest| rest.split('/').next()).expect("a URL with a host").to_owned();
    tokio::net::TcpStream::connect(&place).await.expect("the database listens");
    tokio::net::TcpStream::connect(&etcd).await.expect("etcd listens");
    assert!(processes_with(&format!("port={}", place.rsplit(':').next().expect("a port"))) > 0);
    servers.stop().await;
    assert!(tokio::net::TcpStream::connect(&place).await.is_err(), "the database is gone");
    assert!(tokio::net::TcpStream::connect(&etcd).await.is_err(), "etcd is gone");
}

#[tokio::test]
async fn servers_end_also_when_nobody_stops_them() {
    let folder = tempfile::Builder::new().prefix("nexa-load-servers").tempdir().expect("a folder");
    let Some(servers) = start(folder.path()).await else { return };
    let etcd = servers.etcd().to_owned();
    assert!(processes_with(&etcd) > 0);
    // As when the driver is killed: its end of the pipe is closed.
    drop(servers);
    let until = Instant::now() + Duration::from_secs(20);
    while processes_with(&etcd) > 0 {
        assert!(Instant::now() < until, "etcd still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
