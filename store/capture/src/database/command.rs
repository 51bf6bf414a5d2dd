//! Any command as a database: what it prints is the dump, its exit status decides.

use super::{DatabaseSource, PinReport, refused};
use crate::command::CommandSource;
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use stillpoint_archive::StreamSource;

/// When a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// Before anything is locked, to its end; what it prints waits in a file.
    Before,
    /// Under the lock, to its end: the lock is held as long as it runs. What it prints waits in a file.
    Locked,
    /// After the lock was given back; what it prints is stored as it comes.
    #[default]
    After,
}

/// A command whose output is stored as a file.
pub struct CommandDatabase {
    name: String,
    command: Vec<OsString>,
    when: When,
    scratch: PathBuf,
    /// What it printed already.
    printed: Option<File>,
    is_pinned: bool,
    report: PinReport,
}

impl CommandDatabase {
    /// A command with its arguments (no shell), whose output stands in the snapshot under `name`. `scratch` is where it waits
    /// if the command runs early.
    pub fn new(
        name: impl Into<String>,
        command: Vec<OsString>,
        when: When,
        scratch: PathBuf,
    ) -> Self {
        let name = name.into();
        Self {
            name,
            command,
            when,
            scratch,
            printed: None,
            is_pinned: false,
            report: PinReport::default(),
        }
    }

    /// The program; its arguments may hold what nobody should read.
    fn program(&self) -> String {
        self.command
            .first()
            .map(|program| program.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    fn run(&mut self) -> Result<()> {
        self.printed = None;
        let mut source = Box::new(CommandSource::spawn(&self.name, &self.command)?);
        let failed = |error| {
            Error::Store(stillpoint_store::Error::io("keeping the output of", &self.name, error))
        };
        let mut file = tempfile::tempfile_in(&self.scratch).map_err(failed)?;
        std::io::copy(&mut source, &mut file).map_err(failed)?;
        source.finish()?;
        file.rewind().map_err(failed)?;
        self.printed = Some(file);
        Ok(())
    }
}

/// Whether there is such a program, as a shell would find it.
fn is_program(name: &str) -> bool {
    let is_executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return is_executable(Path::new(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    !name.is_empty() && std::env::split_paths(&path).any(|place| is_executable(&place.join(name)))
}

impl DatabaseSource for CommandDatabase {
    fn title(&self) -> String {
        format!("the command {}", self.program())
    }

    fn rehearse(&mut self) -> Result<()> {
        let program = self.program();
        if !is_program(&program) {
            return Err(refused(
                format!("there is no program {program:?}"),
                "check the command, and PATH; no shell is involved: for one, `sh -c '…'`",
            ));
        }
        self.is_pinned = false;
        if self.when == When::Before {
            self.run().map_err(|error| {
                refused(error.to_string(), "nothing was locked: mend the command and run again")
            })?;
        }
        Ok(())
    }

    fn pin(&mut self) -> Result<()> {
        let started = Instant::now();
        if self.when == When::Locked {
            self.run()?;
        }
        self.is_pinned = true;
        self.report.pin = Some(started.elapsed());
        Ok(())
    }

    fn dump(&mut self) -> Result<Vec<Box<dyn StreamSource>>> {
        if !std::mem::take(&mut self.is_pinned) {
            return Err(Error::Failed(format!("{} was not pinned", self.title())));
        }
        if self.when == When::After {
            return Ok(vec![Box::new(CommandSource::spawn(&self.name, &self.command)?)]);
        }
        let file = self.printed.take();
        let file = file.ok_or_else(|| Error::Failed(format!("{} did not run", self.title())))?;
        Ok(vec![Box::new(Printed { name: self.name.clone(), file })])
    }

    fn report(&self) -> PinReport {
        self.report
    }
}

/// What a command printed.
struct Printed {
    name: String,
    file: File,
}

impl Read for Printed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read(buffer)
    }
}

impl StreamSource for Printed {
    fn name(&self) -> &str {
        &self.name
    }

    fn finish(self: Box<Self>) -> stillpoint_store::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints what a file holds when it runs.
    fn source(file: &Path, when: When) -> CommandDatabase {
        let command = vec!["cat".into(), file.into()];
        CommandDatabase::new("out", command, when, std::env::temp_dir())
    }

    // The moment at which a command runs decides what it sees.
    #[test]
    fn moments() {
        let check = |when, expected: &str| {
            let temp = tempfile::tempdir().unwrap();
            let file = temp.path().join("f");
            let write = |text: &str| std::fs::write(&file, text).unwrap();
            let mut source = source(&file, when);
            write("before");
            source.rehearse().unwrap();
            write("locked");
            source.pin().unwrap();
            write("after");
            let mut stream = source.dump().unwrap().pop().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!((stream.name(), text.as_str()), ("out", expected));
            stream.finish().unwrap();
            assert!(source.dump().is_err(), "nothing is pinned any more");
        };
        check(When::Before, "before");
        check(When::Locked, "locked");
        check(When::After, "after");
    }

    // A command that fails is no dump, whenever it runs; a missing program is refused early.
    #[test]
    fn failures() {
        let missing = Path::new("/no/such/file");
        let early = source(missing, When::Before).rehearse().unwrap_err();
        assert!(matches!(early, Error::Refused { .. }), "{early:?}");
        assert!(source(missing, When::Locked).pin().is_err());
        let mut late = source(missing, When::After);
        late.rehearse().unwrap();
        late.pin().unwrap();
        let mut stream = late.dump().unwrap().pop().unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        assert!(stream.finish().is_err());
        let none = |command: Vec<OsString>| {
            CommandDatabase::new("x", command, When::After, std::env::temp_dir()).rehearse()
        };
        assert!(none(vec![]).is_err() && none(vec!["no-such-program".into()]).is_err());
        assert!(none(vec!["/etc/passwd".into()]).is_err() && none(vec!["sh".into()]).is_ok());
    }
}
