//! Building a tree from the bottom: nodes under construction, one for each level.

use super::node::{ChildView, encode, put_child, put_key, shared_length};
use super::params::{BoundaryRule, Fill};
use super::{NodeSink, Root, Schema, TreeParams};
use crate::error::{Error, Result};
use crate::limits::{TREE_KEY_BYTES_MAX, TREE_LEVEL_MAX, TREE_VALUE_BYTES_MAX};
use crate::tree::codec::put_length;
use std::marker::PhantomData;
use stillpoint_chunker::ChunkId;

/// Builds a tree from its entries in order; memory is bounded by one node for each level.
pub struct Builder<'a, S: Schema> {
    levels: Levels<'a, S>,
}

impl<'a, S: Schema> Builder<'a, S> {
    /// Starts an empty tree.
    pub fn new(params: &TreeParams, sink: &'a mut dyn NodeSink) -> Self {
        Self { levels: Levels::new(params, sink) }
    }

    /// Appends an entry. Keys ascend strictly; in a sequence they are empty.
    ///
    /// # Errors
    /// `Invalid` for a key out of order, `LimitExceeded` for a key or value that is too long, or the sink's error.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.levels.push_entry(key, value)
    }

    /// Writes what is pending and gives the root.
    ///
    /// # Errors
    /// The sink's error.
    pub fn finish(self) -> Result<Root> {
        Ok(self.levels.finish()?.root)
    }
}

/// A finished tree.
pub(super) struct Finished {
    pub root: Root,
    /// The root node was not built here but taken over from another tree.
    pub reused: bool,
}

/// The nodes under construction of all levels.
pub(super) struct Levels<'a, S: Schema> {
    params: TreeParams,
    sink: &'a mut dyn NodeSink,
    levels: Vec<Level>,
    schema: PhantomData<S>,
}

/// The node under construction at one level.
struct Level {
    number: u8,
    rule: BoundaryRule,
    body: Vec<u8>,
    items: u64,
    keys: usize,
    /// The key added last, also when its node has ended.
    last_key: Option<Vec<u8>>,
    entries: u64,
    bytes: u64,
    references: Vec<ChunkId>,
    /// The first child of the node, and whether it comes from another tree.
    first: Option<(ChildView, bool)>,
}

impl<'a, S: Schema> Levels<'a, S> {
    pub fn new(params: &TreeParams, sink: &'a mut dyn NodeSink) -> Self {
        let leaves = Level::new::<S>(params, 0);
        Self { params: params.clone(), sink, levels: vec![leaves], schema: PhantomData }
    }

    /// True when a node of the given level, taken over whole, would stand exactly where a new one would begin.
    pub fn at_boundary(&self, level: u8) -> bool {
        self.levels.iter().take(usize::from(level) + 1).all(|level| level.items == 0)
    }

    pub fn push_entry(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_length("key", key.len(), TREE_KEY_BYTES_MAX)?;
        check_length("value", value.len(), TREE_VALUE_BYTES_MAX)?;
        let leaf = self.levels.first_mut().expect("there is always a leaf level");
        let before = leaf.body.len();
        leaf.add_key(key, S::ORDERED)?;
        put_length(&mut leaf.body, value.len());
        leaf.body.extend(value);
        S::references(key, value, &mut leaf.references)?;
        leaf.add_totals(1, S::weight(key, value))?;
        if leaf.ends(before, if S::ORDERED { key } else { value }) {
            let (child, key) = self.end_node(0)?;
            self.push_child(1, child, key, false)?;
        }
        Ok(())
    }

    /// Appends a whole subtree to the nodes of `level` (its parent's level); `reused` when it was not built here.
    pub fn push_child(
        &mut self,
        mut level: u8,
        mut child: ChildView,
        mut key: Vec<u8>,
        mut reused: bool,
    ) -> Result<()> {
        loop {
            while self.levels.len() <= usize::from(level) {
                let next = u8::try_from(self.levels.len()).expect("levels are few");
                check_length("level", next.into(), TREE_LEVEL_MAX.into())?;
                self.levels.push(Level::new::<S>(&self.params, next));
            }
            let node = self.level_mut(level);
            let before = node.body.len();
            node.add_key(&key, S::ORDERED)?;
            put_child(&mut node.body, &child);
            node.references.push(child.id);
            node.add_totals(child.entries, child.bytes)?;
            node.first.get_or_insert((child, reused));
            let hashed: &[u8] = if S::ORDERED { &key } else { child.id.as_bytes() };
            if !node.ends(before, hashed) {
                return Ok(());
            }
            (child, key) = self.end_node(level)?;
            reused = false;
            level += 1;
        }
    }

    fn level_mut(&mut self, level: u8) -> &mut Level {
        self.levels.get_mut(usize::from(level)).expect("the level was made before")
    }

    /// Stores the pending node of a level and begins the next one.
    fn end_node(&mut self, level: u8) -> Result<(ChildView, Vec<u8>)> {
        let node = self.levels.get_mut(usize::from(level)).expect("the level was made before");
        let bytes = encode::<S>(level, node.items, &node.body);
        node.references.sort_unstable();
        node.references.dedup();
        let id = self.sink.store(bytes, &node.references)?;
        let child = ChildView { id, entries: node.entries, bytes: node.bytes };
        let key = node.last_key.clone().unwrap_or_default();
        node.clear();
        Ok((child, key))
    }

    /// Ends all pending nodes, lowest first, until one is left: the root.
    pub fn finish(mut self) -> Result<Finished> {
        let mut level = 0u8;
        loop {
            let topmost = self.levels.len() == usize::from(level) + 1;
            let node = self.level_mut(level);
            if let (true, 1, Some((child, reused))) = (topmost, node.items, node.first) {
                return Ok(finished(child, level - 1, reused));
            }
            let items = node.items;
            if topmost {
                let (child, _) = self.end_node(level)?;
                return Ok(finished(child, level, false));
            }
            if items > 0 {
                let (child, key) = self.end_node(level)?;
                self.push_child(level + 1, child, key, false)?;
            }
            level += 1;
        }
    }
}

fn finished(child: ChildView, level: u8, reused: bool) -> Finished {
    let ChildView { id, entries, bytes } = child;
    Finished { root: Root { id, level, entries, bytes }, reused }
}

impl Level {
    fn new<S: Schema>(params: &TreeParams, number: u8) -> Self {
        Self {
            number,
            rule: BoundaryRule::new(params, S::NAME, number),
            body: Vec::new(),
            items: 0,
            keys: 0,
            last_key: None,
            entries: 0,
            bytes: 0,
            references: Vec::new(),
            first: None,
        }
    }

    /// Counts an item and, in an ordered tree, writes its key.
    fn add_key(&mut self, key: &[u8], ordered: bool) -> Result<()> {
        if !ordered {
            if !key.is_empty() {
                return Err(Error::Invalid("an entry of a sequence has no key".into()));
            }
            self.items += 1;
            return Ok(());
        }
        let shared = match &self.last_key {
            Some(last) => {
                let shared = shared_length(last, key);
                if key.get(shared) <= last.get(shared) {
                    return Err(out_of_order(self.number));
                }
                shared
            }
            None => 0,
        };
        put_key(&mut self.body, if self.items == 0 { 0 } else { shared }, key);
        let last = self.last_key.get_or_insert_default();
        last.truncate(shared);
        last.extend(key.get(shared..).expect("shared is part of the key"));
        self.keys += key.len();
        self.items += 1;
        Ok(())
    }

    fn add_totals(&mut self, entries: u64, bytes: u64) -> Result<()> {
        let too_much = || Error::Invalid("the entries of a tree weigh more than 2^64 bytes".into());
        self.entries = self.entries.checked_add(entries).ok_or_else(too_much)?;
        self.bytes = self.bytes.checked_add(bytes).ok_or_else(too_much)?;
        Ok(())
    }

    /// True when the node ends after the item that was added when the body had `before` bytes.
    fn ends(&self, before: usize, hashed: &[u8]) -> bool {
        let size = self.body.len();
        let fill = Fill { items: self.items, size, keys: self.keys, added: size - before };
        self.rule.ends(&fill, hashed)
    }

    fn clear(&mut self) {
        self.body.clear();
        self.references.clear();
        self.first = None;
        (self.items, self.keys, self.entries, self.bytes) = (0, 0, 0, 0);
    }
}

fn out_of_order(level: u8) -> Error {
    Error::Invalid(format!("tree keys must ascend (level {level})"))
}

fn check_length(what: &'static str, found: usize, limit: usize) -> Result<()> {
    if found <= limit {
        return Ok(());
    }
    let [found, limit] = [found, limit].map(|length| u64::try_from(length).unwrap_or(u64::MAX));
    Err(Error::LimitExceeded { object: "tree entry".into(), what, found, limit })
}
