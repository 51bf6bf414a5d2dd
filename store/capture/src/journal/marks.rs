//! Which file systems carry a mark: those of the roots, and those that are mounted below.

use super::fanotify::Group;
use super::handles::{Filesystem, View};
use super::mounts::{Mount, holding};
use super::reader::Reader;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Looks at the table of mounts, marks what is not marked yet, and gives the real keys of the places where something was
/// mounted or unmounted since the last time.
///
/// # Errors
/// When the table cannot be read.
pub(super) fn follow(reader: &mut Reader) -> io::Result<Vec<Vec<u8>>> {
    let table = reader.mounts.read()?;
    let roots = reader.scope.real_roots();
    let mut views: BTreeMap<(u32, u32), Vec<View>> = BTreeMap::new();
    let mut unmarked = BTreeMap::new();
    for mount in holding(&table, &roots, reader.crosses_mounts) {
        if reader.filesystems.on(mount.device).is_none() {
            match mark(&reader.group, &table, mount) {
                Ok(filesystem) => reader.filesystems.add(filesystem),
                Err(why) => {
                    unmarked.insert(mount.at.clone(), why);
                    continue;
                }
            }
        }
        let (inside, at) = (mount.inside.clone(), mount.at.clone());
        views.entry(mount.device).or_default().push(View { mount: mount.id, inside, at });
    }
    let mut moved = BTreeSet::new();
    let all = reader.filesystems.all();
    for filesystem in all.iter_mut() {
        let now = views.remove(&filesystem.device).unwrap_or_default();
        let before = std::mem::replace(&mut filesystem.views, now);
        let now = &filesystem.views;
        let differs = |view: &&View, others: &[View]| {
            !others.iter().any(|other| (other.mount, &other.at) == (view.mount, &view.at))
        };
        moved.extend(before.iter().filter(|view| differs(view, now)).map(|view| view.at.clone()));
        moved.extend(now.iter().filter(|view| differs(view, &before)).map(|view| view.at.clone()));
    }
    // What is mounted nowhere any more is let go of, so that its device can be taken away.
    all.retain(|filesystem| !filesystem.views.is_empty());
    moved.extend(reader.unmarked.keys().filter(|at| !unmarked.contains_key(*at)).cloned());
    reader.unmarked = unmarked;
    Ok(moved.into_iter().collect())
}

/// Marks the file system of a mount; says why not, for people.
fn mark(group: &Group, table: &[Mount], mount: &Mount) -> Result<Filesystem, String> {
    let is_whole = |other: &&Mount| other.device == mount.device && other.inside.is_empty();
    let mut why = format!(
        "only a part of this {} file system is mounted; mount all of it somewhere, too{}",
        mount.kind,
        if mount.kind == "btrfs" { " (-o subvolid=5)" } else { "" }
    );
    for whole in table.iter().filter(is_whole) {
        let marked = Filesystem::open(whole)
            .and_then(|filesystem| group.mark_filesystem(filesystem.anchor()).map(|()| filesystem));
        match marked {
            Ok(filesystem) => return Ok(filesystem),
            Err(error) => why = explain(&mount.kind, &error),
        }
    }
    Err(why)
}

/// Why a file system takes no mark.
fn explain(kind: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EXDEV) => format!("the root of this {kind} file system cannot be reached"),
        Some(libc::EOPNOTSUPP | libc::ENODEV | libc::EOVERFLOW) => {
            format!("{kind} does not tell which files change")
        }
        _ => format!("this {kind} file system cannot be watched: {error}"),
    }
}
