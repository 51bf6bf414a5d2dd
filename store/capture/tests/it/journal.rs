//! The journal against the real kernel, on every file system that this machine offers.

use crate::listing::{Listing, differences, listing};
use crate::operations::{Map, World, write_asynchronously};
use crate::places::{Place, places};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use stillpoint_archive::path::{is_within, key_from_path};
use stillpoint_capture::journal::audit::Audit;
use stillpoint_capture::journal::{ChangeSet, Gap, Inode, Journal, Options};
use stillpoint_testkit::Random;

/// Operations on each file system in the ordinary run; `STILLPOINT_JOURNAL_OPERATIONS` asks for another number.
const OPERATIONS: usize = 6000;
/// When a drain gives up: far more than it needs.
const LIMIT: Duration = Duration::from_secs(60);

fn key(path: &Path) -> Vec<u8> {
    key_from_path(path).unwrap()
}

fn keys<const N: usize>(paths: [PathBuf; N]) -> BTreeSet<Vec<u8>> {
    paths.iter().map(|path| key(path)).collect()
}

/// A journal of this directory, or why there is none.
fn journal(root: &Path) -> Option<Journal> {
    match Journal::start(&[root.to_owned()]) {
        Ok(journal) => Some(journal),
        Err(error) => {
            eprintln!("skipped: {}: {error}", root.display());
            None
        }
    }
}

/// What a set says of a directory and what is below it: those above were made a moment ago and may count as changed.
fn inside(mut set: ChangeSet, root: &Path) -> ChangeSet {
    set.opaque = 0;
    set.paths.retain(|path| is_within(path, &key(root)));
    set
}

/// Runs a check in a fresh directory of every place where a journal can be.
fn everywhere(check: impl Fn(&Place, &Path, Journal)) {
    for place in places() {
        let root = place.dir.join("root");
        fs::create_dir_all(&root).unwrap();
        if let Some(journal) = journal(&root) {
            check(&place, &root, journal);
        }
    }
}

/// Ends at once if the journal is not supported here at all: then there is nothing to test.
fn temporary() -> Option<(tempfile::TempDir, PathBuf, Journal)> {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap().join("root");
    fs::create_dir(&root).unwrap();
    let journal = journal(&root)?;
    Some((temp, root, journal))
}

/// Each kind of change is named by its path, and quiet means empty.
#[test]
fn plain_changes() {
    everywhere(|place, root, mut journal| {
        let mut check = |paths: BTreeSet<Vec<u8>>, trees: BTreeSet<Vec<u8>>| {
            let set = inside(journal.drain(LIMIT), root);
            let expected = ChangeSet { paths, trees, ..ChangeSet::default() };
            assert_eq!(set, expected, "{}", place.name);
        };
        let (file, dir) = (root.join("file"), root.join("dir"));
        check(keys([]), keys([]));
        fs::write(&file, b"1").unwrap();
        check(keys([root.into(), file.clone()]), keys([]));
        fs::write(&file, b"2").unwrap();
        check(keys([file.clone()]), keys([]));
        fs::create_dir(&dir).unwrap();
        check(keys([root.into()]), keys([dir.clone()]));
        fs::rename(&file, dir.join("moved")).unwrap();
        check(keys([root.into(), file.clone(), dir.clone(), dir.join("moved")]), keys([]));
        fs::remove_file(dir.join("moved")).unwrap();
        check(keys([dir.clone(), dir.join("moved")]), keys([]));
        fs::write(place.dir.join("beside"), b"1").unwrap();
        check(keys([]), keys([]));
        drop(fs::File::open(root).unwrap());
        check(keys([]), keys([]));
    });
}

/// A directory that is renamed is a tree at both places, and what changes in it afterwards is found at the new one.
#[test]
fn renamed_directories() {
    everywhere(|place, root, mut journal| {
        let (old, new) = (root.join("old"), root.join("new"));
        fs::create_dir_all(old.join("deep")).unwrap();
        fs::write(old.join("deep/file"), b"1").unwrap();
        journal.drain(LIMIT);
        fs::write(old.join("deep/file"), b"2").unwrap();
        fs::rename(&old, &new).unwrap();
        let set = journal.drain(LIMIT);
        assert_eq!(set.trees, keys([old.clone(), new.clone()]), "{}", place.name);
        fs::write(new.join("deep/file"), b"3").unwrap();
        assert_eq!(inside(journal.drain(LIMIT), root).paths, keys([new.join("deep/file")]));
        // Out of the roots and in again under another name.
        let away = place.dir.join("away");
        fs::rename(&new, &away).unwrap();
        fs::write(away.join("deep/file"), b"4").unwrap();
        assert_eq!(journal.drain(LIMIT).trees, keys([new.clone()]));
        fs::rename(&away, &old).unwrap();
        assert_eq!(journal.drain(LIMIT).trees, keys([old.clone()]));
    });
}

/// A file that is changed through one of its names, or through a descriptor whose name is gone, is named by its inode.
#[test]
fn other_names_of_an_inode() {
    use std::os::unix::fs::MetadataExt;
    everywhere(|place, root, mut journal| {
        let (inside, outside) = (root.join("inside"), place.dir.join("outside"));
        fs::write(&inside, b"1").unwrap();
        fs::hard_link(&inside, &outside).unwrap();
        let stat = fs::metadata(&inside).unwrap();
        let inode = Inode { device: stat.dev(), number: stat.ino() };
        journal.drain(LIMIT);
        fs::write(&outside, b"2").unwrap();
        assert!(journal.drain(LIMIT).linked.contains(&inode), "{}", place.name);
        let (renamed, outside) = (outside.clone(), place.dir.join("renamed"));
        fs::rename(&renamed, &outside).unwrap();
        assert!(journal.drain(LIMIT).linked.contains(&inode), "{}: a rename", place.name);
        let open = fs::File::options().write(true).open(&outside).unwrap();
        fs::remove_file(&outside).unwrap();
        journal.drain(LIMIT);
        std::io::Write::write_all(&mut &open, b"3").unwrap();
        let set = journal.drain(LIMIT);
        let is_named = set.linked.contains(&inode) || set.names(&key(&inside));
        assert!(is_named, "{}: {set:?}", place.name);
    });
}

/// A file that is mapped counts as changed for as long as it is, whoever closed what, and once more when the mapping ends.
#[test]
fn mapped_files() {
    everywhere(|place, root, mut journal| {
        let path = root.join("mapped");
        fs::write(&path, [0; 5000]).unwrap();
        journal.drain(LIMIT);
        assert!(inside(journal.drain(LIMIT), root).is_empty());
        let map =
            Map::of(&fs::File::options().read(true).write(true).open(&path).unwrap()).unwrap();
        for value in 1..4 {
            map.write(value);
            assert_eq!(
                inside(journal.drain(LIMIT), root).paths,
                keys([path.clone()]),
                "{}",
                place.name
            );
        }
        map.write(9);
        drop(map);
        assert_eq!(inside(journal.drain(LIMIT), root).paths, keys([path]), "{}", place.name);
        assert!(inside(journal.drain(LIMIT), root).is_empty());
    });
}

/// Asynchronous writes raise no event; what a process that uses them has open for writing counts as changed.
#[test]
fn asynchronous_writes() {
    everywhere(|place, root, mut journal| {
        let path = root.join("file");
        fs::write(&path, b"before").unwrap();
        journal.drain(LIMIT);
        let file = fs::File::options().write(true).open(&path).unwrap();
        for text in [b"after.", b"again."] {
            if let Err(error) = write_asynchronously(&file, text) {
                return eprintln!("skipped: no asynchronous I/O: {error}");
            }
            assert_eq!(fs::read(&path).unwrap(), text);
            assert_eq!(
                inside(journal.drain(LIMIT), root).paths,
                keys([path.clone()]),
                "{}",
                place.name
            );
        }
    });
}

/// No operation of any kind goes unnoticed.
#[test]
fn audit() {
    let asked = std::env::var("STILLPOINT_JOURNAL_OPERATIONS").ok();
    let operations = asked.map_or(OPERATIONS, |text| text.parse().unwrap());
    let seed = std::env::var("STILLPOINT_JOURNAL_SEED").map_or(1, |text| text.parse().unwrap());
    everywhere(|place, root, mut journal| {
        let outside = place.dir.join("outside");
        fs::create_dir(&outside).unwrap();
        let mut world = World::new(root, &outside, seed);
        let mut rounds = Random::new(seed);
        let mut before = listing(root);
        journal.drain(LIMIT);
        let (mut done, mut total, mut named) = (0, Audit::default(), 0);
        let mut longest = Duration::ZERO;
        while done < operations {
            let most = if rounds.percent(70) { 20 } else { 400 };
            let count = 1 + rounds.index(most).min(operations - done);
            world.run(count);
            done += count;
            let begun = Instant::now();
            let set = journal.drain(LIMIT);
            longest = longest.max(begun.elapsed());
            assert_eq!(set.gap, None);
            let after = listing(root);
            let audit = Audit::compare(&differences(&before, &after), &set);
            assert_eq!(
                audit.misses,
                0,
                "{} after {done}, seed {seed}: {}",
                place.name,
                told(&audit, &before, &after)
            );
            total.changed += audit.changed;
            total.surplus += audit.surplus;
            named += set.paths.len() + set.trees.len();
            before = after;
        }
        eprintln!(
            "{}: {done} operations, {} changes, {} misses, {named} named, {} surplus, longest drain {longest:?}",
            place.name, total.changed, total.misses, total.surplus
        );
    });
}

fn told(audit: &Audit, before: &Listing, after: &Listing) -> String {
    let of = |key: &Vec<u8>| {
        let path = stillpoint_archive::path::path_from_key(key);
        format!("{}: {:?} -> {:?}", path.display(), before.get(key), after.get(key))
    };
    audit.missed.iter().map(of).collect::<Vec<_>>().join("\n")
}

/// A queue that runs over is a gap, once.
#[test]
fn overflow() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap();
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap_or_default();
    let limit: usize = limit.trim().parse().unwrap_or(16_384);
    let options = Options { unlimited_queue: false, ..Options::default() };
    let mut journal = match Journal::start_with(std::slice::from_ref(&root), &options) {
        Ok(journal) => journal,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    if limit > 100_000 {
        return eprintln!("skipped: the queue takes {limit} events here");
    }
    journal.while_stopped(|| {
        for number in 0..=limit {
            fs::write(root.join(number.to_string()), b"").unwrap();
        }
    });
    assert_eq!(journal.drain(LIMIT).gap, Some(Gap::Overflow));
    assert_eq!(inside(journal.drain(LIMIT), &root), ChangeSet::default());
}

/// Beyond the limit the set names trees instead of paths, and still everything.
#[test]
fn bounded_memory() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap();
    let options = Options { named_max: 500, ..Options::default() };
    (0..20).for_each(|dir| fs::create_dir(root.join(dir.to_string())).unwrap());
    let mut journal = match Journal::start_with(std::slice::from_ref(&root), &options) {
        Ok(journal) => journal,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let mut written = Vec::new();
    for number in 0..3000 {
        let path = root.join((number % 20).to_string()).join(number.to_string());
        fs::write(&path, b"").unwrap();
        written.push(path);
        assert!(journal.pending() <= 500);
    }
    let set = journal.drain(LIMIT);
    assert!(set.gap.is_none() && set.paths.len() + set.trees.len() <= 500, "{set:?}");
    for path in written {
        assert!(set.names(&key(&path)), "{}", path.display());
    }
}

/// What a drain costs, for the record: nothing changed, and a thousand files changed.
#[test]
fn cost_of_a_drain() {
    let Some((_temp, root, mut journal)) = temporary() else { return };
    journal.drain(LIMIT);
    let time = |journal: &mut Journal| {
        let begun = Instant::now();
        let set = journal.drain(LIMIT);
        (begun.elapsed(), inside(set, &root).paths.len())
    };
    let (quiet, named) = time(&mut journal);
    assert_eq!(named, 0);
    journal.while_stopped(|| {
        for number in 0..1000 {
            fs::write(root.join(number.to_string()), b"x").unwrap();
        }
    });
    let (busy, named) = time(&mut journal);
    assert_eq!(named, 1001);
    eprintln!("nothing changed: {quiet:?}; 1000 files, all still in the queue: {busy:?}");
}
