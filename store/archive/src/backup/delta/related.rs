//! What else a change concerns: old places of renamed directories, other names of the same file, lost content.
//!
//! Looks up the changed paths in the base, O(k log n). The whole base is read only where a file has more names than
//! the changes tell, or where chunks were lost.

use super::{Base, Changes};
use crate::backup::plan::Plan;
use crate::change::parent::{Places, advance_to, needs_any};
use crate::entry::{Entry, EntryHead, KindCode, ManifestSchema};
use crate::scan::{self, Met, Scan};
use std::collections::{BTreeSet, HashMap, HashSet};
use stillpoint_store::tree::Tree;
use stillpoint_store::{ChunkId, Result};

/// Device and inode.
type InodeId = (u64, u64);

/// What the changes tell about a file with several names.
#[derive(Debug, Default)]
struct Names {
    /// Names it has now, all in all; 0 where none of them is among the changes.
    now: u32,
    /// How many of them are among the changes.
    now_seen: u32,
    /// Names it had in the base, and how many of them are among the changes.
    then: u32,
    then_seen: u32,
    /// One of its names as it was held.
    held: Option<Vec<u8>>,
}

impl Names {
    /// Whether a name is missing among the changes that has to change too.
    fn is_incomplete(&self) -> bool {
        if self.now > 0 { self.now_seen < self.now } else { self.then_seen < self.then }
    }
}

/// Completes the changes and gives the places where changed directories were.
pub(super) fn complete(
    base: &Base<'_>,
    plan: &Plan,
    changes: &mut Changes,
    lost: &HashSet<ChunkId>,
) -> Result<Places> {
    let (places, mut files) = look_up(base, changes)?;
    look_at(plan, changes, &mut files)?;
    files.retain(|_, names| names.is_incomplete());
    if !files.is_empty() || !lost.is_empty() {
        add_related(base, changes, &files, lost)?;
    }
    Ok(places)
}

/// What the base has at the changed paths.
fn look_up(base: &Base<'_>, changes: &Changes) -> Result<(Places, HashMap<InodeId, Names>)> {
    let mut places = Places::new();
    let mut files: HashMap<InodeId, Names> = HashMap::new();
    let mut cursor = Tree::<ManifestSchema>::open(base.record.root, base.source).cursor();
    cursor.seek(b"")?;
    let keys: BTreeSet<&Vec<u8>> =
        changes.paths.iter().chain(&changes.trees).chain(changes.held.keys()).collect();
    for key in keys {
        advance_to(&mut cursor, key)?;
        let Some((_, value)) = cursor.peek().filter(|(found, _)| found == key) else { continue };
        let head = EntryHead::decode(value)?;
        if head.kind == KindCode::Directory {
            places.insert((head.device, head.inode), key.as_slice().into());
        } else if let Some(id) = Entry::decode(value)?.link_id() {
            let names = files.entry(id).or_default();
            names.then = Entry::decode(value)?.nlink;
            names.then_seen += 1;
        }
    }
    Ok((places, files))
}

/// Which files with several names are at the changed paths now.
fn look_at(plan: &Plan, changes: &Changes, files: &mut HashMap<InodeId, Names>) -> Result<()> {
    let (roots, rules) = plan.source.clone_for_count()?;
    let scan = Scan::new(scan::stations_within(&roots, &changes.paths, &BTreeSet::new()), rules);
    let mut walk = scan.walk();
    while let Some(met) = walk.next() {
        if let Met::Path(place) = met
            && place.stat.nlink > 1
            && !place.stat.is_directory()
        {
            let names = files.entry((place.stat.device, place.stat.inode)).or_default();
            names.now = place.stat.nlink;
            names.now_seen += 1;
        }
    }
    let held = changes.held.iter().filter_map(|(key, held)| Some((key, held.as_ref()?)));
    for (key, held) in held.filter(|(_, held)| held.stat.nlink > 1 && !held.stat.is_directory()) {
        let names = files.entry(held.inode()).or_default();
        names.now = held.stat.nlink;
        names.now_seen += 1;
        names.held.get_or_insert_with(|| key.clone());
    }
    Ok(())
}

/// Adds the base's other names of these files, and files that need lost chunks.
fn add_related(
    base: &Base<'_>,
    changes: &mut Changes,
    files: &HashMap<InodeId, Names>,
    lost: &HashSet<ChunkId>,
) -> Result<()> {
    // What is held is of one instant; what nobody held must not be looked at later.
    let only_held = !changes.held.is_empty() && changes.paths.is_empty();
    let mut cursor = Tree::<ManifestSchema>::open(base.record.root, base.source).iter()?;
    while let Some((key, value)) = cursor.peek() {
        let head = EntryHead::decode(value)?;
        let names = files.get(&(head.device, head.inode));
        let names = names.filter(|_| head.kind != KindCode::Directory);
        let wanted = names.is_some() || needs_any(value, base.source, lost)?;
        if wanted && !is_covered(changes, key) {
            let held = names.and_then(|names| changes.held.get(names.held.as_ref()?)).cloned();
            match held {
                Some(held) => drop(changes.held.insert(key.to_vec(), held)),
                None if names.is_some() && only_held => {}
                None => drop(changes.paths.insert(key.to_vec())),
            }
        }
        cursor.advance()?;
    }
    Ok(())
}

/// Whether the changes say something about this path already.
fn is_covered(changes: &Changes, key: &[u8]) -> bool {
    let in_tree = |key: &[u8]| changes.trees.contains(key) || changes.held_trees.contains(key);
    changes.paths.contains(key)
        || changes.held.contains_key(key)
        || in_tree(key)
        || scan::above(key).any(in_tree)
}
