//! "Did you mean": what is suggested for a name that is nearly right, wherever names stand.

use std::collections::BTreeMap;

use nexa_lang::compile;

const LIB: &str = "protocol Claim { text: str }\nfn total() -> int => 1\n";

/// Where a misspelt name stands, a program with it, and what is suggested.
#[rustfmt::skip]
const MISSPELT: &[(&str, &str, &str)] = &[
    ("a variable", "flow main(answer: str) -> str { return anwser }", "answer"),
    ("a variable that is assigned", "flow main() -> int { let count = 1; cuont = 2; return count }", "count"),
    ("a function", "flow main() { prnt(1) }", "print"),
    ("a secret", "flow main() { emit(secrt(\"K\")) }", "secret"),
    ("a standard module", "flow main(s: str) -> str { return txet.upper(s) }", "text"),
    ("a function of a module", "flow main(s: str) -> str { return text.uper(s) }", "upper"),
    ("a field", "protocol Note { title: str }\nflow main(n: Note) -> str { return n.titel }", "title"),
    ("a field that is assigned", "struct S { page: int }\nflow main() -> int { let s = S { page: 1 }; s.pge = 2; return s.page }", "page"),
    ("a field of a record", "protocol Note { title: str }\nflow main() -> Note { return Note { titel: \"x\" } }", "title"),
    ("a field in a pattern", "struct S { page: int }\nflow main(s: S) -> int { return match s { { pge } => 1, _ => 2 } }", "page"),
    ("a field of an error", "flow main() -> str { try { fail(\"x\") } catch (e) { return e.mesage } }", "message"),
    ("a label of a fork", "flow a(x: str) -> str { return x }\nflow main(x: str) -> any {\n let r = fork [first: a(x), second: a(x)]\n return r.frist }", "first"),
    ("a method", "flow main(s: str) -> str { return s.uper() }", "upper"),
    ("a method without its call", "flow main(s: list[int]) -> int { return s.lenn }", "len"),
    ("a method that takes a function", "flow main(s: list[int]) -> list[int] { return s.fliter(fn(x) => x > 1) }", "filter"),
    ("a method of a handle", "flow w() -> int { return 1 }\nflow main() -> int { let h = spawn w(); h.cancl(); return await h }", "cancel"),
    ("a method of an agent", "agent Editor(x: str) { prompt: \"e\" }\nflow main(x: str) -> str { return Editor.rnu(x) }", "run"),
    ("a built-in type", "flow main(x: strr) -> str { return \"a\" }", "str"),
    ("a declared type", "protocol Time { a: int }\nprotocol Note { at: Tiem }", "Time"),
    ("a type in a pattern", "flow main(s: int | str) -> int { return match s { n: itn => 1, _ => 2 } }", "int"),
    ("a type of a record", "protocol Note { title: str }\nflow main() -> Note { return (Noet { title: \"x\" }) }", "Note"),
    ("a protocol of `implements`", "protocol Titled { title: str }\nagent A -> Titled implements Titld { prompt: \"x\" }", "Titled"),
    ("a protocol of `verify`", "protocol Titled { title: str }\nflow main(x: any) -> any { verify x satisfies Titld; return x }", "Titled"),
    ("a case", "enum Verdict { accept, reject }\nflow main() -> Verdict { return acept }", "accept"),
    ("a case of a named enum", "enum Verdict { accept, reject }\nflow main() -> Verdict { return Verdict.acept }", "accept"),
    ("an enum", "enum Verdict { accept, reject }\nflow main() -> Verdict { return Verdct.accept }", "Verdict"),
    ("an enum in a pattern", "enum Verdict { accept, reject }\nflow main(v: Verdict) -> int { return match v { Verdct.accept => 1, _ => 2 } }", "Verdict"),
    ("a case in a pattern", "enum Verdict { accept, reject(why: str) }\nflow main(v: Verdict) -> int { return match v { rejct(r) => 1, _ => 2 } }", "reject"),
    ("a case of a named enum in a pattern", "enum Verdict { accept, reject }\nflow main(v: Verdict) -> int { return match v { Verdict.acept => 1, _ => 2 } }", "accept"),
    ("a case that became a name for all", "enum Verdict { accept, reject }\nflow main(v: Verdict) -> int { return match v { acept => 1 } }", "accept"),
    ("a named argument", "flow f(count: int) -> int { return count }\nflow main() -> int { return f(cuont: 1) }", "count"),
    ("a named argument of a standard function", "flow main() { emit(1, chanel: \"x\") }", "channel"),
    ("an option of a loop", "flow main() -> int { let n = 0; loop (mx: 3) { n = n + 1 } until (n > 5); return n }", "max"),
    ("an option of a try", "flow main() { try (timout: 3s) { print(1) } catch (e) { print(e) } }", "timeout"),
    ("a strategy", "flow a(x: str) -> str { return x }\nflow main(x: str) -> any { return fork [a(x), a(x)] merge vot }", "vote"),
    ("an option of a strategy", "flow a(x: str) -> str { return x }\nflow main(x: str) -> any { return fork [a(x), a(x)] merge vote(mni_ok: 1) }", "min_ok"),
    ("a stage", "agent Editor(x: str) { prompt: \"e\" }\nflow main(x: str) -> str { return x >> Editr }", "Editor"),
    ("an agent", "agent Editor(x: str) { prompt: \"e\" }\nflow main(x: str) -> str { return Editr.run(x) }", "Editor"),
    ("a child", "flow worker() -> int { return 1 }\nflow main() -> int { let h = spawn wrker(); return await h }", "worker"),
    ("a handle", "flow w() -> int { return 1 }\nflow main() -> int { let hand = spawn w(); pass 1 to hnad; return await hand }", "hand"),
    ("a run-time code", "flow main() { fail(\"x\", code: \"timout\") }", "timeout"),
    ("a scope of a memory", "flow main() { memory.store(\"k\", 1, scope: \"agnet\") }", "agent"),
    ("a property of an agent", "agent A { promt: \"x\" }", "prompt"),
    ("a property of a clone", "agent E(x: str) { prompt: \"e\" }\nflow main(x: str) -> str { return E.clone(temprature: 0.1).run(x) }", "temperature"),
    ("a setting of a property", "agent A { prompt: \"x\", budget: { tokns: 4 } }", "tokens"),
    ("a planner", "agent A { prompt: \"x\", planner: \"raect\" }", "react"),
    ("a setting of a planner", "agent A { prompt: \"x\", planner: react(max_step: 3) }", "max_steps"),
    ("a setting of several runs", "agent A { prompt: \"x\", planner: best_of_n(n: 4, jugde: J) }", "judge"),
    ("a judge of several runs", "agent Judge(xs: list[str]) -> str { prompt: \"x\" }\nagent A { prompt: \"x\", planner: best_of_n(n: 4, judge: Jugde) }", "Judge"),
    ("a word of `tool_choice`", "agent A { prompt: \"x\", tool_choice: \"autp\" }", "auto"),
    ("an agent of `fallback`", "agent Editor(x: str) { prompt: \"x\", fallback: Writr }\nagent Writer(x: str) { prompt: \"y\" }", "Writer"),
    ("a name in a prompt", "agent A(topic: str) { prompt: \"about #{topc}\" }", "topic"),
    ("a name in a contract", "agent A(x: str) -> str ensures reslt.len() > 0 { prompt: \"x\" }", "result"),
    ("a tool of an agent's `uses`", "tool find(q: str) -> str { source: mcp(\"d\", name: \"f\") }\nagent A uses fnd { prompt: \"x\" }", "find"),
    ("a tool of a flow's `uses`", "tool find(q: str) -> str { source: mcp(\"d\", name: \"f\") }\nflow main() uses fnd { print(1) }", "find"),
    ("a part of `std` in `uses`", "agent A uses std.sf(paths: [\"a\"]) { prompt: \"x\" }", "fs"),
    ("a limit of `std.fs`", "agent A uses std.fs(path: [\"a\"]) { prompt: \"x\" }", "paths"),
    ("a memory in `uses`", "agent A uses memory.tenat { prompt: \"x\" }", "memory.tenant"),
    ("a tool of `std`", "flow main() -> str uses std.fs(paths: [\"n\"]) { return std.fs.raed(\"n/a\") }", "std.fs.read"),
    ("a property of a tool", "tool f(q: str) -> str { souce: mcp(\"a\", name: \"b\") }", "source"),
    ("a source", "tool f(q: str) -> str { source: mpc(\"a\", name: \"b\") }", "mcp"),
    ("a risk", "tool f(q: str) -> str { source: mcp(\"a\", name: \"b\"), risk: \"hgih\" }", "high"),
    ("a word of `on_unknown`", "tool f(q: str) -> str { source: mcp(\"a\", name: \"b\"), on_unknown: \"rtry\" }", "retry"),
    ("a limit of a tool", "tool f(q: str) -> str { source: mcp(\"a\", name: \"b\"), limits: { memry: 1MiB } }", "memory"),
    ("a key of a tool", "tool f(query: str) -> str { source: mcp(\"a\", name: \"b\"), key: qeury }", "query"),
    ("a probe", "tool looks(q: str) -> str? { source: mcp(\"a\", name: \"b\") }\ntool f(q: str) -> str { source: mcp(\"a\", name: \"b\"), on_unknown: \"probe\", probe: loks }", "looks"),
    ("a setting of a schedule", "agent A { prompt: \"x\", schedule: { priorty: 3 } }", "priority"),
    ("a decorator", "@deprecatd(\"x\")\nflow main() -> int { return 1 }", "deprecated"),
    ("a declaration", "agnet A { prompt: \"x\" }", "agent"),
    ("an agent of a script", "agent Answerer(x: str) { prompt: \"x\" }\ntest \"t\" { script Answrer => \"a\"; assert Answerer.run(\"x\") == \"a\" }", "Answerer"),
    ("a tool of a script", "tool find(q: str) -> str { source: mcp(\"d\", name: \"f\") }\ntest \"t\" { script fnd => \"a\"; assert 1 == 1 }", "find"),
    ("a question of a script", "test \"t\" { script semantc \"q\" => true; assert 1 == 1 }", "semantic"),
    ("an agent whose inputs are asked for", "agent Answerer(x: str) { prompt: \"x\" }\ntest \"t\" { script Answerer => \"a\"; assert inputs(Answrer) == [\"x\"] }", "Answerer"),
    ("an imported name", "use \"lib.nx\" { Clam }\nflow main() -> int { return 1 }", "Claim"),
    ("a name of an imported file", "use \"lib.nx\" as lib\nflow main() -> int { return lib.totl() }", "total"),
    ("a type of an imported file", "use \"lib.nx\" as lib\nflow main(x: lib.Clam) -> int { return 1 }", "Claim"),
    ("an imported file", "use \"lib.nx\" as library\nflow main() -> int { return libary.total() }", "library"),
];

#[test]
fn a_name_that_is_nearly_right_is_one_finding_with_a_suggestion() {
    let mut wrong = Vec::new();
    for (place, program, meant) in MISSPELT {
        let text = |text: &str| text.as_bytes().to_vec();
        let files = BTreeMap::from([("main.nx".to_owned(), text(program)), ("lib.nx".to_owned(), text(LIB))]);
        let found = compile("main.nx", &files).diagnostics;
        let wanted = format!("did you mean `{meant}`?");
        let suggested = found.iter().filter(|finding| finding.helps.contains(&wanted)).count();
        let errors: Vec<&str> = found.iter().filter(|finding| finding.is_error()).map(|it| it.code.name()).collect();
        if suggested != 1 || errors.len() > 1 {
            let helps: Vec<&String> = found.iter().flat_map(|finding| &finding.helps).collect();
            wrong.push(format!("{place}: {errors:?} {helps:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_of_its_own_beside_a_case_gets_no_error() {
    let program = "enum Verdict { accept, reject }\nflow main(v: Verdict) -> str {\n\
        return match v { accept => \"yes\", accepted => \"#{accepted}\" }\n}";
    let result = nexa_lang::compile_text("main.nx", program);
    assert!(result.diagnostics.is_empty(), "{:?}", result.diagnostics);
}
