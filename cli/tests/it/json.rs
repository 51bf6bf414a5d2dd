//! `--json`: every line of either stream is an object with `message_type`, whatever happens.

use crate::support::{Place, Run, bare, messages, noise, run, text};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Both streams are pure; gives the messages of standard output.
#[track_caller]
fn pure(run: &Run) -> Vec<serde_json::Value> {
    messages(&run.stderr);
    messages(&run.stdout)
}

#[track_caller]
fn types(run: &Run) -> Vec<String> {
    pure(run).iter().map(|message| text(message, "message_type")).collect()
}

fn place() -> Place {
    let place = Place::new();
    place.file("a", b"first");
    place.file("dir/b", &noise(1, 100_000));
    place.snapshot();
    place.file("a", b"second, and longer");
    place.file("c", b"new");
    place.snapshot();
    place
}

// Each command, with each of its usual options, ends in a message that says what it did.
#[test]
fn every_command_is_pure() {
    let place = place();
    place.secret("next", b"battery staple");
    let check = |arguments: &[&str], last: &str| {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let run = place.run(&all).with_code(0);
        assert_eq!(types(&run).last().map(String::as_str), Some(last), "{arguments:?}");
    };
    check(&["version"], "version");
    check(&["snapshots"], "snapshot");
    check(&["ls", "latest"], "node");
    check(&["ls", "-l", "latest"], "node");
    check(&["find", "b"], "match");
    check(&["diff", "latest~1", "latest"], "statistics");
    check(&["snapshot", "source", "-vv"], "summary");
    check(&["snapshot", "source", "--dry-run"], "summary");
    check(&["restore", "latest", "--target", "back", "-vv"], "summary");
    check(&["restore", "latest", "--target", "back", "--dry-run"], "summary");
    check(&["check", "--read-data"], "summary");
    check(&["repair", "--dry-run"], "summary");
    check(&["repair", "index"], "summary");
    check(&["stats"], "stats");
    check(&["parity", "add", "--dry-run"], "summary");
    check(&["parity", "add"], "summary");
    check(&["parity", "status"], "summary");
    check(&["parity", "remove"], "summary");
    check(&["key", "list"], "key");
    check(&["key", "add", "--new-password-file", "next"], "key_added");
    check(&["forget", "--keep-last", "1", "--dry-run"], "summary");
    check(&["forget", "--keep-last", "1"], "summary");
    check(&["snapshots", "--forgotten"], "snapshot");
    check(&["undelete", "--all", "--dry-run"], "summary");
    check(&["protect", "latest"], "summary");
    check(&["unprotect", "latest"], "summary");
    check(&["prune", "--dry-run"], "summary");
    check(&["prune"], "summary");
    check(&["man", "--out", "man"], "man");
    let fresh = Place::empty();
    let init = fresh.run(["init", "--json"]).with_code(0);
    assert_eq!(types(&init), ["initialized"]);
}

// Errors of every kind are messages too, on standard error, with code and hint.
#[test]
fn errors_are_messages() {
    let place = place();
    let check = |run: Run, code: i32| {
        let run = run.with_code(code);
        assert_eq!(run.stdout, "");
        let errors = messages(&run.stderr);
        let last = errors.last().expect("an error is told");
        assert_eq!(last["message_type"], "exit_error");
        assert_eq!(last["code"], code);
        assert!(!text(last, "message").is_empty());
    };
    check(place.run(["--json", "ls", "nothing"]), 1);
    check(place.run(["--json", "frobnicate"]), 2);
    check(place.run(["--json", "snapshot"]), 2);
    check(place.run(["--json", "restore"]), 2);
    check(run(bare().args(["--json", "snapshots"])), 2);
    check(Place::empty().run(["--json", "snapshots"]), 10);
    place.secret("wrong", b"wrong");
    check(place.run(["--json", "snapshots", "--key-file", "wrong"]), 12);
}

// A file that cannot be read is one error message, and the summary counts it.
#[test]
fn problems_are_messages() {
    let place = place();
    let run = place.run(["--json", "snapshot", "source", "not-there"]).with_code(3);
    let problems: Vec<_> =
        messages(&run.stderr).into_iter().filter(|m| m["message_type"] == "error").collect();
    assert_eq!(problems.len(), 1, "{run:#?}");
    assert!(text(&problems[0], "path").ends_with("not-there"));
    let summary = pure(&run).pop().unwrap();
    assert_eq!(summary["error_count"], 1);
    assert_eq!(text(&summary, "snapshot_id").len(), 32);
}

// Names of any bytes come through exactly, and nothing that a terminal obeys is in the output.
#[test]
fn names_are_exact_and_safe() {
    let place = Place::new();
    let odd = OsStr::from_bytes(b"\xff\x1b[2J\n\xc2\x9b");
    place.file(odd, b"x");
    place.snapshot();
    let run = place.run(["ls", "--json", "latest"]).with_code(0);
    assert!(!run.stdout.chars().any(|c| c.is_control() && c != '\n'), "{:?}", run.stdout);
    let node = pure(&run).pop().unwrap();
    let exact = text(&node, "path_bytes");
    let expected: String = odd.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(exact.ends_with(&expected), "{exact}");

    let plain = place.run(["ls", "latest"]).with_code(0);
    assert!(!plain.stdout.chars().any(|c| c.is_control() && c != '\n'), "{:?}", plain.stdout);
    assert!(plain.stdout.contains("\\xff\\x1b[2J\\n"), "{:?}", plain.stdout);
}

// Long work reports progress while it goes on.
#[test]
fn status_messages_come_while_work_goes_on() {
    use std::io::{BufRead, BufReader, Write};
    let place = Place::new();
    let mut child = place
        .stillpoint(["--json", "snapshot", "--stdin"].map(OsString::from))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&noise(1, 1 << 20)).unwrap();
    // Standard input stays open: the next line can only be a status.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let status = messages(&lines.next().unwrap().unwrap()).pop().unwrap();
    assert_eq!(status["message_type"], "status");
    drop(stdin);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(messages(&rest.join("\n")).last().unwrap()["message_type"], "summary");
    assert!(child.wait().unwrap().success());
}
