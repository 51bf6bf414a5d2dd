//! Reading chunks: places from the index, frames from packs, every chunk verified against its id.

mod cache;
mod recover;

use crate::backend::ObjectBytes;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, NodeId, ObjectName, PackId};
use crate::index::Location;
use crate::pack::{PACK_HEADER_LEN, PackKey, newer_or_damaged};
use crate::repository::{HeadView, Repository, SharedIndex, lost_chunk};
use crate::tree::{NodeBytes, NodeSource};
use cache::Cache;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock};

/// Plaintext of frames kept for chunks that are read one by one: 64 MiB.
const FRAME_CACHE_BYTES: usize = 64 << 20;
/// Opened pack keys that are kept.
const PACK_KEYS_CACHED: usize = 4096;

/// Stored bytes that one read of the backend may fetch for several frames, unless one frame alone is longer: 1 MiB.
const RUN_BYTES_MAX: u64 = 1 << 20;
/// Bytes between two wanted frames that are rather read than skipped: 64 KiB.
const RUN_GAP_MAX: u64 = 64 << 10;

/// Neighbouring frames of one pack, fetched with one read of the backend.
pub struct FrameRun {
    start: u64,
    bytes: ObjectBytes,
}

impl FrameRun {
    /// All that was read: the frames as they are stored, and what lies between them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// True where the frame of `next` is best fetched together with those from `first` to `last`, which come before it.
pub fn joins_run(first: &Location, last: &Location, next: &Location) -> bool {
    let end = |place: &Location| u64::from(place.frame_offset) + u64::from(place.frame_len);
    first.pack == next.pack
        && u64::from(next.frame_offset) >= end(last)
        && u64::from(next.frame_offset) - end(last) <= RUN_GAP_MAX
        && end(next) - u64::from(first.frame_offset) <= RUN_BYTES_MAX
}

/// The plaintext of one frame.
pub type Frame = Arc<Vec<u8>>;

/// Reads chunks under one pinned head.
pub struct Reader {
    repository: Arc<Repository>,
    view: Arc<HeadView>,
    index: OnceLock<Arc<SharedIndex>>,
    frames: Cache<(PackId, u32), Frame>,
    keys: Cache<PackId, Arc<PackKey>>,
    /// The newest head, and the packs that had failed when it was read.
    newest: Mutex<Option<(Arc<HeadView>, HashSet<PackId>)>>,
    /// Failed packs that were noted.
    recovered: Mutex<HashSet<PackId>>,
    /// Packs of which something could not be read, and no other pack had it.
    failed: Mutex<HashSet<PackId>>,
}

impl Repository {
    /// A reader under the current head. The index is opened at the first look-up.
    pub fn reader(self: &Arc<Self>) -> Result<Reader> {
        Ok(self.reader_of(Arc::new(self.head()?)))
    }

    /// A reader under a pinned head.
    pub fn reader_of(self: &Arc<Self>, view: Arc<HeadView>) -> Reader {
        Reader {
            repository: Arc::clone(self),
            view,
            index: OnceLock::new(),
            frames: Cache::new(FRAME_CACHE_BYTES),
            keys: Cache::new(PACK_KEYS_CACHED),
            newest: Mutex::new(None),
            recovered: Mutex::new(HashSet::new()),
            failed: Mutex::new(HashSet::new()),
        }
    }
}

impl Reader {
    /// The head that the reader is pinned to.
    pub fn view(&self) -> &Arc<HeadView> {
        &self.view
    }

    /// The repository.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    fn index(&self) -> Result<&Arc<SharedIndex>> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let index = self.repository.index(&self.view)?;
        Ok(self.index.get_or_init(|| index))
    }

    /// Places of these chunks, in the order asked; None for a chunk that no live pack holds. What a prune has moved
    /// since the reader began is found where it lies now.
    pub fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        let index = self.index()?;
        let mut places = index.lookup(&self.repository, &self.view, ids)?;
        self.locate_moved(ids, &mut places)?;
        if places.iter().all(Option::is_some) {
            return Ok(places);
        }
        // Healed by this thread or, meanwhile, by another: in both cases a second look is due.
        index.heal(&self.repository, &self.view, "it was incomplete")?;
        let mut places = index.lookup(&self.repository, &self.view, ids)?;
        self.locate_moved(ids, &mut places)?;
        Ok(places)
    }

    fn locate_one(&self, id: &ChunkId) -> Result<Location> {
        self.locate(&[*id])?.into_iter().next().flatten().ok_or_else(|| lost_chunk(id))
    }

    /// The plaintext of the frame that holds a chunk, not cached: for readers that go through packs in order.
    /// Chunks in it are not verified yet: see [`Self::chunk_in`].
    ///
    /// # Errors
    /// `Damaged` or `Missing` names the pack.
    pub fn read_frame(&self, place: &Location, kind: ChunkKind) -> Result<Vec<u8>> {
        let run = self.read_run(place, place)?;
        self.open_frame(&run, place, kind)
    }

    /// Fetches the frames from that of `first` to that of `last` of the same pack with one read. Which frames
    /// belong together says [`joins_run`].
    ///
    /// # Errors
    /// `Damaged` or `Missing` names the pack.
    pub fn read_run(&self, first: &Location, last: &Location) -> Result<FrameRun> {
        let start = u64::from(first.frame_offset);
        let end = u64::from(last.frame_offset) + u64::from(last.frame_len);
        let bytes = self.repository.backend.read(&ObjectName::Pack(first.pack), start..end)?;
        Ok(FrameRun { start, bytes })
    }

    /// The plaintext of one frame of a run.
    ///
    /// # Errors
    /// `Damaged` names the pack.
    pub fn open_frame(&self, run: &FrameRun, place: &Location, kind: ChunkKind) -> Result<Vec<u8>> {
        let damaged = |detail: &str| {
            let detail = format!("frame {} {detail}", place.frame);
            Error::damaged(ObjectName::Pack(place.pack), detail)
        };
        let sealed = u64::from(place.frame_offset)
            .checked_sub(run.start)
            .and_then(|start| usize::try_from(start).ok())
            .zip(usize::try_from(place.frame_len).ok())
            .and_then(|(start, len)| run.bytes.get(start..)?.get(..len))
            .ok_or_else(|| damaged("lies beyond what was read"))?;
        let frame = self.pack_key(place.pack)?.open_frame(place.frame, sealed)?;
        if frame.kind() != kind {
            return Err(damaged("is of another kind"));
        }
        Ok(frame.into_bytes())
    }

    /// Like [`Self::read_frame`], kept for the next chunk of the same frame.
    pub fn frame(&self, place: &Location, kind: ChunkKind) -> Result<Frame> {
        let key = (place.pack, place.frame);
        if let Some(frame) = self.frames.get(&key) {
            return Ok(frame);
        }
        let frame = Arc::new(self.read_frame(place, kind)?);
        self.frames.put(key, Arc::clone(&frame), frame.len());
        Ok(frame)
    }

    /// One chunk out of its frame, verified against its id.
    ///
    /// # Errors
    /// `Damaged` when the frame is too short or holds something else there.
    pub fn chunk_in<'f>(
        &self,
        frame: &'f [u8],
        place: &Location,
        id: &ChunkId,
        kind: ChunkKind,
    ) -> Result<&'f [u8]> {
        let damaged = |detail: &str| {
            Error::damaged(
                ObjectName::Pack(place.pack),
                format!("chunk {id} in frame {}: {detail}", place.frame),
            )
        };
        let start = usize::try_from(place.offset).map_err(|_| damaged("offset too large"))?;
        let len = usize::try_from(place.len).map_err(|_| damaged("length too large"))?;
        let bytes = start
            .checked_add(len)
            .and_then(|end| frame.get(start..end))
            .ok_or_else(|| damaged("it lies beyond the frame's end"))?;
        if self.repository.domain.id_key(kind).id(bytes) != *id {
            return Err(damaged("its content does not match its id"));
        }
        Ok(bytes)
    }

    /// The content of one data chunk, verified.
    ///
    /// # Errors
    /// `Missing` when no live pack holds it; `Damaged` when what is stored does not verify.
    pub fn chunk(&self, id: &ChunkId) -> Result<ObjectBytes> {
        self.whole(id, ChunkKind::Data)
    }

    fn whole(&self, id: &ChunkId, kind: ChunkKind) -> Result<ObjectBytes> {
        let place = self.locate_one(id)?;
        match self.chunk_at(&place, id, kind) {
            Err(error) => self.recover(id, kind, place.pack, error).inspect_err(|_| {
                self.failed.lock().expect("no panic while noted").insert(place.pack);
            }),
            found => found,
        }
    }

    /// The packs of which something could not be read so far, and no other pack had it.
    pub fn failed_packs(&self) -> Vec<PackId> {
        self.failed.lock().expect("no panic while noted").iter().copied().collect()
    }

    /// The key of a pack, from its header.
    pub(crate) fn pack_key(&self, pack: PackId) -> Result<Arc<PackKey>> {
        if let Some(key) = self.keys.get(&pack) {
            return Ok(key);
        }
        let name = ObjectName::Pack(pack);
        let length = u64::try_from(PACK_HEADER_LEN).expect("a small constant");
        let header = self.repository.backend.read(&name, 0..length)?;
        let key = PackKey::open(&pack, &header, &self.repository.id(), &self.repository.domain)
            .map_err(|error| newer_or_damaged(&*self.repository.backend, name, error))?;
        let key = Arc::new(key);
        self.keys.put(pack, Arc::clone(&key), 1);
        Ok(key)
    }
}

impl NodeSource for Reader {
    fn load(&self, id: &NodeId) -> Result<NodeBytes> {
        self.whole(id, ChunkKind::Node)
    }
}
