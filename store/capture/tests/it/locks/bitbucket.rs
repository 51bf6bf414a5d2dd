//! Bitbucket when all goes well, and when somebody else interferes.

use super::place::{LONG, Place, bitbucket, listening};
use super::suite::{Fixture, suite};
use std::path::Path;
use std::time::Duration;
use stillpoint_capture::Error;
use stillpoint_capture::lock::{Drain, Keeper, LockAdapter, wait_until_drained};
use stillpoint_testkit::bitbucket::{Behaviour, Call, CallFault, FaultEffect};

impl Fixture for Place {
    fn adapter(&self, keeper: Keeper) -> Box<dyn LockAdapter> {
        Box::new(bitbucket(&self.simulator.url(), keeper, super::place::silent()))
    }

    fn state_dir(&self) -> &Path {
        self.dir.path()
    }

    fn keeper(&self) -> Keeper {
        self.keeper()
    }

    fn is_locked(&self) -> Option<bool> {
        Some(self.simulator.state().is_locked)
    }
}

// The suite of all adapters; also where an unlock is refused while a task runs, and below a context path.
#[test]
fn suite_of_adapters() {
    suite(&Place::new(Behaviour::default()));
    let context = "/bitbucket".to_owned();
    suite(&Place::new(Behaviour { strict_unlock: true, context, ..Behaviour::default() }));
}

// The calls come in the order of the contract, and people are told what the published scripts tell them.
#[test]
fn calls_and_lines() {
    let place = Place::new(Behaviour::default());
    let (tell, lines) = listening();
    let url = place.simulator.url();
    let mut adapter = bitbucket(&format!("{url}/"), place.keeper(), tell);
    let rehearsal = adapter.rehearse().unwrap();
    assert_eq!(rehearsal.application, format!("Bitbucket 7.21.0 at {url}"));
    let excludes = ["/caches/", "/log/", "/tmp", "/.lock", "/shared/data/repositories/7"];
    assert_eq!(rehearsal.excludes, excludes);
    adapter.lock().unwrap();
    let state = place.simulator.state();
    let (token, cancel) = (state.token.unwrap(), state.cancel_token.unwrap());
    wait_until_drained(&mut adapter, LONG, &|| false).unwrap();
    for percent in [0, 50, 50, 20, 99, 120] {
        adapter.progress(percent).unwrap();
    }
    adapter.complete().unwrap();
    adapter.unlock().unwrap();
    let mut expected = vec![
        format!("locked with '{token}'"),
        format!("backup started with '{cancel}'"),
        "Waiting for DRAINED state. done".into(),
        "db state 'DRAINED'".into(),
        "scm state 'DRAINED'".into(),
    ];
    let percentages = [0, 50, 99, 100];
    expected.extend(percentages.map(|percent| format!("Backup progress updated to {percent}")));
    expected.push("Bitbucket instance unlocked".into());
    let mut lines = lines.lock().unwrap().clone();
    let waiting = lines.iter_mut().find(|line| line.contains("Waiting")).unwrap();
    *waiting = waiting.replace("..", ".").replace("..", ".").replace("..", ".").replace("..", ".");
    let expected: Vec<String> =
        expected.iter().map(|line| format!("[{url}]  INFO: {line}")).collect();
    assert_eq!(lines, expected);
    let state = place.simulator.state();
    assert_eq!(state.percentages, percentages);
    let mut calls: Vec<Call> = state.calls.iter().map(|seen| seen.call).collect();
    let from = calls.iter().position(|call| *call == Call::Lock).unwrap();
    calls.drain(..from);
    calls.dedup();
    assert_eq!(calls, [Call::Lock, Call::Start, Call::Status, Call::Progress, Call::Unlock]);
}

// Old versions leave more of the home out.
#[test]
fn excludes_by_version() {
    let place = Place::new(Behaviour { version: "4.14.3".into(), ..Behaviour::default() });
    let excludes = place.adapter().rehearse().unwrap().excludes;
    assert!(excludes.iter().any(|pattern| pattern == "/data/db.*"), "{excludes:?}");
}

// What cannot work is refused before anything is locked, and says what to do.
#[test]
fn refusals() {
    let check = |behaviour: Behaviour, what: &str| {
        let place = Place::new(behaviour);
        let error = place.adapter().rehearse().unwrap_err();
        let Error::Refused { what: said, hint: Some(_) } = &error else { panic!("{error:?}") };
        assert!(said.contains(what), "{said}");
        assert!(!said.contains("secret"), "{said}");
        let calls = place.simulator.state().calls;
        assert!(calls.iter().all(|seen| seen.call != Call::Lock), "{calls:?}");
        place.leaves_nothing(what);
    };
    check(Behaviour { password: "other".into(), ..Behaviour::default() }, "401");
    let with = |call, status| Behaviour {
        faults: vec![CallFault::every(call, FaultEffect::Status(status))],
        ..Behaviour::default()
    };
    check(with(Call::Status, 403), "403");
    check(with(Call::Properties, 404), "no Bitbucket answers");
    check(with(Call::Properties, 503), "503");
}

// Somebody else's lock is named and left alone, found at the rehearsal or later.
#[test]
fn occupied() {
    let place = Place::new(Behaviour::default());
    let mut first = place.adapter();
    first.rehearse().unwrap();
    first.lock().unwrap();
    let error = place.adapter().rehearse().unwrap_err();
    assert!(matches!(error, Error::Occupied { ref owner, .. } if owner == "admin"), "{error}");
    first.unlock().unwrap();
}

fn drained_place(behaviour: Behaviour) -> (Place, stillpoint_capture::lock::bitbucket::Bitbucket) {
    let place = Place::new(behaviour);
    let mut adapter = place.adapter();
    adapter.rehearse().unwrap();
    adapter.lock().unwrap();
    wait_until_drained(&mut adapter, LONG, &|| false).unwrap();
    (place, adapter)
}

// An administrator cancels or unlocks: the capture is worthless, and what is left is given back.
#[test]
fn interference() {
    for by_hand in [
        |place: &Place| place.simulator.cancel_by_hand(),
        |place: &Place| place.simulator.unlock_by_hand(),
    ] {
        let (place, mut adapter) = drained_place(Behaviour::default());
        by_hand(&place);
        assert!(matches!(adapter.drain().unwrap(), Drain::Lost(_)));
        assert!(matches!(adapter.progress(10).unwrap_err(), Error::Lost(_)));
        assert!(matches!(adapter.complete().unwrap_err(), Error::Lost(_)));
        adapter.unlock().unwrap();
        assert!(!place.simulator.state().is_locked);
    }
}

// Our token is refused because another administrator holds the lock now: that lock is left alone.
#[test]
fn locks_of_others_are_left_alone() {
    let (place, mut adapter) = drained_place(Behaviour::default());
    place.simulator.unlock_by_hand();
    let mut other = place.adapter();
    other.rehearse().unwrap();
    other.lock().unwrap();
    let theirs = place.simulator.state().token;
    adapter.unlock().unwrap();
    assert_eq!(place.simulator.state().token, theirs);
    other.unlock().unwrap();
}

// It never drains, or its task fails: told in time, and unlocked; the cancel token is used first.
#[test]
fn draining_fails() {
    let never = Behaviour { scm_delay: None, ..Behaviour::default() };
    let place = Place::new(never);
    let mut adapter = place.adapter();
    adapter.rehearse().unwrap();
    adapter.lock().unwrap();
    let limit = Duration::from_millis(50);
    let error = wait_until_drained(&mut adapter, limit, &|| false).unwrap_err();
    assert!(matches!(error, Error::OverBudget { .. }), "{error}");
    let error = wait_until_drained(&mut adapter, LONG, &|| true).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    adapter.unlock().unwrap();
    let calls = place.simulator.state().calls;
    let last: Vec<Call> = calls.iter().rev().take(2).map(|seen| seen.call).collect();
    assert_eq!(last, [Call::Unlock, Call::Cancel]);

    let fails = Some(Duration::from_millis(30));
    let place =
        Place::new(Behaviour { scm_delay: None, task_fails_after: fails, ..Behaviour::default() });
    let mut adapter = place.adapter();
    adapter.rehearse().unwrap();
    adapter.lock().unwrap();
    let error = wait_until_drained(&mut adapter, LONG, &|| false).unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error}");
    adapter.unlock().unwrap();
    assert!(!place.simulator.state().is_locked);
}

// No password reaches the record or a process's command line; the record is for its owner only.
#[test]
fn passwords_stay_in_memory() {
    use std::os::unix::fs::PermissionsExt as _;
    let (place, mut adapter) = drained_place(Behaviour::default());
    let records = place.keeper().records().unwrap();
    let path = &records[0].path;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(path).unwrap();
    let token = place.simulator.state().token.unwrap();
    assert!(text.contains(&token) && !text.contains("secret"), "{text}");
    let pid = records[0].record.as_ref().unwrap().pid;
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!line.contains("secret") && !line.contains(&token), "{line}");
    drop(records);
    adapter.unlock().unwrap();
}
