//! Two nodes in one process, joined over loopback with TLS on both sides; beside them bare tonic with the same TLS.
//!
//! - `oneway_msgs_per_s`: messages of 256 bytes, told on one lane, numbered, bounded, counted by the handler.
//! - `tonic_stream_msgs_per_s`: the same bodies in batches of 64 KiB on one stream, and nothing else.
//!   `oneway_vs_stream`: the one by the other.
//! - `ask_p50_us`, `ask_p99_us`: questions and answers of 256 bytes, 10,000 a second whether or not earlier ones have been
//!   answered; from handing one over until its answer is there. `tonic_unary_p50_us`, `tonic_unary_p99_us`: calls at that
//!   rate. `ask_vs_unary`: the medians, one by the other. `*_alone_p50_us`: one after the other, at rest.
//! - `tonic_unary_rps`, `asks_per_s`: 64 at a time, without a pause.
//!
//! Each node has one thread for data and one for control, and each side of bare tonic has one thread. Whoever tells and
//! asks has a thread beside those of its node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use nexa_cluster::certs::Authority;
use nexa_cluster::link::{LinkConfig, TonicPeers};
use nexa_cluster::peers::{Class, Handler, NotSent, Peers, Refusal, Service};
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::SystemDice;
use nexa_types::{Generation, NodeId};
use tokio::runtime::{Builder, Handle};

use super::Scale;
use super::bare::{Bare, Bodies};
use crate::measure::{Error, Figures, Subject};

const BODY_BYTES: usize = 256;
/// Bodies of one batch of the bare stream: 64 KiB.
const BATCH: u64 = 256;
/// Questions a second.
const RATE: u64 = 10_000;
/// Questions at a time where they come without a pause.
const AT_ONCE: u64 = 64;
const WITHIN: Duration = Duration::from_secs(30);
/// How long a ring may be full before the run ends. Reports of what was heard, which make room, come within milliseconds.
const FULL_MAX: Duration = Duration::from_secs(10);

/// Counts and echoes.
#[derive(Default)]
struct Ear(AtomicU64);

impl Handler for Ear {
    fn told(&self, _: &NodeId, _: Generation, _: Service, body: Bytes) {
        self.0.fetch_add(u64::from(!body.is_empty()), Ordering::Relaxed);
    }

    fn asked(&self, _: &NodeId, _: Generation, _: Service, body: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(futures::future::ready(Ok(body)))
    }
}

/// Measures it.
pub(crate) fn run(scale: Scale, figures: &mut Figures) -> Result<(), Error> {
    let clock = Arc::new(SystemClock::default());
    let authority = Authority::throwaway(clock.now())?;
    let ears = [Arc::new(Ear::default()), Arc::new(Ear::default())];
    let names = [NodeId::new("a")?, NodeId::new("b")?];
    let node = |at: usize| -> Result<Arc<TonicPeers>, Error> {
        let config = LinkConfig {
            cluster: "bench".into(),
            node: names[at].clone(),
            identity: authority.issue(&names[at], &[], clock.now(), 1)?,
            listen: ([127, 0, 0, 1], 0).into(),
            threads: 1,
            clock: clock.clone(),
            dice: Arc::new(SystemDice),
            on_undelivered: None,
        };
        Ok(Arc::new(TonicPeers::start(config, &ears[at])?))
    };
    let (a, b) = (node(0)?, node(1)?);
    let members = [
        (names[0].clone(), Generation(1), a.local_addr().to_string()),
        (names[1].clone(), Generation(1), b.local_addr().to_string()),
    ];
    a.meet(&members);
    b.meet(&members);
    let asker = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut links = a.links();
    asker.block_on(links.wait_for(|links| links.get(&names[1]).is_some_and(|state| state.is_up)))?;
    let bare = Arc::new(Bare::start("b", &authority.issue(&names[1], &[], clock.now(), 1)?)?);
    let body = Bytes::from(vec![7; BODY_BYTES]);

    let ask = {
        let (a, to, body) = (a.clone(), names[1].clone(), body.clone());
        move || {
            let (a, to, body) = (a.clone(), to.clone(), body.clone());
            async move { a.ask(&to, Class::Work, Service::Queries, body, WITHIN).await.is_ok() }
        }
    };
    let call = {
        let (bare, body) = (bare.clone(), body.clone());
        move || {
            let answered = bare.call(body.clone());
            async move { answered.await.is_ok() }
        }
    };
    let subjects = vec![
        Subject::new("oneway_msgs_per_s", || told(&a, &names[1], &ears[1], &body, scale.messages)),
        Subject::new("tonic_stream_msgs_per_s", || streamed(&bare, &body, scale.messages)),
        Subject::new("asks_per_s", || at_once(asker.handle(), &ask, scale.calls)),
        Subject::new("tonic_unary_rps", || at_once(bare.client.handle(), &call, scale.calls)),
        Subject::new("ask_alone_p50_us", || alone(asker.handle(), &ask, scale.asks / 10)),
        Subject::new("tonic_unary_alone_p50_us", || alone(bare.client.handle(), &call, scale.asks / 10)),
    ];
    figures.measure(scale.rounds, subjects)?;

    let mut taken: [Vec<f64>; 4] = Default::default();
    for _ in 0..scale.rounds {
        let [p50, p99] = at_rate(asker.handle(), &ask, scale.asks)?;
        taken[0].push(p50);
        taken[1].push(p99);
        let [p50, p99] = at_rate(bare.client.handle(), &call, scale.asks)?;
        taken[2].push(p50);
        taken[3].push(p99);
    }
    for (key, taken) in ["ask_p50_us", "ask_p99_us", "tonic_unary_p50_us", "tonic_unary_p99_us"].into_iter().zip(taken)
    {
        figures.spread(key, taken);
    }
    for (key, ours, theirs) in [
        ("oneway_vs_stream", "oneway_msgs_per_s", "tonic_stream_msgs_per_s"),
        ("ask_vs_unary", "ask_p50_us", "tonic_unary_p50_us"),
        ("ask_vs_unary_alone", "ask_alone_p50_us", "tonic_unary_alone_p50_us"),
    ] {
        figures.count(key, figures.of(ours) / figures.of(theirs).max(f64::MIN_POSITIVE));
    }
    Ok(())
}

/// Tells so many, as fast as they are taken, until all were heard. Gives messages a second.
fn told(a: &TonicPeers, to: &NodeId, ear: &Ear, body: &Bytes, count: u64) -> Result<f64, Error> {
    let before = ear.0.load(Ordering::Relaxed);
    let start = Instant::now();
    for _ in 0..count {
        let mut full_since = None;
        loop {
            match a.tell(to, Class::Work, Service::Hints, body.clone()) {
                Ok(()) => break,
                // The ring is full: room comes with the next report.
                Err(NotSent::Full) if full_since.get_or_insert_with(Instant::now).elapsed() < FULL_MAX => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(other) => return Err(other.into()),
            }
        }
    }
    wait_for(&ear.0, before + count)?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn streamed(bare: &Bare, body: &Bytes, count: u64) -> Result<f64, Error> {
    let before = bare.heard.load(Ordering::Relaxed);
    let batches = count.div_ceil(BATCH);
    let body = body.clone();
    let stream = tokio_stream::iter((0..batches).map(move |at| {
        let len = BATCH.min(count - at * BATCH);
        Bodies { bodies: (0..len).map(|_| body.clone()).collect() }
    }));
    let start = Instant::now();
    bare.stream(stream)?;
    wait_for(&bare.heard, before + count)?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn wait_for(heard: &AtomicU64, count: u64) -> Result<(), Error> {
    let start = Instant::now();
    while heard.load(Ordering::Relaxed) < count {
        if start.elapsed() > WITHIN {
            return Err(format!("{} of {count} messages were heard", heard.load(Ordering::Relaxed)).into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// So many, a fixed number of them at a time. Gives answers a second.
fn at_once<F>(on: &Handle, ask: &(impl Fn() -> F + Clone + Send + Sync + 'static), count: u64) -> Result<f64, Error>
where
    F: Future<Output = bool> + Send,
{
    let start = Instant::now();
    let askers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let ask = ask.clone();
            on.spawn(async move {
                let mut good = 0;
                for _ in 0..count / AT_ONCE {
                    good += u64::from(ask().await);
                }
                good
            })
        })
        .collect();
    let mut good = 0;
    for asker in askers {
        good += on.block_on(asker)?;
    }
    all_answered(good, count / AT_ONCE * AT_ONCE)?;
    Ok(good as f64 / start.elapsed().as_secs_f64())
}

/// One after the other. Gives the median in microseconds.
fn alone<F>(on: &Handle, ask: &(impl Fn() -> F + Clone + Send + Sync + 'static), count: u64) -> Result<f64, Error>
where
    F: Future<Output = bool> + Send,
{
    let ask = ask.clone();
    let taken = on.block_on(on.spawn(async move {
        let mut taken = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            if ask().await {
                taken.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        taken
    }))?;
    all_answered(taken.len() as u64, count)?;
    let [p50, _] = percentiles(taken);
    Ok(p50)
}

/// At [`RATE`], whether or not earlier ones are answered. Gives the median and the 99th percentile in microseconds.
fn at_rate<F>(
    on: &Handle,
    ask: &(impl Fn() -> F + Clone + Send + Sync + 'static),
    count: u64,
) -> Result<[f64; 2], Error>
where
    F: Future<Output = bool> + Send,
{
    let start = Instant::now();
    let mut asked = Vec::with_capacity(count as usize);
    while (asked.len() as u64) < count {
        let due = (start.elapsed().as_nanos() as u64 * RATE / 1_000_000_000).min(count);
        while (asked.len() as u64) < due {
            let ask = ask.clone();
            asked.push(on.spawn(async move {
                let start = Instant::now();
                ask().await.then(|| start.elapsed().as_secs_f64() * 1e6)
            }));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    let mut taken = Vec::with_capacity(asked.len());
    for answer in asked {
        taken.extend(on.block_on(answer)?);
    }
    all_answered(taken.len() as u64, count)?;
    Ok(percentiles(taken))
}

fn all_answered(good: u64, count: u64) -> Result<(), Error> {
    if good == count { Ok(()) } else { Err(format!("{good} of {count} were answered").into()) }
}

fn percentiles(mut taken: Vec<f64>) -> [f64; 2] {
    taken.sort_by(f64::total_cmp);
    let at = |part: f64| taken.get((taken.len() as f64 * part) as usize).copied().unwrap_or_default();
    [at(0.5), at(0.99)]
}
