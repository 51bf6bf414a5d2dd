//! kill -9 and SIGTERM of a capture in every phase: the instance is unlocked in time, and no record is left.

use super::place::{LONG, Place};
use super::roles::{STATE, STOP_AT, URL};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use stillpoint_capture::lock::{LockAdapter as _, RecordState};
use stillpoint_testkit::bitbucket::{Behaviour, Call, CallFault, FaultEffect};
use stillpoint_testkit::with_label;

/// The places in the program at which a capture stops by itself.
const STOPS: [&str; 6] = ["rehearsed", "locked", "drained", "progress", "complete", "unlocked"];
/// The calls during which it is killed.
const CALLS: [Call; 5] = [Call::Lock, Call::Start, Call::Status, Call::Progress, Call::Unlock];

fn capture(place: &Place, stop_at: &str) -> Child {
    let arguments = ["--exact", "locks::roles::capture_role", "--nocapture"];
    Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .env(STOP_AT, stop_at)
        .env(URL, place.simulator.url())
        .env(STATE, place.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for(child: &mut Child, line: &str) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|read| read.unwrap() == line), "never {line}");
}

fn end(mut child: Child, signal: Signal) {
    super::place::signal(child.id(), signal);
    assert!(!child.wait().unwrap().success());
}

// Killed between two calls.
#[test]
fn between_calls() {
    for signal in [Signal::KILL, Signal::TERM] {
        for stop in STOPS {
            with_label(format!("{signal:?} at {stop}"), || {
                let place = Place::new(Behaviour { strict_unlock: true, ..Behaviour::default() });
                let mut child = capture(&place, stop);
                wait_for(&mut child, &format!("at {stop}"));
                let held = !matches!(stop, "rehearsed" | "unlocked");
                assert_eq!(place.simulator.state().is_locked, held);
                end(child, signal);
                place.is_unlocked_soon(stop);
                place.leaves_nothing(stop);
            });
        }
    }
}

// Killed while a call is under way: carried out by the instance, and not answered yet.
#[test]
fn during_calls() {
    for strict_unlock in [false, true] {
        for call in CALLS {
            with_label(format!("{call:?} strict={strict_unlock}"), || {
                let late = FaultEffect::Late(Duration::from_millis(1500));
                // The first state is asked for in the rehearsal, the second before the lock.
                let first = if call == Call::Status { 3 } else { 1 };
                let fault = CallFault { call, first, count: 1, effect: late };
                let faults = vec![fault];
                let place = Place::new(Behaviour { strict_unlock, faults, ..Behaviour::default() });
                let child = capture(&place, "nowhere");
                let came = place.simulator.wait_until(LONG, |state| {
                    state.calls.iter().filter(|seen| seen.call == call).count() >= first
                });
                assert!(came.is_some());
                end(child, Signal::KILL);
                place.is_unlocked_soon("killed");
                place.leaves_nothing("killed");
            });
        }
    }
}

// The capture and the watchdog are killed: the record holds the token, and the next one to look unlocks.
#[test]
fn both_killed() {
    for stop in ["locked", "drained", "complete"] {
        let place = Place::new(Behaviour { strict_unlock: true, ..Behaviour::default() });
        let mut child = capture(&place, stop);
        wait_for(&mut child, &format!("at {stop}"));
        let pid = {
            let records = place.keeper().records().unwrap();
            let record = records[0].record.as_ref().unwrap();
            assert_eq!(record.state, RecordState::Held);
            record.pid
        };
        super::place::signal(pid, Signal::KILL);
        end(child, Signal::KILL);
        assert!(place.simulator.state().is_locked);
        assert_eq!(super::place::wait_for_watchdogs(place.dir.path()).len(), 1, "the record stays");
        if stop == "drained" {
            for result in place.keeper().finish_stale().unwrap() {
                result.unwrap();
            }
        } else {
            // The next capture does it before it begins.
            let notes = place.adapter().rehearse().unwrap().notes;
            assert!(notes[0].contains("left something behind"), "{notes:?}");
        }
        assert!(!place.simulator.state().is_locked);
        place.leaves_nothing(stop);
    }
}
