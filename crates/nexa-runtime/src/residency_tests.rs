use super::*;

const LIMITS: SeatLimits = SeatLimits { live_max: 2, loading_max: 2, waiting_max: 2 };

fn agent(n: u8) -> AgentId {
    AgentId::from_bytes([n; 16])
}

fn seated(table: &Residency, n: u8) -> Seat {
    let seat = table.call(agent(n), Hint::Inbox).unwrap().expect("there is room");
    assert!(table.loaded(&seat).is_empty());
    seat.inbox_changed.store(false, Ordering::Release);
    seat
}

#[test]
fn agents_wait_for_a_seat_and_too_many_are_refused() {
    let table = Residency::new(LIMITS);
    let first = seated(&table, 1);
    seated(&table, 2);
    assert!(table.call(agent(3), Hint::Inbox).unwrap().is_none());
    assert!(table.call(agent(4), Hint::Inbox).unwrap().is_none());
    assert!(table.call(agent(4), Hint::Due).unwrap().is_none(), "waiting once is enough");
    assert_eq!([1, 3, 4, 5].map(|n| table.is_coming(agent(n))), [false, true, true, false]);
    assert_eq!(table.call(agent(5), Hint::Inbox).map(|_| ()).unwrap_err().count, 2);
    let counts = table.counts();
    assert_eq!((counts.live, counts.waiting, counts.asleep), (2, 2, 0));
    let next = table.gone(&first);
    assert_eq!(next.iter().map(|seat| seat.agent).collect::<Vec<_>>(), [agent(3)]);
    assert!(table.gone(&first).is_empty(), "leaving twice frees one seat");
}

#[test]
fn the_cheapest_idle_agent_makes_room() {
    let table = Residency::new(LIMITS);
    let dear = seated(&table, 1);
    let cheap = seated(&table, 2);
    table.idle(&dear, 200, Timestamp(0));
    table.idle(&cheap, 3, Timestamp(0));
    assert!(table.call(agent(3), Hint::Inbox).unwrap().is_none());
    assert!(dear.address.is_empty());
    assert!(!cheap.address.is_empty(), "it was told to sleep");
}

#[test]
fn an_agent_with_a_fresh_hint_does_not_leave() {
    let table = Residency::new(LIMITS);
    let seat = seated(&table, 1);
    table.call(agent(1), Hint::Due).unwrap();
    assert_eq!(table.leave(&seat).map(|_| ()), Err(StillWanted));
    let seat = seated(&table, 2);
    assert!(table.leave(&seat).is_ok());
    let counts = table.counts();
    assert_eq!((counts.live, counts.waiting, counts.asleep), (1, 0, 1));
    let again = seated(&table, 2);
    assert!(!table.is_seated(&seat), "the old incarnation counts no more");
    assert!(table.leave(&seat).is_ok() && table.is_seated(&again));
}

#[test]
fn few_read_their_history_at_the_same_time() {
    let table = Residency::new(SeatLimits { live_max: 10, loading_max: 1, waiting_max: 10 });
    let first = table.call(agent(1), Hint::Inbox).unwrap().unwrap();
    assert!(table.call(agent(2), Hint::Inbox).unwrap().is_none());
    assert!(table.call(agent(3), Hint::Inbox).unwrap().is_none());
    let next = table.loaded(&first);
    assert_eq!(next.len(), 1);
    assert!(table.loaded(&first).is_empty(), "being loaded twice admits nobody twice");
    assert_eq!(table.gone(&next[0]).len(), 1);
}

#[test]
fn who_is_idle_for_long_is_told_to_sleep() {
    let table = Residency::new(LIMITS);
    let seat = seated(&table, 1);
    table.idle(&seat, 1, Timestamp(1_000));
    table.send_to_sleep(Timestamp(10_999), Millis(10_000));
    assert!(seat.address.is_empty());
    table.send_to_sleep(Timestamp(11_000), Millis(10_000));
    assert!(!seat.address.is_empty());
}

/// Looking at all of them at every tick or count would make this a matter of minutes.
#[test]
fn a_hundred_thousand_idle_agents_beside_a_million_dormant_ones_cost_no_look_at_each() {
    const LIVE: u32 = 100_000;
    let many = |n: u32| AgentId::from_bytes(u128::from(n).to_be_bytes());
    let live = LIVE as usize;
    let table = Residency::new(SeatLimits { live_max: live, loading_max: live, waiting_max: 10 });
    (LIVE..1_000_000).for_each(|n| table.note_asleep(many(n)));
    let mut seats = Vec::new();
    for n in 0..LIVE {
        let seat = table.call(many(n), Hint::Inbox).unwrap().expect("there is room");
        table.loaded(&seat);
        table.idle(&seat, u64::from(n % 250), Timestamp(u64::from(n)));
        seats.push(seat);
    }
    let mut told = 0;
    for tick in 0..u64::from(LIVE) {
        table.send_to_sleep(Timestamp(10_000 + tick), Millis(10_000));
        let counts = table.counts();
        told += 1;
        assert_eq!((counts.live, counts.idle), (live, live - told), "one a tick");
    }
    assert!(seats.iter().all(|seat| !seat.address.is_empty()));
    assert_eq!(table.counts().asleep, 1_000_000 - live);
}

#[test]
fn a_draining_table_admits_nobody() {
    let table = Residency::new(LIMITS);
    let seat = seated(&table, 1);
    table.drain();
    assert!(!seat.address.is_empty());
    assert!(table.call(agent(2), Hint::Inbox).unwrap().is_none());
    assert_eq!(table.counts().live, 1);
}

fn under(pressure: MemoryPressure, sleeps: usize, live_max: usize) -> Relief {
    Relief { pressure, sleeps, live_max: Some(live_max) }
}

#[test]
fn under_pressure_the_cheapest_idle_ones_leave_and_no_more_come_than_memory_allows() {
    let table = Residency::new(SeatLimits { live_max: 100, loading_max: 100, waiting_max: 100 });
    let seats: Vec<Seat> = (0..20).map(|n| seated(&table, n)).collect();
    seats.iter().for_each(|seat| table.idle(seat, 100 - u64::from(seat.agent.as_bytes()[0]), Timestamp(0)));
    assert!(table.relieve(under(MemoryPressure::Tight, 2, 21)).is_empty());
    let told: Vec<u8> =
        seats.iter().filter(|seat| !seat.address.is_empty()).map(|seat| seat.agent.as_bytes()[0]).collect();
    assert_eq!(told, [18, 19], "they cost the least to bring back");
    assert!(table.call(agent(50), Hint::Inbox).unwrap().is_some(), "there is room for one");
    assert!(table.call(agent(51), Hint::Inbox).unwrap().is_none());
    assert!(table.call(agent(52), Hint::Due).unwrap().is_none());
    assert!(table.call(agent(52), Hint::EffectEnded).unwrap().is_some(), "its answer is to be recorded");
    assert!(table.call(agent(53), Hint::Inbox).unwrap().is_none());
    assert_eq!(table.counts().waiting, 2);
    assert!(table.gone(&seats[0]).is_empty(), "they were one too many");
    let next = table.gone(&seats[1]);
    assert_eq!(next.iter().map(|seat| seat.agent).collect::<Vec<_>>(), [agent(51)]);
    assert_eq!(table.relieve(Relief::default()).len(), 1);
    assert_eq!(table.counts().waiting, 0);
}

#[test]
fn with_all_seats_taken_who_has_an_answer_is_the_next() {
    let table = Residency::new(SeatLimits { live_max: 1, ..LIMITS });
    let first = seated(&table, 1);
    assert!(table.call(agent(2), Hint::Inbox).unwrap().is_none());
    assert!(table.call(agent(3), Hint::Inbox).unwrap().is_none());
    assert!(table.call(agent(3), Hint::EffectEnded).unwrap().is_none(), "it waits with urgency now");
    let second = table.gone(&first).pop().expect("there is a seat");
    assert_eq!(second.agent, agent(3));
    assert_eq!(table.gone(&second).pop().map(|seat| seat.agent), Some(agent(2)));
    assert_eq!(table.counts().waiting, 0);
}

#[test]
fn an_agent_that_is_called_again_and_again_while_it_waits_has_one_place() {
    let table = Residency::new(SeatLimits { live_max: 1, loading_max: 1, waiting_max: 4 });
    let first = seated(&table, 1);
    for hint in [Hint::Inbox, Hint::EffectEnded, Hint::SlotGranted].into_iter().cycle().take(10_000) {
        assert!(table.call(agent(2), hint).unwrap().is_none());
        assert!(table.call(agent(3), Hint::Inbox).unwrap().is_none());
    }
    let (queue, queued) = {
        let state = table.lock();
        (state.queue.len(), state.queued.len())
    };
    assert_eq!((queue, queued, table.counts().waiting), (2, 2, 2));
    let second = table.gone(&first).pop().expect("there is a seat");
    assert_eq!(second.agent, agent(2));
    assert_eq!(table.gone(&second).pop().map(|seat| seat.agent), Some(agent(3)));
    let state = table.lock();
    assert!(state.queue.is_empty() && state.queued.is_empty());
}

#[test]
fn nobody_brings_an_agent_back_that_leaves_for_another_node_until_it_stays_after_all() {
    let table = Residency::new(LIMITS);
    let seat = seated(&table, 1);
    let Some(Parts::Told(mut left)) = table.part(agent(1)) else { panic!("it is in memory") };
    assert!(seat.signs.parts() && !seat.address.is_empty());
    assert!(table.part(agent(1)).is_none(), "once is enough");
    assert!(left.try_recv().is_err());
    assert!(table.gone(&seat).is_empty());
    assert!(left.try_recv().is_ok());
    assert!(table.call(agent(1), Hint::Inbox).unwrap().is_none() && table.holds(agent(1)));
    assert_eq!(table.counts().live, 0);
    assert!(table.comes_back(agent(1)), "it was called meanwhile");
    let again = seated(&table, 1);

    let Some(Parts::Told(mut left)) = table.part(agent(1)) else { panic!("it is in memory") };
    table.stays(&again);
    assert!(left.try_recv().is_err() && !again.signs.parts() && table.is_seated(&again));
    assert!(!table.comes_back(agent(1)));

    seated(&table, 2);
    assert!(table.call(agent(3), Hint::Inbox).unwrap().is_none());
    assert!(matches!(table.part(agent(3)), Some(Parts::Out)), "whoever waits for a place waits no longer");
    assert_eq!(table.counts().waiting, 0);
    table.has_parted(agent(3));
    assert!(!table.holds(agent(3)));
}
