//! The snapshot's bytes: the same for ever, and no danger in a stranger's.

use expect_test::expect;
use nexa_agent::{Agent, Input, SnapshotError};
use nexa_event::codec;
use nexa_event::fact::{self, OnFailure, Spawned};
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
fn frozen_list() -> (Spawned, Vec<u8>) {
    let items = vec![item("a", &[]), item("b", &[0]), item("c", &[1])];
    let mut desk = Desk::list(items, OnFailure::SkipDependents, tokens(900));
    let answer = nexa_types::Outcome::Ok(nexa_vm::codec::encode(&nexa_vm::value::Value::Int(7)));
    desk.starts().child_ends(1, 0, answer, bill(10, 20));
    frozen(&desk)
}

/// The root's first event and its snapshot.
fn frozen(desk: &Desk) -> (Spawned, Vec<u8>) {
    let agent = &desk.root().agent;
    (agent.spawned().clone(), agent.snapshot())
}

#[test]
fn golden_snapshot_of_a_list() {
    let (first, bytes) = frozen_list();
    expect![[r#"
        4e58413185015018bcfd157c4ad668392e8270a2fbf99e895001010101010101010101010101010101646d61696ef682
        01835820e7b48f378c48e873a304d6502f362367bfa7f3e812b3df7b23d1dc3a4d7f3607800181190384f6182a001864
        8b01051a000f42401a000f4240f4f6a1028301818350a8d00888119b44bd95d6381ae0f50e68811901b3f40185811903
        84850a140001008400000000841901b300000084000001000000f482018183838202818200814301040e820180820080
        a2018100028101037ad78a96c9df51c4a82b17d77d3fa586"#]]
    .assert_eq(&hex(&bytes));
    let agent = Agent::restore(&bytes, &first, program(&functions())).expect("this build reads format 1");
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
    let error = Agent::restore(&sealed(content), &frozen_list().0, program(&functions())).expect_err("it is newer");
    assert_eq!(error, SnapshotError::NewerFormat { found: 2 });
}

#[test]
fn another_module_is_refused() {
    let (first, bytes) = frozen_list();
    let error = Agent::restore(&bytes, &first, program(&[vec![Act::Fail]])).expect_err("another module");
    assert!(matches!(error, SnapshotError::Module(_)), "{error}");
}

#[test]
fn another_birth_is_refused() {
    let (first, bytes) = frozen_list();
    let other = Spawned { seed: first.seed + 1, ..first.clone() };
    let error = Agent::restore(&bytes, &other, program(&functions())).expect_err("another agent's");
    assert_eq!(error.to_string(), "the snapshot of the agent is damaged: it is of an agent that was born otherwise");
    assert!(Agent::restore(&bytes, &first, program(&functions())).is_ok());
}

/// As builds wrote it that repeated the whole first event in every snapshot: the same agent.
#[test]
fn a_snapshot_with_its_whole_birth_is_read() {
    let old = concat!(
        "4e58413185015018bcfd157c4ad668392e8270a2fbf99e895001010101010101010101010101010101646d61696ef6820183",
        "5820e7b48f378c48e873a304d6502f362367bfa7f3e812b3df7b23d1dc3a4d7f3607838561610048010705666f7220618080",
        "8561620048010705666f7220628100808561630048010705666f7220638101800181190384f6182a0018648b01051a000f42",
        "401a000f4240f4f6a1028301818350a8d00888119b44bd95d6381ae0f50e68811901b3f4018581190384850a140001008400",
        "000000841901b300000084000001000000f482018183838202818200814301040e820180820080a201810002810103930725",
        "2c11c90efe875d94c25aaf2d9a",
    );
    let bytes: Vec<u8> = (0..old.len() / 2)
        .map(|at| u8::from_str_radix(&old[2 * at..2 * at + 2], 16).expect("hexadecimal digits"))
        .collect();
    let (first, new) = frozen_list();
    let agent = Agent::restore(&bytes, &first, program(&functions())).expect("this build reads it");
    assert_eq!(agent.snapshot(), new);
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    let (first, bytes) = frozen_list();
    let program = program(&functions());
    for len in 0..bytes.len() {
        assert!(Agent::restore(&bytes[..len], &first, program.clone()).is_err());
    }
    for index in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[index] ^= 1 << (index % 8);
        assert!(Agent::restore(&changed, &first, program.clone()).is_err());
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
        let ((first, bytes), program) = if list {
            (frozen_list(), program(&self::functions()))
        } else {
            let mut desk = Desk::with(&functions, |born| born.budget = Budget { calls: Some(3), ..tokens(500) });
            desk.starts();
            (frozen(&desk), program(&functions))
        };
        let mut content = bytes[..bytes.len() - 16].to_vec();
        for (index, byte) in changes {
            let index = index.index(content.len());
            content[index] = byte;
        }
        if let Some(cut) = cut {
            content.truncate(cut.index(content.len()));
        }
        if let Ok(mut agent) = Agent::restore(&sealed(content), &first, program) {
            // Whatever it says, it can be looked at, frozen again, and brought further.
            let _ = (agent.state(), agent.due(), agent.wish(NOON), agent.snapshot().len());
            let epoch = Epoch(agent.epoch().0 + 1);
            agent.step(Input::TakeOver { node: NodeId::new("n1").expect("a name"), epoch, carried: None }, NOON, 100);
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
