//! Where a door may be: a loopback address or a Unix socket, nothing else without encryption.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Router, TcpIncoming};

/// Where a door is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A socket file, readable by its owner only.
    Unix(PathBuf),
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
        "`{address}` is not a loopback address, and TLS is not available in this release: listen on `127.0.0.1`, `[::1]` \
         or `unix:PATH`, and put a proxy with TLS and tokens before it"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
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
        Listener::bind(self).await.map(Bound)
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
pub struct Bound(pub(super) Listener);

impl Bound {
    /// Where it is, as a client wants to be told: `http://127.0.0.1:7331` or `unix:/run/nexa.sock`.
    pub fn address(&self) -> String {
        self.0.address()
    }
}

/// A bound door.
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    pub(super) async fn bind(listen: &Listen) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { address: listen.to_string(), source };
        match listen {
            Listen::Tcp(address) if !listen.is_local() => Err(ListenError::NotLoopback { address: *address }),
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
            let refused = Listener::bind(&listen).await.err().expect(text).to_string();
            assert!(refused.contains("TLS is not available"), "{refused}");
        }
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
        let first = Listener::bind(&listen).await.expect("a free path");
        assert!(matches!(Listener::bind(&listen).await, Err(ListenError::SocketTaken { .. })));
        drop(first);
        drop(Listener::bind(&listen).await.expect("the file of a process that is gone"));
        std::fs::remove_file(path).expect("the socket file");
    }
}
