//! Puts tool calls together that arrive in fragments.
//!
//! In:  the elements of `tool_calls`, of a whole message or of a delta. Out: calls in the model's order.
//!
//! The API says: a call's first fragment has its index, id and name, the others its index and more of its arguments.
//! Endpoints differ, so a fragment belongs to the last call of its index unless it brings an id of its own; without an
//! index it belongs to the last call of all unless it brings a name. A name or id that is repeated is not appended.
//!
//! Holds: never more than [`TOOL_CALLS_MAX`] calls or [`TOOL_CALLS_BYTES_MAX`] bytes, however long the stream is.

use nexa_event::effect::{TOOL_CALLS_BYTES_MAX, TOOL_CALLS_MAX};
use serde::Deserialize;
use serde_json::Value;

use crate::tools::{Called, Unfit};

/// What has come of an answer's calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<(Option<u64>, Called)>,
    bytes: usize,
}

/// An element of `tool_calls`.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a tool call")]
pub(super) struct Fragment {
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a tool's name and arguments")]
struct Function {
    name: Option<String>,
    /// A text with JSON in it; some endpoints send the JSON itself.
    arguments: Option<Value>,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Adds a call of a whole message.
    pub(super) fn whole(&mut self, fragment: Fragment) -> Result<(), Unfit> {
        let index = fragment.index;
        let called = Called::from(fragment);
        self.bytes += called.len();
        self.calls.push((index, called));
        self.bounded()
    }

    /// Adds a part of a call.
    pub(super) fn part(&mut self, fragment: Fragment) -> Result<(), Unfit> {
        let index = fragment.index;
        let more = Called::from(fragment);
        let known = match index {
            Some(_) => self.calls.iter_mut().rev().find(|(at, _)| *at == index),
            None => self
                .calls
                .last_mut()
                .filter(|(_, call)| more.name.is_empty() || (!more.id.is_empty() && more.id == call.id)),
        };
        let known = known.filter(|(_, call)| more.id.is_empty() || call.id.is_empty() || more.id == call.id);
        match known {
            Some((_, call)) => {
                let before = call.len();
                if call.id.is_empty() {
                    call.id = more.id;
                }
                if call.name != more.name {
                    call.name.push_str(&more.name);
                }
                call.arguments.push_str(&more.arguments);
                self.bytes += call.len() - before;
            }
            None => {
                self.bytes += more.len();
                self.calls.push((index, more));
            }
        }
        self.bounded()
    }

    /// The calls, in the order of their indices.
    pub(super) fn in_order(mut self) -> Vec<Called> {
        self.calls.sort_by_key(|(index, _)| *index);
        self.calls.into_iter().map(|(_, call)| call).collect()
    }

    fn bounded(&self) -> Result<(), Unfit> {
        if self.calls.len() > TOOL_CALLS_MAX {
            Err(Unfit::TooMany)
        } else if self.bytes > TOOL_CALLS_BYTES_MAX {
            Err(Unfit::TooLong)
        } else {
            Ok(())
        }
    }
}

impl From<Fragment> for Called {
    fn from(fragment: Fragment) -> Self {
        let function = fragment.function.unwrap_or_default();
        let arguments = match function.arguments {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(json) => json.to_string(),
        };
        Self { id: fragment.id.unwrap_or_default(), name: function.name.unwrap_or_default(), arguments }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of fragments: `id name arguments` of each call.
    fn read(fragments: &[&str]) -> Vec<String> {
        let mut calls = Calls::default();
        for fragment in fragments {
            calls.part(serde_json::from_str(fragment).expect(fragment)).expect("few enough");
        }
        calls.in_order().into_iter().map(|call| format!("{} {} {}", call.id, call.name, call.arguments)).collect()
    }

    #[test]
    fn fragments_of_two_calls_may_be_mixed() {
        let calls = read(&[
            r#"{"index":1,"id":"b","type":"function","function":{"name":"book","arguments":""}}"#,
            r#"{"index":0,"id":"a","type":"function","function":{"name":"find","arguments":""}}"#,
            r#"{"index":1,"function":{"arguments":"{\"n\""}}"#,
            r#"{"index":0,"function":{"arguments":"{}"}}"#,
            r#"{"index":1,"function":{"arguments":":1}"}}"#,
        ]);
        assert_eq!(calls, ["a find {}", r#"b book {"n":1}"#]);
    }

    #[test]
    fn endpoints_with_other_habits_are_understood() {
        // The id and the name in every fragment.
        let repeated = [
            r#"{"index":0,"id":"a","function":{"name":"find","arguments":"{"}}"#,
            r#"{"index":0,"id":"a","function":{"name":"find","arguments":"}"}}"#,
        ];
        assert_eq!(read(&repeated), ["a find {}"]);
        // The same index for all; only the id tells the calls apart.
        let same_index = [
            r#"{"index":0,"id":"a","function":{"name":"find","arguments":"{}"}}"#,
            r#"{"index":0,"id":"b","function":{"name":"find","arguments":"{}"}}"#,
        ];
        assert_eq!(read(&same_index), ["a find {}", "b find {}"]);
        // Neither index nor id, the arguments as JSON.
        let bare = [
            r#"{"function":{"name":"find","arguments":{"q":"x"}}}"#,
            r#"{"function":{"name":"find","arguments":null}}"#,
        ];
        assert_eq!(read(&bare), [r#" find {"q":"x"}"#, " find "]);
        // The name in pieces, the id late.
        let pieces = [
            r#"{"index":0,"function":{"name":"fi"}}"#,
            r#"{"index":0,"id":"a","function":{"name":"nd","arguments":"{}"}}"#,
        ];
        assert_eq!(read(&pieces), ["a find {}"]);
    }

    #[test]
    fn a_stream_without_end_is_given_up() {
        let mut calls = Calls::default();
        let mut next = 0..;
        let fragment = |index| Fragment { index: Some(index), ..Fragment::default() };
        let refused = next.find_map(|index| calls.part(fragment(index)).err().map(|unfit| (index, unfit)));
        assert_eq!(refused, Some((TOOL_CALLS_MAX as u64, Unfit::TooMany)));

        let mut calls = Calls::default();
        let piece = || Fragment {
            function: Some(Function { name: None, arguments: Some(Value::String("x".repeat(100_000))) }),
            ..Fragment::default()
        };
        let refused = (0..).find_map(|at| calls.part(piece()).err().map(|unfit| (at, unfit)));
        assert_eq!(refused, Some((TOOL_CALLS_BYTES_MAX / 100_000, Unfit::TooLong)));
    }

    proptest! {
        #[test]
        fn however_arguments_are_cut_they_are_the_same(
            arguments in prop::collection::vec("[ -~é]{0,12}", 1..5),
            order in prop::collection::vec(0..5_usize, 0..60),
        ) {
            let mut calls = Calls::default();
            let mut left: Vec<Vec<char>> = arguments.iter().map(|text| text.chars().rev().collect()).collect();
            for index in 0..arguments.len() {
                let function = Function { name: Some("find".to_owned()), arguments: None };
                let id = Some(format!("id-{index}"));
                calls.part(Fragment { index: Some(index as u64), id, function: Some(function) }).expect("few");
            }
            let rest = (0..arguments.len()).flat_map(|index| std::iter::repeat_n(index, 12));
            for index in order.into_iter().chain(rest) {
                if let Some(letter) = left.get_mut(index).and_then(Vec::pop) {
                    let function = Function { name: None, arguments: Some(Value::String(letter.to_string())) };
                    calls.part(Fragment { index: Some(index as u64), id: None, function: Some(function) }).expect("few");
                }
            }
            let read: Vec<String> = calls.in_order().into_iter().map(|call| call.arguments).collect();
            prop_assert_eq!(read, arguments);
        }
    }
}
