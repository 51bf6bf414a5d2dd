//! Interruptions, full disks and other processes.

use crate::support::{Place, Run, is_root, messages, noise, run, skipped};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

/// Starts a snapshot of standard input and feeds it until it has surely begun to store, then leaves it waiting.
fn waiting_snapshot(place: &Place) -> (Child, std::process::ChildStdin) {
    let mut child = place
        .stillpoint(["snapshot", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Far more than a pipe holds: when this returns, most of it was read.
    stdin.write_all(&noise(7, 24 << 20)).unwrap();
    (child, stdin)
}

fn interrupt(child: Child, signal: Signal) -> Run {
    let id = Pid::from_child(&child);
    kill_process(id, signal).unwrap();
    child.wait_with_output().unwrap().into()
}

// Ctrl-C in the middle: 130, no snapshot, nothing to clean up, the next run works.
#[test]
fn an_interrupted_snapshot_leaves_nothing_that_counts() {
    let place = Place::new();
    place.file("a", b"content");
    place.snapshot();
    let (child, stdin) = waiting_snapshot(&place);
    interrupt(child, Signal::INT).with_code(130).says("nothing was committed");
    drop(stdin);
    assert_eq!(place.ids().len(), 1);
    place.check();
    place.snapshot();
    place.run(["prune"]).with_code(0);
    place.check();
}

// SIGTERM, as service managers send it, does the same with its own code.
#[test]
fn a_terminated_snapshot_leaves_nothing_that_counts() {
    let place = Place::new();
    let (child, stdin) = waiting_snapshot(&place);
    interrupt(child, Signal::TERM).with_code(143);
    drop(stdin);
    assert_eq!(place.ids().len(), 0);
    place.check();
}

// Keys are rotated while a snapshot is being taken: it ends with 11 and says why, and the next one works; what was there
// stays. The index that the host keeps needs no rebuilding.
#[test]
fn a_snapshot_across_a_rotation_is_refused() {
    let place = Place::new();
    place.file("a", b"content");
    place.snapshot();
    let (child, stdin) = waiting_snapshot(&place);
    place.run(["key", "rotate"]).with_code(0);
    drop(stdin);
    let refused: Run = child.wait_with_output().unwrap().into();
    refused.with_code(11).says("rotated by another process").says("run the command again");
    assert_eq!(place.ids().len(), 1);
    let again = place.snapshot();
    assert_eq!(again.stderr, "", "nothing is noted");
    place.check();
    place.restore("latest", "back");
}

// Killed without any warning: the same.
#[test]
fn a_killed_snapshot_leaves_nothing_that_counts() {
    let place = Place::new();
    place.file("a", b"content");
    place.snapshot();
    let (child, stdin) = waiting_snapshot(&place);
    let killed = interrupt(child, Signal::KILL);
    assert_eq!(killed.code, None);
    drop(stdin);
    assert_eq!(place.ids().len(), 1);
    place.check();
    place.snapshot();
    place.check();
}

// A command that fails fails the snapshot, whatever it printed before.
#[test]
fn a_failing_command_takes_no_snapshot() {
    let place = Place::new();
    let failing = ["snapshot", "--stdin-from-command", "--", "sh", "-c", "echo half; exit 4"];
    place.run(failing).with_code(1).says("exit status: 4");
    place.run(["snapshot", "--command", "x.sql=echo half; exit 4"]).with_code(1);
    place.run(["snapshot", "--stdin-from-command", "--", "/no/such/program"]).with_code(1);
    assert_eq!(place.ids().len(), 0);
    place.check();
}

// Several processes at the same time: every snapshot is there and restores.
#[test]
fn snapshots_at_the_same_time() {
    let place = Place::new();
    let names = ["one", "two", "three"];
    for (seed, name) in (1u64..).zip(names) {
        place.file(format!("{name}/own"), &noise(seed, 3_000_000));
        place.file(format!("{name}/shared"), &noise(99, 2_000_000));
    }
    let children: Vec<Child> = names
        .iter()
        .map(|name| {
            let mut command =
                place.stillpoint(["snapshot", &format!("source/{name}"), "--tag", name]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        Run::from(child.wait_with_output().unwrap()).with_code(0);
    }
    assert_eq!(place.ids().len(), names.len());
    place.check();
    let list = place.run(["snapshots", "--json"]).with_code(0);
    for message in messages(&list.stdout) {
        let tag = message["tags"][0].as_str().unwrap().to_owned();
        let spec =
            format!("{}:{}", message["short_id"].as_str().unwrap(), place.source().display());
        place.run(["restore", &spec, "--target", &format!("back-{tag}")]).with_code(0);
        for name in ["own", "shared"] {
            let before = fs::read(place.source().join(&tag).join(name)).unwrap();
            let after = fs::read(place.path(format!("back-{tag}")).join(&tag).join(name)).unwrap();
            assert!(before == after, "{tag}/{name} differs");
        }
    }
}

/// A small file system that goes away at the end.
struct SmallDisk<'a>(&'a std::path::Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a std::path::Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let option = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(at);
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

// A full disk: a clear error with a hint, the old snapshots whole, and work goes on once there is room.
#[test]
fn a_full_disk_keeps_the_old_snapshots() {
    if !is_root() {
        return skipped("mounting a small file system needs root");
    }
    let place = Place::empty();
    let at = place.path("small");
    let Some(_disk) = SmallDisk::mount(&at, "24m") else {
        return skipped("this machine does not let us mount a tmpfs");
    };
    let stillpoint = |arguments: &[&str]| {
        let mut command = place.stillpoint(arguments);
        run(command.env("STILLPOINT_REPOSITORY", at.join("repository")))
    };
    place.file("a", &noise(1, 1 << 20));
    stillpoint(&["init"]).with_code(0);
    stillpoint(&["snapshot", "source"]).with_code(0);

    let large = place.file("large", &noise(2, 48 << 20));
    let full = stillpoint(&["snapshot", "source"]).with_code(1);
    full.says("No space left on device").says("hint: the disk is full");

    stillpoint(&["check", "--read-data"]).with_code(0);
    let list = stillpoint(&["snapshots", "--json"]).with_code(0);
    assert_eq!(messages(&list.stdout).len(), 1);
    let spec = format!("latest:{}", place.source().display());
    stillpoint(&["restore", &spec, "--target", "back"]).with_code(0);
    assert!(fs::read(place.path("back/a")).unwrap() == noise(1, 1 << 20));

    fs::remove_file(large).unwrap();
    place.file("b", b"small");
    let _ = stillpoint(&["prune", "--keep-forgotten", "0s", "--grace", "0s"]);
    stillpoint(&["snapshot", "source"]).with_code(0);
    stillpoint(&["check", "--read-data"]).with_code(0);
}

// A full disk under the target: the hint is about that disk, and a file that was there keeps its content.
#[test]
fn a_full_target_is_told_from_a_full_repository() {
    if !is_root() {
        return skipped("mounting a small file system needs root");
    }
    let place = Place::new();
    let at = place.path("small");
    let Some(_disk) = SmallDisk::mount(&at, "2m") else {
        return skipped("this machine does not let us mount a tmpfs");
    };
    place.file("large", &noise(1, 8 << 20));
    place.snapshot();
    fs::write(at.join("dumped"), b"precious").unwrap();
    let spec = format!("latest:{}", place.source().display());
    let dump = place.run(["dump", &spec, "large", "--target", "small/dumped"]).with_code(1);
    dump.says("hint: the disk of the target is full");
    assert_eq!(fs::read(at.join("dumped")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&at).unwrap().count(), 1, "nothing is left behind");
    let restore = place.run(["restore", &spec, "--target", "small/back"]).with_code(1);
    restore.says("hint: the disk of the target is full");
}

// A damaged pack is named, restore refuses to write wrong bytes, and what is whole still restores.
#[test]
fn damage_is_named_and_never_restored() {
    let place = Place::new();
    place.file("a", &noise(1, 200_000));
    place.snapshot();
    let mut packs: Vec<_> = crate::support::content(&place.repository().join("packs"));
    packs.sort_by_key(|(_, bytes)| bytes.len());
    let (name, mut bytes) = packs.pop().unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    let path = place.repository().join("packs").join(&name);
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();

    let id = name.file_name().unwrap().to_str().unwrap().to_owned();
    place.run(["check", "--read-data"]).with_code(1).prints(&id);
    let spec = format!("latest:{}", place.source().display());
    let restored = place.run(["restore", &spec, "--target", "back"]);
    assert!(matches!(restored.code, Some(1 | 3)), "{restored:#?}");
    let back = fs::read(place.path("back/a")).unwrap_or_default();
    assert!(back.is_empty() || back != noise(1, 200_000), "the damage was not in this file");
}
