//! Packs written to a map and read back, whole and damaged in every way.

use super::*;
use crate::backend::{Backend, MemoryBackend};
use crate::crypto::test_env::SeededEnv;
use crate::crypto::{Aead, DomainKeys, MetadataKey, RepositoryKey};
use crate::error::{Error, Result};
use crate::id::{ChunkKind, DomainId, ObjectName, PackId, RepositoryId};
use crate::index::Location;
use std::collections::HashMap;
use stillpoint_chunker::ChunkId;

/// A repository's keys and a place for packs.
struct World {
    env: SeededEnv,
    repository: RepositoryId,
    keys: DomainKeys,
    metadata: MetadataKey,
    backend: MemoryBackend,
}

/// A frame's chunks: plaintext and references.
type Chunks = Vec<(Vec<u8>, Vec<ChunkId>)>;

/// What is expected of a chunk after writing: kind, plaintext, references.
type Expected = HashMap<ChunkId, (ChunkKind, Vec<u8>, Vec<ChunkId>)>;

impl World {
    fn new(seed: u64) -> Self {
        let env = SeededEnv::new(seed);
        let repository = RepositoryId::random(&env);
        let root = RepositoryKey::generate(&env);
        Self {
            keys: root.domain(DomainId(7)),
            metadata: root.metadata(),
            repository,
            env,
            backend: MemoryBackend::new(),
        }
    }

    fn options(&self, aead: Aead) -> PackOptions {
        PackOptions { aead, ..PackOptions::new(self.repository, 41) }
    }

    /// Seals one frame and remembers what it holds.
    fn append(
        &self,
        builder: &mut PackBuilder,
        kind: ChunkKind,
        chunks: &Chunks,
        level: Level,
        expected: &mut Expected,
    ) -> Vec<(ChunkId, Location)> {
        let slices: Vec<&[u8]> = chunks.iter().map(|(bytes, _)| bytes.as_slice()).collect();
        let frame = compress_frame(&slices, level).unwrap();
        let key = self.keys.id_key(kind);
        let described: Vec<FrameChunk> = chunks
            .iter()
            .map(|(bytes, references)| FrameChunk {
                id: key.id(bytes),
                len: u32::try_from(bytes.len()).unwrap(),
                references: references.clone(),
            })
            .collect();
        let ids: Vec<ChunkId> = described.iter().map(|chunk| chunk.id).collect();
        verify_frame(&frame, key, &ids).unwrap();
        for (id, (bytes, references)) in ids.iter().zip(chunks) {
            expected.insert(*id, (kind, bytes.clone(), references.clone()));
        }
        builder.append_frame(kind, &frame, &described).unwrap()
    }

    /// A pack with these frames, and what it should hold.
    fn pack(&self, aead: Aead, frames: &[(ChunkKind, Chunks)]) -> (PackSummary, Expected) {
        let options = self.options(aead);
        let mut expected = Expected::new();
        let mut builder =
            PackBuilder::create(&self.backend, &self.keys, &options, &self.env).unwrap();
        for (kind, chunks) in frames {
            self.append(&mut builder, *kind, chunks, Level::DEFAULT, &mut expected);
        }
        (builder.finish(PackEnd::Last, &self.metadata, &self.env).unwrap(), expected)
    }

    fn bytes(&self, pack: &PackId) -> Vec<u8> {
        self.backend.contents().objects.get(&ObjectName::Pack(*pack)).unwrap().to_vec()
    }

    /// Puts other bytes under the pack's name.
    fn replace(&self, pack: &PackId, bytes: &[u8]) {
        assert!(self.backend.damage(&ObjectName::Pack(*pack), |old| *old = bytes.to_vec()));
    }

    fn footer(&self, pack: &PackId) -> Result<Footer> {
        let size = self.backend.size_bytes(&ObjectName::Pack(*pack))?.unwrap_or_default();
        read_footer(&self.backend, &self.repository, pack, size, &self.metadata)
    }

    /// Reads everything in a pack: every chunk with its kind and references, and the padding.
    fn read_all(&self, pack: &PackId) -> Result<Expected> {
        let footer = self.footer(pack)?;
        let bytes = self.bytes(pack);
        let key = PackKey::open(pack, &bytes, &self.repository, &self.keys)?;
        let part = |start: u32, end: u32| {
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            bytes.get(range).expect("a footer that opened fits its pack")
        };
        let mut found = Expected::new();
        for (ordinal, (id, kind, place)) in footer.locations().enumerate() {
            let stored = part(place.frame_offset, place.frame_offset + place.frame_len);
            let frame = key.open_frame(place.frame, stored)?;
            let start = usize::try_from(place.offset).unwrap();
            let chunk = frame.bytes().get(start..start + usize::try_from(place.len).unwrap());
            let chunk = chunk.ok_or_else(|| Error::damaged("chunk", "beyond its frame"))?;
            if frame.kind() != kind || !self.keys.verify_chunk(kind, &id, chunk) {
                return Err(Error::damaged("chunk", "not what its id says"));
            }
            found.insert(id, (kind, chunk.to_vec(), footer.references(ordinal).to_vec()));
        }
        let sealed_len = u32::from_le_bytes(*bytes[bytes.len() - 16..].first_chunk().unwrap());
        let footer_start = u32::try_from(bytes.len()).unwrap() - 16 - sealed_len;
        let number = u32::try_from(footer.frames().len()).unwrap();
        key.open_padding(number, part(footer.frames_end(), footer_start))?;
        Ok(found)
    }
}

/// Text-like bytes that compress, different for each seed.
fn text(seed: usize, len: usize) -> Vec<u8> {
    (0..).flat_map(|line| format!("line {line} of {seed}\n").into_bytes()).take(len).collect()
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Two frames of data and one of nodes.
fn small_frames() -> Vec<(ChunkKind, Chunks)> {
    let id = |byte| ChunkId::from_bytes([byte; 32]);
    vec![
        (ChunkKind::Data, vec![(text(1, 300), vec![]), (text(2, 500), vec![])]),
        (ChunkKind::Node, vec![(text(3, 90), vec![id(1), id(2)]), (text(4, 80), vec![])]),
        (ChunkKind::Node, vec![(noise(9, 60), vec![id(3)])]),
    ]
}

/// Whatever was put into a pack comes out of it, with either cipher.
#[test]
fn packs_give_back_what_was_put_in() {
    for aead in [Aead::Aes256Gcm, Aead::ChaCha20Poly1305] {
        let world = World::new(1);
        let mut frames = small_frames();
        frames.push((ChunkKind::Data, vec![(noise(1, 100_000), vec![]), (text(5, 9), vec![])]));
        let (summary, expected) = world.pack(aead, &frames);
        assert_eq!(world.read_all(&summary.id).unwrap(), expected);
        let bytes = world.bytes(&summary.id);
        assert_eq!(summary.hash, *blake3::hash(&bytes).as_bytes());
        assert_eq!(summary.size_bytes, u64::try_from(bytes.len()).unwrap());
        assert_eq!(padme(summary.size_bytes), summary.size_bytes, "the length is a Padmé length");
        assert_eq!((summary.data_chunks, summary.node_chunks, summary.born), (4, 3, 41));
        let footer = world.footer(&summary.id).unwrap();
        assert_eq!((footer.born(), footer.domain()), (41, DomainId(7)));
    }
}

/// The least pack: one frame of one chunk.
fn tiny_frames() -> Vec<(ChunkKind, Chunks)> {
    vec![(ChunkKind::Data, vec![(text(1, 30), vec![])])]
}

/// No bit of a pack can change unseen: header, frames, padding, footer and trailer are all covered.
#[test]
fn every_bit_flip_is_detected() {
    let world = World::new(2);
    let (summary, expected) = world.pack(Aead::Aes256Gcm, &tiny_frames());
    let whole = world.bytes(&summary.id);
    for byte in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[byte] ^= 1 << bit;
            world.replace(&summary.id, &changed);
            assert!(world.read_all(&summary.id).is_err(), "byte {byte} bit {bit}");
        }
    }
    world.replace(&summary.id, &whole);
    assert_eq!(world.read_all(&summary.id).unwrap(), expected);
}

/// One flipped bit in each byte of a pack with several frames of both kinds is detected.
#[test]
fn a_flip_in_any_byte_of_a_larger_pack_is_detected() {
    let world = World::new(3);
    let (summary, _) = world.pack(Aead::ChaCha20Poly1305, &small_frames());
    let whole = world.bytes(&summary.id);
    for byte in 0..whole.len() {
        let mut changed = whole.clone();
        changed[byte] ^= 1 << (byte % 8);
        world.replace(&summary.id, &changed);
        assert!(world.read_all(&summary.id).is_err(), "byte {byte}");
    }
}

/// A pack cut at any length, or with bytes behind it, is refused.
#[test]
fn cuts_and_additions_are_detected() {
    let world = World::new(4);
    let (summary, _) = world.pack(Aead::Aes256Gcm, &small_frames());
    let whole = world.bytes(&summary.id);
    for len in 0..whole.len() {
        world.replace(&summary.id, &whole[..len]);
        assert!(world.footer(&summary.id).is_err(), "cut to {len}");
    }
    for more in [1, 16, 100] {
        let longer = [whole.as_slice(), &vec![0; more]].concat();
        world.replace(&summary.id, &longer);
        assert!(world.footer(&summary.id).is_err(), "{more} bytes more");
    }
}

/// The bytes of a footer's frame in its pack.
fn frame_range(entry: &FrameEntry) -> std::ops::Range<usize> {
    let start = usize::try_from(entry.offset).unwrap();
    start..start + usize::try_from(entry.stored_len).unwrap()
}

/// A frame opens in its own pack, at its own number, and nowhere else.
#[test]
fn swapped_frames_are_detected() {
    let world = World::new(5);
    let same_len = |seed| vec![(ChunkKind::Data, vec![(noise(seed, 200), vec![])]); 1];
    let frames = [same_len(1), same_len(2)].concat();
    let (first, _) = world.pack(Aead::Aes256Gcm, &frames);
    let (second, _) = world.pack(Aead::Aes256Gcm, &frames);
    let (whole, other) = (world.bytes(&first.id), world.bytes(&second.id));
    let footer = world.footer(&first.id).unwrap();
    let ranges: Vec<_> = footer.frames().iter().map(frame_range).collect();

    let mut positions = whole.clone();
    positions[ranges[0].clone()].copy_from_slice(&whole[ranges[1].clone()]);
    positions[ranges[1].clone()].copy_from_slice(&whole[ranges[0].clone()]);
    let mut packs = whole.clone();
    packs[ranges[0].clone()].copy_from_slice(&other[ranges[0].clone()]);
    let mut header = whole.clone();
    header[..PACK_HEADER_LEN].copy_from_slice(&other[..PACK_HEADER_LEN]);
    let mut footers = whole.clone();
    let end = usize::try_from(footer.frames_end()).unwrap();
    footers[end..].copy_from_slice(&other[end..]);
    for (what, bytes) in [
        ("frames exchanged within a pack", positions),
        ("a frame of another pack", packs),
        ("the header of another pack", header),
        ("padding and footer of another pack", footers),
        ("a whole other pack", other),
    ] {
        world.replace(&first.id, &bytes);
        assert!(world.read_all(&first.id).is_err(), "{what}");
    }
}

/// A pack opens for its repository and its domain alone, and not for a holder of write-only keys.
#[test]
fn foreign_and_write_only_keys_open_nothing() {
    let world = World::new(6);
    let write_only = world.keys.write_only();
    let options = world.options(Aead::Aes256Gcm);
    let mut builder =
        PackBuilder::create(&world.backend, &write_only, &options, &world.env).unwrap();
    let mut expected = Expected::new();
    let chunks = vec![(text(1, 100), vec![])];
    world.append(&mut builder, ChunkKind::Data, &chunks, Level::DEFAULT, &mut expected);
    let pack = builder.finish(PackEnd::Last, &world.metadata, &world.env).unwrap().id;
    assert_eq!(world.read_all(&pack).unwrap(), expected, "the owner reads what a host wrote");

    let bytes = world.bytes(&pack);
    let open = |repository, keys| PackKey::open(&pack, &bytes, repository, keys);
    let refused = open(&world.repository, &write_only);
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let elsewhere = RepositoryId::random(&world.env);
    let other_root = RepositoryKey::generate(&world.env);
    for (what, result) in [
        ("another repository", open(&elsewhere, &world.keys)),
        ("another key", open(&world.repository, &other_root.domain(DomainId(7)))),
        ("another domain", open(&world.repository, &other_root.domain(DomainId(8)))),
    ] {
        assert!(matches!(result, Err(Error::Damaged { .. })), "{what}: {result:?}");
    }
    let size = u64::try_from(bytes.len()).unwrap();
    let metadata = other_root.metadata();
    let footer = read_footer(&world.backend, &world.repository, &pack, size, &metadata);
    assert!(matches!(footer, Err(Error::Damaged { .. })), "{footer:?}");
}

/// A newer version at both ends is unsupported; at one of them it is damage.
#[test]
fn newer_packs_are_unsupported() {
    let world = World::new(7);
    let (summary, _) = world.pack(Aead::Aes256Gcm, &tiny_frames());
    let whole = world.bytes(&summary.id);
    let ends = [8, whole.len() - 12];
    for places in [&ends[..], &ends[..1], &ends[1..]] {
        let mut newer = whole.clone();
        places.iter().for_each(|place| newer[*place] = 2);
        world.replace(&summary.id, &newer);
        let size = u64::try_from(newer.len()).unwrap();
        let footer =
            read_footer(&world.backend, &world.repository, &summary.id, size, &world.metadata);
        match places.len() {
            2 => assert!(
                matches!(footer, Err(Error::Unsupported { found: 2, supported: 1, .. })),
                "{footer:?}"
            ),
            // The header is not part of what a footer needs.
            _ if places[0] == 8 => assert!(footer.is_ok(), "{footer:?}"),
            _ => assert!(footer.unwrap_err().is_damage()),
        }
    }
    let footer = Footer::new(summary.id, DomainId(0), 0, 0);
    let mut bytes = footer.encode();
    bytes[0] = 2;
    let error = Footer::parse(summary.id, &bytes, 1000).unwrap_err();
    assert!(matches!(error, Error::Unsupported { found: 2, .. }), "{error}");
}

/// Equal input and an equal environment give equal bytes, whatever was compressed before on the thread.
#[test]
fn equal_environments_give_equal_packs() {
    let first = World::new(8);
    let (pack, _) = first.pack(Aead::Aes256Gcm, &small_frames());
    let _ = compress_frame(&[&text(9, 50_000)], Level::new(9).unwrap()).unwrap();
    let second = World::new(8);
    let (again, _) = second.pack(Aead::Aes256Gcm, &small_frames());
    assert_eq!(first.bytes(&pack.id), second.bytes(&again.id));
    assert_eq!(pack, again);
}

/// A pack that is closed because it is full has exactly the target's length; the frames it took fit.
#[test]
fn full_packs_have_exactly_the_target_length() {
    let world = World::new(9);
    let options = PackOptions { target_bytes: 100_000, ..world.options(Aead::Aes256Gcm) };
    let mut builder =
        PackBuilder::create(&world.backend, &world.keys, &options, &world.env).unwrap();
    let mut expected = Expected::new();
    let mut sizes = Vec::new();
    for seed in 0..60 {
        let chunks = vec![(noise(seed, 7_000), vec![]), (noise(seed + 100, 900), vec![])];
        let slices: Vec<&[u8]> = chunks.iter().map(|(bytes, _)| bytes.as_slice()).collect();
        let frame = compress_frame(&slices, Level::DEFAULT).unwrap();
        let described: Vec<FrameChunk> = chunks
            .iter()
            .map(|(bytes, _)| FrameChunk {
                id: world.keys.id_key(ChunkKind::Data).id(bytes),
                len: u32::try_from(bytes.len()).unwrap(),
                references: vec![],
            })
            .collect();
        if !builder.fits(ChunkKind::Data, &frame, &described) {
            let full = builder.finish(PackEnd::Full, &world.metadata, &world.env).unwrap();
            assert_eq!(world.read_all(&full.id).unwrap(), expected);
            expected.clear();
            sizes.push(full.size_bytes);
            builder =
                PackBuilder::create(&world.backend, &world.keys, &options, &world.env).unwrap();
        }
        world.append(&mut builder, ChunkKind::Data, &chunks, Level::DEFAULT, &mut expected);
    }
    assert_eq!(sizes, [100_000; 4], "twelve frames fit into each");
}

/// A frame beyond the target goes into a pack of its own, which then has a Padmé length.
#[test]
fn a_frame_beyond_the_target_gets_a_longer_pack() {
    let world = World::new(10);
    let options = PackOptions { target_bytes: 1_000, ..world.options(Aead::Aes256Gcm) };
    let mut builder =
        PackBuilder::create(&world.backend, &world.keys, &options, &world.env).unwrap();
    let mut expected = Expected::new();
    let chunks = vec![(noise(1, 5_000), vec![])];
    world.append(&mut builder, ChunkKind::Data, &chunks, Level::DEFAULT, &mut expected);
    let pack = builder.finish(PackEnd::Full, &world.metadata, &world.env).unwrap();
    assert!(pack.size_bytes > 5_000 && padme(pack.size_bytes) == pack.size_bytes);
    assert_eq!(world.read_all(&pack.id).unwrap(), expected);
}

/// A pack that is dropped unfinished leaves nothing; one without frames is still a pack.
#[test]
fn unfinished_and_empty_packs() {
    let world = World::new(11);
    let options = world.options(Aead::Aes256Gcm);
    let create = || PackBuilder::create(&world.backend, &world.keys, &options, &world.env);
    let mut builder = create().unwrap();
    let chunks = vec![(text(1, 100), vec![])];
    world.append(&mut builder, ChunkKind::Data, &chunks, Level::STORE, &mut Expected::new());
    drop(builder);
    assert!(world.backend.contents().objects.is_empty());
    let empty = create().unwrap().finish(PackEnd::Last, &world.metadata, &world.env).unwrap();
    assert!(world.read_all(&empty.id).unwrap().is_empty());
}

/// A frame is refused with chunks that are not its own, and data with references.
#[test]
fn frames_are_refused_with_foreign_chunks() {
    let world = World::new(12);
    let options = world.options(Aead::Aes256Gcm);
    let mut builder =
        PackBuilder::create(&world.backend, &world.keys, &options, &world.env).unwrap();
    let frame = compress_frame(&[b"four", b"five!"], Level::DEFAULT).unwrap();
    let id = ChunkId::from_bytes([1; 32]);
    let chunk = |len, references| FrameChunk { id, len, references };
    for (what, chunks) in [
        ("too few", vec![chunk(9, vec![])]),
        ("too many", vec![chunk(4, vec![]), chunk(5, vec![]), chunk(0, vec![])]),
        ("wrong lengths", vec![chunk(4, vec![]), chunk(4, vec![])]),
        ("references of data", vec![chunk(4, vec![]), chunk(5, vec![id])]),
    ] {
        let result = builder.append_frame(ChunkKind::Data, &frame, &chunks);
        assert!(matches!(result, Err(Error::Invalid(_))), "{what}: {result:?}");
    }
}

/// What was sealed is compared with what should have been: another content, codec or length is noticed.
#[test]
fn sealed_frames_are_compared_with_their_source() {
    let world = World::new(13);
    let (summary, _) = world.pack(Aead::Aes256Gcm, &tiny_frames());
    let bytes = world.bytes(&summary.id);
    let key = PackKey::open(&summary.id, &bytes, &world.repository, &world.keys).unwrap();
    let frame = compress_frame(&[&text(1, 3_000)], Level::DEFAULT).unwrap();
    let mut sealed = Vec::new();
    key.seal_frame(5, ChunkKind::Data, &frame, &mut sealed);
    key.verify_sealed(5, &sealed, &frame).unwrap();
    let mut other = frame.clone();
    other.bytes[7] ^= 1;
    let longer = CompressedFrame { raw_len: frame.raw_len + 1, ..frame.clone() };
    let raw = CompressedFrame { codec: Codec::Raw, ..frame.clone() };
    for wrong in [&other, &longer, &raw] {
        assert!(key.verify_sealed(5, &sealed, wrong).is_err());
    }
    assert!(key.verify_sealed(6, &sealed, &frame).is_err(), "another number");
}

/// A frame moves into another pack without being compressed again.
#[test]
fn frames_move_between_packs_as_they_are() {
    let world = World::new(14);
    let chunks = vec![(text(1, 90_000), vec![]), (text(2, 5), vec![])];
    let (old, expected) = world.pack(Aead::Aes256Gcm, &[(ChunkKind::Data, chunks)]);
    let bytes = world.bytes(&old.id);
    let key = PackKey::open(&old.id, &bytes, &world.repository, &world.keys).unwrap();
    let footer = world.footer(&old.id).unwrap();
    let entry = footer.frames()[0];
    let frame = key.open_compressed(0, &bytes[frame_range(&entry)], entry.chunk_count).unwrap();
    let chunks: Vec<FrameChunk> = footer
        .chunks()
        .iter()
        .map(|(id, len)| FrameChunk { id: *id, len: *len, references: vec![] })
        .collect();
    let options = world.options(Aead::ChaCha20Poly1305);
    let mut builder =
        PackBuilder::create(&world.backend, &world.keys, &options, &world.env).unwrap();
    builder.append_frame(ChunkKind::Data, &frame, &chunks).unwrap();
    let new = builder.finish(PackEnd::Last, &world.metadata, &world.env).unwrap();
    assert_eq!(world.read_all(&new.id).unwrap(), expected);
}

/// A pack whose footer is lost still gives all chunks, and one cut in the middle those before the cut.
#[test]
fn a_pack_without_its_footer_can_be_walked() {
    let world = World::new(15);
    let (summary, expected) = world.pack(Aead::Aes256Gcm, &small_frames());
    let footer = world.footer(&summary.id).unwrap();
    let whole = world.bytes(&summary.id);
    let key = PackKey::open(&summary.id, &whole, &world.repository, &world.keys).unwrap();
    let padding_end = whole.len() - 16 - 50;
    let mut found = 0;
    for step in key.walk(&whole[..padding_end]) {
        let (_, frame) = step.unwrap();
        for chunk in frame.chunks() {
            let (kind, bytes, _) = &expected[&world.keys.id_key(frame.kind()).id(chunk)];
            assert_eq!((*kind, bytes.as_slice()), (frame.kind(), chunk));
            found += 1;
        }
    }
    assert_eq!(found, expected.len());
    let cut = usize::try_from(footer.frames()[1].offset).unwrap() + 5;
    let steps: Vec<_> = key.walk(&whole[..cut]).collect();
    assert!(matches!(steps.as_slice(), [Ok((0, _)), Err(Error::Damaged { .. })]), "{steps:?}");
}
