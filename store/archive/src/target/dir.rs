//! One open directory and what can be done in it, by names of a single component.
//!
//! Nothing here follows a link: what stands under a name is looked at, created exclusively, renamed or unlinked.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Mode of everything that is new, until its metadata is set: nobody else reads what is not finished.
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
/// The same for directories.
const PRIVATE_DIRECTORY: Mode = Mode::from_raw_mode(0o700);
/// How many temporary names are tried before giving up.
const TEMPORARY_TRIES_MAX: usize = 1000;
/// Buffer for reading directories, bytes.
const LISTING_BUFFER_BYTES: usize = 32 << 10;

/// What is neither a file nor a directory.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    /// A symbolic link with this target.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A Unix socket; nobody listens on it.
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

/// A name that nothing else uses, to be renamed into place.
pub type TemporaryName = Vec<u8>;

/// An open directory.
pub struct Dir {
    fd: OwnedFd,
    default_acl: OnceLock<bool>,
}

impl Dir {
    /// Wraps a directory descriptor.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, default_acl: OnceLock::new() }
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What stands under a name, links not followed; None where nothing does.
    pub fn stat(&self, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The target of the symbolic link under a name.
    pub fn read_link(&self, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }

    /// Whether new files inherit an access control list from this directory; asked of the kernel once.
    pub fn has_default_acl(&self) -> bool {
        *self.default_acl.get_or_init(|| {
            rustix::fs::fgetxattr(&self.fd, "system.posix_acl_default", &mut [0u8; 0][..]).is_ok()
        })
    }

    /// Makes a directory that only we can enter.
    pub fn make_dir(&self, name: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::mkdirat(&self.fd, name, PRIVATE_DIRECTORY)
    }

    /// Opens the directory under a name.
    pub fn open_dir(&self, name: &[u8]) -> rustix::io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map(Self::new)
    }

    /// Creates a file that was not there, for writing and reading.
    pub fn create_file(&self, name: &[u8]) -> rustix::io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, PRIVATE_FILE).map(File::from)
    }

    /// Opens the regular file under a name; anything else is `EINVAL` or `ELOOP`, and a pipe never blocks.
    pub fn open_file(&self, name: &[u8], write: bool) -> rustix::io::Result<File> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        Ok(File::from(fd))
    }

    /// Opens whatever stands under a name without touching it (`O_PATH`): good for its metadata only.
    pub fn open_node(&self, name: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty())
    }

    /// Makes a link, pipe, socket or device; the name must be free.
    pub fn make_node(&self, name: &[u8], node: Node<'_>) -> rustix::io::Result<()> {
        let (kind, device) = match node {
            Node::Symlink(target) => return rustix::fs::symlinkat(target, &self.fd, name),
            Node::Fifo => (FileType::Fifo, 0),
            Node::Socket => (FileType::Socket, 0),
            Node::CharDevice { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            Node::BlockDevice { major, minor } => {
                (FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
        };
        rustix::fs::mknodat(&self.fd, name, kind, PRIVATE_FILE, device)
    }

    /// Gives what stands under `from_name` (itself, if it is a link) another name here; the name must be free.
    pub fn link(&self, name: &[u8], from: &Dir, from_name: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::linkat(&from.fd, from_name, &self.fd, name, AtFlags::empty())
    }

    /// Renames within this directory, replacing what stands there (but never a directory by something else).
    pub fn rename(&self, from: &[u8], to: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
    }

    /// Removes what is no directory; removing what is not there succeeds.
    pub fn unlink(&self, name: &[u8]) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
    }

    /// Runs `make` with fresh temporary names until one is free.
    ///
    /// # Errors
    /// What `make` gives, but for `EEXIST`, which takes the next name.
    pub fn with_temporary<T>(
        &self,
        mut make: impl FnMut(&[u8]) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<(TemporaryName, T)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let process = rustix::process::getpid().as_raw_pid();
        for _ in 0..TEMPORARY_TRIES_MAX {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!(".stillpoint-{process}-{number}.partial").into_bytes();
            match make(&name) {
                Err(Errno::EXIST) => {}
                other => return other.map(|made| (name, made)),
            }
        }
        Err(Errno::EXIST)
    }

    /// All names but `.` and `..`, in the kernel's order.
    pub fn names(&self) -> rustix::io::Result<Vec<Vec<u8>>> {
        // A descriptor of its own, because reading moves the position of the description.
        let fd = rustix::fs::openat(
            &self.fd,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut names = Vec::new();
        let mut buffer = [const { MaybeUninit::uninit() }; LISTING_BUFFER_BYTES];
        let mut entries = RawDir::new(fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Gives the owner read, write and search permission, without which nothing can be restored inside.
    pub fn make_accessible(&self, name: &[u8], stat: &Stat) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777) | PRIVATE_DIRECTORY;
        if mode.as_raw_mode() == stat.st_mode & 0o7777 {
            return Ok(());
        }
        let node = self.open_node(name)?;
        let now = rustix::fs::fstat(&node)?;
        if FileType::from_raw_mode(now.st_mode) != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        super::metadata::change_mode_of_node(node.as_fd(), mode)
    }
}
