//! Chunks, packs, catalogue, head and snapshots: an encrypted repository on one backend.
//!
//! Knows nothing of paths, files or HTTP. Everything is synchronous; threads come from the caller or from the
//! write session. Time and randomness come in through [`Env`] alone.

pub mod backend;
pub mod crypto;
pub mod env;
pub mod error;
pub mod id;
pub mod index;
pub mod limits;
pub mod pack;
pub mod record;
pub mod tree;

pub use env::{Env, SystemEnv, Timestamp};
pub use error::{Error, Finding, Result};
pub use id::{
    ChunkKind, DomainId, NodeId, ObjectKind, ObjectName, PackId, RepositoryId, SnapshotId,
};
pub use stillpoint_chunker::{ChunkId, IdKey};
