//! The service of what agents remember: decode, ask, encode.

use futures::StreamExt;
use nexa_paging::{FoundMessage, Mode, PlaceInLog};
use nexa_ports::pages::Reach;
use nexa_ports::view::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};
use nexa_proto::convert::timestamp;
use nexa_proto::refusal::Refusal;
use nexa_proto::v1;
use nexa_remember::PageLine;
use nexa_types::{Reason, Version};
use tonic::{Request, Response, Status, async_trait};

use super::decode::{Decoded, id, unknown};
use super::services::{Door, FrameStream};
use crate::mediator as m;

/// Messages of one answer unless the caller says otherwise, and at most.
const MESSAGES_DEFAULT: usize = 10;
const MESSAGES_MAX: usize = 200;
/// Texts of one part of an export, in bytes; a longer one is a part of its own.
const PART_BYTES: usize = 1 << 20;

fn count(field: &str, count: i32, default: usize, max: usize) -> Decoded<usize> {
    match usize::try_from(count).map_err(|_| Refusal::field(field, "is negative"))? {
        0 => Ok(default),
        some => Ok(some.min(max)),
    }
}

fn recall(message: v1::ContextServiceRecallRequest) -> Decoded<m::Recall> {
    let reach = match v1::RecallReach::try_from(message.reach) {
        Ok(v1::RecallReach::Unspecified | v1::RecallReach::Agent) => Reach::Agent,
        Ok(v1::RecallReach::Workload) => Reach::Workload,
        Ok(v1::RecallReach::Tenant) => Reach::Tenant,
        Err(_) => return Err(unknown("reach", message.reach)),
    };
    Ok(m::Recall {
        agent: id("agent_id", &message.agent_id)?,
        reach,
        query: message.query,
        messages_max: count("messages_max", message.messages_max, MESSAGES_DEFAULT, MESSAGES_MAX)?,
        tokens_max: (message.tokens_max > 0).then_some(message.tokens_max),
    })
}

fn list_pages(message: v1::ContextServiceListPagesRequest) -> Decoded<m::ListPages> {
    let bad =
        || Refusal::new(Reason::CursorInvalid, "the page token was not made for this list; start from the first page");
    let from = match message.page_token.as_str() {
        "" => Version(0),
        token => {
            let digits = token.strip_prefix('m').filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
            Version(u64::from_str_radix(digits.ok_or_else(bad)?, 16).map_err(|_| bad())?)
        }
    };
    let size = count("page_size", message.page_size, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX)?;
    Ok(m::ListPages { agent: id("agent_id", &message.agent_id)?, size, from })
}

fn stats(message: v1::ContextServiceStatsRequest) -> Decoded<m::MemoryStats> {
    Ok(m::MemoryStats { agent: id("agent_id", &message.agent_id)? })
}

fn export(message: v1::ContextServiceExportRequest) -> Decoded<m::ExportMemory> {
    Ok(m::ExportMemory { agent: id("agent_id", &message.agent_id)? })
}

fn forget(message: v1::ContextServiceForgetRequest) -> Decoded<m::Forget> {
    Ok(m::Forget { agent: id("agent_id", &message.agent_id)? })
}

fn rebuild(_: v1::ContextServiceRebuildRequest) -> Decoded<m::Rebuild> {
    Ok(m::Rebuild)
}

fn remembered(found: FoundMessage) -> v1::RememberedMessage {
    let FoundMessage { agent, page, message, score, why } = found;
    let PlaceInLog { version, number } = PlaceInLog::of(message.seq);
    v1::RememberedMessage {
        role: message.role.as_str().to_owned(),
        speaker: message.speaker,
        text: message.text,
        at: Some(timestamp(message.at)),
        tokens: message.tokens,
        provenance: Some(v1::Provenance {
            agent_id: agent.to_string(),
            page_id: page.map(|page| page.to_string()).unwrap_or_default(),
            version: version.0,
            number,
            score,
            keywords: why.keywords,
            cosine: why.cosine,
            page: why.page,
            neighbours: why.neighbours,
            conversation: why.conversation,
        }),
    }
}

fn page(line: PageLine) -> v1::MemoryPage {
    v1::MemoryPage {
        page_id: line.id.map(|page| page.to_string()).unwrap_or_default(),
        first_version: PlaceInLog::of(line.first).version.0,
        last_version: PlaceInLog::of(line.last).version.0,
        first_at: Some(timestamp(line.first_at)),
        last_at: Some(timestamp(line.last_at)),
        messages: line.messages,
        tokens: line.tokens,
        bytes: line.bytes,
        embedded: line.embedded,
        stored: line.stored,
    }
}

/// Parts of which none has many bytes.
fn parts(messages: Vec<FoundMessage>) -> Vec<v1::ContextServiceExportResponse> {
    let mut parts: Vec<v1::ContextServiceExportResponse> = Vec::new();
    let mut room = 0;
    for message in messages.into_iter().map(remembered) {
        let bytes = message.text.len();
        match parts.last_mut().filter(|_| bytes <= room) {
            Some(part) => part.messages.push(message),
            None => {
                parts.push(v1::ContextServiceExportResponse { messages: vec![message] });
                room = PART_BYTES;
            }
        }
        room = room.saturating_sub(bytes);
    }
    parts
}

#[async_trait]
impl v1::context_service_server::ContextService for Door {
    type ExportStream = FrameStream<v1::ContextServiceExportResponse>;

    async fn recall(
        &self,
        request: Request<v1::ContextServiceRecallRequest>,
    ) -> Result<Response<v1::ContextServiceRecallResponse>, Status> {
        let m::Recollected { messages, mode, pages, seen } = self.ask(request, recall).await?;
        let mode = match mode {
            None => v1::RecallMode::Unspecified,
            Some(Mode::Keywords) => v1::RecallMode::Keywords,
            Some(Mode::Vectors) => v1::RecallMode::Vectors,
            Some(Mode::Hybrid) => v1::RecallMode::Hybrid,
        };
        Ok(Response::new(v1::ContextServiceRecallResponse {
            messages: messages.into_iter().map(remembered).collect(),
            mode: mode.into(),
            pages: u32::try_from(pages).unwrap_or(u32::MAX),
            seen_seq: seen.0,
        }))
    }

    async fn list_pages(
        &self,
        request: Request<v1::ContextServiceListPagesRequest>,
    ) -> Result<Response<v1::ContextServiceListPagesResponse>, Status> {
        let m::PagesListed { pages, next } = self.ask(request, list_pages).await?;
        let next_page_token = next.map(|next| format!("m{:x}", next.0)).unwrap_or_default();
        let pages = pages.into_iter().map(page).collect();
        Ok(Response::new(v1::ContextServiceListPagesResponse { pages, next_page_token }))
    }

    async fn stats(
        &self,
        request: Request<v1::ContextServiceStatsRequest>,
    ) -> Result<Response<v1::ContextServiceStatsResponse>, Status> {
        let sum = self.ask(request, stats).await?;
        Ok(Response::new(v1::ContextServiceStatsResponse {
            pages: sum.pages,
            messages: sum.messages,
            tokens: sum.tokens,
            bytes: sum.bytes,
            embedded: sum.embedded,
            unstored: sum.unstored,
            node_waiting: sum.node.map(|node| node.waiting),
            node_folded_seq: sum.node.map(|node| node.folded.0),
            node_stored: sum.node.map(|node| node.rows),
            node_recalls: sum.node.map(|node| node.recalls),
        }))
    }

    async fn export(
        &self,
        request: Request<v1::ContextServiceExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let frames = self.ask(request, export).await?;
        let parts = frames.flat_map(|messages| {
            futures::stream::iter(match messages {
                Ok(messages) => parts(messages).into_iter().map(Ok).collect::<Vec<_>>(),
                Err(refusal) => vec![Err(Status::from(refusal))],
            })
        });
        Ok(Response::new(Box::pin(parts)))
    }

    async fn forget(
        &self,
        request: Request<v1::ContextServiceForgetRequest>,
    ) -> Result<Response<v1::ContextServiceForgetResponse>, Status> {
        let pages = self.ask(request, forget).await?;
        Ok(Response::new(v1::ContextServiceForgetResponse { pages }))
    }

    async fn rebuild(
        &self,
        request: Request<v1::ContextServiceRebuildRequest>,
    ) -> Result<Response<v1::ContextServiceRebuildResponse>, Status> {
        let seen = self.ask(request, rebuild).await?;
        Ok(Response::new(v1::ContextServiceRebuildResponse { seen_seq: seen.0 }))
    }
}
