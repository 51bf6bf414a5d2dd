//! Changing a tree: k changes read and write O(k log n) nodes, the others are taken over by id.

use super::builder::{Finished, Levels};
use super::node::Node;
use super::walk::{Next, Walk};
use super::{NodeSink, NodeSource, Root, Schema, TreeParams};
use crate::error::{Error, Result};

/// Applies changes in ascending key order to a tree; memory is bounded by one node for each level.
///
/// A subtree without changes is taken over as a whole wherever a node of the new tree begins exactly where it begins.
/// Behind a change, entries are copied until old and new nodes begin at the same entry again; as nodes end by
/// content, that takes one or two nodes on each level.
pub struct Editor<'a, S: Schema> {
    old: Walk<'a, S>,
    old_root: Root,
    source: &'a dyn NodeSource,
    new: Levels<'a, S>,
    last: Option<Vec<u8>>,
}

impl<'a, S: Schema> Editor<'a, S> {
    /// Starts from the tree `root`.
    pub fn new(
        root: Root,
        params: &TreeParams,
        source: &'a dyn NodeSource,
        sink: &'a mut dyn NodeSink,
    ) -> Self {
        const { assert!(S::ORDERED, "a sequence has no keys to edit by; build it anew") };
        let old = Walk::new(root, source);
        Self { old, old_root: root, source, new: Levels::new(params, sink), last: None }
    }

    /// Sets the value under a key, whether it exists or not.
    ///
    /// # Errors
    /// `Invalid` when the key is not greater than the one changed before, `LimitExceeded` for a key or value that is
    /// too long, `Damaged` when the old tree is, or the error of source or sink. Then the edit must be abandoned.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.drop_old(key)?;
        self.new.push_entry(key, value)
    }

    /// Removes a key; one that does not exist is fine.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.drop_old(key)
    }

    /// Gives the new tree's root; equal to the old one when nothing changed.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn finish(mut self) -> Result<Root> {
        if self.last.is_none() {
            return Ok(self.old_root);
        }
        self.copy_until(None)?;
        let Finished { mut root, reused } = self.new.finish()?;
        // What was the end of an old level may be all that is left: a branch with one child is no root.
        while reused && root.level > 0 {
            let node = Node::decode::<S>(&root.id, self.source.load(&root.id)?)?;
            match node.children() {
                [only] => root = Root { id: only.id, level: root.level - 1, ..root },
                _ => break,
            }
        }
        Ok(root)
    }

    fn drop_old(&mut self, key: &[u8]) -> Result<()> {
        if self.last.as_deref().is_some_and(|last| key <= last) {
            return Err(Error::Invalid(
                "the changes of a tree must come in ascending order".into(),
            ));
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend(key);
        self.copy_until(Some(key))?;
        if matches!(self.old.next(), Next::Entry { key: found, .. } if found == key) {
            self.old.step();
        }
        Ok(())
    }

    /// Copies everything less than `limit` (None: everything) and stands before the next old entry, or the end.
    fn copy_until(&mut self, limit: Option<&[u8]>) -> Result<()> {
        loop {
            match self.old.next() {
                Next::End => return Ok(()),
                Next::Entry { key, value } => {
                    if limit.is_some_and(|limit| key >= limit) {
                        return Ok(());
                    }
                    self.new.push_entry(key, value)?;
                    self.old.step();
                }
                Next::Subtree { child, level, last_key } => {
                    // The last subtree may have ended for lack of entries only: what follows may belong to it.
                    let untouched = limit.is_none_or(|limit| {
                        last_key.is_some_and(|last| last < limit) && !self.old.is_last()
                    });
                    match last_key {
                        Some(last) if untouched && self.new.at_boundary(level) => {
                            self.new.push_child(level + 1, child, last.to_vec(), true)?;
                            self.old.step();
                        }
                        _ => self.old.descend()?,
                    }
                }
            }
        }
    }
}

/// Applies `changes`, ascending by key (None removes), to the tree `root` and gives the new root.
///
/// # Errors
/// As [`Editor::put`].
pub fn edit<S: Schema>(
    root: Root,
    changes: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    params: &TreeParams,
    source: &dyn NodeSource,
    sink: &mut dyn NodeSink,
) -> Result<Root> {
    let mut editor = Editor::<S>::new(root, params, source, sink);
    for (key, value) in changes {
        match value {
            Some(value) => editor.put(&key, &value)?,
            None => editor.remove(&key)?,
        }
    }
    editor.finish()
}
