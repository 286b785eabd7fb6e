use nexa_event::effect::{Finish, Heard};
use nexa_types::{Failure, Outcome, Payload, RunCode, Spend, Tokens};
use proptest::bool::weighted;
use proptest::prelude::*;

use super::*;

const SIZE: u32 = 4;

/// A log of agents that hear and answer.
#[derive(Default)]
struct Log {
    /// Without an event: the agent is forgotten up to there.
    facts: Vec<(AgentId, Version, Option<AgentEvent>)>,
    said: BTreeMap<AgentId, (u64, u32)>,
}

fn agent(number: u8) -> AgentId {
    AgentId::from_bytes([number; 16])
}

impl Log {
    fn push(&mut self, agent: AgentId, event: AgentEvent) {
        let version = &mut self.said.entry(agent).or_default().0;
        *version += 1;
        self.facts.push((agent, Version(*version), Some(event)));
    }

    /// All that an agent has said so far.
    fn forget(&mut self, who: u8) {
        let version = self.said.get(&agent(who)).map_or(0, |said| said.0);
        self.facts.push((agent(who), Version(version), None));
    }

    /// A request that heard so many messages, and its answer, if one came.
    fn turn(&mut self, who: u8, heard: usize, answer: Option<&str>) {
        let who = agent(who);
        let before = self.said.get(&who).map_or(0, |said| said.1);
        let text = |nth: usize| format!("heard {} of {who}", before as usize + nth);
        let heard: Vec<Heard> = (0..heard).map(|nth| Heard { role: Role::User, text: text(nth) }).collect();
        let count = heard.len() as u32 + 1;
        let (scope, name) = (ConversationScope::Workload, "Guide".to_owned());
        let conversation = Some(Conversation { scope, name, page_size: SIZE, heard, sent: None, before });
        let intent =
            Intent::Model { model: String::new(), sources: Vec::new(), reserved: Spend::default(), conversation };
        let seq = Seq(u64::from(before) + 1);
        self.push(who, AgentEvent::EffectIntended { seq, intent, fingerprint: [0; 32] });
        let result = match answer {
            Some(text) => EffectResult::Done(Answer::Model(ModelReply {
                text: text.to_owned(),
                finish: Finish::Stop,
                model: String::new(),
                spend: Spend::default(),
                tokens_left_out: Tokens(0),
                tool_calls: Vec::new(),
            })),
            None => EffectResult::Failed(Failure::new(RunCode::Timeout, "late")),
        };
        self.push(who, AgentEvent::EffectEnded { seq, result, spend: Spend::default() });
        self.said.entry(who).or_default().1 += count;
    }

    fn end(&mut self, who: u8) {
        let (outcome, spend) = (Outcome::Ok(Payload::new(vec![0xf6])), Spend::default());
        self.push(agent(who), AgentEvent::Ended { outcome, spend });
    }

    /// Has a writer read from behind a position up to another.
    fn read(&self, writer: &mut PageWriter, after: usize, upto: usize) -> Vec<SealedPage> {
        let tenant = TenantId::new("t").unwrap();
        let mut sealed = Vec::new();
        for (place, (agent, version, event)) in self.facts.iter().enumerate().take(upto).skip(after) {
            let Some(event) = event else {
                writer.forget(*agent, *version);
                continue;
            };
            sealed.extend(writer.take(&Told {
                position: GlobalSeq(place as u64 + 1),
                tenant: &tenant,
                workload: WorkloadId::from_bytes([9; 16]),
                agent: *agent,
                version: *version,
                at: Timestamp(place as u64),
                event,
            }));
        }
        sealed
    }

    fn pages(&self) -> Vec<Vec<String>> {
        let sealed = self.read(&mut PageWriter::default(), 0, self.facts.len());
        sealed.iter().map(|page| page.page.messages.iter().map(|it| it.text.clone()).collect()).collect()
    }
}

#[test]
fn messages_are_cut_into_pages_and_the_end_ends_the_last_one() {
    let mut log = Log::default();
    for nth in 0..3 {
        log.turn(1, 1, Some(&format!("answer {nth}")));
    }
    let who = agent(1);
    let first = [format!("heard 0 of {who}"), "answer 0".into(), format!("heard 2 of {who}"), "answer 1".into()];
    assert_eq!(log.pages(), [first.to_vec()], "what is open is no page");
    log.end(1);
    assert_eq!(log.pages().len(), 2);
    assert_eq!(log.pages()[1], [format!("heard 4 of {who}"), "answer 2".into()]);
}

#[test]
fn an_answer_that_never_came_leaves_its_place_empty() {
    let mut log = Log::default();
    log.turn(1, 3, None);
    assert_eq!(log.pages()[0].len(), 3, "the page is full without it");
    log.turn(1, 1, Some("yes"));
    log.end(1);
    assert_eq!(log.pages().iter().map(Vec::len).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn agents_do_not_share_pages_and_a_message_knows_its_fact() {
    let mut log = Log::default();
    (0..4).for_each(|nth| log.turn(1 + nth % 2, 1, Some("so")));
    let sealed = log.read(&mut PageWriter::default(), 0, log.facts.len());
    assert_eq!(sealed.iter().map(|page| page.agent).collect::<Vec<_>>(), [agent(1), agent(2)]);
    let last = &sealed[0].page.messages[3];
    assert_eq!(PlaceInLog::of(last.seq), PlaceInLog { version: Version(4), number: 0 });
    assert_eq!((last.role, last.speaker.as_str()), (Role::Assistant, "Guide"));
    assert_eq!(sealed[0].position, GlobalSeq(6));
}

#[test]
fn a_text_beyond_its_share_of_a_page_is_cut_between_letters() {
    let mut log = Log::default();
    log.turn(1, 0, Some(&"é".repeat(PAGE_TEXT_BYTES_MAX)));
    log.end(1);
    let room = PAGE_TEXT_BYTES_MAX / SIZE as usize;
    assert!((room - 1..=room).contains(&log.pages()[0][0].len()));
}

#[test]
fn what_is_forgotten_is_in_no_page_that_ends_later_and_what_is_said_then_is() {
    let mut log = Log::default();
    log.turn(1, 1, Some("the code is 4711"));
    log.turn(2, 1, Some("the code is 42"));
    log.forget(1);
    log.turn(1, 1, Some("which code"));
    log.turn(2, 1, Some("so"));
    log.forget(1);
    log.end(1);
    let who = agent(1);
    assert_eq!(log.pages()[0], [format!("heard 2 of {who}"), "which code".into()]);
    assert_eq!(
        (log.pages().len(), log.pages()[1].len()),
        (2, 4),
        "what ended before is a page, which others leave out"
    );
}

#[test]
fn a_page_that_was_forgotten_in_part_is_made_by_whoever_begins_again() {
    let mut log = Log::default();
    log.turn(1, 1, Some("the code is 4711"));
    log.forget(1);
    log.turn(1, 0, Some("which code"));
    log.turn(1, 2, Some("so"));
    log.end(1);
    for cut in 0..log.facts.len() {
        let [both, whole] = restarted(&log, cut);
        assert_eq!(both, whole, "from {cut}");
    }
}

/// What whoever begins again where it is held, `cut` facts behind the beginning, has in all; and what one has who reads on.
fn restarted(log: &Log, cut: usize) -> [std::collections::BTreeSet<nexa_types::PageId>; 2] {
    let mut first = PageWriter::default();
    let before = log.read(&mut first, 0, cut);
    let held = first.held(|_| true).map_or(cut, |held| held.0 as usize);
    let after = log.read(&mut PageWriter::default(), held, log.facts.len());
    let whole = log.read(&mut PageWriter::default(), 0, log.facts.len());
    [before.iter().chain(&after).map(|page| page.page.id).collect(), whole.iter().map(|page| page.page.id).collect()]
}

/// It was left out: nothing was held for a page of which only an empty place had been read.
#[test]
fn a_page_that_begins_with_an_answer_that_never_came_is_made_by_whoever_begins_behind_it() {
    let mut log = Log::default();
    log.turn(1, 4, None);
    log.turn(1, 3, Some("so"));
    log.turn(1, 2, Some("so"));
    log.end(1);
    for cut in 0..log.facts.len() {
        let [both, whole] = restarted(&log, cut);
        assert_eq!(both, whole, "from {cut}");
    }
}

/// The same with an answer that came: its page begins with it, and the question stands before it in the log.
#[test]
fn a_page_that_begins_with_an_answer_is_made_by_whoever_begins_behind_the_question() {
    let mut log = Log::default();
    (0..4).for_each(|_| log.turn(1, 4, Some("so")));
    log.end(1);
    for cut in 0..log.facts.len() {
        let [both, whole] = restarted(&log, cut);
        assert_eq!(both, whole, "from {cut}");
    }
}

proptest! {
    /// CP-6: whoever begins again where it is held makes the pages that are new since then, and no others.
    #[test]
    fn a_restart_makes_the_same_pages(
        turns in proptest::collection::vec((1u8..4, 0usize..6, weighted(0.8), weighted(0.1), weighted(0.1)), 1..40),
        cut in 0usize..80,
    ) {
        let mut log = Log::default();
        let mut ended = std::collections::BTreeSet::new();
        for (who, heard, is_answered, ends, forgets) in turns {
            if forgets {
                log.forget(who);
            }
            if !ended.contains(&who) {
                log.turn(who, heard, is_answered.then_some("so"));
                if ends {
                    log.end(who);
                    ended.insert(who);
                }
            }
        }
        let [both, whole] = restarted(&log, cut.min(log.facts.len()));
        prop_assert_eq!(both, whole);
    }
}
