//! One entry of a manifest: everything that a snapshot says about one path.
//!
//! Owns the struct, its byte form ([`codec`]) and the tree schemas ([`schema`]). Knows no file system calls.

mod codec;
mod input;
mod schema;

pub use codec::{EntryHead, KindCode};
pub use schema::{ContentSchema, ManifestSchema, node_references};

use stillpoint_store::tree::Root;
use stillpoint_store::{ChunkId, Timestamp};

/// Content up to this many bytes stands in the entry itself: an id, its footer and index entries would cost more.
pub const INLINE_BYTES_MAX: usize = 256;
/// Content lists up to this many items stand in the entry itself; longer ones in a tree of their own.
pub const CONTENT_ITEMS_MAX: usize = 64;
/// Longest byte form of an entry. What exceeds it (huge extended attributes) cannot be saved and is a problem.
pub const ENTRY_BYTES_MAX: usize = stillpoint_store::limits::TREE_VALUE_BYTES_MAX;

/// Everything that a snapshot records about one path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// What it is, with the content of files and the target of symbolic links.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u32,
    /// Owner id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Owner name, empty where the machine had none.
    pub user: Vec<u8>,
    /// Group name, empty where the machine had none.
    pub group: Vec<u8>,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode; serves change detection, cannot be restored.
    pub ctime: Timestamp,
    /// Birth, where the file system knows it; cannot be restored.
    pub btime: Option<Timestamp>,
    /// Inode number; with `device` it tells hard links. 0 for what never was a file (streams).
    pub inode: u64,
    /// The device that the inode lies on (`st_dev`).
    pub device: u64,
    /// Number of hard links.
    pub nlink: u32,
    /// Logical size of a file in bytes, as saved; 0 for all other kinds.
    pub size: u64,
    /// Inode flags (`FS_IOC_GETFLAGS`), 0 where there are none or they cannot be read.
    pub flags: u32,
    /// Extended attributes by ascending name; ACLs and capabilities are among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The file may have changed unseen since it was read (times too coarse, or it changed while it was read): the
    /// next backup reads it again whatever its times say.
    pub racy: bool,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EntryKind {
    /// A regular file. Every name of a hard-linked file is such an entry with equal `device` and `inode`.
    File(Content),
    /// A directory.
    #[default]
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points; any bytes.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// A file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The bytes themselves, at most [`INLINE_BYTES_MAX`].
    Inline(Vec<u8>),
    /// At most [`CONTENT_ITEMS_MAX`] pieces, in order, without gaps.
    Chunks(Vec<ContentItem>),
    /// The same list in a tree with [`ContentSchema`].
    Tree(Root),
}

/// One piece of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentItem {
    /// Bytes that a chunk holds.
    Data {
        /// The chunk.
        id: ChunkId,
        /// Its length in bytes, above 0.
        len: u32,
    },
    /// A hole: bytes that read as 0 and occupy nothing.
    Hole {
        /// Its length in bytes, above 0.
        len: u64,
    },
}

impl ContentItem {
    /// Length of the piece in bytes.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Data { len, .. } => u64::from(*len),
            Self::Hole { len } => *len,
        }
    }
}

impl Entry {
    /// True for regular files.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, EntryKind::File(_))
    }

    /// True for directories.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, EntryKind::Directory)
    }

    /// What tells the names of one hard-linked file, or None for what has one name only or is a directory.
    pub fn link_id(&self) -> Option<(u64, u64)> {
        (self.nlink > 1 && !self.is_directory()).then_some((self.device, self.inode))
    }
}
