//! Why a door said no: one type for every error of the public surface.
//!
//! A refusal has a [`Reason`] from a closed set, a message and a hint for a person, and details for a program. On the
//! wire it is a `google.rpc.Status` with `ErrorInfo` (reason, domain, hint), and `BadRequest`, `ResourceInfo`, `RetryInfo`
//! where it has them. [`Refusal::from_status`] reads what [`Status::from`] wrote.
//!
//! Details travel in a response header, and some clients take no more than 8 KiB of headers. So a long list of
//! violations is cut at [`DETAIL_BYTES_MAX`], and its last entry says how many are missing.

use std::fmt;
use std::time::Duration;

use nexa_types::Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "nexa.dev";
/// The key of `ErrorInfo.metadata` that says what to do.
pub const HINT: &str = "hint";
/// The most bytes of violations in one refusal.
pub const DETAIL_BYTES_MAX: usize = 2 << 10;
/// The most bytes of one violation's field, and of its description. A longer one is cut.
pub const PART_BYTES_MAX: usize = 512;
/// The most bytes of a message or hint. A longer one is cut.
pub const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// Why a door said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the closed set.
    pub reason: Reason,
    /// What failed.
    pub message: String,
    /// What to do; empty if there is nothing to say.
    pub hint: String,
    /// What is wrong with which field, or with which line of a program.
    pub violations: Vec<Violation>,
    /// What was not found or exists already.
    pub resource: Option<Resource>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, or `file:line:column`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// A thing that a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// What kind of thing, such as `workload`.
    pub kind: String,
    /// Its id.
    pub id: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// A refusal with a reason and a message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            hint: String::new(),
            violations: Vec::new(),
            resource: None,
            retry_after: None,
        }
    }

    /// One field of the request is wrong.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        Self::new(Reason::InvalidArgument, format!("{field}: {description}")).violating(field, description)
    }

    /// There is no such thing, or not for this tenant; nobody is told which.
    pub fn not_found(kind: &str, id: impl fmt::Display) -> Self {
        let mut refusal = Self::new(Reason::NotFound, format!("there is no {kind} `{id}`"));
        refusal.resource = Some(Resource { kind: kind.to_owned(), id: id.to_string() });
        refusal
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with one more violation.
    #[must_use]
    pub fn violating(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations.push(Violation { field: field.into(), description: description.into() });
        self
    }

    /// The same with the thing that it is about.
    #[must_use]
    pub fn about(mut self, kind: &str, id: impl fmt::Display) -> Self {
        self.resource = Some(Resource { kind: kind.to_owned(), id: id.to_string() });
        self
    }

    /// The same with a time to wait.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Reads a refusal from a status; `None` if the status has no reason of ours, as one that a proxy made.
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.check_error_details().ok()?;
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        Some(Self {
            reason: info.reason.parse().ok()?,
            message: status.message().to_owned(),
            hint: info.metadata.get(HINT).cloned().unwrap_or_default(),
            violations: details.bad_request().map_or_else(Vec::new, |bad| {
                let told = |field: &tonic_types::FieldViolation| Violation {
                    field: field.field.clone(),
                    description: field.description.clone(),
                };
                bad.field_violations.iter().map(told).collect()
            }),
            resource: details
                .resource_info()
                .map(|about| Resource { kind: about.resource_type.clone(), id: about.resource_name.clone() }),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        })
    }
}

/// The status code of a reason. Every reason has exactly one.
pub fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidArgument | Reason::ProgramInvalid | Reason::CursorInvalid => Code::InvalidArgument,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::NotFound => Code::NotFound,
        Reason::AlreadyExists => Code::AlreadyExists,
        Reason::AlreadyEnded | Reason::NotWaiting | Reason::NoNode | Reason::Unread => Code::FailedPrecondition,
        Reason::Overloaded | Reason::DiskFull => Code::ResourceExhausted,
        Reason::StoreUnavailable | Reason::Draining | Reason::NoLeader => Code::Unavailable,
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::Internal => Code::Internal,
        Reason::DataCorrupt => Code::DataLoss,
    }
}

/// Whether asking again later may help, the request being safe to repeat.
pub fn is_transient(reason: Reason) -> bool {
    match reason {
        Reason::Overloaded | Reason::StoreUnavailable | Reason::Draining | Reason::NoLeader => true,
        Reason::InvalidArgument
        | Reason::Unauthenticated
        | Reason::PermissionDenied
        | Reason::NotFound
        | Reason::AlreadyExists
        | Reason::ProgramInvalid
        | Reason::AlreadyEnded
        | Reason::DiskFull
        | Reason::DeadlineExceeded
        | Reason::CursorInvalid
        | Reason::Internal
        | Reason::NotWaiting
        | Reason::DataCorrupt
        | Reason::NoNode
        | Reason::Unread => false,
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut details = ErrorDetails::new();
        let hint = (!refusal.hint.is_empty()).then(|| (HINT.to_owned(), cut(&refusal.hint, MESSAGE_BYTES_MAX)));
        details.set_error_info(
            refusal.reason.as_str(),
            DOMAIN,
            hint.into_iter().collect::<std::collections::HashMap<_, _>>(),
        );
        let mut room = DETAIL_BYTES_MAX;
        for (told, violation) in refusal.violations.iter().enumerate() {
            let (field, description) =
                (cut(&violation.field, PART_BYTES_MAX), cut(&violation.description, PART_BYTES_MAX));
            let len = field.len() + description.len() + 8;
            if len > room {
                details.add_bad_request_violation("", format!("and {} more", refusal.violations.len() - told));
                break;
            }
            room -= len;
            details.add_bad_request_violation(field, description);
        }
        if let Some(Resource { kind, id }) = &refusal.resource {
            details.set_resource_info(kind, cut(id, PART_BYTES_MAX), "", "");
        }
        if let Some(wait) = refusal.retry_after {
            details.set_retry_info(Some(wait));
        }
        Status::with_error_details(code(refusal.reason), cut(&refusal.message, MESSAGE_BYTES_MAX), details)
    }
}

/// The beginning of a text, at most so many bytes.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let dots = "…";
    format!("{}{dots}", &text[..text.floor_char_boundary(bytes_max - dots.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_back_from_its_status_for_every_reason() {
        for reason in Reason::ALL {
            let refusal = Refusal::new(*reason, "it failed")
                .hint("do something")
                .violating("a.b", "is wrong")
                .about("workload", "w-1")
                .after(Duration::from_millis(1500));
            let status = Status::from(refusal.clone());
            assert_eq!(status.code(), code(*reason));
            assert_eq!(Refusal::from_status(&status), Some(refusal));
        }
    }

    #[test]
    fn a_status_from_somebody_else_is_no_refusal() {
        assert_eq!(Refusal::from_status(&Status::unavailable("the proxy is tired")), None);
        let mut details = ErrorDetails::new();
        details.set_error_info("NOT_FOUND", "example.org", std::collections::HashMap::<String, String>::new());
        assert_eq!(Refusal::from_status(&Status::with_error_details(Code::NotFound, "no", details)), None);
        let garbage = Status::with_details(Code::NotFound, "no", vec![255, 255, 255].into());
        assert_eq!(Refusal::from_status(&garbage), None);
    }

    #[test]
    fn a_thousand_violations_fit_into_the_headers_of_any_client() {
        let mut refusal = Refusal::new(Reason::ProgramInvalid, "x".repeat(100_000)).hint("y".repeat(100_000));
        refusal = refusal.violating("x".repeat(10_000), "y".repeat(10_000));
        for line in 1..1000 {
            refusal = refusal.violating(format!("main.nx:{line}:1"), "é".repeat(90));
        }
        let status = Status::from(refusal);
        assert!(status.details().len() < 5 << 10, "{} bytes", status.details().len());
        let read = Refusal::from_status(&status).expect("our own status");
        let told = read.violations.len() - 1;
        assert_eq!(read.violations.last().expect("some").description, format!("and {} more", 1000 - told));
    }
}
