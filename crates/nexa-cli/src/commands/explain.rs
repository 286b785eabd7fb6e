//! `nexa explain`.

use nexa_lang::{Code, explain as page};
use serde_json::json;

use crate::args::{ExplainArgs, Output};
use crate::failure::Failure;

/// `nexa explain`: what a code means, or all codes, on standard output.
pub fn explain(args: &ExplainArgs, output: Output) -> Result<(), Failure> {
    let Some(name) = &args.code else {
        for code in Code::ALL {
            match output {
                Output::Table => println!("{code}  {}", code.meaning()),
                Output::Json => println!("{}", json!({ "code": code.name(), "meaning": code.meaning() })),
            }
        }
        return Ok(());
    };
    let code = Code::named(&name.to_ascii_uppercase()).ok_or_else(|| unknown(name))?;
    let text = page::section(code);
    match output {
        Output::Table => {
            println!("{code}: {}\n", code.meaning());
            println!("{}", text.unwrap_or("No program of this release leads to it yet."));
        }
        Output::Json => println!("{}", json!({ "code": code.name(), "meaning": code.meaning(), "text": text })),
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    let failure = Failure::usage(format!("there is no code `{name}`"));
    match page::successor(name) {
        Some(code) => failure.hint(format!("{code} took its place: `nexa explain {code}`")),
        None => failure.hint("`nexa explain` lists them all"),
    }
}
