//! A repository in a local directory.
//!
//! ```text
//! config  head  head.lock  reserve  keys/  packs/00/ .. packs/ff/  catalogue/  snapshots/  parity/  tmp/
//! ```
//! An object is written to `tmp/`, synced, renamed to its name without ever replacing anything, and its folder is
//! synced; only then it counts. The head is replaced under an exclusive `flock` of `head.lock`. Files get mode 0600,
//! folders 0700. Knows nothing of what the bytes mean.

mod creation;
mod durable;
mod maps;
mod reserve;
mod temp;

use super::{Backend, ObjectBytes, ObjectWriter, Swap};
use crate::error::{Error, Result};
use crate::id::{ObjectKind, ObjectName, PackId};
use crate::limits::RECORD_BYTES_MAX;
use durable::Existing;
use maps::OpenPacks;
use rustix::fs::FlockOperation;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use temp::TempFile;

const HEAD: &str = "head";
const HEAD_LOCK: &str = "head.lock";
const PACKS: &str = "packs";
const TEMP: &str = "tmp";
const PARITY: &str = "parity";
/// Most that is read of a head, bytes: one more than a head can have.
const HEAD_READ_MAX: usize = RECORD_BYTES_MAX + 1;
const FOLDERS: [&str; 6] = ["keys", PACKS, "catalogue", "snapshots", PARITY, TEMP];

/// A backend on a directory of a local or mounted file system.
pub struct LocalBackend {
    root: PathBuf,
    packs: Arc<OpenPacks>,
    /// All folders exist and are durable.
    prepared: Mutex<bool>,
    /// The folder could not be synced after the head was renamed: the head that can be read may not be durable.
    head_unsettled: AtomicBool,
    /// A head was read since the root folder was last synced.
    head_read: AtomicBool,
    /// Held by whoever creates a repository, for as long as the backend lives.
    creating: Mutex<Option<File>>,
}

impl LocalBackend {
    /// The backend on this directory; touches nothing yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            packs: Arc::default(),
            prepared: Mutex::new(false),
            head_unsettled: AtomicBool::new(false),
            head_read: AtomicBool::new(false),
            creating: Mutex::new(None),
        }
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.path())
    }

    /// Creates whatever folder is missing and syncs those that name others, once in each process that writes: another
    /// process may have created them and not yet synced.
    fn prepare(&self) -> Result<()> {
        let mut prepared = self.prepared.lock().expect("no panic while preparing");
        if !*prepared {
            // Without this look a backup to an unmounted disk would go on in the empty mount point.
            if !self.root.join(PACKS).is_dir() && !self.root.join("config").is_file() {
                return Err(Error::NoRepository { location: self.location() });
            }
            self.create_folders()?;
            temp::sweep(&self.root.join(TEMP));
            *prepared = true;
        }
        Ok(())
    }

    fn create_folders(&self) -> Result<()> {
        for folder in FOLDERS {
            durable::create_folder(&self.root.join(folder))?;
        }
        let packs = self.root.join(PACKS);
        for shard in 0..=u8::MAX {
            durable::create_folder(&packs.join(format!("{shard:02x}")))?;
        }
        durable::sync_folder(&packs)?;
        durable::sync_folder(&self.root)
    }

    fn writer(&self, name: &ObjectName, existing: Existing) -> Result<LocalWriter> {
        self.prepare()?;
        let target = self.path(name);
        let purpose = target.file_name().and_then(|leaf| leaf.to_str()).unwrap_or("object");
        let temp = TempFile::create(&self.root.join(TEMP), purpose)?;
        Ok(LocalWriter { temp, target, existing, replaced: None })
    }

    fn load_head(&self) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(HEAD);
        let (file, len) = match open_regular(&path) {
            Ok(Some(open)) => open,
            Ok(None) => return Err(Error::damaged(HEAD, "not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("reading", path.display(), error)),
        };
        // One that is too long is no head. So much of it is read that this shows, and that a repair can replace it.
        let bytes_len = usize::try_from(len).map_or(HEAD_READ_MAX, |len| len.min(HEAD_READ_MAX));
        let mut bytes = vec![0; bytes_len];
        read_exact_at(&file, &mut bytes, 0, &path, &HEAD)?;
        Ok(Some(bytes))
    }

    /// Writes the head anew and durably; the caller holds the lock.
    fn replace_head(&self, bytes: &[u8]) -> Result<()> {
        let mut temp = TempFile::create(&self.root.join(TEMP), HEAD)?;
        temp.write(bytes)?;
        self.head_unsettled.store(true, Ordering::SeqCst);
        temp.publish(&self.root.join(HEAD), Existing::Replace)?;
        self.head_unsettled.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Takes the head's lock; it is released when the file is closed.
    fn lock_head(&self) -> Result<File> {
        let path = self.root.join(HEAD_LOCK);
        let failed = |error: io::Error| Error::io("locking", path.display(), error);
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(temp::FILE_MODE)
                .open(&path)
                .map_err(failed)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)
                .map_err(|error| failed(error.into()))?;
            // Somebody may have removed the lock file by hand: then others lock another file of that name.
            let locked = file.metadata().map_err(failed)?;
            let named = fs::metadata(&path).ok().map(|named| (named.dev(), named.ino()));
            if named == Some((locked.dev(), locked.ino())) {
                return Ok(file);
            }
        }
    }

    /// True where this folder is not there, but a repository is.
    fn lacks_only(&self, folder: &str) -> bool {
        let is_absent = fs::symlink_metadata(self.root.join(folder))
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        is_absent && self.root.join(PACKS).is_dir()
    }

    fn list_folder(&self, folder: &str, found: &mut Vec<(ObjectName, u64)>) -> Result<()> {
        let path = self.root.join(folder);
        let failed = |error| Error::io("listing", path.display(), error);
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let file_name = entry.file_name();
            let Some(leaf) = file_name.to_str() else { continue };
            let Some(name) = ObjectName::parse(&format!("{folder}/{leaf}")) else { continue };
            match entry.metadata() {
                Ok(data) if data.is_file() => found.push((name, data.size())),
                Ok(_) => {}
                // Removed between the listing and the look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("listing", entry.path().display(), error)),
            }
        }
        Ok(())
    }
}

struct LocalWriter {
    temp: TempFile,
    target: PathBuf,
    existing: Existing,
    /// Where the pack that is replaced may still be open.
    replaced: Option<(Arc<OpenPacks>, PackId)>,
}

impl ObjectWriter for LocalWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.temp.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.temp.publish(&self.target, self.existing)?;
        if let Some((packs, id)) = self.replaced {
            packs.forget(id);
        }
        Ok(())
    }
}

impl Backend for LocalBackend {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn initialise(&self) -> Result<()> {
        self.prepare_creation()
    }

    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(self.writer(name, Existing::Keep)?))
    }

    fn replace(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        let mut writer = self.writer(name, Existing::Replace)?;
        if let ObjectName::Pack(id) = name {
            writer.replaced = Some((Arc::clone(&self.packs), *id));
        }
        Ok(Box::new(writer))
    }

    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes> {
        let path = self.path(name);
        if let ObjectName::Pack(id) = name {
            return self.packs.read(*id, &path, &range);
        }
        let (file, len) = open_object(&path, name)?;
        let wanted = range.end.checked_sub(range.start).filter(|_| range.end <= len);
        let wanted = wanted.and_then(|wanted| usize::try_from(wanted).ok());
        let mut bytes = vec![0; wanted.ok_or_else(|| super::too_short(name, len, &range))?];
        read_exact_at(&file, &mut bytes, range.start, &path, name)?;
        Ok(bytes.into())
    }

    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>> {
        let path = self.path(name);
        match fs::metadata(&path) {
            Ok(data) if data.is_file() => Ok(Some(data.size())),
            Ok(_) => Err(Error::damaged(name, "not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("reading", path.display(), error)),
        }
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectName, u64)>> {
        let mut found = Vec::new();
        match kind {
            ObjectKind::Config => {
                let size = self.size_bytes(&ObjectName::Config)?;
                found.extend(size.map(|size| (ObjectName::Config, size)));
            }
            ObjectKind::Key => self.list_folder("keys", &mut found)?,
            // Where only these are lost, they can be repaired.
            ObjectKind::Catalogue if self.lacks_only("catalogue") => {}
            ObjectKind::Snapshot if self.lacks_only("snapshots") => {}
            ObjectKind::Catalogue => self.list_folder("catalogue", &mut found)?,
            ObjectKind::Snapshot => self.list_folder("snapshots", &mut found)?,
            // A repository that is older than parity gets the folder with its next write.
            ObjectKind::Parity if self.lacks_only(PARITY) => {}
            ObjectKind::Parity => self.list_folder(PARITY, &mut found)?,
            ObjectKind::Pack => {
                let packs = self.root.join(PACKS);
                let failed = |error| Error::io("listing", packs.display(), error);
                for entry in fs::read_dir(&packs).map_err(failed)? {
                    let shard = entry.map_err(failed)?.file_name();
                    let Some(shard) = shard.to_str().filter(|shard| is_shard(shard)) else {
                        continue;
                    };
                    self.list_folder(&format!("{PACKS}/{shard}"), &mut found)?;
                }
            }
        }
        Ok(found)
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        // A removal follows from a head; it must not reach the disk before that head does.
        if self.head_read.swap(false, Ordering::SeqCst) {
            durable::sync_folder(&self.root).inspect_err(|_| {
                // The next removal has to wait for it too.
                self.head_read.store(true, Ordering::SeqCst);
            })?;
        }
        if let ObjectName::Pack(id) = name {
            self.packs.forget(*id);
        }
        let path = self.path(name);
        match fs::remove_file(&path) {
            // A secret that was taken away must not come back. Packs may: they are found and removed again.
            Ok(()) if name.kind() == ObjectKind::Key => {
                durable::sync_folder(path.parent().expect("an object lies in a folder"))
            }
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("removing", path.display(), error)),
        }
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>> {
        self.head_read.store(true, Ordering::SeqCst);
        if !self.head_unsettled.load(Ordering::SeqCst) {
            return self.load_head();
        }
        // Never believe a file after a failed sync: write the head anew, or fail.
        let _lock = self.lock_head()?;
        let head = self.load_head()?;
        match &head {
            Some(bytes) => self.replace_head(bytes)?,
            None => self.head_unsettled.store(false, Ordering::SeqCst),
        }
        Ok(head)
    }

    fn swap_head(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<Swap> {
        self.prepare()?;
        let _lock = self.lock_head()?;
        if self.load_head()?.as_deref() != expected {
            return Ok(Swap::Lost);
        }
        self.replace_head(new)?;
        Ok(Swap::Done)
    }

    fn make_reserve(&self) -> Result<()> {
        reserve::make(&self.root)
    }

    fn release_reserve(&self) -> Result<bool> {
        reserve::release(&self.root)
    }
}

fn is_shard(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Opens a regular file and gives its length; None if it is something else. Never blocks on a FIFO.
fn open_regular(path: &Path) -> io::Result<Option<(File, u64)>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let data = file.metadata()?;
    Ok(data.is_file().then(|| (file, data.size())))
}

fn open_object(path: &Path, name: &ObjectName) -> Result<(File, u64)> {
    match open_regular(path) {
        Ok(Some(open)) => Ok(open),
        Ok(None) => Err(Error::damaged(name, "not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::missing(name)),
        Err(error) => Err(Error::io("reading", path.display(), error)),
    }
}

/// Fills the buffer from an offset; a file that ends before is damaged.
fn read_exact_at(
    file: &File,
    buffer: &mut [u8],
    offset: u64,
    path: &Path,
    object: &dyn std::fmt::Display,
) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::damaged(object, "it ended while it was read"),
        _ => Error::io("reading", path.display(), error),
    })
}

#[cfg(test)]
mod tests;
