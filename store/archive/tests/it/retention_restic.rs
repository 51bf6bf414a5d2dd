//! The retention rules are restic's: the same snapshots under the same policies, judged by both.

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::process::Command;
use stillpoint_archive::retention::span::KeepSpan;
use stillpoint_archive::retention::{
    Candidate, GroupBy, Keep, Period, RetentionPolicy, plan_retention,
};
use stillpoint_store::{SnapshotId, Timestamp};
use stillpoint_testkit::Random;

/// Policies that are compared; more where somebody asks for them.
const POLICIES: u64 = 16;
/// Asks for another number of policies.
const POLICIES_VARIABLE: &str = "STILLPOINT_RESTIC_POLICIES";
const ZONE: &str = "Europe/Berlin";
/// Processes of restic at once.
const LANES: usize = 4;

/// Moments of one host each, chosen for their calendar: many in one day; days and hours over weeks; turns of years
/// and ISO weeks; ends of months and leap days; both clock changes, the repeated hour included.
const HOSTS: [(&str, &[&str]); 5] = [
    (
        "busy",
        &[
            "2024-05-14T22:30:00Z",
            "2024-05-15T00:00:00Z",
            "2024-05-15T00:20:10Z",
            "2024-05-15T00:59:59Z",
            "2024-05-15T01:00:00Z",
            "2024-05-15T07:00:00Z",
            "2024-05-15T07:00:01Z",
            "2024-05-15T21:59:59Z",
            "2024-05-15T22:00:00Z",
        ],
    ),
    (
        "daily",
        &[
            "2024-03-01T02:00:00Z",
            "2024-03-02T02:00:00Z",
            "2024-03-03T22:59:59Z",
            "2024-03-03T23:00:00Z",
            "2024-03-05T02:00:00Z",
            "2024-03-09T02:00:00Z",
            "2024-03-10T23:30:00Z",
            "2024-03-18T02:00:00Z",
            "2024-04-01T01:00:00Z",
        ],
    ),
    (
        "years",
        &[
            "2019-12-30T12:00:00Z",
            "2019-12-31T23:30:00Z",
            "2020-12-31T12:00:00Z",
            "2021-01-03T12:00:00Z",
            "2021-01-03T23:30:00Z",
            "2021-12-27T12:00:00Z",
            "2022-01-01T12:00:00Z",
            "2022-12-31T22:59:59Z",
            "2022-12-31T23:00:00Z",
        ],
    ),
    (
        "months",
        &[
            "2023-02-28T12:00:00Z",
            "2023-03-01T12:00:00Z",
            "2023-12-31T12:00:00Z",
            "2024-01-31T12:00:00Z",
            "2024-02-28T12:00:00Z",
            "2024-02-29T12:00:00Z",
            "2024-03-02T11:00:00Z",
            "2024-03-30T12:00:00Z",
            "2024-03-31T12:00:00Z",
        ],
    ),
    (
        "changes",
        &[
            "2023-03-26T00:30:00Z",
            "2023-03-26T01:30:00Z",
            "2023-10-28T22:30:00Z",
            "2023-10-29T00:30:00Z",
            "2023-10-29T00:45:00Z",
            "2023-10-29T01:15:00Z",
            "2023-10-29T02:15:00Z",
            "2023-10-29T22:59:59Z",
            "2023-10-29T23:00:00Z",
        ],
    ),
];

/// What one side says: for each host and moment the reasons that keep it, or nothing.
type Verdicts = BTreeMap<(String, String), Vec<String>>;

struct Lab {
    dir: tempfile::TempDir,
    version: Version,
    zone: TimeZone,
    candidates: Vec<Candidate>,
}

/// How far restic's own rules had come: that the oldest snapshot stays while a rule is not satisfied is newer than the
/// rest, and we do as the newest restic does.
#[derive(Clone, Copy)]
enum Version {
    /// Before 0.16: the oldest has no right of its own.
    Plain,
    /// Before 0.18: it has, in the counting rules, and the reason does not say so.
    Silent,
    /// It has, in all rules, and the reason says so.
    Newest,
}

impl Version {
    fn of(text: &str) -> Result<Self, String> {
        let numbers = text.strip_prefix("restic ").and_then(|rest| rest.split(' ').next());
        let mut numbers = numbers.into_iter().flat_map(|version| version.split('.'));
        let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
        match (next(), next()) {
            (Some(0), Some(..16)) => Ok(Self::Plain),
            (Some(0), Some(..18)) => Ok(Self::Silent),
            (Some(_), Some(_)) => Ok(Self::Newest),
            _ => Err(format!("restic does not tell its version: {text:?}")),
        }
    }

    /// What this version says where the newest gives this reason.
    fn says(self, reason: &str) -> Option<String> {
        match (self, reason.strip_prefix("oldest ")) {
            (Self::Newest, _) | (_, None) => Some(reason.to_owned()),
            (Self::Silent, Some(rest)) if rest.ends_with("snapshot") => Some(rest.to_owned()),
            _ => None,
        }
    }
}

fn moment(text: &str) -> Timestamp {
    Timestamp::from_nanos(text.parse::<Instant>().unwrap().as_nanosecond())
}

fn text(moment: Timestamp) -> String {
    Instant::new(moment.seconds, 0).unwrap().to_string()
}

impl Lab {
    /// The lab, or why there can be none.
    fn new() -> Result<Self, String> {
        let version = Command::new("restic").arg("version").output();
        let version = version.map_err(|error| format!("restic cannot be run: {error}"))?;
        let version = Version::of(&String::from_utf8_lossy(&version.stdout))?;
        let zone = TimeZone::get(ZONE).map_err(|error| error.to_string())?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"content").unwrap();
        let mut candidates = Vec::new();
        for (host, times) in HOSTS {
            for time in times {
                let number = u8::try_from(candidates.len()).unwrap();
                // Without tags the repeated hour is never the newest of a group: restic takes a span before it from
                // the wrong one of its two halves, and then the newest snapshot is not within an hour of itself.
                let tags = ["a", "b"].iter().zip([2, 3]).filter(|_| host != "changes");
                let tags = tags.filter(|(_, every)| number % every == 0);
                candidates.push(Candidate {
                    id: SnapshotId::from_bytes([number; 16]),
                    time: moment(time),
                    host: host.into(),
                    paths: vec![b"/file".to_vec()],
                    tags: tags.map(|(tag, _)| (*tag).to_owned()).collect(),
                    protected: false,
                });
            }
        }
        let lab = Self { dir, version, zone, candidates };
        lab.restic(ZONE, &["init"]);
        let each = lab.candidates.len().div_ceil(LANES);
        std::thread::scope(|scope| {
            for part in lab.candidates.chunks(each) {
                scope.spawn(|| part.iter().for_each(|candidate| lab.save(candidate)));
            }
        });
        Ok(lab)
    }

    fn restic(&self, zone: &str, arguments: &[&str]) -> String {
        let output = Command::new("restic")
            .args(["--repo", "repository", "--no-cache"])
            .args(arguments)
            .current_dir(self.dir.path())
            .env("RESTIC_PASSWORD", "secret")
            .env("TZ", zone)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Takes the snapshot with restic. Its offset is named, so that the repeated hour is told apart.
    fn save(&self, candidate: &Candidate) {
        let instant = Instant::new(candidate.time.seconds, 0).unwrap();
        let local = instant.to_zoned(self.zone.clone());
        let zone = format!("Etc/GMT-{}", local.offset().seconds() / 3600);
        let time = local.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let tags = candidate.tags.join(",");
        let mut arguments = vec!["backup", "file", "--host", &candidate.host, "--time", &time];
        if !tags.is_empty() {
            arguments.extend(["--tag", &tags]);
        }
        self.restic(&zone, &arguments);
    }

    /// What restic would do.
    fn theirs(&self, rules: &[String]) -> Verdicts {
        let mut arguments = vec!["forget", "--dry-run", "--no-lock", "--json"];
        arguments.extend(rules.iter().map(String::as_str));
        let output = self.restic(ZONE, &arguments);
        let groups: serde_json::Value =
            serde_json::from_str(output.lines().next().unwrap()).unwrap();
        let name = |snapshot: &serde_json::Value| {
            let time = snapshot["time"].as_str().unwrap();
            (snapshot["hostname"].as_str().unwrap().to_owned(), text(moment(time)))
        };
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let mut verdicts = Verdicts::new();
        for group in list(&groups) {
            for kept in list(&group["reasons"]) {
                let matches = list(&kept["matches"]);
                let reasons = matches.iter().map(|reason| reason.as_str().unwrap().to_owned());
                verdicts.insert(name(&kept["snapshot"]), reasons.collect());
            }
            assert_eq!(list(&group["keep"]).len(), list(&group["reasons"]).len());
            for gone in list(&group["remove"]) {
                verdicts.insert(name(&gone), Vec::new());
            }
        }
        verdicts
    }

    /// What our plan says.
    fn ours(&self, policy: &RetentionPolicy, by: GroupBy) -> Verdicts {
        let now = moment("2030-01-01T00:00:00Z");
        let plan = plan_retention(&self.candidates, policy, by, now, &self.zone);
        let name = |id: SnapshotId| {
            let found = self.candidates.iter().find(|candidate| candidate.id == id).unwrap();
            (found.host.clone(), text(found.time))
        };
        let version = self.version;
        let reasons =
            |reasons: &[String]| reasons.iter().filter_map(|one| version.says(one)).collect();
        let kept = plan.keep().map(|kept| (name(kept.id), reasons(&kept.reasons)));
        kept.chain(plan.remove().map(|id| (name(id), Vec::new()))).collect()
    }
}

/// A policy, and the same in restic's spelling.
fn policy(random: &mut Random) -> (RetentionPolicy, GroupBy, Vec<String>) {
    let mut one_in = |chances: u64| random.below(chances) == 0;
    let (host, paths, tags) = (!one_in(3), one_in(2), one_in(4));
    let by = GroupBy { host, paths, tags };
    let words = [(host, "host"), (paths, "paths"), (tags, "tags")];
    let words: Vec<_> = words.iter().filter(|(used, _)| *used).map(|(_, word)| *word).collect();
    let mut spelt = vec![format!("--group-by={}", words.join(","))];
    let mut policy = RetentionPolicy::default();
    while policy.is_empty() {
        let names = ["last", "hourly", "daily", "weekly", "monthly", "yearly"];
        for (period, name) in Period::ALL.into_iter().zip(names) {
            if random.below(3) == 0 {
                let count = u32::try_from(random.below(6) + 1).unwrap();
                let slot = match period {
                    Period::Last => &mut policy.last,
                    Period::Hourly => &mut policy.hourly,
                    Period::Daily => &mut policy.daily,
                    Period::Weekly => &mut policy.weekly,
                    Period::Monthly => &mut policy.monthly,
                    Period::Yearly => &mut policy.yearly,
                };
                *slot = Keep::Count(count);
                spelt.push(format!("--keep-{name}={count}"));
            }
            if random.below(5) == 0 {
                let span = span(random);
                policy.within.insert(period, span);
                let name = if period == Period::Last { String::new() } else { format!("-{name}") };
                spelt.push(format!("--keep-within{name}={span}"));
            }
        }
        if random.below(5) == 0 {
            let sets = [vec!["a"], vec!["b"], vec!["a", "b"], vec!["none"]];
            let set = &sets[usize::try_from(random.below(4)).unwrap()];
            policy.tags.push(set.iter().map(|tag| (*tag).to_owned()).collect());
            spelt.push(format!("--keep-tag={}", set.join(",")));
        }
    }
    (policy, by, spelt)
}

fn span(random: &mut Random) -> KeepSpan {
    let mut part = |most: u64| match random.below(2) {
        0 => 0,
        _ => u16::try_from(random.below(most)).unwrap(),
    };
    let span = KeepSpan { years: part(3), months: part(14), days: part(40), hours: part(50) };
    if span.is_zero() { KeepSpan { hours: 1, ..span } } else { span }
}

/// Random policies keep and remove the same snapshots as restic, each for the same reasons.
#[test]
fn policies_mean_what_they_mean_in_restic() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let policies = std::env::var(POLICIES_VARIABLE).ok().map(|number| number.parse().unwrap());
    let seeds: Vec<u64> = (0..policies.unwrap_or(POLICIES)).collect();
    std::thread::scope(|scope| {
        for part in seeds.chunks(seeds.len().div_ceil(LANES)) {
            let lab = &lab;
            scope.spawn(move || {
                for &seed in part {
                    let (policy, by, spelt) = policy(&mut Random::new(seed));
                    let (ours, theirs) = (lab.ours(&policy, by), lab.theirs(&spelt));
                    assert_eq!(ours.len(), lab.candidates.len());
                    for (name, reasons) in &theirs {
                        assert_eq!(&ours[name], reasons, "seed {seed}: {name:?} under {spelt:?}");
                    }
                    assert_eq!(theirs.len(), ours.len(), "seed {seed}: {spelt:?}");
                }
            });
        }
    });
}
