//! The seeds of the fuzz corpora: valid inputs, made by the writers themselves with fixed keys and a seeded clock.

use super::{REPOSITORY, metadata_key, repository_key};
use crate::SeededEnv;
use serde_bytes::ByteArray;
use stillpoint_archive::entry::{
    Content, ContentItem, ContentSchema, Entry, EntryKind, ManifestSchema,
};
use stillpoint_store::backend::{MemoryBackend, read_whole};
use stillpoint_store::catalogue::{
    ForgottenEntry, Key, LostEntry, PackEntry, SnapshotEntry, Tombstone, VerifiedEntry,
    encode_value,
};
use stillpoint_store::crypto::{Generation, KeyRing, RecordContext, RecordKind};
use stillpoint_store::id::{GroupId, ParityId, SlotId, TransactionId};
use stillpoint_store::limits::PACK_BYTES_MAX;
use stillpoint_store::pack::{
    FrameChunk, Level, PackBuilder, PackEnd, PackOptions, compress_frame,
};
use stillpoint_store::parity::{ParityEntry, ParityObjects};
use stillpoint_store::record::config::{ChunkSizes, Config, Sizes};
use stillpoint_store::record::head::Head;
use stillpoint_store::record::slot::{KdfCost, KeySlot, NewSlot, Secret};
use stillpoint_store::record::snapshot::SnapshotRecord;
use stillpoint_store::tree::memory::MemoryNodes;
use stillpoint_store::tree::{Builder, NodeSource, Root, TreeParams};
use stillpoint_store::{
    ChunkId, ChunkKind, DomainId, Env, IdKey, ObjectName, PackId, SnapshotId, Timestamp,
};

/// The name of the slot that the slot target parses.
pub(super) const SLOT: SlotId = SlotId::from_bytes([4; SlotId::LEN]);

/// The name of the snapshot that the snapshot target opens.
pub(super) const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([11; SnapshotId::LEN]);

const CHECKSUM_LEN: usize = 32;

/// One committed input: target, file name, bytes.
pub type Seed = (&'static str, &'static str, Vec<u8>);

/// Every seed, for `fuzz/corpus/TARGET/NAME`.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = vec![
        ("footer", "seed-two-frames", footer()),
        ("pack", "seed-whole", Vec::new()),
        ("config", "seed-usual", config()),
        ("slot", "seed-passphrase", slot(&Secret::passphrase("correct horse battery staple"), 0)),
        ("slot", "seed-key-file", slot(&Secret::key_file(&[1; 64]), 0)),
        ("slot", "seed-rotated", slot(&Secret::key_file(&[1; 64]), 2)),
        ("head", "seed-first", head()),
        ("snapshot", "seed-usual", snapshot()),
        ("parity", "seed-one-pack", super::parity::seed()),
        ("journal", "seed-each-shape", super::journal::seed()),
    ];
    seeds.extend(entries());
    seeds.extend(catalogue());
    seeds.extend(nodes());
    seeds
}

/// A pack with a frame of data and a frame of nodes, and its name.
pub(super) fn real_pack() -> (PackId, Vec<u8>) {
    let env = SeededEnv::new(2);
    let backend = MemoryBackend::new();
    let keys = repository_key().domain(DomainId::default());
    let mut options = PackOptions::new(REPOSITORY, 3);
    options.aead = stillpoint_store::crypto::Aead::ChaCha20Poly1305;
    let mut builder = PackBuilder::create(&backend, &keys, &options, &env).expect("memory");
    let id = *builder.id();
    let texts = [b"a line of text, and again, ".repeat(40), vec![0; 300], b"short".to_vec()];
    for (kind, chunks) in [(ChunkKind::Data, &texts[..]), (ChunkKind::Node, &texts[1..])] {
        let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let frame = compress_frame(&slices, Level::DEFAULT).expect("short frames compress");
        let referred = [ChunkId::from_bytes([8; 32])];
        let chunk = |bytes: &&[u8]| FrameChunk {
            id: keys.id_key(kind).id(bytes),
            len: u32::try_from(bytes.len()).expect("short"),
            references: referred.iter().filter(|_| kind == ChunkKind::Node).copied().collect(),
        };
        let chunks: Vec<_> = slices.iter().map(chunk).collect();
        builder.append_frame(kind, &frame, &chunks).expect("the frame fits");
    }
    builder.finish(PackEnd::Last, &metadata_key(), &env).expect("memory takes everything");
    let most = usize::try_from(PACK_BYTES_MAX).expect("a pack fits into memory");
    let bytes = read_whole(&backend, &ObjectName::Pack(id), most).expect("it was just written");
    (id, bytes.to_vec())
}

/// The plaintext of the real pack's footer behind four bytes that say where it stood.
fn footer() -> Vec<u8> {
    let (id, bytes) = real_pack();
    let trailer = bytes.len() - 16;
    let len = bytes.get(trailer..).and_then(|trailer| trailer.first_chunk::<4>());
    let len = u32::from_le_bytes(*len.expect("a trailer"));
    let start = trailer - usize::try_from(len).expect("32 bits fit");
    let sealed = bytes.get(start..trailer).expect("the footer lies before the trailer");
    let plain = opened(RecordKind::Footer, id.as_bytes(), sealed);
    let start = u32::try_from(start).expect("a small pack").to_le_bytes();
    [start.as_slice(), &plain].concat()
}

fn root() -> Root {
    Root { id: ChunkId::from_bytes([12; 32]), level: 2, entries: 123_456, bytes: 7_890_123_456 }
}

fn head() -> Vec<u8> {
    let head = Head::first(root(), TransactionId::from_bytes([13; 16]));
    let sealed = head.seal(REPOSITORY, &metadata_key(), &SeededEnv::new(5));
    opened(RecordKind::Head, b"", &sealed)
}

fn snapshot() -> Vec<u8> {
    let mut record = SnapshotRecord::new(SeededEnv::new(6).now(), root());
    record.parent = Some(SnapshotId::from_bytes([14; 16]));
    record.host = "laptop".into();
    record.paths = vec![b"/home/\xff".to_vec().into()];
    record.tags = vec!["nightly".into()];
    let env = SeededEnv::new(6);
    let sealed = record.seal(SNAPSHOT, REPOSITORY, &metadata_key(), &env).expect("a short record");
    opened(RecordKind::Snapshot, SNAPSHOT.as_bytes(), &sealed)
}

/// The plaintext of a sealed record.
fn opened(kind: RecordKind, name: &[u8], sealed: &[u8]) -> Vec<u8> {
    let context = RecordContext { repository: REPOSITORY, kind, name };
    metadata_key().open(&context, sealed).expect("it was sealed with this key")
}

/// A configuration without its checksum.
pub(super) fn config() -> Vec<u8> {
    let sizes = |avg| Sizes { min: avg / 4, avg, max: avg * 4 };
    let chunks = ChunkSizes { general: sizes(65_536), dump: sizes(8192), image: sizes(32_768) };
    let config = Config::new(REPOSITORY, SeededEnv::new(3).now(), chunks, sizes(32_768));
    without_checksum(config.encode(&metadata_key()))
}

fn slot(secret: &Secret, rotations: usize) -> Vec<u8> {
    let env = SeededEnv::new(4);
    let mut keys = KeyRing::new(repository_key());
    for _ in 0..rotations {
        keys = keys.rotated(&env).expect("far from the limit");
    }
    let replaces = (rotations > 0).then_some([6; 32]);
    let new = NewSlot { secret, label: "laptop", cost: KdfCost::LEAST };
    let slot = KeySlot::wrap(&keys, &new, &REPOSITORY, replaces, &env);
    without_checksum(slot.expect("the secret is strong enough").encode())
}

fn without_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - CHECKSUM_LEN);
    bytes
}

fn entry(kind: EntryKind, size: u64) -> Entry {
    Entry {
        kind,
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        user: b"someone".to_vec(),
        group: b"users".to_vec(),
        mtime: Timestamp { seconds: -5, nanos: 999_999_999 },
        ctime: Timestamp { seconds: 1_700_000_000, nanos: 1 },
        btime: Some(Timestamp { seconds: 1_600_000_000, nanos: 0 }),
        inode: 77,
        device: 2049,
        nlink: 2,
        size,
        flags: 0x10,
        xattrs: vec![(b"user.colour".to_vec(), b"blue".to_vec())],
        racy: true,
    }
}

fn some_entries() -> Vec<(&'static str, Entry)> {
    let items = vec![
        ContentItem::Data { id: ChunkId::from_bytes([6; 32]), len: 70_000 },
        ContentItem::Hole { len: 1 << 40 },
        ContentItem::Data { id: ChunkId::from_bytes([7; 32]), len: 5 },
    ];
    let size = items.iter().map(ContentItem::len_bytes).sum();
    let inline = EntryKind::File(Content::Inline(b"tiny".to_vec()));
    let link = EntryKind::Symlink { target: b"../\xff elsewhere".to_vec() };
    vec![
        ("seed-inline", entry(inline, 4)),
        ("seed-chunks", entry(EntryKind::File(Content::Chunks(items)), size)),
        ("seed-directory", entry(EntryKind::Directory, 0)),
        ("seed-symlink", entry(link, 0)),
        ("seed-fifo", entry(EntryKind::Fifo, 0)),
        ("seed-device", entry(EntryKind::BlockDevice { major: 8, minor: 1 }, 0)),
    ]
}

fn entries() -> Vec<Seed> {
    some_entries().into_iter().map(|(name, entry)| ("entry", name, entry.to_bytes())).collect()
}

/// A leaf and a branch of a manifest, and a leaf of a content list.
fn nodes() -> Vec<Seed> {
    let memory = MemoryNodes::new(IdKey::new([2; 32]));
    let params =
        TreeParams { boundary_key: [1; 32], min_bytes: 512, avg_bytes: 1024, max_bytes: 4096 };
    let mut sink = &memory;
    let mut builder = Builder::<ManifestSchema>::new(&params, &mut sink);
    let values: Vec<_> = some_entries().into_iter().map(|(_, entry)| entry.to_bytes()).collect();
    for (number, value) in values.iter().cycle().take(60).enumerate() {
        let key = format!("home/file-{number:04}");
        builder.push(key.as_bytes(), value).expect("keys ascend");
    }
    let root = builder.finish().expect("memory takes everything");
    let mut sink = &memory;
    let mut builder = Builder::<ContentSchema>::new(&params, &mut sink);
    for number in 0..9 {
        let mut value = Vec::new();
        let id = ChunkId::from_bytes([number; 32]);
        ContentItem::Data { id, len: 100 }.encode(&mut value);
        builder.push(&[], &value).expect("a sequence takes everything");
    }
    let content = builder.finish().expect("memory takes everything");
    let load = |id| memory.load(&id).expect("it was just stored").to_vec();
    let leaf = memory.ids().into_iter().find(|id| *id != root.id && *id != content.id);
    vec![
        ("node", "seed-branch", load(root.id)),
        ("node", "seed-leaf", load(leaf.expect("sixty entries make several leaves"))),
        ("node", "seed-content", load(content.id)),
    ]
}

/// One key and its value of every kind that the catalogue has.
fn catalogue() -> Vec<Seed> {
    let time = SeededEnv::new(7).now();
    let (pack, id) = (PackId::from_bytes([15; 16]), SnapshotId::from_bytes([16; 16]));
    let live = SnapshotEntry {
        hash: [17; 32],
        root: root(),
        committed: time,
        protected: true,
        record: Some(id),
    };
    let pack_entry = PackEntry {
        size_bytes: 33_554_432,
        hash: [18; 32],
        born: 300,
        data_chunks: 400,
        node_chunks: 70_000,
        generation: Generation(2),
    };
    let tombstone = Tombstone { size_bytes: 70_000, condemned: time, seq: 301, born: 300 };
    let seed = |name, key: Key, value: Vec<u8>| {
        let key = key.encode();
        let len = u8::try_from(key.len()).expect("a short key");
        ("catalogue", name, [&[len][..], &key, &value].concat())
    };
    let forgotten = ForgottenEntry { entry: live, forgotten: time, seq: 302 };
    let chunk = ChunkId::from_bytes([19; 32]);
    let group = ParityEntry {
        members: vec![pack],
        parities: vec![ParityId::from_bytes([21; 16])],
        announced: time,
        objects: Some(ParityObjects { size_bytes: 300, hashes: vec![ByteArray::new([22; 32])] }),
    };
    vec![
        seed("seed-pack", Key::Pack(pack), encode_value(&pack_entry)),
        seed("seed-snapshot", Key::Snapshot(id), encode_value(&live)),
        seed("seed-forgotten", Key::Forgotten(id), encode_value(&forgotten)),
        seed("seed-tombstone", Key::Tombstone(pack), encode_value(&tombstone)),
        seed("seed-lost", Key::Lost(chunk), encode_value(&LostEntry { noticed: time })),
        seed("seed-parity", Key::Parity(GroupId::from_bytes([20; 16])), encode_value(&group)),
        seed("seed-verified", Key::Verified(pack), encode_value(&VerifiedEntry { time })),
    ]
}
