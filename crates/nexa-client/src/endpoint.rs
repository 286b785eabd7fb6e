//! Where a server listens, and how to reach it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::ClientError;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to ask a silent server for a sign of life.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
/// How long to wait for it.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of response headers: details of errors are there.
const HEADER_BYTES_MAX: u32 = 32 << 10;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `http://HOST:PORT`, without encryption: loopback only, unless a tunnel protects it.
    Tcp(String),
    /// `https://HOST:PORT`, whose certificate an authority has signed that the client is told of.
    Tls(String),
    /// `unix:PATH`.
    Unix(String),
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(out, "http://{authority}"),
            Self::Tls(authority) => write!(out, "https://{authority}"),
            Self::Unix(path) => write!(out, "unix:{path}"),
        }
    }
}

impl FromStr for Address {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError::Address { address: text.to_owned(), why: why.to_owned() };
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return if path.is_empty() { Err(wrong("the path is missing")) } else { Ok(Self::Unix(path.to_owned())) };
        }
        let (is_tls, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").unwrap_or(text)),
        };
        let authority = rest.trim_end_matches('/');
        let Some((host, port)) = authority.rsplit_once(':') else {
            return Err(wrong("the port is missing"));
        };
        let plain = !host.is_empty() && !host.contains(['/', '@', ' ']);
        match port.parse::<u16>() {
            Ok(1..) if plain && is_tls => Ok(Self::Tls(authority.to_owned())),
            Ok(1..) if plain => Ok(Self::Tcp(authority.to_owned())),
            _ => Err(wrong("expected `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`")),
        }
    }
}

impl Address {
    /// Opens a connection; a later loss of it is mended by the channel itself. `authority` is the certificate, as PEM, of who
    /// signs those of servers.
    pub(crate) async fn connect(&self, authority: Option<&str>) -> Result<Channel, ClientError> {
        self.endpoint(authority)?.connect().await.map_err(|source| self.failed(source))
    }

    /// A connection that is opened when it is needed first.
    pub(crate) fn connect_later(&self, authority: Option<&str>) -> Result<Channel, ClientError> {
        Ok(self.endpoint(authority)?.connect_lazy())
    }

    fn endpoint(&self, authority: Option<&str>) -> Result<Endpoint, ClientError> {
        let mut endpoint = Endpoint::from_shared(self.to_string()).map_err(|source| self.failed(source))?;
        if let Self::Tls(_) = self {
            let authority = authority.ok_or_else(|| ClientError::NoAuthority { address: self.to_string() })?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).timeout(CONNECT_TIMEOUT);
            endpoint = endpoint.tls_config(tls).map_err(|source| self.failed(source))?;
        }
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .http2_max_header_list_size(HEADER_BYTES_MAX))
    }

    fn failed(&self, source: tonic::transport::Error) -> ClientError {
        ClientError::Connect { address: self.to_string(), source: std::sync::Arc::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_wrong_ones_refused_with_a_reason() {
        for (text, read) in [
            ("http://127.0.0.1:7331", "http://127.0.0.1:7331"),
            ("127.0.0.1:7331", "http://127.0.0.1:7331"),
            ("http://[::1]:7331/", "http://[::1]:7331"),
            ("https://[::1]:7331/", "https://[::1]:7331"),
            ("unix:/run/nexa.sock", "unix:/run/nexa.sock"),
            ("unix:///run/nexa.sock", "unix:/run/nexa.sock"),
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), read);
        }
        for text in [
            "",
            "localhost",
            "http://",
            "http://:1",
            "http://a:0",
            "http://a:70000",
            "http://a b:1",
            "unix:",
            "https://a",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let tls: Address = "https://example.org:1".parse().expect("an address");
        let error = tls.endpoint(None).expect_err("nobody to trust").to_string();
        assert!(error.contains("https://example.org:1") && error.contains("authority"), "{error}");
    }
}
