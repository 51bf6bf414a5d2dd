//! Writes a repository of very many tiny chunks, so that prune and check can be measured on it.
//!
//! `cargo run --release -p stillpoint-testkit --example many_chunks -- FOLDER KEY_FILE SNAPSHOTS CHUNKS BYTES`
//!
//! Each snapshot stores so many new chunks of so many bytes and shares a fifth of those of the snapshot before it; every
//! second snapshot is then forgotten. So half of all packs are needed for a fifth.

use std::path::Path;
use std::sync::Arc;
use stillpoint_chunker::{Chunk, ChunkBatch, ChunkId, Profile};
use stillpoint_store::backend::LocalBackend;
use stillpoint_store::record::{KdfCost, Secret};
use stillpoint_store::repository::CreateOptions;
use stillpoint_store::tree::{Builder, Schema};
use stillpoint_store::{OpenOptions, Repository, SnapshotId, SnapshotRecord, SystemEnv};
use stillpoint_store::{WriteOptions, Writer};
use stillpoint_testkit::Random;

/// Chunks that are given to a session at once.
const BATCH_CHUNKS: u32 = 1000;

/// Numbers map to one chunk each.
struct Numbered;

impl Schema for Numbered {
    const NAME: &'static str = "numbered";
    const ORDERED: bool = true;

    fn weight(_key: &[u8], _value: &[u8]) -> u64 {
        1
    }

    fn references(
        _key: &[u8],
        value: &[u8],
        out: &mut Vec<ChunkId>,
    ) -> stillpoint_store::Result<()> {
        out.extend(value.first_chunk().map(|id| ChunkId::from_bytes(*id)));
        Ok(())
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, key_file, snapshots, chunks, bytes] = arguments.as_slice() else {
        eprintln!("usage: many_chunks FOLDER KEY_FILE SNAPSHOTS CHUNKS BYTES");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u32>().expect("a number");
    let (snapshots, chunks, bytes) = (number(snapshots), number(chunks), number(bytes));
    let secret = Secret::key_file(&std::fs::read(key_file).expect("the key file is there"));
    let create = CreateOptions { kdf: KdfCost::LEAST, ..CreateOptions::default() };
    let backend = Arc::new(LocalBackend::new(Path::new(folder)));
    let options = OpenOptions::in_memory();
    let repository = Repository::create(backend, Arc::new(SystemEnv), &secret, &create, options)
        .expect("the folder is free");
    let mut random = Random::new(1);
    let (mut before, mut gone) = (Vec::new(), Vec::new());
    for snapshot in 0..snapshots {
        let writer = repository.writer(WriteOptions::default()).expect("a session begins");
        let new = store(&repository, &writer, &mut random, chunks, bytes);
        let shared = before.iter().step_by(5).copied();
        let ids: Vec<ChunkId> = shared.chain(new.iter().copied()).collect();
        let id = commit(&repository, writer, &ids);
        if snapshot % 2 == 0 {
            gone.push(id);
        }
        before = new;
        if snapshot % 100 == 99 {
            println!("{} snapshots", snapshot + 1);
        }
    }
    repository.forget(&gone).expect("they are there");
}

/// Stores new chunks of random bytes; gives their ids.
fn store(
    repository: &Repository,
    writer: &Writer,
    random: &mut Random,
    chunks: u32,
    len: u32,
) -> Vec<ChunkId> {
    let chunker = repository.chunker(Profile::General).expect("sizes are usable");
    let size = |count: u32| usize::try_from(count).expect("it fits");
    let mut ids = Vec::with_capacity(size(chunks));
    let mut left = chunks;
    while left > 0 {
        let count = left.min(BATCH_CHUNKS);
        let bytes = random.bytes(size(count) * size(len));
        let pieces = (0..count).zip(bytes.chunks(size(len)));
        let chunks: Vec<Chunk> = pieces
            .map(|(at, piece)| Chunk { id: chunker.id(piece), offset: at * len, len })
            .collect();
        ids.extend(chunks.iter().map(|chunk| chunk.id));
        writer.add_data(&ChunkBatch { bytes: Arc::new(bytes), chunks }).expect("chunks are stored");
        left -= count;
    }
    ids
}

fn commit(repository: &Repository, writer: Writer, ids: &[ChunkId]) -> SnapshotId {
    let params = repository.tree_params();
    let mut sink = writer.node_sink();
    let mut manifest = Builder::<Numbered>::new(&params, &mut sink);
    for (number, id) in (0u64..).zip(ids) {
        manifest.push(&number.to_be_bytes(), id.as_bytes()).expect("keys ascend");
    }
    let root = manifest.finish().expect("nodes are stored");
    let record = SnapshotRecord::new(repository.env().now(), root);
    writer.commit(record).expect("the snapshot is committed").0
}
