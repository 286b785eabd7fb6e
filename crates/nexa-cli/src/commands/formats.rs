//! `nexa formats`, and `nexa formats raise`.

use std::time::Duration;

use nexa_client::Client;
use nexa_proto::v1;
use serde_json::json;

use crate::args::{FormatsAction, FormatsArgs, Output, RaiseArgs};
use crate::failure::{Exit, Failure};
use crate::show::json;
use crate::show::table::table;

/// Between two looks whether it is written.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long is waited for that: several times as long as it takes where nothing is in the way.
const WITHIN: Duration = Duration::from_secs(60);
/// What to do when the waiting is over before.
const GOES_ON: &str = "the cluster goes on with it; `nexa formats` says how far it is";

/// `nexa formats`
pub async fn formats(args: &FormatsArgs, output: Output) -> Result<(), Failure> {
    if let Some(FormatsAction::Raise(args)) = &args.action {
        return raise(args, output).await;
    }
    let told = list(&super::connect(&args.server).await?).await?;
    match output {
        Output::Json => println!("{}", json::formats(&told)),
        Output::Table => {
            let row = |node: &v1::NodeFormats| match node.oldest == node.newest {
                true => vec![node.node.clone(), node.newest.to_string()],
                false => vec![node.node.clone(), format!("{} to {}", node.oldest, node.newest)],
            };
            print!("{}", table(&["NODE", "READS"], &told.nodes.iter().map(row).collect::<Vec<_>>()));
            let v1::ClusterServiceListFormatsResponse { written, announced, newest, .. } = told;
            match announced > written {
                true => println!("format {written} is written; {}", waits_for(&told, announced)),
                false if newest > written => println!("format {written} is written; every node reads {newest}"),
                false => println!("format {written} is written, the newest that every node reads"),
            }
        }
    }
    Ok(())
}

async fn list(client: &Client) -> Result<v1::ClusterServiceListFormatsResponse, Failure> {
    Ok(client.formats(v1::ClusterServiceListFormatsRequest {}).await?)
}

/// What has to happen before a format that was asked for is written.
fn waits_for(told: &v1::ClusterServiceListFormatsResponse, format: u32) -> String {
    match told.nodes.iter().find(|node| node.newest < format) {
        Some(node) => format!("{format} is announced, and waits for {} to be upgraded", node.node),
        None => format!("{format} is announced, and is written within seconds"),
    }
}

async fn raise(args: &RaiseArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    let format = match args.to {
        Some(format) => format.into(),
        None => list(&client).await?.newest,
    };
    client.raise_format(v1::ClusterServiceRaiseFormatRequest { format }).await?;
    if args.no_wait {
        match output {
            Output::Json => println!("{}", json!({ "format": format, "announced": true })),
            Output::Table => println!("format {format} is announced; `nexa formats` says when it is written"),
        }
        return Ok(());
    }
    let written = tokio::select! {
        written = tokio::time::timeout(WITHIN, written(&client, format)) => written,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            eprintln!("\n{GOES_ON}");
            return Err(Failure::told(Exit::Interrupted));
        }
    };
    let written = written.unwrap_or_else(|_| {
        let told = format!("format {format} is not written after {} s", WITHIN.as_secs());
        Err(Failure { exit: Exit::Deadline, ..Failure::error(told) }.hint(GOES_ON))
    })?;
    match output {
        Output::Json => println!("{}", json!({ "format": written, "written": true })),
        Output::Table => println!("format {written} is written"),
    }
    Ok(())
}

/// Waits until a format is written, or a newer one, and says what it waits for; gives what is written.
async fn written(client: &Client, format: u32) -> Result<u32, Failure> {
    let mut said = String::new();
    loop {
        let told = list(client).await?;
        if told.written >= format {
            return Ok(told.written);
        }
        let news = waits_for(&told, format);
        if news != said {
            eprintln!("format {news}");
            said = news;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
