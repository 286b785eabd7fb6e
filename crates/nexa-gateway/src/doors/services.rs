//! The services: decode, ask, encode.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use nexa_ports::view::Listed;
use nexa_proto::refusal::Refusal;
use nexa_proto::v1;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

use super::{decode, encode, nodes};
use crate::mediator::{Ask, Call, Credentials, Mediator, Submitted};

/// All services of the surface over one mediator.
pub(super) struct Door {
    mediator: Mediator,
}

impl Door {
    pub(super) fn new(mediator: Mediator) -> Self {
        Self { mediator }
    }

    pub(super) async fn ask<M, A: Ask>(
        &self,
        request: Request<M>,
        decode: fn(M) -> Result<A, Refusal>,
    ) -> Result<A::Answer, Status> {
        let (metadata, _, message) = request.into_parts();
        let ask = decode(message)?;
        Ok(self.mediator.ask_as(ask, |call| dress(call, &metadata)).await?)
    }
}

/// How often a call was sent before, as gRPC's retries tell it.
pub(super) const REPEATS: &str = "grpc-previous-rpc-attempts";

/// Puts what travelled beside a message into its call.
fn dress(call: &mut Call, metadata: &MetadataMap) {
    let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
    call.credentials = credentials(text("authorization"));
    call.patience = text("grpc-timeout").and_then(patience);
    call.repeats = repeats(text(REPEATS));
    call.trace = text("traceparent").and_then(nexa_runtime::trace::context);
}

/// What an `authorization` header shows.
pub(super) fn credentials(header: Option<&str>) -> Credentials {
    header.and_then(bearer).map_or(Credentials::None, |token| Credentials::Bearer(token.to_owned()))
}

/// Whether a call was sent before.
pub(super) fn repeats(header: Option<&str>) -> bool {
    header.is_some_and(|count| count != "0")
}

/// The token of an `authorization` header, whatever the case of its scheme.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A `grpc-timeout`: up to eight digits and a unit.
fn patience(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The items of a page as messages, its next token, and how far it has seen.
fn page<T, M>(listed: Listed<T>, encode: impl Fn(T) -> M) -> (Vec<M>, String, u64) {
    (listed.items.into_iter().map(encode).collect(), listed.next.unwrap_or_default(), listed.applied_seq.0)
}

pub(super) type FrameStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl v1::program_service_server::ProgramService for Door {
    async fn put(
        &self,
        request: Request<v1::ProgramServicePutRequest>,
    ) -> Result<Response<v1::ProgramServicePutResponse>, Status> {
        let put = self.ask(request, decode::put_program).await?;
        Ok(Response::new(encode::program_put(put)))
    }

    async fn get(
        &self,
        request: Request<v1::ProgramServiceGetRequest>,
    ) -> Result<Response<v1::ProgramServiceGetResponse>, Status> {
        let program = self.ask(request, decode::get_program).await?;
        Ok(Response::new(v1::ProgramServiceGetResponse { program: Some(encode::program(program)) }))
    }

    async fn list(
        &self,
        request: Request<v1::ProgramServiceListRequest>,
    ) -> Result<Response<v1::ProgramServiceListResponse>, Status> {
        let listed = self.ask(request, decode::list_programs).await?;
        let (programs, next_page_token, applied_seq) = page(listed, encode::listed_program);
        Ok(Response::new(v1::ProgramServiceListResponse { programs, next_page_token, applied_seq }))
    }
}

#[async_trait]
impl v1::workload_service_server::WorkloadService for Door {
    type WatchStream = FrameStream<v1::WorkloadServiceWatchResponse>;

    async fn submit(
        &self,
        request: Request<v1::WorkloadServiceSubmitRequest>,
    ) -> Result<Response<v1::WorkloadServiceSubmitResponse>, Status> {
        let Submitted { workload, root, module } = self.ask(request, decode::submit).await?;
        Ok(Response::new(v1::WorkloadServiceSubmitResponse {
            workload_id: workload.to_string(),
            root_agent_id: root.to_string(),
            module_hash: module.to_string(),
        }))
    }

    async fn get(
        &self,
        request: Request<v1::WorkloadServiceGetRequest>,
    ) -> Result<Response<v1::WorkloadServiceGetResponse>, Status> {
        let workload = self.ask(request, decode::get_workload).await?;
        Ok(Response::new(v1::WorkloadServiceGetResponse { workload: Some(encode::workload(workload, true)) }))
    }

    async fn get_plan(
        &self,
        request: Request<v1::WorkloadServiceGetPlanRequest>,
    ) -> Result<Response<v1::WorkloadServiceGetPlanResponse>, Status> {
        let planned = self.ask(request, decode::get_plan).await?;
        Ok(Response::new(v1::WorkloadServiceGetPlanResponse { plan: Some(super::planned::plan(&planned)) }))
    }

    async fn list(
        &self,
        request: Request<v1::WorkloadServiceListRequest>,
    ) -> Result<Response<v1::WorkloadServiceListResponse>, Status> {
        let listed = self.ask(request, decode::list_workloads).await?;
        let (workloads, next_page_token, applied_seq) = page(listed, |view| encode::workload(view, false));
        Ok(Response::new(v1::WorkloadServiceListResponse { workloads, next_page_token, applied_seq }))
    }

    async fn watch(
        &self,
        request: Request<v1::WorkloadServiceWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let frames = self.ask(request, decode::watch_workload).await?;
        Ok(Response::new(Box::pin(
            frames.map(|frame| Ok(v1::WorkloadServiceWatchResponse { frame: Some(encode::frame(frame?)) })),
        )))
    }

    async fn cancel(
        &self,
        request: Request<v1::WorkloadServiceCancelRequest>,
    ) -> Result<Response<v1::WorkloadServiceCancelResponse>, Status> {
        let workload_id = request.get_ref().workload_id.clone();
        self.ask(request, decode::cancel).await?;
        Ok(Response::new(v1::WorkloadServiceCancelResponse { workload_id }))
    }
}

#[async_trait]
impl v1::agent_service_server::AgentService for Door {
    type WatchStream = FrameStream<v1::AgentServiceWatchResponse>;

    async fn get(
        &self,
        request: Request<v1::AgentServiceGetRequest>,
    ) -> Result<Response<v1::AgentServiceGetResponse>, Status> {
        let agent = self.ask(request, decode::get_agent).await?;
        Ok(Response::new(v1::AgentServiceGetResponse { agent: Some(encode::agent(agent, true)) }))
    }

    async fn list(
        &self,
        request: Request<v1::AgentServiceListRequest>,
    ) -> Result<Response<v1::AgentServiceListResponse>, Status> {
        let listed = self.ask(request, decode::list_agents).await?;
        let (agents, next_page_token, applied_seq) = page(listed, |view| encode::agent(view, false));
        Ok(Response::new(v1::AgentServiceListResponse { agents, next_page_token, applied_seq }))
    }

    async fn watch(
        &self,
        request: Request<v1::AgentServiceWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let frames = self.ask(request, decode::watch_agent).await?;
        Ok(Response::new(Box::pin(
            frames.map(|frame| Ok(v1::AgentServiceWatchResponse { frame: Some(encode::frame(frame?)) })),
        )))
    }

    async fn send(
        &self,
        request: Request<v1::AgentServiceSendRequest>,
    ) -> Result<Response<v1::AgentServiceSendResponse>, Status> {
        self.ask(request, decode::send).await?;
        Ok(Response::new(v1::AgentServiceSendResponse {}))
    }

    async fn snapshot(
        &self,
        request: Request<v1::AgentServiceSnapshotRequest>,
    ) -> Result<Response<v1::AgentServiceSnapshotResponse>, Status> {
        let snapshot = self.ask(request, decode::snapshot).await?;
        Ok(Response::new(v1::AgentServiceSnapshotResponse {
            version: snapshot.version.0,
            snapshot: snapshot.bytes.to_vec(),
        }))
    }

    async fn migrate(
        &self,
        request: Request<v1::AgentServiceMigrateRequest>,
    ) -> Result<Response<v1::AgentServiceMigrateResponse>, Status> {
        let node = self.ask(request, decode::migrate).await?;
        Ok(Response::new(v1::AgentServiceMigrateResponse { node: node.to_string() }))
    }
}

#[async_trait]
impl v1::cluster_service_server::ClusterService for Door {
    type WatchStream = FrameStream<v1::ClusterServiceWatchResponse>;

    async fn list_nodes(
        &self,
        request: Request<v1::ClusterServiceListNodesRequest>,
    ) -> Result<Response<v1::ClusterServiceListNodesResponse>, Status> {
        let nodes = self.ask(request, decode::list_nodes).await?;
        Ok(Response::new(v1::ClusterServiceListNodesResponse { nodes: nodes::nodes(nodes) }))
    }

    async fn watch(
        &self,
        request: Request<v1::ClusterServiceWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let lists = self.ask(request, decode::watch_nodes).await?;
        Ok(Response::new(Box::pin(
            lists.map(|list| Ok(v1::ClusterServiceWatchResponse { nodes: nodes::nodes(list?) })),
        )))
    }

    async fn cordon(
        &self,
        request: Request<v1::ClusterServiceCordonRequest>,
    ) -> Result<Response<v1::ClusterServiceCordonResponse>, Status> {
        self.ask(request, decode::cordon).await?;
        Ok(Response::new(v1::ClusterServiceCordonResponse {}))
    }

    async fn drain(
        &self,
        request: Request<v1::ClusterServiceDrainRequest>,
    ) -> Result<Response<v1::ClusterServiceDrainResponse>, Status> {
        self.ask(request, decode::drain).await?;
        Ok(Response::new(v1::ClusterServiceDrainResponse {}))
    }

    async fn rebalance(
        &self,
        request: Request<v1::ClusterServiceRebalanceRequest>,
    ) -> Result<Response<v1::ClusterServiceRebalanceResponse>, Status> {
        self.ask(request, decode::rebalance).await?;
        Ok(Response::new(v1::ClusterServiceRebalanceResponse {}))
    }

    async fn list_formats(
        &self,
        request: Request<v1::ClusterServiceListFormatsRequest>,
    ) -> Result<Response<v1::ClusterServiceListFormatsResponse>, Status> {
        let formats = self.ask(request, decode::list_formats).await?;
        Ok(Response::new(nodes::formats(formats)))
    }

    async fn raise_format(
        &self,
        request: Request<v1::ClusterServiceRaiseFormatRequest>,
    ) -> Result<Response<v1::ClusterServiceRaiseFormatResponse>, Status> {
        self.ask(request, decode::raise_format).await?;
        Ok(Response::new(v1::ClusterServiceRaiseFormatResponse {}))
    }
}

#[async_trait]
impl v1::approval_service_server::ApprovalService for Door {
    async fn list(
        &self,
        request: Request<v1::ApprovalServiceListRequest>,
    ) -> Result<Response<v1::ApprovalServiceListResponse>, Status> {
        let listed = self.ask(request, decode::list_approvals).await?;
        let (approvals, next_page_token, applied_seq) = page(listed, encode::approval);
        Ok(Response::new(v1::ApprovalServiceListResponse { approvals, next_page_token, applied_seq }))
    }

    async fn answer(
        &self,
        request: Request<v1::ApprovalServiceAnswerRequest>,
    ) -> Result<Response<v1::ApprovalServiceAnswerResponse>, Status> {
        self.ask(request, decode::answer_approval).await?;
        Ok(Response::new(v1::ApprovalServiceAnswerResponse {}))
    }
}

#[async_trait]
impl v1::history_service_server::HistoryService for Door {
    async fn search(
        &self,
        request: Request<v1::HistoryServiceSearchRequest>,
    ) -> Result<Response<v1::HistoryServiceSearchResponse>, Status> {
        let listed = self.ask(request, decode::search_history).await?;
        let (hits, next_page_token, applied_seq) = page(listed, encode::hit);
        Ok(Response::new(v1::HistoryServiceSearchResponse { hits, next_page_token, applied_seq }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_beside_a_message_is_read_and_nonsense_is_not() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(patience("250m"), Some(Duration::from_millis(250)));
        assert_eq!(patience("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "m", "1", "999999999S", "-1S", "1é"] {
            assert_eq!(patience(wrong), None, "{wrong}");
        }
    }
}
