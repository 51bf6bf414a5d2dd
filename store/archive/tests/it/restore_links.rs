//! Restores of hard-linked files: which names become one file, and which do not.

use crate::restore_lab::{Draft, Lab, noise};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use stillpoint_archive::restore::{RestoreOptions, WINDOW_ENTRIES_MAX, restore};
use stillpoint_archive::{Event, Observer, Outcome};
use stillpoint_store::ObjectKind;
use stillpoint_store::backend::Backend;

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

/// Keeps what became of each entry.
#[derive(Default)]
struct Outcomes(Mutex<Vec<(Vec<u8>, Outcome)>>);

impl Observer for Outcomes {
    fn event(&self, event: Event<'_>) {
        if let Event::Entry { key, outcome, .. } = event {
            self.0.lock().unwrap().push((key.to_vec(), outcome));
        }
    }
}

#[test]
fn nothing_is_linked_to_what_stands_in_the_place_of_a_lost_first_name() {
    // The content is damaged, and an old file has the first name, alone or with the second: the second is lost, too.
    let lab = Lab::new();
    let mut draft = Draft::default();
    // More entries than a window takes lie between the first name and the last.
    for number in 0..=WINDOW_ENTRIES_MAX {
        draft.symlink(&format!("between {number}"), "x");
    }
    draft.linked(&["a", "b", "c"], &noise(1, 700_000));
    let root = draft.commit(&lab);
    let packs = lab.backend.list(ObjectKind::Pack).unwrap();
    let (pack, size) = packs.into_iter().max_by_key(|(_, size)| *size).unwrap();
    assert!(lab.backend.damage(&pack, |bytes| bytes[usize::try_from(size / 2).unwrap()] ^= 0x10));
    for has_second in [false, true] {
        let _ = fs::remove_dir_all(lab.target());
        fs::create_dir_all(lab.target()).unwrap();
        let outside = lab.base.path().join("outside");
        fs::write(&outside, "old").unwrap();
        let names: &[&str] = if has_second { &["a", "b"] } else { &["a"] };
        for name in names {
            fs::hard_link(&outside, lab.target().join(name)).unwrap();
        }
        let outcomes = Outcomes::default();
        let report = restore(&lab.repository, &lab.options(root), &outcomes).unwrap();
        assert_eq!(report.problem_count, 3, "{:?}", report.problems);
        let outcomes = outcomes.0.into_inner().unwrap();
        for name in ["a", "b", "c"] {
            let of_name = |(key, _): &&(Vec<u8>, Outcome)| key == name.as_bytes();
            let found: Vec<Outcome> = outcomes.iter().filter(of_name).map(|(_, o)| *o).collect();
            assert_eq!(found, [Outcome::Failed], "{name}");
            assert_eq!(lab.target().join(name).exists(), names.contains(&name), "{name}");
        }
    }
}
