//! The head: the one small mutable record of a repository, and the chain that it forms.

use crate::crypto::{Generation, MetadataKey, RecordContext, RecordKind};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::{RepositoryId, TransactionId};
use crate::limits::RECORD_BYTES_MAX;
use crate::tree::Root;
use serde::{Deserialize, Serialize};

const HEAD_VERSION: u32 = 1;

/// What the head says: which catalogue is current, and how it came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Format version of this record.
    pub version: u32,
    /// 1 for the first head, then one more with each change.
    pub seq: u64,
    /// Packs born under a head older than this are never admitted any more.
    pub fence: u64,
    /// The catalogue: live snapshots, live packs, tombstones.
    pub catalogue: Root,
    /// BLAKE3 of the previous head's bytes; zeros before the first.
    #[serde(with = "serde_bytes")]
    pub previous: [u8; 32],
    /// The attempt that wrote this head; a writer finds its own commit by it after an ambiguous answer.
    #[serde(with = "serde_bytes")]
    pub transaction: [u8; 16],
    /// The attempts that wrote the heads before this one, oldest first, at most [`Self::RECENT_MAX`]: whose answer was
    /// lost learns from a later head, too, what became of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<serde_bytes::ByteArray<16>>,
    /// The catalogues of these heads, in the same order. They are kept: who began under one of them goes on, and
    /// an index that reflects one is brought up by comparing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub catalogues: Vec<serde_bytes::ByteArray<32>>,
}

impl Head {
    /// Most earlier heads of which a head names the transaction and the catalogue.
    pub const RECENT_MAX: usize = 32;

    /// The head that follows `self`, whose stored bytes have the hash `hash`.
    pub fn next(&self, hash: [u8; 32], catalogue: Root, transaction: TransactionId) -> Self {
        let (mut recent, mut catalogues) = (self.recent.clone(), self.catalogues.clone());
        push_bounded(&mut recent, serde_bytes::ByteArray::new(self.transaction));
        push_bounded(&mut catalogues, serde_bytes::ByteArray::new(*self.catalogue.id.as_bytes()));
        Self {
            version: HEAD_VERSION,
            seq: self.seq + 1,
            fence: self.fence,
            catalogue,
            previous: hash,
            transaction: *transaction.as_bytes(),
            recent,
            catalogues,
        }
    }

    /// The first head of a new repository.
    pub fn first(catalogue: Root, transaction: TransactionId) -> Self {
        Self {
            version: HEAD_VERSION,
            seq: 1,
            fence: 0,
            catalogue,
            previous: [0; 32],
            transaction: *transaction.as_bytes(),
            recent: Vec::new(),
            catalogues: Vec::new(),
        }
    }

    /// A head that begins a new history, because the last one cannot be read: in the place of stored bytes with the hash
    /// `replaced`, zeros where there are none. What became of earlier attempts it does not tell.
    pub fn anew(seq: u64, replaced: [u8; 32], catalogue: Root, transaction: TransactionId) -> Self {
        Self { seq, previous: replaced, ..Self::first(catalogue, transaction) }
    }

    /// Whether the attempt `transaction`, made on top of the head number `base_seq`, is part of this head's
    /// history; None when it lies further back than this head tells.
    pub fn has(&self, transaction: TransactionId, base_seq: u64) -> Option<bool> {
        let recent = self.recent.iter().map(|one| &**one);
        if recent.chain([&self.transaction]).any(|one| one == transaction.as_bytes()) {
            return Some(true);
        }
        let told = u64::try_from(self.recent.len()).unwrap_or(u64::MAX);
        (self.seq.saturating_sub(base_seq) <= told.saturating_add(1)).then_some(false)
    }

    /// Encodes and seals the head for storage.
    pub fn seal(&self, repository: RepositoryId, key: &MetadataKey, env: &dyn Env) -> Vec<u8> {
        key.seal(&context(repository), &super::to_cbor(self), env)
    }

    /// Opens and decodes a stored head.
    ///
    /// # Errors
    /// `Damaged` when it does not verify, `Unsupported` when it is of a newer format.
    pub fn open(bytes: &[u8], repository: RepositoryId, key: &MetadataKey) -> Result<Self> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Error::damaged("head", format!("it is {} bytes long", bytes.len())));
        }
        let plain = key.open(&context(repository), bytes)?;
        super::decode_versioned(&"head", &plain, HEAD_VERSION)
    }
}

/// Adds what the newest of the earlier heads says; the oldest goes where there are too many.
fn push_bounded<T>(list: &mut Vec<T>, item: T) {
    list.push(item);
    let too_many = list.len().saturating_sub(Head::RECENT_MAX);
    list.drain(..too_many);
}

/// The generation of the keys that a stored head says it was sealed by; nothing of it is verified.
///
/// # Errors
/// As [`Head::open`].
pub(crate) fn generation_of(bytes: &[u8], repository: RepositoryId) -> Result<Generation> {
    MetadataKey::generation_of(&context(repository), bytes)
}

fn context(repository: RepositoryId) -> RecordContext<'static> {
    RecordContext { repository, kind: RecordKind::Head, name: b"" }
}
