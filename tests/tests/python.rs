//! A client in another language: generated from `proto/` by grpcio-tools, against a running node.

use std::process::{Command, Stdio};

use nexa_tests::{Desk, finish, root};

#[test]
fn a_generated_python_client_submits_watches_resumes_and_cancels() {
    // `cargo xtask test` makes the environment; a plain `cargo test` on a laptop may lack it.
    let Some(python) = std::env::var_os("NEXA_TEST_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "NEXA_TEST_PYTHON is not set; run `cargo xtask test`");
        eprintln!("skipped: no Python with grpcio; `cargo xtask test` makes one");
        return;
    };
    let desk = Desk::new();
    let server = desk.dev(&[]);
    let mut command = Command::new(python);
    command
        .args(["tests/python/client_test.py", &server.address])
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    print!("{}", finish(command).good());
}
