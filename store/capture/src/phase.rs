//! The phases of a capture, what is told about them and what they took.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The phases, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Everything that can fail is tried; nothing is locked.
    Rehearse,
    /// The sources are saved while the application runs, so that little is left to do under the lock.
    Warm,
    /// The application is asked for its lock.
    Lock,
    /// The application finishes what it had begun.
    Drain,
    /// One instant is held: the only work under the lock that is ours.
    Freeze,
    /// The lock is given back.
    Release,
    /// What was held is stored and committed.
    Finish,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Rehearse,
        Self::Warm,
        Self::Lock,
        Self::Drain,
        Self::Freeze,
        Self::Release,
        Self::Finish,
    ];

    /// Its name, as events and messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rehearse => "rehearse",
            Self::Warm => "warm",
            Self::Lock => "lock",
            Self::Drain => "drain",
            Self::Freeze => "freeze",
            Self::Release => "release",
            Self::Finish => "finish",
        }
    }

    /// True where the application may be locked.
    pub fn is_locked(self) -> bool {
        (Self::Lock..=Self::Release).contains(&self)
    }
}

/// A duration as people read it: `1.2 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The phases are in the order in which they happen, and the lock is held in four of them.
    #[test]
    fn order_and_lock() {
        assert!(Phase::ALL.is_sorted());
        let locked: Vec<&str> =
            Phase::ALL.into_iter().filter(|phase| phase.is_locked()).map(Phase::name).collect();
        assert_eq!(locked, ["lock", "drain", "freeze", "release"]);
    }

    // Names in events are the names in messages.
    #[test]
    fn names() {
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
        }
    }
}
