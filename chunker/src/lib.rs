//! Content-defined cuts and keyed chunk ids: bytes in, chunks out.
//!
//! Pure: knows bytes, and nothing of files, packs or repositories. Reads from any `Read`, opens nothing.
//! Cuts are FastCDC's (crate `fastcdc`, v2020) with a secret gear table; ids are keyed BLAKE3.

mod chunker;
mod gear;
mod id;
mod params;
mod stream;

#[cfg(test)]
mod tests;

pub use chunker::{Chunk, ChunkBatch, Chunker, PARALLEL_BYTES_MIN};
pub use gear::Gear;
pub use id::{ChunkId, IdKey, ParseIdError};
pub use params::{CHUNK_BYTES_MAX, Params, ParamsError, Profile};
pub use stream::{ChunkStream, FIRST_WINDOW_BYTES, WINDOW_BYTES};
