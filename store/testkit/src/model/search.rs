//! Breadth-first search through the states of a model, with the shortest way to a violation.
//!
//! Knows nothing of what is modelled. States are remembered as fingerprints of 64 bits: 17 bytes a state, so that
//! 10^8 states fit into a small machine. Two states with one fingerprint (expected: one pair in 10^8 states has odds of
//! 1 to 3,700) would only mean that one of them is not looked at.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Something with states and steps between them.
pub trait Model {
    /// One state, in a normal form: what has an equal future should be equal.
    type State: Clone + Hash;
    /// What leads from one state to the next, for people.
    type Step: Display;

    /// Where everything begins.
    fn start(&self) -> Self::State;

    /// Appends every state that one step leads to. The same state gives the same steps in the same order.
    fn successors(&self, state: &Self::State, out: &mut Vec<(Self::Step, Self::State)>);

    /// What is wrong with this state.
    fn violation(&self, state: &Self::State) -> Option<String>;

    /// Whether nobody has anything left to do. A state without successors that is not finished is a deadlock.
    fn is_finished(&self, state: &Self::State) -> bool;
}

/// A state that must not be, and the steps that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong.
    pub what: String,
    /// From the start on; no way is shorter.
    pub steps: Vec<String>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explored {
    /// Different states seen.
    pub states: usize,
    /// Every state that can be reached was seen.
    pub is_complete: bool,
    /// The first state that must not be; the search ends there.
    pub violation: Option<Violation>,
}

/// Searches until everything was seen, a violation was found, or `states_max` states were seen.
///
/// # Panics
/// When there are more than 2^32 states.
pub fn explore<M: Model>(model: &M, states_max: usize) -> Explored {
    let start = model.start();
    let mut seen = Seen::default();
    seen.insert(&start, (0, 0));
    let mut level = vec![(0u32, start)];
    let mut successors = Vec::new();
    let ended = |seen: &Seen, is_complete, violation| Explored {
        states: seen.parents.len(),
        is_complete,
        violation,
    };
    while !level.is_empty() {
        let mut next = Vec::new();
        for (number, state) in level {
            successors.clear();
            model.successors(&state, &mut successors);
            if successors.is_empty() && !model.is_finished(&state) {
                let steps = seen.steps_to(model, number);
                let what = "deadlock: somebody is left who can do nothing".to_string();
                return ended(&seen, false, Some(Violation { what, steps }));
            }
            for (ordinal, (_, state)) in successors.drain(..).enumerate() {
                let ordinal = u16::try_from(ordinal).expect("few steps lead from one state");
                let Some(found) = seen.insert(&state, (number, ordinal)) else { continue };
                if let Some(what) = model.violation(&state) {
                    let steps = seen.steps_to(model, found);
                    return ended(&seen, false, Some(Violation { what, steps }));
                }
                if seen.parents.len() >= states_max {
                    return ended(&seen, false, None);
                }
                next.push((found, state));
            }
        }
        level = next;
    }
    ended(&seen, true, None)
}

/// The states seen so far, by their numbers: how each was reached first.
#[derive(Default)]
struct Seen {
    fingerprints: HashSet<u64, BuildHasherDefault<Identity>>,
    /// For each state the number of the one before it, and which of its steps was taken.
    parents: Vec<(u32, u16)>,
}

impl Seen {
    /// The number of a state that was not seen before.
    fn insert(&mut self, state: &impl Hash, parent: (u32, u16)) -> Option<u32> {
        let mut folding = Folding::default();
        state.hash(&mut folding);
        self.fingerprints.insert(folding.finish()).then(|| {
            self.parents.push(parent);
            u32::try_from(self.parents.len() - 1).expect("fewer than 2^32 states")
        })
    }

    fn steps_to<M: Model>(&self, model: &M, mut number: u32) -> Vec<String> {
        let mut ordinals = Vec::new();
        while number != 0 {
            let (parent, ordinal) = self.parents[usize::try_from(number).expect("32 bits")];
            ordinals.push(usize::from(ordinal));
            number = parent;
        }
        let (mut state, mut steps) = (model.start(), Vec::new());
        for ordinal in ordinals.into_iter().rev() {
            let mut successors = Vec::new();
            model.successors(&state, &mut successors);
            let (step, next) = successors.swap_remove(ordinal);
            steps.push(step.to_string());
            state = next;
        }
        steps
    }
}

/// Hashes by folded multiplication: fast for many small fields, and good enough for fingerprints.
struct Folding(u64);

impl Default for Folding {
    fn default() -> Self {
        Self(0x2d35_8dcc_aa6c_78a5)
    }
}

impl Folding {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        let [low, high] = [product & u128::from(u64::MAX), product >> 64];
        let low = u64::try_from(low).expect("masked");
        self.0 = (low ^ u64::try_from(high).expect("shifted")).rotate_left(23);
    }
}

impl Hasher for Folding {
    fn finish(&self) -> u64 {
        let mut last = Self(self.0);
        last.fold(0x8bb8_4b93_962e_acc9);
        last.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..part.len()].copy_from_slice(part);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.fold(u64::from(value) | 0x1_0000);
    }

    fn write_u16(&mut self, value: u16) {
        self.fold(u64::from(value) | 0x2_0000);
    }

    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters that somebody raises, each up to a limit; some sum may be forbidden, or nobody may go on from it.
    struct Counters {
        limit: u8,
        forbidden: Option<u8>,
        stuck: Option<u8>,
    }

    impl Model for Counters {
        type State = [u8; 2];
        type Step = &'static str;

        fn start(&self) -> [u8; 2] {
            [0, 0]
        }

        fn successors(&self, state: &[u8; 2], out: &mut Vec<(&'static str, [u8; 2])>) {
            let [left, right] = *state;
            if self.stuck == Some(left + right) {
                return;
            }
            if left < self.limit {
                out.push(("left", [left + 1, right]));
            }
            if right < self.limit {
                out.push(("right", [left, right + 1]));
            }
        }

        fn violation(&self, state: &[u8; 2]) -> Option<String> {
            (Some(state.iter().sum()) == self.forbidden).then(|| "forbidden sum".into())
        }

        fn is_finished(&self, state: &[u8; 2]) -> bool {
            *state == [self.limit; 2]
        }
    }

    /// All states are seen once, violations and deadlocks come with a shortest way, and the limit holds.
    #[test]
    fn finds_all_and_the_shortest_way() {
        let counters = |forbidden, stuck| Counters { limit: 9, forbidden, stuck };
        let all = explore(&counters(None, None), 1000);
        assert_eq!((all.states, all.is_complete, all.violation), (100, true, None));
        let wrong = explore(&counters(Some(5), None), 1000).violation.unwrap();
        assert_eq!((wrong.what.as_str(), wrong.steps), ("forbidden sum", vec!["left".into(); 5]));
        let stuck = explore(&counters(None, Some(3)), 1000).violation.unwrap();
        assert_eq!(stuck.steps.len(), 3);
        assert!(stuck.what.starts_with("deadlock"), "{}", stuck.what);
        let cut = explore(&counters(None, None), 50);
        assert_eq!((cut.states, cut.is_complete, cut.violation), (50, false, None));
    }
}
