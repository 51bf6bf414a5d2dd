//! `copy`: two places, two secrets, and what is said of both.

use crate::support::{Place, content, messages, noise, run, text};
use std::fs;
use std::process::Command;

/// Two repositories with secrets of their own; the first has snapshots.
struct Pair {
    from: Place,
    to: Place,
}

impl Pair {
    fn new() -> Self {
        let (from, to) = (Place::new(), Place::empty());
        to.secret("key", b"another secret of at least some length");
        to.run(["init"]).with_code(0);
        Self { from, to }
    }

    /// `copy` into the second repository.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.to.stillpoint(["copy"]);
        command.arg("--from-repo").arg(self.from.repository());
        command.arg("--from-key-file").arg(self.from.path("key")).args(arguments);
        command
    }

    fn copy(&self, arguments: &[&str]) -> crate::support::Run {
        run(&mut self.command(arguments))
    }

    /// What a copy says of the snapshots, in JSON: what was done, from where, to where.
    fn actions(&self, arguments: &[&str]) -> Vec<(String, String, Option<String>)> {
        let run = self.copy(&[arguments, &["--json"]].concat()).with_code(0);
        let all = messages(&run.stdout);
        assert_eq!(all.last().unwrap()["message_type"], "summary");
        let copies = all.iter().filter(|message| message["message_type"] == "copy");
        copies
            .map(|one| {
                let there = one["snapshot_id"].as_str().map(str::to_owned);
                (text(one, "action"), text(one, "source"), there)
            })
            .collect()
    }
}

/// What a snapshot of a place restores to.
fn restored(
    place: &Place,
    id: &str,
    source: &Place,
    into: &str,
) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let spec = format!("{id}:{}", source.source().display());
    place.run(["restore", &spec, "--target", into]).with_code(0);
    content(&place.path(into))
}

// Everything, then what is new, then nothing; each comes out as it went in, and says what it is a copy of.
#[test]
fn copies_are_incremental() {
    let pair = Pair::new();
    let (from, to) = (&pair.from, &pair.to);
    from.file("a", &noise(1, 300_000));
    from.file("dir/b", b"small");
    from.run(["snapshot", "source", "--host", "web1", "--tag", "nightly"]).with_code(0);
    from.file("a", &noise(2, 300_000));
    from.run(["snapshot", "source", "--host", "web2", "--protect"]).with_code(0);
    let ids = from.ids();
    let would = pair.actions(&["--dry-run"]);
    assert_eq!(would.iter().map(|one| one.0.as_str()).collect::<Vec<_>>(), ["would_copy"; 2]);
    assert_eq!(to.ids().len(), 0);
    let first = pair.actions(&["--host", "web1"]);
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].0.as_str(), &first[0].1), ("copied", &ids[0]));
    let second = pair.actions(&["--all"]);
    let words: Vec<_> = second.iter().map(|one| one.0.as_str()).collect();
    assert_eq!(words, ["there", "copied"]);
    let third = pair.copy(&[&ids[1][..8]]).with_code(0);
    third.prints("is there already").prints("nothing was copied");

    let list = messages(&to.run(["snapshots", "--json"]).stdout);
    for (copy, id) in list.iter().zip(&ids) {
        assert_eq!(text(&copy["original"], "snapshot"), *id);
        let short = &id[..8];
        let name = text(copy, "id");
        assert_eq!(restored(to, &name, from, short), restored(from, id, from, short));
    }
    assert_eq!(list[0]["hostname"], "web1");
    assert_eq!(list[0]["tags"][0], "nightly");
    assert_eq!(list[1]["protected"], true);
    to.check();
    from.check();
    // The copies serve as parents, as far as anybody can tell by the paths.
    let next = to.run(["snapshot", "--json", from.source().to_str().unwrap(), "--host", "web2"]);
    let next = messages(&next.with_code(0).stdout).pop().unwrap();
    assert_eq!(next["files_unmodified"], 2);
}

// Both secrets are asked for by their own names; each that is wrong or missing says which it is.
#[test]
fn each_side_has_its_secret() {
    let pair = Pair::new();
    pair.from.file("a", b"1");
    pair.from.snapshot();
    let swapped = |flag: &str, place: &Place| {
        let key = place.path("key").display().to_string();
        let mut command = pair.to.stillpoint(["copy"]);
        command.arg("--from-repo").arg(pair.from.repository());
        if flag == "--key-file" {
            command.arg("--from-key-file").arg(pair.from.path("key"));
        }
        run(command.args([flag, &key])).with_code(12)
    };
    let source = swapped("--from-key-file", &pair.to);
    source.says("repository to copy from").says("wrong passphrase").says("--from-password-file");
    let own = swapped("--key-file", &pair.from);
    assert!(!own.says("wrong passphrase").stderr.contains("copy from"));

    let none = run(pair.to.stillpoint(["copy"]).env("STILLPOINT_FROM_PASSWORD", "x")).with_code(2);
    none.says("--from-repo").says("STILLPOINT_FROM_REPOSITORY");
    let mut nowhere = pair.to.stillpoint(["copy", "--from-repo", "nowhere"]);
    run(&mut nowhere).with_code(10).says("--from-repo");
    let mut two = pair.command(&["--from-password-file", "x"]);
    run(&mut two).with_code(2).says("--from-password-file");
    let mut silent = pair.to.stillpoint(["copy", "--from-repo"]);
    run(silent.arg(pair.from.repository())).with_code(2).says("STILLPOINT_FROM_PASSWORD");
    let same = run(pair.from.stillpoint(["copy"]).args([
        "--from-repo",
        pair.from.repository().to_str().unwrap(),
        "--from-key-file",
        pair.from.path("key").to_str().unwrap(),
    ]));
    same.with_code(2).says("the same repository");

    // By the environment alone.
    let mut command = pair.to.stillpoint(["copy"]);
    command.env("STILLPOINT_FROM_REPOSITORY", pair.from.repository());
    command.env("STILLPOINT_FROM_KEY_FILE", pair.from.path("key"));
    run(&mut command).with_code(0).prints("copied 1 snapshot");
    pair.to.check();
}

// A damaged file is named, its snapshot is left out, the others are copied, and the code is 3.
#[test]
fn damage_is_3() {
    let pair = Pair::new();
    let (from, to) = (&pair.from, &pair.to);
    let packs = || -> Vec<_> {
        let all = content(&from.repository()).into_iter();
        all.filter(|(path, _)| path.starts_with("packs")).collect()
    };
    from.file("a", &noise(1, 300_000));
    from.snapshot();
    let before = packs();
    from.file("lost", &noise(2, 300_000));
    from.snapshot();
    for (path, mut bytes) in packs() {
        if bytes.len() > 300_000 && before.iter().all(|(known, _)| *known != path) {
            bytes[200_000] ^= 1;
            let path = from.repository().join(path);
            fs::remove_file(&path).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    fs::remove_file(from.source().join("lost")).unwrap();
    from.snapshot();
    let copied = pair.copy(&[]).with_code(3);
    copied.says("source/lost").prints("was not copied").prints("copied 2 snapshots");
    assert_eq!(to.ids().len(), 2);
    to.check();
    let json = pair.copy(&["--json"]).with_code(3);
    messages(&json.stderr);
    let summary = messages(&json.stdout).pop().unwrap();
    assert_eq!(
        (&summary["snapshots_there"], &summary["snapshots_refused"]),
        (&2.into(), &1.into())
    );
}
