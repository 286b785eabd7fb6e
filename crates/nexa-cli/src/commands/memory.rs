//! `nexa recall` and `nexa memory`: what agents remember.

use std::fmt::Write as _;
use std::io::Write as _;

use futures::StreamExt as _;
use nexa_client::Client;
use nexa_proto::v1;
use serde_json::{Value, json};

use crate::args::{MemoryAction, MemoryArgs, OfAgent, Output, PagesArgs, RebuildArgs, RecallArgs, RecallFrom};
use crate::failure::Failure;
use crate::show::table::table;
use crate::show::{json as as_json, words};

/// Columns of a message's text in a table.
const TEXT_CHARS: usize = 100;

/// `nexa recall`
pub async fn recall(args: &RecallArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    let reach = match args.from {
        RecallFrom::Agent => v1::RecallReach::Agent,
        RecallFrom::Workload => v1::RecallReach::Workload,
        RecallFrom::Tenant => v1::RecallReach::Tenant,
    };
    let request = v1::ContextServiceRecallRequest {
        agent_id: args.agent.clone(),
        query: args.query.clone(),
        reach: reach.into(),
        messages_max: i32::from(args.limit),
        tokens_max: args.tokens.unwrap_or_default(),
    };
    let found = client.recall(request).await?;
    match output {
        Output::Json => found.messages.iter().for_each(|message| println!("{}", remembered(message))),
        Output::Table => print!("{}", recalled(&found)),
    }
    if found.messages.is_empty() && output == Output::Table {
        eprintln!("nothing was found in {} pages", found.pages);
        if found.pages == 0 {
            eprintln!("hint: an agent remembers if its declaration has `memory: {{}}`");
        }
    }
    Ok(())
}

/// `nexa memory`
pub async fn memory(args: &MemoryArgs, output: Output) -> Result<(), Failure> {
    match &args.action {
        MemoryAction::Stats(OfAgent { agent, server }) => {
            let request = v1::ContextServiceStatsRequest { agent_id: agent.clone() };
            let stats = super::connect(server).await?.memory_stats(request).await?;
            match output {
                Output::Json => println!("{}", stats_json(agent, &stats)),
                Output::Table => print!("{}", stats_lines(&stats)),
            }
        }
        MemoryAction::Pages(PagesArgs { of, limit }) => {
            let pages = pages(&super::connect(&of.server).await?, &of.agent, *limit as usize).await?;
            match output {
                Output::Json => pages.iter().for_each(|page| println!("{}", page_json(page))),
                Output::Table => print!("{}", page_table(&pages)),
            }
        }
        MemoryAction::Export(OfAgent { agent, server }) => {
            let mut parts = super::connect(server).await?.export_memory(agent).await?;
            while let Some(part) = parts.next().await {
                for message in part? {
                    let line = match output {
                        Output::Json => remembered(&message).to_string(),
                        Output::Table => format!("{}: {}", who(&message), message.text),
                    };
                    // Whoever reads it may have enough.
                    if writeln!(std::io::stdout(), "{line}").is_err() {
                        return Ok(());
                    }
                }
            }
        }
        MemoryAction::Forget(OfAgent { agent, server }) => {
            let request = v1::ContextServiceForgetRequest { agent_id: agent.clone() };
            let pages = super::connect(server).await?.forget_memory(request).await?.pages;
            match output {
                Output::Json => println!("{}", json!({ "agent_id": agent, "forgotten_pages": pages })),
                Output::Table => println!("what {agent} said is forgotten, with {pages} pages"),
            }
        }
        MemoryAction::Rebuild(RebuildArgs { server }) => {
            let client = super::connect(server).await?;
            let seen = client.rebuild_memory(v1::ContextServiceRebuildRequest {}).await?.seen_seq;
            match output {
                Output::Json => println!("{}", json!({ "seen_seq": seen })),
                Output::Table => println!("the log was read again up to position {seen}"),
            }
        }
    }
    Ok(())
}

async fn pages(client: &Client, agent: &str, limit: usize) -> Result<Vec<v1::MemoryPage>, Failure> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    while pages.len() < limit {
        let page_size = i32::try_from(limit - pages.len()).unwrap_or(i32::MAX);
        let request = v1::ContextServiceListPagesRequest { agent_id: agent.to_owned(), page_size, page_token };
        let listed = client.memory_pages(request).await?;
        pages.extend(listed.pages);
        page_token = listed.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(pages)
}

fn who(message: &v1::RememberedMessage) -> &str {
    if message.speaker.is_empty() { &message.role } else { &message.speaker }
}

/// The beginning of a text on one line.
fn line(text: &str) -> String {
    let one = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match one.char_indices().nth(TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &one[..end]),
        None => one,
    }
}

fn recalled(found: &v1::ContextServiceRecallResponse) -> String {
    let rows = found.messages.iter().map(|message| {
        let from = message.provenance.clone().unwrap_or_default();
        let place = format!("{}:{}.{}", from.agent_id, from.version, from.number);
        vec![format!("{:.2}", from.score), why(&from), place, who(message).to_owned(), line(&message.text)]
    });
    table(&["SCORE", "WHY", "FROM", "WHO", "TEXT"], &rows.collect::<Vec<_>>())
}

/// What a score is made of, the greatest parts first as they are weighed.
fn why(from: &v1::Provenance) -> String {
    let mut parts = Vec::new();
    if from.keywords > 0.0 {
        parts.push(format!("words {:.2}", from.keywords));
    }
    if let Some(cosine) = from.cosine {
        parts.push(format!("near {cosine:.2}"));
    }
    if parts.is_empty() {
        parts.push("beside".to_owned());
    }
    parts.join(", ")
}

fn remembered(message: &v1::RememberedMessage) -> Value {
    let from = message.provenance.clone().unwrap_or_default();
    json!({
        "role": message.role,
        "speaker": message.speaker,
        "text": message.text,
        "at": as_json::time(message.at.as_ref()),
        "tokens": message.tokens,
        "agent_id": from.agent_id,
        "page_id": from.page_id,
        "version": from.version,
        "number": from.number,
        "score": from.score,
        "keywords": from.keywords,
        "cosine": from.cosine,
        "page": from.page,
        "neighbours": from.neighbours,
        "conversation": from.conversation,
    })
}

fn page_json(page: &v1::MemoryPage) -> Value {
    json!({
        "page_id": page.page_id,
        "first_version": page.first_version,
        "last_version": page.last_version,
        "first_at": as_json::time(page.first_at.as_ref()),
        "last_at": as_json::time(page.last_at.as_ref()),
        "messages": page.messages,
        "tokens": page.tokens,
        "bytes": page.bytes,
        "embedded": page.embedded,
        "stored": page.stored,
    })
}

fn page_table(pages: &[v1::MemoryPage]) -> String {
    let rows = pages.iter().map(|page| {
        let id = if page.page_id.is_empty() { "(open)" } else { &page.page_id };
        let kept = if page.stored { page.bytes.to_string() } else { "-".to_owned() };
        vec![
            id.to_owned(),
            format!("{}-{}", page.first_version, page.last_version),
            page.last_at.as_ref().map(words::time_of_day).unwrap_or_default(),
            page.messages.to_string(),
            page.tokens.to_string(),
            page.embedded.to_string(),
            kept,
        ]
    });
    table(&["PAGE", "FACTS", "LAST", "MESSAGES", "TOKENS", "VECTORS", "BYTES"], &rows.collect::<Vec<_>>())
}

fn stats_json(agent: &str, stats: &v1::ContextServiceStatsResponse) -> Value {
    json!({
        "agent_id": agent,
        "pages": stats.pages,
        "messages": stats.messages,
        "tokens": stats.tokens,
        "bytes": stats.bytes,
        "embedded": stats.embedded,
        "unstored": stats.unstored,
        "node_waiting": stats.node_waiting,
        "node_folded_seq": stats.node_folded_seq,
        "node_stored": stats.node_stored,
        "node_recalls": stats.node_recalls,
    })
}

fn stats_lines(stats: &v1::ContextServiceStatsResponse) -> String {
    let mut lines = format!(
        "pages     {} ({} not stored yet)\nmessages  {} ({} with vectors)\ntokens    about {}\nbytes     {}\n",
        stats.pages, stats.unstored, stats.messages, stats.embedded, stats.tokens, stats.bytes,
    );
    // Told to operators.
    if let Some(waiting) = stats.node_waiting {
        let _ = writeln!(
            lines,
            "the node  {waiting} pages wait, {} stored, {} queries; the log is read up to {}",
            stats.node_stored(),
            stats.node_recalls(),
            stats.node_folded_seq(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn message(speaker: &str, text: &str, cosine: Option<f32>) -> v1::RememberedMessage {
        let provenance = v1::Provenance {
            agent_id: "a-1".into(),
            page_id: "p-2".into(),
            version: 7,
            number: 1,
            score: 1.234,
            keywords: if cosine.is_some() { 0.0 } else { 1.0 },
            cosine,
            page: 0.5,
            neighbours: 0.25,
            conversation: 1.0,
        };
        v1::RememberedMessage {
            role: "user".into(),
            speaker: speaker.into(),
            text: text.into(),
            at: None,
            tokens: 3,
            provenance: Some(provenance),
        }
    }

    #[test]
    fn what_was_found_says_where_it_is_from_and_why() {
        let long = format!("a\n{}", "b ".repeat(80));
        let messages = vec![message("Guide", "the train leaves at 9", None), message("", &long, Some(0.5))];
        let found = v1::ContextServiceRecallResponse { messages, mode: 3, pages: 2, seen_seq: 9 };
        expect![[r#"
            SCORE  WHY         FROM     WHO    TEXT
            1.23   words 1.00  a-1:7.1  Guide  the train leaves at 9
            1.23   near 0.50   a-1:7.1  user   a b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b …
        "#]].assert_eq(&recalled(&found));
        expect![[r#"{"role":"user","speaker":"Guide","text":"the train leaves at 9","at":null,"tokens":3,"agent_id":"a-1","page_id":"p-2","version":7,"number":1,"score":1.234,"keywords":1.0,"cosine":null,"page":0.5,"neighbours":0.25,"conversation":1.0}"#]].assert_eq(&remembered(&found.messages[0]).to_string());
    }

    #[test]
    fn pages_say_what_is_open_and_what_is_not_stored() {
        let page = |id: &str, stored| v1::MemoryPage {
            page_id: id.into(),
            first_version: 3,
            last_version: 12,
            messages: 8,
            tokens: 160,
            bytes: if stored { 2_048 } else { 0 },
            embedded: if stored { 8 } else { 0 },
            stored,
            ..v1::MemoryPage::default()
        };
        expect![[r#"
            PAGE    FACTS  LAST  MESSAGES  TOKENS  VECTORS  BYTES
            p-1     3-12         8         160     8        2048
            p-2     3-12         8         160     0        -
            (open)  3-12         8         160     0        -
        "#]]
        .assert_eq(&page_table(&[page("p-1", true), page("p-2", false), page("", false)]));
        let stats = v1::ContextServiceStatsResponse {
            pages: 2,
            messages: 17,
            tokens: 320,
            bytes: 2_048,
            embedded: 8,
            unstored: 1,
            node_waiting: Some(4),
            node_folded_seq: Some(99),
            node_stored: Some(12),
            node_recalls: Some(3),
        };
        expect![[r#"
            pages     2 (1 not stored yet)
            messages  17 (8 with vectors)
            tokens    about 320
            bytes     2048
            the node  4 pages wait, 12 stored, 3 queries; the log is read up to 99
        "#]]
        .assert_eq(&stats_lines(&stats));
        let of_a_tenant = v1::ContextServiceStatsResponse { node_waiting: None, ..stats };
        assert!(!stats_lines(&of_a_tenant).contains("the node"));
        expect![[r#"{"agent_id":"a-1","pages":2,"messages":17,"tokens":320,"bytes":2048,"embedded":8,"unstored":1,"node_waiting":4,"node_folded_seq":99,"node_stored":12,"node_recalls":3}"#]].assert_eq(&stats_json("a-1", &stats).to_string());
    }
}
