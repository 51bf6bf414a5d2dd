//! The threads that compress frames. Frames go in by any lane and come back through a channel of their own, so
//! that lanes take them in the order in which they were filled, whatever thread was faster.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::id::ChunkKind;
use crate::pack::{CompressedFrame, FrameChunk, Level, compress_frame, verify_frame};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use stillpoint_chunker::IdKey;

/// Frames that wait for a free thread, per thread.
const WAITING_PER_THREAD: usize = 2;

/// The chunks of one frame: ids and lengths in order; their plaintexts stand one after the other in `bytes`.
pub(super) struct FilledFrame {
    pub kind: ChunkKind,
    pub bytes: Vec<u8>,
    pub chunks: Vec<FrameChunk>,
}

/// A frame that is ready to be sealed, and what it holds.
pub(super) struct ReadyFrame {
    pub frame: CompressedFrame,
    pub chunks: Vec<FrameChunk>,
}

/// A promise of a [`ReadyFrame`].
pub(super) type Pending = Receiver<Result<ReadyFrame>>;

struct Job {
    filled: FilledFrame,
    reply: Sender<Result<ReadyFrame>>,
}

/// How frames are made.
#[derive(Clone)]
pub(super) struct FrameRules {
    pub level: Level,
    /// Decompress again and compare with the ids before the frame goes on.
    pub verify: bool,
    pub id_data: IdKey,
    pub id_node: IdKey,
}

pub(super) struct Pool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub fn start(threads: usize, rules: &FrameRules, cancel: &Cancel) -> Self {
        let threads = threads.max(1);
        let (jobs, inbox) = bounded::<Job>(threads * WAITING_PER_THREAD);
        let threads = (0..threads)
            .map(|number| {
                let (inbox, rules, cancel) = (inbox.clone(), rules.clone(), cancel.clone());
                std::thread::Builder::new()
                    .name(format!("compress-{number}"))
                    .spawn(move || work(&inbox, &rules, &cancel))
                    .expect("the operating system starts a thread")
            })
            .collect();
        Self { jobs: Some(jobs), threads }
    }

    /// Hands a frame to the threads; waits while they have enough to do.
    pub fn submit(&self, filled: FilledFrame) -> Pending {
        let (reply, pending) = bounded(1);
        let jobs = self.jobs.as_ref().expect("present until dropped");
        // If every thread is gone, the reply's sender is dropped with the job and the receiver learns it.
        let _ = jobs.send(Job { filled, reply });
        pending
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(inbox: &Receiver<Job>, rules: &FrameRules, cancel: &Cancel) {
    while let Ok(Job { filled, reply }) = inbox.recv() {
        // A panic must reach the lane that waits, not leave it waiting.
        let made = catch_unwind(AssertUnwindSafe(|| {
            cancel.check().and_then(|()| make_ready(filled, rules))
        }));
        let ready = made.unwrap_or_else(|_| {
            Err(Error::Invalid(
                "compression failed in a way that is a fault of this program".into(),
            ))
        });
        // The lane may have given up; then nobody wants the frame.
        let _ = reply.send(ready);
    }
}

fn make_ready(filled: FilledFrame, rules: &FrameRules) -> Result<ReadyFrame> {
    let FilledFrame { kind, bytes, chunks } = filled;
    let mut rest = bytes.as_slice();
    let mut slices = Vec::with_capacity(chunks.len());
    for chunk in &chunks {
        let len = usize::try_from(chunk.len).expect("chunks are bounded by CHUNK_BYTES_MAX");
        let (slice, behind) = rest.split_at(len);
        slices.push(slice);
        rest = behind;
    }
    let frame = compress_frame(&slices, rules.level)?;
    if rules.verify {
        let key = match kind {
            ChunkKind::Data => &rules.id_data,
            ChunkKind::Node => &rules.id_node,
        };
        let ids: Vec<_> = chunks.iter().map(|chunk| chunk.id).collect();
        verify_frame(&frame, key, &ids)?;
    }
    Ok(ReadyFrame { frame, chunks })
}
