//! The examples and how each is run: input, script, and what a person says.

use std::path::{Path, PathBuf};

use nexa_event::effect::Decision;
use nexa_event::fact::{self, Spawned};
use nexa_lang::diagnostic::Colour;
use nexa_lang::{FileLoader, LoadError};
use nexa_llm::script::Script;
use nexa_tests::root;
use nexa_types::{Budget, Payload, WorkloadId};
use nexa_vm::module::{EntryParam, Module};
use nexa_vm::value::{Key, Value};
use nexa_vm::vm::Program;

/// One run of an example. Rules answer the same agent the same way, so that no order of branches matters.
pub(crate) struct Job {
    pub(crate) file: &'static str,
    pub(crate) name: &'static str,
    pub(crate) input: &'static str,
    pub(crate) script: &'static str,
    /// What a person says to every question.
    pub(crate) approves: bool,
    pub(crate) succeeds: bool,
}

pub(crate) const JOBS: &[Job] = &[
    Job {
        file: "hello/hello.nx",
        name: "a flow without agents",
        input: r#"{"name":"Ada","text":"one two two three three three"}"#,
        script: "",
        approves: true,
        succeeds: true,
    },
    Job {
        file: "map-reduce/map-reduce.nx",
        name: "seven readers, three at a time, one of whom is refused, and two levels of joiners",
        input: r#"{"text":"one two three four five six seven eight nine ten eleven twelve","agents":7,"at_once":3,"joined":2}"#,
        script: r#"
            script Reader => ["A part.", "Another part.", fail("refused"), "A part.", "A part.", "A part.", "The last part."]
            script Joiner => "Several parts."
            script Editor => { title: "Numbers", summary: "They are counted.", topics: ["counting"] }
        "#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "review/review.nx",
        name: "four agents, and a verdict that needs repair",
        input: r#"{"document":"Whoever reads this agrees to what stands below, and below stands nothing.","characters":40}"#,
        script: r#"
            script Clarity => "The second sentence is hard to find, because there is none."
            script Risk => "A reader may agree to nothing."
            script Style => "It could be shorter."
            script Chief => ["no verdict at all", { title: "Nothing", summary: "It says nothing.", points: ["It is short."], score: 3 }]
        "#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "review/review.nx",
        name: "a reviewer that is refused",
        input: r#"{"document":"A text."}"#,
        script: r#"
            script Clarity => "Clear."
            script Risk => fail("refused")
            script Style => "Fine."
            script Chief => { title: "T", summary: "S", points: [], score: 5 }
        "#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "review/review.nx",
        name: "a chief that never finds the words",
        input: r#"{"document":"A text."}"#,
        script: r#"
            script Clarity => "Clear."
            script Risk => "None."
            script Style => "Fine."
            script Chief => "no verdict"
        "#,
        approves: true,
        succeeds: false,
    },
    Job {
        file: "diary/diary.nx",
        name: "a reader of more days than it is shown at once",
        input: r#"{"question":"When did we meet the heron?","days":45}"#,
        script: r#"
            script Reader => [
                call(entry, { number: 1 }), call(entry, { number: 2 }), call(entry, { number: 3 }), call(entry, { number: 4 }),
                call(entry, { number: 5 }), call(entry, { number: 6 }), call(entry, { number: 7 }), call(entry, { number: 8 }),
                call(entry, { number: 9 }), call(entry, { number: 10 }), call(entry, { number: 11 }), call(entry, { number: 12 }),
                call(entry, { number: 13 }), call(entry, { number: 14 }), call(entry, { number: 15 }), call(entry, { number: 16 }),
                call(entry, { number: 17 }), call(entry, { number: 18 }), call(entry, { number: 19 }), call(entry, { number: 20 }),
                call(entry, { number: 21 }), call(entry, { number: 22 }), call(entry, { number: 23 }), call(entry, { number: 24 }),
                call(entry, { number: 25 }), call(entry, { number: 26 }), call(entry, { number: 27 }), call(entry, { number: 28 }),
                call(entry, { number: 29 }), call(entry, { number: 30 }), call(entry, { number: 31 }), call(entry, { number: 32 }),
                call(entry, { number: 33 }), call(entry, { number: 34 }), call(entry, { number: 35 }), call(entry, { number: 36 }),
                call(entry, { number: 37 }), call(entry, { number: 38 }), call(entry, { number: 39 }), call(entry, { number: 40 }),
                call(entry, { number: 41 }), call(entry, { number: 42 }), call(entry, { number: 43 }), call(entry, { number: 44 }),
                call(entry, { number: 45 }),
                "On day 5 and every fifth after it."]
        "#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "batch/batch.nx",
        name: "a label that comes at the second try",
        input: r#"{"items":["apple"]}"#,
        script: r#"script Label => [fail("rate_limited"), "fruit"]"#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "batch/batch.nx",
        name: "pairs, and one that is left over",
        input: r#"{"items":["apple","hammer","oak","trout","lamp"]}"#,
        script: r#"script Label => " thing ""#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "approval/approval.nx",
        name: "a person who agrees",
        input: r#"{"letter":"Shall we meet on Sunday?","cooling_off":5}"#,
        script: r#"script Draft => "Yes, gladly.""#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "approval/approval.nx",
        name: "a person who does not",
        input: r#"{"letter":"Shall we meet on Sunday?","cooling_off":5}"#,
        script: r#"script Draft => "Yes, gladly.""#,
        approves: false,
        succeeds: true,
    },
    Job {
        file: "tools/tools.nx",
        name: "a keeper that reads, is refused a file, and calculates",
        input: r#"{"question":"What do we pay for tea?"}"#,
        script: r#"script Keeper => [call(std_fs_read, { path: "notes/prices.txt" }), call(std_fs_read, { path: "nexa.toml" }),
            call(calculate, { expression: "4 * 2.75 * 52 / 12" }), "About 47.67 a month."]"#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "chat/chat.nx",
        name: "a first message, which is remembered",
        input: r#"{"message":"My cat is called Ada."}"#,
        script: r#"script Talk => "Nice name!""#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "critic/critic.nx",
        name: "a draft that is criticised once",
        input: r#"{"task":"Explain queues."}"#,
        script: r#"
            script Writer => ["A FIFO.", "A queue is a line."]
            script semantic "a child would understand it" => [false, true]
            script reflect => "It uses a technical word."
        "#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "router/router.nx",
        name: "a message that goes to support",
        input: r#"{"message":"It crashes."}"#,
        script: r#"
            script Support => "Start it again."
            script intent => "says that something does not work"
        "#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "debate/debate.nx",
        name: "two who agree in the second round",
        input: r#"{"question":"Tests first?"}"#,
        script: r#"
            script Optimist => ["Always.", "Mostly."]
            script Sceptic => ["Never.", "Mostly."]
            script Chair => [{ agreed: false, value: "", reason: "too absolute" }, { agreed: true, value: "Mostly.", reason: "" }]
        "#,
        approves: true,
        succeeds: true,
    },
];

pub(crate) fn examples() -> PathBuf {
    root().join("examples")
}

pub(crate) struct Folder(PathBuf);

impl FileLoader for Folder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        std::fs::read(self.0.join(path)).map_err(|_| LoadError::NotFound)
    }
}

/// The module of an example.
pub(crate) fn compile(file: &Path) -> Module {
    let folder = Folder(file.parent().expect("a file lies in a folder").to_path_buf());
    let name = file.file_name().expect("a file has a name").to_string_lossy();
    let result = nexa_lang::compile(&name, &folder);
    let told = result.render(Colour::Off);
    result.module.unwrap_or_else(|| panic!("{} does not compile:\n{told}", file.display()))
}

impl Job {
    pub(crate) fn path(&self) -> PathBuf {
        examples().join(self.file)
    }

    pub(crate) fn script(&self) -> Script {
        Script::parse(self.script).unwrap_or_else(|error| panic!("the script of `{}`: {error}", self.name))
    }

    pub(crate) fn decision(&self) -> Decision {
        let note = if self.approves { "" } else { "not in this tone" };
        Decision { approved: self.approves, by: "local".to_owned(), note: note.to_owned() }
    }

    /// The first event of the run, as a node would write it.
    pub(crate) fn birth(&self, program: &Program, workload: WorkloadId) -> Spawned {
        let module = program.module();
        let main = module.entries.iter().find(|entry| entry.name == "main").expect("an example has a main");
        let Ok(Value::Dict(given)) = nexa_vm::json::from_json(self.input) else { panic!("{}: no object", self.name) };
        let value = |param: &EntryParam| {
            let found = given.entries().iter().find(|(key, _)| matches!(key, Key::Str(name) if **name == *param.name));
            match (found, &param.default) {
                (Some((_, value)), _) => nexa_vm::json::validate(module, param.ty, value).expect("the input fits"),
                (None, default) => {
                    let default = default.as_ref().expect("a parameter without a value has a default");
                    nexa_vm::codec::decode_bytes(default).expect("a default is a value")
                }
            }
        };
        let values: Vec<Value> = main.params.iter().map(value).collect();
        let args: Payload = nexa_vm::codec::encode(&Value::List(values.into()));
        Spawned {
            workload,
            name: "main".to_owned(),
            parent: None,
            program: fact::Program::Function { module: program.hash(), entry: main.function, args },
            budget: Budget::default(),
            deadline: None,
            seed: 7,
            depth: 0,
            priority: 128,
            asks: None,
        }
    }
}
