//! Marks of random graphs against a plain walk over a map, with every way of joining.

use super::*;
use crate::backend::MemoryBackend;
use crate::crypto::test_env::SeededEnv;
use crate::id::ObjectName;
use crate::record::{KdfCost, Secret, SnapshotRecord};
use crate::repository::{CreateOptions, OpenOptions};
use crate::tree::{Builder, NodeSink, Root};
use crate::write::{WriteOptions, Writer};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use stillpoint_chunker::Profile;
use stillpoint_testkit::{Random, with_label};

/// A repository whose nodes refer to whatever they like.
struct Graph {
    repository: Arc<Repository>,
    references: HashMap<NodeId, Vec<ChunkId>>,
    ids: Vec<ChunkId>,
}

impl Graph {
    fn new(seed: u64) -> Self {
        let env = Arc::new(SeededEnv::new(seed));
        let create = CreateOptions { kdf: KdfCost::LEAST, ..CreateOptions::default() };
        let secret = Secret::key_file(&[7; 64]);
        let backend = Arc::new(MemoryBackend::new());
        let options = OpenOptions::in_memory();
        let repository = Repository::create(backend, env, &secret, &create, options).unwrap();
        Self { repository, references: HashMap::new(), ids: Vec::new() }
    }

    fn writer(&self) -> Writer {
        self.repository.writer(WriteOptions { threads: 1, ..WriteOptions::default() }).unwrap()
    }

    fn data(&mut self, writer: &Writer, bytes: &[u8]) -> ChunkId {
        let batch = self.repository.chunker(Profile::General).unwrap().chunk_slice(bytes.to_vec());
        writer.add_data(&batch).unwrap();
        let id = batch.chunks.first().unwrap().id;
        self.ids.push(id);
        id
    }

    fn node(&mut self, writer: &Writer, bytes: &[u8], references: &[ChunkId]) -> NodeId {
        let id = writer.node_sink().store(bytes.to_vec(), references).unwrap();
        self.references.insert(id, references.to_vec());
        self.ids.push(id);
        id
    }

    /// Commits what the session stored; the snapshot itself is of no interest.
    fn commit(&self, writer: Writer) {
        let params = self.repository.tree_params();
        let mut sink = writer.node_sink();
        let root: Root =
            Builder::<crate::catalogue::CatalogueSchema>::new(&params, &mut sink).finish().unwrap();
        let record = SnapshotRecord::new(self.repository.env().now(), root);
        writer.commit(record).unwrap();
    }

    /// Two sessions at once, so that some chunks lie in two packs, each with random data and nodes.
    fn grow(&mut self, random: &mut Random) {
        let writers = [self.writer(), self.writer()];
        for _ in 0..random.index(60) {
            let writer = &writers[random.index(2)];
            let number = random.below(200);
            let bytes = number.to_le_bytes().repeat(1 + random.index(3));
            self.data(writer, &bytes);
            if random.index(3) == 0 {
                let count = random.index(9);
                let references: Vec<ChunkId> =
                    (0..count).map(|_| self.ids[random.index(self.ids.len())]).collect();
                let content: Vec<u8> =
                    references.iter().flat_map(|id| *id.as_bytes()).chain(bytes).collect();
                let both = if random.index(3) == 0 { &writers[..] } else { &writers[..1] };
                for writer in both {
                    self.node(writer, &content, &references);
                }
            }
        }
        writers.into_iter().for_each(|writer| self.commit(writer));
    }

    fn packs(&self) -> BTreeMap<PackId, PackEntry> {
        BTreeMap::clone(self.repository.head().unwrap().packs().unwrap())
    }

    fn footers(&self, packs: &BTreeMap<PackId, PackEntry>) -> Vec<Footer> {
        let footers = packs.iter().map(|(id, entry)| self.repository.footer(id, entry.size_bytes));
        footers.filter_map(Result::ok).collect()
    }

    /// Everything that can be reached through nodes that are in these packs.
    fn reachable(&self, roots: &[NodeId], footers: &[Footer]) -> BTreeSet<ChunkId> {
        let known: BTreeSet<ChunkId> =
            footers.iter().flat_map(|footer| footer.chunks().iter().map(|(id, _)| *id)).collect();
        let mut seen: BTreeSet<ChunkId> = roots.iter().copied().collect();
        let mut open = roots.to_vec();
        while let Some(id) = open.pop() {
            if !known.contains(&id) {
                continue;
            }
            for child in self.references.get(&id).into_iter().flatten() {
                if seen.insert(*child) {
                    open.push(*child);
                }
            }
        }
        seen
    }

    fn roots(&self, random: &mut Random, count: usize) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.references.keys().copied().collect();
        nodes.sort_unstable();
        (0..count.min(nodes.len())).map(|_| nodes[random.index(nodes.len())]).collect()
    }
}

/// All that a mark says, as a value to compare.
#[derive(Debug, PartialEq)]
struct Verdict {
    packs: Vec<(PackId, Bits, [u64; 3], bool)>,
    lost: [BTreeSet<ChunkId>; 2],
    nodes_seen: u64,
}

fn set(lost: &Lost) -> BTreeSet<ChunkId> {
    let mut ids = BTreeSet::new();
    lost.each(|id| {
        assert!(ids.insert(*id), "a lost id is given once");
        Ok(())
    })
    .unwrap();
    assert_eq!(lost.len(), ids.len() as u64);
    ids
}

fn verdict(marked: &Marked) -> Verdict {
    let pack = |pack: &PackMark| {
        let figures = [pack.used_bytes, pack.held_bytes, pack.total_bytes];
        (pack.id, pack.used.clone(), figures, pack.damage.is_some())
    };
    Verdict {
        packs: marked.packs().iter().map(pack).collect(),
        lost: [set(&marked.lost), set(&marked.lost_held)],
        nodes_seen: marked.nodes.seen(),
    }
}

/// The mark is the plain walk's answer: each needed chunk is claimed once, by a pack that holds it.
fn assert_exact(graph: &Graph, marked: &Marked, live: &[NodeId], held: &[NodeId]) {
    let footers = graph.footers(&graph.packs());
    let all: Vec<NodeId> = live.iter().chain(held).copied().collect();
    let live = graph.reachable(live, &footers);
    let needed = graph.reachable(&all, &footers);
    let mut claimed = BTreeSet::new();
    let mut present = BTreeSet::new();
    for footer in &footers {
        let mark = marked.pack(footer.pack()).unwrap();
        let (mut used, mut held, mut total) = (0, 0, 0);
        for (at, (id, len)) in footer.chunks().iter().enumerate() {
            let weight = u64::from(*len).max(1);
            present.insert(*id);
            total += weight;
            if mark.used.get(at) {
                assert!(claimed.insert(*id), "chunk {id} is claimed twice");
                used += weight;
                held += if live.contains(id) { 0 } else { weight };
            }
        }
        assert_eq!([used, held, total], [mark.used_bytes, mark.held_bytes, mark.total_bytes]);
    }
    let held: BTreeSet<ChunkId> = needed.difference(&live).copied().collect();
    let missing = |ids: &BTreeSet<ChunkId>| ids.difference(&present).copied().collect();
    assert_eq!(claimed, needed.intersection(&present).copied().collect());
    assert_eq!([set(&marked.lost), set(&marked.lost_held)], [missing(&live), missing(&held)]);
}

/// Many partitions, in a file or in passes, give the same verdict as one, and it is that of a plain walk; with packs
/// lost as well.
#[test]
fn every_way_of_joining_gives_the_same_verdict() {
    let (mut losses, mut held_bytes, mut used) = (0, 0, 0);
    for seed in 0..40 {
        with_label(format_args!("seed {seed}"), || {
            let mut random = Random::new(seed);
            let mut graph = Graph::new(seed);
            (0..1 + random.index(5)).for_each(|_| graph.grow(&mut random));
            let packs = graph.packs();
            for id in packs.keys() {
                if seed % 2 == 1 && random.index(5) == 0 {
                    graph.repository.backend().remove(&ObjectName::Pack(*id)).unwrap();
                }
            }
            let (live, held) = (graph.roots(&mut random, 3), graph.roots(&mut random, 2));
            let mark = || {
                let mark = Mark::new(&graph.repository, &packs);
                mark.live(live.iter().copied()).held(held.iter().copied())
            };
            let one = mark().run().unwrap();
            assert_exact(&graph, &one, &live, &held);
            losses += one.lost.len() * one.lost_held.len();
            used += one.packs().iter().map(|pack| pack.used.count()).sum::<u64>();
            held_bytes += one.packs().iter().map(|pack| pack.held_bytes).sum::<u64>();
            let one = verdict(&one);
            for bytes in [64, 1000, 5000] {
                assert_eq!(verdict(&mark().join_bytes(bytes).run().unwrap()), one, "{bytes}");
                let mut passes = mark().join_bytes(bytes);
                passes.spill_folders = vec!["/proc/none".into()];
                assert_eq!(verdict(&passes.run().unwrap()), one, "{bytes} in passes");
            }
        });
    }
    assert!(losses > 0 && held_bytes > 0 && used > 500, "{losses}, {held_bytes}, {used}");
}

/// A pack that is sparse gives way to the one that is full of needed data.
#[test]
fn what_two_packs_hold_is_claimed_by_the_fuller_one() {
    for full_first in [true, false] {
        let mut graph = Graph::new(3);
        let (full, sparse) = (graph.writer(), graph.writer());
        let shared: Vec<ChunkId> =
            (0..9u8).map(|number| graph.data(&full, &[number; 50])).collect();
        for number in (0..9).chain(100..200u8) {
            graph.data(&sparse, &[number; 50]);
        }
        let root = graph.node(&full, b"root", &shared);
        let order = if full_first { [full, sparse] } else { [sparse, full] };
        order.into_iter().for_each(|writer| graph.commit(writer));
        let packs = graph.packs();
        let marked = Mark::new(&graph.repository, &packs).live([root]).run().unwrap();
        let data = marked.packs().iter().filter(|pack| pack.data_chunks > 0);
        let mut used: Vec<_> = data.map(|pack| (pack.used.count(), pack.data_chunks)).collect();
        used.sort_unstable();
        assert_eq!(used, [(0, 109), (9, 9)]);
    }
}

/// A guide shows the way to what its nodes need; what it holds itself is not there.
#[test]
fn guides_hold_nothing() {
    let mut graph = Graph::new(5);
    let writer = graph.writer();
    let data = graph.data(&writer, b"content");
    let inner = graph.node(&writer, b"inner", &[data]);
    let root = graph.node(&writer, b"root", &[inner]);
    graph.commit(writer);
    let all = graph.packs();
    let (nodes, packs): (BTreeMap<_, _>, BTreeMap<_, _>) =
        all.iter().partition(|(_, entry)| entry.node_chunks > 0);
    let guides: Vec<PackId> = nodes.into_keys().collect();
    let mark = || Mark::new(&graph.repository, &packs).live([root]);
    let without = mark().run().unwrap();
    assert_eq!(set(&without.lost), BTreeSet::from([root]));
    let with = mark().guides(&guides).run().unwrap();
    assert_eq!(set(&with.lost), BTreeSet::from([root, inner]));
    assert_eq!(with.packs().len(), packs.len());
    assert_eq!(with.packs().iter().map(|pack| pack.used.count()).sum::<u64>(), 1);
}

/// Exactly those nodes are tainted from which a lost chunk can be reached.
#[test]
fn taint_rises_to_the_roots() {
    for seed in 0..20 {
        with_label(format_args!("seed {seed}"), || {
            let mut random = Random::new(seed);
            let mut graph = Graph::new(seed);
            (0..4).for_each(|_| graph.grow(&mut random));
            let packs = graph.packs();
            let footers = graph.footers(&packs);
            let roots = graph.roots(&mut random, 4);
            let mark = Mark::new(&graph.repository, &packs).live(roots.clone());
            let marked = Arc::new(mark.run().unwrap());
            let lost: Vec<ChunkId> =
                (0..3).map(|_| graph.ids[random.index(graph.ids.len())]).collect();
            let tainted =
                marked.tainted(&graph.repository, |give| lost.iter().try_for_each(give)).unwrap();
            for node in graph.reachable(&roots, &footers) {
                if graph.references.contains_key(&node) {
                    let below = graph.reachable(&[node], &footers);
                    let expected = lost.iter().any(|id| below.contains(id));
                    assert_eq!(tainted.contains(&node), expected, "node {node}");
                }
            }
        });
    }
}

/// A group of footers stays within its memory, and a huge one is read alone.
#[test]
fn footers_are_read_within_their_memory() {
    let pack = |chunks: u32| PackMark {
        data_chunks: chunks,
        size_bytes: Some(1 << 28),
        ..PackMark::guide(PackId::from_bytes([0; 16]))
    };
    let packs: Vec<PackMark> = [1, 10, 2_000_000, 5, 300_000, 300_000]
        .map(|chunks| PackMark { node_chunks: 0, ..pack(chunks) })
        .into();
    let groups: Vec<usize> = in_groups(&packs, |pack| pack).map(<[_]>::len).collect();
    assert_eq!(groups, [2, 1, 2, 1]);
    let small: Vec<PackMark> = (0..100).map(|_| PackMark { node_chunks: 0, ..pack(1) }).collect();
    assert!(in_groups(&small, |pack| pack).all(|group| group.len() <= FOOTERS_AT_ONCE));
}
