//! How many agents may be born on each node.

use super::*;

#[test]
fn births_spread_once_a_family_is_large() {
    let mut desk = Desk::new(Limits::default(), &[("a", 1, 50_000), ("b", 2, 50_000), ("c", 3, 50_000)]);
    for (name, generation, agents) in [("a", 1, 30), ("b", 2, 0), ("c", 3, 0)] {
        desk.heard(name, generation, agents);
    }
    desk.elect();
    assert_eq!(desk.leader.levels().into_values().collect::<Vec<u64>>(), [74, 74, 74]);
    desk.heard("a", 1, 9_000);
    assert_eq!(desk.leader.levels()[&node("a")], 3_093, "it has more than that: nothing is born there");
    let mut alone = Desk::new(Limits::default(), &[("a", 1, 500)]);
    alone.heard("a", 1, 30);
    alone.elect();
    assert_eq!(alone.leader.levels()[&node("a")], 500);
}

/// Clients bear agents on three nodes for two seconds: what a node tells is heard at its next beat, and what the leader says of
/// it a beat later. Gives how many were refused, so that the leader must place them, of how many.
fn ramp(a_beat: [u64; 3]) -> (u64, u64) {
    let mut desk = Desk::new(Limits::default(), &[("a", 1, 20_000), ("b", 2, 20_000), ("c", 3, 20_000)]);
    desk.elect();
    let names = ["a", "b", "c"];
    let (mut has, mut levels, mut refused, mut asked) = ([0; 3], [0; 3], 0, 0);
    for beat in 0..20 {
        let told: Vec<u64> = desk.leader.levels().into_values().collect();
        for (n, name) in names.iter().enumerate() {
            desk.heard_load(
                name,
                n as u64 + 1,
                Load { agents: has[n], births: Some(beat * a_beat[n]), ..Load::default() },
            );
        }
        desk.tick(100);
        for n in 0..3 {
            let granted = a_beat[n].min(u64::saturating_sub(levels[n], has[n]));
            (asked, refused) = (asked + a_beat[n], refused + a_beat[n] - granted);
            has[n] += granted;
        }
        levels = told.try_into().unwrap_or([0; 3]);
    }
    (refused, asked)
}

#[test]
fn a_ramp_is_born_where_it_comes_to() {
    for a_beat in [10, 50, 200, 500] {
        let (refused, asked) = ramp([a_beat; 3]);
        // Until the first levels are there, and while they follow the first births.
        assert!(refused * 4 <= asked, "{a_beat} a beat: {refused} of {asked} were refused");
    }
}

#[test]
fn what_comes_to_one_node_is_spread() {
    let (refused, asked) = ramp([300, 0, 0]);
    assert!(refused * 2 > asked, "{refused} of {asked} were refused");
}
