//! Records that do not fit into memory: streams that share one file without a name.
//!
//! Knows nothing of what the records mean. The file is unlinked as soon as it is open, so nothing stays behind,
//! whatever happens to the process.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Names tried in a folder before it counts as unusable.
const NAMES_TRIED_MAX: u64 = 100;

/// The file behind several streams.
pub(super) struct SpillFile {
    file: File,
    folder: PathBuf,
    end: AtomicU64,
    failed: AtomicBool,
}

impl SpillFile {
    /// A file in the first of these folders that takes one; None where no folder does.
    pub fn create(folders: impl IntoIterator<Item = PathBuf>) -> Option<Arc<Self>> {
        folders.into_iter().find_map(|folder| {
            let file = create_unnamed(&folder).ok()?;
            let (end, failed) = (AtomicU64::new(0), AtomicBool::new(false));
            Some(Arc::new(Self { file, folder, end, failed }))
        })
    }

    /// Whether a write failed: then what was spilled is not complete and the caller must do without.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn append(&self, bytes: &[u8]) -> Result<u64> {
        let len = u64::try_from(bytes.len()).expect("64 bits hold any length");
        let offset = self.end.fetch_add(len, Ordering::Relaxed);
        self.file.write_all_at(bytes, offset).map_err(|error| {
            self.failed.store(true, Ordering::Relaxed);
            self.error("writing", error)
        })?;
        Ok(offset)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|error| self.error("reading", error))
    }

    fn error(&self, action: &'static str, error: io::Error) -> Error {
        Error::io(action, format!("a temporary file in {}", self.folder.display()), error)
    }
}

fn create_unnamed(folder: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(folder)?;
    for _ in 0..NAMES_TRIED_MAX {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("spill.{}.{number}", std::process::id()));
        let created =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        match created {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Records of `N` bytes that are written once, then read in the same order. Without a file they stay in memory.
pub(super) struct Stream<const N: usize> {
    file: Option<Arc<SpillFile>>,
    block_bytes: usize,
    buffer: Vec<u8>,
    /// Where the blocks before the buffer lie: offset and length.
    blocks: Vec<(u64, usize)>,
    len: u64,
}

impl<const N: usize> Stream<N> {
    /// An empty stream. With a file it keeps at most `block_bytes` in memory, but no less than one record.
    pub fn new(file: Option<Arc<SpillFile>>, block_bytes: usize) -> Self {
        Self { file, block_bytes, buffer: Vec::new(), blocks: Vec::new(), len: 0 }
    }

    /// Number of records.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Adds a record.
    ///
    /// # Errors
    /// `Io` when the file cannot be written.
    pub fn push(&mut self, record: &[u8; N]) -> Result<()> {
        if let Some(file) = &self.file
            && !self.buffer.is_empty()
            && self.buffer.len() + N > self.block_bytes
        {
            self.blocks.push((file.append(&self.buffer)?, self.buffer.len()));
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(record);
        self.len += 1;
        Ok(())
    }

    /// Gives all records in the order in which they were added.
    ///
    /// # Errors
    /// `Io` when the file cannot be read, and what `visit` gives.
    pub fn each(&self, mut visit: impl FnMut(&[u8; N]) -> Result<()>) -> Result<()> {
        let mut block = Vec::new();
        for (offset, len) in &self.blocks {
            block.resize(*len, 0);
            let file = self.file.as_ref().expect("blocks lie in a file");
            file.read(*offset, &mut block)?;
            block.as_chunks::<N>().0.iter().try_for_each(&mut visit)?;
        }
        self.buffer.as_chunks::<N>().0.iter().try_for_each(visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(file: Option<Arc<SpillFile>>, records: u32) -> Stream<4> {
        let mut stream = Stream::new(file, 64);
        (0..records).for_each(|number| stream.push(&number.to_le_bytes()).unwrap());
        stream
    }

    fn numbers(stream: &Stream<4>) -> Vec<u32> {
        let mut found = Vec::new();
        stream
            .each(|record| {
                found.push(u32::from_le_bytes(*record));
                Ok(())
            })
            .unwrap();
        found
    }

    /// Streams of one file give back what was written, in order; the folder stays empty all the time.
    #[test]
    fn streams_share_a_file_without_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("file/below");
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let file = SpillFile::create([missing, dir.path().join("new")]).unwrap();
        let streams = [0, 1, 16, 17, 1000].map(|count| filled(Some(Arc::clone(&file)), count));
        for stream in &streams {
            assert!(stream.buffer.capacity() <= 128, "a stream keeps one block in memory");
            assert_eq!(
                numbers(stream),
                (0..u32::try_from(stream.len()).unwrap()).collect::<Vec<_>>()
            );
        }
        assert_eq!(std::fs::read_dir(dir.path().join("new")).unwrap().count(), 0);
        assert_eq!(numbers(&filled(None, 1000)).len(), 1000);
        assert!(!file.has_failed());
    }

    /// A file that cannot be written says so, and a folder that takes no file is passed over.
    #[test]
    fn a_full_disk_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(SpillFile::create([PathBuf::from("/proc/none")]).is_none());
        let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let (end, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let folder = dir.path().to_owned();
        let file = Arc::new(SpillFile { file: full, folder, end, failed });
        let mut stream = Stream::<4>::new(Some(Arc::clone(&file)), 8);
        let outcome = (0..9u32).try_for_each(|number| stream.push(&number.to_le_bytes()));
        assert!(matches!(outcome, Err(Error::Io { .. })));
        assert!(file.has_failed());
    }
}
