//! The one door to standard output and standard error, as text or as JSON lines.
//!
//! With `--json` both streams carry JSON objects only, one a line, each with `message_type`: results and progress
//! on standard output, warnings and errors on standard error. Knows nothing of repositories.

use crate::text;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Results and errors only.
    Quiet,
    /// Also progress, notices and summaries.
    Normal,
    /// Also each changed file.
    Verbose,
    /// Also each unchanged file.
    Everything,
}

/// Text for people or JSON lines for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Plain text.
    Text,
    /// JSON lines.
    Json,
}

/// Where all output goes.
pub struct Output {
    style: Style,
    verbosity: Verbosity,
    stdout: Mutex<BufWriter<Stdout>>,
    line_by_line: bool,
    bar: Mutex<Option<indicatif::ProgressBar>>,
    broken: AtomicBool,
}

impl Output {
    /// The process's output in this style.
    pub fn new(style: Style, verbosity: Verbosity) -> Self {
        let stdout = io::stdout();
        let line_by_line = stdout.is_terminal();
        Self {
            style,
            verbosity,
            stdout: Mutex::new(BufWriter::with_capacity(64 << 10, stdout)),
            line_by_line,
            bar: Mutex::new(None),
            broken: AtomicBool::new(false),
        }
    }

    /// True under `--json`.
    pub fn is_json(&self) -> bool {
        self.style == Style::Json
    }

    /// True when somebody watches the progress of long work.
    pub fn shows_progress(&self) -> bool {
        let watched = self.is_json() || io::stderr().is_terminal();
        watched && self.verbosity >= Verbosity::Normal
    }

    /// How much to say.
    pub fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Prints one line of the result; nothing under `--json`. The line must be safe to print.
    pub fn line(&self, line: impl AsRef<str>) -> io::Result<()> {
        if self.is_json() {
            return Ok(());
        }
        self.above_bar(|| self.put(line.as_ref().as_bytes()))
    }

    /// Prints several lines of the result.
    pub fn lines<S: AsRef<str>>(&self, lines: impl IntoIterator<Item = S>) -> io::Result<()> {
        lines.into_iter().try_for_each(|line| self.line(line))
    }

    /// Prints a line that is not the result itself: a summary, a confirmation. Nothing when quiet.
    pub fn say(&self, line: impl AsRef<str>) -> io::Result<()> {
        if self.verbosity >= Verbosity::Normal { self.line(line) } else { Ok(()) }
    }

    /// Prints one JSON message on standard output; nothing without `--json`.
    pub fn message(&self, message_type: &str, body: &impl Serialize) -> io::Result<()> {
        if !self.is_json() {
            return Ok(());
        }
        self.put(&encode(message_type, body)?)
    }

    /// As [`Self::message`], sent on at once: progress and other things somebody waits for.
    pub fn message_now(&self, message_type: &str, body: &impl Serialize) -> io::Result<()> {
        self.message(message_type, body)?;
        self.flush()
    }

    /// Says on standard error that something needs attention while work goes on.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.attention("warning", message.as_ref());
    }

    /// Says on standard error what happened on the way (index rebuilt, other process waited for); nothing when quiet.
    pub fn notice(&self, message: impl AsRef<str>) {
        if self.verbosity >= Verbosity::Normal {
            self.attention("notice", message.as_ref());
        }
    }

    /// Names one file that could not be saved, restored or read.
    pub fn problem(&self, during: &str, path: &[u8], what: &str) {
        #[derive(Serialize)]
        struct Problem<'a> {
            during: &'a str,
            #[serde(flatten)]
            path: crate::json::Path<'a>,
            message: &'a str,
        }
        if self.is_json() {
            let path = crate::json::Path::item(path);
            self.error_message("error", &Problem { during, path, message: what });
        } else {
            self.error_line(&format!("{}: {}", text::name(path), text::message(what)));
        }
    }

    /// The last words of a command that failed: what failed and what to do next.
    pub fn failure(&self, message: &str, hint: Option<&str>, code: u8) {
        #[derive(Serialize)]
        struct Failure<'a> {
            code: u8,
            message: &'a str,
            hint: Option<&'a str>,
        }
        // The reader may be gone already; there is nobody left to tell.
        let _ = self.flush();
        if self.is_json() {
            self.error_message("exit_error", &Failure { code, message, hint });
            return;
        }
        self.error_line(&format!("stillpoint: {}", text::message(message)));
        if let Some(hint) = hint {
            self.error_line(&format!("hint: {}", text::message(hint)));
        }
    }

    /// Writes bytes of a file to standard output as they are.
    pub fn raw(&self) -> Raw<'_> {
        Raw { stdout: self.stdout(), output: self }
    }

    /// Hands on what is buffered.
    pub fn flush(&self) -> io::Result<()> {
        self.noticing(self.stdout().flush())
    }

    /// True once whoever read standard output went away.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn noticing<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.broken.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Lets a progress bar stand below all lines that are printed while it is shown; None takes it away.
    pub fn set_bar(&self, bar: Option<indicatif::ProgressBar>) {
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    fn attention(&self, message_type: &str, message: &str) {
        #[derive(Serialize)]
        struct Attention<'a> {
            message: &'a str,
        }
        if self.is_json() {
            self.error_message(message_type, &Attention { message });
        } else {
            self.error_line(&format!("{message_type}: {}", text::message(message)));
        }
    }

    fn error_message(&self, message_type: &str, body: &impl Serialize) {
        if let Ok(line) = encode(message_type, body) {
            write_error(&line);
        }
    }

    /// Prints one line of text on standard error, above the progress bar.
    pub fn error_line(&self, line: &str) {
        let _ = self.above_bar(|| {
            write_error(line.as_bytes());
            Ok(())
        });
    }

    fn stdout(&self) -> MutexGuard<'_, BufWriter<Stdout>> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) -> io::Result<()> {
        let mut stdout = self.stdout();
        let written = stdout.write_all(line).and_then(|()| stdout.write_all(b"\n"));
        let flushed = written.and_then(|()| match self.line_by_line {
            true => stdout.flush(),
            false => Ok(()),
        });
        self.noticing(flushed)
    }

    fn above_bar(&self, print: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match bar.as_ref() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// Standard output for the bytes of a file.
pub struct Raw<'a> {
    stdout: MutexGuard<'a, BufWriter<Stdout>>,
    output: &'a Output,
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stdout.write(bytes);
        self.output.noticing(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.stdout.flush();
        self.output.noticing(flushed)
    }
}

/// One write call a line, so that lines of several processes do not mix.
fn write_error(line: &[u8]) {
    let mut whole = line.to_vec();
    whole.push(b'\n');
    // Standard error may be closed; there is nobody left to tell.
    let _ = io::stderr().lock().write_all(&whole);
}

/// One JSON object with `message_type` first, without a line end.
pub fn encode(message_type: &str, body: &impl Serialize) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Message<'a, B: Serialize> {
        message_type: &'a str,
        #[serde(flatten)]
        body: &'a B,
    }
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Guarded);
    Message { message_type, body }.serialize(&mut serializer)?;
    Ok(line)
}

/// Compact JSON in which characters that a terminal would obey are written as `\uXXXX`.
struct Guarded;

impl Formatter for Guarded {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| text::is_unsafe(*c)) {
            let (before, after) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = after.get(c.len_utf8()..).unwrap_or("");
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A message is one line, starts with its type, and carries nothing that a terminal obeys.
    #[test]
    fn messages_are_one_safe_line() {
        #[derive(Serialize)]
        struct Body<'a> {
            path: &'a str,
        }
        let path = "a\n\u{1b}[0m \u{9b}2J \u{202e} \u{e0001} \u{7f}end";
        let line = String::from_utf8(encode("node", &Body { path }).unwrap()).unwrap();
        assert!(line.starts_with(r#"{"message_type":"node","path":"a\n\u001b[0m "#), "{line}");
        assert!(!line.chars().any(text::is_unsafe), "{line}");
        let back: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["path"], path);
    }
}
