//! One latch of an instance: from available over latched to drained, holding the writers of its gate.

use super::gate::Gate;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far a latch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatchState {
    Available,
    Latched,
    Drained,
}

impl LatchState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::Latched => "LATCHED",
            Self::Drained => "DRAINED",
        }
    }
}

/// A latch that was set; dropping it opens the gate.
#[derive(Debug)]
pub struct Latch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<LatchState>,
    changed: Condvar,
}

impl Latch {
    /// Closes the gate, if there is one, and is drained when nobody is in and `delay` is over; without a delay, never.
    pub fn set(gate: Option<Gate>, delay: Option<Duration>) -> Self {
        let shared =
            Arc::new(Shared { state: Mutex::new(LatchState::Latched), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || theirs.hold(gate, delay));
        Self { shared }
    }

    pub fn state(&self) -> LatchState {
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn hold(&self, gate: Option<Gate>, delay: Option<Duration>) {
        let begin = Instant::now();
        let closed = gate.map(|gate| gate.close().expect("the gate's files exist"));
        if let Some(closed) = &closed {
            closed.drained().expect("the gate's files exist");
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while *state != LatchState::Available {
            let left = delay.map(|delay| delay.saturating_sub(begin.elapsed()));
            state = match left {
                Some(left) if !left.is_zero() => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                due => {
                    if due.is_some() {
                        *state = LatchState::Drained;
                    }
                    self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner) = LatchState::Available;
        self.shared.changed.notify_all();
    }
}
