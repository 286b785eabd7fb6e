//! `nexa doctor`: looks for what could keep nexa from working on this machine, and says what to do about it.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use nexa_cli::args::{DoctorArgs, Output};
use nexa_cli::failure::{Exit, Failure};
use nexa_llm::embedded::{ModelStore, processor_note};
use nexa_ports::embedder::{EmbedCall, Urgency};
use nexa_proto::v1;
use nexa_types::TenantId;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::Project;
use crate::wiring::embedder;
use crate::{chain, config};

/// A sync to disk slower than this makes every step slow.
const FSYNC_SLOW: Duration = Duration::from_millis(10);
/// How often a sync is measured.
const FSYNC_TRIES: usize = 20;

/// The first vector takes no longer, weights included.
const EMBEDDING_DEADLINE: Duration = Duration::from_secs(20);

/// What was found.
struct Finding {
    what: &'static str,
    verdict: Verdict,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Note,
    Bad,
}

/// Runs `nexa doctor`: one line a finding; an error if something is bad.
pub(crate) async fn run(args: &DoctorArgs, output: Output) -> Result<(), Failure> {
    let data = config::data_folder(args.data.as_deref())?;
    let models = config::models_folder(args.models_dir.as_deref())?;
    let project = std::env::current_dir().map_or_else(|_| Ok(Project::default()), |folder| Project::find(&folder));
    let mut findings = vec![processor(), disk(&data), weights(&ModelStore::new(models))];
    findings.push(embedding(project, args.models_dir.as_deref()).await);
    findings.push(server(args).await);
    for finding in &findings {
        let word = match finding.verdict {
            Verdict::Good => "good",
            Verdict::Note => "note",
            Verdict::Bad => "bad",
        };
        match output {
            Output::Json => println!("{}", json!({ "what": finding.what, "verdict": word, "detail": finding.detail })),
            Output::Table => println!("{word:4}  {:9}  {}", finding.what, finding.detail),
        }
    }
    if findings.iter().any(|finding| finding.verdict == Verdict::Bad) {
        return Err(Failure::told(Exit::Error));
    }
    Ok(())
}

fn processor() -> Finding {
    let what = "processor";
    match processor_note() {
        None => Finding { what, verdict: Verdict::Good, detail: "has what the embedded model is built for".to_owned() },
        Some(note) => Finding { what, verdict: Verdict::Note, detail: note },
    }
}

/// Writes and syncs a small file in the data folder, as every commit does.
fn disk(data: &Path) -> Finding {
    let what = "disk";
    match fsync_median(data) {
        Err(error) => Finding {
            what,
            verdict: Verdict::Bad,
            detail: format!("cannot write to {}: {error}; give another folder with --data", data.display()),
        },
        Ok(time) => {
            let verdict = if time > FSYNC_SLOW { Verdict::Note } else { Verdict::Good };
            let milli = time.as_secs_f64() * 1e3;
            Finding { what, verdict, detail: format!("{}: a sync takes {milli:.2} ms (median)", data.display()) }
        }
    }
}

fn fsync_median(data: &Path) -> std::io::Result<Duration> {
    std::fs::create_dir_all(data)?;
    let path = data.join(format!(".doctor-{}", std::process::id()));
    let measured = (|| {
        let mut file = std::fs::File::create(&path)?;
        let mut times = Vec::with_capacity(FSYNC_TRIES);
        for _ in 0..FSYNC_TRIES {
            let started = Instant::now();
            file.write_all(&[0; 512])?;
            file.sync_data()?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        Ok(times[FSYNC_TRIES / 2])
    })();
    // The file is of no use to anybody, whatever was measured.
    let _ = std::fs::remove_file(&path);
    measured
}

fn weights(store: &ModelStore) -> Finding {
    let what = "weights";
    match store.verify() {
        Ok(weights) => Finding { what, verdict: Verdict::Good, detail: format!("{} is right", weights.path.display()) },
        Err(error) => Finding { what, verdict: Verdict::Note, detail: chain(&error) },
    }
}

/// Makes one vector, as context is found by.
async fn embedding(project: Result<Project, Failure>, models: Option<&Path>) -> Finding {
    let what = "embedding";
    let note = |detail: String| Finding { what, verdict: Verdict::Note, detail };
    let embedder = match project.and_then(|project| embedder(&project, models)) {
        Ok(Some(embedder)) => embedder,
        Ok(None) => return note("nexa.toml wants none: context is found by its words alone".to_owned()),
        Err(failure) => return Finding { what, verdict: Verdict::Bad, detail: failure.message },
    };
    let call = EmbedCall {
        texts: vec!["The cat sits outside".into()],
        tenant: TenantId::local(),
        urgency: Urgency::Query,
        deadline: EMBEDDING_DEADLINE,
        cancel: CancellationToken::new(),
    };
    let began = Instant::now();
    match embedder.embed(call).await {
        Ok(_) => {
            let (model, milli) = (embedder.model(), began.elapsed().as_millis());
            let detail =
                format!("{model} makes vectors of {} numbers; the first took {milli} ms", embedder.dimension());
            Finding { what, verdict: Verdict::Good, detail }
        }
        Err(error) => note(format!("{}: {error}; until then context is found by its words alone", embedder.model())),
    }
}

async fn server(args: &DoctorArgs) -> Finding {
    let what = "server";
    let answer = async {
        let client = nexa_cli::commands::connect(&args.server).await?;
        let request = v1::WorkloadServiceListRequest { page_size: 1, ..Default::default() };
        client.workloads(request).await.map_err(Failure::from)
    };
    match answer.await {
        Ok(_) => Finding { what, verdict: Verdict::Good, detail: format!("{} answers", args.server.server) },
        Err(failure) => Finding {
            what,
            verdict: Verdict::Note,
            detail: format!("{} does not answer ({}); `nexa run` needs none", args.server.server, failure.message),
        },
    }
}
