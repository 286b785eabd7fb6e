//! W0808: which ways from a tool to a tool of high risk are told, and which are not.

use nexa_lang::compile_text;
use nexa_lang::diagnostic::Colour;

const TOOLS: &str = "
protocol Page { text: str, links: list[str] }
tool find(q: str) -> str { source: mcp(\"docs\", name: \"find\"), risk: \"low\" }
tool page(q: str) -> Page { source: mcp(\"docs\", name: \"page\"), risk: \"low\" }
tool wipe(path: str) -> str { source: wasm(\"wipe.wasm\", export: \"run\"), risk: \"high\" }
tool keep(path: str) -> str { source: wasm(\"keep.wasm\", export: \"run\"), risk: \"medium\" }
agent Chooser(text: str) { prompt: \"Choose a path.\" }
flow found(q: str) -> str uses find { return find(q).trim() }
";

fn codes(body: &str) -> Vec<&'static str> {
    let program =
        format!("{TOOLS}flow main(x: str, xs: list[str]) -> str uses find, page, wipe, keep {{\n{body}\n}}\n");
    let result = compile_text("main.nx", &program);
    assert!(!result.has_errors(), "{}", result.render(Colour::Off));
    // A flow with an approval without a timeout says so; that is not looked at here.
    result.diagnostics.iter().map(|found| found.code.name()).filter(|code| *code == "W0808").collect()
}

#[test]
fn what_nothing_looked_at_is_told() {
    for body in [
        "return wipe(find(x))",
        "return x >> find >> wipe",
        "let p = find(x)\nreturn wipe(p)",
        "let p = find(x)\nlet q = p\nreturn wipe(q)",
        "return wipe(\"notes/#{find(x)}\")",
        "return wipe(find(x).trim())",
        "let p = page(x)\nreturn wipe(p.text)",
        "let p = page(x)\nreturn wipe(p.links[0])",
        "for each link in page(x).links { wipe(link) }\nreturn x",
        "let p = \"\"\nfor each y in xs { p = find(y) }\nreturn wipe(p)",
        "return wipe(find(x) otherwise x)",
        "let r = try find(x)\nreturn match r { ok(p) => wipe(p), err(_e) => x }",
        "return wipe(if (x == \"a\") find(x) else x)",
        "return wipe(found(x))",
    ] {
        assert_eq!(codes(body), ["W0808"], "{body}");
    }
}

#[test]
fn what_was_looked_at_or_comes_from_elsewhere_is_not() {
    for body in [
        "return wipe(x)",
        "return keep(find(x))",
        "let p = find(x)\nif (p.starts_with(\"notes/\")) { return wipe(p) }\nreturn x",
        "let p = find(x)\nif (p in xs) { return wipe(\"#{p}/all\") }\nreturn x",
        "let p = find(x)\nassert p != \"/\", \"not all\"\nreturn wipe(p)",
        "let p = find(x)\nverify \"it is a path\" against p\nreturn wipe(p)",
        "let p = find(x)\nlet d = approve(\"wipe it?\", data: p, timeout: 1h)\nprint(d)\nreturn wipe(p)",
        "let p = find(x)\nsemantic_if \"it is a path\" against p { return wipe(p) } else { return x }",
        "return match find(x) { \"a\" => wipe(\"a\"), _ => x }",
        "return wipe(\"#{find(x).len()}\")",
        "return find(x) >> Chooser >> wipe",
        "let n = find(x)\nprint(n)\nreturn wipe(x)",
    ] {
        assert_eq!(codes(body), [""; 0], "{body}");
    }
}

#[test]
fn it_can_be_allowed() {
    let main = "flow main(x: str) -> str uses find, wipe { return wipe(find(x)) }";
    let found = |decorator: &str| compile_text("main.nx", &format!("{TOOLS}{decorator}\n{main}")).diagnostics.len();
    assert_eq!((found(""), found("@allow(W0808)")), (1, 0));
}
