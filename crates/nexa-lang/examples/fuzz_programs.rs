//! Very many broken and half-broken programs through everything that reads one:
//! `cargo xtask fuzz lang --cases 1000000 --seed 1`.
//!
//! A case is a program of the repository (examples, tests, the pages of `docs/language`) with some of its tokens deleted,
//! doubled, moved, swapped for others or taken from another program, and at times with bytes changed. Each case must
//! print back to its text, give a module if and only if it has no error, and a module that the verifier and the loader
//! accept. Nothing may panic, take memory or time beyond a line in the length of the text, or look at a token more than
//! a bounded number of times. A case that breaks this is printed with its number, which with the seed makes it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nexa_lang::diagnostic::Colour;
use nexa_lang::{FileId, Source, compile_text, parse};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Looks at a token, for each byte of the text.
const STEPS_PER_BYTE_MAX: u64 = 64;
const STEPS_FREE: u64 = 1_024;
/// Bytes of memory at the peak, for each byte of the text.
const MEMORY_PER_BYTE_MAX: usize = 4_096;
const MEMORY_FREE: usize = 2 << 20;
/// Time, for each byte of the text; far above what it takes, so that only what grows faster than the text is over it.
const TIME_PER_BYTE_MAX: Duration = Duration::from_micros(20);
const TIME_FREE: Duration = Duration::from_millis(20);
/// A case that took too long is tried again, for the machine may have been busy.
const TRIES: u32 = 5;

/// Words that programs are made of, for where none was.
const VOCABULARY: &[&str] = &[
    "agent",
    "tool",
    "protocol",
    "struct",
    "enum",
    "type",
    "flow",
    "test",
    "use",
    "fn",
    "let",
    "if",
    "else",
    "while",
    "for",
    "each",
    "in",
    "break",
    "continue",
    "return",
    "match",
    "try",
    "catch",
    "defer",
    "await",
    "true",
    "false",
    "none",
    "and",
    "or",
    "not",
    "semantic_if",
    "loop",
    "until",
    "fork",
    "merge",
    "spawn",
    "pass",
    "to",
    "verify",
    "satisfies",
    "against",
    "assert",
    "script",
    "fallback",
    "otherwise",
    "uses",
    "implements",
    "requires",
    "ensures",
    "budget",
    "schedule",
    "intent",
    "snapshot()",
    "restore(s)",
    "receive()",
    "it",
    "result",
    "_",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ";",
    ":",
    ".",
    "@",
    "=",
    "+=",
    "=>",
    "->",
    "?",
    "!",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "|",
    "??",
    ">>",
    "|>",
    "|>>",
    "||",
    "&>>",
    "&&",
    "?>",
    "1",
    "0xff",
    "1.5",
    "2e9",
    "30s",
    "8MiB",
    "\"text\"",
    "\"#{",
    "\"\"\"",
    "r\"re\"",
    "//",
    "/*",
    "*/",
    "///",
    "\n",
    "\n\n",
    "int",
    "str",
    "list[int]",
    "any",
    "main",
    "A",
    "x",
    "ok(",
    "err(",
    "9223372036854775808",
];

struct Corpus {
    programs: Vec<Vec<String>>,
}

impl Corpus {
    fn read(root: &Path) -> Self {
        let mut files = Vec::new();
        for folder in ["examples", "crates/nexa-lang/tests", "docs/language"] {
            walk(&root.join(folder), &mut files);
        }
        files.sort();
        let texts = files.iter().filter_map(|file| Some((file, fs::read_to_string(file).ok()?)));
        let programs = texts.flat_map(|(file, text)| {
            if file.extension().is_some_and(|extension| extension == "md") { blocks(&text) } else { vec![text] }
        });
        Self { programs: programs.map(|text| tokens(&text)).collect() }
    }

    /// A program with a few edits.
    fn case(&self, dice: &mut fastrand::Rng) -> String {
        let mut words = self.pick(dice).clone();
        // Mostly one or two, so that many cases get as far as the checker and some as far as the verifier.
        self.edit(&mut words, dice);
        while dice.u8(..) < 110 {
            self.edit(&mut words, dice);
        }
        let mut bytes = words.concat().into_bytes();
        if dice.u8(..) < 24 && !bytes.is_empty() {
            for _ in 0..dice.usize(1..=4) {
                let at = dice.usize(..bytes.len());
                match dice.u8(..3) {
                    0 => bytes[at] = dice.u8(..),
                    1 => bytes.insert(at, dice.u8(..)),
                    _ => bytes.truncate(at.max(1)),
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn pick(&self, dice: &mut fastrand::Rng) -> &Vec<String> {
        &self.programs[dice.usize(..self.programs.len())]
    }

    fn edit(&self, words: &mut Vec<String>, dice: &mut fastrand::Rng) {
        if words.is_empty() {
            return words.extend(self.pick(dice).iter().cloned());
        }
        let at = dice.usize(..words.len());
        let run = at..(at + dice.usize(1..=8)).min(words.len());
        match dice.u8(..14) {
            0 => drop(words.drain(run)),
            1 => {
                let again = words[run].to_vec();
                for _ in 0..dice.usize(1..=3) {
                    words.splice(at..at, again.iter().cloned());
                }
            }
            2 => {
                let moved: Vec<String> = words.drain(run).collect();
                let to = dice.usize(..=words.len());
                words.splice(to..to, moved);
            }
            3 => words[at] = VOCABULARY[dice.usize(..VOCABULARY.len())].to_owned(),
            4 => words.insert(at, VOCABULARY[dice.usize(..VOCABULARY.len())].to_owned()),
            5 => {
                let other = dice.usize(..words.len());
                words.swap(at, other);
            }
            6..=11 => {
                // A word for a word, which leaves most of a program as it is.
                let other = self.pick(dice);
                let same = |word: &&String| {
                    word.starts_with(char::is_alphabetic) == words[at].starts_with(char::is_alphabetic)
                };
                let found: Vec<&String> = other.iter().filter(same).filter(|word| !word.trim().is_empty()).collect();
                if let Some(word) = found.get(dice.usize(..found.len().max(1))) {
                    words[at] = (*word).clone();
                }
            }
            12 => {
                let other = self.pick(dice);
                if !other.is_empty() {
                    let from = dice.usize(..other.len());
                    let to = (from + dice.usize(1..=40)).min(other.len());
                    words.splice(run, other[from..to].iter().cloned());
                }
            }
            _ => {
                // Nests deep, or grows long.
                let word = VOCABULARY[dice.usize(..VOCABULARY.len())];
                let times = dice.usize(1..=600);
                words.splice(at..at, std::iter::repeat_n(format!("{word} "), times));
            }
        }
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "nx" || extension == "md") {
            files.push(path);
        }
    }
}

/// The code blocks of a page.
fn blocks(page: &str) -> Vec<String> {
    page.split("```").skip(1).step_by(2).filter_map(|block| Some(block.split_once('\n')?.1.to_owned())).collect()
}

fn tokens(text: &str) -> Vec<String> {
    let Ok(source) = Source::from_text(FileId(0), "corpus.nx", text) else { return Vec::new() };
    let tree = parse(&source).syntax();
    tree.descendants_with_tokens().filter_map(|part| Some(part.into_token()?.text().to_owned())).collect()
}

/// What a case came to.
#[derive(Default)]
struct Verdict {
    compiled: bool,
    errors: usize,
}

/// Everything that must hold for a text, or what does not.
fn judge(text: &str) -> Result<Verdict, String> {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let Ok(source) = Source::from_text(FileId(0), "fuzz.nx", text) else { return Ok(Verdict::default()) };
    let parsed = parse(&source);
    if parsed.print() != text {
        return Err("the tree does not print back to the text".to_owned());
    }
    if parsed.steps() > STEPS_FREE + STEPS_PER_BYTE_MAX * text.len() as u64 {
        return Err(format!("{} looks at tokens for {} bytes", parsed.steps(), text.len()));
    }
    let result = compile_text("fuzz.nx", text);
    let shown = result.render(Colour::Off);
    if result.has_errors() && shown.is_empty() {
        return Err("there is an error and nothing to show for it".to_owned());
    }
    if result.module.is_some() == result.has_errors() {
        return Err("there is a module if and only if there is no error: broken".to_owned());
    }
    if let Some(module) = &result.module {
        nexa_vm::Program::load(&module.encode()).map_err(|error| format!("the module is refused: {error}"))?;
    }
    let peak = MEMORY.peak_usage().saturating_sub(before);
    if peak > MEMORY_FREE + MEMORY_PER_BYTE_MAX * text.len() {
        return Err(format!("{peak} bytes of memory for {} bytes of text", text.len()));
    }
    Ok(Verdict { compiled: result.module.is_some(), errors: result.diagnostics.len() })
}

/// Whether a text takes too long every time.
fn is_slow(text: &str) -> bool {
    let limit = TIME_FREE + TIME_PER_BYTE_MAX * text.len() as u32;
    (0..TRIES).all(|_| {
        let start = Instant::now();
        let _same_as_before = judge(text);
        start.elapsed() > limit
    })
}

fn option(args: &[String], name: &str, default: u64) -> u64 {
    let place = args.iter().position(|arg| arg == name);
    place.and_then(|place| args.get(place + 1)?.parse().ok()).unwrap_or(default)
}

/// The stack that the `nexa` binary gives to its compiler.
const STACK_BYTES: usize = 4 << 20;

fn main() {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).expect("a thread can be started");
    if !thread.join().unwrap_or(false) {
        std::process::exit(1);
    }
}

fn run() -> bool {
    let args: Vec<String> = std::env::args().collect();
    let (cases, seed, first) =
        (option(&args, "--cases", 100_000), option(&args, "--seed", 1), option(&args, "--first", 0));
    let corpus = Corpus::read(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.."));
    println!("{} programs to start from, seed {seed}", corpus.programs.len());
    let started = Instant::now();
    let (mut compiled, mut errors, mut bytes, mut broken, mut slowest) = (0u64, 0u64, 0u64, 0u64, Duration::ZERO);
    for number in first..first + cases {
        // One generator a case, so that any case can be made again without those before it.
        let mut dice = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number));
        let text = corpus.case(&mut dice);
        bytes += text.len() as u64;
        let start = Instant::now();
        let verdict = std::panic::catch_unwind(|| judge(&text)).unwrap_or_else(|_| Err("it panics".to_owned()));
        let took = start.elapsed();
        slowest = slowest.max(took);
        let problem = match verdict {
            Ok(verdict) => {
                compiled += u64::from(verdict.compiled);
                errors += verdict.errors as u64;
                let limit = TIME_FREE + TIME_PER_BYTE_MAX * text.len() as u32;
                (took > limit && is_slow(&text)).then(|| format!("{took:?} for {} bytes", text.len()))
            }
            Err(problem) => Some(problem),
        };
        if let Some(problem) = problem {
            broken += 1;
            println!("case {number}: {problem}\n--- {} bytes\n{text}\n---", text.len());
            if broken == 20 {
                println!("twenty are enough");
                break;
            }
        }
        if (number + 1) % 100_000 == 0 {
            println!(
                "{} cases, {compiled} compiled, {broken} broken, {:.0} s",
                number + 1,
                started.elapsed().as_secs_f64()
            );
        }
    }
    println!(
        "{cases} cases, {} MB, {compiled} compiled, {errors} findings, slowest {slowest:?}, {broken} broken, {:.0} s",
        bytes / 1_000_000,
        started.elapsed().as_secs_f64()
    );
    broken == 0
}
