//! Goes through a range of the manifest and through the target side by side, and decides about each entry.
//!
//! Directories are entered (and, unless it is a rehearsal, made) on the way, so that everything else can be made in
//! any order. Whatever is no directory comes out as a [`Step`]; so does the end of each directory.

use super::RestoreOptions;
use super::ledger::Ledger;
use super::levels::{Level, LevelState};
use crate::entry::{Entry, ManifestSchema};
use crate::observer::Outcome;
use crate::path;
use crate::plan::{Action, RestorePlan, decide};
use crate::target::{Fresh, MetadataWriter, Target};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use stillpoint_store::Result;
use stillpoint_store::tree::Cursor;

/// One thing to do. Keys are relative to the target.
pub(super) enum Step {
    /// A file or a node with this decision; never `Keep`.
    Make { key: Vec<u8>, entry: Box<Entry>, action: Action },
    /// A further name of what `first` is or will be.
    Link { key: Vec<u8>, first: Vec<u8>, action: Action, size: u64 },
    /// Everything below a directory has come.
    Leave(Left),
}

/// A directory of which everything has come.
pub(super) struct Left {
    pub key: Vec<u8>,
    /// Its metadata, if it is to be set; None for a directory that the manifest does not know.
    pub entry: Option<Box<Entry>>,
    /// Whether it was made by this restore (or would be).
    pub made: bool,
    /// What it may have inherited when it was made.
    pub fresh: Fresh,
    /// Whether metadata is to be set.
    pub touch: bool,
    /// Its mode before something could be restored inside, if that had to be changed.
    pub unlocked: Option<u32>,
    /// Names inside that go.
    pub delete: Vec<Vec<u8>>,
}

/// What tells one hard-linked file: device, inode, and a hash of what the manifest says about its content. The number
/// of an inode that is deleted during a backup may come again with another file. The hash has the table's random key, so
/// nobody can aim at equal ones.
type LinkId = (u64, u64, u64);

struct LinkSource {
    key: Vec<u8>,
    names_left: u32,
}

/// What the cursor does next.
enum Onward {
    Next,
    /// Past everything below the directory with this key in the manifest.
    Past(Vec<u8>),
}

pub(super) struct Walk<'a> {
    pub(super) options: &'a RestoreOptions,
    /// None in a rehearsal without a target.
    pub(super) target: Option<&'a Target>,
    /// False in a rehearsal.
    pub(super) acting: bool,
    pub(super) ledger: &'a Ledger<'a>,
    pub(super) metadata: &'a MetadataWriter,
    pub(super) cursor: Cursor<'a, ManifestSchema>,
    /// What stands before every relative key in the manifest.
    pub(super) base: Vec<u8>,
    pub plan: RestorePlan,
    pub(super) levels: Vec<Level>,
    links: HashMap<LinkId, LinkSource>,
    queue: VecDeque<Step>,
    finished: bool,
}

/// What a walk is made of.
pub(super) struct Start<'a> {
    pub options: &'a RestoreOptions,
    pub target: Option<&'a Target>,
    pub acting: bool,
    pub ledger: &'a Ledger<'a>,
    pub metadata: &'a MetadataWriter,
    pub cursor: Cursor<'a, ManifestSchema>,
    pub base: Vec<u8>,
    /// The entry of the restored directory itself.
    pub top: Option<Entry>,
}

impl<'a> Walk<'a> {
    pub fn new(start: Start<'a>) -> Self {
        let Start { options, target, acting, ledger, metadata, cursor, base, top } = start;
        let made = target.is_none_or(Target::created);
        let state = if made { LevelState::Made } else { LevelState::Found };
        let included = options.selection.includes(b"", true);
        let mut top = Level::new(Vec::new(), top.map(Box::new), included);
        top.state = state;
        top.touch = made && top.entry.is_some();
        top.fresh = if made { Fresh::Yes { inherits_acl: true } } else { Fresh::No };
        let mut walk = Self {
            options,
            target,
            acting,
            ledger,
            metadata,
            cursor,
            base,
            plan: RestorePlan::default(),
            levels: vec![top],
            links: HashMap::new(),
            queue: VecDeque::new(),
            finished: false,
        };
        walk.list_leftovers(0);
        walk
    }

    /// The next thing to do, or None at the end.
    pub fn next(&mut self) -> Result<Option<Step>> {
        loop {
            if let Some(step) = self.queue.pop_front() {
                return Ok(Some(step));
            }
            if self.finished {
                return Ok(None);
            }
            self.ledger.check()?;
            if !self.visit() {
                self.leave_until(0);
                self.finished = true;
            }
        }
    }

    /// Looks at one entry of the manifest; false at its end.
    fn visit(&mut self) -> bool {
        let Some((full, value)) = self.cursor.peek() else { return false };
        let full = full.to_vec();
        let entry = path::check_key(&full).and_then(|()| Entry::decode(value));
        let onward = match entry {
            Ok(entry) => self.entry(&full, Box::new(entry)),
            Err(error) => {
                self.ledger.problem(path::path_from_key(&full), &error);
                self.mark_seen(&full);
                Onward::Next
            }
        };
        let moved = match onward {
            Onward::Next => self.cursor.advance(),
            Onward::Past(directory) => match path::below(&directory).1 {
                Some(end) => self.cursor.seek(&end),
                None => return false,
            },
        };
        match moved {
            Ok(()) => true,
            Err(error) => {
                let after = path::path_from_key(&full);
                let what = format!("what follows in its directory cannot be read: {error}");
                self.ledger.problem(after, what);
                self.resume()
            }
        }
    }

    /// After an unreadable part of the manifest: goes on behind the nearest directory where that is possible.
    /// Nothing is deleted in directories of which entries may be missing.
    fn resume(&mut self) -> bool {
        for index in (0..self.levels.len()).rev() {
            let Some(level) = self.levels.get_mut(index) else { continue };
            level.leftovers = None;
            let directory = full_key(&self.base, &level.key);
            let Some(end) = path::below(&directory).1 else { continue };
            if index > 0 && self.cursor.seek(&end).is_ok() {
                return true;
            }
        }
        false
    }

    fn relative<'k>(&self, full: &'k [u8]) -> &'k [u8] {
        if self.base.is_empty() {
            return full;
        }
        full.get(self.base.len() + 1..).unwrap_or_default()
    }

    /// A name that the manifest has is not deleted, even if nothing can be done about it.
    fn mark_seen(&mut self, full: &[u8]) {
        let key = self.relative(full).to_vec();
        self.descend_to_parent(&key);
        if let Some(parent) = self.levels.last_mut() {
            parent.saw(path::file_name(&key));
        }
    }

    fn entry(&mut self, full: &[u8], entry: Box<Entry>) -> Onward {
        let key = self.relative(full).to_vec();
        self.descend_to_parent(&key);
        let mut included = false;
        if let Some(parent) = self.levels.last_mut() {
            parent.saw(path::file_name(&key));
            included = parent.included;
        }
        let is_dir = entry.is_directory();
        if self.options.selection.excludes(&key, is_dir) {
            self.plan.excluded += 1;
            return if is_dir { Onward::Past(full.to_vec()) } else { Onward::Next };
        }
        included = included || self.options.selection.includes(&key, is_dir);
        if is_dir {
            // A directory that is not asked for is entered when something below it is.
            self.levels.push(Level::new(key, Some(entry), included));
            return if included { self.enter_levels() } else { Onward::Next };
        }
        if !included {
            self.plan.excluded += 1;
            return Onward::Next;
        }
        let onward = self.enter_levels();
        if matches!(onward, Onward::Next) {
            self.file_or_node(key, entry);
        }
        onward
    }

    /// Leaves directories until the innermost one is the parent of `key`; parents that the manifest does not have
    /// are put in.
    fn descend_to_parent(&mut self, key: &[u8]) {
        let parent = path::parent_key(key).unwrap_or_default();
        let inside = |level: &Level| path::is_within(parent, &level.key);
        let keep = self.levels.iter().take_while(|level| inside(level)).count();
        self.leave_until(keep.max(1));
        while let Some(top) = self.levels.last()
            && top.key.len() < parent.len()
        {
            let start = if top.key.is_empty() { 0 } else { top.key.len() + 1 };
            let rest = parent.get(start..).unwrap_or_default();
            let name = path::components(rest).next().unwrap_or_default();
            let level = Level::new(path::child_key(&top.key, name), None, top.included);
            self.levels.push(level);
        }
    }

    /// Leaves directories until only `keep` are open.
    fn leave_until(&mut self, keep: usize) {
        while self.levels.len() > keep {
            let Some(level) = self.levels.pop() else { return };
            if !matches!(level.state, LevelState::Made | LevelState::Found) {
                continue;
            }
            let delete = self.names_to_delete(&level);
            self.plan.deleted += u64::try_from(delete.len()).unwrap_or(u64::MAX);
            let made = level.state == LevelState::Made;
            let Level { key, entry, fresh, touch, unlocked, .. } = level;
            let left = Left { key, entry, made, fresh, touch, unlocked, delete };
            self.queue.push_back(Step::Leave(left));
        }
    }

    /// Enters all open directories that are not entered yet, outermost first. Past the first that cannot be.
    fn enter_levels(&mut self) -> Onward {
        for index in 1..self.levels.len() {
            let Some(level) = self.levels.get(index) else { break };
            if level.state == LevelState::Pending {
                let (key, entry) = (level.key.clone(), level.entry.clone());
                let entered = self.enter(&key, entry.as_deref(), index);
                let level = self.levels.get_mut(index).expect("just seen");
                match entered {
                    Ok(entered) => {
                        (level.state, level.fresh) = (entered.state, entered.fresh);
                        level.unlocked = entered.unlocked;
                        let wanted = level.state == LevelState::Made || level.included;
                        level.touch = entered.touch && wanted;
                    }
                    Err(failure) => {
                        level.state = LevelState::Blocked;
                        failure.tell(self.ledger, self.display(&key));
                        self.ledger.outcome(&key, Outcome::Failed, 0);
                    }
                }
                self.list_leftovers(index);
            }
            let level = self.levels.get(index).expect("just seen");
            if level.state == LevelState::Blocked {
                return Onward::Past(full_key(&self.base, &level.key));
            }
        }
        Onward::Next
    }

    fn file_or_node(&mut self, key: Vec<u8>, entry: Box<Entry>) {
        let found = self.look_at(&key, &entry);
        let existing = match found {
            Ok(existing) => existing,
            Err(failure) => {
                failure.tell(self.ledger, self.display(&key));
                self.ledger.outcome(&key, Outcome::Failed, entry.size);
                return;
            }
        };
        let action = decide(&entry, existing.as_ref(), self.options.overwrite);
        if action == Action::Keep {
            self.plan.count(&entry, action);
            self.ledger.outcome(&key, Outcome::Skipped, entry.size);
            return;
        }
        if let Some(first) = self.first_name(&key, &entry) {
            self.plan.hard_links += 1;
            self.queue.push_back(Step::Link { key, first, action, size: entry.size });
            return;
        }
        self.plan.count(&entry, action);
        self.queue.push_back(Step::Make { key, entry, action });
    }

    fn link_id(&self, entry: &Entry) -> Option<LinkId> {
        let (device, inode) = entry.link_id()?;
        let content = Entry { kind: entry.kind.clone(), size: entry.size, ..Entry::default() };
        Some((device, inode, self.links.hasher().hash_one(content.to_bytes())))
    }

    /// The first restored name of a hard-linked file; None if this is the first one.
    fn first_name(&mut self, key: &[u8], entry: &Entry) -> Option<Vec<u8>> {
        use std::collections::hash_map::Entry as Slot;
        let id = self.link_id(entry)?;
        match self.links.entry(id) {
            Slot::Vacant(slot) => {
                slot.insert(LinkSource { key: key.to_vec(), names_left: entry.nlink - 1 });
                None
            }
            Slot::Occupied(mut slot) => {
                let source = slot.get_mut();
                source.names_left = source.names_left.saturating_sub(1);
                Some(if source.names_left == 0 { slot.remove().key } else { source.key.clone() })
            }
        }
    }
}

fn full_key(base: &[u8], key: &[u8]) -> Vec<u8> {
    if key.is_empty() { base.to_vec() } else { path::child_key(base, key) }
}
