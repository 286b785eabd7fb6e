use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};

use super::*;

const TIGHT: Bounds = Bounds {
    control: Bound { count_max: 2, bytes_max: 100 },
    replies: Bound { count_max: 2, bytes_max: 100 },
    work: Bound { count_max: 3, bytes_max: 100 },
};

enum Note {
    Write(&'static str),
    WaitForTheGate,
    Panic,
    Read(Reply<Vec<&'static str>>),
    Ignore(Reply<()>),
}

/// Writes down what it is told; on demand it stops in the middle of a message until the gate opens.
struct Scribe {
    written: Arc<Mutex<Vec<&'static str>>>,
    at_the_gate: Arc<watch::Sender<bool>>,
    gate: Arc<Notify>,
}

impl Behaviour for Scribe {
    type Message = Note;
    type State = ();

    fn start(&self) {}

    async fn handle(&self, _: &mut (), note: Note) -> Result<Then, Fault> {
        match note {
            Note::Write(text) => self.written.lock().unwrap().push(text),
            Note::WaitForTheGate => {
                self.at_the_gate.send_replace(true);
                self.gate.notified().await;
            }
            Note::Panic => panic!("told to"),
            Note::Read(reply) => reply.send(self.written.lock().unwrap().clone()),
            Note::Ignore(reply) => drop(reply),
        }
        Ok(Then::GoOn)
    }
}

struct Desk {
    address: Address<Note>,
    written: Arc<Mutex<Vec<&'static str>>>,
    at_the_gate: Arc<watch::Sender<bool>>,
    gate: Arc<Notify>,
}

impl Desk {
    fn new() -> Self {
        Self {
            address: Address::new(TIGHT),
            written: Arc::default(),
            at_the_gate: Arc::new(watch::Sender::new(false)),
            gate: Arc::default(),
        }
    }

    async fn start(&self) -> ActorCell {
        let scribe =
            Scribe { written: self.written.clone(), at_the_gate: self.at_the_gate.clone(), gate: self.gate.clone() };
        spawn(scribe, &self.address, None).await.unwrap()
    }

    async fn reaches_the_gate(&self) {
        self.at_the_gate.subscribe().wait_for(|there| *there).await.unwrap();
    }

    async fn read(&self) -> Vec<&'static str> {
        self.address.ask(Lane::Replies, 0, Duration::from_secs(5), Note::Read).await.unwrap()
    }
}

#[tokio::test]
async fn control_goes_before_replies_and_replies_before_work() {
    let desk = Desk::new();
    desk.address.tell(Lane::Work, 1, Note::Write("work 1")).unwrap();
    desk.address.tell(Lane::Work, 1, Note::Write("work 2")).unwrap();
    desk.address.tell(Lane::Replies, 1, Note::Write("reply")).unwrap();
    desk.address.tell(Lane::Control, 1, Note::Write("control")).unwrap();
    desk.start().await;
    let answer = desk.address.ask(Lane::Work, 0, Duration::from_secs(5), Note::Read).await.unwrap();
    assert_eq!(answer, ["control", "reply", "work 1", "work 2"]);
}

#[tokio::test]
async fn a_full_lane_refuses_by_count_and_by_bytes_and_other_lanes_go_on() {
    let desk = Desk::new();
    for _ in 0..TIGHT.work.count_max {
        desk.address.tell(Lane::Work, 1, Note::Write("kept")).unwrap();
    }
    let refused = desk.address.tell(Lane::Work, 1, Note::Write("refused")).unwrap_err();
    assert_eq!((refused.count, refused.bytes), (3, 3));
    desk.address.tell(Lane::Replies, 100, Note::Write("large")).unwrap();
    assert!(desk.address.tell(Lane::Replies, 1, Note::Write("refused")).is_err());
    desk.address.tell(Lane::Control, 1, Note::Write("control")).unwrap();
    desk.start().await;
    assert_eq!(desk.address.ask(Lane::Control, 0, Duration::from_secs(5), Note::Read).await.unwrap(), ["control"]);
    while !desk.address.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.read().await, ["control", "large", "kept", "kept", "kept"]);
}

#[tokio::test]
async fn a_permit_comes_back_when_the_message_is_handled_and_not_before() {
    let desk = Desk::new();
    desk.start().await;
    desk.address.tell(Lane::Work, 100, Note::WaitForTheGate).unwrap();
    desk.reaches_the_gate().await;
    assert!(desk.address.is_empty(), "the message has left its lane");
    assert!(desk.address.tell(Lane::Work, 1, Note::Write("refused")).is_err(), "but it is still being handled");
    desk.gate.notify_one();
    while desk.address.tell(Lane::Work, 1, Note::Write("accepted")).is_err() {
        tokio::task::yield_now().await;
    }
    while desk.read().await != ["accepted"] {}
}

#[tokio::test]
async fn a_panic_gives_its_permit_back_and_the_next_incarnation_finds_the_rest() {
    let desk = Desk::new();
    desk.address.tell(Lane::Work, 60, Note::Panic).unwrap();
    desk.address.tell(Lane::Work, 40, Note::Write("after the panic")).unwrap();
    let cell = desk.start().await;
    cell.wait(None).await.unwrap();
    desk.address.tell(Lane::Work, 60, Note::Write("while nobody was there")).unwrap();
    desk.start().await;
    while desk.read().await != ["after the panic", "while nobody was there"] {}
}

#[tokio::test]
async fn nobody_wakes_an_actor_twice_for_one_burst() {
    let desk = Desk::new();
    desk.start().await;
    for _ in 0..1_000 {
        while desk.address.tell(Lane::Work, 0, Note::Write("x")).is_err() {
            tokio::task::yield_now().await;
        }
    }
    while desk.read().await.len() < 1_000 {}
    let mailbox = desk.address.lock();
    assert!(!mailbox.wake_sent && mailbox.is_empty());
    assert_eq!(mailbox.admitted[Lane::Work as usize], (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_question_has_a_deadline_and_is_not_handled_after_it() {
    let desk = Desk::new();
    let seen = Arc::new(AtomicBool::new(false));
    let late = desk.address.ask(Lane::Work, 0, Duration::from_millis(50), Note::Read).await;
    assert_eq!(late, Err(AskError::DeadlinePassed { millis: 50 }));
    let forgotten = desk.address.ask(Lane::Work, 0, Duration::from_millis(50), |reply| {
        seen.store(true, Ordering::Relaxed);
        Note::Ignore(reply)
    });
    assert!(forgotten.await.is_err());
    assert!(seen.load(Ordering::Relaxed));
    desk.start().await;
    assert_eq!(desk.read().await, Vec::<&str>::new());
    assert!(desk.address.is_empty(), "both expired questions were thrown away");
    let ignored = desk.address.ask(Lane::Work, 0, Duration::from_secs(1), Note::Ignore).await;
    assert_eq!(ignored, Err(AskError::NoAnswer));
}
