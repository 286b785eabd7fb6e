//! `nexa plan`.

use nexa_proto::v1;

use crate::args::{Output, PlanArgs};
use crate::failure::Failure;
use crate::show::planned;

/// `nexa plan`: what of a workload its server would run when.
pub async fn plan(args: &PlanArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    let request = v1::WorkloadServiceGetPlanRequest { workload_id: args.workload.clone() };
    let plan = client.plan(request).await?.plan.unwrap_or_default();
    match output {
        Output::Json => println!("{}", planned::to_json(&plan)),
        Output::Table => print!("{}", planned::to_text(&plan)),
    }
    Ok(())
}
