//! The tests of the programs under `examples/`: in one go, stopped at every safepoint, and from what was recorded.

use std::path::{Path, PathBuf};

use nexa_harness::{Suite, report};
use nexa_lang::diagnostic::Colour;
use nexa_lang::{FileLoader, LoadError};

struct Folder(PathBuf);

impl FileLoader for Folder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        std::fs::read(self.0.join(path)).map_err(|_| LoadError::NotFound)
    }
}

#[test]
fn every_example_passes_its_tests() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let folders = std::fs::read_dir(&examples).expect("there are examples");
    let mut names: Vec<String> =
        folders.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect();
    names.sort();
    let mut passed = 0;
    for name in names {
        // The main file of an example is called like its folder.
        let path = format!("{name}/{name}.nx");
        let suite = Suite::load(&path, &Folder(examples.clone()));
        let suite = suite.unwrap_or_else(|result| panic!("{path}:\n{}", result.render(Colour::Off)));
        for test in suite.tests() {
            let run = suite.prove(test).unwrap_or_else(|differs| panic!("{path}, \"{}\": {}", test.name, differs.what));
            if let Some(failure) = report::failure(&run, test, &suite.sources, Colour::Off) {
                panic!("{path}, \"{}\":\n{failure}", test.name);
            }
            passed += 1;
        }
    }
    assert!(passed >= 12, "only {passed} tests were found");
}
