//! An agent that remembers, as a person sees it: a program is run on a server, and the command line finds what was said, also after
//! the server was killed.

use std::path::{Path, PathBuf};

use nexa_tests::{Desk, Server, wait_until};
use serde_json::{Value, json};

/// The diary's reader asks for three days and answers.
const SCRIPT: &str = r#"script Reader => [
    call(entry, { number: 1 }), call(entry, { number: 5 }), call(entry, { number: 7 }), "On day 5."
]"#;

struct House {
    desk: Desk,
    server: Server,
}

fn server(desk: &Desk) -> Server {
    let script = desk.write("diary.script", SCRIPT);
    desk.dev(&["--script", script.to_str().expect("a plain path")])
}

impl House {
    fn open() -> Self {
        let desk = Desk::new();
        let server = server(&desk);
        Self { desk, server }
    }

    fn types(&self, args: &[&str]) -> String {
        let args: Vec<&str> = args.iter().copied().chain(["--server", &self.server.address]).collect();
        self.desk.run(&args).good()
    }

    fn objects(&self, args: &[&str]) -> Vec<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        self.types(&args).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Runs the diary; gives the agent that read it.
    fn reads(&self) -> String {
        let input = json!({ "question": "When did we meet the heron?", "days": 7 }).to_string();
        let submitted = self.types(&["submit", "examples/diary/diary.nx", "--input", &input, "--watch", "-o", "json"]);
        let workload = submitted.lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            Some(line["workload_id"].as_str().or(line["workload"]["workload_id"].as_str())?.to_owned())
        });
        let agents = self.objects(&["ps", &workload.expect("the id of the workload")]);
        let reader = agents.iter().find(|agent| agent["name"] == "Reader").expect("a reader");
        reader["agent_id"].as_str().expect("an id").to_owned()
    }
}

#[test]
fn what_an_agent_said_and_heard_is_found_counted_exported_and_forgotten() {
    let mut house = House::open();
    let agent = house.reads();
    let best = |house: &House| house.objects(&["recall", &agent, "which day was it that we met the heron"])[0].clone();
    let found = best(&house);
    assert!(found["text"].as_str().is_some_and(|text| text.contains("heron")), "{found}");
    assert!(found["agent_id"] == agent.as_str() && found["version"].as_u64() > Some(0), "{found}");
    let shown = house.types(&["recall", &agent, "heron", "-k", "1"]);
    assert!(shown.starts_with("SCORE") && shown.contains("words") && shown.contains("heron"), "{shown}");

    // Nothing is on disk but the log: who starts on it finds the same.
    house.server.process.kill();
    house.server = server(&house.desk);
    assert_eq!(best(&house)["text"], found["text"]);

    let stats = &house.objects(&["memory", "stats", &agent])[0];
    assert_eq!((stats["messages"].as_u64(), stats["pages"].as_u64()), (Some(8), Some(1)), "{stats}");
    let pages = house.objects(&["memory", "pages", &agent]);
    assert_eq!(pages.iter().map(|page| page["messages"].as_u64()).sum::<Option<u64>>(), Some(8));
    let all = house.objects(&["memory", "export", &agent]);
    assert_eq!(
        (all.len(), all[7]["text"].as_str(), all[7]["speaker"].as_str()),
        (8, Some("On day 5."), Some("Reader"))
    );
    assert_eq!(house.types(&["memory", "rebuild", "-o", "json"]).lines().count(), 1);

    assert_eq!(house.objects(&["memory", "forget", &agent])[0]["forgotten_pages"], 1);
    assert!(house.objects(&["recall", &agent, "heron"]).is_empty());
    assert!(house.objects(&["memory", "export", &agent]).is_empty());

    // Whoever looks finds who wanted it.
    let told = house.objects(&["logs", "--search", "forgotten"]);
    let told = told.iter().find(|hit| hit["kind"] == "agent_forgotten").expect("history has it");
    let by = told["snippet"].as_str().is_some_and(|text| text.contains("as local asked"));
    assert!(told["agent_id"] == agent.as_str() && by, "{told}");

    // Also by who starts on the log, and who reads it again.
    house.server.process.kill();
    house.server = server(&house.desk);
    assert!(house.objects(&["recall", &agent, "heron"]).is_empty());
    house.types(&["memory", "rebuild"]);
    assert!(house.objects(&["memory", "export", &agent]).is_empty());
    assert_eq!(house.objects(&["memory", "forget", &agent])[0]["forgotten_pages"], 0);
}

/// Of a build that keeps pages on disk, as `cargo xtask test --apart` makes it.
#[test]
fn pages_on_disk_outlive_their_node_and_are_written_again_where_they_are_damaged() {
    if std::env::var_os("NEXA_TEST_LANCE").is_none() {
        eprintln!("skipped: this build keeps pages in memory; `cargo xtask test --apart` has one that does not");
        return;
    }
    let mut house = House::open();
    let folder = house.desk.path("data/pages/shards");
    assert!(!folder.exists(), "nobody has remembered anything");
    let agent = house.reads();
    let finds = |house: &House| {
        let out = house.desk.run(&["recall", &agent, "heron", "-k", "1", "--server", &house.server.address]);
        out.status.success() && out.out.contains("heron")
    };
    assert!(finds(&house));
    // What waits is stored when a node ends in good order.
    house.server.process.signal("TERM");
    assert!(house.server.process.wait().success());
    let files = files_below(&folder);
    assert!(files.iter().any(|file| file.extension().is_some_and(|kind| kind == "lance")), "{files:?}");
    house.server = server(&house.desk);
    assert!(finds(&house));
    assert_eq!(house.objects(&["memory", "pages", &agent])[0]["stored"], true);
    assert!(!house.server.process.said_so_far().contains("is emptied"));

    // Whatever becomes of its files, the log has what was said.
    house.server.process.kill();
    for file in files_below(&folder) {
        let mut bytes = std::fs::read(&file).expect("it is readable");
        bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&file, bytes).expect("it can be written to");
    }
    house.server = server(&house.desk);
    wait_until("what was said to be found again", || finds(&house));
    assert!(house.server.process.said_so_far().contains("is emptied"));
    house.types(&["memory", "forget", &agent]);
    house.server.process.signal("TERM");
    assert!(house.server.process.wait().success());
    house.server = server(&house.desk);
    assert!(house.objects(&["recall", &agent, "heron"]).is_empty());
    assert!(!house.server.process.said_so_far().contains("is emptied"), "what was written again can be read");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is readable").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
