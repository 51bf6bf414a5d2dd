//! The configuration: what a repository was created with. Written once.
//!
//! It stands in the clear, because the repository's id is needed to open a key slot; once the key is there its
//! authentication code must be checked, which is why [`UncheckedConfig`] gives away nothing but the id.

use super::{frame, from_cbor, to_cbor, unframe};
use crate::crypto::MetadataKey;
use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::id::{ObjectName, RepositoryId};
use crate::pack::{Level, PACK_TARGET_BYTES};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

const MAGIC: [u8; 8] = *b"stillcf\0";
/// The newest repository format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;
const CODE_LEN: usize = 32;

/// Smallest, average and greatest length of what is cut by content, bytes. The cutter judges whether they make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Smallest, but for the last piece.
    pub min: u32,
    /// Average.
    pub avg: u32,
    /// Greatest.
    pub max: u32,
}

/// Sizes of chunks for each kind of stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSizes {
    /// Files of any kind.
    pub general: Sizes,
    /// Dumps of databases.
    pub dump: Sizes,
    /// Images of disks.
    pub image: Sizes,
}

/// What a repository was created with. Two programs that write into one repository must cut alike, or they find no
/// duplicates; so the sizes stand here and not in the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The repository's identity.
    pub repository: RepositoryId,
    /// When it was created.
    pub created: Timestamp,
    /// The program that created it, with its version.
    pub program: String,
    /// Sizes of chunks.
    pub chunks: ChunkSizes,
    /// Sizes of tree nodes.
    pub nodes: Sizes,
    /// Length of a full pack, bytes.
    pub pack_target_bytes: u64,
    /// The compression level for those who ask for none.
    pub level: Level,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    repository: ByteArray<16>,
    created_seconds: i64,
    created_nanos: u32,
    program: String,
    chunks: ChunkSizes,
    nodes: Sizes,
    pack_target_bytes: u64,
    compression_level: i32,
}

impl Config {
    /// The usual pack size and level; the cutters' sizes come from the caller.
    pub fn new(
        repository: RepositoryId,
        created: Timestamp,
        chunks: ChunkSizes,
        nodes: Sizes,
    ) -> Self {
        Self {
            repository,
            created,
            program: concat!("stillpoint ", env!("CARGO_PKG_VERSION")).into(),
            chunks,
            nodes,
            pack_target_bytes: PACK_TARGET_BYTES,
            level: Level::DEFAULT,
        }
    }

    /// The object's bytes, with the authentication code.
    pub fn encode(&self, metadata: &MetadataKey) -> Vec<u8> {
        let mut body = to_cbor(&Wire {
            repository: ByteArray::new(*self.repository.as_bytes()),
            created_seconds: self.created.seconds,
            created_nanos: self.created.nanos,
            program: self.program.clone(),
            chunks: self.chunks,
            nodes: self.nodes,
            pack_target_bytes: self.pack_target_bytes,
            compression_level: self.level.as_i32(),
        });
        let code = metadata.config_code(&body);
        body.extend_from_slice(code.as_bytes());
        frame(&MAGIC, FORMAT_VERSION, &body)
    }
}

/// A configuration whose authentication code has not been checked yet: anybody may have written it.
#[derive(Debug)]
pub struct UncheckedConfig {
    config: Config,
    body: Vec<u8>,
    code: [u8; CODE_LEN],
}

impl UncheckedConfig {
    /// Parses the object's bytes.
    ///
    /// # Errors
    /// `Damaged`, `LimitExceeded`; `Unsupported` for a newer format.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let object = ObjectName::Config;
        let damaged = |detail: &str| Error::damaged(object, detail);
        let (_, content) = unframe(&object, &MAGIC, FORMAT_VERSION, bytes)?;
        let (body, code) =
            content.split_last_chunk::<CODE_LEN>().ok_or_else(|| damaged("it is too short"))?;
        let wire: Wire = from_cbor(&object, body)?;
        if wire.created_nanos >= 1_000_000_000 {
            return Err(damaged("its time of creation is impossible"));
        }
        let level = Level::new(wire.compression_level)
            .map_err(|_| damaged("its compression level is impossible"))?;
        let config = Config {
            repository: RepositoryId::from_bytes(wire.repository.into_array()),
            created: Timestamp { seconds: wire.created_seconds, nanos: wire.created_nanos },
            program: wire.program,
            chunks: wire.chunks,
            nodes: wire.nodes,
            pack_target_bytes: wire.pack_target_bytes,
            level,
        };
        Ok(Self { config, body: body.to_vec(), code: *code })
    }

    /// The repository's id, with which key slots are opened. A false id opens none.
    pub fn repository(&self) -> RepositoryId {
        self.config.repository
    }

    /// Checks the authentication code and gives the configuration.
    ///
    /// # Errors
    /// `Damaged` where somebody without the key wrote or changed it.
    pub fn check(self, metadata: &MetadataKey) -> Result<Config> {
        // `blake3::Hash` compares in constant time.
        if metadata.config_code(&self.body) == self.code {
            return Ok(self.config);
        }
        Err(Error::damaged(ObjectName::Config, "it was not written with this repository's key"))
    }
}
