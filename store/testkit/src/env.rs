//! A clock that stands still until it is set, and random bytes from a seed.

use crate::random::Random;
use std::sync::Mutex;
use stillpoint_store::{Env, Timestamp};

/// 2024-01-01T00:00:00Z, where every seeded clock begins.
const START_SECONDS: i64 = 1_704_067_200;

/// A deterministic [`Env`]: equal seeds and equal calls give equal answers.
#[derive(Debug)]
pub struct SeededEnv {
    inner: Mutex<(Timestamp, Random)>,
}

impl SeededEnv {
    /// The environment of this seed; its clock shows 2024-01-01T00:00:00Z.
    pub fn new(seed: u64) -> Self {
        let start = Timestamp { seconds: START_SECONDS, nanos: 0 };
        Self { inner: Mutex::new((start, Random::new(seed))) }
    }

    /// Sets the clock.
    pub fn set_now(&self, now: Timestamp) {
        self.lock().0 = now;
    }

    /// Moves the clock, backwards where `seconds` is negative.
    pub fn advance_seconds(&self, seconds: i64) {
        self.lock().0.seconds += seconds;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Timestamp, Random)> {
        self.inner.lock().expect("no panic while the environment is locked")
    }
}

impl Env for SeededEnv {
    fn now(&self) -> Timestamp {
        self.lock().0
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.lock().1.fill(bytes);
    }
}
