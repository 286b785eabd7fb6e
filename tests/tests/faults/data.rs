//! Data folders that are taken, damaged or full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nexa_llm::script::Script;
use nexa_testkit::endpoint::Endpoint;
use nexa_tests::{Desk, Process, wait_until};
use rusqlite::Connection;

use crate::{ANSWER, ASKER, asks, fails, goes_on, text};

#[test]
fn a_second_process_is_told_who_has_the_data() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let script = desk.write("slow.script", "script Asker => after(1h, \"late\")\n");
    let args = asks(&program, "1", &["--script", text(&script), "-o", "json"]);
    let mut first = Process::start(desk.nexa(&args));
    // What the call of the model says may stand in the snapshot already.
    first.wait_for_line(|line| line.contains("\"frame\":\"snapshot\""));
    let holder = format!("in use by process {}", first.id());
    let says = [holder.as_str(), "stop it or choose another directory"];
    fails(desk.run(&args), 1, &says);
    fails(desk.run(&["dev", "--listen", "127.0.0.1:0", "--data", text(&desk.path("data"))]), 1, &says);
    assert!(!first.has_ended(), "the first one was disturbed");
    first.kill();
    goes_on(&desk);
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let desk = Desk::new();
    let data = desk.path("data");
    std::fs::create_dir(&data).expect("the desk can be written to");
    let garbage = "this is no database. ".repeat(1_000);
    let file = data.join("nexa.db");
    std::fs::write(&file, &garbage).expect("the desk can be written to");
    let says = ["nexa.db is damaged or no database", "restore it from a copy or choose another directory"];
    fails(desk.run(&["run", "examples/hello/hello.nx"]), 1, &says);
    fails(desk.run(&["dev", "--listen", "127.0.0.1:0", "--data", text(&data)]), 1, &says);
    assert!(std::fs::read_to_string(&file).is_ok_and(|text| text == garbage), "the file was changed");
    std::fs::remove_file(&file).expect("it can be removed");
    goes_on(&desk);
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let desk = Desk::new();
    let data = desk.path("data");
    std::fs::create_dir(&data).expect("the desk can be written to");
    let other = Connection::open(data.join("nexa.db")).expect("a database can be made");
    other.execute_batch("CREATE TABLE recipes (cake TEXT)").expect("a table can be made");
    drop(other);
    let says = ["is the database of another program", "choose another directory"];
    fails(desk.run(&["run", "examples/hello/hello.nx"]), 1, &says);
}

/// Flips one bit of a text in every fact that has it. They stay well-formed: only the chain can tell.
fn flip_a_bit(data: &Path, needle: &str) {
    let base = Connection::open(data.join("nexa.db")).expect("the database can be opened");
    let mut facts =
        base.prepare("SELECT position, payload FROM events WHERE payload IS NOT NULL").expect("there are facts");
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let facts: Vec<(i64, Vec<u8>)> = facts.query_map([], read).and_then(Iterator::collect).expect("they can be read");
    let mut changed = 0;
    for (position, mut payload) in facts {
        if let Some(at) = payload.windows(needle.len()).position(|window| window == needle.as_bytes()) {
            payload[at] ^= 1;
            let change = "UPDATE events SET payload = ?1 WHERE position = ?2";
            changed += base.execute(change, (payload, position)).expect("it can be changed");
        }
    }
    assert!(changed > 0, "no fact says “{needle}”");
}

#[test]
fn a_changed_bit_of_history_is_reported_and_never_shown() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let script = desk.write("answer.script", ANSWER);
    let out = desk.run(&asks(&program, "1", &["--script", text(&script), "-o", "json"])).good();
    let last: serde_json::Value = serde_json::from_str(out.lines().last().expect("a last line")).expect("JSON");
    let workload = last["workload"]["workload_id"].as_str().expect("it has an id").to_owned();
    flip_a_bit(&desk.path("data"), "forty two");

    for views in ["kept", "lost"] {
        if views == "lost" {
            for name in ["views.db", "views.db-wal", "views.db-shm"] {
                std::fs::remove_file(desk.path("data").join(name)).expect("it can be removed");
            }
        }
        let mut server = desk.dev(&["--script", text(&script)]);
        for command in ["logs", "watch"] {
            let finished = desk.run(&[command, &workload, "--server", &server.address]);
            assert!(!finished.out.contains("orty two"), "{command} shows what it cannot trust:\n{}", finished.out);
            fails(finished, 1, &["stored data is damaged", "the hash chain is broken"]);
        }
        // Whoever comes with other work is served.
        let submit = ["submit", "examples/hello/hello.nx", "--watch", "--server", &server.address];
        assert!(desk.run(&submit).good().contains("different words"));
        if views == "lost" {
            wait_until("a word on the missing views", || {
                server.process.said_so_far().contains("read models stand still")
            });
        }
        server.process.signal("TERM");
        assert!(server.process.wait().success());
        let err = server.process.rest_of_err();
        assert!(!err.contains("panicked"), "{err}");
    }
}

#[test]
fn a_run_does_not_go_on_from_a_history_that_was_changed() {
    const TWO: &str = "\
agent First(question: str) { prompt: \"Answer.\", max_tokens: 20 }
agent Second(question: str) { prompt: \"Answer.\", max_tokens: 20, timeout: 2h }
flow main(number: int) -> str { return Second.run(First.run(\"#{number}\")) }
";
    let desk = Desk::new();
    let program = desk.write("two.nx", TWO);
    let slow = desk.write("slow.script", "script First => \"forty two\"\nscript Second => after(1h, \"late\")\n");
    let quick = desk.write("quick.script", "script First => \"forty two\"\nscript Second => \"soon\"\n");
    let mut process = Process::start(desk.nexa(&asks(&program, "1", &["--script", text(&slow), "-o", "json"])));
    process.wait_for_line(|line| line.contains("\"Second\"") && line.contains("effect_started"));
    process.kill();
    flip_a_bit(&desk.path("data"), "forty two");
    let finished = desk.run(&asks(&program, "1", &["--script", text(&quick)]));
    assert_eq!(finished.out, "", "no value is made of what cannot be trusted");
    fails(
        finished,
        1,
        &["stored data is damaged", "the hash chain is broken", "help: stop the node and put back a copy"],
    );
}

#[test]
fn a_log_that_lost_its_end_is_refused() {
    let desk = Desk::new();
    goes_on(&desk);
    // A short run lies in the write-ahead log alone, and SQLite takes that to end before the damage.
    let path = desk.path("data").join("nexa.db-wal");
    let mut log = std::fs::read(&path).expect("there is a write-ahead log");
    let middle = log.len() / 2;
    log[middle] ^= 1;
    std::fs::write(&path, log).expect("it can be written");
    let (code, told) = desk.run(&["run", "examples/hello/hello.nx"]).bad();
    assert_eq!(code, 1);
    assert!(told.contains("were there before") && told.contains("restore it from a copy"), "{told}");
}

/// A small file system of its own. Gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where the system does not let this user mount anything.
    fn mount(at: PathBuf, megabytes: u32) -> Option<Self> {
        std::fs::create_dir(&at).expect("the desk can be written to");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(&at);
        mount.output().is_ok_and(|done| done.status.success()).then_some(Self(at))
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("a file can be made");
        // In pieces that get smaller, so that nothing is left; each ends with the error that is wanted.
        for piece in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("it can be removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What stays mounted is seen in the list of mounts, and takes a few megabytes.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_while_the_disk_is_full_and_then_goes_on_by_itself() {
    const AGENTS: usize = 50;
    let desk = Desk::new();
    let Some(disk) = SmallDisk::mount(desk.path("data"), 16) else {
        println!("skipped: this user may not mount a small file system to fill");
        return;
    };
    let script = Script::parse("script Label => after(10ms, \"thing\")").expect("the script is right");
    let endpoint = Endpoint::start(script).await.expect("loopback has a free port");
    let setting = format!("sim={}", endpoint.url());
    let items: Vec<String> = (1..=AGENTS).map(|number| format!("item {number}")).collect();
    let input = serde_json::json!({ "items": items }).to_string();
    let args = ["run", "examples/batch/batch.nx", "--model", "sim/any", "--endpoint", &setting, "--input", &input];
    let mut process = Process::start(desk.nexa(&args));
    wait_until("some requests", || endpoint.requests() >= 10 || process.has_ended());
    disk.fill();
    wait_until("the node to notice", || process.said_so_far().contains("the disk is full") || process.has_ended());
    assert!(!process.has_ended(), "it ended: {}", process.rest_of_err());
    disk.free();
    let status = process.wait();
    let (out, err) = (process.rest_of_out(), process.rest_of_err());
    assert!(status.success(), "{status}\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    let value: serde_json::Value = serde_json::from_str(&out).expect("the value is JSON");
    let labelled: Vec<String> = items.iter().map(|item| format!("{item}: thing")).collect();
    assert_eq!(value, serde_json::json!(labelled));
    let sent = endpoint.sent();
    assert_eq!(sent.len(), AGENTS);
    assert!(sent.values().all(|count| *count == 1), "a full disk made it ask twice: {sent:?}");
    goes_on(&desk);
}

#[test]
fn a_full_disk_refuses_new_work_with_advice_and_takes_it_later() {
    let desk = Desk::new();
    let Some(disk) = SmallDisk::mount(desk.path("data"), 4) else {
        println!("skipped: this user may not mount a small file system to fill");
        return;
    };
    goes_on(&desk);
    disk.fill();
    let run = ["run", "examples/hello/hello.nx"];
    fails(desk.run(&run), 5, &["the disk is full", "free some space"]);
    disk.free();
    desk.run(&run).good();
    goes_on(&desk);
}
