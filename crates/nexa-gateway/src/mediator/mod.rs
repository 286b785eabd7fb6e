//! Commands and queries on their way: from a typed message to a typed reply, through a chain of layers.
//!
//! | order | layer | for |
//! |---|---|---|
//! | 50 | authenticate | everything: who asks, and for which tenant |
//! | 100 | validate | everything: sizes, counts, characters |
//! | 150 | authorize | everything: whether they may |
//! | 200 | log | everything |
//! | 250 | admit | commands that bring new work: whether the node takes on more, if it is asked ([`Builder::admission`]) |
//! | 300 | cache | queries whose reply never changes |
//! | 400 | retry | commands, with their request id, when the store was away |
//! | 500 | timeout | everything but watches |
//! | 1000 | execute | everything: the end of the chain |
//!
//! Own layers go in at any number ([`Builder::layer`]). The chain knows nothing of gRPC: the doors in [`crate::doors`] only
//! decode, ask and encode.

mod chain;
mod layers;
mod memory;
mod message;
mod operating;
mod reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use nexa_event::envelope::TraceContext;
use nexa_ports::clock::Clock;
use nexa_ports::dice::Dice;
use nexa_proto::refusal::Refusal;
use nexa_types::{PrincipalId, Reason, TenantId};
use tower::ServiceExt;

use crate::admission::{Admission, Entrance, Porter};

pub use chain::{Layer, Next};
pub use layers::tokens::{Access, TokenError, Tokens};
pub(crate) use layers::{around, go_on, identify};
pub use memory::*;
pub use message::*;
pub use operating::*;
pub use reply::*;

/// Where the layers of this crate stand.
pub mod order {
    /// Who asks.
    pub const AUTHENTICATE: u16 = 50;
    /// Whether the message makes sense by itself.
    pub const VALIDATE: u16 = 100;
    /// Whether they may.
    pub const AUTHORIZE: u16 = 150;
    /// What was asked and how it went.
    pub const LOG: u16 = 200;
    /// Whether there is room for new work: known to be allowed, and logged; once for all attempts, and before their time
    /// begins.
    pub const ADMIT: u16 = 250;
    /// Replies that never change.
    pub const CACHE: u16 = 300;
    /// Once more, if the store was away.
    pub const RETRY: u16 = 400;
    /// Not for ever.
    pub const TIMEOUT: u16 = 500;
    /// The end of the chain.
    pub const EXECUTE: u16 = 1000;
}

/// A message with everything that is known about how it came.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked.
    pub message: Message,
    /// What the caller showed.
    pub credentials: Credentials,
    /// Who asks; set by the layer that authenticates.
    pub identity: Option<Identity>,
    /// How long the caller will wait, if they said so.
    pub patience: Option<Duration>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// Whether the caller has sent it before and does not know what became of it.
    pub repeats: bool,
    /// How it was let in, if it brings new work; set by the layer that admits.
    pub entrance: Option<Entrance>,
}

impl Call {
    /// A message from this process or over loopback, without a token.
    pub fn local(message: impl Into<Message>) -> Self {
        Self {
            message: message.into(),
            credentials: Credentials::None,
            identity: None,
            patience: None,
            trace: None,
            repeats: false,
            entrance: None,
        }
    }
}

/// What a caller showed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing. Enough where no tokens are configured: then the door is a loopback address or a Unix socket.
    None,
    /// A bearer token.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::None => "none",
            Self::Bearer(_) => "bearer(…)",
        })
    }
}

/// Who asks, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Whose data may be seen.
    pub tenant: TenantId,
    /// Who did it, for the record.
    pub principal: PrincipalId,
    /// What they may do.
    pub access: Access,
}

impl Identity {
    /// The person in front of a laptop.
    pub fn local() -> Self {
        Self { tenant: TenantId::local(), principal: PrincipalId::local(), access: Access::Operator }
    }
}

/// Limits of the chain.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a call may take if the caller does not say, and at most if they do. Then: DEADLINE_EXCEEDED.
    pub call_time_max: Duration,
    /// How often a command is tried when the store is away. Then: STORE_UNAVAILABLE.
    pub attempts_max: u32,
    /// The wait before the second attempt; it doubles, and up to half of it is taken off by dice.
    pub retry_wait: Duration,
    /// How many replies are kept. Then: the least used goes.
    pub cached_replies_max: u64,
    /// How long a reply is kept.
    pub cached_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call_time_max: Duration::from_secs(30),
            attempts_max: 4,
            retry_wait: Duration::from_millis(50),
            cached_replies_max: 1_024,
            cached_for: Duration::from_secs(60),
        }
    }
}

/// Takes calls to their handlers. Cheap to clone.
#[derive(Clone)]
pub struct Mediator {
    chain: Next,
    porter: Option<Arc<Porter>>,
}

impl Mediator {
    /// Starts a chain that ends in `end`, usually [`crate::handlers::Handlers::into_end`].
    pub fn builder(end: Next, clock: Arc<dyn Clock>, dice: Arc<dyn Dice>) -> Builder {
        Builder { end, clock, dice, tokens: None, limits: Limits::default(), admission: None, layers: Vec::new() }
    }

    /// Who judges calls for new work before their messages are read, if the chain has admission.
    pub fn porter(&self) -> Option<&Arc<Porter>> {
        self.porter.as_ref()
    }

    /// Sends a call through the chain.
    ///
    /// Dropping the future leaves open whether a command was carried out; asking again under its request id tells.
    ///
    /// # Errors
    /// The [`Refusal`] of whichever layer refused.
    pub async fn send(&self, call: Call) -> Result<Reply, Refusal> {
        self.chain.clone().oneshot(call).await
    }

    /// Asks on behalf of the local principal, without a token.
    ///
    /// # Errors
    /// As [`Mediator::send`].
    pub async fn ask<A: Ask>(&self, ask: A) -> Result<A::Answer, Refusal> {
        self.ask_as(ask, |_| ()).await
    }

    /// Asks with credentials, a deadline or a trace, which `dress` puts into the call.
    ///
    /// # Errors
    /// As [`Mediator::send`].
    pub async fn ask_as<A: Ask>(&self, ask: A, dress: impl FnOnce(&mut Call)) -> Result<A::Answer, Refusal> {
        let mut call = Call::local(ask);
        dress(&mut call);
        let name = call.message.name();
        A::answer(self.send(call).await?)
            .ok_or_else(|| Refusal::new(Reason::Internal, format!("`{name}` was answered with another reply")))
    }
}

/// Puts a chain together.
pub struct Builder {
    end: Next,
    clock: Arc<dyn Clock>,
    dice: Arc<dyn Dice>,
    tokens: Option<Arc<Tokens>>,
    limits: Limits,
    admission: Option<Admission>,
    layers: Vec<Layer>,
}

impl Builder {
    /// Asks for a token from everybody, also over loopback.
    #[must_use]
    pub fn tokens(mut self, tokens: Arc<Tokens>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Judges whether the node takes on more: with a layer, and with a porter for the doors.
    #[must_use]
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = Some(admission);
        self
    }

    /// One more layer, at the place that its order says.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// The chain.
    pub fn build(self) -> Mediator {
        let Self { end, clock, dice, tokens, limits, admission, layers: own } = self;
        let mut layers = vec![
            layers::authenticate(tokens.clone()),
            layers::validate(),
            layers::authorize(),
            layers::log(clock.clone()),
            layers::cache(&limits),
            layers::retry(&limits, clock, dice),
            layers::timeout(&limits),
        ];
        layers.extend(admission.as_ref().map(Admission::layer));
        layers.extend(own);
        let names: Vec<_> = layers.iter().map(|layer| (layer.order, layer.name)).collect();
        tracing::debug!(?names, "chain built");
        let porter = admission.map(|admission| Arc::new(Porter::new(admission, tokens)));
        Mediator { chain: chain::compose(layers, end), porter }
    }
}
