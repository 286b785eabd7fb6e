//! Reads pages: what a query finds, which there are, what they say.
//!
//! An agent's own pages are all ranked, up to [`PAGES_RANKED_MAX`] and [`RANKED_BYTES_MAX`]; of an agent with more, and of a
//! workload or a tenant, the store names the best [`WIDE_PAGES_MAX`] by words and as many by nearness, and these are ranked in
//! the same way, as far as the bytes go. What the store does not have yet is always among what is ranked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nexa_paging::{FoundMessage, Mode, OwnedPage, PagingConfig, Query, RecallBudget, Why, rank_pages};
use nexa_ports::embedder::{EmbedCall, UnitVector, Urgency};
use nexa_ports::pages::{ANSWER_PAGES_MAX, PageQuery, PageVector, Scope, StoredPage, behind};
use nexa_types::{AgentId, GlobalSeq, PageId, TenantId, Version};
use tracing::debug;

use crate::stored::owned;
use crate::{Asked, PageLine, Recalled, RememberError, Shared, add};

/// Pages of one agent that are all ranked.
pub const PAGES_RANKED_MAX: usize = 2_048;
/// Bytes of such pages.
pub const RANKED_BYTES_MAX: usize = 64 << 20;
/// Queries that read and rank pages at once. Further ones wait for as long as their callers do.
pub const RECALLS_AT_ONCE: usize = 8;
/// Pages of a wider scope that are ranked, found by words; and as many found by nearness.
pub const WIDE_PAGES_MAX: usize = 256;
/// Those of them that are read together.
const WIDE_PAGES_AT_ONCE: usize = 64;
/// How long a query waits for its vector. Then: words only.
const VECTOR_WAIT: Duration = Duration::from_secs(2);
/// Pages that an export reads at once.
const EXPORT_PAGES: usize = 64;

pub(crate) async fn recall(shared: &Arc<Shared>, asked: Asked, seen: GlobalSeq) -> Result<Recalled, RememberError> {
    let Asked { scope, query, messages, tokens } = asked;
    let vector = vector_of(shared, &scope, &query).await;
    let model = shared.outside.embedder.as_ref().map(|embedder| embedder.model().to_owned());
    let near = model.clone().zip(vector.clone()).map(|(model, vector)| PageVector { model, vector });
    let _turn = shared.recalls.acquire().await.expect("nobody closes it");
    // First what waits: a page that is stored meanwhile is then met twice, and not missed.
    let mut pages = shared.state().unstored(&scope);
    let stored = match &scope {
        Scope::Agent(tenant, agent) => match all_of(shared, tenant, *agent).await? {
            Some(all) => all,
            None => best_of(shared, scope.clone(), &query, near).await?,
        },
        _ => best_of(shared, scope.clone(), &query, near).await?,
    };
    let stored = {
        let mut state = shared.state();
        state.embed_found(&stored, model.as_deref());
        state.left(stored)
    };
    shared.unembedded.notify_one();
    pages.extend(stored.iter().filter_map(|page| owned(page, model.as_deref())));
    let count = pages.len();
    let rank = move || {
        let vector = vector.as_ref().map(UnitVector::numbers);
        let asked = Query { text: &query, vector, mode: Mode::Hybrid, ..Query::default() };
        rank_pages(&pages, &asked, &PagingConfig::default(), RecallBudget { messages, tokens })
    };
    let ranked = tokio::task::spawn_blocking(rank).await;
    let (messages, mode) = ranked.map_err(|error| RememberError::Broken(error.to_string()))?;
    add(&shared.counters.recalls, 1);
    add(&shared.counters.ranked, count);
    Ok(Recalled { messages, mode, seen, pages: count })
}

async fn vector_of(shared: &Shared, scope: &Scope, query: &str) -> Option<UnitVector> {
    let embedder = shared.outside.embedder.as_ref()?;
    let call = EmbedCall {
        texts: vec![query.into()],
        tenant: scope.tenant().clone(),
        urgency: Urgency::Query,
        deadline: VECTOR_WAIT,
        cancel: shared.stop.child_token(),
    };
    match embedder.embed(call).await {
        Ok(made) => made.vectors.into_iter().next(),
        Err(error) => {
            debug!(%error, "a query has no vector: words are searched");
            None
        }
    }
}

/// All stored pages of an agent; `None` if there are too many.
async fn all_of(shared: &Shared, tenant: &TenantId, agent: AgentId) -> Result<Option<Vec<StoredPage>>, RememberError> {
    let (mut all, mut from, mut bytes) = (Vec::new(), Version(0), 0);
    loop {
        let some = shared.outside.pages.scan(tenant.clone(), agent, from, ANSWER_PAGES_MAX).await?;
        let Some(last) = some.last() else { return Ok(Some(all)) };
        from = behind(last);
        let is_last = some.len() < ANSWER_PAGES_MAX;
        bytes += some.iter().map(StoredPage::bytes).sum::<usize>();
        all.extend(some);
        if is_last {
            return Ok(Some(all));
        }
        if all.len() >= PAGES_RANKED_MAX || bytes >= RANKED_BYTES_MAX {
            return Ok(None);
        }
    }
}

/// The stored pages of a scope that a query finds.
async fn best_of(
    shared: &Shared,
    scope: Scope,
    query: &str,
    near: Option<PageVector>,
) -> Result<Vec<StoredPage>, RememberError> {
    let tenant = scope.tenant().clone();
    let query = PageQuery { words: Some(query.to_owned()), near, best: WIDE_PAGES_MAX };
    let hits = shared.outside.pages.search(scope, query).await?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    // The best by words come first, and what is only near last.
    for some in hits.chunks(WIDE_PAGES_AT_ONCE) {
        let mut by_agent: BTreeMap<AgentId, Vec<PageId>> = BTreeMap::new();
        for hit in some {
            by_agent.entry(hit.agent).or_default().push(hit.id);
        }
        for (agent, ids) in by_agent {
            let read = shared.outside.pages.read(tenant.clone(), agent, ids).await?;
            bytes += read.iter().map(StoredPage::bytes).sum::<usize>();
            found.extend(read);
        }
        if bytes >= RANKED_BYTES_MAX {
            break;
        }
    }
    Ok(found)
}

/// Pages of an agent that begin one after the other.
struct Stretch {
    stored: Vec<StoredPage>,
    /// What the store did not have, or has by now.
    unstored: Vec<OwnedPage>,
    /// Where the next one begins, if there is more.
    next: Option<Version>,
}

/// Pages of an agent from one place on; at most so many, unless several begin at one message. What waits may be before what is
/// stored: batches may fail.
async fn stretch(
    shared: &Shared,
    tenant: &TenantId,
    agent: AgentId,
    from: Version,
    pages_max: usize,
) -> Result<Stretch, RememberError> {
    let pages_max = pages_max.clamp(1, ANSWER_PAGES_MAX);
    let first = |page: &OwnedPage| page.messages.first().map(|message| message.seq);
    // First what waits: a page that is stored meanwhile is then met twice, and not missed.
    let mut unstored = shared.state().unstored(&Scope::Agent(tenant.clone(), agent));
    unstored.retain(|page| first(page) >= Some(from));
    let stored = shared.outside.pages.scan(tenant.clone(), agent, from, pages_max).await?;
    let mut next = (stored.len() >= pages_max).then(|| stored.last().map(behind)).flatten();
    let mut stored = shared.state().left(stored);
    let firsts = stored.iter().map(|page| page.first).chain(unstored.iter().filter_map(first));
    let firsts: BTreeSet<Version> = firsts.collect();
    if let Some(beyond) = firsts.into_iter().nth(pages_max) {
        next = Some(next.map_or(beyond, |next| next.min(beyond)));
    }
    if let Some(next) = next {
        stored.retain(|page| page.first < next);
        unstored.retain(|page| first(page) < Some(next));
    }
    Ok(Stretch { stored, unstored, next })
}

pub(crate) async fn pages(
    shared: &Shared,
    tenant: &TenantId,
    agent: AgentId,
    from: Version,
    pages_max: usize,
) -> Result<(Vec<PageLine>, Option<Version>), RememberError> {
    let Stretch { stored, unstored, next } = stretch(shared, tenant, agent, from, pages_max).await?;
    let known: BTreeSet<PageId> = stored.iter().map(|page| page.id).collect();
    let is_new = |page: &&OwnedPage| page.id.is_none_or(|id| !known.contains(&id));
    let unstored = unstored.iter().filter(is_new).filter_map(waiting_line);
    let mut lines: Vec<PageLine> = stored.iter().map(line).chain(unstored).collect();
    lines.sort_by_key(|line| (line.first, line.id.is_none()));
    // What was open may have become a page meanwhile.
    lines.dedup_by(|line, before| line.id.is_none() && line.first <= before.last);
    Ok((lines, next))
}

fn line(page: &StoredPage) -> PageLine {
    PageLine {
        id: Some(page.id),
        first: page.first,
        last: page.last,
        first_at: page.first_at,
        last_at: page.last_at,
        messages: page.messages,
        tokens: u64::from(page.tokens),
        bytes: page.bytes() as u64,
        embedded: if page.vector.is_some() { page.messages } else { 0 },
        stored: true,
    }
}

fn waiting_line(page: &OwnedPage) -> Option<PageLine> {
    let (first, last) = (page.messages.first()?, page.messages.last()?);
    Some(PageLine {
        id: page.id,
        first: first.seq,
        last: last.seq,
        first_at: first.at,
        last_at: last.at,
        messages: page.messages.len() as u32,
        tokens: page.messages.iter().map(|message| u64::from(message.tokens)).sum(),
        bytes: 0,
        embedded: page.vectors.iter().flatten().count() as u32,
        stored: false,
    })
}

pub(crate) async fn messages(
    shared: &Shared,
    tenant: &TenantId,
    agent: AgentId,
    from: Version,
) -> Result<(Vec<FoundMessage>, Option<Version>), RememberError> {
    let Stretch { stored, unstored, next } = stretch(shared, tenant, agent, from, EXPORT_PAGES).await?;
    let pages = stored.iter().filter_map(|page| owned(page, None)).chain(unstored);
    let mut by_place: BTreeMap<Version, FoundMessage> = BTreeMap::new();
    for page in pages {
        for message in page.messages {
            let (agent, page, score, why) = (page.agent, page.id, 0.0, Why::default());
            by_place.entry(message.seq).or_insert(FoundMessage { agent, page, message, score, why });
        }
    }
    Ok((by_place.into_values().collect(), next))
}
