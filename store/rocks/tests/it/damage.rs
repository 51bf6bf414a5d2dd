//! What is found in the folder, and who else uses it.

use std::fs;
use std::path::{Path, PathBuf};
use stillpoint_rocks::open;
use stillpoint_store::index::Index;
use stillpoint_store::{ChunkId, Error, PackId};
use stillpoint_testkit::index_suite::{id, place, state};
use stillpoint_testkit::with_label;

const COUNT: u64 = 5000;

fn all_live(_: &PackId) -> bool {
    true
}

fn fill(index: &dyn Index) {
    let mut entries = (0..COUNT).map(|number| Ok((id(number), place(1, number))));
    index.rebuild(&mut entries, state(1)).unwrap();
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .collect();
    files.sort();
    files
}

/// Uses an index as a repository would: without the right state, or when damage shows, it is rebuilt; then it must be
/// right.
fn check_usable(index: &dyn Index) {
    let asked: Vec<ChunkId> = (0..COUNT + 100).map(id).collect();
    let found = match index.state() {
        Ok(Some(found)) if found == state(1) => index.lookup(&asked, &all_live),
        _ => Err(Error::damaged("index", "no state")),
    };
    let found = match found {
        Ok(found) => found,
        Err(Error::Damaged { .. }) => {
            fill(index);
            index.lookup(&asked, &all_live).unwrap()
        }
        Err(error) => panic!("{error}"),
    };
    for (number, found) in (0..).zip(found) {
        assert_eq!(found, (number < COUNT).then(|| place(1, number)));
    }
}

/// Every file of the index missing, empty, cut in the middle or with a flipped byte: it opens, and gives right answers,
/// if need be after it was rebuilt; at the next opening all is well.
#[test]
fn every_damage_heals() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    fill(&*open(&whole).unwrap());
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("emptied", |bytes| bytes.clear()),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("flipped in the middle", |bytes| {
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x10;
            }
        }),
        ("flipped near the end", |bytes| {
            let near = bytes.len().saturating_sub(20);
            if let Some(byte) = bytes.get_mut(near) {
                *byte ^= 0x01;
            }
        }),
    ];
    for (number, file) in files_below(&whole).iter().enumerate() {
        let file = file.strip_prefix(&whole).unwrap();
        for (what, damage) in
            damages.iter().map(|(what, damage)| (*what, Some(damage))).chain([("missing", None)])
        {
            with_label(format_args!("{} {what}", file.display()), || {
                let copy = dir.path().join(format!("{number}-{what}"));
                copy_folder(&whole, &copy);
                let path = copy.join(file);
                match damage {
                    Some(damage) => {
                        let mut bytes = fs::read(&path).unwrap();
                        damage(&mut bytes);
                        fs::write(&path, bytes).unwrap();
                    }
                    None => fs::remove_file(&path).unwrap(),
                }
                check_usable(&*open(&copy).unwrap());
                let again = open(&copy).unwrap();
                if again.notice().is_none() {
                    assert_eq!(again.state().unwrap(), Some(state(1)));
                }
                check_usable(&*again);
                drop(again);
                fs::remove_dir_all(&copy).unwrap();
            });
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A newer, foreign or incomplete folder is replaced with a notice; a new and a good one have none; foreign files stay.
#[test]
fn unusable_folders_are_replaced_with_a_notice() {
    type Change = fn(&Path);
    let cases: [(Option<&str>, Change); 5] = [
        (None, |_| {}),
        (Some("another format"), |dir| {
            fs::write(dir.join("format"), "stillpoint index 2\n").unwrap()
        }),
        (Some("not completed"), |dir| fs::remove_file(dir.join("format")).unwrap()),
        (Some("is gone"), |dir| fs::remove_dir_all(dir.join("rocksdb")).unwrap()),
        (Some("cannot be opened"), |dir| {
            fs::write(dir.join("rocksdb/CURRENT"), "nonsense").unwrap()
        }),
    ];
    for (expected, change) in cases {
        with_label(expected.unwrap_or("unchanged"), || {
            let dir = tempfile::tempdir().unwrap();
            let index = open(dir.path()).unwrap();
            assert_eq!(index.notice(), None);
            fill(&*index);
            drop(index);
            fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
            change(dir.path());
            let index = open(dir.path()).unwrap();
            let notice = index.notice();
            match expected {
                None => assert_eq!(notice, None),
                Some(expected) => {
                    assert!(
                        notice.as_ref().is_some_and(|text| text.contains(expected)),
                        "{notice:?}"
                    );
                    assert_eq!(index.state().unwrap(), None);
                }
            }
            check_usable(&*index);
            assert_eq!(fs::read(dir.path().join("thesis.txt")).unwrap(), b"precious");
        });
    }
}

/// A reader sees what the owner had, keeps its own additions to itself, and leaves nothing behind.
#[test]
fn a_reader_beside_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let owner = open(dir.path()).unwrap();
    fill(&*owner);
    let guest = open(dir.path()).unwrap();
    assert_eq!(guest.state().unwrap(), Some(state(1)));
    guest.apply(&[(id(COUNT), place(2, COUNT))], state(2)).unwrap();
    owner.apply(&[(id(COUNT + 1), place(3, COUNT + 1))], state(3)).unwrap();
    let asked = [id(0), id(COUNT), id(COUNT + 1)];
    let guest_finds = [Some(place(1, 0)), Some(place(2, COUNT)), None];
    assert_eq!(guest.lookup(&asked, &all_live).unwrap(), guest_finds);
    assert_eq!(guest.state().unwrap(), Some(state(2)));
    let owner_finds = [Some(place(1, 0)), None, Some(place(3, COUNT + 1))];
    assert_eq!(owner.lookup(&asked, &all_live).unwrap(), owner_finds);
    // The owner replaces its database under the guest's feet.
    owner.rebuild(&mut std::iter::empty(), state(4)).unwrap();
    assert_eq!(guest.lookup(&asked, &all_live).unwrap(), guest_finds);
    fill(&*guest);
    assert_eq!(guest.state().unwrap(), Some(state(1)));
    assert_eq!(owner.state().unwrap(), Some(state(4)));
    drop(guest);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("private")), "{left:?}");
    drop(owner);
    assert_eq!(open(dir.path()).unwrap().state().unwrap(), Some(state(4)));
}

/// What a process that was killed left behind is removed by the next owner, and only that.
#[test]
fn leftovers_of_dead_processes_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let owner = open(dir.path()).unwrap();
    let guest = open(dir.path()).unwrap();
    fill(&*guest);
    fs::create_dir(dir.path().join("private-1-1")).unwrap();
    fs::write(dir.path().join("private-1-1.lock"), "").unwrap();
    drop(owner);
    let next = open(dir.path()).unwrap();
    next.apply(&[], state(7)).unwrap();
    assert!(!dir.path().join("private-1-1").exists());
    assert!(!dir.path().join("private-1-1.lock").exists());
    check_usable(&*guest);
    drop(next);
}

/// Looking up changes nothing in the folder; the first that writes becomes the owner, and another one that began from
/// the same state keeps its additions to itself, even when the owner is gone.
#[test]
fn the_first_writer_becomes_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    fill(&*open(dir.path()).unwrap());
    let before = files_below(dir.path());
    let readers: Vec<_> = (0..3).map(|_| open(dir.path()).unwrap()).collect();
    readers.iter().for_each(|reader| check_usable(&**reader));
    assert_eq!(files_below(dir.path()), before);
    let [first, second, third] = <[Box<dyn Index>; 3]>::try_from(readers).ok().unwrap();
    first.apply(&[(id(COUNT), place(2, COUNT))], state(2)).unwrap();
    second.apply(&[(id(COUNT + 1), place(2, 1))], state(3)).unwrap();
    drop(first);
    third.apply(&[(id(COUNT + 2), place(2, 2))], state(4)).unwrap();
    assert_eq!(second.state().unwrap(), Some(state(3)));
    assert_eq!(third.state().unwrap(), Some(state(4)));
    drop((second, third));
    let after = open(dir.path()).unwrap();
    assert_eq!(after.state().unwrap(), Some(state(2)));
    let asked = [id(COUNT), id(COUNT + 1), id(COUNT + 2), id(0)];
    let found = [Some(place(2, COUNT)), None, None, Some(place(1, 0))];
    assert_eq!(after.lookup(&asked, &all_live).unwrap(), found);
}
