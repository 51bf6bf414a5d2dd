//! The rules of one policy on their way through a group, from the newest snapshot to the oldest.
//!
//! The same rules as restic's, to the letter of their reasons: a test compares the two.

use super::span::KeepSpan;
use super::{Candidate, Keep, Period, RetentionPolicy};
use jiff::{Timestamp as Instant, Zoned, tz::TimeZone};
use stillpoint_store::Timestamp;

impl Period {
    /// Two snapshots are in the same period exactly if this is equal.
    fn bucket(self, moment: &Zoned, ordinal: usize) -> [i64; 3] {
        let date = moment.date();
        match self {
            Self::Last => [i64::try_from(ordinal).unwrap_or(i64::MAX), 0, 0],
            Self::Hourly => {
                let (year, day) = (i64::from(date.year()), i64::from(date.day_of_year()));
                [year, day, i64::from(moment.hour())]
            }
            Self::Daily => [i64::from(date.year()), i64::from(date.day_of_year()), 0],
            Self::Weekly => {
                let week = date.iso_week_date();
                [i64::from(week.year()), i64::from(week.week()), 0]
            }
            Self::Monthly => [i64::from(date.year()), i64::from(date.month()), 0],
            Self::Yearly => [i64::from(date.year()), 0, 0],
        }
    }
}

/// One calendar rule on its way from the newest snapshot to the oldest.
struct Rule {
    period: Period,
    limit: Limit,
    last: Option<[i64; 3]>,
}

enum Limit {
    Count(Keep),
    Within { after: Zoned, span: KeepSpan },
}

pub(super) struct Rules<'a> {
    policy: &'a RetentionPolicy,
    zone: &'a TimeZone,
    rules: Vec<Rule>,
    members: usize,
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        policy: &'a RetentionPolicy,
        newest_first: &[&Candidate],
        zone: &'a TimeZone,
    ) -> Self {
        let newest = newest_first.first().map(|newest| zoned(newest.time, zone));
        let within = |period: Period| {
            let span = *policy.within.get(&period).filter(|span| !span.is_zero())?;
            let limit = Limit::Within { after: span.before(newest.as_ref()?), span };
            Some(Rule { period, limit, last: None })
        };
        let counted = Period::ALL.into_iter().filter_map(|period| {
            let keep = policy.count(period);
            let is_used = !matches!(keep, Keep::None | Keep::Count(0));
            is_used.then_some(Rule { period, limit: Limit::Count(keep), last: None })
        });
        let (every, periods) = Period::ALL.split_at(1);
        let every = every.iter().filter_map(|period| within(*period));
        let periods = periods.iter().filter_map(|period| within(*period));
        let rules = every.chain(counted).chain(periods).collect();
        Self { policy, zone, rules, members: newest_first.len() }
    }

    pub(super) fn reasons(&mut self, candidate: &Candidate, ordinal: usize) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.policy.is_empty() {
            reasons.push("policy is empty".to_owned());
        }
        if candidate.protected {
            reasons.push("protected".to_owned());
        }
        if self.policy.ids.contains(&candidate.id) {
            reasons.push("named".to_owned());
        }
        for set in &self.policy.tags {
            if has_tags(candidate, set) {
                reasons.push(format!("has tags [{}]", set.join(", ")));
            }
        }
        let moment = zoned(candidate.time, self.zone);
        let oldest = ordinal + 1 == self.members;
        for rule in &mut self.rules {
            reasons.extend(rule.reason(&moment, ordinal, oldest));
        }
        reasons
    }
}

/// True when the snapshot has every tag of the set; an empty tag stands for having none.
fn has_tags(candidate: &Candidate, set: &[String]) -> bool {
    set.iter().all(|tag| match tag.is_empty() {
        true => candidate.tags.is_empty(),
        false => candidate.tags.contains(tag),
    })
}

impl Rule {
    /// Why this rule keeps the snapshot, if it does. The oldest snapshot is kept while a rule is not yet satisfied:
    /// a history shorter than the policy keeps its beginning.
    fn reason(&mut self, moment: &Zoned, ordinal: usize, oldest: bool) -> Option<String> {
        let bucket = self.period.bucket(moment, ordinal);
        let fresh = self.last != Some(bucket);
        let inside = match &self.limit {
            Limit::Count(keep) => !matches!(keep, Keep::None | Keep::Count(0)),
            Limit::Within { after, .. } => moment > after,
        };
        if !inside || !(fresh || oldest) {
            return None;
        }
        self.last = Some(bucket);
        let word = self.period.word();
        let prefix = if fresh { "" } else { "oldest " };
        Some(match &mut self.limit {
            Limit::Count(keep) => {
                if let Keep::Count(left) = keep {
                    *left -= 1;
                }
                format!("{prefix}{word} snapshot")
            }
            Limit::Within { span, .. } if self.period == Period::Last => format!("within {span}"),
            Limit::Within { span, .. } => format!("{prefix}{word} within {span}"),
        })
    }
}

/// The moment on the local clock; times beyond jiff's calendar (years -9999 to 9999) lie at its ends.
fn zoned(time: Timestamp, zone: &TimeZone) -> Zoned {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    let end = if time.seconds < 0 { Instant::MIN } else { Instant::MAX };
    Instant::new(time.seconds, nanos).unwrap_or(end).to_zoned(zone.clone())
}
