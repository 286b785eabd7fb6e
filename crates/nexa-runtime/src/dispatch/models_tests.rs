use futures::future::BoxFuture;
use nexa_event::effect::{Finish, Message, ModelReply, Purpose, Role, Sampling, Source, ToolChoice};
use nexa_ports::clock::SimClock;
use nexa_ports::model::{Chunks, LaneLimits};
use nexa_types::Tokens;
use tokio::sync::{mpsc, watch};

use super::*;

type Answerer = Box<dyn Fn(ModelCall) -> BoxFuture<'static, Result<ModelReply, ModelError>> + Send + Sync>;

struct Oracle {
    limits: LaneLimits,
    answer: Answerer,
}

impl Model for Oracle {
    fn ask<'a>(&'a self, call: ModelCall, _: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        (self.answer)(call)
    }

    fn limits(&self, _: &str) -> LaneLimits {
        self.limits
    }

    fn lane(&self, model: &str) -> String {
        model.split('/').next().unwrap_or_default().to_owned()
    }
}

struct Bell(mpsc::UnboundedSender<(AgentId, Hint)>);

impl Nudge for Bell {
    fn nudge(&self, agent: AgentId, hint: Hint) {
        let _ = self.0.send((agent, hint));
    }
}

struct Desk {
    models: Models,
    clock: Arc<SimClock>,
    nudges: mpsc::UnboundedReceiver<(AgentId, Hint)>,
    /// Calls beyond this number wait.
    allowed: Arc<watch::Sender<usize>>,
    asked: Arc<watch::Sender<Vec<CancellationToken>>>,
}

fn reply(text: &str) -> ModelReply {
    let spend = Spend { calls: 1, ..Spend::default() };
    ModelReply {
        text: text.into(),
        finish: Finish::Stop,
        model: "m".into(),
        spend,
        tokens_left_out: Tokens(0),
        tool_calls: Vec::new(),
    }
}

impl Desk {
    fn with(slots: usize, reservations_max: usize, held_results_max: usize, answer: Option<Answerer>) -> Self {
        Self::limited(LaneLimits::at_once(slots), reservations_max, held_results_max, answer)
    }

    fn limited(limits: LaneLimits, reservations_max: usize, held_results_max: usize, answer: Option<Answerer>) -> Self {
        let clock = Arc::new(SimClock::new(Timestamp(1_000)));
        let (bell, nudges) = mpsc::unbounded_channel();
        let allowed = Arc::new(watch::Sender::new(0));
        let asked = Arc::new(watch::Sender::new(Vec::new()));
        let patient: Answerer = {
            let (allowed, asked) = (allowed.clone(), asked.clone());
            Box::new(move |call| {
                let (mut allowed, asked) = (allowed.subscribe(), asked.clone());
                Box::pin(async move {
                    let mut number = 0;
                    asked.send_modify(|calls: &mut Vec<CancellationToken>| {
                        calls.push(call.cancel.clone());
                        number = calls.len();
                    });
                    tokio::select! {
                        _ = allowed.wait_for(|allowed| *allowed >= number) => Ok(reply("fine")),
                        () = call.cancel.cancelled() => Err(ModelError::new(RunCode::Cancelled, "cancelled")),
                    }
                })
            })
        };
        let models = Models::new(
            (Arc::new(Oracle { limits, answer: answer.unwrap_or(patient) }), Arc::new(nexa_ports::tool::NoTools)),
            clock.clone(),
            LiveHub::default(),
            Arc::new(Bell(bell)),
            (ModelLimits { reservations_max, held_results_max }, BTreeMap::new()),
            CancellationToken::new(),
        );
        tokio::spawn(models.clone().run());
        Self { models, clock, nudges, allowed, asked }
    }

    fn reserve(&self, n: u8, model: &str, priority: u8) -> Reserve {
        let Work::Model(mut request) = sending(n, 1).work else { panic!("a model is asked") };
        request.model = model.to_owned();
        self.models.reserve(agent(n), &TenantId::local(), &request, priority)
    }

    fn send(&self, n: u8, attempt: u32) -> bool {
        self.models.send(key(n), sending(n, attempt))
    }

    async fn asked(&self, count: usize) {
        self.asked.subscribe().wait_for(|calls| calls.len() >= count).await.unwrap();
    }
}

fn agent(n: u8) -> AgentId {
    AgentId::from_bytes([n; 16])
}

fn key(n: u8) -> EffectKey {
    EffectKey::from_bytes([n; 32])
}

fn sending(n: u8, attempt: u32) -> Sending {
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: Tokens(10), seed: None, stop: Vec::new() };
    let message = Message::new(Role::User, "hello", Source::Program);
    Sending {
        agent: agent(n),
        name: "reader".into(),
        tenant: TenantId::local(),
        workload: WorkloadId::from_bytes([1; 16]),
        seq: Seq(1),
        attempt,
        work: Work::Model(Box::new(ModelRequest {
            agent: "Reader".into(),
            purpose: Purpose::Agent,
            model: "lane/model".into(),
            messages: vec![message],
            schema: None,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            sampling,
            stream: false,
            cache: false,
            memory: None,
            timeout: Millis(60_000),
        })),
        deadline: Timestamp(61_000),
        seen: Effect::unseen(),
    }
}

#[tokio::test]
async fn slots_go_to_the_highest_priority_and_then_to_the_first_who_asked() {
    let mut desk = Desk::with(1, 10, 10, None);
    assert_eq!(desk.reserve(1, "lane/a", 0), Reserve::Granted);
    assert_eq!(desk.reserve(2, "lane/b", 0), Reserve::Waiting);
    assert_eq!(desk.reserve(3, "lane/a", 0), Reserve::Waiting);
    assert_eq!(desk.reserve(4, "lane/a", 9), Reserve::Waiting);
    assert_eq!(desk.reserve(5, "other/a", 0), Reserve::Granted, "another lane has slots of its own");
    assert!(desk.send(1, 1));
    assert!(!desk.send(2, 1), "without a slot nothing is sent");
    desk.asked(1).await;
    assert_eq!(desk.models.load(), ModelLoad { in_flight: 1, waiting: 3, held: 0, ..ModelLoad::default() });
    desk.allowed.send_replace(9);
    assert_eq!(desk.nudges.recv().await, Some((agent(1), Hint::EffectEnded)));
    for next in [4, 2, 3] {
        assert_eq!(desk.nudges.recv().await, Some((agent(next), Hint::SlotGranted)));
        assert!(desk.models.lock().holds_slot(agent(next)));
        desk.models.withdraw(agent(next));
    }
}

#[tokio::test]
async fn a_full_waiting_list_says_so() {
    let desk = Desk::with(1, 1, 10, None);
    assert_eq!(desk.reserve(1, "m", 0), Reserve::Granted);
    assert_eq!(desk.reserve(2, "m", 0), Reserve::Waiting);
    assert_eq!(desk.reserve(3, "m", 0), Reserve::Full);
    assert_eq!(desk.reserve(2, "m", 0), Reserve::Waiting, "asking again changes nothing");
    desk.models.forget(agent(2));
    assert_eq!(desk.reserve(3, "m", 0), Reserve::Waiting);
}

#[tokio::test]
async fn a_result_is_kept_until_it_is_recorded_and_holds_back_new_slots_at_the_bound() {
    let mut desk = Desk::with(1, 10, 1, None);
    desk.reserve(1, "m", 0);
    desk.send(1, 1);
    desk.allowed.send_replace(9);
    assert_eq!(desk.nudges.recv().await, Some((agent(1), Hint::EffectEnded)));
    assert!(desk.models.carries(agent(1), key(1)));
    assert!(desk.models.finished(agent(1)).is_some());
    assert!(desk.models.finished(agent(1)).is_some(), "looking does not take");
    assert_eq!(desk.reserve(2, "m", 0), Reserve::Waiting, "too many results are unrecorded");
    assert!(!desk.send(1, 1), "an attempt is sent once");
    desk.models.settle(agent(1), key(1));
    assert!(!desk.models.carries(agent(1), key(1)));
    assert_eq!(desk.nudges.recv().await, Some((agent(2), Hint::SlotGranted)));
}

#[tokio::test]
async fn an_abandoned_call_sees_its_token_cancelled_and_leaves_nothing_behind() {
    let mut desk = Desk::with(1, 10, 10, None);
    desk.reserve(1, "m", 0);
    desk.reserve(2, "m", 0);
    desk.send(1, 1);
    desk.asked(1).await;
    desk.models.abandon(agent(1), key(1));
    assert!(desk.asked.borrow()[0].is_cancelled());
    assert!(!desk.models.is_busy_for(agent(1)));
    assert_eq!(desk.nudges.recv().await, Some((agent(2), Hint::SlotGranted)), "its slot is free again");
    assert_eq!(desk.models.load(), ModelLoad { in_flight: 0, waiting: 0, held: 0, ..ModelLoad::default() });
}

#[tokio::test]
async fn a_model_that_panics_is_unavailable_and_its_slot_comes_back() {
    let mut desk = Desk::with(1, 10, 10, Some(Box::new(|_| panic!("no weights"))));
    desk.reserve(1, "m", 0);
    desk.send(1, 1);
    assert_eq!(desk.nudges.recv().await, Some((agent(1), Hint::EffectEnded)));
    let finished = desk.models.finished(agent(1)).unwrap();
    let EffectResult::Failed(failure) = &finished.result else { panic!("{finished:?}") };
    assert_eq!(failure.code, RunCode::Unavailable);
    assert!(failure.message.contains("no weights"));
    assert_eq!(desk.reserve(2, "m", 0), Reserve::Granted);
}

#[tokio::test]
async fn a_provider_that_asks_for_a_pause_holds_back_its_lane() {
    let slow_down = |_| -> BoxFuture<'static, _> {
        let error = ModelError { retry_after: Some(Millis(500)), ..ModelError::new(RunCode::RateLimited, "slow down") };
        Box::pin(async { Err(error) })
    };
    let mut desk = Desk::with(2, 10, 10, Some(Box::new(slow_down)));
    desk.reserve(1, "m", 0);
    desk.send(1, 1);
    assert_eq!(desk.nudges.recv().await, Some((agent(1), Hint::EffectEnded)));
    assert_eq!(desk.reserve(2, "m", 0), Reserve::Waiting);
    desk.clock.advance(Millis(499));
    assert_eq!(desk.reserve(3, "m", 0), Reserve::Waiting);
    desk.clock.advance(Millis(1));
    assert_eq!(desk.nudges.recv().await, Some((agent(2), Hint::SlotGranted)));
    assert_eq!(desk.nudges.recv().await, Some((agent(3), Hint::SlotGranted)));
}

#[tokio::test]
async fn a_model_that_hangs_is_given_up_at_its_deadline() {
    let mut desk = Desk::with(1, 10, 10, Some(Box::new(|_| Box::pin(std::future::pending()))));
    desk.reserve(1, "m", 0);
    desk.send(1, 1);
    while desk.nudges.is_empty() {
        desk.clock.advance(Millis(1_000));
        tokio::task::yield_now().await;
    }
    let finished = desk.models.finished(agent(1)).unwrap();
    let EffectResult::Failed(failure) = &finished.result else { panic!("{finished:?}") };
    assert_eq!(failure.code, RunCode::Timeout);
    let _ = desk.nudges.recv().await;
}

#[tokio::test]
async fn a_second_attempt_replaces_the_first_and_is_counted_as_reissued() {
    let mut desk = Desk::with(2, 10, 10, None);
    desk.reserve(1, "m", 0);
    desk.send(1, 1);
    desk.asked(1).await;
    desk.reserve(1, "m", 0);
    assert!(desk.send(1, 2));
    desk.asked(2).await;
    desk.allowed.send_replace(2);
    assert_eq!(desk.nudges.recv().await, Some((agent(1), Hint::EffectEnded)));
    while desk.models.load().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.models.finished(agent(1)).map(|finished| finished.attempt), Some(2));
    assert_eq!(desk.models.counters().reissued.load(Ordering::Relaxed), 1);
    assert_eq!(desk.models.counters().sent.load(Ordering::Relaxed), 2);
}

/// Sends a request that an earlier answer will do for, and gives what came of it.
async fn cached(desk: &mut Desk, n: u8, change: impl FnOnce(&mut Sending)) -> Finished {
    let mut sending = sending(n, 1);
    if let Work::Model(request) = &mut sending.work {
        request.cache = true;
    }
    change(&mut sending);
    assert_eq!(desk.reserve(n, "lane/model", 0), Reserve::Granted);
    assert!(desk.models.send(key(n), sending));
    assert_eq!(desk.nudges.recv().await, Some((agent(n), Hint::EffectEnded)));
    let finished = desk.models.finished(agent(n)).unwrap();
    desk.models.settle(agent(n), key(n));
    finished
}

fn asked_for(sending: &mut Sending) -> &mut ModelRequest {
    match &mut sending.work {
        Work::Model(request) => request,
        Work::Tool(_) => panic!("a model is asked"),
    }
}

#[tokio::test]
async fn the_same_request_of_the_same_tenant_gets_the_earlier_answer_for_nothing() {
    let asked = Arc::new(AtomicU64::new(0));
    let counting: Answerer = {
        let asked = asked.clone();
        Box::new(move |_| {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { Ok(reply(&format!("answer {number}"))) })
        })
    };
    let mut desk = Desk::with(1, 10, 10, Some(counting));
    let said = |finished: &Finished| match &finished.result {
        EffectResult::Done(Answer::Model(reply)) => (reply.text.clone(), reply.spend.calls, finished.spend.calls),
        other => panic!("{other:?}"),
    };
    let expected = |number: u32, calls: u64| (format!("answer {number}"), calls, calls);
    assert_eq!(said(&cached(&mut desk, 1, |_| {}).await), expected(0, 1));
    // Another agent in another workload, whose request has another time and is watched.
    let again = cached(&mut desk, 2, |sending| {
        sending.workload = WorkloadId::from_bytes([2; 16]);
        asked_for(sending).timeout = Millis(1);
        asked_for(sending).stream = true;
    });
    assert_eq!(said(&again.await), expected(0, 0));
    let other = TenantId::new("other").unwrap();
    assert_eq!(said(&cached(&mut desk, 3, |sending| sending.tenant = other).await), expected(1, 1), "another tenant");
    let warmer = cached(&mut desk, 4, |sending| asked_for(sending).sampling.temperature = 0.5).await;
    assert_eq!(said(&warmer), expected(2, 1), "another request");
    let own = cached(&mut desk, 5, |sending| asked_for(sending).cache = false).await;
    assert_eq!(said(&own), expected(3, 1), "who wants an answer of its own gets one");
    assert_eq!(said(&cached(&mut desk, 6, |_| {}).await), expected(0, 0));
    let counters = desk.models.counters();
    assert_eq!((counters.sent.load(Ordering::Relaxed), counters.reused.load(Ordering::Relaxed)), (4, 2));
    assert_eq!(desk.models.load(), ModelLoad { in_flight: 0, waiting: 0, held: 0, ..ModelLoad::default() });
}

#[tokio::test]
async fn a_failure_and_an_answer_that_was_cut_off_are_asked_for_again() {
    let asked = AtomicU64::new(0);
    let poor: Answerer = Box::new(move |_| {
        let answer = match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Err(ModelError::new(RunCode::Unavailable, "not now")),
            1 => Ok(ModelReply { finish: Finish::Length, ..reply("cut o") }),
            _ => Ok(reply("whole")),
        };
        Box::pin(async move { answer })
    });
    let mut desk = Desk::with(1, 10, 10, Some(poor));
    let mut spent = Vec::new();
    for n in 1..=4 {
        spent.push(cached(&mut desk, n, |_| {}).await.spend.calls);
    }
    assert_eq!(spent, [1, 1, 1, 0]);
}

#[tokio::test]
async fn what_a_provider_takes_in_a_minute_is_waited_for_and_not_overdrawn() {
    let limits = LaneLimits { requests_per_minute: Some(60), ..LaneLimits::at_once(10) };
    let mut desk = Desk::limited(limits, 10, 10, None);
    assert_eq!(desk.reserve(1, "m", 0), Reserve::Granted);
    for n in 2..5 {
        assert_eq!(desk.reserve(n, "m", 0), Reserve::Waiting);
    }
    for n in 2..5 {
        desk.clock.advance(Millis(999));
        assert!(desk.nudges.is_empty());
        desk.clock.advance(Millis(1));
        assert_eq!(desk.nudges.recv().await, Some((agent(n), Hint::SlotGranted)));
        assert!(desk.send(n, 1));
    }
    let counters = desk.models.counters();
    let waits = (counters.waits.load(Ordering::Relaxed), counters.waited_ms.load(Ordering::Relaxed));
    assert_eq!(waits, (3, 1_000 + 2_000 + 3_000));
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_left_alone_and_asked_again_after_a_pause() {
    let asked = Arc::new(AtomicU64::new(0));
    let away: Answerer = {
        let asked = asked.clone();
        Box::new(move |_| {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            let error = ModelError::new(RunCode::Unavailable, "connection refused");
            Box::pin(async move { if number < 5 { Err(error) } else { Ok(reply("back")) } })
        })
    };
    let mut desk = Desk::with(1, 10, 10, Some(away));
    for n in 1..=5 {
        assert_eq!(desk.reserve(n, "lane/model", 0), Reserve::Granted);
        assert!(desk.send(n, 1));
        assert_eq!(desk.nudges.recv().await, Some((agent(n), Hint::EffectEnded)));
    }
    assert_eq!(desk.models.load().breakers_open, 1);
    // Nobody has got longer than the time of the next try.
    let hasty = |n: u8| {
        let mut sending = sending(n, 1);
        asked_for(&mut sending).timeout = Millis(100);
        sending
    };
    let mut request = hasty(6);
    let reserved = desk.models.reserve(agent(6), &TenantId::local(), asked_for(&mut request), 0);
    assert_eq!(reserved, Reserve::Granted);
    assert!(desk.models.send(key(6), request));
    assert_eq!(desk.nudges.recv().await, Some((agent(6), Hint::EffectEnded)));
    let finished = desk.models.finished(agent(6)).unwrap();
    let EffectResult::Failed(failure) = &finished.result else { panic!("{finished:?}") };
    assert_eq!((failure.code, finished.spend), (RunCode::Unavailable, Spend::default()));
    assert!(failure.message.contains("circuit breaker") && failure.message.contains("fallback"), "{failure:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 5, "nothing was sent");
    assert_eq!(desk.models.counters().held_back.load(Ordering::Relaxed), 1);
    // Others wait, one of them tries, and with its answer all go.
    for n in 7..=9 {
        assert_eq!(desk.reserve(n, "lane/model", 0), Reserve::Waiting);
    }
    desk.clock.advance(Millis(1_000));
    for n in 7..=9 {
        assert_eq!(desk.nudges.recv().await, Some((agent(n), Hint::SlotGranted)));
        assert!(desk.send(n, 1));
        assert_eq!(desk.nudges.recv().await, Some((agent(n), Hint::EffectEnded)));
    }
    assert_eq!(desk.models.load().breakers_open, 0);
    assert_eq!(asked.load(Ordering::Relaxed), 8);
}

#[tokio::test]
async fn a_provider_that_only_says_too_much_is_given_a_pause() {
    let asked = AtomicU64::new(0);
    let full: Answerer = Box::new(move |_| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        let error = ModelError::new(RunCode::RateLimited, "too many requests");
        Box::pin(async move { if number == 0 { Err(error) } else { Ok(reply("fine")) } })
    });
    let mut desk = Desk::with(1, 10, 10, Some(full));
    desk.reserve(1, "lane/model", 0);
    desk.send(1, 1);
    assert_eq!(desk.nudges.recv().await, Some((agent(1), Hint::EffectEnded)));
    assert_eq!(desk.models.load().lanes_paused, 1);
    assert_eq!(desk.models.counters().rate_limited.load(Ordering::Relaxed), 1);
    assert_eq!(desk.reserve(2, "lane/model", 0), Reserve::Waiting);
    desk.clock.advance(Millis(1_000));
    assert_eq!(desk.nudges.recv().await, Some((agent(2), Hint::SlotGranted)));
    assert_eq!(desk.models.load().lanes_paused, 0);
}

#[tokio::test]
async fn tenants_take_turns_by_weight() {
    let desk = Desk::with(1, 100, 10, None);
    let (heavy, light) = (TenantId::new("heavy").unwrap(), TenantId::new("light").unwrap());
    let weights = BTreeMap::from([(heavy.clone(), 3)]);
    let (bell, mut nudges) = mpsc::unbounded_channel();
    let oracle = Oracle { limits: LaneLimits::at_once(1), answer: Box::new(|_| Box::pin(async { Ok(reply("fine")) })) };
    let models = Models::new(
        (Arc::new(oracle), Arc::new(nexa_ports::tool::NoTools)),
        desk.clock.clone(),
        LiveHub::default(),
        Arc::new(Bell(bell)),
        (ModelLimits { reservations_max: 100, held_results_max: 10 }, weights),
        CancellationToken::new(),
    );
    let Work::Model(request) = sending(0, 1).work else { panic!("a model is asked") };
    assert_eq!(models.reserve(agent(0), &light, &request, 0), Reserve::Granted);
    for n in 1..=40 {
        let tenant = if n <= 20 { &light } else { &heavy };
        assert_eq!(models.reserve(agent(n), tenant, &request, 0), Reserve::Waiting);
    }
    let mut turns = Vec::new();
    let mut next = agent(0);
    while turns.len() < 16 {
        let n = next.as_bytes()[0];
        turns.push(if (21..=40).contains(&n) { 'h' } else { 'l' });
        assert!(models.send(key(n), sending(n, 1)));
        assert_eq!(nudges.recv().await, Some((next, Hint::EffectEnded)));
        models.settle(next, key(n));
        let Some((granted, Hint::SlotGranted)) = nudges.recv().await else { panic!("the next one is nudged") };
        next = granted;
    }
    assert_eq!(turns.iter().filter(|turn| **turn == 'h').count(), 12, "{turns:?}");
}
