//! The work of a cluster under faults, and what its clients are told: workloads with models, marks outside, children,
//! messages and timers, and lists whose items come after each other. Some are cancelled; all are asked after.
//!
//! A client submits at one door after another, under one request id, until somebody accepts it, at most [`SUBMIT_PATIENCE`];
//! from then on the workload counts as acknowledged. Everything that is asked goes into the history.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nexa_client::{Client, ClientError};
use nexa_history::{Call, Operation, Standing, Told};
use nexa_load::dice::Dice;
use nexa_load::observe::{self, standing};
use nexa_proto::v1;
use nexa_proto::v1::workload_service_submit_request::Program;
use nexa_types::{Outcome, Reason, RequestId, TenantId, WorkloadId};
use nexa_vm::codec;
use nexa_vm::value::Value;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::town::LOOK_EVERY;

/// What is run.
const PROGRAM: &str = include_str!("load.nx");
/// How long one submission is tried.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(90);
/// The wait after each door has failed once.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// Between two questions of the asker.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// One of so many jobs is a list, and one is cancelled.
const LISTS: u64 = 12;
const CANCELS: u64 = 15;
/// Workloads that are open at once. While there are as many, clients hold back: a row of faults comes quicker than a slow
/// machine works off what it is given, and what it then shows is the length of the queue.
const OPEN_MAX: usize = 250;
/// Between two looks at how many are open while clients hold back.
const OPEN_EVERY: Duration = Duration::from_secs(2);
/// Workloads that are looked for at once after a cut.
const LOOKED_FOR: usize = 200;
/// How long an item of a list may take, and each agent of the program: faults, and not their sum on a slow machine.
const ITEM_WITHIN: Duration = Duration::from_secs(600);
/// Items of a list.
const ITEMS: usize = 6;

/// What a program says of a mark that it has left.
const DONE: &str = "done";
/// What it says of one of which nobody knows.
const UNKNOWN: &str = "outcome_unknown";

/// One workload.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    number: u64,
    nap_ms: u64,
    rounds: u64,
    is_list: bool,
    cancel_after: Option<Duration>,
}

impl Job {
    fn of(seed: u64, number: u64) -> Self {
        let mut dice = Dice::of(&[seed, 71, number]);
        let is_list = dice.below(LISTS) == 0;
        let cancel_after = (dice.below(CANCELS) == 0).then(|| Duration::from_millis(100 + dice.below(3_000)));
        Self { number, nap_ms: 50 + dice.below(700), rounds: 1 + dice.below(4), is_list, cancel_after }
    }

    fn name(&self) -> String {
        format!("w{}", self.number)
    }

    fn request(&self, seed: u64) -> RequestId {
        let mut dice = Dice::of(&[seed, 72, self.number]);
        let (high, low) = (dice.roll(), dice.roll());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        // A UUID of version 8.
        bytes[6] = bytes[6] & 0x0F | 0x80;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        RequestId::from_bytes(bytes)
    }

    fn submission(&self, seed: u64, module: &str) -> v1::WorkloadServiceSubmitRequest {
        let input = json!({ "name": self.name(), "nap_ms": self.nap_ms, "rounds": self.rounds });
        let (program, entry, input_json) = match self.is_list {
            true => (Program::AgentList(self.list()), String::new(), String::new()),
            false => (Program::ModuleHash(module.to_owned()), "main".to_owned(), input.to_string()),
        };
        v1::WorkloadServiceSubmitRequest {
            request_id: uuid(self.request(seed)),
            program: Some(program),
            entry,
            input_json,
            name: self.name(),
            priority: None,
            budget: None,
        }
    }

    /// Items in two columns: each comes after the one before it, and every second one after its neighbour too.
    fn list(&self) -> v1::AgentList {
        let item = |index: usize| v1::AgentSpec {
            id: format!("i{index}"),
            name: "Node".to_owned(),
            prompt: "Say what follows.".to_owned(),
            input_json: json!(format!("{} item {index}", self.name())).to_string(),
            after: [index.checked_sub(2), index.checked_sub(1).filter(|_| index % 2 == 1)]
                .into_iter()
                .flatten()
                .map(|before| format!("i{before}"))
                .collect(),
            retry_max: Some(6),
            timeout_ms: Some(ITEM_WITHIN.as_millis() as u64),
            ..v1::AgentSpec::default()
        };
        v1::AgentList { agents: (0..ITEMS).map(item).collect(), on_failure: v1::OnFailure::FailFast.into() }
    }

    /// What its program says of its marks, each by its name and whether it says that it is done; an error says how its end is
    /// wrong. `answer` is what the model says to its name.
    pub(crate) fn words(&self, outcome: &Outcome, answer: &str) -> Result<Vec<(String, bool)>, String> {
        let payload = match outcome {
            Outcome::Ok(payload) => payload,
            Outcome::Err(failure) if failure.code == nexa_types::RunCode::Cancelled && self.cancel_after.is_some() => {
                return Ok(Vec::new());
            }
            Outcome::Err(failure) => return Err(failure.to_string()),
        };
        if self.is_list {
            return Ok(Vec::new());
        }
        let Ok(Value::Str(text)) = codec::decode(payload) else { return Err("its value is no text".to_owned()) };
        let mut words = text.split('|');
        if words.next() != Some(answer) {
            return Err(format!("`{text}` does not begin with `{answer}`"));
        }
        let mut said = vec![("first".to_owned(), words.next())];
        let heard = words.next();
        said.push(("helper".to_owned(), words.next()));
        said.extend((1..=self.rounds).map(|round| (format!("round-{round}"), words.next())));
        said.push(("again".to_owned(), words.next()));
        if heard != Some("42") || words.next().is_some() {
            return Err(format!("`{text}`"));
        }
        let judged = said.into_iter().map(|(what, word)| match word {
            Some(DONE) => Ok((format!("{}-{what}", self.name()), true)),
            Some(UNKNOWN) => Ok((format!("{}-{what}", self.name()), false)),
            other => Err(format!("of `{what}` it says {other:?}: `{text}`")),
        });
        judged.collect()
    }

    /// What it asks the model first.
    pub(crate) fn asks(&self) -> String {
        self.name()
    }
}

/// Whether a mark is one of which twice is as good as once.
pub(crate) fn may_repeat(what: &str) -> bool {
    what.ends_with("-again")
}

fn uuid(id: RequestId) -> String {
    let hex: String = id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A moment as the log has it.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[derive(Debug, Default)]
struct Noted {
    calls: Vec<Call>,
    jobs: BTreeMap<WorkloadId, Job>,
    accepted: Vec<WorkloadId>,
    ended: BTreeMap<WorkloadId, &'static str>,
    refused: Vec<String>,
    /// Refusals by their reason that were tried again all the same.
    refusals: BTreeMap<String, usize>,
}

/// The clients of a town.
#[derive(Clone)]
pub(crate) struct Work {
    doors: Arc<[Client]>,
    module: Arc<str>,
    seed: u64,
    began: Instant,
    noted: Arc<Mutex<Noted>>,
}

impl Work {
    /// Puts the program.
    ///
    /// # Errors
    /// What the server said.
    pub(crate) async fn put(doors: Vec<Client>, seed: u64) -> Result<Self, String> {
        let source = v1::Source { name: "load.nx".to_owned(), text: PROGRAM.to_owned() };
        let request = v1::ProgramServicePutRequest {
            program: Some(v1::program_service_put_request::Program::Source(source)),
            ..v1::ProgramServicePutRequest::default()
        };
        let put = doors[0].put_program(request).await.map_err(|error| format!("putting the program: {error}"))?;
        let program = put.program.unwrap_or_default();
        Ok(Self {
            doors: doors.into(),
            module: program.module_hash.into(),
            seed,
            began: Instant::now(),
            noted: Arc::default(),
        })
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        // Every change under this lock is complete before anything that could panic.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn micros(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn note(&self, operation: Operation, workload: WorkloadId, invoked: u64, told: Told) {
        let call = Call { operation, workload, invoked, returned: self.micros(), told };
        self.noted().calls.push(call);
    }

    /// Submits so many a second, by chance and while no more than [`OPEN_MAX`] are open, until it is told to stop, and asks
    /// after them; returns when every client has its answer or has given up.
    pub(crate) async fn flow(self, rate: f64, stop: CancellationToken) {
        let mut dice = Dice::of(&[self.seed, 73]);
        let (mut clients, mut number) = (JoinSet::new(), 0);
        let asker = {
            let (work, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(work.ask()).await })
        };
        while stop.run_until_cancelled(tokio::time::sleep(gap(&mut dice, rate))).await.is_some() {
            if stop.run_until_cancelled(self.room()).await.is_none() {
                break;
            }
            let (work, job) = (self.clone(), Job::of(self.seed, number));
            number += 1;
            clients.spawn(async move { work.see_through(job).await });
        }
        clients.join_all().await;
        let _ = asker.await;
    }

    /// Waits until there are fewer open workloads than [`OPEN_MAX`], as the list has it.
    async fn room(&self) {
        while self.open().len() >= OPEN_MAX {
            tokio::time::sleep(OPEN_EVERY).await;
            self.sweep().await;
        }
    }

    async fn see_through(&self, job: Job) {
        let workload = WorkloadId::of(&TenantId::local(), job.request(self.seed));
        self.noted().jobs.insert(workload, job.clone());
        let invoked = self.micros();
        let told = self.submit(&job).await;
        self.note(Operation::Submit, workload, invoked, told);
        if !matches!(told, Told::Ok(_)) {
            return;
        }
        self.noted().accepted.push(workload);
        let Some(wait) = job.cancel_after else { return };
        tokio::time::sleep(wait).await;
        let request = v1::WorkloadServiceCancelRequest {
            workload_id: workload.to_string(),
            ..v1::WorkloadServiceCancelRequest::default()
        };
        let invoked = self.micros();
        let cancel = |door: Client| {
            let request = request.clone();
            async move { door.cancel(request).await.map(drop) }
        };
        let told = self.until_answered(job.number, cancel).await;
        // One that had ended before is not cancelled any more.
        if told != Told::Fail {
            self.note(Operation::Cancel, workload, invoked, told);
        }
    }

    async fn submit(&self, job: &Job) -> Told {
        let request = job.submission(self.seed, &self.module);
        let submit = |door: Client| {
            let request = request.clone();
            async move { door.submit(request).await.map(drop) }
        };
        let told = self.until_answered(job.number, submit).await;
        if told == Told::Fail {
            self.noted().refused.push(job.name());
        }
        told
    }

    /// Tries one door after the other until one answers for good.
    async fn until_answered<F>(&self, first: u64, ask: impl Fn(Client) -> F) -> Told
    where
        F: Future<Output = Result<(), ClientError>>,
    {
        let until = Instant::now() + SUBMIT_PATIENCE;
        let doors = self.doors.len() as u64;
        let mut last = Told::Fail;
        for turn in first.. {
            match ask(self.doors[(turn % doors) as usize].clone()).await {
                Ok(()) => return Told::Ok(None),
                Err(error) if may_pass(&error) => {
                    let reason = error.reason().map_or_else(|| "NO_ANSWER".to_owned(), |reason| reason.to_string());
                    *self.noted().refusals.entry(reason).or_default() += 1;
                    last = Told::Unknown;
                    if Instant::now() > until {
                        break;
                    }
                }
                Err(_) => return Told::Fail,
            }
            if (turn - first) % doors == doors - 1 {
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
        last
    }

    /// Asks after one workload after the other, at one door after the other.
    async fn ask(&self) {
        let mut dice = Dice::of(&[self.seed, 74]);
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            let chosen = {
                let noted = self.noted();
                // The newest are the ones of which something changes.
                let newest = noted.accepted.len().min(40);
                let from = noted.accepted.len() - newest;
                (newest > 0).then(|| noted.accepted[from + dice.below(newest as u64) as usize])
            };
            let Some(workload) = chosen else { continue };
            let door = self.doors[dice.below(self.doors.len() as u64) as usize].clone();
            let work = self.clone();
            tokio::spawn(async move { work.get(&door, workload).await });
        }
    }

    async fn get(&self, door: &Client, workload: WorkloadId) -> Option<Standing> {
        let invoked = self.micros();
        let request = v1::WorkloadServiceGetRequest { workload_id: workload.to_string() };
        let told = match door.workload(request).await {
            Ok(answer) => Told::Ok(answer.workload.map(|workload| standing(workload.state()))),
            Err(error) if error.reason() == Some(Reason::NotFound) => Told::Ok(Some(Standing::Absent)),
            Err(_) => Told::Unknown,
        };
        self.note(Operation::Get, workload, invoked, told);
        let Told::Ok(standing) = told else { return None };
        if let Some(Standing::Ended(how)) = standing {
            self.noted().ended.insert(workload, how);
        }
        standing
    }

    /// Those of what was acknowledged last that are not there; all the others are looked for in the log at the end.
    pub(crate) async fn missing(&self) -> Vec<WorkloadId> {
        let newest: Vec<_> = self.noted().accepted.iter().rev().take(LOOKED_FOR).copied().collect();
        let mut missing = Vec::new();
        for (turn, workload) in newest.into_iter().enumerate() {
            if self.get(&self.doors[turn % self.doors.len()], workload).await == Some(Standing::Absent) {
                missing.push(workload);
            }
        }
        missing
    }

    /// How many were accepted, and how many of them are known to have ended.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let noted = self.noted();
        (noted.accepted.len(), noted.ended.len())
    }

    /// Those that were accepted and are not known to have ended.
    fn open(&self) -> Vec<WorkloadId> {
        let noted = self.noted();
        noted.accepted.iter().filter(|workload| !noted.ended.contains_key(workload)).copied().collect()
    }

    /// Waits until all that was accepted has ended, as clients see it; gives those that have not, and how they stand.
    pub(crate) async fn settle(&self, within: Duration) -> Vec<(WorkloadId, Option<Standing>)> {
        let until = Instant::now() + within;
        self.sweep().await;
        loop {
            let mut left = Vec::new();
            for (turn, workload) in self.open().into_iter().enumerate() {
                let standing = self.get(&self.doors[turn % self.doors.len()], workload).await;
                if !matches!(standing, Some(Standing::Ended(_))) {
                    left.push((workload, standing));
                }
            }
            if left.is_empty() || Instant::now() > until {
                return left;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Looks through the list for those that have ended: of many it is quicker than a question each. It may lag, which is why
    /// it is no part of the history.
    async fn sweep(&self) {
        for door in self.doors.iter() {
            let Ok(seen) = observe::sweep(door).await else { continue };
            let ended = seen.into_iter().filter_map(|(id, seen)| match standing(seen.state) {
                Standing::Ended(how) => Some((id.parse::<WorkloadId>().ok()?, how)),
                Standing::Absent | Standing::Live => None,
            });
            self.noted().ended.extend(ended);
            return;
        }
    }

    /// Something new at each door, until it has ended; gives how long that took, or which door it did not at in time.
    pub(crate) async fn probe(&self, within: Duration) -> Result<Duration, String> {
        let began = Instant::now();
        let mut probes = JoinSet::new();
        for (place, door) in self.doors.iter().cloned().enumerate() {
            let work = self.clone();
            probes.spawn(async move { tokio::time::timeout(within, work.probe_at(door)).await.map_err(|_| place + 1) });
        }
        let failed: Vec<String> = probes
            .join_all()
            .await
            .into_iter()
            .filter_map(|probe| probe.err())
            .map(|place| format!("n{place}"))
            .collect();
        if failed.is_empty() {
            return Ok(began.elapsed());
        }
        Err(format!("nothing new that was given to {} has ended within {within:?}", failed.join(", ")))
    }

    async fn probe_at(&self, door: Client) {
        let request = v1::WorkloadServiceSubmitRequest {
            request_id: nexa_client::new_request_id(),
            program: Some(Program::ModuleHash(self.module.to_string())),
            entry: "probe".to_owned(),
            input_json: json!({ "name": "p" }).to_string(),
            name: "probe".to_owned(),
            priority: None,
            budget: None,
        };
        let workload_id = loop {
            match door.submit(request.clone()).await {
                Ok(answer) => break answer.workload_id,
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        loop {
            let request = v1::WorkloadServiceGetRequest { workload_id: workload_id.clone() };
            let answer = door.workload(request).await.ok().and_then(|answer| answer.workload);
            if answer.is_some_and(|workload| matches!(standing(workload.state()), Standing::Ended(_))) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How often commands were refused and tried again, by reason.
    pub(crate) fn refusals(&self) -> BTreeMap<String, usize> {
        self.noted().refusals.clone()
    }

    /// What clients were told, and the jobs by their workloads, and which were refused for good.
    pub(crate) fn told(&self) -> (Vec<Call>, BTreeMap<WorkloadId, Job>, Vec<String>) {
        let noted = self.noted();
        (noted.calls.clone(), noted.jobs.clone(), noted.refused.clone())
    }
}

fn gap(dice: &mut Dice, rate: f64) -> Duration {
    Duration::from_secs_f64(dice.exponential(1.0 / rate))
}

/// Whether to try again: whatever a fault may lead to, the disk's that is full, or gives back what was never written, too.
fn may_pass(error: &ClientError) -> bool {
    let of_faults = [Reason::DeadlineExceeded, Reason::DataCorrupt, Reason::DiskFull, Reason::Internal];
    let is_of_fault = error.reason().is_some_and(|reason| of_faults.contains(&reason));
    error.is_transient() || error.is_unreachable() || is_of_fault
}
