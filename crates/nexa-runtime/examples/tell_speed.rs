//! What bounded admission costs: a tell through it against a raw ractor cast, both to one actor that only counts.
//!
//! `cargo run --release -p nexa-runtime --example tell_speed`
//!
//! Runs both in turn, several times, and prints the medians and their ratio.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nexa_runtime::bounded::{self, Address, Behaviour, Bound, Bounds, Fault, Lane, Then};
use ractor::{Actor, ActorProcessingErr, ActorRef};

const MESSAGES: u64 = 1_000_000;
const ROUNDS: usize = 9;

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

async fn all_counted(counter: &AtomicU64) {
    while counter.load(Ordering::Relaxed) < MESSAGES {
        tokio::task::yield_now().await;
    }
}

async fn bounded_round() -> f64 {
    let counter = Arc::new(AtomicU64::new(0));
    let wide = Bound { count_max: MESSAGES as usize, bytes_max: 32 * MESSAGES as usize };
    let address = Address::new(Bounds { control: wide, replies: wide, work: wide });
    let cell = bounded::spawn(Counter(counter.clone()), &address, None).await.expect("an actor starts");
    let begin = Instant::now();
    for number in 0..MESSAGES {
        address.tell(Lane::Work, 32, [number; 4]).expect("the lane is wide enough");
    }
    all_counted(&counter).await;
    let took = begin.elapsed();
    cell.stop(None);
    took.as_nanos() as f64 / MESSAGES as f64
}

async fn raw_round() -> f64 {
    let counter = Arc::new(AtomicU64::new(0));
    let (actor, _) = Raw::spawn(None, Raw(counter.clone()), ()).await.expect("an actor starts");
    let begin = Instant::now();
    for number in 0..MESSAGES {
        actor.send_message([number; 4]).expect("the actor runs");
    }
    all_counted(&counter).await;
    let took = begin.elapsed();
    actor.stop(None);
    took.as_nanos() as f64 / MESSAGES as f64
}

#[tokio::main]
async fn main() {
    let (mut bounded, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(tokio::spawn(raw_round()).await.expect("no panic"));
        bounded.push(tokio::spawn(bounded_round()).await.expect("no panic"));
    }
    bounded.sort_by(f64::total_cmp);
    raw.sort_by(f64::total_cmp);
    let (bounded, raw) = (bounded[ROUNDS / 2], raw[ROUNDS / 2]);
    println!("bounded tell {bounded:.0} ns, raw cast {raw:.0} ns, ratio {:.2}", bounded / raw);
}
