//! Commands as a lock: a directory that one of them makes and another removes.

use super::place::{LONG, keeper, listening, silent};
use super::suite::{Fixture, suite};
use std::path::Path;
use std::time::Duration;
use stillpoint_capture::Error;
use stillpoint_capture::lock::hooks::{Hooks, HooksOptions};
use stillpoint_capture::lock::none::NoLock;
use stillpoint_capture::lock::{Drain, Keeper, Level, LockAdapter};

/// `mkdir` decides who is first; the token is needed to undo it, and what is not there is undone already.
const LOCK: &str =
    "mkdir \"$0/held\" 2>/dev/null || exit 75; echo token-$$ | tee \"$0/held/token\"";
const READY: &str = "test -s \"$0/held/token\"";
const UNLOCK: &str = "\
test -d \"$0/held\" || exit 0
test ! -s \"$0/held/token\" || test \"$STILLPOINT_LOCK_TOKEN\" = \"$(cat \"$0/held/token\")\" || exit 9
echo $STILLPOINT_LOCK_ENDING >\"$0/ending\"; rm -r \"$0/held\"";

struct Commands {
    dir: tempfile::TempDir,
}

impl Commands {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn shell(&self, script: &str) -> Vec<String> {
        let dir = self.dir.path().to_str().unwrap();
        ["sh", "-c", script, dir].map(str::to_owned).to_vec()
    }

    fn options(&self) -> HooksOptions {
        HooksOptions {
            application: "the shop".into(),
            lock: self.shell(LOCK),
            ready: Some(self.shell(READY)),
            unlock: self.shell(UNLOCK),
            lock_limit: LONG,
            ready_limit: LONG,
            unlock_limit: LONG,
        }
    }

    fn hooks(&self, change: impl FnOnce(&mut HooksOptions)) -> Hooks {
        let mut options = self.options();
        change(&mut options);
        Hooks::new(options, self.keeper(), silent())
    }

    fn is_held(&self) -> bool {
        self.dir.path().join("held").exists()
    }

    fn leaves_nothing(&self) {
        assert!(super::place::wait_for_watchdogs(self.dir.path()).is_empty());
        assert!(!self.is_held());
    }
}

impl Fixture for Commands {
    fn adapter(&self, keeper: Keeper) -> Box<dyn LockAdapter> {
        Box::new(Hooks::new(self.options(), keeper, silent()))
    }

    fn state_dir(&self) -> &Path {
        self.dir.path()
    }

    fn keeper(&self) -> Keeper {
        keeper(self.dir.path())
    }

    fn is_locked(&self) -> Option<bool> {
        Some(self.is_held())
    }
}

#[test]
fn suite_of_adapters() {
    suite(&Commands::new());
}

// What is told: the ending to the command, and the lock's end to people.
#[test]
fn endings() {
    for (completes, expected) in [(true, "complete\n"), (false, "abandoned\n")] {
        let place = Commands::new();
        let (tell, lines) = listening();
        let mut hooks = Hooks::new(place.options(), place.keeper(), tell);
        hooks.rehearse().unwrap();
        hooks.lock().unwrap();
        if completes {
            hooks.complete().unwrap();
        }
        hooks.unlock().unwrap();
        let ending = std::fs::read_to_string(place.dir.path().join("ending")).unwrap();
        assert_eq!(ending, expected);
        assert_eq!(*lines.lock().unwrap(), ["the shop unlocked"]);
    }
}

// A lock that fails halfway is undone; one that takes too long, too; `ready` may say not yet, or fail.
#[test]
fn failures() {
    let place = Commands::new();
    let halfway = place.shell("mkdir \"$0/held\"; echo broken >&2; exit 2");
    let mut hooks = place.hooks(|options| options.lock = halfway);
    let error = hooks.lock().unwrap_err().to_string();
    assert!(error.contains("broken"), "{error}");
    hooks.unlock().unwrap();
    drop(hooks);
    place.leaves_nothing();

    let slow = place.shell("mkdir \"$0/held\"; sleep 600");
    let mut hooks = place.hooks(|options| {
        (options.lock, options.lock_limit) = (slow, Duration::from_millis(100));
    });
    let error = hooks.lock().unwrap_err().to_string();
    assert!(error.contains("killed"), "{error}");
    drop(hooks);
    place.leaves_nothing();

    for (script, waits) in [("exit 1", true), ("exit 4", false)] {
        let ready = Some(place.shell(script));
        let mut hooks = place.hooks(|options| options.ready = ready);
        hooks.rehearse().unwrap();
        hooks.lock().unwrap();
        assert_eq!(matches!(hooks.drain(), Ok(Drain::Waiting(_))), waits);
        hooks.unlock().unwrap();
    }
    place.leaves_nothing();
}

// An unlock that fails at first is tried again; a command that is not there is refused before anything is locked.
#[test]
fn unlocking_again() {
    let place = Commands::new();
    let second =
        place.shell("test -e \"$0/tried\" || { touch \"$0/tried\"; exit 1; }; rm -r \"$0/held\"");
    let mut hooks = place.hooks(|options| options.unlock = second);
    hooks.rehearse().unwrap();
    hooks.lock().unwrap();
    hooks.unlock().unwrap();
    drop(hooks);
    place.leaves_nothing();
    let mut hooks = place.hooks(|options| options.unlock = vec!["/no/such".into()]);
    assert!(matches!(hooks.rehearse().unwrap_err(), Error::Refused { .. }));
}

struct Nothing(tempfile::TempDir);

impl Fixture for Nothing {
    fn adapter(&self, _keeper: Keeper) -> Box<dyn LockAdapter> {
        Box::new(NoLock)
    }

    fn state_dir(&self) -> &Path {
        self.0.path()
    }

    fn keeper(&self) -> Keeper {
        keeper(self.0.path())
    }

    fn is_locked(&self) -> Option<bool> {
        None
    }

    fn excludes_others(&self) -> bool {
        false
    }

    fn takes_anything(&self) -> bool {
        false
    }
}

// No lock at all passes the suite, and never claims anything.
#[test]
fn no_lock() {
    suite(&Nothing(tempfile::tempdir().unwrap()));
    assert_eq!(NoLock.level(), Level::None);
}
