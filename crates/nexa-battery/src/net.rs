//! One network for the members of a cluster: a bridge, and for each member a namespace with a cable to it. What goes wrong
//! with it is a table of packet rules in the member's namespace; healing deletes the table.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::cage::{NAMESPACES, run};

/// Where clients, the model endpoint and whoever judges are.
pub(crate) const HOME: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const BRIDGE: &str = "nexabattery0";
const TABLE: &str = "battery";

/// What becomes of a member's packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Those from and to these are dropped: whoever sends hears nothing ever.
    Silent(Vec<Ipv4Addr>),
    /// Those from these are dropped, and it still sends.
    Deaf(Vec<Ipv4Addr>),
    /// Whoever sends to or from these is told at once that nobody is there.
    Reset(Vec<Ipv4Addr>),
    /// So many of a hundred that come are dropped.
    Loss(u8),
}

impl Cut {
    fn rules(&self) -> String {
        let set = |all: &[Ipv4Addr]| all.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
        let (input, output) = match self {
            Self::Silent(others) => {
                (format!("ip saddr {{ {} }} drop", set(others)), format!("ip daddr {{ {} }} drop", set(others)))
            }
            Self::Deaf(others) => (format!("ip saddr {{ {} }} drop", set(others)), String::new()),
            Self::Reset(others) => (
                format!("ip saddr {{ {} }} meta l4proto tcp reject with tcp reset", set(others)),
                // Its own resets must get out.
                format!(
                    "tcp flags & rst == rst accept\n ip daddr {{ {} }} meta l4proto tcp reject with tcp reset",
                    set(others)
                ),
            ),
            Self::Loss(percent) => (format!("numgen random mod 100 < {percent} drop"), String::new()),
        };
        format!(
            "table inet {TABLE} {{\n chain in {{\n type filter hook input priority 0;\n iif \"lo\" accept\n {input}\n }}\n \
             chain out {{\n type filter hook output priority 0;\n oif \"lo\" accept\n {output}\n }}\n}}\n"
        )
    }
}

/// Lays the bridge.
///
/// # Errors
/// What the system said.
pub(crate) fn lay() -> Result<(), String> {
    run("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
    run("ip", &["addr", "add", &format!("{HOME}/24"), "dev", BRIDGE])?;
    run("ip", &["link", "set", BRIDGE, "up"]).map(drop)
}

/// A namespace and a cable for a member.
///
/// # Errors
/// What the system said.
pub(crate) fn join(name: &str, address: Ipv4Addr) -> Result<(), String> {
    let (cable, namespace) = (format!("nb-{name}"), path(name));
    run("ip", &["netns", "add", name])?;
    run("ip", &["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", name])?;
    run("ip", &["link", "set", &cable, "master", BRIDGE, "up"])?;
    let inside = |args: &[&str]| run("nsenter", &[&[namespace.as_str(), "ip"], args].concat());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"]).map(drop)
}

/// What `nsenter` takes for a member's namespace.
pub(crate) fn path(name: &str) -> String {
    format!("--net={NAMESPACES}/{name}")
}

/// Has a member's packets go wrong.
///
/// # Errors
/// What the system said.
pub(crate) fn cut(name: &str, cut: &Cut) -> Result<(), String> {
    let mut command = Command::new("nsenter");
    command.args([&path(name), "nft", "-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("nft: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(cut.rules().as_bytes()).map_err(|error| format!("nft: {error}"))?;
    }
    let output = child.wait_with_output().map_err(|error| format!("nft: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Has them go right again.
///
/// # Errors
/// What the system said.
pub(crate) fn heal(name: &str) -> Result<(), String> {
    run("nsenter", &[&path(name), "nft", "delete", "table", "inet", TABLE]).map(drop)
}

/// Whether all of this works here.
///
/// # Errors
/// Why not.
pub(crate) fn probe() -> Result<(), String> {
    let name = "probe";
    run("ip", &["netns", "add", name])?;
    let cuts = [Cut::Silent(vec![HOME]), Cut::Deaf(vec![HOME]), Cut::Reset(vec![HOME]), Cut::Loss(30)];
    let tried = cuts.iter().try_for_each(|kind| cut(name, kind).and_then(|()| heal(name)));
    run("ip", &["netns", "delete", name])?;
    tried
}
