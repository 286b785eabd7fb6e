//! `nexa check`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nexa_lang::source_set::{FileLoader, LoadError};
use nexa_lang::{Amounts, Bounds, Diagnostic, Options, Prices, fix};
use serde_json::json;

use super::submit::{Compilation, Folder};
use crate::args::{CheckArgs, Color, Output};
use crate::failure::{Exit, Failure};
use crate::show::words;
use crate::{files, program};

/// `nexa check`: diagnostics on standard output, one JSON object a line with `--json` or `-o json`. `prices_of` gives what
/// the models of a project cost, by its folder.
pub fn check(
    args: &CheckArgs,
    prices_of: impl Fn(&Path) -> Result<Prices, Failure>,
    output: Output,
    color: Color,
) -> Result<(), Failure> {
    let output = if args.json { Output::Json } else { output };
    let programs = files::programs(&args.files)?;
    let mut wrong = 0;
    for file in &programs {
        if args.fix {
            mend(file, output)?;
        }
        let (folder, path) = program::project_of(file)?;
        let options = Options { prices: prices_of(&folder)?, is_strict: args.strict };
        let (result, costs) = nexa_lang::compile_with_costs(&path, &Folder(folder), &options);
        wrong += usize::from(result.has_errors() || result.module.is_none());
        show(&result.into(), output, color);
        if args.cost {
            costs.iter().flat_map(|costs| &costs.entries).for_each(|(name, bounds)| show_bounds(name, bounds, output));
        }
    }
    match (output, wrong) {
        (_, 1..) => Err(Failure::told(Exit::Error)),
        (Output::Table, 0) => {
            match programs.len() {
                0 => eprintln!("there are no programs here"),
                1 => eprintln!("the program is good"),
                _ => eprintln!("the programs are good"),
            }
            Ok(())
        }
        (Output::Json, 0) => {
            println!("{}", json!({ "good": programs.len() }));
            Ok(())
        }
    }
}

/// Prints what an entry may ask of models.
fn show_bounds(name: &str, bounds: &Bounds, output: Output) {
    let (least, most) = (bounds.least, bounds.most.as_ref());
    match output {
        Output::Table => {
            let most = match most {
                Ok(Amounts { requests: count, tokens, cost: None }) => {
                    format!("at most {} and {tokens} tokens", requests(*count))
                }
                Ok(Amounts { requests: count, tokens, cost: Some(cost) }) => {
                    format!("at most {}, {tokens} tokens and {}", requests(*count), words::dollars(cost.0))
                }
                Err(unknown) => format!("at most it is not known: {}", unknown.why),
            };
            println!("{name}: at least {}; {most}", requests(least.requests));
        }
        Output::Json => println!(
            "{}",
            json!({
                "entry": name, "requests_min": least.requests,
                "requests_max": most.ok().map(|most| most.requests),
                "tokens_max": most.ok().map(|most| most.tokens),
                "cost_usd_micro_max": most.ok().and_then(|most| most.cost).map(|cost| cost.0),
                "unknown": most.err().map(|unknown| unknown.why.as_str()),
            })
        ),
    }
}

fn requests(count: u64) -> String {
    if count == 1 { "1 request".to_owned() } else { format!("{count} requests") }
}

/// Files of a folder, some of them changed and not written yet.
struct Changed {
    folder: Folder,
    texts: RefCell<BTreeMap<String, String>>,
}

impl FileLoader for Changed {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        match self.texts.borrow().get(path) {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => self.folder.load(path),
        }
    }
}

/// Makes the changes that the diagnostics of a program offer, and those that are offered then, at most
/// [`fix::ROUNDS_MAX`] times. Files are replaced at the end, each as a whole.
fn mend(file: &Path, output: Output) -> Result<(), Failure> {
    let (root, path) = program::project_of(file)?;
    let loader = Changed { folder: Folder(root.clone()), texts: RefCell::default() };
    for _ in 0..fix::ROUNDS_MAX {
        let result = nexa_lang::check(&path, &loader);
        let mut count = 0;
        for parsed in result.sources.files() {
            let source = &parsed.source;
            let own = result.diagnostics.iter().filter(|finding| finding.file == source.file());
            let (text, mended) = fix::apply(source.text(), own);
            if mended.is_empty() {
                continue;
            }
            count += mended.len();
            for finding in mended {
                tell_mended(&root, source, finding, output);
            }
            loader.texts.borrow_mut().insert(source.name().to_owned(), text);
        }
        if count == 0 {
            break;
        }
    }
    for (path, text) in loader.texts.into_inner() {
        files::replace(&PathBuf::from(&root).join(path), &text)?;
    }
    Ok(())
}

fn tell_mended(root: &Path, source: &nexa_lang::Source, finding: &Diagnostic, output: Output) {
    let title = finding.fixes.first().map(|fix| fix.title.as_str()).unwrap_or_default();
    let at = source.line_column(finding.span.start);
    match output {
        Output::Table => println!("fixed[{}]: {}:{}:{}: {title}", finding.code, source.name(), at.line, at.column),
        Output::Json => println!(
            "{}",
            json!({
                "fixed": finding.code.name(), "title": title, "file": root.join(source.name()).display().to_string(),
                "line": at.line, "column": at.column,
            })
        ),
    }
}

/// Whether diagnostics carry colours.
pub(super) fn is_colored(color: Color) -> bool {
    use std::io::IsTerminal;
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}

fn show(compilation: &Compilation, output: Output, color: Color) {
    let colored = is_colored(color);
    for diagnostic in &compilation.diagnostics {
        match output {
            Output::Json => println!("{}", compilation.json(diagnostic)),
            Output::Table => println!("{}\n", compilation.text(diagnostic, colored)),
        }
    }
}
