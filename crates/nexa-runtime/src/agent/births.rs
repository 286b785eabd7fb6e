//! Which children are born on their parent's node.
//!
//! Those that it suits, in order, as far as there is room for births. The members of a gang all are, or none: whoever leads
//! then finds room for all of them at once.

use nexa_event::asks::Asks;
use nexa_ports::neighbours::Neighbours;

/// Of agents that ask for this, which are born here. Members of one gang stand beside each other.
pub(super) fn here(asks: &[Option<&Asks>], neighbours: &dyn Neighbours) -> Vec<bool> {
    if asks.is_empty() {
        return Vec::new();
    }
    let families: Vec<&[Option<&Asks>]> =
        asks.chunk_by(|one, other| gang(*one).is_some() && gang(*one) == gang(*other)).collect();
    let suits: Vec<bool> =
        families.iter().map(|family| family.iter().flatten().all(|asks| neighbours.suits(asks))).collect();
    let wanted = families.iter().zip(&suits).filter(|(_, suits)| **suits).map(|(family, _)| family.len()).sum();
    let mut room = if wanted == 0 { 0 } else { neighbours.room(wanted) };
    let mut here = Vec::with_capacity(asks.len());
    for (family, suits) in families.iter().zip(suits) {
        let is_here = suits && family.len() <= room;
        if is_here {
            room -= family.len();
        }
        here.extend(family.iter().map(|_| is_here));
    }
    here
}

fn gang(asks: Option<&Asks>) -> Option<&str> {
    Some(asks?.gang.as_ref()?.name.as_str())
}

#[cfg(test)]
mod tests {
    use nexa_event::asks::Gang;
    use nexa_ports::neighbours::Carried;
    use nexa_types::{AgentId, EffectKey, NodeId};

    use super::*;

    /// A node in the zone `eu` with so much room.
    struct Eu(usize);

    impl Neighbours for Eu {
        fn wake(&self, _: &NodeId, _: &[AgentId]) {}

        fn unplaced(&self, _: &[AgentId]) {}

        fn room(&self, wanted: usize) -> usize {
            self.0.min(wanted)
        }

        fn suits(&self, asks: &Asks) -> bool {
            asks.labels.iter().all(|(name, value)| (name.as_str(), value.as_str()) == ("zone", "eu"))
        }

        fn deliver(&self, _: &NodeId, _: &Carried) {}

        fn recorded(&self, _: &NodeId, _: AgentId, _: EffectKey) {}
    }

    fn zone(of: &str) -> Option<Asks> {
        Some(Asks { labels: [("zone".to_owned(), of.to_owned())].into(), ..Asks::default() })
    }

    fn member(gang: &str, of: Option<Asks>) -> Option<Asks> {
        let gang = Some(Gang { name: gang.to_owned(), members: 2 });
        Some(Asks { gang, ..of.unwrap_or_default() })
    }

    fn born(asks: &[Option<Asks>], room: usize) -> Vec<bool> {
        here(&asks.iter().map(Option::as_ref).collect::<Vec<_>>(), &Eu(room))
    }

    #[test]
    fn children_are_born_where_they_suit_and_as_many_as_there_is_room_for() {
        assert!(born(&[], 5).is_empty());
        assert_eq!(born(&[None, zone("us"), zone("eu"), None], 9), [true, false, true, true]);
        assert_eq!(born(&[None, zone("us"), zone("eu"), None], 2), [true, false, true, false]);
    }

    #[test]
    fn members_of_a_gang_are_born_here_together_or_not_at_all() {
        let (g, h) = (|of| member("g", of), |of| member("h", of));
        assert_eq!(born(&[g(None), g(zone("us")), h(None), h(zone("eu"))], 9), [false, false, true, true]);
        assert_eq!(born(&[g(None), g(None), None, h(None), h(None)], 3), [true, true, true, false, false]);
        assert_eq!(born(&[g(None), g(None), None], 1), [false, false, true]);
    }
}
