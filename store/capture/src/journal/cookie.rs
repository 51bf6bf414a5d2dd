//! The cookie: a file that the journal creates, so that its own event says how far the queue was read.
//!
//! It lies in a directory of its own, outside of the roots if there is a choice, which carries a mark of its own: all marks
//! feed one queue, so whatever happened before the cookie was created stands before it in the queue.

use super::fanotify::{self, Group};
use super::records::{Event, mask};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Tries to find a name that nobody uses.
const TRIES: u32 = 1000;

/// The directory of the cookies.
#[derive(Debug)]
pub(super) struct Cookie {
    path: PathBuf,
    directory: OwnedFd,
    handle: (i32, Vec<u8>),
    sent: u64,
    seen: u64,
}

impl Cookie {
    /// Makes a directory below the first of these that takes one and can be marked.
    ///
    /// # Errors
    /// What the last one gave.
    pub(super) fn create(group: &Group, places: &[PathBuf]) -> io::Result<Self> {
        let mut result = Err(io::ErrorKind::NotFound.into());
        for place in places {
            result = Self::create_in(group, place);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn create_in(group: &Group, place: &Path) -> io::Result<Self> {
        let path = fresh_directory(place)?;
        let open = || -> io::Result<_> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let directory = rustix::fs::open(&path, flags, Mode::empty())?;
            group.mark_directory(directory.as_fd())?;
            let handle = fanotify::handle_of(directory.as_fd())?;
            Ok((directory, handle))
        };
        match open() {
            Ok((directory, handle)) => Ok(Self { path, directory, handle, sent: 0, seen: 0 }),
            Err(error) => {
                let _ = std::fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// Creates the next cookie, and gives the moment at which it was created, as the file system tells it.
    ///
    /// # Errors
    /// Whatever creating a file gives.
    pub(super) fn send(&mut self) -> io::Result<(i64, i64)> {
        self.sent += 1;
        let name = format!("{}", self.sent);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &name, flags, Mode::RUSR)?;
        let stat = rustix::fs::fstat(&file)?;
        rustix::fs::unlinkat(&self.directory, &name, AtFlags::empty())?;
        Ok((stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or_default()))
    }

    /// Looks whether an event is a cookie's.
    pub(super) fn watch(&mut self, event: &Event<'_>) {
        let is_here = event.directory.is_some_and(|directory| {
            directory.kind == self.handle.0 && directory.bytes == self.handle.1
        });
        if is_here && event.has(mask::CREATE) {
            let name = std::str::from_utf8(event.name).unwrap_or_default();
            self.seen = self.seen.max(name.parse().unwrap_or_default());
        }
    }

    /// Whether the event of the last cookie has come.
    pub(super) fn is_seen(&self) -> bool {
        self.seen == self.sent
    }
}

impl Drop for Cookie {
    /// The directory is empty unless the program was killed in the middle; what is left of it harms nobody.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn fresh_directory(place: &Path) -> io::Result<PathBuf> {
    let process = std::process::id();
    for number in 0..TRIES {
        let path = place.join(format!("stillpoint-cookie-{process}-{number}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::super::records::Handle;
    use super::*;

    // Only the creation of the last cookie counts, in the cookies' own directory.
    #[test]
    fn only_the_last_cookie_counts() {
        let temp = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(temp.path()).unwrap().into();
        let handle = (1, b"handle".to_vec());
        let path = temp.path().join("gone");
        let mut cookie = Cookie { path, directory, handle, sent: 0, seen: 0 };
        assert!(cookie.is_seen());
        cookie.send().unwrap();
        cookie.send().unwrap();
        let mut check = |mask: u64, bytes: &'static [u8], name: &'static [u8], seen: bool| {
            let directory = Some(Handle { filesystem: 1, kind: 1, bytes });
            cookie.watch(&Event { mask, directory, name, object: None });
            assert_eq!(cookie.is_seen(), seen, "{name:?}");
        };
        check(mask::CREATE, b"handle", b"1", false);
        check(mask::CREATE, b"another", b"2", false);
        check(mask::DELETE, b"handle", b"2", false);
        check(mask::CREATE, b"handle", b"x", false);
        check(mask::CREATE, b"handle", b"2", true);
        check(mask::CREATE, b"handle", b"1", true);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
