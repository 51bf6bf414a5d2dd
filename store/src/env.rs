//! The one door for time and randomness.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment: nanoseconds since 1970-01-01T00:00:00Z, negative before. Covers the years 1677 to 2262 and beyond
/// (128 bits), because file times may lie anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Whole seconds since the epoch, rounded towards the past.
    pub seconds: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    /// Nanoseconds since the epoch.
    pub fn as_nanos(&self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }

    /// The moment this many nanoseconds after the epoch; beyond the range of 64-bit seconds it is clamped.
    pub fn from_nanos(nanos: i128) -> Self {
        let seconds = nanos.div_euclid(1_000_000_000).clamp(i64::MIN.into(), i64::MAX.into());
        let rest = nanos.rem_euclid(1_000_000_000);
        Self {
            seconds: i64::try_from(seconds).expect("clamped"),
            nanos: u32::try_from(rest).expect("below 10^9"),
        }
    }
}

/// Time and randomness. Tests and simulations pass a seeded one; then equal input gives equal bytes.
pub trait Env: Send + Sync {
    /// The current wall-clock time.
    fn now(&self) -> Timestamp;
    /// Fills the buffer with cryptographically secure random bytes.
    fn fill_random(&self, bytes: &mut [u8]);
}

/// The operating system's clock and random generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

impl Env for SystemEnv {
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    fn now(&self) -> Timestamp {
        let nanos = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
        };
        Timestamp::from_nanos(nanos)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}
