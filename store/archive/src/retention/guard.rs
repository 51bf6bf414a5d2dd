//! What retention refuses to do although its rules say so: a pure function over the plan and what is known of the
//! clock.
//!
//! Rules run unattended. A clock that jumped, a snapshot from the future or a mistyped rule would take more than
//! anybody meant; each refusal can be overruled by somebody who knows why. Snapshots that a person names are that
//! person's decision and pass no guard.

use super::{Candidate, RetentionPlan};
use std::fmt;
use stillpoint_store::clock::{CLOCK_SLACK, ClockDoubt, ClockEvidence};
use stillpoint_store::{SnapshotId, Timestamp};

/// Plans that forget fewer snapshots than this are small enough for any share.
pub const FEW_SNAPSHOTS: usize = 10;

/// The most that rules may forget at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxForget {
    /// A share of the snapshots that were looked at, percent; fewer than [`FEW_SNAPSHOTS`] always pass.
    Percent(u8),
    /// A number of snapshots.
    Count(usize),
}

impl fmt::Display for MaxForget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(share) => write!(f, "{share}%"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// Which guards stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards {
    /// Believe the clock whatever speaks against it.
    pub ignore_clock: bool,
    /// Go on although the newest snapshot lies in the future; such snapshots are kept and not counted.
    pub allow_future: bool,
    /// The most that may go at once.
    pub max_forget: MaxForget,
}

impl Default for Guards {
    fn default() -> Self {
        Self { ignore_clock: false, allow_future: false, max_forget: MaxForget::Percent(90) }
    }
}

/// Why a plan is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The clock cannot be believed. Next: set it, or overrule by [`Guards::ignore_clock`].
    #[error("{0}")]
    Clock(ClockDoubt),
    /// The newest snapshot lies in the future. Next: find out whose clock is wrong, or overrule by
    /// [`Guards::allow_future`].
    #[error("snapshot {} lies in the future", id.short())]
    Future {
        /// The newest snapshot.
        id: SnapshotId,
        /// The time it is judged by.
        time: Timestamp,
    },
    /// The plan forgets more than it may. Next: check the rules, or raise [`Guards::max_forget`].
    #[error("the rules would forget {forgets} of {of} snapshots, more than {limit}")]
    TooMany {
        /// How many would go.
        forgets: usize,
        /// How many were looked at.
        of: usize,
        /// How many may go.
        limit: MaxForget,
    },
}

/// Passes the plan, or gives the first reason against it.
///
/// # Errors
/// What somebody must look at before the plan is carried out.
pub fn judge(
    plan: &RetentionPlan,
    candidates: &[Candidate],
    clock: &ClockEvidence,
    guards: &Guards,
) -> Result<(), Refusal> {
    if !guards.ignore_clock
        && let Some(doubt) = clock.doubt()
    {
        return Err(Refusal::Clock(doubt));
    }
    let newest = candidates.iter().max_by_key(|candidate| (candidate.time, candidate.id));
    let slack = i128::try_from(CLOCK_SLACK.as_nanos()).expect("an hour fits");
    if !guards.allow_future
        && let Some(Candidate { id, time, .. }) = newest
        && time.as_nanos() - clock.now.as_nanos() > slack
    {
        return Err(Refusal::Future { id: *id, time: *time });
    }
    let (forgets, of) = (plan.remove().count(), candidates.len());
    let is_much = match guards.max_forget {
        MaxForget::Percent(share) => {
            forgets >= FEW_SNAPSHOTS
                && forgets.saturating_mul(100) > of.saturating_mul(usize::from(share))
        }
        MaxForget::Count(most) => forgets > most,
    };
    match is_much {
        true => Err(Refusal::TooMany { forgets, of, limit: guards.max_forget }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::{GroupBy, GroupPlan, RetentionPolicy, plan_retention};

    const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanos: 0 };

    /// The verdict on a plan that forgets `forgets` of snapshots at these distances from now, seconds.
    fn verdict(ages: &[i64], forgets: usize, newest_commit: i64, guards: Guards) -> String {
        let candidate = |(number, age): (usize, &i64)| Candidate {
            id: SnapshotId::from_bytes([u8::try_from(number).unwrap(); 16]),
            time: Timestamp { seconds: NOW.seconds + age, nanos: 0 },
            host: "h".into(),
            paths: vec![],
            tags: vec![],
            protected: false,
        };
        let all: Vec<_> = ages.iter().enumerate().map(candidate).collect();
        let zone = jiff::tz::TimeZone::UTC;
        let mut plan =
            plan_retention(&all, &RetentionPolicy::default(), GroupBy::default(), NOW, &zone);
        let ids: Vec<_> = all.iter().map(|candidate| candidate.id).take(forgets).collect();
        if let Some(GroupPlan { keep, remove, .. }) = plan.groups.first_mut() {
            keep.retain(|kept| !ids.contains(&kept.id));
            *remove = ids;
        }
        let newest = Some(Timestamp { seconds: NOW.seconds + newest_commit, nanos: 0 });
        let clock = ClockEvidence { now: NOW, newest, uptime: None, last: None };
        match judge(&plan, &all, &clock, &guards) {
            Ok(()) => String::new(),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[track_caller]
    fn check(found: String, part: &str) {
        assert!(found.contains(part) && found.is_empty() == part.is_empty(), "{found:?}");
    }

    // A clock behind the newest commit is believed only by those who say so.
    #[test]
    fn clocks() {
        let ignoring = Guards { ignore_clock: true, ..Guards::default() };
        check(verdict(&[-5], 1, 3600, Guards::default()), "");
        check(verdict(&[-5], 1, 3601, Guards::default()), "behind");
        check(verdict(&[-5], 1, 3601, ignoring), "");
    }

    // One snapshot more than an hour in the future stops everything, wherever it stands in the list.
    #[test]
    fn future() {
        let allowing = Guards { allow_future: true, ..Guards::default() };
        check(verdict(&[-5, 3600, -7], 1, 0, Guards::default()), "");
        check(verdict(&[-5, 3601, -7], 1, 0, Guards::default()), "snapshot 01010101 lies in");
        check(verdict(&[-5, 3601, -7], 1, 0, allowing), "");
        check(verdict(&[], 0, 0, Guards::default()), "");
    }

    // Shares count from ten snapshots on, numbers always; the limit itself may be reached.
    #[test]
    fn too_many() {
        let of = |count: usize| vec![-5; count];
        let most = |max_forget| Guards { max_forget, ..Guards::default() };
        check(verdict(&of(9), 9, 0, Guards::default()), "");
        check(verdict(&of(10), 10, 0, Guards::default()), "10 of 10 snapshots, more than 90%");
        check(verdict(&of(100), 90, 0, Guards::default()), "");
        check(verdict(&of(100), 91, 0, Guards::default()), "91 of 100");
        check(verdict(&of(100), 91, 0, most(MaxForget::Percent(100))), "");
        check(verdict(&of(100), 10, 0, most(MaxForget::Percent(0))), "more than 0%");
        check(verdict(&of(5), 3, 0, most(MaxForget::Count(3))), "");
        check(verdict(&of(5), 4, 0, most(MaxForget::Count(3))), "4 of 5 snapshots, more than 3");
    }
}
