//! The end of the pipeline: takes results in manifest order, stores content, appends entries, counts and tells.
//!
//! Runs on one thread. Knows neither files nor threads.

use super::content::ContentList;
use super::job::{Body, Failure, Job, Message, Piece, Report, Saved};
use super::links::Links;
use super::manifest::{Grown, Manifest, Mark};
use super::reading::Readers;
use crate::entry::{Content, ENTRY_BYTES_MAX, Entry, EntryHead, EntryKind, KindCode};
use crate::meta::Stat;
use crate::observer::{Event, Observer, Outcome, Problem};
use crate::path::path_from_key;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::collections::BTreeSet;
use std::time::Duration;
use stillpoint_chunker::ChunkBatch;
use stillpoint_store::tree::{NodeSink, Root, TreeParams};
use stillpoint_store::{Error, Result};

/// Most problems that a report lists; the rest are counted. The observer is told of each.
pub const PROBLEMS_LISTED_MAX: usize = 10_000;

/// How often a silent stream lets us look whether the caller wants to stop.
const CANCEL_LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where content goes.
pub(crate) struct Sinks<'a> {
    pub(crate) params: &'a TreeParams,
    /// Takes chunks of content.
    pub(crate) data: &'a mut dyn FnMut(&ChunkBatch) -> Result<()>,
    /// Takes nodes of long content lists.
    pub(crate) content_nodes: &'a mut dyn NodeSink,
}

/// Figures of one kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) new: u64,
    pub(crate) changed: u64,
    pub(crate) unmodified: u64,
}

/// Figures of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) files: Tally,
    pub(crate) directories: Tally,
    pub(crate) others: Tally,
    /// Logical bytes of all files in the snapshot.
    pub(crate) bytes_total: u64,
    /// Bytes of content that were read.
    pub(crate) bytes_read: u64,
    pub(crate) problems: u64,
}

/// What a pipeline gives.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) root: Root,
    pub(crate) counts: Counts,
    /// How much larger it is than the manifest it was made from.
    pub(crate) grown: Option<Grown>,
    pub(crate) problems: Vec<Problem>,
}

/// What the parent had at this path.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) value: Option<Vec<u8>>,
}

pub(super) struct Emitter<'a> {
    manifest: Box<dyn Manifest + 'a>,
    /// Paths that may vanish without that being a problem.
    changed: Option<&'a BTreeSet<Vec<u8>>>,
    sinks: Sinks<'a>,
    observer: &'a dyn Observer,
    pub(super) links: Links,
    counts: Counts,
    problems: Vec<Problem>,
    encoded: Vec<u8>,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(
        manifest: Box<dyn Manifest + 'a>,
        changed: Option<&'a BTreeSet<Vec<u8>>>,
        sinks: Sinks<'a>,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            manifest,
            changed,
            sinks,
            observer,
            links: Links::default(),
            counts: Counts::default(),
            problems: Vec::new(),
            encoded: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Result<Built> {
        let (root, grown) = self.manifest.finish()?;
        Ok(Built { root, counts: self.counts, grown, problems: self.problems })
    }

    /// Says what will be true of a path that has not come yet.
    pub(super) fn announce(&mut self, key: &[u8], mark: Mark) {
        self.manifest.announce(key, mark);
    }

    /// An entry that is taken over as it is.
    pub(super) fn unchanged(&mut self, key: &[u8], value: &[u8], outcome: Outcome) -> Result<()> {
        let head = EntryHead::decode(value)?;
        self.append(key, value, &head, outcome)
    }

    /// Names a path of which something could not be saved.
    pub(super) fn problem(&mut self, key: &[u8], what: String) {
        let problem = Problem { path: path_from_key(key), what };
        self.observer.event(Event::Problem(&problem));
        self.counts.problems += 1;
        if self.problems.len() < PROBLEMS_LISTED_MAX {
            self.problems.push(problem);
        }
    }

    /// A path that a worker has done.
    pub(super) fn report(
        &mut self,
        key: &[u8],
        report: Report,
        before: &Before,
        link: Option<Stat>,
    ) -> Result<()> {
        match report {
            Ok(mut saved) => {
                let body = std::mem::replace(&mut saved.body, Body::Nothing);
                let content = self.content_of(body, &saved.entry, before)?;
                self.saved(key, saved, content, before, link)
            }
            Err(failure) => self.failed(key, failure, link),
        }
    }

    /// Takes a long file from its channel, to the end.
    pub(super) fn long(
        &mut self,
        key: &[u8],
        messages: &Receiver<Message>,
        before: &Before,
        link: Option<Stat>,
    ) -> Result<()> {
        let (content, end) = self.assemble(messages)?;
        let Message::End(report) = end else { unreachable!("a file ends with its report") };
        match *report {
            Ok(saved) => self.saved(key, saved, Some(content), before, link),
            Err(failure) => self.failed(key, failure, link),
        }
    }

    /// Takes a stream from its channel; `entry` is all but its content.
    ///
    /// # Errors
    /// When the stream says that it is not whole, beside those of the sinks.
    pub(super) fn stream(
        &mut self,
        key: &[u8],
        messages: &Receiver<Message>,
        mut entry: Entry,
        before: &Before,
    ) -> Result<()> {
        let (content, end) = self.assemble(messages)?;
        let Message::StreamEnd(verdict) = end else {
            unreachable!("a stream ends with its verdict")
        };
        verdict?;
        entry.size = content.1;
        let saved = Saved { entry, body: Body::Nothing, note: None };
        self.saved(key, saved, Some(content), before, None)
    }

    /// Does a job on this thread.
    pub(super) fn read_here(
        &mut self,
        key: &[u8],
        job: &Job,
        readers: &Readers,
        before: &Before,
    ) -> Result<()> {
        let Sinks { params, data, content_nodes } = &mut self.sinks;
        let mut list = ContentList::new(params, &mut **content_nodes);
        let mut failed = None;
        let report = readers.save(job, &mut |piece| {
            let taken = take(&piece, &mut list, *data, &mut self.counts, self.observer);
            failed = taken.err();
            failed.is_none()
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let streamed = list.finish()?;
        match report {
            Ok(saved) if matches!(saved.body, Body::Streamed) => {
                self.saved(key, saved, Some(streamed), before, None)
            }
            report => self.report(key, report, before, None),
        }
    }

    fn failed(&mut self, key: &[u8], failure: Failure, link: Option<Stat>) -> Result<()> {
        if let Some(link) = link {
            self.links.resolve(&link, &[]);
        }
        if failure.gone && self.changed.is_some_and(|changed| changed.contains(key)) {
            return self.manifest.gone(key);
        }
        self.problem(key, failure.why);
        self.observer.event(Event::Entry { key, outcome: Outcome::Failed, bytes: 0 });
        self.manifest.leave_out(key)
    }

    fn saved(
        &mut self,
        key: &[u8],
        saved: Saved,
        content: Option<(Content, u64)>,
        before: &Before,
        link: Option<Stat>,
    ) -> Result<()> {
        let Saved { mut entry, note, .. } = saved;
        if let Some((content, size)) = content {
            entry.kind = EntryKind::File(content);
            entry.size = size;
        }
        if let Some(note) = note {
            self.problem(key, note);
        }
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        entry.encode(&mut encoded);
        if encoded.len() > ENTRY_BYTES_MAX {
            self.problem(key, "extended attributes are too large and were left out".into());
            entry.xattrs.clear();
            entry.flags = 0;
            encoded.clear();
            entry.encode(&mut encoded);
        }
        if let Some(link) = link {
            let value: &[u8] = if is_of(&entry, &link) { &encoded } else { &[] };
            self.links.resolve(&link, value);
        }
        let outcome = compare(&entry, &encoded, before)?;
        let head = EntryHead::decode(&encoded)?;
        self.append(key, &encoded, &head, outcome)?;
        self.encoded = encoded;
        Ok(())
    }

    fn append(
        &mut self,
        key: &[u8],
        value: &[u8],
        head: &EntryHead,
        outcome: Outcome,
    ) -> Result<()> {
        self.manifest.put(key, value)?;
        let tally = match head.kind {
            kind if kind.is_file() => &mut self.counts.files,
            KindCode::Directory => &mut self.counts.directories,
            _ => &mut self.counts.others,
        };
        match outcome {
            Outcome::Unmodified => tally.unmodified += 1,
            Outcome::Changed | Outcome::MetadataChanged => tally.changed += 1,
            _ => tally.new += 1,
        }
        self.counts.bytes_total = self.counts.bytes_total.saturating_add(head.size);
        self.observer.event(Event::Entry { key, outcome, bytes: head.size });
        Ok(())
    }

    /// The content of what came in one piece; None for what has none.
    fn content_of(
        &mut self,
        body: Body,
        entry: &Entry,
        before: &Before,
    ) -> Result<Option<(Content, u64)>> {
        match body {
            Body::Nothing if !entry.is_file() => Ok(None),
            Body::Nothing => {
                let old = before.value.as_ref().map(|value| Entry::decode(value)).transpose()?;
                match old.map(|old| (old.kind, old.size)) {
                    Some((EntryKind::File(content), size)) => Ok(Some((content, size))),
                    _ => Err(Error::Invalid("content was relied on that the parent lacks".into())),
                }
            }
            Body::Inline(bytes) => {
                let size = u64::try_from(bytes.len()).expect("a usize fits into 64 bits");
                self.counts.bytes_read += size;
                self.observer.event(Event::Bytes(size));
                Ok(Some((Content::Inline(bytes), size)))
            }
            Body::Pieces(pieces) => {
                let Sinks { params, data, content_nodes } = &mut self.sinks;
                let mut list = ContentList::new(params, &mut **content_nodes);
                for piece in &pieces {
                    take(piece, &mut list, *data, &mut self.counts, self.observer)?;
                }
                list.finish().map(Some)
            }
            Body::Streamed => unreachable!("long files come through a channel"),
        }
    }

    fn assemble(&mut self, messages: &Receiver<Message>) -> Result<((Content, u64), Message)> {
        let Sinks { params, data, content_nodes } = &mut self.sinks;
        let mut list = ContentList::new(params, &mut **content_nodes);
        loop {
            if self.observer.cancelled() {
                return Err(Error::Cancelled);
            }
            match messages.recv_timeout(CANCEL_LOOK_EVERY) {
                Ok(Message::Piece(piece)) => {
                    take(&piece, &mut list, *data, &mut self.counts, self.observer)?;
                }
                Ok(end) => return Ok((list.finish()?, end)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Invalid("a reading thread died".into()));
                }
            }
        }
    }
}

fn take(
    piece: &Piece,
    list: &mut ContentList<'_>,
    data: &mut dyn FnMut(&ChunkBatch) -> Result<()>,
    counts: &mut Counts,
    observer: &dyn Observer,
) -> Result<()> {
    list.push(piece)?;
    let size = match piece {
        Piece::Data(batch) => {
            data(batch)?;
            let size = u64::try_from(batch.bytes.len()).expect("a usize fits into 64 bits");
            counts.bytes_read += size;
            size
        }
        Piece::Hole(len) => *len,
    };
    observer.event(Event::Bytes(size));
    Ok(())
}

/// Whether the entry is that of the file which the scan saw. The name may have been given to another file since, whose
/// entry is none for the other names.
fn is_of(entry: &Entry, seen: &Stat) -> bool {
    (entry.device, entry.inode, entry.size, entry.mtime)
        == (seen.device, seen.inode, seen.size, seen.mtime)
}

/// What became of an entry, against what the parent had.
fn compare(entry: &Entry, encoded: &[u8], before: &Before) -> Result<Outcome> {
    let Some(value) = &before.value else { return Ok(Outcome::New) };
    if value == encoded {
        return Ok(Outcome::Unmodified);
    }
    let mut old = Entry::decode(value)?;
    if old.kind != entry.kind {
        let same = std::mem::discriminant(&old.kind) == std::mem::discriminant(&entry.kind);
        return Ok(if same { Outcome::Changed } else { Outcome::New });
    }
    // Only that the last backup had a doubt and this one has none, or the reverse.
    old.racy = entry.racy;
    Ok(if old == *entry { Outcome::Unmodified } else { Outcome::MetadataChanged })
}
