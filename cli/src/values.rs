//! Values on the command line: sizes, moments, shares, durations. Parsed once, here, into types that cannot be wrong.

use clap::builder::{OsStringValueParser, TypedValueParser};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::time::Duration;
use stillpoint_store::Timestamp;
use stillpoint_store::pack::Level;

/// Parses a size: a number with an optional unit (`k`, `M`, `G`, `T`, powers of 1024, with or without `iB` or `B`).
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; examples: 500, 64k, 1.5G");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim();
    let letter = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
    let shift: u32 = match letter {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err(wrong()),
    };
    let factor = 1u64 << shift;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"));
    }
    let value = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    // 2^63 and more cannot be meant.
    if !value.is_finite() || value >= 9.2e18 {
        return Err(format!("`{text}` is too large"));
    }
    Ok(crate::text::whole(value))
}

/// Parses a moment: `now` is left to the caller; RFC 3339, or `YYYY-MM-DD[ HH:MM[:SS]]` in local time.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    let moment = text.parse::<jiff::Timestamp>().or_else(|_| {
        let local: DateTime = text.parse()?;
        Ok::<_, jiff::Error>(local.to_zoned(TimeZone::system())?.timestamp())
    });
    let moment = moment.map_err(|_| {
        format!("`{text}` is not a moment; examples: 2026-03-01, '2026-03-01 14:05:09', 2026-03-01T14:05:09Z")
    })?;
    Ok(Timestamp::from_nanos(moment.as_nanosecond()))
}

/// Parses a duration of exact length: numbers with `s`, `m` (minutes), `h`, `d` or `w`, added up: `7d`, `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; examples: 30m, 36h, 7d");
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let mut tail = tail.chars();
        let seconds: u64 = match tail.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(seconds);
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = tail.as_str();
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(total)) }
}

/// Parses a short duration: `250ms`, or as [`duration`] does. Not zero.
pub fn short_duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.strip_suffix("ms").map(str::parse) {
        Some(Ok(millis)) => Duration::from_millis(millis),
        Some(Err(_)) => return Err(format!("`{text}` is not a duration; examples: 250ms, 5s, 2m")),
        None => duration(text)?,
    };
    if parsed.is_zero() {
        Err("a duration of nothing makes no sense here".into())
    } else {
        Ok(parsed)
    }
}

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Store as it is.
    Off,
    /// The fastest level that compresses at all.
    Fast,
    /// The repository's default.
    Auto,
    /// The smallest result.
    Max,
    /// A zstd level, -7 to 22.
    Level(i32),
}

impl Compression {
    /// The level of zstd; `default` is that of the repository.
    pub fn level(self, default: Level) -> Level {
        match self {
            Self::Off => Level::STORE,
            Self::Auto => default,
            Self::Fast => Level::new(-5).expect("a level of zstd"),
            Self::Max => Level::new(19).expect("a level of zstd"),
            Self::Level(level) => Level::new(level).expect("parsed within the levels of zstd"),
        }
    }
}

/// Parses `off`, `fast`, `auto`, `max` or a zstd level from -7 to 22.
pub fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "off" => Ok(Compression::Off),
        "fast" | "fastest" => Ok(Compression::Fast),
        "auto" => Ok(Compression::Auto),
        "max" | "better" => Ok(Compression::Max),
        level => match level.parse::<i32>() {
            Ok(level) if (-7..=22).contains(&level) => Ok(Compression::Level(level)),
            _ => Err(format!(
                "`{text}` is none of off, fast, auto, max, or a zstd level from -7 to 22"
            )),
        },
    }
}

/// A snapshot and perhaps a path in it, as `SNAPSHOT[:/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPath {
    /// An id, the first digits of one, `latest` or `latest~N`.
    pub snapshot: String,
    /// The path, if one is given.
    pub path: Option<Vec<u8>>,
}

/// Parses `SNAPSHOT[:/PATH]` on the command line.
pub fn snapshot_path_parser() -> impl TypedValueParser<Value = SnapshotPath> {
    OsStringValueParser::new().try_map(|text| snapshot_path(&text))
}

/// Parses `SNAPSHOT[:/PATH]`; the path may hold any bytes.
fn snapshot_path(text: &std::ffi::OsStr) -> Result<SnapshotPath, String> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut parts = text.as_bytes().splitn(2, |byte| *byte == b':');
    let snapshot = std::str::from_utf8(parts.next().unwrap_or_default());
    let path = parts.next().map(<[u8]>::to_vec);
    match snapshot {
        Ok(snapshot) if !snapshot.is_empty() => {
            Ok(SnapshotPath { snapshot: snapshot.into(), path })
        }
        _ => Err("wanted SNAPSHOT or SNAPSHOT:/PATH, for instance latest:/home/me".into()),
    }
}

/// One command whose output becomes a file, as `NAME=COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCommand {
    /// The file's name in the snapshot.
    pub name: String,
    /// What the shell runs.
    pub command: String,
}

/// Parses `NAME=COMMAND`.
pub fn named_command(text: &str) -> Result<NamedCommand, String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.trim().is_empty() => {
            Ok(NamedCommand { name: name.into(), command: command.into() })
        }
        _ => Err("wanted NAME=COMMAND, for instance db.sql='pg_dump shop'".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    // Sizes in the spelling that restic's users know, and nothing that overflows.
    #[test]
    fn sizes() {
        assert_eq!(size("500"), Ok(500));
        assert_eq!(size("64k"), Ok(65_536));
        assert_eq!(size("1.5G"), Ok(1_610_612_736));
        assert_eq!(size("2 MiB"), Ok(2 << 20));
        for wrong in ["", "k", "12x", "-1", "1e9", "99999999999T", "1.2.3"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    // Durations add up and are refused when they mean nothing.
    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "7", "d", "7y", "1h-3m", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    // Short ones may be milliseconds, and are never nothing.
    #[test]
    fn short_durations() {
        assert_eq!(short_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(short_duration("30s"), Ok(Duration::from_secs(30)));
        for wrong in ["", "ms", "0s", "0ms", "-1ms", "1.5s"] {
            assert!(short_duration(wrong).is_err(), "{wrong}");
        }
    }

    // A moment may be given in UTC or as the clock on the wall shows it.
    #[test]
    fn moments() {
        assert_eq!(moment("1970-01-02T00:00:00Z").map(|m| m.seconds), Ok(86_400));
        assert!(moment("2026-03-01").is_ok());
        assert!(moment("2026-03-01 14:05:09").is_ok());
        assert!(moment("yesterday").is_err());
    }

    // Levels beyond what zstd knows are refused.
    #[test]
    fn compressions() {
        assert_eq!(compression("max"), Ok(Compression::Max));
        assert_eq!(compression("-3"), Ok(Compression::Level(-3)));
        assert!(compression("23").is_err());
        assert!(compression("best").is_err());
    }

    // The path after the colon may hold colons and any bytes.
    #[test]
    fn snapshots_with_paths() {
        let parse = |bytes: &[u8]| snapshot_path(std::ffi::OsStr::from_bytes(bytes));
        assert_eq!(parse(b"latest").unwrap().path, None);
        assert_eq!(parse(b"ab12:/a:b\xff").unwrap().path.as_deref(), Some(&b"/a:b\xff"[..]));
        assert!(parse(b":/a").is_err());
        assert!(parse(b"\xff").is_err());
    }
}
