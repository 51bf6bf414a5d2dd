//! Exit codes: one small stable table, the same meaning in every command.

/// Everything was done.
pub const OK: u8 = 0;
/// The command failed.
pub const FAILED: u8 = 1;
/// The command line is wrong, or something it must name is not named.
pub const USAGE: u8 = 2;
/// Done, but some source files could not be read, some files not restored, or damage was found.
pub const INCOMPLETE: u8 = 3;
/// The lock budget of a capture was over: the application was unlocked in time, the snapshot is missing or claims less.
pub const DEGRADED: u8 = 4;
/// An application may still be locked; the message says how to unlock it.
pub const STILL_LOCKED: u8 = 5;
/// There is no repository at the place.
pub const NO_REPOSITORY: u8 = 10;
/// Another process was in the way; run the command again.
pub const CONFLICT: u8 = 11;
/// Wrong passphrase or key file.
pub const WRONG_SECRET: u8 = 12;
/// Interrupted by Ctrl-C (SIGINT).
pub const INTERRUPTED: u8 = 130;
/// Whoever read the output went away (as 128 + SIGPIPE).
pub const BROKEN_PIPE: u8 = 141;
/// Ended by SIGTERM or SIGHUP (as 128 + SIGTERM).
pub const TERMINATED: u8 = 143;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done: 0.
    Complete,
    /// Some files failed, each was named: 3.
    Incomplete,
    /// A snapshot was taken, but it shows less than was asked for: 4.
    Degraded,
    /// The command did its work and the answer is no (`check` found damage): 1.
    Negative,
}

impl Outcome {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Complete => OK,
            Self::Incomplete => INCOMPLETE,
            Self::Degraded => DEGRADED,
            Self::Negative => FAILED,
        }
    }

    /// Complete unless something failed.
    pub fn unless(some_failed: bool) -> Self {
        if some_failed { Self::Incomplete } else { Self::Complete }
    }
}
