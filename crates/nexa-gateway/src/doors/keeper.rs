//! Stands before the services: so many calls at once, and no more.
//!
//! It sees the head of a call and nothing of its message, so what it refuses has cost next to nothing. Calls that bring new
//! work have a bound of their own below that of all calls, so they cannot keep anybody from looking, cancelling and
//! answering; health is asked for past all bounds. A call counts until its answer begins, and a watch until it is open.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use nexa_proto::refusal::Refusal;
use nexa_types::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::DoorConfig;

/// Calls that bring new work.
const WORK: [&str; 2] = ["/nexa.v1.WorkloadService/Submit", "/nexa.v1.ProgramService/Put"];
/// Where health is asked for.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// When to come back.
const COME_BACK_AFTER: Duration = Duration::from_millis(500);

/// Counts calls.
#[derive(Clone)]
pub(super) struct Keeper {
    calls: Arc<Semaphore>,
    work: Arc<Semaphore>,
}

impl Keeper {
    pub(super) fn new(config: &DoorConfig) -> Self {
        let bound = |max: usize| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self { calls: bound(config.calls_max), work: bound(config.work_calls_max) }
    }

    /// A place for a call; `None` for one that needs none.
    fn place(&self, path: &str) -> Result<Option<[Option<OwnedSemaphorePermit>; 2]>, Refusal> {
        if path.starts_with(HEALTH) {
            return Ok(None);
        }
        let take = |from: &Arc<Semaphore>, what: &str| {
            from.clone().try_acquire_owned().map(Some).map_err(|_| {
                Refusal::new(Reason::Overloaded, format!("too many {what} at once"))
                    .hint("ask again a little later")
                    .after(COME_BACK_AFTER)
            })
        };
        let work = if WORK.contains(&path) { take(&self.work, "calls that bring new work")? } else { None };
        Ok(Some([work, take(&self.calls, "calls")?]))
    }
}

impl<S> Layer<S> for Keeper {
    type Service = Kept<S>;

    fn layer(&self, inner: S) -> Kept<S> {
        Kept { keeper: self.clone(), inner }
    }
}

/// A service behind the keeper.
#[derive(Clone)]
pub(super) struct Kept<S> {
    keeper: Keeper,
    inner: S,
}

impl<S, Asked, Told> Service<Request<Asked>> for Kept<S>
where
    S: Service<Request<Asked>, Response = Response<Told>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    Told: Default + Send + 'static,
{
    type Response = Response<Told>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Told>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Asked>) -> Self::Future {
        match self.keeper.place(request.uri().path()) {
            Ok(place) => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let _place = place;
                    answer.await
                })
            }
            Err(refusal) => Box::pin(async move { Ok(Status::from(refusal).into_http()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::{ServiceExt, service_fn};

    #[tokio::test]
    async fn new_work_leaves_room_for_everything_else_and_health_needs_none() {
        let config = DoorConfig { calls_max: 3, work_calls_max: 1, ..DoorConfig::default() };
        let (open, _) = tokio::sync::watch::channel(false);
        let inner = service_fn({
            let open = open.clone();
            move |_: Request<()>| {
                let mut open = open.subscribe();
                async move {
                    let _ = open.wait_for(|open| *open).await;
                    Ok::<_, std::convert::Infallible>(Response::new(()))
                }
            }
        });
        let door = Keeper::new(&config).layer(inner);
        let ask = |path: &'static str| {
            let request = Request::builder().uri(path).body(()).expect("a path");
            tokio::spawn(door.clone().oneshot(request))
        };
        let refused = async |path| {
            let told = ask(path).await.expect("no panic").expect("infallible");
            let status = Status::from_header_map(told.headers()).expect("a status");
            let refusal = Refusal::from_status(&status).expect("our own");
            assert_eq!((refusal.reason, refusal.retry_after), (Reason::Overloaded, Some(COME_BACK_AFTER)));
            refusal.message
        };
        let look = "/nexa.v1.WorkloadService/Get";
        let mut under_way = vec![ask(WORK[0])];
        tokio::task::yield_now().await;
        assert_eq!(refused(WORK[1]).await, "too many calls that bring new work at once");
        under_way.extend([ask(look), ask(look)]);
        tokio::task::yield_now().await;
        assert_eq!(refused(look).await, "too many calls at once");
        under_way.push(ask("/grpc.health.v1.Health/Check"));
        open.send_replace(true);
        for call in under_way {
            let told = call.await.expect("no panic").expect("infallible");
            assert!(told.headers().get("grpc-status").is_none());
        }
        let told = ask(WORK[1]).await.expect("no panic").expect("infallible");
        assert!(told.headers().get("grpc-status").is_none(), "places come back");
    }
}
