//! Writes one pack, frame by frame, in order.
//!
//! Runs in one thread; compression is done before, elsewhere. Dropped before `finish`, it leaves no object behind.

use super::compress::CompressedFrame;
use super::footer::{Footer, TRAILER_LEN};
use super::frame::{FRAME_OVERHEAD, PackKey};
use super::header::PackHeader;
use super::padding::padme;
use super::{FRAME_TARGET_BYTES, PACK_TARGET_BYTES};
use crate::backend::{Backend, ObjectWriter};
use crate::crypto::{Aead, DomainKeys, Generation, MetadataKey};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::{ChunkKind, DomainId, ObjectName, PackId, RepositoryId};
use crate::index::Location;
use crate::limits::{FOOTER_BYTES_MAX, FRAME_BYTES_MAX, PACK_BYTES_MAX, PACK_CHUNKS_MAX};
use stillpoint_chunker::ChunkId;

/// What all packs of one run have in common.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// The repository.
    pub repository: RepositoryId,
    /// The cipher of the frames.
    pub aead: Aead,
    /// Sequence number of the head under which the run began.
    pub born: u64,
    /// Open each frame again before it is written, and compare.
    pub verify: bool,
    /// Length of a full pack, bytes.
    pub target_bytes: u64,
}

impl PackOptions {
    /// The usual options: fastest cipher, verification, packs of [`PACK_TARGET_BYTES`].
    pub fn new(repository: RepositoryId, born: u64) -> Self {
        Self {
            repository,
            aead: Aead::fastest(),
            born,
            verify: true,
            target_bytes: PACK_TARGET_BYTES,
        }
    }
}

/// One chunk of a frame that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameChunk {
    /// Its id.
    pub id: ChunkId,
    /// Length of its plaintext, bytes.
    pub len: u32,
    /// What it refers to; empty for data.
    pub references: Vec<ChunkId>,
}

/// Why a pack is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackEnd {
    /// The next frame does not fit: padded to exactly the target.
    Full,
    /// No more frames come: padded to a Padmé length.
    Last,
}

/// What the catalogue keeps of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackSummary {
    /// Its name.
    pub id: PackId,
    /// The domain whose keys open it.
    pub domain: DomainId,
    /// Its length, bytes.
    pub size_bytes: u64,
    /// BLAKE3 of all its bytes.
    pub hash: [u8; 32],
    /// Number of data chunks.
    pub data_chunks: u32,
    /// Number of nodes.
    pub node_chunks: u32,
    /// Plaintext of all chunks, bytes.
    pub plain_bytes: u64,
    /// Sequence number of the head under which it was begun.
    pub born: u64,
    /// The generation of the keys that seal it.
    pub generation: Generation,
}

/// A pack in the making.
pub struct PackBuilder {
    writer: Box<dyn ObjectWriter>,
    options: PackOptions,
    key: PackKey,
    footer: Footer,
    hasher: blake3::Hasher,
    /// Bytes written so far.
    len: u64,
    counts: [u32; 2],
    plain_bytes: u64,
    sealed: Vec<u8>,
}

impl PackBuilder {
    /// Draws a name and a key, and begins the object.
    ///
    /// # Errors
    /// What the backend gives.
    pub fn create(
        backend: &dyn Backend,
        keys: &DomainKeys,
        options: &PackOptions,
        env: &dyn Env,
    ) -> Result<Self> {
        let id = PackId::random(env);
        let writer = backend.create(&ObjectName::Pack(id))?;
        let (header, secret) =
            PackHeader::create(&id, options.aead, &options.repository, keys, env);
        let mut footer = Footer::new(id, header.domain, options.born, env.now().seconds);
        footer.generation = header.generation;
        let mut builder = Self {
            writer,
            key: PackKey::new(id, &header, &options.repository, &secret),
            footer,
            options: options.clone(),
            hasher: blake3::Hasher::new(),
            len: 0,
            counts: [0; 2],
            plain_bytes: 0,
            sealed: Vec::with_capacity(FRAME_TARGET_BYTES),
        };
        builder.write(&header.bytes)?;
        Ok(builder)
    }

    /// The pack's name.
    pub fn id(&self) -> &PackId {
        self.footer.pack()
    }

    /// Bytes written so far, without padding and footer.
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// True while no frame has been appended.
    pub fn is_empty(&self) -> bool {
        self.footer.frames().is_empty()
    }

    /// True if the pack stays within its target with this frame. An empty pack takes any frame.
    pub fn fits(&self, kind: ChunkKind, frame: &CompressedFrame, chunks: &[FrameChunk]) -> bool {
        self.is_empty() || self.len_with(kind, frame, chunks) <= self.options.target_bytes
    }

    /// The least length of the pack if it were finished after this frame.
    fn len_with(&self, kind: ChunkKind, frame: &CompressedFrame, chunks: &[FrameChunk]) -> u64 {
        let nodes = if kind == ChunkKind::Node { chunks.len() } else { 0 };
        let references = chunks.iter().map(|chunk| chunk.references.len()).sum();
        let footer = self.footer.sealed_len_with(1, chunks.len(), nodes, references);
        let rest = frame.stored_len() + 2 * FRAME_OVERHEAD + TRAILER_LEN;
        self.len + footer + u64::try_from(rest).expect("64 bits hold any length")
    }

    /// Seals and writes a frame; gives the places of its chunks.
    ///
    /// # Errors
    /// `Invalid` where the chunks are not those of the frame, or a limit of [`crate::limits`] would be exceeded;
    /// `Damaged` where it does not open again; what the backend gives. After an error the pack must be dropped.
    pub fn append_frame(
        &mut self,
        kind: ChunkKind,
        frame: &CompressedFrame,
        chunks: &[FrameChunk],
    ) -> Result<Vec<(ChunkId, Location)>> {
        let data_len = self.check_frame(kind, frame, chunks)?;
        let number = u32::try_from(self.footer.frames().len()).expect("fewer than its chunks");
        let mut sealed = std::mem::take(&mut self.sealed);
        self.key.seal_frame(number, kind, frame, &mut sealed);
        if self.options.verify {
            self.key.verify_sealed(number, &sealed, frame)?;
        }
        let frame_offset = self.footer.frames_end();
        self.write(&sealed)?;
        let frame_len = u32::try_from(sealed.len()).expect("frames are limited to 16 MiB");
        self.sealed = sealed;
        self.footer.push_frame(kind, frame_len, frame.chunk_count);
        let mut offset = 0u32;
        let mut places = Vec::with_capacity(chunks.len());
        let pack = *self.id();
        for chunk in chunks {
            self.footer.push_chunk(chunk.id, chunk.len, &chunk.references);
            let len = chunk.len;
            let place = Location { pack, frame: number, frame_offset, frame_len, offset, len };
            places.push((chunk.id, place));
            offset += len;
        }
        self.plain_bytes += data_len;
        let [data, nodes] = &mut self.counts;
        *(if kind == ChunkKind::Node { nodes } else { data }) += frame.chunk_count;
        Ok(places)
    }

    /// Checks that the chunks are those of the frame and that all limits hold; gives the length of their plaintext.
    fn check_frame(
        &self,
        kind: ChunkKind,
        frame: &CompressedFrame,
        chunks: &[FrameChunk],
    ) -> Result<u64> {
        let sum: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        let same_count = u32::try_from(chunks.len()) == Ok(frame.chunk_count);
        if !same_count || usize::try_from(sum) != Ok(frame.data_len()) {
            return Err(Error::Invalid("a frame was given with other chunks than its own".into()));
        }
        let references = || chunks.iter().any(|chunk| !chunk.references.is_empty());
        if kind == ChunkKind::Data && references() {
            return Err(Error::Invalid("a data chunk was given with references".into()));
        }
        let footer_max = u64::try_from(FOOTER_BYTES_MAX).expect("64 bits hold any length");
        let nodes = if kind == ChunkKind::Node { chunks.len() } else { 0 };
        let references = chunks.iter().map(|chunk| chunk.references.len()).sum();
        let footer = self.footer.sealed_len_with(1, chunks.len(), nodes, references);
        let too_long = padme(self.len_with(kind, frame, chunks)) > PACK_BYTES_MAX;
        let too_many = self.footer.chunks().len() + chunks.len() > PACK_CHUNKS_MAX;
        if too_long || too_many || footer > footer_max || frame.stored_len() > FRAME_BYTES_MAX {
            return Err(Error::Invalid("a frame is too long for its pack".into()));
        }
        Ok(sum)
    }

    /// Writes padding, footer and trailer, and makes the pack durable.
    ///
    /// # Errors
    /// What the backend gives; nothing may be assumed then but that the pack is whole or absent.
    pub fn finish(
        mut self,
        end: PackEnd,
        metadata: &MetadataKey,
        env: &dyn Env,
    ) -> Result<PackSummary> {
        let padding = self.padding_len(end);
        let number = u32::try_from(self.footer.frames().len()).expect("fewer than its chunks");
        let mut sealed = std::mem::take(&mut self.sealed);
        self.key.seal_padding(number, padding, &mut sealed);
        self.write(&sealed)?;
        let options = &self.options;
        let footer = self.footer.seal(&options.repository, metadata, options.aead, env);
        self.write(&footer)?;
        let [data_chunks, node_chunks] = self.counts;
        let summary = PackSummary {
            id: *self.id(),
            domain: self.footer.domain(),
            size_bytes: self.len,
            hash: *self.hasher.finalize().as_bytes(),
            data_chunks,
            node_chunks,
            plain_bytes: self.plain_bytes,
            born: self.options.born,
            generation: self.footer.generation(),
        };
        self.writer.finish()?;
        Ok(summary)
    }

    /// How many zeros bring the pack to its length.
    fn padding_len(&self, end: PackEnd) -> u32 {
        let rest = u64::try_from(FRAME_OVERHEAD + TRAILER_LEN).expect("both are short");
        let least = self.len + rest + self.footer.sealed_len_with(0, 0, 0, 0);
        let limit = u64::try_from(FRAME_BYTES_MAX).expect("64 bits hold any length");
        let to_target = self.options.target_bytes.checked_sub(least).filter(|len| *len <= limit);
        let padding = match (end, to_target) {
            (PackEnd::Full, Some(padding)) => padding,
            _ => (padme(least) - least).min(limit),
        };
        u32::try_from(padding).expect("limited to 16 MiB")
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write(bytes)?;
        self.hasher.update(bytes);
        self.len += u64::try_from(bytes.len()).expect("64 bits hold any length");
        Ok(())
    }
}
