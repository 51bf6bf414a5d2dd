//! Programs of databases: where they are, what version they have, and a running one as a stream.
//!
//! Owns child processes: none outlives its owner. Keeps the end of what they say on standard error for the message.

use super::{DatabaseOptions, refused};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

/// How much of what a program says on standard error is kept, bytes: the end of it.
const WORDS_BYTES_MAX: usize = 4096;

/// A running program of a database.
#[derive(Debug)]
pub(crate) struct Tool {
    title: String,
    child: Child,
    words: Option<JoinHandle<String>>,
}

impl Tool {
    /// Starts a program; `title` is what messages call it.
    ///
    /// # Errors
    /// `Failed` when it cannot be started.
    pub(crate) fn spawn(title: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Failed(format!("{title} could not be started: {error}")))?;
        let words = child.stderr.take().map(|said| std::thread::spawn(move || last_words(said)));
        Ok(Self { title: title.to_owned(), child, words })
    }

    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Everything that it prints, at most `limit` bytes, once it has ended well.
    ///
    /// # Errors
    /// `Failed` as [`Self::finish`], and when it prints more.
    pub(crate) fn output(mut self, limit: u64) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        if let Some(output) = self.take_stdout() {
            let read = output.take(limit.saturating_add(1)).read_to_end(&mut text);
            read.map_err(|error| Error::Failed(format!("{}: {error}", self.title)))?;
        }
        if u64::try_from(text.len()).is_ok_and(|len| len > limit) {
            return Err(Error::Failed(format!("{} prints more than {limit} bytes", self.title)));
        }
        self.finish()?;
        Ok(text)
    }

    /// Waits for the end, which must be a success.
    ///
    /// # Errors
    /// `Failed` with the last words of the program.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.child.wait();
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        let status = status.map_err(|error| Error::Failed(format!("{}: {error}", self.title)))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Failed(format!("{} failed ({status}): {}", self.title, words.trim())))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads to the end and gives the last lines.
fn last_words(mut said: impl Read) -> String {
    let mut kept = VecDeque::new();
    let mut buffer = [0; 1024];
    while let Ok(count) = said.read(&mut buffer) {
        if count == 0 {
            break;
        }
        kept.extend(buffer.iter().take(count));
        kept.drain(..kept.len().saturating_sub(WORDS_BYTES_MAX));
    }
    String::from_utf8_lossy(kept.make_contiguous()).into_owned()
}

/// A program that was found, and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// The first number of its version.
    pub(crate) major: u32,
}

/// Looks for a program that is at least of version `major`: where the options say, or in `PATH` and then in `places`
/// (directories, of which the newest fitting one is taken).
///
/// # Errors
/// `Refused` when there is none, or only older ones.
pub(crate) fn find(
    name: &str,
    major: u32,
    options: &DatabaseOptions,
    places: &[PathBuf],
    hint: &str,
) -> Result<Program> {
    let mut found: Option<Program> = None;
    for directory in directories(options, places) {
        let path = directory.join(name);
        let Some(version) = version(&path) else { continue };
        let program = Program { path, major: version };
        if program.major >= major {
            return Ok(program);
        }
        found = found.filter(|found| found.major >= program.major).or(Some(program));
    }
    Err(match found {
        None => refused(format!("{name} was not found"), hint),
        Some(Program { path, major: old }) => refused(
            format!(
                "{} is of version {old}, the server of version {major}: it cannot dump what is newer than itself",
                path.display()
            ),
            hint,
        ),
    })
}

fn directories(options: &DatabaseOptions, places: &[PathBuf]) -> Vec<PathBuf> {
    if let Some(directory) = &options.programs {
        return vec![directory.clone()];
    }
    let path = options.environment.get("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(places.iter().cloned()).collect()
}

/// The first number of what `--version` prints; None where it is no program.
fn version(path: &Path) -> Option<u32> {
    if !path.is_file() {
        return None;
    }
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).output().ok()?;
    major(&String::from_utf8_lossy(&output.stdout))
}

/// The first number behind a space or a bracket: `pg_dump (PostgreSQL) 15.4`, `mariadb-dump from 10.11.6-MariaDB`.
fn major(text: &str) -> Option<u32> {
    let mut words = text.split_whitespace().skip(1);
    words.find_map(|word| {
        let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        word.get(..end)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Versions are read from what the programs print.
    #[test]
    fn versions() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("pg_dump"), None);
    }

    fn run(script: &str) -> Result<()> {
        let mut command = Command::new("sh");
        Tool::spawn("the tool", command.args(["-c", script]).stdin(Stdio::null())).unwrap().finish()
    }

    // A failure says what the program said last, and no more than a message can hold.
    #[test]
    fn last_words_are_told() {
        run("echo fine >&2").unwrap();
        let error = run("echo no such table >&2; exit 3").unwrap_err().to_string();
        assert!(
            error.starts_with("the tool failed") && error.ends_with("no such table"),
            "{error}"
        );
        let error = run("seq 1 100000 >&2; kill -9 $$").unwrap_err().to_string();
        assert!(error.ends_with("100000") && error.len() < WORDS_BYTES_MAX + 100, "{error}");
    }

    // Output comes whole or not at all.
    #[test]
    fn output_has_a_limit() {
        let print = |limit| {
            let mut command = Command::new("sh");
            command.args(["-c", "printf 12345"]).stdin(Stdio::null()).stdout(Stdio::piped());
            Tool::spawn("the tool", &mut command).unwrap().output(limit)
        };
        assert_eq!(print(5).unwrap(), b"12345");
        assert!(print(4).unwrap_err().to_string().contains("more than 4"));
    }

    // A program that is missing and one that is too old are told apart; the newer one is found behind the older.
    #[test]
    fn programs_are_found() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let place = |version: &str| {
            let dir = temp.path().join(version);
            std::fs::create_dir(&dir).unwrap();
            let path = dir.join("pg_dump");
            std::fs::write(&path, format!("#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n"))
                .unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            dir
        };
        let (old, new) = (place("12.3"), place("16.1"));
        let path = old.to_str().unwrap();
        let mut options = DatabaseOptions {
            environment: super::super::Environment::own().with("PATH", path),
            ..DatabaseOptions::default()
        };
        assert_eq!(find("pg_dump", 12, &options, &[], "").unwrap().major, 12);
        assert_eq!(
            find("pg_dump", 15, &options, std::slice::from_ref(&new), "").unwrap(),
            Program { path: new.join("pg_dump"), major: 16 }
        );
        let error = find("pg_dump", 15, &options, &[], "install").unwrap_err().to_string();
        assert!(error.contains("version 12") && error.contains("version 15"), "{error}");
        options.programs = Some(temp.path().join("none"));
        let error = find("pg_dump", 15, &options, &[new], "install").unwrap_err().to_string();
        assert!(error.contains("not found"), "{error}");
    }
}
