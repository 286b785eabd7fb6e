//! `skills`: text files that are part of an agent's system text, and of its program.

mod running;

use std::collections::BTreeMap;

use nexa_lang::diagnostic::Colour;
use nexa_lang::{CompileResult, compile};
use running::{Desk, both_ways, str};

const SKILL_BYTES_MAX: usize = 256 << 10;

fn with(files: &[(&str, &[u8])]) -> CompileResult {
    let files: BTreeMap<String, Vec<u8>> =
        files.iter().map(|(path, text)| ((*path).to_owned(), text.to_vec())).collect();
    compile("main.nx", &files)
}

fn program(main: &str) -> CompileResult {
    with(&[
        ("main.nx", main.as_bytes()),
        ("a.md", b"\xef\xbb\xbfKnow A.\r\n\n"),
        ("notes/b.md", "Says #{x} and \"b\".\n  än".as_bytes()),
        ("blank.md", b" \n"),
        ("notes/far.nx", b"agent Far { role: \"R.\", skills: [\"b.md\", \"../a.md\"], prompt: \"P.\" }"),
        ("bad.md", b"ab\xffc"),
        ("long.md", &[b'x'; SKILL_BYTES_MAX + 1]),
        ("just.md", &[b'x'; SKILL_BYTES_MAX]),
    ])
}

fn codes(main: &str) -> Vec<&'static str> {
    program(main).diagnostics.iter().map(|finding| finding.code.name()).collect()
}

/// The system text of each request of a program's `main`, with each instruction in a slice of its own, too.
fn system_texts(main: &str, answers: &[&str]) -> Vec<String> {
    let result = program(main);
    assert!(result.diagnostics.is_empty(), "{}", result.render(Colour::Off));
    let module = result.module.expect("no finding");
    let desk = || ["A", "Far"].iter().fold(Desk::module(module.clone()), |desk, name| desk.script(name, answers));
    let (_, desk) = both_ways(desk, "main", &[str("q")]);
    desk.requests.iter().map(|request| request.messages[0].text.clone()).collect()
}

#[test]
fn the_texts_stand_between_the_role_and_the_prompt_as_they_are() {
    let main = "flow main(q: str) -> str { return q >> A }\n";
    let agent = |body: &str| system_texts(&format!("agent A(q: str) {{ {body} }}\n{main}"), &["x"]).remove(0);
    let both = "Know A.\n\nSays #{x} and \"b\".\n  än";
    assert_eq!(
        agent("prompt: \"P #{q}.\", skills: [\"a.md\", \"notes/b.md\"], role: \"R.\""),
        format!("R.\n\n{both}\n\nP q.")
    );
    assert_eq!(agent("skills: [\"./a.md\", \"blank.md\", \"notes/../notes/b.md\"]"), both);
    assert_eq!(
        agent("skills: [\"notes/b.md\", \"a.md\"], prompt: \"P.\""),
        "Says #{x} and \"b\".\n  än\n\nKnow A.\n\nP."
    );
    assert_eq!(agent("skills: [], prompt: \"P.\""), "P.");
    assert_eq!(agent("skills: [\"just.md\"]").len(), SKILL_BYTES_MAX);
}

#[test]
fn a_result_with_a_type_still_ends_the_text() {
    let main = "agent A -> int { skills: [\"a.md\"], repair: 1 }\nflow main(q: str) -> int { return q >> A }";
    let texts = system_texts(main, &["one", "1"]);
    assert!(texts.len() == 2 && texts[0] == texts[1], "{texts:?}");
    assert!(texts[0].starts_with("Know A.\n\nAnswer with JSON only"), "{}", texts[0]);
}

#[test]
fn a_path_is_relative_to_the_file_in_which_it_stands() {
    let main = "use \"notes/far.nx\" { Far }\nflow main(q: str) -> any {\n    let near = Far.clone(skills: [\"a.md\"])\n    let bare = Far.clone(skills: [])\n    return [Far.run(q), near.run(q), bare.run(q), Far.run(q)]\n}";
    let own = "R.\n\nSays #{x} and \"b\".\n  än\n\nKnow A.\n\nP.";
    assert_eq!(system_texts(main, &["x"]), [own, "R.\n\nKnow A.\n\nP.", "R.\n\nP.", own]);
}

#[test]
fn another_text_is_another_program() {
    let hash = |text: &[u8]| {
        let main = b"agent A { skills: [\"a.md\"] }\nflow main(q: str) -> str { return q >> A }";
        with(&[("main.nx", main), ("a.md", text)]).module.expect("a right program").hash()
    };
    assert_eq!(hash(b"one"), hash(b"one"));
    assert_ne!(hash(b"one"), hash(b"two"));
    assert_eq!(hash(b"one"), hash(b"one\n"), "blanks at the end say nothing");
}

#[test]
fn what_is_wrong_with_a_file_is_said_once_at_its_name() {
    let many: Vec<String> = (0..17).map(|number| format!("\"s{number}.md\"")).collect();
    let many = format!("[{}]", many.join(", "));
    for (value, expected) in [
        ("[\"gone.md\"]", vec!["E0206"]),
        ("[\"a.md\", \"gone.md\", \"../a.md\"]", vec!["E0206", "E0206"]),
        ("[\"/a.md\"]", vec!["E0206"]),
        ("[\"\"]", vec!["E0206"]),
        ("[\"bad.md\"]", vec!["E0101"]),
        ("[\"long.md\"]", vec!["E0102"]),
        ("[\"a.md\", \"./a.md\"]", vec!["E0402"]),
        ("\"a.md\"", vec!["E0301"]),
        ("[1]", vec!["E0308"]),
        ("[\"#{1}.md\"]", vec!["E0404"]),
        (many.as_str(), [vec!["E0403"], vec!["E0206"; 16]].concat()),
    ] {
        let main =
            format!("agent A {{ prompt: \"x\", skills: {value} }}\nflow main(q: str) -> str {{ return q >> A }}");
        assert_eq!(codes(&main), expected, "{value}");
        let clone =
            format!("agent A {{ prompt: \"x\" }}\nflow main(q: str) -> str {{ return q >> A.clone(skills: {value}) }}");
        assert_eq!(codes(&clone), expected, "{value} of a clone");
    }
}

#[test]
fn the_files_of_a_program_are_bounded_together() {
    let mut files: Vec<(String, Vec<u8>)> =
        (0..33).map(|number| (format!("s{number}.md"), vec![b'x'; SKILL_BYTES_MAX])).collect();
    // Two agents may name the same file: it counts once.
    let agent = |name: &str, range: std::ops::Range<usize>| {
        let names: Vec<String> = range.map(|number| format!("\"s{number}.md\"")).collect();
        format!("agent {name} {{ skills: [{}] }}\n", names.join(", "))
    };
    let agents = agent("A", 0..16)
        + &agent("B", 16..32)
        + &agent("C", 8..24)
        + "flow main(q: str) -> str { return q >> A >> B >> C";
    let of = |rest: &str| [agents.as_str(), rest].concat();
    let mut codes = |main: String| {
        files.retain(|(path, _)| path != "main.nx");
        files.push(("main.nx".to_owned(), main.into_bytes()));
        let files: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (path.as_str(), text.as_slice())).collect();
        with(&files).diagnostics.iter().map(|finding| finding.code.name()).collect::<Vec<_>>()
    };
    assert!(!codes(of(" }")).contains(&"E0102"));
    assert_eq!(codes(of(" >> D }\nagent D { skills: [\"s32.md\", \"s0.md\"] }")), ["E0102"]);
}
