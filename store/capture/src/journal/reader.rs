//! Reads the queue: each event becomes paths and trees of the growing change set.
//!
//! Owns the rules what an event means. Everything is decided when the event is read, which may be later than when it
//! happened; whatever changed in between has an event of its own further on.

use super::cookie::Cookie;
use super::fanotify::Group;
use super::fold::Fold;
use super::handles::{Filesystems, Found, Object};
use super::mounts::MountTable;
use super::records::{self, Event, Handle, mask};
use super::scope::Scope;
use super::{ChangeSet, Gap, marks};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that are read from the queue at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Events that are remembered so that their repeats cost nothing; beyond this all are forgotten.
const REPEATS_MAX: usize = 65_536;

/// Everything that reading needs.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) group: Arc<Group>,
    pub(super) filesystems: Filesystems,
    pub(super) scope: Scope,
    pub(super) fold: Fold,
    pub(super) cookie: Cookie,
    pub(super) mounts: MountTable,
    /// Places below the roots whose file system has no mark, and why.
    pub(super) unmarked: BTreeMap<Vec<u8>, String>,
    /// Whether what is mounted below the roots counts, too.
    pub(super) crosses_mounts: bool,
    pub(super) repeats: HashSet<Vec<u8>>,
    pub(super) buffer: Vec<u8>,
}

impl Reader {
    /// A buffer for [`Self::read`].
    pub(super) fn buffer() -> Vec<u8> {
        vec![0; BUFFER_BYTES]
    }

    /// Takes what the queue has, at most one buffer of it. False when it is empty.
    ///
    /// # Errors
    /// What the kernel gives but for an empty queue.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.group.read(&mut buffer);
        if let Ok(len) = result {
            for event in records::events(buffer.get(..len).unwrap_or_default()) {
                match event {
                    Ok(event) => self.event(&event),
                    Err(error) => self.fold.gap(Gap::Unreadable(error.to_string())),
                }
            }
        }
        self.buffer = buffer;
        match result {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads on until the last cookie was seen; false when it cannot be in the queue any more, or it takes too long.
    pub(super) fn read_to_cookie(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        while !self.cookie.is_seen() {
            // The event was queued before the call that created the cookie came back.
            if !self.read().unwrap_or(false) || begun.elapsed() > limit {
                return self.cookie.is_seen();
            }
        }
        true
    }

    /// Looks at the mounts again if they changed; what came or went is looked at whole.
    pub(super) fn follow_mounts(&mut self, always: bool) {
        match self.mounts.changed() {
            Ok(false) if !always => return,
            Ok(_) => {}
            Err(error) => return self.fold.gap(Gap::Unreadable(error.to_string())),
        }
        match marks::follow(self) {
            Ok(moved) => moved.iter().for_each(|real| {
                let keys: Vec<_> = self.scope.keys(real).collect();
                keys.into_iter().for_each(|key| self.fold.tree(key, self.scope.roots()));
            }),
            Err(error) => self.fold.gap(Gap::Unreadable(error.to_string())),
        }
    }

    /// Gives what was gathered and begins anew.
    pub(super) fn take(&mut self) -> ChangeSet {
        self.repeats.clear();
        if let Some((place, why)) = self.unmarked.first_key_value() {
            let place = stillpoint_archive::path::path_from_key(place);
            self.fold.gap(Gap::Unmarked(format!("{}: {why}", place.display())));
        }
        self.fold.take()
    }

    fn event(&mut self, event: &Event<'_>) {
        if event.has(mask::OVERFLOW) {
            return self.fold.gap(Gap::Overflow);
        }
        self.cookie.watch(event);
        let is_directory = event.has(mask::ONDIR);
        if is_directory && event.has(mask::MOVES) {
            self.filesystems.forget_directories();
            if self.filesystems.has_parts() {
                self.follow_mounts(true);
            }
        }
        if self.is_repeat(event) {
            return;
        }
        let name = self.named(event);
        if let Some(object) = event.object.filter(|_| !is_directory) {
            let found = self.filesystems.object(&object);
            self.object(found, name);
        }
    }

    /// Whether the same was read since the last drain: everything that it says is in the set, or covered by a tree.
    fn is_repeat(&mut self, event: &Event<'_>) -> bool {
        let mut key = Vec::with_capacity(128);
        key.push(u8::from(event.has(mask::ONDIR)) << 1 | u8::from(event.has(mask::NAMES)));
        let mut add = |handle: &Handle<'_>| {
            key.extend(handle.filesystem.to_ne_bytes());
            key.extend(handle.kind.to_ne_bytes());
            key.extend(handle.bytes.len().to_ne_bytes());
            key.extend(handle.bytes);
        };
        event.directory.iter().for_each(&mut add);
        event.object.iter().for_each(&mut add);
        key.extend(event.name);
        if self.repeats.len() >= REPEATS_MAX {
            self.repeats.clear();
        }
        !self.repeats.insert(key)
    }

    /// Notes the name that the event is about; gives its inner key if it is near the roots.
    fn named(&mut self, event: &Event<'_>) -> Option<(usize, Vec<u8>)> {
        let found = self.filesystems.directory(event.directory.as_ref()?, &self.scope);
        let (filesystem, directory) = match found {
            Ok(Found::At(filesystem, inner)) => (filesystem, inner),
            // What was in a directory that is gone went with it; the tree it was in is named by its parent's event.
            Ok(Found::Gone | Found::Outside) => return None,
            Ok(Found::Below(filesystem, inner)) => {
                self.tree(filesystem, &inner);
                return None;
            }
            Err(error) => {
                self.fold.gap(Gap::Unreadable(format!("where a directory is: {error}")));
                return None;
            }
        };
        if event.name.is_empty() || event.name == b"." {
            self.path(filesystem, &directory);
            return None;
        }
        let inner = stillpoint_archive::path::child_key(&directory, event.name);
        if event.has(mask::NAMES) {
            // The directory that holds the name changed, too.
            self.path(filesystem, &directory);
        }
        // What is below a directory that came or went may have no event, or none that can be resolved any more.
        if event.has(mask::NAMES) && event.has(mask::ONDIR) {
            self.tree(filesystem, &inner);
        } else {
            self.path(filesystem, &inner);
        }
        Some((filesystem, inner))
    }

    /// Notes what the inode of an event needs beyond the name that the event came with.
    pub(super) fn object(
        &mut self,
        found: io::Result<Option<Object>>,
        expected: Option<(usize, Vec<u8>)>,
    ) {
        let object = match found {
            Ok(Some(object)) => object,
            Ok(None) => return,
            Err(error) => {
                return self.fold.gap(Gap::Unreadable(format!("where a file is: {error}")));
            }
        };
        if object.links > 1 {
            self.fold.linked(object.inode);
        }
        if let Some(name) = &object.name {
            if expected.as_ref().is_none_or(|(_, inner)| inner != name) {
                self.path(object.filesystem, name);
            }
            return;
        }
        // The kernel knows no name at the moment: is it still the one of the event?
        let is_there = expected.is_some_and(|(filesystem, inner)| {
            self.filesystems.look(filesystem, &inner) == Some(object.inode)
        });
        if !is_there {
            self.fold.linked(object.inode);
        }
    }

    fn path(&mut self, filesystem: usize, inner: &[u8]) {
        for key in self.filesystems.keys(filesystem, inner, &self.scope) {
            self.fold.path(key, self.scope.roots());
        }
    }

    fn tree(&mut self, filesystem: usize, inner: &[u8]) {
        for key in self.filesystems.keys(filesystem, inner, &self.scope) {
            self.fold.tree(key, self.scope.roots());
        }
    }
}
