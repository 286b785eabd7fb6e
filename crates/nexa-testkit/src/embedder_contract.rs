//! What every embedder must do, as tests that any adapter can be put through.
//!
//! Each function panics with the reason if a property of `nexa_ports::embedder` does not hold; [`run_all`] runs them all.
//! Nothing is asked about what vectors mean: the twin in memory knows nothing of meaning.

use std::sync::Arc;
use std::time::Duration;

use nexa_ports::embedder::{
    DIMENSION_MAX, EmbedCall, EmbedError, Embedded, Embedder, LENGTH_TOLERANCE, TEXTS_BYTES_MAX, TEXTS_MAX, UnitVector,
    Urgency,
};
use nexa_types::TenantId;
use tokio_util::sync::CancellationToken;

/// Longer than any embedder needs here.
const LONG: Duration = Duration::from_secs(60);
/// Two vectors of one text are at least so near: what is computed together is rounded otherwise than what is computed alone.
const SAME: f32 = 0.999;

/// Puts an adapter through the whole contract.
pub async fn run_all(embedder: &dyn Embedder) {
    every_text_has_a_vector_of_length_one(embedder).await;
    a_text_has_one_vector_whatever_stands_beside_it(embedder).await;
    nothing_asked_for_is_nothing(embedder).await;
    what_is_beyond_the_limits_is_refused(embedder).await;
    nobody_waits_for_a_call_that_is_over(embedder).await;
    a_dropped_call_leaves_the_next_one_alone(embedder).await;
}

/// A call for some texts.
pub fn call(texts: &[&str]) -> EmbedCall {
    EmbedCall {
        texts: texts.iter().map(|text| Arc::from(*text)).collect(),
        tenant: TenantId::local(),
        urgency: Urgency::Query,
        deadline: LONG,
        cancel: CancellationToken::new(),
    }
}

async fn vectors(embedder: &dyn Embedder, texts: &[&str]) -> Vec<UnitVector> {
    let Embedded { vectors, .. } = embedder.embed(call(texts)).await.expect("vectors");
    assert_eq!(vectors.len(), texts.len(), "one vector for each text");
    vectors
}

fn same(a: &UnitVector, b: &UnitVector) {
    let cosine = a.cosine(b);
    assert!(cosine >= SAME, "two vectors of one text have a cosine of {cosine}");
}

/// EM-1.
pub async fn every_text_has_a_vector_of_length_one(embedder: &dyn Embedder) {
    let dimension = embedder.dimension();
    assert!((1..=DIMENSION_MAX).contains(&dimension), "{dimension}");
    let (provider, name) = embedder.model().split_once('/').expect("the form is `provider/name`");
    assert!(!provider.is_empty() && !name.is_empty());
    let long = "many words ".repeat(3_000);
    let word = "x".repeat(20_000);
    let texts =
        ["a cat", "", " \n", "猫が外に座っている", "naïve Ärger 🦀\u{301}", "[SEP] <|im_end|> \0", &long, &word];
    for vector in vectors(embedder, &texts).await {
        let length = vector.cosine(&vector).sqrt();
        assert!((length - 1.0).abs() <= LENGTH_TOLERANCE, "the length is {length}");
        assert_eq!(vector.numbers().len(), dimension);
    }
}

/// EM-1 and EM-2.
pub async fn a_text_has_one_vector_whatever_stands_beside_it(embedder: &dyn Embedder) {
    let long = "A long tale of a fox, a dog and a river that they had to cross. ".repeat(12);
    let texts = ["the red fox", &long, "a dog sleeps", "the red fox", "of rivers"];
    let together = vectors(embedder, &texts).await;
    same(&together[0], &together[3]);
    assert!(together[0].cosine(&together[2]) < SAME, "other texts have other vectors");
    for (text, vector) in texts.iter().zip(&together) {
        same(&vectors(embedder, &[text]).await[0], vector);
    }
    let backwards: Vec<&str> = texts.iter().rev().copied().collect();
    for (a, b) in vectors(embedder, &backwards).await.iter().rev().zip(&together) {
        same(a, b);
    }
}

/// EM-1, of no text.
pub async fn nothing_asked_for_is_nothing(embedder: &dyn Embedder) {
    assert_eq!(vectors(embedder, &[]).await, []);
}

/// EM-3.
pub async fn what_is_beyond_the_limits_is_refused(embedder: &dyn Embedder) {
    let many = embedder.embed(call(&vec!["x"; TEXTS_MAX + 1])).await;
    assert!(matches!(many, Err(EmbedError::Refused(_))), "{many:?}");
    let long = "x".repeat(TEXTS_BYTES_MAX / 2 + 1);
    let large = embedder.embed(call(&[&long, &long])).await;
    assert!(matches!(large, Err(EmbedError::Refused(_))), "{large:?}");
    assert_eq!(vectors(embedder, &vec!["x"; TEXTS_MAX]).await.len(), TEXTS_MAX);
}

/// EM-4.
pub async fn nobody_waits_for_a_call_that_is_over(embedder: &dyn Embedder) {
    let cancelled = call(&["this text is asked for by nobody any more"]);
    cancelled.cancel.cancel();
    assert_eq!(embedder.embed(cancelled).await, Err(EmbedError::Cancelled));
    let late = EmbedCall { deadline: Duration::ZERO, ..call(&["this text comes too late"]) };
    let late = embedder.embed(late).await;
    assert!(matches!(late, Err(EmbedError::Timeout(_))), "{late:?}");
}

/// EM-4.
pub async fn a_dropped_call_leaves_the_next_one_alone(embedder: &dyn Embedder) {
    let mut dropped = embedder.embed(call(&["nobody waits for this"; 32]));
    // Looked at once, so that it has begun.
    let _ = futures::poll!(&mut dropped);
    drop(dropped);
    assert_eq!(vectors(embedder, &["somebody waits for this"]).await.len(), 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexa_ports::embedder::HashedWords;

    #[tokio::test]
    async fn hashed_words_keep_the_contract() {
        run_all(&HashedWords::new(384)).await;
        run_all(&HashedWords::new(64)).await;
    }
}
