//! The table of mounts: what is mounted where, as `proc_pid_mountinfo(5)` tells.
//!
//! Pure but for reading the table; marks nothing.

use super::fanotify;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use stillpoint_archive::path::{is_within, push_name};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The kernel's number for it.
    pub(super) id: u64,
    /// The file system's device: major, minor.
    pub(super) device: (u32, u32),
    /// The key, within its file system, of what is mounted.
    pub(super) inside: Vec<u8>,
    /// The key of where it is mounted.
    pub(super) at: Vec<u8>,
    /// The kind of file system.
    pub(super) kind: String,
}

/// The table, open, so that the kernel says when it changed.
#[derive(Debug)]
pub(super) struct MountTable {
    file: File,
}

impl MountTable {
    /// The table of this thread's mount namespace.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/mountinfo")? })
    }

    /// All mounts, oldest first: of two at one place the later one is seen.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub(super) fn read(&mut self) -> io::Result<Vec<Mount>> {
        let mut text = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut text)?;
        Ok(text.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
    }

    /// Whether something was mounted or unmounted since this was asked last.
    ///
    /// # Errors
    /// Whatever the kernel gives.
    pub(super) fn changed(&self) -> io::Result<bool> {
        fanotify::mounts_changed(self.file.as_fd())
    }
}

impl AsFd for MountTable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?)?.parse().ok()?;
    let (major, minor) = text(fields.nth(1)?)?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (inside, at) = (key(&unescaped(fields.next()?)), key(&unescaped(fields.next()?)));
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    Some(Mount { id, device, inside, at, kind: text(rest.next()?)?.to_owned() })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The bytes of a field in which blanks, tabs, line feeds and backslashes are written as octal numbers.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *byte == b'\\').and_then(text);
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = behind;
            }
        }
    }
    bytes
}

/// The key of an absolute path that the kernel gave.
pub(super) fn key(path: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        push_name(&mut key, name);
    }
    key
}

/// The mounts that hold something of these roots: the one that each root lies on, and, unless only those are wanted, all that
/// are mounted below. What another mount hides is not among them.
pub(super) fn holding<'a>(mounts: &'a [Mount], roots: &[Vec<u8>], below: bool) -> Vec<&'a Mount> {
    let seen = |mount: &&Mount| {
        let later = mounts.iter().skip_while(|other| other.id != mount.id).skip(1);
        !later.into_iter().any(|other| is_within(&mount.at, &other.at))
    };
    let visible: Vec<&Mount> = mounts.iter().filter(seen).collect();
    let on = |root: &Vec<u8>| {
        let above = visible.iter().filter(|mount| is_within(root, &mount.at));
        above.max_by_key(|mount| mount.at.len()).copied()
    };
    let mut found: Vec<&Mount> = roots.iter().filter_map(on).collect();
    if below {
        let inside = |mount: &&&Mount| roots.iter().any(|root| is_within(&mount.at, root));
        found.extend(visible.iter().filter(inside));
    }
    found.sort_by_key(|mount| mount.id);
    found.dedup_by_key(|mount| mount.id);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: u64, inside: &str, at: &str) -> Mount {
        let key = |path: &str| key(path.as_bytes());
        Mount { id, device: (8, 1), inside: key(inside), at: key(at), kind: "ext4".into() }
    }

    // Lines as the kernel writes them, with optional fields and escaped names; others are passed over.
    #[test]
    fn lines() {
        let check = |line: &str, expected: Option<Mount>| {
            assert_eq!(parse_line(line.as_bytes()), expected, "{line}");
        };
        check("21 1 8:1 / / rw - ext4 /dev/sda rw", Some(mount(21, "/", "/")));
        check(
            "22 1 8:1 /x\\040y /a\\134b/c rw,noatime shared:1 master:2 - ext4 none rw",
            Some(mount(22, "/x y", "/a\\b/c")),
        );
        for line in
            ["", "x", "22 1 8 / / rw - ext4 a b", "22 1 8:1 / / rw", "a 1 8:1 / / rw - x y z"]
        {
            check(line, None);
        }
        assert_eq!(unescaped(b"\\04\\999\\"), b"\\04\\999\\");
    }

    // The mount of each root and those below it, none that is hidden.
    #[test]
    fn mounts_that_hold_the_roots() {
        let mounts = [
            mount(1, "/", "/"),
            mount(2, "/", "/home"),
            mount(3, "/", "/home/x/m"),
            mount(4, "/", "/srv"),
            mount(5, "/sub", "/srv"),
            mount(6, "/", "/homes"),
        ];
        let check = |roots: &[&str], below: bool, expected: &[u64]| {
            let roots: Vec<_> = roots.iter().map(|root| key(root.as_bytes())).collect();
            let found: Vec<u64> =
                holding(&mounts, &roots, below).iter().map(|mount| mount.id).collect();
            assert_eq!(found, expected, "{roots:?}");
        };
        check(&["/"], true, &[1, 2, 3, 5, 6]);
        check(&["/"], false, &[1]);
        check(&["/home/x"], true, &[2, 3]);
        check(&["/home/x", "/srv/d"], false, &[2, 5]);
        check(&["/home/x/m/d"], true, &[3]);
    }
}
