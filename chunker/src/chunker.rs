//! Cuts and ids of bytes in memory.

use crate::gear::CutRule;
use crate::{ChunkId, ChunkStream, Gear, IdKey, Params};
use rayon::prelude::*;
use std::io::Read;
use std::sync::Arc;

/// From this many bytes on, ids are hashed on all cores; below, waking them costs more than it gives.
pub const PARALLEL_BYTES_MIN: usize = 1 << 20;
/// Least number of bytes that one core hashes in one go.
const PARALLEL_SHARE_BYTES: usize = 256 << 10;

/// Cuts streams into chunks and names them. Cheap to clone; clones may work on different threads.
#[derive(Clone, Debug)]
pub struct Chunker {
    gear: Arc<Gear>,
    params: Params,
    rule: CutRule,
    id_key: IdKey,
}

/// Bytes and the chunks that cover them in order, without gaps.
#[derive(Clone, Debug)]
pub struct ChunkBatch {
    /// The bytes.
    pub bytes: Arc<Vec<u8>>,
    /// The chunks; empty only if there are no bytes.
    pub chunks: Vec<Chunk>,
}

/// A chunk in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Keyed hash of the bytes.
    pub id: ChunkId,
    /// Where it starts in the batch, in bytes.
    pub offset: u32,
    /// Its length in bytes, never 0.
    pub len: u32,
}

impl ChunkBatch {
    /// The bytes of one of this batch's chunks.
    ///
    /// # Panics
    /// When the chunk belongs to another, longer batch.
    pub fn slice(&self, chunk: &Chunk) -> &[u8] {
        let start = in_memory(chunk.offset);
        let end = start + in_memory(chunk.len);
        self.bytes.get(start..end).expect("a chunk lies within its batch")
    }
}

impl Chunker {
    /// A chunker for one kind of stream.
    pub fn new(gear: Arc<Gear>, params: Params, id_key: IdKey) -> Self {
        Self { gear, params, rule: CutRule::new(&params), id_key }
    }

    /// The chunk sizes.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The id that a chunk with these bytes has.
    pub fn id(&self, bytes: &[u8]) -> ChunkId {
        self.id_key.id(bytes)
    }

    /// Cuts content that is in memory as a whole, such as a small file. Content of at most
    /// [`Params::avg_bytes`] is one chunk.
    ///
    /// # Panics
    /// From 4 GiB on; such content is for [`Self::stream`].
    pub fn chunk_slice(&self, whole: Vec<u8>) -> ChunkBatch {
        let chunks = self.chunks_of(&whole);
        ChunkBatch { bytes: Arc::new(whole), chunks }
    }

    /// As [`Self::chunk_slice`] for borrowed bytes.
    ///
    /// # Panics
    /// From 4 GiB on.
    pub fn chunks_of(&self, whole: &[u8]) -> Vec<Chunk> {
        let mut lengths = Vec::new();
        if !whole.is_empty() && whole.len() <= self.rule.single_chunk_bytes() {
            lengths.push(whole.len());
        } else {
            self.cut(whole, true, &mut lengths);
        }
        self.name(whole, &lengths)
    }

    /// Cuts what a reader gives. Batches are cut as the whole content would be, whatever its reads return.
    pub fn stream<R: Read>(&self, reader: R) -> ChunkStream<R> {
        ChunkStream::new(self.clone(), reader, None)
    }

    /// As [`Self::stream`]; `expected_bytes` is a guess at the length, so that a short file needs but a short buffer.
    pub fn stream_sized<R: Read>(&self, reader: R, expected_bytes: u64) -> ChunkStream<R> {
        ChunkStream::new(self.clone(), reader, Some(expected_bytes))
    }

    pub(crate) fn rule(&self) -> &CutRule {
        &self.rule
    }

    /// Appends the lengths of the chunks at the front of `bytes` whose ends are certain, and gives their sum. At the
    /// end of the content, all are.
    pub(crate) fn cut(&self, bytes: &[u8], at_end: bool, lengths: &mut Vec<usize>) -> usize {
        let mut rest = bytes;
        while rest.len() >= self.rule.max_bytes() || (at_end && !rest.is_empty()) {
            let length = self.rule.cut(&self.gear, rest);
            lengths.push(length);
            rest = rest.get(length..).expect("a chunk ends within the bytes");
        }
        bytes.len() - rest.len()
    }

    /// Names the chunks with these lengths, on all cores where there is enough to do.
    pub(crate) fn name(&self, bytes: &[u8], lengths: &[usize]) -> Vec<Chunk> {
        let mut start = 0;
        let places: Vec<(usize, usize)> = lengths
            .iter()
            .map(|length| {
                start += length;
                (start - length, *length)
            })
            .collect();
        let chunk = |&(start, length): &(usize, usize)| Chunk {
            id: self.id_key.id(bytes.get(start..start + length).expect("lengths add up")),
            offset: u32::try_from(start).expect("a batch is shorter than 4 GiB"),
            len: u32::try_from(length).expect("chunks are short"),
        };
        if bytes.len() < PARALLEL_BYTES_MIN || places.len() < 2 {
            return places.iter().map(chunk).collect();
        }
        let share = (PARALLEL_SHARE_BYTES * places.len() / bytes.len()).max(1);
        places.par_iter().with_min_len(share).map(chunk).collect()
    }
}

fn in_memory(bytes: u32) -> usize {
    usize::try_from(bytes).expect("32 bits fit")
}
