//! The write session: takes chunks in order, stores those that are new, and commits a snapshot of them.
//!
//! One thread calls it. Compression runs on a pool of threads, sealing and writing on one thread per kind of chunk;
//! bounded queues between them. What is stored depends on the order of the calls alone, not on the threads.

mod commit;
mod lane;
mod moved;
mod pool;

pub use lane::FinishedPack;

use crate::error::Result;
use crate::id::{ChunkId, ChunkKind, NodeId, ObjectName, PackId, SnapshotId};
use crate::limits::{CHUNK_BYTES_MAX, NODE_BYTES_MAX};
use crate::pack::{FRAME_TARGET_BYTES, Level};
use crate::repository::{HeadView, Repository, SharedIndex};
use crate::tree::NodeSink;
use lane::{Finished, Lane, LaneStart};
use pool::{FrameRules, Pool};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use stillpoint_chunker::ChunkBatch;

/// Durable packs that wait in memory before their session makes them live without a snapshot; so an interrupted
/// first backup of many gigabytes goes on where it stopped, and memory stays bounded: 64 packs, 2 GiB.
const PACKS_PER_CHECKPOINT: usize = 64;

/// How a session writes.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// How frames are compressed.
    pub level: Level,
    /// Open and decompress every frame again, and compare with the chunk ids, before it is written.
    pub verify: bool,
    /// Threads that compress.
    pub threads: usize,
    /// Plaintext bytes of a full frame; a larger chunk has a frame of its own.
    pub frame_target_bytes: usize,
    /// Count only; nothing is stored and the session cannot commit.
    pub dry_run: bool,
    /// The snapshot is protected from being forgotten from its first moment on.
    pub protect: bool,
    /// The snapshot is born forgotten: kept whole for the time of undeletion, on no list of live ones. For passes of a
    /// capture that only serve the next pass.
    pub draft: bool,
    /// Forgotten snapshots that the commit removes for good: the drafts that it replaces.
    pub supersedes: Vec<SnapshotId>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            level: Level::default(),
            verify: true,
            threads,
            frame_target_bytes: FRAME_TARGET_BYTES,
            dry_run: false,
            protect: false,
            draft: false,
            supersedes: Vec::new(),
        }
    }
}

/// Figures of a session so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteStats {
    /// Data chunks that the repository did not have.
    pub chunks_new: u64,
    /// Their plaintext bytes.
    pub bytes_new: u64,
    /// Data chunks that it had.
    pub chunks_known: u64,
    /// Their plaintext bytes.
    pub bytes_known: u64,
    /// Tree nodes that were new.
    pub nodes_new: u64,
    /// Their bytes before compression.
    pub node_bytes_new: u64,
    /// Bytes of finished packs. Complete after the commit.
    pub bytes_stored: u64,
}

/// Ids are uniformly random already: eight of their bytes are as good as any hash of them.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some((first, _)) = bytes.split_first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _len: usize) {}
}

/// A set of chunk ids.
pub(crate) type IdSet = HashSet<ChunkId, BuildHasherDefault<IdHasher>>;

/// State that the calls share; one thread uses it, the lock is never waited for.
struct State {
    view: Arc<HeadView>,
    index: Option<Arc<SharedIndex>>,
    data: Lane,
    nodes: Lane,
    /// Chunks that this session stores and that no commit has made live yet.
    own: IdSet,
    /// Nodes of the parent's manifest, which need no look-up.
    parent_nodes: IdSet,
    parent: Option<SnapshotId>,
    /// Raised by the first error: something that was given may not be stored, so nothing may be committed.
    is_poisoned: bool,
    /// Live packs that known chunks were found in, and that are there.
    relied: HashSet<PackId>,
    /// Packs that the catalogue calls live and that are lost or cannot be read: what they held is stored again.
    lost: HashSet<PackId>,
    stats: WriteStats,
}

/// An open write session. Dropped without a commit, it leaves packs that no head names; prune removes them.
pub struct Writer {
    repository: Arc<Repository>,
    options: WriteOptions,
    state: Mutex<State>,
    finished: Finished,
    pool: Arc<Pool>,
}

impl Repository {
    /// Begins a write session on top of the current head.
    pub fn writer(self: &Arc<Self>, options: WriteOptions) -> Result<Writer> {
        let view = Arc::new(self.head()?);
        let rules = FrameRules {
            level: options.level,
            verify: options.verify,
            id_data: self.domain.id_key(ChunkKind::Data).clone(),
            id_node: self.domain.id_key(ChunkKind::Node).clone(),
        };
        let pool = Arc::new(Pool::start(options.threads, &rules, self.cancel()));
        let finished = Finished::default();
        let start = LaneStart::draw(self, &options, view.seq());
        let lane = |kind| Lane::start(self, kind, start, &pool, &finished);
        let state = State {
            data: lane(ChunkKind::Data),
            nodes: lane(ChunkKind::Node),
            view,
            index: None,
            own: IdSet::default(),
            parent_nodes: IdSet::default(),
            parent: None,
            is_poisoned: false,
            relied: HashSet::new(),
            lost: HashSet::new(),
            stats: WriteStats::default(),
        };
        Ok(Writer {
            repository: Arc::clone(self),
            options,
            state: Mutex::new(state),
            finished,
            pool,
        })
    }
}

impl Writer {
    /// The head on which the session builds; moves forward when the session makes its packs live.
    pub fn view(&self) -> Arc<HeadView> {
        Arc::clone(&self.state().view)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Figures so far.
    pub fn stats(&self) -> WriteStats {
        self.state().stats
    }

    /// Says that the session takes content over from this snapshot's manifest.
    pub fn rely_on_parent(&self, parent: SnapshotId) {
        self.state().parent = Some(parent);
    }

    /// Says that this node belongs to the parent's manifest, so that it needs no look-up.
    pub fn know_node(&self, id: NodeId) {
        self.state().parent_nodes.insert(id);
    }

    /// Says that these packs could not be read: what they hold and is given from now on is stored again.
    pub fn distrust(&self, packs: impl IntoIterator<Item = PackId>) {
        self.state().lost.extend(packs);
    }

    /// Stores those data chunks of the batch that the repository does not have.
    ///
    /// # Errors
    /// Errors of the storage, and `Cancelled`; after one the session cannot commit.
    pub fn add_data(&self, batch: &ChunkBatch) -> Result<()> {
        let mut state = self.state();
        let added = self.add_chunks(&mut state, batch);
        state.is_poisoned |= added.is_err();
        added
    }

    fn add_chunks(&self, state: &mut State, batch: &ChunkBatch) -> Result<()> {
        self.repository.cancel().check()?;
        let unknown: Vec<ChunkId> = batch
            .chunks
            .iter()
            .map(|chunk| chunk.id)
            .filter(|id| !state.own.contains(id))
            .collect();
        let known = self.find(state, &unknown)?;
        let mut known = known.into_iter();
        let mut asked = unknown.into_iter().peekable();
        for chunk in &batch.chunks {
            let len = u64::from(chunk.len);
            let found = match asked.next_if_eq(&chunk.id) {
                Some(_) => known.next().expect("one answer for each question"),
                None => true,
            };
            if found || !state.own.insert(chunk.id) {
                state.stats.chunks_known += 1;
                state.stats.bytes_known += len;
                continue;
            }
            state.stats.chunks_new += 1;
            state.stats.bytes_new += len;
            if !self.options.dry_run {
                debug_assert!(batch.slice(chunk).len() <= CHUNK_BYTES_MAX);
                state.data.push(chunk.id, batch.slice(chunk), Vec::new())?;
            }
        }
        self.checkpoint_if_due(state)
    }

    /// For each id whether a live pack holds it; notes the packs that are relied on.
    fn find(&self, state: &mut State, ids: &[ChunkId]) -> Result<Vec<bool>> {
        if ids.is_empty() || state.view.packs()?.is_empty() {
            return Ok(vec![false; ids.len()]);
        }
        if state.index.is_none() {
            state.index = Some(self.repository.index(&state.view)?);
        }
        let index = state.index.as_ref().expect("opened just above");
        let places = index.lookup(&self.repository, &state.view, ids)?;
        let mut known = Vec::with_capacity(places.len());
        for place in places {
            known.push(match place {
                Some(place) => self.is_there(state, place.pack)?,
                None => false,
            });
        }
        Ok(known)
    }

    /// Whether a live pack still exists with its length; looked up once per pack and session. A new snapshot must
    /// not build on what storage has lost.
    fn is_there(&self, state: &mut State, pack: PackId) -> Result<bool> {
        if state.lost.contains(&pack) {
            return Ok(false);
        }
        if state.relied.contains(&pack) {
            return Ok(true);
        }
        let expected = state.view.packs()?.get(&pack).map(|entry| entry.size_bytes);
        let found = self.repository.backend.size_bytes(&ObjectName::Pack(pack))?;
        if expected.is_some() && found == expected {
            state.relied.insert(pack);
            return Ok(true);
        }
        let name = ObjectName::Pack(pack);
        self.repository
            .note(format!("{name} is missing or cut; what is read of it now is stored again"));
        state.lost.insert(pack);
        Ok(false)
    }

    fn add_node(&self, bytes: &[u8], references: &[ChunkId]) -> Result<NodeId> {
        debug_assert!(bytes.len() <= NODE_BYTES_MAX);
        let id = self.repository.domain.id_key(ChunkKind::Node).id(bytes);
        let mut state = self.state();
        let added = self.add_node_as(&mut state, id, bytes, references);
        state.is_poisoned |= added.is_err();
        added.map(|()| id)
    }

    fn add_node_as(
        &self,
        state: &mut State,
        id: NodeId,
        bytes: &[u8],
        references: &[ChunkId],
    ) -> Result<()> {
        if state.parent_nodes.contains(&id) || state.own.contains(&id) {
            return Ok(());
        }
        if self.find(state, &[id])?.first() == Some(&true) {
            return Ok(());
        }
        state.own.insert(id);
        state.stats.nodes_new += 1;
        state.stats.node_bytes_new += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if !self.options.dry_run {
            state.nodes.push(id, bytes, references.to_vec())?;
        }
        Ok(())
    }

    fn checkpoint_if_due(&self, state: &mut State) -> Result<()> {
        let waiting = self.finished.lock().expect("no panic while listed").len();
        if waiting >= PACKS_PER_CHECKPOINT { self.make_packs_live(state) } else { Ok(()) }
    }

    /// Where tree builders put the nodes of this session.
    pub fn node_sink(&self) -> SessionNodes<'_> {
        SessionNodes { writer: self }
    }
}

/// Stores tree nodes through a write session.
pub struct SessionNodes<'a> {
    writer: &'a Writer,
}

impl NodeSink for SessionNodes<'_> {
    fn store(&mut self, bytes: Vec<u8>, references: &[ChunkId]) -> Result<NodeId> {
        self.writer.add_node(&bytes, references)
    }
}
