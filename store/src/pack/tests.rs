//! Packs written to a map and read back, whole and damaged in every way.

use super::*;
use crate::backend::{Backend, ObjectBytes, ObjectWriter, Swap};
use crate::crypto::test_env::SeededEnv;
use crate::crypto::{Aead, DomainKeys, MetadataKey, RepositoryKey};
use crate::error::{Error, Result};
use crate::id::{ChunkKind, DomainId, ObjectKind, ObjectName, PackId, RepositoryId};
use crate::index::Location;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use stillpoint_chunker::ChunkId;

type Objects = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// The least backend that packs need: a map.
#[derive(Default)]
struct Map(Objects);

struct MapWriter(Objects, String, Vec<u8>);

impl ObjectWriter for MapWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.2.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.lock().unwrap().insert(self.1, self.2);
        Ok(())
    }
}

impl Backend for Map {
    fn location(&self) -> String {
        "a map".into()
    }

    fn initialise(&self) -> Result<()> {
        Ok(())
    }

    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(MapWriter(self.0.clone(), name.path(), Vec::new())))
    }

    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes> {
        let objects = self.0.lock().unwrap();
        let bytes = objects.get(&name.path()).ok_or_else(|| Error::missing(name))?;
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let part = bytes.get(range).ok_or_else(|| Error::damaged(name, "too short"))?;
        Ok(part.to_vec().into())
    }

    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>> {
        let objects = self.0.lock().unwrap();
        Ok(objects.get(&name.path()).map(|bytes| u64::try_from(bytes.len()).unwrap()))
    }

    fn list(&self, _: ObjectKind) -> Result<Vec<(ObjectName, u64)>> {
        unreachable!("packs are not listed here")
    }

    fn remove(&self, _: &ObjectName) -> Result<()> {
        unreachable!("packs are not removed here")
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>> {
        unreachable!("there is no head here")
    }

    fn swap_head(&self, _: Option<&[u8]>, _: &[u8]) -> Result<Swap> {
        unreachable!("there is no head here")
    }
}

/// A repository's keys and a place for packs.
struct World {
    env: SeededEnv,
    repository: RepositoryId,
    keys: DomainKeys,
    metadata: MetadataKey,
    backend: Map,
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
            backend: Map::default(),
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
        self.backend.0.lock().unwrap().get(&ObjectName::Pack(*pack).path()).unwrap().clone()
    }

    fn replace(&self, pack: &PackId, bytes: Vec<u8>) {
        self.backend.0.lock().unwrap().insert(ObjectName::Pack(*pack).path(), bytes);
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
            bytes.get(usize::try_from(start).unwrap()..usize::try_from(end).unwrap()).unwrap()
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
