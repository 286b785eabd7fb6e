//! A process of a cluster in its namespace: started, killed, made to stand still, and started again when it ends by itself,
//! as whoever looks after processes does.

use std::ffi::OsString;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::net;

/// How long after its end a process is started again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The same for one that ended before it served.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Bytes of a log that are shown.
const TAIL_BYTES: usize = 1_500;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// A node of Nexa.
    Node,
    /// A member of etcd.
    Etcd,
    /// The database.
    Postgres,
}

/// How it is started.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// The program.
    pub(crate) program: PathBuf,
    /// What it is told.
    pub(crate) args: Vec<OsString>,
    /// By variables.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Where; its output goes there as well.
    pub(crate) folder: PathBuf,
    /// As whom, if not as root.
    pub(crate) user: Option<(u32, u32)>,
}

/// An end that nobody asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Whose.
    pub(crate) name: String,
    /// What it is.
    pub(crate) role: Role,
    /// With which code; none for a signal.
    pub(crate) code: Option<i32>,
    /// Whether it had served.
    pub(crate) had_served: bool,
    /// The end of its log.
    pub(crate) tail: String,
}

/// A member.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name, and that of its namespace.
    pub(crate) name: String,
    /// What it is.
    pub(crate) role: Role,
    /// Where it is.
    pub(crate) address: Ipv4Addr,
    recipe: Recipe,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    child: Option<Child>,
    is_wanted: bool,
    not_before: Instant,
    /// Bytes of its output when it was started last.
    said_before: usize,
}

impl Member {
    /// One that does not run yet, in a namespace of its own.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn new(name: &str, role: Role, address: Ipv4Addr, recipe: Recipe) -> Result<Self, String> {
        std::fs::create_dir_all(&recipe.folder).map_err(|error| format!("the folder of {name}: {error}"))?;
        let state = State { child: None, is_wanted: false, not_before: Instant::now(), said_before: 0 };
        Ok(Self { name: name.to_owned(), role, address, recipe, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, end: &str) -> PathBuf {
        self.recipe.folder.join(format!("{}.{end}", self.name))
    }

    fn spawn(&self) -> Result<Child, String> {
        let open = |end| File::options().create(true).append(true).open(self.file(end));
        let failed = |error: std::io::Error| format!("{} cannot be started: {error}", self.name);
        let mut command = Command::new("nsenter");
        command.arg(net::path(&self.name));
        if let Some((user, group)) = self.recipe.user {
            command.args(["--setuid", &user.to_string(), "--setgid", &group.to_string()]);
        }
        command.arg("--").arg(&self.recipe.program).args(&self.recipe.args);
        command.envs(self.recipe.env.iter().map(|(name, value)| (*name, value)));
        command.current_dir(&self.recipe.folder).stdin(Stdio::null());
        command.stdout(open("out").map_err(failed)?).stderr(open("log").map_err(failed)?);
        command.spawn().map_err(failed)
    }

    /// Starts it; from now on it is started again when it ends.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start(&self) -> Result<(), String> {
        let mut state = self.state();
        state.is_wanted = true;
        state.said_before = self.output().len();
        state.child = Some(self.spawn()?);
        Ok(())
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.file("out")).unwrap_or_default()
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read(self.file("log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..]).into_owned()
    }

    /// Whether it has said since its last start where it serves. Only nodes say it.
    fn has_served(&self, said_before: usize) -> bool {
        self.role != Role::Node || self.output().get(said_before..).is_some_and(|said| said.contains("\"grpc\""))
    }

    /// Looks whether it has ended by itself, and starts it again if so; gives how it ended. One that nobody wants to run is looked
    /// after by whoever wants that.
    pub(crate) fn tend(&self) -> Option<Ended> {
        let mut state = self.state();
        if !state.is_wanted {
            return None;
        }
        let ended = state.child.as_mut().and_then(|child| child.try_wait().ok().flatten()).map(|status| {
            state.child = None;
            let had_served = self.has_served(state.said_before);
            state.not_before = Instant::now() + if had_served { AGAIN_AFTER } else { AGAIN_AFTER_FAILURE };
            (status.code(), had_served)
        });
        if state.child.is_none() && Instant::now() >= state.not_before {
            state.said_before = self.output().len();
            state.not_before = Instant::now() + AGAIN_AFTER_FAILURE;
            state.child = self.spawn().ok();
        }
        drop(state);
        let (code, had_served) = ended?;
        Some(Ended { name: self.name.clone(), role: self.role, code, had_served, tail: self.tail() })
    }

    /// Its process, while there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.state().child.as_ref().map(Child::id)
    }

    /// `kill -9` of it, and with `and_children` of those that it has started; it stays away.
    pub(crate) fn kill(&self, and_children: bool) {
        let mut state = self.state();
        state.is_wanted = false;
        let Some(mut child) = state.child.take() else { return };
        let below = if and_children { children(child.id()) } else { Vec::new() };
        // One that has ended meanwhile is what was wanted.
        let _ = child.kill();
        below.iter().for_each(|pid| signal(*pid, Signal::KILL));
        let _ = child.wait();
    }

    /// Has it and its children stand still, or go on.
    pub(crate) fn pause(&self, is_paused: bool) {
        let Some(pid) = self.pid() else { return };
        let sent = if is_paused { Signal::STOP } else { Signal::CONT };
        signal(pid, sent);
        children(pid).iter().for_each(|pid| signal(*pid, sent));
    }

    /// From now on nobody starts it again when it ends.
    pub(crate) fn leave_alone(&self) {
        self.state().is_wanted = false;
    }

    /// Asks it to end in good order; gives its code, or nothing if it did not end in time and was killed.
    pub(crate) fn terminate(&self, within: Duration) -> Option<i32> {
        self.leave_alone();
        if let Some(pid) = self.pid() {
            signal(pid, if self.role == Role::Postgres { Signal::INT } else { Signal::TERM });
        }
        self.ends(within)
    }

    /// Waits for the end of one that is left alone; gives its code, or nothing if it did not end in time and was killed.
    pub(crate) fn ends(&self, within: Duration) -> Option<i32> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            let mut state = self.state();
            let ended = state.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            if ended {
                return state.child.take().and_then(|mut child| child.wait().ok()).and_then(|status| status.code());
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill(true);
        None
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.pause(false);
        self.kill(true);
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

/// The processes that one has started.
pub(crate) fn children(of: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may have spaces; what follows it does not.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    pids.filter(|pid| parent(*pid) == Some(of)).collect()
}
