//! Programs of several files.

use std::collections::BTreeMap;

use nexa_lang::{Diagnostic, SourceSet, diagnostic};

fn project(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

fn load(files: &[(&str, &str)]) -> SourceSet {
    SourceSet::load("main.nx", &project(files))
}

fn order(set: &SourceSet) -> Vec<&str> {
    set.files().iter().map(|file| file.source.name()).collect()
}

fn rendered(set: &SourceSet) -> String {
    let show = |found: &&Diagnostic| diagnostic::render(found, |file| set.source(file), diagnostic::Colour::Off);
    set.diagnostics().iter().map(show).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn imported_files_come_before_those_that_import_them() {
    let set = load(&[
        ("main.nx", "use \"lib/a.nx\" { A }\nuse \"lib/b.nx\""),
        ("lib/a.nx", "use \"b.nx\"\nuse \"../top.nx\" as top"),
        ("lib/b.nx", ""),
        ("top.nx", ""),
    ]);
    assert_eq!(rendered(&set), "");
    assert_eq!(order(&set), ["lib/b.nx", "top.nx", "lib/a.nx", "main.nx"]);
    let main = set.entry().expect("the entry was read");
    let imported: Vec<&str> =
        main.imports.iter().filter_map(|import| set.source(import.file)).map(|source| source.name()).collect();
    assert_eq!(imported, ["lib/a.nx", "lib/b.nx"]);
}

#[test]
fn a_circle_of_imports_is_shown() {
    let set = load(&[("main.nx", "use \"a.nx\""), ("a.nx", "use \"b.nx\""), ("b.nx", "use \"./a.nx\"")]);
    expect_test::expect![[r#"
        error[E0205]: `a.nx` imports itself through other files
         --> b.nx:1:5
          |
        1 | use "./a.nx"
          |     ^^^^^^^^
          |
          = note: a.nx -> b.nx -> a.nx
          = help: move what both need into a file of its own"#]]
    .assert_eq(&rendered(&set));
    assert_eq!(order(&set), ["b.nx", "a.nx", "main.nx"]);
    assert_eq!(load(&[("main.nx", "use \"main.nx\"")]).diagnostics().len(), 1);
}

#[test]
fn a_file_that_is_missing_or_outside_is_not_found() {
    let set = load(&[(
        "main.nx",
        "use \"gone.nx\"\nuse \"gone.nx\"\nuse \"../secret.nx\"\nuse \"/etc/passwd\"\nuse \"a#{b}.nx\"",
    )]);
    expect_test::expect![[r#"
        error[E0206]: the file `gone.nx` is not found
         --> main.nx:1:5
          |
        1 | use "gone.nx"
          |     ^^^^^^^^^
          |
          = note: a path is relative to the file that imports it

        error[E0206]: `../secret.nx` leads out of the project
         --> main.nx:3:5
          |
        3 | use "../secret.nx"
          |     ^^^^^^^^^^^^^^

        error[E0206]: `/etc/passwd` leads out of the project
         --> main.nx:4:5
          |
        4 | use "/etc/passwd"
          |     ^^^^^^^^^^^^^

        error[E0206]: the path of an import is a plain text
         --> main.nx:5:5
          |
        5 | use "a#{b}.nx"
          |     ^^^^^^^^^^"#]]
    .assert_eq(&rendered(&set));
    let none = SourceSet::load("none.nx", &project(&[]));
    expect_test::expect![[r#"
        error[E0206]: the file `none.nx` is not found
        --> none.nx"#]]
    .assert_eq(&rendered(&none));
    assert!(none.entry().is_none());
}

#[test]
fn mistakes_of_every_file_are_found() {
    let set = load(&[
        ("main.nx", "use \"a.nx\"\nuse \"bad.nx\"\nflow f() { ( }"),
        ("a.nx", "nonsense"),
        ("bad.nx", "\u{fffd}"),
    ]);
    let codes: Vec<&str> = set.diagnostics().iter().map(|found| found.code.name()).collect();
    assert_eq!(codes, ["E0203", "E0110", "E0202"]);
    let mut files = project(&[("main.nx", "use \"a.nx\"")]);
    files.insert("a.nx".to_owned(), vec![0xff]);
    let set = SourceSet::load("main.nx", &files);
    assert_eq!(set.diagnostics().iter().map(|found| found.code.name()).collect::<Vec<_>>(), ["E0101"]);
}

#[test]
fn a_long_chain_of_imports_needs_no_stack() {
    let mut files: BTreeMap<String, Vec<u8>> =
        (0..3_000).map(|n| (format!("f{n}.nx"), format!("use \"f{}.nx\"", n + 1).into_bytes())).collect();
    files.insert("f3000.nx".to_owned(), Vec::new());
    let set = SourceSet::load("f0.nx", &files);
    assert_eq!((set.files().len(), set.diagnostics().len()), (3_001, 0));
}
