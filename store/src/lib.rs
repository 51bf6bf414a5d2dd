//! Chunks, packs, catalogue, head and snapshots: an encrypted repository on one backend.
//!
//! Knows nothing of paths, files or HTTP. Everything is synchronous; threads come from the caller or from the
//! write session. Time and randomness come in through [`Env`] alone.

pub mod backend;
pub mod cancel;
pub mod catalogue;
pub mod check;
pub mod clock;
pub mod crypto;
pub mod env;
pub mod error;
#[cfg(test)]
mod format_vectors;
pub mod id;
pub mod index;
pub mod limits;
mod mark;
pub mod pack;
pub mod parity;
pub mod prune;
pub mod read;
pub mod record;
pub mod repair;
pub mod repository;
pub mod tree;
pub mod write;

pub use cancel::Cancel;
pub use env::{DerivedEnv, Env, SystemEnv, Timestamp, Uptime};
pub use error::{Error, Finding, Result};
pub use id::{
    ChunkKind, DomainId, NodeId, ObjectKind, ObjectName, PackId, RepositoryId, SnapshotId,
};
pub use read::Reader;
pub use record::{SnapshotRecord, Summary};
pub use repository::{Forgotten, HeadView, OpenOptions, Repository, Snapshot};
pub use stillpoint_chunker::{ChunkId, IdKey};
pub use write::{WriteOptions, WriteStats, Writer};
