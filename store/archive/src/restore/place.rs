//! Where a file's bytes go: the open descriptor, the name it has so far, and how many are open at once.

use crate::target::{Dir, Fresh};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most files that stay open while their pieces come; further ones are opened again for each piece.
pub(super) const OPEN_FILES_MAX: usize = 256;

/// Open files of one restore.
#[derive(Default)]
pub(super) struct OpenFiles(AtomicUsize);

/// Where the bytes go.
pub(super) struct Place {
    pub name: Vec<u8>,
    pub temporary: bool,
    pub fresh: Fresh,
    pub device: u64,
    pub inode: u64,
    pub size: u64,
}

/// Why a step on a file failed.
pub(super) enum Trouble {
    /// A system call on the target.
    Io(&'static str, Errno),
    /// Anything else, in words.
    Says(String),
}

impl Place {
    /// Opens the very same file again; something else under its name is an error.
    pub(super) fn open_again(&self, dir: &Dir) -> Result<File, Trouble> {
        let file =
            dir.open_file(&self.name, true).map_err(|errno| Trouble::Io("opening again", errno))?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| Trouble::Io("opening again", errno))?;
        if (stat.st_dev, stat.st_ino) != (self.device, self.inode) {
            return Err(Trouble::Says("it was replaced while it was restored".into()));
        }
        Ok(file)
    }
}

impl OpenFiles {
    /// Whether files should be closed between their pieces.
    pub(super) fn are_too_many(&self) -> bool {
        self.0.load(Ordering::Relaxed) > OPEN_FILES_MAX
    }

    /// One more is open.
    pub(super) fn opened(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets go of a file, if it is open.
    pub(super) fn drop_file(&self, file: &mut Option<Arc<File>>) {
        if file.take().is_some() {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Opens an existing file to be compared and changed in place, unless it has got other names meanwhile.
pub(super) fn open_for_update(dir: &Dir, name: &[u8]) -> Option<(File, Place)> {
    let file = dir.open_file(name, true).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let alone = stat.st_nlink == 1;
    let place = Place {
        name: name.to_vec(),
        temporary: false,
        fresh: Fresh::No,
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
    };
    (alone && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
        .then_some((file, place))
}

/// Whether every other file would fail as well.
pub(super) fn is_hopeless(errno: Errno) -> bool {
    super::ledger::HOPELESS.contains(&errno)
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a usize fits into 64 bits")
}

pub(super) fn length_of(file: &File) -> Result<u64, Trouble> {
    let stat = rustix::fs::fstat(file).map_err(|errno| Trouble::Io("looking at", errno))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Overwrites with zeros, where holes cannot be punched.
pub(super) fn zero(file: &File, start: u64, end: u64) -> Result<(), Trouble> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let end = end.min(length_of(file)?);
    let mut at = start;
    while at < end {
        let step = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        let zeros = ZEROS.get(..step).unwrap_or(&ZEROS);
        std::os::unix::fs::FileExt::write_all_at(file, zeros, at)
            .map_err(|error| Trouble::Io("writing zeros", errno_of(&error)))?;
        at += length(zeros);
    }
    Ok(())
}
