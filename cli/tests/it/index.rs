//! The index is a cache: gone, cut short or another repository's, the next command works and says so once.

use crate::support::{Place, Run, content, noise};
use std::fs;
use std::path::PathBuf;

/// A repository with two snapshots, and with an index: the second one had to look up what there is.
fn place() -> Place {
    let place = Place::new();
    place.file("a", &noise(1, 300_000));
    place.snapshot();
    next(&place, 100);
    assert!(index(&place).is_dir());
    place
}

fn index(place: &Place) -> PathBuf {
    place.cache().join("index")
}

/// Stores something that needs look-ups.
fn next(place: &Place, seed: u64) -> Run {
    place.file("b", &noise(seed, 200_000));
    place.snapshot()
}

#[track_caller]
fn works_and_says_so_once(place: &Place, says: bool) {
    let first = next(place, 2);
    assert_eq!(first.stderr.matches("notice: ").count(), usize::from(says), "{first:#?}");
    let second = next(place, 3);
    assert!(!second.stderr.contains("notice: "), "{second:#?}");
    assert_eq!(fs::read(place.restore("latest", "back").join("a")).unwrap(), noise(1, 300_000));
    place.check();
}

#[test]
fn a_deleted_index_is_rebuilt() {
    let place = place();
    fs::remove_dir_all(index(&place)).unwrap();
    works_and_says_so_once(&place, true);
}

#[test]
fn a_truncated_index_is_rebuilt() {
    let place = place();
    for (path, bytes) in content(&index(&place)) {
        fs::write(index(&place).join(path), &bytes[..bytes.len() / 2]).unwrap();
    }
    works_and_says_so_once(&place, true);
}

#[test]
fn another_repositorys_index_is_rebuilt() {
    let place = place();
    let other = self::place();
    fs::remove_dir_all(index(&place)).unwrap();
    for (path, bytes) in content(&index(&other)) {
        let path = index(&place).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    works_and_says_so_once(&place, true);
}

// Commands that need no look-up open no index: their start costs milliseconds.
#[test]
fn listing_opens_no_index() {
    let place = place();
    fs::remove_dir_all(place.path("cache")).unwrap();
    place.run(["snapshots"]).with_code(0);
    place.run(["forget", "--keep-last", "1"]).with_code(0);
    let opened = place.path("cache").exists() && index(&place).exists();
    assert!(!opened, "an index was opened");
}

// With --no-cache nothing is left outside the repository.
#[test]
fn no_cache_leaves_nothing() {
    let place = place();
    fs::remove_dir_all(place.path("cache")).unwrap();
    place.file("b", b"more");
    let mut command = place.stillpoint(["snapshot", "--no-cache", "source"]);
    command.env_remove("STILLPOINT_CACHE_DIR").env("HOME", place.path("home"));
    crate::support::run(&mut command).with_code(0);
    assert!(!place.path("cache").exists() && !place.path("home").exists());
    place.check();
}
