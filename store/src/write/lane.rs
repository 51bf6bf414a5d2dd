//! One stream of packs: fills frames with chunks, and appends them to packs in that order.

use super::WriteOptions;
use super::pool::{FilledFrame, Pending, Pool};
use crate::env::DerivedEnv;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind};
use crate::index::Location;
use crate::pack::{FrameChunk, PackBuilder, PackEnd, PackOptions, PackSummary};
use crate::repository::Repository;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::mem;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Frames that wait to be appended.
const FRAMES_WAITING: usize = 8;
/// Packs whose closing (fsync) goes on while the next one fills.
const PACKS_CLOSING: usize = 2;

/// A pack that is durable but not yet live.
#[derive(Debug, Clone)]
pub struct FinishedPack {
    /// Its name, size, hash and counts.
    pub summary: PackSummary,
    /// Where its chunks lie; shared, because the list is passed around.
    pub places: Arc<Vec<(ChunkId, Location)>>,
}

/// Packs that are durable and wait for a commit, shared between lanes.
pub(super) type Finished = Arc<Mutex<Vec<FinishedPack>>>;

enum Message {
    Frame(Pending),
    /// Close the open pack and acknowledge when everything so far is durable.
    Flush,
}

pub(super) struct Lane {
    kind: ChunkKind,
    pool: Arc<Pool>,
    open: FilledFrame,
    frame_target_bytes: usize,
    outbox: Option<Sender<Message>>,
    /// One acknowledgement for each flush. Its sender belongs to the appender's thread alone, so waiting ends
    /// when the thread does.
    flushed: Receiver<()>,
    appender: Option<JoinHandle<Result<()>>>,
}

/// What the packs of a lane begin with.
#[derive(Clone, Copy)]
pub(super) struct LaneStart {
    /// Sequence number of the head under which the session began.
    pub born: u64,
    /// Open every frame again after sealing, and compare.
    pub verify: bool,
    /// Plaintext bytes of a full frame.
    pub frame_target_bytes: usize,
    /// Secret from which the packs' randomness is drawn.
    pub seed: [u8; 32],
}

impl LaneStart {
    /// The start of lanes whose packs are born under head number `born`, with a fresh secret.
    pub fn draw(repository: &Repository, options: &WriteOptions, born: u64) -> Self {
        let mut seed = [0u8; 32];
        repository.env.fill_random(&mut seed);
        let WriteOptions { verify, frame_target_bytes, .. } = *options;
        Self { born, verify, frame_target_bytes, seed }
    }
}

fn empty_frame(kind: ChunkKind) -> FilledFrame {
    FilledFrame { kind, bytes: Vec::new(), chunks: Vec::new() }
}

impl Lane {
    pub fn start(
        repository: &Arc<Repository>,
        kind: ChunkKind,
        start: LaneStart,
        pool: &Arc<Pool>,
        finished: &Finished,
    ) -> Self {
        let (outbox, inbox) = bounded(FRAMES_WAITING);
        let (acknowledge, flushed) = bounded(1);
        let appender = Appender {
            repository: Arc::clone(repository),
            kind,
            born: start.born,
            verify: start.verify,
            seed: start.seed,
            begun: 0,
            open: None,
            closing: Vec::new(),
            finished: Arc::clone(finished),
        };
        let appender = std::thread::Builder::new()
            .name(format!("append-{kind:?}"))
            .spawn(move || appender.run(&inbox, &acknowledge))
            .expect("the operating system starts a thread");
        Self {
            kind,
            pool: Arc::clone(pool),
            open: empty_frame(kind),
            frame_target_bytes: start.frame_target_bytes,
            outbox: Some(outbox),
            flushed,
            appender: Some(appender),
        }
    }

    /// Adds a new chunk. Waits while compression or storage is behind.
    pub fn push(&mut self, id: ChunkId, bytes: &[u8], references: Vec<ChunkId>) -> Result<()> {
        let full = self.open.bytes.len() + bytes.len() > self.frame_target_bytes;
        if full && !self.open.chunks.is_empty() {
            self.send_frame()?;
        }
        if self.open.bytes.capacity() == 0 {
            self.open.bytes.reserve(self.frame_target_bytes.max(bytes.len()));
        }
        let len = u32::try_from(bytes.len()).expect("chunks are bounded by CHUNK_BYTES_MAX");
        self.open.bytes.extend_from_slice(bytes);
        self.open.chunks.push(FrameChunk { id, len, references });
        Ok(())
    }

    fn send_frame(&mut self) -> Result<()> {
        let filled = mem::replace(&mut self.open, empty_frame(self.kind));
        let pending = self.pool.submit(filled);
        self.send(Message::Frame(pending))
    }

    fn send(&mut self, message: Message) -> Result<()> {
        let outbox = self.outbox.as_ref().ok_or_else(stopped)?;
        if outbox.send(message).is_ok() {
            return Ok(());
        }
        Err(self.failure())
    }

    /// Why the appender stopped.
    fn failure(&mut self) -> Error {
        self.outbox = None;
        match self.appender.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(Ok(()))) | None => stopped(),
        }
    }

    /// Closes the open frame and pack; when it returns, every chunk pushed so far is durable and its pack
    /// stands in the list of finished packs.
    pub fn flush(&mut self) -> Result<()> {
        if !self.open.chunks.is_empty() {
            self.send_frame()?;
        }
        self.send(Message::Flush)?;
        self.flushed.recv().map_err(|_| self.failure())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.outbox = None;
        if let Some(appender) = self.appender.take() {
            let _ = appender.join();
        }
    }
}

fn stopped() -> Error {
    Error::Invalid("the write session stopped after an earlier error".into())
}

/// A pack being filled.
struct OpenPack {
    builder: PackBuilder,
    places: Vec<(ChunkId, Location)>,
    /// Randomness of this pack alone, whatever other threads draw meanwhile.
    env: DerivedEnv,
}

struct Appender {
    repository: Arc<Repository>,
    kind: ChunkKind,
    born: u64,
    verify: bool,
    seed: [u8; 32],
    begun: u64,
    open: Option<OpenPack>,
    closing: Vec<JoinHandle<Result<()>>>,
    finished: Finished,
}

impl Appender {
    fn run(mut self, inbox: &Receiver<Message>, acknowledge: &Sender<()>) -> Result<()> {
        let outcome = self.serve(inbox, acknowledge);
        let joined = self.join_closing(0);
        outcome.and(joined)
    }

    fn serve(&mut self, inbox: &Receiver<Message>, acknowledge: &Sender<()>) -> Result<()> {
        while let Ok(message) = inbox.recv() {
            match message {
                Message::Frame(pending) => {
                    let ready = pending.recv().map_err(|_| stopped())??;
                    self.append(&ready)?;
                }
                Message::Flush => {
                    self.close(PackEnd::Last)?;
                    self.join_closing(0)?;
                    // The lane may have been dropped meanwhile; then nobody waits.
                    let _ = acknowledge.send(());
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, ready: &super::pool::ReadyFrame) -> Result<()> {
        let fits = |open: &OpenPack| open.builder.fits(self.kind, &ready.frame, &ready.chunks);
        if self.open.as_ref().is_some_and(|open| !fits(open)) {
            self.close(PackEnd::Full)?;
        }
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let open = self.open.as_mut().expect("opened just above");
        let places = open.builder.append_frame(self.kind, &ready.frame, &ready.chunks)?;
        open.places.extend(places);
        Ok(())
    }

    fn begin(&mut self) -> Result<OpenPack> {
        let repository = &self.repository;
        let mut label = format!("{:?} pack ", self.kind).into_bytes();
        label.extend_from_slice(&self.begun.to_be_bytes());
        self.begun += 1;
        let env = DerivedEnv::new(&repository.env, &self.seed, &label);
        let options =
            PackOptions { verify: self.verify, ..PackOptions::new(repository.id(), self.born) };
        let builder =
            PackBuilder::create(&*repository.backend, &repository.domain, &options, &env)?;
        Ok(OpenPack { builder, places: Vec::new(), env })
    }

    /// Makes the open pack durable on a thread of its own, because fsync waits for the disk.
    fn close(&mut self, end: PackEnd) -> Result<()> {
        let Some(OpenPack { builder, places, env }) = self.open.take() else { return Ok(()) };
        self.join_closing(PACKS_CLOSING - 1)?;
        let (repository, finished) = (Arc::clone(&self.repository), Arc::clone(&self.finished));
        let thread = std::thread::Builder::new()
            .name("close-pack".into())
            .spawn(move || {
                let summary = builder.finish(end, &repository.metadata, &env)?;
                let pack = FinishedPack { summary, places: Arc::new(places) };
                finished.lock().expect("no panic while listed").push(pack);
                Ok(())
            })
            .expect("the operating system starts a thread");
        self.closing.push(thread);
        Ok(())
    }

    /// Waits until no more than `keep` packs are being closed, oldest first.
    fn join_closing(&mut self, keep: usize) -> Result<()> {
        let mut outcome = Ok(());
        while self.closing.len() > keep {
            let closed = self.closing.remove(0).join();
            let closed = closed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(closed);
        }
        outcome
    }
}
