//! The hex vectors of FORMAT.md: each decodes to what the page says, and is written again byte for byte.
//! Those of parity stand beside its code.

use crate::backend::{Backend, MemoryBackend};
use crate::catalogue::{
    ForgottenEntry, LostEntry, PackEntry, SnapshotEntry, Tombstone, VerifiedEntry, decode_value,
    encode_value,
};
use crate::crypto::test_env::SeededEnv;
use crate::crypto::{
    Aead, DomainKeys, Generation, KeyRing, MetadataKey, RecordContext, RecordKind, RepositoryKey,
};
use crate::env::{Env, Timestamp};
use crate::error::Result;
use crate::id::{ChunkKind, DomainId, ObjectName, PackId, RepositoryId, SlotId, SnapshotId};
use crate::pack::*;
use crate::record::config::{ChunkSizes, Config, Sizes, UncheckedConfig};
use crate::record::slot::{KdfCost, KeySlot, NewSlot, Secret, unlock};
use crate::record::{Head, Original, SnapshotRecord, to_cbor};
use crate::tree::memory::MemoryNodes;
use crate::tree::{Builder, Root, Schema, Tree, TreeParams};
use std::fmt::Write;
use stillpoint_chunker::ChunkId;

const PAGE: &str = include_str!("../../FORMAT.md");

/// The bytes of the block that starts with "```hex NAME".
pub(crate) fn vector(name: &str) -> Vec<u8> {
    let start = PAGE.find(&format!("```hex {name}\n")).unwrap_or_else(|| panic!("no {name}"));
    let block = PAGE[start..].lines().skip(1).take_while(|line| !line.starts_with("```"));
    let digits: String = block.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Compares with the page; shows what the page would have to say.
#[track_caller]
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let mut lines = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(lines, "{byte:02x}").unwrap());
        lines.push('\n');
    }
    assert!(vector(name) == bytes, "FORMAT.md has other bytes:\n```hex {name}\n{lines}```");
}

fn root() -> RepositoryKey {
    RepositoryKey::from_bytes(&std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x11; 16]);

fn keys() -> DomainKeys {
    root().domain(DomainId(0))
}

/// Keys derived from the repository key 00 01 .. 1f.
#[test]
fn derived_keys() {
    let keys = keys();
    check("id-of-hello-data", keys.id_key(ChunkKind::Data).id(b"hello").as_bytes());
    check("id-of-hello-node", keys.id_key(ChunkKind::Node).id(b"hello").as_bytes());
    check("chunker-key", keys.gear_secret());
    check("boundary-key", keys.boundary_key());
    check("x25519-public", &keys.public_bytes());
}

/// A sealed record with either cipher.
#[test]
fn sealed_records() {
    let metadata = root().metadata();
    let context =
        RecordContext { repository: REPOSITORY, kind: RecordKind::Snapshot, name: &[0x22; 16] };
    for (name, aead) in [("record-aes", Aead::Aes256Gcm), ("record-chacha", Aead::ChaCha20Poly1305)]
    {
        check(name, &metadata.seal_with(aead, &context, b"a record", &SeededEnv::new(1)));
        assert_eq!(metadata.open(&context, &vector(name)).unwrap(), b"a record");
    }
}

/// The ring of two generations: the keys 00 01 .. 1f and 20 21 .. 3f.
fn ring() -> KeyRing {
    let second: [u8; 32] = std::array::from_fn(|at| u8::try_from(at + 32).unwrap());
    let entry = |number: u32, key: &[u8; 32]| [&number.to_le_bytes()[..], key].concat();
    KeyRing::decode(&[entry(1, &second), entry(0, root().expose())].concat()).unwrap()
}

/// A record, a key slot and a pack's header of generation 1; old keys open the first and the last no more.
#[test]
fn later_generations() {
    let context =
        RecordContext { repository: REPOSITORY, kind: RecordKind::Snapshot, name: &[0x22; 16] };
    let sealed = ring().metadata().seal_with(
        Aead::ChaCha20Poly1305,
        &context,
        b"a record",
        &SeededEnv::new(1),
    );
    check("record-rotated", &sealed);
    let stored = vector("record-rotated");
    assert_eq!(MetadataKey::generation_of(&context, &stored).unwrap(), Generation(1));
    assert_eq!(ring().metadata().open(&context, &stored).unwrap(), b"a record");
    assert!(root().metadata().open(&context, &stored).is_err());

    let secret = Secret::key_file(&[0x33; 32]);
    let new = NewSlot { secret: &secret, label: "kind", cost: KdfCost::LEAST };
    let slot =
        KeySlot::wrap(&ring(), &new, &REPOSITORY, Some([0x77; 32]), &SeededEnv::new(2)).unwrap();
    check("slot-rotated", &slot.encode());
    let (id, bytes) = (SlotId::random(&SeededEnv::new(2)), vector("slot-rotated"));
    let (_, keys) = unlock([(id, bytes.as_slice())], &secret, &REPOSITORY).unwrap();
    assert_eq!(keys.encode(), ring().encode());
    assert_eq!(KeySlot::parse(id, &bytes).unwrap().replaces(), Some([0x77; 32]));

    let (env, backend) = (SeededEnv::new(3), MemoryBackend::new());
    let keys = ring().domain(DomainId(0));
    let options = PackOptions { aead: Aead::Aes256Gcm, ..PackOptions::new(REPOSITORY, 9) };
    let builder = PackBuilder::create(&backend, &keys, &options, &env).unwrap();
    let summary = builder.finish(PackEnd::Last, &ring().metadata(), &env).unwrap();
    assert_eq!(summary.generation, Generation(1));
    let header = backend.read(&ObjectName::Pack(summary.id), 0..116).unwrap();
    check("pack-header-rotated", &header);
    let stored = vector("pack-header-rotated");
    PackKey::open(&summary.id, &stored, &REPOSITORY, &keys).unwrap();
    let old = root().domain(DomainId(0));
    assert!(PackKey::open(&summary.id, &stored, &REPOSITORY, &old).is_err());
}

/// The configuration.
#[test]
fn configuration() {
    let sizes = |min, avg, max| Sizes { min, avg, max };
    let config = Config {
        repository: REPOSITORY,
        created: Timestamp { seconds: 1_800_000_000, nanos: 5 },
        program: "stillpoint 0.1.0".into(),
        chunks: ChunkSizes {
            general: sizes(16384, 65536, 524_288),
            dump: sizes(2048, 8192, 65536),
            image: sizes(8192, 32768, 262_144),
        },
        nodes: sizes(8192, 32768, 131_072),
        pack_target_bytes: 33_554_432,
        level: Level::new(-3).unwrap(),
    };
    check("config", &config.encode(&root().metadata()));
    let parsed = UncheckedConfig::parse(&vector("config")).unwrap();
    assert_eq!(parsed.check(&root().metadata()).unwrap(), config);
}

/// A slot under a passphrase and one under a key file.
#[test]
fn key_slots() {
    let passphrase = Secret::passphrase("correct horse battery staple");
    let key_file = Secret::key_file(&[0x33; 32]);
    for (name, secret, kind) in
        [("slot-passphrase", passphrase, "kind"), ("slot-key-file", key_file, "kind")]
    {
        let (env, cost) = (SeededEnv::new(2), KdfCost::LEAST);
        let new = NewSlot { secret: &secret, label: kind, cost };
        let slot = KeySlot::wrap(&KeyRing::new(root()), &new, &REPOSITORY, None, &env).unwrap();
        check(name, &slot.encode());
        let id = SlotId::random(&SeededEnv::new(2));
        let bytes = vector(name);
        let (_, key) = unlock([(id, bytes.as_slice())], &secret, &REPOSITORY).unwrap();
        assert_eq!(key.newest().expose(), root().expose());
        assert_eq!(KeySlot::parse(id, &bytes).unwrap().created(), env.now());
    }
}

/// A pack with a frame of two data chunks and one of a node, stored without compression.
#[test]
fn packs() {
    let (env, backend) = (SeededEnv::new(3), MemoryBackend::new());
    let metadata = root().metadata();
    let options = PackOptions { aead: Aead::Aes256Gcm, ..PackOptions::new(REPOSITORY, 9) };
    let mut builder = PackBuilder::create(&backend, &keys(), &options, &env).unwrap();
    let id = |kind, bytes: &[u8]| keys().id_key(kind).id(bytes);
    let (data, node) = (ChunkKind::Data, ChunkKind::Node);
    let first = id(data, b"first chunk");
    for (kind, chunks) in
        [(data, vec![b"first chunk".as_slice(), b"second"]), (node, vec![b"a node".as_slice()])]
    {
        let described: Vec<FrameChunk> = chunks
            .iter()
            .map(|chunk| FrameChunk {
                id: id(kind, chunk),
                len: u32::try_from(chunk.len()).unwrap(),
                references: if kind == node { vec![first] } else { vec![] },
            })
            .collect();
        let frame = compress_frame(&chunks, Level::STORE).unwrap();
        builder.append_frame(kind, &frame, &described).unwrap();
    }
    let summary = builder.finish(PackEnd::Last, &metadata, &env).unwrap();
    let name = ObjectName::Pack(summary.id);
    check("pack", &backend.read(&name, 0..summary.size_bytes).unwrap());
    check("pack-hash", &summary.hash);
    assert_eq!(summary.id, PackId::random(&SeededEnv::new(3)));
    let chunks = read_pack(&backend, &metadata, &summary).unwrap();
    let contents: Vec<&[u8]> = chunks.iter().map(|(_, bytes, _)| bytes.as_slice()).collect();
    assert_eq!(contents, [b"first chunk".as_slice(), b"second", b"a node"]);
    assert!(chunks.iter().all(|(id_read, bytes, kind)| id(*kind, bytes) == *id_read));
}

type Chunks = Vec<(ChunkId, Vec<u8>, ChunkKind)>;

fn read_pack(
    backend: &MemoryBackend,
    metadata: &MetadataKey,
    summary: &PackSummary,
) -> Result<Chunks> {
    let footer = read_footer(backend, &REPOSITORY, &summary.id, summary.size_bytes, metadata)?;
    let name = ObjectName::Pack(summary.id);
    let bytes = backend.read(&name, 0..summary.size_bytes)?;
    let key = PackKey::open(&summary.id, &bytes, &REPOSITORY, &keys())?;
    let mut chunks = Chunks::new();
    for (id, kind, place) in footer.locations() {
        let range = u64::from(place.frame_offset)
            ..u64::from(place.frame_offset) + u64::from(place.frame_len);
        let frame = key.open_frame(place.frame, &backend.read(&name, range)?)?;
        let start = usize::try_from(place.offset).unwrap();
        let end = start + usize::try_from(place.len).unwrap();
        chunks.push((id, frame.bytes()[start..end].to_vec(), kind));
    }
    Ok(chunks)
}

/// A compressed frame of an encoder that may be replaced: only decoding is fixed.
#[test]
fn compressed_frames() {
    let text = b"again and ".repeat(12);
    let frame = CompressedFrame::from_parts(Codec::Zstd, 128, 1, vector("zstd-frame"));
    verify_frame(
        &frame,
        keys().id_key(ChunkKind::Data),
        &[keys().id_key(ChunkKind::Data).id(&text)],
    )
    .unwrap();
    assert_eq!(frame.data_len(), text.len());
}

/// The tree root that the vectors of records name.
fn some_root() -> Root {
    Root { id: ChunkId::from_bytes([0x66; 32]), level: 2, entries: 1_000, bytes: 123_456 }
}

const TIME: Timestamp = Timestamp { seconds: 5, nanos: 6 };

/// Values of the catalogue.
#[test]
fn catalogue_values() {
    let hash = std::array::from_fn(|at| if at % 2 == 0 { 0x44 } else { 0x55 });
    for (name, generation) in [("catalogue-pack", 0), ("catalogue-pack-rotated", 1)] {
        let pack = PackEntry {
            size_bytes: 32 << 20,
            hash,
            born: 7,
            data_chunks: 400,
            node_chunks: 3,
            generation: Generation(generation),
        };
        check(name, &encode_value(&pack));
        assert_eq!(decode_value::<PackEntry>(&vector(name)).unwrap(), pack);
    }
    let snapshot =
        SnapshotEntry { hash, root: some_root(), committed: TIME, protected: false, record: None };
    check("catalogue-snapshot", &encode_value(&snapshot));
    assert_eq!(decode_value::<SnapshotEntry>(&vector("catalogue-snapshot")).unwrap(), snapshot);
    let tombstone = Tombstone { size_bytes: 32 << 20, condemned: TIME, seq: 9, born: 7 };
    check("catalogue-tombstone", &encode_value(&tombstone));
    assert_eq!(decode_value::<Tombstone>(&vector("catalogue-tombstone")).unwrap(), tombstone);
    let again = SnapshotEntry { record: Some(SnapshotId::from_bytes([0x99; 16])), ..snapshot };
    check("catalogue-snapshot-resealed", &encode_value(&again));
    assert_eq!(
        decode_value::<SnapshotEntry>(&vector("catalogue-snapshot-resealed")).unwrap(),
        again
    );
    let entry = SnapshotEntry { protected: true, ..snapshot };
    let forgotten = ForgottenEntry { entry, forgotten: TIME, seq: 9 };
    check("catalogue-forgotten", &encode_value(&forgotten));
    assert_eq!(decode_value::<ForgottenEntry>(&vector("catalogue-forgotten")).unwrap(), forgotten);
    check("catalogue-moment", &encode_value(&LostEntry { noticed: TIME }));
    check("catalogue-moment", &encode_value(&VerifiedEntry { time: TIME }));
}

/// The plaintext of a head and of a snapshot record, which open after they were sealed.
#[test]
fn heads_and_snapshots() {
    let (metadata, env) = (root().metadata(), SeededEnv::new(4));
    let head = Head {
        version: 1,
        seq: 12,
        fence: 3,
        catalogue: some_root(),
        previous: [0x77; 32],
        transaction: [0x88; 16],
        recent: vec![serde_bytes::ByteArray::new([0x99; 16])],
        catalogues: vec![serde_bytes::ByteArray::new([0xaa; 32])],
    };
    check("head", &to_cbor(&head));
    let context = RecordContext { repository: REPOSITORY, kind: RecordKind::Head, name: b"" };
    let sealed = metadata.seal(&context, &vector("head"), &env);
    assert_eq!(Head::open(&sealed, REPOSITORY, &metadata).unwrap(), head);

    let mut record = SnapshotRecord::new(TIME, some_root());
    record.host = "h".into();
    record.paths = vec![serde_bytes::ByteBuf::from(b"/a")];
    record.tags = vec!["t".into()];
    record.parent = Some(SnapshotId::from_bytes([0x99; 16]));
    check("snapshot", &to_cbor(&record));
    let id = SnapshotId::from_bytes([0x22; 16]);
    let context =
        RecordContext { repository: REPOSITORY, kind: RecordKind::Snapshot, name: id.as_bytes() };
    let sealed = metadata.seal(&context, &vector("snapshot"), &env);
    assert_eq!(SnapshotRecord::open(&sealed, id, REPOSITORY, &metadata).unwrap(), record);

    let mut copied = SnapshotRecord::new(TIME, some_root());
    let repository = RepositoryId::from_bytes([0xaa; 16]);
    copied.original = Some(Original { repository, snapshot: SnapshotId::from_bytes([0xbb; 16]) });
    check("snapshot-copied", &to_cbor(&copied));
    let sealed = metadata.seal(&context, &vector("snapshot-copied"), &env);
    assert_eq!(SnapshotRecord::open(&sealed, id, REPOSITORY, &metadata).unwrap(), copied);
}

/// A schema whose entries mean nothing.
struct Plain;

impl Schema for Plain {
    const NAME: &'static str = "vector";
    const ORDERED: bool = true;

    fn weight(_: &[u8], value: &[u8]) -> u64 {
        u64::try_from(value.len()).unwrap_or(0)
    }

    fn references(_: &[u8], _: &[u8], _: &mut Vec<ChunkId>) -> Result<()> {
        Ok(())
    }
}

/// A leaf of a tree, and a branch over leaves as small as they may be.
#[test]
fn tree_nodes() {
    let params = TreeParams {
        boundary_key: *keys().boundary_key(),
        min_bytes: 64,
        avg_bytes: 65,
        max_bytes: 66,
    };
    let nodes = &MemoryNodes::new(keys().id_key(ChunkKind::Node).clone());
    let build = |count: u32| {
        let mut sink = nodes;
        let mut builder = Builder::<Plain>::new(&params, &mut sink);
        for number in 0..count {
            let key = format!("key {number:03}");
            builder.push(key.as_bytes(), &[b'v'; 30]).unwrap();
        }
        builder.finish().unwrap()
    };
    let (leaf, branch) = (build(2), build(4));
    for (name, root, entries, level) in [("tree-leaf", leaf, 2, 0), ("tree-branch", branch, 4, 1)] {
        assert_eq!((root.entries, root.bytes, root.level), (entries, entries * 30, level));
        let bytes = crate::tree::NodeSource::load(nodes, &root.id).unwrap();
        check(name, &bytes);
        assert_eq!(keys().id_key(ChunkKind::Node).id(&vector(name)), root.id);
    }
    let tree = Tree::<Plain>::open(branch, nodes);
    assert_eq!(tree.get(b"key 003").unwrap(), Some(vec![b'v'; 30]));
}
