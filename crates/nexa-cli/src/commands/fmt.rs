//! `nexa fmt`.

use std::path::{Path, PathBuf};

use nexa_lang::diagnostic::{self, Colour};
use nexa_lang::fix::migrate;
use nexa_lang::format::{FormatError, format};
use nexa_lang::{Diagnostic, FileId, Source};
use serde_json::json;

use super::check::is_colored;
use crate::args::{Color, FmtArgs, Output};
use crate::failure::{Exit, Failure};
use crate::files;

/// `nexa fmt`: writes programs anew, and lists those that changed on standard output. Of standard input, the formatted
/// text.
pub fn fmt(args: &FmtArgs, output: Output, color: Color) -> Result<(), Failure> {
    let colour = if is_colored(color) { Colour::On } else { Colour::Off };
    if args.files.iter().any(|file| file == Path::new("-")) {
        if args.files.len() > 1 {
            return Err(Failure::usage("`-` stands alone: standard input is formatted to standard output"));
        }
        return standard_input(args, colour);
    }
    let mut changed = 0;
    let mut refused = 0;
    let programs = files::programs(&args.files)?;
    for file in &programs {
        let source = match read(file) {
            Ok(source) => source,
            Err(Refused::Failed(failure)) => return Err(failure),
            Err(Refused::Found(source, findings)) => {
                refused += 1;
                tell(&source, &findings, output, colour);
                continue;
            }
        };
        match written_anew(&source, args.migrate) {
            Ok(text) if text == source.text() => {}
            Ok(text) => {
                changed += 1;
                if !args.check {
                    files::replace(file, &text)?;
                }
                match output {
                    Output::Table => println!("{}", file.display()),
                    Output::Json => {
                        println!("{}", json!({ "file": file.display().to_string(), "changed": !args.check }))
                    }
                }
            }
            Err(FormatError::Syntax(findings)) => {
                refused += 1;
                tell(&source, &findings, output, colour);
            }
            Err(error) => {
                refused += 1;
                eprintln!("error: {}: {error}", file.display());
            }
        }
    }
    summary(args.check, programs.len(), changed, refused);
    if refused > 0 || (args.check && changed > 0) { Err(Failure::told(Exit::Error)) } else { Ok(()) }
}

/// The text of a program as it should be.
fn written_anew(source: &Source, migrates: bool) -> Result<String, FormatError> {
    if !migrates {
        return format(source);
    }
    match Source::from_text(FileId(0), source.name(), &migrate(source)) {
        Ok(migrated) => format(&migrated),
        Err(finding) => Err(FormatError::Syntax(vec![*finding])),
    }
}

fn summary(is_check: bool, all: usize, changed: usize, refused: usize) {
    let files = |count: usize| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    let what = if is_check { "would be written anew" } else { "written anew" };
    let mut text = format!("{} of {} {what}", changed, files(all));
    if refused > 0 {
        text += &format!(", {} left as it is for errors", files(refused));
    }
    eprintln!("{text}");
}

fn standard_input(args: &FmtArgs, colour: Colour) -> Result<(), Failure> {
    let file = PathBuf::from("-");
    let source = match read(&file) {
        Ok(source) => source,
        Err(Refused::Failed(failure)) => return Err(failure),
        Err(Refused::Found(source, findings)) => {
            tell(&source, &findings, Output::Table, colour);
            return Err(Failure::told(Exit::Error));
        }
    };
    match written_anew(&source, args.migrate) {
        Ok(text) if args.check && text != source.text() => {
            println!("-");
            Err(Failure::told(Exit::Error))
        }
        Ok(_) if args.check => Ok(()),
        Ok(text) => {
            print!("{text}");
            Ok(())
        }
        Err(FormatError::Syntax(findings)) => {
            tell(&source, &findings, Output::Table, colour);
            Err(Failure::told(Exit::Error))
        }
        Err(error) => Err(Failure::error(error.to_string())),
    }
}

enum Refused {
    Failed(Failure),
    /// The bytes are no program text.
    Found(Source, Vec<Diagnostic>),
}

fn read(file: &Path) -> Result<Source, Refused> {
    let bytes = files::read(file).map_err(Refused::Failed)?;
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    Source::from_bytes(FileId(0), name.as_str(), bytes)
        .map_err(|finding| Refused::Found(Source::empty(FileId(0), name.as_str()), vec![*finding]))
}

/// Says on standard error why a file is left as it is; on standard output for programs.
fn tell(source: &Source, findings: &[Diagnostic], output: Output, colour: Colour) {
    for finding in findings {
        match output {
            Output::Json => println!("{}", diagnostic::to_json(finding, |_| Some(source))),
            Output::Table => eprintln!("{}\n", diagnostic::render(finding, |_| Some(source), colour)),
        }
    }
    eprintln!("error: {} is left as it is: it has syntax errors", source.name());
}
