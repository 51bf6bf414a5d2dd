//! A repository, a cache and a source in a temporary directory, and the binary to run on them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";

/// A place to work in; it vanishes afterwards.
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The run, which must have ended with this code.
    #[track_caller]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The run, whose standard error must hold this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// The run, whose standard output must hold this text.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no {text:?} in {self:#?}");
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The binary with nothing in its environment but a path and a time zone.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stillpoint"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("TZ", "UTC").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    command.output().expect("the binary starts").into()
}

impl Place {
    /// A place without a repository, with a key file (which opens at once, as no passphrase does).
    pub fn empty() -> Self {
        Self::empty_at(tempfile::tempdir().unwrap())
    }

    fn empty_at(dir: tempfile::TempDir) -> Self {
        let place = Self { dir };
        fs::create_dir(place.source()).unwrap();
        place.secret("key", b"0123456789abcdef0123456789abcdef");
        place
    }

    /// A place with a fresh repository.
    pub fn new() -> Self {
        let place = Self::empty();
        place.run(["init"]).with_code(0);
        place
    }

    /// As [`Self::empty`], in memory where the machine lets us: for tests that run hundreds of commands and must
    /// not wait for a disk each time.
    pub fn empty_in_memory() -> Self {
        let dir = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir()).unwrap();
        Self::empty_at(dir)
    }

    /// A path in the place.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn source(&self) -> PathBuf {
        self.path("source")
    }

    pub fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    /// The only directory below the cache: that of the repository.
    pub fn cache(&self) -> PathBuf {
        let mut found = fs::read_dir(self.path("cache")).unwrap();
        found.next().expect("the repository has a cache").unwrap().path()
    }

    /// Writes a file that only its owner may read.
    pub fn secret(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes a file in the source.
    pub fn file(&self, name: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The binary, set up for this place by its environment.
    pub fn stillpoint<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = bare();
        command
            .env("STILLPOINT_REPOSITORY", self.repository())
            .env("STILLPOINT_KEY_FILE", self.path("key"))
            .env("STILLPOINT_CACHE_DIR", self.path("cache"))
            .current_dir(self.dir.path())
            .args(arguments);
        command
    }

    /// Runs the binary to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        run(&mut self.stillpoint(arguments))
    }

    /// Takes a snapshot of the source.
    #[track_caller]
    pub fn snapshot(&self) -> Run {
        self.run(["snapshot", "source"]).with_code(0)
    }

    /// Restores a snapshot into a new directory and gives what the source became there.
    #[track_caller]
    pub fn restore(&self, snapshot: &str, into: &str) -> PathBuf {
        let spec = format!("{snapshot}:{}", self.source().display());
        self.run(["restore", &spec, "--target", into]).with_code(0);
        self.path(into)
    }

    /// The whole repository is sound.
    #[track_caller]
    pub fn check(&self) {
        self.run(["check", "--read-data"]).with_code(0);
    }

    /// The ids of all snapshots, oldest first.
    #[track_caller]
    pub fn ids(&self) -> Vec<String> {
        let list = self.run(["snapshots", "--json"]).with_code(0);
        let ids = messages(&list.stdout).into_iter().map(|message| text(&message, "id"));
        ids.collect()
    }
}

/// The JSON objects of an output, one a line, each with its type.
#[track_caller]
pub fn messages(output: &str) -> Vec<serde_json::Value> {
    let parse = |line: &str| -> serde_json::Value {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        assert!(value["message_type"].is_string(), "no message_type in {line}");
        value
    };
    output.lines().map(parse).collect()
}

/// A text field of a message.
#[track_caller]
pub fn text(message: &serde_json::Value, field: &str) -> String {
    message[field].as_str().unwrap_or_else(|| panic!("no {field} in {message}")).to_owned()
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(step).flatten().take(len).collect()
}

/// True for the superuser; what needs one is skipped otherwise.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a test could not show its point here.
pub fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Every file below a directory with its content, by relative path.
pub fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(dir).unwrap().to_owned();
                found.push((path, fs::read(entry.path()).unwrap()));
            }
        }
    }
    found.sort();
    found
}
