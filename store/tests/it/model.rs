//! The protocol's model, explored: nothing that must not be, and every rule needed.
//!
//! `STILLPOINT_MODEL_STATES=100000000` explores larger scopes too, each up to that many states (about 60 bytes of memory
//! and 6 microseconds for each).

use stillpoint_testkit::model::{
    Explored, Model, ObjectRule, OwnObjects, Protocol, Rule, Scope, explore,
};

/// More than any scope has that is explored here.
const STATES_MAX: usize = 5_000_000;

fn assert_sound(name: &str, model: &impl Model, states_max: usize) -> Explored {
    let explored = explore(model, states_max);
    let all = if explored.is_complete { "all of them" } else { "not all" };
    eprintln!("{name}: {} states, {all}", explored.states);
    if let Some(violation) = &explored.violation {
        panic!("{name}: {}\n  {}", violation.what, violation.steps.join("\n  "));
    }
    explored
}

/// No interleaving of backups, prunes, forgets and an undelete, with answers lost and requests late, breaks what was
/// promised: at least a million states, each scope seen whole.
#[test]
fn no_interleaving_breaks_a_promise() {
    let mut states = 0;
    for scope in Scope::SMALL.into_iter().chain(Scope::LARGE) {
        let explored = assert_sound(scope.name, &Protocol::new(scope), STATES_MAX);
        assert!(explored.is_complete, "{}: {} states are not enough", scope.name, STATES_MAX);
        states += explored.states;
    }
    assert!(states >= 1_000_000, "only {states} states");
}

/// Larger scopes, as far as the environment allows.
#[test]
fn no_interleaving_of_more_actors_breaks_a_promise() {
    let Ok(states) = std::env::var("STILLPOINT_MODEL_STATES") else {
        eprintln!(
            "skipped: STILLPOINT_MODEL_STATES is not set, the larger scopes are for long runs"
        );
        return;
    };
    let states_max = states.parse().expect("STILLPOINT_MODEL_STATES is a number");
    for scope in Scope::HUGE {
        assert_sound(scope.name, &Protocol::new(scope), states_max);
    }
}

/// Without any one of its rules the protocol loses data or a promise, within a few steps.
#[test]
fn every_rule_is_needed() {
    for rule in Rule::ALL {
        let found = Scope::SMALL.iter().find_map(|scope| {
            let violation = explore(&Protocol::without(*scope, rule), STATES_MAX).violation?;
            Some((scope.name, violation))
        });
        let Some((scope, violation)) = found else {
            panic!("without {rule:?} nothing goes wrong: the rule or the model is not needed");
        };
        eprintln!("{rule:?} ({scope}): {} steps, {}", violation.steps.len(), violation.what);
    }
}

/// What an attempt writes for itself is removed only when no head can name it; each rule of that is needed too.
#[test]
fn objects_of_attempts_are_removed_in_time() {
    for timeouts in 0..=2 {
        let model = OwnObjects { broken: None, timeouts };
        assert!(assert_sound("objects of attempts", &model, STATES_MAX).is_complete);
    }
    for rule in ObjectRule::ALL {
        let explored = explore(&OwnObjects { broken: Some(rule), timeouts: 1 }, STATES_MAX);
        let violation = explored.violation.unwrap_or_else(|| panic!("{rule:?} is not needed"));
        eprintln!("{rule:?}: {} steps, {}", violation.steps.len(), violation.what);
    }
}
