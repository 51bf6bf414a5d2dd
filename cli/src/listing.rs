//! How one entry of a snapshot looks in `ls` and `find`, and what JSON says about it.

use crate::json;
use crate::text;
use serde::Serialize;
use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use stillpoint_archive::{Entry, EntryKind, path};
use stillpoint_store::{Error, Result};

/// The key of a path that a user typed, in the snapshot's directory `base`; `/` and nothing are the root.
///
/// # Errors
/// `Invalid` for a path with `..`.
pub fn key(base: Option<&[u8]>, rest: &Path) -> Result<Vec<u8>> {
    let base = Path::new(std::ffi::OsStr::from_bytes(base.unwrap_or_default()));
    // A path in a snapshot is the same with and without its first slash.
    let rest = rest.strip_prefix("/").unwrap_or(rest);
    path::key_from_path(&Path::new("/").join(base).join(rest))
}

/// The path of a key, as bytes.
pub fn path_bytes(key: &[u8]) -> Vec<u8> {
    path::path_from_key(key).as_os_str().as_bytes().to_vec()
}

/// A message of our own output failed inside a visit; carries it through the library.
pub fn output_failed(error: std::io::Error) -> Error {
    Error::io("writing", "standard output", error)
}

/// One line: the path, with `long` also type, permissions, owner, size, time and where a link points.
pub fn line(key: &[u8], entry: &Entry, long: bool) -> String {
    let path = text::name(&path_bytes(key));
    if !long {
        return path;
    }
    let owner = |name: &[u8], id: u32| {
        if name.is_empty() { id.to_string() } else { text::name(name) }
    };
    let link = match &entry.kind {
        EntryKind::Symlink { target } => format!(" -> {}", text::name(target)),
        _ => String::new(),
    };
    let size = match &entry.kind {
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            format!("{major},{minor}")
        }
        _ => entry.size.to_string(),
    };
    format!(
        "{} {:<8} {:<8} {size:>12} {} {path}{link}",
        text::mode(letter(&entry.kind), entry.mode),
        owner(&entry.user, entry.uid),
        owner(&entry.group, entry.gid),
        text::time(entry.mtime),
    )
}

fn letter(kind: &EntryKind) -> char {
    match kind {
        EntryKind::File(_) => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
    }
}

fn type_name(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File(_) => "file",
        EntryKind::Directory => "dir",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice { .. } => "chardev",
        EntryKind::BlockDevice { .. } => "dev",
    }
}

/// An entry in JSON; the names are those that restic's users know.
#[derive(Debug, Serialize)]
pub struct Node<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: Cow<'a, str>,
    #[serde(flatten)]
    path: json::Path<'a>,
    mode: u32,
    permissions: String,
    uid: u32,
    gid: u32,
    user: Cow<'a, str>,
    group: Cow<'a, str>,
    size: u64,
    mtime: String,
    ctime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    btime: Option<String>,
    inode: u64,
    links: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u32; 2]>,
    xattrs: usize,
}

impl<'a> Node<'a> {
    /// The entry with this key, whose path is `path`.
    pub fn new(key: &'a [u8], path: &'a [u8], entry: &'a Entry) -> Self {
        let target = match &entry.kind {
            EntryKind::Symlink { target } => Some(json::lossless(target)),
            _ => None,
        };
        let (linktarget, linktarget_bytes) = target.unzip();
        let device = match entry.kind {
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                Some([major, minor])
            }
            _ => None,
        };
        Self {
            kind: type_name(&entry.kind),
            name: String::from_utf8_lossy(path::file_name(key)),
            path: json::Path::item(path),
            mode: entry.mode,
            permissions: text::mode(letter(&entry.kind), entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            user: String::from_utf8_lossy(&entry.user),
            group: String::from_utf8_lossy(&entry.group),
            size: entry.size,
            mtime: json::moment(entry.mtime),
            ctime: json::moment(entry.ctime),
            btime: entry.btime.map(json::moment),
            inode: entry.inode,
            links: entry.nlink,
            linktarget,
            linktarget_bytes: linktarget_bytes.flatten(),
            device,
            xattrs: entry.xattrs.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // However a path is typed, it names the same entry.
    #[test]
    fn typed_paths_become_keys() {
        let check = |base: Option<&[u8]>, rest: &str, expected: &[u8]| {
            assert_eq!(key(base, Path::new(rest)).unwrap(), expected);
        };
        check(None, "", b"");
        check(None, "/", b"");
        check(None, "/etc/fstab", b"etc\0fstab");
        check(None, "shop.sql", b"shop.sql");
        check(Some(b"/home/me"), "docs", b"home\0me\0docs");
        check(Some(b"/home/me"), "/docs", b"home\0me\0docs");
        check(Some(b"home/me/"), "", b"home\0me");
        assert!(key(None, Path::new("/a/../b")).is_err());
    }
}
