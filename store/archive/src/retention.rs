//! Which snapshots a policy keeps, and why: a pure plan over times, hosts, paths and tags.
//!
//! Owns the calendar rules (the ones restic's users know). Knows nothing of repositories; who forgets what is
//! planned here is the caller's business. The clock and the time zone come in as values.

pub mod guard;
mod rules;
pub mod span;

use jiff::tz::TimeZone;
use rules::Rules;
use serde::Serialize;
use span::KeepSpan;
use std::collections::{BTreeMap, BTreeSet};
use stillpoint_store::{Snapshot, SnapshotId, Timestamp};

/// How many snapshots of one rule are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Keep {
    /// The rule is not used.
    #[default]
    None,
    /// The newest of this many periods.
    Count(u32),
    /// The newest of every period, for ever.
    All,
}

/// The periods of the calendar in which one snapshot each is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// Every snapshot is a period of its own.
    Last,
    /// An hour of the local clock; an hour that a clock change repeats counts once.
    Hourly,
    /// A local day.
    Daily,
    /// An ISO week, Monday to Sunday.
    Weekly,
    /// A calendar month.
    Monthly,
    /// A calendar year.
    Yearly,
}

impl Period {
    /// All periods, shortest first.
    pub const ALL: [Self; 6] =
        [Self::Last, Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    fn word(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }
}

/// What is kept. A snapshot stays if at least one rule keeps it; a policy without any rule keeps everything.
#[derive(Debug, Clone, Default)]
pub struct RetentionPolicy {
    /// The newest N snapshots.
    pub last: Keep,
    /// The newest snapshot of each of the newest N hours that have one.
    pub hourly: Keep,
    /// The same for days.
    pub daily: Keep,
    /// The same for ISO weeks.
    pub weekly: Keep,
    /// The same for months.
    pub monthly: Keep,
    /// The same for years.
    pub yearly: Keep,
    /// Spans before the newest snapshot in which the newest snapshot of each such period is kept
    /// (`Period::Last`: every snapshot).
    pub within: BTreeMap<Period, KeepSpan>,
    /// Sets of tags: a snapshot that has every tag of one set is kept; an empty tag stands for having none.
    pub tags: Vec<Vec<String>>,
    /// Snapshots kept by name.
    pub ids: Vec<SnapshotId>,
}

impl RetentionPolicy {
    /// True if no rule is set; such a policy keeps everything.
    pub fn is_empty(&self) -> bool {
        Period::ALL.iter().all(|&period| self.count(period) == Keep::None)
            && self.within.values().all(KeepSpan::is_zero)
            && self.tags.is_empty()
            && self.ids.is_empty()
    }

    fn count(&self, period: Period) -> Keep {
        match period {
            Period::Last => self.last,
            Period::Hourly => self.hourly,
            Period::Daily => self.daily,
            Period::Weekly => self.weekly,
            Period::Monthly => self.monthly,
            Period::Yearly => self.yearly,
        }
    }
}

/// By what snapshots are put into groups; the policy is applied to each group by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// By host name.
    pub host: bool,
    /// By the set of paths.
    pub paths: bool,
    /// By the set of tags.
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

/// What retention looks at in a snapshot.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its name.
    pub id: SnapshotId,
    /// The time it is judged by.
    pub time: Timestamp,
    /// The host it was taken on.
    pub host: String,
    /// The paths it holds, in any order.
    pub paths: Vec<Vec<u8>>,
    /// Its tags, in any order.
    pub tags: Vec<String>,
    /// Kept whatever the policy says.
    pub protected: bool,
}

/// By which of its times a snapshot is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JudgeBy {
    /// The moment it stands for, as its host claims it.
    #[default]
    Time,
    /// The moment it was committed, by the clock of whoever did it. A server that commits for its hosts judges by this:
    /// then no host pushes good snapshots out by times that it makes up.
    Committed,
}

impl Candidate {
    /// What retention looks at in this snapshot.
    pub fn new(snapshot: &Snapshot, by: JudgeBy) -> Self {
        let record = &snapshot.record;
        Self {
            id: snapshot.id,
            time: match by {
                JudgeBy::Time => record.time,
                JudgeBy::Committed => snapshot.committed,
            },
            host: record.host.clone(),
            paths: record.paths.iter().map(|path| path.to_vec()).collect(),
            tags: record.tags.clone(),
            protected: snapshot.protected,
        }
    }
}

/// What the snapshots of a group have in common; None where the grouping ignores it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GroupKey {
    /// The host name.
    pub host: Option<String>,
    /// The paths, sorted.
    pub paths: Option<Vec<Vec<u8>>>,
    /// The tags, sorted.
    pub tags: Option<Vec<String>>,
}

/// A snapshot that stays, with every rule that keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The snapshot.
    pub id: SnapshotId,
    /// Why: `last snapshot`, `daily snapshot`, `oldest weekly snapshot`, `within 7d`, ...; never empty.
    pub reasons: Vec<String>,
}

/// The plan for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPlan {
    /// What its snapshots have in common.
    pub key: GroupKey,
    /// What stays, newest first.
    pub keep: Vec<Kept>,
    /// What goes, newest first.
    pub remove: Vec<SnapshotId>,
}

/// What a policy keeps and removes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionPlan {
    /// The groups, ordered by their keys.
    pub groups: Vec<GroupPlan>,
}

impl RetentionPlan {
    /// Every snapshot that goes.
    pub fn remove(&self) -> impl Iterator<Item = SnapshotId> + '_ {
        self.groups.iter().flat_map(|group| group.remove.iter().copied())
    }

    /// Every snapshot that stays.
    pub fn keep(&self) -> impl Iterator<Item = &Kept> + '_ {
        self.groups.iter().flat_map(|group| group.keep.iter())
    }
}

/// Applies `policy` to each group of `candidates`. `zone` says where days begin.
///
/// Snapshots that lie after `now` are kept and not counted: a host with a wrong clock can neither push good
/// snapshots out nor lose its own.
pub fn plan_retention(
    candidates: &[Candidate],
    policy: &RetentionPolicy,
    group_by: GroupBy,
    now: Timestamp,
    zone: &TimeZone,
) -> RetentionPlan {
    let mut groups: BTreeMap<GroupKey, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        groups.entry(group_key(candidate, group_by)).or_default().push(candidate);
    }
    let groups = groups
        .into_iter()
        .map(|(key, mut members)| {
            members.sort_by(|a, b| b.time.cmp(&a.time).then(a.id.cmp(&b.id)));
            plan_group(key, &members, policy, now, zone)
        })
        .collect();
    RetentionPlan { groups }
}

fn group_key(candidate: &Candidate, by: GroupBy) -> GroupKey {
    fn sorted<T: Ord + Clone>(list: &[T]) -> Vec<T> {
        list.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }
    GroupKey {
        host: by.host.then(|| candidate.host.clone()),
        paths: by.paths.then(|| sorted(&candidate.paths)),
        tags: by.tags.then(|| sorted(&candidate.tags)),
    }
}

fn plan_group(
    key: GroupKey,
    newest_first: &[&Candidate],
    policy: &RetentionPolicy,
    now: Timestamp,
    zone: &TimeZone,
) -> GroupPlan {
    let mut plan = GroupPlan { key, keep: Vec::new(), remove: Vec::new() };
    let counted = newest_first.partition_point(|candidate| candidate.time > now);
    let (future, past) = newest_first.split_at(counted);
    let future = future.iter().map(|it| (it.id, vec!["lies in the future".to_owned()]));
    let mut rules = Rules::new(policy, past, zone);
    let past = past.iter().enumerate().map(|(ordinal, it)| (it.id, rules.reasons(it, ordinal)));
    for (id, reasons) in future.chain(past) {
        if reasons.is_empty() {
            plan.remove.push(id);
        } else {
            plan.keep.push(Kept { id, reasons });
        }
    }
    plan
}

#[cfg(test)]
mod tests;
