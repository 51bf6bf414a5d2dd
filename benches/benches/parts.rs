//! What the parts cost by themselves: cut, hash, compress, seal, open, tree. One core each but where said.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use std::sync::Arc;
use stillpoint_archive::ManifestSchema;
use stillpoint_archive::entry::{Content, Entry, EntryKind};
use stillpoint_benches::random::Random;
use stillpoint_chunker::{Chunker, Gear, IdKey, Profile};
use stillpoint_store::backend::{MemoryBackend, read_whole};
use stillpoint_store::crypto::{Aead, RepositoryKey};
use stillpoint_store::limits::PACK_BYTES_MAX;
use stillpoint_store::pack::{
    CompressedFrame, FrameChunk, Level, PackBuilder, PackEnd, PackKey, PackOptions, compress_frame,
};
use stillpoint_store::tree::memory::MemoryNodes;
use stillpoint_store::tree::{Builder, Root, Tree, TreeParams, diff, edit};
use stillpoint_store::{ChunkKind, DomainId, ObjectName, RepositoryId, SystemEnv};

const MIB: usize = 1 << 20;
const STREAM_BYTES: usize = 32 * MIB;
const FRAME_BYTES: usize = 512 << 10;
const ENTRIES: usize = 100_000;

fn main() {
    divan::main();
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Random::seeded(1).fill(&mut bytes);
    bytes
}

/// Lines of words with a number each: compresses about as source text does.
fn text(len: usize) -> Vec<u8> {
    let mut random = Random::seeded(2);
    let mut bytes = Vec::with_capacity(len + 100);
    while bytes.len() < len {
        bytes.extend_from_slice(random.line().as_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn chunker(profile: Profile) -> Chunker {
    Chunker::new(Arc::new(Gear::keyed(&[1; 32])), profile.params(), IdKey::new([2; 32]))
}

/// Cutting and hashing a stream, on all cores.
#[divan::bench(args = Profile::ALL)]
fn cut_and_hash_stream(bencher: Bencher, profile: Profile) {
    let bytes = noise(STREAM_BYTES);
    let chunker = chunker(profile);
    bencher.counter(BytesCount::new(bytes.len())).bench(|| {
        let batches = chunker.stream(bytes.as_slice());
        batches.map(|batch| batch.expect("memory reads").chunks.len()).sum::<usize>()
    });
}

/// Hashing alone, by the length of the chunk.
#[divan::bench(args = [4 << 10, 64 << 10, MIB])]
fn hash(bencher: Bencher, len: usize) {
    let (bytes, key) = (noise(len), IdKey::new([2; 32]));
    bencher.counter(BytesCount::new(len)).bench(|| key.id(black_box(&bytes)));
}

/// Compressing one frame of text in chunks of 64 KiB.
#[divan::bench(args = [-5, 1, 3])]
fn compress_text(bencher: Bencher, level: i32) {
    let bytes = text(FRAME_BYTES);
    compress(bencher, &bytes, level);
}

/// The cheap test for what does not compress.
#[divan::bench(args = [1, 3])]
fn compress_noise(bencher: Bencher, level: i32) {
    let bytes = noise(FRAME_BYTES);
    compress(bencher, &bytes, level);
}

fn compress(bencher: Bencher, bytes: &[u8], level: i32) {
    let chunks: Vec<&[u8]> = bytes.chunks(64 << 10).collect();
    let level = Level::new(level).expect("a level");
    bencher.counter(BytesCount::new(bytes.len())).bench(|| compress_frame(&chunks, level));
}

/// Frames to seal: incompressible, so that only sealing and writing to memory are measured.
struct Frames {
    frame: CompressedFrame,
    chunks: Vec<FrameChunk>,
}

const FRAMES: usize = 32;

fn frames() -> Frames {
    let bytes = noise(FRAME_BYTES);
    let key = IdKey::new([2; 32]);
    let parts: Vec<&[u8]> = bytes.chunks(64 << 10).collect();
    let chunk = |part: &&[u8]| FrameChunk {
        id: key.id(part),
        len: u32::try_from(part.len()).expect("64 KiB"),
        references: Vec::new(),
    };
    let frame = compress_frame(&parts, Level::DEFAULT).expect("a frame");
    Frames { frame, chunks: parts.iter().map(chunk).collect() }
}

fn pack(frames: &Frames, options: &PackOptions) -> (ObjectName, MemoryBackend) {
    let backend = MemoryBackend::new();
    let keys = RepositoryKey::from_bytes(&[5; 32]);
    let domain = keys.domain(DomainId::default());
    let mut builder = PackBuilder::create(&backend, &domain, options, &SystemEnv).expect("memory");
    let name = ObjectName::Pack(*builder.id());
    for _ in 0..FRAMES {
        builder.append_frame(ChunkKind::Data, &frames.frame, &frames.chunks).expect("it fits");
    }
    builder.finish(PackEnd::Last, &keys.metadata(), &SystemEnv).expect("memory");
    (name, backend)
}

fn options(aead: Aead, verify: bool) -> PackOptions {
    let mut options = PackOptions::new(RepositoryId::from_bytes([7; 16]), 1);
    (options.aead, options.verify) = (aead, verify);
    options
}

/// Sealing 16 MiB of frames into a pack in memory; with `verify` each frame is opened again.
#[divan::bench(args = [(Aead::Aes256Gcm, false), (Aead::Aes256Gcm, true), (Aead::ChaCha20Poly1305, false)])]
fn seal(bencher: Bencher, (aead, verify): (Aead, bool)) {
    let (frames, options) = (frames(), options(aead, verify));
    bencher
        .counter(BytesCount::new(FRAMES * FRAME_BYTES))
        .bench(|| pack(black_box(&frames), &options));
}

/// Opening all frames of such a pack.
#[divan::bench(args = [Aead::Aes256Gcm, Aead::ChaCha20Poly1305])]
fn open(bencher: Bencher, aead: Aead) {
    let options = options(aead, false);
    let (name, backend) = pack(&frames(), &options);
    let most = usize::try_from(PACK_BYTES_MAX).expect("a pack fits into memory");
    let bytes = read_whole(&backend, &name, most).expect("memory");
    let ObjectName::Pack(id) = name else { unreachable!("a pack was made") };
    let keys = RepositoryKey::from_bytes(&[5; 32]).domain(DomainId::default());
    bencher.counter(BytesCount::new(FRAMES * FRAME_BYTES)).bench(|| {
        let key = PackKey::open(&id, &bytes, &options.repository, &keys).expect("the right keys");
        key.walk(&bytes).map(|frame| frame.expect("whole").1.bytes().len()).sum::<usize>()
    });
}

fn manifest_entry(number: usize) -> (Vec<u8>, Vec<u8>) {
    let key = format!("home\0someone\0project-{:04}\0file-{number:08}.rs", number / 100);
    let entry = Entry {
        kind: EntryKind::File(Content::Inline(number.to_le_bytes().to_vec())),
        size: 8,
        inode: u64::try_from(number).expect("small"),
        ..Entry::default()
    };
    (key.into_bytes(), entry.to_bytes())
}

fn params() -> TreeParams {
    TreeParams::new([1; 32])
}

fn build(nodes: &MemoryNodes, entries: &[(Vec<u8>, Vec<u8>)]) -> Root {
    let mut sink = nodes;
    let mut builder = Builder::<ManifestSchema>::new(&params(), &mut sink);
    for (key, value) in entries {
        builder.push(key, value).expect("keys ascend");
    }
    builder.finish().expect("memory")
}

fn entries() -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..ENTRIES).map(manifest_entry).collect()
}

/// Building a manifest of 100,000 entries.
#[divan::bench]
fn tree_build(bencher: Bencher) {
    let entries = entries();
    bencher
        .counter(ItemsCount::new(ENTRIES))
        .with_inputs(|| MemoryNodes::new(IdKey::new([2; 32])))
        .bench_refs(|nodes| build(nodes, &entries));
}

/// Stepping over all entries of a manifest: what an unchanged backup does with its parent.
#[divan::bench]
fn tree_walk(bencher: Bencher) {
    let nodes = MemoryNodes::new(IdKey::new([2; 32]));
    let root = build(&nodes, &entries());
    bencher.counter(ItemsCount::new(ENTRIES)).bench(|| {
        let mut cursor = Tree::<ManifestSchema>::open(root, &nodes).iter().expect("memory");
        let mut bytes = 0;
        while let Some((key, value)) = cursor.peek() {
            bytes += key.len() + value.len();
            cursor.advance().expect("memory");
        }
        bytes
    });
}

/// Changing k scattered entries of 100,000, and finding them again by diff.
#[divan::bench(args = [1, 100])]
fn tree_edit_and_diff(bencher: Bencher, changed: usize) {
    let nodes = MemoryNodes::new(IdKey::new([2; 32]));
    let root = build(&nodes, &entries());
    bencher.counter(ItemsCount::new(changed)).bench(|| {
        let changes = (0..changed).map(|number| {
            let (key, _) = manifest_entry(number * (ENTRIES / changed));
            (key, Some(manifest_entry(number + ENTRIES).1))
        });
        let mut sink = &nodes;
        let new =
            edit::<ManifestSchema>(root, changes, &params(), &nodes, &mut sink).expect("memory");
        let found = diff::<ManifestSchema>(root, new, &nodes, &nodes).count();
        assert_eq!(found, changed, "the differences are the changes");
    });
}
