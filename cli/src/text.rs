//! How values look to a person: names, sizes, counts, durations, moments and tables.
//!
//! Pure functions. A name from a file system or a repository reaches a terminal only through [`name`].

use jiff::tz::TimeZone;
use std::fmt::Write as _;
use stillpoint_store::Timestamp;
use unicode_width::UnicodeWidthStr;

/// A file name or other foreign bytes, safe to print: control characters, characters that change the direction or
/// the lines of text, and bytes that are not UTF-8 are escaped. Reversible, since a backslash is doubled.
pub fn name(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        part.valid().chars().for_each(|c| push_char(&mut out, c));
        for byte in part.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// As [`name`], for text that is already known to be UTF-8 (host names, tags, messages).
pub fn safe(text: &str) -> String {
    name(text.as_bytes())
}

/// As [`name`], for a message of our own that quotes foreign text: line ends and backslashes stay.
pub fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\\' => out.push(c),
            c => push_char(&mut out, c),
        }
    }
    out
}

fn push_char(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c.is_ascii_control() => {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        }
        c if is_unsafe(c) => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

/// True for characters that a terminal obeys instead of showing, or that hide or reorder their neighbours.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A size in IEC units with three significant digits: `512 B`, `1.50 KiB`, `12.3 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

/// The whole part of a figure that is only shown; below 0 and what is no number are 0.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the cast saturates, and the fraction is not wanted"
)]
pub fn whole(figure: f64) -> u64 {
    figure as u64
}

/// A count with its noun, grouped by thousands: `1 file`, `12,345 files`.
pub fn count(number: u64, singular: &str, plural: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { singular } else { plural })
}

/// A number grouped by thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Nanoseconds as milliseconds, to the microsecond.
pub fn milliseconds(nanos: u64) -> f64 {
    std::time::Duration::from_micros(nanos / 1000).as_secs_f64() * 1000.0
}

/// A duration as a clock shows it: `0:07`, `12:05`, `3:00:09`; below ten seconds with tenths: `0.4 s`.
pub fn duration(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 10 {
        return format!("{:.1} s", time.as_secs_f64());
    }
    clock(seconds)
}

/// Whole seconds as a clock shows them: `0:07`, `12:05`, `3:00:09`.
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{rest:02}")
    } else {
        format!("{minutes}:{rest:02}")
    }
}

/// A moment in local time to the second, as listings show it: `2026-03-01 14:05:09`.
pub fn time(moment: Timestamp) -> String {
    match to_jiff(moment) {
        Some(moment) => {
            moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        None => format!("{} s after 1970", moment.seconds),
    }
}

/// A moment for programs: RFC 3339 in UTC with nanoseconds; outside the years -9999 to 9999 `@SECONDS.NANOS`
/// after 1970.
pub fn rfc3339(moment: Timestamp) -> String {
    match to_jiff(moment) {
        Some(moment) => format!("{moment:.9}"),
        None => format!("@{}.{:09}", moment.seconds, moment.nanos),
    }
}

/// The moment for the calendar library; None outside the years -9999 to 9999.
pub fn to_jiff(moment: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_nanosecond(moment.as_nanos()).ok()
}

/// The permission string of a directory listing: type letter and `rwx` three times, with setuid, setgid and sticky.
pub fn mode(type_letter: char, mode: u32) -> String {
    let mut out = String::with_capacity(10);
    out.push(type_letter);
    for (shift, special, lower, upper) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => lower,
            (false, true) => upper,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// Where the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table with aligned columns; the last column is not padded.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these headings.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; a missing cell is empty. Cells must be safe to print.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table's lines: headings, a rule, the rows.
    pub fn lines(&self) -> Vec<String> {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(position, (heading, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(position));
                cells.map(|cell| cell.width()).max().unwrap_or(0).max(heading.width())
            })
            .collect();
        let mut lines = vec![self.line(&widths, |position| self.columns[position].0)];
        lines.push("-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)));
        for row in &self.rows {
            lines.push(self.line(&widths, |position| row.get(position).map_or("", String::as_str)));
        }
        lines
    }

    fn line<'a>(&self, widths: &[usize], cell: impl Fn(usize) -> &'a str) -> String {
        let mut out = String::new();
        for (position, (width, (_, align))) in widths.iter().zip(&self.columns).enumerate() {
            let text = cell(position);
            let gap = " ".repeat(width.saturating_sub(text.width()));
            match align {
                Align::Left => out.extend([text, gap.as_str()]),
                Align::Right => out.extend([gap.as_str(), text]),
            }
            out.push_str("  ");
        }
        out.truncate(out.trim_end().len());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Nothing that a terminal obeys passes, and what is shown can be turned back.
    #[test]
    fn names_are_escaped() {
        let check = |bytes: &[u8], shown: &str| assert_eq!(name(bytes), shown);
        check(b"plain name.txt", "plain name.txt");
        check("grün 日本".as_bytes(), "grün 日本");
        check(b"a\x1b[31mred\x07", "a\\x1b[31mred\\x07");
        check(b"two\nlines\t\r", "two\\nlines\\t\\r");
        check(b"back\\slash", "back\\\\slash");
        check(b"latin \xe9\xff", "latin \\xe9\\xff");
        check("evil\u{202e}gpj.exe".as_bytes(), "evil\\u{202e}gpj.exe");
        check("c1 \u{9b}2J".as_bytes(), "c1 \\u{9b}2J");
        check(b"\x7f", "\\x7f");
    }

    // Sizes keep three digits and never show 1024 of a unit.
    #[test]
    fn sizes_are_iec() {
        let check = |bytes: u64, shown: &str| assert_eq!(size(bytes), shown);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.00 KiB");
        check(1536, "1.50 KiB");
        check(1023 * 1024 + 1000, "1.00 MiB");
        check(123_456_789, "118 MiB");
        check(u64::MAX, "16.0 EiB");
    }

    // Numbers, durations and modes as people know them.
    #[test]
    fn other_values() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(2, "file", "files"), "2 files");
        assert_eq!(clock(59), "0:59");
        assert_eq!(clock(3661), "1:01:01");
        assert_eq!(mode('-', 0o4755), "-rwsr-xr-x");
        assert_eq!(mode('d', 0o1777), "drwxrwxrwt");
        assert_eq!(mode('d', 0o1640), "drw-r----T");
    }

    // File times may lie anywhere, and still have a text.
    #[test]
    fn moments_out_of_the_calendar_have_a_text() {
        let at = |seconds| Timestamp { seconds, nanos: 5 };
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(rfc3339(at(-1)), "1969-12-31T23:59:59.000000005Z");
        assert_eq!(rfc3339(at(i64::MAX)), "@9223372036854775807.000000005");
        assert!(time(at(i64::MIN)).contains("after 1970"));
    }

    // Columns line up by what a terminal shows, wide characters included.
    #[test]
    fn tables_line_up() {
        let mut table = Table::new(&[("Name", Align::Left), ("Size", Align::Right)]);
        table.row(["日本".into(), "1 B".into()]);
        table.row(["long name".into(), "1023 B".into()]);
        assert_eq!(
            table.lines(),
            ["Name         Size", "-----------------", "日本          1 B", "long name  1023 B"]
        );
    }
}
