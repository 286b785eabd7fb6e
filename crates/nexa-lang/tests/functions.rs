//! `fn` declarations, and the methods that take a function: each in one go and instruction by instruction.

mod running;

use expect_test::{Expect, expect};
use nexa_lang::compile_text;
use nexa_lang::diagnostic::Colour;
use nexa_vm::value::Value;
use running::{Desk, both_ways, str};

const PROGRAM: &str = r##"
agent Say(text: str) { prompt: "Say it." }
protocol Book { title: str, year: int }

fn total(xs: list[int]) -> int => xs.fold(0, fn(a, x) => a + x)
fn double(n: int) => n * 2
fn fib(n: int) -> int {
    if (n < 2) { return n }
    return fib(n - 1) + fib(n - 2)
}
fn twice(f: fn(int) -> int, n: int) -> int => f(f(n))
fn mean(xs: list[float]) -> float? {
    if (xs.len() == 0) { return none }
    return xs.fold(0.0, fn(a, x) => a + x) / (xs.len() + 0.0)
}

flow functions() -> str {
    let piped = [3, 4] |> total
    let ran = 5 >> double |> double
    return "#{total([1, 2, 3])} #{piped} #{ran} #{fib(10)} #{twice(double, 3)} #{twice(fn(n) => n + 1, 3)} #{mean([1.0, 2.0])} #{mean([])}"
}

flow methods(xs: list[int]) -> list[any] {
    let limit = 3
    let words = ["pear", "fig", "apple", "kiwi", "date"]
    return [
        xs.map(fn(x) => x * 10), xs.map(double), xs.map(fn(x) => "n#{x}").join(" "),
        xs.filter(fn(x) => x > limit), xs.fold("", fn(a, x) => "#{a}#{x}"),
        xs.find(fn(x) => x > limit), xs.find(fn(x) => x > 99), xs.any(fn(x) => x == 4), xs.all(fn(x) => x < 4),
        words.sort_by(fn(w) => w.len()), words.sort_by(fn(w) => w),
        xs.map(fn(x) => xs.map(fn(y) => x * y)), xs.map(fn(x) => x).filter(fn(x) => x % 2 == 1).fold(0, fn(a, x) => a + x)
    ]
}

flow typed(books: list[Book]) -> str {
    let titles: list[str] = books.sort_by(fn(b) => b.year).map(fn(b) => b.title)
    let first: Book? = books.find(fn(b) => b.year < 1900)
    return "#{titles.join(", ")}; #{first.map(fn(b) => b.year + 1) ?? 0}"
}

flow present(n: int?, text: str) -> str {
    let half: float? = n.map(fn(n) => n / 2.0)
    let read: Result[int, Error] = try int(text)
    let more = read.map(fn(n) => n + 1)
    return "#{half} #{more.unwrap_or(-1)} #{more.code()}"
}

flow agents(xs: list[str]) -> list[str] {
    return xs.map(Say).map(fn(t) => Say.run("#{t}!"))
}

flow stops(xs: list[int]) -> str {
    let r = try xs.map(fn(x) => 10 / x)
    let seen: list[int] = []
    for each x in xs {
        if (xs.any(fn(y) => y == x + 1)) { continue }
        if (x == 0) { break }
        seen += [x]
    }
    return "#{r.code()} #{seen}"
}
"##;

fn run(entry: &str, args: &[Value]) -> String {
    both_ways(|| Desk::program(PROGRAM), entry, args).0
}

fn ints(values: &[i64]) -> Value {
    Value::List(values.iter().map(|int| Value::Int(*int)).collect::<Vec<_>>().into())
}

#[test]
fn a_fn_is_called_piped_recursive_and_passed_on() {
    expect![[r#""6 7 20 55 12 5 1.5 null""#]].assert_eq(&run("functions", &[]));
}

#[test]
fn methods_call_their_function_for_one_element_after_the_other() {
    expect![[r#"[[10,50,30,40],[2,10,6,8],"n1 n5 n3 n4",[5,4],"1534",5,null,true,false,["fig","pear","kiwi","date","apple"],["apple","date","fig","kiwi","pear"],[[1,5,3,4],[5,25,15,20],[3,15,9,12],[4,20,12,16]],9]"#]].assert_eq(&run("methods", &[ints(&[1, 5, 3, 4])]));
    expect![[r#"[[],[],"",[],"",null,null,false,true,["fig","pear","kiwi","date","apple"],["apple","date","fig","kiwi","pear"],[],0]"#]].assert_eq(&run("methods", &[ints(&[])]));
}

#[test]
fn elements_keep_their_types() {
    let book = |title: &str, year: i64| format!("{{\"title\":\"{title}\",\"year\":{year}}}");
    let text = format!("[{},{},{}]", book("B", 1950), book("A", 1850), book("C", 1950));
    let books = nexa_vm::json::from_json(&text).expect("JSON");
    expect![[r#""A, B, C; 1851""#]].assert_eq(&run("typed", &[books]));
}

#[test]
fn an_optional_and_a_result_are_mapped_if_there_is_something() {
    expect![[r#""1.5 42 null""#]].assert_eq(&run("present", &[Value::Int(3), str("41")]));
    expect![[r#""null -1 parse_failed""#]].assert_eq(&run("present", &[Value::None, str("x")]));
}

#[test]
fn an_agent_may_run_inside_of_a_method() {
    let make = || Desk::program(PROGRAM).script("Say", &["a", "b", "c", "d"]);
    let xs = Value::List(vec![str("x"), str("y")].into());
    let (value, desk) = both_ways(make, "agents", &[xs]);
    expect![[r#"["c","d"]"#]].assert_eq(&value);
    expect![[r#"
        1 child Say
          1 ask Say [] x
        2 child Say
          1 ask Say [] y
        3 child Say
          1 ask Say [] a!
        4 child Say
          1 ask Say [] b!"#]]
    .assert_eq(&desk.trace.join("\n"));
}

#[test]
fn an_error_leaves_the_loop_and_an_inner_loop_is_not_the_outer_one() {
    expect![[r#""div_zero [2,7,9]""#]].assert_eq(&run("stops", &[ints(&[1, 2, 7, 0, 9])]));
}

#[test]
fn a_list_of_a_thousand_elements_is_mapped() {
    let program = "flow main() -> int {\n    return range(0, 1000).map(fn(x) => x * 2).filter(fn(x) => x % 3 == 0).fold(0, fn(a, x) => a + x)\n}";
    assert_eq!(Desk::program(program).run("main", &[]), "333666");
}

#[test]
fn a_fn_cannot_be_started_from_outside() {
    let module = compile_text("main.nx", "fn main() -> int => 1").with_main();
    assert_eq!(module.diagnostics.iter().map(|finding| finding.code.name()).collect::<Vec<_>>(), ["E0414"]);
}

/// The findings of a program, as people see them.
fn says(program: &str, expected: Expect) {
    expected.assert_eq(&compile_text("main.nx", program).render(Colour::Off));
}

#[test]
fn an_effect_in_a_fn_is_refused_by_name() {
    says(
        "agent A { prompt: \"x\" }\nflow g() -> int { return 1 }\nfn f(x: str) -> str {\n    print(x)\n    let n = g()\n    let t = time.now()\n    let r = fork [1, 2]\n    return \"#{A.run(x)} #{n} #{t} #{r.len()}\"\n}",
        expect![[r##"
            error[E0320]: `f` is a `fn`, which only computes, and `print` reaches outside
             --> main.nx:4:5
              |
            4 |     print(x)
              |     ^^^^^^^^
              |
              = help: declare `f` as a flow, or pass it the value that it needs

            error[E0320]: `f` is a `fn`, which only computes, and a flow reaches outside
             --> main.nx:5:13
              |
            5 |     let n = g()
              |             ^
              |
              = help: declare `f` as a flow, or pass it the value that it needs

            error[E0320]: `f` is a `fn`, which only computes, and `time.now` reaches outside
             --> main.nx:6:13
              |
            6 |     let t = time.now()
              |             ^^^^^^^^^^
              |
              = help: declare `f` as a flow, or pass it the value that it needs

            error[E0320]: `f` is a `fn`, which only computes, and a fork reaches outside
             --> main.nx:7:13
              |
            7 |     let r = fork [1, 2]
              |             ^^^^^^^^^^^
              |
              = help: declare `f` as a flow, or pass it the value that it needs

            error[E0320]: `f` is a `fn`, which only computes, and an agent reaches outside
             --> main.nx:8:15
              |
            8 |     return "#{A.run(x)} #{n} #{t} #{r.len()}"
              |               ^
              |
              = help: declare `f` as a flow, or pass it the value that it needs"##]],
    );
}

#[test]
fn a_recursive_fn_needs_its_result_type() {
    says(
        "fn f(n: int) => if (n < 1) 0 else f(n - 1)",
        expect![[r#"
        error[E0313]: the result type of `f` must be written, because it calls itself
         --> main.nx:1:35
          |
        1 | fn f(n: int) => if (n < 1) 0 else f(n - 1)
          |    -                              ^
          |    |
          |    its result type is missing here
          |
          = help: write `f(…) -> str` with the type that it returns"#]],
    );
}

#[test]
fn a_function_that_does_not_fit_a_method_is_pointed_at() {
    says(
        "fn long(s: str) -> bool => s.len() > 3\nflow main(xs: list[int]) -> any {\n    return [\n        xs.map(long),\n        xs.filter(fn(x) => x + 1),\n        xs.map(3),\n        xs.map(fn(x, y) => x),\n        xs.fold(0, fn(a, x) => 1.5),\n        xs.fold(fn(a, x) => a),\n        xs.sort_by(fn(x) => [x]),\n        xs.mapp(fn(x) => x)\n    ]\n}",
        expect![[r#"
            error[E0301]: `map` hands `int` to this function, which takes `str`
             --> main.nx:4:16
              |
            4 |         xs.map(long),
              |                ^^^^

            error[E0306]: the function of `filter` gives `int`, not `bool`
             --> main.nx:5:19
              |
            5 |         xs.filter(fn(x) => x + 1),
              |                   ^^^^^^^^^^^^^^

            error[E0304]: `map` takes a function, not `int`
             --> main.nx:6:16
              |
            6 |         xs.map(3),
              |                ^
              |
              = help: write one: `fn(x) => …`, or name one

            error[E0304]: `map` calls its function with one argument, and this one takes 2
             --> main.nx:7:16
              |
            7 |         xs.map(fn(x, y) => x),
              |                ^^^^^^^^^^^^^

            error[E0301]: the function of `fold` gives `float`, and `init` is `int`
             --> main.nx:8:20
              |
            8 |         xs.fold(0, fn(a, x) => 1.5),
              |                    ^^^^^^^^^^^^^^^
              |
              = help: both must have one type: it is what the next call is given

            error[E0304]: `fold` needs `f` too
             --> main.nx:9:9
              |
            9 |         xs.fold(fn(a, x) => a),
              |         ^^^^^^^^^^^^^^^^^^^^^^

            error[E0301]: `sort_by` cannot order by `list[int]`
              --> main.nx:10:20
               |
            10 |         xs.sort_by(fn(x) => [x]),
               |                    ^^^^^^^^^^^^
               |
               = help: give a number, a text, a duration or a bool for each element

            error[E0305]: `list[int]` has no method `mapp`
              --> main.nx:11:12
               |
            11 |         xs.mapp(fn(x) => x)
               |            ^^^^
               |
               = help: did you mean `map`?"#]],
    );
}
