//! A fuzz target for the lexer and the parser. As an ordinary test it runs its corpus and some random inputs;
//! `cargo bolero test fuzz_parse` goes on for as long as it is let. The corpus lies in `__fuzz__/parse/corpus`: the
//! folder is named after the test without its `fuzz_`.

use std::sync::atomic::{AtomicBool, Ordering};

use nexa_lang::{FileId, Source, parse};

const ONE_OF_THE_CORPUS: &[u8] = include_bytes!("__fuzz__/parse/corpus/operators");

#[test]
fn fuzz_parse() {
    static RAN_THE_CORPUS: AtomicBool = AtomicBool::new(false);
    bolero::check!().with_iterations(400).for_each(|bytes: &[u8]| {
        if bytes == ONE_OF_THE_CORPUS {
            RAN_THE_CORPUS.store(true, Ordering::Relaxed);
        }
        let is_text = std::str::from_utf8(bytes).is_ok();
        assert_eq!(Source::from_bytes(FileId(0), "fuzz.nx", bytes.to_vec()).is_ok(), is_text);
        let text = String::from_utf8_lossy(bytes);
        let source = Source::from_text(FileId(0), "fuzz.nx", &text).expect("a small text is never refused");
        assert_eq!(parse(&source).print(), text);
    });
    assert!(RAN_THE_CORPUS.load(Ordering::Relaxed), "the corpus is found and run");
}
