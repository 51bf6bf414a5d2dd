//! One manifest: from the differences in the source to a tree in the destination.

use super::stop::Stop;
use super::stream::{Items, Stream};
use super::window::{Identity, Known, Settled, Slot, Source, WINDOW_BYTES_MAX, Window, told_size};
use crate::entry::ManifestSchema;
use crate::entry::{Content, ContentItem, ContentSchema, ENTRY_BYTES_MAX, Entry, EntryKind};
use crate::observer::{Event, Observer, Outcome};
use crate::path;
use crate::pipeline::{Chunkers, ContentList, Piece};
use stillpoint_store::tree::{
    Builder, Change, Cursor, DiffIter, Editor, NodeSink, Root, Tree, TreeParams,
};
use stillpoint_store::{Error, Reader, Result, Writer};

/// What was done for one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyFigures {
    /// Entries that are not as in the snapshot that the copy builds on.
    pub entries: u64,
    /// Files whose content was read.
    pub files_read: u64,
    /// Bytes of content that were read.
    pub bytes_read: u64,
}

/// Where the entries come from.
pub(super) enum Changes<'a> {
    /// All of one manifest.
    All(Cursor<'a, ManifestSchema>),
    /// What differs from another one.
    Since(Box<DiffIter<'a, ManifestSchema>>),
}

impl Changes<'_> {
    fn next(&mut self) -> Result<Option<Change>> {
        match self {
            Self::All(cursor) => {
                let next = cursor.next()?;
                Ok(next.map(|(key, value)| Change { key, old: None, new: Some(value) }))
            }
            Self::Since(diff) => diff.next().transpose(),
        }
    }
}

/// Where they go.
pub(super) enum Output<'a> {
    /// A manifest of their own.
    Build(Builder<'a, ManifestSchema>),
    /// The manifest that the copy builds on.
    Edit(Box<Editor<'a, ManifestSchema>>),
}

impl Output<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Build(builder) => builder.push(key, value),
            Self::Edit(editor) => editor.put(key, value),
        }
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        match self {
            Self::Build(_) => Ok(()),
            Self::Edit(editor) => editor.remove(key),
        }
    }

    fn finish(self) -> Result<Root> {
        match self {
            Self::Build(builder) => builder.finish(),
            Self::Edit(editor) => editor.finish(),
        }
    }
}

/// Everything that the copying of one manifest works with.
pub(super) struct Copying<'a> {
    /// The source.
    pub(super) reader: &'a Reader,
    /// The destination's manifest that the copy builds on.
    pub(super) twin: Option<Cursor<'a, ManifestSchema>>,
    pub(super) writer: &'a Writer,
    pub(super) chunkers: &'a Chunkers,
    pub(super) params: &'a TreeParams,
    pub(super) known: &'a mut Known,
    pub(super) threads: usize,
    pub(super) observer: &'a dyn Observer,
    pub(super) figures: CopyFigures,
}

impl Copying<'_> {
    /// Takes all changes over; gives the manifest's root.
    pub(super) fn run(
        &mut self,
        mut changes: Changes<'_>,
        mut output: Output<'_>,
    ) -> Result<Root, Stop> {
        let mut window = Window::default();
        while let Some(change) = changes.next().map_err(Stop::source)? {
            self.take(change, &mut window, &mut output)?;
            if window.is_full() {
                self.settle(&mut window, &mut output)?;
            }
        }
        self.settle(&mut window, &mut output)?;
        Ok(output.finish()?)
    }

    fn stop_if_cancelled(&self) -> Result<(), Stop> {
        if self.observer.cancelled() { Err(Error::Cancelled.into()) } else { Ok(()) }
    }

    fn take(
        &mut self,
        change: Change,
        window: &mut Window,
        output: &mut Output<'_>,
    ) -> Result<(), Stop> {
        let Change { key, old, new } = change;
        self.figures.entries += 1;
        let Some(value) = new else {
            self.tell(&key, Outcome::Removed, 0);
            window.remove(key);
            return Ok(());
        };
        path::check_key(&key).map_err(Stop::source)?;
        let mut entry = Entry::decode(&value).map_err(Stop::file(&key))?;
        let Some(identity) = Identity::of(&entry, &key) else {
            self.tell(&key, outcome(&old), entry.size);
            window.ready(key, value);
            return Ok(());
        };
        if let Some(found) = self.stored(&key, &entry, &old, &identity)? {
            self.tell(&key, known(&old), entry.size);
            entry.kind = EntryKind::File(found);
            window.ready(key, self.encode(&mut entry)?);
            return Ok(());
        }
        let size = entry.size;
        if size > WINDOW_BYTES_MAX {
            self.settle(window, output)?;
            self.figures.files_read += 1;
            self.tell(&key, outcome(&old), size);
            return self.copy_long(&key, entry, identity, output);
        }
        let items = self.items(&entry).map_err(Stop::file(&key))?;
        if window.file(key.clone(), entry, items, identity) {
            self.figures.files_read += 1;
            self.tell(&key, outcome(&old), size);
        } else {
            self.tell(&key, known(&old), size);
        }
        Ok(())
    }

    /// What the destination has of a file's content, if that is known without reading it: this session has stored
    /// the same, or only the metadata differ from the entry that the copy builds on.
    fn stored(
        &mut self,
        key: &[u8],
        entry: &Entry,
        old: &Option<Vec<u8>>,
        identity: &Identity,
    ) -> Result<Option<Content>, Stop> {
        if let Some(content) = self.known.get(identity) {
            return Ok(Some(content.clone()));
        }
        let (Some(old), Some(twin)) = (old, &mut self.twin) else { return Ok(None) };
        if Entry::decode(old).map_err(Stop::file(key))?.kind != entry.kind {
            return Ok(None);
        }
        twin.seek(key)?;
        let Some((found, value)) = twin.peek() else { return Ok(None) };
        if found != key {
            return Ok(None);
        }
        let found = Entry::decode(value)?;
        match found.kind {
            EntryKind::File(content) if found.size == entry.size => Ok(Some(content)),
            _ => Ok(None),
        }
    }

    fn items(&self, entry: &Entry) -> Result<Vec<ContentItem>> {
        let mut all = Vec::new();
        if let Some(mut items) = Items::of(entry, self.reader)? {
            while let Some(item) = items.next()? {
                all.push(item);
            }
        }
        Ok(all)
    }

    /// Reads what waits and writes it, in order.
    fn settle(&mut self, window: &mut Window, output: &mut Output<'_>) -> Result<(), Stop> {
        self.stop_if_cancelled()?;
        let Settled { slots, cuts } = window.settle(self.reader, self.chunkers, self.threads)?;
        let mut cuts = cuts.into_iter();
        let mut contents: Vec<Content> = Vec::new();
        for (key, slot) in slots {
            match slot {
                Slot::Remove => output.remove(&key)?,
                Slot::Ready(value) => output.put(&key, &value)?,
                Slot::File(mut entry, source) => {
                    let content = match source {
                        Source::SameAs(number) => contents.get(number).cloned(),
                        Source::Job => {
                            let (identity, cut) = cuts.next().expect("one for each job");
                            let pieces = cut.map_err(Stop::file(&key))?;
                            let content = self.store(&key, &entry, pieces)?;
                            self.known.put(identity, content.clone());
                            contents.push(content.clone());
                            Some(content)
                        }
                    };
                    let content = content.expect("a job comes before those that are the same");
                    entry.kind = EntryKind::File(content);
                    output.put(&key, &self.encode(&mut entry)?)?;
                }
            }
        }
        Ok(())
    }

    /// Stores the pieces of a file; gives its content in the destination.
    fn store(&mut self, key: &[u8], entry: &Entry, pieces: Vec<Piece>) -> Result<Content, Stop> {
        let mut nodes = self.writer.node_sink();
        let mut list = ContentList::new(self.params, &mut nodes);
        for piece in &pieces {
            self.add(piece, &mut list)?;
        }
        whole(key, entry, list)
    }

    fn add(&mut self, piece: &Piece, list: &mut ContentList<'_>) -> Result<()> {
        if let Piece::Data(batch) = piece {
            self.writer.add_data(batch)?;
            let bytes = u64::try_from(batch.bytes.len()).expect("a usize fits into 64 bits");
            self.figures.bytes_read += bytes;
            self.observer.event(Event::Bytes(bytes));
        }
        list.push(piece)
    }

    /// Copies a file that is too long to be held as a whole.
    fn copy_long(
        &mut self,
        key: &[u8],
        mut entry: Entry,
        identity: Identity,
        output: &mut Output<'_>,
    ) -> Result<(), Stop> {
        let failed = Stop::file(key);
        let Some(items) = Items::of(&entry, self.reader).map_err(&failed)? else { return Ok(()) };
        let mut stream = Stream::new(self.reader, items, self.threads);
        let head = stream.head().map_err(&failed)?;
        let chunker = self.chunkers.choose(path::file_name(key), told_size(&entry), &head);
        let mut nodes = self.writer.node_sink();
        let mut list = ContentList::new(self.params, &mut nodes);
        while let Some(hole) = stream.hole().map_err(&failed)? {
            if hole > 0 {
                list.push(&Piece::Hole(hole))?;
                continue;
            }
            for batch in chunker.stream(&mut stream) {
                self.stop_if_cancelled()?;
                // Why it failed is told by the stream.
                let Ok(batch) = batch else { break };
                self.add(&Piece::Data(batch), &mut list)?;
            }
        }
        let content = whole(key, &entry, list)?;
        self.known.put(identity, content.clone());
        entry.kind = EntryKind::File(content);
        Ok(output.put(key, &self.encode(&mut entry)?)?)
    }

    /// The entry's bytes. A list that other cuts have made too long for the entry moves into a tree.
    fn encode(&self, entry: &mut Entry) -> Result<Vec<u8>> {
        let bytes = entry.to_bytes();
        if bytes.len() <= ENTRY_BYTES_MAX {
            return Ok(bytes);
        }
        let EntryKind::File(Content::Chunks(items)) = &entry.kind else { return Ok(bytes) };
        let mut nodes = self.writer.node_sink();
        let nodes: &mut dyn NodeSink = &mut nodes;
        let mut tree = Builder::<ContentSchema>::new(self.params, nodes);
        let mut encoded = Vec::new();
        for item in items {
            encoded.clear();
            item.encode(&mut encoded);
            tree.push(&[], &encoded)?;
        }
        entry.kind = EntryKind::File(Content::Tree(tree.finish()?));
        Ok(entry.to_bytes())
    }

    fn tell(&self, key: &[u8], outcome: Outcome, bytes: u64) {
        self.observer.event(Event::Entry { key, outcome, bytes });
    }
}

/// The content, which must be as long as the entry says.
fn whole(key: &[u8], entry: &Entry, list: ContentList<'_>) -> Result<Content, Stop> {
    let (content, size) = list.finish()?;
    if size == entry.size {
        return Ok(content);
    }
    let detail = "a content list does not give its file's size";
    Err(Stop::file(key)(Error::damaged("manifest", detail)))
}

fn outcome(old: &Option<Vec<u8>>) -> Outcome {
    if old.is_some() { Outcome::Changed } else { Outcome::New }
}

/// What is said of a file whose content is known already.
fn known(old: &Option<Vec<u8>>) -> Outcome {
    if old.is_some() { Outcome::MetadataChanged } else { Outcome::Moved }
}

/// The entries of a manifest with what is known of them, without loading anything yet.
pub(super) fn cursor<'a>(root: Root, reader: &'a Reader) -> Cursor<'a, ManifestSchema> {
    Tree::<ManifestSchema>::open(root, reader).cursor()
}
