//! A state directory, an instance, and adapters for them.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stillpoint_capture::lock::bitbucket::{Bitbucket, BitbucketOptions};
use stillpoint_capture::lock::login::{Login, PasswordSource};
use stillpoint_capture::lock::web::WebOptions;
use stillpoint_capture::lock::{Keeper, Tell};
use stillpoint_testkit::bitbucket::{Behaviour, Simulator};

/// Longer than anything takes that goes well.
pub const LONG: Duration = Duration::from_secs(60);
/// What must be unlocked by itself is, in this time.
pub const SOON: Duration = Duration::from_secs(5);

/// A state directory whose password file stands beside it, and an instance.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub simulator: Simulator,
}

impl Place {
    pub fn new(behaviour: Behaviour) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let simulator = Simulator::start(behaviour).unwrap();
        std::fs::write(dir.path().join("password"), "secret\n").unwrap();
        Self { dir, simulator }
    }

    pub fn keeper(&self) -> Keeper {
        keeper(self.dir.path())
    }

    pub fn adapter(&self) -> Bitbucket {
        bitbucket(&self.simulator.url(), self.keeper(), silent())
    }

    /// The instance is unlocked within the time in which it must be, by itself.
    #[track_caller]
    pub fn is_unlocked_soon(&self, when: &str) {
        let waited = self.simulator.wait_until(SOON, |state| !state.is_locked);
        assert!(waited.is_some(), "still locked: {when}: {:#?}", self.simulator.state());
    }

    /// Waits for the ends of all watchdogs; none of them leaves a record.
    #[track_caller]
    pub fn leaves_nothing(&self, when: &str) {
        let left = wait_for_watchdogs(self.dir.path());
        assert!(left.is_empty(), "{when}: {left:?}");
    }
}

/// A keeper whose watchdog is this test program.
pub fn keeper(state: &Path) -> Keeper {
    let arguments = ["--exact", "locks::roles::watchdog_role", "--nocapture"];
    Keeper::new(state, LONG)
        .with_watchdog(std::env::current_exe().unwrap(), arguments.map(Into::into).into())
}

/// An adapter for the instance at a URL; its password stands beside the state.
pub fn bitbucket(url: &str, keeper: Keeper, tell: Tell) -> Bitbucket {
    let password = PasswordSource::File(keeper.state_dir().join("password"));
    let options = BitbucketOptions {
        url: url.into(),
        login: Login { user: "admin".into(), password },
        web: WebOptions { call_limit: Duration::from_secs(20), ..WebOptions::default() },
        exclude_repositories: vec![7],
    };
    Bitbucket::new(options, keeper, tell)
}

/// Nobody listens.
pub fn silent() -> Tell {
    Arc::new(|_| {})
}

/// Somebody who remembers.
pub fn listening() -> (Tell, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&lines);
    (Arc::new(move |line: &str| theirs.lock().unwrap().push(line.to_owned())), lines)
}

/// Waits until no watchdog lives, and names the records that are left.
pub fn wait_for_watchdogs(state: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let Ok(entries) = std::fs::read_dir(state.join("locks")) else { return left };
    for entry in entries {
        let path = entry.unwrap().path();
        // A watchdog holds this lock as long as it lives.
        if let Ok(file) = File::open(&path) {
            flock(&file, FlockOperation::LockExclusive).unwrap();
            if path.exists() {
                left.push(std::fs::read_to_string(&path).unwrap().trim().to_owned());
            }
        }
    }
    left
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
