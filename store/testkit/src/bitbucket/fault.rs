//! What goes wrong with which call.

use super::call::Call;
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultEffect {
    /// This status, and the call is not carried out.
    Status(u16),
    /// The connection is closed before the call is carried out.
    DropBefore,
    /// The call is carried out and the connection closed without an answer.
    DropAfter,
    /// The call is carried out and answered late.
    Late(Duration),
}

/// A fault that strikes some calls of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallFault {
    /// Which calls.
    pub call: Call,
    /// The first one that it strikes, from 1.
    pub first: usize,
    /// How many it strikes from there on.
    pub count: usize,
    /// What happens to them.
    pub effect: FaultEffect,
}

impl CallFault {
    /// Strikes the first `count` calls of a kind.
    pub fn first(call: Call, count: usize, effect: FaultEffect) -> Self {
        Self { call, first: 1, count, effect }
    }

    /// Strikes every call of a kind.
    pub fn every(call: Call, effect: FaultEffect) -> Self {
        Self::first(call, usize::MAX, effect)
    }

    /// True when it strikes the call with this number, from 1.
    pub fn strikes(&self, call: Call, number: usize) -> bool {
        self.call == call && number >= self.first && number - self.first < self.count
    }

    /// Reads `CALL:EFFECT[:FIRST[:COUNT]]`, where the effect is a status, `drop-before`, `drop-after` or `late-MS`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let call = Call::named(parts.next()?)?;
        let effect = match parts.next()? {
            "drop-before" => FaultEffect::DropBefore,
            "drop-after" => FaultEffect::DropAfter,
            other => match other.strip_prefix("late-") {
                Some(millis) => FaultEffect::Late(Duration::from_millis(millis.parse().ok()?)),
                None => FaultEffect::Status(other.parse().ok()?),
            },
        };
        let first = parts.next().map_or(Some(1), |part| part.parse().ok())?;
        let count = parts.next().map_or(Some(usize::MAX), |part| part.parse().ok())?;
        Some(Self { call, first, count, effect })
    }
}
