//! A place in a tree: before an entry, before a whole subtree, or at the end. Cursor, edit and diff stand on it.

use super::node::{ChildView, Node, damaged};
use super::{NodeSource, Root, Schema};
use crate::error::Result;
use crate::id::NodeId;
use std::marker::PhantomData;

/// What comes next.
pub(super) enum Next<'w> {
    /// A subtree that was not entered. The root has no known last key.
    Subtree { child: ChildView, level: u8, last_key: Option<&'w [u8]> },
    /// An entry.
    Entry { key: &'w [u8], value: &'w [u8] },
    /// Nothing.
    End,
}

/// A place in a tree and the nodes on the way to it.
pub(super) struct Walk<'a, S: Schema> {
    source: &'a dyn NodeSource,
    root: Root,
    /// From the root down; each index is the item at or under which the place lies. No frame is exhausted.
    frames: Vec<Frame>,
    ended: bool,
    visited: Option<Vec<NodeId>>,
    schema: PhantomData<S>,
}

struct Frame {
    node: Node,
    index: usize,
}

impl<'a, S: Schema> Walk<'a, S> {
    /// Stands before the root; loads nothing.
    pub fn new(root: Root, source: &'a dyn NodeSource) -> Self {
        let frames = Vec::new();
        Self { source, root, frames, ended: false, visited: None, schema: PhantomData }
    }

    /// Starts to record the ids of nodes that are loaded.
    pub fn record_visited(&mut self) {
        self.visited.get_or_insert_default();
    }

    /// The ids recorded since the last call.
    pub fn take_visited(&mut self) -> Vec<NodeId> {
        self.visited.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What comes next.
    pub fn next(&self) -> Next<'_> {
        let Some(frame) = self.frames.last() else {
            if self.ended {
                return Next::End;
            }
            let Root { id, level, entries, bytes } = self.root;
            return Next::Subtree {
                child: ChildView { id, entries, bytes },
                level,
                last_key: None,
            };
        };
        let key = frame.node.key(frame.index).expect("no frame is exhausted");
        match frame.node.level().checked_sub(1) {
            None => {
                let value = frame.node.value(frame.index).expect("no frame is exhausted");
                Next::Entry { key, value }
            }
            Some(level) => Next::Subtree { child: frame.child(), level, last_key: Some(key) },
        }
    }

    /// As [`Self::next`], but the end where all that comes is certainly not less than `until`.
    pub fn next_before(&self, until: Option<&[u8]>) -> Next<'_> {
        let Some(until) = until else { return self.next() };
        match self.next() {
            Next::Entry { key, .. } if key >= until => Next::End,
            Next::Subtree { .. } if self.lower_bound().is_some_and(|below| below >= until) => {
                Next::End
            }
            next => next,
        }
    }

    /// The id of the tree's root node.
    pub fn root_id(&self) -> NodeId {
        self.root.id
    }

    /// The entry that comes next, if it is an entry.
    #[inline]
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        let frame = self.frames.last()?;
        frame.node.key(frame.index).zip(frame.node.value(frame.index))
    }

    /// True when nothing follows what comes next.
    pub fn is_last(&self) -> bool {
        self.frames.iter().all(|frame| frame.index + 1 == frame.node.len())
    }

    /// The greatest key before this place that is known without loading: everything that comes is greater.
    pub fn lower_bound(&self) -> Option<&[u8]> {
        let started = |frame: &&Frame| frame.index > 0;
        let frame = self.frames.iter().rev().find(started)?;
        frame.node.key(frame.index - 1)
    }

    /// Steps over what comes next, a subtree as a whole.
    pub fn step(&mut self) {
        while let Some(frame) = self.frames.last_mut() {
            frame.index += 1;
            if frame.index < frame.node.len() {
                return;
            }
            self.frames.pop();
        }
        self.ended = true;
    }

    /// Goes to the end, whence nothing comes.
    pub fn end(&mut self) {
        self.frames.clear();
        self.ended = true;
    }

    /// Goes back before the first entry; the root node is kept.
    pub fn restart(&mut self) {
        self.frames.truncate(1);
        self.frames.iter_mut().for_each(|frame| frame.index = 0);
        self.ended = false;
    }

    /// Loads the subtree's top node, checks it against its parent and stands before its first item.
    ///
    /// # Errors
    /// `Damaged` when the node does not fit where it stands, or the source's error.
    pub fn descend(&mut self) -> Result<()> {
        let Next::Subtree { child, level, last_key } = self.next() else { return Ok(()) };
        let node = Node::decode::<S>(&child.id, self.source.load(&child.id)?)?;
        if let Some(detail) = misfit::<S>(&node, &child, level, last_key, self.lower_bound()) {
            return Err(damaged(&child.id, detail));
        }
        if let Some(visited) = &mut self.visited {
            visited.push(child.id);
        }
        if node.len() > 0 {
            self.frames.push(Frame { node, index: 0 });
        } else if self.frames.is_empty() {
            self.ended = true;
        } else {
            return Err(damaged(&child.id, "it is empty but not the root"));
        }
        Ok(())
    }

    /// Descends until an entry comes next, or the end.
    pub fn descend_to_entry(&mut self) -> Result<()> {
        while let Next::Subtree { .. } = self.next() {
            self.descend()?;
        }
        Ok(())
    }

    /// Stands before the first entry whose key is not less than `key`; goes forward as well as back.
    pub fn seek(&mut self, key: &[u8]) -> Result<()> {
        if self.lower_bound().is_some_and(|before| key <= before) || self.ended {
            self.restart();
        }
        self.leave_until(|node, _| node.lower_bound(key) < node.len());
        loop {
            if self.frames.is_empty() {
                self.descend()?;
            }
            let Some(frame) = self.frames.last_mut() else { return Ok(()) };
            let place = frame.node.lower_bound(key);
            if place == frame.node.len() {
                self.end();
                return Ok(());
            }
            frame.index = place;
            if frame.node.level() == 0 {
                return Ok(());
            }
            self.descend()?;
        }
    }

    /// Drops the lowest frames until one fits, but keeps the root's.
    fn leave_until(&mut self, fits: impl Fn(&Node, usize) -> bool) {
        while self.frames.len() > 1
            && self.frames.last().is_some_and(|frame| !fits(&frame.node, frame.index))
        {
            self.frames.pop();
        }
    }

    /// Stands before the entry that holds byte `position` of a sequence and gives the bytes of that entry before
    /// `position`; at the end, None.
    pub fn seek_bytes(&mut self, position: u64) -> Result<Option<u64>> {
        self.restart();
        let mut rest = position;
        loop {
            if self.frames.is_empty() {
                self.descend()?;
            }
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            let Some(index) = frame.node.item_at::<S>(&mut rest) else {
                self.end();
                return Ok(None);
            };
            frame.index = index;
            if frame.node.level() == 0 {
                return Ok(Some(rest));
            }
            self.descend()?;
        }
    }

    /// Adds up entries and weights of everything before this place, from the nodes on the way to it.
    pub fn before(&self) -> Option<(u64, u64)> {
        if self.ended && self.frames.is_empty() {
            return Some((self.root.entries, self.root.bytes));
        }
        let mut sums = (0u64, 0u64);
        for frame in &self.frames {
            let (entries, bytes) = frame.node.totals_before::<S>(frame.index)?;
            sums = (sums.0.checked_add(entries)?, sums.1.checked_add(bytes)?);
        }
        Some(sums)
    }
}

impl Frame {
    fn child(&self) -> ChildView {
        *self.node.children().get(self.index).expect("no frame is exhausted")
    }
}

/// Why a node cannot stand where its parent says, if so.
fn misfit<S: Schema>(
    node: &Node,
    child: &ChildView,
    level: u8,
    last_key: Option<&[u8]>,
    lower_bound: Option<&[u8]>,
) -> Option<&'static str> {
    if node.level() != level {
        return Some("its level is not what its parent says");
    }
    if node.totals::<S>() != Some((child.entries, child.bytes)) {
        return Some("its sums are not what its parent says");
    }
    if !S::ORDERED {
        return None;
    }
    let last = node.len().checked_sub(1).and_then(|index| node.key(index));
    if last_key.is_some() && last != last_key {
        return Some("its last key is not what its parent says");
    }
    if lower_bound.is_some() && node.key(0) <= lower_bound {
        return Some("its first key is not greater than the keys before it");
    }
    None
}
