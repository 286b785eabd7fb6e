//! What the tests here share: a call, a sink, a model small enough to be made on the spot.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use nexa_event::effect::{Message, ModelRequest, Purpose, Role, Sampling, Source, ToolChoice, ToolOffer};
use nexa_ports::dice::{Dice, SeededDice};
use nexa_ports::model::{Chunks, ModelCall};
use nexa_types::{AgentId, EffectKey, Millis, RequestId, Seq, TenantId, Tokens, WorkloadId};
use tokio_util::sync::CancellationToken;

pub(crate) fn message(role: Role, text: &str) -> Message {
    Message::new(role, text, Source::Program)
}

pub(crate) fn request(text: &str) -> ModelRequest {
    ModelRequest {
        agent: "Greeter".to_owned(),
        purpose: Purpose::Agent,
        model: String::new(),
        messages: vec![message(Role::System, "Be kind."), message(Role::User, text)],
        schema: None,
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        sampling: Sampling { temperature: 0.7, top_p: 0.9, max_tokens: Tokens(24), seed: Some(1), stop: Vec::new() },
        stream: true,
        cache: false,
        memory: None,
        timeout: Millis(60_000),
    }
}

/// A request that offers tools by these names.
pub(crate) fn offering(names: &[&str]) -> ModelRequest {
    let offer = |name: &&str| ToolOffer {
        name: (*name).to_owned(),
        description: format!("Does `{name}`."),
        schema: r#"{"type":"object","properties":{"q":{"type":"string"}}}"#.to_owned(),
    };
    ModelRequest { tools: names.iter().map(offer).collect(), ..request("hi") }
}

/// A call of some workload's `seq`th effect.
pub(crate) fn call(seq: u64, request: ModelRequest) -> ModelCall {
    let tenant = TenantId::local();
    let workload = WorkloadId::of(&tenant, RequestId::from_bytes([7; 16]));
    ModelCall {
        request,
        key: EffectKey::of(workload, AgentId::root(workload), Seq(seq)),
        attempt: 1,
        tenant,
        workload,
        deadline: Duration::from_secs(60),
        cancel: CancellationToken::new(),
    }
}

/// Joins the pieces and checks that their offsets fit.
#[derive(Default)]
pub(crate) struct Pieces(Mutex<String>);

impl Pieces {
    pub(crate) fn text(&self) -> String {
        self.0.lock().expect("no holder panics").clone()
    }
}

impl Chunks for Pieces {
    fn piece(&self, offset: u64, text: &str) {
        let mut all = self.0.lock().expect("no holder panics");
        assert_eq!(offset, all.len() as u64, "pieces come in order and without gaps");
        all.push_str(text);
    }
}

/// Writes weights of random numbers: a Llama of two blocks whose every byte is a token, in a form as published.
pub(crate) fn tiny_weights(dir: &Path) -> PathBuf {
    const WIDTH: usize = 64;
    let letter = |byte: u8| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).expect("a letter"),
        0x7F..=0xA0 => char::from_u32(0x121 + u32::from(byte) - 0x7F).expect("a letter"),
        0xAD => '\u{143}',
    };
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned);
    let merges = ["t h", "th e", "\u{120} the", "o u"];
    let merged = merges.map(|merge| merge.replace(' ', ""));
    let letters = (0..=255).map(|byte| letter(byte).to_string());
    let tokens: Vec<Value> = specials.iter().cloned().chain(letters).chain(merged).map(Value::String).collect();
    let kinds = (0..tokens.len()).map(|id| Value::I32(if id < specials.len() { 3 } else { 1 })).collect();
    let vocabulary = tokens.len();
    let text = |text: &str| Value::String(text.to_owned());
    let template = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nYou are small.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' \
        + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}\
        {{ '<|im_start|>assistant\n' }}{% endif %}";
    let metadata = [
        ("general.architecture", text("llama")),
        ("llama.block_count", Value::U32(2)),
        ("llama.context_length", Value::U32(700)),
        ("llama.embedding_length", Value::U32(WIDTH as u32)),
        ("llama.attention.head_count", Value::U32(2)),
        ("llama.attention.head_count_kv", Value::U32(1)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", Value::Array(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(kinds)),
        ("tokenizer.ggml.merges", Value::Array(merges.into_iter().map(text).collect())),
        ("tokenizer.chat_template", text(template)),
    ];
    let dice = SeededDice::new(42);
    let random = |rows: usize, columns: usize, dtype| {
        let number = |_| (dice.roll() >> 40) as f32 / (1 << 24) as f32 - 0.5;
        let numbers: Vec<f32> = (0..rows * columns).map(number).collect();
        QTensor::quantize(&Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).expect("sizes fit"), dtype)
            .expect("sizes fit")
    };
    let ones = || {
        QTensor::quantize(&Tensor::ones(WIDTH, candle_core::DType::F32, &Device::Cpu).expect("fits"), GgmlDType::F32)
            .expect("fits")
    };
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), random(vocabulary, WIDTH, GgmlDType::Q8_0)),
        ("output_norm.weight".to_owned(), ones()),
    ];
    for block in 0..2 {
        let mut add = |name: &str, tensor| tensors.push((format!("blk.{block}.{name}.weight"), tensor));
        add("attn_norm", ones());
        add("ffn_norm", ones());
        add("attn_q", random(WIDTH, WIDTH, GgmlDType::Q4_1));
        add("attn_k", random(WIDTH / 2, WIDTH, GgmlDType::Q4_1));
        add("attn_v", random(WIDTH / 2, WIDTH, GgmlDType::Q4_1));
        add("attn_output", random(WIDTH, WIDTH, GgmlDType::Q4_1));
        add("ffn_gate", random(96, WIDTH, GgmlDType::Q4_1));
        add("ffn_up", random(96, WIDTH, GgmlDType::Q4_1));
        add("ffn_down", random(WIDTH, 96, GgmlDType::Q4_1));
    }
    let path = dir.join("tiny.gguf");
    let mut file = File::create(&path).expect("a fresh folder");
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut file, &metadata, &tensors).expect("a fresh file");
    path
}
