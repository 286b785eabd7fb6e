//! What operators type, word for word: on a node without others.

use expect_test::expect;
use nexa_tests::{Desk, Finished, Process, Server, normalised};

/// Types a command, and gives what it shows.
fn typed(desk: &Desk, server: &Server, args: &[&str]) -> String {
    let mut all = args.to_vec();
    all.extend(["--server", &server.address]);
    let Finished { status, out, err } = desk.run(&all);
    let mut shown = format!("$ nexa {}\n{out}", args.join(" "));
    for line in err.lines() {
        shown += &format!("! {line}\n");
    }
    if let Some(code) = status.code().filter(|code| *code != 0) {
        shown += &format!("(exit {code})\n");
    }
    let port = server.address.rsplit(':').next().expect("an address has a port");
    normalised(&shown.replace(port, "PORT"))
}

#[test]
fn a_node_without_others_says_so() {
    let desk = Desk::new();
    let server = desk.dev(&[]);
    let out = desk.run(&["nodes", "-o", "json", "--server", &server.address]).good();
    let node: serde_json::Value = serde_json::from_str(&out).expect("one object a line");
    assert_eq!(
        (&node["node"], &node["state"], &node["door"]),
        (&"local".into(), &"ready".into(), &server.ready["grpc"])
    );
    assert!(node["load"]["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{node}");
    let out = desk.run(&["nodes", "--server", &server.address]).good();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(
        words[..14].join(" "),
        "NODE STATE AGENTS AT WORK MODEL CALLS MEMORY LAG DOOR local ready, leads 0",
        "{out}"
    );
    let mut shown = String::new();
    for args in [
        &["cordon", "local"][..],
        &["uncordon", "local"],
        &["drain", "local", "--wait"],
        &["drain", "b"],
        &["migrate", "a-00000000000000000000000000000000"],
        &["rebalance"],
        &["formats"],
        &["formats", "raise"],
        &["formats", "raise", "--to", "4"],
    ] {
        shown += &typed(&desk, &server, args);
    }
    expect![[r#"
        $ nexa cordon local
        ! error: this node runs alone, so there is no other
        ! help: start more of them: see docs/cluster.md
        (exit 1)
        $ nexa uncordon local
        local takes agents again
        $ nexa drain local --wait
        ! error: this node runs alone, so there is no other
        ! help: start more of them: see docs/cluster.md
        (exit 1)
        $ nexa drain b
        ! error: there is no node `b`
        ! help: `nexa nodes` lists them
        (exit 4)
        $ nexa migrate a-1
        ! error: there is no agent `a-1`
        (exit 4)
        $ nexa rebalance
        agents move from nodes with more than their share to those with less
        $ nexa formats
        NODE   READS
        local  3
        format 3 is written, the newest that every node reads
        $ nexa formats raise
        format 3 is written
        $ nexa formats raise --to 4
        ! error: not every node reads format 4: node local reads formats up to 3
        ! help: upgrade that node, or take it away, and ask again; `nexa formats` says what each reads
        (exit 1)
    "#]]
    .assert_eq(&shown);
}

#[test]
fn a_door_with_a_certificate_is_reached_over_tls_and_no_other_way() {
    let desk = Desk::new();
    let pki = desk.path("pki");
    let file = |name: &str| pki.join(name).to_str().expect("a plain path").to_owned();
    let folder = pki.to_str().expect("a plain path");
    desk.run(&["certs", "--out", folder, "a=127.0.0.1", "b=192.0.2.1"]).good();
    let (data, tls) = (desk.path("data"), [file("a.pem"), file("a.key")]);
    let serve = |more: &[&str]| {
        let data = data.to_str().expect("a plain path");
        let mut args = vec!["serve", "--name", "a", "--store", data, "--metrics", "127.0.0.1:0", "-o", "json"];
        args.extend(more);
        desk.nexa(&args)
    };
    // Where others can reach it, it needs TLS, or somebody who says otherwise.
    let (code, err) = nexa_tests::finish(serve(&["--listen", "0.0.0.0:0"])).bad();
    assert!(code != 0 && err.contains("--tls-cert") && err.contains("not a loopback address"), "{err}");
    let (_, err) = nexa_tests::finish(serve(&["--tls-cert", &tls[0]])).bad();
    assert!(err.contains("--tls-key"), "{err}");
    let (_, err) = nexa_tests::finish(serve(&["--tls-cert", &tls[0], "--tls-key", &tls[0]])).bad();
    assert!(err.contains("certificate and key cannot be used"), "{err}");

    let mut process = Process::start(serve(&["--listen", "0.0.0.0:0", "--tls-cert", &tls[0], "--tls-key", &tls[1]]));
    let line = process.wait_for_line(|line| line.contains("\"grpc\""));
    let ready: serde_json::Value = serde_json::from_str(&line).expect("one object");
    let told = ready["grpc"].as_str().expect("an address");
    let port = told.strip_prefix("https://0.0.0.0:").expect("it says how it is reached");
    let nodes = |server: String, more: &[&str]| {
        let mut args = vec!["nodes", "--server", &server];
        args.extend(more);
        desk.run(&args)
    };
    let (ca, other) = (file("ca.pem"), file("b.pem"));
    assert!(nodes(format!("https://127.0.0.1:{port}"), &["--tls-ca", &ca]).good().contains("ready"));
    let (_, err) = nodes(format!("https://127.0.0.1:{port}"), &[]).bad();
    assert!(err.contains("needs the certificate of the authority"), "{err}");
    // Another authority than the one that signed it, another name than the one that it has, no TLS.
    for (server, more) in [
        (format!("https://127.0.0.1:{port}"), vec!["--tls-ca", &other]),
        (format!("https://localhost:{port}"), vec!["--tls-ca", &ca]),
        (format!("http://127.0.0.1:{port}"), Vec::new()),
    ] {
        let (_, err) = nodes(server, &more).bad();
        assert!(err.contains("no server answers") || err.contains("the connection for the call failed"), "{err}");
    }
    process.signal("TERM");
    assert!(process.wait().success());
}

#[test]
fn a_token_of_a_tenant_does_not_show_nodes() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    let line = |token: &str, access: &str| format!("{} acme {token} {access}\n", blake3::hash(token.as_bytes()));
    let file = desk.write("tokens", &(line("ann", "full") + &line("otto", "operator")));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
    let server = desk.dev(&["--tokens", file.to_str().expect("a plain path")]);
    let nodes = |token: &str| {
        let shown = desk.write(token, token);
        std::fs::set_permissions(&shown, std::fs::Permissions::from_mode(0o600)).expect("set");
        desk.run(&["nodes", "--server", &server.address, "--token-file", shown.to_str().expect("a plain path")])
    };
    let (code, told) = nodes("ann").bad();
    assert_eq!(code, 1);
    assert!(told.contains("`ann` may not `ListNodes`") && told.contains("`operator`"), "{told}");
    assert!(nodes("otto").good().contains("local"));
}
