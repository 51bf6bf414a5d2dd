//! A span of calendar time as people write it for retention: `2y5m7d3h`.

use jiff::civil::Date;
use jiff::{ToSpan as _, Zoned};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// Years, months, days and hours before a moment; `1y5m7d2h` in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct KeepSpan {
    /// Calendar years.
    pub years: u16,
    /// Calendar months.
    pub months: u16,
    /// Calendar days.
    pub days: u16,
    /// Hours of elapsed time.
    pub hours: u16,
}

impl KeepSpan {
    /// True for a span without any length.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The moment this span before another one, by the calendar of its time zone; the beginning of the calendar
    /// where it would lie before that. A day that the month does not have counts on into the next one, as in
    /// restic: a month before 31 March is 31 February, that is 3 March.
    pub fn before(&self, moment: &Zoned) -> Zoned {
        self.try_before(moment)
            .unwrap_or_else(|_| jiff::Timestamp::MIN.to_zoned(moment.time_zone().clone()))
    }

    fn try_before(&self, moment: &Zoned) -> Result<Zoned, jiff::Error> {
        let hours = i32::from(self.hours).hours();
        if (Self { hours: 0, ..*self }).is_zero() {
            // By the clock alone: in an hour that comes twice a date would not say which of the two it means.
            return moment.checked_sub(hours);
        }
        let date = moment.date();
        let months = i32::from(date.year()) * 12 + i32::from(date.month())
            - 1
            - (i32::from(self.years) * 12 + i32::from(self.months));
        let year = i16::try_from(months.div_euclid(12)).unwrap_or(i16::MIN);
        let month = i8::try_from(months.rem_euclid(12) + 1).expect("1 to 12");
        let days = i32::from(date.day()) - 1 - i32::from(self.days);
        let date = Date::new(year, month, 1)?.checked_add(days.days())?;
        let local = date.to_datetime(moment.time()).to_zoned(moment.time_zone().clone())?;
        local.checked_sub(hours)
    }
}

impl fmt::Display for KeepSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')];
        if self.is_zero() {
            return f.write_str("0h");
        }
        parts.iter().filter(|(n, _)| *n > 0).try_for_each(|(n, unit)| write!(f, "{n}{unit}"))
    }
}

/// The text is not a span such as `1y5m7d2h`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a span of time; write years, months, days and hours such as 1y5m7d2h")]
pub struct ParseSpanError(String);

impl FromStr for KeepSpan {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, ParseSpanError> {
        let wrong = || ParseSpanError(text.to_owned());
        let mut span = Self::default();
        let mut number = String::new();
        let mut seen = Vec::new();
        for character in text.chars() {
            if character.is_ascii_digit() {
                number.push(character);
                continue;
            }
            let slot = match character {
                'y' => &mut span.years,
                'm' => &mut span.months,
                'd' => &mut span.days,
                'h' => &mut span.hours,
                _ => return Err(wrong()),
            };
            if seen.contains(&character) {
                return Err(wrong());
            }
            seen.push(character);
            *slot = number.parse().map_err(|_| wrong())?;
            number.clear();
        }
        // Years beyond the calendar would make `before` meaningless; jiff's calendar ends at 9999.
        if seen.is_empty() || !number.is_empty() || span.years > 9999 {
            return Err(wrong());
        }
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back_as_written() {
        // What is accepted displays as itself; everything else is refused.
        for text in ["1y5m7d2h", "3h", "10d", "2y", "9999y", "0h"] {
            assert_eq!(text.parse::<KeepSpan>().unwrap().to_string(), text);
        }
        for text in ["", "7", "d", "7x", "1d2", "1d1d", "-1d", "99999999d", "10000y", "1 d"] {
            assert!(text.parse::<KeepSpan>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_span_follows_the_calendar() {
        // A month before 31 March counts on from the end of February; a day across a clock change is still the
        // same clock time.
        let cases = [
            ("2026-03-31T10:00:00Z", "1m", "2026-03-03T11:00:00Z"),
            ("2026-01-15T10:00:00Z", "1y1m15d", "2024-11-30T10:00:00Z"),
            ("2026-03-29T10:00:00Z", "1d", "2026-03-28T11:00:00Z"),
            ("2026-03-29T10:00:00Z", "24h", "2026-03-28T10:00:00Z"),
            ("2024-02-29T00:00:00Z", "1y", "2023-03-01T00:00:00Z"),
        ];
        let berlin = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let local = |text: &str| text.parse::<jiff::Timestamp>().unwrap().to_zoned(berlin.clone());
        for (moment, span, before) in cases {
            let span: KeepSpan = span.parse().unwrap();
            assert_eq!(span.before(&local(moment)).timestamp().to_string(), before);
        }
        let now = local("2026-03-29T10:00:00Z");
        for far in ["9999y", "9999y65535m65535d65535h"] {
            assert!(far.parse::<KeepSpan>().unwrap().before(&now) < now);
        }
    }
}
