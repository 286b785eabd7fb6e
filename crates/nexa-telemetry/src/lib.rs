//! What a process tells about itself: logs, spans, metrics, health. The only crate that knows OpenTelemetry and the
//! exporter of metrics; all others use `tracing` and the facade `metrics`.
//!
//! - [`start`]: logs, and spans if somebody wants them. Called once, before anything else.
//! - [`Door`]: `/metrics`, `/healthz` and `/readyz` on loopback.
//! - [`figures`]: every metric there is, with what it means.
//!
//! Holds:
//!   TL-1  nothing of this runs unless it was asked for: a process without a door and without `traces` has no thread, no
//!         recorder and no span more
//!   TL-2  the doors answer, and spans leave, on a thread of their own: also when every worker of the node is busy
//!   TL-3  spans hold no words of a conversation unless that was asked for by name
//!
//! Not here: what is measured and where (beside what it measures), the names of spans (`nexa_runtime::genai`).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

mod door;
pub mod figures;
mod http;
mod logs;
mod otlp;
mod process;
mod pulse;
mod recorder;
mod thread;

pub use door::{DOOR_DEFAULT, Door, DoorError, OpenDoor, Probes};
pub use logs::{Format, Logs};
pub use otlp::{Traces, TracesError};

use opentelemetry_sdk::trace::SdkTracerProvider;

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spans have nowhere to go.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The log has nowhere to go.
    #[error("logs cannot be written: {0}")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
}

/// What runs until the process ends.
#[must_use = "spans that wait are sent when it is stopped"]
pub struct Telemetry {
    exported: Option<(SdkTracerProvider, thread::Thread)>,
}

/// Starts writing logs, and sending spans if `traces` says where to.
///
/// # Errors
/// [`StartError`] if the address for spans makes no sense. A collector that is away is no error: spans are dropped
/// while it is, and the log says so.
pub fn start(logs: Logs, traces: Option<Traces>) -> Result<Telemetry, StartError> {
    let Some(traces) = traces else {
        logs::write(logs, None)?;
        return Ok(Telemetry { exported: None });
    };
    let thread = thread::Thread::start("nexa-spans").map_err(TracesError::Thread)?;
    let provider = otlp::provider(&traces, thread.handle())?;
    if traces.content {
        nexa_runtime::genai::show_content();
    }
    nexa_runtime::trace::exported_by(otlp::EXPORTER);
    logs::write(logs, Some(otlp::layer(&provider)))?;
    Ok(Telemetry { exported: Some((provider, thread)) })
}

impl Telemetry {
    /// Sends the spans that wait, for at most [`otlp::STOP_WAIT`].
    pub fn stop(self) {
        let Some((provider, thread)) = self.exported else { return };
        if let Err(error) = provider.shutdown_with_timeout(otlp::STOP_WAIT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
        thread.stop();
    }
}
