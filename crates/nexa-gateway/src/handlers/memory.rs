//! What agents remember: recall, list, count, export, forget, rebuild.
//!
//! Whose pages may be found is decided here from the caller and the row of the agent that is named; a caller says how widely to
//! look and never where.

use futures::stream;
use nexa_paging::FoundMessage;
use nexa_ports::pages::{ANSWER_PAGES_MAX, PagesError, Reach, Scope};
use nexa_proto::refusal::Refusal;
use nexa_remember::{Asked, Recalled, RememberError, Remembrance};
use nexa_types::{GlobalSeq, Reason, Version};
use nexa_vm::module::Module;

use super::{By, Handlers, overloaded, store_refusal};
use crate::mediator::{
    Access, ExportMemory, Forget, Frames, ListPages, MemoryStats, PagesListed, Recall, Recollected, Stats,
};

impl Handlers {
    /// Follows the log from when there is a program that remembers.
    pub(super) fn follow_memory(&self, module: &Module) {
        if let Some(remembrance) = self.remembrance.as_ref().filter(|_| !module.memories.is_empty()) {
            remembrance.follow();
        }
    }

    fn remembrance(&self) -> Result<&Remembrance, Refusal> {
        self.remembrance.as_ref().ok_or_else(|| {
            Refusal::new(Reason::NotFound, "this node keeps nothing of what agents remember").hint("ask another node")
        })
    }

    pub(super) async fn recall(&self, by: &By, recall: Recall) -> Result<Recollected, Refusal> {
        let row = self.own_agent(by, recall.agent).await?;
        let tenant = row.tenant;
        let scope = match recall.reach {
            Reach::Agent => Scope::Agent(tenant, row.agent),
            Reach::Workload => Scope::Workload(tenant, row.workload),
            Reach::Tenant => Scope::Tenant(tenant),
        };
        let asked = Asked { scope, query: recall.query, messages: recall.messages_max, tokens: recall.tokens_max };
        let Recalled { messages, mode, seen, pages } = self.remembrance()?.recall(asked).await.map_err(refusal)?;
        Ok(Recollected { messages, mode, pages, seen })
    }

    pub(super) async fn list_pages(&self, by: &By, list: ListPages) -> Result<PagesListed, Refusal> {
        let row = self.own_agent(by, list.agent).await?;
        let pages = self.remembrance()?.pages(&row.tenant, row.agent, list.from, list.size).await;
        let (pages, next) = pages.map_err(refusal)?;
        Ok(PagesListed { pages, next })
    }

    pub(super) async fn memory_stats(&self, by: &By, stats: MemoryStats) -> Result<Stats, Refusal> {
        let row = self.own_agent(by, stats.agent).await?;
        let remembrance = self.remembrance()?;
        let (mut sum, mut from) = (Stats::default(), Version(0));
        loop {
            let pages = remembrance.pages(&row.tenant, row.agent, from, ANSWER_PAGES_MAX).await;
            let (pages, next) = pages.map_err(refusal)?;
            for page in pages {
                sum.pages += u64::from(page.id.is_some());
                sum.messages += u64::from(page.messages);
                sum.tokens += page.tokens;
                sum.bytes += page.bytes;
                sum.embedded += u64::from(page.embedded);
                sum.unstored += u64::from(page.id.is_some() && !page.stored);
            }
            match next {
                Some(next) => from = next,
                None => {
                    let is_operator = by.identity.access == Access::Operator;
                    return Ok(Stats { node: is_operator.then(|| remembrance.standing()), ..sum });
                }
            }
        }
    }

    pub(super) async fn export_memory(
        &self,
        by: &By,
        export: ExportMemory,
    ) -> Result<Frames<Vec<FoundMessage>>, Refusal> {
        let row = self.own_agent(by, export.agent).await?;
        let state = (self.clone(), row, Some(Version(0)), self.may_stream()?);
        // One part in memory at a time: the next one is read when the one before is on its way.
        Ok(Frames::new(stream::try_unfold(state, |(handlers, row, from, permit)| async move {
            let Some(from) = from else { return Ok(None) };
            handlers.still_open()?;
            let part = handlers.remembrance()?.messages(&row.tenant, row.agent, from).await;
            let (messages, next) = part.map_err(refusal)?;
            Ok(Some((messages, (handlers, row, next, permit))))
        })))
    }

    /// Idempotent: of what is forgotten, nothing is left to forget.
    pub(super) async fn forget(&self, by: &By, forget: Forget) -> Result<u64, Refusal> {
        let row = self.own_agent(by, forget.agent).await?;
        let pages = self.remembrance()?.forget(row.agent, self.stamp(by)).await.map_err(refusal)?;
        Ok(pages as u64)
    }

    pub(super) async fn rebuild(&self) -> Result<GlobalSeq, Refusal> {
        self.remembrance()?.rebuild().await.map_err(refusal)
    }
}

fn refusal(error: RememberError) -> Refusal {
    let message = error.to_string();
    match error {
        RememberError::Behind { .. } => overloaded(message),
        RememberError::Store(error) => store_refusal(error),
        RememberError::Broken(_) => Refusal::new(Reason::Internal, message),
        RememberError::Unwritten { .. } => {
            Refusal::new(Reason::Unread, message).hint("once every node reads it: nexa formats raise")
        }
        RememberError::Pages(error) => match error {
            PagesError::Unavailable(_) | PagesError::Unknown(_) | PagesError::Fenced { .. } => {
                Refusal::new(Reason::StoreUnavailable, message).hint("ask again a little later")
            }
            PagesError::Damaged { .. } => {
                Refusal::new(Reason::StoreUnavailable, message).hint("that is being done: ask again a little later")
            }
            PagesError::Refused(_) => Refusal::new(Reason::InvalidArgument, message),
        },
    }
}
