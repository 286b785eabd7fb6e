//! `nexa audit`: shows that the log is whole, or takes it as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nexa_audit::verify::{Verdict, Verified};
use nexa_audit::{KeepError, Keeper, verify};
use nexa_cli::args::{AuditAction, AuditArgs, LogArgs, Output};
use nexa_cli::failure::{Exit, Failure};
use nexa_cli::show::table::table;
use nexa_etcd::EtcdMembership;
use nexa_ports::audit::{AnchorError, Anchors, Audit};
use nexa_ports::clock::{Clock, SystemClock};
use nexa_postgres::{PostgresStore, Settings};
use nexa_store::{FileAnchors, SqliteLog};
use nexa_types::NodeId;
use serde_json::json;

use crate::config::Project;
use crate::serve::membership;
use crate::{chain, config};

/// A log and its anchors.
struct Place {
    log: Arc<dyn Audit>,
    anchors: Arc<dyn Anchors>,
    /// Where that is, for people.
    name: String,
}

/// Runs `nexa audit`.
pub(crate) async fn run(args: &AuditArgs, output: Output) -> Result<(), Failure> {
    match &args.action {
        AuditAction::Verify(log) => verified(log, output).await,
        AuditAction::Accept { log, why } => accept(log, why, output).await,
    }
}

/// The folder that is meant.
fn folder(args: &LogArgs) -> Result<PathBuf, Failure> {
    let set = std::env::var_os("NEXA_DATA").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    config::data_folder(args.data.clone().or(set).as_deref())
}

fn beside(data: &Path) -> Result<FileAnchors, Failure> {
    FileAnchors::beside(data)
        .ok_or_else(|| Failure::usage(format!("{} cannot hold data: there is nothing beside it", data.display())))
}

/// Which log is meant.
enum Meant {
    /// That of a folder.
    Folder(PathBuf),
    /// That of a cluster: its database, etcd, its name.
    Cluster(String, Vec<String>, String),
}

fn meant(args: &LogArgs) -> Result<Meant, Failure> {
    if args.data.is_some() {
        return Ok(Meant::Folder(folder(args)?));
    }
    match Project::find(&std::env::current_dir()?)?.cluster.log(args)? {
        Some((store, etcd, name)) => Ok(Meant::Cluster(store, etcd, name)),
        None => Ok(Meant::Folder(folder(args)?)),
    }
}

/// A cluster's log and its anchors. The node that asks is none of the cluster.
async fn cluster(
    store: &str,
    etcd: &[String],
    name: &str,
) -> Result<(Arc<PostgresStore>, Arc<EtcdMembership>), Failure> {
    let node = NodeId::new("audit").expect("the name is a constant that is a name");
    let anchors = Box::pin(membership(etcd, name)).await?;
    let log = PostgresStore::connect(Settings::new(store, node)).await;
    Ok((Arc::new(log.map_err(|error| Failure::error(chain(&error)))?), anchors))
}

async fn open(args: &LogArgs) -> Result<Place, Failure> {
    match meant(args)? {
        Meant::Folder(data) => {
            let log = SqliteLog::open(&data).map_err(|error| Failure::error(chain(&error)))?;
            Ok(Place { log: Arc::new(log), anchors: Arc::new(beside(&data)?), name: data.display().to_string() })
        }
        Meant::Cluster(store, etcd, name) => {
            let (log, anchors) = cluster(&store, &etcd, &name).await?;
            Ok(Place { log, anchors, name: format!("the cluster `{name}`") })
        }
    }
}

async fn verified(args: &LogArgs, output: Output) -> Result<(), Failure> {
    let Place { log, anchors, name } = open(args).await?;
    let kept = anchors.kept().await.map_err(|error| Failure::error(chain(&error)))?;
    let head = log.log().await.map_err(|error| Failure::error(chain(&error)))?;
    let verified = verify(&*log, &kept, |_| {}).await.map_err(|error| Failure::error(chain(&error)))?;
    let Verified { root, anchors, wrong } = &verified;
    let many = |wanted: Verdict| anchors.iter().filter(|(_, verdict)| *verdict == wanted).count();
    let (agree, given_up) = (many(Verdict::Agrees), many(Verdict::GivenUp));
    let hash: String = root.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let newest = anchors.last().map(|(anchor, _)| anchor);
    match output {
        Output::Json => println!(
            "{}",
            json!({
                "log": head.id,
                "facts": root.position.0,
                "streams": root.streams,
                "root": hash,
                "anchors": anchors.len(),
                "anchors_agree": agree,
                "anchors_given_up": given_up,
                "anchored_facts": newest.map(|anchor| anchor.root.position.0),
                "anchored_at": newest.map(|anchor| anchor.at.0),
                "wrong": wrong.as_ref().map(|wrong| chain(wrong)),
            })
        ),
        Output::Table => {
            let facts =
                format!("{} of {} are as they were recorded, in {} streams", root.position, head.newest, root.streams);
            let now = SystemClock::default().now();
            let agreeing = match newest {
                None => "none: that no newest facts are missing cannot be told".to_owned(),
                Some(newest) => {
                    let given_up = if given_up == 0 { String::new() } else { format!(", {given_up} given up") };
                    let seconds = now.since(newest.at).0 / 1_000;
                    format!(
                        "{agree} of {} agree{given_up}; the newest is {seconds} s old and covers {} facts",
                        anchors.len(),
                        newest.root.position
                    )
                }
            };
            let rows = [
                ["log".to_owned(), format!("{} in {name}", head.id)],
                ["facts".to_owned(), facts],
                ["anchors".to_owned(), agreeing],
                ["root".to_owned(), hash],
            ];
            print!("{}", table(&["WHAT", "FOUND"], &rows.map(Vec::from)));
        }
    }
    match wrong {
        None => Ok(()),
        Some(_) if output == Output::Json => Err(Failure::told(Exit::Error)),
        Some(wrong) => Err(Failure::error(chain(wrong))),
    }
}

async fn accept(args: &LogArgs, why: &str, output: Output) -> Result<(), Failure> {
    let (log, anchors): (Arc<dyn Audit>, Arc<dyn Anchors>) = match meant(args)? {
        Meant::Folder(data) => {
            // Nobody else may have it, and read models may have seen what is given up now.
            let log = SqliteLog::alone(&data).map_err(|error| Failure::error(chain(&error)))?;
            log.forget_views().map_err(|error| Failure::error(chain(&error)))?;
            let anchors = beside(&data)?;
            if let Err(error @ AnchorError::Damaged { .. }) = anchors.kept().await {
                eprintln!("note: {error}; it was put away");
                anchors.put_away()?;
            }
            (Arc::new(log), Arc::new(anchors))
        }
        Meant::Cluster(store, etcd, name) => {
            let (log, anchors) = cluster(&store, &etcd, &name).await?;
            log.forget_root().await.map_err(|error| Failure::error(chain(&error)))?;
            (log, anchors)
        }
    };
    let now = SystemClock::default().now();
    let accepted = Keeper::accept(log, anchors, why.to_owned(), now).await;
    let accepted = accepted.map_err(|error| match error {
        KeepError::Anchors(AnchorError::NotLeading) => Failure::error("a node leads the cluster")
            .hint("stop every node first: they would go on with what is given up"),
        error => Failure::error(chain(&error)),
    })?;
    match output {
        Output::Json => {
            println!("{}", json!({ "log": accepted.log, "facts": accepted.root.position.0, "anchor": accepted.number }))
        }
        Output::Table => println!(
            "accepted as it is: {} facts in {} streams; anchor {} says why",
            accepted.root.position, accepted.root.streams, accepted.number
        ),
    }
    Ok(())
}
