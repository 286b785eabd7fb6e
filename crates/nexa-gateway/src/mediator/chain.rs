//! The chain: `tower` services over typed calls, ordered by number.
//!
//! A [`Layer`] has an order, a name and a question (`can_handle`); it wraps everything with a higher order. Two layers
//! with the same order keep the order in which they were added. A layer that cannot handle a message is not entered.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use nexa_proto::refusal::Refusal;
use tower::util::{BoxCloneSyncService, BoxCloneSyncServiceLayer};
use tower::{Service, ServiceExt};

use super::message::{Message, Reply};
use super::{Call, order};

/// The rest of the chain, as a layer sees it.
pub type Next = BoxCloneSyncService<Call, Reply, Refusal>;

type CanHandle = Arc<dyn Fn(&Message) -> bool + Send + Sync>;

/// One link of the chain.
#[derive(Clone)]
pub struct Layer {
    pub(super) order: u16,
    pub(super) name: &'static str,
    can_handle: CanHandle,
    wrap: BoxCloneSyncServiceLayer<Next, Call, Reply, Refusal>,
}

impl Layer {
    /// A layer from any `tower` layer.
    ///
    /// # Panics
    /// If `order` is [`order::EXECUTE`] or more: nothing comes after the end.
    pub fn new<L>(
        order: u16,
        name: &'static str,
        can_handle: impl Fn(&Message) -> bool + Send + Sync + 'static,
        layer: L,
    ) -> Self
    where
        L: tower::Layer<Next> + Send + Sync + 'static,
        L::Service: Service<Call, Response = Reply, Error = Refusal> + Clone + Send + Sync + 'static,
        <L::Service as Service<Call>>::Future: Send + 'static,
    {
        assert!(order < order::EXECUTE, "a layer must come before the end of the chain");
        Self { order, name, can_handle: Arc::new(can_handle), wrap: BoxCloneSyncServiceLayer::new(layer) }
    }
}

/// Puts layers around the end of the chain, the lowest order outermost.
pub(super) fn compose(mut layers: Vec<Layer>, end: Next) -> Next {
    layers.sort_by_key(|layer| layer.order);
    layers.into_iter().rev().fold(end, |next, layer| {
        let with = tower::Layer::layer(&layer.wrap, next.clone());
        BoxCloneSyncService::new(Gate(Arc::new(Sides { can_handle: layer.can_handle, with, without: next })))
    })
}

/// Enters a layer only for messages that it can handle. Every call clones what it goes through, so a clone must not be
/// one of all that lies behind: with two sides a layer that would be as many as there are ways.
#[derive(Clone)]
struct Gate(Arc<Sides>);

struct Sides {
    can_handle: CanHandle,
    with: Next,
    without: Next,
}

impl Service<Call> for Gate {
    type Response = Reply;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Reply, Refusal>>;

    /// Always ready: which side a call takes is known only when it comes, and that side is awaited then.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let Sides { can_handle, with, without } = &*self.0;
        let side = if can_handle(&call.message) { with } else { without };
        Box::pin(side.clone().oneshot(call))
    }
}
