//! Where objects lie: the `Backend` trait, the local directory and memory.
//!
//! A backend moves opaque bytes under typed names. It knows nothing of keys, formats or liveness.

mod local;
mod memory;

pub use local::LocalBackend;
pub use memory::{Contents, MemoryBackend};

use crate::error::Result;
use crate::id::{ObjectKind, ObjectName};
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes of an object: owned, or a window into a memory map of an immutable object.
#[derive(Clone)]
pub struct ObjectBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl ObjectBytes {
    /// A window into shared bytes; the range must lie inside.
    pub fn window(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }
}

impl From<Vec<u8>> for ObjectBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Arc::new(bytes), range }
    }
}

impl Deref for ObjectBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).expect("checked when the window was made")
    }
}

/// One object on its way in. Dropped without `finish`, it leaves nothing under its name.
pub trait ObjectWriter: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes the object durable and visible under its name, at once and whole. After an error nothing may be
    /// assumed but that the name holds either the whole object or nothing.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken (names are never reused); `Io` otherwise.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// The answer to a compare-and-swap of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// The new head is durable.
    Done,
    /// The head was not what the caller expected; nothing changed.
    Lost,
}

/// Storage for one repository.
pub trait Backend: Send + Sync {
    /// Where the repository lies, for messages.
    fn location(&self) -> String;

    /// Prepares an empty place (folders) for a new repository. What an attempt that was cut short has left behind, a head
    /// above all, is removed: without `config` there has never been a repository.
    ///
    /// # Errors
    /// `AlreadyExists` when a `config` object is there, or another process is just creating one; `Invalid` when
    /// packs, snapshots or parity are there without it: then a repository has lost its config.
    fn initialise(&self) -> Result<()>;

    /// Starts a new object.
    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>>;

    /// Starts an object that takes the place of whatever has its name, at once and whole, when it is finished. Only for
    /// putting back the very bytes that the name has always meant: healing a damaged object is the one exception from
    /// 'written once'. Until `finish` returns, what has the name keeps it.
    ///
    /// # Errors
    /// `finish` never gives `AlreadyExists`.
    fn replace(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>>;

    /// Reads a range of an object. A range beyond its end is `Damaged` (the object is too short).
    ///
    /// # Errors
    /// `Missing` when there is no such object.
    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes>;

    /// The object's length in bytes, or None when there is no such object.
    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>>;

    /// Names and sizes of all objects of a kind, in any order. An error is an error, never an empty list.
    fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectName, u64)>>;

    /// Removes an object; removing what is not there succeeds.
    fn remove(&self, name: &ObjectName) -> Result<()>;

    /// The head's bytes, or None before the first commit.
    fn read_head(&self) -> Result<Option<Vec<u8>>>;

    /// Replaces the head if its current bytes are exactly `expected` (None: there is no head yet).
    ///
    /// # Errors
    /// After an error the outcome is unknown: read the head to find out.
    fn swap_head(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<Swap>;

    /// Sets a little room aside, if none is set aside and there is some, for [`Self::release_reserve`].
    ///
    /// # Errors
    /// None for want of room; others as the storage gives them.
    fn make_reserve(&self) -> Result<()> {
        Ok(())
    }

    /// Gives back the room that was set aside, so that what frees space can be committed on a full disk. False if
    /// there was none.
    ///
    /// # Errors
    /// As the storage gives them.
    fn release_reserve(&self) -> Result<bool> {
        Ok(false)
    }
}

/// The error for a range that does not lie inside an object of `len` bytes.
fn too_short(name: &ObjectName, len: u64, range: &Range<u64>) -> crate::Error {
    let detail = format!("bytes {} to {} were asked for, it has {len}", range.start, range.end);
    crate::Error::damaged(name, detail)
}

/// Objects of these kinds are written only once there is a `config`.
const KINDS_OF_DATA: [ObjectKind; 3] = [ObjectKind::Pack, ObjectKind::Snapshot, ObjectKind::Parity];
/// Objects of these kinds are written before there is a `config`.
const KINDS_OF_BEGINNING: [ObjectKind; 2] = [ObjectKind::Key, ObjectKind::Catalogue];

/// The error for a place that has data and no `config`.
fn config_is_lost(location: &str) -> crate::Error {
    crate::Error::Invalid(format!(
        "{location} holds packs or snapshots but no config: a repository that has lost it, not a place for a new one"
    ))
}

/// Reads a whole object no longer than `limit` bytes.
///
/// # Errors
/// `Missing`, `LimitExceeded`, or what [`Backend::read`] gives.
pub fn read_whole(backend: &dyn Backend, name: &ObjectName, limit: usize) -> Result<ObjectBytes> {
    let size = backend.size_bytes(name)?.ok_or_else(|| crate::Error::missing(name))?;
    let limit = u64::try_from(limit).expect("a usize fits into 64 bits");
    if size > limit {
        return Err(crate::Error::LimitExceeded {
            object: name.to_string(),
            what: "length",
            found: size,
            limit,
        });
    }
    backend.read(name, 0..size)
}

/// Writes a whole small object durably.
///
/// # Errors
/// As [`ObjectWriter::finish`].
pub fn put(backend: &dyn Backend, name: &ObjectName, bytes: &[u8]) -> Result<()> {
    let mut writer = backend.create(name)?;
    writer.write(bytes)?;
    writer.finish()
}
