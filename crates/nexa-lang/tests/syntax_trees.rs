//! What the parser makes of programs that are right.

mod support;

use expect_test::{Expect, expect};
use support::{grouped, rendered, statements, tree};

fn check(actual: String, expected: Expect) {
    expected.assert_eq(&actual);
}

#[test]
fn a_program_with_every_construct_is_read_without_a_finding() {
    for text in [include_str!("corpus/review.nx"), include_str!("corpus/everything.nx")] {
        assert_eq!(rendered(text), "");
    }
}

#[test]
fn an_agent_is_a_header_clauses_and_properties() {
    let text = "/// Reads.\n@id(\"r\")\nagent Reader(text: str, n: int = 1) -> Note uses pages, std.fs(paths: [\"a\"])\n    requires n > 0\n{ role: \"Editor\", model: [\"a/b\"]\n  retry: { max: 2 } }";
    check(
        tree(text),
        expect![[r#"
        SourceFile
          AgentDecl agent Reader
            Decorator @ id
              ArgList ( )
                Arg
                  StringExpr " r "
            ParamList ( , )
              Param text :
                NamedType str
              Param n : =
                NamedType int
                LiteralExpr 1
            ResultType ->
              NamedType Note
            UsesClause uses ,
              Grant pages
              Grant std . fs
                ArgList ( )
                  Arg paths :
                    ListExpr [ ]
                      StringExpr " a "
            RequiresClause requires
              BinaryExpr >
                NameRef n
                LiteralExpr 0
            PropertyList { , }
              Property role :
                StringExpr " Editor "
              Property model :
                ListExpr [ ]
                  StringExpr " a/b "
              Property retry :
                RecordExpr { }
                  RecordField max :
                    LiteralExpr 2
    "#]],
    );
}

#[test]
fn types_nest() {
    check(
        tree("type T = list[dict[str, int?]] | (a.B, fn(int) -> str) | { x: T?? }\n@id(\"p\") protocol P { t: T }"),
        expect![[r#"
        SourceFile
          TypeDecl type T =
            UnionType | |
              NamedType list
                TypeArgs [ ]
                  NamedType dict
                    TypeArgs [ , ]
                      NamedType str
                      OptionType ?
                        NamedType int
              TupleType ( , )
                NamedType a . B
                FnType fn
                  TupleType ( )
                    NamedType int
                  ResultType ->
                    NamedType str
              RecordType
                FieldList { }
                  Field x :
                    OptionType ??
                      NamedType T
          ProtocolDecl protocol P
            Decorator @ id
              ArgList ( )
                Arg
                  StringExpr " p "
            FieldList { }
              Field t :
                NamedType T
    "#]],
    );
}

#[test]
fn operators_bind_as_tightly_as_the_table_says() {
    let cases = [
        ("a + b * c - d", expect!["((a + (b * c)) - d)"]),
        ("a ?? b ?? c", expect!["(a ?? (b ?? c))"]),
        ("x >> A ?? B >> C", expect!["((x >> (A ?? B)) >> C)"]),
        ("not a == b and c or d", expect!["(((not (a == b)) and c) or d)"]),
        ("a == b >> c", expect!["(a == (b >> c))"]),
        ("-a.b()[1]?", expect!["(- ((((a . b) ( )) [ 1 ]) ?))"]),
        ("a fallback b otherwise c", expect!["((a fallback b) otherwise c)"]),
        ("try a otherwise b", expect!["(try (a otherwise b))"]),
        ("x |>> [A, b: B] merge all &>> C && J", expect!["(((x |>> [ A , b : B ] merge all) &>> C) && J)"]),
        ("x ?> it > 1 or y => A : B >> C", expect!["((x ?> ((it > 1) or y) => A : B) >> C)"]),
        ("fn(x) => x + 1", expect!["(fn ( x ) => (x + 1))"]),
        ("if (a) b else c + d", expect!["(if ( a ) b else (c + d))"]),
        ("await spawn f(1)", expect!["(await (spawn (f ( 1 ))))"]),
        ("a - -b", expect!["(a - (- b))"]),
    ];
    for (text, expected) in cases {
        check(grouped(text), expected);
    }
}

#[test]
fn a_newline_ends_a_statement_unless_the_next_token_goes_on() {
    // Ends: the line before can be complete, and the next begins something new.
    check(
        statements("a\nb"),
        expect![[r#"
        ExprStmt
          NameRef a
        ExprStmt
          NameRef b
    "#]],
    );
    check(
        statements("a\n-b"),
        expect![[r#"
        ExprStmt
          NameRef a
        ExprStmt
          PrefixExpr -
            NameRef b
    "#]],
    );
    check(
        statements("a\n(b)"),
        expect![[r#"
        ExprStmt
          NameRef a
        ExprStmt
          ParenExpr ( )
            NameRef b
    "#]],
    );
    check(
        statements("a\n[b]"),
        expect![[r#"
        ExprStmt
          NameRef a
        ExprStmt
          ListExpr [ ]
            NameRef b
    "#]],
    );
    check(
        statements("a\n{ b }"),
        expect![[r#"
        ExprStmt
          NameRef a
        Block { }
          ExprStmt
            NameRef b
    "#]],
    );
    check(
        statements("a\n!b"),
        expect![[r#"
        ExprStmt
          NameRef a
        ExprStmt
          PrefixExpr !
            NameRef b
    "#]],
    );
    check(
        statements("return\na"),
        expect![[r#"
        ReturnStmt return
        ExprStmt
          NameRef a
    "#]],
    );
    // Goes on: an operator before or after the newline, or an open bracket.
    check(
        statements("a +\nb"),
        expect![[r#"
        ExprStmt
          BinaryExpr +
            NameRef a
            NameRef b
    "#]],
    );
    check(
        statements("a\n+ b"),
        expect![[r#"
        ExprStmt
          BinaryExpr +
            NameRef a
            NameRef b
    "#]],
    );
    check(
        statements("a\n.b\n.c()"),
        expect![[r#"
        ExprStmt
          CallExpr
            FieldExpr . c
              FieldExpr . b
                NameRef a
            ArgList ( )
    "#]],
    );
    check(
        statements("f(a\n, -b\n(c))"),
        expect![[r#"
        ExprStmt
          CallExpr
            NameRef f
            ArgList ( , )
              Arg
                NameRef a
              Arg
                PrefixExpr -
                  CallExpr
                    NameRef b
                    ArgList ( )
                      Arg
                        NameRef c
    "#]],
    );
    check(
        statements("a // why\n/* and\nhow */ >> b"),
        expect![[r#"
        ExprStmt
          PipeExpr >>
            NameRef a
            NameRef b
    "#]],
    );
    check(
        statements("if (a) { b }\nelse { c }"),
        expect![[r#"
        ExprStmt
          IfExpr if ( ) else
            NameRef a
            Block { }
              ExprStmt
                NameRef b
            Block { }
              ExprStmt
                NameRef c
    "#]],
    );
    check(
        statements("try { a }\ncatch (e) { b }"),
        expect![[r#"
        ExprStmt
          TryBlock try
            Block { }
              ExprStmt
                NameRef a
            CatchClause catch ( e )
              Block { }
                ExprStmt
                  NameRef b
    "#]],
    );
    check(
        statements("loop { a }\nuntil (b)"),
        expect![[r#"
        LoopStmt loop
          Block { }
            ExprStmt
              NameRef a
          UntilClause until ( )
            NameRef b
    "#]],
    );
}

#[test]
fn rescue_words_at_the_start_of_a_line_are_operators_unless_used_as_names() {
    check(
        statements("a\notherwise b"),
        expect![[r#"
        ExprStmt
          RescueExpr otherwise
            NameRef a
            NameRef b
    "#]],
    );
    check(
        statements("a\notherwise = b"),
        expect![[r#"
        ExprStmt
          NameRef a
        AssignStmt =
          NameRef otherwise
          NameRef b
    "#]],
    );
    check(
        statements("a\nfallback.b()"),
        expect![[r#"
        ExprStmt
          NameRef a
        ExprStmt
          CallExpr
            FieldExpr . b
              NameRef fallback
            ArgList ( )
    "#]],
    );
}

#[test]
fn contextual_words_are_names_wherever_they_have_no_meaning() {
    let text = "let agent = 1; let merge = agent; let loop = merge\nloop = 2\npass += 1\nassert.x()\nlet fork = spawn + fork(1)";
    check(
        statements(text),
        expect![[r#"
        LetStmt let =
          NamePat agent
          LiteralExpr 1
        LetStmt let =
          NamePat merge
          NameRef agent
        LetStmt let =
          NamePat loop
          NameRef merge
        AssignStmt =
          NameRef loop
          LiteralExpr 2
        AssignStmt +=
          NameRef pass
          LiteralExpr 1
        ExprStmt
          CallExpr
            FieldExpr . x
              NameRef assert
            ArgList ( )
        LetStmt let =
          NamePat fork
          BinaryExpr +
            NameRef spawn
            CallExpr
              NameRef fork
              ArgList ( )
                Arg
                  LiteralExpr 1
    "#]],
    );
}

#[test]
fn braces_are_blocks_records_or_dicts_by_their_place() {
    check(
        statements("{ a }\nx = {}\nx = { a: 1 }\nx = { \"a\": 1 }\nx = T { a: 1 }"),
        expect![[r#"
        Block { }
          ExprStmt
            NameRef a
        AssignStmt =
          NameRef x
          DictExpr { }
        AssignStmt =
          NameRef x
          RecordExpr { }
            RecordField a :
              LiteralExpr 1
        AssignStmt =
          NameRef x
          DictExpr { }
            DictEntry :
              StringExpr " a "
              LiteralExpr 1
        AssignStmt =
          NameRef x
          RecordExpr { }
            NameRef T
            RecordField a :
              LiteralExpr 1
    "#]],
    );
    check(
        statements("for each a in b { c }\nfor each a in (T { b: 1 }) { c }"),
        expect![[r#"
        ForStmt for each in
          NamePat a
          NameRef b
          Block { }
            ExprStmt
              NameRef c
        ForStmt for each in
          NamePat a
          ParenExpr ( )
            RecordExpr { }
              NameRef T
              RecordField b :
                LiteralExpr 1
          Block { }
            ExprStmt
              NameRef c
    "#]],
    );
    check(
        statements("match a { 1 => { b: 1 }, 2 => { b }\n3 => {} }"),
        expect![[r#"
        ExprStmt
          MatchExpr match
            NameRef a
            ArmList { , }
              Arm =>
                LiteralPat
                  LiteralExpr 1
                RecordExpr { }
                  RecordField b :
                    LiteralExpr 1
              Arm =>
                LiteralPat
                  LiteralExpr 2
                Block { }
                  ExprStmt
                    NameRef b
              Arm =>
                LiteralPat
                  LiteralExpr 3
                Block { }
    "#]],
    );
}

#[test]
fn texts_hold_expressions_that_hold_texts() {
    check(
        statements("print(\"a #{b + \"c #{d}\"} e\\n\")"),
        expect![[r#"
        ExprStmt
          CallExpr
            NameRef print
            ArgList ( )
              Arg
                StringExpr " a   e\n "
                  Interpolation #{ }
                    BinaryExpr +
                      NameRef b
                      StringExpr " c  "
                        Interpolation #{ }
                          NameRef d
    "#]],
    );
}
