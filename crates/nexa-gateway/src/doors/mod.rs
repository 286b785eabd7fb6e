//! Doors: gRPC in front of the mediator.
//!
//! A door decodes a request into a command or query, asks the mediator, and encodes the reply; it decides nothing. Every
//! limit of the transport is set here, because the transport itself sets none: see [`DoorConfig`].

mod context;
mod decode;
mod encode;
mod keeper;
mod listen;
mod nodes;
mod planned;
mod services;

use std::time::Duration;

use nexa_proto::v1::agent_service_server::AgentServiceServer;
use nexa_proto::v1::approval_service_server::ApprovalServiceServer;
use nexa_proto::v1::cluster_service_server::ClusterServiceServer;
use nexa_proto::v1::context_service_server::ContextServiceServer;
use nexa_proto::v1::history_service_server::HistoryServiceServer;
use nexa_proto::v1::program_service_server::ProgramServiceServer;
use nexa_proto::v1::workload_service_server::WorkloadServiceServer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use keeper::Keeper;
pub use listen::{Bound, Cover, Listen, ListenError};
use services::Door;

use crate::mediator::Mediator;

/// The health service that says whether the process runs.
pub const LIVENESS: &str = "nexa.liveness";
/// The health service that says whether new work is taken.
pub const READINESS: &str = "nexa.readiness";

/// Limits of the transport.
#[derive(Debug, Clone)]
pub struct DoorConfig {
    /// Whether anybody may ask which services there are.
    pub reflection: bool,
    /// The most bytes of one message. Then: OUT_OF_RANGE.
    pub message_bytes_max: usize,
    /// Calls at once on one connection, watches among them. Then: the client waits.
    pub streams_max: u32,
    /// Calls at once that are being answered, over all connections, watches not counted. Then: OVERLOADED, with a time to
    /// come back, before anything of the call is read.
    pub calls_max: usize,
    /// Of these, calls that bring new work. Then: the same. So there is always room to look, to cancel and to answer.
    pub work_calls_max: usize,
    /// The most bytes of request headers. Then: the call is reset.
    pub header_bytes_max: u32,
    /// How often a silent client is asked for a sign of life.
    pub keepalive_every: Duration,
    /// How long to wait for it. Then: the connection is closed.
    pub keepalive_timeout: Duration,
    /// How old a connection may grow. Then: the client is asked to open a new one for further calls, and those on the old one
    /// go on to their ends.
    pub connection_age_max: Duration,
    /// How long calls of a door that closes may go on. Then: they are cut.
    pub grace: Duration,
}

impl Default for DoorConfig {
    fn default() -> Self {
        Self {
            reflection: true,
            message_bytes_max: nexa_proto::MESSAGE_BYTES_MAX,
            streams_max: 256,
            calls_max: 2_048,
            work_calls_max: 1_024,
            header_bytes_max: 16 << 10,
            keepalive_every: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            connection_age_max: Duration::from_secs(30 * 60),
            grace: Duration::from_secs(10),
        }
    }
}

/// Everything behind the doors.
#[derive(Clone)]
pub struct Gateway {
    mediator: Mediator,
    closing: CancellationToken,
}

/// A door that is open.
#[derive(Debug)]
pub struct Served {
    /// Where it listens, as a client wants to be told: `http://127.0.0.1:7331` or `unix:/run/nexa.sock`.
    pub address: String,
    /// The door for who is in the same process: what is asked here comes over no connection, and has none of its limits. It is open
    /// also when the door has closed.
    pub beside: Routes,
    /// Ends when the door has closed.
    pub done: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Gateway {
    /// Doors in front of a mediator; `closing` is that of its handlers.
    pub fn new(mediator: Mediator, closing: CancellationToken) -> Self {
        Self { mediator, closing }
    }

    /// Opens a door and returns at once.
    ///
    /// When the handlers' `closing` is cancelled: readiness ends, and new work is refused with DRAINING. When `shutdown` is:
    /// the same, watches end with DRAINING, calls under way have [`DoorConfig::grace`] to end, then the door is closed.
    ///
    /// # Errors
    /// [`ListenError`] if the address is refused or taken.
    pub async fn serve(
        &self,
        listen: &Listen,
        config: DoorConfig,
        shutdown: CancellationToken,
    ) -> Result<Served, ListenError> {
        Ok(self.serve_at(listen.bind().await?, config, shutdown).await)
    }

    /// The same at a place that was taken before.
    pub async fn serve_at(&self, bound: Bound, config: DoorConfig, shutdown: CancellationToken) -> Served {
        let address = bound.address();
        let Bound { listener, tls } = bound;
        let (health, health_service) = tonic_health::server::health_reporter();
        for service in [LIVENESS, READINESS] {
            health.set_service_status(service, ServingStatus::Serving).await;
        }
        let mut routes = Routes::builder();
        routes.add_service(health_service);
        self.add_services(&mut routes, &config);
        if config.reflection {
            routes.add_service(reflection());
        }
        let router = routes.routes().into_axum_router();
        let routes = Routes::from(router.layer(Keeper::new(&config, self.mediator.porter().cloned())));
        let beside = routes.clone();
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).expect("it was tried when the place was taken");
        }
        let server = server
            .max_concurrent_streams(config.streams_max)
            .http2_max_header_list_size(config.header_bytes_max)
            .http2_keepalive_interval(Some(config.keepalive_every))
            .http2_keepalive_timeout(Some(config.keepalive_timeout))
            // Not with a grace: tonic then cuts the connection at its end, and asks nobody before.
            .max_connection_age(config.connection_age_max)
            .add_routes(routes);
        let (closing, grace) = (self.closing.clone(), config.grace);
        let stop = shutdown.clone();
        let closed = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = closing.cancelled() => {}
            }
            health.set_service_status(READINESS, ServingStatus::NotServing).await;
            stop.cancelled().await;
            closing.cancel();
        };
        tracing::info!(address, "door opened");
        let done = tokio::spawn(async move {
            let serving = listener.serve(server, closed);
            let cut = async {
                shutdown.cancelled().await;
                tokio::time::sleep(grace).await;
            };
            tokio::select! {
                served = serving => served,
                () = cut => Ok(()),
            }
        });
        Served { address, beside, done }
    }

    fn add_services(&self, routes: &mut tonic::service::RoutesBuilder, config: &DoorConfig) {
        let door = || Door::new(self.mediator.clone());
        let bytes = config.message_bytes_max;
        macro_rules! add {
            ($($server:ident)*) => {
                $(routes.add_service(
                    $server::new(door()).max_decoding_message_size(bytes).max_encoding_message_size(bytes),
                );)*
            };
        }
        add!(
            ProgramServiceServer WorkloadServiceServer AgentServiceServer ApprovalServiceServer HistoryServiceServer
            ClusterServiceServer ContextServiceServer
        );
    }
}

fn reflection()
-> tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(nexa_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were made by this build, and protoc accepted them")
}
