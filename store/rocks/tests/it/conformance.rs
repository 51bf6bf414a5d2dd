//! The suite of all indexes, as the owner of the folder, beside an owner, and with limits so small that all are reached.

use stillpoint_rocks::{Settings, open, open_with};
use stillpoint_testkit::{IndexFixture, index_suite};

/// Every batch, run and merge has to be split.
const TINY: Settings =
    Settings { cache_bytes: 1 << 20, sort_entries: 700, sort_runs: 3, bulk_entries: 10 };

fn owner(settings: Settings) -> IndexFixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a folder/index");
    let open = move || open_with(&path, settings).unwrap();
    IndexFixture { open: Box::new(open), persistent: true, guard: Box::new(dir) }
}

#[test]
fn the_owner_conforms() {
    index_suite(|| owner(Settings::default()));
}

#[test]
fn tiny_limits_conform() {
    index_suite(|| owner(TINY));
}

#[test]
fn a_reader_beside_an_owner_conforms() {
    index_suite(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        let owner = open(&path).unwrap();
        let open = move || open(&path).unwrap();
        IndexFixture { open: Box::new(open), persistent: false, guard: Box::new((owner, dir)) }
    });
}
