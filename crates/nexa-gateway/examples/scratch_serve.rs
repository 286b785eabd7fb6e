//! scratch
#![allow(warnings)]
use std::sync::Arc;
use futures::future::BoxFuture;
use nexa_event::effect::{Finish, ModelReply};
use nexa_gateway::doors::{DoorConfig, Gateway};
use nexa_gateway::handlers::Handlers;
use nexa_gateway::mediator::Mediator;
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::{Dice, SeededDice};
use nexa_ports::memory::MemoryStore;
use nexa_ports::model::{Chunks, Model, ModelCall, ModelError};
use nexa_ports::view::MemoryViews;
use nexa_runtime::{Node, NodeConfig, Ports};
use nexa_types::{NodeId, RunCode, Spend, Tokens};
use tokio_util::sync::CancellationToken;
/// Writes a line in two pieces, once the gate is open.
struct Echo {
    open: tokio::sync::watch::Sender<bool>,
}

impl Model for Echo {
    fn ask<'a>(&'a self, call: ModelCall, chunks: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        Box::pin(async move {
            let mut open = self.open.subscribe();
            tokio::select! {
                _ = open.wait_for(|open| *open) => {}
                () = call.cancel.cancelled() => return Err(ModelError::new(RunCode::Cancelled, "cancelled")),
            }
            chunks.piece(0, "a line ");
            chunks.piece(7, "about it");
            let spend = Spend { tokens_in: Tokens(9), tokens_out: Tokens(4), calls: 1, ..Spend::default() };
            let text = "a line about it".to_owned();
            Ok(ModelReply { text, finish: Finish::Stop, model: "echo/echo".into(), spend, tokens_left_out: Tokens(0) })
        })
    }

    fn slots(&self, _: &str) -> usize {
        8
    }

    fn lane(&self, _: &str) -> String {
        "echo".into()
    }
}


#[tokio::main]
async fn main() {
        let store = Arc::new(MemoryStore::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let dice: Arc<dyn Dice> = Arc::new(SeededDice::new(7));
        let echo = Arc::new(Echo { open: tokio::sync::watch::Sender::new(true) });
        let ports = Ports { store: store.clone(), model: echo.clone(), clock: clock.clone(), dice: dice.clone() };
        let node = Node::start(NodeConfig::new(NodeId::new("n1").unwrap()), ports).await.unwrap();
        let views = Arc::new(MemoryViews::new(store.clone()));
        let handlers = Handlers::new(store, views, Arc::new(node.clone()), clock.clone());
        let closing = handlers.closing().clone();
        let mediator = Mediator::builder(handlers.into_end(), clock, dice).build();
        let shutdown = CancellationToken::new();
        let listen = std::env::args().nth(1).unwrap().parse().unwrap();
        let served = Gateway::new(mediator, closing).serve(&listen, DoorConfig::default(), shutdown.clone()).await.unwrap();
        println!("{}", served.address);
        served.done.await.unwrap().unwrap();
}
