//! The system calls of the journal that have no safe wrapper: fanotify, file handles, poll.
//!
//! Owns every unsafe block of the journal and decides nothing.

use super::mapped::{Mapping, is_ring};
use super::records::HANDLE_BYTES_MAX;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What is asked for: everything that changes what a walk would see, on directories too.
const EVENTS: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    // A rename changes the inode, which may have other names: only this event carries its handle.
    | libc::FAN_MOVE_SELF
    | libc::FAN_MODIFY
    | libc::FAN_ATTRIB
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ONDIR;

/// A fanotify group: one queue of events, in the order in which they happened.
#[derive(Debug)]
pub(super) struct Group {
    fd: OwnedFd,
}

impl Group {
    /// A group whose events carry the directory's handle, the name and the inode's own handle. `unlimited`: the queue may
    /// grow as long as there is memory; otherwise it overflows at the system's limit (16,384 events by default).
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` or `ENOSYS` before Linux 5.9.
    pub(super) fn new(unlimited: bool) -> io::Result<Self> {
        let mut flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_REPORT_DFID_NAME
            | libc::FAN_REPORT_FID;
        if unlimited {
            flags |= libc::FAN_UNLIMITED_QUEUE;
        }
        let event_flags = libc::c_uint::try_from(libc::O_RDONLY | libc::O_CLOEXEC)
            .expect("flags are not negative");
        // SAFETY: takes two integers, and gives a descriptor that nobody else owns, or -1.
        let fd = unsafe { libc::fanotify_init(flags, event_flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open and ours alone.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Marks the whole file system on which this directory lies.
    ///
    /// # Errors
    /// `EXDEV` within a Btrfs subvolume, `EOPNOTSUPP` or `ENODEV` where inodes have no handles or the file system no id.
    pub(super) fn mark_filesystem(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        self.mark(libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM, EVENTS, directory)
    }

    /// Marks one directory: names created in it.
    ///
    /// # Errors
    /// As [`Self::mark_filesystem`].
    pub(super) fn mark_directory(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        self.mark(libc::FAN_MARK_ADD, libc::FAN_CREATE, directory)
    }

    fn mark(&self, flags: u32, events: u64, directory: BorrowedFd<'_>) -> io::Result<()> {
        let (group, directory) = (self.fd.as_raw_fd(), directory.as_raw_fd());
        // SAFETY: without a path it is the open directory that is marked.
        let result =
            unsafe { libc::fanotify_mark(group, flags, events, directory, std::ptr::null()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes whole events off the queue.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; whatever the kernel gives.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer))?)
    }

    /// Waits until there is an event or the table of mounts has changed (true), or the other descriptor has something to
    /// say (false).
    ///
    /// # Errors
    /// Whatever the kernel gives.
    pub(super) fn wait(&self, stop: BorrowedFd<'_>, mountinfo: BorrowedFd<'_>) -> io::Result<bool> {
        let of =
            |fd: BorrowedFd<'_>, events| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
        let (group, mounts) = (of(self.fd.as_fd(), libc::POLLIN), of(mountinfo, libc::POLLPRI));
        let mut polled = [of(stop, libc::POLLIN), group, mounts];
        poll(&mut polled, -1)?;
        Ok(polled.first().is_none_or(|stop| stop.revents == 0))
    }
}

fn poll(polled: &mut [libc::pollfd], timeout: libc::c_int) -> io::Result<()> {
    let count = libc::nfds_t::try_from(polled.len()).expect("a handful");
    loop {
        // SAFETY: the pointer and the count describe one live slice.
        if unsafe { libc::poll(polled.as_mut_ptr(), count, timeout) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether the table of mounts changed since this descriptor of it was asked last; see `proc_pid_mountinfo(5)`.
pub(super) fn mounts_changed(mountinfo: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled =
        [libc::pollfd { fd: mountinfo.as_raw_fd(), events: libc::POLLPRI, revents: 0 }];
    poll(&mut polled, 0)?;
    Ok(polled.iter().any(|found| found.revents & (libc::POLLERR | libc::POLLPRI) != 0))
}

/// `OPEN_TREE_CLONE`.
const OPEN_TREE_CLONE: libc::c_uint = 1;

/// A mount of its own of what this directory's mount shows from here on, in no namespace: it keeps the file system, but nobody
/// from unmounting the other one. What is mounted below is not in it.
///
/// # Errors
/// `ENOSYS` before Linux 5.2; `EINVAL` for mounts that may not be copied.
pub(super) fn detached_mount(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE
        | libc::c_uint::try_from(libc::O_CLOEXEC | libc::AT_EMPTY_PATH)
            .expect("flags are positive");
    let (fd, empty) = (directory.as_raw_fd(), c"".as_ptr());
    // SAFETY: an open directory, an empty C string and flags; gives a descriptor that nobody else owns, or -1.
    let mount = unsafe { libc::syscall(libc::SYS_open_tree, fd, empty, flags) };
    if mount < 0 {
        return Err(io::Error::last_os_error());
    }
    let mount = i32::try_from(mount).expect("descriptors are small");
    // SAFETY: the descriptor is open and ours alone.
    let mount = unsafe { OwnedFd::from_raw_fd(mount) };
    // As mount_setattr(2) has it: set, clear, propagation, user namespace.
    let private: [u64; 4] = [0, 0, libc::MS_PRIVATE, 0];
    // SAFETY: the structure has the stated size and outlives the call. A failure leaves a mount that hears of others, no more.
    unsafe {
        let (fd, structure) = (mount.as_raw_fd(), private.as_ptr());
        libc::syscall(libc::SYS_mount_setattr, fd, empty, libc::AT_EMPTY_PATH, structure, 32)
    };
    Ok(mount)
}

/// The kernel's `struct file_handle` with room for the longest handle.
#[repr(C)]
struct RawHandle {
    len: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; HANDLE_BYTES_MAX],
}

/// Opens what a handle names, as a place only (`O_PATH`).
///
/// # Errors
/// `ESTALE` when it does not exist any more; `EPERM` without `CAP_DAC_READ_SEARCH`.
pub(super) fn open_handle(mount: BorrowedFd<'_>, kind: i32, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut handle = RawHandle { len: 0, kind, bytes: [0; HANDLE_BYTES_MAX] };
    let place = handle.bytes.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
    place.copy_from_slice(bytes);
    handle.len = libc::c_uint::try_from(bytes.len()).expect("at most 128");
    let raw = (&raw mut handle).cast::<libc::file_handle>();
    let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: the handle has the kernel's layout, states its true length and outlives the call.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), raw, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kind and bytes of the handle of what is open here.
///
/// # Errors
/// `EOPNOTSUPP` where inodes have no handles.
pub(super) fn handle_of(fd: BorrowedFd<'_>) -> io::Result<(i32, Vec<u8>)> {
    let mut handle = RawHandle { len: 0, kind: 0, bytes: [0; HANDLE_BYTES_MAX] };
    handle.len = libc::c_uint::try_from(HANDLE_BYTES_MAX).expect("128");
    let raw = (&raw mut handle).cast::<libc::file_handle>();
    let mut mount = 0;
    // SAFETY: the handle has the kernel's layout and states the room it has; the name is an empty C string.
    let result = unsafe {
        libc::name_to_handle_at(
            fd.as_raw_fd(),
            c"".as_ptr(),
            raw,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let len = usize::try_from(handle.len).unwrap_or(usize::MAX);
    let bytes = handle.bytes.get(..len).ok_or(io::ErrorKind::InvalidData)?;
    Ok((handle.kind, bytes.to_vec()))
}

/// The kernel's `struct procmap_query`.
#[repr(C)]
#[derive(Default)]
struct MapQuery {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    major: u32,
    minor: u32,
    name_size: u32,
    build_id_size: u32,
    name: u64,
    build_id: u64,
}

/// `PROCMAP_QUERY`: read and write, 104 bytes, type `f`, number 17.
const PROCMAP_QUERY: libc::c_ulong = 3 << 30 | 104 << 16 | 0x66 << 8 | 17;
/// Shared, file-backed, at the address or the next one.
const SHARED_FILES: u64 = 0x8 | 0x20 | 0x10;
/// Room for the longest name of a mapping, bytes.
const NAME_BYTES: usize = 4096;

/// Calls `found` with each shared mapping of a file in this `/proc/PID/maps`.
///
/// # Errors
/// `ENOTTY` before Linux 6.11; `ESRCH` when the process has ended or has no memory of its own.
pub(super) fn shared_mappings(
    maps: BorrowedFd<'_>,
    found: &mut dyn FnMut(&Mapping),
) -> io::Result<()> {
    let mut name = [0u8; NAME_BYTES];
    let mut address = 0;
    loop {
        let mut query = MapQuery {
            size: u64::try_from(size_of::<MapQuery>()).expect("104"),
            flags: SHARED_FILES,
            address,
            name_size: u32::try_from(NAME_BYTES).expect("4096"),
            name: u64::try_from(name.as_mut_ptr().addr()).expect("addresses have 64 bits"),
            ..MapQuery::default()
        };
        // SAFETY: the query has the kernel's layout and states its size; the name has the stated room, and both outlive the call.
        let result =
            unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, (&raw mut query).cast::<u8>()) };
        if result < 0 {
            let error = io::Error::last_os_error();
            // Nothing more.
            return if error.raw_os_error() == Some(libc::ENOENT) { Ok(()) } else { Err(error) };
        }
        let range = (query.start, query.end);
        let device = (query.major, query.minor);
        found(&Mapping { range, device, inode: query.inode, is_ring: is_ring(&name) });
        address = query.end;
    }
}
