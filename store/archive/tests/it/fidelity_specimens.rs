//! One specimen of everything that a file system can hold: how to make it and how to look at it.

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, IFlags, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_OMIT,
    Uid, XattrFlags,
};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use stillpoint_archive::Entry;

/// Something that can be saved and restored, or cannot.
pub struct Specimen {
    pub property: &'static str,
    /// Makes it in an empty directory; an error means that the file system has no such thing.
    pub make: fn(&Path) -> io::Result<()>,
    /// Describes it.
    pub look: fn(&Path) -> io::Result<String>,
    /// Undoes what would keep the directory from being removed.
    pub unmake: fn(&Path),
    /// For what cannot be restored: a file, and what its entry records, in the words of `look`.
    pub recorded: Option<(&'static str, fn(&Entry) -> Option<String>)>,
    /// No promise is made.
    pub may_be_lost: bool,
}

impl Specimen {
    /// The name of its directory.
    pub fn folder(&self) -> String {
        self.property.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    }
}

const fn plain(
    property: &'static str,
    make: fn(&Path) -> io::Result<()>,
    look: fn(&Path) -> io::Result<String>,
) -> Specimen {
    Specimen { property, make, look, unmake: |_| (), recorded: None, may_be_lost: false }
}

/// All of them, in the order of the table.
pub fn specimens() -> Vec<Specimen> {
    vec![
        plain("content of files, empty ones too", make_content, look_content),
        plain("names of any bytes, newlines and invalid UTF-8 too", make_names, look_names),
        plain("names of 255 bytes", make_long_names, look_names),
        plain("paths beyond PATH_MAX", make_deep, look_deep),
        plain(
            "modification times in nanoseconds",
            |dir| make_times(dir, 1_234_567_890),
            look_times,
        ),
        plain("modification times before 1970", |dir| make_times(dir, -1_000_000_000), look_times),
        plain("modification times after 2106", |dir| make_times(dir, 7_000_000_000), look_times),
        plain("modes with setuid, setgid and sticky", make_modes, look_modes),
        plain("owner and group", make_owners, look_owners),
        plain("extended attributes of users", |dir| make_xattrs(dir, "user."), look_xattrs),
        plain("extended attributes of root (trusted)", make_trusted, look_xattrs),
        plain("POSIX access control lists", make_acls, look_xattrs),
        plain("file capabilities", make_capability, look_xattrs),
        plain("hard links of files", make_links, look_links),
        plain("hard links of symbolic links and pipes", make_node_links, look_links),
        plain("holes of sparse files", make_sparse, look_sparse),
        plain("named pipes", |dir| make_node(dir, FileType::Fifo, 0), look_nodes),
        plain("sockets", |dir| make_node(dir, FileType::Socket, 0), look_nodes),
        plain(
            "character devices",
            |dir| make_node(dir, FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            look_nodes,
        ),
        plain(
            "block devices",
            |dir| make_node(dir, FileType::BlockDevice, rustix::fs::makedev(259, 70_000)),
            look_nodes,
        ),
        plain("symbolic links to anything, non-UTF-8 too", make_symlinks, look_symlinks),
        Specimen {
            unmake: clear_flags,
            ..plain("inode flags: append only", |dir| make_flag(dir, IFlags::APPEND), look_flags)
        },
        Specimen {
            unmake: clear_flags,
            ..plain("inode flags: immutable", |dir| make_flag(dir, IFlags::IMMUTABLE), look_flags)
        },
        plain("inode flags: no dump, no access time", make_quiet_flags, look_flags),
        plain("inode flags: no copy on write", |dir| make_flag(dir, IFlags::NOCOW), look_flags),
        Specimen {
            recorded: Some(("file", |entry| {
                entry.btime.map(|time| time_text(time.seconds, time.nanos))
            })),
            may_be_lost: true,
            ..plain("birth time", make_file, look_birth)
        },
        Specimen {
            recorded: Some(("file", |entry| {
                Some(time_text(entry.ctime.seconds, entry.ctime.nanos))
            })),
            may_be_lost: true,
            ..plain("change time", make_file, look_change)
        },
        Specimen { may_be_lost: true, ..plain("access time", make_accessed, look_access) },
    ]
}

fn time_text(seconds: i64, nanos: u32) -> String {
    format!("{seconds}.{nanos:09}")
}

fn children(dir: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Describes each name in a directory.
fn describe(dir: &Path, each: impl Fn(&Path) -> io::Result<String>) -> io::Result<String> {
    let mut lines = Vec::new();
    for path in children(dir)? {
        let name = path.file_name().unwrap().as_bytes().escape_ascii().to_string();
        lines.push(format!("{name}: {}", each(&path)?));
    }
    if lines.is_empty() { Err(io::Error::other("nothing is there")) } else { Ok(lines.join("; ")) }
}

fn make_file(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("file"), "x")
}

fn make_content(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("empty"), "")?;
    fs::write(dir.join("small"), "small")?;
    fs::create_dir(dir.join("empty directory"))?;
    fs::write(dir.join("large"), crate::restore_lab::noise(1, 3_000_000))
}

fn look_content(dir: &Path) -> io::Result<String> {
    describe(dir, |path| {
        if path.is_dir() {
            return Ok("directory".into());
        }
        let bytes = fs::read(path)?;
        let sum = bytes.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        Ok(format!("{} bytes, {sum:x}", bytes.len()))
    })
}

fn make_names(dir: &Path) -> io::Result<()> {
    for byte in (1..=255u8).filter(|byte| *byte != b'/') {
        fs::write(dir.join(OsStr::from_bytes(&[b'n', byte])), [byte])?;
    }
    for name in [&b"-rf"[..], b" ", b"two\nlines\n", b"...", b"\xff\xfe", b"*", b"\\"] {
        fs::create_dir(dir.join(OsStr::from_bytes(name)))?;
    }
    Ok(())
}

fn look_names(dir: &Path) -> io::Result<String> {
    describe(dir, |path| {
        let kind = path.symlink_metadata()?.file_type();
        let bytes = if kind.is_file() { fs::read(path)? } else { Vec::new() };
        Ok(format!("{kind:?} {bytes:?}"))
    })
}

fn make_long_names(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir.join("d".repeat(255)))?;
    fs::write(dir.join(OsStr::from_bytes(&[0xfe; 255])), "x")?;
    symlink("x", dir.join("l".repeat(255)))
}

/// Levels of 200 bytes each: twice PATH_MAX.
const DEEP_LEVELS: usize = 42;

fn down(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn open(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn make_deep(dir: &Path) -> io::Result<()> {
    let mut at = open(dir)?;
    let name = "deep".repeat(50);
    for _ in 0..DEEP_LEVELS {
        rustix::fs::mkdirat(&at, &name, Mode::from_raw_mode(0o755))?;
        at = down(&at, &name)?;
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&at, "bottom", flags, Mode::from_raw_mode(0o644))?;
    fs::File::from(file).write_all_at(b"far down", 0)
}

fn look_deep(dir: &Path) -> io::Result<String> {
    let mut at = open(dir)?;
    let name = "deep".repeat(50);
    for _ in 0..DEEP_LEVELS {
        at = down(&at, &name)?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::openat(&at, "bottom", flags, Mode::empty())?);
    io::read_to_string(file)
}

fn set_time(path: &Path, seconds: i64, nanos: i64) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    let meta = path.symlink_metadata()?;
    if (meta.mtime(), meta.mtime_nsec()) == (seconds, nanos) {
        Ok(())
    } else {
        Err(io::Error::other("it keeps no such times"))
    }
}

fn make_times(dir: &Path, seconds: i64) -> io::Result<()> {
    fs::write(dir.join("file"), "x")?;
    fs::create_dir(dir.join("directory"))?;
    fs::write(dir.join("directory/inside"), "later than the directory's time")?;
    symlink("nowhere", dir.join("link"))?;
    rustix::fs::mknodat(CWD, dir.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    for (name, nanos) in [("file", 1), ("link", 999_999_999), ("pipe", 500), ("directory", 7)] {
        set_time(&dir.join(name), seconds, nanos)?;
    }
    Ok(())
}

fn look_times(dir: &Path) -> io::Result<String> {
    describe(dir, |path| {
        let meta = path.symlink_metadata()?;
        Ok(time_text(meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap()))
    })
}

fn make_modes(dir: &Path) -> io::Result<()> {
    for mode in [0, 0o400, 0o644, 0o777, 0o1755, 0o2755, 0o4755, 0o6711, 0o7777] {
        let path = dir.join(format!("file {mode:o}"));
        fs::write(&path, "x")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let path = dir.join(format!("directory {mode:o}"));
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn look_modes(dir: &Path) -> io::Result<String> {
    describe(dir, |path| Ok(format!("{:o}", path.symlink_metadata()?.mode())))
}

fn make_owners(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("file"), "x")?;
    fs::create_dir(dir.join("directory"))?;
    symlink("x", dir.join("link"))?;
    for (name, user, group) in
        [("file", 1, 2), ("directory", 54_321, 12_345), ("link", 7, 4_000_000_000)]
    {
        let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
        rustix::fs::chownat(CWD, dir.join(name), user, group, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn look_owners(dir: &Path) -> io::Result<String> {
    describe(dir, |path| {
        let meta = path.symlink_metadata()?;
        Ok(format!("{}:{}", meta.uid(), meta.gid()))
    })
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?)
}

fn make_xattrs(dir: &Path, prefix: &str) -> io::Result<()> {
    fs::write(dir.join("file"), "x")?;
    fs::create_dir(dir.join("directory"))?;
    for name in ["file", "directory"] {
        let path = dir.join(name);
        set_xattr(&path, &format!("{prefix}text"), b"text")?;
        set_xattr(&path, &format!("{prefix}binary"), &[0, 255, b'\n', 0])?;
        set_xattr(&path, &format!("{prefix}empty"), b"")?;
        set_xattr(&path, &format!("{prefix}{}", "n".repeat(200)), &[7; 300])?;
    }
    // Without write permission attributes can only be set before the mode.
    fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o400))
}

fn make_trusted(dir: &Path) -> io::Result<()> {
    make_xattrs(dir, "trusted.")?;
    symlink("x", dir.join("link"))?;
    set_xattr(&dir.join("link"), "trusted.link", b"x")
}

fn look_xattrs(dir: &Path) -> io::Result<String> {
    describe(dir, |path| {
        let mut buffer = vec![0u8; 64 << 10];
        let length = rustix::fs::llistxattr(path, buffer.as_mut_slice())?;
        let mut names: Vec<_> =
            buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort();
        let mut text = format!("{:o} ", path.symlink_metadata()?.mode());
        for name in names {
            let mut value = vec![0u8; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
            text += &format!("{}={:?} ", name.escape_ascii(), &value[..length]);
        }
        Ok(text)
    })
}

/// An access control list in the kernel's form: version 2, then tag, permissions and id of each entry.
fn acl(user: u32) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 6, user), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)];
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn make_acls(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir.join("directory"))?;
    // What is made inside later inherits the default list; this file was there before.
    fs::write(dir.join("directory/without"), "x")?;
    fs::write(dir.join("file"), "x")?;
    set_xattr(&dir.join("file"), "system.posix_acl_access", &acl(1234))?;
    set_xattr(&dir.join("directory"), "system.posix_acl_access", &acl(1234))?;
    set_xattr(&dir.join("directory"), "system.posix_acl_default", &acl(4321))
}

fn make_capability(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("tool"), "x")?;
    fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o755))?;
    // Version 2, effective; permitted: net_raw. A change of owner would clear it.
    let mut value = 0x0200_0001u32.to_le_bytes().to_vec();
    value.extend_from_slice(&(1u32 << 13).to_le_bytes());
    value.resize(20, 0);
    rustix::fs::chownat(
        CWD,
        dir.join("tool"),
        Some(Uid::from_raw(1)),
        Some(Gid::from_raw(1)),
        AtFlags::empty(),
    )?;
    set_xattr(&dir.join("tool"), "security.capability", &value)
}

fn make_links(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("one"), "x")?;
    fs::create_dir(dir.join("below"))?;
    fs::hard_link(dir.join("one"), dir.join("two"))?;
    fs::hard_link(dir.join("one"), dir.join("below/three"))?;
    fs::write(dir.join("other"), "x")?;
    fs::hard_link(dir.join("other"), dir.join("another"))
}

fn make_node_links(dir: &Path) -> io::Result<()> {
    symlink("x", dir.join("one"))?;
    fs::hard_link(dir.join("one"), dir.join("two"))?;
    rustix::fs::mknodat(CWD, dir.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    fs::hard_link(dir.join("pipe"), dir.join("second pipe"))
}

/// Which names are one: each is described by the first name with the same inode.
fn look_links(dir: &Path) -> io::Result<String> {
    let mut paths = children(dir)?;
    if dir.join("below").is_dir() {
        paths.extend(children(&dir.join("below"))?);
    }
    let inode = |path: &Path| Ok::<_, io::Error>(path.symlink_metadata()?.ino());
    let mut lines = Vec::new();
    for path in &paths {
        let mut first = None;
        for other in &paths {
            if first.is_none() && inode(other)? == inode(path)? {
                first = Some(other.strip_prefix(dir).unwrap().to_owned());
            }
        }
        let meta = path.symlink_metadata()?;
        let count = if meta.is_dir() { 0 } else { meta.nlink() };
        lines.push(format!("{:?}={first:?}*{count}", path.strip_prefix(dir).unwrap()));
    }
    Ok(lines.join("; "))
}

fn make_sparse(dir: &Path) -> io::Result<()> {
    let piece = crate::restore_lab::noise(3, 128 << 10);
    let middle = fs::File::create(dir.join("middle"))?;
    middle.write_all_at(&piece, 0)?;
    middle.write_all_at(&piece, 8 << 20)?;
    let end = fs::File::create(dir.join("end"))?;
    end.write_all_at(&piece, 0)?;
    end.set_len(1 << 40)?;
    fs::File::create(dir.join("only"))?.set_len(3 << 30)?;
    let holes = look_sparse(dir)?;
    if holes.contains("0..8519680 ") {
        return Err(io::Error::other("it keeps no holes"));
    }
    Ok(())
}

fn look_sparse(dir: &Path) -> io::Result<String> {
    describe(dir, |path| {
        let file = fs::File::open(path)?;
        let len = file.metadata()?.len();
        let (mut text, mut at) = (format!("{len} bytes: "), 0);
        while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, SeekFrom::Hole(data))?;
            text += &format!("{data}..{at} ");
        }
        Ok(text)
    })
}

fn make_node(dir: &Path, kind: FileType, device: u64) -> io::Result<()> {
    let path = dir.join("node");
    rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o624))?;
    let (user, group) = (Some(Uid::from_raw(3)), Some(Gid::from_raw(4)));
    Ok(rustix::fs::chownat(CWD, &path, user, group, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn look_nodes(dir: &Path) -> io::Result<String> {
    describe(dir, |path| {
        let meta = path.symlink_metadata()?;
        let (owner, group) = (meta.uid(), meta.gid());
        Ok(format!("{:o} {:x} {owner}:{group} {}", meta.mode(), meta.rdev(), meta.mtime_nsec()))
    })
}

fn make_symlinks(dir: &Path) -> io::Result<()> {
    let long = [&b"long/"[..]; 200].concat();
    let targets: [&[u8]; 8] =
        [b"/", b"..", b"relative/./x", b"\xff\xfe\n", b" ", b"/no/such/place", b"loop", &long];
    for (number, target) in targets.iter().enumerate() {
        symlink(OsStr::from_bytes(target), dir.join(format!("link {number}")))?;
    }
    symlink("loop", dir.join("loop"))
}

fn look_symlinks(dir: &Path) -> io::Result<String> {
    describe(dir, |path| Ok(fs::read_link(path)?.as_os_str().as_bytes().escape_ascii().to_string()))
}

fn flags_of(path: &Path) -> io::Result<IFlags> {
    Ok(rustix::fs::ioctl_getflags(fs::File::open(path)?)?)
}

/// The flags that the table is about; others belong to the file system.
fn ours(flags: IFlags) -> IFlags {
    flags & (IFlags::APPEND | IFlags::IMMUTABLE | IFlags::NODUMP | IFlags::NOATIME | IFlags::NOCOW)
}

fn add_flags(path: &Path, flags: IFlags) -> io::Result<()> {
    let file = fs::File::open(path)?;
    let old = rustix::fs::ioctl_getflags(&file)?;
    rustix::fs::ioctl_setflags(&file, old | flags)?;
    if rustix::fs::ioctl_getflags(&file)?.contains(flags) {
        Ok(())
    } else {
        Err(io::Error::other("it ignores the flag"))
    }
}

fn make_flag(dir: &Path, flag: IFlags) -> io::Result<()> {
    fs::write(dir.join("file"), "")?;
    if flag == IFlags::NOCOW {
        // Only possible on a file without content.
        add_flags(&dir.join("file"), flag)?;
        return fs::write(dir.join("file"), crate::restore_lab::noise(1, 100_000));
    }
    fs::write(dir.join("file"), "x")?;
    fs::hard_link(dir.join("file"), dir.join("second name"))?;
    fs::create_dir(dir.join("directory"))?;
    fs::write(dir.join("directory/inside"), "x")?;
    add_flags(&dir.join("file"), flag)?;
    add_flags(&dir.join("directory"), flag)
}

fn make_quiet_flags(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("file"), "x")?;
    fs::create_dir(dir.join("directory"))?;
    add_flags(&dir.join("file"), IFlags::NODUMP | IFlags::NOATIME)?;
    add_flags(&dir.join("directory"), IFlags::NODUMP | IFlags::NOATIME)
}

fn look_flags(dir: &Path) -> io::Result<String> {
    describe(dir, |path| Ok(format!("{:?}", ours(flags_of(path)?))))
}

fn clear_flags(dir: &Path) {
    for path in children(dir).unwrap_or_default() {
        if let Ok(file) = fs::File::open(path)
            && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
        {
            let _ = rustix::fs::ioctl_setflags(&file, flags - IFlags::APPEND - IFlags::IMMUTABLE);
        }
    }
}

fn look_birth(dir: &Path) -> io::Result<String> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let path = dir.join("file");
    let stat = rustix::fs::statx(CWD, &path, flags, rustix::fs::StatxFlags::BTIME)?;
    if stat.stx_mask & rustix::fs::StatxFlags::BTIME.bits() == 0 {
        return Err(io::Error::other("it keeps no birth time"));
    }
    Ok(time_text(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

fn look_change(dir: &Path) -> io::Result<String> {
    let meta = dir.join("file").symlink_metadata()?;
    Ok(time_text(meta.ctime(), u32::try_from(meta.ctime_nsec()).unwrap()))
}

fn make_accessed(dir: &Path) -> io::Result<()> {
    make_file(dir)?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 1_000_000_000, tv_nsec: 1 },
        last_modification: Timespec { tv_sec: 900_000_000, tv_nsec: 1 },
    };
    Ok(rustix::fs::utimensat(CWD, dir.join("file"), &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn look_access(dir: &Path) -> io::Result<String> {
    let meta = dir.join("file").symlink_metadata()?;
    Ok(time_text(meta.atime(), u32::try_from(meta.atime_nsec()).unwrap()))
}
