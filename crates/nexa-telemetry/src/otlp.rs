//! Spans on their way to a collector, by OTLP over gRPC or HTTP.
//!
//! Queue: 2048 spans that have ended; a further one is dropped, as agents do not wait for a collector. Batches of 512, or
//! what there is after 5 s; `OTEL_BSP_…` changes these. A batch that is refused is lost, and counted.
//!
//! Two things that `tracing` cannot say are put right on the way: an attribute [`attribute::LINK`] becomes a link, and
//! the reasons for which a model stopped become a list.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::counter;
use nexa_event::envelope::TraceContext;
use nexa_runtime::genai::attribute;
use nexa_runtime::trace::Exporter;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::figures;
use crate::logs::SpanLayer;

/// How long the last spans have to be sent in when the process ends.
pub(crate) const STOP_WAIT: Duration = Duration::from_secs(3);
/// How long a collector may take for one batch.
const EXPORT_WAIT: Duration = Duration::from_secs(10);
/// The port of OTLP over HTTP.
const HTTP_PORT: u16 = 4318;

/// Where spans go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The collector: `http://HOST:PORT`, and `https://…` over HTTP.
    pub endpoint: String,
    /// `grpc` or `http/protobuf`, as `OTEL_EXPORTER_OTLP_PROTOCOL` has it. `None`: HTTP for port 4318, `https` or an
    /// address with a path, and else gRPC.
    pub protocol: Option<String>,
    /// The share of traces that is kept, 0 to 1. `None`: what `OTEL_TRACES_SAMPLER` says, and else all.
    pub ratio: Option<f64>,
    /// Whether what is said to and by models goes along.
    pub content: bool,
}

/// Why spans have nowhere to go.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The address is none.
    #[error("`{endpoint}` is no address of a collector: write http://HOST:PORT, with the scheme")]
    Endpoint {
        /// The address.
        endpoint: String,
    },
    /// The protocol is none.
    #[error("`{protocol}` is no protocol for spans: use `grpc` or `http/protobuf`")]
    Protocol {
        /// The protocol.
        protocol: String,
    },
    /// gRPC with TLS.
    #[error(
        "spans are not sent over gRPC with TLS: use http/protobuf for `{endpoint}`, or a collector on this machine"
    )]
    Tls {
        /// The address.
        endpoint: String,
    },
    /// The ratio is none.
    #[error("{ratio} is no share of traces: use 0 to 1")]
    Ratio {
        /// The ratio.
        ratio: f64,
    },
    /// The exporter could not be made.
    #[error("the exporter of spans could not be made: {0}")]
    Exporter(String),
    /// No thread.
    #[error("no thread could be started to send spans: {0}")]
    Thread(std::io::Error),
}

/// How spans travel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Grpc(String),
    Http(String),
}

fn way(traces: &Traces) -> Result<Way, TracesError> {
    let endpoint = traces.endpoint.trim().trim_end_matches('/');
    let url =
        reqwest::Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else { return Err(TracesError::Endpoint { endpoint: endpoint.to_owned() }) };
    let has_path = url.path() != "/";
    let over_http = match traces.protocol.as_deref().map(str::trim).filter(|protocol| !protocol.is_empty()) {
        None => has_path || url.scheme() == "https" || url.port() == Some(HTTP_PORT),
        Some("grpc") => false,
        Some("http/protobuf") => true,
        Some(protocol) => return Err(TracesError::Protocol { protocol: protocol.to_owned() }),
    };
    match over_http {
        true if endpoint.ends_with("/v1/traces") => Ok(Way::Http(endpoint.to_owned())),
        true => Ok(Way::Http(format!("{endpoint}/v1/traces"))),
        false if url.scheme() == "https" => Err(TracesError::Tls { endpoint: endpoint.to_owned() }),
        false => Ok(Way::Grpc(endpoint.to_owned())),
    }
}

/// Makes spans of what is sampled and sends them from the thread behind `handle`.
pub(crate) fn provider(traces: &Traces, handle: &Handle) -> Result<SdkTracerProvider, TracesError> {
    if let Some(ratio) = traces.ratio.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
        return Err(TracesError::Ratio { ratio });
    }
    let way = way(traces)?;
    // Channels and timers belong to that thread.
    let _inside = handle.enter();
    let exporter = opentelemetry_otlp::SpanExporter::builder();
    let exporter = match way {
        Way::Grpc(endpoint) => exporter.with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_WAIT).build(),
        Way::Http(endpoint) => {
            // Somebody else may have chosen already; then theirs is used.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let client = reqwest::Client::builder().timeout(EXPORT_WAIT).build();
            let client = client.map_err(|error| TracesError::Exporter(error.to_string()))?;
            let exporter = exporter.with_http().with_http_client(client).with_endpoint(endpoint);
            exporter.with_protocol(Protocol::HttpBinary).with_timeout(EXPORT_WAIT).build()
        }
    };
    let exporter = exporter.map_err(|error| TracesError::Exporter(error.to_string()))?;
    let onward = Onward { inner: Arc::new(exporter), handle: handle.clone(), fails: Arc::default() };
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("nexa");
    }
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
    let mut provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(onward);
    if let Some(ratio) = traces.ratio {
        provider = provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))));
    }
    Ok(provider.build())
}

/// What turns spans of `tracing` into spans of OpenTelemetry. Where in the source they come from says nothing to users.
pub(crate) fn layer(provider: &SdkTracerProvider) -> SpanLayer {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("nexa"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
}

/// How spans and contexts go together here.
pub(crate) const EXPORTER: Exporter = Exporter { context_of, put_under };

/// The trace of a span, if it is sampled.
fn context_of(span: &tracing::Span) -> Option<TraceContext> {
    let context = span.context();
    let context = context.span().span_context().clone();
    (context.is_valid() && context.is_sampled())
        .then(|| TraceContext { trace: context.trace_id().to_bytes(), span: context.span_id().to_bytes() })
}

/// Makes a new span a child of one that somebody else has sampled.
fn put_under(span: &tracing::Span, parent: &TraceContext) {
    let parent = sampled(TraceId::from_bytes(parent.trace), SpanId::from_bytes(parent.span));
    if let Err(error) = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent)) {
        tracing::debug!(%error, "a span is not the child of what its caller sent along");
    }
}

/// A span of somebody else, sampled.
fn sampled(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}

/// Exports on the thread of telemetry, where timers and connections live, and not on the one that collects batches.
#[derive(Debug)]
struct Onward<E> {
    inner: Arc<E>,
    handle: Handle,
    /// The latest batch was not taken.
    fails: Arc<AtomicBool>,
}

impl<E: SpanExporter + 'static> SpanExporter for Onward<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (inner, fails) = (self.inner.clone(), self.fails.clone());
        let spans = batch.len() as u64;
        let batch = batch.into_iter().map(put_right).collect();
        let sending = self.handle.spawn(async move { inner.export(batch).await });
        let sent = sending.await.unwrap_or_else(|lost| Err(OTelSdkError::InternalFailure(lost.to_string())));
        match &sent {
            Ok(()) => {
                counter!(figures::SPANS_SENT).increment(spans);
                if fails.swap(false, Ordering::Relaxed) {
                    tracing::warn!("the collector takes spans again");
                }
            }
            Err(error) => {
                counter!(figures::SPANS_LOST).increment(spans);
                if !fails.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, spans, "spans could not be sent and are lost; is the collector there?");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called while the provider is built, before anything is exported.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}

/// What `tracing` has no form for gets its own.
fn put_right(mut span: SpanData) -> SpanData {
    let mut links = Vec::new();
    span.attributes.retain_mut(|attribute| {
        match (attribute.key.as_str(), &attribute.value) {
            (attribute::LINK, Value::String(text)) => {
                links.extend(remote(text.as_str()));
                return false;
            }
            (attribute::RESPONSE_FINISH_REASONS, Value::String(reason)) => {
                attribute.value = Value::Array(Array::String(vec![StringValue::from(reason.as_str().to_owned())]));
            }
            _ => {}
        }
        true
    });
    span.links.links.extend(links.into_iter().map(|context| Link::new(context, Vec::new(), 0)));
    span
}

/// A `traceparent` as it was written here.
fn remote(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let context = sampled(trace, span);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(endpoint: &str, protocol: Option<&str>) -> Result<Way, String> {
        let protocol = protocol.map(str::to_owned);
        let traces = Traces { endpoint: endpoint.to_owned(), protocol, ratio: None, content: false };
        way(&traces).map_err(|error| error.to_string())
    }

    #[test]
    fn the_address_says_how_spans_travel_unless_the_protocol_is_named() {
        let (grpc, http) = (|to: &str| Ok(Way::Grpc(to.into())), |to: &str| Ok(Way::Http(to.into())));
        assert_eq!(to("http://127.0.0.1:4317", None), grpc("http://127.0.0.1:4317"));
        assert_eq!(to("http://127.0.0.1:4318/", None), http("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(to("https://c.example/api/otel", None), http("https://c.example/api/otel/v1/traces"));
        assert_eq!(to("http://c:9/v1/traces", None), http("http://c:9/v1/traces"));
        assert_eq!(to("http://c:9", Some("http/protobuf")), http("http://c:9/v1/traces"));
        assert_eq!(to("http://c:4318", Some("grpc")), grpc("http://c:4318"));
    }

    #[test]
    fn an_address_that_would_surprise_is_refused() {
        assert!(to("127.0.0.1:4317", None).unwrap_err().contains("with the scheme"));
        assert!(to("", None).unwrap_err().contains("no address"));
        assert!(to("unix:///x", None).unwrap_err().contains("no address"));
        assert!(to("https://c.example", Some("grpc")).unwrap_err().contains("TLS"));
        assert!(to("http://c:1", Some("http/json")).unwrap_err().contains("no protocol"));
    }

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let context = TraceContext { trace: [7; 16], span: [9; 8] };
        let read = remote(&nexa_runtime::trace::traceparent(&context)).unwrap();
        assert_eq!((read.trace_id().to_bytes(), read.span_id().to_bytes()), ([7; 16], [9; 8]));
        for wrong in ["", "00", "00-x-y-01", "00-00000000000000000000000000000000-0000000000000000-01"] {
            assert!(remote(wrong).is_none(), "{wrong}");
        }
    }
}
