//! Restores of hard-linked files: which names become one file, and which do not.

use crate::restore_lab::{Draft, Lab, noise};
use std::fs;
use std::os::unix::fs::MetadataExt;
use stillpoint_archive::restore::RestoreOptions;

fn inode(lab: &Lab, name: &str) -> u64 {
    fs::metadata(lab.target().join(name)).unwrap().ino()
}

#[test]
fn files_that_had_the_same_inode_in_turn_stay_apart() {
    // Device and inode of two pairs are equal, their content is not: each pair is one file, whatever the size.
    for len in [10, 5000, 700_000] {
        let lab = Lab::new();
        let mut draft = Draft::default();
        draft.linked(&["a", "c"], &noise(1, len));
        draft.linked(&["b", "d"], &noise(2, len));
        let root = draft.commit(&lab);
        let options = RestoreOptions { verify: true, ..lab.options(root) };
        let report = lab.restore_cleanly(&options);
        assert_eq!((report.files_written, report.plan.hard_links), (2, 2));
        draft.assert_restored(&lab.target());
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| inode(&lab, name));
        assert!(a == c && b == d && a != b, "{len} bytes");
        lab.assert_whole();
    }
}
