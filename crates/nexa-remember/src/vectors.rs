//! Makes vectors of messages, when nobody waits for them.
//!
//! One task, one call at a time, of [`EMBED_TEXTS`] texts at most; after each it rests as long as the call took, so that vectors
//! take half of a processor at most. Pages that wait to be stored come first, then stored ones, which are stored again with their
//! vectors. At [`UNEMBEDDED_PAGES_MAX`] stored pages without vectors the oldest is left to its words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexa_paging::{MemoryPage, MessageVector, SealedPage, vector_text};
use nexa_ports::embedder::{EmbedCall, EmbedError, Embedder, Urgency};
use nexa_ports::pages::PagesError;
use nexa_types::Millis;
use tracing::{debug, warn};

use crate::state::{NextUnembedded, Unembedded};
use crate::stored::sealed;
use crate::{Shared, add};

/// Texts of one call.
pub const EMBED_TEXTS: usize = 32;
/// Stored pages that may still get vectors.
pub const UNEMBEDDED_PAGES_MAX: usize = 4_096;
/// Bytes of a text that a vector is made of: more than models read.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(60);
/// How long vectors are left alone when there is no embedder, and when it has no time or pages cannot be read.
const ABSENT_PAUSE: Millis = Millis(60_000);
const BUSY_PAUSE: Millis = Millis(2_000);

pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(embedder) = shared.outside.embedder.clone() else { return };
    let stop = shared.stop.clone();
    let work = async {
        loop {
            let next = shared.state().next_unembedded();
            let pause = match next {
                Some(NextUnembedded::Here(page)) => embed(&shared, &*embedder, page).await,
                Some(NextUnembedded::Stored(which)) => match read(&shared, which).await {
                    Ok(Some(page)) => embed(&shared, &*embedder, page).await,
                    Ok(None) => continue,
                    Err(pause) => pause,
                },
                None => {
                    shared.unembedded.notified().await;
                    continue;
                }
            };
            shared.outside.clock.wait_until(shared.outside.clock.now().after(pause)).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// A stored page; `None` if it is gone, or damaged and therefore made again. While the store is away, how long
/// to rest.
async fn read(shared: &Shared, which: Unembedded) -> Result<Option<SealedPage>, Millis> {
    let Unembedded { tenant, agent, page } = which.clone();
    match shared.outside.pages.read(tenant, agent, vec![page]).await {
        Ok(found) => Ok(found.first().and_then(sealed)),
        Err(error @ (PagesError::Damaged { .. } | PagesError::Refused(_))) => {
            if let PagesError::Damaged { shard, .. } = error {
                shared.state().damaged.insert(shard);
                shared.wanted.notify_one();
            }
            debug!(%page, %error, "a page stays without vectors");
            Ok(None)
        }
        Err(error) => {
            debug!(%page, %error, "a page has no vectors yet");
            shared.state().embed_later(which);
            Err(BUSY_PAUSE)
        }
    }
}

/// Gives a page its vectors; says how long to rest.
async fn embed(shared: &Shared, embedder: &dyn Embedder, sealed: SealedPage) -> Millis {
    let (began, mut vectors) = (Instant::now(), Vec::new());
    for part in sealed.page.messages.chunks(EMBED_TEXTS) {
        let texts = part.iter().map(|message| cut(&vector_text(message)).into()).collect();
        let call = EmbedCall {
            texts,
            tenant: sealed.tenant.clone(),
            urgency: Urgency::Background,
            deadline: CALL_MAX,
            cancel: shared.stop.child_token(),
        };
        match embedder.embed(call).await {
            Ok(made) => vectors.extend(made.vectors.iter().map(|vector| MessageVector::new(vector.numbers()))),
            Err(error) => return failed(shared, sealed, &error),
        }
    }
    add(&shared.counters.embedded, vectors.len());
    let page = MemoryPage::new(sealed.agent, sealed.page.messages.clone(), vectors);
    shared.state().embedded(SealedPage { page, ..sealed }, embedder.model().to_owned());
    Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

fn failed(shared: &Shared, sealed: SealedPage, error: &EmbedError) -> Millis {
    debug!(page = %sealed.page.id, %error, "a page has no vectors yet");
    match error {
        EmbedError::Absent(_) => {
            shared.state().embed_later(Unembedded::of(sealed));
            ABSENT_PAUSE
        }
        EmbedError::Refused(_) | EmbedError::Invalid(_) => {
            warn!(page = %sealed.page.id, %error, "a page stays without vectors");
            shared.state().embedded(sealed, String::new());
            Millis(0)
        }
        _ => {
            shared.state().embed_later(Unembedded::of(sealed));
            BUSY_PAUSE
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
