//! Chooses the adapter by the model's name: `provider/name`.
//!
//! `local/…` is the embedded model; any other provider is a configured endpoint. An empty name is the default.
//! With a script, the script answers everything: no name reaches a real model by accident.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use nexa_event::effect::ModelReply;
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_types::RunCode;

/// Models by provider, behind the same port as each of them.
#[derive(Clone, Default)]
pub struct Router {
    /// The name for requests that name no model.
    default: String,
    providers: BTreeMap<String, Arc<dyn Model>>,
    script: Option<Arc<dyn Model>>,
}

impl Router {
    /// A router that knows nobody yet. `default` is the `provider/name` for requests that name none.
    pub fn new(default: impl Into<String>) -> Self {
        Self { default: default.into(), ..Self::default() }
    }

    /// Adds a provider; a second one of the same name replaces the first.
    #[must_use]
    pub fn with(mut self, provider: impl Into<String>, model: Arc<dyn Model>) -> Self {
        self.providers.insert(provider.into(), model);
        self
    }

    /// Lets a script answer every request.
    #[must_use]
    pub fn scripted(mut self, script: Arc<dyn Model>) -> Self {
        self.script = Some(script);
        self
    }

    /// The full name of a requested model.
    pub fn resolve<'n>(&'n self, name: &'n str) -> &'n str {
        if name.is_empty() { &self.default } else { name }
    }

    fn find(&self, name: &str) -> Result<&dyn Model, ModelError> {
        if let Some(script) = &self.script {
            return Ok(script.as_ref());
        }
        let name = self.resolve(name);
        let provider = name.split_once('/').map(|(provider, _)| provider).filter(|provider| !provider.is_empty());
        let refused = |message| Err(ModelError::new(RunCode::Refused, message));
        match provider.map(|provider| (provider, self.providers.get(provider))) {
            Some((_, Some(model))) => Ok(model.as_ref()),
            Some((provider, None)) => {
                let known: Vec<&str> = self.providers.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                refused(format!("no provider `{provider}` is configured for the model `{name}`; configured: {known}"))
            }
            None => refused(format!("the model `{name}` is not of the form `provider/name`")),
        }
    }
}

impl Model for Router {
    fn ask<'a>(&'a self, mut call: ModelCall, chunks: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        match self.find(&call.request.model) {
            Ok(model) => {
                // A script is nobody's model and keeps the name that it was asked under.
                if self.script.is_none() {
                    call.request.model = self.resolve(&call.request.model).to_owned();
                }
                model.ask(call, chunks)
            }
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    }

    /// One for a name that nobody serves, so that its refusal can be asked for.
    fn limits(&self, model: &str) -> LaneLimits {
        self.find(model).map_or(LaneLimits::at_once(1), |found| found.limits(self.resolve(model)))
    }

    fn lane(&self, model: &str) -> String {
        self.find(model).map_or_else(|_| "unknown".to_owned(), |found| found.lane(self.resolve(model)))
    }
}

#[cfg(test)]
mod tests {
    use nexa_ports::model::NoChunks;

    use super::*;
    use crate::script::{Script, ScriptedModel};
    use crate::testing::{call, request};

    fn answering(text: &str) -> Arc<dyn Model> {
        let script = Script::parse(&format!("script Greeter => \"{text}\"")).expect("a script");
        Arc::new(ScriptedModel::new(script))
    }

    fn ask(router: &Router, model: &str) -> String {
        let mut asking = request("hi");
        asking.model = model.to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        match runtime.block_on(router.ask(call(1, asking), &NoChunks)) {
            Ok(reply) => format!("{} by {}", reply.text, reply.model),
            Err(error) => format!("{}: {error}", error.code),
        }
    }

    #[test]
    fn a_name_finds_its_provider_and_an_unknown_one_is_refused() {
        let router =
            Router::new("local/small").with("local", answering("from here")).with("acme", answering("from afar"));
        assert_eq!(ask(&router, ""), "from here by local/small");
        assert_eq!(ask(&router, "acme/a/b"), "from afar by acme/a/b");
        assert_eq!(
            ask(&router, "other/x"),
            "refused: no provider `other` is configured for the model `other/x`; configured: acme, local"
        );
        assert_eq!(ask(&router, "large"), "refused: the model `large` is not of the form `provider/name`");
        assert_eq!(router.limits("other/x"), LaneLimits::at_once(1));
    }

    #[test]
    fn with_a_script_no_other_model_is_asked() {
        let router =
            Router::new("local/small").with("local", answering("from here")).scripted(answering("from the script"));
        assert_eq!(ask(&router, "local/small"), "from the script by local/small");
        assert_eq!(ask(&router, "nobody/x"), "from the script by nobody/x");
        assert_eq!(router.lane("local/small"), "script");
    }
}
