//! Power cuts of a node by itself: its data lies on a disk of its own, whose power goes while everything is at work.
//!
//! A cut drops what was not written yet, with the journal or without it (`EXT4_IOC_SHUTDOWN`). The node is killed before it, or a
//! moment after it, when its writes have begun to fail; or it is left to itself, and then it must end with [`STORE_FAILED`]. Then the
//! disk is mounted again, the node starts, and what was acknowledged must be there at once. The folder that tools write to keeps
//! its power: effects outside are not undone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nexa_client::{Client, Options, Throttling};
use nexa_history::{Fault, Violation};
use nexa_load::dice::Dice;
use nexa_store::SqliteStore;
use tokio_util::sync::CancellationToken;

use crate::disk::{Disk, Lost};
use crate::member::{Ended, Member};
use crate::play::{Evidence, Played, SETTLES_WITHIN, judge, scan};
use crate::scene::Scene;
use crate::town::{self, Ground, LOOK_EVERY, Outside, QUICK};
use crate::work::{Work, now_ms};

/// How long the node may take until it serves again.
const SERVES_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to end in good order.
const GRACE: Duration = Duration::from_secs(20);
/// How a node by itself ends whose writes fail.
const STORE_FAILED: i32 = 8;
/// How long it may take to notice that and to tell its clients.
const NOTICES_WITHIN: Duration = Duration::from_secs(20);
/// How long it works between two cuts: as long again by chance.
const WORKS_MS: u64 = 1_500;
/// How long its writes may fail before it is killed.
const FAILING_MS: u64 = 400;

/// Plays it.
///
/// # Errors
/// Why it broke off.
pub(crate) async fn carry_out(
    ground: &Ground,
    scene: &Scene,
    folder: &Path,
    rate: f64,
    told: &dyn Fn(&str),
) -> Result<Played, String> {
    let disk = Disk::make(folder, "disk", scene.disk_mib.unwrap_or(512))?;
    let outside = Outside::open(ground, folder).await?;
    let data = disk.at.join("node").join("data");
    let member = Arc::new(alone(ground, &outside, folder, &data)?);
    member.start()?;
    let door = serves(&member).await?;
    let work = Work::put(vec![door], ground.seed).await?;
    let stop = CancellationToken::new();
    let flow = tokio::spawn(work.clone().flow(rate, stop.clone()));
    let (mut played, mut faults) = (Played { wanted: scene.times, ..Played::default() }, Vec::new());
    let ended = Arc::<Mutex<Vec<Ended>>>::default();
    let tender = town::tend(vec![Arc::clone(&member)], Arc::clone(&ended));
    let mut dice = Dice::of(&[ground.seed, 76]);
    for turn in 0..scene.times {
        if scene.is_over(turn) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(WORKS_MS + dice.below(WORKS_MS))).await;
        let began = now_ms();
        let lost = if dice.below(2) == 0 { Lost::Journal } else { Lost::Rest };
        match dice.below(3) {
            0 => {
                member.kill(true);
                disk.cut(lost)?;
            }
            1 => {
                disk.cut(lost)?;
                tokio::time::sleep(Duration::from_millis(dice.below(FAILING_MS))).await;
                member.kill(true);
            }
            _ => {
                member.leave_alone();
                disk.cut(lost)?;
                let ending = Arc::clone(&member);
                let code = tokio::task::spawn_blocking(move || ending.ends(NOTICES_WITHIN)).await.unwrap_or_default();
                played.store_failed += 1;
                if code != Some(STORE_FAILED) {
                    let text =
                        format!("after cut {turn} its writes failed, and it ended with {code:?}: {}", member.tail());
                    played.violations.push(Violation::new("END", text));
                }
            }
        }
        disk.remount().await?;
        member.start()?;
        let started = Instant::now();
        serves(&member).await?;
        played.placed_ms.push(started.elapsed().as_millis() as u64);
        for workload in work.missing().await {
            let text = format!("{workload} was acknowledged, and after cut {turn} ({lost:?}) it is not there");
            played.violations.push(Violation::new("P2", text));
        }
        faults.push(Fault { kind: format!("power cut, {lost:?}"), victim: "n1".to_owned(), began, healed: now_ms() });
        if (turn + 1).is_multiple_of(10) {
            told(&format!("{} of {} cuts", turn + 1, scene.times));
        }
    }
    stop.cancel();
    let settling = Instant::now();
    let _ = tokio::time::timeout(SETTLES_WITHIN, flow).await;
    let open = work.settle(SETTLES_WITHIN.saturating_sub(settling.elapsed())).await;
    played.settled_ms = settling.elapsed().as_millis() as u64;
    tender.abort();
    let leaving = Arc::clone(&member);
    let code = tokio::task::spawn_blocking(move || leaving.terminate(GRACE)).await.unwrap_or_default();
    if code != Some(0) {
        played.violations.push(Violation::new("END", format!("told to go it ended with {code:?}: {}", member.tail())));
    }
    let failed = |error: &dyn std::fmt::Display| format!("the log cannot be read: {error}");
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(data, nexa_store::Options::default())).await;
    let store = opened.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let log = scan(&store).await?;
    tokio::task::spawn_blocking(move || drop(store)).await.map_err(|error| failed(&error))?;
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let evidence = Evidence { log, outside: &outside, ended };
    judge(evidence, &work, &faults, open.is_empty(), folder, &mut played)?;
    Ok(played)
}

fn alone(ground: &Ground, outside: &Outside, folder: &Path, data: &Path) -> Result<Member, String> {
    let home: PathBuf = folder.join("n1");
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    std::fs::write(home.join("nexa.toml"), outside.settings())
        .map_err(|error| format!("{}: {error}", home.display()))?;
    town::by_itself(ground, home, data)
}

/// Waits until it serves.
async fn serves(member: &Member) -> Result<Client, String> {
    let options = Options { patience: QUICK, throttling: Throttling::Off, ..Options::default() };
    let until = Instant::now() + SERVES_WITHIN;
    loop {
        match Client::connect(&format!("http://{}:7070", member.address), options.clone()).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > until => {
                return Err(format!("{} does not serve: {error}\n{}", member.name, member.tail()));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
