//! Writing one file, or one directory as a tar archive, to a stream.
//!
//! Archives are POSIX (pax): long names, names and attributes of any bytes, large numbers and fractions of seconds stand
//! in extended headers, which GNU tar, bsdtar and Python read.

use crate::content::write_content;
use crate::entry::{Entry, EntryKind};
use crate::listing::{Depth, list, no_such_path};
use crate::observer::Problem;
use crate::path;
use std::collections::HashMap;
use std::io::Write;
use stillpoint_store::tree::{Root, Tree};
use stillpoint_store::{Error, Reader, Result};
use tar::{EntryType, Header};

/// Tar works in records of this many bytes.
const BLOCK_BYTES: u64 = 512;
/// Longest name, and longest link target, in the old header.
const SHORT_NAME_MAX: usize = 100;
/// Largest number of the seven octal digits that owners and devices have in the old header.
const SMALL_NUMBER_MAX: u32 = 0o777_7777;
/// Largest size and time of the eleven octal digits in the old header.
const LARGE_NUMBER_MAX: u64 = 0o777_7777_7777;

/// Writes the content of the file with this key, or the directory as a tar archive whose names are relative to it.
/// Gives what could not be written: a tar archive has no sockets.
///
/// # Errors
/// `Invalid` when the snapshot has no such path or it is neither file nor directory; `Io` when `out` fails;
/// `Damaged` or `Missing` when content cannot be read: the output then ends early and is not a whole archive.
pub fn dump(reader: &Reader, root: Root, key: &[u8], out: &mut dyn Write) -> Result<Vec<Problem>> {
    let tree = Tree::<crate::entry::ManifestSchema>::open(root, reader);
    let top = tree.get(key)?.map(|value| Entry::decode(&value)).transpose()?;
    match top.as_ref().map(|top| &top.kind) {
        Some(EntryKind::File(_)) => {
            write_content(reader, top.as_ref().ok_or_else(|| no_such_path(key))?, out)?;
            Ok(Vec::new())
        }
        Some(EntryKind::Directory) | None => {
            let mut archive =
                Archive { reader, out, base: key, links: HashMap::new(), problems: Vec::new() };
            list(reader, root, key, Depth::All, &mut |key, entry| archive.entry(key, entry))?;
            archive.end()?;
            Ok(archive.problems)
        }
        Some(_) => {
            let path = path::path_from_key(key);
            Err(Error::Invalid(format!("{} is neither a file nor a directory", path.display())))
        }
    }
}

struct Archive<'a> {
    reader: &'a Reader,
    out: &'a mut dyn Write,
    base: &'a [u8],
    /// First name of each hard-linked file.
    links: HashMap<(u64, u64), Vec<u8>>,
    problems: Vec<Problem>,
}

/// What becomes the extended header of one entry.
#[derive(Default)]
struct Extended(Vec<u8>);

impl Extended {
    /// Appends `LENGTH KEY=VALUE\n`, where the length counts itself.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut total = rest + 1;
        while total.to_string().len() + rest != total {
            total = total.to_string().len() + rest;
        }
        self.0.extend_from_slice(format!("{total} ").as_bytes());
        for part in [key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }
}

impl Archive<'_> {
    fn entry(&mut self, key: &[u8], entry: &Entry) -> Result<()> {
        let start = if self.base.is_empty() { 0 } else { self.base.len() + 1 };
        let below = key.get(start..).unwrap_or_default();
        let mut name: Vec<u8> =
            below.iter().map(|b| if *b == path::SEPARATOR { b'/' } else { *b }).collect();
        if matches!(entry.kind, EntryKind::Socket) {
            let what = "a tar archive cannot hold a socket".to_owned();
            self.problems.push(Problem { path: path::path_from_key(key), what });
            return Ok(());
        }
        let first = entry.link_id().and_then(|id| match self.links.get(&id) {
            Some(first) => Some(first.clone()),
            None => {
                self.links.insert(id, name.clone());
                None
            }
        });
        let (kind, link) = match (&first, &entry.kind) {
            (Some(first), _) => (EntryType::Link, first.as_slice()),
            (None, EntryKind::Directory) => {
                name.push(b'/');
                (EntryType::Directory, &[][..])
            }
            (None, EntryKind::Symlink { target }) => (EntryType::Symlink, target.as_slice()),
            (None, EntryKind::Fifo) => (EntryType::Fifo, &[][..]),
            (None, EntryKind::CharDevice { .. }) => (EntryType::Char, &[][..]),
            (None, EntryKind::BlockDevice { .. }) => (EntryType::Block, &[][..]),
            (None, _) => (EntryType::Regular, &[][..]),
        };
        let size = if kind == EntryType::Regular { entry.size } else { 0 };
        self.header(&name, link, kind, size, entry)?;
        if kind == EntryType::Regular {
            write_content(self.reader, entry, self.out)?;
            self.pad(size)?;
        }
        Ok(())
    }

    fn header(
        &mut self,
        name: &[u8],
        link: &[u8],
        kind: EntryType,
        size: u64,
        entry: &Entry,
    ) -> Result<()> {
        let mut header = Header::new_ustar();
        let mut extended = Extended::default();
        let text = [name, link, &entry.user, &entry.group];
        if text.iter().any(|bytes| std::str::from_utf8(bytes).is_err()) {
            extended.add(b"hdrcharset", b"BINARY");
        }
        header.set_entry_type(kind);
        header.set_mode(entry.mode);
        set_name(&mut header, name, link, &mut extended);
        set_owner(&mut header, entry, &mut extended);
        header.set_size(if size <= LARGE_NUMBER_MAX { size } else { 0 });
        if size > LARGE_NUMBER_MAX {
            extended.add(b"size", size.to_string().as_bytes());
        }
        let seconds = u64::try_from(entry.mtime.seconds).ok().filter(|s| *s <= LARGE_NUMBER_MAX);
        header.set_mtime(seconds.unwrap_or(0));
        if seconds.is_none() || entry.mtime.nanos != 0 {
            extended.add(b"mtime", decimal_seconds(entry.mtime.as_nanos()).as_bytes());
        }
        if let EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } =
            entry.kind
        {
            set_device(&mut header, major, minor, &mut extended)?;
        }
        for (name, value) in &entry.xattrs {
            extended.add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        self.extended_header(&extended)?;
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn extended_header(&mut self, extended: &Extended) -> Result<()> {
        if extended.0.is_empty() {
            return Ok(());
        }
        let size = u64::try_from(extended.0.len()).expect("a usize fits into 64 bits");
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(size);
        put(&mut header.as_ustar_mut().expect("made as ustar").name, b"pax");
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(&extended.0)?;
        self.pad(size)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| Error::io("writing", "output", error))
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % BLOCK_BYTES).expect("below 512");
        if over == 0 { Ok(()) } else { self.write(&vec![0; 512 - over]) }
    }

    fn end(&mut self) -> Result<()> {
        self.write(&[0; 1024])?;
        self.out.flush().map_err(|error| Error::io("writing", "output", error))
    }
}

/// Copies as much of `bytes` as fits.
fn put(field: &mut [u8], bytes: &[u8]) {
    field.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
}

fn set_name(header: &mut Header, name: &[u8], link: &[u8], extended: &mut Extended) {
    let fields = header.as_ustar_mut().expect("made as ustar");
    put(&mut fields.name, name);
    put(&mut fields.linkname, link);
    if name.len() > SHORT_NAME_MAX || std::str::from_utf8(name).is_err() {
        extended.add(b"path", name);
    }
    if link.len() > SHORT_NAME_MAX || std::str::from_utf8(link).is_err() {
        extended.add(b"linkpath", link);
    }
}

fn set_owner(header: &mut Header, entry: &Entry, extended: &mut Extended) {
    header.set_uid(u64::from(entry.uid.min(SMALL_NUMBER_MAX)));
    header.set_gid(u64::from(entry.gid.min(SMALL_NUMBER_MAX)));
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if id > SMALL_NUMBER_MAX {
            extended.add(key, id.to_string().as_bytes());
        }
    }
    let fields = header.as_ustar_mut().expect("made as ustar");
    put(&mut fields.uname, &entry.user);
    put(&mut fields.gname, &entry.group);
    for (key, name) in [(b"uname", &entry.user), (b"gname", &entry.group)] {
        if name.len() > 31 || !name.is_ascii() {
            extended.add(key, name);
        }
    }
}

fn set_device(header: &mut Header, major: u32, minor: u32, extended: &mut Extended) -> Result<()> {
    let wrong = |error| Error::io("writing", "tar header", error);
    header.set_device_major(major.min(SMALL_NUMBER_MAX)).map_err(wrong)?;
    header.set_device_minor(minor.min(SMALL_NUMBER_MAX)).map_err(wrong)?;
    for (key, number) in [(&b"SCHILY.devmajor"[..], major), (b"SCHILY.devminor", minor)] {
        if number > SMALL_NUMBER_MAX {
            extended.add(key, number.to_string().as_bytes());
        }
    }
    Ok(())
}

/// Nanoseconds as decimal seconds, such as `-1.5`.
fn decimal_seconds(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let (seconds, fraction) = (magnitude / 1_000_000_000, magnitude % 1_000_000_000);
    let text = format!("{sign}{seconds}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_records_count_themselves() {
        // At 9/10 and 99/100 bytes the length grows by a digit, which counts as well.
        for length in 0..300 {
            let mut extended = Extended::default();
            extended.add(b"k", &vec![b'v'; length]);
            let text = String::from_utf8(extended.0.clone()).unwrap();
            let (number, _) = text.split_once(' ').unwrap();
            assert_eq!(number.parse::<usize>().unwrap(), extended.0.len());
        }
    }

    #[test]
    fn seconds_in_decimals() {
        for (nanos, text) in
            [(0, "0"), (1, "0.000000001"), (-1_500_000_000, "-1.5"), (10_000_000_000, "10")]
        {
            assert_eq!(decimal_seconds(nanos), text);
        }
    }
}
