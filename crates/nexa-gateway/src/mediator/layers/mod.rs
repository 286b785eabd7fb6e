//! The layers that every chain has, in their order.

mod authenticate;
mod authorize;
mod cache;
mod log;
mod retry;
mod timeout;
pub(crate) mod tokens;
mod validate;

pub(super) use authenticate::authenticate;
pub(crate) use authenticate::identify;
pub(super) use authorize::authorize;
pub(super) use cache::cache;
pub(super) use log::log;
pub(super) use retry::retry;
pub(super) use timeout::timeout;
pub(super) use validate::validate;

use nexa_proto::refusal::Refusal;
use tower::ServiceExt;
use tower::layer::layer_fn;
use tower::util::service_fn;

use super::chain::{Layer, Next};
use super::{Call, Message, Reply};

/// A layer from one asynchronous function of a call and the rest of the chain.
pub(crate) fn around<F, Fut>(
    order: u16,
    name: &'static str,
    can_handle: impl Fn(&Message) -> bool + Send + Sync + 'static,
    handle: F,
) -> Layer
where
    F: Fn(Call, Next) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, Refusal>> + Send + 'static,
{
    let layer = layer_fn(move |next: Next| {
        let handle = handle.clone();
        service_fn(move |call: Call| handle(call, next.clone()))
    });
    Layer::new(order, name, can_handle, layer)
}

/// The rest of the chain, asked once.
pub(crate) async fn go_on(next: Next, call: Call) -> Result<Reply, Refusal> {
    next.oneshot(call).await
}
