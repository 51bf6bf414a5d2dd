//! What changed since a snapshot, found by a walk that compares stat and reads no content: for when nobody kept a
//! journal.

use super::BackupOptions;
use super::delta::{Changes, check_base};
use super::plan::Plan;
use crate::change::{ChangeRules, Verdict, judge};
use crate::entry::{EntryHead, KindCode, ManifestSchema};
use crate::observer::Observer;
use crate::path;
use crate::scan::{self, Met, Place, Reach, Scan};
use std::sync::Arc;
use stillpoint_store::repository::{Repository, Snapshot};
use stillpoint_store::tree::{Cursor, Tree};
use stillpoint_store::{Error, Result};

/// How many paths are met between two looks whether the caller wants to stop.
const CANCEL_LOOK_EVERY: usize = 1024;

/// Walks everything that a backup with these options would save, on as many threads as `options.write` says, and
/// compares stat with what the snapshot `base` has. New directories are given as trees, vanished ones by their own path,
/// and what cannot be looked at as a tree, so that [`super::backup_changes`] names it. Entries of the base that may
/// have changed unseen since they were read count as changed.
///
/// A change that shows in no time and no size (through a shared mapping, for one) is not found.
///
/// # Errors
/// `Invalid` for unusable paths and rules and for a base of other ones, `Cancelled`, damage of the base's manifest.
pub fn changed_since(
    repository: &Arc<Repository>,
    base: &Snapshot,
    options: &BackupOptions,
    observer: &dyn Observer,
) -> Result<Changes> {
    let plan = Plan::new(BackupOptions {
        roots: options.roots.clone(),
        filter: options.filter.clone(),
        one_file_system: options.one_file_system,
        ..BackupOptions::default()
    })?;
    check_base(&base.record, &plan.record)?;
    let roots = plan.source.roots;
    let reader = repository.reader()?;
    let mut since = Since {
        base: Tree::<ManifestSchema>::open(base.record.root, &reader).iter()?,
        rules: options.rules,
        outer: scan::outer_roots(&roots),
        changes: Changes::default(),
        covered: None,
    };
    let scan = Scan::new(scan::stations(&roots), plan.source.rules);
    std::thread::scope(|scope| {
        for _ in 0..options.write.threads.max(1) {
            scope.spawn(|| scan.work());
        }
        let _stop = Stop(&scan);
        let mut walk = scan.walk();
        let mut met = 0usize;
        while let Some(next) = walk.next() {
            met += 1;
            let is_time = met.is_multiple_of(CANCEL_LOOK_EVERY);
            if is_time && (observer.cancelled() || repository.cancel().is_cancelled()) {
                return Err(Error::Cancelled);
            }
            match next {
                Met::Path(place) => since.met(&place)?,
                Met::Problem { key, .. } | Met::Gone { key } => {
                    since.vanished(Some(key))?;
                    since.add(key);
                }
            }
        }
        since.vanished(None)
    })?;
    Ok(since.changes)
}

/// Ends the scan's workers however the walk ends.
struct Stop<'a>(&'a Scan);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Since<'a> {
    /// Stands behind everything that was compared.
    base: Cursor<'a, ManifestSchema>,
    rules: ChangeRules,
    outer: Vec<&'a Vec<u8>>,
    changes: Changes,
    /// What lies below this path is told by it.
    covered: Option<Vec<u8>>,
}

impl Since<'_> {
    fn met(&mut self, place: &Place<'_>) -> Result<()> {
        self.vanished(Some(place.key))?;
        let known = match self.base.peek().filter(|(found, _)| *found == place.key) {
            Some((_, value)) => Some(EntryHead::decode(value)?),
            None => None,
        };
        if known.is_some() {
            self.base.advance()?;
        }
        if self.is_covered(place.key) {
            return Ok(());
        }
        let stat = place.stat;
        let is_way = place.reach == Some(Reach::Way);
        let same_directory = known.is_some_and(|head| {
            head.kind == KindCode::Directory
                && (head.device, head.inode) == (stat.device, stat.inode)
        });
        if stat.is_directory() && !same_directory && !is_way {
            self.changes.trees.insert(place.key.to_vec());
            self.covered = Some(place.key.to_vec());
        } else if known.is_none_or(|head| judge(self.rules, stat, &head) != Verdict::Same) {
            self.changes.paths.insert(place.key.to_vec());
        }
        Ok(())
    }

    /// What the base has before this key (None: all the rest) is not there any more.
    fn vanished(&mut self, key: Option<&[u8]>) -> Result<()> {
        while let Some((found, _)) = self.base.peek()
            && key.is_none_or(|key| found < key)
        {
            let found = found.to_vec();
            self.base.advance()?;
            // What lies outside of the roots came from a stream, or leads to a root.
            if scan::root_of(&self.outer, &found).is_some() && !self.is_covered(&found) {
                self.covered = Some(found.clone());
                self.changes.paths.insert(found);
            }
        }
        Ok(())
    }

    /// A path that cannot be looked at, or into.
    fn add(&mut self, key: &[u8]) {
        if !self.is_covered(key) {
            self.changes.trees.insert(key.to_vec());
            self.covered = Some(key.to_vec());
        }
    }

    fn is_covered(&self, key: &[u8]) -> bool {
        self.covered.as_ref().is_some_and(|covered| path::is_within(key, covered))
    }
}
