//! Reads traces in WfFormat 1.5, the JSON format of WfCommons (Coleman et al., "WfCommons: A framework for enabling
//! scientific workflow research and development", FGCS 2022).
//!
//! Of a trace this takes the tasks with their parents and children, the files that they read and write with their sizes,
//! and of its execution how long each took, on how many cores and in how much memory. A task reads from another the files
//! that the one wrote and the other reads; files that no task wrote are everywhere from the beginning.
//!
//! What is not said has a default: one core, no memory. What is said wrongly is an error that names the task or the file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use nexa_sched::Resources;
use nexa_types::Millis;
use serde::Deserialize;

use super::{Need, Task, Workflow, WorkflowError};

/// The longest file that is read.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// The most traces of a folder.
const TRACES_MAX: usize = 1_000;
/// The most folders beside the project that are looked into.
const BESIDE_MAX: usize = 1_000;
/// No task takes longer: ten years.
const SECONDS_MAX: f64 = 10.0 * 366.0 * 86_400.0;
/// No task has more.
const CORES_MAX: f64 = 1_000_000.0;
/// A program's name is taken for a task's kind up to this length.
const KIND_LEN_MAX: usize = 64;

/// Why a text is no trace.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too long.
    #[error("it has more than {FILE_BYTES_MAX} bytes, the most that is read")]
    TooLong,
    /// The text is not JSON of this form.
    #[error("it is not WfFormat 1.5: {0}")]
    Json(#[from] serde_json::Error),
    /// Of another time.
    #[error("its schema is {0}; only 1.5 can be read")]
    Schema(String),
    /// A parent, a child or a record of something that is not there.
    #[error("task `{task}` is named {by}, and there is none of that id")]
    UnknownTask {
        /// The id.
        task: String,
        /// By whom.
        by: String,
    },
    /// The execution says nothing of a task.
    #[error("the execution does not say how long task `{0}` took")]
    NotExecuted(String),
    /// Two of the same name.
    #[error("{what} `{id}` is there twice")]
    Twice {
        /// What it is.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// A number that cannot be.
    #[error("{what} of task `{task}` is {value}; it must be from {min} to {max}")]
    Number {
        /// What it says.
        what: &'static str,
        /// Of which task.
        task: String,
        /// The number.
        value: f64,
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
    /// A file without a size.
    #[error("task `{task}` has a file `{file}`, whose size the trace does not say")]
    UnknownFile {
        /// Who has it.
        task: String,
        /// Which.
        file: String,
    },
    /// The tasks are no workflow.
    #[error(transparent)]
    Workflow(#[from] WorkflowError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    schema_version: String,
    workflow: Parts,
}

#[derive(Deserialize)]
struct Parts {
    specification: Specification,
    execution: Execution,
}

#[derive(Deserialize)]
struct Specification {
    tasks: Vec<Specified>,
    #[serde(default)]
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specified {
    name: String,
    id: String,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
    #[serde(default)]
    input_files: Vec<String>,
    #[serde(default)]
    output_files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    id: String,
    size_in_bytes: u64,
}

#[derive(Deserialize)]
struct Execution {
    tasks: Vec<Executed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    id: String,
    runtime_in_seconds: f64,
    core_count: Option<f64>,
    memory_in_bytes: Option<u64>,
    command: Option<Command>,
}

#[derive(Deserialize)]
struct Command {
    program: Option<String>,
}

/// Why a folder of traces cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder cannot be read.
    #[error("cannot read the folder {path}")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing, or too much.
    #[error("{path} has {count} files *.json; 1 to {TRACES_MAX} can be played")]
    Count {
        /// Which folder.
        path: String,
        /// How many there are.
        count: usize,
    },
    /// One of its files is no trace.
    #[error("{path} cannot be played")]
    Trace {
        /// Which.
        path: String,
        /// Why.
        source: FormatError,
    },
}

/// The workflows of all `*.json` in a folder, by name of the file.
///
/// # Errors
/// Where the folder cannot be read, has no trace or too many, or one of them is none.
pub fn read_all(folder: &Path) -> Result<Vec<Workflow>, FolderError> {
    let path = folder.display().to_string();
    let cannot = |source| FolderError::Folder { path: path.clone(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    if paths.is_empty() || paths.len() > TRACES_MAX {
        return Err(FolderError::Count { path, count: paths.len() });
    }
    paths.sort();
    let failed = |path: &Path| path.display().to_string();
    paths.iter().map(|path| read(path).map_err(|source| FolderError::Trace { path: failed(path), source })).collect()
}

/// Where traces are: in the folder that `NEXA_WORKFLOWS_DIR` names, or else in `data/workflows` of the project or of a
/// folder beside it. Nothing where there is none.
#[must_use]
pub fn usual_folder() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("NEXA_WORKFLOWS_DIR").filter(|named| !named.is_empty()) {
        return Some(PathBuf::from(named));
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let mut beside: Vec<PathBuf> =
        std::fs::read_dir(project.parent()?).ok()?.flatten().take(BESIDE_MAX).map(|entry| entry.path()).collect();
    beside.sort();
    let folders = std::iter::once(project.to_owned()).chain(beside).map(|folder| folder.join("data/workflows"));
    folders.into_iter().find(|folder| folder.is_dir())
}

/// Reads a trace; its name is that of the file without what follows the first hyphen.
///
/// # Errors
/// Where the file cannot be read, is too long or is no trace.
pub fn read(path: &Path) -> Result<Workflow, FormatError> {
    let failed = |source| FormatError::Read { path: path.display().to_string(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    parse(name.split('-').next().unwrap_or_default(), &text)
}

/// The workflow of a trace's text.
///
/// # Errors
/// Where the text is too long or no trace; the error says what is wrong with it.
pub fn parse(name: &str, text: &str) -> Result<Workflow, FormatError> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(FormatError::TooLong);
    }
    let trace: Trace = serde_json::from_str(text)?;
    if trace.schema_version != "1.5" {
        return Err(FormatError::Schema(trace.schema_version));
    }
    let Parts { specification, execution } = trace.workflow;
    let sizes = by_id("file", specification.files, |file| (file.id, file.size_in_bytes))?;
    let mut executed = by_id("the execution of task", execution.tasks, |task| (task.id.clone(), task))?;
    let ordinals = by_id("task", (0_u32..).zip(&specification.tasks), |(ordinal, task)| (task.id.as_str(), ordinal))?;
    let of = |id: &str, by: &dyn Fn() -> String| {
        ordinals.get(id).copied().ok_or_else(|| FormatError::UnknownTask { task: id.to_owned(), by: by() })
    };
    let mut edges = BTreeSet::new();
    for (ordinal, task) in (0..).zip(&specification.tasks) {
        for parent in &task.parents {
            edges.insert((of(parent, &|| format!("as a parent of `{}`", task.id))?, ordinal));
        }
        for child in &task.children {
            edges.insert((ordinal, of(child, &|| format!("as a child of `{}`", task.id))?));
        }
        if let Some(file) = task.input_files.iter().chain(&task.output_files).find(|file| !sizes.contains_key(*file)) {
            return Err(FormatError::UnknownFile { task: task.id.clone(), file: file.clone() });
        }
    }
    let written: Vec<BTreeSet<&str>> =
        specification.tasks.iter().map(|task| task.output_files.iter().map(String::as_str).collect()).collect();
    let mut needs = vec![Vec::new(); specification.tasks.len()];
    for (parent, child) in edges {
        let read: BTreeSet<&String> = specification.tasks[child as usize].input_files.iter().collect();
        let taken = read.into_iter().filter(|file| written[parent as usize].contains(file.as_str()));
        let bytes = taken.map(|file| sizes[file]).fold(0, u64::saturating_add);
        needs[child as usize].push(Need { task: parent, bytes });
    }
    let mut tasks = Vec::with_capacity(specification.tasks.len());
    for (task, needs) in specification.tasks.iter().zip(needs) {
        let record = executed.remove(&task.id).ok_or_else(|| FormatError::NotExecuted(task.id.clone()))?;
        tasks.push(record.of(task, needs)?);
    }
    if let Some((task, _)) = executed.pop_first() {
        return Err(FormatError::UnknownTask { task, by: "in the execution".to_owned() });
    }
    Ok(Workflow::new(name, tasks)?)
}

/// Things by their ids, which must tell them apart.
fn by_id<T, K: Ord + ToString + Clone, V>(
    what: &'static str,
    of: impl IntoIterator<Item = T>,
    split: impl Fn(T) -> (K, V),
) -> Result<BTreeMap<K, V>, FormatError> {
    let mut all = BTreeMap::new();
    for thing in of {
        let (id, value) = split(thing);
        if all.insert(id.clone(), value).is_some() {
            return Err(FormatError::Twice { what, id: id.to_string() });
        }
    }
    Ok(all)
}

impl Executed {
    fn of(self, task: &Specified, needs: Vec<Need>) -> Result<Task, FormatError> {
        let within = |what, value: f64, min: f64, max: f64| {
            let is_one = value >= min && value <= max;
            let wrong = || FormatError::Number { what, task: task.id.clone(), value, min, max };
            is_one.then_some(value).ok_or_else(wrong)
        };
        let seconds = within("runtimeInSeconds", self.runtime_in_seconds, 0.0, SECONDS_MAX)?;
        let cores = within("coreCount", self.core_count.unwrap_or(1.0), 0.001, CORES_MAX)?;
        let program = self.command.and_then(|command| command.program);
        Ok(Task {
            id: task.id.clone(),
            kind: kind(program.as_deref(), &task.name),
            duration: Millis((seconds * 1_000.0).round() as u64),
            requirements: Resources {
                cpu_milli: (cores * 1_000.0).round() as u64,
                memory_bytes: self.memory_in_bytes.unwrap_or(0),
                llm_slots: 0,
            },
            needs,
        })
    }
}

/// What a task has in common with its like: its program, where that is one word and no script, or else its name without
/// the number at its end.
fn kind(program: Option<&str>, name: &str) -> String {
    let is_word =
        |program: &&str| !program.is_empty() && program.len() <= KIND_LEN_MAX && !program.contains(char::is_whitespace);
    if let Some(program) = program.filter(is_word) {
        return program.to_owned();
    }
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if bare.len() == name.len() {
        return name.to_owned();
    }
    let bare = bare.strip_suffix("ID").unwrap_or(bare);
    bare.strip_suffix('_').filter(|bare| !bare.is_empty()).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace of two tasks, `a` before `b`, of which `b` reads two of the three files that `a` writes.
    const SMALL: &str = r#"{
        "name": "small", "schemaVersion": "1.5", "workflow": {
            "specification": {
                "tasks": [
                    {"name": "cut_ID01", "id": "a", "parents": [], "children": ["b"],
                     "inputFiles": ["in"], "outputFiles": ["x", "y", "z"]},
                    {"name": "glue_7", "id": "b", "parents": ["a"], "children": [],
                     "inputFiles": ["z", "x", "in"], "outputFiles": []}
                ],
                "files": [{"id": "in", "sizeInBytes": 9}, {"id": "x", "sizeInBytes": 100},
                          {"id": "y", "sizeInBytes": 50}, {"id": "z", "sizeInBytes": 7}]
            },
            "execution": {"makespanInSeconds": 3, "tasks": [
                {"id": "b", "runtimeInSeconds": 0.0006, "coreCount": 2.5, "memoryInBytes": 77,
                 "command": {"program": "sh\n-c", "arguments": []}},
                {"id": "a", "runtimeInSeconds": 2, "command": {"program": "cutter"}}
            ]}
        }
    }"#;

    #[test]
    fn a_trace_is_read_with_what_its_tasks_take_and_pass_on() {
        let workflow = parse("small", SMALL).expect("it is one");
        let [a, b] = workflow.tasks() else { panic!("two tasks") };
        let one_core = Resources { cpu_milli: 1_000, memory_bytes: 0, llm_slots: 0 };
        assert_eq!(
            (a.id.as_str(), a.kind.as_str(), a.duration, a.requirements),
            ("a", "cutter", Millis(2_000), one_core)
        );
        let more = Resources { cpu_milli: 2_500, memory_bytes: 77, llm_slots: 0 };
        assert_eq!((b.id.as_str(), b.kind.as_str(), b.duration, b.requirements), ("b", "glue", Millis(1), more));
        assert_eq!((a.needs.as_slice(), b.needs.as_slice()), (&[][..], &[Need { task: 0, bytes: 107 }][..]));
        assert_eq!((workflow.name(), workflow.result_bytes(0)), ("small", 107));
        let one_sided = SMALL.replace(r#""parents": ["a"]"#, r#""parents": []"#);
        assert_eq!(parse("small", &one_sided).expect("it is one"), workflow, "a child is enough to say it");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |from: &str, to: &str| {
            assert!(SMALL.contains(from), "{from}");
            parse("small", &SMALL.replace(from, to)).expect_err("it is none").to_string()
        };
        assert_eq!(error("1.5", "1.4"), "its schema is 1.4; only 1.5 can be read");
        assert_eq!(
            error(r#""parents": ["a"]"#, r#""parents": ["q"]"#),
            "task `q` is named as a parent of `b`, and there is none of that id"
        );
        assert_eq!(
            error(r#""children": ["b"]"#, r#""children": ["q"]"#),
            "task `q` is named as a child of `a`, and there is none of that id"
        );
        assert_eq!(
            error(r#"{"id": "b", "runtime"#, r#"{"id": "q", "runtime"#),
            "the execution does not say how long task `b` took"
        );
        assert_eq!(error(r#"{"id": "y""#, r#"{"id": "x""#), "file `x` is there twice");
        assert_eq!(error(r#""id": "b", "parents""#, r#""id": "a", "parents""#), "task `a` is there twice");
        assert_eq!(
            error(r#"{"id": "y""#, r#"{"id": "w""#),
            "task `a` has a file `y`, whose size the trace does not say"
        );
        assert_eq!(
            error("Seconds\": 2", "Seconds\": -2"),
            "runtimeInSeconds of task `a` is -2; it must be from 0 to 316224000"
        );
        assert_eq!(error("2.5", "0"), "coreCount of task `b` is 0; it must be from 0.001 to 1000000");
        assert_eq!(
            error(r#""parents": []"#, r#""parents": ["b"]"#),
            "task `a` waits for itself, directly or through others"
        );
        for (from, to) in [("Bytes\": 9", "Bytes\": -9"), ("\"tasks\": [", "\"tasks\": 5, \"x\": ["), ("2.5", "1e999")]
        {
            let said = error(from, to);
            assert!(said.starts_with("it is not WfFormat 1.5: ") && said.contains("line"), "{said}");
        }
        let extra = error(
            "\"tasks\": [\n                {\"id\": \"b\"",
            "\"tasks\": [{\"id\": \"q\", \"runtimeInSeconds\": 1}, {\"id\": \"b\"",
        );
        assert_eq!(extra, "task `q` is named in the execution, and there is none of that id");
    }

    #[test]
    fn no_damage_to_a_text_makes_it_panic() {
        let mut dice = crate::dice::Dice::of(&[1]);
        let bytes = SMALL.as_bytes();
        for _ in 0..20_000 {
            // As many spaces behind it as bytes may be taken away, so that something is left.
            let mut damaged = [bytes, b"    "].concat();
            for _ in 0..dice.between(1, 4) {
                let at = usize::try_from(dice.below(damaged.len() as u64)).expect("an index");
                match dice.below(3) {
                    0 => damaged[at] = u8::try_from(dice.below(128)).expect("seven bits"),
                    1 => drop(damaged.remove(at)),
                    _ => damaged.truncate(at.max(4)),
                }
            }
            let _ = parse("damaged", &String::from_utf8(damaged).expect("it is ASCII"));
        }
        let deep = "[".repeat(1 << 20);
        assert!(parse("deep", &deep).expect_err("it is none").to_string().contains("WfFormat"));
        let long = " ".repeat(usize::try_from(FILE_BYTES_MAX).expect("it fits") + 1);
        assert!(matches!(parse("long", &long), Err(FormatError::TooLong)));
    }

    #[test]
    fn a_folder_that_cannot_be_played_is_named() {
        let error = read_all(Path::new("/nowhere/at/all")).expect_err("there is none").to_string();
        assert_eq!(error, "cannot read the folder /nowhere/at/all");
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let error = read_all(&here).expect_err("there are none").to_string();
        assert!(error.ends_with("src has 0 files *.json; 1 to 1000 can be played"), "{error}");
    }

    #[test]
    fn kinds_are_programs_or_names_without_numbers() {
        let of = |program, name| kind(program, name);
        assert_eq!(of(Some("bwa"), "x_1"), "bwa");
        assert_eq!(of(Some("#!/bin/sh\nbwa"), "map_map_ID0000012"), "map_map");
        assert_eq!((of(None, "sort_12").as_str(), of(None, "sort").as_str()), ("sort", "sort"));
        assert_eq!((of(None, "12").as_str(), of(None, "GATK4").as_str()), ("12", "GATK4"));
    }
}
