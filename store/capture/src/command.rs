//! A command whose output is saved as a file; its exit status decides whether the snapshot stands.
//!
//! Owns the child process: it never outlives the source. What it writes to standard error passes through to ours.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use stillpoint_archive::StreamSource;
use stillpoint_store::{Error, Result};

/// A running command as a stream.
#[derive(Debug)]
pub struct CommandSource {
    name: String,
    /// The command as people see it.
    line: String,
    child: Child,
    output: ChildStdout,
}

impl CommandSource {
    /// Starts the command; its output will stand in the snapshot under `name`. No shell is involved, and its standard
    /// input is empty.
    ///
    /// # Errors
    /// `Invalid` without a program, `Io` when it cannot be started.
    pub fn spawn(name: impl Into<String>, command: &[OsString]) -> Result<Self> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| Error::Invalid("there is no command to run".into()))?;
        let line = command.join(" ".as_ref()).to_string_lossy().into_owned();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::io("starting", &line, error))?;
        let output = child.stdout.take().expect("asked for a pipe");
        Ok(Self { name: name.into(), line, child, output })
    }
}

impl Read for CommandSource {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.output.read(buffer)
    }
}

impl AsFd for CommandSource {
    /// The pipe that the output comes through, for those who wait for more than bytes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

impl StreamSource for CommandSource {
    fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the end of the command.
    fn finish(mut self: Box<Self>) -> Result<()> {
        let status =
            self.child.wait().map_err(|error| Error::io("waiting for", &self.line, error))?;
        if status.success() {
            return Ok(());
        }
        let error = std::io::Error::other(status.to_string());
        Err(Error::io("running", &self.line, error))
    }
}

impl Drop for CommandSource {
    /// Ends a command whose output nobody wants any more; after `finish` it is gone already.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> CommandSource {
        let command: Vec<OsString> = ["sh", "-c", script].map(Into::into).into();
        CommandSource::spawn("out", &command).unwrap()
    }

    fn check(script: &str, output: &[u8], succeeds: bool) {
        let mut source = Box::new(shell(script));
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).unwrap();
        assert_eq!((source.name(), bytes.as_slice()), ("out", output));
        assert_eq!(source.finish().is_ok(), succeeds, "{script}");
    }

    // Output is given as it comes; the exit status, or the signal, decides.
    #[test]
    fn output_and_status() {
        check("printf 'a\\0b'", b"a\0b", true);
        check("echo half; exit 3", b"half\n", false);
        check("echo half; kill -9 $$", b"half\n", false);
        check("cat", b"", true);
    }

    // The message names the command and how it ended.
    #[test]
    fn failures_are_named() {
        let error = Box::new(shell("exit 3")).finish().unwrap_err().to_string();
        assert!(error.contains("sh -c exit 3") && error.contains("status: 3"), "{error}");
        assert!(CommandSource::spawn("x", &["/no/such/program".into()]).is_err());
        assert!(CommandSource::spawn("x", &[]).is_err());
    }

    // A source that is dropped takes its command along.
    #[test]
    fn dropped_sources_end_their_command() {
        let mut source = shell("echo started; exec sleep 600");
        let mut line = [0; 8];
        source.read_exact(&mut line).unwrap();
        let place = format!("/proc/{}", source.child.id());
        assert!(std::path::Path::new(&place).exists());
        drop(source);
        assert!(!std::path::Path::new(&place).exists());
    }
}
