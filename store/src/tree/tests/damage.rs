//! Whatever the bytes of a node are: an error that names it, never a panic, never more memory than the limits.

use super::super::codec::{Fields, put_varint};
use super::super::{children, diff, edit, node_references, range_aggregate};
use super::*;
use crate::error::Error;
use crate::id::NodeId;
use crate::tree::NodeSource;
use proptest::collection::vec;
use proptest::prelude::*;

/// Runs every reader over the tree; gives the first error.
fn read_all(root: Root, other: Root, nodes: &MemoryNodes) -> Result<()> {
    let tree = Tree::<Map>::open(root, nodes);
    let mut cursor = tree.iter()?;
    while cursor.peek().is_some() {
        cursor.advance()?;
    }
    tree.get(b"home\0user\0project-000003")?;
    range_aggregate::<Map>(root, b"home", Some(b"home\0user\0project-000004"), nodes)?;
    diff::<Map>(root, other, nodes, nodes).collect::<Result<Vec<_>>>()?;
    let change = [(b"home\0user\0project-000002~".to_vec(), Some(vec![1]))];
    edit::<Map>(root, change, &small(), nodes, &mut &*nodes)?;
    Ok(())
}

fn level_of(id: &NodeId, nodes: &MemoryNodes) -> u8 {
    children(id, &nodes.load(id).unwrap()).unwrap().level
}

/// A node whose bytes were changed by a bit, a cut or an added byte never panics; where it cannot stand, it is named.
#[test]
fn every_flipped_bit_and_cut_is_survived() {
    let nodes = nodes();
    let root = build::<Map>(&small(), &nodes, &paths(200));
    let other = build::<Map>(&small(), &nodes, &paths(120));
    assert!(root.level >= 2, "the tree has leaves, branches and a root");
    let mut refused = 0;
    for level in 0..=root.level {
        let id = nodes.ids().into_iter().find(|id| level_of(id, &nodes) == level).unwrap();
        let good = nodes.load(&id).unwrap().to_vec();
        let mut check = |bytes: Vec<u8>| {
            nodes.replace(id, bytes);
            match read_all(root, other, &nodes) {
                Ok(()) => {}
                Err(Error::Unsupported { .. }) => refused += 1,
                Err(error) => {
                    assert!(error.is_damage(), "{error}");
                    refused += 1;
                }
            }
        };
        for place in 0..good.len() {
            for bit in [0, 3, 7] {
                let mut bytes = good.clone();
                bytes[place] ^= 1 << bit;
                check(bytes);
            }
            check(good[..place].to_vec());
        }
        check([good.as_slice(), b"\0"].concat());
        nodes.replace(id, good);
        read_all(root, other, &nodes).unwrap();
    }
    assert!(refused > 1000, "only {refused} refused");
}

/// Damage that each node hides on its own shows where nodes meet.
#[test]
fn nodes_that_do_not_fit_together_are_damaged() {
    let nodes = nodes();
    let model = paths(400);
    let root = build::<Map>(&small(), &nodes, &model);
    let view = children(&root.id, &nodes.load(&root.id).unwrap()).unwrap();
    let [first, second, ..] = view.children.as_slice() else { panic!("two children at least") };
    let bytes = |id: &NodeId| nodes.load(id).unwrap().to_vec();
    let (good, root_bytes) = (bytes(&first.id), bytes(&root.id));
    let empty = bytes(&build::<Map>(&small(), &nodes, &Model::new()).id);
    let list = bytes(&build::<List>(&small(), &nodes, []).id);
    let cases = [
        ("its sibling", bytes(&second.id)),
        ("its own parent, a cycle", root_bytes.clone()),
        ("an empty leaf", empty),
        ("a node of another schema", list),
    ];
    for (what, bytes) in cases {
        nodes.replace(first.id, bytes);
        let error = read_all(root, root, &nodes).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains(&first.id.to_string()), "{what}: {error}");
    }
    nodes.replace(first.id, good);
    for wrong in [
        Root { entries: root.entries + 1, ..root },
        Root { bytes: root.bytes - 1, ..root },
        Root { level: root.level - 1, ..root },
        Root { level: 200, ..root },
    ] {
        let error = Tree::<Map>::open(wrong, &nodes).iter().err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{wrong:?}: {error}");
    }
    nodes.remove(&second.id);
    let error = read_all(root, root, &nodes).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

/// Keys out of order between neighbours are damage even where counts and sums fit.
#[test]
fn order_between_nodes_is_checked() {
    let nodes = nodes();
    let model = paths(400);
    let wide = TreeParams { min_bytes: 512, avg_bytes: 1024, max_bytes: 4096, ..small() };
    let root = build::<Map>(&wide, &nodes, &model);
    // A leaf of two entries at least that is not the first of its branch, and how many entries come before it.
    let mut id = root.id;
    for _ in 1..root.level {
        id = children(&id, &nodes.load(&id).unwrap()).unwrap().children[0].id;
    }
    let leaves = children(&id, &nodes.load(&id).unwrap()).unwrap().children;
    let place = (1..leaves.len()).find(|index| leaves[*index].entries >= 2).unwrap();
    let second = leaves[place];
    let before: u64 = leaves[..place].iter().map(|leaf| leaf.entries).sum();
    let (from, count) = (before.try_into().unwrap(), second.entries.try_into().unwrap());
    let entries: Vec<_> = model.into_iter().skip(from).take(count).collect();
    let whole = TreeParams::new([2; 32]);
    let leaf = |entries: &[(Vec<u8>, Vec<u8>)]| {
        let leaf = build::<Map>(&whole, &nodes, entries.iter().map(|(key, value)| (key, value)));
        nodes.load(&leaf.id).unwrap().to_vec()
    };
    assert_eq!(leaf(&entries), nodes.load(&second.id).unwrap().to_vec());
    let (mut early, mut late) = (entries.clone(), entries);
    early.first_mut().unwrap().0 = b"a".to_vec();
    late.last_mut().unwrap().0.push(b'~');
    for (entries, what) in [(early, "first key"), (late, "last key")] {
        nodes.replace(second.id, leaf(&entries));
        let error = read_all(root, root, &nodes).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(&second.id.to_string()), "{error}");
    }
}

/// Within a node each key is greater than the one before it and says how much it shares, no less.
#[test]
fn order_within_a_node_is_checked() {
    let id = reference(b"id");
    let cases: [(&[u8], bool); 6] = [
        (b"\x00\x01b\x00\x01\x01c\x00", true),
        (b"\x00\x01b\x00\x00\x01c\x00", true),
        (b"\x00\x01b\x00\x00\x01a\x00", false),
        (b"\x00\x01b\x00\x01\x00\x00", false),
        (b"\x00\x01b\x00\x00\x02bc\x00", false),
        (b"\x00\x02bc\x00\x01\x00\x00", false),
    ];
    for (items, good) in cases {
        let bytes = [b"\x01\x00\x01\x00\x02", items].concat();
        assert_eq!(children(&id, &bytes.into()).is_ok(), good, "{items:?}");
    }
}

/// An empty leaf under a branch, which no sum gives away, ends nothing and is passed over by nobody.
#[test]
fn an_empty_leaf_stands_alone_or_not_at_all() {
    let nodes = nodes();
    let empty = build::<List>(&small(), &nodes, []);
    let mut branch = b"\x01\x01\x00\x09test list\x01".to_vec();
    branch.extend(empty.id.as_bytes());
    branch.extend([0, 0]);
    let id = reference(&branch);
    nodes.replace(id, branch);
    let root = Root { id, level: 1, ..empty };
    let error = Tree::<List>::open(root, &nodes).iter().err().expect("the leaf is refused");
    assert!(error.to_string().contains("empty but not the root"), "{error}");
}

/// The layout, byte for byte: two entries with a shared beginning, an entry of a sequence, a branch.
#[test]
fn the_layout_is_fixed() {
    let nodes = nodes();
    let model: Model = [(b"dir".to_vec(), vec![7, 0]), (b"direct".to_vec(), vec![])].into();
    let leaf = build::<Map>(&small(), &nodes, &model);
    let expected = b"\x01\x00\x01\x08test map\x02\x00\x03dir\x02\x07\x00\x03\x03ect\x00";
    assert_eq!(nodes.load(&leaf.id).unwrap().to_vec(), expected);
    let list = build::<List>(&small(), &nodes, [(&vec![], &vec![5])]);
    let expected = b"\x01\x00\x00\x09test list\x01\x01\x05";
    assert_eq!(nodes.load(&list.id).unwrap().to_vec(), expected);
    let mut branch = b"\x01\x01\x01\x08test map\x02".to_vec();
    for (shared, rest, id, bytes) in
        [(0, &b"direct"[..], [0xaa; 32], 300), (2, b"sk", [0xbb; 32], 1)]
    {
        put_varint(&mut branch, shared);
        put_varint(&mut branch, rest.len() as u64);
        branch.extend([rest, &id].concat());
        branch.push(2);
        put_varint(&mut branch, bytes);
    }
    let view = children(&leaf.id, &branch.clone().into()).unwrap();
    let sums: Vec<_> = view.children.iter().map(|child| (child.entries, child.bytes)).collect();
    assert_eq!((view.level, sums), (1, vec![(2, 300), (2, 1)]));
    assert_eq!(branch[12..23], *b"\x02\x00\x06direct\xaa\xaa");
}

/// After an error a cursor stands at its end and gives nothing more.
#[test]
fn a_cursor_ends_at_damage() {
    let nodes = nodes();
    let root = build::<Map>(&small(), &nodes, &paths(400));
    let view = children(&root.id, &nodes.load(&root.id).unwrap()).unwrap();
    nodes.remove(&view.children[1].id);
    let mut cursor = Tree::<Map>::open(root, &nodes).iter().unwrap();
    let error = loop {
        match cursor.advance() {
            Ok(()) => assert!(cursor.peek().is_some(), "the damage was missed"),
            Err(error) => break error,
        }
    };
    assert!(error.is_damage());
    assert_eq!(cursor.peek(), None);
    cursor.advance().unwrap();
    assert_eq!(cursor.peek(), None);
}

/// A newer layout is unsupported, not damaged; counts and lengths beyond the bytes are refused.
#[test]
fn headers_are_checked_first() {
    let id = reference(b"id");
    let case = |bytes: &[u8]| children(&id, &bytes.to_vec().into()).unwrap_err();
    assert!(matches!(case(&[2, 0, 1]), Error::Unsupported { found: 2, supported: 1, .. }));
    let mut huge = vec![1, 0, 1, 0];
    put_varint(&mut huge, u64::MAX);
    for bytes in [&[][..], &[0], &[1], &[1, 17, 1, 0, 0], &[1, 1, 1, 0, 0], &[1, 0, 1, 0, 9], &huge]
    {
        assert!(matches!(case(bytes), Error::Damaged { .. }), "{bytes:?}");
    }
    assert!(matches!(case(&vec![1; (1 << 20) + 1]), Error::LimitExceeded { .. }));
}

/// A small node that would unfold to gigabytes of keys is refused at the limit.
#[test]
fn a_bomb_of_shared_keys_is_refused() {
    let mut bytes = vec![1, 0, 1, 0];
    put_varint(&mut bytes, 10_001);
    put_varint(&mut bytes, 0);
    put_varint(&mut bytes, 200_000);
    bytes.extend(vec![1; 200_000]);
    bytes.push(0);
    for length in 200_000..210_000 {
        put_varint(&mut bytes, length);
        bytes.extend([1, 1, 0]);
    }
    let error = children(&reference(b"id"), &bytes.into()).unwrap_err();
    assert!(error.to_string().contains("longer than the limit"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Random bytes behind a valid start are never a panic.
    #[test]
    fn random_bytes_are_survived(
        level in 0u8..3,
        flags in 0u8..2,
        rest in vec(prop_oneof![Just(0u8), 0u8..9, any::<u8>()], 0..200),
    ) {
        let id = reference(b"id");
        for head in [vec![], vec![1, level, flags, 0], vec![1, level, flags, 8]] {
            let name: &[u8] = if head.ends_with(&[8]) { b"test map" } else { b"" };
            let bytes = [head.as_slice(), name, rest.as_slice()].concat();
            let _ = node_references::<Map>(&id, &bytes.clone().into());
            if let Ok(view) = children(&id, &bytes.into()) {
                prop_assert!(view.items <= 200);
            }
        }
    }

    /// Varints have one form each, and come back.
    #[test]
    fn varints_come_back(value in prop_oneof![any::<u64>(), 0u64..300, Just(u64::MAX)], bytes in vec(any::<u8>(), 0..12)) {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        let mut fields = Fields::new(&out);
        prop_assert_eq!(fields.varint(), Some(value));
        prop_assert!(fields.is_empty());
        let mut fields = Fields::new(&bytes);
        if let Some(value) = fields.varint() {
            let mut again = Vec::new();
            put_varint(&mut again, value);
            prop_assert_eq!(&bytes[..fields.offset()], again.as_slice());
        }
    }
}

/// A visit gives everything that it enters, and goes around what is lost and what it is told to leave.
#[test]
fn a_visit_goes_around_what_is_lost() {
    use super::super::{Part, visit};
    let nodes = nodes();
    let model = paths(400);
    let root = build::<Map>(&small(), &nodes, &model);
    let go = |wants: &dyn Fn(&NodeId) -> bool| {
        let (mut keys, mut failed, mut left) = (Vec::new(), Vec::new(), 0);
        visit::<Map>(root, &nodes, &mut |part| match part {
            Part::Entry { key, value } => {
                assert_eq!(model[key], value);
                keys.push(key.to_vec());
                Ok(false)
            }
            Part::Subtree { id, entries, after, last_key, failure: Some(error), .. } => {
                assert!(error.is_damage());
                assert!(after.is_none() || after < last_key);
                failed.push((id, entries));
                Ok(false)
            }
            Part::Subtree { id, entries, .. } => {
                left += if wants(&id) { 0 } else { entries };
                Ok(wants(&id))
            }
        })
        .unwrap();
        (keys, failed, left)
    };
    let all: Vec<Vec<u8>> = model.keys().cloned().collect();
    assert_eq!(go(&|_| true), (all.clone(), vec![], 0));
    for id in nodes.ids() {
        let good = nodes.load(&id).unwrap().to_vec();
        let (kept, _, left) = go(&|node| *node != id);
        assert_eq!(kept.len() as u64 + left, 400);
        nodes.replace(id, vec![0; 9]);
        assert_eq!(go(&|_| true), (kept, vec![(id, left)], 0));
        nodes.replace(id, good);
    }
    let empty = build::<Map>(&small(), &nodes, &Model::new());
    visit::<Map>(empty, &nodes, &mut |part| Ok(matches!(part, Part::Subtree { .. }))).unwrap();
}
