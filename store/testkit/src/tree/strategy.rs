//! Trees for proptest, which shrink to few, plain entries.

use super::{Content, Filling, Segment, SpecKind, SpecMeta, SpecNode, SpecPath, TreeSpec};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeMap;
use stillpoint_store::Timestamp;

/// A tree of at most this many entries, with everything odd in it but foreign owners.
pub fn tree_spec(entries_max: usize) -> impl Strategy<Value = TreeSpec> {
    vec(raw(), 0..=entries_max).prop_map(build)
}

/// An entry before it is known where it goes.
#[derive(Debug, Clone)]
struct Raw {
    parent: Index,
    name: Vec<u8>,
    kind: RawKind,
    meta: SpecMeta,
}

#[derive(Debug, Clone)]
enum RawKind {
    Is(SpecKind),
    LinkTo(Index),
}

fn raw() -> impl Strategy<Value = Raw> {
    (any::<Index>(), name(), kind(), meta()).prop_map(|(parent, name, kind, meta)| Raw {
        parent,
        name,
        kind,
        meta,
    })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let plain = "[a-c]{1,2}".prop_map(String::into_bytes);
    let byte = any::<u8>().prop_map(|byte| if byte == 0 || byte == b'/' { b'_' } else { byte });
    let odd = prop_oneof![4 => vec(byte, 1..12), 1 => Just(vec![b'n'; 255])];
    prop_oneof![3 => plain, 2 => odd].prop_map(|name| match name.as_slice() {
        b"." | b".." => b"dots".to_vec(),
        _ => name,
    })
}

fn kind() -> impl Strategy<Value = RawKind> {
    let target = vec(1u8.., 1..40);
    prop_oneof![
        5 => content().prop_map(|content| RawKind::Is(SpecKind::File(content))),
        3 => Just(RawKind::Is(SpecKind::Directory)),
        1 => target.prop_map(|target| RawKind::Is(SpecKind::Symlink(target))),
        1 => Just(RawKind::Is(SpecKind::Fifo)),
        1 => any::<Index>().prop_map(RawKind::LinkTo),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let filling = prop_oneof![
        any::<u64>().prop_map(Filling::Text),
        any::<u64>().prop_map(Filling::Noise),
        any::<u64>().prop_map(Filling::Pattern),
        Just(Filling::Zeros),
    ];
    let data = (prop_oneof![8 => 0u64..5000, 1 => 0u64..300_000], filling);
    let segment = prop_oneof![
        4 => data.prop_map(|(len, filling)| Segment { len, filling }),
        1 => (0u64..64).prop_map(|pages| Segment { len: pages * 4096, filling: Filling::Hole }),
    ];
    vec(segment, 0..4).prop_map(|segments| Content { segments })
}

fn meta() -> impl Strategy<Value = SpecMeta> {
    let seconds =
        prop_oneof![3 => 1_500_000_000i64..1_700_000_000, 1 => -2_000_000_000i64..8_000_000_000];
    let mtime =
        (seconds, 0u32..1_000_000_000).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos });
    let name = "user\\.[a-z]{1,8}".prop_map(String::into_bytes);
    let xattrs = prop_oneof![
        4 => Just(BTreeMap::new()),
        1 => btree_map(name, vec(any::<u8>(), 0..60), 1..3),
    ];
    // The owner may always read, or a test without root could not.
    (0u32..0o10000, mtime, xattrs).prop_map(|(mode, mtime, xattrs)| {
        let mode = mode | 0o400;
        SpecMeta { mode, mtime, owner: None, xattrs }
    })
}

fn build(raw: Vec<Raw>) -> TreeSpec {
    let mut directories: Vec<SpecPath> = vec![Vec::new()];
    let mut files: Vec<SpecPath> = Vec::new();
    let mut nodes = BTreeMap::new();
    for Raw { parent, name, kind, mut meta } in raw {
        let mut path = parent.get(&directories).clone();
        path.push(name);
        let kind = match kind {
            RawKind::Is(kind) => kind,
            RawKind::LinkTo(_) if files.is_empty() => continue,
            RawKind::LinkTo(index) => SpecKind::HardLink(index.get(&files).clone()),
        };
        if nodes.contains_key(&path) {
            continue;
        }
        match &kind {
            SpecKind::Directory => {
                directories.push(path.clone());
                meta.mode |= 0o700;
            }
            SpecKind::File(_) => files.push(path.clone()),
            _ => meta.xattrs.clear(),
        }
        nodes.insert(path, SpecNode { kind, meta });
    }
    TreeSpec { nodes }
}
