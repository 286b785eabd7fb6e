//! tonic as it is: a stream of batches without numbers, acknowledgements or credit, and plain calls. One runtime of one
//! thread on either side; the TLS, the windows and the frames are those of a link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use nexa_cluster::certs::Identity;
use nexa_member::link::Class;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as Shown, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::measure::Error;

const STREAM: &str = "/bare.Bare/Stream";
const CALL: &str = "/bare.Bare/Call";

/// Some messages.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Bodies {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) bodies: Vec<Bytes>,
}

/// A server and a client connected to it.
pub(crate) struct Bare {
    pub(crate) client: Runtime,
    _server: Runtime,
    channel: Channel,
    pub(crate) heard: Arc<AtomicU64>,
}

impl Bare {
    pub(crate) fn start(name: &str, identity: &Identity) -> Result<Self, Error> {
        let runtime = || Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (client, server) = (runtime()?, runtime()?);
        let heard = Arc::new(AtomicU64::new(0));
        let window = Class::Work.window_bytes() as u32;
        let shown = Shown::from_pem(&identity.certificate, &identity.key);
        let authority = Certificate::from_pem(&identity.authority);
        let listener = server.block_on(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let to = listener.local_addr()?;
        let router = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(shown.clone()).client_ca_root(authority.clone()))?
            .initial_stream_window_size(window)
            .initial_connection_window_size(3 * window)
            .max_frame_size(128 << 10)
            .add_service(BareServer { heard: heard.clone() });
        let incoming = TcpListenerStream::new(listener).map(|socket| {
            let socket = socket?;
            socket.set_nodelay(true)?;
            Ok::<_, std::io::Error>(socket)
        });
        server.spawn(router.serve_with_incoming(incoming));
        let tls = ClientTlsConfig::new().identity(shown).ca_certificate(authority).domain_name(name);
        let endpoint = Endpoint::from_shared(format!("https://{to}"))?
            .tls_config(tls)?
            .initial_stream_window_size(window)
            .initial_connection_window_size(3 * window)
            .max_frame_size(128 << 10)
            .tcp_nodelay(true);
        let channel = client.block_on(endpoint.connect())?;
        Ok(Self { client, _server: server, channel, heard })
    }

    /// Sends batches until the stream of them ends, and waits until all were heard.
    pub(crate) fn stream(&self, batches: impl Stream<Item = Bodies> + Send + 'static) -> Result<(), Error> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        self.client.block_on(async move {
            let sending = async move {
                grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                let codec: ProstCodec<Bodies, Bodies> = ProstCodec::default();
                let path = http::uri::PathAndQuery::from_static(STREAM);
                let mut answers = grpc.streaming(Request::new(batches), path, codec).await?.into_inner();
                while answers.message().await?.is_some() {}
                Ok::<_, Status>(())
            };
            // On a thread of the runtime, as a server would, and not on the one that waits.
            tokio::spawn(sending).await
        })??;
        Ok(())
    }

    /// One call.
    pub(crate) fn call(&self, body: Bytes) -> impl Future<Output = Result<(), Status>> + Send + use<> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        async move {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec: ProstCodec<Bodies, Bodies> = ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static(CALL);
            grpc.unary(Request::new(Bodies { bodies: vec![body] }), path, codec).await.map(|_| ())
        }
    }
}

#[derive(Clone)]
struct BareServer {
    heard: Arc<AtomicU64>,
}

impl tonic::server::NamedService for BareServer {
    const NAME: &'static str = "bare.Bare";
}

impl tonic::codegen::Service<http::Request<Body>> for BareServer {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Bodies, Bodies>::default());
            Ok(match request.uri().path() {
                STREAM => grpc.streaming(own, request).await,
                _ => grpc.unary(Echo, request).await,
            })
        })
    }
}

impl tonic::server::StreamingService<Bodies> for BareServer {
    type Response = Bodies;
    type ResponseStream = tokio_stream::Empty<Result<Bodies, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bodies>>) -> Self::Future {
        let heard = self.heard.clone();
        Box::pin(async move {
            let mut batches = request.into_inner();
            while let Some(batch) = batches.message().await? {
                for body in batch.bodies {
                    heard.fetch_add(u64::from(!body.is_empty()), Ordering::Relaxed);
                }
            }
            Ok(Response::new(tokio_stream::empty()))
        })
    }
}

struct Echo;

impl tonic::server::UnaryService<Bodies> for Echo {
    type Response = Bodies;
    type Future = futures::future::Ready<Result<Response<Bodies>, Status>>;

    fn call(&mut self, request: Request<Bodies>) -> Self::Future {
        futures::future::ready(Ok(Response::new(request.into_inner())))
    }
}
