//! A log that agents talk into, and a store of pages that fails when it is told to.

#![allow(dead_code, reason = "each file of tests uses some of it")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nexa_event::effect::{Answer, Conversation, ConversationScope, Finish, Heard, ModelReply, Role};
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, EffectResult, Intent, Program, Spawned, WorkloadEvent};
use nexa_ports::clock::SimClock;
use nexa_ports::embedder::Embedder;
use nexa_ports::formats::{Formats, Writing};
use nexa_ports::memory::MemoryStore;
use nexa_ports::pages::{
    Compacted, Done, Hit, MemoryPages, PageBatch, PageQuery, PageStore, PagesError, Scope, Shard, Shards, StoredPage,
};
use nexa_ports::store::{Append, Birth, Guard, RowChange, Stamp, Store};
use nexa_remember::{APPEND_EVERY, Outside, Remembrance};
use nexa_types::{
    AgentId, AgentState, Budget, Epoch, GlobalSeq, ModuleHash, NodeId, Outcome, PageId, Payload, PrincipalId,
    RequestId, Seq, Spend, StreamId, TenantId, Timestamp, Tokens, Version, WorkloadId,
};

pub(crate) const SIZE: u32 = 4;

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// A log that agents talk into.
pub(crate) struct Desk {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) pages: Arc<Failing>,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) writing: Writing,
}

/// An agent that talks.
pub(crate) struct Talker {
    pub(crate) tenant: TenantId,
    pub(crate) agent: AgentId,
    pub(crate) scope: ConversationScope,
    /// Messages of a page.
    pub(crate) size: u32,
    pub(crate) version: u64,
    pub(crate) said: u32,
}

/// Pages that fail while they are told to.
pub(crate) struct Failing {
    pages: MemoryPages,
    pub(crate) fails: AtomicBool,
    /// Whether nothing can be deleted.
    pub(crate) keeps: AtomicBool,
    /// Whether no page can be read by its id.
    pub(crate) is_unreadable: AtomicBool,
    /// Shards that are damaged until they are dropped.
    pub(crate) damaged: Mutex<Vec<Shard>>,
    /// Batches that are taken before all others fail.
    pub(crate) takes: AtomicUsize,
}

/// A word that no page may have that is to be stored.
pub(crate) const UNSPEAKABLE: &str = "unspeakable";

impl PageStore for Failing {
    fn shards(&self) -> Shards {
        self.pages.shards()
    }
    fn take_over(&self, shard: Shard, epoch: Epoch) -> Done<'_, GlobalSeq> {
        if let Some(damaged) = self.damage(shard) {
            return damaged;
        }
        self.pages.take_over(shard, epoch)
    }
    fn drop_pages(&self, shard: Shard, epoch: Epoch) -> Done<'_, ()> {
        self.damaged.lock().unwrap().retain(|damaged| *damaged != shard);
        self.pages.drop_pages(shard, epoch)
    }
    fn append(&self, batch: PageBatch) -> Done<'_, ()> {
        if let Some(damaged) = self.damage(batch.shard) {
            return damaged;
        }
        if self.fails.load(Ordering::SeqCst) {
            return Box::pin(async { Err(PagesError::Unavailable("told to".into())) });
        }
        if batch.pages.iter().any(|page| page.text.contains(UNSPEAKABLE)) {
            return Box::pin(async { Err(PagesError::Refused(format!("somebody says {UNSPEAKABLE}"))) });
        }
        match self.takes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => self.pages.append(batch),
            Err(_) => Box::pin(async { Err(PagesError::Unavailable("these were enough".into())) }),
        }
    }
    fn read(&self, tenant: TenantId, agent: AgentId, ids: Vec<PageId>) -> Done<'_, Vec<StoredPage>> {
        if self.is_unreadable.load(Ordering::SeqCst) {
            return Box::pin(async { Err(PagesError::Unavailable("told to".into())) });
        }
        self.pages.read(tenant, agent, ids)
    }
    fn scan(&self, tenant: TenantId, agent: AgentId, from: Version, pages_max: usize) -> Done<'_, Vec<StoredPage>> {
        if let Some(damaged) = self.damage(self.pages.shards().of(agent)) {
            return damaged;
        }
        self.pages.scan(tenant, agent, from, pages_max)
    }
    fn search(&self, scope: Scope, query: PageQuery) -> Done<'_, Vec<Hit>> {
        self.pages.search(scope, query)
    }
    fn delete_agent(&self, epoch: Epoch, tenant: TenantId, agent: AgentId, up_to: Version) -> Done<'_, usize> {
        if self.fails.load(Ordering::SeqCst) || self.keeps.load(Ordering::SeqCst) {
            return Box::pin(async { Err(PagesError::Unavailable("told to".into())) });
        }
        self.pages.delete_agent(epoch, tenant, agent, up_to)
    }
    fn delete_tenant(&self, shard: Shard, epoch: Epoch, tenant: TenantId) -> Done<'_, usize> {
        self.pages.delete_tenant(shard, epoch, tenant)
    }
    fn compact(&self, shard: Shard, epoch: Epoch) -> Done<'_, Compacted> {
        self.pages.compact(shard, epoch)
    }
}

impl Failing {
    fn empty() -> Arc<Self> {
        let pages = MemoryPages::new(Shards::new(4).unwrap());
        let [fails, keeps, is_unreadable] = [false; 3].map(AtomicBool::new);
        let (damaged, takes) = (Mutex::default(), AtomicUsize::new(usize::MAX));
        Arc::new(Self { pages, fails, keeps, is_unreadable, damaged, takes })
    }

    /// The shard of an agent cannot be read any more.
    pub(crate) fn break_shard_of(&self, agent: AgentId) {
        self.damaged.lock().unwrap().push(self.pages.shards().of(agent));
    }

    fn damage<T: Send>(&self, shard: Shard) -> Option<Done<'static, T>> {
        let is_damaged = self.damaged.lock().unwrap().contains(&shard);
        let what = "told to".to_owned();
        is_damaged.then(|| Box::pin(async move { Err(PagesError::Damaged { shard, what }) }) as Done<'static, T>)
    }
}

impl Desk {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(SimClock::new(Timestamp(1_000)));
        let writing = Writing::oldest(Formats::THIS_BUILD);
        writing.raise(Formats::THIS_BUILD.newest).unwrap();
        Self { store: Arc::new(MemoryStore::default()), pages: Failing::empty(), clock, writing }
    }

    /// The same log on another node, which has pages of its own.
    pub(crate) fn neighbour(&self) -> Self {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        Self { store, pages: Failing::empty(), clock, writing: self.writing.clone() }
    }

    /// The same log and the same pages, for another process.
    pub(crate) fn same(&self) -> Self {
        let (store, pages) = (self.store.clone(), self.pages.clone());
        Self { store, pages, clock: self.clock.clone(), writing: self.writing.clone() }
    }

    pub(crate) fn start(&self, embedder: Option<Arc<dyn Embedder>>) -> Remembrance {
        Remembrance::start(Outside {
            store: self.store.clone(),
            pages: self.pages.clone(),
            embedder,
            clock: self.clock.clone(),
            writing: self.writing.clone(),
        })
    }

    pub(crate) fn stamp(tenant: &TenantId) -> Stamp {
        let principal = PrincipalId::new("user:ada").unwrap();
        Stamp { at: Timestamp(1_000), tenant: tenant.clone(), principal, trace: None }
    }

    /// An agent of a workload of its own, unless it is the number of another's.
    pub(crate) async fn born(&self, name: &str, workload: u8, scope: ConversationScope) -> Talker {
        let (tenant, workload) = (tenant(name), WorkloadId::from_bytes([workload; 16]));
        let agent = AgentId::root(workload);
        let program =
            Program::Function { module: ModuleHash::from_bytes([1; 32]), entry: 0, args: Payload::new(vec![0x80]) };
        let spawned = Spawned {
            workload,
            name: "A".into(),
            parent: None,
            program,
            budget: Budget::default(),
            deadline: None,
            seed: 1,
            depth: 0,
            priority: 1,
            asks: None,
        };
        let submitted = WorkloadEvent::Submitted {
            request: RequestId::from_bytes([1; 16]),
            request_hash: [0; 32],
            name: "w".into(),
            root: agent,
            budget: Budget::default(),
            priority: 1,
        };
        let node = Some(NodeId::new("n1").unwrap());
        let first = Fact::Agent(AgentEvent::Spawned(spawned));
        let append = Append {
            stream: StreamId::Workload(workload),
            guard: Guard::Version,
            expected: Version(0),
            stamp: Self::stamp(&tenant),
            facts: vec![Fact::Workload(submitted)],
            row: None,
            takes: Vec::new(),
            posts: Vec::new(),
            births: vec![Birth { agent, workload, node, priority: 1, first }],
            also: None,
        };
        self.store.append(vec![append]).await.pop().unwrap().unwrap();
        Talker { tenant, agent, scope, size: SIZE, version: 1, said: 0 }
    }

    async fn append(&self, who: &mut Talker, events: Vec<AgentEvent>, state: AgentState) {
        let count = events.len() as u64;
        let append = Append {
            stream: StreamId::Agent(who.agent),
            guard: Guard::Owner(Epoch(1)),
            expected: Version(who.version),
            stamp: Self::stamp(&who.tenant),
            facts: events.into_iter().map(Fact::Agent).collect(),
            row: Some(RowChange { state, due: None }),
            takes: Vec::new(),
            posts: Vec::new(),
            births: Vec::new(),
            also: None,
        };
        self.store.append(vec![append]).await.pop().unwrap().unwrap();
        who.version += count;
    }

    /// Somebody says something to the agent, and it answers.
    pub(crate) async fn turn(&self, who: &mut Talker, question: &str, answer: &str) {
        let seq = Seq(u64::from(who.said) + 1);
        let conversation = Some(Conversation {
            scope: who.scope,
            name: "Guide".into(),
            page_size: who.size,
            heard: vec![Heard { role: Role::User, text: question.into() }],
            sent: None,
            before: who.said,
        });
        who.said += 2;
        let intent =
            Intent::Model { model: String::new(), sources: Vec::new(), reserved: Spend::default(), conversation };
        let reply = ModelReply {
            text: answer.into(),
            finish: Finish::Stop,
            model: String::new(),
            spend: Spend::default(),
            tokens_left_out: Tokens(0),
            tool_calls: Vec::new(),
        };
        let result = EffectResult::Done(Answer::Model(reply));
        let events = vec![
            AgentEvent::EffectIntended { seq, intent, fingerprint: [0; 32] },
            AgentEvent::EffectEnded { seq, result, spend: Spend::default() },
        ];
        self.append(who, events, AgentState::Running).await;
    }

    pub(crate) async fn ends(&self, who: &mut Talker) {
        let ended = AgentEvent::Ended { outcome: Outcome::Ok(Payload::new(vec![0xf6])), spend: Spend::default() };
        self.append(who, vec![ended], AgentState::Succeeded).await;
    }

    /// Lets time pass until so many pages are stored, or for ever.
    pub(crate) async fn until_stored(&self, remembrance: &Remembrance, rows: u64) {
        for _ in 0..10_000 {
            if remembrance.standing().rows >= rows {
                return;
            }
            self.clock.advance(APPEND_EVERY);
            tokio::task::yield_now().await;
        }
        panic!("{rows} pages should have been stored: {:?}", remembrance.standing());
    }
}
