//! What `prune` frees, says and refuses.

use crate::support::{Place, Run, is_root, messages, noise, run, skipped, text};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system that goes away at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn tmpfs(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(at);
        succeeds(&mut mount).then(|| Self(at.to_owned()))
    }

    /// An ext4 file system in an image file.
    fn ext4(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let image = at.with_extension("image");
        File::create(&image).unwrap().set_len(48 << 20).unwrap();
        let mut make = Command::new("mkfs.ext4");
        let mut mount = Command::new("mount");
        let done = succeeds(make.arg("-q").arg(&image))
            && succeeds(mount.args(["-o", "loop"]).arg(&image).arg(at));
        done.then(|| Self(at.to_owned()))
    }

    /// Writes a file until not a single byte fits any more.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        for size in [1 << 20, 4096, 512, 1] {
            while file.write_all(&vec![7; size]).and_then(|()| file.sync_data()).is_ok() {}
        }
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// On a disk that is full to the last block a snapshot is forgotten and pruned, which frees space; the others restore.
fn empties_a_full_disk(place: &Place, disk: &SmallDisk) {
    let stillpoint = |arguments: &[&str]| -> Run {
        let mut command = place.stillpoint(arguments);
        run(command.env("STILLPOINT_REPOSITORY", disk.0.join("repository")))
    };
    stillpoint(&["init"]).with_code(0);
    place.file("old", &noise(1, 3 << 20));
    stillpoint(&["snapshot", "source"]).with_code(0);
    let large = place.file("large", &noise(2, 12 << 20));
    stillpoint(&["snapshot", "source"]).with_code(0);
    fs::remove_file(&large).unwrap();
    place.file("new", &noise(3, 2 << 20));
    stillpoint(&["snapshot", "source"]).with_code(0);

    disk.fill();
    place.file("more", &noise(4, 1 << 20));
    stillpoint(&["snapshot", "source"]).with_code(1).says("the disk is full");
    let repository = disk.0.join("repository");
    assert!(repository.join("reserve").exists());
    stillpoint(&["forget", "latest~1"]).with_code(0);
    assert!(!repository.join("reserve").exists(), "the reserve was needed");
    let pruned = stillpoint(&["prune", "--now"]);
    assert!(matches!(pruned.code, Some(0 | 3)), "{pruned:#?}");
    assert!(repository.join("reserve").exists(), "the next full disk can be emptied, too");
    stillpoint(&["snapshot", "source"]).with_code(0);

    stillpoint(&["check", "--read-data"]).with_code(0);
    let oldest = format!("latest~2:{}", place.source().display());
    stillpoint(&["restore", &oldest, "--target", "back"]).with_code(0);
    assert!(fs::read(place.path("back/old")).unwrap() == noise(1, 3 << 20));
    let newest = format!("latest:{}", place.source().display());
    stillpoint(&["restore", &newest, "--target", "again"]).with_code(0);
    assert!(fs::read(place.path("again/more")).unwrap() == noise(4, 1 << 20));
}

// In memory, where nothing can be written once it is full.
#[test]
fn a_full_tmpfs_is_emptied() {
    if !is_root() {
        return skipped("mounting a small file system needs root");
    }
    let place = Place::empty();
    match SmallDisk::tmpfs(&place.path("small")) {
        Some(disk) => empties_a_full_disk(&place, &disk),
        None => skipped("this machine does not let us mount a tmpfs"),
    }
}

// On a file system with blocks and a journal.
#[test]
fn a_full_ext4_is_emptied() {
    if !is_root() {
        return skipped("mounting a small file system needs root");
    }
    let place = Place::empty();
    match SmallDisk::ext4(&place.path("small")) {
        Some(disk) => empties_a_full_disk(&place, &disk),
        None => skipped("this machine does not let us make and mount an ext4 image"),
    }
}

/// Two snapshots of which the first, forgotten, holds a large file that the other does not need.
fn forgotten() -> Place {
    let place = Place::new();
    place.file("kept", &noise(1, 100_000));
    let large = place.file("large", &noise(2, 400_000));
    place.snapshot();
    fs::remove_file(large).unwrap();
    place.snapshot();
    place.run(["forget", "latest~1"]).with_code(0);
    place
}

fn classes(run: &Run) -> Vec<(String, u64)> {
    let messages = messages(&run.stdout).into_iter();
    let classes = messages.filter(|message| message["message_type"] == "class");
    classes.map(|message| (text(&message, "class"), message["bytes"].as_u64().unwrap())).collect()
}

fn pack_bytes(place: &Place) -> u64 {
    crate::support::content(&place.repository().join("packs"))
        .iter()
        .map(|(_, bytes)| u64::try_from(bytes.len()).unwrap())
        .sum()
}

// Every byte is explained, before and after, with what it waits for.
#[test]
fn explanations_follow_the_bytes() {
    let place = forgotten();
    let names = |run: &Run| classes(run).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let explain = |more: &[&str]| {
        let arguments = [&["prune", "--explain", "--dry-run", "--json"], more].concat();
        let run = place.run(arguments).with_code(0);
        let sum: u64 = classes(&run).iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(sum, pack_bytes(&place), "{run:#?}");
        run
    };
    assert_eq!(names(&explain(&[])), ["needed", "held"]);
    assert_eq!(names(&explain(&["--now"])), ["needed", "rewritten", "unneeded"]);
    let limited = ["--keep-forgotten", "0s", "--max-repack-size", "0"];
    assert_eq!(names(&explain(&limited)), ["needed", "postponed", "unneeded"]);
    let each = explain(&["-v"]);
    let packs = messages(&each.stdout).into_iter();
    assert_eq!(packs.filter(|message| message["message_type"] == "pack").count(), 3);

    place.run(["prune", "--explain"]).with_code(0).prints("they can be taken back");
    place.run(["prune", "--explain", "--keep-forgotten", "0s"]).with_code(0).prints("--grace");
    assert_eq!(names(&explain(&[])), ["needed", "waiting"]);
    assert_eq!(names(&explain(&["--now"])), ["needed", "deletable"]);
    place.run(["prune", "--now"]).with_code(0);
    assert_eq!(names(&explain(&[])), ["needed"]);
    place.check();
}

// `--now` frees everything at once and says the same as the two options that it stands for.
#[test]
fn now_means_at_once() {
    let place = forgotten();
    for clash in [["--now", "--grace=1h"], ["--now", "--keep-forgotten=1h"]] {
        place.run(["prune", clash[0], clash[1]]).with_code(2);
    }
    let before = pack_bytes(&place);
    place.run(["prune", "--now"]).with_code(0).prints("removed 1 forgotten snapshot for good");
    assert!(pack_bytes(&place) * 2 < before, "{} of {before} bytes are left", pack_bytes(&place));
    place.run(["prune", "--now"]).with_code(0).prints("nothing to prune");
    place.check();
}

// While something is missing, nothing is pruned, and the way out is named.
#[test]
fn a_wounded_repository_is_not_pruned() {
    let place = forgotten();
    let mut packs = crate::support::content(&place.repository().join("packs"));
    packs.sort_by_key(|(_, bytes)| bytes.len());
    let (largest, _) = packs.pop().unwrap();
    fs::remove_file(place.repository().join("packs").join(largest)).unwrap();
    let before = pack_bytes(&place);
    let refused = place.run(["prune", "--now"]).with_code(1);
    refused
        .says("nothing that is needed was removed")
        .says("stillpoint check")
        .says("stillpoint repair");
    assert_eq!(pack_bytes(&place), before);
}
