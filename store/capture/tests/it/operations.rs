//! Random operations of every kind that changes files, on a small world of paths, descriptors and mappings.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use stillpoint_testkit::Random;

/// Descriptors and mappings that stay open.
const HELD_MAX: usize = 12;
const PAGE: usize = 4096;

/// A shared mapping of one page of a file; the descriptor is closed.
pub struct Map(*mut libc::c_void);

impl Map {
    /// Maps the first page of a file that has one.
    pub fn of(file: &File) -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at a place that the kernel chooses.
        let place = unsafe {
            libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, file.as_raw_fd(), 0)
        };
        if place == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(place)) }
    }

    /// Writes the first byte; the file must not have been cut.
    pub fn write(&self, value: u8) {
        // SAFETY: within the mapping, and the file is long enough.
        unsafe { self.0.cast::<u8>().write_volatile(value) };
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nobody refers to any more.
        unsafe { libc::munmap(self.0, PAGE) };
    }
}

/// The world: paths below two directories, of which one is watched.
pub struct World {
    roots: Vec<PathBuf>,
    random: Random,
    files: Vec<File>,
    maps: Vec<(PathBuf, File, Map)>,
}

impl World {
    /// A world that is watched below `inside` and goes on below `outside`.
    pub fn new(inside: &Path, outside: &Path, seed: u64) -> Self {
        let roots = vec![inside.into(), inside.into(), inside.into(), outside.into()];
        Self { roots, random: Random::new(seed), files: Vec::new(), maps: Vec::new() }
    }

    /// Does so many operations; those that make no sense where they are tried do not count.
    pub fn run(&mut self, count: usize) {
        let mut done = 0;
        while done < count {
            let kind = self.random.below(KINDS);
            done += usize::from(self.operation(kind).is_ok());
        }
    }

    fn path(&mut self) -> PathBuf {
        let root = self.random.index(self.roots.len());
        let mut path = self.roots[root].clone();
        for _ in 0..self.random.below(4) {
            path.push(format!("d{}", self.random.below(4)));
        }
        let kind = if self.random.percent(80) { 'f' } else { 'd' };
        path.push(format!("{kind}{}", self.random.below(6)));
        path
    }

    fn open(&mut self) -> io::Result<File> {
        let path = self.path();
        OpenOptions::new().write(true).read(true).custom_flags(libc::O_NONBLOCK).open(path)
    }

    /// A file, from now on perhaps one of those that stay open.
    fn keep(&mut self, file: File) {
        if self.random.percent(30) {
            if self.files.len() >= HELD_MAX {
                let victim = self.random.index(self.files.len());
                self.files.swap_remove(victim);
            }
            self.files.push(file);
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.random.index(6000);
        self.random.bytes(len)
    }

    fn operation(&mut self, kind: u64) -> io::Result<()> {
        match kind {
            0..=7 => self.content(kind),
            8..=15 => self.names(kind),
            16..=20 => self.metadata(kind),
            _ => self.unusual(kind),
        }
    }

    fn content(&mut self, kind: u64) -> io::Result<()> {
        let bytes = self.bytes();
        match kind {
            0 | 1 => {
                let mut file = File::create_new(self.path())?;
                file.write_all(&bytes)?;
                self.keep(file);
            }
            2 => {
                let file = self.open()?;
                file.set_len(0)?;
                file.write_all_at(&bytes, 0)?;
            }
            3 => {
                let mut file = OpenOptions::new()
                    .append(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(self.path())?;
                file.write_all(&bytes)?;
                self.keep(file);
            }
            4 => self.open()?.set_len(self.random.below(9000))?,
            5 => {
                let len = i64::try_from(1 + self.random.below(9000)).unwrap();
                let mode = *self.random.pick(&[0, 1, 3]);
                let file = self.open()?;
                // SAFETY: a descriptor and numbers.
                check(unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, len) })?;
            }
            6 => self.open()?.write_all_at(b"same size", 0)?,
            _ => {
                // Through a name that may be gone or elsewhere by now.
                let Some(victim) = self.files.len().checked_sub(1) else { return nothing() };
                let victim = self.random.index(victim + 1);
                self.files[victim].write_all_at(&bytes[..bytes.len().min(100)], 10)?;
                if self.random.percent(30) {
                    self.files.swap_remove(victim);
                }
            }
        }
        Ok(())
    }

    fn names(&mut self, kind: u64) -> io::Result<()> {
        let (from, to) = (self.path(), self.path());
        match kind {
            8 => fs::create_dir(from),
            9 => fs::remove_dir(from),
            10 | 11 => fs::rename(from, to),
            12 => exchange(&from, &to),
            13 => fs::hard_link(from, to),
            14 => fs::remove_file(from),
            _ if self.random.percent(10) => fs::remove_dir_all(from),
            _ => symlink("anywhere", from),
        }
    }

    fn metadata(&mut self, kind: u64) -> io::Result<()> {
        let path = self.path();
        let text = CString::new(path.as_os_str().as_bytes()).unwrap();
        let number = self.random.below(1000);
        match kind {
            16 => {
                let mode = 0o600 + u32::try_from(number % 64).unwrap();
                let mode = if existing(path.clone())?.is_dir() { mode | 0o700 } else { mode };
                fs::set_permissions(path, Permissions::from_mode(mode))
            }
            17 => {
                let time = libc::timespec { tv_sec: 1_000_000, tv_nsec: 5 };
                // SAFETY: a C string and two valid times.
                check(unsafe {
                    libc::utimensat(
                        libc::AT_FDCWD,
                        text.as_ptr(),
                        [time, time].as_ptr(),
                        libc::AT_SYMLINK_NOFOLLOW,
                    )
                })
            }
            18 => {
                let value = number.to_le_bytes();
                // SAFETY: C strings, and a value of the stated length.
                check(unsafe {
                    let (name, value) = (c"user.test".as_ptr(), value.as_ptr().cast());
                    libc::lsetxattr(text.as_ptr(), name, value, 8, 0)
                })
            }
            19 => {
                let id = u32::try_from(number).unwrap();
                std::os::unix::fs::lchown(path, Some(id), Some(id))
            }
            // SAFETY: C strings.
            _ => check(unsafe { libc::lremovexattr(text.as_ptr(), c"user.test".as_ptr()) }),
        }
    }

    fn unusual(&mut self, kind: u64) -> io::Result<()> {
        match kind {
            21 => self.unnamed_file(),
            22 => {
                let path = self.path();
                let file = OpenOptions::new()
                    .write(true)
                    .read(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(&path)?;
                file.set_len(5000)?;
                if self.maps.len() >= HELD_MAX {
                    let victim = self.random.index(self.maps.len());
                    self.maps.swap_remove(victim);
                }
                let map = Map::of(&file)?;
                self.maps.push((path, file, map));
                Ok(())
            }
            23 | 24 => {
                let Some(last) = self.maps.len().checked_sub(1) else { return nothing() };
                let victim = self.random.index(last + 1);
                let value = self.random.below(256);
                let (_, file, map) = &self.maps[victim];
                if file.metadata()?.len() < 5000 {
                    return nothing();
                }
                map.write(u8::try_from(value).unwrap());
                if self.random.percent(20) {
                    self.maps.swap_remove(victim);
                }
                Ok(())
            }
            25 => {
                let (from, to) = (self.open()?, self.open()?);
                // SAFETY: two descriptors; the offsets are those of the files.
                let copied = unsafe {
                    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
                    libc::copy_file_range(
                        from,
                        std::ptr::null_mut(),
                        to,
                        std::ptr::null_mut(),
                        3000,
                        0,
                    )
                };
                if copied > 0 { Ok(()) } else { nothing() }
            }
            26 => {
                let (from, to) = (self.open()?, self.open()?);
                // SAFETY: two descriptors.
                check(unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) })
            }
            _ => {
                let path = CString::new(self.path().as_os_str().as_bytes()).unwrap();
                // SAFETY: a C string.
                check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) })
            }
        }
    }

    /// A file that has no name at first, and is perhaps still written to when it has one.
    fn unnamed_file(&mut self) -> io::Result<()> {
        let to = self.path();
        let flags = libc::O_TMPFILE;
        let directory = to.parent().unwrap();
        let mut file =
            OpenOptions::new().write(true).read(true).custom_flags(flags).open(directory)?;
        file.write_all(&self.bytes())?;
        let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let to = CString::new(to.as_os_str().as_bytes()).unwrap();
        let (at, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
        // SAFETY: C strings.
        check(unsafe { libc::linkat(at, from.as_ptr(), at, to.as_ptr(), follow) })?;
        self.keep(file);
        Ok(())
    }
}

const KINDS: u64 = 28;

fn existing(path: PathBuf) -> io::Result<PathBuf> {
    fs::symlink_metadata(&path)
        .and_then(|found| if found.is_symlink() { nothing() } else { Ok(()) })?;
    Ok(path)
}

fn nothing() -> io::Result<()> {
    Err(io::ErrorKind::NotFound.into())
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn exchange(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)?)
}

/// The kernel's `struct iocb`, as little-endian machines have it.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    flags: u32,
    operation: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    len: u64,
    offset: i64,
    reserved: [u64; 2],
}

/// Writes at the beginning of a file by `io_submit`; the ring stays until the process ends.
pub fn write_asynchronously(file: &File, bytes: &[u8]) -> io::Result<()> {
    const WRITE: u16 = 1;
    let mut ring: libc::c_ulong = 0;
    let mut request = Request {
        operation: WRITE,
        file: u32::try_from(file.as_raw_fd()).unwrap(),
        buffer: u64::try_from(bytes.as_ptr().addr()).unwrap(),
        len: u64::try_from(bytes.len()).unwrap(),
        ..Request::default()
    };
    let mut requests = [&raw mut request];
    let mut event = [0u64; 4];
    let done = |result: libc::c_long| {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    };
    // SAFETY: the structures have the kernel's layout and outlive the calls, the last of which waits for the end.
    unsafe {
        done(libc::syscall(libc::SYS_io_setup, 1, &raw mut ring))?;
        done(libc::syscall(libc::SYS_io_submit, ring, 1, requests.as_mut_ptr()))?;
        let none = std::ptr::null::<libc::timespec>();
        done(libc::syscall(libc::SYS_io_getevents, ring, 1, 1, event.as_mut_ptr(), none))?;
    }
    let written = event.get(2).copied().unwrap_or_default();
    if written == request.len { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
