//! Exit codes, hints, and streams that are closed.

use crate::support::{Place, bare, is_root, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

// No repository: 10, and a hint how to get one; asked for before any passphrase.
#[test]
fn no_repository_is_10() {
    let place = Place::empty();
    let run = place.run(["snapshots"]).with_code(10);
    run.says("stillpoint: no repository at").says("hint: ").says("stillpoint init");
}

// Wrong key file and wrong passphrase: 12, and nothing of the secret is shown.
#[test]
fn wrong_secret_is_12() {
    let place = Place::new();
    place.secret("other", b"another secret of some length");
    let with_key = place.run(["snapshots", "--key-file", "other"]).with_code(12);
    assert!(!with_key.says("wrong passphrase or key file").stderr.contains("another secret"));
    place.run(["snapshots", "--password-file", "other"]).with_code(12).says("hint: ");
}

// A second init changes nothing and says so.
#[test]
fn init_twice_is_refused() {
    let place = Place::new();
    place.run(["init"]).with_code(1).says("already exists");
    place.check();
}

// Mistakes on the command line: 2.
#[test]
fn usage_is_2() {
    let place = Place::new();
    let check = |arguments: &[&str]| {
        place.run(arguments).with_code(2);
    };
    check(&["snapshot"]);
    check(&["frobnicate"]);
    check(&["forget"]);
    check(&["snapshot", "source", "--compression", "best"]);
    check(&["restore", "latest"]);
    check(&["snapshots", "-p", "a", "--key-file", "b"]);
    run(bare().arg("snapshots")).with_code(2).says("STILLPOINT_REPOSITORY");
}

// A path that does not exist is named, the rest is saved, and the code is 3.
#[test]
fn a_missing_path_is_3() {
    let place = Place::new();
    place.file("kept", b"content");
    let run = place.run(["snapshot", "source", "not-there"]).with_code(3);
    run.says("not-there");
    assert_eq!(fs::read(place.restore("latest", "back").join("kept")).unwrap(), b"content");
    place.check();
}

// Nothing at all to save is a failure, not an empty snapshot.
#[test]
fn only_missing_paths_take_no_snapshot() {
    let place = Place::new();
    let run = place.run(["snapshot", "not-there"]);
    assert!(matches!(run.code, Some(1..=3)), "{run:#?}");
    assert_eq!(place.ids().len(), 0);
}

// A file that may not be read is named, the rest is saved, and the code is 3.
#[test]
fn an_unreadable_file_is_3() {
    let place = Place::new();
    place.file("kept", b"content");
    let closed = place.file("closed", b"secret");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = place.stillpoint(["snapshot", "source"]);
    if is_root() {
        // Root may read everything: become somebody who may not, and own the rest of the place, the program included.
        let nobody = 65534;
        let program = place.path("program");
        fs::copy(command.get_program(), &program).unwrap();
        let mut copy = Command::new(&program);
        copy.args(command.get_args()).current_dir(place.path(""));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => copy.env(name, value),
                None => copy.env_remove(name),
            };
        }
        command = copy;
        for path in walk(&place.path("")) {
            if path != closed {
                std::os::unix::fs::chown(&path, Some(nobody), Some(nobody)).unwrap();
            }
        }
        command.uid(nobody).gid(nobody);
    }
    let run = run(&mut command).with_code(3);
    assert_eq!(run.stderr.matches("closed").count(), 1, "{run:#?}");
    assert!(place.restore("latest", "back").join("kept").exists());
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.is_dir() {
            found.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

// A snapshot that is not there: the name is repeated and the way to find the right one is told.
#[test]
fn an_unknown_snapshot_is_1() {
    let place = Place::new();
    place.run(["ls", "abcdef"]).with_code(1).says("abcdef").says("stillpoint snapshots");
    place.run(["ls", "latest"]).with_code(1);
}

// `ls | head`: when the reader goes away the command ends quietly.
#[test]
fn a_closed_pipe_ends_quietly() {
    let place = Place::new();
    for number in 0..3000 {
        place.file(format!("a-rather-long-name-of-a-file-number-{number}"), b"");
    }
    place.snapshot();
    let mut child = place
        .stillpoint(["ls", "latest"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

// No core dump may hold keys, whatever the user's limits are.
#[test]
fn core_dumps_are_off() {
    let place = Place::new();
    let limits = place.path("limits");
    let command = format!("limits=cat /proc/self/limits > {}; echo", limits.display());
    place.run(["snapshot", "--command", &command]).with_code(0);
    let limits = fs::read_to_string(limits).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let values: Vec<_> =
        line.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).collect();
    assert!(values.len() == 2 && values.iter().all(|value| *value <= 1), "{line}");
}

// What init creates is for its owner alone.
#[test]
fn a_repository_is_private() {
    let place = Place::new();
    place.file("a", b"content");
    place.snapshot();
    for path in walk(&place.repository()).into_iter().chain(walk(&place.path("cache"))) {
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

// A repository of a newer format is unsupported, never called damaged.
#[test]
fn a_newer_format_is_unsupported() {
    let place = Place::new();
    let path = place.repository().join("config");
    let config = fs::read(&path).unwrap();
    // Magic, version, body, checksum of all that: FORMAT.md.
    let mut content = config[..config.len() - 32].to_vec();
    content[8] = 23;
    let checksum = blake3::hash(&content);
    content.extend_from_slice(checksum.as_bytes());
    fs::remove_file(&path).unwrap();
    fs::write(&path, content).unwrap();
    let run = place.run(["snapshots"]).with_code(1);
    let run = run.says("format version 23").says("newer version of stillpoint");
    assert!(!run.stderr.contains("config is damaged"), "{run:#?}");
}
