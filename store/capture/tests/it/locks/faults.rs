//! Every call of a Bitbucket instance fails in every way: it is unlocked, or it is said how; what is claimed is true.

use super::place::{LONG, Place, SOON};
use std::time::{Duration, Instant};
use stillpoint_capture::lock::{LockAdapter, wait_until_drained};
use stillpoint_capture::{Error, Result};
use stillpoint_testkit::bitbucket::{Behaviour, Call, CallFault, FaultEffect};
use stillpoint_testkit::with_label;

const CALLS: [Call; 7] = [
    Call::Lock,
    Call::Start,
    Call::Status,
    Call::Progress,
    Call::Unlock,
    Call::Cancel,
    Call::LockInfo,
];
const EFFECTS: [FaultEffect; 6] = [
    FaultEffect::Status(503),
    FaultEffect::Status(409),
    FaultEffect::Status(401),
    FaultEffect::DropBefore,
    FaultEffect::DropAfter,
    FaultEffect::Late(Duration::from_millis(100)),
];

fn run(adapter: &mut dyn LockAdapter) -> Result<()> {
    adapter.lock()?;
    wait_until_drained(adapter, LONG, &|| false)?;
    adapter.progress(50)?;
    adapter.complete()
}

// A fault strikes once, or three times: afterwards it is unlocked within 5 s, nothing is left on disk, and a capture that was
// completed was completed at the instance, once. The one exception: the reply to the lock request is lost.
#[test]
fn every_call_in_every_way() {
    for call in CALLS {
        for effect in EFFECTS {
            for count in [1, 3] {
                for strict_unlock in [false, true] {
                    with_label(
                        format!("{call:?} {effect:?} {count} strict={strict_unlock}"),
                        || {
                            one(call, effect, count, strict_unlock);
                        },
                    );
                }
            }
        }
    }
}

fn one(call: Call, effect: FaultEffect, count: usize, strict_unlock: bool) {
    let place = Place::new(Behaviour { strict_unlock, ..Behaviour::default() });
    let keeper = place.keeper().with_give_back_limit(Duration::from_secs(20));
    let mut adapter =
        super::place::bitbucket(&place.simulator.url(), keeper, super::place::silent());
    adapter.rehearse().unwrap();
    let counts = place.simulator.state().calls;
    let before = counts.iter().filter(|seen| seen.call == call).count();
    place.simulator.behave(|behaviour| {
        behaviour.faults.push(CallFault { call, first: before + 1, count, effect });
    });
    let result = run(&mut adapter);
    let begin = Instant::now();
    let unlocked = adapter.unlock();
    let state = place.simulator.state();
    let is_lost_reply = call == Call::Lock && effect == FaultEffect::DropAfter;
    if let Err(error) = &unlocked {
        // Refused for good, as far as can be known: it is said how to do it, and the watchdog goes on.
        assert_eq!((call, effect), (Call::Unlock, FaultEffect::Status(401)), "{error}");
    } else {
        assert_eq!(state.is_locked, is_lost_reply, "{result:?} {state:#?}");
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    }
    let completed: Vec<_> = state.percentages.iter().filter(|percent| **percent == 100).collect();
    match result {
        Ok(()) => assert_eq!(completed.len(), 1, "{state:#?}"),
        Err(Error::StillLocked { manual, .. }) => {
            assert!(is_lost_reply && manual.contains("administrator"), "{manual}");
        }
        Err(_) => assert!(!is_lost_reply),
    }
    drop(adapter);
    if is_lost_reply {
        lost_reply(&place);
    } else {
        place.is_unlocked_soon("after the fault");
        place.leaves_nothing("after the fault");
    }
}

/// The record says that there may be a lock; it is finished once an administrator was there.
fn lost_reply(place: &Place) {
    assert_eq!(super::place::wait_for_watchdogs(place.dir.path()).len(), 1);
    let results = place.keeper().finish_stale().unwrap();
    assert!(matches!(results[0], Err(Error::StillLocked { .. })), "{results:?}");
    place.simulator.unlock_by_hand();
    let results = place.keeper().finish_stale().unwrap();
    assert!(results[0].is_ok(), "{results:?}");
    place.leaves_nothing("after it was finished");
}

// The instance is out of reach for longer than anybody waits: the way to unlock by hand is told, and the watchdog unlocks
// as soon as it can.
#[test]
fn out_of_reach() {
    let fault = CallFault::every(Call::Unlock, FaultEffect::Status(503));
    let place = Place::new(Behaviour { faults: vec![fault], ..Behaviour::default() });
    let keeper = place.keeper().with_give_back_limit(Duration::from_millis(200));
    let mut adapter =
        super::place::bitbucket(&place.simulator.url(), keeper, super::place::silent());
    adapter.rehearse().unwrap();
    run(&mut adapter).unwrap();
    let error = adapter.unlock().unwrap_err();
    let Error::StillLocked { manual, .. } = &error else { panic!("{error}") };
    let token = place.simulator.state().token.unwrap();
    assert!(manual.contains(&token) && manual.starts_with("curl -u admin -X DELETE"), "{manual}");
    drop(adapter);
    place.simulator.behave(|behaviour| behaviour.faults.clear());
    place.is_unlocked_soon("after it is back");
    place.leaves_nothing("after it is back");
}
