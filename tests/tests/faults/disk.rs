//! A disk that fails under a node by itself.

use std::path::Path;

use nexa_tests::{Desk, Process, nexa_path};

use crate::text;

/// Bytes of each input, so that few of them are more than [`WRITE_MAX`] lets through.
const INPUT_BYTES: usize = 60_000;
/// More of them are never needed.
const SUBMITTED_MAX: usize = 400;
/// A write beyond 4,096 blocks of 512 bytes fails with an error that is not about room, and so does every later one.
const WRITE_MAX: &str = "trap '' XFSZ; ulimit -f 4096; exec \"$@\"";

fn serve(desk: &Desk, before: &[&str]) -> (Process, String) {
    let (nexa, data) = (nexa_path(), desk.path("data"));
    let args = ["serve", "--name", "n1", "--store", text(&data), "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let all: Vec<&str> = before.iter().copied().chain([text(&nexa)]).chain(args).chain(["-o", "json"]).collect();
    let mut node = Process::start(desk.nexa_from(Path::new(all[0]), &all[1..]));
    let line = node.wait_for_line(|line| line.contains("\"grpc\""));
    let said: serde_json::Value = serde_json::from_str(&line).expect("`-o json` prints one object");
    let address = said["grpc"].as_str().expect("it says where it serves").to_owned();
    (node, address)
}

/// Shown first by power cuts: a node whose writes failed stayed, and refused everything until somebody restarted it.
#[test]
fn a_node_whose_disk_fails_ends_with_8_and_has_at_its_next_start_what_it_acknowledged() {
    let desk = Desk::new();
    let program = desk.write("keep.nx", "flow main(words: str) -> str { return words }\n");
    let (mut node, door) = serve(&desk, &["sh", "-c", WRITE_MAX, "sh"]);
    let mut acknowledged = Vec::new();
    for number in 0..SUBMITTED_MAX {
        let input = format!("\"{number}{}\"", "x".repeat(INPUT_BYTES));
        let finished = desk.run(&["submit", text(&program), "--input", &input, "--server", &door]);
        if !finished.status.success() {
            break;
        }
        acknowledged.push(finished.out.trim().to_owned());
    }
    assert!((2..SUBMITTED_MAX).contains(&acknowledged.len()), "{} were acknowledged", acknowledged.len());
    let status = node.wait();
    let err = node.rest_of_err();
    assert_eq!(status.code(), Some(8), "{err}");
    assert!(err.contains("the store takes no more writes") && err.contains("start the node again"), "{err}");
    assert!(!err.contains("panicked"), "{err}");

    let (mut node, door) = serve(&desk, &[]);
    for workload in &acknowledged {
        let said = desk.run(&["watch", workload, "--server", &door]).good();
        assert!(said.contains("xxx"), "{workload} has not ended with its value: {said}");
    }
    node.signal("TERM");
    assert!(node.wait().success());
}
