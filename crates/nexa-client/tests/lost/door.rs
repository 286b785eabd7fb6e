//! A door that fails in a way of one's choice: as much of HTTP/2 (RFC 9113) and gRPC as that takes, frame by frame, because a
//! real server does not end its connections at the moment that a test wants.
//!
//! Bounds: none but the test's own calls; a door ends with the test's runtime.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Why a stream or a connection ends, RFC 9113 section 7.
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// How far a call comes before the door acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Once {
    /// Its connection is accepted.
    Accepted,
    /// Its head is read.
    Asked,
    /// All of it is read, and that of so many others on the connection that there are this many.
    Read(usize),
}

/// What becomes of a call at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All is well.
    Well,
    /// The server says no: a code and a text.
    Said(u8, &'static str),
    /// The connection ends in good order.
    Closed,
    /// The connection is cut.
    Cut,
    /// GOAWAY with a reason, then the connection ends; whether the calls were among those that are looked at.
    Away(u32, bool),
    /// RST_STREAM with a reason.
    Reset(u32),
    /// A message is begun, and the connection ends.
    HalfClosed,
    /// A message is begun, and the stream ends in good order.
    HalfEnded,
    /// The stream ends in good order, without the word that all is well.
    Ended,
    /// Nothing comes any more.
    Silence,
}

/// What a door does with a call.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) once: Once,
    /// The head of an answer and these messages, if anything.
    pub(crate) sends: Option<Vec<Vec<u8>>>,
    pub(crate) end: End,
}

impl Act {
    /// Answers with these messages.
    pub(crate) fn answer(messages: Vec<Vec<u8>>) -> Self {
        Self { once: Once::Read(1), sends: Some(messages), end: End::Well }
    }
}

/// A door, and what it was asked.
pub(crate) struct Door {
    pub(crate) address: String,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    acts: Vec<Act>,
    /// How many of them are over; the last one stays.
    over: usize,
    /// The messages of the calls that came whole.
    asked: Vec<Vec<u8>>,
}

impl Log {
    fn act(&self) -> Act {
        self.acts[self.over.min(self.acts.len() - 1)].clone()
    }
}

impl Door {
    /// One that does the first of these with the calls that come first, and so on; the last one with all others.
    pub(crate) async fn open(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let log = Arc::new(Mutex::new(Log { acts, ..Log::default() }));
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let log = Arc::clone(&kept);
                // Whoever ends the connection here has done so on purpose, and a client may as well.
                tokio::spawn(async move { Connection { socket, log }.serve().await.ok() });
            }
        });
        Self { address, log }
    }

    /// The message of each call that came whole, in their order.
    pub(crate) fn asked(&self) -> Vec<Vec<u8>> {
        lock(&self.log).asked.clone()
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Connection {
    socket: TcpStream,
    log: Arc<Mutex<Log>>,
}

/// Kinds and flags of frames, RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE_BYTES: usize = 24;
/// Of a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        if self.act().once == Once::Accepted {
            return self.end_all(&[]).await;
        }
        self.socket.read_exact(&mut [0; PREFACE_BYTES]).await?;
        self.send(SETTINGS, 0, 0, &[]).await?;
        let (mut bodies, mut held) = (BTreeMap::<u32, Vec<u8>>::new(), Vec::new());
        loop {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head).await?;
            let [_, _, _, kind, flags, stream @ ..] = head;
            let stream = u32::from_be_bytes(stream);
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.socket.read_exact(&mut payload).await?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await?,
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload).await?,
                HEADERS => {
                    bodies.insert(stream, Vec::new());
                    if self.act().once == Once::Asked {
                        self.end_all(&[stream]).await?;
                        continue;
                    }
                }
                DATA => bodies.entry(stream).or_default().extend(payload),
                _ => {}
            }
            if !matches!(kind, DATA | HEADERS) || flags & END_STREAM == 0 {
                continue;
            }
            let Some(mut body) = bodies.remove(&stream) else { continue };
            lock(&self.log).asked.push(body.split_off(PREFIX_BYTES.min(body.len())));
            held.push(stream);
            if matches!(self.act().once, Once::Read(calls) if held.len() >= calls) {
                self.end_all(&std::mem::take(&mut held)).await?;
            }
        }
    }

    fn act(&self) -> Act {
        lock(&self.log).act()
    }

    /// Does what is to be done now with these calls. An error is the end of the connection.
    async fn end_all(&mut self, streams: &[u32]) -> io::Result<()> {
        let act = {
            let mut log = lock(&self.log);
            let act = log.act();
            log.over += 1;
            act
        };
        for stream in streams {
            if let Some(messages) = &act.sends {
                self.send(HEADERS, END_HEADERS, *stream, &head()).await?;
                for message in messages {
                    self.send(DATA, 0, *stream, &framed(message)).await?;
                }
            }
            match act.end {
                End::Well => self.send(HEADERS, END_HEADERS | END_STREAM, *stream, &field("grpc-status", "0")).await?,
                End::Said(code, text) => {
                    let begin = if act.sends.is_some() { Vec::new() } else { head() };
                    let said = [begin, field("grpc-status", &code.to_string()), field("grpc-message", text)].concat();
                    self.send(HEADERS, END_HEADERS | END_STREAM, *stream, &said).await?;
                }
                End::Reset(reason) => self.send(RST_STREAM, 0, *stream, &reason.to_be_bytes()).await?,
                End::HalfClosed => self.send(DATA, 0, *stream, &framed(b"half")[..7]).await?,
                End::HalfEnded => self.send(DATA, END_STREAM, *stream, &framed(b"half")[..7]).await?,
                End::Ended => self.send(DATA, END_STREAM, *stream, &[]).await?,
                End::Closed | End::Cut | End::Away(..) | End::Silence => {}
            }
        }
        match act.end {
            End::Away(reason, are_looked_at) => {
                let last = if are_looked_at { streams.iter().copied().max().unwrap_or(0) } else { 0 };
                self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat()).await?;
                self.close().await
            }
            End::Closed | End::HalfClosed => self.close().await,
            End::Cut => {
                self.socket.set_zero_linger()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            _ => Ok(()),
        }
    }

    /// Ends the connection, when the other side has seen it end: what was sent is read before.
    async fn close(&mut self) -> io::Result<()> {
        self.socket.shutdown().await?;
        while self.socket.read(&mut [0; 1024]).await? > 0 {}
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("a test sends little").to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.socket.write_all(&frame).await
    }
}

/// The head of an answer, RFC 7541: `:status 200` is entry 8 of the static table.
fn head() -> Vec<u8> {
    [vec![0x88], field("content-type", "application/grpc")].concat()
}

/// A header that is not kept in the table, RFC 7541 section 6.2.2.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 0x7f).expect("a short text");
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a test sends little").to_be_bytes();
    [&[0], &length[..], message].concat()
}
