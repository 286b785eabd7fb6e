use std::collections::VecDeque;

use nexa_sched::lease::{LeaderEpoch, NO_LIMIT, Notice};
use nexa_types::NodeId;
use proptest::prelude::*;

use super::*;

fn tenant(n: u8) -> TenantId {
    TenantId::new(&format!("tenant-{n}")).unwrap()
}

fn run(generation: u64) -> HolderId {
    HolderId { node: NodeId::new("n1").unwrap(), generation: Generation(generation) }
}

fn leased(size: Sizes) -> Leased {
    let budget = ProviderBudget {
        requests_per_minute: Some(600),
        input_tokens_per_minute: Some(1_000),
        output_tokens_per_minute: Some(50),
        ..ProviderBudget::unlimited("acme")
    };
    let mut leased = Leased::new(&[budget]);
    leased.begins(run(1));
    leased.step(HolderInput::Notice(notice(1, 1, size)), Timestamp(0));
    leased
}

fn notice(generation: u64, version: u64, size: Sizes) -> Notice {
    let (holder, epoch, provider) = (run(generation), LeaderEpoch(1), "acme".to_owned());
    Notice { holder, epoch, version, provider, size, pause: None, pace: None }
}

const CALL: Cost = Cost { input: 10, output: 5 };

#[test]
fn nothing_begins_without_a_slice_and_a_slice_is_not_exceeded() {
    let mut none = Leased::new(&[ProviderBudget::unlimited("acme")]);
    assert!(matches!(none.reserve("acme", CALL, Timestamp(0)), Err(None)), "this run is not known yet");
    let mut leased = leased(Sizes::new(2, NO_LIMIT, NO_LIMIT, NO_LIMIT));
    let (mut first, _second) =
        (leased.reserve("acme", CALL, Timestamp(0)).unwrap(), leased.reserve("acme", CALL, Timestamp(0)).unwrap());
    assert!(matches!(leased.reserve("acme", CALL, Timestamp(0)), Err(None)), "nobody knows when these are sent");
    leased.sends("acme", &mut first, Timestamp(40_000));
    assert!(matches!(leased.reserve("acme", CALL, Timestamp(40_000)), Err(Some(Timestamp(100_750)))));
    leased.step(HolderInput::LeaseEnded, Timestamp(50_000));
    assert!(matches!(leased.reserve("acme", CALL, Timestamp(200_000)), Err(None)), "the lease has ended");
}

#[test]
fn a_call_of_an_earlier_run_does_not_count_for_the_next() {
    let size = Sizes::new(NO_LIMIT, NO_LIMIT, NO_LIMIT, 1);
    let mut leased = leased(size);
    let mut earlier = leased.reserve("acme", CALL, Timestamp(0)).unwrap();
    leased.begins(run(2));
    leased.begins(run(1));
    leased.step(HolderInput::Notice(notice(2, 1, size)), Timestamp(1));
    leased.sends("acme", &mut earlier, Timestamp(1));
    let _next = leased.reserve("acme", CALL, Timestamp(1)).unwrap();
    leased.end("acme", earlier, Some(CALL), Timestamp(2));
    assert!(leased.reserve("acme", CALL, Timestamp(2)).is_err(), "the end of the earlier one frees nothing");
}

#[test]
fn a_request_that_reads_more_than_a_minute_of_the_cluster_is_refused_and_one_that_may_write_more_waits_for_all() {
    let mut leased = leased(Sizes::new(600, 500, 50, NO_LIMIT));
    assert_eq!(leased.refusal("acme", Cost { input: 1_000, output: 99_999 }), None);
    let why = leased.refusal("acme", Cost { input: 1_001, output: 0 }).unwrap();
    assert!(why.contains("1001 tokens") && why.contains("1000 read a minute"), "{why}");
    let large = leased.reserve("acme", Cost { input: 1, output: 99_999 }, Timestamp(0)).unwrap();
    assert!(leased.reserve("acme", CALL, Timestamp(0)).is_err());
    leased.end("acme", large, Some(Cost { input: 1, output: 9 }), Timestamp(1));
    assert!(leased.reserve("acme", CALL, Timestamp(1)).is_ok());
}

#[test]
fn rates_of_a_lane_are_those_of_the_slice_and_never_more_than_its_own() {
    let whole = LaneLimits {
        requests_per_minute: Some(600),
        input_tokens_per_minute: None,
        output_tokens_per_minute: Some(7),
        concurrency: 9,
    };
    let slice = leased(Sizes::new(20, 300, 50, 2));
    let limits = slice.limits("acme", whole);
    assert_eq!(
        (limits.requests_per_minute, limits.input_tokens_per_minute, limits.output_tokens_per_minute),
        (Some(20), Some(300), Some(7))
    );
    assert_eq!(limits.concurrency, 9, "calls at once are counted with the slice");
}

#[test]
fn a_tenant_counts_for_the_part_of_it_that_waits_here() {
    let mut asks = Asks::default();
    let now = Timestamp(20_000);
    assert_eq!(asks.enter(&tenant(0), 1, CALL, now), 64);
    assert_eq!(asks.enter(&tenant(1), 3, CALL, now), 192);
    asks.elsewhere(&vec![(tenant(0), 3), (tenant(9), 5)], now);
    assert_eq!(asks.backlog(now).weight, 16 + 192);
    assert_eq!(asks.enter(&tenant(0), 1, CALL, now), 64 * 2 / 5);
    let later = now.after(LATELY);
    assert_eq!(asks.backlog(later).weight, 64 + 192, "nobody has said so of late");
    asks.leave(&tenant(1), CALL, later);
    assert_eq!(asks.backlog(later).weight, 64 + 192, "it may be back soon");
    assert_eq!(asks.backlog(later.after(LATELY)).weight, 64);
}

proptest! {
    /// Counted as it comes and goes is the same as counted at once.
    #[test]
    fn what_waits_is_counted(moves in prop::collection::vec((any::<bool>(), 0u8..5, 0u64..9, 0u64..9), 0..60)) {
        let mut asks = Asks::default();
        let mut model: VecDeque<(TenantId, Cost)> = VecDeque::new();
        for (enters, who, input, output) in moves {
            if enters {
                let cost = Cost { input, output };
                asks.enter(&tenant(who), 1, cost, Timestamp(0));
                model.push_back((tenant(who), cost));
            } else if let Some((tenant, cost)) = model.pop_front() {
                asks.leave(&tenant, cost, Timestamp(0));
            }
            let backlog = asks.backlog(Timestamp(0));
            prop_assert_eq!(backlog.requests, model.len() as u64);
            let (input, output) = (|(_, cost): &(TenantId, Cost)| cost.input, |(_, cost): &(TenantId, Cost)| cost.output);
            prop_assert_eq!(backlog.cost.input_tokens, model.iter().map(input).sum::<u64>());
            prop_assert_eq!(backlog.cost.output_tokens, model.iter().map(output).sum::<u64>());
            prop_assert_eq!(backlog.largest.input_tokens, model.iter().map(input).max().unwrap_or(0));
            prop_assert_eq!(backlog.largest.output_tokens, model.iter().map(output).max().unwrap_or(0));
            for (tenant, waiting) in asks.tenants() {
                prop_assert_eq!(waiting, model.iter().filter(|(of, _)| *of == tenant).count() as u64);
            }
        }
    }
}
