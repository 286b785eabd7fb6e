//! Placing one agent.

use nexa_sched::{Labels, NodeFree, Resources, place_one};
use proptest::prelude::*;

use crate::world::{Dice, STRATEGIES};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// There is an answer just when some node has room and labels, it is such a node, and it depends on nothing else.
    #[test]
    fn an_agent_goes_where_there_is_room_if_there_is(seed: u64, nodes in 0usize..40, scarce in 0u64..10, dice: u64) {
        let mut draw = Dice(seed);
        let labels = [Labels::new(), Labels::from([("gpu".to_owned(), "yes".to_owned())])];
        let some = |draw: &mut Dice, most: u64| Resources {
            cpu_milli: draw.within(0, most),
            memory_bytes: draw.within(0, most),
            llm_slots: draw.within(0, most),
        };
        let nodes: Vec<NodeFree<'_>> = (0..nodes)
            .map(|_| NodeFree {
                free: some(&mut draw, 10 - scarce),
                capacity: some(&mut draw, 20),
                speed: draw.within(0, 400) as u32,
                cost: draw.within(0, 2_000_000),
                run_queue: draw.within(0, 100),
                is_open: !draw.is_one_in(4),
                labels: &labels[draw.within(0, 1) as usize],
            })
            .collect();
        let (demand, wanted) = (some(&mut draw, 10), &labels[draw.within(0, 1) as usize]);
        for strategy in STRATEGIES {
            let place = place_one(&nodes, &demand, wanted, strategy, dice);
            prop_assert_eq!(place, place_one(&nodes, &demand, wanted, strategy, dice));
            match place {
                Some(node) => prop_assert!(nodes[node as usize].takes(&demand, wanted)),
                None => prop_assert!(!nodes.iter().any(|node| node.takes(&demand, wanted))),
            }
        }
    }
}
