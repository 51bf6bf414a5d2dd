//! Differences, listings, searches and dumps of drafted snapshots.

use crate::restore_lab::{Draft, Lab, Piece, key, noise};
use std::io::Read;
use stillpoint_archive::diff::{DiffStats, Difference, diff};
use stillpoint_archive::dump::dump;
use stillpoint_archive::listing::{Depth, Kind, Query, find, list};
use stillpoint_archive::{Entry, EntryKind};
use stillpoint_store::{Error, Timestamp};

fn sample() -> Draft {
    let mut draft = Draft::default();
    draft.dir("dir");
    for number in 0..300 {
        draft.file(&format!("dir/{number:03}"), format!("{number}").into_bytes());
    }
    draft.dir("dir/sub");
    draft.file("dir/sub/big", noise(1, 1 << 20));
    draft.symlink("link", "dir");
    draft
}

fn texts(found: &[(Vec<u8>, Difference)]) -> Vec<(String, Difference)> {
    let text = |key: &Vec<u8>| String::from_utf8(key.clone()).unwrap().replace('\0', "/");
    found.iter().map(|(key, difference)| (text(key), *difference)).collect()
}

#[test]
fn a_diff_lists_exactly_the_changes() {
    let lab = Lab::new();
    let old = sample();
    let mut new = old.clone();
    new.entries.remove(&key("dir/007"));
    new.file("dir/new", b"!".to_vec());
    new.entries.get_mut(&key("dir/100")).unwrap().0.mode = 0o600;
    new.entries.get_mut(&key("dir/101")).unwrap().0.inode = 99_999; // not a difference
    new.entries.get_mut(&key("dir/101")).unwrap().0.ctime = Timestamp { seconds: 1, nanos: 1 };
    let (big, pieces) = new.entries.get_mut(&key("dir/sub/big")).unwrap();
    *pieces = vec![Piece::Data(noise(2, 2 << 20))];
    big.size = 2 << 20;
    new.symlink("link", "elsewhere").mtime = old.entries[&key("link")].0.mtime;
    new.dir("dir/200");
    let (a, b) = (old.commit(&lab), new.commit(&lab));
    let reader = lab.repository.reader().unwrap();
    let compare = |prefix: &str| {
        let mut stats = DiffStats::default();
        let found: Vec<_> = diff(&reader, a, b, &key(prefix))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                stats.count(&entry);
                (entry.key, entry.difference)
            })
            .collect();
        (texts(&found), stats)
    };
    let modified = |content, metadata| Difference::Modified { content, metadata };
    let expected = [
        ("dir/007", Difference::Removed),
        ("dir/100", modified(false, true)),
        ("dir/200", Difference::TypeChanged),
        ("dir/new", Difference::Added),
        ("dir/sub/big", modified(true, false)),
        ("link", modified(true, false)),
    ]
    .map(|(path, difference)| (path.to_owned(), difference));
    let (found, stats) = compare("");
    assert_eq!(found, expected);
    assert_eq!((stats.added.files, stats.added.directories, stats.removed.files), (1, 1, 2));
    assert_eq!((stats.content_changed.files, stats.content_changed.bytes), (1, 2 << 20));
    assert_eq!((stats.content_changed.others, stats.metadata_changed.files), (1, 1));
    assert_eq!(compare("dir/sub").0, expected[4..5]);
    assert_eq!(compare("dir/100").0, expected[1..2]);
    assert_eq!(compare("nowhere").0, []);
    assert!(diff(&reader, a, a, b"").unwrap().next().is_none());
    lab.assert_whole();
}

fn listed(lab: &Lab, draft: &Draft, path: &str, depth: Depth) -> Result<Vec<String>, Error> {
    let root = draft.commit(lab);
    let reader = lab.repository.reader().unwrap();
    let mut names = Vec::new();
    list(&reader, root, &key(path), depth, &mut |key, _| {
        names.push(String::from_utf8(key.to_vec()).unwrap().replace('\0', "/"));
        Ok(())
    })?;
    Ok(names)
}

#[test]
fn listings_give_children_or_everything() {
    let lab = Lab::new();
    let draft = sample();
    assert_eq!(listed(&lab, &draft, "", Depth::Children).unwrap(), ["dir", "link"]);
    assert_eq!(listed(&lab, &draft, "dir", Depth::Children).unwrap().len(), 301);
    assert_eq!(listed(&lab, &draft, "", Depth::All).unwrap().len(), draft.entries.len());
    assert_eq!(listed(&lab, &draft, "dir/sub", Depth::All).unwrap(), ["dir/sub/big"]);
    assert_eq!(listed(&lab, &draft, "dir/042", Depth::All).unwrap(), ["dir/042"]);
    assert!(matches!(listed(&lab, &draft, "dir/none", Depth::All), Err(Error::Invalid(_))));
}

#[test]
fn searches_combine_patterns_times_sizes_and_kinds() {
    let lab = Lab::new();
    let draft = sample();
    let root = draft.commit(&lab);
    let reader = lab.repository.reader().unwrap();
    let found = |path: &str, query: &Query| {
        let mut names = Vec::new();
        let visit = &mut |key: &[u8], _: &Entry| {
            names.push(String::from_utf8(key.to_vec()).unwrap().replace('\0', "/"));
            Ok(())
        };
        find(&reader, root, &key(path), query, visit).unwrap();
        names
    };
    let pattern = |text: &str, ignore_case| Query::new(&[text.to_owned()], ignore_case).unwrap();
    assert_eq!(found("", &pattern("29?", false)).len(), 10);
    assert_eq!(found("dir/sub", &pattern("29?", false)).len(), 0);
    assert_eq!(found("", &pattern("BIG", true)), ["dir/sub/big"]);
    assert_eq!(found("", &pattern("BIG", false)).len(), 0);
    assert_eq!(found("", &pattern("/dir/0[01]*", false)).len(), 20);
    let big = Query { size_min: Some(1000), ..Query::default() };
    assert_eq!(found("", &big), ["dir/sub/big"]);
    let small = Query { size_max: Some(1), ..Query::default() };
    assert_eq!(found("", &small).len(), 10);
    let links = Query { kinds: vec![Kind::Symlink, Kind::Directory], ..Query::default() };
    assert_eq!(found("", &links), ["dir", "dir/sub", "link"]);
    assert_eq!(found("dir/sub", &links), ["dir/sub"]);
    let times = Query {
        modified_from: Some(draft.entries[&key("dir/010")].0.mtime),
        modified_until: Some(draft.entries[&key("dir/012")].0.mtime),
        ..Query::default()
    };
    assert_eq!(found("", &times), ["dir/010", "dir/011"]);
}

#[test]
fn a_dumped_file_is_its_content() {
    let lab = Lab::new();
    let mut draft = sample();
    let pieces =
        vec![Piece::Data(noise(4, 300_000)), Piece::Hole(1 << 20), Piece::Data(vec![7; 9])];
    draft.pieces("holes", pieces);
    draft.pieces("many", vec![Piece::Repeated(noise(5, 1000), 5000)]);
    let root = draft.commit(&lab);
    let reader = lab.repository.reader().unwrap();
    for path in ["dir/sub/big", "dir/003", "holes", "many"] {
        let mut out = Vec::new();
        assert_eq!(dump(&reader, root, &key(path), &mut out).unwrap(), []);
        assert!(out == draft.bytes(path), "{path}");
    }
    for path in ["link", "nothing"] {
        let error = dump(&reader, root, &key(path), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)));
    }
}

#[test]
fn a_dumped_directory_is_a_tar_archive() {
    // Read back by another implementation: names of any length and bytes, links, devices, times, attributes.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.dir("top");
    let long = format!("top/{}", "n".repeat(250));
    draft.file(&long, noise(1, 100_000)).xattrs = vec![(b"user.x".to_vec(), vec![0, 1, 255])];
    draft.symlink("top/link", &"t/".repeat(90));
    draft.linked(&["top/one", "top/two"], &noise(2, 700));
    draft.put("top/device", 0o600, EntryKind::CharDevice { major: 5, minor: 1 << 24 });
    draft.put("top/pipe", 0o600, EntryKind::Fifo);
    draft.put("top/socket", 0o600, EntryKind::Socket);
    let old = draft.file("top/old", b"x".to_vec());
    (old.mtime, old.uid) = (Timestamp { seconds: -2, nanos: 500_000_000 }, 3_000_000);
    old.user = b"somebody".to_vec();
    let mut odd = draft.entries[&key("top/old")].clone();
    odd.0.mode = 0o600;
    draft.entries.insert(b"top\0odd \xff".to_vec(), odd);
    let root = draft.commit(&lab);
    let reader = lab.repository.reader().unwrap();
    let mut out = Vec::new();
    let problems = dump(&reader, root, &key("top"), &mut out).unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let mut archive = tar::Archive::new(out.as_slice());
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path_bytes().to_vec();
        let extended: Vec<(String, Vec<u8>)> = entry
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .map(|record| record.unwrap())
            .map(|record| (record.key().unwrap().to_owned(), record.value_bytes().to_vec()))
            .collect();
        let value = |name: &str| {
            let found = extended.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        match path.as_slice() {
            b"device" => assert_eq!(value("SCHILY.devminor").unwrap(), b"16777216"),
            b"link" => {
                assert_eq!(entry.link_name_bytes().unwrap().len(), 180);
            }
            b"old" => {
                assert_eq!(value("mtime").unwrap(), b"-1.5");
                assert_eq!(value("uid").unwrap(), b"3000000");
                assert_eq!(entry.header().username_bytes().unwrap(), b"somebody");
            }
            b"one" => assert!(bytes == noise(2, 700)),
            b"two" => {
                assert!(entry.header().entry_type().is_hard_link() && bytes.is_empty());
                assert_eq!(entry.link_name_bytes().unwrap().as_ref(), b"one");
            }
            name if name.starts_with(b"nnn") => {
                assert!(bytes == noise(1, 100_000));
                assert_eq!(value("SCHILY.xattr.user.x").unwrap(), [0, 1, 255]);
            }
            _ => {}
        }
        names.push(path);
    }
    let expected: Vec<Vec<u8>> = draft
        .entries
        .keys()
        .filter_map(|key| key.strip_prefix(b"top\0").map(<[u8]>::to_vec))
        .filter(|name| name != b"socket")
        .collect();
    assert_eq!(names, expected);
}

#[test]
fn gnu_tar_extracts_what_was_dumped() {
    // With newlines in names and attributes, which extended headers must survive.
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.dir("top").mode = 0o750;
    let long = format!("{}\n\u{e9}", "n".repeat(200));
    let entry = draft.file(&format!("top/{long}"), noise(1, 10_000));
    entry.xattrs = vec![(b"user.x".to_vec(), b"line\nline\n".to_vec())];
    draft.pieces("top/holes", vec![Piece::Hole(70_000), Piece::Data(noise(2, 512))]);
    draft.linked(&["top/one", "top/two"], &noise(3, 700));
    draft.symlink("top/link", "x\ny");
    let root = draft.commit(&lab);
    let out = lab.base.path().join("out.tar");
    let mut file = std::fs::File::create(&out).unwrap();
    let reader = lab.repository.reader().unwrap();
    assert_eq!(dump(&reader, root, b"", &mut file).unwrap(), []);
    std::fs::create_dir(lab.target()).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["--extract", "--preserve-permissions", "--file"])
        .arg(&out)
        .arg("--directory")
        .arg(lab.target())
        .output();
    let Ok(output) = tar else {
        eprintln!("skipped: tar is not installed");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    draft.assert_restored(&lab.target());
}
