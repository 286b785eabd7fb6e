//! What the README shows is what the binary takes.

use nexa_tests::{Desk, root};

#[test]
fn programs_in_the_readme_are_good() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README can be read");
    let desk = Desk::new();
    let programs: Vec<&str> = readme.split("```nexa\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!programs.is_empty(), "the README shows no program any more");
    for program in programs {
        let file = desk.write("readme.nx", program);
        desk.run(&["check", file.to_str().expect("a plain path")]).good();
    }
}

#[test]
fn the_tests_of_the_examples_pass() {
    let examples = root().join("examples");
    let told = Desk::new().run(&["test", "--thorough", examples.to_str().expect("a plain path")]).good();
    assert!(told.ends_with("passed\n") && !told.contains("FAILED"), "{told}");
}

#[test]
fn commands_in_the_readme_have_flags_that_exist() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README can be read");
    let desk = Desk::new();
    let mut seen = 0;
    for line in readme.lines().filter(|line| line.starts_with("nexa ")) {
        let line = line.split('#').next().unwrap_or_default();
        let command = line.split_whitespace().nth(1).expect("a command follows `nexa`");
        let help = desk.run(&[command, "--help"]).good();
        for flag in line.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "`nexa {command}` has no {flag}: {line}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "the README's commands were not found");
}
