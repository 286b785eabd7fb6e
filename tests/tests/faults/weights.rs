//! Weights that are not there, or not what they were.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nexa_tests::Desk;

use crate::{ASKER, asks, fails, goes_on, text};

/// Where `nexa models pull` puts weights for this user.
fn pulled() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("NEXA_MODELS_DIR").or_else(|| {
        let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")))?;
        Some(data.join("nexa/models"))
    })?;
    folder.is_dir().then_some(folder)
}

#[test]
fn missing_weights_say_how_to_get_them() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let empty = desk.path("no models");
    let says = ["there are no weights in", "run `nexa models pull`"];
    fails(desk.run(&asks(&program, "1", &["--models-dir", text(&empty)])), 3, &says);
    goes_on(&desk);
}

#[test]
fn a_damaged_byte_of_the_weights_is_noticed() {
    let desk = Desk::new();
    let copy = desk.path("models");
    std::fs::create_dir(&copy).expect("the desk can be written to");
    let mut weights = None;
    for entry in pulled().into_iter().flat_map(|folder| std::fs::read_dir(folder).expect("the folder can be read")) {
        let entry = entry.expect("the folder can be read");
        let to = copy.join(entry.file_name());
        std::fs::copy(entry.path(), &to).expect("the desk has room for weights");
        let is_weights = to.extension().is_some_and(|extension| extension == "gguf");
        // Those of the model that writes: the one for vectors may be there, too.
        if is_weights && entry.file_name().to_string_lossy().starts_with("smollm2") {
            weights = Some(to);
        }
    }
    let Some(weights) = weights else {
        println!("skipped: there are no weights here to damage; `nexa models pull` fetches them");
        return;
    };
    let file = std::fs::File::options().read(true).write(true).open(weights).expect("the copy can be opened");
    let middle = file.metadata().expect("it is a file").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("it can be read");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("it can be written");
    drop(file);

    let program = desk.write("asker.nx", ASKER);
    let says = ["are damaged", "run `nexa models pull` to make them again"];
    fails(desk.run(&asks(&program, "1", &["--models-dir", text(&copy)])), 3, &says);
    goes_on(&desk);
}
