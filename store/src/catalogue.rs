//! The catalogue: the sorted tree of snapshots, packs and tombstones that a head names, and what is known of them.
//!
//! Its nodes are objects of their own, named by the head's sequence number under which they were written and a
//! keyed hash. So a node that no head names, and that was written under a head since replaced, can never
//! become part of a later head, and may be removed without looking at a clock.

use crate::backend::{self, Backend};
use crate::crypto::{Generation, MetadataKey, RecordContext, RecordKind};
use crate::env::{Env, Timestamp};
use crate::error::{Error, Result};
use crate::id::{GroupId, NodeId, ObjectName, PackId, RepositoryId, SnapshotId};
use crate::limits::{NODE_BYTES_MAX, RECORD_BYTES_MAX};
use crate::tree::{NodeBytes, NodeSink, NodeSource, Root, Schema, TreeParams};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stillpoint_chunker::ChunkId;

/// Nodes are read and written one by one, and a commit writes one of each level: smaller than those of manifests.
pub(crate) fn params(key: &MetadataKey) -> TreeParams {
    TreeParams {
        boundary_key: *key.catalogue_boundary_key(),
        min_bytes: 1 << 10,
        avg_bytes: 4 << 10,
        max_bytes: 16 << 10,
    }
}

/// Length of a node's nonce, which stands before its bytes.
const NONCE_BYTES: usize = 16;

/// The catalogue's kind of tree.
pub struct CatalogueSchema;

impl Schema for CatalogueSchema {
    const NAME: &'static str = "catalogue";
    const ORDERED: bool = true;

    fn weight(_key: &[u8], _value: &[u8]) -> u64 {
        0
    }

    fn references(_key: &[u8], _value: &[u8], _out: &mut Vec<ChunkId>) -> Result<()> {
        Ok(())
    }
}

/// A key of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    // In the order of the letters: edits are applied in the order of the encoded keys.
    /// A forgotten snapshot that can still be taken back.
    Forgotten(SnapshotId),
    /// A chunk that a snapshot needs and that is in no pack any more.
    Lost(ChunkId),
    /// A live pack.
    Pack(PackId),
    /// A group of packs and its parity objects.
    Parity(GroupId),
    /// A live snapshot.
    Snapshot(SnapshotId),
    /// A condemned pack: it may still exist, and its name never lives again.
    Tombstone(PackId),
    /// When a live pack was last verified whole.
    Verified(PackId),
}

impl Key {
    /// First byte of the keys of forgotten snapshots.
    pub const FORGOTTEN: u8 = b'f';
    /// First byte of the keys of lost chunks.
    pub const LOST: u8 = b'l';
    /// First byte of the keys of packs.
    pub const PACKS: u8 = b'p';
    /// First byte of the keys of parity groups.
    pub const PARITY: u8 = b'r';
    /// First byte of the keys of snapshots.
    pub const SNAPSHOTS: u8 = b's';
    /// First byte of the keys of tombstones.
    pub const TOMBSTONES: u8 = b't';
    /// First byte of the keys of verifications.
    pub const VERIFIED: u8 = b'v';

    /// The encoded key: one letter and an id (16 bytes; 32 for a chunk).
    pub fn encode(&self) -> Vec<u8> {
        let (letter, id): (u8, &[u8]) = match self {
            Self::Forgotten(id) => (Self::FORGOTTEN, id.as_bytes()),
            Self::Lost(id) => (Self::LOST, id.as_bytes()),
            Self::Pack(id) => (Self::PACKS, id.as_bytes()),
            Self::Parity(id) => (Self::PARITY, id.as_bytes()),
            Self::Snapshot(id) => (Self::SNAPSHOTS, id.as_bytes()),
            Self::Tombstone(id) => (Self::TOMBSTONES, id.as_bytes()),
            Self::Verified(id) => (Self::VERIFIED, id.as_bytes()),
        };
        let mut key = Vec::with_capacity(1 + id.len());
        key.push(letter);
        key.extend_from_slice(id);
        key
    }

    /// Decodes what [`Self::encode`] gives.
    ///
    /// # Errors
    /// `Damaged` for anything else.
    pub fn decode(key: &[u8]) -> Result<Self> {
        let (letter, rest) =
            key.split_first().ok_or_else(|| Error::damaged("catalogue", "an empty key"))?;
        if *letter == Self::LOST {
            let id: [u8; 32] = crate::id::array(rest, "catalogue key")?;
            return Ok(Self::Lost(ChunkId::from_bytes(id)));
        }
        let id: [u8; 16] = crate::id::array(rest, "catalogue key")?;
        match *letter {
            Self::FORGOTTEN => Ok(Self::Forgotten(SnapshotId::from_bytes(id))),
            Self::VERIFIED => Ok(Self::Verified(PackId::from_bytes(id))),
            Self::PACKS => Ok(Self::Pack(PackId::from_bytes(id))),
            Self::PARITY => Ok(Self::Parity(GroupId::from_bytes(id))),
            Self::SNAPSHOTS => Ok(Self::Snapshot(SnapshotId::from_bytes(id))),
            Self::TOMBSTONES => Ok(Self::Tombstone(PackId::from_bytes(id))),
            other => Err(Error::damaged("catalogue", format!("a key of unknown kind {other}"))),
        }
    }
}

/// What the catalogue says of a live pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackEntry {
    /// Length of the pack, bytes.
    #[serde(rename = "n")]
    pub size_bytes: u64,
    /// BLAKE3 of the whole pack.
    #[serde(rename = "h", with = "serde_bytes")]
    pub hash: [u8; 32],
    /// Sequence number of the head under which the pack was begun.
    #[serde(rename = "b")]
    pub born: u64,
    /// Chunks of kind data.
    #[serde(rename = "d")]
    pub data_chunks: u32,
    /// Chunks of kind node.
    #[serde(rename = "t")]
    pub node_chunks: u32,
    /// The generation of the keys that seal it. A footer that another generation seals is not the one committed.
    #[serde(rename = "g", default, skip_serializing_if = "Generation::is_first")]
    pub generation: Generation,
}

/// What the catalogue says of a live snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// BLAKE3 of the sealed record.
    #[serde(rename = "h", with = "serde_bytes")]
    pub hash: [u8; 32],
    /// The manifest; known here so that prune needs no record.
    #[serde(rename = "r")]
    pub root: Root,
    /// When it was committed, by the committer's clock.
    #[serde(rename = "c")]
    pub committed: Timestamp,
    /// It cannot be forgotten until somebody takes this back.
    #[serde(rename = "p", default, skip_serializing_if = "is_false")]
    pub protected: bool,
    /// The name of its record, once that was sealed anew; before, it has the snapshot's own.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub record: Option<SnapshotId>,
}

impl SnapshotEntry {
    /// The name under which the record of the snapshot `id` lies.
    pub fn record_name(&self, id: SnapshotId) -> SnapshotId {
        self.record.unwrap_or(id)
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// What the catalogue says of a forgotten snapshot. Its data stays whole until a prune removes this entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenEntry {
    /// What it was when it was live.
    #[serde(rename = "e")]
    pub entry: SnapshotEntry,
    /// When it was forgotten, by the forgetter's clock. Only decides how long it can be taken back.
    #[serde(rename = "c")]
    pub forgotten: Timestamp,
    /// Sequence number of the head that forgot it.
    #[serde(rename = "s")]
    pub seq: u64,
}

/// What the catalogue says of a chunk that is in no pack any more although a snapshot needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEntry {
    /// When a repair gave it up.
    #[serde(rename = "c")]
    pub noticed: Timestamp,
}

/// When a live pack was last read and verified whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedEntry {
    /// By the clock of who verified it.
    #[serde(rename = "c")]
    pub time: Timestamp,
}

/// What the catalogue says of a condemned pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Length of the pack, bytes; 0 where it was never live.
    #[serde(rename = "n")]
    pub size_bytes: u64,
    /// When it was condemned, by the pruner's clock. Only decides how long it is kept, never what is safe.
    #[serde(rename = "c")]
    pub condemned: Timestamp,
    /// Sequence number of the head that condemned it.
    #[serde(rename = "s")]
    pub seq: u64,
    /// Sequence number of the head under which the pack was begun; the fence rises above it when the tombstone goes.
    #[serde(rename = "b")]
    pub born: u64,
}

/// Encodes a value of the catalogue.
pub fn encode_value<T: Serialize>(value: &T) -> Vec<u8> {
    crate::record::to_cbor(value)
}

/// Decodes a value of the catalogue.
///
/// # Errors
/// `Damaged` when it is not what the key promises.
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    crate::record::from_cbor(&"catalogue", bytes)
}

/// Reads and writes catalogue nodes.
pub struct CatalogueNodes<'a> {
    backend: &'a dyn Backend,
    repository: RepositoryId,
    key: &'a MetadataKey,
    env: &'a dyn Env,
    /// Sequence number of the head on which new nodes build.
    base_seq: u64,
    written: Vec<NodeId>,
}

impl<'a> CatalogueNodes<'a> {
    /// Nodes of this repository; new ones are written under the head `base_seq`.
    pub fn new(
        backend: &'a dyn Backend,
        repository: RepositoryId,
        key: &'a MetadataKey,
        env: &'a dyn Env,
        base_seq: u64,
    ) -> Self {
        Self { backend, repository, key, env, base_seq, written: Vec::new() }
    }

    /// The nodes that were written so far, to be removed when the attempt is lost.
    pub fn written(&self) -> &[NodeId] {
        &self.written
    }

    fn context<'n>(&self, id: &'n NodeId) -> RecordContext<'n> {
        RecordContext {
            repository: self.repository,
            kind: RecordKind::Catalogue,
            name: id.as_bytes(),
        }
    }
}

/// The head's sequence number under which a catalogue node was written.
pub fn node_born(id: &NodeId) -> u64 {
    let mut seq = [0u8; 8];
    seq.copy_from_slice(id.as_bytes().split_at(8).0);
    u64::from_be_bytes(seq)
}

/// Heads that begin a new history have multiples of this for numbers, which leaves room for heads of which no trace is left.
pub(crate) const HISTORY_STEP: u64 = 1 << 20;

/// The number of the head for which a repair wrote this node, if it did so for one that begins a new history. Whether that
/// head was ever put in place the node does not tell.
pub(crate) fn history_begun(id: &NodeId) -> Option<u64> {
    node_born(id).checked_add(1).filter(|seq| seq % HISTORY_STEP == 0)
}

fn node_id(seq: u64, plain: &[u8]) -> NodeId {
    let mut id = *blake3::hash(plain).as_bytes();
    id.split_at_mut(8).0.copy_from_slice(&seq.to_be_bytes());
    NodeId::from_bytes(id)
}

impl NodeSource for CatalogueNodes<'_> {
    fn load(&self, id: &NodeId) -> Result<NodeBytes> {
        let name = ObjectName::Catalogue(*id);
        let sealed = backend::read_whole(self.backend, &name, NODE_BYTES_MAX + RECORD_BYTES_MAX)?;
        let plain = self.key.open(&self.context(id), &sealed)?;
        if node_id(node_born(id), &plain) != *id {
            return Err(Error::damaged(name, "its content does not match its name"));
        }
        let bytes = plain
            .get(NONCE_BYTES..)
            .ok_or_else(|| Error::damaged(name, "it is shorter than its nonce"))?;
        Ok(NodeBytes::from(bytes.to_vec()))
    }
}

impl NodeSink for CatalogueNodes<'_> {
    fn store(&mut self, bytes: Vec<u8>, _references: &[ChunkId]) -> Result<NodeId> {
        let mut plain = vec![0u8; NONCE_BYTES];
        self.env.fill_random(&mut plain);
        plain.extend_from_slice(&bytes);
        let id = node_id(self.base_seq, &plain);
        let sealed = self.key.seal(&self.context(&id), &plain, self.env);
        backend::put(self.backend, &ObjectName::Catalogue(id), &sealed)?;
        self.written.push(id);
        Ok(id)
    }
}
