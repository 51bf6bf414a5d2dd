//! Freezing a real file system, which is on a file.

use super::mounted::{Mounted, run};
use super::place::{LONG, keeper, silent};
use super::suite::{Fixture, suite};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use stillpoint_capture::Error;
use stillpoint_capture::lock::fsfreeze::FsFreeze;
use stillpoint_capture::lock::{Keeper, Level, LockAdapter};

impl Fixture for Mounted {
    fn adapter(&self, keeper: Keeper) -> Box<dyn LockAdapter> {
        Box::new(FsFreeze::new(vec![self.dir.clone()], keeper, silent()))
    }

    fn state_dir(&self) -> &Path {
        self.outside()
    }

    fn keeper(&self) -> Keeper {
        keeper(self.outside())
    }

    fn is_locked(&self) -> Option<bool> {
        let dir = self.dir.to_str().unwrap();
        match run(&["fsfreeze", "-f", dir]) {
            Ok(_) => {
                run(&["fsfreeze", "-u", dir]).unwrap();
                Some(false)
            }
            Err(why) => {
                assert!(why.contains("busy"), "{why}");
                Some(true)
            }
        }
    }
}

#[test]
fn suite_of_adapters() {
    let Some(mounted) = Mounted::new(&["mkfs.ext4", "-q", "-F"]) else { return };
    suite(&mounted);
}

// A writer stands while it is frozen and goes on afterwards; a file system with the state directory is refused, and one that
// cannot be frozen.
#[test]
fn writers_stand() {
    let Some(mounted) = Mounted::new(&["mkfs.ext4", "-q", "-F"]) else { return };
    let mut adapter = mounted.adapter(mounted.keeper());
    let rehearsal = adapter.rehearse().unwrap();
    assert_eq!(rehearsal.frozen, std::slice::from_ref(&mounted.dir));
    assert_eq!(adapter.level(), Level::Filesystem);
    adapter.lock().unwrap();
    let file = mounted.dir.join("file");
    let (sender, written) = channel();
    let writer = std::thread::spawn(move || sender.send(std::fs::write(file, "x")));
    let waited = written.recv_timeout(Duration::from_millis(100));
    assert!(matches!(waited, Err(RecvTimeoutError::Timeout)), "{waited:?}");
    adapter.complete().unwrap();
    adapter.unlock().unwrap();
    written.recv_timeout(LONG).unwrap().unwrap();
    writer.join().unwrap().unwrap();

    let inside = keeper(&mounted.dir);
    let error = mounted.adapter(inside).rehearse().unwrap_err();
    assert!(matches!(&error, Error::Refused { what, .. } if what.contains("frozen")), "{error}");
    let mut twice =
        FsFreeze::new(vec![mounted.dir.clone(), mounted.dir.clone()], mounted.keeper(), silent());
    assert!(matches!(twice.rehearse().unwrap_err(), Error::Refused { .. }));
    let mut proc = FsFreeze::new(vec!["/proc".into()], mounted.keeper(), silent());
    let error = proc.lock().unwrap_err();
    assert!(matches!(error, Error::Failed(_)), "{error}");
    proc.unlock().unwrap();
}
