use super::*;
use jiff::Timestamp as Instant;

const NOW: &str = "2026-06-30T23:59:59Z";
/// Rules instead of names, so that the tests need no time zone database.
const UTC: &str = "UTC0";
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";

fn time(text: &str) -> Timestamp {
    let instant: Instant = text.parse().unwrap();
    Timestamp::from_nanos(instant.as_nanosecond())
}

fn id(number: usize) -> SnapshotId {
    let mut bytes = [0u8; 16];
    bytes[8..].copy_from_slice(&(number as u64).to_be_bytes());
    SnapshotId::from_bytes(bytes)
}

fn candidates(times: &[&str]) -> Vec<Candidate> {
    let make = |(number, text): (usize, &&str)| Candidate {
        id: id(number),
        time: time(text),
        host: "host".into(),
        paths: vec![b"/data".to_vec()],
        tags: vec![],
        protected: false,
    };
    times.iter().enumerate().map(make).collect()
}

/// Which of the snapshots (numbered as given) stay, each with its reasons, newest first.
fn kept_in(zone: &str, times: &[&str], policy: &RetentionPolicy) -> Vec<(usize, String)> {
    let zone = TimeZone::posix(zone).unwrap();
    let all = candidates(times);
    let plan = plan_retention(&all, policy, GroupBy::default(), time(NOW), &zone);
    assert_eq!(
        plan.keep().count() + plan.remove().count(),
        all.len(),
        "each snapshot is named once"
    );
    let number = |wanted: SnapshotId| (0..all.len()).find(|&n| id(n) == wanted).unwrap();
    plan.keep().map(|kept| (number(kept.id), kept.reasons.join("; "))).collect()
}

fn check(zone: &str, times: &[&str], policy: &RetentionPolicy, expected: &[(usize, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(n, why)| (*n, (*why).to_owned())).collect();
    assert_eq!(kept_in(zone, times, policy), expected);
}

#[test]
fn an_empty_policy_keeps_everything() {
    check(
        UTC,
        &["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"],
        &RetentionPolicy::default(),
        &[(1, "policy is empty"), (0, "policy is empty")],
    );
}

#[test]
fn last_keeps_the_newest() {
    // Count 0 is a rule that is not used.
    let times = ["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-02T00:00:00Z"];
    let policy =
        RetentionPolicy { last: Keep::Count(2), daily: Keep::Count(0), ..Default::default() };
    check(UTC, &times, &policy, &[(1, "last snapshot"), (2, "last snapshot")]);
}

#[test]
fn one_snapshot_stays_for_each_period() {
    // The newest of a day, ISO week, month and year represents it; the oldest fills a rule that is not satisfied.
    let times = [
        "2024-12-31T10:00:00Z",
        "2025-12-28T10:00:00Z",
        "2025-12-29T10:00:00Z", // the ISO week of 2026-01-01
        "2026-01-01T08:00:00Z",
        "2026-01-01T09:00:00Z",
    ];
    let daily = RetentionPolicy { daily: Keep::Count(2), ..Default::default() };
    check(UTC, &times, &daily, &[(4, "daily snapshot"), (2, "daily snapshot")]);
    let weekly = RetentionPolicy { weekly: Keep::Count(2), ..Default::default() };
    check(UTC, &times, &weekly, &[(4, "weekly snapshot"), (1, "weekly snapshot")]);
    let monthly = RetentionPolicy { monthly: Keep::Count(2), ..Default::default() };
    check(UTC, &times, &monthly, &[(4, "monthly snapshot"), (2, "monthly snapshot")]);
    let yearly = RetentionPolicy { yearly: Keep::All, ..Default::default() };
    let years = [(4, "yearly snapshot"), (2, "yearly snapshot"), (0, "yearly snapshot")];
    check(UTC, &times, &yearly, &years);
}

#[test]
fn the_oldest_stays_while_a_rule_is_not_satisfied() {
    let times = ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"];
    let unsatisfied = RetentionPolicy { daily: Keep::Count(2), ..Default::default() };
    check(UTC, &times, &unsatisfied, &[(2, "daily snapshot"), (0, "oldest daily snapshot")]);
    let satisfied = RetentionPolicy { daily: Keep::Count(1), ..Default::default() };
    check(UTC, &times, &satisfied, &[(2, "daily snapshot")]);
}

#[test]
fn hours_follow_the_clock_change() {
    // In Berlin the clock goes back at 2025-10-26T01:00Z: 02:30 comes twice, and counts as one hour;
    // it goes forward at 2026-03-29T01:00Z: 01:59 and 03:00 are neighbours.
    let policy = RetentionPolicy { hourly: Keep::All, ..Default::default() };
    let back = ["2025-10-25T23:30:00Z", "2025-10-26T00:30:00Z", "2025-10-26T01:30:00Z"];
    check(BERLIN, &back, &policy, &[(2, "hourly snapshot"), (0, "hourly snapshot")]);
    let forward = ["2026-03-29T00:59:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:59:00Z"];
    check(BERLIN, &forward, &policy, &[(2, "hourly snapshot"), (0, "hourly snapshot")]);
}

#[test]
fn days_begin_at_local_midnight() {
    // 23:30Z and 00:30Z are one day in New York and two in UTC, also on the day of 25 hours.
    let times = ["2025-11-02T23:30:00Z", "2025-11-03T00:30:00Z"];
    let policy = RetentionPolicy { daily: Keep::Count(9), ..Default::default() };
    let two = [(1, "daily snapshot"), (0, "daily snapshot")];
    check(UTC, &times, &policy, &two);
    let one = [(1, "daily snapshot"), (0, "oldest daily snapshot")];
    check(NEW_YORK, &times, &policy, &one);
    let long_day = ["2025-11-02T04:30:00Z", "2025-11-03T04:30:00Z", "2025-11-03T05:30:00Z"];
    let days = [(2, "daily snapshot"), (1, "daily snapshot")];
    let two_days = RetentionPolicy { daily: Keep::Count(2), ..Default::default() };
    check(NEW_YORK, &long_day, &two_days, &days);
}

#[test]
fn within_counts_from_the_newest_snapshot() {
    let times = [
        "2026-01-01T00:00:00Z",
        "2026-01-08T00:00:00Z", // exactly a week before the newest: outside
        "2026-01-08T00:00:01Z",
        "2026-01-15T00:00:00Z",
    ];
    let span: KeepSpan = "7d".parse().unwrap();
    let within = RetentionPolicy { within: [(Period::Last, span)].into(), ..Default::default() };
    check(UTC, &times, &within, &[(3, "within 7d"), (2, "within 7d")]);
    let span: KeepSpan = "1m".parse().unwrap();
    let daily = RetentionPolicy { within: [(Period::Daily, span)].into(), ..Default::default() };
    let expected = [(3, "daily within 1m"), (2, "daily within 1m"), (0, "daily within 1m")];
    check(UTC, &times, &daily, &expected);
}

#[test]
fn tags_names_and_protection_keep() {
    let mut all = candidates(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", NOW, NOW]);
    all[0].tags = vec!["b".into(), "a".into()];
    all[1].protected = true;
    let policy = RetentionPolicy {
        tags: vec![vec!["a".into(), "b".into()], vec!["c".into()]],
        ids: vec![id(2)],
        ..Default::default()
    };
    let plan = plan_retention(&all, &policy, GroupBy::default(), time(NOW), &TimeZone::UTC);
    let reasons: Vec<_> = plan.keep().map(|kept| (kept.id, kept.reasons.join("; "))).collect();
    let expected = [(id(2), "named"), (id(1), "protected"), (id(0), "has tags [a, b]")];
    assert_eq!(reasons, expected.map(|(id, why)| (id, why.to_owned())));
    assert_eq!(plan.remove().collect::<Vec<_>>(), [id(3)]);
}

#[test]
fn the_future_neither_counts_nor_goes() {
    // A wrong clock must not push good snapshots out of the count.
    let times = ["2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"];
    let policy = RetentionPolicy { last: Keep::Count(1), ..Default::default() };
    check(UTC, &times, &policy, &[(1, "lies in the future"), (0, "last snapshot")]);
}

#[test]
fn groups_are_judged_each_by_itself() {
    // Paths and tags are sets: their order makes no difference.
    let mut all = candidates(&["2026-01-01T00:00:00Z"; 4]);
    all[0].paths = vec![b"/a".to_vec(), b"/b".to_vec()];
    all[1].paths = vec![b"/b".to_vec(), b"/a".to_vec()];
    all[2].host = "other".into();
    all[3].tags = vec!["x".into()];
    let policy = RetentionPolicy { last: Keep::Count(1), ..Default::default() };
    let groups = |by| {
        let plan = plan_retention(&all, &policy, by, time(NOW), &TimeZone::UTC);
        plan.groups.iter().map(|group| group.keep.len() + group.remove.len()).collect::<Vec<_>>()
    };
    assert_eq!(groups(GroupBy::default()), [2, 1, 1]);
    assert_eq!(groups(GroupBy { host: true, paths: false, tags: false }), [3, 1]);
    assert_eq!(groups(GroupBy { host: false, paths: false, tags: true }), [3, 1]);
    assert_eq!(groups(GroupBy { host: false, paths: false, tags: false }), [4]);
}

#[test]
fn times_beyond_the_calendar_are_no_panic() {
    let mut all = candidates(&[NOW, NOW]);
    all[0].time = Timestamp { seconds: i64::MIN, nanos: 999_999_999 };
    all[1].time = Timestamp { seconds: i64::MIN + 1, nanos: 0 };
    let span: KeepSpan = "9999y".parse().unwrap();
    let policy = RetentionPolicy {
        hourly: Keep::All,
        yearly: Keep::Count(1),
        within: [(Period::Last, span)].into(),
        ..Default::default()
    };
    let plan = plan_retention(&all, &policy, GroupBy::default(), time(NOW), &TimeZone::UTC);
    assert_eq!(plan.keep().count() + plan.remove().count(), 2);
}
