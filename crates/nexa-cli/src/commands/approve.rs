//! `nexa approve`: what agents ask people, and the answers.

use nexa_proto::v1;
use serde_json::json;

use crate::args::{ApproveArgs, Output};
use crate::failure::Failure;
use crate::show::json;

/// `nexa approve`
pub async fn approve(args: &ApproveArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    let Some(id) = &args.id else {
        let open = client.approvals(v1::ApprovalServiceListRequest::default()).await?.approvals;
        for approval in &open {
            match output {
                Output::Json => println!("{}", json::approval(approval)),
                Output::Table => {
                    println!("{}  {} asks: {}", approval.approval_id, approval.agent_name, approval.question);
                    // Shown whole: nobody should approve what they cannot read.
                    if !approval.data_json.is_empty() {
                        println!("  about: {}", approval.data_json);
                    }
                }
            }
        }
        if open.is_empty() && output == Output::Table {
            eprintln!("nobody asks anything");
        }
        return Ok(());
    };
    let request = v1::ApprovalServiceAnswerRequest {
        request_id: String::new(),
        approval_id: id.clone(),
        approved: !args.deny,
        note: args.note.clone(),
    };
    client.answer(request).await?;
    let word = if args.deny { "denied" } else { "approved" };
    match output {
        Output::Json => println!("{}", json!({ "approval_id": id, "answer": word })),
        Output::Table => println!("{id} is {word}"),
    }
    Ok(())
}
