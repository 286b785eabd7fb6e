//! `[embedding]` of `nexa.toml`: what makes vectors of texts, by which context is found that shares no word with a question.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use nexa_cli::failure::Failure;
use nexa_llm::openai::embeddings::{EmbeddingConfig, TEXT_BYTES_DEFAULT};
use serde::Deserialize;

use super::{PROVIDER_LOCAL, Provider};

/// The model that makes vectors of texts unless `nexa.toml` names another.
const EMBEDDING_DEFAULT: &str = "local/all-minilm-l6-v2";
/// What `nexa.toml` says for no vectors at all.
const EMBEDDING_NONE: &str = "none";

/// What makes vectors of texts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddingSettings {
    /// As `provider/name`, or `none`; without it the one that runs in this process.
    model: Option<String>,
    /// How many numbers a vector has; of an endpoint's model only.
    dimension: Option<NonZeroUsize>,
    /// Bytes of a text that an endpoint's model is sent at most.
    text_bytes_max: Option<NonZeroUsize>,
}

/// What makes vectors of texts, as it was chosen.
#[derive(Debug)]
pub(crate) enum Embedding<'a> {
    /// Nothing: texts are found by their words.
    None,
    /// The model in this process.
    Local,
    /// A model of an endpoint.
    Endpoint { name: &'a str, provider: &'a Provider, config: EmbeddingConfig },
}

impl EmbeddingSettings {
    /// The choice, which is checked here.
    pub(super) fn choose<'a>(&'a self, providers: &'a BTreeMap<String, Provider>) -> Result<Embedding<'a>, Failure> {
        let Self { model, dimension, text_bytes_max } = self;
        let model = model.as_deref().unwrap_or(EMBEDDING_DEFAULT);
        if matches!(model, EMBEDDING_NONE | EMBEDDING_DEFAULT) {
            if dimension.is_some() || text_bytes_max.is_some() {
                let wrong =
                    "`dimension` and `text_bytes_max` under `[embedding]` in nexa.toml are of an endpoint's model";
                return Err(Failure::error(wrong).hint(format!("leave them out, or name a model other than `{model}`")));
            }
            return Ok(if model == EMBEDDING_NONE { Embedding::None } else { Embedding::Local });
        }
        let wrong = |why: String| Failure::error(format!("`model` under `[embedding]` in nexa.toml: {why}"));
        let Some((name, model)) = model.split_once('/').filter(|(name, model)| !name.is_empty() && !model.is_empty())
        else {
            return Err(wrong(format!("\"{model}\" is neither `provider/name` nor \"{EMBEDDING_NONE}\"")));
        };
        if name == PROVIDER_LOCAL {
            return Err(wrong(format!("this process has no model \"{model}\" for it, only \"{EMBEDDING_DEFAULT}\"")));
        }
        let Some(provider) = providers.get(name) else {
            return Err(
                wrong(format!("there is no provider `{name}`")).hint(format!("add [providers.{name}] with its `url`"))
            );
        };
        let Some(dimension) = dimension else {
            return Err(Failure::error("`dimension` under `[embedding]` in nexa.toml is missing")
                .hint("say how many numbers a vector of this model has"));
        };
        let text_bytes_max = text_bytes_max.map_or(TEXT_BYTES_DEFAULT, NonZeroUsize::get);
        let config = EmbeddingConfig { model: model.to_owned(), dimension: dimension.get(), text_bytes_max };
        Ok(Embedding::Endpoint { name, provider, config })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Project;
    use super::*;

    #[test]
    fn vectors_come_from_this_process_an_endpoint_or_nowhere() {
        let read = |text: &str| -> Result<String, String> {
            let acme = "[providers.acme]\nurl = \"https://x.example/v1\"\n[embedding]\n";
            let project: Project =
                toml::from_str(&format!("{acme}{text}")).map_err(|error| error.message().to_owned())?;
            match project.embedding() {
                Ok(Embedding::Endpoint { name, provider, config }) => {
                    let EmbeddingConfig { model, dimension, text_bytes_max } = config;
                    Ok(format!("{name} at {} {model} {dimension} {text_bytes_max}", provider.url))
                }
                Ok(other) => Ok(format!("{other:?}")),
                Err(failure) => Err(failure.to_string()),
            }
        };
        assert_eq!(read("").as_deref(), Ok("Local"));
        assert_eq!(read("model = \"local/all-minilm-l6-v2\"").as_deref(), Ok("Local"));
        assert_eq!(read("model = \"none\"").as_deref(), Ok("None"));
        let acme = read("model = \"acme/embed/1\"\ndimension = 1536");
        assert_eq!(acme.as_deref(), Ok("acme at https://x.example/v1 embed/1 1536 8000"));
        for (wrong, what) in [
            ("model = \"acme/embed\"", "`dimension`"),
            ("model = \"other/embed\"\ndimension = 3", "no provider `other`"),
            ("model = \"local/other\"", "only \"local/all-minilm-l6-v2\""),
            ("model = \"embed\"", "neither"),
            ("model = \"none\"\ndimension = 3", "of an endpoint's model"),
            ("dimension = 0", "nonzero"),
            ("modle = \"none\"", "unknown field"),
        ] {
            let said = read(wrong).expect_err(wrong);
            assert!(said.contains(what), "{wrong}: {said}");
        }
    }
}
