//! The ledger beside what was counted outside: P3, AG-1, and that an effect ends once (P5).

use std::collections::BTreeMap;

use nexa_types::EffectKey;

use crate::logged::Kind;
use crate::{End, Logged, Sink, Violation, What};

/// What was counted while checking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Outside effects of any kind that were sent.
    pub sent: u64,
    /// Calls of tools among them.
    pub tools: u64,
    /// Requests to models among them.
    pub models: u64,
    /// Effects of which nobody knows how they ended.
    pub unknown: u64,
    /// Attempts after the first one, of models.
    pub reissued: u64,
    /// Of tools, which say that twice is as good as once.
    pub repeated: u64,
}

#[derive(Default)]
struct Entry {
    kind: Option<Kind>,
    attempts: u32,
    end: Option<End>,
}

/// Checks the effects of a log. `sink` has those of tools, of which `may_repeat` says by their words whether twice is as good
/// as once; `sent` says how often a model was asked under a key, and is `None` where nobody has counted that.
pub fn check(
    log: &[Logged],
    sink: &Sink,
    may_repeat: impl Fn(&str) -> bool,
    sent: Option<&dyn Fn(EffectKey) -> u32>,
) -> (Counts, Vec<Violation>) {
    let (mut effects, mut found): (BTreeMap<EffectKey, Entry>, _) = (BTreeMap::new(), Vec::new());
    for Logged { what, stream, .. } in log {
        match what {
            What::Intended(key, kind) => effects.entry(*key).or_default().kind = Some(*kind),
            What::Started(key, attempt) => {
                let entry = effects.entry(*key).or_default();
                if *attempt <= entry.attempts {
                    let last = entry.attempts;
                    let text = format!("{stream} has started attempt {attempt} of {key} after attempt {last}");
                    found.push(Violation::new("AG-1", text));
                }
                entry.attempts = *attempt;
            }
            What::EffectEnded(key, end) => {
                let before = effects.entry(*key).or_default().end.replace(*end);
                if before.is_some() {
                    found.push(Violation::new("P5", format!("{key} of {stream} ended twice")));
                }
            }
            _ => {}
        }
    }
    let mut counts = Counts::default();
    for (key, Entry { kind, attempts, end }) in &effects {
        counts.unknown += u64::from(*end == Some(End::Unknown));
        if *attempts == 0 {
            continue;
        }
        let again = u64::from(attempts - 1);
        counts.sent += 1;
        match kind {
            Some(Kind::Model) => {
                (counts.models, counts.reissued) = (counts.models + 1, counts.reissued + again);
                if let Some(sent) = sent {
                    model(*key, sent(*key), *attempts, *end, &mut found);
                }
            }
            Some(Kind::Tool) => (counts.tools, counts.repeated) = (counts.tools + 1, counts.repeated + again),
            Some(Kind::Other) | None => {}
        }
    }
    for (key, done) in sink {
        let (what, times) = (&done.what, done.times);
        let Some(Entry { attempts, end, .. }) = effects.get(key).filter(|entry| entry.attempts > 0) else {
            found.push(Violation::new("P3", format!("{key} ({what}) was done, and its start was never recorded")));
            continue;
        };
        // One that may be called again is done as often as is recorded.
        if times > u64::from(*attempts) || (times > 1 && !may_repeat(what)) {
            let text = format!("{key} ({what}) was done {times} times, and sent {attempts} times");
            found.push(Violation::new("P3", text));
        }
        if *end == Some(End::Failed) {
            found.push(Violation::new("P3", format!("{key} ({what}) was done, and is recorded as failed")));
        }
    }
    for (key, _) in effects.iter().filter(|(key, entry)| entry.end == Some(End::Done) && !sink.contains_key(key)) {
        found.push(Violation::new("P3", format!("{key} is recorded as done, and was not")));
    }
    (counts, found)
}

/// A model that was asked more often than is recorded, or has answered without being asked.
fn model(key: EffectKey, sent: u32, attempts: u32, end: Option<End>, found: &mut Vec<Violation>) {
    if sent > attempts {
        found.push(Violation::new("P3", format!("{key} was asked of a model {sent} times, and sent {attempts} times")));
    }
    if sent == 0 && end == Some(End::Answered) {
        found.push(Violation::new("P3", format!("{key} is recorded as answered, and no model was asked")));
    }
}

/// What was counted by the words that programs have for it, whatever the keys.
pub struct Words<'a> {
    /// Under how many keys, and how often in all.
    counted: BTreeMap<&'a str, (u64, u64)>,
}

impl<'a> Words<'a> {
    /// Of all that was counted.
    pub fn of(sink: &'a Sink) -> Self {
        let mut counted: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for done in sink.values() {
            let (keys, times) = counted.entry(&done.what).or_default();
            (*keys, *times) = (*keys + 1, *times + done.times);
        }
        Self { counted }
    }

    /// What a program says of its calls, beside it: each was done once at most, and once if the program was told that it was.
    /// `may_repeat` says of which words twice is as good as once.
    pub fn check(&self, said: &[(String, bool)], may_repeat: impl Fn(&str) -> bool) -> Vec<Violation> {
        let mut found = Vec::new();
        for (what, is_done) in said {
            let (keys, times) = self.counted.get(what.as_str()).copied().unwrap_or_default();
            let is_twice = if may_repeat(what) { keys > 1 } else { times > 1 };
            if is_twice || (*is_done && times == 0) {
                let told = if *is_done { "done" } else { "unknown" };
                let text =
                    format!("`{what}` was done {times} times under {keys} keys, and its program was told: {told}");
                found.push(Violation::new("P3", text));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use nexa_types::{AgentId, Epoch, GlobalSeq, Seq, StreamId, Timestamp, Version, WorkloadId};

    use super::*;
    use crate::Done;

    fn key() -> EffectKey {
        let workload = WorkloadId::from_bytes([1; 16]);
        EffectKey::of(workload, AgentId::root(workload), Seq(1))
    }

    fn log(facts: Vec<What>) -> Vec<Logged> {
        let workload = WorkloadId::from_bytes([1; 16]);
        let stream = StreamId::Agent(AgentId::root(workload));
        let fact = |(at, what): (u64, What)| Logged {
            position: GlobalSeq(at),
            stream: stream.clone(),
            version: Version(at),
            epoch: Some(Epoch(1)),
            at: Timestamp(at),
            workload: Some(workload),
            what,
        };
        (1..).zip(facts).map(fact).collect()
    }

    fn sink(times: u64) -> Sink {
        if times == 0 { Sink::new() } else { Sink::from([(key(), Done { what: "a".to_owned(), times })]) }
    }

    fn ids(facts: Vec<What>, times: u64) -> Vec<&'static str> {
        check(&log(facts), &sink(times), |_| false, None).1.iter().map(|violation| violation.id).collect()
    }

    fn tool(rest: Vec<What>) -> Vec<What> {
        [vec![What::Intended(key(), Kind::Tool)], rest].concat()
    }

    #[test]
    fn a_call_that_is_done_once_and_recorded_so_is_fine_and_one_nobody_knows_of_too() {
        let sent = || What::Started(key(), 1);
        assert_eq!(ids(tool(vec![sent(), What::EffectEnded(key(), End::Done)]), 1), [""; 0]);
        assert_eq!(ids(tool(vec![sent(), What::EffectEnded(key(), End::Unknown)]), 1), [""; 0]);
        assert_eq!(ids(tool(vec![sent(), What::EffectEnded(key(), End::Unknown)]), 0), [""; 0]);
    }

    #[test]
    fn a_call_that_may_be_made_again_is_done_as_often_as_it_is_sent() {
        let facts =
            || tool(vec![What::Started(key(), 1), What::Started(key(), 2), What::EffectEnded(key(), End::Done)]);
        let found = |times, may_repeat| check(&log(facts()), &sink(times), |_| may_repeat, None).1.len();
        assert_eq!((found(1, true), found(2, true), found(3, true), found(2, false)), (0, 0, 1, 1));
    }

    #[test]
    fn what_is_done_twice_or_recorded_otherwise_than_it_was_is_found() {
        let sent = || What::Started(key(), 1);
        let ended = |end| What::EffectEnded(key(), end);
        assert_eq!(ids(tool(vec![sent(), ended(End::Done)]), 2), ["P3"], "twice");
        assert_eq!(ids(tool(vec![sent(), ended(End::Done)]), 0), ["P3"], "it was not done");
        assert_eq!(ids(tool(vec![sent(), ended(End::Failed)]), 1), ["P3"], "it was done");
        assert_eq!(ids(tool(vec![ended(End::Unknown)]), 1), ["P3"], "its start is not recorded");
        assert_eq!(ids(tool(vec![sent(), sent()]), 1), ["AG-1"]);
        assert_eq!(ids(tool(vec![sent(), ended(End::Unknown), ended(End::Done)]), 1), ["P5"]);
    }

    #[test]
    fn a_model_is_asked_as_often_as_is_recorded() {
        let asked = |times: u32, end| {
            let facts =
                vec![What::Intended(key(), Kind::Model), What::Started(key(), 1), What::EffectEnded(key(), end)];
            check(&log(facts), &Sink::new(), |_| false, Some(&move |_| times)).1.len()
        };
        assert_eq!((asked(1, End::Answered), asked(0, End::Failed)), (0, 0));
        assert_eq!((asked(2, End::Answered), asked(0, End::Answered)), (1, 1));
    }

    #[test]
    fn a_program_is_told_what_was_counted() {
        let words = |is_done| vec![("a".to_owned(), is_done)];
        let found = |times, is_done, may_repeat| Words::of(&sink(times)).check(&words(is_done), |_| may_repeat).len();
        assert_eq!((found(1, true, false), found(0, false, false), found(1, false, false)), (0, 0, 0));
        assert_eq!((found(0, true, false), found(2, true, false), found(2, true, true)), (1, 1, 0));
    }
}
