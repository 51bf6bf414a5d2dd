//! One node: its bytes, decoding and checks.
//!
//! Layout: version, level, flags (bit 0: ordered), length and text of the schema name, varint count, items; nothing
//! after them. A key is (length shared with the key before it, length of the rest) ... rest; the shared length is the
//! longest possible, so that a set of items has one encoding. Leaf item: key (ordered only), length and bytes of the
//! value. Branch item: last key of the child (ordered only), child id, entries, bytes.

use super::codec::{Fields, put_length, put_varint};
use super::{NodeBytes, Schema};
use crate::error::{Error, Result};
use crate::id::NodeId;
use crate::limits::{
    NODE_BYTES_MAX, NODE_KEYS_BYTES_MAX, SCHEMA_NAME_BYTES_MAX, TREE_KEY_BYTES_MAX, TREE_LEVEL_MAX,
    TREE_VALUE_BYTES_MAX,
};
use std::ops::Range;
use stillpoint_chunker::ChunkId;

/// The only version of the node layout so far.
const NODE_VERSION: u8 = 1;
/// Flag: keys are present and ascending.
const FLAG_ORDERED: u8 = 1;

/// A child of a branch: its id and the aggregates of its subtree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildView {
    /// The child node.
    pub id: NodeId,
    /// Entries below it.
    pub entries: u64,
    /// Sum of the weights below it.
    pub bytes: u64,
}

/// What a node says about itself without its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// The schema's name.
    pub schema: String,
    /// True when entries have keys in ascending order.
    pub ordered: bool,
    /// 0 for a leaf; children of a branch are one level lower.
    pub level: u8,
    /// Items in this node: entries of a leaf, children of a branch.
    pub items: u64,
    /// The children of a branch; empty for a leaf.
    pub children: Vec<ChildView>,
}

/// A decoded node. Keys are written out in full, one after the other, so that any of them can be borrowed.
pub(super) struct Node {
    data: NodeBytes,
    level: u8,
    keys: Vec<u8>,
    key_ends: Vec<usize>,
    values: Vec<Range<usize>>,
    children: Vec<ChildView>,
}

struct Header<'a> {
    level: u8,
    ordered: bool,
    schema: &'a str,
    items: usize,
}

/// The node layout's header and items in front of which `body` was collected.
pub(super) fn encode<S: Schema>(level: u8, items: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(S::NAME.len() + 16 + body.len());
    out.extend([NODE_VERSION, level, if S::ORDERED { FLAG_ORDERED } else { 0 }]);
    out.push(u8::try_from(S::NAME.len()).expect("schema names are short"));
    out.extend(S::NAME.as_bytes());
    put_varint(&mut out, items);
    out.extend(body);
    out
}

/// Appends a key that shares its first `shared` bytes with the key before it.
pub(super) fn put_key(body: &mut Vec<u8>, shared: usize, key: &[u8]) {
    let rest = key.get(shared..).expect("shared is part of the key");
    put_length(body, shared);
    put_length(body, rest.len());
    body.extend(rest);
}

/// Appends the id and aggregates of a child.
pub(super) fn put_child(body: &mut Vec<u8>, child: &ChildView) {
    body.extend(child.id.as_bytes());
    put_varint(body, child.entries);
    put_varint(body, child.bytes);
}

/// How many bytes two keys have in common at the front.
pub(super) fn shared_length(a: &[u8], b: &[u8]) -> usize {
    // Eight bytes at a time; one by one it would cost more than hashing the key.
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let whole = 8 * words.take_while(|(left, right)| left == right).count();
    let rest = a.iter().zip(b).skip(whole);
    whole + rest.take_while(|(left, right)| left == right).count()
}

type Parse<T> = std::result::Result<T, &'static str>;

fn parse_header<'a>(fields: &mut Fields<'a>) -> Parse<Header<'a>> {
    let short = "its header is cut short";
    let level = fields.byte().ok_or(short)?;
    if level > TREE_LEVEL_MAX {
        return Err("its level is beyond the limit");
    }
    let flags = fields.byte().ok_or(short)?;
    if flags & !FLAG_ORDERED != 0 {
        return Err("it has unknown flags");
    }
    let name_length = usize::from(fields.byte().ok_or(short)?);
    if name_length > SCHEMA_NAME_BYTES_MAX {
        return Err("its schema name is too long");
    }
    let name = fields.take(name_length).ok_or(short)?;
    let schema = std::str::from_utf8(name).map_err(|_| "its schema name is not text")?;
    let items = fields.length().ok_or(short)?;
    // Every item takes a byte at least, so a count beyond the bytes is refused before anything is allocated for it.
    if items > fields.remaining() {
        return Err("it counts more items than it has bytes");
    }
    if level > 0 && items == 0 {
        return Err("it is a branch without children");
    }
    Ok(Header { level, ordered: flags & FLAG_ORDERED != 0, schema, items })
}

impl Node {
    /// Decodes and checks all that can be checked without the parent.
    pub fn decode<S: Schema>(id: &NodeId, data: NodeBytes) -> Result<Self> {
        let (schema, ordered, node) = Self::parse(id, data)?;
        if schema != S::NAME || ordered != S::ORDERED {
            let detail = format!("it belongs to a tree named {schema:?}, not {:?}", S::NAME);
            return Err(damaged(id, detail));
        }
        Ok(node)
    }

    fn parse(id: &NodeId, data: NodeBytes) -> Result<(String, bool, Self)> {
        let bytes: &[u8] = &data;
        if bytes.len() > NODE_BYTES_MAX {
            return Err(Error::LimitExceeded {
                object: format!("tree node {id}"),
                what: "length",
                found: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                limit: u64::try_from(NODE_BYTES_MAX).unwrap_or(u64::MAX),
            });
        }
        let mut fields = Fields::new(bytes);
        match fields.byte() {
            Some(NODE_VERSION) => {}
            Some(found) if found > NODE_VERSION => {
                return Err(Error::Unsupported {
                    object: format!("tree node {id}"),
                    found: found.into(),
                    supported: NODE_VERSION.into(),
                });
            }
            _ => return Err(damaged(id, "it has no valid version")),
        }
        let header = parse_header(&mut fields).map_err(|detail| damaged(id, detail))?;
        let (schema, ordered) = (header.schema.to_owned(), header.ordered);
        let mut node = Self {
            data: data.clone(),
            level: header.level,
            keys: Vec::new(),
            key_ends: Vec::new(),
            values: Vec::new(),
            children: Vec::new(),
        };
        node.parse_items(&header, &mut fields).map_err(|detail| damaged(id, detail))?;
        if !fields.is_empty() {
            return Err(damaged(id, "bytes follow its last item"));
        }
        Ok((schema, ordered, node))
    }

    fn parse_items(&mut self, header: &Header<'_>, fields: &mut Fields<'_>) -> Parse<()> {
        if header.ordered {
            self.key_ends.reserve_exact(header.items);
            self.keys.reserve(fields.remaining());
        }
        if header.level == 0 {
            self.values.reserve_exact(header.items);
        } else {
            self.children.reserve_exact(header.items);
        }
        let mut start = 0;
        for index in 0..header.items {
            if header.ordered {
                start = self.parse_key(fields, start, index == 0)?;
            }
            if header.level == 0 {
                let length = fields.length().ok_or("a value's length is malformed")?;
                if length > TREE_VALUE_BYTES_MAX {
                    return Err("a value is longer than the limit");
                }
                fields.take(length).ok_or("a value is cut short")?;
                self.values.push(fields.offset() - length..fields.offset());
            } else {
                self.children.push(parse_child(fields).ok_or("a child is cut short")?);
            }
        }
        Ok(())
    }

    /// Appends the next key to `keys`; `previous` is where the key before it starts. Gives where this one starts.
    fn parse_key(&mut self, fields: &mut Fields<'_>, previous: usize, first: bool) -> Parse<usize> {
        let shared = fields.length().ok_or("a key's shared length is malformed")?;
        let length = fields.length().ok_or("a key's length is malformed")?;
        let rest = fields.take(length).ok_or("a key is cut short")?;
        let start = self.keys.len();
        let before = self.keys.get(previous..).expect("an earlier key starts inside");
        if shared > before.len() {
            return Err("a key shares more than the key before it has");
        }
        // The shared part is maximal, so the first byte after it alone decides the order.
        let ascending = first || rest.first() > before.get(shared);
        if !ascending {
            return Err("its keys are not in ascending order");
        }
        let total = shared.saturating_add(length);
        if total > TREE_KEY_BYTES_MAX || start >= NODE_KEYS_BYTES_MAX {
            return Err("its keys are longer than the limit");
        }
        self.keys.extend_from_within(previous..previous + shared);
        self.keys.extend_from_slice(rest);
        self.key_ends.push(self.keys.len());
        Ok(start)
    }

    /// 0 for a leaf.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        if self.level == 0 { self.values.len() } else { self.children.len() }
    }

    /// The key of an entry, or the last key of a child; empty in a sequence.
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        if self.key_ends.is_empty() {
            return (index < self.len()).then_some(&[]);
        }
        let end = *self.key_ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.key_ends.get(before)?,
            None => 0,
        };
        self.keys.get(start..end)
    }

    /// The value of a leaf's entry.
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        self.data.get(self.values.get(index)?.clone())
    }

    /// The children of a branch.
    pub fn children(&self) -> &[ChildView] {
        &self.children
    }

    /// The first item whose key is not less than `key`, or [`Self::len`].
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.key_ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle).is_some_and(|found| found < key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Entries and weight of everything below, or None when the sums overflow.
    pub fn totals<S: Schema>(&self) -> Option<(u64, u64)> {
        self.totals_before::<S>(self.len())
    }

    /// Entries and weight below the first `end` items, or None when the sums overflow.
    pub fn totals_before<S: Schema>(&self, end: usize) -> Option<(u64, u64)> {
        let (mut entries, mut bytes) = (0u64, 0u64);
        for index in 0..end {
            let (more_entries, more_bytes) = self.item_totals::<S>(index)?;
            entries = entries.checked_add(more_entries)?;
            bytes = bytes.checked_add(more_bytes)?;
        }
        Some((entries, bytes))
    }

    /// The item that holds byte `rest`, which becomes relative to that item; None when all items end before it.
    pub fn item_at<S: Schema>(&self, rest: &mut u64) -> Option<usize> {
        for index in 0..self.len() {
            let (_, bytes) = self.item_totals::<S>(index)?;
            if *rest < bytes {
                return Some(index);
            }
            *rest -= bytes;
        }
        None
    }

    fn item_totals<S: Schema>(&self, index: usize) -> Option<(u64, u64)> {
        if self.level == 0 {
            return Some((1, S::weight(self.key(index)?, self.value(index)?)));
        }
        self.children.get(index).map(|child| (child.entries, child.bytes))
    }
}

fn parse_child(fields: &mut Fields<'_>) -> Option<ChildView> {
    let id = NodeId::from_bytes(fields.array()?);
    Some(ChildView { id, entries: fields.varint()?, bytes: fields.varint()? })
}

/// `detail` says what is wrong with the node, as a clause about "it".
pub(super) fn damaged(id: &NodeId, detail: impl ToString) -> Error {
    Error::damaged(format!("tree node {id}"), detail)
}

/// Reads one node without knowing its schema; `id` is for messages.
///
/// # Errors
/// `Damaged` or `LimitExceeded` when the bytes are not a node, `Unsupported` for a newer layout.
pub fn children(id: &NodeId, data: &NodeBytes) -> Result<NodeView> {
    let (schema, ordered, node) = Node::parse(id, data.clone())?;
    let items = u64::try_from(node.len()).expect("bounded by the node's length");
    Ok(NodeView { schema, ordered, level: node.level, items, children: node.children })
}

/// All that one node refers to, sorted, each id once: children of a branch, chunks of a leaf's entries.
///
/// # Errors
/// As [`children`], and `Damaged` when the node belongs to another schema.
pub fn node_references<S: Schema>(id: &NodeId, data: &NodeBytes) -> Result<Vec<ChunkId>> {
    let node = Node::decode::<S>(id, data.clone())?;
    let mut out: Vec<ChunkId> = node.children.iter().map(|child| child.id).collect();
    for index in 0..node.values.len() {
        let item = node.key(index).zip(node.value(index));
        let (key, value) = item.expect("index is below the count");
        S::references(key, value, &mut out)?;
    }
    out.sort_unstable();
    out.dedup();
    Ok(out)
}
