//! Small worlds around machines that a whole cluster does not reach, or seldom: the same that the tests of their crates play,
//! here with planted bugs. One seed is one history; what does not hold is told by its id and a text.

use crate::bugs::guarded;
use crate::cluster::Violation;
use crate::dice::Dice;

#[path = "../../nexa-sched/tests/lease/dice.rs"]
mod dice;
#[path = "../../nexa-sched/tests/lease/play.rs"]
mod play;
#[path = "../../nexa-sched/tests/lease/provider.rs"]
mod provider;
#[path = "../../nexa-sched/tests/lease/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

#[path = "../../nexa-member/tests/link/world.rs"]
mod link;

/// Steps of one history of a link.
const LINK_STEPS: u64 = 160;
/// Histories of a link in one seed: each takes well below a millisecond.
const LINKS: u64 = 200;

/// Leaders, a store, nodes that come and go: LE-1 to LE-7.
pub(crate) fn leader(seed: u64) -> Option<Violation> {
    guarded(|| {
        nexa_member::leader::sim::play(seed);
        Ok(())
    })
}

/// Slices of budgets between leaders and holders: LS-1 to LS-7.
pub(crate) fn leases(seed: u64) -> Option<Violation> {
    guarded(|| {
        if seed.is_multiple_of(2) {
            let _ = play::stubborn(seed / 2);
        } else {
            play::troubles(&mut play::world(seed / 2, false));
        }
        Ok(())
    })
}

/// Two ends of a link and a network that breaks: LK-1 to LK-5.
pub(crate) fn links(seed: u64) -> Option<Violation> {
    let mut dice = Dice::of(&[0x11_4b, seed]);
    guarded(|| {
        for _ in 0..LINKS {
            let mut world = link::World::new();
            for _ in 0..dice.between(1, LINK_STEPS) {
                let (which, how) = (dice.below(100), dice.below(1 << 16));
                world.step(&link::op((u8::try_from(which).unwrap_or(0), u16::try_from(how).unwrap_or(0))))?;
            }
            world.settle()?;
        }
        Ok(())
    })
}
