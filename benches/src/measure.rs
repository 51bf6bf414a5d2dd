//! Runs one program and says what it cost: CPU seconds, wall seconds, peak memory.

use crate::{At, Failure, Result};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// One program to run.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    /// The program's name or path.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to the environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, where it matters.
    pub directory: Option<PathBuf>,
    /// The file that is its standard input; empty input otherwise.
    pub stdin: Option<PathBuf>,
    /// The file that receives its standard output; the log otherwise.
    pub stdout: Option<PathBuf>,
}

impl Invocation {
    /// A program without arguments.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), ..Self::default() }
    }

    /// Adds arguments.
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// What one or several programs cost together.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Cost {
    /// User and system time of the program and of every child it waited for, in seconds.
    pub cpu_seconds: f64,
    /// Elapsed time in seconds.
    pub wall_seconds: f64,
    /// Largest resident set of any single process, in bytes.
    pub peak_bytes: u64,
}

impl Cost {
    /// The cost of this and then that.
    pub fn then(self, next: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + next.cpu_seconds,
            wall_seconds: self.wall_seconds + next.wall_seconds,
            peak_bytes: self.peak_bytes.max(next.peak_bytes),
        }
    }

    /// The better of two runs, each figure by itself; the larger peak.
    pub fn better(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds.min(other.cpu_seconds),
            wall_seconds: self.wall_seconds.min(other.wall_seconds),
            peak_bytes: self.peak_bytes.max(other.peak_bytes),
        }
    }
}

/// Runs the programs one after the other and adds up their cost; output goes to the end of `log`.
///
/// # Errors
/// A program that cannot be started or that ends with another status than 0.
pub fn run_all(invocations: &[Invocation], log: &Path) -> Result<Cost> {
    let mut total = Cost::default();
    for invocation in invocations {
        total = total.then(run(invocation, log)?);
    }
    Ok(total)
}

fn run(invocation: &Invocation, log: &Path) -> Result<Cost> {
    let log_file = OpenOptions::new().create(true).append(true).open(log).at(log)?;
    let mut command = Command::new(&invocation.program);
    command.args(&invocation.args).envs(invocation.env.iter().cloned());
    command.stderr(log_file.try_clone().at(log)?);
    command.stdin(match &invocation.stdin {
        Some(path) => Stdio::from(File::open(path).at(path)?),
        None => Stdio::null(),
    });
    command.stdout(match &invocation.stdout {
        Some(path) => Stdio::from(File::create(path).at(path)?),
        None => Stdio::from(log_file),
    });
    if let Some(directory) = &invocation.directory {
        command.current_dir(directory);
    }
    let start = Instant::now();
    let child = command.spawn().at(Path::new(&invocation.program))?;
    let (status, mut cost) = wait(child.id())?;
    cost.wall_seconds = start.elapsed().as_secs_f64();
    if status != 0 {
        let what = format!("{:?} {:?}", invocation.program, invocation.args);
        return Err(Failure::Other(format!(
            "{what} ended with status {status}; see {}",
            log.display()
        )));
    }
    Ok(cost)
}

/// Waits for a child and gives its exit status (128 + signal when killed) and what it used.
fn wait(child: u32) -> Result<(i32, Cost)> {
    let pid = libc::pid_t::try_from(child).expect("a process id");
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live, writable locals.
        if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).at(Path::new("wait4"));
        }
    }
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    let cost = Cost {
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        wall_seconds: 0.0,
        peak_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    };
    Ok((code, cost))
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}
