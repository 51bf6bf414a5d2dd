//! Compares two real directory trees.

use super::materialise::list_xattrs;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Content is compared in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;

/// One thing that is not equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path below the two roots.
    pub path: PathBuf,
    /// What differs, and how.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.path, self.what)
    }
}

/// What is compared besides names, types, content, link targets and device numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompareOptions {
    /// Permission bits.
    pub modes: bool,
    /// User and group.
    pub owners: bool,
    /// Modification times, to the nanosecond.
    pub times: bool,
    /// Which names are links to one file.
    pub links: bool,
    /// Where files have holes.
    pub holes: bool,
    /// Extended attributes, access control lists among them.
    pub xattrs: bool,
    /// The metadata of the two roots themselves.
    pub roots: bool,
}

impl CompareOptions {
    /// Everything.
    pub const ALL: Self = Self {
        modes: true,
        owners: true,
        times: true,
        links: true,
        holes: true,
        xattrs: true,
        roots: true,
    };
}

/// Everything in which two trees differ, but for the metadata of the roots themselves.
///
/// # Errors
/// If something cannot be read.
pub fn compare_trees(a: &Path, b: &Path) -> io::Result<Vec<Difference>> {
    compare_trees_with(a, b, CompareOptions { roots: false, ..CompareOptions::ALL })
}

/// Everything asked for in which two trees differ.
///
/// # Errors
/// If something cannot be read.
pub fn compare_trees_with(
    a: &Path,
    b: &Path,
    options: CompareOptions,
) -> io::Result<Vec<Difference>> {
    let mut comparison = Comparison { options, found: Vec::new(), links: Default::default() };
    let (root_a, root_b) = (fs::metadata(a)?, fs::metadata(b)?);
    if options.roots {
        comparison.metadata(Path::new("."), (a, &root_a), (b, &root_b))?;
    }
    comparison.directory(Path::new(""), a, b)?;
    if options.links {
        comparison.link_groups();
    }
    Ok(comparison.found)
}

/// Paths by the file that they name.
type LinkGroups = BTreeMap<(u64, u64), BTreeSet<PathBuf>>;

struct Comparison {
    options: CompareOptions,
    found: Vec<Difference>,
    links: [LinkGroups; 2],
}

impl Comparison {
    fn add(&mut self, path: &Path, what: impl Into<String>) {
        self.found.push(Difference { path: path.to_path_buf(), what: what.into() });
    }

    fn equal<T: PartialEq + fmt::Debug>(&mut self, path: &Path, what: &str, a: T, b: T) {
        if a != b {
            self.add(path, format!("{what} {a:?} against {b:?}"));
        }
    }

    fn directory(&mut self, path: &Path, a: &Path, b: &Path) -> io::Result<()> {
        let (names_a, names_b) = (names(a)?, names(b)?);
        for gone in names_a.difference(&names_b) {
            self.add(&path.join(gone), "only in the first tree");
        }
        for added in names_b.difference(&names_a) {
            self.add(&path.join(added), "only in the second tree");
        }
        for name in names_a.intersection(&names_b) {
            self.entry(&path.join(name), &a.join(name), &b.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, a: &Path, b: &Path) -> io::Result<()> {
        let (data_a, data_b) = (fs::symlink_metadata(a)?, fs::symlink_metadata(b)?);
        let (type_a, type_b) = (data_a.file_type(), data_b.file_type());
        if type_a != type_b {
            self.add(path, format!("{type_a:?} against {type_b:?}"));
            return Ok(());
        }
        self.metadata(path, (a, &data_a), (b, &data_b))?;
        if type_a.is_dir() {
            return self.directory(path, a, b);
        }
        if type_a.is_symlink() {
            self.equal(path, "link target", fs::read_link(a)?, fs::read_link(b)?);
        }
        if type_a.is_block_device() || type_a.is_char_device() {
            self.equal(path, "device number", data_a.rdev(), data_b.rdev());
        }
        if type_a.is_file() {
            self.content(path, a, b)?;
        }
        for (groups, data) in self.links.iter_mut().zip([&data_a, &data_b]) {
            if data.nlink() > 1 {
                let group = groups.entry((data.dev(), data.ino())).or_default();
                group.insert(path.to_path_buf());
            }
        }
        Ok(())
    }

    fn metadata(
        &mut self,
        path: &Path,
        a: (&Path, &Metadata),
        b: (&Path, &Metadata),
    ) -> io::Result<()> {
        if self.options.modes {
            let mode = |data: &Metadata| format!("{:o}", data.mode() & 0o7777);
            self.equal(path, "mode", mode(a.1), mode(b.1));
        }
        if self.options.owners {
            let owner = |data: &Metadata| (data.uid(), data.gid());
            self.equal(path, "owner", owner(a.1), owner(b.1));
        }
        if self.options.times {
            let mtime = |data: &Metadata| (data.mtime(), data.mtime_nsec());
            self.equal(path, "modification time", mtime(a.1), mtime(b.1));
        }
        if self.options.xattrs {
            self.equal(path, "extended attributes", xattrs(a.0)?, xattrs(b.0)?);
        }
        Ok(())
    }

    fn content(&mut self, path: &Path, a: &Path, b: &Path) -> io::Result<()> {
        let (mut file_a, mut file_b) = (File::open(a)?, File::open(b)?);
        let (len_a, len_b) = (file_a.metadata()?.len(), file_b.metadata()?.len());
        if len_a != len_b {
            self.add(path, format!("length {len_a} against {len_b}"));
            return Ok(());
        }
        if self.options.holes {
            self.equal(path, "data ranges", data_ranges(&file_a)?, data_ranges(&file_b)?);
        }
        rewind(&mut file_a)?;
        rewind(&mut file_b)?;
        let (mut piece_a, mut piece_b) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        let mut offset = 0u64;
        loop {
            let len = read_full(&mut file_a, &mut piece_a)?;
            let other = read_full(&mut file_b, &mut piece_b)?;
            if let Some(at) = (0..len.min(other)).find(|at| piece_a[*at] != piece_b[*at]) {
                self.add(path, format!("content differs from byte {}", offset + at as u64));
                return Ok(());
            }
            if len != other || len == 0 {
                return Ok(());
            }
            offset += len as u64;
        }
    }

    fn link_groups(&mut self) {
        let [a, b] = std::mem::take(&mut self.links).map(|groups| {
            // A group of one has its other names outside of the tree.
            let groups = groups.into_values().filter(|group| group.len() > 1);
            groups.collect::<BTreeSet<_>>()
        });
        for (only, which) in [(a.difference(&b), "first"), (b.difference(&a), "second")] {
            for group in only {
                let first = group.first().expect("more than one name");
                self.add(first, format!("only in the {which} tree one file: {group:?}"));
            }
        }
    }
}

fn names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for name in list_xattrs(path)? {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name.as_slice(), &mut value[..])?;
        value.truncate(len);
        all.insert(name, value);
    }
    Ok(all)
}

/// The ranges that are not holes; the whole file where the file system cannot tell.
fn data_ranges(file: &File) -> io::Result<Vec<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(ranges),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        ranges.push((start, end));
        at = end;
    }
}

fn rewind(file: &mut File) -> io::Result<()> {
    io::Seek::rewind(file)
}

/// Fills the buffer as far as the file goes.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            len => filled += len,
        }
    }
    Ok(filled)
}
