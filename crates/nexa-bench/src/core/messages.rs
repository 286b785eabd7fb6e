//! Durable messages: parents that pass to their children.

use std::sync::Arc;
use std::time::Instant;

use nexa_vm::value::Value;

use super::model::Silent;
use super::node::{Ground, block_on};
use crate::measure::Error;

/// Sends `count` messages to a child that reads them all.
const PROGRAM: &str = r#"
flow reader(count: int) -> int {
    let bytes = 0
    let seen = 0
    while (seen < count) {
        let word: str = receive()
        bytes += word.len()
        seen += 1
    }
    return bytes
}
flow main(count: int, word: str) -> int {
    let child = spawn reader(count)
    let sent = 0
    while (sent < count) {
        pass word to child
        sent += 1
    }
    return await child
}
"#;

/// With its header and its link, 256 bytes in the receiver's stream.
const WORD: &str = "a message between two agents, about as long as a short line of text";

/// Messages a second between so many pairs.
pub(crate) fn measure(
    open: impl AsyncFnOnce() -> Result<Ground, Error>,
    pairs: usize,
    messages: i64,
) -> Result<f64, Error> {
    block_on(async {
        let running = open().await?.start(Arc::new(Silent::default())).await?;
        let put = running.put(PROGRAM).await?;
        let args = |_| vec![Value::Int(messages), Value::Str(WORD.into())];
        let roots = running.submit(&put, "main", pairs, args).await?;
        let begin = Instant::now();
        running.wake(&roots)?;
        running.all_ended().await?;
        let took = begin.elapsed().as_secs_f64();
        for root in roots {
            if running.result(root).await? != Value::Int(messages * WORD.len() as i64) {
                return Err("a message was lost or came twice".into());
            }
        }
        Ok(pairs as f64 * messages as f64 / took)
    })
}
