use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use expect_test::expect;
use nexa_ports::embedder::{EmbedCall, EmbedError, Embedded, Embedder, HashedWords, Urgency};
use nexa_ports::model::LaneLimits;
use nexa_types::{Millis, TenantId, Tokens, UsdMicro};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::embeddings::{BATCH_TEXTS_MAX, EmbeddingConfig, EmbeddingEndpoint};
use super::tests::block_on;
use super::{ApiKey, EndpointConfig};

/// What the endpoint answers: vectors of words backwards, or always the same.
#[derive(Clone)]
enum Answering {
    Vectors,
    Always(StatusCode, &'static str),
}

type Seen = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

async fn answer(State((answering, seen)): State<(Answering, Seen)>, headers: HeaderMap, body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).expect("a request is JSON");
    seen.lock().expect("no holder panics").push((headers, asked.clone()));
    match answering {
        Answering::Always(status, text) => (status, [("retry-after", "3")], text).into_response(),
        Answering::Vectors => {
            let twin = HashedWords::new(16);
            let texts = asked["input"].as_array().expect("texts");
            let item = |(index, text): (usize, &Value)| {
                let vector = twin.vector(text.as_str().expect("a text"));
                let twice: Vec<f32> = vector.numbers().iter().map(|number| number * 2.0).collect();
                json!({"object": "embedding", "index": index, "embedding": twice})
            };
            let data: Vec<Value> = texts.iter().enumerate().map(item).rev().collect();
            let answer = json!({"object": "list", "data": data, "usage": {"prompt_tokens": 10, "total_tokens": 10}});
            answer.to_string().into_response()
        }
    }
}

async fn open(answering: Answering) -> (Seen, EmbeddingEndpoint) {
    let seen = Seen::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let app = axum::Router::new().route("/v1/embeddings", post(answer)).with_state((answering, seen.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (seen, endpoint(&format!("http://{address}/v1")))
}

fn endpoint(base_url: &str) -> EmbeddingEndpoint {
    let config = EndpointConfig {
        provider: "acme".to_owned(),
        base_url: base_url.to_owned(),
        key: Some((ApiKey::new("sk-very-secret"), "the variable ACME_KEY".to_owned())),
        limits: LaneLimits::at_once(2),
        price: (UsdMicro(20_000), UsdMicro(0)),
    };
    let embedding = EmbeddingConfig { model: "embed-1".to_owned(), dimension: 16, text_bytes_max: 40 };
    EmbeddingEndpoint::new(config, embedding).expect("a good URL")
}

fn call(texts: &[&str]) -> EmbedCall {
    EmbedCall {
        texts: texts.iter().map(|text| Arc::from(*text)).collect(),
        tenant: TenantId::local(),
        urgency: Urgency::Background,
        deadline: Duration::from_secs(30),
        cancel: CancellationToken::new(),
    }
}

#[test]
fn texts_go_in_batches_and_vectors_come_back_in_order_with_length_one() {
    block_on(async {
        let (seen, endpoint) = open(Answering::Vectors).await;
        let names: Vec<String> = (0..150).map(|number| format!("text {number}")).collect();
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        let Embedded { vectors, spend } = endpoint.embed(call(&texts)).await.expect("vectors");
        let twin = HashedWords::new(16);
        for (text, vector) in texts.iter().zip(&vectors) {
            assert!((twin.vector(text).cosine(vector) - 1.0).abs() < 1e-5, "{text}");
        }
        assert_eq!((vectors.len(), spend.calls, spend.tokens_in, spend.cost), (150, 3, Tokens(30), UsdMicro(3)));
        let seen = seen.lock().expect("no holder panics");
        let mut sizes: Vec<usize> = seen.iter().map(|(_, body)| body["input"].as_array().map_or(0, Vec::len)).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [150 - 2 * BATCH_TEXTS_MAX, BATCH_TEXTS_MAX, BATCH_TEXTS_MAX]);
        assert_eq!(seen[0].0["authorization"], "Bearer sk-very-secret");
        assert_eq!((&seen[0].1["model"], &seen[0].1["encoding_format"]), (&json!("embed-1"), &json!("float")));
        assert_eq!((endpoint.model(), endpoint.dimension()), ("acme/embed-1", 16));
    });
}

#[test]
fn a_long_text_is_cut_at_a_character_and_an_empty_one_is_a_space() {
    block_on(async {
        let (seen, endpoint) = open(Answering::Vectors).await;
        endpoint.embed(call(&["", &"ä".repeat(30)])).await.expect("vectors");
        let seen = seen.lock().expect("no holder panics");
        assert_eq!(seen[0].1["input"], json!([" ", "ä".repeat(20)]));
    });
}

#[test]
fn every_kind_of_bad_answer_says_what_happened_and_what_to_do() {
    let answers = [
        (StatusCode::TOO_MANY_REQUESTS, r#"{"error":{"message":"slow down"}}"#),
        (StatusCode::SERVICE_UNAVAILABLE, "gone"),
        (StatusCode::UNAUTHORIZED, "{}"),
        (StatusCode::NOT_FOUND, "{}"),
        (StatusCode::OK, "<html>"),
        (StatusCode::OK, r#"{"data":[{"index":0,"embedding":[1.0]}]}"#),
        (StatusCode::OK, r#"{"data":[]}"#),
        (StatusCode::OK, r#"{"data":[{"index":1,"embedding":[1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}]}"#),
        (StatusCode::OK, r#"{"data":[{"index":0,"embedding":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}]}"#),
    ];
    let mut told = String::new();
    for (status, text) in answers {
        let error = block_on(async {
            let (_, endpoint) = open(Answering::Always(status, text)).await;
            endpoint.embed(call(&["one"])).await.expect_err("no vectors")
        });
        let mut message = error.to_string();
        if let (Some(from), Some(to)) = (message.find("127.0.0.1:"), message.find("/v1")) {
            message.replace_range(from..to, "HOST");
        }
        assert!(!message.contains("secret"), "{message}");
        if let EmbedError::Busy { retry_after, .. } = error {
            assert_eq!(retry_after, Millis(3_000));
        }
        told.push_str(&format!("{}: {message}\n", if error.is_passing() { "later" } else { "never" }));
    }
    expect![[r#"
        later: endpoint `acme` at http://HOST/v1 answered 429 Too Many Requests saying “slow down”; slow down or raise the limit there
        later: endpoint `acme` at http://HOST/v1 answered 503 Service Unavailable saying “gone”; try again later or look at the endpoint
        never: endpoint `acme` at http://HOST/v1 answered 401 Unauthorized saying “{}”; check the key in the variable ACME_KEY
        never: endpoint `acme` at http://HOST/v1 answered 404 Not Found saying “{}”; check the base URL and the model's name
        never: endpoint `acme` at http://HOST/v1 sent something that is no list of embeddings: expected value at line 1 column 1; check that the URL is that of the API
        never: endpoint `acme` at http://HOST/v1 sent a vector of 1 numbers instead of 16; correct `dimension`
        never: endpoint `acme` at http://HOST/v1 sent something that is no list of embeddings: it has no vector, or one of zeros, for text 0; check that the URL is that of the API
        never: endpoint `acme` at http://HOST/v1 sent something that is no list of embeddings: it has a vector for text 1 of 1; check that the URL is that of the API
        never: endpoint `acme` at http://HOST/v1 sent something that is no list of embeddings: it has no vector, or one of zeros, for text 0; check that the URL is that of the API
    "#]]
    .assert_eq(&told);
}

#[test]
fn nobody_at_the_address_is_said_so() {
    let error = block_on(endpoint("http://127.0.0.1:9/v1").embed(call(&["one"]))).expect_err("nobody there");
    assert!(matches!(&error, EmbedError::Unavailable(message) if message.contains("check that it runs")), "{error}");
}

#[test]
fn a_model_without_numbers_is_refused_at_once() {
    let config = EndpointConfig {
        provider: "acme".to_owned(),
        base_url: "http://localhost:1/v1".to_owned(),
        key: None,
        limits: LaneLimits::at_once(1),
        price: (UsdMicro(0), UsdMicro(0)),
    };
    for dimension in [0, 5_000] {
        let embedding = EmbeddingConfig { model: "embed-1".to_owned(), dimension, text_bytes_max: 40 };
        let error = EmbeddingEndpoint::new(config.clone(), embedding).expect_err("no such dimension").to_string();
        assert!(error.contains("1 to 4096"), "{error}");
    }
}
