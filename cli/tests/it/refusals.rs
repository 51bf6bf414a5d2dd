//! What the command refuses, because it would delete or replace more than was meant.

use crate::support::{Place, content, noise};
use std::fs;
use std::os::unix::fs::symlink;

/// A target like the place's own tree, with something beside every directory on the way to the source.
fn neighbourhood(place: &Place) -> (std::path::PathBuf, Vec<std::path::PathBuf>) {
    let target = place.path("system");
    let source = place.source();
    let below = source.strip_prefix("/").unwrap();
    let mut strays = vec![target.join("stray")];
    fs::create_dir_all(target.join(below)).unwrap();
    let mut dir = target.clone();
    for name in below {
        dir.push(name);
        strays.push(dir.join("stray"));
    }
    strays.iter().for_each(|stray| fs::write(stray, b"precious").unwrap());
    (target, strays)
}

// --delete above what was saved is refused before anything is touched; below it does what it says.
#[test]
fn delete_needs_a_saved_path() {
    let place = Place::new();
    place.file("a", b"saved");
    place.snapshot();
    let (target, strays) = neighbourhood(&place);
    let target = target.to_str().unwrap();
    let source = place.source().display().to_string();
    let parent = format!("latest:{}", place.path("").display());
    for spec in ["latest", "latest:/", &parent] {
        for more in [&[][..], &["--dry-run"]] {
            let mut all = vec!["restore", spec, "--target", target, "--delete"];
            all.extend(more);
            let run = place.run(&all).with_code(2);
            run.says("never saved").says(&format!("stillpoint restore latest:{source} --target"));
        }
    }
    assert!(strays.iter().all(|stray| stray.exists()));
    assert!(!place.path("system").join(&source[1..]).join("a").exists());

    let inside = format!("{target}{source}");
    place
        .run(["restore", &format!("latest:{source}"), "--target", &inside, "--delete"])
        .with_code(0);
    let left = strays.iter().filter(|stray| stray.exists()).count();
    assert_eq!(left, strays.len() - 1, "only what is beside the saved file goes");
    // One file says nothing about its neighbours.
    let file = format!("latest:{source}/a");
    place.run(["restore", &file, "--target", target, "--delete"]).with_code(2).says("--delete");
    assert!(strays[0].exists());
    place.check();
}

// The repository that is restored from is neither deleted nor overwritten.
#[test]
fn the_repository_is_spared() {
    let place = Place::new();
    place.file("a", b"saved");
    place.run(["snapshot", "."]).with_code(0);
    let before = content(&place.repository());
    let refused = |spec: &str, target: &str, more: &[&str]| {
        let mut all = vec!["restore", spec, "--target", target];
        all.extend(more);
        place.run(&all).with_code(2).says("the repository").says("hint: ");
    };
    let saved = format!("latest:{}", place.path("").display());
    symlink(".", place.path("here")).unwrap();
    refused(&saved, ".", &["--delete"]);
    refused(&saved, "here", &["--delete", "--dry-run"]);
    refused(&saved, "repository", &[]);
    refused(&saved, "here/repository/not/there", &[]);
    refused(&saved, ".", &[]);
    refused("latest", "/", &[]);
    place.run(["restore", &saved, "--target", ".", "--exclude", "/repository"]).with_code(0);
    assert!(content(&place.repository()) == before, "the repository changed");
    place.check();
}

// A link that stands for a directory above a saved path stays a link.
#[test]
fn links_above_saved_paths_stay() {
    let place = Place::new();
    place.file("a", b"saved");
    place.snapshot();
    let source = place.source();
    let mut names = source.strip_prefix("/").unwrap().components();
    let first = names.next().unwrap();
    let (target, elsewhere) = (place.path("system"), place.path("elsewhere"));
    fs::create_dir_all(elsewhere.join(names.as_path())).unwrap();
    fs::create_dir(&target).unwrap();
    let link = target.join(first);
    symlink(&elsewhere, &link).unwrap();
    let restore = |more: &[&str]| {
        let mut all = vec!["restore", "latest", "--target", "system"];
        all.extend(more);
        let run = place.run(&all).with_code(1).says("no directory");
        run.says(&format!("stillpoint restore latest:{} --target", source.display()));
    };
    restore(&[]);
    restore(&["--dry-run"]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let spec = format!("latest:{}", source.display());
    let inside = target.join(source.strip_prefix("/").unwrap());
    place.run(["restore", &spec, "--target", inside.to_str().unwrap()]).with_code(0);
    assert_eq!(fs::read(inside.join("a")).unwrap(), b"saved");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

// Rules that keep nothing of a group are refused, in a dry run too, unless it is said to be meant.
#[test]
fn rules_that_keep_nothing() {
    let place = Place::new();
    place.file("a", b"1");
    place.run(["snapshot", "source", "--tag", "keep"]).with_code(0);
    place.run(["snapshot", "source", "--host", "other"]).with_code(0);
    let ids = place.ids();
    for more in [&["--dry-run"][..], &[], &["--prune"]] {
        let mut all = vec!["forget", "--keep-tag", "keep"];
        all.extend(more);
        let run = place.run(&all).with_code(1).says("host other").says("--unsafe-allow-remove-all");
        run.says("nothing was forgotten");
        assert_eq!(place.ids(), ids);
    }
    place.run(["forget", "--keep-tag", "keep", "--unsafe-allow-remove-all"]).with_code(0);
    assert_eq!(place.ids(), ids[..1]);
    place.run(["forget", &ids[0]]).with_code(0);
    assert_eq!(place.ids().len(), 0, "what is named goes");
    place.check();
}

// What a file held stays until all of the new content is there; devices are written to, links are followed.
#[test]
fn dump_replaces_whole_files_only() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let place = Place::new();
    place.file("a", &noise(1, 300_000));
    place.snapshot();
    let file = format!("{}/a", place.source().display());
    let out = place.path("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("file"), b"precious").unwrap();
    fs::set_permissions(out.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("file", out.join("link")).unwrap();
    place.run(["dump", "latest", "/not/there", "--target", "out/file"]).with_code(1);
    place.run(["dump", "latest", "/not/there", "--target", "out/new"]).with_code(1);
    place.run(["dump", "nothing", &file, "--target", "out/file"]).with_code(1);
    assert_eq!(fs::read(out.join("file")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2, "nothing is left behind");

    place.run(["dump", "latest", &file, "--target", "out/link"]).with_code(0);
    assert!(fs::read(out.join("file")).unwrap() == noise(1, 300_000));
    assert!(fs::symlink_metadata(out.join("link")).unwrap().is_symlink());
    let mode = fs::metadata(out.join("file")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    place.run(["dump", "latest", &file, "--target", "/dev/null"]).with_code(0);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    place
        .run(["dump", "latest", &file, "--target", "/dev/full"])
        .with_code(1)
        .says("disk of the target");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2, "nothing is left behind");
}

// However a path is typed, the filter finds what was saved under it; names of streams as they stand.
#[test]
fn path_filters_are_normalised() {
    let place = Place::new();
    place.file("a", b"1");
    place.snapshot();
    place.run(["snapshot", "--command", "db.sql=echo rows"]).with_code(0);
    let absolute = format!("{}//", place.source().display());
    for path in ["source", "source/", "./source/.", "source/../source", &absolute, "db.sql"] {
        let found = place.run(["snapshots", "--json", "--path", path]).with_code(0);
        assert_eq!(found.stdout.lines().count(), 1, "{path}: {found:#?}");
    }
    let show = place.run(["forget", "--keep-last", "1", "-n", "--path", "source/"]).with_code(0);
    show.prints("keep ");
    place.run(["prune"]).with_code(0).prints("nothing to prune");
}

// A cache that cannot be written says how to do without.
#[test]
fn an_unusable_cache_has_a_way_out() {
    let place = Place::new();
    place.file("a", &noise(1, 100_000));
    place.secret("file", b"no directory");
    place.snapshot();
    let run = place.run(["snapshot", "source", "--cache-dir", "file"]).with_code(1);
    run.says("opening the cache").says("--no-cache");
    place.run(["snapshot", "source", "--no-cache"]).with_code(0);
    place.check();
}
