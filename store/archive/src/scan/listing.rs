//! One directory read: its names in order, then the stat of each, in batches.
//!
//! Owns the system calls on one directory. Knows nothing of threads.

use super::rules::ScanRules;
use crate::meta::Stat;
use crate::source::{Dir, open_file};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::ops::Range;
use std::sync::Arc;

/// Room for names that one system call returns, bytes.
const DIRECTORY_BUFFER_BYTES: usize = 64 << 10;
/// How many names of one directory are looked at in one piece of work.
pub(super) const STAT_BATCH: usize = 1024;

/// The names of one directory, sorted as bytes; what the rules exclude is already left out.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) dir: Arc<Dir>,
    /// The directory's key; see [`crate::path`].
    pub(super) key: Arc<[u8]>,
    /// All names, each with its terminating zero.
    arena: Vec<u8>,
    names: Vec<Range<usize>>,
}

/// One name with what `stat` said, or why it said nothing.
#[derive(Debug)]
pub(super) struct Looked {
    /// Which name of the listing.
    pub(super) name: usize,
    pub(super) stat: Result<Stat, Errno>,
}

impl Listing {
    /// Reads all names of a directory and applies the rules that need no stat.
    pub(super) fn read(dir: Arc<Dir>, key: Arc<[u8]>, rules: &ScanRules) -> Result<Self, Errno> {
        let fd = dir.fd()?;
        let (mut arena, mut found) = (Vec::new(), Vec::new());
        let mut buffer = Vec::with_capacity(DIRECTORY_BUFFER_BYTES);
        let mut entries = RawDir::new(&*fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            let start = arena.len();
            arena.extend_from_slice(name);
            found.push((start..arena.len(), entry.file_type()));
        }
        let name = |range: &Range<usize>| arena.get(range.clone()).unwrap_or_default();
        found.sort_unstable_by(|a, b| name(&a.0).cmp(name(&b.0)));
        // A name that is renamed away and back while we read may come twice.
        found.dedup_by(|a, b| name(&a.0) == name(&b.0));
        exclude_by_marker(&dir, &arena, &mut found, rules);
        exclude_by_pattern(&fd, &key, &arena, &mut found, rules);
        let names = found.into_iter().map(|(range, _)| range).collect();
        Ok(Self { dir, key, arena, names })
    }

    /// Number of names.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The n-th name.
    pub(super) fn name(&self, n: usize) -> &CStr {
        let range = self.names.get(n).cloned().unwrap_or_default();
        c_str(self.arena.get(range).unwrap_or_default())
    }

    /// Looks at a batch of names, starting with this one.
    pub(super) fn look(&self, from: usize, rules: &ScanRules) -> Vec<Looked> {
        let until = self.len().min(from + STAT_BATCH);
        let fd = match self.dir.fd() {
            Ok(fd) => fd,
            Err(errno) => {
                return (from..until).map(|name| Looked { name, stat: Err(errno) }).collect();
            }
        };
        let look = |name| Looked { name, stat: Stat::at(fd.as_fd(), self.name(name)) };
        let too_large = |stat: &Stat| stat.is_file() && rules.filter.excludes_size(stat.size);
        (from..until)
            .map(look)
            .filter(|looked| !looked.stat.as_ref().is_ok_and(too_large))
            .collect()
    }
}

fn c_str(name: &[u8]) -> &CStr {
    CStr::from_bytes_with_nul(name).expect("stored with its terminating zero")
}

type Found = (Range<usize>, FileType);

/// Where a marker file stands, only the marker itself stays.
fn exclude_by_marker(dir: &Dir, arena: &[u8], found: &mut Vec<Found>, rules: &ScanRules) {
    let name = |range: &Range<usize>| arena.get(range.clone()).unwrap_or_default();
    for marker in rules.filter.markers() {
        let mut wanted = marker.name.clone();
        wanted.push(0);
        let Ok(at) = found.binary_search_by(|(range, _)| name(range).cmp(&wanted)) else {
            continue;
        };
        if starts_with(dir, c_str(&wanted), &marker.header) {
            let kept = found.swap_remove(at);
            *found = vec![kept];
            return;
        }
    }
}

/// The marker that stands in a directory and excludes the rest of it.
pub(super) fn marker_in<'r>(dir: &Dir, rules: &'r ScanRules) -> Option<&'r [u8]> {
    rules.filter.markers().iter().find_map(|marker| {
        let name = CString::new(marker.name.as_slice()).ok()?;
        Stat::at(dir.fd().ok()?.as_fd(), &name).ok()?;
        starts_with(dir, &name, &marker.header).then_some(marker.name.as_slice())
    })
}

fn starts_with(dir: &Dir, name: &CStr, header: &[u8]) -> bool {
    if header.is_empty() {
        return true;
    }
    let Ok(fd) = open_file(dir, name) else { return false };
    let is_file = Stat::of(fd.as_fd()).is_ok_and(|stat| stat.is_file());
    let mut start = vec![0u8; header.len()];
    is_file && rustix::io::pread(&fd, &mut start, 0) == Ok(header.len()) && start == header
}

fn exclude_by_pattern(
    fd: &OwnedFd,
    key: &[u8],
    arena: &[u8],
    found: &mut Vec<Found>,
    rules: &ScanRules,
) {
    if !rules.filter.has_patterns() {
        return;
    }
    let mut path = pattern_path(key);
    if !path.is_empty() {
        path.push(b'/');
    }
    let directory_len = path.len();
    found.retain(|(range, kind)| {
        let name = c_str(arena.get(range.clone()).unwrap_or_default());
        path.truncate(directory_len);
        path.extend_from_slice(name.to_bytes());
        let is_directory = match kind {
            FileType::Directory => true,
            FileType::Unknown => Stat::at(fd.as_fd(), name).is_ok_and(|stat| stat.is_directory()),
            _ => false,
        };
        !rules.filter.excludes(&path, is_directory)
    });
}

/// The path of a key as patterns want it: absolute, without the leading `/`.
pub(super) fn pattern_path(key: &[u8]) -> Vec<u8> {
    key.iter().map(|byte| if *byte == crate::path::SEPARATOR { b'/' } else { *byte }).collect()
}
