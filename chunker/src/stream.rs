//! Cuts and ids of what a reader gives, a window at a time.

use crate::{ChunkBatch, Chunker};
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

/// Bytes that are read before they are cut (more only where chunks may be longer): 4 MiB.
pub const WINDOW_BYTES: usize = 4 << 20;
/// The first window of a stream of unknown length: 512 KiB.
pub const FIRST_WINDOW_BYTES: usize = 512 << 10;
/// Buffers kept to be used again once their batch is dropped.
const BUFFERS_KEPT: usize = 2;

/// Batches of chunks from a reader; ends after the first error.
///
/// Cuts do not depend on how the reader splits its bytes nor on windows: what is left uncertain at the end of one
/// window goes in front of the next.
pub struct ChunkStream<R> {
    chunker: Chunker,
    reader: R,
    state: State,
    /// Size of the next window.
    window: usize,
    /// Bytes read but not cut: less than the longest chunk.
    carried: Vec<u8>,
    /// Buffers of batches handed out.
    issued: Vec<Arc<Vec<u8>>>,
    read_bytes: u64,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Nothing was read.
    Fresh,
    Reading,
    Ended,
}

impl<R: Read> ChunkStream<R> {
    pub(crate) fn new(chunker: Chunker, reader: R, expected_bytes: Option<u64>) -> Self {
        let most = Self::full_window(&chunker);
        let window = match expected_bytes {
            // One byte more, so that the end shows in the first window.
            Some(bytes) => usize::try_from(bytes).unwrap_or(most).saturating_add(1),
            None => FIRST_WINDOW_BYTES,
        };
        let window = window.clamp(chunker.rule().single_chunk_bytes() + 1, most);
        Self {
            chunker,
            reader,
            state: State::Fresh,
            window,
            carried: Vec::new(),
            issued: Vec::new(),
            read_bytes: 0,
        }
    }

    fn full_window(chunker: &Chunker) -> usize {
        WINDOW_BYTES.max(2 * chunker.rule().max_bytes())
    }

    /// Bytes read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// The reader, with whatever it has left.
    pub fn into_inner(self) -> R {
        self.reader
    }

    /// The next batch.
    fn batch(&mut self) -> io::Result<Option<ChunkBatch>> {
        loop {
            let mut buffer = self.empty_buffer();
            let (filled, at_end) = self.fill(&mut buffer)?;
            let first = std::mem::replace(&mut self.state, State::Reading) == State::Fresh;
            if at_end {
                self.state = State::Ended;
            }
            self.window = Self::full_window(&self.chunker);
            let bytes = buffer.get(..filled).expect("no more is filled than there is");
            let mut lengths = Vec::new();
            let short = first && filled <= self.chunker.rule().single_chunk_bytes();
            let cut = if at_end && short {
                lengths.extend((filled > 0).then_some(filled));
                filled
            } else {
                self.chunker.cut(bytes, at_end, &mut lengths)
            };
            let chunks = self.chunker.name(bytes.get(..cut).expect("cut is within"), &lengths);
            self.carried.extend(bytes.get(cut..).expect("cut is within"));
            buffer.truncate(cut);
            if chunks.is_empty() {
                if at_end {
                    return Ok(None);
                }
                continue;
            }
            let bytes = Arc::new(buffer);
            if self.issued.len() < BUFFERS_KEPT && !at_end {
                self.issued.push(bytes.clone());
            }
            return Ok(Some(ChunkBatch { bytes, chunks }));
        }
    }

    /// A buffer of the window's size with the carried bytes in front.
    fn empty_buffer(&mut self) -> Vec<u8> {
        let free = self.issued.iter().position(|buffer| Arc::strong_count(buffer) == 1);
        let free = free.and_then(|index| Arc::try_unwrap(self.issued.swap_remove(index)).ok());
        let mut buffer = free.unwrap_or_default();
        // Only what a batch cut off or a first use leaves is filled with zeroes.
        buffer.resize(self.window.max(self.carried.len() + 1), 0);
        buffer
    }

    /// Reads until the buffer is full or the content ends; gives the bytes filled and whether it ended.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let mut filled = self.carried.len();
        buffer.get_mut(..filled).expect("sized to fit").copy_from_slice(&self.carried);
        self.carried.clear();
        while filled < buffer.len() {
            match self.reader.read(buffer.get_mut(filled..).expect("not full")) {
                Ok(0) => return Ok((filled, true)),
                Ok(count) => {
                    filled += count;
                    self.read_bytes += u64::try_from(count).expect("a usize fits into 64 bits");
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok((filled, false))
    }
}

impl<R: Read> Iterator for ChunkStream<R> {
    type Item = io::Result<ChunkBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Ended {
            return None;
        }
        let result = self.batch();
        if result.is_err() {
            self.state = State::Ended;
        }
        result.transpose()
    }
}
