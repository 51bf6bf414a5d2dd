//! System calls for leases, which have no safe wrapper.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

/// `F_SETOWN_EX` and its kind of owner that is one thread, from `asm-generic/fcntl.h`.
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}

/// What a lease is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody can write.
    Held,
    /// Somebody wants to write and waits, or it is gone.
    Breaking,
}

fn checked(code: libc::c_int) -> io::Result<libc::c_int> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

/// Takes a read lease on the file and has breaks told to this thread by `SIGIO`.
///
/// # Errors
/// `EAGAIN` when the file is open for writing; others where there are no leases.
pub(super) fn take(file: BorrowedFd<'_>, thread: libc::pid_t) -> io::Result<()> {
    let owner = Owner { kind: F_OWNER_TID, id: thread };
    // The owner comes first: without one the kernel would signal the whole process.
    // SAFETY: the descriptor is open, and the owner is a valid struct that lives through the call.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), F_SETOWN_EX, &raw const owner) })?;
    // SAFETY: the descriptor is open; the call takes no pointers.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) })?;
    Ok(())
}

/// What the lease is at the moment.
pub(super) fn state(file: BorrowedFd<'_>) -> State {
    // SAFETY: the descriptor is open; the call takes no pointers.
    let lease = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) };
    if lease == libc::F_RDLCK { State::Held } else { State::Breaking }
}

/// Gives the lease back; whoever waits goes on.
///
/// # Errors
/// `EAGAIN` when it was taken away by force before.
pub(super) fn release(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open; the call takes no pointers.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) })?;
    Ok(())
}

/// The signal that tells of breaks, alone in a set.
fn signals() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid value; the calls overwrite it and fail on bad signal numbers only.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGIO);
        set
    }
}

/// Keeps the signal pending for this thread, so that [`wait`] gets it.
///
/// # Errors
/// Those of the system call.
pub(super) fn block() -> io::Result<()> {
    let set = signals();
    // SAFETY: the set is valid, and nobody wants the old one.
    let code =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// Waits for the signal; other reasons to wake up are possible.
pub(super) fn wait() {
    let set = signals();
    // SAFETY: the set is valid, and nobody wants to know more about the signal.
    unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
}

/// Wakes a thread out of [`wait`].
pub(super) fn wake(thread: &JoinHandle<()>) {
    // SAFETY: the handle has not been joined, so the thread's id is valid.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGIO) };
}
