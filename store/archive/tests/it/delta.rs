//! Backups of changes alone: they give what a full backup gives, whatever happened to the tree.

use crate::delta_lab::{DeltaLab, Reduction, file_clock_step};
use std::collections::BTreeSet;
use std::path::Path;
use stillpoint_archive::path::key_from_path;
use stillpoint_archive::{BackupOptions, Changes, FilterOptions, Silent, backup, backup_changes};
use stillpoint_store::Error;
use stillpoint_testkit::Random;
use stillpoint_testkit::tree::{Shape, TreeSpec};
use stillpoint_testkit::with_label;

/// How many trees are tried.
const TREES_VARIABLE: &str = "STILLPOINT_DELTA_TREES";
const TREES_DEFAULT: u64 = 60;
/// Entries of one tree, and edits between two snapshots.
const ENTRIES: usize = 40;
const EDITS: usize = 8;

fn trees() -> u64 {
    std::env::var(TREES_VARIABLE).ok().map_or(TREES_DEFAULT, |text| text.parse().unwrap())
}

/// What specified trees do not do: directories that really move, content that changes unseen by size and time.
fn disturb(base: &Path, random: &mut Random) {
    let all: Vec<_> = walkdir::WalkDir::new(base).min_depth(1).into_iter().flatten().collect();
    let directories: Vec<_> = all.iter().filter(|entry| entry.file_type().is_dir()).collect();
    if !directories.is_empty() {
        let from = random.pick(&directories).path();
        let to = random.pick(&directories).path();
        let into = if random.percent(50) { base } else { to };
        if !into.starts_with(from) {
            let name = format!("moved here {}", random.next_u64());
            std::fs::rename(from, into.join(name)).unwrap();
        }
    }
    let files: Vec<_> = all.iter().filter(|entry| entry.file_type().is_file()).collect();
    for _ in 0..2.min(files.len()) {
        let path = random.pick(&files).path();
        let Ok(metadata) = path.metadata() else { continue };
        let len = usize::try_from(metadata.len()).unwrap();
        let Ok(file) = std::fs::File::options().write(true).open(path) else { continue };
        std::os::unix::fs::FileExt::write_all_at(&file, &random.bytes(len), 0).unwrap();
        file.set_modified(metadata.modified().unwrap()).unwrap();
    }
}

/// Makes a tree, changes it several times, and compares each delta with a full backup.
fn deltas_equal_full_backups(seed: u64, reduction: Reduction) {
    let lab = DeltaLab::new();
    let shape = Shape::odd(ENTRIES);
    let mut random = Random::new(seed);
    let spec = TreeSpec::seeded(seed, &shape);
    spec.materialise(&lab.base).unwrap();
    let mut base = lab.full(lab.options());
    let edited = spec.edited(seed, EDITS, &shape);
    for round in 0..3 {
        file_clock_step(&lab.scratch());
        if round == 0 {
            spec.become_on_disk(&edited, &lab.base).unwrap();
        } else {
            disturb(&lab.base, &mut random);
        }
        let full = lab.full(lab.options());
        let mut changes = lab.changes_between(&base, &full, reduction, &mut random);
        match reduction {
            Reduction::Held => changes = lab.hold(&changes),
            Reduction::Walk => changes = lab.changed_since(&base),
            _ => {}
        }
        let delta = lab.delta(&base, changes, lab.options());
        lab.assert_same(&delta, &full);
        // A chain of deltas: the next one builds on this.
        base = delta;
    }
    lab.assert_whole();
}

// Exactly the changed paths, each looked at by itself.
#[test]
fn exact_changes_give_the_full_backup() {
    for seed in 0..trees() {
        with_label(format!("seed {seed}"), || deltas_equal_full_backups(seed, Reduction::Exact));
    }
}

// What a journal tells: a new directory as a tree, a vanished one by its own path, a changed file under one name only;
// and paths that did not change at all.
#[test]
fn a_journals_changes_give_the_full_backup() {
    for seed in 0..trees() {
        with_label(format!("seed {seed}"), || deltas_equal_full_backups(seed, Reduction::Journal));
    }
}

// What was held gives the same, without a look at the files.
#[test]
fn held_changes_give_the_full_backup() {
    for seed in 0..trees() {
        with_label(format!("seed {seed}"), || deltas_equal_full_backups(seed, Reduction::Held));
    }
}

// What a walk finds gives the same, with and without holding it.
#[test]
fn what_a_walk_finds_gives_the_full_backup() {
    for seed in 0..trees() {
        with_label(format!("seed {seed}"), || deltas_equal_full_backups(seed, Reduction::Walk));
    }
}

/// Bytes that this process has read by system calls.
fn bytes_read() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

// A walk names what changed, new directories as trees and vanished ones once, and reads no content.
#[test]
fn a_walk_reads_nothing() {
    let lab = DeltaLab::new();
    touch(&lab.base, &["gone/a", "gone/sub/b", "kept/c", "file", "same"]);
    let base = lab.full(lab.options());
    assert!(lab.changed_since(&base).is_empty());
    file_clock_step(&lab.scratch());
    std::fs::remove_dir_all(lab.base.join("gone")).unwrap();
    touch(&lab.base, &["new/d", "new/sub/e", "kept/f"]);
    std::fs::write(lab.base.join("file"), vec![1; 20 << 20]).unwrap();
    let before = bytes_read();
    let mut found = lab.changed_since(&base);
    assert!(bytes_read() - before < 5 << 20, "nobody reads the large file");
    let keys = |names: &[&str]| -> BTreeSet<Vec<u8>> {
        names.iter().map(|name| key_from_path(&lab.base.join(name)).unwrap()).collect()
    };
    let source = key_from_path(&lab.base).unwrap();
    found.paths.retain(|key| stillpoint_archive::path::is_within(key, &source));
    assert_eq!(found.trees, keys(&["new"]));
    assert_eq!(found.paths, keys(&["", "file", "gone", "kept", "kept/f"]));
}

/// Changes something, and compares the delta with these changed paths and trees to a full backup.
fn check(
    options: &dyn Fn(&DeltaLab) -> BackupOptions,
    before: impl Fn(&Path),
    change: impl Fn(&Path),
    paths: &[&str],
    trees: &[&str],
) -> (DeltaLab, stillpoint_store::Snapshot) {
    let lab = DeltaLab::new();
    before(&lab.base);
    let base = lab.full(options(&lab));
    file_clock_step(&lab.scratch());
    change(&lab.base);
    let full = lab.full(options(&lab));
    let keys = |names: &[&str]| -> BTreeSet<Vec<u8>> {
        names.iter().map(|name| key_from_path(&lab.base.join(name)).unwrap()).collect()
    };
    let changes = Changes { paths: keys(paths), trees: keys(trees), ..Changes::default() };
    let delta = lab.delta(&base, changes, options(&lab));
    lab.assert_same(&delta, &full);
    (lab, delta)
}

fn plain(lab: &DeltaLab) -> BackupOptions {
    lab.options()
}

fn touch(base: &Path, paths: &[&str]) {
    for path in paths {
        let path = base.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, path.as_os_str().as_encoded_bytes()).unwrap();
    }
}

// A file takes the place of a directory, and the reverse; what is below comes and goes with it.
#[test]
fn types_change_places() {
    let before = |base: &Path| touch(base, &["d/x/y", "d/z", "f", "k"]);
    let change = |base: &Path| {
        std::fs::remove_dir_all(base.join("d")).unwrap();
        std::fs::remove_file(base.join("f")).unwrap();
        touch(base, &["d", "f/a/b"]);
    };
    check(&plain, before, change, &["d", "f", ""], &[]);
}

// A renamed directory is told by its two names; nothing below it is read again.
#[test]
fn renamed_directories_are_not_read_again() {
    let before = |base: &Path| touch(base, &["old/a", "old/sub/b", "old/sub/c", "other/d"]);
    let change = |base: &Path| std::fs::rename(base.join("old"), base.join("other/new")).unwrap();
    let (_, delta) = check(&plain, before, change, &["old", "other", ""], &["other/new"]);
    assert_eq!(delta.record.summary.bytes_read, 0);
}

// A name that vanished between two looks is no problem, and neither is one that never was.
#[test]
fn vanished_and_unknown_paths() {
    let before = |base: &Path| touch(base, &["a/b/c", "a/d"]);
    let change = |base: &Path| std::fs::remove_dir_all(base.join("a/b")).unwrap();
    let paths = ["a/b/c", "a/b", "a", "never/was", "a/d/below a file"];
    let (_, delta) = check(&plain, before, change, &paths, &[]);
    assert_eq!(delta.record.summary.problems, 0);
}

// One name of a file with three names is told; the others follow.
#[test]
fn other_names_of_a_file_follow() {
    let before = |base: &Path| {
        touch(base, &["one", "sub/x"]);
        std::fs::hard_link(base.join("one"), base.join("sub/two")).unwrap();
        std::fs::hard_link(base.join("one"), base.join("three")).unwrap();
    };
    let write = |base: &Path| std::fs::write(base.join("sub/two"), b"changed").unwrap();
    check(&plain, before, write, &["sub/two"], &[]);
    let unlink = |base: &Path| std::fs::remove_file(base.join("one")).unwrap();
    check(&plain, before, unlink, &["one", ""], &[]);
    let link = |base: &Path| std::fs::hard_link(base.join("one"), base.join("four")).unwrap();
    check(&plain, before, link, &["four", ""], &[]);
}

// Patterns, markers, sizes and other file systems are left out of a delta as of a walk.
#[test]
fn rules_are_respected() {
    let options = |lab: &DeltaLab| BackupOptions {
        filter: FilterOptions {
            excludes: vec!["*.o".into(), "build/".into()],
            if_present: vec![".nobackup".into()],
            caches: true,
            larger_than: Some(5000),
            ..FilterOptions::default()
        },
        one_file_system: true,
        ..lab.options()
    };
    let before =
        |base: &Path| touch(base, &["a/f", "build/x", "c/f", "c/g/h", "m/.nobackup", "m/n"]);
    let change = |base: &Path| {
        touch(base, &["a/x.o", "build/y/z", "c/.nobackup", "m/p", "new/.nobackup", "new/q"]);
        std::fs::remove_file(base.join("m/.nobackup")).unwrap();
        std::fs::write(base.join("a/f"), [1; 6000]).unwrap();
        std::os::unix::fs::symlink("/proc", base.join("proc")).unwrap();
    };
    let paths = [
        "",
        "a",
        "a/x.o",
        "a/f",
        "build",
        "build/y",
        "build/y/z",
        "c",
        "c/.nobackup",
        "m",
        "m/p",
        "m/.nobackup",
        "new",
        "new/.nobackup",
        "new/q",
        "proc",
        "proc/1",
        "proc/self/comm",
    ];
    check(&options, before, change, &paths, &[]);
}

// What is mounted below a root is not entered where the backup stays on its file systems.
#[test]
fn other_file_systems_are_not_entered() {
    if !crate::fidelity_places::private_mounts() {
        eprintln!("skipped: no mount namespace, so no file system of our own");
        return;
    }
    let options = |lab: &DeltaLab| BackupOptions { one_file_system: true, ..lab.options() };
    let before = |base: &Path| touch(base, &["mounted/below", "f"]);
    let mount = |base: &Path| {
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "none"]).arg(base.join("mounted"));
        crate::fidelity_places::run(&mut command).unwrap();
        touch(base, &["mounted/x/y", "f"]);
    };
    let paths = ["mounted", "mounted/x", "mounted/x/y", "mounted/below", "f"];
    let (lab, delta) = check(&options, before, mount, &paths, &[]);
    let key = |name| key_from_path(&lab.base.join(name)).unwrap();
    let entries = lab.entries(delta.record.root);
    assert!(entries.contains_key(&key("mounted")) && !entries.contains_key(&key("mounted/x")));
    crate::fidelity_places::run(std::process::Command::new("umount").arg(lab.base.join("mounted")))
        .unwrap();
}

// Everything that a file system can say of a file is held and stored as a full backup stores it: attributes, ACLs,
// capabilities, flags, devices, odd names and sizes.
#[test]
fn every_property_is_held() {
    if !crate::restore_lab::is_root() {
        eprintln!("skipped: owners, devices and file systems on loop devices need root");
        return;
    }
    for place in crate::fidelity_places::places() {
        let lab = DeltaLab::at(&place.dir);
        let base = lab.full(lab.options());
        let mut made = Vec::new();
        for specimen in crate::fidelity_specimens::specimens() {
            let dir = lab.base.join(specimen.folder());
            std::fs::create_dir(&dir).unwrap();
            // What this file system does not have is told by the test of fidelity.
            let _ = (specimen.make)(&dir);
            made.push((specimen, dir));
        }
        let full = lab.full(lab.options());
        let found = lab.changed_since(&base);
        let held = lab.delta(&base, lab.hold(&found), lab.options());
        lab.assert_same(&held, &full);
        let live = lab.delta(&base, found, lab.options());
        lab.assert_same(&live, &full);
        made.iter().for_each(|(specimen, dir)| (specimen.unmake)(dir));
    }
}

// Holes stay holes, also where a change is small.
#[test]
fn sparse_files() {
    let write = |base: &Path, at: u64| {
        let file =
            std::fs::File::options().create(true).truncate(false).write(true).open(base.join("s"));
        let file = file.unwrap();
        file.set_len(3 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 9000], at).unwrap();
    };
    check(&plain, |base| write(base, 1 << 20), |base| write(base, 2 << 20), &["s"], &[]);
}

// Streams go along; those of the base that are not there any more go, with the directories made for them.
#[test]
fn streams_come_and_go() {
    let lab = DeltaLab::new();
    touch(&lab.base, &["f"]);
    let with = |names: &[&str]| BackupOptions {
        streams: names.iter().map(|name| crate::delta_lab::stream(name, b"dump of it")).collect(),
        time: Some(crate::delta_lab::LATE),
        ..lab.options()
    };
    let mut base = lab.full(with(&[]));
    let sets: [&[&str]; 5] =
        [&["db/one.sql", "db/two.sql", "z"], &["db/two.sql"], &["db"], &[], &["db/deep/er", "y"]];
    for names in sets {
        let full = lab.full(with(names));
        let delta = lab.delta(&base, Changes::default(), with(names));
        lab.assert_same_everywhere(&delta, &full);
        base = delta;
    }
    lab.assert_whole();
}

// A stream cannot take the name of a path, and a path of a base is no stream.
#[test]
fn streams_do_not_replace_paths() {
    let lab = DeltaLab::new();
    touch(&lab.base, &["f"]);
    let base = lab.full(lab.options());
    let name = lab.base.join("f");
    let streams = vec![crate::delta_lab::stream(name.to_str().unwrap(), b"x")];
    let options = BackupOptions { streams, ..lab.options() };
    let report = backup_changes(&lab.repository, &base, Changes::default(), options, &Silent);
    assert!(matches!(report, Err(Error::Invalid(_))), "{report:?}");
}

// A base of other paths or other rules is refused, and so are keys that no walk gives.
#[test]
fn unfit_bases_and_keys_are_refused() {
    let lab = DeltaLab::new();
    touch(&lab.base, &["f", "sub/g"]);
    let base = lab.full(lab.options());
    let refused = |options, paths: &[&[u8]]| {
        let paths = paths.iter().map(|key| key.to_vec()).collect();
        let changes = Changes { paths, ..Changes::default() };
        let report = backup_changes(&lab.repository, &base, changes, options, &Silent);
        assert!(matches!(report, Err(Error::Invalid(_))), "{report:?}");
    };
    refused(BackupOptions { roots: vec![lab.base.join("sub")], ..lab.options() }, &[]);
    let filter = FilterOptions { excludes: vec!["*.o".into()], ..FilterOptions::default() };
    refused(BackupOptions { filter, ..lab.options() }, &[]);
    refused(lab.options(), &[b"a\0..\0b"]);
    refused(lab.options(), &[b"a/b"]);
    let outside = Changes { paths: [b"etc\0passwd".to_vec()].into(), ..Changes::default() };
    let delta = lab.delta(&base, outside, lab.options());
    assert_eq!(delta.record.root, base.record.root, "paths outside of the roots count for nothing");
}

// The figures of a delta are those of a full backup beside the same parent.
#[test]
fn figures_are_those_of_a_full_backup() {
    let lab = DeltaLab::new();
    TreeSpec::seeded(3, &Shape::home(200)).materialise(&lab.base).unwrap();
    touch(&lab.base, &["gone/a", "gone/b", "kept"]);
    let base = lab.full(lab.options());
    file_clock_step(&lab.scratch());
    std::fs::remove_dir_all(lab.base.join("gone")).unwrap();
    touch(&lab.base, &["new/c", "kept"]);
    let parent = stillpoint_archive::ParentChoice::Snapshot(base.id);
    let beside = BackupOptions { parent, dry_run: true, ..lab.options() };
    let mut full = backup(&lab.repository, beside, &Silent).unwrap().record.summary;
    let keys = ["", "gone", "gone/a", "new", "new/c", "kept"];
    let paths = keys.iter().map(|name| key_from_path(&lab.base.join(name)).unwrap()).collect();
    let changes = Changes { paths, ..Changes::default() };
    let delta = lab.delta(&base, changes, lab.options()).record.summary;
    // A dry run stores nothing, and directories above the source change by themselves.
    full.bytes_stored = delta.bytes_stored;
    full.duration_ns = delta.duration_ns;
    assert_eq!(
        full.dirs_changed + full.dirs_unmodified,
        delta.dirs_changed + delta.dirs_unmodified
    );
    (full.dirs_changed, full.dirs_unmodified) = (delta.dirs_changed, delta.dirs_unmodified);
    assert_eq!((full.dirs_new, full.files_new), (1, 1));
    assert_eq!(delta, full);
}
