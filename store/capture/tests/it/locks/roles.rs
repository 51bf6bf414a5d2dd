//! This test program in the two parts that must be processes of their own: the watchdog, and a capture that is killed.

use super::place;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use stillpoint_capture::Error;
use stillpoint_capture::lock::{LockAdapter, wait_until_drained, watchdog};

/// Says where the capture is to stop; see [`capture_role`].
pub const STOP_AT: &str = "STILLPOINT_TEST_STOP_AT";
/// The instance that it locks.
pub const URL: &str = "STILLPOINT_TEST_URL";
/// The state directory.
pub const STATE: &str = "STILLPOINT_TEST_STATE";

// With a socket as its standard input this is a watchdog; without one it has nothing to do.
#[test]
fn watchdog_role() {
    let stdin = std::io::stdin();
    let kind =
        rustix::fs::fstat(&stdin).map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
    if kind != Ok(rustix::fs::FileType::Socket) {
        return;
    }
    let channel = stdin.as_fd().try_clone_to_owned().unwrap();
    match watchdog::run(channel, &|line| eprintln!("watchdog: {line}")) {
        Ok(()) | Err(Error::StillLocked { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

// With the variables of a capture this locks an instance and stops where it is told, until it is killed.
#[test]
fn capture_role() {
    let Ok(stop_at) = std::env::var(STOP_AT) else { return };
    let state = std::env::var_os(STATE).unwrap();
    let keeper = place::keeper(state.as_ref());
    let url = std::env::var(URL).unwrap();
    let mut adapter = place::bitbucket(&url, keeper, place::silent());
    let stop = |at: &str| {
        if stop_at == at {
            println!("\nat {at}");
            std::io::stdout().flush().unwrap();
            let _ = std::io::stdin().read(&mut [0]);
        }
    };
    adapter.rehearse().unwrap();
    stop("rehearsed");
    adapter.lock().unwrap();
    stop("locked");
    wait_until_drained(&mut adapter, place::LONG, &|| false).unwrap();
    stop("drained");
    adapter.progress(50).unwrap();
    stop("progress");
    adapter.complete().unwrap();
    stop("complete");
    adapter.unlock().unwrap();
    stop("unlocked");
}
