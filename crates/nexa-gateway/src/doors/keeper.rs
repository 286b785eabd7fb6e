//! Stands before the services: so many calls at once, and no more.
//!
//! It sees the head of a call and nothing of its message, so what it refuses has cost next to nothing. While the node refuses
//! new work, its [`Porter`] says here whom the layers would refuse. Calls that bring new
//! work have a bound of their own below that of all calls, so they cannot keep anybody from looking, cancelling and
//! answering; health is asked for past all bounds. A call counts until its answer begins, and a watch until it is open.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use nexa_proto::refusal::Refusal;
use nexa_proto::{REQUEST_ID, convert};
use nexa_types::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

use super::{DoorConfig, services};
use crate::admission::{Demand, Head, Porter};

/// Calls that bring new work, and what they add to.
const WORK: [(&str, Demand); 2] =
    [("/nexa.v1.WorkloadService/Submit", Demand::Agents), ("/nexa.v1.ProgramService/Put", Demand::Program)];
/// Where health is asked for.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// When to come back.
const COME_BACK_AFTER: Duration = Duration::from_millis(500);

/// Counts calls.
#[derive(Clone)]
pub(super) struct Keeper {
    calls: Arc<Semaphore>,
    work: Arc<Semaphore>,
    porter: Option<Arc<Porter>>,
}

impl Keeper {
    pub(super) fn new(config: &DoorConfig, porter: Option<Arc<Porter>>) -> Self {
        let bound = |max: usize| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self { calls: bound(config.calls_max), work: bound(config.work_calls_max), porter }
    }

    /// A place for a call; `None` for one that needs none.
    fn place(&self, path: &str, headers: &HeaderMap) -> Result<Option<[Option<OwnedSemaphorePermit>; 2]>, Refusal> {
        if path.starts_with(HEALTH) {
            return Ok(None);
        }
        let work = WORK.into_iter().find(|(work, _)| *work == path);
        if let Some((_, demand)) = work
            && let Some(porter) = self.porter.as_ref().filter(|porter| porter.is_awake())
            && let Some(refusal) = porter.turns_away(&head(demand, headers))
        {
            return Err(refusal);
        }
        let take = |from: &Arc<Semaphore>, what: &str| {
            from.clone().try_acquire_owned().map(Some).map_err(|_| {
                Refusal::new(Reason::Overloaded, format!("too many {what} at once"))
                    .hint("ask again a little later")
                    .after(COME_BACK_AFTER)
            })
        };
        let work = if work.is_some() { take(&self.work, "calls that bring new work")? } else { None };
        Ok(Some([work, take(&self.calls, "calls")?]))
    }
}

/// What travels beside a message.
fn head(demand: Demand, headers: &HeaderMap) -> Head {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Head {
        demand,
        credentials: services::credentials(text("authorization")),
        request: text(REQUEST_ID).and_then(convert::request_id),
        repeats: services::repeats(text(services::REPEATS)),
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
        match self.keeper.place(request.uri().path(), request.headers()) {
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
        let door = Keeper::new(&config, None).layer(inner);
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
        let mut under_way = vec![ask(WORK[0].0)];
        tokio::task::yield_now().await;
        assert_eq!(refused(WORK[1].0).await, "too many calls that bring new work at once");
        under_way.extend([ask(look), ask(look)]);
        tokio::task::yield_now().await;
        assert_eq!(refused(look).await, "too many calls at once");
        under_way.push(ask("/grpc.health.v1.Health/Check"));
        open.send_replace(true);
        for call in under_way {
            let told = call.await.expect("no panic").expect("infallible");
            assert!(told.headers().get("grpc-status").is_none());
        }
        let told = ask(WORK[1].0).await.expect("no panic").expect("infallible");
        assert!(told.headers().get("grpc-status").is_none(), "places come back");
    }
}
