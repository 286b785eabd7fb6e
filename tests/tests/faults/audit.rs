//! A log that is not the one that was there before.

use std::path::Path;

use nexa_tests::Desk;
use serde_json::Value;

use crate::{ANSWER, ASKER, asks, fails, goes_on, text};

fn copied(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).expect("the desk can be written to");
    for entry in std::fs::read_dir(from).expect("it can be listed") {
        let file = entry.expect("it can be listed").path();
        if file.extension().is_none_or(|kind| kind != "sock") {
            std::fs::copy(&file, to.join(file.file_name().expect("a file has a name"))).expect("it can be copied");
        }
    }
}

#[test]
fn an_older_copy_of_the_data_is_refused_until_a_person_accepts_it() {
    let desk = Desk::new();
    let (data, copy) = (desk.path("data"), desk.path("copy"));
    let program = desk.write("asker.nx", ASKER);
    let script = desk.write("answer.script", ANSWER);
    let run = |number: &str| desk.run(&asks(&program, number, &["--script", text(&script)]));
    let verify = || desk.run(&["audit", "verify", "--data", text(&data), "-o", "json"]);
    let found = |out: &str| serde_json::from_str::<Value>(out).expect("it is JSON");

    run("1").good();
    let whole = found(&verify().good());
    assert!(whole["facts"].as_u64() > Some(0) && whole["wrong"].is_null(), "{whole}");
    assert_eq!(whole["anchored_facts"], whole["facts"], "the end of a run is anchored");
    copied(&data, &copy);
    run("2").good();
    let newest = found(&verify().good());
    assert_eq!(newest["anchors"], newest["anchors_agree"]);
    assert!(newest["anchors"].as_u64() >= Some(2), "{newest}");

    copied(&copy, &data);
    let lost = ["the log has lost its newest facts", "nexa audit accept"];
    fails(run("3"), 1, &lost);
    fails(desk.run(&["dev", "--listen", "127.0.0.1:0", "--data", text(&data)]), 1, &lost);
    let behind = verify();
    assert!(found(&behind.out)["wrong"].as_str().is_some_and(|wrong| wrong.contains(lost[0])), "{}", behind.out);
    fails(behind, 1, &[]);

    let accept = ["audit", "accept", "--data", text(&data), "--why", "a test put it back"];
    assert!(desk.run(&accept).good().contains("accepted as it is"));
    goes_on(&desk);
    let accepted = found(&verify().good());
    assert_eq!(accepted["anchors_given_up"], newest["anchors"]);

    // To begin anew is no fault.
    std::fs::remove_dir_all(&data).expect("it can be removed");
    goes_on(&desk);
    assert!(desk.path("data.anchors.old").exists());
    assert!(found(&verify().good())["wrong"].is_null());
}

#[test]
fn a_changed_fact_is_named_by_its_position() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let script = desk.write("answer.script", ANSWER);
    desk.run(&asks(&program, "1", &["--script", text(&script)])).good();
    let data = desk.path("data");
    let base = rusqlite::Connection::open(data.join("nexa.db")).expect("the database can be opened");
    let change = "UPDATE events SET link = (SELECT link FROM events WHERE position = 3) WHERE position = 2";
    assert_eq!(base.execute(change, []), Ok(1));
    drop(base);
    let says = ["the fact at position 2: the hash chain is broken"];
    fails(desk.run(&["audit", "verify", "--data", text(&data)]), 1, &says);
    fails(desk.run(&["audit", "verify", "--data", text(&desk.path("nowhere"))]), 1, &["could not open"]);
}
