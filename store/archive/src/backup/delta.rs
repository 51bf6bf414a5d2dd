//! A backup of what changed since another snapshot, without a walk: the base's manifest with k changes in it.
//!
//! Decides what is looked at, what is taken as it was held, and which further entries a change concerns: other names
//! of a file, the rest of a directory with a marker, streams of the base that are not there any more.

mod related;

use super::plan::{self, Plan};
use crate::change::parent::Places;
use crate::entry::{EntryHead, KindCode, ManifestSchema};
use crate::held::Held;
use crate::path;
use crate::pipeline::{Extra, Mark};
use crate::scan::{self, Station};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::ffi::OsStrExt;
use stillpoint_store::record::SnapshotRecord;
use stillpoint_store::tree::{NodeSource, Tree};
use stillpoint_store::{ChunkId, Error, Result};

/// What changed since a snapshot, as keys (see [`crate::path`]). Keys outside of the roots are ignored among `paths`
/// and `trees`.
#[derive(Debug, Default, Clone)]
pub struct Changes {
    /// Paths to look at, each by itself: what is there is read whatever its times say, what is not there goes, with
    /// everything that was below it. A directory that is not the one that the base has there counts as a tree.
    pub paths: BTreeSet<Vec<u8>>,
    /// Paths to walk with everything below them, where stat decides what is read.
    pub trees: BTreeSet<Vec<u8>>,
    /// Paths as they were held, which are not looked at; None: was not there.
    pub held: BTreeMap<Vec<u8>, Option<Held>>,
    /// Directories below which exactly what `held` says is there.
    pub held_trees: BTreeSet<Vec<u8>>,
}

impl Changes {
    /// True when nothing changed.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
            && self.trees.is_empty()
            && self.held.is_empty()
            && self.held_trees.is_empty()
    }
}

/// Changes, ready for the pipeline; what was held is among the plan's extras.
pub(super) struct Delta {
    pub(super) stations: Vec<Station>,
    pub(super) changed: BTreeSet<Vec<u8>>,
    pub(super) places: Places,
    pub(super) marks: Vec<(Vec<u8>, Mark)>,
}

/// What a delta is made from.
pub(super) struct Base<'a> {
    pub(super) record: &'a SnapshotRecord,
    pub(super) source: &'a dyn NodeSource,
}

impl Delta {
    /// Checks the changes against the base and completes them.
    ///
    /// # Errors
    /// `Invalid` when the base is of other paths or rules, or the changes contradict each other; those of the source.
    pub(super) fn new(
        base: &Base<'_>,
        plan: &mut Plan,
        mut changes: Changes,
        lost: &HashSet<ChunkId>,
    ) -> Result<Self> {
        let roots = plan.source.roots.clone();
        let outer = scan::outer_roots(&roots);
        check_base(base.record, &plan.record)?;
        check_keys(&changes, &outer)?;
        let marked = plan.source.rules.marked(changes.paths.iter(), &outer);
        changes.trees.extend(marked);
        let mut marks = Vec::new();
        settle_streams(base, plan, &outer, &mut changes, &mut marks)?;
        check_conflicts(&changes)?;
        let places = related::complete(base, plan, &mut changes, lost)?;
        let stations = scan::stations_within(&roots, &changes.paths, &changes.trees);
        marks.extend(changes.held_trees.into_iter().map(|key| (key, Mark::Tree)));
        let mut extras: BTreeMap<Vec<u8>, Extra> =
            std::mem::take(&mut plan.source.extras).into_iter().collect();
        for (key, held) in changes.held {
            let Some(held) = held else {
                marks.push((key, Mark::Gone));
                continue;
            };
            match extras.insert(key.clone(), Extra::Held(Box::new(held))) {
                None | Some(Extra::Directory) => {}
                Some(_) => return Err(plan::taken(&path::path_from_key(&key).to_string_lossy())),
            }
        }
        plan.source.extras = extras.into_iter().collect();
        Ok(Self { stations, changed: changes.paths, places, marks })
    }
}

fn is_root_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
}

/// Whether a base covers what is to be saved.
///
/// # Errors
/// `Invalid` if not.
pub(super) fn check_base(base: &SnapshotRecord, now: &SnapshotRecord) -> Result<()> {
    let roots = |record: &SnapshotRecord| -> BTreeSet<Vec<u8>> {
        record.paths.iter().filter(|path| is_root_path(path)).map(|path| path.to_vec()).collect()
    };
    if roots(base) != roots(now) || base.excludes != now.excludes {
        return Err(Error::Invalid(
            "the base snapshot is of other paths or left out other things; make a full backup first".into(),
        ));
    }
    Ok(())
}

fn check_keys(changes: &Changes, outer: &[&Vec<u8>]) -> Result<()> {
    let given = changes.paths.iter().chain(&changes.trees);
    let held = changes.held.keys().chain(&changes.held_trees);
    let bad = |key: &[u8], why: &str| {
        Error::Invalid(format!(
            "changed path {}: {why}",
            path::path_from_key(key).to_string_lossy()
        ))
    };
    for key in given.chain(held.clone()) {
        path::check_key(key).map_err(|_| bad(key, "is no path"))?;
    }
    let is_way = |key: &[u8]| outer.iter().any(|root| path::is_within(root, key));
    match held.into_iter().find(|key| scan::root_of(outer, key).is_none() && !is_way(key)) {
        Some(key) => Err(bad(key, "was held, but lies outside of what is saved")),
        None => Ok(()),
    }
}

/// What is looked at now and what was held must not overlap.
fn check_conflicts(changes: &Changes) -> Result<()> {
    let below = |key: &[u8], trees: &BTreeSet<Vec<u8>>| {
        trees.contains(key) || scan::above(key).any(|above| trees.contains(above))
    };
    let live = changes.paths.iter().chain(&changes.trees);
    let held = changes.held.keys().chain(&changes.held_trees);
    let clash = live
        .filter(|key| changes.held.contains_key(*key) || below(key, &changes.held_trees))
        .chain(held.filter(|key| below(key, &changes.trees)))
        .next();
    clash.map_or(Ok(()), |key| {
        let path = path::path_from_key(key);
        let path = path.to_string_lossy();
        Err(Error::Invalid(format!("{path} was held and is to be looked at as well")))
    })
}

/// Takes care of the streams that only the base has, and of names that the base has given to something else.
fn settle_streams(
    base: &Base<'_>,
    plan: &mut Plan,
    outer: &[&Vec<u8>],
    changes: &mut Changes,
    marks: &mut Vec<(Vec<u8>, Mark)>,
) -> Result<()> {
    let ways: BTreeSet<&[u8]> = outer.iter().flat_map(|root| scan::above(root)).collect();
    let is_real = |key: &[u8]| ways.contains(key) || scan::root_of(outer, key).is_some();
    let mut made_up: BTreeSet<Vec<u8>> = BTreeSet::new();
    for name in base.record.paths.iter().filter(|path| !is_root_path(path)) {
        let key = path::key_from_path(
            &std::path::Path::new("/").join(std::ffi::OsStr::from_bytes(name)),
        )?;
        made_up.extend(scan::above(&key).filter(|key| !is_real(key)).map(<[u8]>::to_vec));
        made_up.insert(key);
    }
    let tree = Tree::<ManifestSchema>::open(base.record.root, base.source);
    for (key, extra) in std::mem::take(&mut plan.source.extras) {
        if !made_up.remove(&key) {
            let there = tree.get(&key)?.map(|value| EntryHead::decode(&value)).transpose()?;
            let is_directory = there.is_some_and(|head| head.kind == KindCode::Directory);
            match extra {
                // Not made up for a stream, and it has not changed.
                Extra::Directory if is_directory && !changes.paths.contains(&key) => continue,
                Extra::Directory if is_directory => {}
                _ if there.is_some() => {
                    return Err(plan::taken(&path::path_from_key(&key).to_string_lossy()));
                }
                _ => {}
            }
        }
        plan.source.extras.push_back((key, extra));
    }
    for key in made_up {
        if scan::root_of(outer, &key).is_some() {
            changes.paths.insert(key);
        } else {
            marks.push((key, Mark::Gone));
        }
    }
    Ok(())
}

#[cfg(test)]
mod cost_tests;
