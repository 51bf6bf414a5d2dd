//! How many nodes an operation loads and stores: bounds on counts, never on seconds.

use super::super::{diff, edit, range_aggregate};
use super::*;
use crate::tree::memory::MemoryNodes;

/// Entries of the tree that is counted: 100,000 files, about four levels of small nodes.
const ENTRIES: u64 = 100_000;

fn params() -> TreeParams {
    TreeParams { boundary_key: [2; 32], min_bytes: 256, avg_bytes: 1024, max_bytes: 4096 }
}

fn prepared() -> (MemoryNodes, Model, Root) {
    let (nodes, model) = (nodes(), paths(ENTRIES));
    let root = build::<Map>(&params(), &nodes, &model);
    nodes.reset_counts();
    (nodes, model, root)
}

/// `count` changes scattered over the tree: values changed, keys removed, keys added.
fn scattered(model: &Model, count: u64) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let keys: Vec<_> = model.keys().collect();
    let mut numbers = Numbers(count);
    let change = |index: u64| {
        let place = usize::try_from(numbers.below(keys.len() as u64)).unwrap();
        let key = keys[place].clone();
        match index % 3 {
            0 => (key, Some(b"changed".to_vec())),
            1 => (key, None),
            _ => ([key, b"~new".to_vec()].concat(), Some(vec![5; 80])),
        }
    };
    (0..count).map(change).collect()
}

/// k changes load and store O(k log n) nodes, and the result is that of a fresh build.
#[test]
fn edits_touch_few_nodes() {
    let (nodes, model, root) = prepared();
    for count in [1, 2, 10, 100, 1000] {
        let changes = scattered(&model, count);
        nodes.reset_counts();
        let new = edit::<Map>(root, changes.clone(), &params(), &nodes, &mut &nodes).unwrap();
        let levels = u64::from(root.level) + 1;
        let (loads, stores) = (nodes.loads(), nodes.stores());
        assert!(loads <= count * levels * 3, "{count} changes loaded {loads} nodes");
        assert!(stores <= count * levels * 2 + levels, "{count} changes stored {stores} nodes");
        let mut after = model.clone();
        for (key, value) in changes {
            match value {
                Some(value) => after.insert(key, value),
                None => after.remove(&key),
            };
        }
        assert_eq!(new, build::<Map>(&params(), &nodes, &after));
    }
}

/// A diff with k differences loads O(k log n) nodes; one of equal trees loads none.
#[test]
fn diffs_load_few_nodes() {
    let (nodes, model, root) = prepared();
    for count in [0, 1, 10, 100, 1000] {
        let changes = scattered(&model, count);
        let new = edit::<Map>(root, changes.clone(), &params(), &nodes, &mut &nodes).unwrap();
        nodes.reset_counts();
        let found = diff::<Map>(root, new, &nodes, &nodes).count() as u64;
        assert!(found.abs_diff(changes.len() as u64) <= count / 3, "{found} of {count} found");
        let levels = u64::from(root.level) + 1;
        let loads = nodes.loads();
        assert!(loads <= count * levels * 5, "{count} differences loaded {loads} nodes");
    }
}

/// Look-ups, seeks and sums load one or two nodes of each level; opening loads none.
#[test]
fn lookups_load_one_node_of_each_level() {
    let (nodes, model, root) = prepared();
    let levels = u64::from(root.level) + 1;
    assert!((4..8).contains(&levels), "{levels} levels");
    let tree = Tree::<Map>::open(root, &nodes);
    assert_eq!(nodes.loads(), 0);
    let (key, value) = model.iter().nth(54_321).unwrap();
    assert_eq!(tree.get(key).unwrap().as_ref(), Some(value));
    assert_eq!(nodes.loads(), levels);
    nodes.reset_counts();
    range_aggregate::<Map>(root, key, Some(b"home\0user\0project-002000"), &nodes).unwrap();
    assert!(nodes.loads() <= 2 * levels, "{} loads", nodes.loads());
    nodes.reset_counts();
    let mut cursor = tree.iter().unwrap();
    cursor.seek(key).unwrap();
    assert_eq!(nodes.loads(), 2 * levels - 1, "the root is not loaded again");
    cursor.seek(key).unwrap();
    cursor.advance().unwrap();
    cursor.seek(key).unwrap();
    assert!(nodes.loads() <= 3 * levels, "a seek nearby stays near");
}

/// A cursor names the nodes that it loaded: all of them after a whole run, each once.
#[test]
fn cursors_name_the_nodes_they_visit() {
    let nodes = nodes();
    let root = build::<Map>(&params(), &nodes, &paths(5_000));
    let mut cursor = Tree::<Map>::open(root, &nodes).range_from(b"").unwrap();
    assert_eq!(cursor.take_visited_nodes(), [], "nothing is recorded unasked");
    let mut cursor = Tree::<Map>::open(root, &nodes).cursor();
    cursor.record_visited_nodes();
    cursor.seek(b"").unwrap();
    let mut visited = cursor.take_visited_nodes();
    assert_eq!(visited.first(), Some(&root.id));
    while cursor.peek().is_some() {
        cursor.advance().unwrap();
    }
    visited.extend(cursor.take_visited_nodes());
    visited.sort_unstable();
    assert_eq!(visited, nodes.ids());
}

/// Nodes of the default size have that size on average, and none exceeds the limits by more than an entry.
#[test]
fn nodes_have_the_size_that_was_asked_for() {
    let nodes = nodes();
    let params = TreeParams::new([2; 32]);
    build::<Map>(&params, &nodes, &paths(ENTRIES));
    let sizes: Vec<u64> = nodes
        .ids()
        .iter()
        .map(|id| crate::tree::NodeSource::load(&nodes, id).unwrap().len() as u64)
        .collect();
    let average = sizes.iter().sum::<u64>() / sizes.len() as u64;
    let wanted = u64::from(params.avg_bytes);
    let fits = (wanted * 3 / 4..wanted * 5 / 4).contains(&average);
    assert!(fits, "{average} bytes on average");
    assert!(sizes.iter().all(|size| *size < u64::from(params.max_bytes) + 300));
}

/// A million entries: built, read and summed in one pass each. Seconds are printed, not judged.
#[test]
fn a_million_entries() {
    const COUNT: u64 = 1_000_000;
    let nodes = nodes();
    let mut sink = &nodes;
    let params = TreeParams::new([2; 32]);
    let begin = std::time::Instant::now();
    let mut builder = Builder::<Map>::new(&params, &mut sink);
    let mut key = Vec::new();
    let value = [7u8; 90];
    for index in 0..COUNT {
        key.clear();
        use std::io::Write;
        let (dir, file) = (index / 40, index % 40);
        write!(key, "home\0user\0project-{dir:06}\0src\0file-{file:03}.rs").unwrap();
        builder.push(&key, &value).unwrap();
    }
    let root = builder.finish().unwrap();
    let built = begin.elapsed();
    let begin = std::time::Instant::now();
    let mut cursor = Tree::<Map>::open(root, &nodes).iter().unwrap();
    let (mut count, mut bytes) = (0u64, 0usize);
    while let Some((key, value)) = cursor.peek() {
        count += 1;
        bytes += key.len() + value.len();
        cursor.advance().unwrap();
    }
    let read = begin.elapsed();
    eprintln!("1M entries: built in {built:?}, read in {read:?}, {} nodes", nodes.len());
    assert_eq!((count, root.entries, root.bytes), (COUNT, COUNT, 7 * COUNT));
    assert!(bytes > 100_000_000);
    assert!(nodes.loads() <= nodes.len() as u64);
}
