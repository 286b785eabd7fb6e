//! The words every other crate speaks: ids, units, limits and closed error codes.
//!
//! Nothing here computes more than an id from other ids. A type belongs here once a third crate needs it.

mod code;
mod id;
pub mod limits;
mod outcome;
pub mod planted;
mod state;
mod unit;

pub use code::{Reason, RunCode};
pub use id::{
    AgentId, BlobHash, Cursor, EffectKey, Epoch, Generation, GlobalSeq, IdError, InputId, ModuleHash, NodeId, PageId,
    PrincipalId, RequestId, Seq, StreamId, TenantId, Version, WorkloadId,
};
pub use outcome::{Failure, Outcome, Payload};
pub use state::{AgentState, Waiting, WorkloadState};
pub use unit::{Budget, Millis, Spend, Timestamp, Tokens, UsdMicro};
