//! The journal and what is mounted below the directories that it watches.

use crate::places::{Place, places};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use stillpoint_archive::path::{is_within, key_from_path};
use stillpoint_capture::journal::{ChangeSet, Gap, Journal, Options};
use stillpoint_capture::{Error, Result};

const LIMIT: Duration = Duration::from_secs(60);

fn key(path: &Path) -> Vec<u8> {
    key_from_path(path).unwrap()
}

fn keys<const N: usize>(paths: [PathBuf; N]) -> BTreeSet<Vec<u8>> {
    paths.iter().map(|path| key(path)).collect()
}

fn run(program: &str, arguments: &[&str], place: &Path) {
    let output = Command::new(program).args(arguments).arg(place).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} {}: {text}", place.display());
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A journal of a directory, with what a drain says of it.
struct Watched {
    root: PathBuf,
    journal: Journal,
}

impl Watched {
    fn start(root: &Path) -> Result<Self> {
        let mut journal = Journal::start(&[root.to_owned()])?;
        journal.drain(LIMIT);
        Ok(Self { root: root.to_owned(), journal })
    }

    fn drain(&mut self) -> ChangeSet {
        let mut set = self.journal.drain(LIMIT);
        set.paths.retain(|path| is_within(path, &key(&self.root)));
        set
    }

    #[track_caller]
    fn check<const P: usize, const T: usize>(&mut self, paths: [PathBuf; P], trees: [PathBuf; T]) {
        let set = self.drain();
        assert_eq!((set.paths, set.trees), (keys(paths), keys(trees)));
        assert_eq!(set.gap, None);
    }
}

/// Something in which mounts are private, or None with the reason printed.
fn private() -> Option<Vec<Place>> {
    let places = places();
    (!places.is_empty()).then_some(places)
}

/// What is mounted and unmounted while the journal runs is a tree, and its changes are named as long as it is there.
#[test]
fn mounts_come_and_go() {
    let Some(places) = private() else { return };
    let Some(base) = places.iter().find(|place| place.name == "ext4") else { return };
    let (root, outside) = (base.dir.join("root"), base.dir.join("outside"));
    for dir in ["m", "bind"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::create_dir_all(outside.join("sub")).unwrap();
    let mut watched = match Watched::start(&root) {
        Ok(watched) => watched,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let m = root.join("m");
    run("mount", &["-t", "tmpfs", "none"], &m);
    watched.check([], [m.clone()]);
    fs::write(m.join("file"), b"1").unwrap();
    watched.check([m.clone(), m.join("file")], []);
    run("umount", &[], &m);
    watched.check([], [m]);
    // A part of the same file system, under another name; the name it has there changes.
    let bind = root.join("bind");
    run("mount", &["--bind", text(&outside)], &bind);
    watched.check([], [bind.clone()]);
    fs::write(outside.join("sub/file"), b"1").unwrap();
    watched.check([bind.join("sub"), bind.join("sub/file")], []);
    fs::rename(&outside, base.dir.join("renamed")).unwrap();
    fs::write(base.dir.join("renamed/sub/file"), b"2").unwrap();
    // A directory that is renamed is a tree, and here it is the mounted one.
    watched.check([], [bind.clone()]);
    fs::write(base.dir.join("renamed/sub/file"), b"3").unwrap();
    watched.check([bind.join("sub/file")], []);
    run("umount", &[], &bind);
    watched.check([], [bind]);
}

/// A file system that takes no mark is refused as a root, and is a gap below one unless mounts are left out.
#[test]
fn file_systems_without_marks() {
    let Some(places) = private() else { return };
    let Some(base) = places.iter().find(|place| place.name == "ext4") else { return };
    let root = base.dir.join("root");
    let mounted = root.join("overlay");
    for dir in ["lower", "upper", "work"] {
        fs::create_dir(base.dir.join(dir)).unwrap();
    }
    fs::create_dir_all(&mounted).unwrap();
    let mut watched = match Watched::start(&root) {
        Ok(watched) => watched,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let of = |name: &str| base.dir.join(name).display().to_string();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", of("lower"), of("upper"), of("work"));
    run("mount", &["-t", "overlay", "none", "-o", &options], &mounted);
    for _ in 0..2 {
        match watched.drain().gap {
            Some(Gap::Unmarked(place)) => assert!(place.contains("overlay"), "{place}"),
            other => panic!("{other:?}"),
        }
    }
    let options = Options { crosses_mounts: false, ..Options::default() };
    let mut narrow = Journal::start_with(std::slice::from_ref(&root), &options).unwrap();
    assert_eq!(narrow.drain(LIMIT).gap, None);
    match Journal::start(std::slice::from_ref(&mounted)) {
        Err(Error::Refused { what, hint }) => {
            assert!(what.contains("overlay") && hint.is_some(), "{what}");
        }
        other => panic!("{other:?}"),
    }
    run("umount", &[], &mounted);
    assert_eq!(watched.drain().gap, None);
}

/// A subvolume of Btrfs is watched through the top level, and refused with the way out where only the subvolume is mounted.
#[test]
fn subvolumes() {
    let Some(places) = private() else { return };
    let Some(base) = places.iter().find(|place| place.name == "Btrfs") else { return };
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap();
    run("btrfs", &["-q", "subvolume", "create"], &base.dir.join("sub"));
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let device = lines.find(|line| line[1] == text(&base.dir)).unwrap()[0].to_owned();
    run("mount", &["-o", "subvol=sub", &device], &root);
    let _unmount = Unmount(root.clone());
    let mut watched = match Watched::start(&root) {
        Ok(watched) => watched,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    fs::write(root.join("file"), b"1").unwrap();
    watched.check([root.clone(), root.join("file")], []);
    // A snapshot brings content of which no event tells.
    run("btrfs", &["-q", "subvolume", "snapshot", text(&root)], &root.join("copy"));
    assert!(watched.drain().trees.contains(&key(&root.join("copy"))));
    fs::write(root.join("copy/file"), b"2").unwrap();
    watched.check([root.join("copy/file")], []);
    drop(watched);
    run("umount", &[], &base.dir);
    match Journal::start(std::slice::from_ref(&root)) {
        Err(Error::Refused { what, .. }) => assert!(what.contains("subvolid=5"), "{what}"),
        other => panic!("{other:?}"),
    }
}

/// Unmounts at the end, whatever happened.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
