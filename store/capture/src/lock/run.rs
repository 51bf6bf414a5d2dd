//! Commands of an administrator: run without a shell, with a time limit, and with what they say at hand.

use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// The most that is read of what a command says, bytes.
const OUTPUT_BYTES_MAX: u64 = 16 << 10;

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// It could not be started.
    NotStarted(String),
    /// It succeeded; what it printed, without white space around it.
    Well(String),
    /// It failed: its exit status, where it ended by itself, and how people are told.
    Failed {
        /// The exit status; None: ended by a signal, or by us after the limit.
        status: Option<i32>,
        /// What happened.
        text: String,
    },
}

/// Runs a command with these variables; after `limit` its whole process group is killed. Processes that it leaves
/// behind are not waited for.
pub fn run(command: &[String], variables: &[(&str, &str)], limit: Duration) -> Ran {
    let name = command.join(" ");
    match start(command, variables, limit) {
        Ok(ran) => ran,
        Err(error) => Ran::NotStarted(format!("starting `{name}`: {error}")),
    }
}

fn start(command: &[String], variables: &[(&str, &str)], limit: Duration) -> std::io::Result<Ran> {
    let name = command.join(" ");
    let (program, arguments) =
        command.split_first().ok_or_else(|| std::io::Error::other("there is no command"))?;
    // Not pipes: a process that it leaves behind may keep those open.
    let (said, complained) = (memory_file()?, memory_file()?);
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(complained.try_clone()?)
        .process_group(0)
        .spawn()?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (sender, ended) = channel();
    let waiter = std::thread::spawn(move || sender.send(child.wait()));
    let status = match ended.recv_timeout(limit) {
        Ok(status) => Some(status?),
        Err(_) => {
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            None
        }
    };
    let _ = waiter.join();
    let complaint = content(complained);
    let complaint = complaint.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
    Ok(match status {
        Some(status) if status.success() => Ran::Well(content(said)),
        Some(status) => Ran::Failed {
            status: status.code(),
            text: format!("`{name}` ended with {status}{complaint}"),
        },
        None => Ran::Failed {
            status: None,
            text: format!("`{name}` took longer than {} s and was killed", limit.as_secs_f64()),
        },
    })
}

fn memory_file() -> std::io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(File::from(rustix::fs::memfd_create("stillpoint-output", flags)?))
}

fn content(mut file: File) -> String {
    let mut bytes = Vec::new();
    let _ = file.rewind();
    let _ = file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// The command with its program's whole path, if it is a path: it is run from other directories than ours.
pub fn anchored(mut command: Vec<String>) -> Vec<String> {
    if let Some(program) = command.first_mut().filter(|program| program.contains('/'))
        && let Some(whole) = std::path::absolute(&program).ok().as_deref().and_then(Path::to_str)
    {
        whole.clone_into(program);
    }
    command
}

/// Where a program is found, as a shell looks for it.
pub fn find(program: &str) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| is_program(path));
    }
    let places = std::env::var_os("PATH")?;
    std::env::split_paths(&places)
        .map(|dir| dir.join(OsStr::new(program)))
        .find(|path| is_program(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Ran {
        run(&["sh".into(), "-c".into(), script.into()], &[("NAME", "value")], limit)
    }

    const LONG: Duration = Duration::from_secs(60);

    // Output, failure and complaint come back; variables are given.
    #[test]
    fn output_and_failures() {
        assert_eq!(shell("echo \" $NAME \"", LONG), Ran::Well("value".into()));
        let Ran::Failed { status: Some(3), text } = shell("echo no >&2; exit 3", LONG) else {
            panic!("it did not fail");
        };
        assert!(text.ends_with(": no"), "{text}");
        assert!(matches!(run(&["/no/such".into()], &[], LONG), Ran::NotStarted(_)));
        assert!(matches!(run(&[], &[], LONG), Ran::NotStarted(_)));
    }

    // A command that takes too long is killed with all that it started; what it left behind holds nobody up.
    #[test]
    fn limits() {
        let ran = shell("sleep 600 & sleep 600", Duration::from_millis(50));
        assert!(matches!(ran, Ran::Failed { status: None, .. }), "{ran:?}");
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let script = format!("mkfifo {0}; (read x <{0}; exit) & echo $!", pipe.display());
        let ran = shell(&script, LONG);
        assert!(matches!(&ran, Ran::Well(pid) if pid.parse::<u32>().is_ok()), "{ran:?}");
        std::fs::write(pipe, "end\n").unwrap();
    }

    // A program that is named by a path is found from other directories, too.
    #[test]
    fn paths_of_programs() {
        let here = std::env::current_dir().unwrap();
        let check = |program: &str, expected: &str| {
            assert_eq!(anchored(vec![program.into(), "a/b".into()]), [expected, "a/b"]);
        };
        check("dir/program", here.join("dir/program").to_str().unwrap());
        check("/bin/sh", "/bin/sh");
        check("sh", "sh");
        assert!(anchored(Vec::new()).is_empty());
    }

    // Programs are found by name and by path.
    #[test]
    fn programs() {
        assert!(find("sh").is_some() && find("/bin/sh").is_some());
        assert!(find("no-such-program-here").is_none() && find("/etc/passwd").is_none());
    }
}
