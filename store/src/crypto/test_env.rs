//! A seeded environment for unit tests: equal seeds give equal bytes.

use crate::env::{Env, Timestamp};
use std::sync::Mutex;

/// Time stands still; randomness is BLAKE3's extendable output.
pub(crate) struct SeededEnv(Mutex<blake3::OutputReader>);

impl SeededEnv {
    pub(crate) fn new(seed: u64) -> Self {
        let reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        Self(Mutex::new(reader))
    }
}

impl Env for SeededEnv {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: 1_800_000_000, nanos: 123_456_789 }
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.0.lock().expect("no test panics while it draws").fill(bytes);
    }
}
