//! Verifying parity objects: they are there, and with `read_data` they are what was committed.

use super::heal::{Wanted, parity_objects};
use crate::error::{Error, Finding, Result};
use crate::id::{GroupId, ObjectName};
use crate::repository::Repository;
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Objects that are looked at between two looks at the request to stop.
const OBJECTS_AT_ONCE: usize = 16;
/// Bytes that are read at a time to be hashed: 4 MiB.
const HASH_WINDOW_BYTES: u64 = 4 << 20;

/// What a verification of all parity objects found.
#[derive(Debug, Clone, Default)]
pub struct ParityCheck {
    /// Every damage.
    pub findings: Vec<Finding>,
    /// Groups with a finding: what `heal_parity` is to be called for.
    pub damaged_groups: Vec<GroupId>,
    /// Parity objects that were looked at.
    pub objects: u64,
    /// Bytes of those that were read whole.
    pub bytes_read: u64,
}

impl Repository {
    /// Compares the parity objects of all complete groups with the catalogue: their lengths, and with `read_data` their
    /// hashes. `progress` hears how many objects of how many are done.
    ///
    /// # Errors
    /// Only what keeps it from running at all: no readable head or catalogue, `Cancelled`.
    pub fn verify_parity(
        self: &Arc<Self>,
        read_data: bool,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<ParityCheck> {
        let objects = parity_objects(&self.head()?)?;
        let (done, all) = (AtomicU64::new(0), u64::try_from(objects.len()).unwrap_or(u64::MAX));
        let mut check = ParityCheck { objects: all, ..ParityCheck::default() };
        for some in objects.chunks(OBJECTS_AT_ONCE) {
            self.cancel().check()?;
            let outcomes: Vec<_> = some
                .par_iter()
                .map(|(_, wanted)| {
                    let outcome = self.verify_object(wanted, read_data);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                    (wanted, outcome)
                })
                .collect();
            for (wanted, outcome) in outcomes {
                check.bytes_read += if read_data { wanted.size_bytes } else { 0 };
                match outcome {
                    Ok(()) => {}
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(error) => self.note_damage(wanted, &error, &mut check)?,
                }
            }
        }
        Ok(check)
    }

    fn note_damage(
        self: &Arc<Self>,
        wanted: &Wanted,
        error: &Error,
        check: &mut ParityCheck,
    ) -> Result<()> {
        // Given up since the check began: no damage.
        if self.head()?.parity_group(wanted.group)?.is_none() {
            return Ok(());
        }
        let (object, detail) = (Some(wanted.object), crate::check::detail(error));
        check.findings.push(Finding { object, snapshot: None, detail });
        if check.damaged_groups.last() != Some(&wanted.group) {
            check.damaged_groups.push(wanted.group);
        }
        Ok(())
    }
}

/// BLAKE3 of the first `size` bytes of an object, read a window at a time.
///
/// # Errors
/// What the backend gives; `Cancelled`.
pub(super) fn hash_object(
    repository: &Repository,
    object: &ObjectName,
    size: u64,
) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut start = 0;
    while start < size {
        repository.cancel().check()?;
        let end = size.min(start + HASH_WINDOW_BYTES);
        hasher.update(&repository.backend.read(object, start..end)?);
        start = end;
    }
    Ok(*hasher.finalize().as_bytes())
}
