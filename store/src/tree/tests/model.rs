//! Build, look up, iterate, edit, diff and sum, all against `BTreeMap`.

use super::super::{
    Aggregate, Change, after_prefix, children, diff, edit, node_references, range_aggregate,
};
use super::*;
use crate::limits::{NODE_BYTES_MAX, TREE_KEY_BYTES_MAX, TREE_VALUE_BYTES_MAX};
use crate::tree::{NodeSource, memory::MemoryNodes};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Keys with shared beginnings of all lengths, the empty key included.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0u16..600).prop_map(|number| format!("dir/{:02}/{number:04}", number / 17).into_bytes()),
        2 => vec(0u8..3, 0..7),
        1 => (0usize..40, any::<u8>()).prop_map(|(length, last)| {
            let mut key = vec![b'x'; length * 9];
            key.push(last);
            key
        }),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 0..700)]
}

fn model() -> impl Strategy<Value = Model> {
    btree_map(key(), value(), 0..400)
}

fn changes() -> impl Strategy<Value = BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    btree_map(key(), proptest::option::of(value()), 0..60)
}

fn apply(model: &mut Model, changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

fn edited(root: Root, nodes: &MemoryNodes, changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Root {
    edit::<Map>(root, changes.clone(), &small(), nodes, &mut &*nodes).unwrap()
}

/// Each branch at the top has two children at least, levels descend by one, references are those of the schema.
fn check_shape<S: Schema>(root: Root, nodes: &MemoryNodes) {
    let mut pending = vec![(root.id, root.level, true)];
    while let Some((id, level, is_root)) = pending.pop() {
        let bytes = nodes.load(&id).unwrap();
        assert!(bytes.len() <= NODE_BYTES_MAX, "node of {} bytes", bytes.len());
        let view = children(&id, &bytes).unwrap();
        assert_eq!((view.schema.as_str(), view.level), (S::NAME, level));
        assert!(!is_root || level == 0 || view.items >= 2, "a root with one child");
        assert_eq!(node_references::<S>(&id, &bytes).unwrap(), nodes.references(&id).unwrap());
        pending.extend(view.children.iter().map(|child| (child.id, level - 1, false)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A tree gives back its entries, in order, by key, from any key, and sums over any range.
    #[test]
    fn reads_what_was_built(model in model(), probes in vec(key(), 1..30)) {
        let nodes = nodes();
        let root = build::<Map>(&small(), &nodes, &model);
        check_shape::<Map>(root, &nodes);
        prop_assert_eq!(root.entries, model.len() as u64);
        prop_assert_eq!(root.bytes, model.values().map(|value| Map::weight(&[], value)).sum::<u64>());
        let expected: Vec<_> = model.clone().into_iter().collect();
        prop_assert_eq!(all::<Map>(root, &nodes), expected);
        let tree = Tree::<Map>::open(root, &nodes);
        let mut cursor = tree.iter().unwrap();
        for pair in probes.windows(2) {
            let [from, until] = pair else { unreachable!() };
            prop_assert_eq!(tree.get(from).unwrap(), model.get(from).cloned());
            // The same cursor goes forward and back.
            cursor.seek(from).unwrap();
            let found = cursor.peek().map(|(key, value)| (key.to_vec(), value.to_vec()));
            let next = model.range(from.clone()..).next().map(|(key, value)| (key.clone(), value.clone()));
            prop_assert_eq!(found, next);
            let mut range = tree.range(from, Some(until)).unwrap();
            let mut sum = Aggregate::default();
            let end = until.max(from).clone();
            for (key, value) in model.range(from.clone()..end) {
                prop_assert_eq!(range.next().unwrap(), Some((key.clone(), value.clone())));
                sum.entries += 1;
                sum.bytes += Map::weight(key, value);
            }
            prop_assert_eq!(range.next().unwrap(), None);
            prop_assert_eq!(range_aggregate::<Map>(root, from, Some(until), &nodes).unwrap(), sum);
            let rest: u64 = model.range(from.clone()..).map(|(key, value)| Map::weight(key, value)).sum();
            prop_assert_eq!(range_aggregate::<Map>(root, from, None, &nodes).unwrap().bytes, rest);
        }
    }

    /// History independence: any edits, in any batches, give the root that building the result gives.
    #[test]
    fn edits_give_the_root_of_a_fresh_build(start in model(), batches in vec(changes(), 1..5)) {
        let (nodes, fresh) = (nodes(), nodes());
        let mut model = start;
        let mut root = build::<Map>(&small(), &nodes, &model);
        for changes in &batches {
            root = edited(root, &nodes, changes);
            apply(&mut model, changes);
            prop_assert_eq!(root, build::<Map>(&small(), &fresh, &model));
        }
        check_shape::<Map>(root, &nodes);
    }

    /// Runs of removals, which leave the ends of levels alone, keep the root canonical.
    #[test]
    fn removing_any_run_gives_the_root_of_a_fresh_build(count in 1u64..700, from in 0u64..700, length in 0u64..700) {
        let nodes = nodes();
        let model = paths(count);
        let root = build::<Map>(&small(), &nodes, &model);
        let skip = usize::try_from(from.min(count)).unwrap();
        let take = usize::try_from(length).unwrap();
        let removed: BTreeMap<_, _> = model.keys().skip(skip).take(take).map(|key| (key.clone(), None)).collect();
        let mut rest = model.clone();
        apply(&mut rest, &removed);
        let shorter = edited(root, &nodes, &removed);
        prop_assert_eq!(shorter, build::<Map>(&small(), &nodes, &rest));
        check_shape::<Map>(shorter, &nodes);
        let back = removed.keys().map(|key| (key.clone(), model.get(key).cloned())).collect();
        prop_assert_eq!(edited(shorter, &nodes, &back), root);
    }

    /// A diff lists exactly the changes, whole or within a range.
    #[test]
    fn diff_is_that_of_the_maps(old in model(), changes in changes(), from in key(), until in key()) {
        let nodes = nodes();
        let mut new = old.clone();
        apply(&mut new, &changes);
        let old_root = build::<Map>(&small(), &nodes, &old);
        let new_root = build::<Map>(&small(), &nodes, &new);
        let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let change = |key: &&Vec<u8>| {
            let (old, new) = (old.get(*key).cloned(), new.get(*key).cloned());
            (old != new).then(|| Change { key: key.to_vec(), old, new })
        };
        let expected: Vec<Change> = keys.iter().filter_map(change).collect();
        let whole: Result<Vec<Change>> = diff::<Map>(old_root, new_root, &nodes, &nodes).collect();
        prop_assert_eq!(whole.unwrap(), expected.clone());
        let part = diff::<Map>(old_root, new_root, &nodes, &nodes).within(&from, Some(&until)).unwrap();
        let part: Result<Vec<Change>> = part.collect();
        let inside = |change: &Change| from <= change.key && change.key < until;
        prop_assert_eq!(part.unwrap(), expected.into_iter().filter(inside).collect::<Vec<_>>());
    }

    /// A sequence gives back its entries in order and finds the entry at any byte.
    #[test]
    fn sequences_are_found_by_byte(values in vec(value(), 0..400), probes in vec(0u64..60_000, 1..20)) {
        let nodes = nodes();
        let empty = Vec::new();
        let root = build::<List>(&small(), &nodes, values.iter().map(|value| (&empty, value)));
        check_shape::<List>(root, &nodes);
        let found: Vec<_> = all::<List>(root, &nodes).into_iter().map(|(_, value)| value).collect();
        prop_assert_eq!(&found, &values);
        let tree = Tree::<List>::open(root, &nodes);
        for position in probes {
            let mut end = 0;
            let expected = values.iter().find_map(|value| {
                let start = end;
                end += List::weight(&[], value);
                (position < end).then(|| (value.clone(), position - start))
            });
            let found = tree.seek_bytes(position).unwrap().map(|(cursor, rest)| {
                (cursor.peek().expect("there is an entry").1.to_vec(), rest)
            });
            prop_assert_eq!(found, expected);
        }
    }
}

/// Equal sequences share nodes even where one has more entries in front.
#[test]
fn sequences_share_nodes_behind_an_insertion() {
    let nodes = nodes();
    let (key, values) = (Vec::new(), paths(5_000).into_values().collect::<Vec<_>>());
    build::<List>(&small(), &nodes, values.iter().map(|value| (&key, value)));
    let before = nodes.len();
    let more = [vec![9; 30], vec![8; 50]];
    build::<List>(&small(), &nodes, more.iter().chain(&values).map(|value| (&key, value)));
    assert!(nodes.len() - before < 30, "{} new nodes of {before}", nodes.len() - before);
}

/// The empty tree is one empty leaf, from wherever one comes.
#[test]
fn an_empty_tree_is_an_empty_leaf() {
    let nodes = nodes();
    let root = build::<Map>(&small(), &nodes, &Model::new());
    assert_eq!((root.level, root.entries, root.bytes), (0, 0, 0));
    assert_eq!(all::<Map>(root, &nodes), []);
    assert_eq!(Tree::<Map>::open(root, &nodes).get(b"").unwrap(), None);
    let model = paths(300);
    let full = build::<Map>(&small(), &nodes, &model);
    let removed = model.keys().map(|key| (key.clone(), None)).collect();
    assert_eq!(edited(full, &nodes, &removed), root);
    let added = model.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    assert_eq!(edited(root, &nodes, &added), full);
    assert_eq!(edited(root, &nodes, &BTreeMap::from([(vec![1], None)])), root);
}

/// When all but the last leaf goes, the branch above it, which ended for lack of entries with that one child, must not
/// become the root.
#[test]
fn the_end_of_a_level_is_no_root_by_itself() {
    let mut met = 0;
    for count in 60..260 {
        let nodes = nodes();
        let model = paths(count);
        let root = build::<Map>(&small(), &nodes, &model);
        let (mut id, mut lone_leaf) = (root.id, None);
        for _ in 0..root.level {
            let view = children(&id, &nodes.load(&id).unwrap()).unwrap();
            id = view.children.last().unwrap().id;
            lone_leaf = (view.level == 1 && view.items == 1).then(|| view.children[0].entries);
        }
        let Some(last) = lone_leaf else { continue };
        met += 1;
        let gone = model.len() - usize::try_from(last).unwrap();
        let removed = model.keys().take(gone).map(|key| (key.clone(), None)).collect();
        let rest = build::<Map>(&small(), &nodes, model.iter().skip(gone));
        assert_eq!(edited(root, &nodes, &removed), rest, "{count} entries");
        assert_eq!((rest.id, rest.level), (id, 0));
    }
    assert!(met >= 3, "only {met} trees ended with a lone leaf");
}

/// Keys and values at their limits make a tree; one byte more is refused.
#[test]
fn the_longest_entries_fit() {
    let nodes = nodes();
    let params = TreeParams::new([2; 32]);
    let key = |index: u8| [vec![index], vec![b'k'; TREE_KEY_BYTES_MAX - 1]].concat();
    let model: Model =
        (0..9).map(|index| (key(index), vec![index; TREE_VALUE_BYTES_MAX])).collect();
    let root = build::<Map>(&params, &nodes, &model);
    check_shape::<Map>(root, &nodes);
    assert_eq!(all::<Map>(root, &nodes), model.into_iter().collect::<Vec<_>>());
    let mut sink = &nodes;
    let mut builder = Builder::<Map>::new(&params, &mut sink);
    assert!(builder.push(&vec![0; TREE_KEY_BYTES_MAX + 1], b"").is_err());
    assert!(builder.push(b"", &vec![0; TREE_VALUE_BYTES_MAX + 1]).is_err());
}

/// Long keys that differ only at their ends compress well, but a node with them stays small once decoded.
#[test]
fn keys_written_out_stay_within_their_limit() {
    let nodes = nodes();
    let key = |index: u32| [vec![b'p'; 100 << 10], index.to_be_bytes().to_vec()].concat();
    let model: Model = (0..200).map(|index| (key(index), vec![1])).collect();
    let root = build::<Map>(&TreeParams::new([2; 32]), &nodes, &model);
    assert!(nodes.len() >= 18, "200 keys of 100 KiB in {} nodes", nodes.len());
    assert_eq!(all::<Map>(root, &nodes), model.into_iter().collect::<Vec<_>>());
}

/// Keys and changes out of order are refused.
#[test]
fn order_is_enforced() {
    let nodes = nodes();
    let mut sink = &nodes;
    let mut builder = Builder::<Map>::new(&small(), &mut sink);
    builder.push(b"b", b"").unwrap();
    for key in [&b"b"[..], b"a", b""] {
        assert!(builder.push(key, b"").is_err(), "{key:?} after b");
    }
    let root = build::<Map>(&small(), &nodes, &paths(10));
    let changes = [(b"b".to_vec(), None), (b"a".to_vec(), None)];
    assert!(edit::<Map>(root, changes, &small(), &nodes, &mut &nodes).is_err());
    let mut sequence = Builder::<List>::new(&small(), &mut sink);
    assert!(sequence.push(b"key", b"").is_err());
}

/// A prefix is the range up to the key after it.
#[test]
fn after_prefix_ends_the_prefix() {
    assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
    assert_eq!(after_prefix(&[1, 255, 255]), Some(vec![2]));
    assert_eq!(after_prefix(&[255]), None);
    assert_eq!(after_prefix(b""), None);
}

/// Roots survive a record with named fields.
#[test]
fn roots_are_kept_in_records() {
    let root = build::<Map>(&small(), &nodes(), &paths(500));
    let mut record = Vec::new();
    ciborium::into_writer(&root, &mut record).unwrap();
    let read: Root = ciborium::from_reader(record.as_slice()).unwrap();
    assert_eq!(read, root);
}
