//! Calls of the kernel that have no safe wrapper: freezing file systems, snapshots of Btrfs.

#![allow(unsafe_code, reason = "ioctl")]

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;

/// `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`, see ioctl_fifreeze(2).
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;
/// `_IOW(0x94, 23, struct btrfs_ioctl_vol_args_v2)` and `_IOW(0x94, 15, struct btrfs_ioctl_vol_args)`, linux/btrfs.h.
const SNAP_CREATE_V2: libc::c_ulong = 0x5000_9417;
const SNAP_DESTROY: libc::c_ulong = 0x5000_940f;
/// `BTRFS_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1 << 1;

/// Stops all writes to the file system that this directory is on.
pub fn freeze(dir: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the call takes an int that it ignores.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), FIFREEZE, 0) })
}

/// Lets writes to it go on.
pub fn thaw(dir: &File) -> io::Result<()> {
    // SAFETY: as above.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), FITHAW, 0) })
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolumeArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArgs {
    fd: i64,
    name: [u8; 4088],
}

/// Makes a read-only snapshot of a subvolume, under this name in this folder.
pub fn snapshot(subvolume: &File, folder: &File, name: &OsStr) -> io::Result<()> {
    let mut args = Box::new(VolumeArgsV2 {
        fd: subvolume.as_raw_fd().into(),
        transid: 0,
        flags: READ_ONLY,
        unused: [0; 4],
        name: [0; 4040],
    });
    put(&mut args.name, name)?;
    // SAFETY: both descriptors are open, and the structure has the size and the layout that the call reads.
    check(unsafe { libc::ioctl(folder.as_raw_fd(), SNAP_CREATE_V2, &raw const *args) })
}

/// Removes the subvolume of this name from this folder.
pub fn remove_subvolume(folder: &File, name: &OsStr) -> io::Result<()> {
    let mut args = Box::new(VolumeArgs { fd: 0, name: [0; 4088] });
    put(&mut args.name, name)?;
    // SAFETY: as above.
    check(unsafe { libc::ioctl(folder.as_raw_fd(), SNAP_DESTROY, &raw const *args) })
}

/// Writes a name that ends in a zero byte.
fn put(into: &mut [u8], name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    let place = into.get_mut(..bytes.len()).filter(|_| bytes.len() < 256);
    place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?.copy_from_slice(bytes);
    debug_assert!(CStr::from_bytes_until_nul(into).is_ok());
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
