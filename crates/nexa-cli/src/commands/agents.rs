//! `nexa cancel` and `nexa send`.

use nexa_proto::v1;
use serde_json::json;

use crate::args::{CancelArgs, Output, SendArgs};
use crate::failure::Failure;

/// `nexa cancel`
pub async fn cancel(args: &CancelArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    let request = v1::WorkloadServiceCancelRequest {
        request_id: String::new(),
        workload_id: args.workload.clone(),
        reason: args.reason.clone(),
    };
    client.cancel(request).await?;
    match output {
        Output::Json => println!("{}", json!({ "workload_id": args.workload, "cancelled": true })),
        Output::Table => println!("{} is cancelled", args.workload),
    }
    Ok(())
}

/// `nexa send`
pub async fn send(args: &SendArgs, output: Output) -> Result<(), Failure> {
    serde_json::from_str::<serde_json::Value>(&args.message).map_err(|error| {
        Failure::usage(format!("the message is not JSON: {error}"))
            .hint("a text needs quotes of its own: nexa send AGENT '\"…\"'")
    })?;
    let client = super::connect(&args.server).await?;
    let request = v1::AgentServiceSendRequest {
        request_id: String::new(),
        agent_id: args.agent.clone(),
        value_json: args.message.clone(),
    };
    client.send(request).await?;
    match output {
        Output::Json => println!("{}", json!({ "agent_id": args.agent, "sent": true })),
        Output::Table => println!("sent to {}", args.agent),
    }
    Ok(())
}
