//! A quick count of what a first backup will meet, for the progress bar.
//!
//! Runs beside the backup on `walkdir`, whose ordered walk by paths is all that counting needs. Nothing is decided
//! on it: paths beyond PATH_MAX and pattern excludes inside it may make it differ from the backup itself.

use super::{Reach, ScanRules};
use crate::observer::Totals;
use crate::path::path_from_key;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use walkdir::{DirEntry, WalkDir};

/// How many entries are counted between two looks at whether to go on.
const STEP: u64 = 1024;

/// Counts what lies below the roots. `go_on` is asked now and then with what was counted so far; false ends the
/// count with None.
pub(crate) fn estimate(
    roots: &[Vec<u8>],
    rules: &ScanRules,
    go_on: &dyn Fn(Totals) -> bool,
) -> Option<Totals> {
    let mut totals = Totals::default();
    for station in super::stations(roots) {
        if station.reach != Reach::Root {
            totals.entries += 1;
            continue;
        }
        let walk = WalkDir::new(path_from_key(&station.key)).into_iter();
        for entry in walk.filter_entry(|entry| is_included(entry, rules)).flatten() {
            totals.entries += 1;
            totals.bytes += size(&entry, rules);
            if totals.entries % STEP == 0 && !go_on(totals) {
                return None;
            }
        }
    }
    Some(totals)
}

fn is_included(entry: &DirEntry, rules: &ScanRules) -> bool {
    if entry.depth() == 0 {
        return true;
    }
    let is_directory = entry.file_type().is_dir();
    let path = entry.path().as_os_str().as_bytes();
    let path = path.strip_prefix(b"/").unwrap_or(path);
    if rules.filter.has_patterns() && rules.filter.excludes(path, is_directory) {
        return false;
    }
    let on_device = |device: u64| rules.devices.as_ref().is_none_or(|all| all.contains(&device));
    let is_marked = || {
        let parent = entry.path().parent().unwrap_or(Path::new("/"));
        rules.filter.markers().iter().any(|marker| {
            let name = std::ffi::OsStr::from_bytes(&marker.name);
            entry.file_name() != name && parent.join(name).exists()
        })
    };
    !is_marked()
        && (!is_directory
            || rules.devices.is_none()
            || entry.metadata().is_ok_and(|m| on_device(m.dev())))
}

fn size(entry: &DirEntry, rules: &ScanRules) -> u64 {
    if !entry.file_type().is_file() {
        return 0;
    }
    match entry.metadata() {
        Ok(metadata) if !rules.filter.excludes_size(metadata.len()) => metadata.len(),
        _ => 0,
    }
}
