//! Manifests that no backup writes, and targets in which somebody works against the restore.

use crate::restore_lab::{Draft, Lab, count, is_root, noise, picture};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use stillpoint_archive::entry::Content;
use stillpoint_archive::restore::RestoreOptions;
use stillpoint_archive::target::Ownership;
use stillpoint_archive::{Entry, EntryKind};

/// Rounds of the swapping test.
const ROUNDS: usize = 200;

#[test]
fn impossible_paths_are_named_and_go_nowhere() {
    // Keys with `..`, slashes, empty names, and children of things that are no directories.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("good", b"1".to_vec());
    draft.symlink("link", "../outside");
    draft.file("file", b"2".to_vec());
    let template = draft.entries.values().next().unwrap().clone();
    let keys: [&[u8]; 9] = [
        b"..",
        b"..\0escaped",
        b"a/b",
        b"/etc/escaped",
        b"x\0\0y",
        b"x\0..\0..\0escaped",
        b"link\0escaped",
        b"file\0escaped",
        b".",
    ];
    for key in keys {
        draft.entries.insert(key.to_vec(), template.clone());
    }
    let root = draft.commit(&lab);
    let outside = lab.base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let report = lab.restore(&lab.options(root));
    assert!(report.problem_count >= 7, "{:?}", report.problems);
    assert_eq!(count(&outside), 0);
    let mut names: Vec<_> = fs::read_dir(lab.base.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["outside", "target"]);
    assert_eq!(fs::read(lab.target().join("good")).unwrap(), b"1");
}

#[test]
fn entries_that_contradict_themselves_are_named() {
    // Attributes and names that no kernel takes.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("good", noise(1, 5000));
    draft.file("attribute", b"1".to_vec()).xattrs = vec![(b"user.".to_vec(), b"x".to_vec())];
    draft.file(&"n".repeat(256), b"1".to_vec());
    draft.symlink("empty link", "");
    draft.symlink("long link", &"x".repeat(5000));
    draft.file("owner", b"1".to_vec()).uid = u32::MAX;
    let root = draft.commit(&lab);
    let report = lab.restore(&lab.options(root));
    assert_eq!(report.problem_count, 4, "{:?}", report.problems);
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    let mut names: Vec<_> = fs::read_dir(lab.target())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["good", "owner"]);
}

#[test]
fn chunks_that_nobody_stored_are_named() {
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.file("good", noise(1, 5000));
    let id = stillpoint_store::ChunkId::from_bytes([7; 32]);
    let items = vec![stillpoint_archive::ContentItem::Data { id, len: 5000 }];
    let root = draft.commit(&lab);
    let bad = Entry {
        kind: EntryKind::File(Content::Chunks(items)),
        size: 5000,
        ..draft.entries.values().next().unwrap().0.clone()
    };
    // Put in behind the draft's back: it writes the content itself.
    let reader = lab.repository.reader().unwrap();
    let writer = lab.repository.writer(stillpoint_store::WriteOptions::default()).unwrap();
    let params = lab.repository.tree_params();
    let changes = [(b"bad".to_vec(), Some(bad.to_bytes()))];
    let root = stillpoint_store::tree::edit::<stillpoint_archive::ManifestSchema>(
        root,
        changes,
        &params,
        &reader,
        &mut writer.node_sink(),
    )
    .unwrap();
    let record = stillpoint_store::SnapshotRecord::new(lab.repository.env().now(), root);
    writer.commit(record).unwrap();
    let report = lab.restore(&lab.options(root));
    assert_eq!(report.problem_count, 1, "{:?}", report.problems);
    assert!(report.problems[0].what.contains("missing"), "{:?}", report.problems);
    assert_eq!(count(&lab.target()), 1);
}

#[test]
fn rights_of_others_are_not_lent() {
    // Restored as one's own, a setuid file of somebody else is an ordinary one; asked for as it was, it is not.
    if !is_root() {
        eprintln!("skipped: files of others need root");
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let lab = Lab::new();
    let mut draft = Draft::default();
    let entry = draft.file("tool", noise(1, 2000));
    (entry.uid, entry.gid, entry.mode) = (4321, 4321, 0o6755);
    let root = draft.commit(&lab);
    let options = RestoreOptions { ownership: Ownership::Mine, ..lab.options(root) };
    let report = lab.restore(&options);
    assert_eq!((report.problem_count, report.warnings.len()), (0, 1));
    let meta = fs::metadata(lab.target().join("tool")).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o755));
    lab.restore_cleanly(&lab.options(root));
    draft.assert_restored(&lab.target());
}

#[test]
fn swapped_directories_lead_nowhere() {
    // While 200 restores run, a thread keeps swapping directories of the target for links to a place outside, and files
    // for names of a file outside. Nothing outside is touched.
    let lab = Lab::new();
    let mut draft = Draft::default();
    for dir in ["a", "a/b", "c"] {
        draft.dir(dir).mode = 0o777;
    }
    for number in 0..20u64 {
        draft.file(&format!("a/b/file{number}"), noise(number, 3000)).mode = 0o666;
        draft.file(&format!("c/file{number}"), noise(number, 100)).mode = 0o666;
    }
    draft.symlink("a/b/link", "x");
    draft.put("c/pipe", 0o666, EntryKind::Fifo);
    let root = draft.commit(&lab);
    let outside = lab.base.path().join("outside");
    fs::create_dir_all(outside.join("b")).unwrap();
    for name in ["file1", "b/file1", "b/file2", "pipe", "link"] {
        fs::write(outside.join(name), "precious").unwrap();
    }
    fs::create_dir(lab.target()).unwrap();
    let before = picture(&outside);
    let stop = AtomicBool::new(false);
    let mut swaps = 0u64;
    let (target, aside) = (lab.target(), lab.base.path().join("aside"));
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0u64;
            while !stop.load(Ordering::Relaxed) {
                for (name, to) in [("a", &outside), ("a/b", &outside.join("b")), ("c", &outside)] {
                    let place = target.join(name);
                    if fs::rename(&place, &aside).is_ok() {
                        swaps += u64::from(symlink(to, &place).is_ok());
                        let _ = fs::remove_file(&place);
                        let _ = fs::rename(&aside, &place);
                        let _ = fs::remove_dir_all(&aside);
                    }
                }
                for name in ["c/file1", "c/pipe", "a/b/link"] {
                    let place = target.join(name);
                    let _ = fs::remove_file(&place);
                    let _ = fs::hard_link(outside.join("file1"), &place);
                }
            }
            swaps
        });
        for round in 0..ROUNDS {
            let options = RestoreOptions { delete: round % 3 == 0, ..lab.options(root) };
            // Whatever becomes of the target: neither a panic nor a touch outside.
            let _ = lab.restore(&options);
            if round % 5 == 0 {
                let _ = fs::remove_dir_all(target.join("a"));
            }
        }
        stop.store(true, Ordering::Relaxed);
        swaps = swapper.join().unwrap();
    });
    assert!(swaps > 100, "only {swaps} swaps happened");
    assert_eq!(picture(&outside), before);
    let _ = fs::remove_dir_all(&aside);
    fs::remove_dir_all(lab.target()).unwrap();
    lab.restore_cleanly(&lab.options(root));
    draft.assert_restored(&lab.target());
    lab.assert_whole();
}
