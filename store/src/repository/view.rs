//! One verified head and what its catalogue says: the state under which a piece of work runs.

use super::Repository;
use super::reseal::write_anew;
use crate::catalogue::{
    CatalogueNodes, CatalogueSchema, ForgottenEntry, Key, LostEntry, PackEntry, SnapshotEntry,
    Tombstone, VerifiedEntry, decode_value, encode_value,
};
use crate::crypto::Generation;
use crate::error::{Error, Result};
use crate::id::{ChunkId, GroupId, PackId, SnapshotId};
use crate::index::IndexState;
use crate::parity::{Groups, ParityEntry};
use crate::record::Head;
use crate::tree::{Root, Tree};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A head, pinned: work that holds it sees one state of the repository, whatever others commit.
pub struct HeadView {
    repository: Arc<Repository>,
    /// The stored bytes, for compare-and-swap.
    pub(crate) bytes: Vec<u8>,
    /// BLAKE3 of the stored bytes.
    pub(crate) hash: [u8; 32],
    /// The decoded head.
    pub(crate) head: Head,
    /// The generation of the keys that seal it.
    generation: Generation,
    packs: OnceLock<Arc<BTreeMap<PackId, PackEntry>>>,
}

impl HeadView {
    pub(super) fn new(
        repository: Arc<Repository>,
        bytes: Vec<u8>,
        head: Head,
        generation: Generation,
    ) -> Self {
        let hash = *blake3::hash(&bytes).as_bytes();
        Self { repository, bytes, hash, head, generation, packs: OnceLock::new() }
    }

    /// The head's sequence number.
    pub fn seq(&self) -> u64 {
        self.head.seq
    }

    /// The generation of the keys that seal the head.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Packs born under a head older than this are not admitted.
    pub fn fence(&self) -> u64 {
        self.head.fence
    }

    /// The state of an index that reflects this head.
    pub fn index_state(&self) -> IndexState {
        IndexState {
            repository: self.repository.id(),
            seq: self.head.seq,
            head_hash: self.hash,
            catalogue: self.head.catalogue,
        }
    }

    /// Reads and writes nodes of the catalogue on top of this head.
    pub(crate) fn nodes(&self) -> CatalogueNodes<'_> {
        let repository = &self.repository;
        CatalogueNodes::new(
            &*repository.backend,
            repository.id(),
            &repository.metadata,
            &*repository.env,
            self.head.seq,
        )
    }

    /// The live packs; read from the catalogue once and kept.
    pub fn packs(&self) -> Result<&Arc<BTreeMap<PackId, PackEntry>>> {
        if let Some(packs) = self.packs.get() {
            return Ok(packs);
        }
        let mut packs = BTreeMap::new();
        self.each(Key::PACKS, |key, entry: PackEntry| {
            if let Key::Pack(id) = key {
                packs.insert(id, entry);
            }
            Ok(())
        })?;
        Ok(self.packs.get_or_init(|| Arc::new(packs)))
    }

    /// The live snapshots.
    pub fn snapshots(&self) -> Result<BTreeMap<SnapshotId, SnapshotEntry>> {
        let mut snapshots = BTreeMap::new();
        self.each(Key::SNAPSHOTS, |key, entry: SnapshotEntry| {
            if let Key::Snapshot(id) = key {
                snapshots.insert(id, entry);
            }
            Ok(())
        })?;
        Ok(snapshots)
    }

    /// The condemned packs.
    pub fn tombstones(&self) -> Result<BTreeMap<PackId, Tombstone>> {
        let mut tombstones = BTreeMap::new();
        self.each(Key::TOMBSTONES, |key, entry: Tombstone| {
            if let Key::Tombstone(id) = key {
                tombstones.insert(id, entry);
            }
            Ok(())
        })?;
        Ok(tombstones)
    }

    /// The forgotten snapshots that can still be taken back.
    pub fn forgotten(&self) -> Result<BTreeMap<SnapshotId, ForgottenEntry>> {
        let mut forgotten = BTreeMap::new();
        self.each(Key::FORGOTTEN, |key, entry: ForgottenEntry| {
            if let Key::Forgotten(id) = key {
                forgotten.insert(id, entry);
            }
            Ok(())
        })?;
        Ok(forgotten)
    }

    /// The chunks that repair has given up.
    pub fn lost_chunks(&self) -> Result<BTreeMap<ChunkId, LostEntry>> {
        let mut lost = BTreeMap::new();
        self.each(Key::LOST, |key, entry: LostEntry| {
            if let Key::Lost(id) = key {
                lost.insert(id, entry);
            }
            Ok(())
        })?;
        Ok(lost)
    }

    /// When each pack was last verified whole; packs that never were are not listed.
    pub fn verified(&self) -> Result<BTreeMap<PackId, VerifiedEntry>> {
        let mut verified = BTreeMap::new();
        self.each(Key::VERIFIED, |key, entry: VerifiedEntry| {
            if let Key::Verified(id) = key {
                verified.insert(id, entry);
            }
            Ok(())
        })?;
        Ok(verified)
    }

    /// The parity groups, those that are only announced included.
    pub fn parity_groups(&self) -> Result<Groups> {
        let mut groups = Groups::new();
        self.each(Key::PARITY, |key, entry: ParityEntry| {
            if let Key::Parity(id) = key {
                entry.check(id)?;
                groups.insert(id, entry);
            }
            Ok(())
        })?;
        Ok(groups)
    }

    /// One parity group, or None when there is none of that name.
    pub fn parity_group(&self, id: GroupId) -> Result<Option<ParityEntry>> {
        let entry: Option<ParityEntry> = self.get(Key::Parity(id))?;
        entry.iter().try_for_each(|entry| entry.check(id))?;
        Ok(entry)
    }

    /// The manifests that must stay whole: those of live snapshots and of forgotten ones that can be taken back.
    pub fn roots(&self) -> Result<Vec<Root>> {
        let live = self.snapshots()?.into_values().map(|entry| entry.root);
        let forgotten = self.forgotten()?.into_values().map(|entry| entry.entry.root);
        Ok(live.chain(forgotten).collect())
    }

    /// One snapshot's entry, or None when it is not live.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Option<SnapshotEntry>> {
        self.get(Key::Snapshot(id))
    }

    /// True while nobody may remove what the snapshot needs: it is live, or can be taken back.
    pub fn is_retained(&self, id: SnapshotId) -> Result<bool> {
        Ok(self.retained(id)?.is_some())
    }

    /// The entry of a snapshot that is live or can be taken back.
    pub fn retained(&self, id: SnapshotId) -> Result<Option<SnapshotEntry>> {
        if let Some(entry) = self.snapshot(id)? {
            return Ok(Some(entry));
        }
        Ok(self.get::<ForgottenEntry>(Key::Forgotten(id))?.map(|one| one.entry))
    }

    fn get<T: DeserializeOwned>(&self, key: Key) -> Result<Option<T>> {
        let nodes = self.nodes();
        let tree = Tree::<CatalogueSchema>::open(self.head.catalogue, &nodes);
        tree.get(&key.encode())?.map(|value| decode_value(&value)).transpose()
    }

    fn each<T: DeserializeOwned>(
        &self,
        letter: u8,
        mut visit: impl FnMut(Key, T) -> Result<()>,
    ) -> Result<()> {
        let nodes = self.nodes();
        let tree = Tree::<CatalogueSchema>::open(self.head.catalogue, &nodes);
        let mut cursor = tree.range_from(&[letter])?;
        while let Some((key, value)) = cursor.peek() {
            if key.first() != Some(&letter) {
                break;
            }
            visit(Key::decode(key)?, decode_value(value)?)?;
            cursor.advance()?;
        }
        Ok(())
    }
}

/// Changes to the catalogue, collected before one compare-and-swap of the head.
#[derive(Default)]
pub(crate) struct CatalogueEdit {
    changes: BTreeMap<Key, Option<Vec<u8>>>,
    /// Raise the head's fence at least to this; 0 leaves it.
    pub fence: u64,
    /// A key that only this edit can have put: found in a later head, it proves that the edit was committed.
    witness: Option<Key>,
    /// Change no entry and write every node again, so that the newest keys seal it.
    anew: bool,
}

impl CatalogueEdit {
    /// An edit that changes nothing and writes the whole catalogue again.
    pub fn anew() -> Self {
        Self { anew: true, ..Self::default() }
    }

    /// An edit that puts this key, which no other edit ever puts.
    pub fn witnessed_by(key: Key) -> Self {
        Self { witness: Some(key), ..Self::default() }
    }

    pub fn put<T: Serialize>(&mut self, key: Key, value: &T) {
        self.changes.insert(key, Some(encode_value(value)));
    }

    pub fn remove(&mut self, key: Key) {
        self.changes.insert(key, None);
    }

    /// Takes a live pack out and puts its tombstone in; when it was verified says nothing any more.
    pub fn condemn(&mut self, id: PackId, tombstone: &Tombstone) {
        self.remove(Key::Pack(id));
        self.remove(Key::Verified(id));
        self.put(Key::Tombstone(id), tombstone);
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// A condemned name never lives again, and no edit may say both of a pack.
    ///
    /// # Errors
    /// `Conflict` names the first pack that would be live and condemned.
    fn refuse_living_dead(&self, base: &HeadView) -> Result<()> {
        let nodes = base.nodes();
        let tree = Tree::<CatalogueSchema>::open(base.head.catalogue, &nodes);
        for (key, value) in &self.changes {
            let (Key::Pack(id), Some(_)) = (key, value) else { continue };
            let tombstone = Key::Tombstone(*id);
            let is_condemned = match self.changes.get(&tombstone) {
                Some(change) => change.is_some(),
                None => tree.get(&tombstone.encode())?.is_some(),
            };
            if is_condemned {
                let detail = format!("pack {id} was condemned and cannot become live");
                return Err(Error::Conflict { detail });
            }
        }
        Ok(())
    }

    fn is_witnessed(&self, view: &HeadView) -> Result<bool> {
        let Some(witness) = self.witness else { return Ok(false) };
        let nodes = view.nodes();
        let tree = Tree::<CatalogueSchema>::open(view.head.catalogue, &nodes);
        let buried = match witness {
            Key::Pack(id) => tree.get(&Key::Tombstone(id).encode())?.is_some(),
            _ => false,
        };
        Ok(buried || tree.get(&witness.encode())?.is_some())
    }

    /// The changes in key order, as `tree::edit` takes them.
    pub fn encoded(&self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> + '_ {
        self.changes.iter().map(|(key, value)| (key.encode(), value.clone()))
    }
}

/// The outcome of one attempt to move the head.
pub(crate) enum Attempt {
    /// The new head is durable.
    Committed(HeadView),
    /// Somebody else moved the head first.
    Lost {
        /// False where the answer of the swap itself was an error and the head has moved on so far that it does not
        /// tell: then what the attempt wrote may be part of the history and must not be removed by hand.
        certain: bool,
    },
}

impl Repository {
    /// Tries once to move the head from `base` by `edit`.
    ///
    /// # Errors
    /// After an error of the swap itself the head is read again: if our transaction is part of its history, the
    /// attempt counts as committed; if the head is still `base`, the error is passed on.
    pub(crate) fn attempt(
        self: &Arc<Self>,
        base: &HeadView,
        edit: &CatalogueEdit,
    ) -> Result<Attempt> {
        let transaction = crate::id::TransactionId::random(&*self.env);
        let source = base.nodes();
        let mut sink = base.nodes();
        let written = edit.refuse_living_dead(base).and_then(|()| {
            let (before, params) = (base.head.catalogue, self.catalogue_params());
            if edit.anew {
                debug_assert!(edit.changes.is_empty());
                return write_anew(before, &params, &source, &mut sink);
            }
            let changes = edit.encoded();
            crate::tree::edit::<CatalogueSchema>(before, changes, &params, &source, &mut sink)
        });
        let root = match written {
            Ok(root) => root,
            Err(error) => {
                self.remove_nodes(sink.written());
                // The base is so old that its catalogue is gone: then others were faster.
                if error.is_damage() && self.head()?.hash != base.hash {
                    return Ok(Attempt::Lost { certain: true });
                }
                return Err(error);
            }
        };
        let mut head = base.head.next(base.hash, root, transaction);
        head.fence = head.fence.max(edit.fence);
        if edit.anew {
            // What older keys seal is not kept for readers: it was written anew to be rid of it.
            head.catalogues.clear();
        }
        let bytes = head.seal(self.id(), &self.metadata, &*self.env);
        let swapped = self.backend.swap_head(Some(&base.bytes), &bytes);
        let (committed, certain) = match swapped {
            Ok(crate::backend::Swap::Done) => {
                let view = HeadView::new(Arc::clone(self), bytes, head, self.generation());
                *self.pending() = None;
                // Newer keys may be in use already: then that is what is remembered.
                let _ = self.remember_head(&view);
                return Ok(Attempt::Committed(view));
            }
            Ok(crate::backend::Swap::Lost) => (false, true),
            Err(error) => {
                let now = self.head()?;
                if now.hash == base.hash {
                    if error.is_full() {
                        // It was refused, so nobody will name them; and room is what is missing.
                        self.remove_nodes(sink.written());
                    }
                    return Err(error);
                }
                match now.head.has(transaction, base.seq()) {
                    // The head has moved on, so an attempt that is still on its way can only be refused.
                    Some(is_ours) => (is_ours, true),
                    None => (edit.is_witnessed(&now)?, false),
                }
            }
        };
        if committed {
            let view = HeadView::new(Arc::clone(self), bytes, head, self.generation());
            return Ok(Attempt::Committed(view));
        }
        if certain {
            self.remove_nodes(sink.written());
        }
        Ok(Attempt::Lost { certain })
    }
}
