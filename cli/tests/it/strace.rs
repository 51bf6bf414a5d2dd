//! strace around the real binary: what it did, or what it does when one of its calls fails or kills it.

use crate::support::skipped;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// True where processes can be traced; says why not otherwise.
pub fn is_available() -> bool {
    static AVAILABLE: OnceLock<Result<(), String>> = OnceLock::new();
    let tried = AVAILABLE.get_or_init(|| {
        let output = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
        match output {
            Err(error) => Err(format!("strace cannot be run: {error}")),
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!(
                "this machine does not let us trace processes: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
        }
    });
    if let Err(reason) = tried {
        skipped(reason);
    }
    tried.is_ok()
}

/// The same command below strace with these arguments; the trace goes to a file.
pub fn around(command: &Command, trace: &Path, arguments: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(trace);
    // Then only the calls that are asked for stop the process; but a signal cannot be injected that way.
    if !arguments.iter().any(|argument| argument.contains(":signal=")) {
        strace.arg("--seccomp-bpf");
    }
    strace.args(arguments).arg("--").arg(command.get_program()).args(command.get_args());
    strace.env_clear().stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            strace.env(name, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        strace.current_dir(dir);
    }
    strace
}
