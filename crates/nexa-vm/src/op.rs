//! The instructions.
//!
//! One is a 32-bit little-endian word: `op:8 a:24`, or `op:8 a:8 b:16`. `Wide` before an instruction adds 24 higher bits
//! to its `a:24`. The machine is a stack machine; `… x y → z` says that `x` and `y` (on top) give way to `z`.
//! Jump operands are absolute instruction indices within the function.
//!
//! Numbers are stored and never reused. New instructions go at the end of their group's range.

mod word;

pub use word::{Word, word_a, word_ab};

macro_rules! ops {
    ($($(#[$doc:meta])* $number:literal $name:ident $form:ident),* $(,)?) => {
        /// An instruction's operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Op { $($(#[$doc])* $name = $number,)* }

        impl Op {
            /// Every operation, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The operation with this number.
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($number => Some(Self::$name),)* _ => None }
            }

            /// Its name, as in the textual dump.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// How its operands lie in the word.
            pub const fn form(self) -> Form {
                match self { $(Self::$name => Form::$form,)* }
            }
        }
    };
}

/// Numbers that are given away to instructions which this release does not have. `Search` pops a request and pushes the
/// action that a search found, see `nexa_event::effect::SearchRequest`.
pub const RESERVED: &[(u8, &str)] = &[(163, "Search")];

/// How the operands of an instruction lie in its word, and what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// No operand.
    None,
    /// `a`: a number without further meaning (a count, a slot, a small integer).
    A,
    /// `a`: a jump target in the same function.
    Jump,
    /// `a`: an index into the module's constants.
    Const,
    /// `a`: an index into the module's types.
    Type,
    /// `a`: an index into the module's shapes.
    Shape,
    /// `a`: an index into the module's agents.
    Agent,
    /// `a`: an index into the module's model requests.
    Request,
    /// `a`: a count (8 bits), `b`: an index into the module's functions.
    CountFunction,
    /// `a`: a count (8 bits), `b`: the number of a standard function.
    CountStd,
    /// `a`: a count (8 bits), `b`: flags, see the instruction.
    CountFlags,
    /// `a`: a count (8 bits), `b`: an index into the module's tools.
    CountTool,
}

impl Form {
    /// Whether the word is `op:8 a:8 b:16`, which `Wide` does not widen.
    pub const fn has_count(self) -> bool {
        matches!(self, Self::CountFunction | Self::CountStd | Self::CountFlags | Self::CountTool)
    }
}

ops! {
    // Stack, constants, locals.
    /// `… → …`
    0 Nop None,
    /// The next instruction's `a` gets `a` as its higher 24 bits.
    1 Wide A,
    /// `… → … constant`
    2 Const Const,
    /// `… → … int`, `a` being a signed 24-bit number.
    3 Int A,
    /// `… → … true`
    4 True None,
    /// `… → … false`
    5 False None,
    /// `… → … none`
    6 NoneValue None,
    /// `… → … ()`
    7 Unit None,
    /// `… x → …`
    8 Pop None,
    /// `… x → … x x`
    9 Dup None,
    /// `… x y → … y x`
    10 Swap None,
    /// `… x(a) … x(0) → … x(a) … x(0) x(a)`
    11 Pick A,
    /// `… → … local[a]`
    12 LoadLocal A,
    /// `… x → …`, `local[a] = x`
    13 StoreLocal A,
    /// `local[a] += b` on an int, with overflow raised; `a` is the slot (8 bits), `b` a signed 16-bit number.
    14 IncLocal CountFlags,
    /// `… → … capture[a]` of the running closure.
    15 LoadCapture A,

    // Arithmetic and tests. Typed ones trust the verifier's kinds; dynamic ones look.
    /// `… int int → … int`, raises `overflow`.
    20 AddInt None,
    /// `… int int → … int`, raises `overflow`.
    21 SubInt None,
    /// `… int int → … int`, raises `overflow`.
    22 MulInt None,
    /// `… int int → … int`, truncates; raises `div_zero`, `overflow`.
    23 DivInt None,
    /// `… int int → … int`, the dividend's sign; raises `div_zero`, `overflow`.
    24 RemInt None,
    /// `… int → … int`, raises `overflow`.
    25 NegInt None,
    /// `… int int → … bool`
    26 LtInt None,
    /// `… int int → … bool`
    27 LeInt None,
    /// `… int int → … bool`
    28 EqInt None,
    /// `… float float → … float`
    29 AddFloat None,
    /// `… float float → … float`
    30 SubFloat None,
    /// `… float float → … float`
    31 MulFloat None,
    /// `… float float → … float`, raises `div_zero`.
    32 DivFloat None,
    /// `… float float → … float`, raises `div_zero`.
    33 RemFloat None,
    /// `… float → … float`
    34 NegFloat None,
    /// `… float float → … bool`
    35 LtFloat None,
    /// `… float float → … bool`
    36 LeFloat None,
    /// `… float float → … bool`
    37 EqFloat None,
    /// `… x y → … x + y`: numbers, durations, two texts, two lists; raises `type_mismatch`.
    38 Add None,
    /// `… x y → … x - y`
    39 Sub None,
    /// `… x y → … x * y`
    40 Mul None,
    /// `… x y → … x / y`
    41 Div None,
    /// `… x y → … x % y`
    42 Rem None,
    /// `… x → … -x`
    43 Neg None,
    /// `… x y → … bool`, deep.
    44 Eq None,
    /// `… x y → … bool`, deep.
    45 Ne None,
    /// `… x y → … bool`, numbers, durations or texts.
    46 Lt None,
    /// `… x y → … bool`
    47 Le None,
    /// `… x y → … bool`
    48 Gt None,
    /// `… x y → … bool`
    49 Ge None,
    /// `… x xs → … bool`: an element of a list, a key of a dict, a part of a text.
    50 In None,
    /// `… bool → … bool`
    51 Not None,
    /// `… int → … float`
    52 IntToFloat None,
    /// `… v(1) … v(a) → … str`: the texts of `a` values, joined; a str as is, any other as canonical JSON.
    53 Concat A,
    /// `… x → … x`, with `any` checked and converted to `type[a]`; raises `type_mismatch`.
    54 CheckType Type,

    // Control.
    /// Goes on at `a`; only forwards, or to a `LoopTick`.
    60 Jump Jump,
    /// `… bool → …`, goes on at `a` if true.
    61 JumpIf Jump,
    /// `… bool → …`, goes on at `a` if false.
    62 JumpIfNot Jump,
    /// `… x → … x` and goes on at `a` if it is not `none`; otherwise `… none → …`.
    63 JumpIfSome Jump,
    /// `… result → … result`, goes on at `a` if it is `err`.
    64 JumpIfErr Jump,
    /// The only place that a backward jump may lead to. A safepoint.
    65 LoopTick None,
    /// `… x →`, ends the function with `x`.
    66 Return None,
    /// Until the matching `LeaveTry`, a catchable error cuts the stack back to here, pushes the error, goes on at `a`.
    67 EnterTry Jump,
    /// Ends the innermost try.
    68 LeaveTry None,
    /// `… error →`, raises it.
    69 Raise None,
    /// Ends the VM with an internal error; the compiler puts it where the checker proved that nothing goes.
    70 Trap None,
    /// `… x → … bool`: whether an error's code is worth a `fallback`.
    71 IsFallback None,
    /// `… x → … bool`: whether an error's code is transient.
    72 IsTransient None,
    /// `… duration → …`: until the matching `LeaveTry`, the end of this time, when the agent learns of it, cuts the stack
    /// back to here, pushes the error and goes on at `a`. Errors of the program pass it by.
    73 EnterTimed Jump,
    /// Until the matching `LeaveTry`, whatever ends the code there, also from outside and also what nobody may catch,
    /// cuts the stack back to here, pushes what it was and goes on at `a`, which has to raise it again.
    74 EnterDefer Jump,

    // Calls.
    /// `… arg(1) … arg(a) → … result`, calls `function[b]`. A safepoint when the slice is used up.
    80 Call CountFunction,
    /// `… arg(1) … arg(a) → … result`, calls standard function `b`.
    81 CallStd CountStd,
    /// `… f arg(1) … arg(a) → … result`: a closure or a stage; an agent runs as a child.
    82 CallValue A,
    /// `… arg(1) … arg(a) →`, the call's result is this function's.
    83 TailCall CountFunction,
    /// `… capture(1) … capture(a) → … closure` of `function[b]`.
    84 Closure CountFunction,
    /// `… f arg(1) … arg(a) → … stage`: `f` with these arguments in place; argument `b` is left open for the piped
    /// value, so `f` takes `a + 1` arguments. With [`crate::value::Stage::NOTHING_OPEN`] as `b` all are in place.
    85 MakeStage CountFlags,

    // Records and collections.
    /// `… v(1) … v(n) → … record`, with the fields of `shape[a]` in its order.
    100 NewRecord Shape,
    /// `… record → … value` of the field whose name is `constant[a]`; raises `key_missing`.
    101 GetField Const,
    /// `… record value → … record` with the field `constant[a]` replaced.
    102 SetField Const,
    /// `… v(1) … v(a) → … list`
    103 NewList A,
    /// `… v(1) … v(a) → … tuple`
    104 NewTuple A,
    /// `… k(1) v(1) … k(a) v(a) → … dict`
    105 NewDict A,
    /// `… xs i → … x`; raises `index`, `key_missing`.
    106 Index None,
    /// `… xs i x → … xs`
    107 SetIndex None,
    /// `… xs → … int`
    108 Len None,
    /// `… xs → … iterator` over a list, a dict's entries as tuples, or a text's characters.
    109 IterNew None,
    /// `… iterator → … iterator x`, or `… iterator → …` and goes on at `a` when there is no further one.
    110 IterNext Jump,
    /// `… v(1) … v(n) → … variant`, with tag and fields of `shape[a]`.
    111 Variant Shape,
    /// `… x → … x bool`: whether it is the variant (or record) of `shape[a]`.
    112 TestVariant Shape,
    /// `… x → … v`: the value of `ok(v)` or of a present optional; raises the error of `err`, `none_value` for `none`.
    113 Unwrap None,
    /// `… x → … ok(x)`
    114 WrapOk None,
    /// `… error → … err(error)`
    115 WrapErr None,
    /// `… tuple → … v(1) … v(a)`, raises `type_mismatch` for another length.
    116 Unpack A,
    /// `… list → … record`, with the fields of `shape[a]`: named fork results.
    117 ListToRecord Shape,

    // Agents and effects. Each but AgentCreate, AgentClone, Pipeline and Merge yields an effect.
    /// `… → … agent`
    130 AgentCreate Agent,
    /// `… agent arg(1) … arg(a) → … value`: runs a child and waits; raises what it raised.
    131 AgentRun A,
    /// `… stage(1) … stage(a) → … stage` that runs them one after the other.
    132 Pipeline A,
    /// `… [input] branch(1) … branch(a) [timeout] → … list[Result]`: runs them as children and waits for all, or for the
    /// first ones that end ok: then `→ … value`, the first one's, and `merge_failed` if too few do. Detached ones are not
    /// waited for: `→ … ()`. `b` is a [`ForkMode`].
    /// 256 branches have `a` = 0, see [`Word::branches`].
    133 Fork CountFlags,
    /// `… list[Result] options → … value` by [`MergeStrategy`] number `b`, which says what its options are; raises
    /// `merge_failed`.
    134 Merge CountFlags,
    /// `… model messages → … reply` by `request[a]`: see [`crate::module::ModelRequestSpec`].
    135 LLMCall Request,
    /// As `LLMCall`, and the pieces go to the client.
    136 LLMStream Request,
    /// `… question data timeout → … Approval`; data and timeout may be `none`; raises `approval_timeout`.
    137 Approve None,
    /// `… duration → … ()`
    138 Sleep None,
    /// `… value channel → … ()`
    139 Emit None,
    /// `… → … int`, milliseconds since 1970.
    140 Now None,
    /// `… low high → … int`
    141 Random None,
    /// `… x → … ()`
    142 Log None,
    /// `… arg(1) … arg(a) → … value`: calls `tool[b]`, one argument a parameter; raises `tool_failed`, `timeout`,
    /// `denied`, `unavailable`, `outcome_unknown`. Only in functions that are granted the tool.
    143 ToolCall CountTool,
    /// `… → … secret` whose name is `constant[a]`. Its value never enters the machine. Like all that follow but the
    /// memory of a workload and a tenant, it is done in the machine and is no effect; still, a pure function may not.
    144 Secret Const,
    /// `… f arg(1) … arg(a) → … handle`: starts a child and goes on.
    147 Spawn A,
    /// `… handle → … value`: how the child ended, or `()` when the moment has come; raises what the child raised, and
    /// `dead_handle`.
    148 Await None,
    /// `… value handle → … ()`: passes a message; raises `dead_handle`.
    149 Send None,
    /// `… arg(1) … arg(a) → … value`: asks the harness of a test, `b` being the number of a
    /// [`nexa_event::effect::TestCall`]. Only in functions of test builds.
    150 TestCall CountFlags,
    /// `… timeout → … value`, the next message; the timeout may be `none`, and raises `timeout`.
    151 Receive None,
    /// `… handle → … ()`: ends the child, forgets the timer.
    152 Cancel None,
    /// `… duration → … handle` of a moment.
    153 Timer None,
    /// `… int → … ()`: lets go of the handles that were made by this effect and later ones; children that run are ended.
    154 Release None,
    /// `… → … int`, the number that the next effect will have. No effect itself.
    155 NextSeq None,
    /// `… key value → … ()` in the memory of scope `a`; `none` forgets the key. See [`MemoryScope`].
    156 MemStore A,
    /// `… key → … value`, `none` if there is nothing.
    157 MemLoad A,
    /// `… query k → … list[Hit]`, the best first.
    158 MemRecall A,
    /// `… → … snapshot` of the stack, all frames and the agent's memory, as they are after this instruction.
    159 Snapshot None,
    /// `… snapshot →`: goes on just after the instruction that made it; raises `dead_handle`, `restore_limit`.
    160 Restore None,
    /// `… agent → … agent`: `agent[a]`, which was derived from it and takes the same parameters; raises `type_mismatch`.
    161 AgentClone Agent,
    /// `… snapshot → … int`: how often it was restored; raises `dead_handle`.
    162 Tries None,
    /// `… question subject rejected → … reply`: asks a model a question about a value; `a` says what for, see [`Asking`].
    /// `rejected` is a list of earlier replies that were not accepted, which the model is shown. Instead of the question
    /// there may be a tuple of it and the name of the model; otherwise the default model is asked.
    145 SemanticIf A,
    /// `… question subject labels rejected → … reply`: asks which one of some labels fits; `a` is
    /// [`Asking::Question`] or [`Asking::Intent`].
    146 Classify A,
}

/// What a model is asked by [`Op::SemanticIf`] and [`Op::Classify`]: their operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Asking {
    /// Whether something said in words holds, or which label fits.
    Question = 0,
    /// Which intent a value has, or whether it has one.
    Intent = 1,
    /// Which of several candidates is the best; `SemanticIf` only.
    Judge = 2,
    /// What can be said against a value; `SemanticIf` only.
    Reflect = 3,
}

impl Asking {
    /// What is asked by an operand.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Question),
            1 => Some(Self::Intent),
            2 => Some(Self::Judge),
            3 => Some(Self::Reflect),
            _ => None,
        }
    }
}

/// How an [`Op::Fork`] runs its branches: the flags of its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForkMode {
    /// An input is there and is each branch's argument; otherwise each branch takes none. Bit 0.
    pub has_input: bool,
    /// A duration is there, in which each branch must end. Bit 1.
    pub has_timeout: bool,
    /// Only so many have to end ok, from 1 to 256. Bit 2, and one less in bits 8 to 15.
    pub first_ok: Option<u16>,
    /// They belong to the workload, and nobody waits for them; without a time and without a first. Bit 3.
    pub is_detached: bool,
}

impl ForkMode {
    const INPUT: u16 = 1;
    const TIMEOUT: u16 = 2;
    const FIRST: u16 = 4;
    const DETACHED: u16 = 8;

    /// The mode that these flags stand for.
    pub const fn from_flags(flags: u16) -> Option<Self> {
        let is_first = flags & Self::FIRST != 0;
        let known = match flags & Self::DETACHED {
            0 => Self::INPUT | Self::TIMEOUT | Self::FIRST | if is_first { 0xFF00 } else { 0 },
            _ => Self::INPUT | Self::DETACHED,
        };
        if flags & !known != 0 {
            return None;
        }
        Some(Self {
            has_input: flags & Self::INPUT != 0,
            has_timeout: flags & Self::TIMEOUT != 0,
            first_ok: if is_first { Some((flags >> 8) + 1) } else { None },
            is_detached: flags & Self::DETACHED != 0,
        })
    }

    /// The flags of this mode.
    pub const fn flags(self) -> u16 {
        let first = match self.first_ok {
            Some(wanted) => Self::FIRST | (wanted - 1) << 8,
            None => 0,
        };
        self.has_input as u16 | (self.has_timeout as u16) << 1 | first | (self.is_detached as u16) << 3
    }

    /// How many operands a fork of so many branches has.
    pub const fn operands(self, branches: usize) -> usize {
        branches + self.has_input as usize + self.has_timeout as usize
    }
}

/// How [`Op::Merge`] makes one value of the branches' results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum MergeStrategy {
    /// The list of ok values; any failure raises `merge_failed`.
    All = 0,
    /// A text with one headed section a branch in declaration order; a failed one reads `failed: <code>`; at least one
    /// must be ok. `… names list → … str`, names being a list of texts.
    Sections = 1,
    /// The list of ok values; fewer than `min_ok` raise `merge_failed`, here and below. `… list min_ok → … list`.
    AtLeast = 2,
    /// The ok values joined: texts with a separator between them, lists one after the other.
    /// `… list separator min_ok → … value`.
    Concat = 3,
    /// The ok value that is there most often, texts being the same whatever their case and spacing; a tie goes to the
    /// one that is there first. `… list min_ok → … value`.
    Vote = 4,
    /// As `Vote`, and a tie raises `merge_failed`. `… list min_ok → … value`.
    VoteWithoutTie = 5,
    /// The mean of the ok values, each with the weight of its branch. `… list weights min_ok → … float`, weights being
    /// a list of as many numbers as there are branches.
    WeightedAverage = 6,
}

impl MergeStrategy {
    /// The strategy with this number.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::All),
            1 => Some(Self::Sections),
            2 => Some(Self::AtLeast),
            3 => Some(Self::Concat),
            4 => Some(Self::Vote),
            5 => Some(Self::VoteWithoutTie),
            6 => Some(Self::WeightedAverage),
            _ => None,
        }
    }

    /// How many operands it pops: the branches' results, and its options.
    pub const fn operands(self) -> usize {
        match self {
            Self::All => 1,
            Self::Sections | Self::AtLeast | Self::Vote | Self::VoteWithoutTie => 2,
            Self::Concat | Self::WeightedAverage => 3,
        }
    }
}

/// Whose memory an instruction means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MemoryScope {
    /// This agent's: it lives in the machine and goes where the machine goes.
    Agent = 0,
    /// One run's, with all its children.
    Workload = 1,
    /// The tenant's, from run to run.
    Tenant = 2,
}

impl MemoryScope {
    /// The scope with this number.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Agent),
            1 => Some(Self::Workload),
            2 => Some(Self::Tenant),
            _ => None,
        }
    }
}
