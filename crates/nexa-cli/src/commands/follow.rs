//! Following a workload to its end, for `run`, `submit --watch` and `watch`.

use std::io::{BufRead, IsTerminal};

use futures::StreamExt;
use nexa_client::{Client, From, Watched};
use nexa_proto::v1;
use nexa_proto::v1::watch_frame::Frame;
use serde_json::json;

use crate::args::{Color, Output, WatchArgs};
use crate::failure::{Exit, Failure};
use crate::progress::{Line, Progress};
use crate::screen::Screen;
use crate::show::{json, words};

/// How to follow.
#[derive(Debug, Clone)]
pub struct Following {
    /// The workload.
    pub workload_id: String,
    /// From where.
    pub from: From,
    /// How results are printed.
    pub output: Output,
    /// Whether to move and to colour.
    pub color: Color,
    /// Added to the commands that are suggested, so that they reach the same server.
    pub reach: String,
    /// Said at the end: where the data lies and how to look at it.
    pub closing: String,
}

/// `nexa watch`
pub async fn watch(args: &WatchArgs, output: Output, color: Color) -> Result<(), Failure> {
    let from = match &args.cursor {
        None => From::Snapshot,
        Some(text) => From::Cursor(json::unhex(text).ok_or_else(|| {
            Failure::usage("the cursor is not one that `-o json` printed").hint("copy the value of `cursor` whole")
        })?),
    };
    let client = super::connect(&args.server).await?;
    let workload_id = args.workload.clone();
    follow(&client, Following::of(workload_id, from, output, color)).await
}

impl Following {
    /// Following a workload of the server that the command line names.
    pub fn of(workload_id: String, from: From, output: Output, color: Color) -> Self {
        let closing = format!("history: nexa logs {workload_id}");
        Self { workload_id, from, output, color, reach: String::new(), closing }
    }
}

/// Shows a workload until it ends. An error if it did not end well.
///
/// Cancel-safe: dropping it stops the showing and nothing else.
pub async fn follow(client: &Client, how: Following) -> Result<(), Failure> {
    // Programs that read JSON want facts; text that is being written is for people.
    let frames = client.watch_workload(how.workload_id.clone(), how.from.clone(), how.output == Output::Table);
    let request = v1::WorkloadServiceGetRequest { workload_id: how.workload_id.clone() };
    match how.output {
        Output::Json => {
            print_frames(frames).await?;
            let workload = client.workload(request).await?.workload.unwrap_or_default();
            println!("{}", json!({ "frame": "end", "workload": json::workload(&workload) }));
            judge(&workload)
        }
        Output::Table => {
            let table = show_frames(client, frames, &how).await?;
            let workload = client.workload(request).await?.workload.unwrap_or_default();
            eprint!("\n{table}");
            let total = words::tokens(workload.spend.as_ref());
            let time = words::span_between(workload.submitted_at.as_ref(), workload.ended_at.as_ref());
            eprintln!("\n{}: {}, {total} tokens, {time}", workload.name, words::workload_state(workload.state()));
            eprintln!("{}", how.closing);
            print_value(&workload);
            judge(&workload)
        }
    }
}

async fn print_frames(mut frames: Watched) -> Result<(), Failure> {
    while let Some(frame) = frames.next().await {
        println!("{}", json::frame(&frame?));
    }
    Ok(())
}

async fn show_frames(client: &Client, mut frames: Watched, how: &Following) -> Result<String, Failure> {
    let mut screen = Screen::new(how.color, how.reach.clone());
    let mut progress = Progress::default();
    while let Some(frame) = frames.next().await {
        let frame = frame?;
        let mut lines = progress.take(&frame);
        if let Frame::Snapshot(snapshot) = &frame {
            lines.extend(open_questions(client, snapshot, &how.workload_id).await?);
        }
        screen.show(&lines, &progress);
        for line in &lines {
            if let Line::Question(asked) = line
                && std::io::stdin().is_terminal()
            {
                answer_here(client, &mut screen, asked).await?;
            }
        }
    }
    screen.finish();
    Ok(progress.table())
}

/// Questions that were asked before the watch began.
async fn open_questions(
    client: &Client,
    snapshot: &v1::WatchSnapshot,
    workload_id: &str,
) -> Result<Vec<Line>, Failure> {
    if !snapshot.agents.iter().any(|agent| agent.waiting_for() == v1::WaitingFor::Approval) {
        return Ok(Vec::new());
    }
    let request = v1::ApprovalServiceListRequest { workload_id: workload_id.to_owned(), ..Default::default() };
    let open = client.approvals(request).await?.approvals;
    Ok(open
        .into_iter()
        .map(|approval| {
            Line::Question(v1::ApprovalRequested {
                effect_seq: 0,
                approval_id: approval.approval_id,
                question: approval.question,
                data_json: approval.data_json,
            })
        })
        .collect())
}

/// Asks the person at the terminal. An empty line leaves the question open for another terminal.
async fn answer_here(client: &Client, screen: &mut Screen, asked: &v1::ApprovalRequested) -> Result<(), Failure> {
    screen.print("  or here: y or n, and a note if you like; an empty line leaves it open");
    screen.pause();
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = line.await.map_err(|error| Failure::error(error.to_string()))??;
    let (word, note) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let approved = match word.to_ascii_lowercase().as_str() {
        "y" | "yes" => true,
        "n" | "no" => false,
        _ => return Ok(()),
    };
    let request = v1::ApprovalServiceAnswerRequest {
        request_id: String::new(),
        approval_id: asked.approval_id.clone(),
        approved,
        note: note.trim().to_owned(),
    };
    match client.answer(request).await {
        Ok(_) => Ok(()),
        // Somebody else was faster; their answer comes as a frame.
        Err(error) if error.reason() == Some(nexa_types::Reason::NotWaiting) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The value on standard output: a text as it is, anything else as indented JSON.
fn print_value(workload: &v1::Workload) {
    let result = workload.outcome.as_ref().and_then(|outcome| outcome.result.as_ref());
    let Some(v1::outcome::Result::ValueJson(text)) = result else { return };
    match serde_json::from_str(text) {
        Ok(serde_json::Value::String(text)) => println!("{text}"),
        Ok(serde_json::Value::Null) => {}
        Ok(value) => println!("{value:#}"),
        Err(_) => println!("{text}"),
    }
}

fn judge(workload: &v1::Workload) -> Result<(), Failure> {
    if workload.state() == v1::WorkloadState::Succeeded {
        return Ok(());
    }
    let result = workload.outcome.as_ref().and_then(|outcome| outcome.result.as_ref());
    let message = match result {
        Some(v1::outcome::Result::Failure(failure)) => words::failure(failure),
        _ => format!("the workload is {}", words::workload_state(workload.state())),
    };
    Err(Failure { exit: Exit::RunFailed, message, hint: None })
}
