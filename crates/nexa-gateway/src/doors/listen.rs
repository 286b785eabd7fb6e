//! Where a door may be: a loopback address or a Unix socket; with TLS, or if somebody says so plainly, any address.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Identity, Server, ServerTlsConfig};

/// How long who comes may take to agree on keys. Then: the connection is closed.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Where a door is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A socket file, readable by its owner only.
    Unix(PathBuf),
}

/// What lies between a door and those who can reach it.
#[derive(Clone, Default)]
pub enum Cover {
    /// Nothing, so only this machine may.
    #[default]
    Loopback,
    /// TLS, with this certificate (its chain, the door's own first) and key, as PEM.
    Tls {
        /// The certificate.
        certificate: String,
        /// The key. A secret.
        key: String,
    },
    /// Nothing, and others may all the same: something else protects what they say, as a mesh or a tunnel.
    None,
}

impl fmt::Debug for Cover {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Loopback => "loopback",
            Self::Tls { .. } => "tls(…)",
            Self::None => "none",
        })
    }
}

/// Why a door cannot be there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The text is no address.
    #[error("`{text}` is no address to listen on: use `127.0.0.1:PORT`, `[::1]:PORT` or `unix:PATH`")]
    Malformed {
        /// The text.
        text: String,
    },
    /// Others could listen in.
    #[error(
        "`{address}` is not a loopback address, and the door has no TLS: listen on `127.0.0.1`, `[::1]` or `unix:PATH`, or \
         give `nexa serve` a certificate with --tls-cert and --tls-key"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The certificate or the key is of no use.
    #[error("the door's certificate and key cannot be used")]
    Tls {
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// TLS where nobody but this machine can come.
    #[error("a Unix socket has no TLS: it is for this machine, and its file for its owner; leave out the certificate")]
    TlsOnUnix,
    /// Another process listens on the socket.
    #[error("another process listens on `{path}`: stop it, or choose another path")]
    SocketTaken {
        /// The path.
        path: String,
    },
    /// The system said no.
    #[error("cannot listen on `{address}`: {source}")]
    Bind {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Listen {
    /// Takes the place of a door.
    ///
    /// # Errors
    /// [`ListenError`] if the address is refused or taken.
    pub async fn bind(&self) -> Result<Bound, ListenError> {
        self.bind_behind(&Cover::Loopback).await
    }

    /// The same for a door that others may reach, if what is between allows it.
    ///
    /// # Errors
    /// [`ListenError`] if the address is refused or taken, or the certificate of no use.
    pub async fn bind_behind(&self, cover: &Cover) -> Result<Bound, ListenError> {
        let tls = match (cover, self) {
            (Cover::Loopback | Cover::None, _) => None,
            (Cover::Tls { .. }, Self::Unix(_)) => return Err(ListenError::TlsOnUnix),
            (Cover::Tls { certificate, key }, Self::Tcp(_)) => {
                let identity = Identity::from_pem(certificate, key);
                let tls = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE_MAX);
                // Tried here, where somebody can be told.
                Server::builder().tls_config(tls.clone()).map_err(|source| ListenError::Tls { source })?;
                Some(tls)
            }
        };
        let is_covered = !matches!(cover, Cover::Loopback);
        let listener = Listener::bind(self, is_covered).await?;
        Ok(Bound { listener, tls })
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "{address}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let malformed = || ListenError::Malformed { text: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return if path.is_empty() { Err(malformed()) } else { Ok(Self::Unix(path.into())) };
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = match address.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => address.to_owned(),
        };
        address.parse().map(Self::Tcp).map_err(|_| malformed())
    }
}

/// A door's place, taken: whoever comes waits there until it opens.
pub struct Bound {
    pub(super) listener: Listener,
    pub(super) tls: Option<ServerTlsConfig>,
}

impl Bound {
    /// Where it is, as a client wants to be told: `http://127.0.0.1:7331`, `https://…` or `unix:/run/nexa.sock`.
    pub fn address(&self) -> String {
        let address = self.listener.address();
        match (&self.tls, address.strip_prefix("http://")) {
            (Some(_), Some(rest)) => format!("https://{rest}"),
            _ => address,
        }
    }
}

/// A bound door.
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    async fn bind(listen: &Listen, is_covered: bool) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { address: listen.to_string(), source };
        match listen {
            Listen::Tcp(address) if !is_covered && !listen.is_local() => {
                Err(ListenError::NotLoopback { address: *address })
            }
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                Ok(Self::Tcp(listener, bound))
            }
            Listen::Unix(path) => {
                clear_stale(path).await?;
                let listener = UnixListener::bind(path).map_err(failed)?;
                owner_only(path).map_err(failed)?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(_, bound) => format!("http://{bound}"),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    pub(super) async fn serve(
        self,
        router: Router,
        closed: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        match self {
            Self::Tcp(listener, _) => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                router.serve_with_incoming_shutdown(incoming, closed).await
            }
            Self::Unix(listener, path) => {
                let served = router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), closed).await;
                // A file that is gone already is as good.
                let _ = std::fs::remove_file(path);
                served
            }
        }
    }
}

/// Removes the socket file of a process that is gone.
async fn clear_stale(path: &Path) -> Result<(), ListenError> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(ListenError::SocketTaken { path: path.display().to_string() });
    }
    std::fs::remove_file(path).map_err(|source| ListenError::Bind { address: path.display().to_string(), source })
}

fn owner_only(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_others_can_reach_is_refused() {
        for text in ["0.0.0.0:0", "[::]:0", "192.0.2.7:80"] {
            let listen: Listen = text.parse().expect(text);
            let refused = listen.bind().await.err().expect(text).to_string();
            assert!(refused.contains("has no TLS") && refused.contains("--tls-cert"), "{refused}");
        }
        let open: Listen = "0.0.0.0:0".parse().expect("an address");
        assert!(open.bind_behind(&Cover::None).await.is_ok());
    }

    #[tokio::test]
    async fn a_certificate_that_is_none_is_refused_before_anybody_comes() {
        let cover = Cover::Tls { certificate: "no certificate".to_owned(), key: "no key".to_owned() };
        assert_eq!(format!("{cover:?}"), "tls(…)");
        let tcp: Listen = "127.0.0.1:0".parse().expect("an address");
        assert!(matches!(tcp.bind_behind(&cover).await, Err(ListenError::Tls { .. })));
        let unix = Listen::Unix(std::env::temp_dir().join("nexa-never-there.sock"));
        assert!(matches!(unix.bind_behind(&cover).await, Err(ListenError::TlsOnUnix)));
    }

    #[test]
    fn a_wrong_address_is_refused() {
        for text in ["", "localhost", "unix:", "example.org:80", "127.0.0.1:99999"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        assert_eq!("localhost:80".parse::<Listen>().expect("loopback").to_string(), "127.0.0.1:80");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let path = std::env::temp_dir().join(format!("nexa-listen-{}.sock", std::process::id()));
        let listen = Listen::Unix(path.clone());
        let first = listen.bind().await.expect("a free path");
        assert!(matches!(listen.bind().await, Err(ListenError::SocketTaken { .. })));
        drop(first);
        drop(listen.bind().await.expect("the file of a process that is gone"));
        std::fs::remove_file(path).expect("the socket file");
    }
}
