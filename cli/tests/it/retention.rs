//! Forgetting, taking it back, protecting from it, and what rules are refused.

use crate::support::{Place, messages, text};
use std::fs;
use std::sync::Arc;
use stillpoint_store::backend::{Backend, LocalBackend};
use stillpoint_store::record::Secret;
use stillpoint_store::{Env, OpenOptions, Repository, SystemEnv, Timestamp};

/// A place with one snapshot for each of these times, oldest first.
fn place(times: &[&str]) -> Place {
    let place = Place::new();
    for (number, time) in times.iter().enumerate() {
        place.file("a", number.to_string().as_bytes());
        place.run(["snapshot", "source", "--time", time]).with_code(0);
    }
    place
}

const DAYS: [&str; 3] = ["2024-01-01 03:00:00", "2024-01-02 03:00:00", "2024-01-03 03:00:00"];

/// The decisions of a `forget --json`: whether each snapshot stays, and why, oldest first.
fn decisions(place: &Place, arguments: &[&str]) -> Vec<(bool, String)> {
    let mut all = vec!["forget", "--json", "--dry-run"];
    all.extend(arguments);
    let run = place.run(&all).with_code(0);
    let mut found: Vec<_> = messages(&run.stdout)
        .into_iter()
        .filter(|message| message["message_type"] == "forget")
        .map(|message| {
            let reasons = message["reasons"].as_array().unwrap().iter();
            let reasons: Vec<_> = reasons.map(|reason| reason.as_str().unwrap()).collect();
            let keep = message["keep"].as_bool().unwrap();
            (text(&message["snapshot"], "time"), (keep, reasons.join(", ")))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, decision)| decision).collect()
}

// What is forgotten is listed with its time limit, comes back whole, by name or all at once, and is gone after a prune
// without a window.
#[test]
fn forgotten_snapshots_come_back() {
    let place = place(&DAYS);
    let ids = place.ids();
    place.run(["forget", &ids[0], &ids[1]]).with_code(0).prints("undelete");
    assert_eq!(place.ids(), ids[2..]);
    let listed = place.run(["snapshots", "--forgotten", "--json"]).with_code(0);
    let listed = messages(&listed.stdout);
    let mut found: Vec<_> = listed.iter().map(|message| text(message, "id")).collect();
    found.sort();
    let mut expected = ids[..2].to_vec();
    expected.sort();
    assert_eq!(found, expected);
    assert!(text(&listed[0], "forgotten") < text(&listed[0], "recoverable_until"));
    place.run(["snapshots", "--forgotten", &ids[0]]).with_code(0).prints("1 forgotten snapshot");
    place.run(["prune"]).with_code(0);

    let dry = place.run(["undelete", &ids[0][..8], "-n"]).with_code(0);
    dry.prints("would bring back 1 snapshot");
    place.run(["undelete", &ids[0][..8], &ids[0]]).with_code(0).prints("brought back 1 snapshot");
    assert_eq!(place.ids(), [ids[0].clone(), ids[2].clone()]);
    place.run(["undelete", &ids[0]]).with_code(0).says("is not forgotten");
    place.run(["undelete", "--all", "--host", "nobody"]).with_code(0).prints("nothing to bring");
    let all = place.run(["undelete", "--all", "--json"]).with_code(0);
    assert_eq!(messages(&all.stdout).last().unwrap()["snapshots_undeleted"], 1);
    assert_eq!(place.ids(), ids);
    assert_eq!(fs::read(place.restore(&ids[0], "back").join("a")).unwrap(), b"0");
    place.check();

    place.run(["forget", &ids[0]]).with_code(0);
    place.run(["prune", "--keep-forgotten", "0s", "--grace", "0s"]).with_code(0);
    place.run(["undelete", &ids[0]]).with_code(1).says("snapshots --forgotten");
    place.run(["undelete"]).with_code(2).says("--all");
    assert_eq!(place.run(["snapshots", "--forgotten", "-q"]).with_code(0).stdout, "");
    place.check();
}

// A protected snapshot is shown as such, kept by every rule, and not forgotten by name until that is taken back.
#[test]
fn protected_snapshots_stay() {
    let place = place(&DAYS);
    let ids = place.ids();
    place.run(["protect", &ids[0], "latest~2"]).with_code(0).prints("protected 1 snapshot");
    place.run(["protect", &ids[0]]).with_code(0).prints("nothing was changed");
    place.run(["snapshots"]).with_code(0).prints("protected");
    let listed = messages(&place.run(["snapshots", "--json"]).stdout);
    assert_eq!(
        listed.iter().map(|one| one["protected"] == true).collect::<Vec<_>>(),
        [true, false, false]
    );
    for more in [&[][..], &["-n"]] {
        let mut all = vec!["forget", &ids[1], &ids[0]];
        all.extend(more);
        let refused = place.run(&all).with_code(1).says("is protected");
        refused.says(&format!("stillpoint unprotect {}", &ids[0][..8]));
    }
    assert_eq!(place.ids(), ids, "none of them went");
    let kept = [(true, "protected"), (false, ""), (true, "last snapshot")];
    let kept = kept.map(|(keep, why)| (keep, why.to_owned()));
    assert_eq!(decisions(&place, &["--keep-last", "1"]), kept);
    place.run(["forget", "--keep-last", "1"]).with_code(0);
    assert_eq!(place.ids(), [ids[0].clone(), ids[2].clone()]);
    let changed = place.run(["unprotect", "--json", &ids[0], "latest"]).with_code(0);
    let changed = messages(&changed.stdout).pop().unwrap();
    assert_eq!((&changed["protected"], &changed["snapshots_changed"]), (&false.into(), &1.into()));
    place.run(["forget", &ids[0]]).with_code(0);
    place.run(["protect", &ids[0]]).with_code(1).says("no snapshot matches");
    place.run(["protect"]).with_code(2);

    place.file("a", b"new");
    place.run(["snapshot", "source", "--protect"]).with_code(0);
    place.run(["forget", "latest"]).with_code(1).says("is protected");
    place.check();
}

// Rules may name snapshots and choose the time that counts; what is mistyped keeps everything.
#[test]
fn rules_of_our_own() {
    let place = place(&["2030-01-01 00:00:00", "2031-01-01 00:00:00", "2024-01-03 03:00:00"]);
    // By their own times two lie in the future and one is backdated; all were committed just now.
    let ids = place.ids();
    let words = |list: [&str; 3]| list.map(|why| (!why.is_empty(), why.to_owned()));
    let future = ["--keep-last", "1", "--allow-future"];
    let lies = "lies in the future";
    assert_eq!(decisions(&place, &future), words(["last snapshot", lies, lies]));
    let committed = ["--keep-last", "1", "--by", "committed"];
    assert_eq!(decisions(&place, &committed), words(["last snapshot", "", ""]));
    let shown = place.run(["forget", "-n", "--keep-last", "1", "--by", "committed"]).with_code(0);
    shown.prints("Committed");
    let named = ["--keep-id", &ids[1][..8], "--keep-id", &ids[0], "--by", "committed"];
    assert_eq!(decisions(&place, &named), words(["named", "named", ""]));
    let wrong = place.run(["forget", "--keep-last", "1", "--keep-id", "nothing"]).with_code(1);
    wrong.says("no snapshot matches");
    place.run(["forget", &ids[0], "--keep-id", &ids[1]]).with_code(2);
    place.run(["forget", "--keep-last", "1", "--max-forget", "all"]).with_code(2);
    assert_eq!(place.ids(), ids);
}

/// Rules are refused, in a dry run too, with this text, and nothing is forgotten.
#[track_caller]
fn refused(place: &Place, arguments: &[&str], message: &str, hint: &str) {
    let ids = place.ids();
    for more in [&[][..], &["-n"], &["--prune"]] {
        let run = place.run([arguments, more].concat()).with_code(1);
        run.says(message).says("nothing was forgotten").says(hint);
    }
    assert_eq!(place.ids(), ids);
}

// A snapshot from the future stops the rules, but not a person who names snapshots.
#[test]
fn the_future_is_refused() {
    let place = place(&["2024-01-01 00:00:00", "2024-01-02 00:00:00", "2999-01-01 00:00:00"]);
    let ids = place.ids();
    refused(&place, &["forget", "--keep-last", "1"], "lies in the future", "--allow-future");
    place.run(["forget", "--keep-last", "1", "--allow-future"]).with_code(0);
    assert_eq!(place.ids(), ids[1..]);
    place.run(["forget", "latest"]).with_code(0);
    place.run(["forget", "--keep-last", "1"]).with_code(0);
}

// Rules that take too much are refused, unless the limit is raised.
#[test]
fn too_much_is_refused() {
    let times: Vec<_> = (10..22).map(|day| format!("2024-01-{day} 03:00:00")).collect();
    let place = place(&times.iter().map(String::as_str).collect::<Vec<_>>());
    let last = ["forget", "--keep-last", "1"];
    refused(&place, &last, "11 of 12 snapshots, more than 90%", "--max-forget 100%");
    refused(&place, &["forget", "--keep-last", "9", "--max-forget", "2"], "more than 2", "--max");
    place.run(["forget", "--keep-last", "1", "--max-forget", "11"]).with_code(0);
    assert_eq!(place.ids().len(), 1);
    place.check();
}

/// The system's clock, some seconds ahead.
struct Ahead(i64);

impl Env for Ahead {
    fn now(&self) -> Timestamp {
        let now = SystemEnv.now();
        Timestamp { seconds: now.seconds + self.0, ..now }
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        SystemEnv.fill_random(bytes);
    }
}

// Another host with a clock that is ahead commits: from then on rules and expiry do not believe this one.
#[test]
fn a_clock_behind_the_repository_is_refused() {
    let place = place(&DAYS);
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(place.repository()));
    let secret = Secret::key_file(&fs::read(place.path("key")).unwrap());
    let options = OpenOptions::in_memory();
    let other = Repository::open(backend, Arc::new(Ahead(49 * 3600)), &secret, options).unwrap();
    let id = other.snapshots().unwrap()[0].id;
    other.forget(&[id]).unwrap();

    refused(&place, &["forget", "--keep-last", "1"], "2 days behind", "--ignore-clock");
    let prune = place.run(["prune"]).with_code(1).says("2 days behind").says("--ignore-clock");
    prune.says("nothing was removed");
    place.run(["prune", "--ignore-clock", "-n"]).with_code(0);
    // What is named, and what depends on no time, is nobody's mistake.
    place.run(["forget", "latest"]).with_code(0);
    place.run(["prune", "--keep-forgotten", "0s", "--grace", "0s"]).with_code(0);
    place.run(["forget", "--keep-last", "1", "--ignore-clock"]).with_code(0);
    place.check();
}

// The clock of this machine is compared with the time since boot: a jump is refused once, until somebody says that
// the clock is right.
#[test]
fn a_clock_that_jumped_is_refused() {
    if SystemEnv.uptime().is_none() {
        return crate::support::skipped("this machine does not tell how long it has been up");
    }
    let place = place(&DAYS);
    place.run(["prune"]).with_code(0);
    let memory = place.cache().join("clock");
    let believed = fs::read_to_string(&memory).unwrap();
    let words: Vec<&str> = believed.split_whitespace().collect();
    let earlier = words[2].parse::<i128>().unwrap() - 25 * 3600 * 1_000_000_000;
    let shifted = format!("{} {} {earlier}\n", words[0], words[1]);
    fs::write(&memory, &shifted).unwrap();

    let forget = ["forget", "--keep-last", "1"];
    refused(&place, &forget, "was set forward by 25 hours", "--ignore-clock");
    place
        .run(["prune"])
        .with_code(1)
        .says("was set forward by 25 hours")
        .says("nothing was removed");
    assert_eq!(fs::read_to_string(&memory).unwrap(), shifted, "a refusal believes nothing");
    place.run(["prune", "--ignore-clock"]).with_code(0);
    place.run(forget).with_code(0);
    // A record of another boot, or none that can be read, says nothing.
    for other in [format!("other {} {earlier}\n", words[1]), "damaged".into()] {
        fs::write(&memory, other).unwrap();
        place.run(["prune"]).with_code(0);
    }
    place.check();
}

// An empty tag stands for snapshots without any, in filters and in rules.
#[test]
fn no_tag_is_a_tag() {
    let place = place(&DAYS[..1]);
    place.run(["snapshot", "source", "--tag", "a,b"]).with_code(0);
    let ids = place.ids();
    let found = |tag: &str| place.run(["snapshots", "--json", "--tag", tag]).stdout.lines().count();
    assert_eq!([found(""), found("a"), found("b,a"), found("a,")], [1, 1, 1, 1]);
    place.run(["forget", "--keep-tag", "", "--group-by", ""]).with_code(0);
    assert_eq!(place.ids(), ids[..1]);
}
