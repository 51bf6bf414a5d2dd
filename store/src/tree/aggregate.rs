//! Sums over ranges of keys, from the sums that branches keep.

use super::walk::Walk;
use super::{NodeSource, Root, Schema};
use crate::error::{Error, Result};

/// Sums over some entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aggregate {
    /// Number of entries.
    pub entries: u64,
    /// Sum of their weights.
    pub bytes: u64,
}

/// Sums over the entries with `from <= key < until` (None: to the end); loads at most two nodes of each level.
///
/// # Errors
/// `Damaged` when a node cannot be read or does not fit where it stands, or the source's error.
pub fn range_aggregate<S: Schema>(
    root: Root,
    from: &[u8],
    until: Option<&[u8]>,
    source: &dyn NodeSource,
) -> Result<Aggregate> {
    const { assert!(S::ORDERED, "a sequence has no keys to sum by") };
    let damaged = || Error::damaged(format!("tree node {}", root.id), "its sums do not fit");
    if until.is_some_and(|until| until <= from) {
        return Ok(Aggregate::default());
    }
    let mut walk = Walk::<S>::new(root, source);
    walk.seek(from)?;
    let (entries_before, bytes_before) = walk.before().ok_or_else(damaged)?;
    match until {
        Some(until) => walk.seek(until)?,
        None => walk.end(),
    }
    let (entries, bytes) = walk.before().ok_or_else(damaged)?;
    Ok(Aggregate {
        entries: entries.checked_sub(entries_before).ok_or_else(damaged)?,
        bytes: bytes.checked_sub(bytes_before).ok_or_else(damaged)?,
    })
}
