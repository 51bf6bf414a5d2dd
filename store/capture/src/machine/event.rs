//! What a capture tells while it goes on.

use crate::phase::Phase;
use std::time::Duration;
use stillpoint_archive::Observer;
use stillpoint_store::record::CaptureInfo;

/// Something happened in a capture.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A phase begins.
    Began {
        /// Which.
        phase: Phase,
    },
    /// A phase is over.
    Ended {
        /// Which.
        phase: Phase,
        /// How long it took.
        took: Duration,
        /// Why it failed, if it did.
        failure: Option<&'a str>,
    },
    /// A warm pass is done.
    Warmed {
        /// Its number, from 1.
        pass: u32,
        /// How long it took.
        took: Duration,
        /// Bytes read from the source.
        bytes_read: u64,
        /// Entries that were new or changed.
        changed: u64,
    },
    /// The lock was given back: how long it was held, by its parts.
    Released(&'a CaptureInfo),
    /// Something that people may want to know.
    Note(&'a str),
}

/// Is told of a capture; must be quick, since some of it is told under the lock.
pub trait Watcher: Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);

    /// Who is told of the entries as they are saved, and says when to stop.
    fn observer(&self) -> &dyn Observer;
}
