//! Whether the wall clock can be believed: what retention and expiry ask before they let anything go by it.
//!
//! A clock that is wrong by months would make good snapshots look old. Two witnesses speak against it: times that
//! the catalogue carries already, and the time since boot, which nobody sets. Safety of commits and prunes depends on
//! no clock; this protects what people want to keep.

use crate::env::{Timestamp, Uptime};
use crate::error::Result;
use crate::repository::Repository;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How far clocks may differ without anybody asking why.
pub const CLOCK_SLACK: Duration = Duration::from_secs(3600);
/// Longest record of an earlier reading that is read, bytes.
const READING_BYTES_MAX: usize = 256;

/// Both clocks of a machine at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReading {
    /// What the wall clock showed.
    pub now: Timestamp,
    /// The time since boot.
    pub uptime: Uptime,
}

impl ClockReading {
    /// One line of text: the boot, nanoseconds since it, nanoseconds since 1970.
    fn encode(&self) -> String {
        let Uptime { boot, elapsed } = &self.uptime;
        format!("{boot} {} {}\n", elapsed.as_nanos(), self.now.as_nanos())
    }

    fn decode(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let boot = words.next()?.to_owned();
        let elapsed = Duration::from_nanos(words.next()?.parse().ok()?);
        let now = Timestamp::from_nanos(words.next()?.parse().ok()?);
        Some(Self { now, uptime: Uptime { boot, elapsed } })
    }

    /// How far the wall clock has run ahead of the time since boot since an earlier reading, nanoseconds; None
    /// when the machine was started again in between.
    fn drift_since(&self, earlier: &Self) -> Option<i128> {
        let elapsed = self.uptime.elapsed.checked_sub(earlier.uptime.elapsed)?;
        let elapsed = i128::try_from(elapsed.as_nanos()).ok()?;
        let same_boot = self.uptime.boot == earlier.uptime.boot;
        let wall = self.now.as_nanos().checked_sub(earlier.now.as_nanos())?;
        same_boot.then(|| wall.checked_sub(elapsed)).flatten()
    }
}

/// What is known about the clock before a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockEvidence {
    /// What the wall clock shows.
    pub now: Timestamp,
    /// The newest moment that the catalogue carries, by whichever clock: nothing was committed later.
    pub newest: Option<Timestamp>,
    /// The time since boot, where the machine tells it.
    pub uptime: Option<Uptime>,
    /// What this host's clocks showed when a decision was last made by them.
    pub last: Option<ClockReading>,
}

/// Why the wall clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockDoubt {
    /// It shows a time before the newest commit.
    Behind {
        /// The time of that commit.
        newest: Timestamp,
        /// How long before.
        by: Duration,
    },
    /// It was set since this host last decided by it.
    Jumped {
        /// How far.
        by: Duration,
        /// True when it was set forward.
        is_forward: bool,
    },
}

impl fmt::Display for ClockDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { by, .. } => {
                write!(f, "the clock is {} behind the repository's newest change", Span(*by))
            }
            Self::Jumped { by, is_forward } => {
                let direction = if *is_forward { "forward" } else { "back" };
                write!(
                    f,
                    "the clock of this machine was set {direction} by {} since it was last decided by",
                    Span(*by)
                )
            }
        }
    }
}

impl ClockEvidence {
    /// Why the clock cannot be believed, if it cannot: a pure function of the evidence.
    pub fn doubt(&self) -> Option<ClockDoubt> {
        let slack = i128::try_from(CLOCK_SLACK.as_nanos()).expect("an hour fits");
        let length = |nanos: i128| {
            Duration::from_nanos(u64::try_from(nanos.unsigned_abs()).unwrap_or(u64::MAX))
        };
        if let Some(newest) = self.newest {
            let behind = newest.as_nanos() - self.now.as_nanos();
            if behind > slack {
                return Some(ClockDoubt::Behind { newest, by: length(behind) });
            }
        }
        let drift = self.reading()?.drift_since(self.last.as_ref()?)?;
        (drift.abs() > slack)
            .then(|| ClockDoubt::Jumped { by: length(drift), is_forward: drift > 0 })
    }

    fn reading(&self) -> Option<ClockReading> {
        let uptime = self.uptime.clone()?;
        Some(ClockReading { now: self.now, uptime })
    }
}

impl Repository {
    /// What is known about the clock: the catalogue's times, and what this host remembers.
    pub fn clock_evidence(self: &Arc<Self>) -> Result<ClockEvidence> {
        let view = self.head()?;
        let live = view.snapshots()?.into_values().map(|entry| entry.committed);
        let forgotten = view.forgotten()?.into_values();
        let forgotten = forgotten.flat_map(|one| [one.entry.committed, one.forgotten]);
        let condemned = view.tombstones()?.into_values().map(|entry| entry.condemned);
        let last = self.clock_memory().and_then(|path| std::fs::read(path).ok());
        let last = last.filter(|bytes| bytes.len() <= READING_BYTES_MAX);
        Ok(ClockEvidence {
            now: self.env().now(),
            newest: live.chain(forgotten).chain(condemned).max(),
            uptime: self.env().uptime(),
            last: last.and_then(|bytes| ClockReading::decode(std::str::from_utf8(&bytes).ok()?)),
        })
    }

    /// Remembers this evidence as what the clocks showed when they were last believed. A cache that cannot be
    /// written only loses this witness.
    pub fn believe_clock(&self, evidence: &ClockEvidence) {
        let (Some(path), Some(reading)) = (self.clock_memory(), evidence.reading()) else { return };
        if let Some(dir) = path.parent() {
            let _ = std::fs::create_dir_all(dir);
        }
        let _ = std::fs::write(path, reading.encode());
    }

    fn clock_memory(&self) -> Option<PathBuf> {
        self.options.cache_dir.as_ref().map(|dir| dir.join("clock"))
    }
}

/// A length of time, rounded to hours or days.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = (self.0.as_secs() + 1800) / 3600;
        let (number, unit) = if hours < 48 { (hours, "hour") } else { ((hours + 12) / 24, "day") };
        write!(f, "{number} {unit}{}", if number == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn up(boot: &str, seconds: i64) -> Uptime {
        let elapsed = Duration::from_secs(u64::try_from(seconds).unwrap());
        Uptime { boot: boot.into(), elapsed }
    }

    // The wall clock is doubted when it lies more than an hour before the newest commit, or when it moved by more
    // than an hour against the time since the same boot; everything else is believed.
    #[test]
    fn clocks_are_doubted() {
        let check = |now: i64, newest: Option<i64>, last: Option<(i64, &str, i64)>, text: &str| {
            let last = last.map(|(now, boot, elapsed)| ClockReading {
                now: at(now),
                uptime: up(boot, elapsed),
            });
            let uptime = Some(up("this", 1000 * HOUR));
            let evidence = ClockEvidence { now: at(now), newest: newest.map(at), uptime, last };
            let doubt = evidence.doubt().map(|doubt| doubt.to_string()).unwrap_or_default();
            assert!(doubt.contains(text) && doubt.is_empty() == text.is_empty(), "{doubt:?}");
        };
        let now = 1_700_000_000;
        check(now, None, None, "");
        check(now, Some(now + HOUR), None, "");
        check(now, Some(now + HOUR + 1), None, "1 hour behind");
        check(now, Some(now + 72 * HOUR), None, "3 days behind");
        check(now, Some(now - 10_000 * HOUR), None, "");
        check(now, None, Some((now - HOUR, "this", 999 * HOUR)), "");
        check(now, None, Some((now - HOUR, "other", 1)), "");
        check(now, None, Some((now - 2 * HOUR, "this", 1000 * HOUR)), "set forward by 2 hours");
        check(now, None, Some((now + 2 * HOUR, "this", 999 * HOUR)), "set back by 3 hours");
        check(now, None, Some((now + HOUR, "this", 1000 * HOUR)), "");
        // A machine that was moved back to an earlier state of the same boot.
        check(now, None, Some((now - 99 * HOUR, "this", 1001 * HOUR)), "");
        check(i64::MIN, Some(i64::MAX), Some((i64::MAX, "this", 0)), "days behind");
    }

    // A reading comes back as it was written; anything else is no reading.
    #[test]
    fn readings_are_kept() {
        let reading = ClockReading { now: at(-5), uptime: up("a-b", 7) };
        assert_eq!(ClockReading::decode(&reading.encode()), Some(reading));
        for wrong in ["", "a", "a 1", "a -1 1", "a 1 b", "a 99999999999999999999999 1"] {
            assert_eq!(ClockReading::decode(wrong), None, "{wrong:?}");
        }
    }
}
