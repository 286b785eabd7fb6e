//! The two closed sets of error codes: what a program can see, and what a client can see.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

use crate::IdError;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($n:literal $variant:ident = $text:literal : $meaning:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(index_only)]
        pub enum $name {
            $(#[doc = $meaning] #[n($n)] $variant,)*
        }

        impl $name {
            /// Every code, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as it is written.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What it means, in one line.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or_else(|| IdError {
                    kind: $kind,
                    expected: "one of the listed codes",
                    text: text.chars().take(80).collect(),
                })
            }
        }
    };
}

codes!(
    /// The `code` of the language's `Error`. Numbers are stored and never reused.
    RunCode, "run-time code" {
        0 Failed = "failed": "the program said so with `fail`",
        1 Timeout = "timeout": "the deadline passed first",
        2 Cancelled = "cancelled": "somebody cancelled it; cannot be caught",
        3 BudgetExceeded = "budget_exceeded": "the next request does not fit into what is left of the budget",
        4 Unavailable = "unavailable": "the model, tool or endpoint could not be reached",
        5 RateLimited = "rate_limited": "the provider asks to slow down",
        6 Refused = "refused": "the provider refused the request; trying again will not help",
        7 OutputInvalid = "output_invalid": "the answer did not fit its type, also after repair",
        8 ToolFailed = "tool_failed": "the tool answered with an error",
        9 ToolLimit = "tool_limit": "more tool calls than the agent may make",
        10 Denied = "denied": "a person or a policy said no",
        11 ApprovalTimeout = "approval_timeout": "nobody answered the approval in time",
        12 OutcomeUnknown = "outcome_unknown": "a call was started and a crash hid how it ended",
        13 SemanticFailed = "semantic_failed": "the model gave no allowed answer to a question",
        14 MergeFailed = "merge_failed": "too few branches succeeded to merge",
        15 NoMatch = "no_match": "no arm matched",
        16 ContractViolated = "contract_violated": "a `requires` or `ensures` does not hold",
        17 VerifyFailed = "verify_failed": "a `verify` does not hold",
        18 AssertionFailed = "assertion_failed": "an `assert` does not hold",
        19 LoopLimit = "loop_limit": "a loop reached its `max`",
        20 RestoreLimit = "restore_limit": "a snapshot was restored too often",
        21 TypeMismatch = "type_mismatch": "a dynamic value is not of the wanted type",
        22 ParseFailed = "parse_failed": "a text could not be read",
        23 NoneValue = "none_value": "`?` met `none`",
        24 Overflow = "overflow": "an integer left its 64 bits",
        25 DivZero = "div_zero": "division by zero",
        26 Index = "index": "an index outside its list",
        27 KeyMissing = "key_missing": "a key that the dict does not have",
        28 StackOverflow = "stack_overflow": "more nested calls than allowed; cannot be caught",
        29 OutOfMemory = "out_of_memory": "more heap than the agent may use; cannot be caught",
        30 DeadHandle = "dead_handle": "a handle of something that has ended",
        31 SecretLeak = "secret_leak": "a secret was about to leave; cannot be caught",
        32 UnscriptedCall = "unscripted_call": "the script has no rule for this request",
        33 ScriptExhausted = "script_exhausted": "the script has no turn left for this request",
    }
);

impl RunCode {
    /// Whether `try`, `catch` and `otherwise` may see it.
    pub const fn is_catchable(self) -> bool {
        !matches!(self, Self::Cancelled | Self::StackOverflow | Self::OutOfMemory | Self::SecretLeak)
    }

    /// Whether who called may see it, when it ended the callee: what has run out or was cancelled there is whole here. A
    /// secret that was about to leave ends everybody.
    pub const fn is_catchable_by_caller(self) -> bool {
        !matches!(self, Self::SecretLeak)
    }

    /// Whether `fallback` gives another worker a chance.
    pub const fn is_worth_a_fallback(self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::Unavailable
                | Self::RateLimited
                | Self::Refused
                | Self::OutputInvalid
                | Self::ToolFailed
                | Self::ToolLimit
                | Self::OutcomeUnknown
        )
    }

    /// Whether the same request may do better a moment later.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable | Self::RateLimited)
    }
}

codes!(
    /// Why a door refused a command or a query. The `reason` of a gRPC `ErrorInfo`.
    Reason, "reason" {
        0 InvalidArgument = "INVALID_ARGUMENT": "a field is missing or wrong; the details name it",
        1 Unauthenticated = "UNAUTHENTICATED": "who is asking is not known",
        2 PermissionDenied = "PERMISSION_DENIED": "who is asking may not do this",
        3 NotFound = "NOT_FOUND": "there is no such thing, or not for this tenant",
        4 AlreadyExists = "ALREADY_EXISTS": "the request id was used for something else",
        5 ProgramInvalid = "PROGRAM_INVALID": "the program has errors; the details list them",
        6 AlreadyEnded = "ALREADY_ENDED": "the workload or agent has ended",
        7 Overloaded = "OVERLOADED": "a queue is full; the details say when to try again",
        8 StoreUnavailable = "STORE_UNAVAILABLE": "the store does not answer",
        9 DiskFull = "DISK_FULL": "the store has no room left",
        10 DeadlineExceeded = "DEADLINE_EXCEEDED": "the deadline of the request passed",
        11 CursorInvalid = "CURSOR_INVALID": "the cursor or page token was not made by this store",
        12 Draining = "DRAINING": "the node is stopping; try another or later",
        13 Internal = "INTERNAL": "a bug; the log has more under the same request id",
        14 NotWaiting = "NOT_WAITING": "the approval was answered before, or its agent has gone on",
        15 DataCorrupt = "DATA_CORRUPT": "stored data is damaged; nothing was guessed",
        16 NoNode = "NO_NODE": "no node of the cluster can do this",
        17 NoLeader = "NO_LEADER": "nobody decides for the cluster at the moment",
        18 Unread = "UNREAD": "a node of the cluster does not read the format",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_what_it_prints() {
        for code in RunCode::ALL {
            assert_eq!(code.as_str().parse::<RunCode>().as_ref(), Ok(code));
        }
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse::<Reason>().as_ref(), Ok(reason));
        }
    }
}
