//! Restores of drafted snapshots: what is written, compared, kept, deleted, and what happens when something is wrong.

use crate::restore_lab::{Draft, Lab, Piece, count, is_root, key, noise};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use stillpoint_archive::plan::Overwrite;
use stillpoint_archive::restore::{
    RestoreOptions, Selection, WINDOW_CHUNKS_MAX, WINDOW_ENTRIES_MAX, plan_restore, restore,
};
use stillpoint_archive::target::Ownership;
use stillpoint_archive::{EntryKind, Event, Observer, Outcome};
use stillpoint_store::backend::Backend;
use stillpoint_store::{Error, ObjectKind, Timestamp};

/// A little of everything.
fn sample() -> Draft {
    let mut draft = Draft::default();
    draft.dir("a");
    draft.dir("a/deep").mode = 0o500;
    draft.file("a/deep/file", b"deep down".to_vec());
    draft.file("a/empty", b"".to_vec());
    draft.file("a/one chunk", noise(1, 5000)).mode = 0o4711;
    draft.file("big", noise(2, 3 << 20)).mtime = Timestamp { seconds: -99, nanos: 999_999_999 };
    draft.symlink("link", "a/../nowhere");
    draft.put("pipe", 0o600, EntryKind::Fifo);
    draft.put("socket", 0o640, EntryKind::Socket);
    draft.dir("z");
    if is_root() {
        let null = EntryKind::CharDevice { major: 1, minor: 3 };
        draft.put("z/null", 0o666, null).uid = 77;
        draft.put("z/block", 0o660, EntryKind::BlockDevice { major: 7, minor: 70_000 }).gid = 88;
        draft.file("z/theirs", noise(3, 1000)).uid = 1234;
    }
    draft
}

#[test]
fn everything_comes_back_and_again_nothing_is_written() {
    let lab = Lab::new();
    let draft = sample();
    let root = draft.commit(&lab);
    let mut options = RestoreOptions { verify: true, ..lab.options(root) };
    let planned = plan_restore(&lab.repository, &options).unwrap();
    assert!(!lab.target().exists(), "a plan touches nothing");
    let report = lab.restore_cleanly(&options);
    assert_eq!(report.plan, planned);
    let files = draft.entries.values().filter(|(entry, _)| entry.is_file()).count() as u64;
    assert_eq!((report.files_written, report.files_verified), (files, files));
    assert_eq!(report.bytes_written, root.bytes);
    draft.assert_restored(&lab.target());
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never]
    {
        options.overwrite = overwrite;
        options.delete = true;
        let again = lab.restore_cleanly(&options);
        assert_eq!((again.bytes_written, again.files_written), (0, 0), "{overwrite:?}");
        assert_eq!(again.deleted, 0);
        draft.assert_restored(&lab.target());
    }
    lab.assert_whole();
}

#[test]
fn what_exists_is_treated_as_the_policy_says() {
    // Each policy against a file that is equal in time and size but not in content, an older and a newer one.
    let lab = Lab::new();
    let mut draft = Draft::default();
    let time = Timestamp { seconds: 1_600_000_000, nanos: 7 };
    for name in ["same", "older", "newer"] {
        draft.file(name, b"from the snapshot".to_vec()).mtime = time;
    }
    let root = draft.commit(&lab);
    let cases = [
        (Overwrite::Always, [true, true, true]),
        (Overwrite::IfChanged, [false, true, true]),
        (Overwrite::IfNewer, [false, true, false]),
        (Overwrite::Never, [false, false, false]),
    ];
    for (overwrite, replaced) in cases {
        let _ = fs::remove_dir_all(lab.target());
        fs::create_dir(lab.target()).unwrap();
        for (name, seconds) in [("same", 0), ("older", -1), ("newer", 1)] {
            let path = lab.target().join(name);
            fs::write(&path, "from before, same").unwrap();
            let stamp = std::time::Duration::new(1_600_000_000u64.strict_add_signed(seconds), 7);
            let stamp = std::time::UNIX_EPOCH + stamp;
            fs::File::open(&path).unwrap().set_modified(stamp).unwrap();
        }
        lab.restore_cleanly(&RestoreOptions { overwrite, ..lab.options(root) });
        for (name, replaced) in ["same", "older", "newer"].iter().zip(replaced) {
            let found = fs::read(lab.target().join(name)).unwrap();
            let restored = found == draft.bytes(name);
            assert_eq!(restored, replaced, "{name} under {overwrite:?}");
        }
    }
}

#[test]
fn only_what_differs_is_written() {
    // A big file with a few changed bytes keeps its inode and gets one chunk or two; one that is too long is cut.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("big", noise(1, 8 << 20));
    draft.file("long", noise(2, 1 << 20));
    draft.file("short", noise(3, 1 << 20));
    draft.file("small", noise(4, 2000));
    let root = draft.commit(&lab);
    fs::create_dir(lab.target()).unwrap();
    let at = |name: &str| lab.target().join(name);
    let mut big = draft.bytes("big");
    big[4 << 20] ^= 1;
    fs::write(at("big"), big).unwrap();
    fs::write(at("long"), [draft.bytes("long"), noise(9, 100_000)].concat()).unwrap();
    fs::write(at("short"), &draft.bytes("short")[..600_000]).unwrap();
    fs::write(at("small"), noise(5, 2000)).unwrap();
    let inode = |name: &str| fs::metadata(at(name)).unwrap().ino();
    let before = ["big", "long", "short"].map(inode);
    let small = inode("small");
    let report = lab.restore_cleanly(&RestoreOptions { verify: true, ..lab.options(root) });
    assert_eq!(["big", "long", "short"].map(inode), before, "written in place");
    assert_ne!(inode("small"), small, "a small file is replaced at once");
    assert_eq!(report.files_written, 4);
    assert_eq!(report.bytes_written + report.bytes_matched, root.bytes);
    assert!(report.bytes_written < 2 << 20, "{} bytes written", report.bytes_written);
    draft.assert_restored(&lab.target());
}

#[test]
fn nothing_is_written_through_names_outside() {
    // Files and links in the target that have another name outside are replaced; the other name keeps everything.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("big", noise(1, 2 << 20));
    draft.file("equal", noise(2, 1000)).mode = 0o666;
    draft.symlink("link", "somewhere");
    let root = draft.commit(&lab);
    fs::create_dir(lab.target()).unwrap();
    let outside = lab.base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("big"), noise(3, 2 << 20)).unwrap();
    fs::write(outside.join("equal"), draft.bytes("equal")).unwrap();
    symlink("somewhere", outside.join("link")).unwrap();
    for name in ["big", "equal", "link"] {
        fs::hard_link(outside.join(name), lab.target().join(name)).unwrap();
    }
    let before = crate::restore_lab::picture(&outside);
    lab.restore_cleanly(&lab.options(root));
    draft.assert_restored(&lab.target());
    assert_eq!(crate::restore_lab::picture(&outside), before);
}

#[test]
fn things_of_another_kind_give_way() {
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.dir("dir");
    draft.file("dir/file", noise(1, 3000));
    draft.file("file", noise(2, 3000));
    draft.file("full", b"x".to_vec());
    draft.symlink("link", "x");
    draft.put("pipe", 0o644, EntryKind::Fifo);
    let root = draft.commit(&lab);
    let outside = lab.base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "keep me").unwrap();
    let prepare = || {
        let _ = fs::remove_dir_all(lab.target());
        fs::create_dir(lab.target()).unwrap();
        symlink(&outside, lab.target().join("dir")).unwrap();
        symlink(outside.join("file"), lab.target().join("file")).unwrap();
        fs::create_dir(lab.target().join("link")).unwrap();
        fs::write(lab.target().join("pipe"), "a file").unwrap();
        fs::create_dir(lab.target().join("full")).unwrap();
        fs::write(lab.target().join("full/content"), "in the way").unwrap();
    };
    prepare();
    let report = lab.restore(&lab.options(root));
    assert_eq!(report.problem_count, 1, "a directory with content does not go unasked");
    assert!(report.problems[0].path.ends_with("full"), "{:?}", report.problems);
    assert_eq!(fs::read(lab.target().join("full/content")).unwrap(), b"in the way");
    prepare();
    lab.restore_cleanly(&RestoreOptions { delete: true, ..lab.options(root) });
    draft.assert_restored(&lab.target());
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"keep me");
    assert_eq!(count(&outside), 1);
}

#[test]
fn deletion_takes_what_the_snapshot_does_not_have() {
    // Links go themselves; what the selection leaves out stays; without `delete` everything stays.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.dir("a");
    draft.file("a/kept", b"1".to_vec());
    draft.dir("b");
    let root = draft.commit(&lab);
    let outside = lab.base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "x").unwrap();
    fs::create_dir_all(lab.target().join("a/extra/deep")).unwrap();
    fs::write(lab.target().join("a/extra/deep/file"), "x").unwrap();
    fs::write(lab.target().join("a/file.keep"), "x").unwrap();
    fs::create_dir_all(lab.target().join("b")).unwrap();
    symlink(&outside, lab.target().join("b/link")).unwrap();
    let selection = Selection::new(&[], &["*.keep".into()]).unwrap();
    let mut options = RestoreOptions { selection, ..lab.options(root) };
    lab.restore_cleanly(&options);
    assert!(lab.target().join("a/extra/deep/file").exists());
    options.delete = true;
    let planned = plan_restore(&lab.repository, &options).unwrap();
    assert_eq!(planned.deleted, 2);
    let report = lab.restore_cleanly(&options);
    assert_eq!((report.plan.deleted, report.deleted), (2, 4));
    assert!(lab.target().join("a/file.keep").exists());
    assert_eq!(count(&lab.target()), 4);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"x");
}

#[test]
fn selections_make_only_the_directories_that_they_need() {
    let lab = Lab::new();
    let mut draft = Draft::default();
    for dir in ["a", "a/b", "a/c", "d", "d/e"] {
        draft.dir(dir).mode = 0o750;
    }
    for file in ["a/b/x.rs", "a/b/y.txt", "a/c/z.txt", "d/e/w.rs", "d/e/skip.rs"] {
        draft.file(file, noise(file.len() as u64, 600));
    }
    let root = draft.commit(&lab);
    let patterns = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let selection = Selection::new(&patterns(&["*.rs", "/a/c"]), &patterns(&["skip*"])).unwrap();
    let report = lab.restore_cleanly(&RestoreOptions { selection, ..lab.options(root) });
    for gone in ["a/b/y.txt", "d/e/skip.rs"] {
        draft.entries.remove(&key(gone));
    }
    draft.assert_restored(&lab.target());
    assert_eq!(report.plan.excluded, 2);
    let selection = Selection::new(&patterns(&["nothing like it"]), &[]).unwrap();
    let target = lab.base.path().join("other");
    let report = lab.restore_cleanly(&RestoreOptions { selection, target, ..lab.options(root) });
    assert_eq!(report.plan.files_new + report.plan.directories_new, 0);
}

#[test]
fn a_part_lands_relative_to_the_target() {
    let lab = Lab::new();
    let draft = sample();
    let root = draft.commit(&lab);
    lab.restore_cleanly(&RestoreOptions { subtree: key("a/deep"), ..lab.options(root) });
    assert_eq!(fs::read(lab.target().join("file")).unwrap(), b"deep down");
    assert_eq!(count(&lab.target()), 1);
    assert_eq!(fs::metadata(lab.target()).unwrap().permissions().mode() & 0o7777, 0o500);
    let target = lab.base.path().join("two");
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o1777)).unwrap();
    let subtree = key("a/one chunk");
    lab.restore_cleanly(&RestoreOptions { subtree, target: target.clone(), ..lab.options(root) });
    assert_eq!(fs::read(target.join("one chunk")).unwrap(), draft.bytes("a/one chunk"));
    assert_eq!(count(&target), 1);
    let subtree = key("a/deep");
    lab.restore_cleanly(&RestoreOptions { subtree, target: target.clone(), ..lab.options(root) });
    let mode = fs::metadata(&target).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o1777, "a target that exists keeps its own metadata");
    for missing in ["nothing", "a/one", "a/one chunk/x"] {
        let options = RestoreOptions { subtree: key(missing), ..lab.options(root) };
        let error = restore(&lab.repository, &options, &stillpoint_archive::Silent).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{missing}: {error}");
    }
}

#[test]
fn hard_links_are_linked_among_the_restored_names() {
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.dir("a");
    draft.dir("b");
    draft.linked(&["a/one", "b/two", "c"], &noise(1, 700_000));
    let root = draft.commit(&lab);
    let inodes = |names: &[&str]| {
        let ino = |name: &&str| fs::metadata(lab.target().join(name)).unwrap().ino();
        names.iter().map(ino).collect::<std::collections::BTreeSet<_>>().len()
    };
    let report = lab.restore_cleanly(&lab.options(root));
    assert_eq!((report.files_written, report.plan.hard_links), (1, 2));
    assert_eq!(inodes(&["a/one", "b/two", "c"]), 1);
    draft.assert_restored(&lab.target());
    // Broken up in the target, they become one again.
    fs::remove_file(lab.target().join("c")).unwrap();
    fs::write(lab.target().join("c"), "different").unwrap();
    lab.restore_cleanly(&lab.options(root));
    assert_eq!(inodes(&["a/one", "b/two", "c"]), 1);
    draft.assert_restored(&lab.target());
    // Without the first name the second becomes the first.
    fs::remove_dir_all(lab.target()).unwrap();
    let selection = Selection::new(&[], &["/a".into()]).unwrap();
    lab.restore_cleanly(&RestoreOptions { selection, ..lab.options(root) });
    assert_eq!(inodes(&["b/two", "c"]), 1);
    // A kept first name is not what the snapshot has, so nothing is linked to it.
    fs::remove_file(lab.target().join("c")).unwrap();
    fs::write(lab.target().join("b/two"), "kept").unwrap();
    lab.restore_cleanly(&RestoreOptions { overwrite: Overwrite::Never, ..lab.options(root) });
    assert_eq!(fs::read(lab.target().join("b/two")).unwrap(), b"kept");
    assert_eq!(fs::read(lab.target().join("c")).unwrap(), draft.bytes("c"));
}

#[test]
fn holes_come_back_as_holes() {
    let lab = Lab::new();
    let mut draft = Draft::default();
    let data = || Piece::Data(noise(1, 100_000));
    draft.pieces("middle", vec![data(), Piece::Hole(64 << 20), data()]);
    draft.pieces("end", vec![data(), Piece::Hole(64 << 20)]);
    draft.pieces("only", vec![Piece::Hole(1 << 30)]);
    draft.pieces("zeros", vec![Piece::Data(vec![0; 4 << 20])]);
    let root = draft.commit(&lab);
    draft.entries.remove(&key("only"));
    let blocks = |name: &str| fs::metadata(lab.target().join(name)).unwrap().blocks() * 512;
    let check = |zeros_are_holes: bool| {
        assert!(blocks("middle") < 1 << 20 && blocks("end") < 1 << 20, "holes");
        assert_eq!(blocks("only"), 0);
        assert_eq!(blocks("zeros") == 0, zeros_are_holes);
        assert_eq!(fs::metadata(lab.target().join("only")).unwrap().len(), 1 << 30);
        for name in ["middle", "end", "zeros"] {
            assert!(fs::read(lab.target().join(name)).unwrap() == draft.bytes(name), "{name}");
        }
    };
    let report = lab.restore_cleanly(&RestoreOptions { verify: true, ..lab.options(root) });
    assert_eq!(report.files_verified, 4);
    check(false);
    fs::remove_dir_all(lab.target()).unwrap();
    lab.restore_cleanly(&RestoreOptions { sparse: true, ..lab.options(root) });
    check(true);
    // Data where a hole should be goes, and holes in files that are compared are no difference.
    let middle = fs::File::options().write(true).open(lab.target().join("middle")).unwrap();
    middle.write_all_at(&noise(5, 3 << 20), 10 << 20).unwrap();
    let report = lab.restore_cleanly(&lab.options(root));
    check(true);
    assert_eq!((report.bytes_written, report.files_written), (0, 1));
}

#[test]
fn windows_are_bounded_and_files_may_span_them() {
    // More entries than one window takes, and one file with more chunks than one window takes.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.dir("d");
    for number in 0..WINDOW_ENTRIES_MAX + 100 {
        draft.file(&format!("d/{number:05}"), number.to_string().into_bytes());
    }
    let times = WINDOW_CHUNKS_MAX as u64 + 5000;
    let pieces = vec![Piece::Repeated(noise(1, 700), times), Piece::Hole(5000)];
    draft.pieces("spanning", pieces.clone());
    draft.pieces("z second name", pieces);
    for name in ["spanning", "z second name"] {
        let entry = &mut draft.entries.get_mut(&key(name)).unwrap().0;
        (entry.nlink, entry.device, entry.inode) = (2, 5, 5);
        entry.mtime = Timestamp::default();
    }
    let root = draft.commit(&lab);
    lab.restore_cleanly(&RestoreOptions { verify: true, ..lab.options(root) });
    draft.assert_restored(&lab.target());
    let again = lab.restore_cleanly(&lab.options(root));
    draft.assert_restored(&lab.target());
    assert_eq!(again.plan.files_compared, WINDOW_ENTRIES_MAX as u64 + 100);
}

#[test]
fn damage_is_named_and_the_rest_comes_back() {
    // A flipped byte in a pack loses the files of one frame: they are named and absent, never wrong.
    let lab = Lab::new();
    let mut draft = Draft::default();
    for number in 0..40 {
        draft.file(&format!("file {number:02}"), noise(number, 200_000));
    }
    let root = draft.commit(&lab);
    let packs = lab.backend.list(ObjectKind::Pack).unwrap();
    let (pack, size) = packs.into_iter().max_by_key(|(_, size)| *size).unwrap();
    assert!(lab.backend.damage(&pack, |bytes| bytes[usize::try_from(size / 2).unwrap()] ^= 0x10));
    let report = lab.restore(&lab.options(root));
    let mut missing = 0;
    for number in 0..40 {
        let name = format!("file {number:02}");
        match fs::read(lab.target().join(&name)) {
            Ok(found) => assert!(found == draft.bytes(&name), "{name} is wrong"),
            Err(_) => {
                missing += 1;
                let named = |problem: &&stillpoint_archive::Problem| problem.path.ends_with(&name);
                let problem = report.problems.iter().find(named);
                assert!(problem.is_some(), "{name} is missing and not named");
            }
        }
    }
    assert!((1..20).contains(&missing), "{missing} files are missing");
    assert_eq!(report.problem_count, missing);
    assert_eq!(report.files_written + missing, 40);
    assert_eq!(count(&lab.target()) as u64, 40 - missing);
}

#[test]
fn a_file_that_cannot_be_completed_does_not_stay_half_written() {
    // A big file of which one chunk is damaged: new or updated in place, it is removed and named.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("big", noise(1, 8 << 20));
    let root = draft.commit(&lab);
    let packs = lab.backend.list(ObjectKind::Pack).unwrap();
    let (pack, size) = packs.into_iter().max_by_key(|(_, size)| *size).unwrap();
    lab.backend.damage(&pack, |bytes| bytes[usize::try_from(size / 2).unwrap()] ^= 1);
    for exists in [false, true] {
        fs::create_dir_all(lab.target()).unwrap();
        if exists {
            fs::write(lab.target().join("big"), noise(2, 8 << 20)).unwrap();
        }
        let report = lab.restore(&lab.options(root));
        assert_eq!(report.problem_count, 1, "{:?}", report.problems);
        assert_eq!(count(&lab.target()), 0);
    }
    // What needs nothing of the damaged frame is not touched by it.
    fs::write(lab.target().join("big"), draft.bytes("big")).unwrap();
    let report = lab.restore_cleanly(&lab.options(root));
    assert_eq!(report.files_matched, 1);
}

struct Meddler<F: Fn(&Event<'_>) + Sync> {
    meddle: F,
    cancelled: AtomicBool,
}

impl<F: Fn(&Event<'_>) + Sync> Observer for Meddler<F> {
    fn event(&self, event: Event<'_>) {
        (self.meddle)(&event);
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

#[test]
fn verification_finds_what_was_changed_on_disk() {
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("inline", b"tiny".to_vec());
    draft.file("chunked", noise(1, 1 << 20));
    draft.pieces("sparse", vec![Piece::Hole(1 << 20), Piece::Data(noise(2, 1000))]);
    draft.file("untouched", noise(3, 1 << 20));
    let root = draft.commit(&lab);
    let target = lab.target();
    let meddle = |event: &Event<'_>| {
        if let Event::Entry { key, outcome: Outcome::New, .. } = event
            && *key != b"untouched"
        {
            let path = target.join(std::str::from_utf8(key).unwrap());
            fs::File::options().write(true).open(path).unwrap().write_all_at(b"?", 2).unwrap();
        }
    };
    let observer = Meddler { meddle, cancelled: AtomicBool::new(false) };
    let options = RestoreOptions { verify: true, ..lab.options(root) };
    let report = restore(&lab.repository, &options, &observer).unwrap();
    assert_eq!((report.problem_count, report.files_verified), (3, 1));
    assert!(report.problems.iter().all(|problem| problem.what.contains("differs")));
}

#[test]
fn cancelling_leaves_no_half_written_file() {
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("big", noise(1, 32 << 20));
    let root = draft.commit(&lab);
    let observer = Meddler { meddle: |_: &Event<'_>| (), cancelled: AtomicBool::new(false) };
    let written = AtomicU64::new(0);
    struct Stop<'a>(&'a AtomicBool, &'a AtomicU64);
    impl Observer for Stop<'_> {
        fn event(&self, event: Event<'_>) {
            if let Event::Bytes(bytes) = event
                && self.1.fetch_add(bytes, Ordering::Relaxed) > 4 << 20
            {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }
    let stop = Stop(&observer.cancelled, &written);
    let error = restore(&lab.repository, &lab.options(root), &stop).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(written.load(Ordering::Relaxed) < 32 << 20);
    assert_eq!(count(&lab.target()), 0);
}

#[test]
fn a_full_disk_ends_the_restore_and_leaves_no_part_of_a_file() {
    if !is_root() {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    }
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("a", noise(1, 100_000));
    draft.file("big", noise(2, 8 << 20));
    let root = draft.commit(&lab);
    fs::create_dir(lab.target()).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "none"])
        .arg(lab.target())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting is not allowed here");
        return;
    }
    let result = restore(&lab.repository, &lab.options(root), &stillpoint_archive::Silent);
    let names: Vec<_> =
        fs::read_dir(lab.target()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let unmounted = std::process::Command::new("umount").arg(lab.target()).status().unwrap();
    assert!(unmounted.success());
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("space"), "{error}");
    assert!(!names.iter().any(|name| name == "big" || name.to_string_lossy().starts_with('.')));
}

#[test]
fn owners_are_known_by_name_or_by_number() {
    // The user and group `daemon` had other numbers where they were saved.
    if !is_root() {
        eprintln!("skipped: files of others need root");
        return;
    }
    let id_of = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("daemon:"))?.to_owned();
        line.split(':').nth(2)?.parse::<u32>().ok()
    };
    let (Some(user), Some(group)) = (id_of("/etc/passwd"), id_of("/etc/group")) else {
        eprintln!("skipped: there is no user and group named daemon");
        return;
    };
    let lab = Lab::new();
    let mut draft = Draft::default();
    for (name, known) in [("known", &b"daemon"[..]), ("unknown", b"nobody knows me"), ("none", b"")]
    {
        let entry = draft.file(name, b"x".to_vec());
        (entry.uid, entry.gid) = (4242, 4343);
        (entry.user, entry.group) = (known.to_vec(), known.to_vec());
    }
    let root = draft.commit(&lab);
    let owners = |ownership| {
        let _ = fs::remove_dir_all(lab.target());
        lab.restore_cleanly(&RestoreOptions { ownership, ..lab.options(root) });
        ["known", "unknown", "none"].map(|name| {
            let meta = fs::metadata(lab.target().join(name)).unwrap();
            (meta.uid(), meta.gid())
        })
    };
    let saved = (4242, 4343);
    assert_eq!(owners(Ownership::ByName), [(user, group), saved, saved]);
    assert_eq!(owners(Ownership::Numeric), [saved; 3]);
    assert_eq!(owners(Ownership::Mine), [(0, 0); 3]);
}

#[test]
fn parents_that_the_manifest_lacks_are_made() {
    // A stream that was saved under a path has no directories in the manifest.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("dumps/today/base.sql", noise(1, 3000));
    let root = draft.commit(&lab);
    lab.restore_cleanly(&lab.options(root));
    let path = lab.target().join("dumps/today/base.sql");
    assert_eq!(fs::read(path).unwrap(), draft.bytes("dumps/today/base.sql"));
    let mode = fs::metadata(lab.target().join("dumps/today")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn a_target_that_is_no_directory_is_refused() {
    let lab = Lab::new();
    let root = sample().commit(&lab);
    fs::write(lab.target(), "a file").unwrap();
    let error = restore(&lab.repository, &lab.options(root), &stillpoint_archive::Silent);
    assert!(matches!(error.unwrap_err(), Error::Io { .. }));
    assert_eq!(fs::read(lab.target()).unwrap(), b"a file");
    let below = Path::new("/proc/no/such/place");
    let options = RestoreOptions { target: below.to_owned(), ..lab.options(root) };
    let error = restore(&lab.repository, &options, &stillpoint_archive::Silent);
    assert!(matches!(error.unwrap_err(), Error::Io { .. }));
}
