//! Every kind of token and node the syntax tree can hold.
//!
//! The list covers the whole language, also constructs that a release parses but does not yet compile, so that
//! the checker can name what it refuses instead of calling it a syntax error.
//!
//! Each kind carries the words a diagnostic uses for it: `` `)` ``, `a name`, `the body of an agent`.

macro_rules! syntax_kinds {
    ($( $(#[$note:meta])* $name:ident $words:literal, )*) => {
        /// What a token or a node of the tree is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum SyntaxKind {
            $( #[doc = $words] $(#[$note])* $name, )*
        }

        impl SyntaxKind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [SyntaxKind] = &[$( SyntaxKind::$name, )*];

            /// The words for this kind in a message.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self { $( SyntaxKind::$name => $words, )* }
            }
        }
    };
}

syntax_kinds! {
    // Trivia: kept in the tree, skipped by the parser.
    Whitespace "blanks",
    Newline "the end of a line",
    LineComment "a comment",
    BlockComment "a block comment",
    DocComment "a doc comment",
    FileDoc "a file comment",

    // Tokens with a text of their own.
    Ident "a name",
    Int "an int",
    Float "a float",
    Duration "a duration",
    Size "a size",
    RawStr "a raw text",
    StrOpen "a text",
    StrText "a text",
    StrClose "the end of the text",
    InterpolationOpen "`#{`",
    InterpolationClose "`}`",
    Unknown "a character outside the language",
    EndOfFile "the end of the file",

    // Reserved words.
    AndKw "`and`",
    OrKw "`or`",
    NotKw "`not`",
    LetKw "`let`",
    IfKw "`if`",
    ElseKw "`else`",
    WhileKw "`while`",
    ForKw "`for`",
    InKw "`in`",
    BreakKw "`break`",
    ContinueKw "`continue`",
    ReturnKw "`return`",
    MatchKw "`match`",
    TryKw "`try`",
    CatchKw "`catch`",
    DeferKw "`defer`",
    FnKw "`fn`",
    AwaitKw "`await`",
    TrueKw "`true`",
    FalseKw "`false`",
    NoneKw "`none`",

    // Contextual words. The lexer gives `Ident`; the parser renames the token where the word has its meaning.
    AgentKw "`agent`",
    ToolKw "`tool`",
    ProtocolKw "`protocol`",
    StructKw "`struct`",
    EnumKw "`enum`",
    TypeKw "`type`",
    FlowKw "`flow`",
    TestKw "`test`",
    UseKw "`use`",
    SemanticIfKw "`semantic_if`",
    LoopKw "`loop`",
    ForkKw "`fork`",
    SpawnKw "`spawn`",
    PassKw "`pass`",
    VerifyKw "`verify`",
    AssertKw "`assert`",
    EachKw "`each`",
    UntilKw "`until`",
    MergeKw "`merge`",
    AgainstKw "`against`",
    FastMatchKw "`fast_match`",
    SatisfiesKw "`satisfies`",
    ToKw "`to`",
    IntentKw "`intent`",
    OtherwiseKw "`otherwise`",
    FallbackKw "`fallback`",
    UsesKw "`uses`",
    ImplementsKw "`implements`",
    RequiresKw "`requires`",
    EnsuresKw "`ensures`",
    BudgetKw "`budget`",
    ScheduleKw "`schedule`",
    AsKw "`as`",
    ScriptKw "`script`",

    // Punctuation.
    ParenOpen "`(`",
    ParenClose "`)`",
    BracketOpen "`[`",
    BracketClose "`]`",
    BraceOpen "`{`",
    BraceClose "`}`",
    Comma "`,`",
    Semicolon "`;`",
    Colon "`:`",
    Dot "`.`",
    At "`@`",
    Underscore "`_`",
    Equals "`=`",
    PlusEquals "`+=`",
    MinusEquals "`-=`",
    FatArrow "`=>`",
    ThinArrow "`->`",
    Question "`?`",
    Bang "`!`",
    Plus "`+`",
    Minus "`-`",
    Star "`*`",
    Slash "`/`",
    Percent "`%`",
    EqualsEquals "`==`",
    BangEquals "`!=`",
    Less "`<`",
    LessEquals "`<=`",
    Greater "`>`",
    GreaterEquals "`>=`",
    Bar "`|`",
    QuestionQuestion "`??`",
    Pipe "`>>`",
    PipeCall "`|>`",
    PipeFork "`|>>`",
    PipeDetach "`||`",
    PipeMerge "`&>>`",
    PipeConsensus "`&&`",
    PipeBranch "`?>`",

    // Nodes: file and declarations.
    SourceFile "a file",
    Error "text that could not be read",
    UseDecl "a `use`",
    UseList "the names of a `use`",
    UseName "a name of a `use`",
    TypeDecl "a `type`",
    ProtocolDecl "a `protocol`",
    StructDecl "a `struct`",
    FieldList "a list of fields",
    Field "a field",
    EnumDecl "an `enum`",
    VariantList "a list of variants",
    Variant "a variant",
    FnDecl "a `fn`",
    ToolDecl "a `tool`",
    AgentDecl "an `agent`",
    FlowDecl "a `flow`",
    TestDecl "a `test`",
    Decorator "a decorator",
    ParamList "a list of parameters",
    Param "a parameter",
    ResultType "a result type",
    UsesClause "a `uses` clause",
    Grant "a grant",
    ImplementsClause "an `implements` clause",
    RequiresClause "a `requires` clause",
    EnsuresClause "an `ensures` clause",
    BudgetClause "a `budget` clause",
    ScheduleClause "a `schedule` clause",
    PropertyList "a list of properties",
    Property "a property",

    // Nodes: types.
    NamedType "a type",
    TypeArgs "type arguments",
    OptionType "an optional type",
    TupleType "a tuple type",
    RecordType "a record type",
    FnType "a function type",
    UnionType "a union type",
    SemanticType "a semantic type",

    // Nodes: statements.
    Block "a block",
    LetStmt "a `let`",
    AssignStmt "an assignment",
    ExprStmt "an expression as a statement",
    ReturnStmt "a `return`",
    BreakStmt "a `break`",
    ContinueStmt "a `continue`",
    DeferStmt "a `defer`",
    WhileStmt "a `while`",
    ForStmt "a `for`",
    SemanticIfStmt "a `semantic_if`",
    LoopStmt "a `loop`",
    UntilClause "an `until` clause",
    PassStmt "a `pass`",
    VerifyStmt "a `verify`",
    AssertStmt "an `assert`",
    ScriptStmt "a `script`",

    // Nodes: expressions.
    LiteralExpr "a literal",
    StringExpr "a text",
    Interpolation "an interpolation",
    NameRef "a name",
    PlaceholderExpr "the placeholder `_`",
    ParenExpr "an expression in parentheses",
    TupleExpr "a tuple",
    ListExpr "a list",
    RecordExpr "a record",
    RecordField "a field of a record",
    DictExpr "a dict",
    DictEntry "an entry of a dict",
    FieldExpr "a field access",
    CallExpr "a call",
    ArgList "a list of arguments",
    Arg "an argument",
    IndexExpr "an index",
    UnwrapExpr "the postfix `?`",
    PrefixExpr "a prefix operator",
    AwaitExpr "an `await`",
    SpawnExpr "a `spawn`",
    BinaryExpr "a binary operator",
    PipeExpr "a pipeline operator",
    BranchExpr "a branch `?>`",
    RescueExpr "`otherwise` or `fallback`",
    IfExpr "an `if`",
    MatchExpr "a `match`",
    ArmList "a list of arms",
    Arm "an arm",
    Guard "a guard",
    TryExpr "a `try`",
    TryBlock "a `try` block",
    CatchClause "a `catch`",
    LambdaExpr "a function value",
    ForkExpr "a `fork`",
    ForkList "a list of branches",
    ForkBranch "a branch of a fork",
    MergeClause "a `merge` clause",

    // Nodes: patterns.
    LiteralPat "a literal pattern",
    NamePat "a name pattern",
    WildcardPat "the wildcard `_`",
    VariantPat "a variant pattern",
    RecordPat "a record pattern",
    FieldPat "a field pattern",
    ListPat "a list pattern",
    TuplePat "a tuple pattern",
    TypedPat "a typed pattern",
    IntentPat "an `intent` pattern",
}

impl SyntaxKind {
    /// Blanks, line ends and comments: in the tree, but of no meaning to the parser.
    #[must_use]
    pub fn is_trivia(self) -> bool {
        self <= SyntaxKind::FileDoc
    }

    /// One of the 21 words that can never be a name.
    #[must_use]
    pub fn is_reserved_word(self) -> bool {
        (SyntaxKind::AndKw..=SyntaxKind::NoneKw).contains(&self)
    }

    /// The kind of a reserved word, or nothing if the text is an ordinary name.
    #[must_use]
    pub fn reserved(text: &str) -> Option<SyntaxKind> {
        Some(match text {
            "and" => SyntaxKind::AndKw,
            "or" => SyntaxKind::OrKw,
            "not" => SyntaxKind::NotKw,
            "let" => SyntaxKind::LetKw,
            "if" => SyntaxKind::IfKw,
            "else" => SyntaxKind::ElseKw,
            "while" => SyntaxKind::WhileKw,
            "for" => SyntaxKind::ForKw,
            "in" => SyntaxKind::InKw,
            "break" => SyntaxKind::BreakKw,
            "continue" => SyntaxKind::ContinueKw,
            "return" => SyntaxKind::ReturnKw,
            "match" => SyntaxKind::MatchKw,
            "try" => SyntaxKind::TryKw,
            "catch" => SyntaxKind::CatchKw,
            "defer" => SyntaxKind::DeferKw,
            "fn" => SyntaxKind::FnKw,
            "await" => SyntaxKind::AwaitKw,
            "true" => SyntaxKind::TrueKw,
            "false" => SyntaxKind::FalseKw,
            "none" => SyntaxKind::NoneKw,
            _ => return None,
        })
    }
}
