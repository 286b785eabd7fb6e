use super::*;

const REQUESTS: u64 = 1_200;

fn of_requests(net: Net, seed: u64) -> World {
    let mut world = World::new(budget(Some(REQUESTS), None, None), net, seed);
    // Slices are handed out, and those of the idle start of each node come back, within two minutes.
    world.run(2 * MINUTE);
    world.got.fill(0);
    world
}

fn requests(world: &World) -> u64 {
    world.requests.all
}

#[test]
fn three_nodes_share_a_budget_of_requests_and_the_provider_never_refuses() {
    let mut world = of_requests(GOOD, 1);
    let used = world.used(requests, REQUESTS, 8 * MINUTE);
    assert!(used >= 950 && world.was_never_refused(), "{used} of 1000 used; {}", world.told());
    world.is_fair();
}

#[test]
fn three_nodes_share_a_budget_across_changes_of_leader() {
    is_kept_across_a_change_of_leader(GOOD, 2);
}

#[test]
fn a_budget_is_kept_and_shared_though_messages_get_lost_and_come_twice_and_late() {
    is_kept_across_a_change_of_leader(BAD, 3);
}

/// The leader dies in the middle; before and after it, nearly all of the budget is used, and never more.
fn is_kept_across_a_change_of_leader(net: Net, seed: u64) {
    let mut world = of_requests(net, seed);
    let mut used = world.used(requests, REQUESTS, 4 * MINUTE);
    world.leader_dies();
    used += world.used(requests, REQUESTS, 4 * MINUTE);
    assert!(used >= 2 * 950 && world.was_never_refused(), "{used} of 2000 used; {}", world.told());
    world.is_fair();
}

/// All that tenants ask for comes within the first second, before a node has heard of what waits on others. Half of them
/// have it all on one node, half on three.
#[test]
fn tenants_get_their_shares_also_of_what_came_before_anybody_knew_of_the_others() {
    let mut world = World::new(budget(Some(REQUESTS), None, None), GOOD, 13);
    world.again = false;
    let used = world.used(requests, REQUESTS, MINUTE / 2);
    assert!(used >= 900 && world.was_never_refused(), "{used} of 1000 used; {}", world.told());
    world.is_fair();
}

/// What tenants ask for is a quarter of what the key gives in a minute, and is there at once: it takes a quarter of a minute.
#[test]
fn what_is_less_than_a_minutes_budget_is_sent_as_fast_as_the_key_allows() {
    let wanted = (TENANTS * AGENTS) as u64;
    let mut world = World::new(budget(Some(4 * wanted), None, None), GOOD, 14);
    world.again = false;
    world.run(MINUTE / 4 + 3_000);
    assert!(world.requests.all == wanted && world.was_never_refused(), "of {wanted}: {}", world.told());
}

#[test]
fn what_a_dead_node_may_have_sent_counts_until_it_is_forgotten_and_then_the_others_have_it() {
    let mut world = of_requests(GOOD, 4);
    let before = world.used(requests, REQUESTS, 3 * MINUTE);
    world.node_dies(1);
    // Two thirds while its slice counts: for its lease, what it may send without knowing, and a minute.
    let meanwhile = world.used(requests, REQUESTS, MINUTE + 15_000);
    world.run(world.now + MINUTE);
    let after = world.used(requests, REQUESTS, 4 * MINUTE);
    let told = format!("{before}, {meanwhile}, {after} of 1000 used; {}", world.told());
    assert!(before >= 950 && meanwhile >= 600 && after >= 950 && world.was_never_refused(), "{told}");
    world.is_fair();
}

/// Killed with all that it was about to send: what it may have begun until its lease ended, and for as long as it may not have
/// known that, counts for it, and nobody else can have that: a third of what the key gives in about 14 seconds of this minute,
/// 0.075 of it. Everything else comes back as it gets too old to count, and is used at once.
#[test]
fn nine_tenths_of_a_key_are_used_in_the_minute_after_the_leading_node_was_killed() {
    for seed in 7..12 {
        let mut world = of_requests(GOOD, seed);
        let before = world.used(requests, REQUESTS, 3 * MINUTE);
        world.leading_node_dies(1);
        let tens: Vec<u64> = (0..12).map(|_| world.used(requests, REQUESTS, 10_000)).collect();
        let (minute, next) = (tens[..6].iter().sum::<u64>() / 6, tens[6..].iter().sum::<u64>() / 6);
        let told = format!("{before}, {minute} ({tens:?}), {next} of 1000 used; {}", world.told());
        assert!(before >= 950 && minute >= 900 && next >= 950 && world.was_never_refused(), "{told}");
    }
}

#[test]
fn three_nodes_share_a_budget_of_tokens_read() {
    let limit = 400_000;
    let mut world = World::new(budget(Some(6_000), Some(limit), None), GOOD, 5);
    world.run(2 * MINUTE);
    world.got.fill(0);
    let used = world.used(|world| world.input.all, limit, 8 * MINUTE);
    let told = format!("{used} of 1000 used; {}", world.told());
    assert!(used >= 950 && world.refused * 1_000 <= world.requests.all, "{told}");
    world.is_fair();
}

/// What is written may come at any time between the start of a call and its end, so it counts for as long as the call
/// takes and a minute more.
#[test]
fn three_nodes_share_a_budget_of_tokens_written() {
    let limit = 150_000;
    let mut world = World::new(budget(Some(6_000), None, Some(limit)), GOOD, 6);
    world.run(2 * MINUTE);
    world.got.fill(0);
    let used = world.used(|world| world.output.all, limit, 8 * MINUTE);
    let told = format!("{used} of 1000 used; {}", world.told());
    assert!(used >= 930 && world.refused * 1_000 <= world.requests.all, "{told}");
    world.is_fair();
}

/// Whatever goes wrong and whenever: never more than the budget within any minute. It may be much less for a while, as when
/// a node dies that had it all.
#[test]
fn no_trouble_makes_nodes_send_more_than_the_budget() {
    let (mut seen, mut minutes) = (0, 0);
    for seed in 0..40 {
        let mut dice = Chance(!seed);
        let limits = [60, 600, 3_000];
        let mut world = World::new(budget(Some(limits[dice.below(3) as usize]), None, None), GOOD, seed);
        let mut has_died = false;
        for _ in 0..12 {
            let span = dice.between(1_000, 30_000);
            world.run(world.now + span);
            world.net = if dice.below(2) == 0 { GOOD } else { BAD };
            match dice.below(4) {
                0 if world.leader.is_some() => world.leader_dies(),
                1 if !has_died => {
                    has_died = true;
                    world.node_dies(dice.below(NODES as u64) as usize);
                }
                _ => {}
            }
        }
        assert_eq!(world.refused, 0, "seed {seed}: {}", world.told());
        let per_minute = world.budget.requests_per_minute.unwrap();
        (seen, minutes) = (seen + world.requests.all * 1_000 / per_minute, minutes + world.now / MINUTE);
    }
    assert!(seen > minutes * 500, "{seen} thousandths of a minute's budget in {minutes} minutes");
}
