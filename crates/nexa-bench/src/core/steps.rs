//! Durable steps: agents that ask a model one question after another.

use std::sync::Arc;
use std::time::Instant;

use nexa_vm::value::Value;

use super::model::Quick;
use super::node::{Ground, block_on};
use crate::measure::{Error, Rounds};

/// One request, one answer, `count` times.
const PROGRAM: &str = r##"
flow main(count: int) -> int {
    let done = 0
    for each step in range(0, count) {
        semantic_if "it goes on" against "step #{step}" { done += 1 } else { done -= 1 }
    }
    return done
}
"##;

/// So many agents at a time, each with so many steps.
pub(crate) fn measure(
    open: impl AsyncFnOnce() -> Result<Ground, Error>,
    agents: usize,
    steps: i64,
    rounds: &mut Rounds,
) -> Result<(), Error> {
    block_on(async {
        let model = Arc::new(Quick::default());
        let running = open().await?.start(model.clone()).await?;
        let put = running.put(PROGRAM).await?;
        let roots = running.submit(&put, "main", agents, |_| vec![Value::Int(steps)]).await?;
        let begin = Instant::now();
        running.wake(&roots)?;
        running.all_ended().await?;
        let took = begin.elapsed().as_secs_f64();
        for root in roots {
            if running.result(root).await? != Value::Int(steps) {
                return Err("an agent took a wrong number of steps".into());
            }
        }
        let (count, between) = (model.count(), model.between());
        if count != agents * usize::try_from(steps)? {
            return Err(format!("the model was asked {count} times").into());
        }
        rounds.note("durable_steps_per_s", count as f64 / took);
        rounds.note("step_p50_ms", between[between.len() / 2]);
        rounds.note("step_p99_ms", between[between.len() * 99 / 100]);
        Ok(())
    })
}
