//! Limits with names. Exceeding one is an error with a code and never undefined.

/// A source file, in bytes.
pub const SOURCE_BYTES_MAX: usize = 4 << 20;
/// A compiled module, in bytes.
pub const MODULE_BYTES_MAX: usize = 16 << 20;
/// A constant in a module, in bytes.
pub const CONSTANT_BYTES_MAX: usize = 1 << 20;
/// A text value, in bytes.
pub const STRING_BYTES_MAX: usize = 16 << 20;
/// Nested calls in one VM.
pub const FRAMES_MAX: usize = 256;
/// Values on one VM's stack.
pub const STACK_VALUES_MAX: usize = 65_536;
/// Local variables of one function.
pub const LOCALS_MAX: usize = 256;
/// Branches of one fork.
pub const BRANCHES_MAX: usize = 256;
/// Nesting of syntax, of values and of failures' causes.
pub const DEPTH_MAX: usize = 256;
/// The heap of one VM unless its agent says otherwise, in bytes.
pub const HEAP_BYTES_DEFAULT: u64 = 8 << 20;
/// The most an agent may say, in bytes.
pub const HEAP_BYTES_MAX: u64 = 64 << 20;
/// A snapshot, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;
/// Fuel of one time slice: 1 for each instruction, and more for one that works on many bytes or values.
pub const SLICE_FUEL: u64 = 10_000;
/// Messages that may wait in an agent's inbox; a further one is refused with `OVERLOADED`.
pub const INBOX_ENTRIES_MAX: usize = 1_024;
/// Messages of its parent that an agent may have before it, unread; the parent waits with a further one. And messages
/// from outside, of which a further one is kept in the history and not read by the program.
pub const MAILBOX_MESSAGES_MAX: usize = 1_024;
/// Children with a handle and timers that one agent holds at a time; a further `spawn` or `timer` fails.
pub const HANDLES_MAX: usize = 1_024;
/// Detached branches of one workload that run at a time; a further one fails.
pub const DETACHED_MAX: usize = 1_024;
/// What the ended children of one agent gave and nobody has released, in bytes; a further result is an error.
pub const KEPT_RESULTS_BYTES_MAX: usize = 64 << 20;
/// Payloads up to this size stand in the event; longer ones go to a blob, in bytes.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// The input of a workload, in bytes.
pub const INPUT_BYTES_MAX: usize = 4 << 20;
/// Agents in one submitted list.
pub const LIST_AGENTS_MAX: usize = 10_000;
/// The id of an agent of a submitted list, and the name of a gang, in bytes.
pub const LIST_ID_BYTES_MAX: usize = 256;
/// Labels that an agent asks of its node.
pub const LABELS_MAX: usize = 16;
/// The name of a label, and its value, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// Events between two snapshots of an agent: a longer tail costs time at wake-up.
pub const SNAPSHOT_EVERY_EVENTS: u64 = 256;
/// How deep agents may start agents.
pub const AGENT_DEPTH_MAX: u32 = 64;
/// States that one VM holds saved; a further `snapshot()` is `restore_limit`.
pub const SAVED_STATES_MAX: usize = 64;
/// How often one saved state can be restored; once more is `restore_limit`.
pub const RESTORES_MAX: u32 = 16;
/// Keys of one memory. A further one is refused in an agent's, and replaces the one stored longest ago in a workload's
/// or a tenant's.
pub const MEMORY_ENTRIES_MAX: usize = 1_024;
/// A key of a memory, in bytes.
pub const MEMORY_KEY_BYTES_MAX: usize = 256;
/// A value in a workload's or a tenant's memory when written out, in bytes.
pub const MEMORY_VALUE_BYTES_MAX: usize = 64 << 10;
/// Hits of one recall; more are cut off.
pub const RECALL_HITS_MAX: usize = 100;
/// The texts of all hits of one recall from a workload's or a tenant's memory, in bytes; the rest is cut off.
pub const RECALL_BYTES_MAX: usize = 1 << 20;
/// The name of a secret, in bytes.
pub const SECRET_NAME_BYTES_MAX: usize = 256;
