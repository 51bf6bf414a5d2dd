//! What a delta costs, counted: nodes read and written.

use super::*;
use crate::backup::BackupOptions;
use crate::change::ChangeRules;
use crate::change::parent::Parent;
use crate::entry::{Content, Entry, EntryKind};
use crate::meta::Names;
use crate::observer::Silent;
use crate::pipeline::{self, Anew, Built, Changed, Chunkers, Input, Manifest, Readers, Sinks};
use crate::scan::Scan;
use crate::source::ReadClock;
use std::path::Path;
use std::sync::Arc;
use stillpoint_chunker::{Chunker, Gear, IdKey};
use stillpoint_store::Timestamp;
use stillpoint_store::tree::memory::MemoryNodes;
use stillpoint_store::tree::{Root, TreeParams, edit};

/// How many files the manifest has; a million for a release.
const ENTRIES_VARIABLE: &str = "STILLPOINT_DELTA_ENTRIES";
const ENTRIES_DEFAULT: u64 = 10_000;
/// Files that are there, spread over the manifest.
const REAL: u64 = 30;
const LATE: Timestamp = Timestamp { seconds: 40_000_000_000, nanos: 0 };

fn plan(base: &Path) -> Plan {
    Plan::new(BackupOptions { roots: vec![base.to_owned()], ..BackupOptions::default() }).unwrap()
}

/// Runs a pipeline over these stations into the nodes.
fn run(nodes: &MemoryNodes, base: Option<Root>, mut plan: Plan, delta: Option<Delta>) -> Built {
    let params = TreeParams::new([3; 32]);
    let gear = Arc::new(Gear::published());
    let chunkers = Chunkers::new(|profile| {
        Ok(Chunker::new(Arc::clone(&gear), profile.params(), IdKey::new([2; 32])))
    });
    let clock = ReadClock::Fixed(LATE);
    let readers = Readers { chunkers: chunkers.unwrap(), names: Names::default(), clock };
    let stations = match &delta {
        Some(delta) => delta.stations.clone(),
        None => scan::stations(&plan.source.roots),
    };
    let scan = Scan::new(stations, plan.source.rules);
    let parent = base.map(|root| Parent::open(root, nodes, LATE, ChangeRules::default()).unwrap());
    let (mut sink, mut content) = (nodes, nodes);
    let manifest: Box<dyn Manifest> = match (base, &delta) {
        (Some(base), Some(delta)) => {
            let mut changed = Changed::new(base, nodes, &params, &mut sink).unwrap();
            delta.marks.iter().for_each(|(key, mark)| changed.announce(key, *mark));
            Box::new(changed)
        }
        _ => Box::new(Anew::new(&params, &mut sink)),
    };
    let input = Input {
        scan: &scan,
        parent,
        changed: delta.as_ref().map(|delta| &delta.changed),
        extras: std::mem::take(&mut plan.source.extras),
        time: LATE,
        readers: &readers,
        observer: &Silent,
        know_node: &mut |_| {},
        lose_parent: &mut |error| panic!("the parent is lost: {error}"),
        threads: 2,
    };
    let mut data = |_: &stillpoint_chunker::ChunkBatch| Ok(());
    let sinks = Sinks { params: &params, data: &mut data, content_nodes: &mut content };
    pipeline::run(input, manifest, sinks).unwrap()
}

/// A manifest with so many files, most of which are not there.
fn crowded(nodes: &MemoryNodes, root: Root, base: &Path, entries: u64) -> Root {
    let key = path::key_from_path(base).unwrap();
    let params = TreeParams::new([3; 32]);
    let files = (0..entries).map(|number| {
        let entry = Entry {
            kind: EntryKind::File(Content::Inline(number.to_le_bytes().to_vec())),
            size: 8,
            inode: number + (1 << 40),
            nlink: 1,
            ..Entry::default()
        };
        (path::child_key(&key, format!("{number:08}").as_bytes()), Some(entry.to_bytes()))
    });
    let mut sink = nodes;
    edit::<ManifestSchema>(root, files, &params, nodes, &mut sink).unwrap()
}

// k changes in a manifest of n files read and write O(k log n) nodes, and the rest is taken over unread.
#[test]
fn few_nodes_are_read_and_written() {
    let entries = std::env::var(ENTRIES_VARIABLE);
    let entries = entries.map_or(ENTRIES_DEFAULT, |text| text.parse().unwrap());
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let name = |number: u64| base.join(format!("{:08}-real", number * entries / REAL));
    (0..REAL).for_each(|number| std::fs::write(name(number), b"before").unwrap());
    let nodes = MemoryNodes::new(IdKey::new([1; 32]));
    let first = run(&nodes, None, plan(&base), None);
    let root = crowded(&nodes, first.root, &base, entries);
    let total = nodes.len();

    // A third changes, a third vanishes, a third stays; as many are new.
    for number in 0..REAL {
        match number % 3 {
            0 => std::fs::write(name(number), b"after!").unwrap(),
            1 => std::fs::remove_file(name(number)).unwrap(),
            _ => std::fs::write(name(number).with_extension("new"), b"new").unwrap(),
        }
    }
    let key = |path: std::path::PathBuf| path::key_from_path(&path).unwrap();
    let mut paths: BTreeSet<Vec<u8>> = (0..REAL).map(|number| key(name(number))).collect();
    paths.extend((0..REAL).map(|number| key(name(number).with_extension("new"))));
    paths.insert(key(base.clone()));
    let k = u64::try_from(paths.len()).unwrap();
    nodes.reset_counts();
    let mut plan = plan(&base);
    let record = SnapshotRecord { root, ..plan.record.clone() };
    let changes = Changes { paths, ..Changes::default() };
    let given = Base { record: &record, source: &nodes };
    let delta = Delta::new(&given, &mut plan, changes, &HashSet::new()).unwrap();
    let built = run(&nodes, Some(root), plan, Some(delta));

    assert_eq!(built.problems, []);
    assert_eq!(built.root.entries, root.entries);
    let levels = u64::from(root.level) + 1;
    let (read, written) = (nodes.loads(), nodes.stores());
    eprintln!(
        "{entries} files, {total} nodes on {levels} levels; {k} changes read {read} nodes, wrote {written}"
    );
    // Four passes look at the base: what it has there, comparison, counting and the edit.
    assert!(read <= 4 * k * levels, "{read} nodes read");
    assert!(written <= k * levels, "{written} nodes written");
    let rebuilt = rebuild(&nodes, built.root);
    assert_eq!(rebuilt, built.root, "the tree is the one that its entries make");
}

fn rebuild(nodes: &MemoryNodes, root: Root) -> Root {
    let (params, mut sink) = (TreeParams::new([3; 32]), nodes);
    let mut manifest = Anew::new(&params, &mut sink);
    let mut cursor = Tree::<ManifestSchema>::open(root, nodes).iter().unwrap();
    while let Some((key, value)) = cursor.next().unwrap() {
        manifest.put(&key, &value).unwrap();
    }
    Box::new(manifest).finish().unwrap().0
}
