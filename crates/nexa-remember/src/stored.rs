//! A page as the store keeps it, and back.

use nexa_event::effect::ConversationScope;
use nexa_paging::{MemoryPage, OwnedPage, SealedPage, keyword_text};
use nexa_ports::embedder::UnitVector;
use nexa_ports::pages::{PAGE_BYTES_MAX, PageKind, PageVector, Reach, StoredPage};
use nexa_types::GlobalSeq;

pub(crate) fn reach_of(scope: ConversationScope) -> Reach {
    match scope {
        ConversationScope::Agent => Reach::Agent,
        ConversationScope::Workload => Reach::Workload,
        ConversationScope::Tenant => Reach::Tenant,
    }
}

/// A page as it is stored, with vectors if a model is named that made them and there is room for them.
pub(crate) fn stored(sealed: &SealedPage, model: Option<&str>) -> StoredPage {
    let SealedPage { page, .. } = sealed;
    let (first, last) = (page.messages.first(), page.messages.last());
    let model = model.filter(|model| !model.is_empty());
    let vector = model.and_then(|model| {
        Some(PageVector { model: model.to_owned(), vector: UnitVector::towards(page.embedding.clone())? })
    });
    let text: Vec<String> = page.messages.iter().map(keyword_text).collect();
    let tokens = page.messages.iter().fold(0u32, |sum, message| sum.saturating_add(message.tokens));
    let mut stored = StoredPage {
        id: page.id,
        tenant: sealed.tenant.clone(),
        workload: sealed.workload,
        agent: sealed.agent,
        reach: reach_of(sealed.scope),
        kind: PageKind::Raw,
        first: first.map(|message| message.seq).unwrap_or_default(),
        last: last.map(|message| message.seq).unwrap_or_default(),
        first_at: first.map(|message| message.at).unwrap_or_default(),
        last_at: last.map(|message| message.at).unwrap_or_default(),
        supersedes: None,
        messages: page.messages.len() as u32,
        tokens,
        body: page.body(),
        text: text.join("\n"),
        message_vectors: if vector.is_some() { page.vectors_body() } else { Vec::new() },
        vector,
        importance: page.importance(),
    };
    if stored.bytes() > PAGE_BYTES_MAX {
        // It is found by its words.
        (stored.vector, stored.message_vectors) = (None, Vec::new());
    }
    stored
}

/// A page that was stored; `None` if its bytes are not those of its id, or none that this build reads. Vectors of another
/// model are left out.
pub(crate) fn owned(page: &StoredPage, model: Option<&str>) -> Option<OwnedPage> {
    let is_ours = page.vector.as_ref().is_some_and(|vector| Some(vector.model.as_str()) == model);
    let vectors: &[u8] = if is_ours { &page.message_vectors } else { &[] };
    let read = MemoryPage::from_stored(page.agent, &page.body, vectors).ok().filter(|read| read.id == page.id);
    if read.is_none() {
        tracing::warn!(page = %page.id, agent = %page.agent, "a stored page is not what its id says, and is left out");
    }
    let MemoryPage { id, messages, vectors, .. } = read?;
    Some(OwnedPage { agent: page.agent, id: Some(id), messages, vectors })
}

/// A page that was stored, as it was before it was; `None` as for [`owned`].
pub(crate) fn sealed(page: &StoredPage) -> Option<SealedPage> {
    let OwnedPage { messages, .. } = owned(page, None)?;
    let scope = match page.reach {
        Reach::Agent => ConversationScope::Agent,
        Reach::Workload => ConversationScope::Workload,
        Reach::Tenant => ConversationScope::Tenant,
    };
    Some(SealedPage {
        // It is behind everything that is still to come.
        position: GlobalSeq(0),
        tenant: page.tenant.clone(),
        workload: page.workload,
        agent: page.agent,
        scope,
        page: MemoryPage::new(page.agent, messages, Vec::new()),
    })
}

#[cfg(test)]
mod tests {
    use nexa_event::effect::Role;
    use nexa_paging::{MemoryMessage, MessageVector, VECTOR_DIMENSIONS_MAX};
    use nexa_types::{AgentId, TenantId, Timestamp, Version, WorkloadId};

    use super::*;

    fn page(text_bytes: usize) -> SealedPage {
        let agent = AgentId::from_bytes([1; 16]);
        let message = |seq| MemoryMessage {
            seq: Version(seq),
            role: Role::User,
            speaker: String::new(),
            text: "x".repeat(text_bytes),
            at: Timestamp(0),
            tokens: 1,
        };
        let vector = MessageVector::new(&[1.0; VECTOR_DIMENSIONS_MAX]);
        SealedPage {
            position: GlobalSeq(1),
            tenant: TenantId::local(),
            workload: WorkloadId::from_bytes([1; 16]),
            agent,
            scope: ConversationScope::Agent,
            page: MemoryPage::new(agent, (1..=64).map(message).collect(), vec![vector; 64]),
        }
    }

    #[test]
    fn a_page_that_is_too_large_with_its_vectors_is_stored_without_them() {
        let small = stored(&page(100), Some("m"));
        assert!(small.vector.is_some() && !small.message_vectors.is_empty() && small.bytes() <= PAGE_BYTES_MAX);
        let large = stored(&page(7_000), Some("m"));
        assert!(large.vector.is_none() && large.message_vectors.is_empty());
        assert!(large.bytes() <= PAGE_BYTES_MAX, "{}", large.bytes());
    }
}
