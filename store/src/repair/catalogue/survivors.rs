//! What is left of a catalogue: the nodes that can be read, the newest first.
//!
//! A node says by its name under which head it was written. What a newer node says about a range of keys counts, and what
//! it does not list there is not there, whatever older nodes say. Two attempts on top of the same head, one of which was
//! never committed, cannot be told apart: what either of them says counts.

use super::coverage::{Bound, Coverage, Range};
use super::nodes::{Found, Nodes};
use crate::catalogue::{
    CatalogueSchema, ForgottenEntry, HISTORY_STEP, Key, Tombstone, decode_value, history_begun,
    node_born,
};
use crate::crypto::Generation;
use crate::error::{Error, Result};
use crate::id::{NodeId, ObjectName, PackId, SnapshotId};
use crate::repository::Repository;
use crate::tree::{self, NodeSource, Part, Root};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Numbers of heads that nothing vouches for count only below this: no repository gets there by honest means, and a name
/// that somebody made up must not use up all numbers.
const UNVERIFIED_MAX: u64 = 1 << 48;

/// How new something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Age {
    /// A repair wrote it for a head that perhaps never was: it only fills what is not known otherwise.
    Drafted { generation: Generation, born: u64 },
    /// It was written under this head. Keys from before a rotation count less, whatever head they name: who holds only
    /// those could have made it.
    Written { generation: Generation, born: u64 },
    /// It is part of the catalogue that the head names.
    Current,
}

impl Age {
    /// Whether everything that was committed on top of head `seq`, or never, is known at this age.
    pub fn decides(&self, seq: u64) -> bool {
        match self {
            Self::Current => true,
            Self::Written { born, .. } => *born > seq,
            Self::Drafted { .. } => false,
        }
    }
}

/// Everything that surviving nodes say.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    /// The newest value of each key that no newer node denies.
    pub entries: BTreeMap<Key, (Age, Vec<u8>)>,
    /// The newest tombstone of each pack, denied or not.
    pub tombstones: BTreeMap<PackId, (Age, Tombstone)>,
    /// The newest entry of each snapshot that was ever forgotten, denied or not.
    pub forgotten: BTreeMap<SnapshotId, ForgottenEntry>,
    /// Which ranges of keys are known since when.
    pub coverage: Coverage<Age>,
    /// The newest age of all.
    pub newest: Option<Age>,
    /// No head that wrote or names a node has a greater number.
    pub last_head: u64,
    /// Nodes that could be read.
    pub nodes_read: u64,
    /// Nodes that could not, or that others name and that are not there.
    pub nodes_lost: u64,
}

struct Node {
    root: Root,
}

impl Survivors {
    /// Reads all these nodes; `current` is the catalogue of the head, if there is one that counts, `newer_head` the version
    /// that the head claims where it is of none that is known, and `heads` are numbers of heads that have been.
    ///
    /// # Errors
    /// `StaleSecret` where there are nodes of newer keys; `Unsupported` where several objects are of the same newer
    /// version; `Cancelled`.
    pub fn read(
        repository: &Repository,
        listed: &[(ObjectName, u64)],
        current: Option<Root>,
        newer_head: Option<u32>,
        heads: &BTreeSet<u64>,
    ) -> Result<Self> {
        let nodes = Nodes::new(repository);
        let mut survivors = Self::default();
        let tops = survivors.gather(&nodes, repository, listed, newer_head)?;
        let mut by_age = by_age(tops, heads);
        if let Some(root) = current {
            by_age.insert(Age::Current, vec![Node { root }]);
        }
        let tops = by_age.values().flatten().map(|node| node.root.level);
        let highest = tops.max().unwrap_or(0);
        let mut seen = HashSet::new();
        while let Some((age, mut tops)) = by_age.pop_last() {
            survivors.newest.get_or_insert(age);
            // The highest first: what lies below is met on the way.
            tops.sort_by_key(|node| std::cmp::Reverse(node.root.level));
            let (found, ranges) = (Vec::new(), Vec::new());
            let seen = &mut seen;
            let mut group = Group { age, highest, seen, found, ranges, missing: 0 };
            for top in tops {
                repository.cancel().check()?;
                group.go_through(&nodes, &top)?;
            }
            let Group { found, ranges, missing, .. } = group;
            survivors.nodes_lost += missing;
            survivors.take_in(age, found, ranges);
        }
        Ok(survivors)
    }

    /// The nodes that can be read, each by itself.
    fn gather(
        &mut self,
        nodes: &Nodes<'_>,
        repository: &Repository,
        listed: &[(ObjectName, u64)],
        newer_head: Option<u32>,
    ) -> Result<Vec<(Generation, Node)>> {
        let mut tops = Vec::new();
        let mut newer: BTreeMap<u32, u64> = newer_head.into_iter().map(|one| (one, 1)).collect();
        for (name, _) in listed {
            repository.cancel().check()?;
            let ObjectName::Catalogue(id) = name else { continue };
            // Whoever wrote it committed, if at all, the head after that one.
            let head = node_born(id).saturating_add(1);
            match nodes.top(id)? {
                Found::Node { generation, root } => {
                    self.nodes_read += 1;
                    self.last_head = self.last_head.max(head);
                    tops.push((generation, Node { root }));
                    continue;
                }
                Found::Newer(version) => refuse_newer(&mut newer, version, name)?,
                Found::Lost => {}
            }
            self.nodes_lost += 1;
            if head < UNVERIFIED_MAX {
                self.last_head = self.last_head.max(head);
            }
        }
        Ok(tops)
    }

    /// Adds what the nodes of one age say where no newer ones say otherwise.
    fn take_in(&mut self, age: Age, found: Vec<(Vec<u8>, Vec<u8>)>, ranges: Vec<Range>) {
        for (encoded, value) in found {
            // A key or a value that cannot be read is lost like one that is not there.
            let Ok(key) = Key::decode(&encoded) else { continue };
            if let Key::Tombstone(id) = key {
                let Ok(tombstone) = decode_value::<Tombstone>(&value) else { continue };
                self.last_head = self.last_head.max(tombstone.seq);
                self.tombstones.entry(id).or_insert((age, tombstone));
            }
            if let Key::Forgotten(id) = key {
                let Ok(forgotten) = decode_value(&value) else { continue };
                self.forgotten.entry(id).or_insert(forgotten);
            }
            if self.coverage.of(&encoded).is_none() {
                self.entries.entry(key).or_insert((age, value));
            }
        }
        ranges.into_iter().for_each(|range| self.coverage.add(age, range));
    }

    /// Whether the newest nodes say it, rather than older ones about a gap.
    pub fn is_certain(&self, age: Age) -> bool {
        self.newest == Some(age)
    }

    /// Since when it is known whether this key is there, and with which value.
    pub fn known(&self, key: Key) -> Option<Age> {
        self.coverage.of(&key.encode())
    }
}

/// Nodes by their ages.
fn by_age(tops: Vec<(Generation, Node)>, heads: &BTreeSet<u64>) -> BTreeMap<Age, Vec<Node>> {
    let ordinary = tops.iter().map(|(_, node)| &node.root.id);
    let ordinary = ordinary.filter(|id| history_begun(id).is_none()).map(node_born);
    let heads: BTreeSet<u64> = heads.iter().copied().chain(ordinary).collect();
    let mut by_age: BTreeMap<Age, Vec<Node>> = BTreeMap::new();
    for (generation, node) in tops {
        let born = node_born(&node.root.id);
        // Somebody has built on it.
        let was =
            |seq: u64| heads.range(seq..seq.saturating_add(HISTORY_STEP - 1)).next().is_some();
        let age = match history_begun(&node.root.id) {
            Some(seq) if !was(seq) => Age::Drafted { generation, born },
            _ => Age::Written { generation, born },
        };
        by_age.entry(age).or_default().push(node);
    }
    by_age
}

/// One object of an unknown version is damaged; several of the same are of a newer program, and nothing for this one.
fn refuse_newer(newer: &mut BTreeMap<u32, u64>, version: u32, name: &ObjectName) -> Result<()> {
    let count = newer.entry(version).or_default();
    *count += 1;
    match *count {
        1 => Ok(()),
        _ => Err(Error::Unsupported {
            object: name.to_string(),
            found: version,
            supported: crate::crypto::MetadataKey::NEWEST_VERSION,
        }),
    }
}

/// Nodes of one age.
struct Group<'a> {
    age: Age,
    /// The level of the highest nodes of all: what lies before the first key of one of these is not there.
    highest: u8,
    /// Nodes that were met, here or under newer ones.
    seen: &'a mut HashSet<NodeId>,
    found: Vec<(Vec<u8>, Vec<u8>)>,
    ranges: Vec<Range>,
    /// Nodes that others name and that were not listed.
    missing: u64,
}

/// A leaf that was entered and may still turn out to be unreadable.
struct Entered {
    from: Option<Bound>,
    until: Option<Vec<u8>>,
    /// Number of entries before it.
    before: usize,
}

impl Group<'_> {
    /// Takes everything below a node that was not met before.
    fn go_through(&mut self, source: &dyn NodeSource, top: &Node) -> Result<()> {
        if self.seen.contains(&top.root.id) {
            return Ok(());
        }
        let mut entered: Option<Entered> = None;
        tree::visit::<CatalogueSchema>(top.root, source, &mut |part| {
            match part {
                Part::Entry { key, value } => self.found.push((key.to_vec(), value.to_vec())),
                Part::Subtree { failure: Some(error), .. } => {
                    self.missing += u64::from(matches!(error, Error::Missing { .. }));
                    entered = None;
                }
                Part::Subtree { id, level, after, last_key, .. } => {
                    self.close(entered.take(), top);
                    if !self.seen.insert(id) {
                        return Ok(false);
                    }
                    if level == 0 {
                        entered = Some(Entered {
                            from: after.map(|key| Bound::Behind(key.to_vec())),
                            until: last_key.map(<[u8]>::to_vec),
                            before: self.found.len(),
                        });
                    }
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        let ends_well = entered.is_some();
        self.close(entered.take(), top);
        if self.age == Age::Current && ends_well {
            // Nothing comes behind the last leaf of the whole tree.
            match self.ranges.last_mut() {
                Some(last) => last.until = None,
                None => self.ranges.push(Range { from: None, until: None }),
            }
        }
        Ok(())
    }

    /// A leaf was read to its end: what lies in its range and was not found there is not there.
    fn close(&mut self, entered: Option<Entered>, top: &Node) {
        let Some(Entered { from, until, before }) = entered else { return };
        let own = self.found.get(before..).unwrap_or_default();
        let (Some((first, _)), Some((last, _))) = (own.first(), own.last()) else { return };
        // The first leaf of the whole tree reaches down to the first key that can be; of part of one it is not known.
        let is_whole = self.age == Age::Current || top.root.level == self.highest;
        let from = match from {
            None if !is_whole => Some(Bound::At(first.clone())),
            from => from,
        };
        let until = Some(until.unwrap_or_else(|| last.clone()));
        self.ranges.push(Range { from, until });
    }
}
