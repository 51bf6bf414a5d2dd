//! The entries that wait to be written, in order, while the content of the files among them is read and cut together.
//!
//! Owns the bounds on memory and the knowledge of what this session has copied already. Knows nothing of trees.

use super::fetch::{Chunks, chunk_of, fetch};
use super::stop::Stop;
use super::stream::head;
use crate::entry::{Content, ContentItem, Entry, EntryKind};
use crate::path;
use crate::pipeline::{Chunkers, Piece, by_name};
use crate::restore::for_each;
use std::collections::HashMap;
use std::sync::OnceLock;
use stillpoint_chunker::Chunker;
use stillpoint_store::{Error, Reader, Result};

/// Most content that is read together, bytes, but for the last file that was let in.
pub(super) const WINDOW_BYTES_MAX: u64 = 32 << 20;
/// Most entries that wait.
pub(super) const WINDOW_ENTRIES_MAX: usize = 8192;
/// Most memory of waiting entries, bytes.
const WINDOW_MEMORY_MAX: usize = 16 << 20;
/// Content lists that are remembered with what they became, bytes.
const KNOWN_BYTES_MAX: usize = 16 << 20;

/// What becomes of one key.
pub(super) enum Slot {
    /// It goes.
    Remove,
    /// An entry that needs nothing.
    Ready(Vec<u8>),
    /// A file whose content comes first.
    File(Box<Entry>, Source),
}

/// Where the content of a file comes from.
pub(super) enum Source {
    /// The next job.
    Job,
    /// The content of an earlier job, which is the same.
    SameAs(usize),
}

/// One file whose content is read.
struct Job {
    items: Vec<ContentItem>,
    name: Vec<u8>,
    /// Known but for streams.
    size: Option<u64>,
    identity: Identity,
}

/// What tells that two files have the same content and are cut the same: the list of the source, and what of name and
/// kind decides about cuts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity(Vec<u8>);

impl Identity {
    /// The identity of this file's content; None for what stands in the entry, and for what is no file.
    pub(super) fn of(entry: &Entry, key: &[u8]) -> Option<Self> {
        let EntryKind::File(content) = &entry.kind else { return None };
        let is_sized = told_size(entry).is_some();
        let mut bytes = vec![by_name(path::file_name(key)).as_u8(), u8::from(is_sized)];
        match content {
            Content::Inline(_) => return None,
            Content::Chunks(items) => items.iter().for_each(|item| item.encode(&mut bytes)),
            Content::Tree(root) => bytes.extend_from_slice(root.id.as_bytes()),
        }
        Some(Self(bytes))
    }
}

/// What content of the source became in the destination, as long as one write session lasts: what it stores, nobody
/// removes without its noticing.
#[derive(Default)]
pub(super) struct Known {
    contents: HashMap<Identity, Content>,
    bytes: usize,
}

impl Known {
    pub(super) fn get(&self, identity: &Identity) -> Option<&Content> {
        self.contents.get(identity)
    }

    pub(super) fn put(&mut self, identity: Identity, content: Content) {
        // About what both take; lists are bounded, so is each.
        self.bytes += 3 * identity.0.len();
        if self.bytes > KNOWN_BYTES_MAX {
            self.contents.clear();
            self.bytes = 3 * identity.0.len();
        }
        self.contents.insert(identity, content);
    }
}

/// What was read and cut for one job, or why it could not be.
pub(super) type Cut = Result<Vec<Piece>>;

/// The window.
#[derive(Default)]
pub(super) struct Window {
    slots: Vec<(Vec<u8>, Slot)>,
    jobs: Vec<Job>,
    /// Jobs by their content.
    running: HashMap<Identity, usize>,
    bytes: u64,
    memory: usize,
}

impl Window {
    /// Whether enough has come together.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= WINDOW_BYTES_MAX
            || self.slots.len() >= WINDOW_ENTRIES_MAX
            || self.memory >= WINDOW_MEMORY_MAX
    }

    /// A key that goes.
    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.push(key, Slot::Remove, 0);
    }

    /// An entry as it will be written.
    pub(super) fn ready(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let memory = value.len();
        self.push(key, Slot::Ready(value), memory);
    }

    /// A file whose content has these pieces in the source; false when a file before it has the same.
    pub(super) fn file(
        &mut self,
        key: Vec<u8>,
        entry: Entry,
        items: Vec<ContentItem>,
        identity: Identity,
    ) -> bool {
        if let Some(&number) = self.running.get(&identity) {
            let slot = Slot::File(Box::new(entry), Source::SameAs(number));
            self.push(key, slot, size_of::<Entry>());
            return false;
        }
        let data = items.iter().filter(|item| matches!(item, ContentItem::Data { .. }));
        self.bytes += data.map(ContentItem::len_bytes).sum::<u64>();
        let memory = size_of::<Entry>() + items.len() * size_of::<ContentItem>();
        self.running.insert(identity.clone(), self.jobs.len());
        let (name, size) = (path::file_name(&key).to_vec(), told_size(&entry));
        self.jobs.push(Job { items, name, size, identity });
        self.push(key, Slot::File(Box::new(entry), Source::Job), memory);
        true
    }

    fn push(&mut self, key: Vec<u8>, slot: Slot, memory: usize) {
        self.memory += key.len() + memory;
        self.slots.push((key, slot));
    }

    /// Reads and cuts what the jobs want and gives everything up, emptied.
    ///
    /// # Errors
    /// The source's index. What goes wrong with single files stands in their place.
    pub(super) fn settle(
        &mut self,
        reader: &Reader,
        chunkers: &Chunkers,
        threads: usize,
    ) -> Result<Settled, Stop> {
        let Self { slots, jobs, .. } = std::mem::take(self);
        let wanted = jobs.iter().flat_map(|job| &job.items).filter_map(|item| match item {
            ContentItem::Data { id, .. } => Some(*id),
            ContentItem::Hole { .. } => None,
        });
        let chunks = fetch(reader, wanted.collect(), threads).map_err(Stop::source)?;
        let cuts: Vec<(Job, OnceLock<Cut>)> =
            jobs.into_iter().map(|job| (job, OnceLock::new())).collect();
        for_each(threads, &cuts, |(job, cut)| {
            // Each is set by one thread, once.
            let _ = cut.set(job.cut(&chunks, chunkers));
        });
        let cuts = cuts.into_iter().map(|(job, cut)| {
            let lost = || Err(Error::Invalid("a reading thread died".into()));
            (job.identity, cut.into_inner().unwrap_or_else(lost))
        });
        Ok(Settled { slots, cuts: cuts.collect() })
    }
}

/// How long the chunkers are told that the file is: not known of streams.
pub(super) fn told_size(entry: &Entry) -> Option<u64> {
    let is_stream = entry.inode == 0 && entry.device == 0;
    (!is_stream).then_some(entry.size)
}

/// A window whose content was read.
pub(super) struct Settled {
    /// What becomes of each key, in order.
    pub(super) slots: Vec<(Vec<u8>, Slot)>,
    /// The content of the jobs, by their numbers.
    pub(super) cuts: Vec<(Identity, Cut)>,
}

impl Job {
    fn cut(&self, chunks: &Chunks, chunkers: &Chunkers) -> Cut {
        let head = head(self.items.iter(), chunks)?;
        let chunker = chunkers.choose(&self.name, self.size, &head);
        let mut pieces = Vec::new();
        let mut data = Vec::new();
        for item in &self.items {
            match item {
                ContentItem::Data { id, len } => {
                    data.extend_from_slice(chunk_of(chunks, id, *len)?);
                }
                ContentItem::Hole { len } => {
                    take(&mut data, chunker, &mut pieces);
                    pieces.push(Piece::Hole(*len));
                }
            }
        }
        take(&mut data, chunker, &mut pieces);
        Ok(pieces)
    }
}

/// Cuts the data between two holes.
fn take(data: &mut Vec<u8>, chunker: &Chunker, pieces: &mut Vec<Piece>) {
    if !data.is_empty() {
        pieces.push(Piece::Data(chunker.chunk_slice(std::mem::take(data))));
    }
}
