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

fn slots(place: &Place, current: bool) -> Vec<String> {
    let list = place.run(["key", "list", "--json"]).with_code(0);
    crate::support::messages(&list.stdout)
        .iter()
        .filter(|message| message["current"] == current)
        .map(|message| crate::support::text(message, "id"))
        .collect()
}
