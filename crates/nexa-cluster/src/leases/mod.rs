//! Slices of providers' budgets, between a node's lanes, the leader, and the store.
//!
//! Every node tells the one who leads once a second what it holds and wants; whoever leads decides (`office`), has it
//! recorded, and tells the nodes. A node whose slices have become far too small says so at once, and so does everybody when
//! nodes come or go, or another one leads: nobody begins with nothing for a whole second. Both sides are step machines of
//! [`nexa_sched::lease`]; here they are given what happens, and what they want is done. Messages may get lost, come twice and
//! late: they say how things stand.
//!
//! Bounds: [`LETTERS_MAX`] messages that wait to be taken in, further ones are dropped, for the next ones say as much;
//! questions to the store end after [`STORE_WITHIN`]. The task ends with the run of the node. A panic in it ends it, and
//! with it all changes of slices by this node: it goes on with what it has, and others with theirs.

mod letter;
mod office;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use nexa_ports::clock::Clock;
use nexa_ports::leadership::{LeadError, Leadership};
use nexa_ports::membership::{Members, Membership, Standing};
use nexa_runtime::{Slices, SlicesReport};
use nexa_sched::ProviderBudget;
use nexa_sched::lease::{Budgets, BudgetsError, HolderId, LeaderSettings, Notice, ProviderReport, WaitingTenants};
use nexa_types::{Epoch, Generation, Millis, NodeId, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::letter::Letter;
use self::office::{Input, Office, Output, Trouble};
use crate::peers::{Class, Peers, Service};
use crate::stats::BudgetStats;

/// Between two reports of a node, and two decisions of a leader.
pub const TICK: Millis = Millis(1_000);
/// The shortest time between two of these.
pub const HURRY: Millis = Millis(100);
/// Messages that wait to be taken in.
pub const LETTERS_MAX: usize = 1_024;
/// How far lanes may be ahead of the rate of their slices: their buckets spread what agents get a turn for, and what has its
/// turn is sent when the store has it, which may take longer for some than for others.
pub const AHEAD: Millis = Millis(5_000);
/// How long the store may take. What was asked for is then open, and asked for again.
pub const STORE_WITHIN: Millis = Millis(10_000);

/// A node's side of its slices. [`Slices`] is one; a test may have another.
pub trait Slicing: Send + Sync {
    /// See [`Slices::budgets`].
    fn budgets(&self) -> Vec<ProviderBudget>;
    /// See [`Slices::begin`].
    fn begin(&self, run: HolderId);
    /// See [`Slices::end`].
    fn end(&self);
    /// See [`Slices::told`].
    fn told(&self, notice: Notice);
    /// See [`Slices::elsewhere`].
    fn elsewhere(&self, provider: &str, tenants: &WaitingTenants);
    /// See [`Slices::report`].
    fn report(&self) -> Option<SlicesReport>;
    /// See [`Slices::hungry`].
    fn hungry(&self) -> BoxFuture<'_, ()>;
}

impl Slicing for Slices {
    fn budgets(&self) -> Vec<ProviderBudget> {
        Self::budgets(self).to_vec()
    }

    fn begin(&self, run: HolderId) {
        Self::begin(self, run);
    }

    fn end(&self) {
        Self::end(self);
    }

    fn told(&self, notice: Notice) {
        Self::told(self, notice);
    }

    fn elsewhere(&self, provider: &str, tenants: &WaitingTenants) {
        Self::elsewhere(self, provider, tenants);
    }

    fn report(&self) -> Option<SlicesReport> {
        Self::report(self)
    }

    fn hungry(&self) -> BoxFuture<'_, ()> {
        Box::pin(Self::hungry(self))
    }
}

/// What slices are handed out with.
#[derive(Clone)]
pub struct LeasesPorts {
    /// The node's lanes.
    pub slices: Arc<dyn Slicing>,
    /// What only a leader writes.
    pub leadership: Arc<dyn Leadership>,
    /// Who is there and who leads.
    pub membership: Arc<dyn Membership>,
    /// The links. Whom to meet is somebody else's business.
    pub peers: Arc<dyn Peers>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// One run of a node, as far as slices go. Clones are the same.
#[derive(Clone)]
pub struct Leases {
    letters: mpsc::Sender<(HolderId, Letter)>,
    /// As it was last reported.
    told: Arc<Mutex<Vec<BudgetStats>>>,
}

impl Leases {
    /// Begins to hold slices for this run of the node, which is a member already, and to hand them out when it leads; until
    /// `stop`. Must be called within a tokio runtime. Without budgets it does nothing at all.
    ///
    /// # Errors
    /// [`BudgetsError`] if the budgets of the node's settings make no sense.
    pub fn start(
        run: HolderId,
        settings: LeaderSettings,
        ports: LeasesPorts,
        stop: CancellationToken,
    ) -> Result<Self, BudgetsError> {
        let (letters, inbox) = mpsc::channel(LETTERS_MAX);
        let told = Arc::default();
        let budgets = ports.slices.budgets();
        let office = Office::new(run.clone(), Budgets::new(&budgets)?, settings);
        if !budgets.is_empty() {
            ports.slices.begin(run.clone());
            let (now, answers) = (ports.clock.now(), FuturesUnordered::new());
            let (revision, leads, is_urgent) = (0, false, false);
            let told = Arc::clone(&told);
            let desk = Desk { run, office, ports, revision, answers, leads, last: now, due: now, is_urgent, told };
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = desk.work(inbox) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Ok(Self { letters, told })
    }

    /// What this node holds and wants of each provider, as it last told the leader; about a second old.
    #[must_use]
    pub fn budgets(&self) -> Vec<BudgetStats> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A message of another run, for [`Service::Leases`].
    ///
    /// # Errors
    /// What is wrong with it, for a log line.
    pub fn told(&self, from: &NodeId, generation: Generation, body: &[u8]) -> Result<(), String> {
        let letter = Letter::read(body)?;
        let from = HolderId { node: from.clone(), generation };
        if self.letters.try_send((from, letter)).is_err() {
            debug!("a message about slices was dropped: too many wait, or this node has no budgets");
        }
        Ok(())
    }
}

/// The task's own.
struct Desk {
    run: HolderId,
    office: Office,
    ports: LeasesPorts,
    /// Of the newest list of members.
    revision: u64,
    /// Questions to the store.
    answers: FuturesUnordered<BoxFuture<'static, Input>>,
    leads: bool,
    /// When this node reported last, and decided if it leads, and when it does so next.
    last: Timestamp,
    due: Timestamp,
    /// Whether its next report cannot wait.
    is_urgent: bool,
    told: Arc<Mutex<Vec<BudgetStats>>>,
}

impl Desk {
    async fn work(mut self, mut inbox: mpsc::Receiver<(HolderId, Letter)>) {
        let (clock, slices) = (self.ports.clock.clone(), self.ports.slices.clone());
        let (mut members, mut standing) = (self.ports.membership.members(), self.ports.membership.standing());
        loop {
            let list = members.borrow_and_update().clone();
            self.members(&list);
            if *standing.borrow_and_update() == Standing::Lost {
                warn!(run = %self.run, "the lease has ended: nothing is sent to shared providers any more");
                self.ports.slices.end();
                return;
            }
            let now = clock.now();
            if now >= self.due {
                (self.last, self.due) = (now, now.after(TICK));
                self.report(&list);
                self.step(Input::Tick);
            }
            tokio::select! {
                biased;
                changed = members.changed() => if changed.is_err() { return },
                changed = standing.changed() => if changed.is_err() { return },
                Some((from, letter)) = inbox.recv() => self.take(from, letter),
                Some(answer) = self.answers.next() => self.step(answer),
                () = slices.hungry() => {
                    self.is_urgent = true;
                    self.hurry();
                }
                () = clock.wait_until(self.due) => {}
            }
        }
    }

    /// Reports and decides soon.
    fn hurry(&mut self) {
        self.due = self.due.min(self.last.after(HURRY));
    }

    fn members(&mut self, list: &Members) {
        // Before the first list was read nobody knows who is there.
        if list.revision == self.revision {
            return;
        }
        self.revision = list.revision;
        let id = |node: &NodeId, generation| HolderId { node: node.clone(), generation };
        let runs = list.nodes.iter().map(|(node, member)| id(node, member.generation)).collect();
        let leader = list.leader.as_ref().map(|leader| (id(&leader.node, leader.generation), leader.epoch));
        self.step(Input::Members { runs, leader });
        self.is_urgent = true;
        self.hurry();
    }

    /// Tells whoever leads how things stand here.
    fn report(&mut self, list: &Members) {
        let Some(leader) = &list.leader else { return };
        let Some(SlicesReport { report, tenants }) = self.ports.slices.report() else { return };
        let budget =
            |of: &ProviderReport| BudgetStats { provider: of.provider.clone(), held: of.kept, wanted: of.wanted };
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = report.of.iter().map(budget).collect();
        let tenants = letter::fitting(tenants);
        if leader.node == self.run.node {
            self.step(Input::Heard { from: self.run.clone(), report, tenants });
        } else {
            let (report, tenants, is_urgent) = (Some(report), Some(tenants), Some(self.is_urgent));
            let letter = Letter { report, tenants, is_urgent, ..Letter::default() };
            self.send(&leader.node, &letter);
        }
        self.is_urgent = false;
    }

    fn take(&mut self, from: HolderId, letter: Letter) {
        let Letter { notices, elsewhere, report, tenants, is_urgent } = letter;
        for notice in notices.into_iter().flatten() {
            self.ports.slices.told(notice);
        }
        for (provider, tenants) in elsewhere.into_iter().flatten() {
            self.ports.slices.elsewhere(&provider, &tenants);
        }
        if let Some(report) = report {
            self.step(Input::Heard { from, report, tenants: tenants.unwrap_or_default() });
            if is_urgent == Some(true) && self.leads {
                self.hurry();
            }
        }
    }

    fn send(&self, to: &NodeId, letter: &Letter) {
        if let Err(error) = self.ports.peers.tell(to, Class::Control, Service::Leases, Bytes::from(letter.write())) {
            // The next one says as much.
            debug!(%to, %error, "a message about slices was not sent");
        }
    }

    fn step(&mut self, input: Input) {
        let now = self.ports.clock.now();
        let mut letters: BTreeMap<NodeId, Letter> = BTreeMap::new();
        for output in self.office.step(input, now) {
            match output {
                Output::Open { epoch } => self.answers.push(open(&self.ports, epoch, now)),
                Output::Write { epoch, file, expected, value } => {
                    let (leadership, name) = (self.ports.leadership.clone(), file.name());
                    let write = async move { leadership.put_record(epoch, name, expected, value).await };
                    let result = within(&self.ports, now, write);
                    self.answers.push(Box::pin(async move {
                        let result = result.await;
                        Input::Written { epoch, file, result }
                    }));
                }
                Output::Notice(notice) if notice.holder == self.run => self.ports.slices.told(notice),
                Output::Notice(notice) => {
                    let letter = letters.entry(notice.holder.node.clone()).or_default();
                    letter.notices.get_or_insert_default().push(notice);
                }
                Output::Elsewhere(holder, tenants) if holder == self.run => {
                    tenants.iter().for_each(|(provider, tenants)| self.ports.slices.elsewhere(provider, tenants));
                }
                Output::Elsewhere(holder, tenants) => {
                    letters.entry(holder.node).or_default().elsewhere = Some(tenants);
                }
            }
        }
        letters.iter().for_each(|(to, letter)| self.send(to, letter));
        if self.office.is_open() != self.leads {
            self.leads = !self.leads;
            self.hurry();
            let (run, leads) = (&self.run, self.leads);
            info!(%run, leads, "slices of providers' budgets are handed out here, or no more");
        }
    }
}

/// Waits for the store, and says what became of it.
fn within<T: Send + 'static>(
    ports: &LeasesPorts,
    now: Timestamp,
    doing: impl Future<Output = Result<T, LeadError>> + Send + 'static,
) -> BoxFuture<'static, Result<T, Trouble>> {
    let late = ports.clock.wait_until(now.after(STORE_WITHIN));
    Box::pin(async move {
        match select(Box::pin(doing), late).await {
            Either::Left((Ok(done), _)) => Ok(done),
            Either::Left((Err(LeadError::Deposed { .. }), _)) => Err(Trouble::Deposed),
            Either::Left((Err(LeadError::Changed { current, .. }), _)) => Err(Trouble::Changed(current)),
            Either::Left((Err(LeadError::Store(error)), _)) => {
                warn!(%error, "slices are not recorded; it is tried again");
                Err(Trouble::Failed)
            }
            Either::Right(_) => {
                warn!("the store does not answer about slices; it is tried again");
                Err(Trouble::Failed)
            }
        }
    })
}

/// Tells the store of an election, and reads what is outstanding.
fn open(ports: &LeasesPorts, epoch: Epoch, now: Timestamp) -> BoxFuture<'static, Input> {
    let leadership = ports.leadership.clone();
    let doing = within(ports, now, async move {
        leadership.lead(epoch).await?;
        Ok(leadership.records(office::PREFIX.to_owned()).await?)
    });
    Box::pin(async move {
        let records = doing.await.and_then(|records| {
            let read = records.into_iter().map(|record| office::read(record.name, record.version, &record.value));
            read.collect::<Result<_, String>>().map_err(|error| {
                // Whatever is outstanding there must not be given to anybody else.
                warn!(error, "slices cannot be read, so none is changed");
                Trouble::Failed
            })
        });
        Input::Opened { epoch, records }
    })
}

#[cfg(test)]
mod tests;
