//! `nexa dev` in one terminal, the client's commands in another: what a person sees, word for word.

use expect_test::expect;
use nexa_tests::{Desk, Server, normalised, wait_until};

const SCRIPT: &str = "\
script Draft => \"Dear Ada, Sunday it is.\"
script Slow => after(1h, \"late\")
";

const SLOW: &str = "\
agent Slow(text: str) { prompt: \"Take your time.\", timeout: 2h }
flow main(text: str) -> str { return text >> Slow }
";

/// A node, and somebody who types commands.
struct Terminals {
    desk: Desk,
    server: Server,
    transcript: String,
}

impl Terminals {
    fn open() -> Self {
        let desk = Desk::new();
        let script = desk.write("script.nx", SCRIPT);
        let server = desk.dev(&["--script", script.to_str().expect("a plain path")]);
        Self { desk, server, transcript: String::new() }
    }

    /// Types a command; writes it and what it printed into the transcript; gives standard output.
    fn types(&mut self, args: &[&str]) -> String {
        let mut all = args.to_vec();
        all.extend(["--server", &self.server.address]);
        let finished = self.desk.run(&all);
        let desk = self.desk.path("");
        let shown: Vec<String> = args.iter().map(|arg| arg.replace(&*desk.to_string_lossy(), "")).collect();
        self.transcript += &format!("$ nexa {}\n{}", shown.join(" "), finished.out);
        for line in finished.err.lines() {
            self.transcript += &format!("! {line}\n");
        }
        if let Some(code) = finished.status.code().filter(|code| *code != 0) {
            self.transcript += &format!("(exit {code})\n");
        }
        finished.out
    }

    /// The transcript so far, with times and ids replaced.
    fn transcript(&self) -> String {
        let text = normalised(&self.transcript);
        text.lines().map(|line| timeless(line) + "\n").collect()
    }

    /// Looks until a read model shows a text.
    fn waits_for(&self, args: &[&str], text: &str) {
        let mut all = args.to_vec();
        all.extend(["--server", &self.server.address]);
        wait_until(text, || self.desk.run(&all).good().contains(text));
    }
}

/// `12:34:56.789` becomes `TIME`, `1.2 s` becomes `SPAN`; columns that are padded for them lose their padding.
fn timeless(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let blank = rest.len() - rest.trim_start_matches(' ').len();
        words.push(rest[..blank].to_owned());
        rest = &rest[blank..];
        let end = rest.find(' ').unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        let is_time = word.len() == 12 && word.matches(':').count() == 2;
        let is_span = tail == " s" && word.parse::<f64>().is_ok();
        if is_time {
            words.push("TIME".to_owned());
            rest = tail;
        } else if is_span || (tail.starts_with(" s,") && word.parse::<f64>().is_ok()) {
            words.push("SPAN".to_owned());
            rest = &tail[2..];
        } else {
            words.push(word.to_owned());
            rest = tail;
        }
    }
    words.concat().trim_end().to_owned()
}

#[test]
fn a_person_submits_watches_approves_and_cancels() {
    let mut at = Terminals::open();
    let input = r#"{"letter":"a picnic on Sunday","cooling_off":10}"#;
    let workload = at.types(&["submit", "examples/approval/approval.nx", "--input", input]);
    let workload = workload.trim();
    at.waits_for(&["ps", workload], "waiting(approval)");
    at.waits_for(&["approve"], "asks");
    at.types(&["ps"]);
    at.types(&["ps", workload]);
    let open = at.types(&["approve"]);
    let id = open.split_whitespace().next().expect("an approval is open");
    at.types(&["approve", id, "--note", "looks good"]);
    at.waits_for(&["ps"], "succeeded");
    at.types(&["watch", workload]);
    at.types(&["logs", workload]);

    let slow = at.desk.write("slow.nx", SLOW);
    let slow = at.types(&["submit", slow.to_str().expect("a plain path"), "--input", "\"x\""]);
    at.waits_for(&["ps", slow.trim()], "waiting(model)");
    at.types(&["cancel", slow.trim(), "--reason", "takes too long"]);
    // The root ends first; its child hears of it by itself.
    at.waits_for(&["ps", slow.trim(), "--state", "cancelled"], "Slow");
    at.waits_for(&["ps"], "cancelled");
    at.types(&["watch", slow.trim()]);
    at.types(&["cancel", slow.trim()]);
    at.types(&["cancel", workload]);
    at.types(&["ps", "w-00000000000000000000000000000000"]);
    at.types(&["watch", "w-00000000000000000000000000000000"]);
    at.types(&["cancel", "no-id"]);
    expect![[r#"
        $ nexa submit examples/approval/approval.nx --input {"letter":"a picnic on Sunday","cooling_off":10}
        w-1
        $ nexa ps
        WORKLOAD                            NAME      STATE    AGENTS ENDED  TOKENS  TIME
        w-1  approval  running  1 of 2        31 + 6  -
        $ nexa ps w-1
        AGENT                               NAME   STATE              NODE   TOKENS  TIME
        a-2  main   waiting(approval)  local  -       -
        a-3  Draft  succeeded          local  31 + 6  SPAN
        $ nexa approve
        a-2/2  main asks: Send this answer?
          about: {"letter":"a picnic on Sunday","answer":"Dear Ada, Sunday it is."}
        $ nexa approve a-2/2 --note looks good
        a-2/2 is approved
        $ nexa watch w-1
        local sent it: looks good
        !
        ! AGENT  STATE      TOKENS  TIME
        ! main   succeeded  31 + 6  SPAN
        ! Draft  succeeded  31 + 6  SPAN
        !
        ! approval: succeeded, 31 + 6 tokens, SPAN
        ! history: nexa logs w-1
        $ nexa logs w-1
        TIME                submitted `approval`
        TIME  main          spawned
        TIME  main          started on local
        TIME  main          #1 started 1 agents
        TIME  Draft         spawned
        TIME  Draft         started on local
        TIME  Draft         #1 wants an answer
        TIME  Draft         #1 sent
        TIME  Draft         #1 script/script answered (31 + 6): Dear Ada, Sunday it is.
        TIME  Draft         ended: "Dear Ada, Sunday it is."
        TIME  main          #1 branch 0 succeeded
        TIME  main          #2 asks people: Send this answer?
        TIME  main          #2 sent
        TIME  main          #2 approved by local: looks good
        TIME  main          #3 sleeps until TIME
        TIME  main          #3 woke up
        TIME  main          emitted to outbox: "Dear Ada, Sunday it is."
        TIME  main          ended: "local sent it: looks good"
        TIME                workload succeeded
        $ nexa submit slow.nx --input "x"
        w-4
        $ nexa cancel w-4 --reason takes too long
        w-4 is cancelled
        $ nexa watch w-4
        !
        ! AGENT  STATE      TOKENS     TIME
        ! main   cancelled  -          SPAN
        ! Slow   cancelled  32 + 1024  SPAN
        !
        ! slow: cancelled, - tokens, SPAN
        ! history: nexa logs w-4
        ! error: cancelled: cancelled by local: takes too long
        (exit 3)
        $ nexa cancel w-4
        w-4 is cancelled
        $ nexa cancel w-1
        ! error: the workload has ended by itself
        (exit 1)
        $ nexa ps w-5
        ! error: there is no workload `w-5`
        (exit 4)
        $ nexa watch w-5
        ! error: there is no workload `w-5`
        (exit 4)
        $ nexa cancel no-id
        ! error: workload_id: expected `w-` and 32 hex digits
        (exit 1)
    "#]]
    .assert_eq(&at.transcript());
}

#[test]
fn programs_get_json_and_go_on_at_a_cursor() {
    let at = Terminals::open();
    let server = at.server.address.as_str();
    let run = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--server", server, "-o", "json"]);
        at.desk.run(&all).good()
    };
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON");
    let submitted = run(&["submit", "examples/hello/hello.nx"]);
    let workload = parse(submitted.trim())["workload_id"].as_str().expect("a workload has an id").to_owned();
    run(&["watch", &workload]);
    let history = run(&["logs", &workload]);
    let facts: Vec<_> = history.lines().map(parse).collect();
    assert!(facts.len() >= 4, "{history}");
    for (at, fact) in facts.iter().enumerate() {
        let cursor = fact["cursor"].as_str().expect("every fact has a cursor");
        let rest = run(&["watch", &workload, "--cursor", cursor]);
        let rest: Vec<_> = rest.lines().map(parse).filter(|frame| frame["frame"] == "event").collect();
        assert_eq!(rest, facts[at + 1..], "after the fact {at}");
    }
}
