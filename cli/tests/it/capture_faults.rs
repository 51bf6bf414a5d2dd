//! `capture` of an instance whose calls fail: it is unlocked, and what the exit code says is true.

use crate::support::{Place, Run, content, messages, run};
use std::time::Duration;
use stillpoint_testkit::bitbucket::{Behaviour, Call, CallFault, FaultEffect, Simulator};
use stillpoint_testkit::with_label;

/// What must be unlocked by itself is, in this time.
const SOON: Duration = Duration::from_secs(5);
const CALLS: [Call; 5] = [Call::Lock, Call::Start, Call::Status, Call::Progress, Call::Unlock];
const EFFECTS: [FaultEffect; 4] = [
    FaultEffect::Status(503),
    FaultEffect::Status(409),
    FaultEffect::DropBefore,
    FaultEffect::DropAfter,
];

fn capture(place: &Place, simulator: &Simulator) -> Run {
    let mut command = place.stillpoint(["capture", "source", "--lock", "bitbucket"]);
    command.args(["--url", &simulator.url(), "--user", "admin"]);
    command.env("STILLPOINT_LOCK_PASSWORD", "secret");
    command.env("STILLPOINT_STATE_DIR", place.path("state"));
    run(&mut command)
}

// One call fails once in each way. With 0 there is one snapshot, of level `application`, and the instance was told of the
// end once; with anything else there is none. Then the next capture works.
#[test]
fn every_call_in_every_way() {
    for call in CALLS {
        for effect in EFFECTS {
            with_label(format!("{call:?} {effect:?}"), || one(call, effect));
        }
    }
}

fn one(call: Call, effect: FaultEffect) {
    let place = Place::new();
    place.file("file", b"content");
    // States are asked for in the rehearsal and before the lock, too.
    let first = if call == Call::Status { 3 } else { 1 };
    let fault = CallFault { call, first, count: 1, effect };
    let behaviour = Behaviour { faults: vec![fault], strict_unlock: true, ..Behaviour::default() };
    let simulator = Simulator::start(behaviour).unwrap();
    let ended = capture(&place, &simulator);
    let is_lost = (call, effect) == (Call::Lock, FaultEffect::DropAfter);
    if is_lost {
        // Nobody can know the token: that is said, and so is the way out.
        assert_eq!(ended.code, Some(5), "{ended:#?}");
        assert!(ended.stderr.contains("administrator"), "{ended:#?}");
        simulator.unlock_by_hand();
        let mut unlock = place.stillpoint(["unlock", "--stale", "--state-dir", "state"]);
        run(&mut unlock).with_code(1).says("STILLPOINT_LOCK_PASSWORD");
        run(unlock.env("STILLPOINT_LOCK_PASSWORD", "secret")).with_code(0).prints("not locked");
    }
    let unlocked = simulator.wait_until(SOON, |state| !state.is_locked);
    assert!(unlocked.is_some(), "{ended:#?} {:#?}", simulator.state());
    let completed = simulator.state().percentages.iter().filter(|percent| **percent == 100).count();
    let list = messages(&place.run(["snapshots", "--json"]).with_code(0).stdout);
    if ended.code == Some(0) {
        assert_eq!((list.len(), completed), (1, 1), "{ended:#?}");
        assert_eq!(list[0]["capture"]["level"], "application");
    } else {
        assert!(list.is_empty(), "{ended:#?} {list:#?}");
    }
    let passes = matches!(effect, FaultEffect::Status(503) | FaultEffect::DropBefore);
    let must_succeed = call == Call::Unlock || (passes && call != Call::Lock);
    assert!(!must_succeed || ended.code == Some(0), "{ended:#?}");
    let next = capture(&place, &simulator).with_code(0);
    assert!(!simulator.state().is_locked, "{next:#?}");
    assert_eq!(content(&place.restore("latest", "back")), content(&place.source()));
}
