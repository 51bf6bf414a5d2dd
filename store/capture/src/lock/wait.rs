//! Waiting for an application to drain: asks at once, then with pauses that grow.

use super::{Drain, LockAdapter};
use crate::error::{Error, Result};
use std::time::{Duration, Instant};

/// The pauses between two questions: 5 ms, growing by half to 50 ms.
#[derive(Debug, Clone)]
pub struct Pauses {
    next: Duration,
}

impl Pauses {
    /// The first pause.
    pub const FIRST: Duration = Duration::from_millis(5);
    /// The longest pause.
    pub const LONGEST: Duration = Duration::from_millis(50);
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.next;
        self.next = (now * 3 / 2).min(Self::LONGEST);
        Some(now)
    }
}

/// Asks until the application is drained. `stop` is asked between two questions.
///
/// # Errors
/// `OverBudget` after `limit`, `Cancelled` when `stop` says so, `Lost` when it does not hold still any more, and what
/// the adapter gives. In each case the lock is to be given back.
pub fn wait_until_drained(
    adapter: &mut dyn LockAdapter,
    limit: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<()> {
    let begin = Instant::now();
    for pause in Pauses::default() {
        match adapter.drain()? {
            Drain::Drained => return Ok(()),
            Drain::Lost(why) => return Err(Error::Lost(why)),
            Drain::Waiting(_) => {}
        }
        if stop() {
            return Err(Error::Cancelled);
        }
        if begin.elapsed() >= limit {
            return Err(Error::OverBudget { what: "draining the application", limit });
        }
        std::thread::sleep(pause);
    }
    unreachable!("the pauses never end")
}
