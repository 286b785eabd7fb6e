//! What a program says to a scheduler, and the kinds of arguments that the machine may rely on.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod running;

use nexa_lang::compile_text;
use nexa_types::Millis;
use nexa_vm::module::{Kind, Module, Schedule};
use nexa_vm::value::Value;
use running::{Desk, both_ways};

fn module(text: &str) -> Module {
    let result = compile_text("main.nx", text);
    assert!(!result.has_errors(), "{}", result.render(nexa_lang::diagnostic::Colour::Off));
    result.module.unwrap()
}

fn codes(text: &str) -> Vec<&'static str> {
    compile_text("main.nx", text).diagnostics.iter().map(|finding| finding.code.name()).collect()
}

#[test]
fn a_schedule_is_in_the_module_as_it_is_written() {
    let module = module(
        "agent A { prompt: \"x\", schedule: { priority: 160, weight: 2.0, estimate: 3s, cpu: 0.25, memory: 16MiB, llm: 2 } }\n\
         agent B { prompt: \"x\" }\n\
         flow main(q: str) -> str schedule { priority: 7, memory: 1MiB } { return q >> A >> B }",
    );
    let of = |name: &str| module.schedule_of(module.entries.iter().find(|entry| entry.name == name).unwrap().function);
    let written = Schedule {
        priority: 160,
        weight: 2.0,
        estimate: Millis(3_000),
        cpu_milli: 250,
        memory_bytes: 16 << 20,
        llm_slots: 2,
    };
    assert_eq!(of("A"), written);
    assert_eq!(of("B"), Schedule::default());
    assert_eq!(of("main"), Schedule { priority: 7, memory_bytes: 1 << 20, ..Schedule::default() });
    // A child that runs an agent with arguments in place may use what the agent says.
    let function = module.agents[0].function;
    assert_eq!(module.heap_limit(function, &[]), 16 << 20);
    assert_eq!(module.heap_limit(nexa_vm::ENTRY_CALLABLE, &[Value::Agent(0)]), 16 << 20);
    assert_eq!(module.heap_limit(nexa_vm::ENTRY_CALLABLE, &[Value::Agent(1)]), 8 << 20);
}

#[test]
fn settings_of_a_schedule_are_checked() {
    for (setting, expected) in [
        ("priority: 256", "E0403"),
        ("weight: -1.0", "E0403"),
        ("cpu: 5000.0", "E0403"),
        ("memory: 65MiB", "E0403"),
        ("memory: 1KiB", "E0403"),
        ("llm: -1", "E0403"),
        ("priority: 1, priority: 2", "E0402"),
        ("weigth: 1.0", "E0401"),
        ("weight: \"much\"", "E0301"),
    ] {
        assert_eq!(codes(&format!("agent A {{ prompt: \"x\", schedule: {{ {setting} }} }}")), [expected], "{setting}");
        assert_eq!(codes(&format!("flow f() schedule {{ {setting} }} {{ }}")), [expected], "{setting}");
    }
}

#[test]
fn a_weighted_average_weighs_each_agent_by_its_own_weight() {
    let program = "agent A -> float { prompt: \"x\", schedule: { weight: 3.0 } }\n\
        agent B(a: any, b: str = \"\") -> float { prompt: \"x\" }\n\
        flow low(q: str) -> float schedule { weight: 0.0 } { if (q == \"\") { return 1.0 }; return 1000.0 }\n\
        flow piped(q: str) -> float { return q |>> [A, B, low] merge weighted_average }\n\
        flow own(q: str) -> float { return fork [A.run(\"#{q}!\"), B.run(q), low(q), 6.0] merge weighted_average }";
    let make = || Desk::program(program).script("A", &["2"]).script("B", &["6"]);
    assert_eq!(both_ways(make, "piped", &[running::str("q")]).0, "3.0");
    // (3·2 + 6 + 0·1000 + 6) / (3 + 1 + 0 + 1)
    assert_eq!(both_ways(make, "own", &[running::str("q")]).0, "3.6");
}

#[test]
fn a_function_says_the_kinds_of_its_parameters_and_whether_it_only_computes() {
    let module = module(
        "fn half(n: int, x: float, is: bool, s: str) -> float => if (is) x else [n].map(fn(i: int) => 0.5).sum()\n\
         flow main(s: str, n: int = 3) -> float { return half(n, 1.0, n > 2, s) }",
    );
    let function = |name: &str| module.functions.iter().find(|function| function.name == name).unwrap();
    assert_eq!(function("half").param_kinds, [Kind::Int, Kind::Float, Kind::Bool, Kind::Any]);
    assert_eq!(function("main").param_kinds, [Kind::Any, Kind::Int]);
    assert_eq!(function("half.fn#1").param_kinds, [Kind::Int]);
    assert!(function("half").pure_ && function("half.fn#1").pure_);
    assert!(!function("main").pure_);
}

#[test]
fn a_value_of_any_type_is_checked_before_it_becomes_a_typed_argument() {
    let program = "fn twice(n: int) -> int => n + n\n\
        flow main(text: str) -> int { return twice(json.parse(text)) }\n\
        flow piped(text: str) -> list[int] {\n    let f: fn(int) -> int = fn(n) => n * 3\n    let xs: list[int] = json.parse(text)\n    return xs.map(f)\n}";
    let run = |entry: &str, text: &str| both_ways(|| Desk::program(program), entry, &[running::str(text)]).0;
    assert_eq!(run("main", "21"), "42");
    assert!(run("main", "\"x\"").starts_with("type_mismatch: "), "{}", run("main", "\"x\""));
    assert_eq!(run("piped", "[1, 2]"), "[3,6]");
    assert!(run("piped", "[1, true]").starts_with("type_mismatch: "));
}
