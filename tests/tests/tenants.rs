//! Several tenants on one node: who comes in, and what they see of each other.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nexa_tests::{Desk, Finished, Server};

/// Waits for nobody, so that it ends by itself.
const PROGRAM: &str = "flow main(topic: str) -> str { return topic }\n";

/// A file with a token, for its owner only.
fn secret(desk: &Desk, name: &str, text: &str, mode: u32) -> String {
    let path = desk.write(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("the owner may");
    path.to_str().expect("a plain path").to_owned()
}

fn line(token: &str, who: &str) -> String {
    format!("{} {who}\n", blake3::hash(token.as_bytes()).to_hex())
}

/// A node with three principals of two tenants, and the file with the token of each.
fn house(desk: &Desk) -> (Server, [String; 3]) {
    let known =
        line("token of ann", "acme ann full") + &line("of bob", "acme bob read") + &line("of cat", "birch cat full");
    let known = secret(desk, "tokens", &known, 0o600);
    let shown = [("ann", "token of ann\n"), ("bob", "of bob"), ("cat", "of cat")];
    (desk.dev(&["--tokens", &known]), shown.map(|(name, token)| secret(desk, name, token, 0o600)))
}

fn ask(desk: &Desk, server: &Server, token: Option<&str>, args: &[&str]) -> Finished {
    let mut all = args.to_vec();
    all.extend(["--server", &server.address]);
    all.extend(token.iter().flat_map(|token| ["--token-file", token]));
    desk.run(&all)
}

fn submit(desk: &Desk, server: &Server, token: &str, program: &Path) -> Finished {
    let program = program.to_str().expect("a plain path");
    ask(desk, server, Some(token), &["submit", program, "--input", "\"rain\"", "--watch", "-o", "json"])
}

#[test]
fn who_shows_no_token_or_a_wrong_one_is_told_nothing() {
    let desk = Desk::new();
    let (server, _) = house(&desk);
    let wrong = secret(&desk, "wrong", "of nobody", 0o600);
    let mut told = Vec::new();
    for token in [None, Some(wrong.as_str())] {
        let (code, err) = ask(&desk, &server, token, &["ps"]).bad();
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("who is asking is not known") && err.contains("Bearer TOKEN"), "{err}");
        told.push(err);
    }
    assert_eq!(told[0], told[1], "neither tells whether a token is missing or wrong");
}

#[test]
fn tenants_see_nothing_of_each_other_and_a_reader_changes_nothing() {
    let desk = Desk::new();
    let (server, [ann, bob, cat]) = house(&desk);
    let program = desk.write("rain.nx", PROGRAM);
    let out = submit(&desk, &server, &ann, &program).good();
    let last: serde_json::Value = serde_json::from_str(out.lines().last().expect("an end")).expect("JSON");
    let workload =
        last["workload"]["id"].as_str().or(last["workload"]["workload_id"].as_str()).expect("an id").to_owned();

    let seen = |token: &str| ask(&desk, &server, Some(token), &["ps", "-o", "json"]).good();
    assert!(seen(&ann).contains(&workload) && seen(&bob).contains(&workload), "they share a tenant");
    assert_eq!(seen(&cat), "", "another tenant has none");
    for args in [["ps", &workload], ["watch", &workload], ["logs", &workload], ["cancel", &workload]] {
        let (code, err) = ask(&desk, &server, Some(&cat), &args).bad();
        assert!(code == 4 && err.contains("there is no workload"), "{args:?}: {code} {err}");
    }
    let (_, err) = submit(&desk, &server, &bob, &program).bad();
    assert!(err.contains("`bob` may not"), "{err}");
    // The same program is another tenant's own.
    submit(&desk, &server, &cat, &program).good();
    assert!(!seen(&cat).contains(&workload));
}

#[test]
fn a_token_file_that_others_can_change_or_that_is_wrong_keeps_the_node_from_starting() {
    let desk = Desk::new();
    let good = line("of ann", "acme ann full");
    for (text, mode, says) in [
        (good.as_str(), 0o666, "chmod 600"),
        ("", 0o600, "nobody could come in"),
        ("not a token\n", 0o600, "line 1 of the token file is wrong"),
    ] {
        let file = secret(&desk, "tokens", text, mode);
        let (code, err) = desk.run(&["dev", "--listen", "127.0.0.1:0", "--tokens", &file]).bad();
        assert!(code == 1 && err.contains(says) && err.contains("nexa help dev"), "{err}");
    }
}
