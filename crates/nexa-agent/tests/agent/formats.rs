//! The snapshot's bytes: the same for ever, and no danger in a stranger's.

use expect_test::expect;
use nexa_agent::{Agent, Input, SnapshotError};
use nexa_event::codec;
use nexa_event::fact::{self, OnFailure};
use nexa_types::{Budget, Epoch, InputId, NodeId, Seq};
use proptest::prelude::*;

use crate::desk::{Desk, NOON, bill, tokens};
use crate::lists::item;
use crate::program::{Act, program};

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(48).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

fn functions() -> Vec<Vec<Act>> {
    vec![vec![Act::Argument]]
}

/// A list in the middle: one agent has ended, one runs, one waits.
fn frozen_list() -> Vec<u8> {
    let items = vec![item("a", &[]), item("b", &[0]), item("c", &[1])];
    let mut desk = Desk::list(items, OnFailure::SkipDependents, tokens(900));
    let answer = nexa_types::Outcome::Ok(nexa_vm::codec::encode(&nexa_vm::value::Value::Int(7)));
    desk.starts().child_ends(1, 0, answer, bill(10, 20));
    desk.root().agent.snapshot()
}

#[test]
fn golden_snapshot_of_a_list() {
    let bytes = frozen_list();
    expect![[r#"
        4e58413185015018bcfd157c4ad668392e8270a2fbf99e895001010101010101010101010101010101646d61696ef682
        01835820e7b48f378c48e873a304d6502f362367bfa7f3e812b3df7b23d1dc3a4d7f3607838561610048010705666f72
        206180808561620048010705666f7220628100808561630048010705666f7220638101800181190384f6182a0018648b
        01051a000f42401a000f4240f4f6a1028301818350a8d00888119b44bd95d6381ae0f50e68811901b3f4018581190384
        850a140001008400000000841901b300000084000001000000f482018183838202818200814301040e820180820080a2
        018100028101039307252c11c90efe875d94c25aaf2d9a"#]]
    .assert_eq(&hex(&bytes));
    let agent = Agent::restore(&bytes, program(&functions())).expect("this build reads format 1");
    assert_eq!((agent.version().0, agent.spend()), (5, bill(10, 20)));
}

/// A checksum that fits, so that what is behind it is reached.
fn sealed(mut content: Vec<u8>) -> Vec<u8> {
    let check = blake3::hash(&content);
    content.extend(&check.as_bytes()[..16]);
    content
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let mut content = b"NXA1".to_vec();
    content.extend(codec::encode(&(2u16, "something new")));
    let error = Agent::restore(&sealed(content), program(&functions())).expect_err("it is newer");
    assert_eq!(error, SnapshotError::NewerFormat { found: 2 });
}

#[test]
fn another_module_is_refused() {
    let error = Agent::restore(&frozen_list(), program(&[vec![Act::Fail]])).expect_err("another module");
    assert!(matches!(error, SnapshotError::Module(_)), "{error}");
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    let bytes = frozen_list();
    let program = program(&functions());
    for len in 0..bytes.len() {
        assert!(Agent::restore(&bytes[..len], program.clone()).is_err());
    }
    for index in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[index] ^= 1 << (index % 8);
        assert!(Agent::restore(&changed, program.clone()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_give_an_error_or_an_agent_that_can_be_ended(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        list in any::<bool>(),
    ) {
        let functions = vec![vec![Act::Ask(10), Act::Sleep(5)]];
        let (bytes, program) = if list {
            (frozen_list(), program(&self::functions()))
        } else {
            let mut desk = Desk::with(&functions, |born| born.budget = Budget { calls: Some(3), ..tokens(500) });
            desk.starts();
            (desk.root().agent.snapshot(), program(&functions))
        };
        let mut content = bytes[..bytes.len() - 16].to_vec();
        for (index, byte) in changes {
            let index = index.index(content.len());
            content[index] = byte;
        }
        if let Some(cut) = cut {
            content.truncate(cut.index(content.len()));
        }
        if let Ok(mut agent) = Agent::restore(&sealed(content), program) {
            // Whatever it says, it can be looked at, frozen again, and brought further.
            let _ = (agent.state(), agent.due(), agent.wish(NOON), agent.snapshot().len());
            let epoch = Epoch(agent.epoch().0 + 1);
            agent.step(Input::TakeOver { node: NodeId::new("n1").expect("a name"), epoch }, NOON, 100);
            agent.start_effect(Seq(1));
            agent.step(Input::Due, NOON, 100);
            let (seq, result) = (Seq(1), Desk::reply("x", bill(1, 1)));
            agent.step(Input::EffectEnded { seq, attempt: 1, result, spend: bill(1, 1) }, NOON, 100);
            let (seq, outcome) = (Seq(2), nexa_types::Outcome::Ok(nexa_vm::codec::encode(&nexa_vm::value::Value::Unit)));
            let ended = fact::Input::ChildEnded { seq, branch: 0, outcome, spend: bill(1, 1), handed_over: None };
            agent.step(Input::Inbox(InputId::from_bytes([1; 16]), ended), NOON, 100);
            let cancel = fact::Input::Cancel { reason: "enough".to_owned(), epoch };
            agent.step(Input::Inbox(InputId::from_bytes([2; 16]), cancel), NOON, 100);
        }
    }
}
