//! The simulated endpoint, asked by the adapter that nodes ask endpoints with.

use std::sync::Arc;
use std::time::Duration;

use nexa_event::effect::{Message, ModelReply, ModelRequest, Purpose, Role, Sampling, Source, ToolChoice};
use nexa_llm::openai::{ApiKey, Endpoint as Adapter, EndpointConfig};
use nexa_load::dice::LogNormal;
use nexa_load::endpoint::limits::KeyLimits;
use nexa_load::endpoint::profile::{Fate, Faults, Profile, hash64};
use nexa_load::endpoint::{Config, Endpoint};
use nexa_ports::model::{LaneLimits, Model, ModelCall, ModelError, NoChunks};
use nexa_types::{AgentId, EffectKey, Millis, RequestId, RunCode, Seq, TenantId, Tokens, UsdMicro, WorkloadId};

fn profile(faults: Faults) -> Profile {
    Profile {
        seed: 5,
        latency_ms: LogNormal { median: 1.0, spread: 0.2 },
        answer_tokens: LogNormal { median: 30.0, spread: 0.3 },
        faults,
    }
}

/// An endpoint, and a client that shows it the key of a name.
struct Desk {
    endpoint: Endpoint,
    profile: Profile,
}

impl Desk {
    async fn new(faults: Faults, limits: KeyLimits) -> Self {
        let profile = profile(faults);
        let config = Config {
            profile: profile.clone(),
            limits,
            tags: 100,
            answers_per_tag: 1,
            host: std::net::Ipv4Addr::LOCALHOST,
            port: 0,
        };
        Self { endpoint: Endpoint::start(config).await.expect("loopback has a port"), profile }
    }

    fn adapter(&self, key: &str) -> Arc<Adapter> {
        let config = EndpointConfig {
            provider: "sim".to_owned(),
            base_url: self.endpoint.url(),
            key: Some((ApiKey::new(key), "the test".to_owned())),
            limits: LaneLimits::at_once(100),
            price: (UsdMicro(0), UsdMicro(0)),
        };
        Arc::new(Adapter::new(config).expect("a good URL"))
    }
}

fn key(seq: u64) -> EffectKey {
    let workload = WorkloadId::of(&TenantId::local(), RequestId::from_bytes([7; 16]));
    EffectKey::of(workload, AgentId::root(workload), Seq(seq))
}

async fn ask(model: &Adapter, seq: u64, text: &str, stream: bool) -> Result<ModelReply, ModelError> {
    let request = ModelRequest {
        agent: "Helper".to_owned(),
        purpose: Purpose::Agent,
        model: "sim/any".to_owned(),
        messages: vec![Message::new(Role::User, text, Source::Program)],
        schema: None,
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        sampling: Sampling { temperature: 0.0, top_p: 1.0, max_tokens: Tokens(999), seed: None, stop: Vec::new() },
        stream,
        cache: false,
        memory: None,
        timeout: Millis(60_000),
    };
    let workload = WorkloadId::of(&TenantId::local(), RequestId::from_bytes([7; 16]));
    let (tenant, deadline) = (TenantId::local(), Duration::from_secs(60));
    let call = ModelCall { request, key: key(seq), attempt: 1, tenant, workload, deadline, cancel: Default::default() };
    model.ask(call, &NoChunks).await
}

#[tokio::test]
async fn whole_or_streamed_the_answer_is_the_one_that_can_be_computed() {
    let desk = Desk::new(Faults::default(), KeyLimits::default()).await;
    let model = desk.adapter("a");
    for (seq, stream) in [(1, false), (2, true)] {
        let reply = ask(&model, seq, "#3 what is this", stream).await.expect("an answer");
        assert_eq!(reply.text, desk.profile.answer("#3 what is this"));
        assert_eq!(reply.spend.tokens_out, Tokens(reply.text.len().div_ceil(4) as u64));
        assert_eq!(reply.spend.tokens_in, Tokens("#3 what is this".len().div_ceil(4) as u64));
    }
    let totals = desk.endpoint.totals();
    assert_eq!((totals.requests, totals.keys, totals.answered, totals.in_flight), (2, 2, 2, 0));
    assert_eq!((totals.tags_arrived, desk.endpoint.first_of_tag(3).is_some()), (1, true));
}

#[tokio::test]
async fn a_key_that_is_sent_again_is_counted_and_answered_alike() {
    let desk = Desk::new(Faults::default(), KeyLimits::default()).await;
    let model = desk.adapter("a");
    let first = ask(&model, 1, "#3 again", false).await.expect("an answer");
    let second = ask(&model, 1, "#3 again", false).await.expect("an answer");
    assert_eq!(first.text, second.text);
    let known = desk.endpoint.key(&key(1).to_string());
    assert_eq!((known.sent, known.answered, known.tag), (2, 2, Some(3)));
    assert_eq!(desk.endpoint.sent_again(), [(hash64(key(1).to_string().as_bytes()), known)]);
}

#[tokio::test]
async fn above_the_limit_of_a_key_it_says_when_to_come_back_and_other_keys_are_not_meant() {
    let limits = KeyLimits { requests_per_minute: Some(60), ..KeyLimits::default() };
    let desk = Desk::new(Faults::default(), limits).await;
    let (one, other) = (desk.adapter("one"), desk.adapter("other"));
    ask(&one, 1, "a", false).await.expect("the first of a second");
    let refused = ask(&one, 2, "b", false).await.expect_err("the second of a second");
    assert_eq!((refused.code, refused.retry_after), (RunCode::RateLimited, Some(Millis(1_000))));
    ask(&other, 3, "c", false).await.expect("another key");
    assert_eq!(desk.endpoint.totals().rate_limited, 1);
}

#[tokio::test]
async fn faults_are_those_that_the_seed_says() {
    let desk = Desk::new(Faults { errors: 0.3, drops: 0.3, hangs: 0.0 }, KeyLimits::default()).await;
    let model = desk.adapter("a");
    let mut met = [0; 3];
    for seq in 1..=40 {
        let result = ask(&model, seq, "x", seq % 2 == 0).await.map_err(|error| (error.code, error.message));
        match (desk.profile.fate(hash64(key(seq).to_string().as_bytes()), 1), result) {
            (Fate::Answered, Ok(_)) => met[0] += 1,
            (Fate::Error, Err((RunCode::Unavailable, told))) if told.contains("on purpose") => met[1] += 1,
            (Fate::Dropped, Err((RunCode::Unavailable, _))) => met[2] += 1,
            (fate, result) => panic!("{fate:?} became {result:?}"),
        }
    }
    assert!(met.iter().all(|count| *count > 0), "{met:?}");
    assert_eq!(desk.endpoint.totals().answered, met[0]);
}

#[tokio::test]
async fn held_answers_come_when_they_are_released() {
    let desk = Desk::new(Faults::default(), KeyLimits::default()).await;
    desk.endpoint.hold();
    let model = desk.adapter("a");
    let asked = tokio::spawn(async move { ask(&model, 1, "#0 x", true).await });
    while desk.endpoint.totals().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!asked.is_finished() && desk.endpoint.totals().answered == 0);
    desk.endpoint.release();
    asked.await.expect("no panic").expect("an answer");
    assert_eq!(desk.endpoint.totals().tags_finished, 1);
}
