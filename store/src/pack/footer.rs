//! A pack's footer: which chunks lie in which frame, and what its nodes refer to.
//!
//! Sealed with the metadata key alone, so that a server without content keys can verify, prune and replicate.

use super::frame::{FRAME_OVERHEAD, FrameKind, chunk_kind};
use super::header::{PACK_HEADER_LEN, check_version};
use super::padding::padme;
use crate::crypto::{Generation, MetadataKey, RecordContext, RecordKind};
use crate::env::{Env, Timestamp};
use crate::error::{Error, Result};
use crate::id::{ChunkKind, DomainId, ObjectName, PackId, RepositoryId};
use crate::index::Location;
use crate::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX, FRAME_CHUNKS_MAX, PACK_CHUNKS_MAX};
use stillpoint_chunker::ChunkId;

/// Length of the sealed footer, version, zeros, magic.
pub(super) const TRAILER_LEN: usize = 16;
pub(super) const TRAILER_MAGIC: [u8; 8] = *b"\0end.spk";
const TRAILER_VERSION: u8 = 1;
const FOOTER_VERSION: u8 = 1;
/// Version, three zeros, domain, born, created, numbers of frames, chunks, nodes and references.
const FIXED_LEN: usize = 4 + 4 + 8 + 8 + 4 * 4;
/// Kind, three zeros, stored length, number of chunks.
const FRAME_ENTRY_LEN: usize = 12;

/// One frame of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEntry {
    /// The kind of all its chunks.
    pub kind: ChunkKind,
    /// Offset in the pack, bytes.
    pub offset: u32,
    /// Length as stored, header and tag included, bytes.
    pub stored_len: u32,
    /// Ordinal of its first chunk in the pack.
    pub first_chunk: u32,
    /// Number of chunks.
    pub chunk_count: u32,
}

/// The content of a footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    pack: PackId,
    domain: DomainId,
    /// The keys that seal it; stands in front of the sealed bytes.
    pub(super) generation: Generation,
    born: u64,
    /// Seconds since 1970 by the writer's clock.
    created: i64,
    frames: Vec<FrameEntry>,
    chunks: Vec<(ChunkId, u32)>,
    /// For each chunk, where its references end; they begin where those of the chunk before end.
    reference_ends: Vec<u32>,
    references: Vec<ChunkId>,
}

impl Footer {
    /// The footer of an empty pack that the first generation seals.
    pub(super) fn new(pack: PackId, domain: DomainId, born: u64, created: i64) -> Self {
        Self {
            pack,
            domain,
            generation: Generation::FIRST,
            born,
            created,
            frames: Vec::new(),
            chunks: Vec::new(),
            reference_ends: Vec::new(),
            references: Vec::new(),
        }
    }

    /// The generation of the keys that seal it.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The pack.
    pub fn pack(&self) -> &PackId {
        &self.pack
    }

    /// The domain whose keys open the pack.
    pub fn domain(&self) -> DomainId {
        self.domain
    }

    /// Sequence number of the head under which the pack was begun.
    pub fn born(&self) -> u64 {
        self.born
    }

    /// When the pack was begun, by the writer's clock, in whole seconds: only tells how long an unnamed pack has
    /// been lying about.
    pub fn created(&self) -> Timestamp {
        Timestamp { seconds: self.created, nanos: 0 }
    }

    /// The frames in order.
    pub fn frames(&self) -> &[FrameEntry] {
        &self.frames
    }

    /// The chunks in order: id and length of the plaintext in bytes.
    pub fn chunks(&self) -> &[(ChunkId, u32)] {
        &self.chunks
    }

    /// What the chunk with this ordinal refers to; nothing for data and beyond the end.
    pub fn references(&self, ordinal: usize) -> &[ChunkId] {
        let end = |at: usize| {
            self.reference_ends.get(at).and_then(|end| usize::try_from(*end).ok()).unwrap_or(0)
        };
        let start = ordinal.checked_sub(1).map_or(0, end);
        self.references.get(start..end(ordinal)).unwrap_or_default()
    }

    /// All chunks with their kinds and places, in order.
    pub fn locations(&self) -> impl Iterator<Item = (ChunkId, ChunkKind, Location)> {
        self.frames.iter().zip(0u32..).flat_map(move |(frame, number)| {
            let first = usize::try_from(frame.first_chunk).expect("32 bits fit");
            let count = usize::try_from(frame.chunk_count).expect("32 bits fit");
            let mut offset = 0u32;
            self.chunks.iter().skip(first).take(count).map(move |(id, len)| {
                let location = Location {
                    pack: self.pack,
                    frame: number,
                    frame_offset: frame.offset,
                    frame_len: frame.stored_len,
                    offset,
                    len: *len,
                };
                offset = offset.saturating_add(*len);
                (*id, frame.kind, location)
            })
        })
    }

    /// Adds a frame behind the others; its chunks follow by [`Self::push_chunk`].
    pub(super) fn push_frame(&mut self, kind: ChunkKind, stored_len: u32, chunk_count: u32) {
        let offset = self.frames_end();
        let first_chunk = u32::try_from(self.chunks.len()).expect("limited by PACK_CHUNKS_MAX");
        self.frames.push(FrameEntry { kind, offset, stored_len, first_chunk, chunk_count });
    }

    pub(super) fn push_chunk(&mut self, id: ChunkId, len: u32, references: &[ChunkId]) {
        self.chunks.push((id, len));
        self.references.extend_from_slice(references);
        let end = u32::try_from(self.references.len()).expect("limited by the footer's length");
        self.reference_ends.push(end);
    }

    /// Where the frames end and the padding begins.
    pub fn frames_end(&self) -> u32 {
        let start = u32::try_from(PACK_HEADER_LEN).expect("the header is short");
        self.frames.last().map_or(start, |frame| frame.offset + frame.stored_len)
    }

    fn node_count(&self) -> usize {
        let nodes = self.frames.iter().filter(|frame| frame.kind == ChunkKind::Node);
        nodes.map(|frame| usize::try_from(frame.chunk_count).expect("32 bits fit")).sum()
    }

    /// Length of the sealed footer after `frames`, `chunks`, `nodes` and `references` more were added.
    pub(super) fn sealed_len_with(
        &self,
        frames: usize,
        chunks: usize,
        nodes: usize,
        references: usize,
    ) -> u64 {
        let len = FIXED_LEN
            + (self.frames.len() + frames) * FRAME_ENTRY_LEN
            + (self.chunks.len() + chunks) * (ChunkId::LEN + 4)
            + (self.node_count() + nodes) * 4
            + (self.references.len() + references) * ChunkId::LEN;
        let overhead = u64::try_from(MetadataKey::overhead(self.generation)).expect("it is short");
        padme(u64::try_from(len).expect("64 bits hold any length")) + overhead
    }

    /// The bytes before sealing; padded with zeros, so that their length says little about the number of chunks.
    pub(super) fn encode(&self) -> Vec<u8> {
        let count = |len: usize| u32::try_from(len).expect("limited").to_le_bytes();
        let mut out = vec![FOOTER_VERSION, 0, 0, 0];
        out.extend_from_slice(&self.domain.0.to_le_bytes());
        out.extend_from_slice(&self.born.to_le_bytes());
        out.extend_from_slice(&self.created.to_le_bytes());
        let counts =
            [self.frames.len(), self.chunks.len(), self.node_count(), self.references.len()];
        counts.iter().for_each(|len| out.extend_from_slice(&count(*len)));
        for frame in &self.frames {
            out.extend_from_slice(&[FrameKind::Chunks(frame.kind).as_u8(), 0, 0, 0]);
            out.extend_from_slice(&frame.stored_len.to_le_bytes());
            out.extend_from_slice(&frame.chunk_count.to_le_bytes());
        }
        self.chunks.iter().for_each(|(id, _)| out.extend_from_slice(id.as_bytes()));
        self.chunks.iter().for_each(|(_, len)| out.extend_from_slice(&len.to_le_bytes()));
        for (ordinal, (_, kind, _)) in self.locations().enumerate() {
            if kind == ChunkKind::Node {
                out.extend_from_slice(&count(self.references(ordinal).len()));
            }
        }
        self.references.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
        let padded = padme(u64::try_from(out.len()).expect("64 bits hold any length"));
        out.resize(usize::try_from(padded).expect("a little longer than what is in memory"), 0);
        out
    }

    /// Seals the footer and puts the trailer behind it.
    pub(super) fn seal(
        &self,
        repository: &RepositoryId,
        metadata: &MetadataKey,
        aead: crate::crypto::Aead,
        env: &dyn Env,
    ) -> Vec<u8> {
        assert_eq!(metadata.generation(), self.generation, "a pack has keys of one generation");
        let context = context(repository, &self.pack);
        let mut out = metadata.seal_with(aead, &context, &self.encode(), env);
        let len = u32::try_from(out.len()).expect("limited by FOOTER_BYTES_MAX");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&[TRAILER_VERSION, 0, 0, 0]);
        out.extend_from_slice(&TRAILER_MAGIC);
        out
    }

    /// Parses an opened footer; `end` is where it begins in the pack: frames and padding must fit before it.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`, `LimitExceeded`.
    pub(super) fn parse(pack: PackId, bytes: &[u8], end: u64) -> Result<Self> {
        let damaged = |detail: &str| damaged(&pack, detail);
        let mut fields = Fields(bytes);
        let short = || damaged("it is too short");
        let [version, zeros @ ..] = fields.take::<4>().ok_or_else(short)?;
        check_version(&pack, version)?;
        let domain = DomainId(fields.number().ok_or_else(short)?);
        let born = u64::from_le_bytes(fields.take().ok_or_else(short)?);
        let created = i64::from_le_bytes(fields.take().ok_or_else(short)?);
        let mut counts = [0usize; 4];
        for count in &mut counts {
            let number = fields.number().ok_or_else(short)?;
            *count = usize::try_from(number).map_err(|_| short())?;
        }
        let [frame_count, chunk_count, node_count, reference_count] = counts;
        limit(&pack, "number of chunks", chunk_count, PACK_CHUNKS_MAX)?;
        let frame_table = fields.slots::<FRAME_ENTRY_LEN>(frame_count).ok_or_else(short)?;
        let ids = fields.slots::<{ ChunkId::LEN }>(chunk_count).ok_or_else(short)?;
        let lengths = fields.slots::<4>(chunk_count).ok_or_else(short)?;
        let node_table = fields.slots::<4>(node_count).ok_or_else(short)?;
        let references = fields.slots::<{ ChunkId::LEN }>(reference_count).ok_or_else(short)?;
        if zeros != [0; 3] || fields.0.iter().any(|byte| *byte != 0) {
            return Err(damaged("its unused bytes are not zero"));
        }
        let mut footer = Self::new(pack, domain, born, created);
        footer.chunks = ids
            .iter()
            .zip(lengths)
            .map(|(id, len)| (ChunkId::from_bytes(*id), u32::from_le_bytes(*len)))
            .collect();
        footer.references = references.iter().map(|id| ChunkId::from_bytes(*id)).collect();
        footer.parse_frames(frame_table, end)?;
        footer.parse_references(node_table)?;
        Ok(footer)
    }

    fn parse_frames(&mut self, table: &[[u8; FRAME_ENTRY_LEN]], end: u64) -> Result<()> {
        let pack = self.pack;
        let mut offset = u64::try_from(PACK_HEADER_LEN).expect("the header is short");
        let mut first_chunk = 0u32;
        self.frames.reserve_exact(table.len());
        for entry in table {
            let [kind, z1, z2, z3, a, b, c, d, e, f, g, h] = *entry;
            let kind = chunk_kind(kind).filter(|_| [z1, z2, z3] == [0; 3]);
            let kind = kind.ok_or_else(|| damaged(&pack, "a frame has an impossible kind"))?;
            let stored_len = u32::from_le_bytes([a, b, c, d]);
            let chunk_count = u32::from_le_bytes([e, f, g, h]);
            let frame = FrameEntry {
                kind,
                offset: u32::try_from(offset).map_err(|_| damaged(&pack, "it is too long"))?,
                stored_len,
                first_chunk,
                chunk_count,
            };
            self.check_frame(&frame)?;
            offset += u64::from(stored_len);
            first_chunk = first_chunk.saturating_add(chunk_count);
            self.frames.push(frame);
        }
        if usize::try_from(first_chunk).ok() != Some(self.chunks.len()) {
            return Err(damaged(&pack, "its frames do not cover its chunks"));
        }
        let padding = u64::try_from(FRAME_OVERHEAD).expect("it is short");
        if offset + padding > end {
            return Err(damaged(&pack, "its frames do not fit before it"));
        }
        Ok(())
    }

    fn check_frame(&self, frame: &FrameEntry) -> Result<()> {
        let size = |len: u32| usize::try_from(len).unwrap_or(usize::MAX);
        let stored_max = FRAME_BYTES_MAX + FRAME_OVERHEAD;
        limit(&self.pack, "length of a frame", size(frame.stored_len), stored_max)?;
        limit(&self.pack, "chunks in a frame", size(frame.chunk_count), FRAME_CHUNKS_MAX)?;
        if frame.chunk_count == 0 || size(frame.stored_len) <= FRAME_OVERHEAD {
            return Err(damaged(&self.pack, "a frame is empty"));
        }
        let chunks = self.chunks.iter().skip(size(frame.first_chunk)).take(size(frame.chunk_count));
        let mut sum = 0usize;
        for (_, len) in chunks {
            limit(&self.pack, "length of a chunk", size(*len), CHUNK_BYTES_MAX)?;
            sum += size(*len);
        }
        limit(&self.pack, "plaintext of a frame", sum, FRAME_BYTES_MAX)
    }

    fn parse_references(&mut self, table: &[[u8; 4]]) -> Result<()> {
        let pack = self.pack;
        if self.node_count() != table.len() {
            return Err(damaged(&pack, "it does not list the references of each node"));
        }
        let mut counts = table.iter().map(|count| u32::from_le_bytes(*count));
        let mut end = 0u32;
        self.reference_ends.reserve_exact(self.chunks.len());
        for frame in &self.frames {
            for _ in 0..frame.chunk_count {
                if frame.kind == ChunkKind::Node {
                    end = end.saturating_add(counts.next().unwrap_or(0));
                }
                self.reference_ends.push(end);
            }
        }
        if usize::try_from(end).ok() != Some(self.references.len()) {
            return Err(damaged(&pack, "its nodes do not cover its references"));
        }
        Ok(())
    }
}

pub(super) fn context<'a>(repository: &RepositoryId, pack: &'a PackId) -> RecordContext<'a> {
    RecordContext { repository: *repository, kind: RecordKind::Footer, name: pack.as_bytes() }
}

pub(super) fn damaged(pack: &PackId, detail: &str) -> Error {
    Error::damaged(ObjectName::Pack(*pack), format!("footer: {detail}"))
}

fn limit(pack: &PackId, what: &'static str, found: usize, limit: usize) -> Result<()> {
    let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    limit_bytes(pack, what, wide(found), wide(limit))
}

pub(super) fn limit_bytes(pack: &PackId, what: &'static str, found: u64, limit: u64) -> Result<()> {
    if found <= limit {
        return Ok(());
    }
    Err(Error::LimitExceeded { object: ObjectName::Pack(*pack).path(), what, found, limit })
}

/// Takes fields from the front of bytes from outside.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// `count` fields of `N` bytes each, not copied; None where there are fewer.
    fn slots<const N: usize>(&mut self, count: usize) -> Option<&'a [[u8; N]]> {
        let (slots, rest) = self.0.split_at_checked(count.checked_mul(N)?)?;
        self.0 = rest;
        Some(slots.as_chunks::<N>().0)
    }
}
