//! The standard library, called the way programs call it.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::sync::Arc;

use common::{Restore, end, list, run, text};
use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::module::{Field, RecordType, Type};
use nexa_vm::op::Op;
use nexa_vm::value::Value;
use nexa_vm::{Program, json, stdlib};

/// What a standard function gives for these arguments, as JSON, or how it fails.
fn call(name: &str, args: Vec<Value>) -> String {
    let mut module = ModuleBuilder::new();
    module.module.types = vec![
        Type::Str,
        Type::Record(RecordType {
            name: "Score".to_owned(),
            nominal: false,
            fields: vec![Field { name: "why".to_owned(), ty: 0, doc: String::new() }],
        }),
        Type::Semantic { base: 0, condition: "an address".to_owned(), pattern: Some("@".to_owned()) },
        Type::Semantic { base: 2, condition: "polite".to_owned(), pattern: None },
        Type::List(3),
        Type::Union(vec![4, 3]),
        Type::Option(5),
    ];
    let mut code = Assembler::new("main", args.len() as u8);
    (0..args.len()).for_each(|local| {
        code.a(Op::LoadLocal, local as u32);
    });
    code.std(name, args.len() as u8).op(Op::Return);
    module.add(code);
    let program = Arc::new(Program::new(module.finish().unwrap()).unwrap());
    end(&run(&program, 0, args, 1, Restore::AtEverySafepoint))
}

/// Arguments written as a JSON list.
fn json_args(args: &str) -> Vec<Value> {
    match json::from_json(args).unwrap() {
        Value::List(values) => values.to_vec(),
        other => panic!("no list: {other:?}"),
    }
}

fn table(rows: &[(&str, &str, &str)]) {
    for (name, args, expected) in rows {
        assert_eq!(call(name, json_args(args)), *expected, "{name}{args}");
    }
}

#[test]
fn texts() {
    table(&[
        ("text.len", r#"["día"]"#, "3"),
        ("text.upper", r#"["straße"]"#, r#""STRASSE""#),
        ("text.lower", r#"["ABC"]"#, r#""abc""#),
        ("text.trim", r#"["  a b "]"#, r#""a b""#),
        ("text.split", r#"["a,b,,", ","]"#, r#"["a","b","",""]"#),
        ("text.split", r#"["dí", ""]"#, r#"["d","í"]"#),
        ("text.lines", r#"["a\nb\r\nc\n"]"#, r#"["a","b","c"]"#),
        ("text.words", r#"[" a  b\t"]"#, r#"["a","b"]"#),
        ("text.replace", r#"["aXbX", "X", "--"]"#, r#""a--b--""#),
        ("text.contains", r#"["abc", "bc"]"#, "true"),
        ("text.starts_with", r#"["abc", "bc"]"#, "false"),
        ("text.ends_with", r#"["abc", "bc"]"#, "true"),
        ("text.slice", r#"["día!", 1, 3]"#, r#""ía""#),
        ("text.slice", r#"["día", -5, 99]"#, r#""día""#),
        ("text.slice", r#"["día", 2, 1]"#, r#""""#),
        ("text.token_estimate", r#"["abcde"]"#, "2"),
        ("text.len", "[7]", "type_mismatch: text.len: expected a text, found the number 7"),
    ]);
}

#[test]
fn numbers() {
    table(&[
        ("range", "[2, 5]", "[2,3,4]"),
        ("range", "[5, 2]", "[]"),
        ("int", r#"[" 42 "]"#, "42"),
        ("int", r#"["4x"]"#, "parse_failed: `4x` is no integer"),
        ("float", r#"["1e3"]"#, "1000.0"),
        ("float", r#"["inf"]"#, "parse_failed: `inf` is no number"),
        ("math.abs", "[-3]", "3"),
        ("math.abs", "[-9223372036854775808]", "overflow: the result does not fit into a 64-bit integer"),
        ("math.min", "[3, 2]", "2"),
        ("math.max", "[3.5, 2]", "3.5"),
        ("math.clamp", "[12, 0, 10]", "10"),
        ("math.floor", "[-1.5]", "-2"),
        ("math.ceil", "[-1.5]", "-1"),
        ("math.round", "[2.5]", "3"),
        ("math.floor", "[1e300]", "overflow: the result does not fit into a 64-bit integer"),
        ("math.sqrt", "[2.25]", "1.5"),
        ("math.pow", "[2.0, -2.0]", "0.25"),
        ("math.pow", "[9.0, 0.5]", "3.0"),
    ]);
}

#[test]
fn lists() {
    table(&[
        ("list.len", "[[1,2]]", "2"),
        ("list.first", "[[]]", "null"),
        ("list.last", "[[1,2]]", "2"),
        ("list.push", "[[1], 2]", "[1,2]"),
        ("list.concat", "[[1], [2]]", "[1,2]"),
        ("list.slice", "[[1,2,3], 1, 9]", "[2,3]"),
        ("list.reverse", "[[1,2]]", "[2,1]"),
        ("list.sort", "[[3,1.5,2]]", "[1.5,2,3]"),
        ("list.sort", r#"[["b","a"]]"#, r#"["a","b"]"#),
        ("list.unique", r#"[[1,"a",1.0,[2],"a",[2],1,true]]"#, r#"[1,"a",[2],true]"#),
        ("list.contains", "[[[1],[2]], [2]]", "true"),
        ("list.join", r#"[["a",1], "-"]"#, r#""a-1""#),
        ("list.zip", r#"[[1,2], ["a"]]"#, r#"[[1,"a"]]"#),
        ("list.flatten", "[[[1],[],[2,3]]]", "[1,2,3]"),
        ("list.sum", "[[1,2]]", "3"),
        ("list.sum", "[[1,0.5]]", "1.5"),
        ("list.sum", "[[9223372036854775807,1]]", "overflow: the sum does not fit into a 64-bit integer"),
    ]);
    assert!(call("list.sort", json_args(r#"[[1,"a"]]"#)).starts_with("type_mismatch: list.sort:"));
}

#[test]
fn dicts_options_and_results() {
    table(&[
        ("dict.len", r#"[{"a":1}]"#, "1"),
        ("dict.get", r#"[{"a":1}, "b"]"#, "null"),
        ("dict.set", r#"[{"a":1,"b":2}, "a", 3]"#, r#"{"a":3,"b":2}"#),
        ("dict.remove", r#"[{"a":1,"b":2}, "a"]"#, r#"{"b":2}"#),
        ("dict.merge", r#"[{"a":1,"b":2}, {"c":3,"a":4}]"#, r#"{"a":4,"b":2,"c":3}"#),
        ("dict.has", r#"[{"a":1}, "a"]"#, "true"),
        ("dict.keys", r#"[{"a":1,"b":2}]"#, r#"["a","b"]"#),
        ("dict.values", r#"[{"a":1,"b":2}]"#, "[1,2]"),
        ("dict.items", r#"[{"a":1}]"#, r#"[["a",1]]"#),
        ("option.is_none", "[null]", "true"),
        ("option.unwrap_or", "[null, 3]", "3"),
        ("option.unwrap_or", "[4, 3]", "4"),
    ]);
    let ok = || Value::Ok(Arc::new(Value::Int(1)));
    let failure = nexa_vm::failure::error_value(nexa_types::RunCode::Timeout, "slow", "");
    let err = || Value::Err(Arc::new(failure.clone()));
    assert_eq!(call("result.is_ok", vec![ok()]), "true");
    assert_eq!(call("result.is_err", vec![ok()]), "false");
    assert_eq!(call("result.unwrap_or", vec![ok(), Value::Int(2)]), "1");
    assert_eq!(call("result.unwrap_or", vec![err(), Value::Int(2)]), "2");
    assert_eq!(call("result.code", vec![err()]), r#""timeout""#);
    assert_eq!(call("result.code", vec![ok()]), "null");
    let shown = r#"{"code":"timeout","message":"slow","data":null,"at":"","cause":null}"#;
    assert_eq!(call("result.error", vec![err()]), shown);
    assert_eq!(call("core.worth_fallback", vec![err()]), "true");
    assert_eq!(call("core.worth_fallback", vec![ok()]), "false");
}

#[test]
fn json_and_hashes_and_patterns_and_time() {
    table(&[
        ("json.parse", r#"["{\"a\":[1]}"]"#, r#"{"a":[1]}"#),
        ("json.parse", r#"["{"]"#, "parse_failed: not valid JSON at character 2: a name in quotes expected"),
        ("json.text", r#"[{"a":1}]"#, r#""{\"a\":1}""#),
        ("json.text", r#"[[1], 1]"#, r#""[\n 1\n]""#),
        ("json.get", r#"[{"a":{"b":[1,2]}}, "a.b[1]"]"#, "2"),
        ("json.get", r#"[{"a":1}, "a.b"]"#, "null"),
        ("str", "[[1]]", r#""[1]""#),
        ("hash.sha256", r#"["abc"]"#, r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#),
        ("hash.crc32", r#"["123456789"]"#, "3421780262"),
        ("regex.test", r#"["^a+$", "aaa"]"#, "true"),
        ("regex.find", r#"["[0-9]+", "a12b3"]"#, r#""12""#),
        ("regex.find", r#"["x", "a"]"#, "null"),
        ("regex.all", r#"["[0-9]+", "a12b3"]"#, r#"["12","3"]"#),
        ("regex.replace", r#"["(a)(b)", "abab", "$2$1"]"#, r#""baba""#),
        ("time.format", r#"[951827696700, "%Y-%m-%dT%H:%M:%S.%LZ"]"#, r#""2000-02-29T12:34:56.700Z""#),
        ("time.parse", r#"["2000-02-29 12:34"]"#, "951827640000"),
        ("core.json", r#"["a"]"#, r#""\"a\"""#),
    ]);
    assert!(call("regex.test", vec![text("(a"), text("")]).starts_with("parse_failed: not a valid pattern"));
    assert!(call("regex.test", vec![text(r"(a)\1"), text("")]).starts_with("parse_failed"), "no back-references");
}

#[test]
fn more_patterns_than_are_kept_match_as_before() {
    for _ in 0..2 {
        for number in 0..20 {
            let test = |subject: String| call("regex.test", vec![text(&format!("^{number}$")), text(&subject)]);
            assert_eq!(test(number.to_string()), "true");
            assert_eq!(test(format!("{number}x")), "false");
        }
    }
}

#[test]
fn an_answer_is_read_whole_or_from_its_first_fence() {
    let read = |answer: &str| call("core.read_json", vec![Value::Int(1), text(answer)]);
    assert_eq!(read(r#" {"why":"clear"} "#), r#"{"ok":{"why":"clear"}}"#);
    assert_eq!(read("Sure!\n```json\n{\"why\":\"clear\"}\n```\nBye.\n```\n7\n```"), r#"{"ok":{"why":"clear"}}"#);
    assert_eq!(read("{}"), r#"{"err":["$.why: expected a text, found nothing; this field is required"]}"#);
    let no_json = read("clear");
    assert!(no_json.starts_with(r#"{"err":["the answer is not valid JSON at character 1"#), "{no_json}");
    assert_eq!(
        call("core.read_json", vec![Value::Int(9), text("1")]),
        "type_mismatch: core.read_json: the program has no type 9"
    );
}

#[test]
fn the_conditions_of_a_value_are_listed_with_the_part_that_each_is_about() {
    let list =
        |ty: i64, every: bool, value: Value| call("core.conditions", vec![Value::Int(ty), Value::Bool(every), value]);
    let address = "[\"an address\",\"a@b\",\"$: expected an address, found the text \\\"a@b\\\"\"]";
    let polite = "[\"polite\",\"a@b\",\"$: expected polite, found the text \\\"a@b\\\"\"]";
    assert_eq!(list(0, true, text("a@b")), "[]");
    assert_eq!(list(2, false, text("a@b")), "[]");
    assert_eq!(list(2, true, text("a@b")), format!("[{address}]"));
    assert_eq!(list(3, false, text("a@b")), format!("[{polite}]"));
    assert_eq!(list(3, true, text("a@b")), format!("[{address},{polite}]"), "the base comes first");
    assert_eq!(list(6, false, Value::None), "[]");
    assert_eq!(list(6, false, text("a@b")), format!("[{polite}]"), "the part of a union that the value is of");
    let many = |count: usize| Value::List(Arc::new(vec![text("a@b"); count]));
    assert_eq!(list(4, false, many(64)).matches("expected polite").count(), 64);
    assert!(list(4, false, many(2)).contains("$[1]: expected polite"));
    let more = "semantic_failed: a model would be asked about more than 64 parts of one value";
    assert_eq!(list(4, false, many(65)), more);
    assert_eq!(list(4, true, many(33)), more);
    assert_eq!(list(9, true, text("")), "type_mismatch: core.conditions: the program has no type 9");
}

#[test]
fn errors_that_a_program_makes_have_a_known_code() {
    let made = call("core.error", vec![text("denied"), text("no")]);
    assert_eq!(made, r#"{"code":"denied","message":"no","data":null,"at":"","cause":null}"#);
    assert!(call("core.error", vec![text("oops"), text("no")]).starts_with("type_mismatch"));
    assert!(call("core.error", vec![text("cancelled"), text("no")]).starts_with("type_mismatch"));
}

#[test]
fn a_function_has_the_number_of_its_place_and_a_name_of_its_own() {
    let mut names = std::collections::BTreeSet::new();
    for (index, function) in stdlib::FUNCTIONS.iter().enumerate() {
        assert_eq!(usize::from(function.number), index, "{}", function.name);
        assert!(names.insert(function.name), "{} stands twice", function.name);
        assert_eq!(stdlib::lookup(function.name).map(|found| found.number), Some(function.number));
        assert_eq!(function.sig.params.len(), usize::from(function.arity.1), "{}", function.name);
    }
    assert!(stdlib::lookup("text.nothing").is_none());
}

#[test]
fn no_function_panics_whatever_it_is_given() {
    let odd = [
        Value::Unit,
        Value::None,
        Value::Int(i64::MIN),
        Value::Int(-1),
        Value::Float(f64::NAN),
        Value::Float(-1e308),
        text("é"),
        text("(["),
        list([Value::Int(1), text("x"), list([])]),
        Value::Ok(Arc::new(Value::Err(Arc::new(Value::None)))),
        Value::Agent(7),
    ];
    for function in stdlib::FUNCTIONS {
        for shift in 0..odd.len() {
            for stride in [0, 1, 4] {
                let count = usize::from(function.arity.1);
                let args = (0..count).map(|index| odd[(shift + index * stride) % odd.len()].clone()).collect();
                call(function.name, args);
            }
        }
    }
}
