//! `nexa certs`: a key and a certificate for each node of a cluster, for those who have no authority of their own.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nexa_cluster::certs::{Authority, Seen, look};
use nexa_types::{NodeId, Timestamp};
use serde_json::json;

use crate::args::{CertsArgs, CertsCommand, Output};
use crate::failure::{Exit, Failure};

/// The authority's certificate in a folder; every node gets a copy.
const AUTHORITY: &str = "ca.pem";
/// The authority's key, which no node needs.
const AUTHORITY_KEY: &str = "ca.key";
/// The largest file that is read as a certificate or key, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// `nexa certs`: makes certificates, or shows what one says.
pub fn certs(args: &CertsArgs, output: Output) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let lines = match (&args.command, &args.out) {
        (Some(CertsCommand::Show { file }), _) => vec![shown(file, now, output)?],
        (None, Some(out)) => made(out, args, now, output)?,
        (None, None) => return Err(Failure::usage("a folder for the certificates is missing").hint("give --out DIR")),
    };
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// A node and what else may reach it: `NODE` or `NODE=HOST,HOST`.
fn wanted(text: &str) -> Result<(NodeId, Vec<String>), Failure> {
    let (name, hosts) = text.split_once('=').unwrap_or((text, ""));
    let node = NodeId::new(name).map_err(|error| Failure::usage(error.to_string()))?;
    nexa_cluster::certs::check_name(&node).map_err(|error| Failure::usage(error.to_string()))?;
    if matches!(name, "ca") {
        return Err(Failure::usage("a node cannot be called `ca`: that is where the authority's files are"));
    }
    Ok((node, hosts.split(',').filter(|host| !host.is_empty()).map(str::to_owned).collect()))
}

fn made(out: &Path, args: &CertsArgs, now: Timestamp, output: Output) -> Result<Vec<String>, Failure> {
    let nodes: Vec<(NodeId, Vec<String>)> = args.nodes.iter().map(|text| wanted(text)).collect::<Result<_, _>>()?;
    for (at, (node, _)) in nodes.iter().enumerate() {
        if nodes[..at].iter().any(|(other, _)| other == node) {
            return Err(Failure::usage(format!("{node} is named twice")));
        }
    }
    // Before anything is written: either all of it may be, or nothing is.
    let files = |node: &NodeId| [out.join(format!("{node}.pem")), out.join(format!("{node}.key"))];
    if let Some(there) = nodes.iter().flat_map(|(node, _)| files(node)).find(|file| !args.force && file.exists()) {
        return Err(Failure::error(format!("{} is there already", there.display()))
            .hint("give --force to make the certificates of these nodes anew, or another folder"));
    }
    let cannot = |error: io::Error| Failure::error(format!("cannot make the folder {}: {error}", out.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(out).map_err(cannot)?;
    let (authority, is_new) = authority(out, now)?;
    let mut lines = Vec::new();
    if is_new {
        write(&out.join(AUTHORITY_KEY), &authority.key(), false)?;
        write(&out.join(AUTHORITY), authority.certificate(), false)?;
    }
    for (node, hosts) in &nodes {
        let identity = authority
            .issue(node, hosts, now, args.days)
            .map_err(|error| Failure::error(format!("no certificate for {node}: {error}")))?;
        let [certificate, key] = files(node);
        write(&key, &identity.key, args.force)?;
        write(&certificate, &identity.certificate, args.force)?;
        let until = look(&identity.certificate).map(|seen| date(seen.until)).unwrap_or_default();
        lines.push(match output {
            Output::Table => format!("{node}  {} and {}, until {until}", certificate.display(), key.display()),
            Output::Json => json!({
                "node": node.as_str(), "certificate": certificate, "key": key, "authority": out.join(AUTHORITY),
                "until": until,
            })
            .to_string(),
        });
    }
    if output == Output::Table {
        let which = if is_new { "a new authority" } else { "the authority that was there" };
        lines.push(format!("signed by {which}, {}: each node needs that too", out.join(AUTHORITY).display()));
        lines.push(format!("{} signs for any node: keep it away from them", out.join(AUTHORITY_KEY).display()));
    }
    Ok(lines)
}

/// The folder's authority, or a new one if there is none. Says whether it is new.
fn authority(out: &Path, now: Timestamp) -> Result<(Authority, bool), Failure> {
    let failed = |error: nexa_cluster::certs::CertError| Failure::error(error.to_string());
    let (certificate, key) = (out.join(AUTHORITY), out.join(AUTHORITY_KEY));
    match (certificate.exists(), key.exists()) {
        (false, false) => Ok((Authority::new(now).map_err(failed)?, true)),
        (true, true) => {
            let authority = Authority::open(read(&certificate)?, &read(&key)?).map_err(failed)?;
            let seen = look(authority.certificate()).map_err(failed)?;
            if seen.until <= now {
                return Err(Failure::error(format!("{} ended {}", certificate.display(), date(seen.until)))
                    .hint("make all certificates anew in another folder"));
            }
            Ok((authority, false))
        }
        (true, false) => Err(half(&key)),
        (false, true) => Err(half(&certificate)),
    }
}

fn half(missing: &Path) -> Failure {
    Failure::error(format!("half of the authority is missing: there is no {}", missing.display()))
        .hint("put it back, or make all certificates anew in another folder")
}

fn shown(file: &Path, now: Timestamp, output: Output) -> Result<String, Failure> {
    let seen = look(&read(file)?).map_err(|error| Failure::error(format!("{}: {error}", file.display())))?;
    let Seen { names, addresses, from, until } = &seen;
    let state = if now < *from {
        "not yet valid"
    } else if now >= *until {
        "expired"
    } else {
        "valid"
    };
    Ok(match output {
        Output::Table => {
            let mut lines = vec![
                format!("names      {}", listed(names)),
                format!("addresses  {}", listed(addresses)),
                format!("from       {}", date(*from)),
                format!("until      {}", date(*until)),
            ];
            lines.push(format!("now        {state}"));
            lines.join("\n")
        }
        Output::Json => json!({
            "names": names, "addresses": addresses, "from": date(*from), "until": date(*until), "state": state,
        })
        .to_string(),
    })
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

fn date(at: Timestamp) -> String {
    nexa_proto::convert::timestamp(at).to_string()
}

fn read(file: &Path) -> Result<String, Failure> {
    let cannot = |error: &dyn std::fmt::Display| Failure::error(format!("cannot read {}: {error}", file.display()));
    let meta = fs::metadata(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure { exit: Exit::NotFound, ..cannot(&error) },
        _ => cannot(&error),
    })?;
    if meta.len() > FILE_BYTES_MAX {
        return Err(cannot(&format!("it has more than the {FILE_BYTES_MAX} bytes of a certificate")));
    }
    fs::read_to_string(file).map_err(|error| cannot(&error))
}

/// Writes a file that only its owner can read, whole or not at all.
fn write(file: &Path, text: &str, replaces: bool) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::error(format!("cannot write {}: {error}", file.display()));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let beside: PathBuf = file.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let put = || -> io::Result<()> {
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        if replaces {
            return fs::rename(&beside, file);
        }
        // Unlike a rename, a link does not replace what somebody else has put there meanwhile.
        fs::hard_link(&beside, file)?;
        fs::remove_file(&beside)
    };
    put().map_err(|error| {
        // What is left over is ours alone; that it cannot be removed is not worth a second message.
        let _ = fs::remove_file(&beside);
        cannot(error)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn args(nodes: &[&str], force: bool) -> CertsArgs {
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        CertsArgs { command: None, out: None, nodes, days: 30, force }
    }

    #[test]
    fn a_cluster_grows_by_a_node_and_no_file_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("certs");
        made(&out, &args(&["n1", "n2=n2.example.org,10.0.0.2"], false), NOW, Output::Table).expect("made");
        let names: Vec<String> = {
            let mut names: Vec<_> = fs::read_dir(&out)
                .expect("the folder")
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names, ["ca.key", "ca.pem", "n1.key", "n1.pem", "n2.key", "n2.pem"]);
        for name in &names {
            let mode = fs::metadata(out.join(name)).expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
        let before = fs::read(out.join("n1.pem")).expect("a file");
        let refused = made(&out, &args(&["n3", "n1"], false), NOW, Output::Table).expect_err("n1 is there");
        assert!(refused.message.ends_with("n1.pem is there already"), "{refused}");
        assert!(!out.join("n3.pem").exists(), "nothing of it was made");

        let authority = fs::read(out.join("ca.pem")).expect("a file");
        made(&out, &args(&["n3"], false), NOW, Output::Table).expect("made");
        made(&out, &args(&["n1"], true), NOW, Output::Json).expect("made anew");
        assert_ne!(fs::read(out.join("n1.pem")).expect("a file"), before);
        assert_eq!(fs::read(out.join("ca.pem")).expect("a file"), authority, "the authority stays");

        fs::remove_file(out.join("ca.key")).expect("removed");
        let half = made(&out, &args(&["n4"], false), NOW, Output::Table).expect_err("no key");
        assert!(half.message.contains("half of the authority"), "{half}");
    }

    #[test]
    fn what_a_certificate_says_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        made(folder.path(), &args(&["n1=10.0.0.1"], false), NOW, Output::Table).expect("made");
        let show = |now| shown(&folder.path().join("n1.pem"), now, Output::Table).expect("shown");
        let text = "names      n1\naddresses  10.0.0.1\nfrom       2027-01-15T07:00:00Z\nuntil      2027-02-14T08:00:00Z\nnow        ";
        assert_eq!(show(NOW), format!("{text}valid"));
        assert_eq!(show(Timestamp(NOW.0 + 31 * 86_400_000)), format!("{text}expired"));
        assert_eq!(show(Timestamp(0)), format!("{text}not yet valid"));
        let missing = shown(&folder.path().join("n2.pem"), NOW, Output::Table).expect_err("there is none");
        assert_eq!(missing.exit, Exit::NotFound);
        assert!(shown(&folder.path().join("n1.key"), NOW, Output::Table).is_err());
    }

    #[test]
    fn both_ways_can_be_typed() {
        use clap::Parser;
        let parse = |words: &[&str]| match crate::args::Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(crate::args::Command::Certs(args)) => Some(args),
            _ => None,
        };
        let made = parse(&["nexa", "certs", "--out", "certs", "n1", "n2=h,10.0.0.2"]).expect("can be typed");
        assert!(made.command.is_none() && made.nodes.len() == 2 && !made.force && made.days == 365);
        let shown = parse(&["nexa", "certs", "show", "n1.pem"]).expect("can be typed");
        assert!(matches!(shown.command, Some(CertsCommand::Show { .. })));
        assert!(parse(&["nexa", "certs", "n1"]).is_none(), "where to?");
        assert!(parse(&["nexa", "certs", "--out", "certs"]).is_none(), "for whom?");
    }

    #[test]
    fn names_that_no_node_can_have_are_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("certs");
        for bad in ["N1", "ca", "a/b", "../x", "", "10.0.0.1"] {
            made(&out, &args(&["n1", bad], false), NOW, Output::Table).expect_err(bad);
        }
        made(&out, &args(&["n1", "n1"], false), NOW, Output::Table).expect_err("twice");
        assert!(!out.exists());
        made(&out, &args(&["n1=no host"], false), NOW, Output::Table).expect_err("no host");
    }
}
