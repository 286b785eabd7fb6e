//! A typed client of the public gRPC surface.
//!
//! What it does beyond the generated code:
//! - makes a request id for each command, once, so that trying again cannot do it twice;
//! - tries again when the server is away, starting or overloaded, for as long as the call's deadline and the
//!   client's budget for retries allow ([`retry`]);
//! - goes on with another node of the cluster when its own is away or going, if it knows several ([`doors`]);
//! - holds back new work while the server refuses most of it ([`throttle`]);
//! - begins with a few calls for new work at a time, and more as the server accepts them ([`window`]);
//! - keeps a watch going over lost connections and restarts of the server, without gap or repeat ([`watch`]);
//! - turns every error into a [`ClientError`] that keeps reason, hint and details ([`error`]).
//!
//! Messages are those of [`nexa_proto::v1`]: what the documentation of the surface says holds here word for word.

pub mod doors;
pub mod endpoint;
pub mod error;
pub mod retry;
pub mod throttle;
pub mod watch;
mod way;
pub mod window;

use std::convert::Infallible;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use nexa_proto::v1;
use nexa_proto::v1::agent_service_client::AgentServiceClient;
use nexa_proto::v1::approval_service_client::ApprovalServiceClient;
use nexa_proto::v1::cluster_service_client::ClusterServiceClient;
use nexa_proto::v1::context_service_client::ContextServiceClient;
use nexa_proto::v1::history_service_client::HistoryServiceClient;
use nexa_proto::v1::program_service_client::ProgramServiceClient;
use nexa_proto::v1::workload_service_client::WorkloadServiceClient;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::metadata::{Ascii, MetadataValue};
use uuid::Uuid;

use doors::Turn;
use retry::{Attempt, Budget};
use throttle::Throttle;
use way::Way;

pub use endpoint::Address;
pub use error::ClientError;
pub use retry::Patience;
pub use throttle::Throttling;
pub use watch::{From, Watched};

/// How often a call was sent before, as gRPC names it. A server under pressure looks up what became of it.
const REPEATS: &str = "grpc-previous-rpc-attempts";

/// What a client is made with.
#[derive(Clone, Default)]
pub struct Options {
    /// Shown with each call, if the server asks for tokens.
    pub token: Option<String>,
    /// The W3C `traceparent` of what the calls are part of, sent along with each. One that cannot be sent is left out.
    pub traceparent: Option<String>,
    /// The certificate, as PEM, of the authority that has signed those of servers at `https://` addresses.
    pub authority: Option<String>,
    /// How long and how often to try.
    pub patience: Patience,
    /// Whether new work is held back while the server has no room for it.
    pub throttling: Throttling,
}

/// A connection that many tasks may share. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    ways: Arc<[Way]>,
    turn: Arc<Turn>,
    token: Option<MetadataValue<Ascii>>,
    traceparent: Option<MetadataValue<Ascii>>,
    patience: Patience,
    budget: Arc<Budget>,
    throttle: Option<Arc<Throttle>>,
}

/// A request id that nobody else has.
pub fn new_request_id() -> String {
    Uuid::now_v7().to_string()
}

/// One method an RPC: clones what it needs for each attempt and keeps the request id the same over all of them. What
/// brings work may be held back, and says which request it is beside the message, too.
macro_rules! rpcs {
    ($($(#[$doc:meta])* $name:ident = $client:ident.$rpc:ident($request:ident) -> $response:ident $(, $id:ident $(, brings_work: $work:literal)?)?;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ClientError`], with the reasons that the surface's documentation names.
                pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, ClientError> {
                    #[allow(unused_mut)]
                    let mut request = request;
                    $(
                        if request.$id.is_empty() {
                            request.$id = new_request_id();
                        }
                    )?
                    let (bytes, max) = (nexa_proto::message_bytes(&request), nexa_proto::MESSAGE_BYTES_MAX);
                    if bytes > max {
                        return Err(ClientError::TooLong { bytes, max });
                    }
                    let brings_work = false $($(| $work)?)?;
                    let throttle = self.throttle.as_deref().filter(|_| brings_work);
                    let named: Option<MetadataValue<Ascii>> = None $(.or(request.$id.parse().ok()))?;
                    let named = named.filter(|_| brings_work);
                    retry::call(self.patience, &self.budget, throttle, &self.turn, |attempt| {
                        let mut client = $client::new(self.ways[attempt.door].clone())
                            .max_decoding_message_size(nexa_proto::MESSAGE_BYTES_MAX)
                            .max_encoding_message_size(nexa_proto::MESSAGE_BYTES_MAX);
                        let mut request = self.dressed(request.clone(), Some(attempt));
                        if let Some(named) = named.clone() {
                            request.metadata_mut().insert(nexa_proto::REQUEST_ID, named);
                        }
                        async move { client.$rpc(request).await }
                    })
                    .await
                }
            )*
        }
    };
}

rpcs! {
    /// Compiles and keeps a program. An empty request id is filled in.
    put_program = ProgramServiceClient.put(ProgramServicePutRequest) -> ProgramServicePutResponse, request_id, brings_work: true;
    /// Tells what a kept program offers.
    program = ProgramServiceClient.get(ProgramServiceGetRequest) -> ProgramServiceGetResponse;
    /// Lists kept programs, one page.
    programs = ProgramServiceClient.list(ProgramServiceListRequest) -> ProgramServiceListResponse;
    /// Submits a workload. An empty request id is filled in.
    submit = WorkloadServiceClient.submit(WorkloadServiceSubmitRequest) -> WorkloadServiceSubmitResponse, request_id, brings_work: true;
    /// Tells what has become of a workload.
    workload = WorkloadServiceClient.get(WorkloadServiceGetRequest) -> WorkloadServiceGetResponse;
    /// Plans a workload on the server's node, as if nothing of it had run.
    plan = WorkloadServiceClient.get_plan(WorkloadServiceGetPlanRequest) -> WorkloadServiceGetPlanResponse;
    /// Lists workloads, one page.
    workloads = WorkloadServiceClient.list(WorkloadServiceListRequest) -> WorkloadServiceListResponse;
    /// Ends a workload. An empty request id is filled in.
    cancel = WorkloadServiceClient.cancel(WorkloadServiceCancelRequest) -> WorkloadServiceCancelResponse, request_id;
    /// Tells what has become of an agent.
    agent = AgentServiceClient.get(AgentServiceGetRequest) -> AgentServiceGetResponse;
    /// Lists agents, one page.
    agents = AgentServiceClient.list(AgentServiceListRequest) -> AgentServiceListResponse;
    /// Sends a message to an agent. An empty request id is filled in.
    send = AgentServiceClient.send(AgentServiceSendRequest) -> AgentServiceSendResponse, request_id;
    /// Gives the newest kept snapshot of an agent.
    snapshot = AgentServiceClient.snapshot(AgentServiceSnapshotRequest) -> AgentServiceSnapshotResponse;
    /// Moves an agent to another node while it runs. For operators.
    migrate = AgentServiceClient.migrate(AgentServiceMigrateRequest) -> AgentServiceMigrateResponse;
    /// Lists the nodes. For operators, as what follows.
    nodes = ClusterServiceClient.list_nodes(ClusterServiceListNodesRequest) -> ClusterServiceListNodesResponse;
    /// Keeps new agents away from a node, or lets them come again.
    cordon = ClusterServiceClient.cordon(ClusterServiceCordonRequest) -> ClusterServiceCordonResponse;
    /// Begins to move every agent of a node away.
    drain = ClusterServiceClient.drain(ClusterServiceDrainRequest) -> ClusterServiceDrainResponse;
    /// Evens out the load of the nodes.
    rebalance = ClusterServiceClient.rebalance(ClusterServiceRebalanceRequest) -> ClusterServiceRebalanceResponse;
    /// Tells in which format is written what is stored, and which formats each node reads.
    formats = ClusterServiceClient.list_formats(ClusterServiceListFormatsRequest) -> ClusterServiceListFormatsResponse;
    /// Has a newer format be written, for good.
    raise_format = ClusterServiceClient.raise_format(ClusterServiceRaiseFormatRequest) -> ClusterServiceRaiseFormatResponse;
    /// Lists approvals that wait, one page.
    approvals = ApprovalServiceClient.list(ApprovalServiceListRequest) -> ApprovalServiceListResponse;
    /// Answers an approval. An empty request id is filled in.
    answer = ApprovalServiceClient.answer(ApprovalServiceAnswerRequest) -> ApprovalServiceAnswerResponse, request_id;
    /// Finds messages that agents remember, the best first.
    recall = ContextServiceClient.recall(ContextServiceRecallRequest) -> ContextServiceRecallResponse;
    /// Lists pages of what an agent remembers.
    memory_pages = ContextServiceClient.list_pages(ContextServiceListPagesRequest) -> ContextServiceListPagesResponse;
    /// Tells what an agent remembers, in numbers.
    memory_stats = ContextServiceClient.stats(ContextServiceStatsRequest) -> ContextServiceStatsResponse;
    /// Forgets what an agent remembers.
    forget_memory = ContextServiceClient.forget(ContextServiceForgetRequest) -> ContextServiceForgetResponse;
    /// Has the pages made again from the log. For operators.
    rebuild_memory = ContextServiceClient.rebuild(ContextServiceRebuildRequest) -> ContextServiceRebuildResponse;
    /// Searches what was said and done, one page.
    search = HistoryServiceClient.search(HistoryServiceSearchRequest) -> HistoryServiceSearchResponse;
}

impl Client {
    /// Connects to a server: `http://127.0.0.1:7331`, `127.0.0.1:7331`, `https://example.org:7331` or `unix:/run/nexa.sock`; or to the first that answers
    /// of several nodes of a cluster, with commas between their addresses.
    ///
    /// # Errors
    /// [`ClientError::Address`] if the text is no address, [`ClientError::NoAuthority`] if it wants TLS and
    /// [`Options::authority`] has nothing, [`ClientError::Connect`] if nobody answers there within the
    /// connect timeout.
    pub async fn connect(address: &str, options: Options) -> Result<Self, ClientError> {
        let addresses = doors::addresses(address)?;
        let (ways, first) = doors::connect(&addresses, options.authority.as_deref()).await?;
        Self::new(ways, first, options)
    }

    /// A client of a door in the same process. Its calls are answered where they are made, without a connection, and otherwise
    /// as they would be over one; an answer that waits does so with its caller.
    ///
    /// # Errors
    /// [`ClientError::Token`] if [`Options::token`] cannot be sent.
    pub fn beside<S>(door: S, options: Options) -> Result<Self, ClientError>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self::new(vec![Way::to(door)], 0, options)
    }

    fn new(ways: Vec<Way>, first: usize, options: Options) -> Result<Self, ClientError> {
        let token = match options.token {
            None => None,
            Some(token) => Some(format!("Bearer {token}").parse().map_err(|_| ClientError::Token)?),
        };
        let throttle = match options.throttling {
            Throttling::Adaptive => Some(Arc::default()),
            Throttling::Off => None,
        };
        let traceparent = options.traceparent.and_then(|text| text.trim().parse().ok());
        let turn = Arc::new(Turn::new(ways.len(), first));
        Ok(Self {
            ways: ways.into(),
            turn,
            token,
            traceparent,
            patience: options.patience,
            budget: Arc::default(),
            throttle,
        })
    }

    /// How often this client and its clones have sent a call once more, at the same door or at another.
    #[must_use]
    pub fn sent_again(&self) -> u64 {
        self.turn.sent_again()
    }

    /// The way to the door whose turn it is, and which one that is.
    fn door(&self) -> (usize, Way) {
        let door = self.turn.current();
        (door, self.ways[door].clone())
    }

    /// Follows a workload to its end, see [`watch`].
    pub fn watch_workload(&self, workload_id: impl Into<String>, from: From, chunks: bool) -> Watched {
        watch::watch(self.clone(), watch::Subject::Workload(workload_id.into()), from, chunks)
    }

    /// Follows an agent to its end, see [`watch`].
    pub fn watch_agent(&self, agent_id: impl Into<String>, from: From, chunks: bool) -> Watched {
        watch::watch(self.clone(), watch::Subject::Agent(agent_id.into()), from, chunks)
    }

    /// Follows the nodes: all of them at once, and again after each change, see [`watch`].
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses, or is away.
    pub async fn watch_nodes(
        &self,
    ) -> Result<impl Stream<Item = Result<Vec<v1::Node>, ClientError>> + Send + use<>, ClientError> {
        watch::nodes(self.clone()).await
    }

    /// Everything that an agent remembers, part by part in the order in which it was said. A stream that breaks is not gone on
    /// with: ask for all of it again.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses, or is away.
    pub async fn export_memory(
        &self,
        agent_id: &str,
    ) -> Result<impl Stream<Item = Result<Vec<v1::RememberedMessage>, ClientError>> + Send + use<>, ClientError> {
        let mut client = ContextServiceClient::new(self.door().1)
            .max_decoding_message_size(nexa_proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(nexa_proto::MESSAGE_BYTES_MAX);
        let request = self.dressed(v1::ContextServiceExportRequest { agent_id: agent_id.to_owned() }, None);
        let parts = client.export(request).await.map_err(ClientError::from)?.into_inner();
        Ok(parts.map(|part| part.map(|part| part.messages).map_err(ClientError::from)))
    }

    /// A request with the token, and what is known of its attempt if there is a deadline.
    fn dressed<T>(&self, message: T, attempt: Option<Attempt>) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(traceparent) = &self.traceparent {
            request.metadata_mut().insert("traceparent", traceparent.clone());
        }
        if let Some(Attempt { left, unsure, door: _ }) = attempt {
            request.set_timeout(left);
            if unsure > 0 {
                request.metadata_mut().insert(REPEATS, unsure.into());
            }
        }
        request
    }
}
