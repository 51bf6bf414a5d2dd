//! `capture`: what is saved is what was there while the application held still, and the application is let go.

use crate::support::{Place, content, is_root, messages, noise, run, skipped};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use stillpoint_testkit::bitbucket::{Behaviour, Simulator};
use stillpoint_testkit::with_label;

/// What must be unlocked by itself is, in this time.
const SOON: Duration = Duration::from_secs(5);

/// A capture whose lock and unlock are scripts of the place, run in its directory.
fn hooked(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.stillpoint(["capture", "source", "--lock", "hooks"]);
    command.args(["--lock-command", "sh -e lock.sh", "--unlock-command", "sh -e unlock.sh"]);
    command.env("STILLPOINT_STATE_DIR", place.path("state")).args(arguments);
    command
}

/// A capture of an instance.
fn locking(place: &Place, simulator: &Simulator, arguments: &[&str]) -> Command {
    let mut command = place.stillpoint(["capture", "source", "--lock", "bitbucket"]);
    command.args(["--url", &simulator.url(), "--user", "admin"]).args(arguments);
    command.env("STILLPOINT_LOCK_PASSWORD", "secret");
    command.env("STILLPOINT_STATE_DIR", place.path("state"));
    command
}

fn newest(place: &Place) -> serde_json::Value {
    let list = place.run(["snapshots", "--json"]).with_code(0);
    messages(&list.stdout).pop().expect("a snapshot")
}

/// Files and directories that the changes of the last moment need.
fn fill(place: &Place) {
    for number in 0..40 {
        place.file(format!("dir/{}/file-{number}", number % 4), &noise(number, 2000));
    }
    place.file("same-size", b"before");
    place.file("gone", b"gone");
    place.file("cut", &noise(50, 9000));
    place.file("linked", b"linked before");
    place.file("outer", b"outer before");
    fs::hard_link(place.source().join("linked"), place.source().join("dir/link")).unwrap();
    fs::hard_link(place.source().join("outer"), place.path("outside")).unwrap();
}

/// What happens right before the application holds still, each in a way that a walk by times or by names may miss; what it
/// left is kept in `expected`.
const LOCK: &str = "
cd source
cp -p same-size ../times; printf after_ > same-size; touch -r ../times same-size
mv dir/1 dir/moved; mkdir -p dir/1; printf new > dir/1/file-1
printf 'linked after' > dir/link
printf 'outer after' > ../outside
rm gone; mkdir gone; printf below > gone/below
: > cut
printf appended >> dir/2/file-2
ln -sf same-size symlink
cd ..
rm -rf expected; cp -a source expected
";

/// And right after it goes on.
const UNLOCK: &str = "
cd source
for file in same-size dir/moved/* dir/link gone/below cut dir/2/*; do printf later >> $file; done
rm -rf dir/3; printf late > late; printf later > ../outside
";

// Every kind of change right before the moment is in the snapshot, nothing of what came right after is; by the journal and
// by a walk.
#[test]
fn the_moment_is_what_is_saved() {
    for changes in ["journal", "walk"] {
        if changes == "journal" && !is_root() {
            skipped("the journal needs CAP_SYS_ADMIN");
            continue;
        }
        with_label(changes.to_owned(), || {
            let place = Place::new();
            fill(&place);
            fs::write(place.path("lock.sh"), LOCK).unwrap();
            fs::write(place.path("unlock.sh"), UNLOCK).unwrap();
            let run = run(&mut hooked(&place, &["--changes", changes, "--json"])).with_code(0);
            let summary = messages(&run.stdout).pop().unwrap();
            let capture = &summary["capture"];
            assert_eq!(
                (&capture["level"], &capture["changes"]),
                (&"application".into(), &changes.into())
            );
            let parts = ["request_ms", "drain_ms", "freeze_ms", "release_ms"];
            let parts: f64 = parts.iter().map(|part| capture[part].as_f64().unwrap()).sum();
            assert!(parts > 0.0 && parts <= capture["locked_ms"].as_f64().unwrap() + 0.01);
            assert!(capture["residual_files"].as_u64().unwrap() >= 10);
            let back = place.restore("latest", "back");
            assert_eq!(content(&back), content(&place.path("expected")));
            assert_eq!(newest(&place)["capture"]["level"], "application");
            assert_eq!(place.ids().len(), 1);
            let drafts = place.run(["snapshots", "--forgotten", "--json"]).with_code(0);
            assert_eq!(messages(&drafts.stdout), [] as [serde_json::Value; 0]);
            place.check();
        });
    }
}

// A page that another process changed through a shared mapping, without any call since, is saved as it was.
#[test]
fn shared_mappings_are_seen() {
    if !is_root() {
        return skipped("the journal needs CAP_SYS_ADMIN");
    }
    let place = Place::new();
    let mapped = place.file("mapped", &[b'a'; 8192]);
    let fifo = |name: &str| {
        let path = place.path(name);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            kind,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        path
    };
    let (asked, done) = (fifo("asked"), fifo("done"));
    fs::write(place.path("lock.sh"), "echo > asked; read line < done").unwrap();
    fs::write(place.path("unlock.sh"), "true").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::OpenOptions::new().read(true).write(true).open(&mapped).unwrap();
            // SAFETY: nobody else changes the file's length while it is mapped.
            let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap();
            drop(file);
            fs::read(&asked).unwrap();
            map[4096..4100].copy_from_slice(b"HERE");
            fs::write(&done, "go\n").unwrap();
            // Mapped until the capture is over.
            fs::read(&asked).unwrap();
        });
        run(&mut hooked(&place, &["--changes", "journal"])).with_code(0);
        fs::write(&asked, "end\n").unwrap();
    });
    let back = place.restore("latest", "back");
    assert_eq!(&fs::read(back.join("mapped")).unwrap()[4094..4102], b"aaHEREaa");
}

// Whatever ends a capture, and whenever: the instance is unlocked soon, nothing false is kept, and the next one works.
#[test]
fn the_instance_is_unlocked_whatever_happens() {
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        for phase in ["lock", "drain", "freeze", "release", "finish"] {
            with_label(format!("{signal:?} in {phase}"), || end_in(signal, phase));
        }
    }
}

fn end_in(signal: Signal, phase: &str) {
    let place = Place::new();
    (0..30).for_each(|number| drop(place.file(format!("{number}"), &noise(number, 10_000))));
    let delay = Some(Duration::from_millis(200));
    let behaviour = Behaviour { db_delay: delay, scm_delay: delay, ..Behaviour::default() };
    let simulator = Simulator::start(behaviour).unwrap();
    let mut command = locking(&place, &simulator, &["--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let wanted = format!("\"phase\":\"{phase}\",\"event\":\"began\"");
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.any(|line| line.contains(&wanted)), "the phase never began");
    kill_process(Pid::from_child(&child), signal).unwrap();
    lines.for_each(drop);
    let status = child.wait().unwrap();
    let unlocked = simulator.wait_until(SOON, |state| !state.is_locked);
    assert!(unlocked.is_some(), "still locked: {:#?}", simulator.state());
    let snapshots = place.ids();
    match status.code() {
        Some(0) => assert_eq!(snapshots.len(), 1),
        // A snapshot that was committed before the signal came is whole; a failure says that there is none.
        None => {}
        Some(code) => {
            assert!([130, 143].contains(&code), "{status}");
            assert_eq!(snapshots, [] as [String; 0]);
        }
    }
    for snapshot in &snapshots {
        assert_eq!(content(&place.restore(snapshot, "killed")), content(&place.source()));
    }
    run(&mut locking(&place, &simulator, &[])).with_code(0);
    assert!(!simulator.state().is_locked);
    assert_eq!(content(&place.restore("latest", "back")), content(&place.source()));
    place.check();
}

// An application that is never ready is let go at the end of the budget, with or without a snapshot, and the exit code says so.
#[test]
fn the_budget_is_kept() {
    for (how, snapshots) in [("abort", 0), ("degrade", 1)] {
        let place = Place::new();
        place.file("file", b"content");
        let never = Behaviour { db_delay: None, ..Behaviour::default() };
        let simulator = Simulator::start(never).unwrap();
        let arguments = ["--lock-budget", "500ms", "--on-budget", how];
        let run = run(&mut locking(&place, &simulator, &arguments)).with_code(4);
        let state = simulator.state();
        assert!(!state.is_locked, "{how}: {run:#?}");
        assert!(state.locked[0] < Duration::from_secs(3), "{how}: {:?}", state.locked);
        assert_eq!(place.ids().len(), snapshots, "{how}");
        if how == "degrade" {
            assert_eq!(newest(&place)["capture"]["level"], "none");
            assert_eq!(content(&place.restore("latest", "back")), content(&place.source()));
        }
    }
}

// Who is locked by somebody else is not touched; what cannot work is said before anything is locked.
#[test]
fn refusals_come_before_the_lock() {
    let place = Place::new();
    place.file("file", b"content");
    let simulator = Simulator::start(Behaviour::default()).unwrap();
    fs::write(place.path("lock.sh"), "exit 75").unwrap();
    fs::write(place.path("unlock.sh"), "touch unlocked").unwrap();
    run(&mut hooked(&place, &[])).with_code(11).says("locked by");
    assert!(!place.path("unlocked").exists());
    let wrong = |arguments: &[&str], code, says: &str| {
        run(&mut locking(&place, &simulator, arguments)).with_code(code).says(says);
        assert!(simulator.state().locked.is_empty(), "{arguments:?}");
    };
    wrong(&["--database", "oracle://x"], 1, "oracle");
    wrong(&["--database", "postgresql://nobody@127.0.0.1:1/none"], 1, "127.0.0.1");
    wrong(&["--lock-budget", "0s"], 2, "lock-budget");
    let mut bad = locking(&place, &simulator, &[]);
    run(bad.env("STILLPOINT_LOCK_PASSWORD", "wrong")).with_code(1);
    assert!(simulator.state().locked.is_empty());
    let mut bare = place.stillpoint(["capture", "source", "--lock", "bitbucket"]);
    run(bare.env("STILLPOINT_STATE_DIR", place.path("state"))).with_code(2).says("--user");
    run(&mut place.stillpoint(["capture"])).with_code(2).says("no path");
    assert_eq!(place.ids(), [] as [String; 0]);
}
