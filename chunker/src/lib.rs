//! Content-defined cuts and keyed chunk ids: bytes in, chunks out.
//!
//! Pure: knows bytes, and nothing of files, packs or repositories. Reads from any `Read`, opens nothing.

mod id;

pub use id::{ChunkId, IdKey, ParseIdError};
