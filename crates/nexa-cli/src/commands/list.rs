//! `nexa ps` and `nexa logs`.

use futures::StreamExt;
use nexa_client::{Client, From};
use nexa_proto::v1;
use nexa_proto::v1::watch_frame::Frame;

use crate::args::{LogsArgs, Output, PsArgs};
use crate::failure::Failure;
use crate::show::table::table;
use crate::show::{json, words};

/// Things a page, when several pages are read.
const PAGE_SIZE: i32 = 500;

/// `nexa ps`
pub async fn ps(args: &PsArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    match &args.workload {
        None => workloads(&client, args, output).await,
        Some(workload) => agents(&client, workload, args, output).await,
    }
}

async fn workloads(client: &Client, args: &PsArgs, output: Output) -> Result<(), Failure> {
    let state = match &args.state {
        None => v1::WorkloadState::Unspecified,
        Some(word) => workload_state(word)?,
    };
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let page_size = PAGE_SIZE.min(args.limit as i32 - found.len() as i32);
        let request = v1::WorkloadServiceListRequest { page_size, page_token, state: state.into(), min_seq: 0 };
        let page = client.workloads(request).await?;
        found.extend(page.workloads);
        page_token = page.next_page_token;
        if page_token.is_empty() || found.len() >= args.limit as usize {
            break;
        }
    }
    match output {
        Output::Json => found.iter().for_each(|workload| println!("{}", json::workload(workload))),
        Output::Table => {
            let rows: Vec<Vec<String>> = found
                .iter()
                .map(|workload| {
                    vec![
                        workload.workload_id.clone(),
                        workload.name.clone(),
                        words::workload_state(workload.state()).to_owned(),
                        format!("{} of {}", workload.agents_ended, workload.agents),
                        words::tokens(workload.spend.as_ref()),
                        words::span_between(workload.submitted_at.as_ref(), workload.ended_at.as_ref()),
                    ]
                })
                .collect();
            print!("{}", table(&["WORKLOAD", "NAME", "STATE", "AGENTS ENDED", "TOKENS", "TIME"], &rows));
        }
    }
    Ok(())
}

async fn agents(client: &Client, workload: &str, args: &PsArgs, output: Output) -> Result<(), Failure> {
    // A list of nothing is no answer to a workload that does not exist.
    client.workload(v1::WorkloadServiceGetRequest { workload_id: workload.to_owned() }).await?;
    let state = match &args.state {
        None => v1::AgentState::Unspecified,
        Some(word) => agent_state(word)?,
    };
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let page_size = PAGE_SIZE.min(args.limit as i32 - found.len() as i32);
        let workload_id = workload.to_owned();
        let request =
            v1::AgentServiceListRequest { workload_id, state: state.into(), page_size, page_token, min_seq: 0 };
        let page = client.agents(request).await?;
        found.extend(page.agents);
        page_token = page.next_page_token;
        if page_token.is_empty() || found.len() >= args.limit as usize {
            break;
        }
    }
    match output {
        Output::Json => found.iter().for_each(|agent| println!("{}", json::agent(agent))),
        Output::Table => {
            let rows: Vec<Vec<String>> = found
                .iter()
                .map(|agent| {
                    vec![
                        agent.agent_id.clone(),
                        agent.name.clone(),
                        words::agent_stands(agent),
                        if agent.node.is_empty() { "-".to_owned() } else { agent.node.clone() },
                        words::tokens(agent.spend.as_ref()),
                        words::span_between(agent.started_at.as_ref(), agent.ended_at.as_ref()),
                    ]
                })
                .collect();
            print!("{}", table(&["AGENT", "NAME", "STATE", "NODE", "TOKENS", "TIME"], &rows));
        }
    }
    Ok(())
}

fn workload_state(word: &str) -> Result<v1::WorkloadState, Failure> {
    let states = (1..=5).filter_map(|number| v1::WorkloadState::try_from(number).ok());
    states.into_iter().find(|state| words::workload_state(*state) == word).ok_or_else(|| {
        Failure::usage(format!("`{word}` is no state of a workload"))
            .hint("one of submitted, running, succeeded, failed, cancelled")
    })
}

fn agent_state(word: &str) -> Result<v1::AgentState, Failure> {
    let states = (1..=9).filter_map(|number| v1::AgentState::try_from(number).ok());
    states.into_iter().find(|state| words::agent_state(*state, v1::WaitingFor::Unspecified) == word).ok_or_else(|| {
        Failure::usage(format!("`{word}` is no state of an agent"))
            .hint("one of pending, ready, placed, running, waiting, succeeded, failed, cancelled, quarantined")
    })
}

/// `nexa logs`
pub async fn logs(args: &LogsArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    match (&args.search, &args.workload) {
        (Some(query), workload) => search(&client, query, workload.as_deref().unwrap_or_default(), output).await,
        (None, Some(workload)) => history(&client, workload, output).await,
        (None, None) => Err(Failure::usage("neither a workload nor --search is given")),
    }
}

async fn search(client: &Client, query: &str, workload: &str, output: Output) -> Result<(), Failure> {
    let request = v1::HistoryServiceSearchRequest {
        query: query.to_owned(),
        workload_id: workload.to_owned(),
        ..Default::default()
    };
    for hit in client.search(request).await?.hits {
        match output {
            Output::Json => println!("{}", json::hit(&hit)),
            Output::Table => {
                let at = hit.at.as_ref().map(words::time_of_day).unwrap_or_default();
                println!(
                    "{at}  {}  {:12}  {}: {}",
                    hit.workload_id,
                    hit.agent_name,
                    hit.kind,
                    words::shortened(&hit.snippet)
                );
            }
        }
    }
    Ok(())
}

/// Every fact so far, oldest first.
async fn history(client: &Client, workload: &str, output: Output) -> Result<(), Failure> {
    let mut frames = client.watch_workload(workload, From::Start, false);
    while let Some(frame) = frames.next().await {
        let frame = frame?;
        match (&frame, output) {
            // It has caught up.
            (Frame::Bookmark(_), _) => break,
            (Frame::Event(_), Output::Json) => println!("{}", json::frame(&frame)),
            (Frame::Event(event), Output::Table) => {
                let at = event.at.as_ref().map(words::time_of_day).unwrap_or_default();
                let what = event.event.as_ref().map(words::event).unwrap_or_default();
                println!("{at}  {:12}  {what}", event.agent_name);
            }
            _ => {}
        }
    }
    Ok(())
}
