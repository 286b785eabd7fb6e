//! A fuzz target for the checker and the compiler: no text makes them panic, and a module that comes out is one that
//! the verifier accepts. Texts are random bytes, and conformance programs with pieces of them moved around.

use nexa_lang::compile_text;

const PROGRAMS: &[&str] = &[
    include_str!("../../../examples/hello/hello.nx"),
    include_str!("../../../examples/approval/approval.nx"),
    include_str!("../../../examples/batch/batch.nx"),
    include_str!("programs/everything.nx"),
];

fn holds(text: &str) {
    let result = compile_text("fuzz.nx", text);
    assert_eq!(result.module.is_some(), !result.has_errors(), "{text}");
    if let Some(module) = result.module
        && let Err(error) = nexa_vm::Program::load(&module.encode())
    {
        panic!("{error:?}\n{text}\n{}", module.dump());
    }
}

#[test]
fn every_program_as_it_is() {
    for program in PROGRAMS {
        let result = compile_text("main.nx", program);
        assert!(!result.has_errors(), "{}", result.render(nexa_lang::diagnostic::Colour::Off));
        holds(program);
    }
}

#[test]
fn fuzz_check_bytes() {
    bolero::check!().with_iterations(200).for_each(|bytes: &[u8]| holds(&String::from_utf8_lossy(bytes)));
}

/// Each edit takes a piece of words from one place and puts it over another.
#[test]
fn fuzz_check() {
    bolero::check!().with_type::<(u8, Vec<(u16, u8, u16, u8)>)>().with_iterations(1_500).for_each(
        |(program, edits)| {
            let program = PROGRAMS[usize::from(*program) % PROGRAMS.len()];
            let mut words: Vec<&str> =
                program.split_inclusive([' ', '\n', '(', ')', ',', '.', '{', '}', '[', ']']).collect();
            for (from, length, to, over) in edits.iter().take(4) {
                let from = usize::from(*from) % words.len();
                let piece: Vec<&str> = words[from..].iter().take(usize::from(*length % 8)).copied().collect();
                let to = usize::from(*to) % words.len();
                let end = (to + usize::from(*over % 8)).min(words.len());
                words.splice(to..end, piece);
                if words.is_empty() {
                    return;
                }
            }
            holds(&words.concat());
        },
    );
}
