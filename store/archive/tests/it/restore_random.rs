//! Random trees, saved and restored: whatever they hold comes back.

use crate::restore_lab::Lab;
use std::path::{Path, PathBuf};
use stillpoint_archive::path::key_from_path;
use stillpoint_archive::{BackupOptions, ParentChoice, RestoreOptions, Silent, backup, restore};
use stillpoint_store::tree::Root;
use stillpoint_testkit::tree::{Shape, TreeSpec, compare_trees_with};
use stillpoint_testkit::{CompareOptions, with_label};

/// How many trees are tried; the full figure for a release is 10,000.
const TREES_VARIABLE: &str = "STILLPOINT_RANDOM_TREES";
const TREES_DEFAULT: u64 = 300;
/// So many trees share a repository.
const TREES_PER_REPOSITORY: u64 = 50;
/// Entries of one tree.
const ENTRIES: usize = 14;

fn trees() -> u64 {
    std::env::var(TREES_VARIABLE).ok().map_or(TREES_DEFAULT, |text| text.parse().unwrap())
}

/// In memory where there is such a place, because ten thousand trees are many.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn save(lab: &Lab, source: &Path) -> Root {
    let options = BackupOptions {
        roots: vec![source.to_owned()],
        parent: ParentChoice::Nothing,
        ..BackupOptions::default()
    };
    let report = backup(&lab.repository, options, &Silent).unwrap();
    assert_eq!(report.problems, []);
    report.record.root
}

fn assert_equal(a: &Path, b: &Path) {
    let differences = compare_trees_with(a, b, CompareOptions::ALL).unwrap();
    let text: Vec<_> = differences.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{}", text.join("\n"));
}

/// Saves the tree of one seed and restores it; then changes the tree and restores the change over the first restore.
fn there_and_back(lab: &Lab, seed: u64, base: &Path) {
    let (source, target): (PathBuf, PathBuf) = (base.join("source"), base.join("target"));
    std::fs::create_dir(&source).unwrap();
    let shape = Shape::odd(ENTRIES);
    let spec = TreeSpec::seeded(seed, &shape);
    spec.materialise(&source).unwrap();
    let subtree = key_from_path(&source).unwrap();
    let mut options = RestoreOptions {
        subtree,
        delete: true,
        verify: seed.is_multiple_of(8),
        sparse: false,
        ..RestoreOptions::new(save(lab, &source), &target)
    };
    let report = restore(&lab.repository, &options, &Silent).unwrap();
    assert_eq!((report.problems, report.warnings), (vec![], vec![]));
    assert_equal(&source, &target);
    if seed.is_multiple_of(4) {
        let edited = spec.edited(seed, 6, &shape);
        spec.become_on_disk(&edited, &source).unwrap();
        options.root = save(lab, &source);
        let report = restore(&lab.repository, &options, &Silent).unwrap();
        assert_eq!((report.problems, report.warnings), (vec![], vec![]));
        let compared = CompareOptions { roots: false, ..CompareOptions::ALL };
        let differences = compare_trees_with(&source, &target, compared).unwrap();
        let text: Vec<_> = differences.iter().map(ToString::to_string).collect();
        assert!(text.is_empty(), "over an older restore: {}", text.join("\n"));
    }
}

#[test]
fn random_trees_come_back_exactly() {
    let mut lab = Lab::new();
    for seed in 0..trees() {
        if seed % TREES_PER_REPOSITORY == 0 && seed > 0 {
            lab.assert_whole();
            lab = Lab::new();
        }
        let base = scratch();
        with_label(format!("seed {seed}"), || there_and_back(&lab, seed, base.path()));
    }
    lab.assert_whole();
}
