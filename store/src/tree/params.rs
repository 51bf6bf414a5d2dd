//! Node sizes and the rule where a node ends.

use crate::error::{Error, Result};
use crate::limits::{NODE_KEYS_BYTES_MAX, NODE_TARGET_BYTES_MAX};
use std::fmt;

/// Where nodes end: sizes in bytes of their encoded items, and the secret of the boundary hash.
///
/// Trees share nodes only if they were built with equal parameters, so a repository fixes them when it is created.
#[derive(Clone, PartialEq, Eq)]
pub struct TreeParams {
    /// Key of the boundary hash: without it nobody can craft entries that pile up in one node.
    pub boundary_key: [u8; 32],
    /// Below this size a node does not end (but for the last of a level).
    pub min_bytes: u32,
    /// The size that nodes have on average.
    pub avg_bytes: u32,
    /// At this size a node ends by force. At most [`NODE_TARGET_BYTES_MAX`].
    pub max_bytes: u32,
}

impl TreeParams {
    /// Least node size of a new repository: 2 KiB.
    pub const MIN_BYTES: u32 = 2 << 10;
    /// Average node size of a new repository: 8 KiB. A change rewrites a node of each level, so small nodes make
    /// small increments; at 4 KiB the bookkeeping for each node shows in the size of the first backup.
    pub const AVG_BYTES: u32 = 8 << 10;
    /// Size at which a node of a new repository ends by force: 32 KiB.
    pub const MAX_BYTES: u32 = 32 << 10;

    /// The sizes for a new repository.
    pub fn new(boundary_key: [u8; 32]) -> Self {
        Self {
            boundary_key,
            min_bytes: Self::MIN_BYTES,
            avg_bytes: Self::AVG_BYTES,
            max_bytes: Self::MAX_BYTES,
        }
    }

    /// Refuses sizes that make no usable tree; for parameters that come from outside.
    ///
    /// # Errors
    /// `Invalid` unless 64 <= min < avg < max <= [`NODE_TARGET_BYTES_MAX`].
    pub fn check(&self) -> Result<()> {
        let Self { min_bytes, avg_bytes, max_bytes, .. } = *self;
        let fits = (64..avg_bytes).contains(&min_bytes)
            && avg_bytes < max_bytes
            && max_bytes <= NODE_TARGET_BYTES_MAX;
        if fits {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "tree node sizes must satisfy 64 <= min < avg < max <= {NODE_TARGET_BYTES_MAX}, \
             found {min_bytes}, {avg_bytes}, {max_bytes}"
        )))
    }
}

impl fmt::Debug for TreeParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min_bytes, avg_bytes, max_bytes, .. } = self;
        write!(f, "TreeParams({min_bytes}, {avg_bytes}, {max_bytes}, key redacted)")
    }
}

/// What a node under construction looks like after an item was added.
pub(super) struct Fill {
    /// Items so far.
    pub items: u64,
    /// Encoded bytes of all items.
    pub size: usize,
    /// Bytes of all keys written out in full.
    pub keys: usize,
    /// Encoded bytes of the item added last.
    pub added: usize,
}

/// The boundary rule of one level. It looks only at the items since the node's start, never ahead: that is what makes
/// the tree independent of its history.
pub(super) struct BoundaryRule {
    hash_key: [u8; 32],
    min: usize,
    max: usize,
    threshold_per_byte: u64,
    least_items: u64,
}

impl BoundaryRule {
    /// The rule for `level` of trees named `name`; each level hashes with a key of its own, so that an upper level
    /// does not end its nodes exactly where the lower one does.
    pub fn new(params: &TreeParams, name: &str, level: u8) -> Self {
        let mut context = name.as_bytes().to_vec();
        context.extend([0, level]);
        let max = params.max_bytes.min(NODE_TARGET_BYTES_MAX);
        let span = u64::from(params.avg_bytes.saturating_sub(params.min_bytes)).max(1);
        Self {
            hash_key: *blake3::keyed_hash(&params.boundary_key, &context).as_bytes(),
            min: usize::try_from(params.min_bytes).expect("32 bits fit"),
            max: usize::try_from(max).expect("32 bits fit"),
            threshold_per_byte: u64::MAX / span,
            // Two children at least, or a tree of huge keys would never come together in one root.
            least_items: if level == 0 { 1 } else { 2 },
        }
    }

    /// True when the node ends after the item added last, of which `hashed` is the key (or value, or child id).
    ///
    /// Past the least size each item ends the node with a chance in proportion to its own size, so that the average
    /// is in bytes, however long the entries are.
    pub fn ends(&self, fill: &Fill, hashed: &[u8]) -> bool {
        if fill.items < self.least_items {
            return false;
        }
        if fill.size >= self.max || fill.keys >= NODE_KEYS_BYTES_MAX {
            return true;
        }
        if fill.size < self.min {
            return false;
        }
        let added = u64::try_from(fill.added).unwrap_or(u64::MAX);
        let threshold = self.threshold_per_byte.saturating_mul(added);
        let hash = blake3::keyed_hash(&self.hash_key, hashed);
        let (head, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
        u64::from_le_bytes(*head) < threshold
    }
}
