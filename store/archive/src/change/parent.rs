//! The parent's manifest beside the scan: the same order, so one pass over both finds what is the same.
//!
//! Also finds the old place of a renamed directory by its inode. Knows no system calls.

use super::{ChangeRules, Verdict, is_untouched, judge};
use crate::entry::{
    Content, ContentItem, ContentSchema, Entry, EntryHead, EntryKind, KindCode, ManifestSchema,
};
use crate::meta::Stat;
use crate::path;
use std::collections::{HashMap, HashSet};
use stillpoint_store::tree::{Cursor, NodeSource, Root, Tree};
use stillpoint_store::{ChunkId, Error, NodeId, Result, Timestamp};

/// Most memory for the places of the parent's directories, bytes; beyond it renames are read anew, which is slower
/// and nothing else.
const PLACES_BYTES_MAX: usize = 32 << 20;
/// Entries that are stepped over before a place is looked for from the root of the tree.
const STEPS_MAX: usize = 64;
/// Most renamed directories inside each other that are followed.
const MOVES_NESTED_MAX: usize = 64;

/// The parent of a backup.
pub(crate) struct Parent<'a> {
    source: &'a dyn NodeSource,
    tree: Tree<'a, ManifestSchema>,
    cursor: Cursor<'a, ManifestSchema>,
    rules: ChangeRules,
    /// When the parent's backup began: what was born later cannot be in it.
    began: Timestamp,
    /// Where the parent's directories lie, by device and inode; filled when first needed.
    places: Option<Places>,
    moves: Vec<Move<'a>>,
    visited: Vec<NodeId>,
    /// Chunks that are in no pack any more: files that need them are read again.
    lost: HashSet<ChunkId>,
    /// Why the manifest cannot be read any further; from then on nothing is known of any path.
    failure: Option<Error>,
    is_blind: bool,
}

/// Where directories lie, by device and inode.
pub(crate) type Places = HashMap<(u64, u64), Box<[u8]>>;

/// A directory that has a new path, and the parent's entries below its old one.
struct Move<'a> {
    new: Vec<u8>,
    old: Vec<u8>,
    cursor: Cursor<'a, ManifestSchema>,
}

/// What the parent knows about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known<'v> {
    pub(crate) verdict: Verdict,
    /// Whether it was found at another path.
    pub(crate) moved: bool,
    /// The parent's entry.
    pub(crate) value: &'v [u8],
}

impl<'a> Parent<'a> {
    /// The parent with this manifest, whose backup began at this moment. Where its first nodes are lost or damaged,
    /// it knows nothing.
    ///
    /// # Errors
    /// Errors of the source that are no damage.
    pub(crate) fn open(
        root: Root,
        source: &'a dyn NodeSource,
        began: Timestamp,
        rules: ChangeRules,
    ) -> Result<Self> {
        let tree = Tree::<ManifestSchema>::open(root, source);
        let mut cursor = tree.cursor();
        cursor.record_visited_nodes();
        let opened = cursor.seek(b"");
        let (places, moves, visited, lost) = (None, Vec::new(), Vec::new(), HashSet::new());
        let (failure, is_blind) = (None, false);
        let mut parent = Self {
            source,
            tree,
            cursor,
            rules,
            began,
            places,
            moves,
            visited,
            lost,
            failure,
            is_blind,
        };
        parent.tolerate(opened)?;
        Ok(parent)
    }

    /// Looks for the old places of renamed directories among these paths only, instead of in the whole manifest.
    pub(crate) fn with_old_places(mut self, places: Places) -> Self {
        self.places = Some(places);
        self
    }

    /// Takes no content over that needs one of these chunks.
    pub(crate) fn without(mut self, lost: HashSet<ChunkId>) -> Self {
        self.lost = lost;
        self
    }

    /// Why the manifest could not be read to its end, told once. What comes behind is as if there were no parent.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// None, and blindness, for a manifest that is lost or damaged.
    fn tolerate<T>(&mut self, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_damage() || matches!(error, Error::Io { .. }) => {
                self.failure = Some(error);
                self.is_blind = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks for a path; must be asked in ascending order of keys. With `force` its content counts as changed.
    ///
    /// # Errors
    /// Errors of the source that are no damage.
    pub(crate) fn find(
        &mut self,
        key: &[u8],
        stat: &Stat,
        force: bool,
    ) -> Result<Option<Known<'_>>> {
        if self.is_blind {
            return Ok(None);
        }
        let looked = self.look(key, stat, force);
        let Some(Some((verdict, moved))) = self.tolerate(looked)? else { return Ok(None) };
        let found = match moved {
            true => self.moves.last().and_then(|m| m.cursor.peek()),
            false => self.cursor.peek(),
        };
        let (_, value) = found.expect("just found");
        Ok(Some(Known { verdict, moved, value }))
    }

    /// What is known of a path, and whether it stands at the old place of a renamed directory.
    fn look(&mut self, key: &[u8], stat: &Stat, force: bool) -> Result<Option<(Verdict, bool)>> {
        self.leave_moves(key);
        advance_to(&mut self.cursor, key)?;
        let here = match self.cursor.peek() {
            Some((found, value)) if found == key => {
                let head = EntryHead::decode(value)?;
                let verdict = match force || needs_any(value, self.source, &self.lost)? {
                    true => Verdict::ContentChanged,
                    false => judge(self.rules, stat, &head),
                };
                Some((head, verdict))
            }
            _ => None,
        };
        if here.is_none_or(|(_, verdict)| verdict == Verdict::ContentChanged) {
            if !force && self.find_moved(key, stat)? {
                return Ok(Some((Verdict::Same, true)));
            }
            let same_inode = here.is_some_and(|(head, _)| head.inode == stat.inode);
            if stat.is_directory() && !same_inode {
                self.enter_move(key, stat)?;
            }
        }
        Ok(here.map(|(_, verdict)| (verdict, false)))
    }

    /// The parent's entry at exactly this path; as [`Self::find`], in ascending order of keys.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(crate) fn at(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        let advanced = advance_to(&mut self.cursor, key);
        self.tolerate(advanced)?;
        Ok(self.cursor.peek().filter(|(found, _)| *found == key).map(|(_, value)| value))
    }

    /// The nodes read since this was last asked: they are in the store, nobody needs to look them up.
    pub(crate) fn take_visited_nodes(&mut self) -> Vec<NodeId> {
        self.visited.extend(self.cursor.take_visited_nodes());
        std::mem::take(&mut self.visited)
    }

    /// Whether the parent, at the old place of a renamed directory, has this very inode in this very state.
    fn find_moved(&mut self, key: &[u8], stat: &Stat) -> Result<bool> {
        let Some(current) = self.moves.last_mut() else { return Ok(false) };
        let Some(rest) = key.get(current.new.len()..).filter(|rest| !rest.is_empty()) else {
            return Ok(false);
        };
        let old = [&current.old, rest].concat();
        advance_to(&mut current.cursor, &old)?;
        match current.cursor.peek() {
            Some((found, value)) if found == old => {
                if !is_untouched(stat, &EntryHead::decode(value)?) || self.rules.force {
                    return Ok(false);
                }
                needs_any(value, self.source, &self.lost).map(|needs| !needs)
            }
            _ => Ok(false),
        }
    }

    /// When this new directory is one of the parent's under another path, remembers that.
    fn enter_move(&mut self, key: &[u8], stat: &Stat) -> Result<()> {
        let is_new = stat.btime.is_some_and(|born| born > self.began);
        if is_new || self.rules.force || self.moves.len() >= MOVES_NESTED_MAX || key.is_empty() {
            return Ok(());
        }
        if self.places.is_none() {
            self.places = Some(places(&self.tree)?);
        }
        let places = self.places.as_ref().expect("filled above");
        let Some(old) = places.get(&(stat.device, stat.inode)).filter(|old| ***old != *key) else {
            return Ok(());
        };
        let mut cursor = self.tree.cursor();
        cursor.record_visited_nodes();
        cursor.seek(&path::below(old).0)?;
        self.moves.push(Move { new: key.to_vec(), old: old.to_vec(), cursor });
        Ok(())
    }

    fn leave_moves(&mut self, key: &[u8]) {
        while let Some(mut done) = self.moves.pop_if(|m| !path::is_within(key, &m.new)) {
            self.visited.extend(done.cursor.take_visited_nodes());
        }
    }
}

/// Whether a file's content needs one of these chunks, so that it cannot be taken over.
///
/// # Errors
/// Errors of the source that are no damage.
pub(crate) fn needs_any(
    value: &[u8],
    source: &dyn NodeSource,
    lost: &HashSet<ChunkId>,
) -> Result<bool> {
    if lost.is_empty() {
        return Ok(false);
    }
    let is_lost =
        |item: &ContentItem| matches!(item, ContentItem::Data { id, .. } if lost.contains(id));
    let root = match Entry::decode(value)?.kind {
        EntryKind::File(Content::Chunks(items)) => return Ok(items.iter().any(is_lost)),
        EntryKind::File(Content::Tree(root)) => root,
        _ => return Ok(false),
    };
    let read = || -> Result<bool> {
        let mut cursor = Tree::<ContentSchema>::open(root, source).iter()?;
        while let Some((_, value)) = cursor.peek() {
            if is_lost(&ContentItem::decode(value)?) {
                return Ok(true);
            }
            cursor.advance()?;
        }
        Ok(false)
    };
    match read() {
        Err(error) if error.is_damage() => Ok(true),
        other => other,
    }
}

/// Goes forward to the first entry that is not before `key`.
///
/// # Errors
/// Those of the cursor.
pub(crate) fn advance_to(cursor: &mut Cursor<'_, ManifestSchema>, key: &[u8]) -> Result<()> {
    for _ in 0..STEPS_MAX {
        if cursor.peek().is_none_or(|(found, _)| found >= key) {
            return Ok(());
        }
        cursor.advance()?;
    }
    cursor.seek(key)
}

fn places(tree: &Tree<'_, ManifestSchema>) -> Result<Places> {
    let mut places = Places::new();
    let mut bytes = 0;
    let mut cursor = tree.iter()?;
    while let Some((key, value)) = cursor.peek() {
        let head = EntryHead::decode(value)?;
        if head.kind == KindCode::Directory && head.inode != 0 {
            bytes += key.len() + 64;
            if bytes > PLACES_BYTES_MAX {
                break;
            }
            places.insert((head.device, head.inode), key.into());
        }
        cursor.advance()?;
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::tests::stat;
    use crate::entry::{Content, Entry, EntryKind};
    use rustix::fs::FileType;
    use stillpoint_store::IdKey;
    use stillpoint_store::tree::memory::MemoryNodes;
    use stillpoint_store::tree::{Builder, TreeParams};

    const BEGAN: Timestamp = Timestamp { seconds: 1000, nanos: 0 };

    /// A directory or file with this inode; content and times follow from it.
    fn made(path: &str, inode: u64) -> (Vec<u8>, Stat) {
        let key = path::key_from_path(std::path::Path::new(path)).unwrap();
        let kind = if path.ends_with('/') { FileType::Directory } else { FileType::RegularFile };
        let size = if kind == FileType::Directory { 0 } else { 3 };
        (key, Stat { kind, inode, size, ..stat() })
    }

    fn build(nodes: &MemoryNodes, paths: &[(&str, u64)]) -> Root {
        let mut sink = nodes;
        let mut builder = Builder::<ManifestSchema>::new(&TreeParams::new([1; 32]), &mut sink);
        for (path, inode) in paths {
            let (key, stat) = made(path, *inode);
            let kind = match stat.kind {
                FileType::Directory => EntryKind::Directory,
                _ => EntryKind::File(Content::Inline(vec![1, 2, 3])),
            };
            let names = crate::meta::Names::default();
            let mut entry = crate::meta::entry_from(&stat, kind, &names);
            entry.size = stat.size;
            builder.push(&key, &entry.to_bytes()).unwrap();
        }
        builder.finish().unwrap()
    }

    /// Walks `now` against a parent of `before`, and gives for each path what was found: `same`, `moved from INODE`,
    /// `changed` or `new`.
    fn check(before: &[(&str, u64)], now: &[(&str, u64)], expected: &[&str]) {
        let nodes = MemoryNodes::new(IdKey::new([7; 32]));
        let root = build(&nodes, before);
        let mut parent = Parent::open(root, &nodes, BEGAN, ChangeRules::default()).unwrap();
        let found: Vec<String> = now
            .iter()
            .map(|(path, inode)| {
                let (key, stat) = made(path, *inode);
                match parent.find(&key, &stat, false).unwrap() {
                    None => "new".into(),
                    Some(Known { moved: true, value, .. }) => {
                        format!("moved from {}", Entry::decode(value).unwrap().inode)
                    }
                    Some(Known { verdict: Verdict::Same, .. }) => "same".into(),
                    Some(_) => "changed".into(),
                }
            })
            .collect();
        assert_eq!(found, expected);
        assert!(!parent.take_visited_nodes().is_empty());
    }

    // A merge tells same, changed, new and removed paths apart.
    #[test]
    fn merge_with_the_parent() {
        let before = [("/", 1), ("/a", 2), ("/b/", 3), ("/b/x", 4), ("/c", 5), ("/e", 6)];
        let now = [("/", 1), ("/a", 2), ("/b/", 3), ("/b/w", 9), ("/c", 8), ("/d", 10), ("/e", 6)];
        check(&before, &now, &["same", "same", "same", "new", "changed", "new", "same"]);
    }

    // Below a renamed directory the old place is matched inode by inode; what is not the same inode is new.
    #[test]
    fn renamed_directories_are_recognised() {
        let before =
            [("/", 1), ("/old/", 2), ("/old/f", 3), ("/old/sub/", 4), ("/old/sub/g", 5), ("/z", 6)];
        let now = [
            ("/", 1),
            ("/new/", 2),
            ("/new/a", 9),
            ("/new/f", 3),
            ("/new/sub/", 4),
            ("/new/sub/g", 5),
            ("/new/sub/h", 10),
            ("/z", 6),
        ];
        let expected =
            ["same", "new", "new", "moved from 3", "moved from 4", "moved from 5", "new", "same"];
        check(&before, &now, &expected);
    }

    // Rotated directories (a to b, b to c) are recognised although their paths existed before.
    #[test]
    fn rotated_directories_are_recognised() {
        let before = [("/", 1), ("/a/", 2), ("/a/f", 3), ("/b/", 4), ("/b/f", 5)];
        let now = [("/", 1), ("/b/", 2), ("/b/f", 3), ("/c/", 4), ("/c/f", 5)];
        check(&before, &now, &["same", "changed", "moved from 3", "new", "moved from 5"]);
    }

    // A directory moved into a moved one is followed, and so is what comes after it.
    #[test]
    fn moves_nest() {
        let before =
            [("/", 1), ("/in/", 2), ("/in/f", 3), ("/out/", 4), ("/out/f", 5), ("/out/z", 6)];
        let now = [
            ("/", 1),
            ("/new/", 4),
            ("/new/f", 5),
            ("/new/in/", 2),
            ("/new/in/f", 3),
            ("/new/z", 6),
        ];
        let expected = ["same", "new", "moved from 5", "new", "moved from 3", "moved from 6"];
        check(&before, &now, &expected);
    }
}
