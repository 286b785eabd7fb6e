//! Anchors of a node by itself: a file beside the data folder, so that an older copy of the folder does not bring its own.
//!
//! One line an anchor: its CBOR in hex. A line is appended and synced, at most one sync a second; without it the line is in the
//! hands of the operating system, which loses it at a power cut and not with the process. Half a line at the end is what a
//! power cut leaves, and is cut off. Beyond twice `KEPT_MIN` lines the file is written again with the newest.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nexa_event::codec;
use nexa_event::root::{Anchor, check_chain};
use nexa_ports::audit::{AnchorError, Anchors, check_next};
use nexa_types::Epoch;

use crate::column::{hex, unhex};

/// Anchors that are kept at least, once there were so many: an hour of uninterrupted work.
const KEPT_MIN: usize = 3_600;
/// Bytes of the file that are read. A line has a few hundred.
const BYTES_MAX: u64 = 8 << 20;
/// Between two syncs.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Anchors in a file. One value at a time writes to it.
#[derive(Debug)]
pub struct FileAnchors {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What was read or written last, if the file was read.
    tail: Option<Tail>,
    synced: Instant,
}

#[derive(Debug)]
struct Tail {
    newest: Option<Anchor>,
    lines: usize,
    /// Bytes of whole lines.
    bytes: u64,
}

impl FileAnchors {
    /// In this file. It is read when it is first needed, and made with the first anchor.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let state = Mutex::new(State { tail: None, synced: Instant::now() });
        Self { inner: Arc::new(Inner { path: path.into(), state }) }
    }

    /// Beside a data folder, under its name; `None` if there is nothing beside it.
    pub fn beside(directory: &Path) -> Option<Self> {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let mut name = directory.file_name()?.to_owned();
        name.push(".anchors");
        Some(Self::new(directory.with_file_name(name)))
    }

    /// Where they lie.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Puts the file away under another name, in the place of the one that was put away before: what comes now is another log.
    ///
    /// # Errors
    /// [`std::io::Error`] if it could not be renamed.
    pub fn put_away(&self) -> std::io::Result<()> {
        let mut state = self.inner.state.lock().expect("no holder of this lock can panic");
        state.tail = None;
        std::fs::rename(&self.inner.path, self.inner.path.with_extension("anchors.old"))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, AnchorError> + Send + 'static,
    ) -> Result<T, AnchorError> {
        let inner = Arc::clone(&self.inner);
        let ended = |error| Err(AnchorError::Unavailable { detail: format!("a write ended early: {error}") });
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or_else(ended)
    }
}

impl Anchors for FileAnchors {
    fn kept(&self) -> BoxFuture<'_, Result<Vec<Anchor>, AnchorError>> {
        Box::pin(self.blocking(|inner| inner.read().map(|(anchors, _)| anchors)))
    }

    fn keep(&self, anchor: Anchor, _: Option<Epoch>) -> BoxFuture<'_, Result<(), AnchorError>> {
        Box::pin(self.blocking(move |inner| inner.append(&anchor)))
    }
}

fn line(anchor: &Anchor) -> String {
    hex(&codec::encode(anchor)) + "\n"
}

impl Inner {
    fn failed(&self, doing: &str) -> impl Fn(std::io::Error) -> AnchorError {
        let place = self.path.display().to_string();
        let doing = doing.to_owned();
        move |error| AnchorError::Unavailable { detail: format!("could not {doing} {place}: {error}") }
    }

    fn damaged(&self, detail: impl Into<String>) -> AnchorError {
        AnchorError::Damaged { place: self.path.display().to_string(), detail: detail.into() }
    }

    /// What is kept, and how many bytes of whole lines that takes.
    fn read(&self) -> Result<(Vec<Anchor>, u64), AnchorError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(self.failed("open")(error)),
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(self.failed("read"))?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(self.damaged(format!("it has more than {BYTES_MAX} bytes")));
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(&bytes[..whole]).map_err(|error| self.damaged(error.to_string()))?;
        let mut anchors = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let bytes = unhex(line).ok_or_else(|| self.damaged(format!("line {number} is not in hex")))?;
            let anchor = codec::decode(&bytes).map_err(|error| self.damaged(format!("line {number}: {error}")))?;
            anchors.push(anchor);
        }
        check_chain(&anchors).map_err(|error| self.damaged(error.to_string()))?;
        Ok((anchors, whole as u64))
    }

    fn append(&self, anchor: &Anchor) -> Result<(), AnchorError> {
        let mut state = self.state.lock().expect("no holder of this lock can panic");
        // Until it is known that the line is there, nothing is.
        let tail = match state.tail.take() {
            Some(tail) => tail,
            None => {
                let (anchors, bytes) = self.read()?;
                Tail { newest: anchors.last().cloned(), lines: anchors.len(), bytes }
            }
        };
        if let Err(refused) = check_next(tail.newest.as_ref(), anchor) {
            state.tail = Some(tail);
            return Err(refused);
        }
        let (lines, bytes) = if tail.lines >= 2 * KEPT_MIN {
            self.compact(anchor)?
        } else {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&self.path)
                .map_err(self.failed("write"))?;
            let line = line(anchor);
            file.set_len(tail.bytes)
                .and_then(|()| file.seek(SeekFrom::End(0)))
                .and_then(|_| file.write_all(line.as_bytes()))
                .map_err(self.failed("write"))?;
            if state.synced.elapsed() >= SYNC_EVERY {
                file.sync_data().map_err(self.failed("sync"))?;
                state.synced = Instant::now();
            }
            (tail.lines + 1, tail.bytes + line.len() as u64)
        };
        state.tail = Some(Tail { newest: Some(anchor.clone()), lines, bytes });
        Ok(())
    }

    /// Writes the file again with the newest anchors and one more. Under another name first, so that there is always one.
    fn compact(&self, next: &Anchor) -> Result<(usize, u64), AnchorError> {
        let (anchors, _) = self.read()?;
        let kept = &anchors[anchors.len().saturating_sub(KEPT_MIN)..];
        let text: String = kept.iter().chain([next]).map(line).collect();
        let draft = self.path.with_extension("anchors.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(self.failed("write again"))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&draft, &self.path))
            .map_err(self.failed("write again"))?;
        Ok((kept.len() + 1, text.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use nexa_event::root::Root;
    use nexa_types::{GlobalSeq, Timestamp};

    use super::*;

    fn anchor(before: Option<&Anchor>) -> Anchor {
        let position = before.map_or(0, |before| before.number) + 1;
        let root = Root { position: GlobalSeq(position), ..Root::start() };
        Anchor::after(before, "log".to_owned(), root, Timestamp(position))
    }

    async fn grow(anchors: &FileAnchors, times: usize) {
        let mut newest = anchors.kept().await.expect("read").pop();
        for _ in 0..times {
            let next = anchor(newest.as_ref());
            anchors.keep(next.clone(), None).await.expect("kept");
            newest = Some(next);
        }
    }

    #[tokio::test]
    async fn half_a_line_at_the_end_is_cut_off_and_any_other_damage_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data.anchors");
        grow(&FileAnchors::new(&path), 3).await;
        let whole = std::fs::read(&path).expect("read");
        std::fs::write(&path, &whole[..whole.len() - 40]).expect("written");
        let anchors = FileAnchors::new(&path);
        assert_eq!(anchors.kept().await.expect("two are whole").len(), 2);
        grow(&anchors, 1).await;
        assert_eq!(std::fs::read(&path).expect("read"), whole, "the third is the same again");

        let mut changed = whole.clone();
        changed[30] = if changed[30] == b'0' { b'1' } else { b'0' };
        std::fs::write(&path, changed).expect("written");
        assert!(matches!(FileAnchors::new(&path).kept().await, Err(AnchorError::Damaged { .. })));
    }

    #[tokio::test]
    async fn the_file_stays_short() {
        let folder = tempfile::tempdir().expect("a folder");
        let anchors = FileAnchors::new(folder.path().join("data.anchors"));
        grow(&anchors, 2 * KEPT_MIN + 1).await;
        let kept = anchors.kept().await.expect("read");
        assert_eq!(
            (kept.len(), kept.last().map(|anchor| anchor.number)),
            (KEPT_MIN + 1, Some(2 * KEPT_MIN as u64 + 1))
        );
        grow(&anchors, 1).await;
        let again = FileAnchors::new(anchors.path());
        assert_eq!(again.kept().await.expect("read").len(), KEPT_MIN + 2);
    }

    #[test]
    fn they_lie_beside_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let beside = |path: &Path| FileAnchors::beside(path).map(|anchors| anchors.path().to_owned());
        assert_eq!(beside(&data), Some(folder.path().join("data.anchors")));
        assert_eq!(beside(Path::new("/")), None);
    }
}
