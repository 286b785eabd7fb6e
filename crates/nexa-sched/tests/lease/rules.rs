//! The rules of slices, one by one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use nexa_sched::ProviderBudget;
use nexa_sched::lease::{
    Backlog, Budgets, Cost, Denied, Ending, Generation, HOLDERS_MAX, Holder, HolderId, HolderInput, Leader,
    LeaderEpoch, LeaderInput, LeaderOutput, LeaderSettings, Meter, Notice, PAUSE_MAX, PROVIDERS_MAX, Pause, Sizes,
    SliceRecord, VANISHING, WINDOW,
};
use nexa_types::{Millis, NodeId, Timestamp};

fn id(name: &str, generation: u64) -> HolderId {
    HolderId { node: NodeId::new(name).unwrap(), generation: Generation(generation) }
}

fn requests(budget: u64) -> Budgets {
    let near = ProviderBudget { requests_per_minute: Some(budget), ..ProviderBudget::unlimited("near") };
    Budgets::new(&[near]).unwrap()
}

fn elected(epoch: u64, records: &[SliceRecord]) -> Leader {
    Leader::new(LeaderEpoch(epoch), LeaderSettings::default(), requests(100), records, Timestamp(0))
}

fn notices(out: &[LeaderOutput]) -> Vec<Notice> {
    let notice = |output: &LeaderOutput| match output {
        LeaderOutput::Notice(notice) => Some(notice.clone()),
        LeaderOutput::Record(_) => None,
    };
    out.iter().filter_map(notice).collect()
}

fn records(out: &[LeaderOutput]) -> Vec<SliceRecord> {
    let record = |output: &LeaderOutput| match output {
        LeaderOutput::Record(record) => Some(record.clone()),
        LeaderOutput::Notice(_) => None,
    };
    out.iter().filter_map(record).collect()
}

/// One leader and its holders, who hear all that is said, at once.
struct Desk {
    leader: Leader,
    holders: Vec<Holder>,
    store: Vec<SliceRecord>,
    now: u64,
}

impl Desk {
    fn new(names: &[&str]) -> Self {
        let holders: Vec<Holder> = names.iter().map(|name| Holder::new(id(name, 1))).collect();
        let mut desk = Self { leader: elected(1, &[]), holders, store: Vec::new(), now: 0 };
        let members: BTreeSet<HolderId> = desk.holders.iter().map(|holder| holder.id().clone()).collect();
        desk.tell(LeaderInput::Members(members));
        desk
    }

    fn tell(&mut self, input: LeaderInput) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.leader.step(input, Timestamp(self.now)) {
                match output {
                    LeaderOutput::Record(record) => {
                        let (provider, holder, version) = (record.provider.clone(), record.holder(), record.version);
                        self.store.retain(|old| old.holder() != holder);
                        self.store.push(record);
                        inputs.push(LeaderInput::Recorded { provider, holder, version });
                    }
                    LeaderOutput::Notice(notice) => {
                        let now = Timestamp(self.now);
                        let inputs = self.holders.iter_mut();
                        inputs.for_each(|holder| holder.step(HolderInput::Notice(notice.clone()), now));
                    }
                }
            }
        }
    }

    fn rounds(&mut self, rounds: u64) {
        for _ in 0..rounds {
            self.now += 1_000;
            for at in 0..self.holders.len() {
                if let Some(report) = self.holders[at].report(Timestamp(self.now)) {
                    self.tell(LeaderInput::Report(report));
                }
            }
            self.tell(LeaderInput::Tick);
        }
    }

    fn wants(&mut self, at: usize, requests: u64) {
        let backlog = Backlog { requests, weight: 1, ..Backlog::default() };
        let waiting = HolderInput::Waiting { provider: "near".to_owned(), backlog };
        self.holders[at].step(waiting, Timestamp(self.now));
    }

    /// Begins what it may, and ends it.
    fn uses_all(&mut self, at: usize) -> u64 {
        let mut begun = 0;
        while let Ok(one) = self.holders[at].begin("near", Cost::default(), Timestamp(self.now)) {
            self.holders[at].end("near", one, Ending::Sent(Cost::default()), Timestamp(self.now));
            begun += 1;
        }
        begun
    }

    fn paces(&self) -> Vec<u64> {
        self.holders.iter().map(|holder| holder.pace("near")).collect()
    }

    fn recorded_pace(&self, node: &str) -> u64 {
        self.store.iter().find(|record| record.node.as_str() == node).unwrap().pace()
    }

    /// After how many rounds the first part of what a lost holder had is with another one.
    fn lasts(&mut self) -> u64 {
        let before = self.slices();
        let grows = |desk: &Self| desk.slices().iter().zip(&before).any(|(now, before)| now > before);
        (1..200)
            .find(|_| {
                self.rounds(1);
                grows(self)
            })
            .expect("it comes back")
    }

    fn slices(&self) -> Vec<u64> {
        self.holders.iter().map(|holder| holder.slice("near").of(Meter::Requests)).collect()
    }
}

#[test]
fn a_holder_is_told_of_more_when_the_store_has_it() {
    let mut leader = elected(1, &[]);
    leader.step(LeaderInput::Joined(id("a", 1)), Timestamp(0));
    let out = leader.step(LeaderInput::Tick, Timestamp(1_000));
    let [record] = &records(&out)[..] else { panic!("{out:?}") };
    assert_eq!(notices(&out), []);
    let again = leader.step(LeaderInput::Tick, Timestamp(2_000));
    assert_eq!(records(&again), std::slice::from_ref(record), "until it is answered");
    let recorded = |version| LeaderInput::Recorded { provider: "near".to_owned(), holder: record.holder(), version };
    assert_eq!(leader.step(recorded(record.version + 1), Timestamp(2_000)), []);
    let out = leader.step(recorded(record.version), Timestamp(2_000));
    assert_eq!(notices(&out)[0].size, record.size());
    assert_eq!(leader.step(recorded(record.version), Timestamp(2_000)), [], "a second answer says nothing new");
}

#[test]
fn what_was_begun_within_the_minute_is_kept_and_the_rest_goes_to_others_at_once() {
    let mut desk = Desk::new(&["a", "b"]);
    desk.wants(0, 1_000);
    desk.rounds(3);
    assert_eq!(desk.slices(), [99, 1]);
    for _ in 0..60 {
        let begun = desk.holders[0].begin("near", Cost::default(), Timestamp(desk.now)).unwrap();
        desk.holders[0].end("near", begun, Ending::Sent(Cost::default()), Timestamp(desk.now));
    }
    desk.wants(1, 1_000);
    desk.rounds(4);
    assert_eq!(desk.slices(), [50, 40], "60 count for the first one");
    assert_eq!(desk.uses_all(0), 0);
    assert_eq!(desk.uses_all(1), 40);
    desk.rounds(61);
    assert_eq!(desk.slices(), [50, 50]);
}

#[test]
fn a_slice_does_not_lapse_while_no_leader_says_anything() {
    let mut desk = Desk::new(&["a"]);
    desk.wants(0, 1_000);
    desk.rounds(3);
    let size = desk.slices();
    desk.now += 86_400_000;
    assert_eq!(desk.slices(), size);
    assert_eq!(desk.uses_all(0), size[0]);
    // Nor does the leader take it from one that says nothing.
    for _ in 0..100 {
        desk.now += 60_000;
        desk.tell(LeaderInput::Tick);
    }
    assert_eq!(desk.leader.outstanding("near").of(Meter::Requests), size[0]);
}

#[test]
fn a_new_leader_counts_what_is_recorded() {
    let size = Sizes::new(90, 0, 0, 0);
    let record = SliceRecord::new("near", &id("a", 1), LeaderEpoch(1), 7, (&size, 90));
    let mut leader = elected(2, &[record]);
    leader.step(LeaderInput::Joined(id("b", 1)), Timestamp(0));
    assert_eq!(leader.outstanding("near").of(Meter::Requests), 90);
    for second in 1..100 {
        let out = leader.step(LeaderInput::Tick, Timestamp(second * 1_000));
        for record in records(&out) {
            let most = if record.node.as_str() == "a" { 100 } else { 10 };
            assert!(record.size().of(Meter::Requests) <= most, "{record:?}");
        }
        assert!(leader.outstanding("near").of(Meter::Requests) <= 100);
    }
}

#[test]
fn a_new_leader_takes_from_nobody_of_whom_it_has_not_heard_yet() {
    let mut desk = Desk::new(&["a", "b"]);
    desk.wants(0, 1_000);
    desk.wants(1, 1_000);
    desk.rounds(3);
    assert_eq!(desk.slices(), [50, 50]);
    desk.leader =
        Leader::new(LeaderEpoch(2), LeaderSettings::default(), requests(100), &desk.store, Timestamp(desk.now));
    desk.tell(LeaderInput::Members(desk.holders.iter().map(|holder| holder.id().clone()).collect()));
    // One has much more to say for itself, as long as the other has said nothing.
    let backlog = Backlog { requests: 1_000, weight: 64, ..Backlog::default() };
    let waiting = HolderInput::Waiting { provider: "near".to_owned(), backlog };
    for holder in &mut desk.holders {
        holder.step(waiting.clone(), Timestamp(desk.now));
    }
    let report = desk.holders[0].report(Timestamp(desk.now)).unwrap();
    desk.tell(LeaderInput::Report(report));
    desk.tell(LeaderInput::Tick);
    assert_eq!(desk.slices(), [50, 50], "the other's weight is not known");
    desk.rounds(2);
    assert_eq!(desk.slices(), [50, 50]);
    // It does not wait for somebody who is silent.
    desk.leader =
        Leader::new(LeaderEpoch(3), LeaderSettings::default(), requests(100), &desk.store, Timestamp(desk.now));
    desk.tell(LeaderInput::Members(desk.holders.iter().map(|holder| holder.id().clone()).collect()));
    for _ in 0..4 {
        desk.now += 1_000;
        let report = desk.holders[0].report(Timestamp(desk.now)).unwrap();
        desk.tell(LeaderInput::Report(report));
        desk.tell(LeaderInput::Tick);
    }
    assert!(desk.slices()[0] >= 50 && desk.slices()[1] < 50, "{:?}", desk.slices());
}

#[test]
fn a_holder_goes_by_the_newest_word_to_its_own_generation() {
    let mut holder = Holder::new(id("a", 2));
    let mut told = |generation, epoch, version, size| {
        let (holder_id, provider) = (id("a", generation), "near".to_owned());
        let size = Sizes::new(size, 0, 0, 1);
        let notice =
            Notice { holder: holder_id, epoch: LeaderEpoch(epoch), version, provider, size, pause: None, pace: None };
        holder.step(HolderInput::Notice(notice), Timestamp(0));
        holder.slice("near").of(Meter::Requests)
    };
    assert_eq!(told(2, 3, 5, 10), 10);
    assert_eq!(told(2, 3, 4, 20), 10, "an older one");
    assert_eq!(told(2, 3, 5, 30), 10, "the same once more");
    assert_eq!(told(1, 3, 9, 40), 10, "to an earlier generation");
    assert_eq!(told(2, 2, 9, 50), 10, "by a leader of before");
    assert_eq!(told(2, 4, 1, 60), 60);
    assert_eq!(told(2, 3, 9, 70), 60, "by a leader that is one no longer");
}

#[test]
fn a_leader_whose_write_was_refused_says_nothing_ever_after() {
    let mut leader = elected(1, &[]);
    leader.step(LeaderInput::Joined(id("a", 1)), Timestamp(0));
    assert!(!leader.step(LeaderInput::Tick, Timestamp(1_000)).is_empty());
    leader.step(LeaderInput::Refused, Timestamp(1_000));
    assert!(leader.is_deposed());
    assert_eq!(leader.step(LeaderInput::Tick, Timestamp(2_000)), []);
    let mut other = elected(1, &[]);
    other.step(LeaderInput::Joined(id("a", 1)), Timestamp(0));
    let mut holder = Holder::new(id("a", 1));
    let (epoch, provider) = (LeaderEpoch(2), "near".to_owned());
    let notice = Notice { holder: id("a", 1), epoch, version: 1, provider, size: Sizes::NONE, pause: None, pace: None };
    holder.step(HolderInput::Notice(notice), Timestamp(0));
    other.step(LeaderInput::Report(holder.report(Timestamp(0)).unwrap()), Timestamp(0));
    assert!(other.is_deposed(), "it has heard of a newer one");
}

#[test]
fn a_slice_of_a_vanished_holder_counts_until_nothing_of_it_can() {
    let mut desk = Desk::new(&["a", "b"]);
    desk.wants(0, 1_000);
    desk.wants(1, 1_000);
    desk.rounds(3);
    assert_eq!(desk.slices(), [50, 50]);
    desk.holders[0].step(HolderInput::LeaseEnded, Timestamp(desk.now));
    assert_eq!(desk.holders[0].begin("near", Cost::default(), Timestamp(desk.now)), Err(Denied::Ended));
    assert_eq!((desk.slices(), desk.holders[0].report(Timestamp(desk.now))), (vec![0, 50], None));
    desk.tell(LeaderInput::LeaseEnded(id("a", 1)));
    let seconds = (VANISHING + WINDOW).0.div_ceil(1_000);
    desk.rounds(seconds - 1);
    assert_eq!(desk.slices(), [0, 50]);
    desk.rounds(3);
    assert_eq!(desk.slices(), [0, 100]);
    let request_max = LeaderSettings::default().request_max.0;
    desk.rounds((request_max + WINDOW.0) / 1_000);
    assert_eq!(desk.store.iter().find(|record| record.node.as_str() == "a").unwrap().size(), Sizes::NONE);
}

#[test]
fn requests_of_a_vanished_holder_that_was_never_ahead_go_to_others_as_they_get_old() {
    let settings = LeaderSettings { ahead: Some(Millis(1_000)), ..LeaderSettings::default() };
    let record = SliceRecord::new("near", &id("a", 1), LeaderEpoch(1), 7, (&Sizes::new(600, 0, 0, 0), 600));
    let budgets = || requests(600);
    // What it began: no faster than its slice, until it noticed.
    let began: Vec<u64> = (0..600).map(|number| 100_000 + VANISHING.0 - number * 100).collect();
    let mut leader = Leader::new(LeaderEpoch(2), settings, budgets(), &[record], Timestamp(100_000));
    leader.step(LeaderInput::Members(BTreeSet::new()), Timestamp(100_000));
    let mut left = Vec::new();
    for second in 0..70 {
        let now = Timestamp(100_000 + second * 1_000);
        for record in records(&leader.step(LeaderInput::Tick, now)) {
            let (provider, holder, version) = (record.provider.clone(), record.holder(), record.version);
            leader.step(LeaderInput::Recorded { provider, holder, version }, now);
        }
        let outstanding = leader.outstanding("near").of(Meter::Requests);
        let counts = began.iter().filter(|at| **at + WINDOW.0 > now.0 && **at <= now.0).count() as u64;
        let will = began.iter().filter(|at| **at > now.0).count() as u64;
        assert!(outstanding >= counts + will, "{second}: {outstanding} of {counts}");
        left.push(outstanding);
    }
    assert_eq!((left[5], left[69]), (600, 0));
    assert!(left[36] <= 340, "half of them are old by then: {left:?}");
}

#[test]
fn requests_of_a_vanished_holder_that_has_become_slower_count_as_if_it_had_not() {
    let mut desk = Desk::new(&["a", "b"]);
    let settings = LeaderSettings { ahead: Some(Millis(1_000)), ..LeaderSettings::default() };
    desk.leader = Leader::new(LeaderEpoch(1), settings, requests(100), &[], Timestamp(0));
    desk.tell(LeaderInput::Members(desk.holders.iter().map(|holder| holder.id().clone()).collect()));
    desk.wants(0, 1_000);
    desk.rounds(3);
    desk.wants(1, 1_000);
    desk.rounds(3);
    assert_eq!((desk.slices(), desk.paces()), (vec![50, 50], vec![50, 50]));
    assert_eq!(desk.recorded_pace("a"), 99, "it was quicker within the minute");
    desk.tell(LeaderInput::LeaseEnded(id("a", 1)));
    let lasts = desk.lasts() - VANISHING.0 / 1_000 - 1;
    assert!((30..33).contains(&lasts), "it may have begun all 50 in half a minute: {lasts} s");
}

#[test]
fn a_slower_pace_is_recorded_when_nothing_counts_any_more_that_was_begun_at_the_quicker_one() {
    let mut desk = Desk::new(&["a", "b"]);
    let settings = LeaderSettings { ahead: Some(Millis(5_000)), ..LeaderSettings::default() };
    desk.leader = Leader::new(LeaderEpoch(1), settings, requests(100), &[], Timestamp(0));
    desk.tell(LeaderInput::Members(desk.holders.iter().map(|holder| holder.id().clone()).collect()));
    desk.wants(0, 1_000);
    desk.rounds(3);
    desk.wants(1, 1_000);
    desk.rounds(1);
    assert_eq!(desk.paces()[0], 50);
    desk.rounds(65);
    assert_eq!(desk.recorded_pace("a"), 99);
    desk.rounds(2);
    assert_eq!((desk.recorded_pace("a"), desk.slices()), (50, vec![50, 50]));
    // The next leader knows it.
    desk.leader = Leader::new(LeaderEpoch(2), settings, requests(100), &desk.store, Timestamp(desk.now));
    desk.tell(LeaderInput::Members(BTreeSet::from([id("b", 1)])));
    let lasts = desk.lasts() - VANISHING.0 / 1_000 - 5;
    assert!((1..4).contains(&lasts), "it may have begun 50 in a minute: {lasts} s");
}

#[test]
fn others_have_the_pace_of_a_vanished_holder_while_its_slice_comes_back() {
    let mut desk = Desk::new(&["a", "b", "c"]);
    let settings = LeaderSettings { ahead: Some(Millis(1_000)), ..LeaderSettings::default() };
    desk.leader = Leader::new(LeaderEpoch(1), settings, requests(600), &[], Timestamp(0));
    desk.tell(LeaderInput::Members(desk.holders.iter().map(|holder| holder.id().clone()).collect()));
    (0..3).for_each(|at| desk.wants(at, 1_000));
    desk.rounds(70);
    assert_eq!((desk.slices(), desk.paces()), (vec![200; 3], vec![200; 3]));
    desk.tell(LeaderInput::LeaseEnded(id("c", 1)));
    desk.rounds(2);
    assert_eq!((&desk.slices()[..2], &desk.paces()[..2]), (&[200, 200][..], &[300, 300][..]));
    // No more than one in 32 of what has come back is with nobody.
    for second in 3..66_u64 {
        desk.rounds(1);
        let back = 200 * second.saturating_sub(8) / 60;
        assert!(desk.slices()[0] + desk.slices()[1] + 12 >= 400 + back, "{:?} after {second} s", desk.slices());
    }
    desk.rounds(40);
    let is_whole = |of: &u64| (296..=300).contains(of);
    assert!(desk.slices()[..2].iter().all(is_whole), "{:?}", desk.slices());
    assert!(desk.paces()[..2].iter().all(is_whole), "{:?}", desk.paces());
}

/// A leader of an earlier version says no pace.
#[test]
fn without_a_word_of_a_pace_it_is_that_of_the_slice() {
    let mut holder = Holder::new(id("a", 1));
    let (epoch, provider, size) = (LeaderEpoch(1), "near".to_owned(), Sizes::new(20, 0, 0, 1));
    let mut notice = Notice { holder: id("a", 1), epoch, version: 1, provider, size, pause: None, pace: None };
    holder.step(HolderInput::Notice(notice.clone()), Timestamp(0));
    assert_eq!(holder.pace("near"), 20);
    (notice.version, notice.pace) = (2, Some(30));
    holder.step(HolderInput::Notice(notice), Timestamp(0));
    assert_eq!((holder.pace("near"), holder.slice("near")), (30, size));
    // And nobody knows how its requests were spread.
    let mut unsaid = SliceRecord::new("near", &id("a", 1), LeaderEpoch(1), 7, (&Sizes::new(600, 0, 0, 0), 600));
    unsaid.pace = None;
    let settings = LeaderSettings { ahead: Some(Millis(1_000)), ..LeaderSettings::default() };
    let mut leader = Leader::new(LeaderEpoch(2), settings, requests(600), &[unsaid], Timestamp(0));
    leader.step(LeaderInput::Members(BTreeSet::new()), Timestamp(0));
    assert!(leader.step(LeaderInput::Tick, Timestamp(VANISHING.0 + WINDOW.0 - 1)).is_empty());
    assert!(!leader.step(LeaderInput::Tick, Timestamp(VANISHING.0 + WINDOW.0)).is_empty());
}

#[test]
fn each_meter_of_a_vanished_holder_counts_as_long_as_its_last_request_may() {
    let near = ProviderBudget {
        provider: "near".to_owned(),
        requests_per_minute: Some(10),
        input_tokens_per_minute: Some(100),
        output_tokens_per_minute: Some(100),
        concurrency: Some(5),
    };
    let record = SliceRecord::new("near", &id("a", 1), LeaderEpoch(1), 7, (&Sizes::new(10, 100, 100, 5), 10));
    let settings = LeaderSettings { request_max: Millis(20_000), ..LeaderSettings::default() };
    let mut leader = Leader::new(LeaderEpoch(2), settings, Budgets::new(&[near]).unwrap(), &[record], Timestamp(0));
    leader.step(LeaderInput::Members(BTreeSet::new()), Timestamp(0));
    let mut at = |millis: u64| {
        let now = Timestamp(millis);
        for record in records(&leader.step(LeaderInput::Tick, now)) {
            let (provider, holder, version) = (record.provider.clone(), record.holder(), record.version);
            leader.step(LeaderInput::Recorded { provider, holder, version }, now);
        }
        leader.outstanding("near")
    };
    let (in_flight, minute) = (VANISHING.0 + 20_000, VANISHING.0 + WINDOW.0);
    assert_eq!(at(in_flight - 1), Sizes::new(10, 100, 100, 5));
    assert_eq!(at(in_flight), Sizes::new(10, 100, 100, 0));
    assert_eq!(at(minute - 1), Sizes::new(10, 100, 100, 0));
    assert_eq!(at(minute), Sizes::new(0, 0, 100, 0));
    assert_eq!(at(minute + 19_999), Sizes::new(0, 0, 100, 0));
    assert_eq!(at(minute + 20_000), Sizes::NONE);
}

#[test]
fn one_retry_after_slows_everybody_and_is_not_prolonged_by_being_repeated() {
    let mut desk = Desk::new(&["a", "b"]);
    desk.wants(0, 1_000);
    desk.wants(1, 1_000);
    desk.rounds(3);
    let pause = Millis(20_000);
    desk.holders[0].step(HolderInput::RetryAfter { provider: "near".to_owned(), pause }, Timestamp(desk.now));
    let until = desk.now + pause.0;
    desk.rounds(2);
    for at in 0..2 {
        let denied = desk.holders[at].begin("near", Cost::default(), Timestamp(desk.now));
        assert!(
            matches!(denied, Err(Denied::For(left)) if left.0 <= until - desk.now && left.0 > 17_000),
            "{denied:?}"
        );
    }
    // Whatever was on its way for long.
    let (holder, epoch, provider) = (id("b", 1), LeaderEpoch(1), "near".to_owned());
    let late = Some(Pause { number: 1, left: pause });
    let notice = Notice { holder, epoch, version: 1, provider, size: Sizes::NONE, pause: late, pace: None };
    desk.rounds(15);
    desk.holders[1].step(HolderInput::Notice(notice), Timestamp(desk.now));
    desk.rounds(4);
    assert!(desk.holders.iter_mut().all(|holder| holder.begin("near", Cost::default(), Timestamp(desk.now)).is_ok()));
    let (provider, pause) = ("near".to_owned(), Millis(u64::MAX));
    desk.holders[0].step(HolderInput::RetryAfter { provider, pause }, Timestamp(desk.now));
    assert_eq!(desk.holders[0].begin("near", Cost::default(), Timestamp(desk.now)), Err(Denied::For(PAUSE_MAX)));
}

#[test]
fn where_there_is_too_little_for_all_everybody_has_a_turn() {
    let mut desk = Desk::new(&["a", "b", "c", "d", "e"]);
    desk.tell(LeaderInput::Budgets(requests(2)));
    let mut begun = [0; 5];
    for _ in 0..20 * 60 {
        for (at, begun) in begun.iter_mut().enumerate() {
            desk.wants(at, 1_000);
            *begun += desk.uses_all(at);
        }
        desk.rounds(1);
    }
    assert!(begun.iter().all(|begun| (4..=10).contains(begun)), "{begun:?}");
    assert!(begun.iter().sum::<u64>() > 30, "{begun:?}");
}

#[test]
fn who_becomes_busy_has_something_at_once_and_its_part_in_two_rounds() {
    let mut desk = Desk::new(&["a", "b", "c"]);
    desk.tell(LeaderInput::Budgets(requests(600)));
    desk.wants(0, 1_000);
    desk.rounds(3);
    assert_eq!(desk.slices(), [591, 5, 4]);
    desk.wants(2, 1_000);
    assert_eq!(desk.uses_all(2), 4);
    desk.rounds(2);
    assert_eq!(desk.slices()[2], 295, "of what the first one has not used");
}

#[test]
fn a_lowered_budget_is_kept_to_as_soon_as_what_was_begun_no_longer_counts() {
    let mut desk = Desk::new(&["a", "b"]);
    desk.wants(0, 1_000);
    desk.wants(1, 1_000);
    desk.rounds(3);
    assert_eq!(desk.uses_all(0), 50);
    desk.tell(LeaderInput::Budgets(requests(20)));
    desk.rounds(3);
    assert_eq!((desk.slices(), desk.leader.outstanding("near").of(Meter::Requests)), (vec![10, 10], 60));
    desk.rounds(61);
    assert_eq!(desk.leader.outstanding("near").of(Meter::Requests), 20);
    desk.tell(LeaderInput::Budgets(Budgets::default()));
    desk.rounds(3);
    assert_eq!((desk.slices(), desk.uses_all(1)), (vec![0, 0], 0));
}

#[test]
fn a_meter_that_gets_a_limit_later_is_split_as_well() {
    let mut desk = Desk::new(&["a", "b"]);
    let all = Budgets::new(&[ProviderBudget::unlimited("near")]).unwrap();
    desk.tell(LeaderInput::Budgets(all));
    desk.wants(0, 1_000);
    desk.wants(1, 1_000);
    desk.rounds(3);
    for at in 0..2 {
        for _ in 0..70 {
            let _begun = desk.holders[at].begin("near", Cost::default(), Timestamp(desk.now)).unwrap();
        }
    }
    desk.tell(LeaderInput::Budgets(requests(100)));
    desk.rounds(3);
    assert_eq!((desk.slices(), desk.leader.outstanding("near").of(Meter::Requests)), (vec![50, 50], 140));
    desk.rounds(61);
    assert_eq!(desk.leader.outstanding("near").of(Meter::Requests), 100);
}

/// Versions began anew with the slice, so that the store took none of its records for newer than the one it had.
#[test]
fn a_provider_whose_budget_comes_back_goes_on_with_newer_versions() {
    let mut desk = Desk::new(&["a"]);
    desk.wants(0, 1_000);
    desk.rounds(3);
    let before = desk.store[0].version;
    desk.tell(LeaderInput::Budgets(Budgets::default()));
    desk.rounds(3);
    assert_eq!((desk.slices(), desk.store[0].size()), (vec![0], Sizes::NONE));
    desk.tell(LeaderInput::Budgets(requests(100)));
    desk.rounds(3);
    assert_eq!(desk.slices(), [100]);
    assert!(desk.store[0].version > before);
}

#[test]
fn there_is_an_end_to_holders_and_providers() {
    let mut leader = elected(1, &[]);
    for n in 0..HOLDERS_MAX + 10 {
        leader.step(LeaderInput::Joined(id(&format!("n{n}"), 1)), Timestamp(0));
    }
    let out = leader.step(LeaderInput::Tick, Timestamp(1_000));
    assert!(out.len() <= HOLDERS_MAX, "{}", out.len());
    let mut holder = Holder::new(id("a", 1));
    for n in 0..PROVIDERS_MAX + 10 {
        let denied = holder.begin(&format!("p{n}"), Cost::default(), Timestamp(0));
        assert_eq!(denied, Err(Denied::UntilChange));
    }
    assert_eq!(holder.report(Timestamp(0)).unwrap().of.len(), PROVIDERS_MAX);
}
