//! The one door for time and randomness.

use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment: nanoseconds since 1970-01-01T00:00:00Z, negative before. Covers the years 1677 to 2262 and beyond
/// (128 bits), because file times may lie anywhere.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
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

/// How long the machine has been up: a clock that nobody sets, and that begins anew with every boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uptime {
    /// Names the boot; readings of different boots have nothing to do with each other.
    pub boot: String,
    /// Time since that boot, including the time that the machine slept.
    pub elapsed: Duration,
}

/// Time and randomness. Tests and simulations pass a seeded one; then equal input gives equal bytes.
pub trait Env: Send + Sync {
    /// The current wall-clock time.
    fn now(&self) -> Timestamp;
    /// How long the machine has been up; None where that cannot be told.
    fn uptime(&self) -> Option<Uptime> {
        None
    }
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

    fn uptime(&self) -> Option<Uptime> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let elapsed = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Some(Uptime {
            boot: boot.trim().to_owned(),
            elapsed: Duration::new(
                u64::try_from(elapsed.tv_sec).ok()?,
                u32::try_from(elapsed.tv_nsec).ok()?,
            ),
        })
    }

    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

/// An `Env` whose randomness is drawn from a secret seed and a label, so that threads which draw at the same
/// time do not take each other's bytes and equal seeds give equal bytes.
pub struct DerivedEnv {
    clock: Arc<dyn Env>,
    stream: Mutex<blake3::OutputReader>,
}

impl DerivedEnv {
    /// The clock of `env`, and random bytes from `seed` (32 random bytes) and `label`.
    pub fn new(env: &Arc<dyn Env>, seed: &[u8; 32], label: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(seed);
        hasher.update(label);
        Self { clock: Arc::clone(env), stream: Mutex::new(hasher.finalize_xof()) }
    }
}

impl Env for DerivedEnv {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn uptime(&self) -> Option<Uptime> {
        self.clock.uptime()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.stream.lock().expect("no panic while drawing").fill(bytes);
    }
}
