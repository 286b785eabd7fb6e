use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Grammar, Limits};

const TIGHT: Limits = Limits { string_chars_max: 12, array_items_max: 3, map_entries_max: 2, any_depth_max: 2 };

fn grammar(schema: &Value) -> Grammar {
    Grammar::from_schema(&schema.to_string(), TIGHT).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

/// Writes what the dice choose among the allowed bytes and, after `patience` of them, the shortest end.
fn write(grammar: &Grammar, dice: &[u8], patience: usize) -> String {
    let mut state = grammar.start();
    let mut bytes = Vec::new();
    for die in dice.iter().take(patience) {
        let allowed: Vec<u8> = (0..=255).filter(|byte| grammar.step(state, *byte).is_some()).collect();
        if allowed.is_empty() {
            break;
        }
        // Half of the time the plain letters, else strings are nothing but odd characters.
        let byte = if die % 2 == 0 { allowed[allowed.len() / 3] } else { allowed[usize::from(*die) % allowed.len()] };
        state = grammar.step(state, byte).expect("it is among the allowed");
        bytes.push(byte);
    }
    bytes.extend(grammar.closing(&state));
    String::from_utf8(bytes).expect("only whole characters")
}

/// A small validator, written without a look at the grammar.
fn fits(schema: &Value, value: &Value) -> bool {
    if let Some(values) = schema.get("enum") {
        return values.as_array().is_some_and(|values| values.contains(value));
    }
    if let Some(alternatives) = schema.get("anyOf") {
        return alternatives.as_array().is_some_and(|all| all.iter().any(|one| fits(one, value)));
    }
    let limit = |word: &str| schema.get(word).and_then(Value::as_f64);
    let within = |number: f64, least: &str, greatest: &str| {
        limit(least).is_none_or(|least| number >= least) && limit(greatest).is_none_or(|greatest| number <= greatest)
    };
    match schema["type"].as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.as_i64().is_some_and(|number| within(number as f64, "minimum", "maximum")),
        Some("number") => value.as_f64().is_some_and(|number| within(number, "minimum", "maximum")),
        Some("string") => {
            value.as_str().is_some_and(|text| within(text.chars().count() as f64, "minLength", "maxLength"))
        }
        Some("array") => value.as_array().is_some_and(|items| {
            within(items.len() as f64, "minItems", "maxItems") && items.iter().all(|item| fits(&schema["items"], item))
        }),
        Some("object") => value.as_object().is_some_and(|object| match schema.get("properties") {
            Some(Value::Object(properties)) => {
                object.keys().all(|name| properties.contains_key(name))
                    && properties.iter().all(|(name, property)| match object.get(name) {
                        Some(value) => fits(property, value),
                        None => !schema["required"].as_array().is_some_and(|all| all.contains(&json!(name))),
                    })
            }
            _ => object.values().all(|value| fits(&schema["additionalProperties"], value)),
        }),
        _ => true,
    }
}

fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        Just(json!({})),
        (any::<i16>(), 0..20_000_i64).prop_map(|(least, width)| {
            json!({"type": "integer", "minimum": least, "maximum": i64::from(least) + width})
        }),
        Just(json!({"type": "integer"})),
        Just(json!({"type": "number"})),
        (-300..300_i32, 0..400_i32).prop_map(|(least, width)| {
            json!({"type": "number", "minimum": f64::from(least) / 100.0, "maximum": f64::from(least + width) / 100.0})
        }),
        (0..4_u8, 0..9_u8).prop_map(|(min, more)| json!({"type": "string", "minLength": min, "maxLength": min + more})),
        Just(json!({"type": "string"})),
        prop::collection::btree_set("[a-c\"é]{0,3}", 1..5).prop_map(|words| json!({"enum": words})),
        prop::collection::btree_set(0..200_u8, 1..5).prop_map(|numbers| json!({"enum": numbers})),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0..3_u8, 0..3_u8).prop_map(|(items, min, more)| {
                json!({"type": "array", "items": items, "minItems": min, "maxItems": min + more})
            }),
            inner.clone().prop_map(|values| json!({"type": "object", "additionalProperties": values})),
            inner
                .clone()
                .prop_filter("a second null would be ambiguous", |one| {
                    one["type"].is_string() && one["type"] != "null" && one.get("anyOf").is_none()
                })
                .prop_map(|one| json!({"anyOf": [one, {"type": "null"}]})),
            prop::collection::vec(("[a-z\"]{1,3}", inner, any::<bool>()), 0..5).prop_map(|entries| {
                let properties: serde_json::Map<String, Value> =
                    entries.iter().map(|(name, schema, _)| (name.clone(), schema.clone())).collect();
                let mut required: Vec<String> = entries.into_iter().filter(|it| it.2).map(|it| it.0).collect();
                required.dedup();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_the_dice_the_document_parses_and_validates(
        schema in schemas(),
        dice in prop::collection::vec(any::<u8>(), 400),
        patience in 0..400_usize,
    ) {
        let text = write(&grammar(&schema), &dice, patience);
        let value: Value = serde_json::from_str(&text).map_err(|error| TestCaseError::fail(format!("{schema}\n{text}\n{error}")))?;
        prop_assert!(fits(&schema, &value), "{schema}\n{text}");
    }

    #[test]
    fn what_is_forced_is_the_only_way_on(schema in schemas(), dice in prop::collection::vec(any::<u8>(), 60)) {
        let grammar = grammar(&schema);
        let mut state = grammar.start();
        for die in dice {
            let forced = grammar.forced(&state);
            if let Some(first) = forced.first() {
                prop_assert_eq!((0..=255).filter(|byte| grammar.step(state, *byte).is_some()).collect::<Vec<u8>>(), vec![*first]);
            }
            state = grammar.feed(state, &forced).ok_or_else(|| TestCaseError::fail("a forced byte was refused"))?;
            let allowed: Vec<u8> = (0..=255).filter(|byte| grammar.step(state, *byte).is_some()).collect();
            if allowed.is_empty() {
                prop_assert!(grammar.is_complete(&state), "stuck");
                break;
            }
            state = grammar.step(state, allowed[usize::from(die) % allowed.len()]).expect("it is allowed");
        }
    }

    #[test]
    fn a_schema_of_any_text_is_read_or_refused(text in "[{}\\[\\]\":,a-z0-9$/# ]{0,80}") {
        let _ = Grammar::from_schema(&text, TIGHT);
    }
}

fn review() -> Value {
    json!({
        "type": "object",
        "properties": {
            "verdict": {"enum": ["keep", "change"]},
            "score": {"type": "integer", "minimum": 1, "maximum": 10},
            "reasons": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["verdict", "score", "reasons", "note"],
        "additionalProperties": false,
    })
}

#[test]
fn a_model_with_no_room_left_writes_the_shortest_document() {
    let grammar = grammar(&review());
    expect![[r#"{"verdict": "keep", "score": 1, "reasons": [""], "note": ""}"#]].assert_eq(&write(&grammar, &[], 0));
}

#[test]
fn only_the_open_questions_are_left_to_the_model() {
    let grammar = grammar(&review());
    let mut state = grammar.start();
    let mut seen = String::new();
    for answer in ["k", "8", ", ", "fine\"", "]", "n"] {
        let forced = grammar.forced(&state);
        seen.push_str(&format!("forced {:28} model {answer}\n", String::from_utf8_lossy(&forced)));
        state = grammar.feed(state, &forced).and_then(|state| grammar.feed(state, answer.as_bytes())).expect("allowed");
    }
    seen.push_str(&format!("forced {}", String::from_utf8_lossy(&grammar.forced(&state))));
    expect![[r#"
        forced {"verdict": "                model k
        forced eep", "score":               model 8
        forced , "reasons": ["              model , 
        forced                              model fine"
        forced                              model ]
        forced , "note":                    model n
        forced ull}"#]]
    .assert_eq(&seen);
}

#[test]
fn what_cannot_be_held_to_is_refused_by_name_and_place() {
    let refused = |schema: Value| Grammar::from_schema(&schema.to_string(), TIGHT).expect_err("refused").to_string();
    let union = json!({"properties": {"a": {"anyOf": [{"type": "string"}, {"enum": ["x"]}]}}});
    let recursive = json!({"$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"});
    let seen = [
        refused(json!({"type": "integer", "multipleOf": 3})),
        refused(json!({"items": {"type": "integer", "minimum": 4, "maximum": 3}, "type": "array"})),
        refused(union),
        refused(recursive),
        refused(json!({"$ref": "http://elsewhere"})),
    ];
    expect![[r##"
        the schema at its top uses `multipleOf`, which the embedded model cannot be held to
        the schema at /items allows no value at all
        the schema at /properties/a uses alternatives that both begin with `"`, which the embedded model cannot be held to
        the schema at /$ref/properties/next/$ref/properties/next/$ref/properties/next/$ref/properties/next/$ref/properties/next/$ref/properties/next/$ref/properties/next/$ref/properties/next/$ref nests deeper than 12 levels or has more than 4096 parts
        the schema at its top uses the reference "http://elsewhere", which the embedded model cannot be held to"##]]
    .assert_eq(&seen.join("\n"));
}
