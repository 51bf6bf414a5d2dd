//! The simulated instance really holds its writers: threads here, and a shell in a process of its own.

use super::place::{LONG, Place};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use stillpoint_capture::lock::{LockAdapter, wait_until_drained};
use stillpoint_testkit::bitbucket::{Behaviour, Gate};

/// Appends a line to a file in each pass of the gate, for ever.
const SHELL: &str = "\
while :; do
  exec 8<\"$1/scm.latch\" 9<\"$1/scm.work\"
  flock -s 8; flock -s 9; exec 8<&-
  echo line >>\"$1/lines\"; echo passed
  exec 9<&-
done";

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// While it is drained nobody writes; before and after, they do.
#[test]
fn writers_are_held() {
    let gates = tempfile::tempdir().unwrap();
    let gate = |name| Gate::new(gates.path(), name).unwrap();
    let (db, scm) = (gate("db"), gate("scm"));
    let (db_gate, scm_gate) = (Some(db.clone()), Some(scm));
    let delay = Some(Duration::from_millis(20));
    let place =
        Place::new(Behaviour { db_gate, scm_gate, scm_delay: delay, ..Behaviour::default() });
    let (rows, ends) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut shell = Ended(
        Command::new("bash")
            .args(["-c", SHELL, "writer"])
            .arg(gates.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut passes = std::io::BufReader::new(shell.0.stdout.take().unwrap());
    let mut shell_passes = || {
        use std::io::BufRead as _;
        let mut line = String::new();
        passes.read_line(&mut line).unwrap();
        assert_eq!(line, "passed\n");
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !ends.load(Ordering::SeqCst) {
                    let pass = db.enter().unwrap();
                    rows.fetch_add(1, Ordering::SeqCst);
                    drop(pass);
                }
            });
        }
        let lines = || std::fs::metadata(gates.path().join("lines")).map_or(0, |stat| stat.len());
        let mut adapter = place.adapter();
        adapter.rehearse().unwrap();
        shell_passes();
        for _ in 0..3 {
            adapter.lock().unwrap();
            wait_until_drained(&mut adapter, LONG, &|| false).unwrap();
            let held = (rows.load(Ordering::SeqCst), lines());
            for percent in 1..20 {
                adapter.progress(percent).unwrap();
            }
            assert_eq!((rows.load(Ordering::SeqCst), lines()), held);
            // The next pass is let in by the end of the task, and by nothing else.
            std::thread::scope(|inner| {
                let waiting = inner.spawn(|| db.enter().map(drop));
                assert!(!waiting.is_finished());
                adapter.complete().unwrap();
                waiting.join().unwrap().unwrap();
            });
            adapter.unlock().unwrap();
            while lines() == held.1 {
                shell_passes();
            }
        }
        ends.store(true, Ordering::SeqCst);
    });
    let state = place.simulator.state();
    assert_eq!(state.locked.len(), 3);
    assert!(state.locked.iter().all(|locked| *locked >= Duration::from_millis(20)), "{state:?}");
}
