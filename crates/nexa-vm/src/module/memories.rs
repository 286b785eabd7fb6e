//! Which model requests belong to a conversation that is remembered, and how: a table beside the requests.

use nexa_event::effect::{ConversationScope, EvictionPolicy, Remembering};
use nexa_types::Tokens;

use crate::wire::{Reader, WireError, Writer};

pub(super) fn write(writer: &mut Writer, (request, memory): &(u32, Remembering)) {
    writer.u32(*request);
    writer.u8(match memory.scope {
        ConversationScope::Agent => 0,
        ConversationScope::Workload => 1,
        ConversationScope::Tenant => 2,
    });
    writer.u64(memory.window.0);
    writer.u32(memory.page_size);
    writer.u32(memory.max_pages);
    writer.f64(memory.threshold);
    writer.u8(match memory.evict {
        EvictionPolicy::Lru => 0,
        EvictionPolicy::Lfu => 1,
        EvictionPolicy::Relevance => 2,
        EvictionPolicy::Hybrid => 3,
    });
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<(u32, Remembering), WireError> {
    let request = reader.u32()?;
    let scope = match reader.u8()? {
        0 => ConversationScope::Agent,
        1 => ConversationScope::Workload,
        2 => ConversationScope::Tenant,
        _ => return Err(reader.bad("whose memory a conversation is part of")),
    };
    let (window, page_size, max_pages) = (Tokens(reader.u64()?), reader.u32()?, reader.u32()?);
    let threshold = reader.f64()?;
    let evict = match reader.u8()? {
        0 => EvictionPolicy::Lru,
        1 => EvictionPolicy::Lfu,
        2 => EvictionPolicy::Relevance,
        3 => EvictionPolicy::Hybrid,
        _ => return Err(reader.bad("which page leaves")),
    };
    Ok((request, Remembering { scope, window, page_size, max_pages, threshold, evict }))
}
