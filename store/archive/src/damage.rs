//! Which files of a snapshot a damage touches.
//!
//! Enters only those nodes of a manifest from which something lost can be reached, and counts what many snapshots share
//! once. Knows what is lost from [`Damage`] alone; reads no content.

use crate::entry::ManifestSchema;
use std::collections::HashMap;
use stillpoint_store::check::Damage;
use stillpoint_store::tree::{NodeSource, Part, Root, Schema, visit};
use stillpoint_store::{ChunkId, NodeId, Result};

/// Most nodes whose figures are remembered; more are counted again in each snapshot.
const REMEMBERED_MAX: usize = 1 << 16;

/// What of a snapshot is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DamagedFiles {
    /// Files whose content cannot be read whole.
    pub files: u64,
    /// Parts of the manifest that cannot be read.
    pub gaps: u64,
    /// Entries in them: files, directories and other things whose names are lost.
    pub gap_entries: u64,
}

impl DamagedFiles {
    /// True where everything can be read.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            files: self.files - before.files,
            gaps: self.gaps - before.gaps,
            gap_entries: self.gap_entries - before.gap_entries,
        }
    }

    fn add(&mut self, more: &Self) {
        self.files += more.files;
        self.gaps += more.gaps;
        self.gap_entries += more.gap_entries;
    }
}

/// One thing that is lost.
#[derive(Debug, PartialEq, Eq)]
pub enum Damaged<'k> {
    /// A file whose content cannot be read whole.
    File {
        /// Its key; see [`crate::path`].
        key: &'k [u8],
    },
    /// A part of the manifest.
    Gap {
        /// The last key before it, if there is one.
        after: Option<&'k [u8]>,
        /// The last key in it, where it is known.
        until: Option<&'k [u8]>,
        /// Number of entries in it.
        entries: u64,
    },
}

/// Names the files that a damage touches, one snapshot after the other.
pub struct DamageNames<'a> {
    source: &'a dyn NodeSource,
    damage: &'a Damage,
    /// Figures of subtrees that were gone through: snapshots share them.
    known: HashMap<NodeId, DamagedFiles>,
}

/// A subtree that was entered and is not done yet.
struct Open {
    id: NodeId,
    level: u8,
    before: DamagedFiles,
}

/// The way through one manifest.
struct Run<'r, 'a> {
    names: &'r mut DamageNames<'a>,
    open: Vec<Open>,
    sum: DamagedFiles,
    listed: u64,
    list_max: u64,
    give: &'r mut dyn FnMut(Damaged<'_>) -> Result<()>,
    references: Vec<ChunkId>,
}

impl<'a> DamageNames<'a> {
    /// Names by manifests from this source what this damage touches.
    pub fn new(source: &'a dyn NodeSource, damage: &'a Damage) -> Self {
        Self { source, damage, known: HashMap::new() }
    }

    /// Gives the first `list_max` things that a snapshot with this manifest has lost, in the order of their paths, and
    /// counts all.
    ///
    /// # Errors
    /// What `give` gives, and errors of the source that are no damage.
    pub fn of(
        &mut self,
        root: Root,
        list_max: u64,
        give: &mut dyn FnMut(Damaged<'_>) -> Result<()>,
    ) -> Result<DamagedFiles> {
        let source = self.source;
        let mut run = Run {
            names: self,
            open: Vec::new(),
            sum: DamagedFiles::default(),
            listed: 0,
            list_max,
            give,
            references: Vec::new(),
        };
        visit::<ManifestSchema>(root, source, &mut |part| run.look(&part))?;
        run.close(u8::MAX);
        Ok(run.sum)
    }
}

impl Run<'_, '_> {
    fn look(&mut self, part: &Part<'_>) -> Result<bool> {
        match part {
            Part::Entry { key, value } => self.entry(key, value).map(|()| false),
            Part::Subtree { failure: Some(_), id, after, last_key, entries, .. } => {
                // It was entered in vain.
                self.open.pop_if(|open| open.id == *id);
                self.gap(*after, *last_key, *entries).map(|()| false)
            }
            Part::Subtree { id, level, entries, after, last_key, .. } => {
                self.close(*level);
                let damage = self.names.damage;
                if damage.is_lost(id) {
                    return self.gap(*after, *last_key, *entries).map(|()| false);
                }
                if !damage.touches(id) {
                    return Ok(false);
                }
                let known = self.names.known.get(id);
                if let Some(known) = known.filter(|_| self.listed >= self.list_max) {
                    self.sum.add(known);
                    return Ok(false);
                }
                self.open.push(Open { id: *id, level: *level, before: self.sum });
                Ok(true)
            }
        }
    }

    /// What was entered at this level or below is done.
    fn close(&mut self, level: u8) {
        while let Some(done) = self.open.pop_if(|open| open.level <= level) {
            let known = &mut self.names.known;
            if known.len() < REMEMBERED_MAX {
                known.insert(done.id, self.sum.since(&done.before));
            }
        }
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.references.clear();
        ManifestSchema::references(key, value, &mut self.references)?;
        if !self.references.iter().any(|id| self.names.damage.touches(id)) {
            return Ok(());
        }
        self.sum.files += 1;
        self.give(Damaged::File { key })
    }

    fn gap(&mut self, after: Option<&[u8]>, until: Option<&[u8]>, entries: u64) -> Result<()> {
        self.sum.gaps += 1;
        self.sum.gap_entries += entries;
        self.give(Damaged::Gap { after, until, entries })
    }

    fn give(&mut self, damaged: Damaged<'_>) -> Result<()> {
        if self.listed >= self.list_max {
            return Ok(());
        }
        self.listed += 1;
        (self.give)(damaged)
    }
}
