//! What the index costs: rebuilding, adding, finding and not finding. RocksDB beside the map in memory.

use divan::Bencher;
use divan::counter::ItemsCount;
use stillpoint_benches::random::Random;
use stillpoint_rocks::open;
use stillpoint_store::index::{Index, IndexState, Location, MemoryIndex};
use stillpoint_store::tree::Root;
use stillpoint_store::{ChunkId, PackId, RepositoryId};

const ENTRIES: usize = 200_000;
const BATCH: usize = 512;

fn main() {
    divan::main();
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Memory,
    Rocks,
}

const KINDS: [Kind; 2] = [Kind::Memory, Kind::Rocks];

/// An empty index and the folder that it lies in.
fn empty(kind: Kind) -> (Box<dyn Index>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let index = match kind {
        Kind::Memory => Box::new(MemoryIndex::new()) as Box<dyn Index>,
        Kind::Rocks => open(folder.path()).expect("a new index"),
    };
    (index, folder)
}

fn id(number: usize) -> ChunkId {
    let mut bytes = [0; 32];
    Random::seeded(u64::try_from(number).expect("small")).fill(&mut bytes);
    ChunkId::from_bytes(bytes)
}

fn entry(number: usize) -> (ChunkId, Location) {
    let small = |number: usize| u32::try_from(number).expect("small");
    let pack = PackId::from_bytes([u8::try_from(number % 200).expect("small"); 16]);
    let frame = small(number % 64);
    let place = Location {
        pack,
        frame,
        frame_offset: frame << 19,
        frame_len: 1 << 18,
        offset: 0,
        len: 65_536,
    };
    (id(number), place)
}

fn state(seq: u64) -> IndexState {
    let catalogue = Root { id: ChunkId::from_bytes([2; 32]), level: 1, entries: seq, bytes: 0 };
    IndexState { repository: RepositoryId::from_bytes([7; 16]), seq, head_hash: [1; 32], catalogue }
}

fn full(kind: Kind) -> (Box<dyn Index>, tempfile::TempDir) {
    let (index, folder) = empty(kind);
    index.rebuild(&mut (0..ENTRIES).map(entry).map(Ok), state(1)).expect("a temporary folder");
    (index, folder)
}

/// Filling an empty index with 200,000 places.
#[divan::bench(args = KINDS, sample_count = 5)]
fn rebuild(bencher: Bencher, kind: Kind) {
    bencher.counter(ItemsCount::new(ENTRIES)).with_inputs(|| empty(kind)).bench_values(
        |(index, folder)| {
            index
                .rebuild(&mut (0..ENTRIES).map(entry).map(Ok), state(1))
                .expect("a temporary folder");
            (index, folder)
        },
    );
}

/// Adding 2,000 places, as the end of a small backup does.
#[divan::bench(args = KINDS)]
fn add(bencher: Bencher, kind: Kind) {
    let (index, _folder) = full(kind);
    let mut next = ENTRIES;
    let mut seq = 1;
    bencher.counter(ItemsCount::new(2000_usize)).bench_local(|| {
        let additions: Vec<_> = (next..next + 2000).map(entry).collect();
        (next, seq) = (next + 2000, seq + 1);
        index.apply(&additions, state(seq)).expect("a temporary folder");
    });
}

/// Looking for a batch of ids that are there.
#[divan::bench(args = KINDS)]
fn hit(bencher: Bencher, kind: Kind) {
    find(bencher, kind, 0);
}

/// Looking for a batch of ids that are not there: the usual case of new data.
#[divan::bench(args = KINDS)]
fn miss(bencher: Bencher, kind: Kind) {
    find(bencher, kind, 10 * ENTRIES);
}

fn find(bencher: Bencher, kind: Kind, from: usize) {
    let (index, _folder) = full(kind);
    let mut random = Random::seeded(3);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            let number = |_| from + usize::try_from(random.below(ENTRIES as u64)).expect("small");
            (0..BATCH).map(number).map(id).collect::<Vec<_>>()
        })
        .bench_local_refs(|ids| index.lookup(ids, &|_| true).expect("a temporary folder"));
}
