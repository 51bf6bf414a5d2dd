//! Passphrases and key files, from everywhere they may come from.

use crate::support::{Place, Run, bare, run};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// A repository that opens with the passphrase `horse stable`.
fn place() -> Place {
    let place = Place::empty();
    place.secret("pass", b"horse stable\n");
    run(without_secret(&place).args(["init", "-p", "pass"])).with_code(0);
    place
}

fn without_secret(place: &Place) -> Command {
    let mut command = place.stillpoint::<&str>([]);
    command.env_remove("STILLPOINT_KEY_FILE");
    command
}

// Each way to give the passphrase opens the repository.
#[test]
fn every_source_opens() {
    let place = place();
    let check = |set: &dyn Fn(&mut Command)| {
        let mut command = without_secret(&place);
        command.args(["snapshots", "-q"]);
        set(&mut command);
        run(&mut command).with_code(0);
    };
    check(&|command| {
        command.args(["--password-file", "pass"]);
    });
    check(&|command| {
        command.args(["--password-command", "echo horse stable"]);
    });
    check(&|command| {
        command.env("STILLPOINT_PASSWORD", "horse stable");
    });
    check(&|command| {
        command.env("STILLPOINT_PASSWORD_FILE", place.path("pass"));
    });
    check(&|command| {
        command.env("STILLPOINT_PASSWORD_COMMAND", "cat pass");
    });
    let mut command = without_secret(&place);
    command.args(["snapshots", "--password-fd", "0"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"horse stable\n").unwrap();
    assert!(child.wait().unwrap().success());
}

// A flag beats the environment; two variables that disagree are a mistake.
#[test]
fn a_flag_beats_the_environment() {
    let place = place();
    let mut command = without_secret(&place);
    command.env("STILLPOINT_PASSWORD", "wrong").args(["snapshots", "-p", "pass"]);
    run(&mut command).with_code(0);
    let mut command = without_secret(&place);
    command.env("STILLPOINT_PASSWORD", "a").env("STILLPOINT_PASSWORD_FILE", "pass");
    run(command.arg("snapshots")).with_code(2);
}

// Without a secret and without a terminal the command says what is missing, and does not wait.
#[test]
fn nobody_to_ask() {
    let place = place();
    run(without_secret(&place).arg("snapshots")).with_code(2).says("no passphrase given");
}

// Files open to others are refused, with the command that closes them.
#[test]
fn open_files_are_refused() {
    let place = place();
    fs::set_permissions(place.path("pass"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = run(without_secret(&place).args(["snapshots", "-p", "pass"])).with_code(2);
    refused.says("open to every user").says("chmod 600 pass");
    fs::set_permissions(place.path("pass"), fs::Permissions::from_mode(0o640)).unwrap();
    run(without_secret(&place).args(["snapshots", "-p", "pass"])).with_code(0).says("chmod 600");
}

// A passphrase is never accepted as an argument.
#[test]
fn there_is_no_flag_for_a_passphrase() {
    let help: Run = run(bare().args(["snapshot", "--help"])).with_code(0);
    assert!(!help.stdout.contains("--password "), "{}", help.stdout);
    run(bare().args(["snapshots", "--password", "x"])).with_code(2);
}

// Secrets can be added, changed and removed, and the last one stays.
#[test]
fn keys_change_without_touching_data() {
    let place = Place::new();
    place.file("a", b"content");
    place.snapshot();
    place.secret("pass", b"horse stable");
    place.secret("next", b"battery staple");
    place.run(["key", "add", "--new-password-file", "pass"]).with_code(0);
    place.run(["key", "list"]).with_code(0).prints("passphrase").prints("key file");
    run(without_secret(&place).args(["snapshots", "-p", "pass"])).with_code(0);

    let passwd = ["key", "passwd", "-p", "pass", "--new-password-file", "next"];
    run(without_secret(&place).args(passwd)).with_code(0);
    run(without_secret(&place).args(["snapshots", "-p", "pass"])).with_code(12);
    run(without_secret(&place).args(["snapshots", "-p", "next"])).with_code(0).prints("1 snapshot");

    let ids: Vec<String> = slots(&place, false);
    let own: Vec<String> = slots(&place, true);
    place.run(["key", "remove", &own[0]]).with_code(1).says("opened the repository");
    place.run(["key", "remove", &ids[0]]).with_code(0);
    run(without_secret(&place).args(["snapshots", "-p", "next"])).with_code(12);
    place.run(["key", "remove", &own[0]]).says("only key");
    place.check();
}

// A rotation keeps everything readable with the new secret, closes the old ones, and asks before others are dropped.
#[test]
fn keys_rotate() {
    let place = Place::new();
    place.file("a", b"content");
    place.snapshot();
    place.secret("pass", b"horse stable");
    place.secret("next", b"battery staple");
    place.run(["key", "add", "--new-password-file", "pass"]).with_code(0);
    let refused = place.run(["key", "rotate"]).with_code(1);
    refused.says("cannot be wrapped for other").says("--drop-other-keys");
    run(without_secret(&place).args(["snapshots", "-p", "pass"])).with_code(0);

    let rotate = ["key", "rotate", "--new-password-file", "next", "--drop-other-keys", "--json"];
    let rotated = place.run(rotate).with_code(0);
    let message = &crate::support::messages(&rotated.stdout)[0];
    assert_eq!(message["message_type"], "key_rotated");
    assert_eq!(message["generation"], 1);
    assert_eq!(message["dropped"].as_array().unwrap().len(), 1);
    place.run(["snapshots"]).with_code(12);
    run(without_secret(&place).args(["snapshots", "-p", "pass"])).with_code(12);

    fs::rename(place.path("next"), place.path("pass")).unwrap();
    let with_pass = |arguments: &[&str]| {
        let mut command = without_secret(&place);
        run(command.args(arguments).args(["-p", "pass"]))
    };
    with_pass(&["snapshot", "source"]).with_code(0);
    with_pass(&["key", "rotate"]).with_code(0).prints("generation 2");
    with_pass(&["key", "list"]).with_code(0).prints("  2  ");
    with_pass(&["snapshots"]).with_code(0).prints("2 snapshots");
    with_pass(&["check", "--read-data"]).with_code(0);
    let spec = format!("latest:{}", place.source().display());
    with_pass(&["restore", &spec, "--target", "back"]).with_code(0);
    assert_eq!(fs::read(place.path("back/a")).unwrap(), b"content");
}

// The slot from before a rotation, put back, opens nothing; the error says why.
#[test]
fn a_slot_from_before_a_rotation_opens_nothing() {
    let place = Place::new();
    place.file("a", b"content");
    place.snapshot();
    let keys = place.repository().join("keys");
    let slot = fs::read_dir(&keys).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&slot).unwrap();
    place.secret("next", b"0123456789abcdef0123456789abcdeF");
    place.run(["key", "rotate", "--new-key-file", "next"]).with_code(0);
    fs::write(&slot, bytes).unwrap();
    place.run(["snapshots"]).with_code(12).says("not in use").says("replaced by a rotation");
    let list = run(without_secret(&place).args(["key", "list", "--key-file", "next"]));
    list.with_code(0).prints("outdated");
}

fn slots(place: &Place, current: bool) -> Vec<String> {
    let list = place.run(["key", "list", "--json"]).with_code(0);
    crate::support::messages(&list.stdout)
        .iter()
        .filter(|message| message["current"] == current)
        .map(|message| crate::support::text(message, "id"))
        .collect()
}
