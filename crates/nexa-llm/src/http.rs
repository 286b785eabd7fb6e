//! What every HTTP client here has in common.

use std::error::Error;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};

/// A connection that is not made within this will not be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for downloads: follows redirects, gives up on a peer that sends nothing for so long.
pub(crate) fn download_client(silence_max: Duration) -> Result<Client, reqwest::Error> {
    builder().read_timeout(silence_max).build()
}

/// A client for calls, which bring their own deadline. A key is not carried to wherever a redirect points.
pub(crate) fn endpoint_client() -> Result<Client, reqwest::Error> {
    builder().redirect(Policy::none()).build()
}

fn builder() -> ClientBuilder {
    // A process has one provider; if another part of it was first, that one is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().connect_timeout(CONNECT_TIMEOUT)
}

/// An error with its reasons on one line, without the URL, which may hold a secret.
pub(crate) fn told(error: &reqwest::Error) -> String {
    let mut text = match error.url() {
        Some(url) => error.to_string().replace(&format!(" for url ({url})"), ""),
        None => error.to_string(),
    };
    let mut source = error.source();
    while let Some(reason) = source {
        text.push_str(&format!(": {reason}"));
        source = reason.source();
    }
    text
}
