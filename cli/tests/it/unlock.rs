//! Applications that captures locked: the binary as the watchdog, and `unlock` for what was left behind.

use crate::support::{Place, messages};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::time::Duration;
use stillpoint_capture::lock::bitbucket::{Bitbucket, BitbucketOptions};
use stillpoint_capture::lock::login::{Login, PasswordSource};
use stillpoint_capture::lock::web::WebOptions;
use stillpoint_capture::lock::{Keeper, LockAdapter};
use stillpoint_testkit::bitbucket::{Behaviour, Simulator};

const LONG: Duration = Duration::from_secs(60);

fn locked(place: &Place, simulator: &Simulator) -> Bitbucket {
    place.secret("password", b"secret\n");
    let options = BitbucketOptions {
        url: simulator.url(),
        login: Login {
            user: "admin".into(),
            password: PasswordSource::File(place.path("password")),
        },
        web: WebOptions::default(),
        exclude_repositories: Vec::new(),
    };
    let mut adapter = Bitbucket::new(options, keeper(place), std::sync::Arc::new(|_| {}));
    adapter.rehearse().unwrap();
    adapter.lock().unwrap();
    adapter
}

/// The binary itself is the watchdog.
fn keeper(place: &Place) -> Keeper {
    let binary = env!("CARGO_BIN_EXE_stillpoint").into();
    Keeper::new(place.path("state"), LONG).with_watchdog(binary, vec!["watchdog".into()])
}

fn watchdog(place: &Place) -> Pid {
    let records = keeper(place).records().unwrap();
    let pid = records[0].record.as_ref().unwrap().pid;
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

fn wait_for_watchdogs(place: &Place) {
    for entry in fs::read_dir(place.path("state/locks")).unwrap() {
        if let Ok(file) = File::open(entry.unwrap().path()) {
            flock(file, FlockOperation::LockExclusive).unwrap();
        }
    }
}

// The binary is a watchdog: it unlocks when the capture is gone, and when it is asked to end, twice.
#[test]
fn the_binary_is_a_watchdog() {
    let simulator = Simulator::start(Behaviour::default()).unwrap();
    let place = Place::empty();
    drop(locked(&place, &simulator));
    wait_for_watchdogs(&place);
    assert!(!simulator.state().is_locked);

    let adapter = locked(&place, &simulator);
    let pid = watchdog(&place);
    kill_process(pid, Signal::TERM).unwrap();
    let _ = kill_process(pid, Signal::TERM);
    wait_for_watchdogs(&place);
    assert!(!simulator.state().is_locked);
    drop(adapter);
    assert_eq!(fs::read_dir(place.path("state/locks")).unwrap().count(), 0);
    place.run(["watchdog"]).with_code(1).says("started by a capture");
}

// Both processes are gone: what was left behind is listed, and unlocked; running captures are left alone by `--stale`.
#[test]
fn what_was_left_behind() {
    let simulator = Simulator::start(Behaviour::default()).unwrap();
    let place = Place::empty();
    let unlock = |arguments: &[&str]| {
        let all = ["unlock", "--state-dir", "state"].into_iter().chain(arguments.iter().copied());
        place.run(all)
    };
    unlock(&[]).with_code(0).prints("nothing is locked");
    let adapter = locked(&place, &simulator);
    unlock(&["--stale"]).with_code(0).prints("nothing was left behind");
    unlock(&["--list"]).with_code(0).prints("locked by a running capture");
    kill_process(watchdog(&place), Signal::KILL).unwrap();
    drop(adapter);
    wait_for_watchdogs(&place);
    assert!(simulator.state().is_locked);
    let list = unlock(&["--list", "--json"]).with_code(0);
    let lock = &messages(&list.stdout)[0];
    assert_eq!((&lock["state"], &lock["is_stale"]), (&"held".into(), &true.into()), "{lock}");
    let token = simulator.state().token.unwrap();
    assert!(lock["manual"].as_str().unwrap().contains(&token), "{lock}");

    // Without the password nothing can be done, and that is said.
    fs::rename(place.path("password"), place.path("elsewhere")).unwrap();
    unlock(&["--stale"]).with_code(1).says("reading the password");
    assert!(simulator.state().is_locked);
    fs::rename(place.path("elsewhere"), place.path("password")).unwrap();
    unlock(&["--stale"]).with_code(0).prints("Bitbucket instance unlocked");
    assert!(!simulator.state().is_locked);
    unlock(&["--stale"]).with_code(0).prints("nothing was left behind");
}

// The lock of a running capture is given back under its feet when that is asked for.
#[test]
fn running_captures() {
    let simulator = Simulator::start(Behaviour::default()).unwrap();
    let place = Place::empty();
    let mut adapter = locked(&place, &simulator);
    place.run(["unlock", "--state-dir", "state"]).with_code(0).prints("unlocked");
    assert!(!simulator.state().is_locked);
    adapter.complete().unwrap_err();
    adapter.unlock().unwrap();
    drop(adapter);
}
