//! Logs on standard error: for people, or one JSON object a line for programs.

use nexa_runtime::genai;
use opentelemetry_sdk::trace::SdkTracer;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Registry};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, fields beside `timestamp`, `level`, `target` and `message`.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logs {
    /// How lines look.
    pub format: Format,
    /// Directives as `NEXA_LOG` has them; `None` or one that cannot be read: warnings and errors.
    pub filter: Option<String>,
    /// Whether text is coloured.
    pub colored: bool,
}

/// What of the spans goes to a collector.
pub(crate) type SpanLayer = OpenTelemetryLayer<Registry, SdkTracer>;

/// Sets where everything in this process that uses `tracing` goes.
pub(crate) fn write(logs: Logs, spans: Option<SpanLayer>) -> Result<(), TryInitError> {
    let filter = logs.filter.as_deref().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("warn"));
    // Spans of agents are for collectors: in front of log lines they would be longer than those.
    let quiet = format!("{}=off", genai::TARGET).parse().expect("a target and a level make a directive");
    let filter = filter.add_directive(quiet);
    match spans {
        None => tracing_subscriber::registry().with(filter).with(lines(logs)).try_init(),
        Some(spans) => {
            let ours = FilterFn::new(|what| what.is_span() && what.target() == genai::TARGET)
                .with_max_level_hint(tracing::level_filters::LevelFilter::INFO);
            let spans = spans.with_filter(ours);
            tracing_subscriber::registry().with(spans).with(lines(logs).with_filter(filter)).try_init()
        }
    }
}

/// What writes lines.
fn lines<S>(logs: Logs) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(logs.colored);
    match logs.format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    }
}
