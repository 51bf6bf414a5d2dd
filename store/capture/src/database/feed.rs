//! A writer that looks at the first line before it lets anything through.

use super::tool::Tool;
use crate::error::{Error, Result};
use std::io::{self, Write};
use std::process::ChildStdin;

/// Longest first line of a dump, bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Gathers the first line, opens what the rest goes to by what the line says, and passes everything on.
pub(super) struct Feed<O, W> {
    open: Option<O>,
    line: Vec<u8>,
    out: Option<W>,
    /// Why nothing goes through any more; the writer's own errors say less.
    error: Option<Error>,
}

impl<O: FnOnce(&str) -> Result<W>, W: Write> Feed<O, W> {
    pub(super) fn new(open: O) -> Self {
        Self { open: Some(open), line: Vec::new(), out: None, error: None }
    }

    fn begin(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (first, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        self.line.extend_from_slice(first);
        if end.is_none() && self.line.len() <= LINE_BYTES_MAX {
            return Ok(());
        }
        self.open_out()?;
        let Some(out) = &mut self.out else { return Ok(()) };
        out.write_all(&std::mem::take(&mut self.line))?;
        out.write_all(rest)
    }

    fn open_out(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Err(io::Error::other("stopped")) };
        match open(&String::from_utf8_lossy(&self.line)) {
            Ok(out) => self.out = Some(out),
            Err(error) => {
                self.error = Some(error);
                return Err(io::Error::other("stopped"));
            }
        }
        Ok(())
    }

    /// What was opened.
    ///
    /// # Errors
    /// Why it was not, or what `written` says.
    pub(super) fn finish(
        mut self,
        written: stillpoint_store::Result<()>,
    ) -> (Option<W>, Result<()>) {
        if written.is_ok() && self.open.is_some() {
            // Not even one line.
            let _ = self.open_out();
        }
        let result = match self.error {
            Some(error) => Err(error),
            None => written.map_err(Error::from),
        };
        (self.out, result)
    }
}

impl<O: FnOnce(&str) -> Result<W>, W: Write> Write for Feed<O, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Some(out) => out.write(bytes),
            None => self.begin(bytes).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Ends a program that was fed: it finishes what it got if all came, and is stopped before it sees an end otherwise.
///
/// # Errors
/// What the program says, or why it did not get everything.
pub(super) fn end(tool: Option<Tool>, input: Option<ChildStdin>, result: Result<()>) -> Result<()> {
    let is_cut = |error: &Error| {
        matches!(error, Error::Store(stillpoint_store::Error::Io { source, .. })
            if source.kind() == io::ErrorKind::BrokenPipe)
    };
    let finished = match (tool, &result) {
        (Some(tool), Ok(())) => {
            drop(input);
            tool.finish()
        }
        // What it says is the cause of the broken pipe.
        (Some(tool), Err(error)) if is_cut(error) => tool.finish(),
        // Ended before its input is: at the end of that it would commit what it has.
        (tool, _) => {
            drop(tool);
            Ok(())
        }
    };
    finished.and(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The first line decides, however it comes; all of it goes through.
    #[test]
    fn the_first_line_decides() {
        for size in [1, 3, 100] {
            let mut feed = Feed::new(|line: &str| {
                assert_eq!(line, "first");
                Ok(Vec::new())
            });
            for part in b"first\nsecond\n".chunks(size) {
                feed.write_all(part).unwrap();
            }
            let (out, result) = feed.finish(Ok(()));
            result.unwrap();
            assert_eq!(out.unwrap(), b"first\nsecond\n");
        }
    }

    // A refusal is what the caller hears of, also where there was nothing at all or no end of the line.
    #[test]
    fn refusals_come_through() {
        let refuse = |_: &str| -> Result<Vec<u8>> { Err(Error::Failed("no dump".into())) };
        for text in ["x\n".to_owned(), "x".repeat(LINE_BYTES_MAX + 1)] {
            let mut feed = Feed::new(refuse);
            let error = feed.write_all(text.as_bytes()).unwrap_err();
            let written = Err(stillpoint_store::Error::io("writing", "x", error));
            assert_eq!(feed.finish(written).1.unwrap_err().to_string(), "no dump");
        }
        assert!(Feed::new(refuse).finish(Ok(())).1.is_err());
    }
}
