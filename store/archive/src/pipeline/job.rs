//! What workers are asked for, and what they answer.

use crate::entry::Entry;
use crate::held::Held;
use crate::meta::Stat;
use crate::source::Dir;
use crossbeam_channel::Sender;
use std::ffi::CString;
use std::sync::Arc;
use stillpoint_chunker::ChunkBatch;

/// One path to be saved.
#[derive(Debug)]
pub(super) enum Job {
    /// To be looked at closely where it is.
    Live(Live),
    /// As somebody holds it, with the last part of its path.
    Held { name: Vec<u8>, held: Box<Held> },
}

/// One path to be looked at closely.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) dir: Arc<Dir>,
    pub(super) name: CString,
    /// What the scan saw.
    pub(super) stat: Stat,
    pub(super) want: Want,
}

impl Job {
    /// What is known of the path before it is saved.
    pub(super) fn stat(&self) -> &Stat {
        match self {
            Self::Live(live) => &live.stat,
            Self::Held { held, .. } => &held.stat,
        }
    }

    /// Whether content is read.
    pub(super) fn reads(&self) -> bool {
        self.stat().is_file()
            && match self {
                Self::Live(live) => live.want == Want::Content,
                Self::Held { .. } => true,
            }
    }
}

/// How much is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Everything.
    Content,
    /// Everything but a file's content, which the parent has.
    Metadata,
}

/// One piece of a file's content, in order.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(ChunkBatch),
    Hole(u64),
}

/// The content of what was saved.
#[derive(Debug)]
pub(super) enum Body {
    /// None was asked for, or there is none.
    Nothing,
    /// A tiny file.
    Inline(Vec<u8>),
    /// A small file.
    Pieces(Vec<Piece>),
    /// The pieces went through the channel.
    Streamed,
}

/// A path that was saved. The entry's content is filled in where pieces are put together.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) entry: Entry,
    pub(super) body: Body,
    /// What should be known about it.
    pub(super) note: Option<String>,
}

/// What became of a job.
pub(super) type Report = Result<Saved, Failure>;

/// Why a path is not in the snapshot.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    /// It is not there any more.
    pub(super) gone: bool,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { why, gone: false }
    }
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

/// What comes through the channel of one long file or stream.
#[derive(Debug)]
pub(super) enum Message {
    Piece(Piece),
    End(Box<Report>),
    /// A stream ended; it decides whether the backup stands.
    StreamEnd(stillpoint_store::Result<()>),
}

/// What workers take from their queue.
#[derive(Debug)]
pub(super) enum Work {
    /// Small things, answered together.
    Group { jobs: Vec<Job>, reply: Sender<Vec<Report>> },
    /// One long file, answered piece by piece.
    Long { job: Job, reply: Sender<Message> },
}
