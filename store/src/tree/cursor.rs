//! Reading a tree in order: open, look up, iterate, seek.

use super::walk::Walk;
use super::{NodeSource, Root, Schema};
use crate::error::Result;
use crate::id::NodeId;
use std::marker::PhantomData;

/// A tree that can be read. Opening it loads nothing.
pub struct Tree<'a, S: Schema> {
    root: Root,
    source: &'a dyn NodeSource,
    schema: PhantomData<S>,
}

impl<S: Schema> Clone for Tree<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Schema> Copy for Tree<'_, S> {}

impl<'a, S: Schema> Tree<'a, S> {
    /// The tree with this root.
    pub fn open(root: Root, source: &'a dyn NodeSource) -> Self {
        Self { root, source, schema: PhantomData }
    }

    /// The tree's root.
    pub fn root(&self) -> Root {
        self.root
    }

    /// The value under a key; loads one node of each level.
    ///
    /// # Errors
    /// `Damaged` when a node cannot be read or does not fit where it stands, or the source's error.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut walk = Walk::<S>::new(self.root, self.source);
        walk.seek(key)?;
        let found = walk.entry().filter(|(found, _)| *found == key);
        Ok(found.map(|(_, value)| value.to_vec()))
    }

    /// A cursor that has loaded nothing yet: [`Cursor::peek`] gives None until a seek has placed it.
    pub fn cursor(&self) -> Cursor<'a, S> {
        Cursor { walk: Walk::new(self.root, self.source), until: None }
    }

    /// A cursor before the first entry.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn iter(&self) -> Result<Cursor<'a, S>> {
        let mut walk = Walk::new(self.root, self.source);
        walk.descend_to_entry()?;
        Ok(Cursor { walk, until: None })
    }

    /// A cursor before the first entry whose key is not less than `from`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn range_from(&self, from: &[u8]) -> Result<Cursor<'a, S>> {
        self.range(from, None)
    }

    /// A cursor over the entries with `from <= key < until`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn range(&self, from: &[u8], until: Option<&[u8]>) -> Result<Cursor<'a, S>> {
        let mut walk = Walk::new(self.root, self.source);
        walk.seek(from)?;
        Ok(Cursor { walk, until: until.map(<[u8]>::to_vec) })
    }

    /// A cursor before the entry of a sequence that holds byte `position`, and the bytes of that entry that lie
    /// before it; None when the sequence is shorter. Loads one node of each level.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn seek_bytes(&self, position: u64) -> Result<Option<(Cursor<'a, S>, u64)>> {
        let mut walk = Walk::new(self.root, self.source);
        let rest = walk.seek_bytes(position)?;
        Ok(rest.map(|rest| (Cursor { walk, until: None }, rest)))
    }
}

/// A place before an entry. After an error the cursor is at its end.
pub struct Cursor<'a, S: Schema> {
    walk: Walk<'a, S>,
    until: Option<Vec<u8>>,
}

impl<S: Schema> Cursor<'_, S> {
    /// The entry that comes next, as (key, value), or None at the end.
    #[inline]
    pub fn peek(&self) -> Option<(&[u8], &[u8])> {
        let entry = self.walk.entry()?;
        match &self.until {
            Some(until) if entry.0 >= until.as_slice() => None,
            _ => Some(entry),
        }
    }

    /// Steps over the next entry.
    ///
    /// # Errors
    /// `Damaged` when a node cannot be read or does not fit where it stands, or the source's error.
    pub fn advance(&mut self) -> Result<()> {
        self.walk.step();
        let result = self.walk.descend_to_entry();
        self.settle(result)
    }

    /// Gives the next entry, copied, and steps over it.
    ///
    /// # Errors
    /// As [`Self::advance`].
    #[allow(clippy::should_implement_trait, reason = "the error stands outside of the option")]
    pub fn next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some((key, value)) = self.peek() else { return Ok(None) };
        let entry = (key.to_vec(), value.to_vec());
        self.advance()?;
        Ok(Some(entry))
    }

    /// Goes, forward or back, before the first entry whose key is not less than `key`.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn seek(&mut self, key: &[u8]) -> Result<()> {
        let result = self.walk.seek(key);
        self.settle(result)
    }

    /// As [`Tree::seek_bytes`], for this cursor.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn seek_bytes(&mut self, position: u64) -> Result<Option<u64>> {
        let result = self.walk.seek_bytes(position);
        let rest = *result.as_ref().unwrap_or(&None);
        self.settle(result.map(|_| ()))?;
        Ok(rest)
    }

    /// From now on remembers the ids of the nodes that are loaded.
    pub fn record_visited_nodes(&mut self) {
        self.walk.record_visited();
    }

    /// The nodes loaded since the last call, in order of loading; none before [`Self::record_visited_nodes`].
    pub fn take_visited_nodes(&mut self) -> Vec<NodeId> {
        self.walk.take_visited()
    }

    fn settle(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.walk.end();
        }
        result
    }
}
