//! Who should have how much of a budget, if it could be had at once.
//!
//! In:  a budget, what each holder wants, and whose turn it is.
//! Out: a size for each. They add up to the budget or less.
//!
//! 1. *Seats.* A slice smaller than the next request is of no use. Whoever wants something gets what its largest
//!    request takes on every meter, in order. If that does not suffice for all, those whose turn it is get theirs and the
//!    others get nothing; the turn moves on by as many as had a seat.
//! 2. *Idle holders* share a sixty-fourth of the budget, so that whoever becomes busy has something before it is heard.
//! 3. *The rest* is shared max-min fairly by weight among those with a seat (water-filling; Bertsekas and Gallager,
//!    "Data Networks", 1992, §6.5.2): nobody gets more than it wants, and whoever gets less than it wants gets no less for
//!    its weight than anybody else, but for the seats. Meter by meter, in whole units; what does not divide goes to the
//!    first ones, a unit each. If all have what they want, they get up to a quarter more, in the same way.
//!
//! What nobody wants is left over; only of the rate nothing is: see [`paces`]. Pure: no time, and the order is that of the
//! holders.

use super::sizes::{Meter, NO_LIMIT, Sizes};

/// Idle holders get one of so many parts, all together, while others want more than there is.
const IDLE_PART_OF: u64 = 64;
/// Whoever wants so many units gets up to one more, where there is room.
const HEADROOM_OF: u64 = 4;
/// A level of the water is so much of a unit for each unit of weight.
const FINE: u128 = 1 << 16;
/// The largest weight.
pub(super) const WEIGHT_MAX: u64 = 1_000_000;

/// What one holder wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// 1 to [`WEIGHT_MAX`].
    pub(super) weight: u64,
    /// In the minute that comes. Nothing: it is idle.
    pub(super) wanted: Sizes,
    /// What its largest request takes.
    pub(super) least: Sizes,
}

impl Claim {
    fn is_idle(&self) -> bool {
        self.wanted.is_none()
    }
}

/// What each should have.
pub(super) fn shares(budget: &Sizes, claims: &[Claim], turn: u64) -> Vec<Sizes> {
    let least = |claim: &Claim| claim.least.max(&Sizes::new(1, 0, 0, 1)).min(budget);
    let mut floors = vec![Sizes::NONE; claims.len()];
    let busy: Vec<usize> = (0..claims.len()).filter(|at| !claims[*at].is_idle()).collect();
    let mut seats = seat(&busy, budget, |at| least(&claims[at]), 0);
    if !seats.is_empty() && seats.len() < busy.len() {
        let first = u128::from(turn) * seats.len() as u128 % busy.len() as u128;
        seats = seat(&busy, budget, |at| least(&claims[at]), usize::try_from(first).unwrap_or(0));
    }
    for at in &seats {
        floors[*at] = least(&claims[*at]);
    }
    let idle: Vec<usize> = (0..claims.len()).filter(|at| claims[*at].is_idle()).collect();
    let taken = floors.iter().fold(Sizes::NONE, |sum, floor| sum.plus(floor));
    let for_idle = Sizes::by(|meter| part_of_limit(budget, meter).min(budget.minus(&taken).of(meter)));
    for at in seat(&idle, &for_idle, |at| least(&claims[at]), 0) {
        floors[at] = least(&claims[at]);
    }
    let seated_idle: Vec<usize> = idle.into_iter().filter(|at| !floors[*at].is_none()).collect();
    let mut shares = floors.clone();
    for meter in Meter::ALL {
        if budget.of(meter) == NO_LIMIT {
            shares.iter_mut().for_each(|share| share.set(meter, NO_LIMIT));
            continue;
        }
        let even = |ats: &[usize], most: u64| {
            let wants = ats.iter().map(|at| Want { weight: 1, floor: floors[*at].of(meter), cap: most });
            fill(most, &wants.collect::<Vec<_>>())
        };
        for (at, size) in seated_idle.iter().zip(even(&seated_idle, for_idle.of(meter))) {
            shares[*at].set(meter, size);
        }
        let idle_sum: u64 = seated_idle.iter().map(|at| shares[*at].of(meter)).sum();
        let room = budget.of(meter) - idle_sum;
        let wants = |headroom: u64, floor: &dyn Fn(usize) -> u64| -> Vec<Want> {
            let want = |at: &usize| {
                let (claim, floor) = (&claims[*at], floor(*at));
                let wanted = claim.wanted.of(meter);
                let cap = wanted.saturating_add(wanted / headroom).clamp(floor, room.max(floor));
                Want { weight: claim.weight.clamp(1, WEIGHT_MAX), floor, cap }
            };
            seats.iter().map(want).collect()
        };
        let mut sizes = fill(room, &wants(NO_LIMIT, &|at| floors[at].of(meter)));
        if sizes.iter().sum::<u64>() < room {
            for (at, size) in seats.iter().zip(&sizes) {
                shares[*at].set(meter, *size);
            }
            sizes = fill(room, &wants(HEADROOM_OF, &|at| shares[at].of(meter)));
        }
        for (at, size) in seats.iter().zip(sizes) {
            shares[*at].set(meter, size);
        }
    }
    shares
}

/// At how many requests a minute each is to begin what it has: its share, and what these leave of the budget is shared in the
/// same way by those who want something, or by all if nobody does. What somebody wants is a count, and needs no minute.
pub(super) fn paces(budget: &Sizes, shares: &[Sizes], claims: &[Claim]) -> Vec<u64> {
    let share = |share: &Sizes| share.of(Meter::Requests);
    let Some(limit) = budget.limit(Meter::Requests) else { return shares.iter().map(share).collect() };
    let is_calm = claims.iter().all(Claim::is_idle);
    let want = |(claim, floor): (&Claim, u64)| {
        let cap = if floor > 0 && (is_calm || !claim.is_idle()) { limit } else { floor };
        Want { weight: claim.weight.clamp(1, WEIGHT_MAX), floor, cap }
    };
    fill(limit, &claims.iter().zip(shares.iter().map(share)).map(want).collect::<Vec<_>>())
}

fn part_of_limit(budget: &Sizes, meter: Meter) -> u64 {
    budget.limit(meter).map_or(NO_LIMIT, |limit| limit / IDLE_PART_OF)
}

/// Those of `among`, from the `first`, for whom their least is there, in the order of `among`.
fn seat(among: &[usize], budget: &Sizes, least: impl Fn(usize) -> Sizes, first: usize) -> Vec<usize> {
    let mut left = *budget;
    let mut seats: Vec<usize> = Vec::new();
    for at in among[first.min(among.len())..].iter().chain(&among[..first.min(among.len())]) {
        let need = least(*at);
        if need.fits(&left) {
            left = left.minus(&need);
            seats.push(*at);
        }
    }
    seats.sort_unstable();
    seats
}

struct Want {
    weight: u64,
    floor: u64,
    cap: u64,
}

impl Want {
    fn at(&self, level: u128) -> u64 {
        let share = level.saturating_mul(u128::from(self.weight)) / FINE;
        u64::try_from(share).unwrap_or(u64::MAX).clamp(self.floor, self.cap.max(self.floor))
    }
}

/// The highest level of the water at which nothing spills, and what does not divide in units to the first ones.
/// The floors fit, or everybody gets just its floor.
fn fill(room: u64, wants: &[Want]) -> Vec<u64> {
    let sum = |level: u128| wants.iter().map(|want| u128::from(want.at(level))).sum::<u128>();
    let (mut low, mut high) = (0u128, u128::from(room).saturating_mul(FINE) + FINE);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if sum(middle) <= u128::from(room) { low = middle } else { high = middle - 1 }
    }
    let mut sizes: Vec<u64> = wants.iter().map(|want| want.at(low)).collect();
    let given: u128 = sizes.iter().map(|size| u128::from(*size)).sum();
    let mut left = u128::from(room).saturating_sub(given);
    let mut unmet = true;
    while left > 0 && unmet {
        unmet = false;
        // Those who would be next to have a whole unit: less than their share at this level, and not at their cap.
        for (want, size) in wants.iter().zip(&mut sizes) {
            if left > 0 && *size < want.cap && want.at(low + 1) > *size {
                (*size, left, unmet) = (*size + 1, left - 1, true);
            }
        }
        if !unmet {
            return sizes;
        }
        low += 1;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wants(wanted: u64) -> Claim {
        Claim { weight: 1, wanted: Sizes::new(wanted, 0, 0, wanted), least: Sizes::NONE }
    }

    fn requests(budget: u64, claims: &[Claim], turn: u64) -> Vec<u64> {
        let budget = Sizes::new(budget, NO_LIMIT, NO_LIMIT, NO_LIMIT);
        shares(&budget, claims, turn).iter().map(|share| share.of(Meter::Requests)).collect()
    }

    #[test]
    fn whoever_gets_less_than_it_wants_gets_as_much_as_the_others() {
        assert_eq!(requests(100, &[wants(8), wants(900), wants(900)], 0), [8, 46, 46]);
        assert_eq!(requests(100, &[wants(900), wants(900), wants(900)], 0), [34, 33, 33]);
        assert_eq!(requests(100, &[wants(8), wants(8)], 0), [10, 10]);
        let heavy = Claim { weight: 3, ..wants(900) };
        assert_eq!(requests(100, &[wants(900), heavy], 0), [25, 75]);
    }

    #[test]
    fn the_idle_have_a_little_between_them() {
        assert_eq!(requests(640, &[wants(0), wants(9_000), wants(0)], 0), [5, 630, 5]);
        assert_eq!(requests(640, &[wants(0), wants(0)], 0), [5, 5]);
        assert_eq!(requests(31, &[wants(0), wants(9_000)], 0), [0, 31]);
    }

    #[test]
    fn a_slice_is_large_enough_for_a_request_or_waits_for_its_turn() {
        let large = Claim { weight: 1, wanted: Sizes::new(90, 90_000, 0, 90), least: Sizes::new(1, 400, 0, 1) };
        let budget = Sizes::new(60, 1_000, NO_LIMIT, 8);
        let input = |turn| -> Vec<u64> {
            shares(&budget, &[large; 5], turn).iter().map(|share| share.of(Meter::InputTokens)).collect()
        };
        assert_eq!(input(0), [500, 500, 0, 0, 0]);
        assert_eq!(input(1), [0, 0, 500, 500, 0]);
        assert_eq!(input(2), [500, 0, 0, 0, 500]);
        let too_large = Claim { least: Sizes::new(1, 5_000, 0, 1), ..large };
        assert_eq!(shares(&budget, &[too_large], 0)[0].of(Meter::InputTokens), 1_000);
    }

    #[test]
    fn the_whole_rate_is_given_out_to_those_who_want_something_or_to_all_while_nobody_does() {
        let budget = Sizes::new(3_000, NO_LIMIT, NO_LIMIT, NO_LIMIT);
        let paced = |wanted: &[u64]| {
            let claims: Vec<Claim> = wanted.iter().map(|wanted| wants(*wanted)).collect();
            paces(&budget, &shares(&budget, &claims, 0), &claims)
        };
        assert_eq!(paced(&[600, 600, 600]), [1_000; 3]);
        assert_eq!(paced(&[0, 0, 0]), [1_000; 3]);
        let [busy, idle] = paced(&[30, 0])[..] else { panic!("one each") };
        assert!(busy + idle == 3_000 && (1..100).contains(&idle), "{busy} and {idle}");
        let [small, large] = paced(&[30, 9_000])[..] else { panic!("one each") };
        assert_eq!((small, large), (30, 2_970), "where all of it is wanted a pace is a share");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn shares_fit_the_budget_and_are_fair(
            budget in prop::array::uniform4(prop_oneof![0u64..50, 0u64..100_000, Just(NO_LIMIT)]),
            claims in prop::collection::vec(
                (1u64..5, prop::array::uniform4(0u64..60_000), prop::array::uniform4(0u64..40)), 0..12),
            turn in 0u64..9,
        ) {
            let sizes = |[a, b, c, d]: [u64; 4]| Sizes::new(a, b, c, d);
            let budget = sizes(budget);
            let claims: Vec<Claim> = claims
                .into_iter()
                .map(|(weight, wanted, least)| Claim { weight, wanted: sizes(wanted), least: sizes(least) })
                .collect();
            let shares = shares(&budget, &claims, turn);
            for meter in Meter::ALL.into_iter().filter(|meter| budget.limit(*meter).is_some()) {
                let sum: u64 = shares.iter().map(|share| share.of(meter)).sum();
                prop_assert!(sum <= budget.of(meter), "{meter:?}: {shares:?}");
                // Whoever gets less than it wants has no less for its weight than anybody above its floor.
                for (poor, claim) in shares.iter().zip(&claims) {
                    let short = poor.of(meter) < claim.wanted.of(meter) && poor.of(meter) > claim.least.of(meter);
                    for (rich, other) in shares.iter().zip(&claims) {
                        if short && !other.wanted.is_none() && rich.of(meter) > other.least.of(meter).max(1) {
                            let (own, theirs) = (poor.of(meter) + 1, rich.of(meter) - 1);
                            prop_assert!(
                                own * other.weight + claim.weight * other.weight >= theirs * claim.weight,
                                "{meter:?} {claims:?} {shares:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}
