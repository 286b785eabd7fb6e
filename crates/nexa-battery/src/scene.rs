//! The scenes: what goes wrong, with whom, for how long.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexa_load::dice::Dice;

use crate::cage::{BLKIO, FREEZER, PREFIX, Probed, run};
use crate::disk::{Disk, Lost};
use crate::member::{Member, Role};
use crate::net::{self, Cut, HOME};
use crate::town::Town;

/// Longer than a lease of 3 s lives, in whatever state etcd is.
const LONG: Duration = Duration::from_secs(8);
/// Writes a second that a slow disk takes.
const SLOW_WRITES: u32 = 20;
/// Writes that show that it is slow.
const PROOF_WRITES: u32 = 8;
/// How long writes to a disk without power may fail before who makes them is killed.
const FAILING_MS: u64 = 400;
/// How long a node may take to go in good order.
const GRACE: Duration = Duration::from_secs(40);

/// The long row of kills.
pub(crate) const KILLS: &str = "kills";
/// The row of power cuts of a node by itself.
pub(crate) const POWER_NODE: &str = "power-node";
/// The row of power cuts of PostgreSQL below a cluster.
const POWER_POSTGRES: &str = "power-postgres-row";

/// Whom something happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// A node by chance.
    Node,
    /// The node that leads.
    Leader,
    /// A member of etcd by chance.
    Etcd,
    /// The member of etcd that leads.
    EtcdLeader,
    /// The database.
    Postgres,
    /// Anybody, nodes more often.
    Anybody,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9`, and started again after so many milliseconds.
    Kill(Whom, u64),
    /// It stands still.
    Pause(Whom, Duration),
    /// Nothing comes to it or goes from it; whoever waits hears nothing.
    Silent(Whom, Duration),
    /// It hears nothing, and is heard.
    Deaf(Whom, Duration),
    /// Two nodes do not hear each other; the third and everybody else hears both.
    Bridge(Duration),
    /// As silent, and whoever tries is told at once.
    Reset(Whom, Duration),
    /// So many of a hundred packets to it are lost.
    Loss(Whom, u8, Duration),
    /// Two of three members of etcd are killed.
    EtcdMajority(Duration),
    /// The database's disk takes few writes a second.
    SlowDisk(Duration),
    /// The database's disk is full.
    FullDisk(Duration),
    /// The threads of a node that do its work stand still, and those that keep its lease do not.
    Workers(Whom, Duration),
    /// A node is told to go, goes, and is started again.
    Restart,
    /// The power of the disk with the data goes, and with it whoever uses it.
    PowerCut,
}

/// A scene.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// Its name.
    pub(crate) name: &'static str,
    /// In words.
    pub(crate) about: &'static str,
    /// What happens, each time.
    pub(crate) fault: Fault,
    /// How often.
    pub(crate) times: u32,
    /// The size of the database's own disk in MiB, if it needs one.
    pub(crate) disk_mib: Option<u64>,
    /// No further fault begins after that.
    pub(crate) until: Option<Instant>,
}

/// All of them, but for the long rows of kills and of power cuts.
pub(crate) fn all() -> Vec<Scene> {
    let scene = |name, about, fault, times| Scene { name, about, fault, times, disk_mib: None, until: None };
    let on_disk = |scene: Scene, mib| Scene { disk_mib: Some(mib), ..scene };
    vec![
        scene("node-kill", "kill -9 of a node", Fault::Kill(Whom::Node, 500), 4),
        scene("leader-kill", "kill -9 of the leading node", Fault::Kill(Whom::Leader, 2_000), 4),
        scene("etcd-kill", "kill -9 of a member of etcd", Fault::Kill(Whom::Etcd, 2_000), 3),
        scene("etcd-leader-kill", "kill -9 of etcd's leader", Fault::Kill(Whom::EtcdLeader, 2_000), 3),
        scene("postgres-kill", "kill -9 of PostgreSQL", Fault::Kill(Whom::Postgres, 1_000), 3),
        scene("leader-pause", "SIGSTOP of the leading node beyond its lease", Fault::Pause(Whom::Leader, LONG), 2),
        scene("postgres-pause", "SIGSTOP of PostgreSQL", Fault::Pause(Whom::Postgres, LONG), 2),
        scene("etcd-pause", "SIGSTOP of etcd's leader", Fault::Pause(Whom::EtcdLeader, LONG), 2),
        scene("cut-leader", "the leading node is cut off in silence", Fault::Silent(Whom::Leader, LONG), 2),
        scene("cut-postgres", "PostgreSQL is cut off in silence", Fault::Silent(Whom::Postgres, LONG), 2),
        scene("cut-one-way", "the leading node hears nobody", Fault::Deaf(Whom::Leader, LONG), 2),
        scene("cut-bridge", "two nodes do not hear each other", Fault::Bridge(LONG), 2),
        scene("cut-reset", "the leading node is refused by everybody", Fault::Reset(Whom::Leader, LONG), 2),
        scene("loss-node", "a node loses 30 % of what comes", Fault::Loss(Whom::Node, 30, LONG), 2),
        scene("loss-postgres", "PostgreSQL loses 30 % of what comes", Fault::Loss(Whom::Postgres, 30, LONG), 2),
        scene("etcd-majority", "two of three members of etcd are gone", Fault::EtcdMajority(LONG), 2),
        on_disk(scene("slow-disk", "PostgreSQL's disk takes 20 writes a second", Fault::SlowDisk(LONG), 2), 1_024),
        on_disk(scene("full-disk", "PostgreSQL's disk is full", Fault::FullDisk(LONG), 2), 256),
        scene("workers", "the leading node's workers stand still", Fault::Workers(Whom::Leader, LONG), 2),
        on_disk(scene("power-postgres", "the power of PostgreSQL goes", Fault::PowerCut, 6), 1_024),
        scene("rolling", "nodes are restarted one after the other", Fault::Restart, 3),
    ]
}

/// So many kills in a row, of anybody.
pub(crate) fn kills(times: u32) -> Scene {
    let about = "kill -9 of nodes, members of etcd and PostgreSQL in a row";
    Scene { name: KILLS, about, fault: Fault::Kill(Whom::Anybody, 700), times, disk_mib: None, until: None }
}

/// So many power cuts of a node by itself, on SQLite.
pub(crate) fn cuts(times: u32) -> Scene {
    let about = "the power of a node by itself goes, with its data on SQLite";
    Scene { name: POWER_NODE, about, fault: Fault::PowerCut, times, disk_mib: Some(1_024), until: None }
}

/// So many power cuts of PostgreSQL below a cluster.
pub(crate) fn postgres_cuts(times: u32) -> Scene {
    let about = "the power of PostgreSQL goes, again and again";
    Scene { name: POWER_POSTGRES, about, fault: Fault::PowerCut, times, disk_mib: Some(4_096), until: None }
}

impl Scene {
    /// Whether it is a row, which may be cut short.
    pub(crate) fn is_row(&self) -> bool {
        [KILLS, POWER_NODE, POWER_POSTGRES].contains(&self.name)
    }

    /// Whether there is no time for the fault of this turn. The first one always comes.
    pub(crate) fn is_over(&self, turn: u32) -> bool {
        turn > 0 && self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether it can be played here.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn needs(&self, probed: &Probed) -> Result<(), String> {
        let disk = if self.disk_mib.is_some() { probed.disks.clone() } else { Ok(()) };
        disk.and_then(|()| match self.fault {
            Fault::Silent(..) | Fault::Deaf(..) | Fault::Bridge(_) | Fault::Reset(..) | Fault::Loss(..) => {
                probed.nft.clone()
            }
            Fault::SlowDisk(_) => probed.throttle.clone(),
            Fault::Workers(..) => probed.freezer.clone(),
            _ => Ok(()),
        })
    }
}

/// What a fault is called, by kind.
pub(crate) fn kind(fault: Fault) -> &'static str {
    match fault {
        Fault::Kill(..) => "kill",
        Fault::Pause(..) => "pause",
        Fault::Silent(..) => "cut, silent",
        Fault::Deaf(..) => "cut, one way",
        Fault::Bridge(_) => "cut, bridge",
        Fault::Reset(..) => "cut, reset",
        Fault::Loss(..) => "loss",
        Fault::EtcdMajority(_) => "etcd majority away",
        Fault::SlowDisk(_) => "slow disk",
        Fault::FullDisk(_) => "full disk",
        Fault::Workers(..) => "workers stopped",
        Fault::Restart => "restart",
        Fault::PowerCut => "power cut",
    }
}

async fn find(town: &Town, whom: Whom, dice: &mut Dice) -> Option<Arc<Member>> {
    let (chance, kind) = (dice.roll(), dice.below(10));
    let any = |role| {
        let all: Vec<_> = town.of(role).cloned().collect();
        all[(chance % all.len() as u64) as usize].clone()
    };
    match whom {
        Whom::Node => Some(any(Role::Node)),
        Whom::Etcd => Some(any(Role::Etcd)),
        Whom::Postgres => Some(any(Role::Postgres)),
        Whom::Leader => town.leader().await,
        Whom::EtcdLeader => town.etcd_leader().await,
        Whom::Anybody => Some(match kind {
            0..6 => any(Role::Node),
            6..8 => any(Role::Etcd),
            _ => any(Role::Postgres),
        }),
    }
}

/// Does it, lets it last, and undoes it; gives whom it happened to. `began` is called when it has begun.
///
/// # Errors
/// Why it could not be done, or undone.
pub(crate) async fn strike(
    town: &Town,
    fault: Fault,
    turn: u32,
    disk: Option<&Disk>,
    dice: &mut Dice,
    began: impl FnOnce(),
) -> Result<String, String> {
    let others = |of: &Member| -> Vec<_> {
        let members = town.members.iter().filter(|member| member.name != of.name).map(|member| member.address);
        members.chain([HOME]).collect()
    };
    let nobody = "nobody leads".to_owned();
    match fault {
        Fault::Kill(whom, away_ms) => {
            let victim = find(town, whom, dice).await.ok_or(nobody)?;
            // Now and then the machine, and now and then only the first process.
            victim.kill(dice.below(2) == 0);
            began();
            tokio::time::sleep(Duration::from_millis(away_ms / 2 + dice.below(away_ms))).await;
            victim.start()?;
            Ok(victim.name.clone())
        }
        Fault::Pause(whom, time) => {
            let victim = find(town, whom, dice).await.ok_or(nobody)?;
            victim.pause(true);
            began();
            tokio::time::sleep(time).await;
            victim.pause(false);
            Ok(victim.name.clone())
        }
        Fault::Silent(whom, time) | Fault::Deaf(whom, time) | Fault::Reset(whom, time) | Fault::Loss(whom, _, time) => {
            let victim = find(town, whom, dice).await.ok_or(nobody)?;
            let cut = match fault {
                Fault::Deaf(..) => Cut::Deaf(others(&victim)),
                Fault::Reset(..) => Cut::Reset(others(&victim)),
                Fault::Loss(_, percent, _) => Cut::Loss(percent),
                _ => Cut::Silent(others(&victim)),
            };
            net::cut(&victim.name, &cut)?;
            began();
            tokio::time::sleep(time).await;
            net::heal(&victim.name)?;
            Ok(victim.name.clone())
        }
        Fault::Bridge(time) => {
            let nodes: Vec<_> = town.of(Role::Node).collect();
            let (one, other) = (nodes[turn as usize % 3], nodes[(turn as usize + 1) % 3]);
            net::cut(&one.name, &Cut::Silent(vec![other.address]))?;
            began();
            tokio::time::sleep(time).await;
            net::heal(&one.name)?;
            Ok(format!("{} and {}", one.name, other.name))
        }
        Fault::EtcdMajority(time) => {
            let away: Vec<_> = town.of(Role::Etcd).skip(turn as usize % 2).take(2).collect();
            away.iter().for_each(|member| member.kill(false));
            began();
            tokio::time::sleep(time).await;
            away.iter().try_for_each(|member| member.start())?;
            Ok(format!("{} and {}", away[0].name, away[1].name))
        }
        Fault::SlowDisk(time) => {
            let (victim, disk) = (find(town, Whom::Postgres, dice).await.ok_or(nobody)?, disk.ok_or("it has no disk")?);
            let group = Group::make(BLKIO, "disk")?;
            group.write("blkio.throttle.write_iops_device", &format!("{} {SLOW_WRITES}", disk.device()?))?;
            let first = victim.pid().ok_or("it does not run")?;
            for pid in crate::member::children(first).into_iter().chain([first]) {
                group.write("cgroup.procs", &pid.to_string())?;
            }
            is_slow(&group, disk)?;
            began();
            tokio::time::sleep(time).await;
            group.write("blkio.throttle.write_iops_device", &format!("{} 0", disk.device()?))?;
            group.let_go("cgroup.procs");
            Ok(victim.name.clone())
        }
        Fault::FullDisk(time) => {
            let disk = disk.ok_or("it has no disk")?;
            disk.fill()?;
            began();
            tokio::time::sleep(time).await;
            disk.give_back()?;
            Ok("pg".to_owned())
        }
        Fault::Workers(whom, time) => {
            let victim = find(town, whom, dice).await.ok_or(nobody)?;
            let group = Group::make(FREEZER, "workers")?;
            let pid = victim.pid().ok_or("it does not run")?;
            for thread in threads(pid, "tokio-rt-worker") {
                group.write("tasks", &thread)?;
            }
            group.write("freezer.state", "FROZEN")?;
            began();
            tokio::time::sleep(time).await;
            group.write("freezer.state", "THAWED")?;
            group.let_go("tasks");
            Ok(victim.name.clone())
        }
        Fault::PowerCut => {
            let (victim, disk) = (find(town, Whom::Postgres, dice).await.ok_or(nobody)?, disk.ok_or("it has no disk")?);
            let lost = if dice.below(2) == 0 { Lost::Journal } else { Lost::Rest };
            if dice.below(2) == 0 {
                victim.kill(true);
                disk.cut(lost)?;
            } else {
                disk.cut(lost)?;
                tokio::time::sleep(Duration::from_millis(dice.below(FAILING_MS))).await;
                victim.kill(true);
            }
            began();
            disk.remount().await?;
            victim.start()?;
            Ok(victim.name.clone())
        }
        Fault::Restart => {
            let victim = town.of(Role::Node).nth(turn as usize % 3).cloned().ok_or(nobody)?;
            began();
            let leaving = Arc::clone(&victim);
            let code = tokio::task::spawn_blocking(move || leaving.terminate(GRACE)).await.unwrap_or_default();
            victim.start()?;
            if code != Some(0) {
                return Err(format!("{} was told to go and ended with {code:?}\n{}", victim.name, victim.tail()));
            }
            Ok(victim.name.clone())
        }
    }
}

/// A fault that is none proves nothing: whoever is in the group must wait for the disk.
fn is_slow(group: &Group, disk: &Disk) -> Result<(), String> {
    let (joined, file) = (group.path.join("cgroup.procs"), disk.at.join("slow"));
    let script = format!(
        "echo $$ > {} && exec dd if=/dev/zero of={} bs=512 count={PROOF_WRITES} oflag=dsync",
        joined.display(),
        file.display()
    );
    let began = Instant::now();
    run("sh", &["-c", &script])?;
    let least = Duration::from_secs(PROOF_WRITES.into()) / SLOW_WRITES / 2;
    match began.elapsed() {
        took if took >= least => Ok(()),
        took => {
            Err(format!("{PROOF_WRITES} writes to the slow disk took {took:.1?}, and {least:.1?} at least were meant"))
        }
    }
}

/// A control group for the time of a fault.
struct Group {
    path: std::path::PathBuf,
    root: &'static str,
}

impl Group {
    fn make(root: &'static str, name: &str) -> Result<Self, String> {
        let path = Path::new(root).join(format!("{PREFIX}{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, root })
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        std::fs::write(self.path.join(file), text)
            .map_err(|error| format!("{file} of {}: {error}", self.path.display()))
    }

    /// Puts everybody back where they were.
    fn let_go(&self, file: &str) {
        for member in std::fs::read_to_string(self.path.join(file)).unwrap_or_default().lines() {
            // Who has ended needs no place.
            let _ = std::fs::write(Path::new(self.root).join(file), member);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// The threads of a process by their name.
fn threads(pid: u32, name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let is_one = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    tasks.filter(is_one).map(|task| task.file_name().to_string_lossy().into_owned()).collect()
}
