//! Files that are written without an event: through shared mappings, by asynchronous I/O, below a loop device.
//!
//! Such files count as changed for as long as somebody could write to them in that way. Once the last mapping or descriptor is
//! gone there is an event again: a file that was open for writing was closed.

use super::fanotify;
use rustix::fs::{FileType, Mode, OFlags};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A shared mapping of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// First address, and first behind it: they name the file in `/proc/PID/map_files`.
    pub(super) range: (u64, u64),
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    /// It is no file at all, but a ring of asynchronous I/O.
    pub(super) is_ring: bool,
}

/// Calls `found` with each file that may be changing silently: mapped files only if they are on the given devices, others
/// wherever they are.
/// Gives how many processes do not let themselves be looked at.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn silent_writers(
    devices: &[(u32, u32)],
    found: &mut dyn FnMut(BorrowedFd<'_>),
) -> io::Result<u64> {
    let mut opaque = 0;
    let mut search = Search { devices, seen: HashSet::new(), text: Vec::new(), found };
    for process in fs::read_dir("/proc")? {
        let process = process?;
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        match search.process(&process.path()) {
            Err(error) if !has_ended(&error) => opaque += 1,
            _ => {}
        }
    }
    backing_files(found);
    Ok(opaque)
}

fn has_ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

struct Search<'a> {
    devices: &'a [(u32, u32)],
    seen: HashSet<((u32, u32), u64)>,
    text: Vec<u8>,
    found: &'a mut dyn FnMut(BorrowedFd<'_>),
}

impl Search<'_> {
    /// Looks at the shared mappings of files of one process.
    fn process(&mut self, process: &Path) -> io::Result<()> {
        let maps = fs::File::open(process.join("maps"))?;
        let mut has_ring = false;
        let asked = fanotify::shared_mappings(maps.as_fd(), &mut |mapping| {
            has_ring |= self.mapping(process, mapping);
        });
        match asked {
            // Before Linux 6.11 all mappings are read instead.
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                has_ring = self.all_mappings(process, maps)?;
            }
            other => other?,
        }
        if has_ring {
            files_of_ring(process, self.found);
        }
        Ok(())
    }

    fn all_mappings(&mut self, process: &Path, mut maps: fs::File) -> io::Result<bool> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        maps.read_to_end(&mut text)?;
        let mut has_ring = false;
        for mapping in text.split(|byte| *byte == b'\n').filter_map(parse_line) {
            has_ring |= self.mapping(process, &mapping);
        }
        self.text = text;
        Ok(has_ring)
    }

    /// Looks at one mapping; true for a ring of asynchronous I/O.
    fn mapping(&mut self, process: &Path, mapping: &Mapping) -> bool {
        if self.devices.contains(&mapping.device) {
            let (from, to) = mapping.range;
            let place = process.join("map_files").join(format!("{from:x}-{to:x}"));
            // The kernel shows how the file was opened as the permissions of the link.
            if is_for_writing(&place) && self.seen.insert((mapping.device, mapping.inode)) {
                open(&place).iter().for_each(|file| (self.found)(file.as_fd()));
            }
        }
        mapping.is_ring
    }
}

fn is_for_writing(link: &Path) -> bool {
    fs::symlink_metadata(link).is_ok_and(|found| found.permissions().mode() & 0o200 != 0)
}

fn open(path: &Path) -> Option<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// What a process with a ring of asynchronous I/O has open for writing: such writes raise no event before it is closed.
fn files_of_ring(process: &Path, found: &mut dyn FnMut(BorrowedFd<'_>)) {
    let Ok(links) = fs::read_dir(process.join("fd")) else { return };
    for link in links.flatten().map(|link| link.path()).filter(|link| is_for_writing(link)) {
        let Some(file) = open(&link) else { continue };
        let is_file = rustix::fs::fstat(&file)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
        if is_file {
            found(file.as_fd());
        }
    }
}

/// Images that are mounted or otherwise attached to a loop device.
fn backing_files(found: &mut dyn FnMut(BorrowedFd<'_>)) {
    let Ok(blocks) = fs::read_dir("/sys/block") else { return };
    for block in blocks.flatten() {
        if !block.file_name().as_encoded_bytes().starts_with(b"loop") {
            continue;
        }
        let Ok(mut path) = fs::read(block.path().join("loop/backing_file")) else { continue };
        if path.last() == Some(&b'\n') {
            path.pop();
        }
        let path = PathBuf::from(OsString::from_vec(path));
        open(&path).iter().for_each(|file| found(file.as_fd()));
    }
}

/// A shared mapping of a file, from a line of `proc_pid_maps(5)`.
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (range, permissions, _) = (text()?, text()?, text()?);
    let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
    let (from, to) = range.split_once('-')?;
    let (major, minor) = text()?.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = text()?.parse().ok()?;
    let is_ring = is_ring(fields.next().unwrap_or_default().trim_ascii_start());
    let is_shared = permissions.as_bytes().get(3) == Some(&b's');
    let range = (hexadecimal(from)?, hexadecimal(to)?);
    (is_shared && inode != 0).then_some(Mapping { range, device, inode, is_ring })
}

/// Whether a mapping of this name is what asynchronous I/O works with.
pub(super) fn is_ring(name: &[u8]) -> bool {
    name.starts_with(b"/[aio]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    // Lines as the kernel writes them; private mappings, those without a file and what is no line are passed over.
    #[test]
    fn lines() {
        let of = |line: &str| parse_line(line.as_bytes());
        let expected =
            Mapping { range: (0x7f0e, 0x7f0f), device: (0xfd, 0x1a), inode: 123, is_ring: false };
        assert_eq!(
            of("7f0e-7f0f rw-s 00000000 fd:1a 123                       /a b"),
            Some(expected)
        );
        assert!(of("7f0e-7f0f rw-s 00000000 00:0e 123 /[aio] (deleted)").unwrap().is_ring);
        for line in [
            "",
            "7f0e-7f0f r-xp 00000000 fd:1a 123 /bin/x",
            "7f0e-7f0f rw-s 00000000 00:00 0 ",
            "a b c",
            "a-b rw-s 0 x:y 1 z",
            "a rw-s 0 1:1 1 z",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    // Asking the kernel and reading the whole table find the same mapping of a file that is open for writing.
    #[test]
    fn both_ways_find_a_mapping() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at a place that the kernel chooses; it ends with the process.
        let place = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, protection, flags, file.as_raw_fd(), 0)
        };
        let inode = rustix::fs::fstat(&file).unwrap().st_ino;
        let is_ours = |mapping: &Mapping| mapping.range.0 == u64::try_from(place.addr()).unwrap();
        let mut asked = None;
        let maps = fs::File::open("/proc/self/maps").unwrap();
        let result = fanotify::shared_mappings(maps.as_fd(), &mut |mapping| {
            if is_ours(mapping) {
                asked = Some((mapping.range, mapping.device, mapping.inode));
            }
        });
        let mut text = Vec::new();
        fs::File::open("/proc/self/maps").unwrap().read_to_end(&mut text).unwrap();
        let mut lines = text.split(|byte| *byte == b'\n').filter_map(parse_line);
        let line = lines.find(is_ours).unwrap();
        assert_eq!(line.inode, inode);
        match result {
            Ok(()) => assert_eq!(asked, Some((line.range, line.device, line.inode))),
            Err(error) => eprintln!("skipped: this kernel does not tell of mappings: {error}"),
        }
    }
}
