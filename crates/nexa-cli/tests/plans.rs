//! Transcripts of `nexa graph`: what people read of a graph and of a plan, to be looked at when it changes.

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use nexa_cli::args::{Color, GraphArgs, Output};
use nexa_cli::commands::graph_text;
use nexa_lang::Prices;

/// Nodes of different size and speed, one of which takes nothing new.
const MIXED: &str = r#"{
    "nodes": [
        { "name": "small", "cpu": 0.1, "memory": "128MiB" },
        { "name": "fast", "cpu": 0.15, "memory": "256MiB", "speed": 200, "llm": 1 },
        { "name": "away", "cpu": 4, "memory": "1GiB", "cordoned": true }
    ],
    "network": { "latency_ms": 5 }
}"#;
const ONE: &str = r#"{ "nodes": [{ "name": "one", "cpu": 2, "memory": "1GiB" }] }"#;
const LIST: &str = r#"{ "agents": [
    { "id": "north", "name": "Reader", "prompt": "x", "priority": 200 },
    { "id": "south", "name": "Reader", "prompt": "x" },
    { "id": "both", "prompt": "x", "after": ["north", "south"] },
    { "id": "late", "prompt": "x", "after": ["both"] }
] }"#;
const RING: &str = r#"{ "agents": [
    { "id": "a", "prompt": "x", "after": ["b"] },
    { "id": "b", "prompt": "x", "after": ["a"] }
] }"#;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/{name}/{name}.nx"))
}

struct Asked {
    args: GraphArgs,
    output: Output,
    folder: tempfile::TempDir,
}

impl Asked {
    fn about(file: PathBuf) -> Self {
        let args = GraphArgs { file, entry: "main".to_owned(), plan: false, nodes: None, why: None };
        Asked { args, output: Output::Table, folder: tempfile::tempdir().expect("a folder") }
    }

    fn list(text: &str) -> Self {
        let mut asked = Self::about(PathBuf::new());
        asked.args.file = asked.file("list.json", text);
        asked
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    fn plan(mut self, nodes: &str) -> Self {
        self.args.plan = true;
        self.args.nodes = Some(self.file("nodes.json", nodes));
        self
    }

    fn why(mut self, id: &str) -> Self {
        self.args.why = Some(id.to_owned());
        self
    }

    fn json(mut self) -> Self {
        self.output = Output::Json;
        self
    }

    fn is(self, expected: &Expect) {
        let text = match graph_text(&self.args, |_| Ok(Prices::new()), self.output, Color::Never) {
            Ok(text) => text,
            Err(failure) => format!("{failure}\n").replace(&self.folder.path().display().to_string(), "FOLDER"),
        };
        expected.assert_eq(&text);
    }
}

#[test]
fn graphs_of_examples() {
    Asked::about(example("review")).is(&expect![[r#"
        STAGE  NODE              KIND       AFTER                                ESTIMATE  COST
        1      main/transform#1  transform
        2      main/fork#1       fork       main/transform#1
        3      main/Clarity      agent      main/fork#1                          2.0 s     1 to 9 requests, up to 54720 tokens
               main/Risk         agent      main/fork#1                          2.0 s     1 to 9 requests, up to 54720 tokens
               main/Style        agent      main/fork#1                          2.0 s     1 to 9 requests, up to 54720 tokens
        4      main/merge#1      merge      main/Clarity, main/Risk, main/Style
        5      main/Chief        agent      main/merge#1                         2.0 s     1 to 9 requests, up to 55440 tokens
    "#]]);
    Asked::about(example("debate")).is(&expect![[r#"
        STAGE  NODE              KIND       AFTER                            ESTIMATE  ROUNDS  COST
        1      main/fork#1       fork
        2      main/Optimist     agent      main/fork#1                      2.0 s             1 to 9 requests, up to 54540 tokens
               main/Sceptic      agent      main/fork#1                      2.0 s             1 to 9 requests, up to 54540 tokens
        3      main/condition#1  condition  main/Optimist, main/Sceptic                2
        4      main/condition#2  condition  main/condition#1                           2
        5      main/fork#2       fork       main/condition#2                           2
        6      main/Optimist#2   agent      main/fork#2                      4.0 s     2       1 to 18 requests, up to 109080 tokens
               main/Sceptic#2    agent      main/fork#2                      4.0 s     2       1 to 18 requests, up to 109080 tokens
        7      main/merge#1      merge      main/Optimist#2, main/Sceptic#2            2
        8      main/transform#1  transform  main/merge#1                               2
        9      main/Chair        agent      main/transform#1                 4.0 s     2       1 to 18 requests, up to 110160 tokens
        10     main/transform#2  transform  main/Chair                                 2
        11     main/transform#3  transform  main/transform#2
    "#]]);
    Asked::about(example("router")).is(&expect![[r#"
        STAGE  NODE              KIND       AFTER             ESTIMATE  COST
        1      main/condition#1  condition
        2      main/Billing      agent      main/condition#1  2.0 s     1 to 9 requests, up to 54540 tokens
               main/condition#2  condition  main/condition#1  2.0 s     1 to 5 requests, up to 35120 tokens
        3      main/Billing#2    agent      main/condition#2  2.0 s     1 to 9 requests, up to 54540 tokens
               main/Support      agent      main/condition#2  2.0 s     1 to 9 requests, up to 54540 tokens
               main/Desk         agent      main/condition#2  2.0 s     1 to 9 requests, up to 54540 tokens
    "#]]);
    Asked::about(example("map-reduce")).is(&expect![[r#"
        STAGE  NODE                   KIND       AFTER                                    ESTIMATE  ROUNDS  COST
        1      main/transform#1       transform
        2      main/parts_of          transform  main/transform#1
        3      main/read/condition#1  condition  main/parts_of                                      ?
        4      main/read/transform#1  transform  main/read/condition#1                              ?
        5      main/read/Reader       agent      main/read/transform#1                    2.0 s     ?       1 request or more
               main/read/transform#2  transform  main/read/transform#1
        6      main/read/transform#3  transform  main/read/Reader, main/read/transform#2
        7      main/transform#2       transform  main/read/transform#3
        8      main/condition#1       condition  main/transform#2                                   10
        9      main/join/transform#1  transform  main/condition#1                                   10
        10     main/join/condition#1  condition  main/join/transform#1                              ?
        11     main/join/transform#2  transform  main/join/condition#1                              ?
        12     main/join/Joiner       agent      main/join/transform#2                    2.0 s     ?       1 request or more
               main/join/transform#3  transform  main/join/transform#2                              10
        13     main/join/transform#4  transform  main/join/Joiner, main/join/transform#3            10
        14     main/condition#2       condition  main/join/transform#4                              10
        15     main/transform#3       transform  main/condition#2
        16     main/Editor            agent      main/transform#3                         2.0 s             1 to 9 requests, up to 56700 tokens
    "#]]);
    Asked::about(example("hello")).is(&expect![[r#"
        STAGE  NODE              KIND       AFTER  ESTIMATE  COST
        1      main/transform#1  transform         2.0 s
    "#]]);
}

#[test]
fn a_graph_for_programs() {
    Asked::about(example("chat")).json().is(&expect![[r#"
        {"id":"main/transform#1","kind":"transform","deps":[],"priority":128,"weight":1.0,"estimate_ms":0,"rounds":1,"cpu_milli":0,"memory_bytes":0,"llm_slots":0,"budget":{"tokens":null,"cost_usd_micro":null,"time_ms":null,"calls":null,"steps":null},"tools":[],"cost_min":{"requests":0,"tokens":0,"cost_usd_micro":0},"cost_max":{"requests":0,"tokens":0,"cost_usd_micro":0}}
        {"id":"main/Talk","kind":"agent","deps":["main/transform#1"],"priority":128,"weight":1.0,"estimate_ms":2000,"rounds":1,"cpu_milli":100,"memory_bytes":8388608,"llm_slots":1,"budget":{"tokens":null,"cost_usd_micro":null,"time_ms":null,"calls":null,"steps":null},"tools":[],"cost_min":{"requests":1,"tokens":120,"cost_usd_micro":null},"cost_max":{"requests":9,"tokens":55080,"cost_usd_micro":null}}
    "#]]);
}

#[test]
fn a_list_is_a_graph_of_its_agents() {
    Asked::list(LIST).is(&expect![[r#"
        STAGE  NODE   KIND   AFTER         ESTIMATE
        1      north  agent                2.0 s
               south  agent                2.0 s
        2      both   agent  north, south  2.0 s
        3      late   agent  both          2.0 s
    "#]]);
}

#[test]
fn plans_of_examples() {
    Asked::about(example("review")).plan(MIXED).is(&expect![[r#"
        4 tasks on 3 nodes in 2 stages: 3.005 s; no plan takes less than 2.0 s
        critical path: main/Risk → main/Chief

        STAGE  TASK          NODE   START    END      WAITS LAST FOR
        1      main/Clarity  fast   0.0 s    1.0 s
               main/Risk     small  0.0 s    2.0 s
               main/Style    fast   1.0 s    2.0 s    cores of fast, held by main/Clarity
        2      main/Chief    fast   2.005 s  3.005 s  the result of main/Risk
    "#]]);
    Asked::about(example("debate")).plan(ONE).is(&expect![[r#"
        5 tasks on 1 node in 3 stages: 10.0 s; no plan takes less than 10.0 s
        critical path: main/Optimist → main/Optimist#2 → main/Chair

        STAGE  TASK             NODE  START  END     WAITS LAST FOR
        1      main/Optimist    one   0.0 s  2.0 s
               main/Sceptic     one   0.0 s  2.0 s
        2      main/Optimist#2  one   2.0 s  6.0 s   main/Sceptic
               main/Sceptic#2   one   2.0 s  6.0 s   main/Sceptic
        3      main/Chair       one   6.0 s  10.0 s  main/Sceptic#2
    "#]]);
    Asked::about(example("router")).plan(MIXED).is(&expect![[r#"
        5 tasks on 3 nodes in 2 stages: 4.0 s; no plan takes less than 2.0 s
        critical path: main/condition#2 → main/Desk

        STAGE  TASK              NODE   START  END    WAITS LAST FOR
        1      main/Billing      small  0.0 s  2.0 s
               main/condition#2  fast   0.0 s  1.0 s
        2      main/Billing#2    fast   1.0 s  2.0 s  main/condition#2
               main/Support      fast   2.0 s  3.0 s  cores of fast, held by main/Billing#2
               main/Desk         small  2.0 s  4.0 s  cores of small, held by main/Billing
    "#]]);
}

#[test]
fn a_plan_of_a_list() {
    Asked::list(LIST).plan(MIXED).is(&expect![[r#"
        4 tasks on 3 nodes in 3 stages: 4.0 s; no plan takes less than 3.0 s
        critical path: north → both → late

        STAGE  TASK   NODE  START  END    WAITS LAST FOR
        1      north  fast  0.0 s  1.0 s
               south  fast  1.0 s  2.0 s  cores of fast, held by north
        2      both   fast  2.0 s  3.0 s  south
        3      late   fast  3.0 s  4.0 s  both
    "#]]);
    Asked::list(LIST).plan(ONE).why("both").json().is(&expect![[r#"
        {"id":"both","node":"one","start_ms":2000,"end_ms":4000,"has_started":false,"is_critical":true,"waits":[{"from_ms":0,"until_ms":2000,"reason":"dependency","task":"south"}],"alternatives":[{"node":"one","start_ms":2000,"end_ms":4000}]}
    "#]]);
}

#[test]
fn why_a_task_is_where_it_is() {
    Asked::about(example("review")).plan(MIXED).why("main/Style").is(&expect![[r#"
        main/Style runs on fast from 1.0 s to 2.0 s
        from 0.0 s to 1.0 s it waits for cores of fast, held by main/Clarity

        NODE   WOULD START  WOULD END
        fast   1.0 s        2.0 s      where it is
        small  2.0 s        4.0 s
        away                           takes nothing new
    "#]]);
    Asked::about(example("review")).plan(MIXED).why("main/Risk").is(&expect![[r#"
        main/Risk runs on small from 0.0 s to 2.0 s, on the critical path
        it waits for nothing

        NODE   WOULD START  WOULD END
        small  0.0 s        2.0 s      where it is
        fast   3.005 s      4.005 s
        away                           takes nothing new
    "#]]);
    Asked::about(example("review")).plan(MIXED).why("main/Chief").is(&expect![[r#"
        main/Chief runs on fast from 2.005 s to 3.005 s, on the critical path
        from 0.0 s to 2.0 s it waits for main/Risk
        from 2.0 s to 2.005 s it waits for the result of main/Risk

        NODE   WOULD START  WOULD END
        fast   2.005 s      3.005 s    where it is
        small  2.005 s      4.005 s
        away                           takes nothing new
    "#]]);
}

#[test]
fn what_cannot_be_planned_is_told() {
    Asked::about(example("review")).plan(MIXED).why("main/Style#2").is(&expect![[r#"
        error: nothing in the plan is called `main/Style#2`
        help: there are main/Clarity, main/Risk, main/Style, main/Chief
    "#]]);
    let tiny = r#"{ "nodes": [{ "name": "a", "cpu": 1, "memory": "1MiB" }] }"#;
    Asked::about(example("review")).plan(tiny).is(&expect![[r#"
        error: there is no plan: agent "main/Clarity" fits nowhere: it needs 100 millicores, 8388608 bytes of memory and 1 model slots, and of the nodes it may run on, a comes nearest with 1000 millicores, 1048576 bytes of memory and 1048576 model slots
    "#]]);
    Asked::about(example("review")).plan("{}").is(&expect![[r#"
        error: cannot read the nodes in FOLDER/nodes.json: missing field `nodes` at line 1 column 2
        help: the least that a file says: { "nodes": [{ "name": "a", "cpu": 8, "memory": "16GiB" }] }
    "#]]);
    Asked::list(RING).is(&expect![[r#"
        error: it has no graph: agents wait for each other in a ring: a → b → a
    "#]]);
}
