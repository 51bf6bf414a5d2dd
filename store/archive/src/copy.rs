//! Copies snapshots from one repository into another.
//!
//! Ids are keyed by repository, so content is read, verified, cut and named anew with the keys of the destination,
//! which stores what it does not have. Metadata is taken over entry for entry. A snapshot that lies in the destination
//! already, or came from there, is left alone; the nearest of those serves the next copy as its base, so that only
//! what differs is read. Knows nothing of how packs are laid out.

mod base;
mod fetch;
mod manifest;
mod stop;
mod stream;
mod window;

pub use manifest::CopyFigures;

use crate::entry::ManifestSchema;
use crate::observer::{Event, Observer, Problem};
use crate::path;
use crate::pipeline::Chunkers;
use base::Twins;
use manifest::{Changes, Copying, Output};
use std::sync::Arc;
use stillpoint_store::record::SnapshotRecord;
use stillpoint_store::tree::{self, Builder, Editor, Root, Tree};
use stillpoint_store::{
    Error, Reader, Repository, RepositoryId, Result, Snapshot, SnapshotId, WriteOptions, Writer,
};
use stop::Stop;
use window::Known;

/// What is to be done about one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStep {
    /// It is copied.
    Copy,
    /// It is there already.
    There {
        /// Its name in the destination.
        id: SnapshotId,
    },
}

/// Decides for each snapshot of `source` whether it is copied to where the snapshots `there` lie.
pub fn plan_copy(
    source: RepositoryId,
    chosen: &[Snapshot],
    destination: RepositoryId,
    there: &[Snapshot],
) -> Vec<CopyStep> {
    let mut twins = twins(destination, there);
    let step = |snapshot: &Snapshot| {
        let original = snapshot.original(source);
        match twins.get(&original) {
            Some(twin) => CopyStep::There { id: twin.id },
            None => {
                // A second copy of the same one in the source is no other snapshot.
                twins.insert(original, snapshot.clone());
                CopyStep::Copy
            }
        }
    };
    chosen.iter().map(step).collect()
}

fn twins(repository: RepositoryId, snapshots: &[Snapshot]) -> Twins {
    let named = |snapshot: &Snapshot| (snapshot.original(repository), snapshot.clone());
    snapshots.iter().map(named).collect()
}

/// What came of one snapshot.
#[derive(Debug, Clone)]
pub enum Copied {
    /// It is durable in the destination.
    Done {
        /// Its name there.
        id: SnapshotId,
        /// Its record there.
        record: Box<SnapshotRecord>,
        /// What was done for it.
        figures: CopyFigures,
    },
    /// It was there already.
    There {
        /// Its name there.
        id: SnapshotId,
    },
    /// It could not be read whole, and was not copied.
    Refused {
        /// What is wrong, and with which file.
        problem: Problem,
    },
}

/// A write session of the destination, and what it has stored so far.
struct Session {
    writer: Writer,
    known: Known,
    protect: bool,
}

/// Copies snapshots one after the other.
pub struct Copier<'a> {
    source: &'a Arc<Repository>,
    destination: &'a Arc<Repository>,
    options: WriteOptions,
    reader: Reader,
    chunkers: Chunkers,
    /// The snapshots of the source.
    live: Vec<Snapshot>,
    twins: Twins,
    /// The session of a snapshot that was refused: what it has stored serves the next one.
    session: Option<Session>,
}

impl<'a> Copier<'a> {
    /// Looks at both repositories.
    ///
    /// # Errors
    /// `Invalid` when both are the same one; what they give.
    pub fn new(
        source: &'a Arc<Repository>,
        destination: &'a Arc<Repository>,
        options: WriteOptions,
    ) -> Result<Self> {
        if source.id() == destination.id() {
            return Err(Error::Invalid(
                "source and destination are the same repository, or one is a plain copy of the other's files"
                    .into(),
            ));
        }
        let reader = source.reader()?;
        let live = source.snapshots_of(reader.view())?;
        let twins = twins(destination.id(), &destination.snapshots()?);
        let chunkers = Chunkers::new(|profile| destination.chunker(profile))?;
        Ok(Self { source, destination, options, reader, chunkers, live, twins, session: None })
    }

    /// The snapshots of the source, oldest first.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.live
    }

    /// What would be done about these snapshots of the source.
    pub fn plan(&self, chosen: &[Snapshot]) -> Vec<CopyStep> {
        let there: Vec<_> = self.twins.values().cloned().collect();
        plan_copy(self.source.id(), chosen, self.destination.id(), &there)
    }

    /// Copies one snapshot of the source. What ends it early is left to the next run: finished packs count.
    ///
    /// # Errors
    /// Those of the destination, and `Cancelled`. What the source cannot give is an outcome, not an error.
    pub fn copy(&mut self, snapshot: &Snapshot, observer: &dyn Observer) -> Result<Copied> {
        if let Some(twin) = self.twins.get(&snapshot.original(self.source.id())) {
            return Ok(Copied::There { id: twin.id });
        }
        let mut session = self.session(snapshot.protected)?;
        match self.build(&mut session, snapshot, observer) {
            Ok((record, figures)) => {
                let (id, record) = session.writer.commit(record)?;
                let twin = Snapshot {
                    id,
                    record: record.clone(),
                    committed: self.destination.env().now(),
                    protected: snapshot.protected,
                };
                self.twins.insert(snapshot.original(self.source.id()), twin);
                Ok(Copied::Done { id, record: Box::new(record), figures })
            }
            Err(Stop::Source { key, error }) => {
                self.session = Some(session);
                let path = path::path_from_key(&key.unwrap_or_default());
                let problem = Problem { path, what: error.to_string() };
                observer.event(Event::Problem(&problem));
                Ok(Copied::Refused { problem })
            }
            Err(Stop::Fatal(error)) => {
                // Best effort: what is lost is stored again next time.
                let _ = session.writer.checkpoint();
                Err(error)
            }
        }
    }

    fn session(&mut self, protect: bool) -> Result<Session> {
        if let Some(session) = self.session.take().filter(|session| session.protect == protect) {
            return Ok(session);
        }
        let writer = self.destination.writer(WriteOptions { protect, ..self.options.clone() })?;
        Ok(Session { writer, known: Known::default(), protect })
    }

    /// Stores content and manifest; gives the record to commit.
    fn build(
        &self,
        session: &mut Session,
        snapshot: &Snapshot,
        observer: &dyn Observer,
    ) -> Result<(SnapshotRecord, CopyFigures), Stop> {
        let base = base::choose(snapshot, self.source.id(), &self.live, &self.twins);
        let before = session.writer.stats();
        let (mut root, mut figures) = self.manifest(session, snapshot, base, observer)?;
        let is_same = |found: Root, wanted: Root| {
            (found.entries, found.bytes) == (wanted.entries, wanted.bytes)
        };
        if base.is_some() && !is_same(root, snapshot.record.root) {
            // What lies in the destination is not what it says it is a copy of.
            (root, figures) = self.manifest(session, snapshot, None, observer)?;
        }
        if !is_same(root, snapshot.record.root) {
            let detail = "it does not hold as much as the snapshot says";
            return Err(Stop::source(Error::damaged("manifest", detail)));
        }
        let mut record = snapshot.record.clone();
        record.root = root;
        record.snapshot = None;
        record.original = Some(snapshot.original(self.source.id()));
        let twin_of = |id: SnapshotId| {
            let parent = self.live.iter().find(|one| one.id == id)?;
            Some(self.twins.get(&parent.original(self.source.id()))?.id)
        };
        record.parent = snapshot.record.parent.and_then(twin_of);
        let stats = session.writer.stats();
        record.summary.bytes_added = stats.bytes_new - before.bytes_new;
        record.summary.chunks_new = stats.chunks_new - before.chunks_new;
        Ok((record, figures))
    }

    fn manifest(
        &self,
        session: &mut Session,
        snapshot: &Snapshot,
        base: Option<(&Snapshot, &Snapshot)>,
        observer: &dyn Observer,
    ) -> Result<(Root, CopyFigures), Stop> {
        let Session { writer, known, .. } = session;
        let params = self.destination.tree_params();
        let there = self.destination.reader_of(writer.view());
        let mut nodes = writer.node_sink();
        let root = snapshot.record.root;
        let (changes, output, twin) = match base {
            Some((from, twin)) => {
                writer.rely_on_parent(twin.id);
                let from = from.record.root;
                let diff = tree::diff::<ManifestSchema>(from, root, &self.reader, &self.reader);
                let twin = twin.record.root;
                let editor = Editor::new(twin, &params, &there, &mut nodes);
                let cursor = manifest::cursor(twin, &there);
                (Changes::Since(Box::new(diff)), Output::Edit(Box::new(editor)), Some(cursor))
            }
            None => {
                let all = Tree::<ManifestSchema>::open(root, &self.reader).iter();
                let all = all.map_err(Stop::source)?;
                (Changes::All(all), Output::Build(Builder::new(&params, &mut nodes)), None)
            }
        };
        let mut copying = Copying {
            reader: &self.reader,
            twin,
            writer,
            chunkers: &self.chunkers,
            params: &params,
            known,
            threads: self.options.threads,
            observer,
            figures: CopyFigures::default(),
        };
        let root = copying.run(changes, output)?;
        Ok((root, copying.figures))
    }
}
