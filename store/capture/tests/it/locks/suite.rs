//! What every lock adapter must do, whatever it locks.

use super::place::wait_for_watchdogs;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use stillpoint_capture::Error;
use stillpoint_capture::lock::{Keeper, LockAdapter, RecordState, wait_until_drained};

const LONG: Duration = Duration::from_secs(60);

/// One kind of lock to try.
pub trait Fixture {
    /// A new adapter for the same application.
    fn adapter(&self, keeper: Keeper) -> Box<dyn LockAdapter>;
    /// The state directory.
    fn state_dir(&self) -> &Path;
    /// A keeper in it.
    fn keeper(&self) -> Keeper;
    /// True while the application is locked; None where that cannot be seen.
    fn is_locked(&self) -> Option<bool>;
    /// False where nobody can be in the way of a second one.
    fn excludes_others(&self) -> bool {
        true
    }
    /// False where it may be held for ever.
    fn has_limit(&self) -> bool {
        true
    }
    /// False where nothing is ever taken.
    fn takes_anything(&self) -> bool {
        true
    }
}

/// Runs all of it.
pub fn suite(fixture: &dyn Fixture) {
    whole_sequence(fixture);
    unlocking_nothing(fixture);
    giving_up(fixture);
    if fixture.takes_anything() {
        dropping(fixture);
        watchdog_killed(fixture);
        watchdog_asked_to_end(fixture);
        left_behind(fixture);
    }
    if fixture.takes_anything() && fixture.has_limit() {
        limit(fixture);
    }
    if fixture.excludes_others() {
        others(fixture);
    }
}

#[track_caller]
fn is_free(fixture: &dyn Fixture, when: &str) {
    let left = wait_for_watchdogs(fixture.state_dir());
    assert!(left.is_empty(), "{when}: {left:?}");
    assert_ne!(fixture.is_locked(), Some(true), "{when}");
}

fn locked(fixture: &dyn Fixture, keeper: Keeper) -> Box<dyn LockAdapter> {
    let mut adapter = fixture.adapter(keeper);
    adapter.rehearse().unwrap();
    assert_ne!(fixture.is_locked(), Some(true), "a rehearsal locks nothing");
    adapter.lock().unwrap();
    wait_until_drained(adapter.as_mut(), LONG, &|| false).unwrap();
    adapter.hold().unwrap();
    if fixture.takes_anything() {
        assert_ne!(fixture.is_locked(), Some(false), "drained means locked");
    }
    adapter
}

/// The calls in their order, twice with one adapter.
fn whole_sequence(fixture: &dyn Fixture) {
    let mut adapter = fixture.adapter(fixture.keeper());
    for round in 0..2 {
        let rehearsal = adapter.rehearse().unwrap();
        assert!(!rehearsal.application.is_empty());
        assert_ne!(fixture.is_locked(), Some(true), "round {round}");
        adapter.lock().unwrap();
        wait_until_drained(adapter.as_mut(), LONG, &|| false).unwrap();
        for view in adapter.hold().unwrap() {
            assert!(view.at.is_dir(), "{view:?}");
        }
        adapter.progress(50).unwrap();
        adapter.complete().unwrap();
        adapter.unlock().unwrap();
        assert_ne!(fixture.is_locked(), Some(true), "round {round}");
        adapter.unlock().unwrap();
        adapter.dismiss().unwrap();
        adapter.dismiss().unwrap();
    }
    drop(adapter);
    is_free(fixture, "after the whole sequence");
}

/// Nothing is locked: unlocking does nothing, before and after a rehearsal.
fn unlocking_nothing(fixture: &dyn Fixture) {
    let mut adapter = fixture.adapter(fixture.keeper());
    adapter.unlock().unwrap();
    adapter.rehearse().unwrap();
    adapter.unlock().unwrap();
    adapter.dismiss().unwrap();
    drop(adapter);
    is_free(fixture, "after unlocking nothing");
}

/// Unlocked without having been completed.
fn giving_up(fixture: &dyn Fixture) {
    let mut adapter = locked(fixture, fixture.keeper());
    adapter.unlock().unwrap();
    assert_ne!(fixture.is_locked(), Some(true));
    drop(adapter);
    is_free(fixture, "after giving up");
}

/// An adapter that is dropped, as a panic does, is unlocked by the watchdog.
fn dropping(fixture: &dyn Fixture) {
    drop(locked(fixture, fixture.keeper()));
    is_free(fixture, "after dropping");
}

/// Beyond its limit it is unlocked, and cannot be completed any more.
fn limit(fixture: &dyn Fixture) {
    let keeper = fixture.keeper().with_limit(Duration::from_millis(300));
    let mut adapter = locked(fixture, keeper);
    is_free(fixture, "after the limit");
    let lost = adapter.complete().unwrap_err();
    assert!(matches!(lost, Error::Lost(_)), "{lost}");
    adapter.unlock().unwrap();
    adapter.dismiss().unwrap();
}

/// The watchdog of the only record.
fn watchdog(fixture: &dyn Fixture) -> u32 {
    let records = fixture.keeper().records().unwrap();
    let found: Vec<_> = records.iter().map(|found| found.record.as_ref().unwrap()).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].state, RecordState::Held);
    assert!(records[0].is_live);
    found[0].pid
}

/// The watchdog is killed: the capture unlocks by itself.
fn watchdog_killed(fixture: &dyn Fixture) {
    let mut adapter = locked(fixture, fixture.keeper());
    super::place::signal(watchdog(fixture), Signal::KILL);
    adapter.unlock().unwrap();
    assert_ne!(fixture.is_locked(), Some(true));
    let _ = adapter.dismiss();
    drop(adapter);
    is_free(fixture, "after the watchdog was killed");
}

/// The watchdog is asked to end: it unlocks first, and the capture is told.
fn watchdog_asked_to_end(fixture: &dyn Fixture) {
    let mut adapter = locked(fixture, fixture.keeper());
    super::place::signal(watchdog(fixture), Signal::TERM);
    is_free(fixture, "after the watchdog was asked to end");
    let lost = adapter.complete().unwrap_err();
    assert!(matches!(lost, Error::Lost(_)), "{lost}");
    adapter.unlock().unwrap();
    // What was held is gone, and that is told once.
    let _ = adapter.dismiss();
    adapter.dismiss().unwrap();
}

/// Watchdog and capture are gone: the record unlocks.
fn left_behind(fixture: &dyn Fixture) {
    let adapter = locked(fixture, fixture.keeper());
    super::place::signal(watchdog(fixture), Signal::KILL);
    drop(adapter);
    assert_ne!(fixture.is_locked(), Some(false), "nobody is there to unlock it");
    let left = wait_for_watchdogs(fixture.state_dir());
    assert_eq!(left.len(), 1);
    let results = fixture.keeper().finish_stale().unwrap();
    let said: Vec<String> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(said.len(), 1);
    is_free(fixture, "after what was left behind was finished");
    assert!(fixture.keeper().finish_stale().unwrap().is_empty());
}

/// Who comes second is told, and disturbs nothing.
fn others(fixture: &dyn Fixture) {
    let mut second = fixture.adapter(fixture.keeper());
    second.rehearse().unwrap();
    let mut first = locked(fixture, fixture.keeper());
    let error = second.lock().unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    second.unlock().unwrap();
    assert_ne!(fixture.is_locked(), Some(false), "the first one's lock stays");
    first.complete().unwrap();
    first.unlock().unwrap();
    first.dismiss().unwrap();
    drop((first, second));
    is_free(fixture, "after two at a time");
}
