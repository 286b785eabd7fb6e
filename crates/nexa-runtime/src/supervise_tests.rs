use std::sync::Mutex;

use nexa_ports::clock::{SimClock, SystemClock};
use nexa_ports::dice::SeededDice;
use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::bounded::{Address, Behaviour, Bounds, Lane, Then, spawn};

#[test]
fn a_pause_doubles_up_to_its_bound_and_jitters_by_a_fifth() {
    let policy = RestartPolicy::SERVICE;
    let middle = |n| policy.pause(n, policy.backoff_first.0).0;
    assert!((40..=60).contains(&middle(1)));
    for n in 1..200 {
        let expected = (50u64 << (n - 1).min(20)).min(5_000) as usize;
        for roll in 0..50 {
            let pause = policy.pause(n, roll * 7_919).0 as usize;
            assert!(pause * 10 >= expected * 8 && pause * 10 <= expected * 12, "restart {n}: {pause} of {expected}");
        }
    }
}

proptest! {
    #[test]
    fn a_window_gives_up_exactly_when_too_many_failures_lie_in_it(gaps in prop::collection::vec(0u64..30_000, 1..40)) {
        let policy = RestartPolicy::SERVICE;
        let mut window = RestartWindow::new(policy);
        let mut failures: Vec<u64> = Vec::new();
        let mut now = 0;
        for gap in gaps {
            now += gap;
            failures.push(now);
            let recent = failures.iter().filter(|at| now - **at <= policy.window.0).count();
            prop_assert_eq!(window.failed(Timestamp(now), 1).is_some(), recent <= policy.restarts_max);
        }
    }
}

enum Blow {
    Panic,
    Fail,
}

struct Glass;

impl Behaviour for Glass {
    type Message = Blow;
    type State = ();

    fn start(&self) {}

    async fn handle(&self, _: &mut (), blow: Blow) -> Result<Then, crate::bounded::Fault> {
        match blow {
            Blow::Panic => panic!("broken"),
            Blow::Fail => Err(Failed("cracked".into()).into()),
        }
    }
}

#[derive(Clone)]
struct GlassChild {
    address: Address<Blow>,
    starts: Arc<watch::Sender<usize>>,
    given_up: Arc<watch::Sender<Option<String>>>,
}

impl GlassChild {
    fn new() -> Self {
        Self {
            address: Address::new(Bounds::default()),
            starts: Arc::new(watch::Sender::new(0)),
            given_up: Arc::new(watch::Sender::new(None)),
        }
    }

    async fn started(&self, times: usize) {
        self.starts.subscribe().wait_for(|starts| *starts >= times).await.unwrap();
    }
}

impl Child for GlassChild {
    fn spawn(&mut self, supervisor: ActorCell) -> BoxFuture<'_, Result<ActorCell, SpawnErr>> {
        self.starts.send_modify(|starts| *starts += 1);
        Box::pin(spawn(Glass, &self.address, Some(supervisor)))
    }

    fn give_up(&mut self, reason: String) -> BoxFuture<'static, ()> {
        self.given_up.send_replace(Some(reason));
        Box::pin(async {})
    }

    fn is_wanted(&self) -> bool {
        true
    }
}

async fn supervised(child: &GlassChild, clock: Arc<dyn Clock>) -> (Supervisor, Arc<SuperviseCounters>) {
    let counters = Arc::new(SuperviseCounters::default());
    let supervisor = Supervisor::start(clock, Arc::new(SeededDice::new(1)), counters.clone()).await.unwrap();
    supervisor.adopt(Box::new(child.clone()));
    (supervisor, counters)
}

#[tokio::test]
async fn a_panic_restarts_once_and_the_second_gives_up() {
    let child = GlassChild::new();
    let (_supervisor, counters) = supervised(&child, Arc::new(SystemClock::default())).await;
    child.address.tell(Lane::Work, 0, Blow::Panic).unwrap();
    child.started(2).await;
    child.address.tell(Lane::Work, 0, Blow::Panic).unwrap();
    let mut given_up = child.given_up.subscribe();
    let reason = given_up.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(reason.as_deref(), Some("broken"));
    assert_eq!(counters.panics.load(Ordering::Relaxed), 2);
    assert_eq!(counters.restarts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_fault_restarts_five_times_and_waits_longer_each_time() {
    let child = GlassChild::new();
    let clock = Arc::new(SimClock::new(Timestamp(0)));
    let (_supervisor, counters) = supervised(&child, clock.clone()).await;
    for _ in 0..6 {
        child.address.tell(Lane::Work, 0, Blow::Fail).unwrap();
    }
    let mut given_up = child.given_up.subscribe();
    while given_up.borrow_and_update().is_none() {
        clock.advance(Millis(10));
        tokio::task::yield_now().await;
    }
    assert_eq!(*child.starts.borrow(), 6);
    assert_eq!(counters.faults.load(Ordering::Relaxed), 6);
    assert_eq!(counters.restarts.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn a_stopped_supervisor_takes_its_children_along() {
    let child = GlassChild::new();
    let (supervisor, _) = supervised(&child, Arc::new(SystemClock::default())).await;
    child.started(1).await;
    supervisor.stop();
    supervisor.actor.get_cell().wait(None).await.unwrap();
    assert!(supervisor.actor.get_cell().get_children().is_empty());
}

#[tokio::test]
async fn a_service_that_keeps_panicking_escalates() {
    let clock = Arc::new(SimClock::new(Timestamp(0)));
    let runs = Arc::new(Mutex::new(0));
    let escalate = CancellationToken::new();
    let counters = Arc::new(SuperviseCounters::default());
    let service = {
        let runs = runs.clone();
        move || {
            *runs.lock().unwrap() += 1;
            async { panic!("no luck") }
        }
    };
    let ports: (Arc<dyn Clock>, Arc<dyn Dice>) = (clock.clone(), Arc::new(SeededDice::new(1)));
    tokio::spawn(keep_running("unlucky", ports, counters, CancellationToken::new(), escalate.clone(), service));
    while !escalate.is_cancelled() {
        clock.advance(Millis(10));
        tokio::task::yield_now().await;
    }
    assert_eq!(*runs.lock().unwrap(), 6);
}
