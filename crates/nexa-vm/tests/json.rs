//! Types as JSON Schema, and dynamic values as values of a type.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::sync::Arc;

use expect_test::{Expect, expect};
use nexa_vm::json::{from_json, schema, to_json, to_json_indented, validate};
use nexa_vm::module::{Field, Module, RecordType, Type};
use nexa_vm::value::{Dict, Key, Record, Shape, Value};

fn field(name: &str, ty: u32, doc: &str) -> Field {
    Field { name: name.to_owned(), ty, doc: doc.to_owned() }
}

fn record(name: &str, nominal: bool, fields: Vec<Field>) -> RecordType {
    RecordType { name: name.to_owned(), nominal, fields }
}

const BRIEF: u32 = 5;
const VERDICT: u32 = 7;
const TREE: u32 = 8;
const EMAIL: u32 = 11;
const EITHER: u32 = 12;
const LEVEL: u32 = 13;
const POINT: u32 = 14;

fn module() -> Module {
    let types = vec![
        Type::Str,
        Type::List(0),
        Type::Float,
        Type::Option(2),
        Type::Int,
        Type::Record(record(
            "Brief",
            false,
            vec![field("title", 0, "A short headline."), field("points", 1, ""), field("score", 3, "")],
        )),
        Type::List(TREE),
        Type::Enum {
            name: "Verdict".to_owned(),
            variants: vec![
                record("accept", true, vec![]),
                record("reject", true, vec![field("reason", 0, "Why not.")]),
            ],
        },
        Type::Record(record("Tree", false, vec![field("value", 4, ""), field("below", 6, "")])),
        Type::Dict(4, 2),
        Type::Bool,
        Type::Semantic {
            base: 0,
            condition: "a deliverable address".to_owned(),
            pattern: Some(r"^[^@\s]+@[^@\s]+$".to_owned()),
        },
        Type::Union(vec![4, 1]),
        Type::Enum {
            name: "Level".to_owned(),
            variants: vec![record("low", true, vec![]), record("high", true, vec![])],
        },
        Type::Record(record("Point", true, vec![field("x", 2, "")])),
    ];
    let module = Module { types, ..Module::default() };
    nexa_vm::verify::verify(&module).unwrap();
    module
}

fn check(ty: u32, text: &str, expected: Expect) {
    let said = match validate(&module(), ty, &from_json(text).unwrap()) {
        Ok(value) => format!("{}\n", to_json(&value)),
        Err(violations) => violations.iter().map(|violation| format!("{violation}\n")).collect(),
    };
    expected.assert_eq(&said);
}

#[test]
fn a_schema_says_what_a_model_must_answer() {
    let all: String = [BRIEF, VERDICT, LEVEL, EMAIL, EITHER, 9, POINT]
        .into_iter()
        .map(|ty| {
            let text = schema(&module(), ty);
            assert!(from_json(&text).is_ok(), "{text}");
            text + "\n"
        })
        .collect();
    expect![[r#"
        {"type":"object","properties":{"title":{"description":"A short headline.","type":"string"},"points":{"type":"array","items":{"type":"string"}},"score":{"anyOf":[{"type":"number"},{"type":"null"}]}},"required":["title","points"],"additionalProperties":false}
        {"anyOf":[{"const":"accept"},{"type":"object","properties":{"tag":{"const":"reject"},"reason":{"description":"Why not.","type":"string"}},"required":["tag","reason"],"additionalProperties":false}]}
        {"enum":["low","high"]}
        {"allOf":[{"type":"string"}],"description":"a deliverable address","pattern":"^[^@\\s]+@[^@\\s]+$"}
        {"anyOf":[{"type":"integer"},{"type":"array","items":{"type":"string"}}]}
        {"type":"object","additionalProperties":{"type":"number"}}
        {"type":"object","properties":{"x":{"type":"number"}},"required":["x"],"additionalProperties":false}
    "#]]
    .assert_eq(&all);
}

#[test]
fn a_type_that_contains_itself_is_written_once_and_referred_to() {
    let text = schema(&module(), TREE);
    assert!(from_json(&text).is_ok(), "{text}");
    expect![[r##"{"$ref":"#/$defs/t8","$defs":{"t8":{"type":"object","properties":{"value":{"type":"integer"},"below":{"type":"array","items":{"$ref":"#/$defs/t8"}}},"required":["value","below"],"additionalProperties":false}}}"##]]
        .assert_eq(&text);
}

#[test]
fn a_type_that_doubles_itself_has_no_schema_of_endless_length() {
    let mut module = Module { types: vec![Type::Int], ..Module::default() };
    for below in 0..60 {
        module.types.push(Type::Tuple(vec![below, below]));
    }
    assert_eq!(schema(&module, 60), "{}");
}

#[test]
fn what_fits_is_converted() {
    check(
        BRIEF,
        r#"{"score":1,"points":[],"title":"T"}"#,
        expect![[r#"
            {"title":"T","points":[],"score":1.0}
        "#]],
    );
    check(
        BRIEF,
        r#"{"title":"T","points":["p"]}"#,
        expect![[r#"
            {"title":"T","points":["p"],"score":null}
        "#]],
    );
    check(
        VERDICT,
        r#"{"tag":"reject","reason":"late"}"#,
        expect![[r#"
            {"tag":"reject","reason":"late"}
        "#]],
    );
    check(
        VERDICT,
        r#""accept""#,
        expect![[r#"
            "accept"
        "#]],
    );
    check(
        TREE,
        r#"{"value":1,"below":[{"value":2.0,"below":[]}]}"#,
        expect![[r#"
            {"value":1,"below":[{"value":2,"below":[]}]}
        "#]],
    );
    check(
        9,
        r#"{"7":1}"#,
        expect![[r#"
            {"7":1.0}
        "#]],
    );
    check(
        EITHER,
        r#"["a"]"#,
        expect![[r#"
            ["a"]
        "#]],
    );
}

#[test]
fn every_violation_is_listed_with_its_path() {
    check(
        BRIEF,
        r#"{"titel":"T","points":["a",2,{}],"score":"high"}"#,
        expect![[r#"
            $.title: expected a text, found nothing; this field is required
            $.points[1]: expected a text, found the number 2
            $.points[2]: expected a text, found an object
            $.score: expected a number, found the text "high"
            $.titel: expected only the fields title, points, score, found a field of another name
        "#]],
    );
    check(
        VERDICT,
        r#"{"tag":"maybe"}"#,
        expect![[r#"
            $: expected one of "accept", "reject", found an object
        "#]],
    );
    check(
        VERDICT,
        r#""reject""#,
        expect![[r#"
            $.reason: expected a text, found nothing; this field is required
        "#]],
    );
    check(
        EMAIL,
        r#""nobody""#,
        expect![[r#"
            $: expected text that matches `^[^@\s]+@[^@\s]+$` (a deliverable address), found the text "nobody"
        "#]],
    );
    check(
        EITHER,
        "true",
        expect![[r#"
            $: expected a whole number or a list, found true
        "#]],
    );
    check(
        9,
        r#"{"a":1}"#,
        expect![[r#"
            $: expected keys that are a whole number, found the key `a`
        "#]],
    );
}

#[test]
fn a_nominal_record_wants_its_own_name_and_a_protocol_does_not() {
    let shape = |name: &str| {
        Arc::new(Shape { type_name: name.to_owned(), tag: String::new(), fields: vec!["x".to_owned(), "y".to_owned()] })
    };
    let value = |name: &str| {
        Value::Record(Arc::new(Record { shape: shape(name), values: vec![Value::Float(1.0), Value::Unit] }))
    };
    assert!(validate(&module(), POINT, &value("Point")).is_ok());
    assert!(validate(&module(), POINT, &value("Other")).is_err());
}

#[test]
fn a_million_wrong_elements_are_a_few_violations() {
    let many = format!("{{\"title\":\"T\",\"points\":[{}1]}}", "1,".repeat(10_000));
    assert_eq!(validate(&module(), BRIEF, &from_json(&many).unwrap()).unwrap_err().len(), 32);
}

#[test]
fn values_have_canonical_text() {
    let entries = [(Key::Int(1), Value::Float(1e21)), (Key::Str("é\n".into()), Value::None)];
    let dict: Dict = entries.into_iter().collect();
    let value = Value::List(Arc::new(vec![
        Value::Dict(Arc::new(dict)),
        Value::Ok(Arc::new(Value::Float(0.1))),
        Value::Float(f64::NAN),
        Value::Duration(250),
        Value::Agent(0),
    ]));
    expect![[r#"[{"1":1e21,"é\n":null},{"ok":0.1},null,250,"<agent>"]"#]].assert_eq(&to_json(&value));
    expect![[r#"
        [
          {
            "1": 1e21,
            "é\n": null
          },
          {
            "ok": 0.1
          },
          null,
          250,
          "<agent>"
        ]"#]]
    .assert_eq(&to_json_indented(&value, 2).unwrap());
}
