//! What bounded admission costs: a tell through it beside a raw cast of ractor, both to one actor that only counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nexa_runtime::bounded::{self, Address, Behaviour, Bound, Bounds, Fault, Lane, Then};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::node::block_on;
use crate::measure::Error;

/// A message of 32 bytes.
type Note = [u64; 4];

struct Counter(Arc<AtomicU64>);

impl Behaviour for Counter {
    type Message = Note;
    type State = ();

    fn start(&self) {}

    async fn handle(&self, (): &mut (), _: Note) -> Result<Then, Fault> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Then::GoOn)
    }
}

struct Raw(Arc<AtomicU64>);

impl Actor for Raw {
    type Msg = Note;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Note>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Note>, _: Note, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// How many times the cost of a raw cast a tell costs.
pub(crate) fn ratio(messages: u64) -> Result<f64, Error> {
    block_on(async {
        let raw = tokio::spawn(raw(messages)).await?.map_err(|error| -> Error { error })?;
        let bounded = tokio::spawn(bounded(messages)).await?.map_err(|error| -> Error { error })?;
        Ok(bounded / raw)
    })
}

async fn all_counted(counter: &AtomicU64, messages: u64) {
    while counter.load(Ordering::Relaxed) < messages {
        tokio::task::yield_now().await;
    }
}

/// Nanoseconds a tell.
async fn bounded(messages: u64) -> Result<f64, SendError> {
    let counter = Arc::new(AtomicU64::new(0));
    let wide = Bound { count_max: messages as usize, bytes_max: 32 * messages as usize };
    let address = Address::new(Bounds { control: wide, replies: wide, work: wide });
    let cell = bounded::spawn(Counter(counter.clone()), &address, None).await?;
    let begin = Instant::now();
    for number in 0..messages {
        address.tell(Lane::Work, 32, [number; 4]).map_err(|error| error.to_string())?;
    }
    all_counted(&counter, messages).await;
    let took = begin.elapsed();
    cell.stop(None);
    Ok(took.as_nanos() as f64 / messages as f64)
}

/// Nanoseconds a cast.
async fn raw(messages: u64) -> Result<f64, SendError> {
    let counter = Arc::new(AtomicU64::new(0));
    let (actor, _) = Raw::spawn(None, Raw(counter.clone()), ()).await?;
    let begin = Instant::now();
    for number in 0..messages {
        actor.send_message([number; 4]).map_err(|error| error.to_string())?;
    }
    all_counted(&counter, messages).await;
    let took = begin.elapsed();
    actor.stop(None);
    Ok(took.as_nanos() as f64 / messages as f64)
}

type SendError = Box<dyn std::error::Error + Send + Sync>;
