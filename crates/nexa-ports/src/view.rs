//! The port to read models: lists and searches, a moment behind the facts.
//!
//! Every answer says how far it has seen (`applied_seq`), and a caller that has just written waits for its own
//! position with [`Views::wait_applied`]. All of it is a fold of `nexa-view`; [`Views::rebuild`] makes it again.
//!
//! Holds, for every adapter:
//!   VI-1  an answer shows all facts up to its `applied_seq` and none after it
//!   VI-2  pages do not overlap and leave nothing out, whatever is added meanwhile
//!   VI-3  nothing of one tenant is in an answer to another
//!   VI-4  after a rebuild the digest is the same

mod memory;

use std::time::Duration;

use futures::future::BoxFuture;
use nexa_event::codec;
use nexa_types::{AgentId, AgentState, EffectKey, GlobalSeq, ModuleHash, Payload, TenantId, WorkloadId, WorkloadState};
use nexa_view::{AgentView, ApprovalView, HistoryLine, MemoryPlace, ProgramView, View, WorkloadView};

use crate::store::StoreError;

pub use memory::MemoryViews;

/// Items of a page unless the caller says otherwise.
pub const PAGE_ITEMS_DEFAULT: usize = 50;
/// The most items of a page; a larger wish gets so many.
pub const PAGE_ITEMS_MAX: usize = 500;
/// Terms of one search; further ones are left out.
pub const SEARCH_TERMS_MAX: usize = 32;

/// Which page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// How many items; 0 means [`PAGE_ITEMS_DEFAULT`], more than [`PAGE_ITEMS_MAX`] means that.
    pub size: usize,
    /// The `next` of the page before; `None` for the first page.
    pub token: Option<String>,
}

impl Page {
    /// The number of items that is meant.
    pub fn items(&self) -> usize {
        if self.size == 0 { PAGE_ITEMS_DEFAULT } else { self.size.min(PAGE_ITEMS_MAX) }
    }

    /// The position of the last item of the page before, if the token is one of this kind of list.
    ///
    /// # Errors
    /// [`ViewError::BadToken`] for any text that [`token`] did not make for this kind.
    pub fn after(&self, kind: ListKind) -> Result<Option<GlobalSeq>, ViewError> {
        let Some(text) = &self.token else { return Ok(None) };
        let digits = text.strip_prefix(kind.letter()).filter(|digits| digits.len() == 16).ok_or(ViewError::BadToken)?;
        // `from_str_radix` would take a sign.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(ViewError::BadToken);
        }
        u64::from_str_radix(digits, 16).map(|seq| Some(GlobalSeq(seq))).map_err(|_| ViewError::BadToken)
    }
}

/// The token for the page after an item.
pub fn token(kind: ListKind, last: GlobalSeq) -> String {
    format!("{}{:016x}", kind.letter(), last.0)
}

/// The lists; the token of one is refused by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// Newest first.
    Workloads,
    /// In order of birth.
    Agents,
    /// Oldest question first.
    Approvals,
    /// Newest first.
    Programs,
    /// Newest first.
    History,
}

impl ListKind {
    fn letter(self) -> char {
        match self {
            Self::Workloads => 'w',
            Self::Agents => 'a',
            Self::Approvals => 'q',
            Self::Programs => 'p',
            Self::History => 'h',
        }
    }

    /// Whether the newest items come first.
    pub fn newest_first(self) -> bool {
        matches!(self, Self::Workloads | Self::Programs | Self::History)
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The items.
    pub items: Vec<T>,
    /// The token of the next page, if there may be one.
    pub next: Option<String>,
    /// How far the answer has seen.
    pub applied_seq: GlobalSeq,
}

/// Which agents to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFilter {
    /// Of this workload only.
    pub workload: Option<WorkloadId>,
    /// In one of these states only; empty for all.
    pub states: Vec<AgentState>,
}

/// Which approvals to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApprovalFilter {
    /// Of this workload only.
    pub workload: Option<WorkloadId>,
    /// Those that wait for an answer only.
    pub pending_only: bool,
}

/// A found line of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryHit {
    /// The line, its text shortened to some words around what was found.
    pub line: HistoryLine,
    /// The name of its agent.
    pub agent_name: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The page token is none of this list.
    #[error("the page token was not made for this list; start from the first page")]
    BadToken,
    /// The read models did not get as far in time.
    #[error("read models have seen position {applied} and not yet {wanted}; try again later")]
    Behind {
        /// What the caller waits for.
        wanted: GlobalSeq,
        /// How far they have seen.
        applied: GlobalSeq,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a reading call ends with.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ViewError>>;

/// Lists and searches. All calls are cancel-safe.
pub trait Views: Send + Sync {
    /// Workloads, newest first.
    fn list_workloads(
        &self,
        tenant: TenantId,
        state: Option<WorkloadState>,
        page: Page,
    ) -> Answer<'_, Listed<WorkloadView>>;

    /// A workload; `None` also if it is another tenant's.
    fn workload(&self, tenant: TenantId, workload: WorkloadId) -> Answer<'_, Option<WorkloadView>>;

    /// Agents in order of their birth.
    fn list_agents(&self, tenant: TenantId, filter: AgentFilter, page: Page) -> Answer<'_, Listed<AgentView>>;

    /// An agent; `None` also if it is another tenant's.
    fn agent(&self, tenant: TenantId, agent: AgentId) -> Answer<'_, Option<AgentView>>;

    /// Approvals, oldest question first.
    fn list_approvals(&self, tenant: TenantId, filter: ApprovalFilter, page: Page) -> Answer<'_, Listed<ApprovalView>>;

    /// An approval by its effect; `None` also if it is another tenant's.
    fn approval(&self, tenant: TenantId, key: EffectKey) -> Answer<'_, Option<ApprovalView>>;

    /// Programs, newest first: one entry for each name that a module was put under.
    fn list_programs(&self, tenant: TenantId, page: Page) -> Answer<'_, Listed<ProgramView>>;

    /// The newest entry of a module.
    fn program(&self, tenant: TenantId, module: ModuleHash) -> Answer<'_, Option<ProgramView>>;

    /// Lines of history that have all words of the query, newest first. Words are compared without case; a word with
    /// other characters between letters means these parts in a row. A query without any word finds nothing.
    fn search_history(
        &self,
        tenant: TenantId,
        query: String,
        workload: Option<WorkloadId>,
        page: Page,
    ) -> Answer<'_, Listed<HistoryHit>>;

    /// Waits until answers show everything up to a position, at most for `deadline`.
    fn wait_applied(&self, min_seq: GlobalSeq, deadline: Duration) -> Answer<'_, ()>;

    /// How many facts the answers are behind.
    fn lag(&self) -> u64;

    /// Forgets all of it and folds it again. Answers meanwhile are from some moment of the past.
    fn rebuild(&self) -> Answer<'_, ()>;

    /// A hash over all views of a tenant, the same for the same facts.
    fn digest(&self, tenant: TenantId) -> Answer<'_, [u8; 32]>;
}

/// The words of a query, each as its parts in a row; what [`Views::search_history`] looks for.
pub fn search_terms(query: &str) -> Vec<Vec<String>> {
    query.split_whitespace().map(words).filter(|parts| !parts.is_empty()).take(SEARCH_TERMS_MAX).collect()
}

/// The words of a text in their order, as a search compares them: letters and digits, without case.
pub fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// A hash over views in the order of their keys, lines in the order of their positions, and memories in the order of
/// their places and keys, of one tenant.
pub fn digest<'a>(
    views: impl Iterator<Item = &'a View>,
    lines: impl Iterator<Item = &'a HistoryLine>,
    memories: impl Iterator<Item = (&'a MemoryPlace, &'a str, &'a Payload)>,
    tenant: &TenantId,
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("nexa.v1 read models");
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for view in views {
        match view {
            View::Workload(view) if view.tenant == *tenant => part(&codec::encode(view)),
            View::Agent(view) if view.tenant == *tenant => part(&codec::encode(view)),
            View::Approval(view) if view.tenant == *tenant => part(&codec::encode(view)),
            View::Program(view) if view.tenant == *tenant => part(&codec::encode(view)),
            _ => {}
        }
    }
    for line in lines.filter(|line| line.tenant == *tenant) {
        part(&line.position.0.to_le_bytes());
        part(line.kind.as_bytes());
        part(line.text.as_bytes());
    }
    for (place, key, value) in memories.filter(|(place, ..)| place.tenant == *tenant) {
        part(place.workload.as_ref().map_or(&[], |workload| workload.as_bytes().as_slice()));
        part(key.as_bytes());
        part(value.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_by_its_own_list_only() {
        let page = |token: &str| Page { size: 0, token: Some(token.into()) };
        let token = token(ListKind::Agents, GlobalSeq(77));
        assert_eq!(page(&token).after(ListKind::Agents), Ok(Some(GlobalSeq(77))));
        assert_eq!(page(&token).after(ListKind::History), Err(ViewError::BadToken));
        for hostile in ["", "a", "a+00000000000004d", "a00000000000000zz", "ä", "a000000000000004d0"] {
            assert_eq!(page(hostile).after(ListKind::Agents), Err(ViewError::BadToken), "{hostile}");
        }
    }

    #[test]
    fn a_page_has_a_bounded_size() {
        let items = |size| Page { size, token: None }.items();
        assert_eq!((items(0), items(7), items(usize::MAX)), (PAGE_ITEMS_DEFAULT, 7, PAGE_ITEMS_MAX));
    }
}
