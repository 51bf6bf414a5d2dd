//! Described trees become real ones, and the comparison sees every kind of difference.

use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use stillpoint_testkit::tree::{Content, Filling, SpecKind, join};
use stillpoint_testkit::{Shape, TreeSpec, compare_trees, tree_spec, with_label};

fn check_same(a: &Path, b: &Path) {
    let differences = compare_trees(a, b).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Two materialisations of one seed are equal in everything; a real copy by `cp -a` is equal, too.
#[test]
fn a_seed_gives_one_tree() {
    for seed in 0..5 {
        with_label(format_args!("seed {seed}"), || {
            let shape = Shape::odd(150);
            let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            for dir in &dirs {
                TreeSpec::seeded(seed, &shape).materialise(dir.path()).unwrap();
            }
            check_same(dirs[0].path(), dirs[1].path());
            let copy = tempfile::tempdir().unwrap();
            let source = dirs[0].path().join(".");
            let status = std::process::Command::new("cp")
                .args(["-a", "--sparse=auto"])
                .args([source.as_path(), copy.path()])
                .status()
                .unwrap();
            assert!(status.success());
            check_same(dirs[0].path(), copy.path());
        });
    }
}

/// Editing a tree in place gives the same as writing the edited tree anew, and leaves equal files alone.
#[test]
fn edits_in_place_equal_a_fresh_tree() {
    for seed in 0..10 {
        with_label(format_args!("seed {seed}"), || {
            let shape = Shape::odd(60);
            let old = TreeSpec::seeded(seed, &shape);
            let new = old.edited(seed + 100, 10, &shape);
            assert_ne!(old, new);
            let (edited, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            old.materialise(edited.path()).unwrap();
            let inode = |path| fs::symlink_metadata(join(edited.path(), path)).unwrap().ino();
            let kept: Vec<_> = old
                .files()
                .into_iter()
                .filter(|path| old.nodes.get(*path) == new.nodes.get(*path))
                .map(|path| (path, inode(path)))
                .collect();
            assert!(!kept.is_empty());
            old.become_on_disk(&new, edited.path()).unwrap();
            new.materialise(fresh.path()).unwrap();
            check_same(edited.path(), fresh.path());
            for (path, before) in kept {
                assert_eq!(inode(path), before);
            }
        });
    }
}

/// Each kind of difference is found, and only that one.
#[test]
fn every_difference_is_found() {
    let shape = Shape::odd(80);
    let tree = TreeSpec::seeded(3, &shape);
    let files = tree.files();
    let big = files
        .iter()
        .find(|path| {
            let node = &tree.nodes[**path];
            matches!(&node.kind, SpecKind::File(content) if content.len() > 100 && content.segments.len() == 1)
        })
        .expect("the seed has one");
    let mut cases: Vec<(&str, TreeSpec)> = Vec::new();
    let mut case = |expected, change: &dyn Fn(&mut TreeSpec)| {
        let mut changed = tree.clone();
        change(&mut changed);
        cases.push((expected, changed));
    };
    let at = |tree: &mut TreeSpec, change: &dyn Fn(&mut stillpoint_testkit::tree::SpecNode)| {
        change(tree.nodes.get_mut(*big).unwrap());
    };
    case("only in the second", &|tree| {
        let node = tree.nodes[*big].clone();
        tree.nodes.insert(vec![b"one more".to_vec()], node);
    });
    case("mode", &|tree| at(tree, &|node| node.meta.mode ^= 0o020));
    case("modification time", &|tree| at(tree, &|node| node.meta.mtime.nanos ^= 1));
    case("extended attributes", &|tree| {
        at(tree, &|node| drop(node.meta.xattrs.insert(b"user.more".to_vec(), vec![1])));
    });
    case("length", &|tree| {
        at(tree, &|node| {
            if let SpecKind::File(content) = &mut node.kind {
                content.segments[0].len += 1;
            }
        });
    });
    case("content differs", &|tree| {
        at(tree, &|node| {
            if let SpecKind::File(content) = &mut node.kind {
                content.segments[0].filling = Filling::Noise(12345);
            }
        });
    });
    case("FileType", &|tree| at(tree, &|node| node.kind = SpecKind::Symlink(b"x".to_vec())));
    for (expected, changed) in cases {
        with_label(expected, || {
            let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            tree.materialise(a.path()).unwrap();
            // Hard links to the changed file would show the change as well, so compare names of the one file only.
            changed.materialise(b.path()).unwrap();
            let found = compare_trees(a.path(), b.path()).unwrap();
            assert!(
                found.iter().any(|difference| difference.what.contains(expected)),
                "{found:#?}"
            );
        });
    }
}

/// Holes and links are part of a comparison.
#[test]
fn holes_and_links_are_compared() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = |filling| SpecKind::File(Content::of(filling, 1 << 20));
    let mut tree = TreeSpec::seeded(1, &Shape::home(1));
    let meta = tree.nodes.pop_first().unwrap().1.meta;
    let node = |kind| stillpoint_testkit::tree::SpecNode { kind, meta: meta.clone() };
    tree.nodes.insert(vec![b"f".to_vec()], node(file(Filling::Hole)));
    tree.nodes.insert(vec![b"g".to_vec()], node(SpecKind::HardLink(vec![b"f".to_vec()])));
    tree.materialise(a.path()).unwrap();
    tree.nodes.insert(vec![b"f".to_vec()], node(file(Filling::Zeros)));
    tree.nodes.insert(vec![b"g".to_vec()], node(file(Filling::Hole)));
    tree.materialise(b.path()).unwrap();
    let found = compare_trees(a.path(), b.path()).unwrap();
    let count = |what: &str| found.iter().filter(|one| one.what.contains(what)).count();
    assert_eq!((count("data ranges"), count("one file"), found.len()), (1, 1, 2), "{found:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever proptest makes up can be written, and equals its second writing.
    #[test]
    fn generated_trees_can_be_written(tree in tree_spec(30)) {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree.materialise(a.path()).unwrap();
        tree.materialise(b.path()).unwrap();
        prop_assert_eq!(compare_trees(a.path(), b.path()).unwrap(), vec![]);
    }
}
