//! The closed table of codes. A code never changes its meaning.

macro_rules! codes {
    ($( $code:ident $meaning:literal, )*) => {
        /// The number of a mistake: `E` stops the program, `W` and `N` do not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $( #[doc = $meaning] $code, )*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$( Code::$code, )*];

            /// The code as it is written.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Code::$code => stringify!($code), )* }
            }

            /// What it stands for, in a few words.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $( Code::$code => $meaning, )* }
            }
        }
    };
}

codes! {
    // 01: characters and literals
    E0101 "the file is not UTF-8",
    E0102 "the file is too large",
    E0103 "a text is not closed",
    E0104 "an escape is not known",
    E0105 "an escape names no Unicode scalar value",
    E0106 "a comment is not closed",
    E0107 "a line of a text block is indented less than its closing quotes",
    E0108 "an interpolation is not closed, or nests too deep",
    E0109 "a number or its suffix is malformed",
    E0110 "a character has no place in the language",
    E0111 "an int is out of range",
    // 02: syntax and modules
    E0201 "an unexpected token",
    E0202 "a bracket is not closed",
    E0203 "a declaration is expected here",
    E0204 "two statements stand on one line without `;`",
    E0205 "files import each other in a circle",
    E0206 "an imported file is not found",
    E0207 "a name is defined twice",
    E0208 "a name is not known",
    E0209 "a reserved word is used as a name",
    E0210 "the program nests too deep",
    E0211 "comparisons are chained",
    W0212 "a name or an import is not used",
    W0213 "a declaration that is used is deprecated",
    // 03: names and types
    E0301 "a value has another type than its place",
    E0302 "a type is not known",
    E0303 "a type has the wrong arguments",
    E0304 "a call has the wrong arguments",
    E0305 "a field or method is not known",
    E0306 "a condition is not a bool",
    E0307 "an operator does not work on these types",
    E0308 "the elements of a list have different types",
    E0309 "a dict has a key of a type that cannot be a key",
    E0310 "an assignment changes the type of a name",
    E0311 "a plain value stands where a semantic type is asked for",
    E0312 "a union is used before it is narrowed",
    E0313 "a recursive function needs its result type",
    E0314 "`?` stands after a value that cannot fail",
    E0315 "a `match` or a pattern leaves cases out",
    W0316 "an arm is never reached",
    E0317 "a regular expression is malformed",
    W0318 "a parameter takes any value",
    W0319 "a result is ignored",
    E0320 "a `fn` has an effect",
    E0321 "a branch assigns a name from outside",
    E0322 "a path ends without `return`",
    // 04: declarations
    E0401 "a property is not known",
    E0402 "a property is given twice",
    E0403 "a property's value is out of range",
    E0404 "a property is not a constant",
    E0405 "a model's name is malformed",
    E0406 "a prompt uses a name it cannot see",
    E0407 "a result lacks fields of its protocol",
    E0408 "a tool has no source",
    E0409 "a tool's risk, effect or approval is not one of the known words",
    E0410 "a fallback leads back to itself or has other parameters",
    E0411 "a planner's setting is wrong",
    E0412 "a memory setting is wrong",
    E0413 "a contract uses a name it cannot see",
    E0414 "there is no `flow main` to run",
    // W0415 said that a bare number stands for a duration, which E0902 says now.
    E0416 "a type cannot be sent to a model",
    // 05: pipelines and forks
    E0501 "a stage takes another type than it is given",
    E0502 "a strategy cannot merge these types",
    E0503 "an operand is not a stage",
    E0504 "a chain has no input",
    E0505 "a fork needs from 2 to 256 branches",
    E0506 "names or weights do not match the branches",
    E0507 "code is never reached",
    E0508 "what is merged is neither a fork nor a list",
    E0509 "a table of branches has no `_`",
    E0510 "`&&` or `||` stands between bools",
    E0511 "branch names are mixed or repeated",
    E0512 "a judge has an unsuitable result",
    // 06: bounds and cost
    E0601 "a loop that asks a model has neither a bound nor a budget",
    E0602 "agents call each other without a bound",
    E0603 "the least possible cost is above the budget",
    W0604 "the cost bound is above the budget, or not known",
    E0605 "a child has a larger budget than its parent",
    W0606 "an approval has no timeout",
    // 07: graph
    N0701 "code is shown as one opaque node",
    E0702 "a node or port is not known",
    E0703 "an edit makes a circle",
    E0704 "an edit was made for another text",
    E0705 "two ports have different types",
    W0706 "a layout entry has no node",
    // 08: permissions and data
    E0801 "a tool is used without a grant",
    E0802 "a secret flows into a prompt",
    E0803 "a secret flows out of the program",
    E0804 "a host or path lies beyond the limits",
    E0805 "a detached branch uses a tool that asks for approval",
    E0806 "a tool of high risk never asks for approval",
    E0807 "the tenant's memory is used without a grant",
    W0808 "a tool's output reaches a risky argument unchecked",
    // 09: older forms
    // W0901 and W0902 are E0901 and E0902 now: an older form has no meaning, so it stops the program.
    E0901 "the older form of a branch",
    E0902 "an older form",
    E0903 "embedded Python is refused",
    E0904 "a shell outside the sandbox is refused",
    E0905 "an infrastructure block is refused",
    E0906 "a construct is not supported",
    // 10: module and snapshot
    E1001 "a module has the wrong magic or version",
    E1002 "a jump leads nowhere",
    E1003 "the stack has the wrong height",
    E1004 "an index is out of range",
    E1005 "a backward jump does not lead to a loop tick",
    E1006 "a module is beyond its limits",
    E1007 "a module has another hash than it says",
    E1008 "a snapshot belongs to another module",
    E1009 "a snapshot is damaged",
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The program yields no module.
    Error,
    /// The program compiles; something is probably not meant.
    Warning,
    /// The program compiles; something is worth knowing.
    Note,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

impl Code {
    /// The severity, which the first letter says.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self.name().as_bytes().first() {
            Some(b'W') => Severity::Warning,
            Some(b'N') => Severity::Note,
            _ => Severity::Error,
        }
    }

    /// Whether it says that a construct was recognised and is refused, rather than that a text could not be read.
    #[must_use]
    pub fn is_about_refused_forms(self) -> bool {
        matches!(self.name().get(1..3), Some("09"))
    }

    /// The code of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}
