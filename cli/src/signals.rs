//! Signals and process limits: Ctrl-C, core dumps, umask.

use crate::exit;
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Says whether somebody asked to stop. Cheap to clone and to ask.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    requested: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Cancel {
    /// From now on the first SIGINT, SIGTERM or SIGHUP asks the command to stop, the second ends the process at
    /// once. Where stopping needs no care (`graceful` is false), the first one ends the process. Either is safe:
    /// nothing that was not committed counts.
    pub fn install(graceful: bool) -> io::Result<Self> {
        let cancel = Self::default();
        let at_once = Arc::new(AtomicBool::new(!graceful));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&cancel.signal), number)?;
            signal_hook::flag::register(signal, Arc::clone(&cancel.requested))?;
            // Handlers run in this order: the shutdown looks at the flag before this signal raises it.
            let code = code_of(signal).into();
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&at_once))?;
            signal_hook::flag::register(signal, Arc::clone(&at_once))?;
        }
        Ok(cancel)
    }

    /// Asks to stop, as a signal does.
    #[cfg(test)]
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// The same flag in the form that the libraries take.
    pub fn token(&self) -> stillpoint_store::Cancel {
        stillpoint_store::Cancel::from(Arc::clone(&self.requested))
    }

    /// True once somebody asked to stop.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// The exit code for the signal that came, if one came.
    pub fn exit_code(&self) -> Option<u8> {
        match i32::try_from(self.signal.load(Ordering::SeqCst)) {
            Ok(signal) if signal != 0 => Some(code_of(signal)),
            _ => None,
        }
    }
}

fn code_of(signal: i32) -> u8 {
    if signal == SIGINT { exit::INTERRUPTED } else { exit::TERMINATED }
}

/// No core dump may carry keys to disk, and nothing this process creates is for other users.
pub fn harden() {
    // 1 rather than 0: it also stops kernels that pipe core dumps to a program, and is below the smallest core file.
    // Where the limit is lower already, setting fails and nothing is lost.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) });
    umask(rustix::fs::Mode::from_raw_mode(0o077));
}
