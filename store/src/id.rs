//! Typed names: every id and object name in a repository, and their text forms.

use crate::error::{Error, Result};
use std::fmt;
pub use stillpoint_chunker::ChunkId;

/// The id of a tree node; nodes are stored as chunks, so it is a chunk id of kind node.
pub type NodeId = stillpoint_chunker::ChunkId;

/// What a chunk holds. Each kind has an id key of its own, so equal bytes of different kinds have unrelated ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ChunkKind {
    /// Content of files and streams.
    Data = 0,
    /// A node of a manifest or of a content list.
    Node = 1,
}

/// A deduplication domain: chunks are shared within it and unknown outside. The command line uses domain 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct DomainId(pub u32);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = 16;

            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// A fresh id; 128 random bits, so it never repeats.
            pub fn random(env: &dyn crate::env::Env) -> Self {
                let mut bytes = [0u8; 16];
                env.fill_random(&mut bytes);
                Self(bytes)
            }

            /// Parses 32 lower-case hexadecimal digits.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0u8; 16];
                decode_hex(text, &mut bytes).then_some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde_bytes::serialize(&self.0, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde_bytes::deserialize(deserializer).map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

random_id!(
    /// The name of a pack: random, never used twice, not even for a retry.
    PackId
);
random_id!(
    /// The name of a snapshot record.
    SnapshotId
);
random_id!(
    /// The identity of a repository, drawn once by `init`.
    RepositoryId
);
random_id!(
    /// The name of a key slot.
    SlotId
);
random_id!(
    /// The name of a parity object; never used twice.
    ParityId
);
random_id!(
    /// A group of packs that are protected together.
    GroupId
);
random_id!(
    /// One attempt to change the head; lets a writer recognise its own commit after an ambiguous answer.
    TransactionId
);

impl SnapshotId {
    /// The first eight hexadecimal digits, as listings show it.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

/// Decodes lower-case hexadecimal into `out`; false when length or digits are wrong.
pub(crate) fn decode_hex(text: &str, out: &mut [u8]) -> bool {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes = text.as_bytes();
    if bytes.len() != out.len() * 2 {
        return false;
    }
    bytes.chunks_exact(2).zip(out).all(|(pair, slot)| match pair {
        [high, low] => match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => {
                *slot = high << 4 | low;
                true
            }
            _ => false,
        },
        _ => false,
    })
}

/// The kinds of object in a repository, each with a folder (or a file) of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `config`: format version, repository id, parameters. Written once.
    Config,
    /// `keys/<slot>`: one wrapped copy of the repository key.
    Key,
    /// `packs/<2 digits>/<pack>`: frames and a footer.
    Pack,
    /// `catalogue/<node>`: one sealed node of the catalogue tree.
    Catalogue,
    /// `snapshots/<snapshot>`: one sealed snapshot record.
    Snapshot,
    /// `parity/<parity>`: what heals lost packs of one group.
    Parity,
}

/// The name of one immutable object. The mutable head is not an object; see [`crate::backend::Backend::read_head`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectName {
    /// The repository's configuration.
    Config,
    /// A key slot.
    Key(SlotId),
    /// A pack.
    Pack(PackId),
    /// A node of the catalogue.
    Catalogue(NodeId),
    /// A snapshot record.
    Snapshot(SnapshotId),
    /// A parity object.
    Parity(ParityId),
}

impl ObjectName {
    /// The kind of the object.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Config => ObjectKind::Config,
            Self::Key(_) => ObjectKind::Key,
            Self::Pack(_) => ObjectKind::Pack,
            Self::Catalogue(_) => ObjectKind::Catalogue,
            Self::Snapshot(_) => ObjectKind::Snapshot,
            Self::Parity(_) => ObjectKind::Parity,
        }
    }

    /// The name relative to the repository's root, with `/` between components; the same on every backend.
    pub fn path(&self) -> String {
        match self {
            Self::Config => "config".into(),
            Self::Key(id) => format!("keys/{id}"),
            Self::Pack(id) => {
                let hex = id.to_string();
                let shard: String = hex.chars().take(2).collect();
                format!("packs/{shard}/{hex}")
            }
            Self::Catalogue(id) => format!("catalogue/{id}"),
            Self::Snapshot(id) => format!("snapshots/{id}"),
            Self::Parity(id) => format!("parity/{id}"),
        }
    }

    /// Parses what [`Self::path`] gives; anything else (temporary files, foreign files) is None.
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let name = match (parts.next()?, parts.next(), parts.next()) {
            ("config", None, None) => Self::Config,
            ("keys", Some(hex), None) => Self::Key(SlotId::from_hex(hex)?),
            ("packs", Some(shard), Some(hex)) if hex.starts_with(shard) && shard.len() == 2 => {
                Self::Pack(PackId::from_hex(hex)?)
            }
            ("catalogue", Some(hex), None) => {
                let mut bytes = [0u8; 32];
                if !decode_hex(hex, &mut bytes) {
                    return None;
                }
                Self::Catalogue(NodeId::from_bytes(bytes))
            }
            ("snapshots", Some(hex), None) => Self::Snapshot(SnapshotId::from_hex(hex)?),
            ("parity", Some(hex), None) => Self::Parity(ParityId::from_hex(hex)?),
            _ => return None,
        };
        parts.next().is_none().then_some(name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// Turns a fixed part of a parsed record into an array, or says that the record is damaged.
pub(crate) fn array<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N]> {
    <[u8; N]>::try_from(bytes)
        .map_err(|_| Error::damaged(what, format!("expected {N} bytes, found {}", bytes.len())))
}
