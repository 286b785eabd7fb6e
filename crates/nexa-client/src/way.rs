//! How a door is reached: over a connection, or by a call where client and door are in one process.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::transport::Channel;

type Answer = BoxFuture<Response<Body>, StdError>;

/// A way to one door. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Way {
    Connection(Channel),
    Call(Arc<dyn Fn(Request<Body>) -> Answer + Send + Sync>),
}

impl Way {
    /// A door in this process.
    pub(crate) fn to<S>(door: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self::Call(Arc::new(move |request| {
            let mut door = door.clone();
            Box::pin(async move {
                poll_fn(|context| door.poll_ready(context)).await?;
                Ok(door.call(request).await?)
            })
        }))
    }
}

impl From<Channel> for Way {
    fn from(channel: Channel) -> Self {
        Self::Connection(channel)
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(channel) => channel.fmt(out),
            Self::Call(_) => out.write_str("a door in this process"),
        }
    }
}

impl Service<Request<Body>> for Way {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        if let Self::Connection(channel) = self {
            ready!(channel.poll_ready(context))?;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match self {
            Self::Connection(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { Ok(answer.await?) })
            }
            Self::Call(call) => call(request),
        }
    }
}
