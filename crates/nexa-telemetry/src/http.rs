//! Just enough HTTP/1.1 to be asked for a page: `GET` and `HEAD`, one request a connection.
//!
//! Bounds: [`CONNECTIONS_MAX`] at a time, a further one waits to be accepted; [`HEAD_BYTES_MAX`] of a request's head, then
//! 431; [`CONNECTION_TIME_MAX`] for everything, then the connection is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time.
pub(crate) const CONNECTIONS_MAX: usize = 32;
/// The most bytes of a request line and its headers.
pub(crate) const HEAD_BYTES_MAX: usize = 8 << 10;
/// How long one request may take in all.
pub(crate) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) status: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Gives the page of a path.
pub(crate) trait Pages: Send + Sync + 'static {
    fn page(&self, path: &str) -> impl Future<Output = Page> + Send;
}

/// Accepts for ever.
pub(crate) async fn serve<P: Pages>(listener: TcpListener, pages: Arc<P>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(turn) = room.clone().acquire_owned().await else { return };
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                // As when the process has no file descriptor left: what is open may be closed by then.
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let _turn = turn;
            // A client that is slow or gone gets nothing more.
            let _ = tokio::time::timeout(CONNECTION_TIME_MAX, answer(connection, &*pages)).await;
        });
    }
}

/// Reads a request and writes its page.
async fn answer<P: Pages>(mut connection: impl AsyncRead + AsyncWrite + Unpin, pages: &P) -> std::io::Result<()> {
    let head = match head(&mut connection).await? {
        Ok(head) => head,
        Err(refused) => return write(&mut connection, &refused, true).await,
    };
    match request(&head) {
        Ok((path, has_body)) => {
            let page = pages.page(path).await;
            write(&mut connection, &page, has_body).await
        }
        Err(refused) => write(&mut connection, &refused, true).await,
    }
}

/// Everything up to the empty line.
async fn head(connection: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Result<Vec<u8>, Page>> {
    let mut head = Vec::new();
    loop {
        if head.windows(4).any(|four| four == b"\r\n\r\n") {
            return Ok(Ok(head));
        }
        if head.len() >= HEAD_BYTES_MAX {
            return Ok(Err(Page::text("431 Request Header Fields Too Large", "the request is too long\n")));
        }
        let mut some = [0; 1 << 10];
        match connection.read(&mut some).await? {
            0 => return Ok(Err(Page::text("400 Bad Request", "the request ends too early\n"))),
            read => head.extend_from_slice(&some[..read]),
        }
    }
}

/// The path of a request, without its query, and whether the body is wanted.
fn request(head: &[u8]) -> Result<(&str, bool), Page> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default();
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method @ ("GET" | "HEAD")), Some(path), Some("HTTP/1.0" | "HTTP/1.1"), None) if path.starts_with('/') => {
            Ok((path.split('?').next().unwrap_or_default(), method == "GET"))
        }
        (Some(_), Some(_), Some("HTTP/1.0" | "HTTP/1.1"), None) => {
            Err(Page::text("405 Method Not Allowed", "only GET and HEAD are answered\n"))
        }
        _ => Err(Page::text("400 Bad Request", "this is no request of HTTP/1.1\n")),
    }
}

async fn write(connection: &mut (impl AsyncWrite + Unpin), page: &Page, has_body: bool) -> std::io::Result<()> {
    let Page { status, kind, body } = page;
    let length = body.len();
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\ncache-control: no-store\r\nconnection: \
         close\r\n\r\n"
    );
    if has_body {
        bytes += body;
    }
    connection.write_all(bytes.as_bytes()).await?;
    connection.shutdown().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Echo;

    impl Pages for Echo {
        async fn page(&self, path: &str) -> Page {
            Page::text("200 OK", path)
        }
    }

    fn told(sent: &[u8]) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            answer(server, &Echo).await.unwrap();
            let mut told = String::new();
            client.read_to_string(&mut told).await.unwrap();
            told
        })
    }

    #[test]
    fn a_page_is_asked_for_and_given() {
        let get = told(b"GET /metrics?x=1 HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(get.starts_with("HTTP/1.1 200 OK\r\n") && get.ends_with("\r\n\r\n/metrics"), "{get}");
        let head = told(b"HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(head.contains("content-length: 8\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(told(b"POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(told(b"GET / HTTP/1.1\r\n").starts_with("HTTP/1.1 400"));
        let mut long = b"GET / HTTP/1.1\r\nx: ".to_vec();
        long.resize(HEAD_BYTES_MAX + 100, b'x');
        assert!(told(&long).starts_with("HTTP/1.1 431"));
    }

    proptest! {
        #[test]
        fn whatever_comes_gets_one_answer(sent in prop::collection::vec(any::<u8>(), 0..200)) {
            let told = told(&sent);
            prop_assert!(told.starts_with("HTTP/1.1 "), "{}", told);
        }
    }
}
