//! The retention rules and guards of `forget`, in restic's spelling where restic has one.

use crate::selection::tag_set;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::sync::Arc;
use stillpoint_archive::retention::guard::{Guards, MaxForget};
use stillpoint_archive::retention::span::KeepSpan;
use stillpoint_archive::retention::{GroupBy, JudgeBy, Keep, Period, RetentionPolicy};
use stillpoint_store::Repository;

const RULES: &str = "Retention rules (a snapshot stays when any rule keeps it)";
const GUARDS: &str = "Guards (what rules are refused, unless somebody says that it is meant)";

/// The names of all rules, which do not go with snapshots named by hand.
pub const RULE_NAMES: [&str; 14] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_within",
    "keep_within_hourly",
    "keep_within_daily",
    "keep_within_weekly",
    "keep_within_monthly",
    "keep_within_yearly",
    "keep_tag",
    "keep_id",
];

/// The rules.
#[derive(Debug, Args)]
pub struct KeepArgs {
    /// Keep the newest N snapshots (N may be `unlimited`)
    #[arg(short = 'l', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_last: Option<Keep>,
    /// Keep the newest snapshot of each of the newest N hours that have one
    #[arg(short = 'H', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_hourly: Option<Keep>,
    /// The same for days
    #[arg(short = 'd', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_daily: Option<Keep>,
    /// The same for weeks
    #[arg(short = 'w', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_weekly: Option<Keep>,
    /// The same for months
    #[arg(short = 'm', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_monthly: Option<Keep>,
    /// The same for years
    #[arg(short = 'y', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_yearly: Option<Keep>,
    /// Keep all snapshots this long before the newest one (1y5m7d2h: years, months, days, hours)
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within: Option<KeepSpan>,
    /// Keep an hourly snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_hourly: Option<KeepSpan>,
    /// Keep a daily snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_daily: Option<KeepSpan>,
    /// Keep a weekly snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_weekly: Option<KeepSpan>,
    /// Keep a monthly snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_monthly: Option<KeepSpan>,
    /// Keep a yearly snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_yearly: Option<KeepSpan>,
    /// Keep snapshots that carry all of these tags; may be given several times
    #[arg(long, value_name = "TAG[,TAG]", help_heading = RULES)]
    keep_tag: Vec<String>,
    /// Keep this snapshot; may be given several times
    #[arg(long, value_name = "SNAPSHOT", help_heading = RULES)]
    keep_id: Vec<String>,
    /// The time of a snapshot that the rules look at: when it was taken, as its host claims it, or when it was committed
    #[arg(long, value_name = "TIME", default_value = "time", value_enum, help_heading = RULES)]
    by: By,
}

/// Which time counts.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Time,
    Committed,
}

/// What is refused.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Refuse to forget more than this share, or number, of the snapshots looked at (a share counts from 10 snapshots on)
    #[arg(long, value_name = "N%|N", default_value = "90%", value_parser = max_forget, help_heading = GUARDS)]
    max_forget: MaxForget,

    /// Go on although the newest snapshot lies in the future; such snapshots are kept and not counted
    #[arg(long, help_heading = GUARDS)]
    allow_future: bool,

    /// Believe this machine's clock, although it was set or lies behind the repository's
    #[arg(long, help_heading = GUARDS)]
    pub ignore_clock: bool,

    /// Let the rules remove all snapshots of a group
    #[arg(long, help_heading = GUARDS)]
    pub unsafe_allow_remove_all: bool,
}

impl GuardArgs {
    /// The same for the library.
    pub fn guards(&self) -> Guards {
        Guards {
            ignore_clock: self.ignore_clock,
            allow_future: self.allow_future,
            max_forget: self.max_forget,
        }
    }
}

fn max_forget(text: &str) -> Result<MaxForget, String> {
    let wrong = || format!("`{text}` is neither a share such as 90% nor a number of snapshots");
    match text.strip_suffix('%') {
        None => text.parse().map(MaxForget::Count).map_err(|_| wrong()),
        Some(share) => match share.parse() {
            Ok(share @ 0..=100) => Ok(MaxForget::Percent(share)),
            _ => Err(wrong()),
        },
    }
}

fn keep(text: &str) -> Result<Keep, String> {
    match text {
        "unlimited" | "-1" => Ok(Keep::All),
        number => match number.parse::<u32>() {
            Ok(0) => Ok(Keep::None),
            Ok(number) => Ok(Keep::Count(number)),
            Err(_) => Err(format!("`{text}` is neither a number nor `unlimited`")),
        },
    }
}

/// Parses a list of `host`, `paths` and `tags`.
pub fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy { host: false, paths: false, tags: false };
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match word {
            "host" | "hosts" => by.host = true,
            "path" | "paths" => by.paths = true,
            "tag" | "tags" => by.tags = true,
            other => return Err(format!("`{other}` is none of host, paths, tags")),
        }
    }
    Ok(by)
}

impl KeepArgs {
    /// True when no rule is given.
    pub fn is_empty(&self) -> bool {
        self.keep_id.is_empty() && self.rules().is_empty()
    }

    /// The time of snapshots that counts.
    pub fn judge_by(&self) -> JudgeBy {
        match self.by {
            By::Time => JudgeBy::Time,
            By::Committed => JudgeBy::Committed,
        }
    }

    /// The policy; the snapshots that it names are looked up.
    ///
    /// # Errors
    /// `NoSuchSnapshot` for one that is not there: rather than forgetting what was to be kept.
    pub fn policy(&self, repository: &Arc<Repository>) -> Result<RetentionPolicy> {
        let mut policy = self.rules();
        for spec in &self.keep_id {
            policy.ids.push(repository.find_snapshot(spec)?.id);
        }
        Ok(policy)
    }

    fn rules(&self) -> RetentionPolicy {
        let within = [
            (Period::Last, self.keep_within),
            (Period::Hourly, self.keep_within_hourly),
            (Period::Daily, self.keep_within_daily),
            (Period::Weekly, self.keep_within_weekly),
            (Period::Monthly, self.keep_within_monthly),
            (Period::Yearly, self.keep_within_yearly),
        ];
        RetentionPolicy {
            last: self.keep_last.unwrap_or_default(),
            hourly: self.keep_hourly.unwrap_or_default(),
            daily: self.keep_daily.unwrap_or_default(),
            weekly: self.keep_weekly.unwrap_or_default(),
            monthly: self.keep_monthly.unwrap_or_default(),
            yearly: self.keep_yearly.unwrap_or_default(),
            within: within.into_iter().filter_map(|(period, span)| Some((period, span?))).collect(),
            tags: self.keep_tag.iter().map(|set| tag_set(set)).collect(),
            ids: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Counts, grouping and limits as people type them.
    #[test]
    fn rules_are_parsed() {
        assert_eq!(keep("3"), Ok(Keep::Count(3)));
        assert_eq!(keep("unlimited"), Ok(Keep::All));
        assert_eq!(keep("0"), Ok(Keep::None));
        assert!(keep("x").is_err());
        assert_eq!(group_by(""), Ok(GroupBy { host: false, paths: false, tags: false }));
        assert_eq!(group_by("host,tags"), Ok(GroupBy { host: true, paths: false, tags: true }));
        assert!(group_by("user").is_err());
        assert_eq!(max_forget("90%"), Ok(MaxForget::Percent(90)));
        assert_eq!(max_forget("12"), Ok(MaxForget::Count(12)));
        for wrong in ["101%", "-1", "-1%", "1.5%", "%", "all"] {
            assert!(max_forget(wrong).is_err(), "{wrong}");
        }
    }
}
