//! The table. A function's number is its place here; new ones go at the end.

use super::Ty::{Any, Bool, Dict, E, Error, Float, Int, K, List, N, Option, Pair, Result, Str, T, U, V};
use super::{Run, Sig, StdFn, Ty, core, dict, list, numbers, patterns, text, time};

const LIST_T: Ty = List(&T);
const LIST_STR: Ty = List(&Str);
const DICT: Ty = Dict(&K, &V);

const fn entry(number: u16, name: &'static str, sig: Sig, optional: u8, run: Run) -> StdFn {
    let most = sig.params.len() as u8;
    StdFn { number, name, arity: (most - optional, most), sig, run }
}

macro_rules! functions {
    ($($number:literal $name:literal ($($param:ident: $ty:expr),*) $([$optional:literal optional])? -> $result:expr => $run:path;)*) => {
        /// Every standard function, by number.
        pub static FUNCTIONS: &[StdFn] = &[$(
            entry(
                $number,
                $name,
                Sig { params: &[$((stringify!($param), $ty)),*], result: $result },
                0 $(+ $optional)?,
                |context, args| $run(context, args),
            ),
        )*];
    };
}

functions! {
    0 "range" (a: Int, b: Int) -> List(&Int) => numbers::range;
    1 "str" (v: Any) -> Str => core::str_of;
    2 "int" (s: Str) -> Int => numbers::int_of;
    3 "float" (s: Str) -> Float => numbers::float_of;

    4 "text.len" (s: Str) -> Int => text::len;
    5 "text.upper" (s: Str) -> Str => text::upper;
    6 "text.lower" (s: Str) -> Str => text::lower;
    7 "text.trim" (s: Str) -> Str => text::trim;
    8 "text.split" (s: Str, sep: Str) -> LIST_STR => text::split;
    9 "text.lines" (s: Str) -> LIST_STR => text::lines;
    10 "text.words" (s: Str) -> LIST_STR => text::words;
    11 "text.replace" (s: Str, a: Str, b: Str) -> Str => text::replace;
    12 "text.contains" (s: Str, t: Str) -> Bool => text::contains;
    13 "text.starts_with" (s: Str, t: Str) -> Bool => text::starts_with;
    14 "text.ends_with" (s: Str, t: Str) -> Bool => text::ends_with;
    15 "text.slice" (s: Str, from: Int, to: Int) -> Str => text::slice;
    16 "text.token_estimate" (s: Str) -> Int => text::token_estimate;

    17 "json.parse" (s: Str) -> Any => core::json_parse;
    18 "json.text" (v: Any, indent: Int) [1 optional] -> Str => core::json_text;
    19 "json.get" (v: Any, path: Str) -> Option(&Any) => core::json_get;

    20 "math.abs" (x: N) -> N => numbers::abs;
    21 "math.min" (x: N, y: N) -> N => numbers::min;
    22 "math.max" (x: N, y: N) -> N => numbers::max;
    23 "math.clamp" (x: N, low: N, high: N) -> N => numbers::clamp;
    24 "math.floor" (x: Float) -> Int => numbers::floor;
    25 "math.ceil" (x: Float) -> Int => numbers::ceil;
    26 "math.round" (x: Float) -> Int => numbers::round;
    27 "math.sqrt" (x: Float) -> Float => numbers::sqrt;
    28 "math.pow" (x: Float, y: Float) -> Float => numbers::pow;

    29 "list.len" (xs: LIST_T) -> Int => list::len;
    30 "list.first" (xs: LIST_T) -> Option(&T) => list::first;
    31 "list.last" (xs: LIST_T) -> Option(&T) => list::last;
    32 "list.push" (xs: LIST_T, v: T) -> LIST_T => list::push;
    33 "list.concat" (xs: LIST_T, ys: LIST_T) -> LIST_T => list::concat;
    34 "list.slice" (xs: LIST_T, a: Int, b: Int) -> LIST_T => list::slice;
    35 "list.reverse" (xs: LIST_T) -> LIST_T => list::reverse;
    36 "list.sort" (xs: LIST_T) -> LIST_T => list::sort;
    37 "list.unique" (xs: LIST_T) -> LIST_T => list::unique;
    38 "list.contains" (xs: LIST_T, v: T) -> Bool => list::contains;
    39 "list.join" (xs: LIST_T, sep: Str) -> Str => list::join;
    40 "list.zip" (xs: LIST_T, ys: List(&U)) -> List(&Pair(&T, &U)) => list::zip;
    41 "list.flatten" (xs: List(&LIST_T)) -> LIST_T => list::flatten;
    42 "list.sum" (xs: List(&N)) -> N => list::sum;

    43 "dict.len" (d: DICT) -> Int => dict::len;
    44 "dict.get" (d: DICT, k: K) -> Option(&V) => dict::get;
    45 "dict.set" (d: DICT, k: K, v: V) -> DICT => dict::set;
    46 "dict.remove" (d: DICT, k: K) -> DICT => dict::remove;
    47 "dict.merge" (d: DICT, m: DICT) -> DICT => dict::merge;
    48 "dict.has" (d: DICT, k: K) -> Bool => dict::has;
    49 "dict.keys" (d: DICT) -> List(&K) => dict::keys;
    50 "dict.values" (d: DICT) -> List(&V) => dict::values;
    51 "dict.items" (d: DICT) -> List(&Pair(&K, &V)) => dict::items;

    52 "option.is_none" (o: Option(&T)) -> Bool => core::is_none;
    53 "option.unwrap_or" (o: Option(&T), d: T) -> T => core::unwrap_or;
    54 "result.is_ok" (r: Result(&T, &E)) -> Bool => core::is_ok;
    55 "result.is_err" (r: Result(&T, &E)) -> Bool => core::is_err;
    56 "result.unwrap_or" (r: Result(&T, &E), d: T) -> T => core::unwrap_or;
    57 "result.code" (r: Result(&T, &Error)) -> Option(&Str) => core::code;
    58 "result.error" (r: Result(&T, &E)) -> Option(&E) => core::error;

    59 "hash.sha256" (s: Str) -> Str => core::sha256;
    60 "hash.blake3" (s: Str) -> Str => core::blake3;
    61 "hash.crc32" (s: Str) -> Int => core::crc32;

    62 "regex.test" (re: Str, s: Str) -> Bool => patterns::test;
    63 "regex.find" (re: Str, s: Str) -> Option(&Str) => patterns::find;
    64 "regex.all" (re: Str, s: Str) -> LIST_STR => patterns::all;
    65 "regex.replace" (re: Str, s: Str, with: Str) -> Str => patterns::replace;

    66 "time.format" (ms: Int, pattern: Str) -> Str => time::format;
    67 "time.parse" (s: Str) -> Int => time::parse;

    68 "core.message" (role: Str, text: Str, from: Int) -> Any => core::message;
    69 "core.answer_from_reply" (reply: Any) -> Str => core::answer_from_reply;
    70 "core.read_json" (ty: Int, text: Str) -> Result(&Any, &LIST_STR) => core::read_json;
    71 "core.schema" (ty: Int) -> Str => core::schema_text;
    72 "core.json" (v: Any) -> Str => core::json;
    73 "core.error" (code: Str, message: Str) -> Error => core::new_error;
    74 "core.worth_fallback" (error: Any) -> Bool => core::worth_fallback;
    75 "core.sort_by_keys" (xs: LIST_T, keys: List(&U)) -> LIST_T => list::sort_by_keys;
    76 "core.is_of" (ty: Int, v: Any) -> Bool => core::is_of;
    77 "core.read_bool" (text: Str) -> Option(&Bool) => core::read_bool;
    78 "core.read_label" (text: Str, labels: LIST_STR) -> Option(&Int) => core::read_label;

    79 "truthy" (v: Any) -> Bool => core::truthy;
    80 "core.read_args" (ty: Int, text: Str) -> Result(&Any, &LIST_STR) => core::read_args;
    81 "core.conditions" (ty: Int, every: Bool, v: Any) -> List(&Any) => core::conditions;
}
