//! `nexa check`.

use serde_json::json;

use super::submit::{Compilation, compile_file};
use crate::args::{CheckArgs, Color, Output};
use crate::failure::{Exit, Failure};

/// `nexa check`: diagnostics on standard output, one JSON object a line with `-o json`.
pub fn check(args: &CheckArgs, output: Output, color: Color) -> Result<(), Failure> {
    let mut wrong = 0;
    for file in &args.files {
        let compilation = compile_file(file)?;
        show(&compilation, output, color);
        wrong += usize::from(compilation.module.is_none());
    }
    match (output, wrong) {
        (_, 1..) => Err(Failure::told(Exit::Error)),
        (Output::Table, 0) => {
            let programs = if args.files.len() == 1 { "the program is" } else { "the programs are" };
            eprintln!("{programs} good");
            Ok(())
        }
        (Output::Json, 0) => {
            println!("{}", json!({ "good": args.files.len() }));
            Ok(())
        }
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
            Output::Table => println!("{}", compilation.text(diagnostic, colored)),
        }
    }
}
