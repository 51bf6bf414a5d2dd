//! Compares a restored tree with its original, byte for byte.

use crate::{At, Failure, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What a comparison found beyond what fails the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Differences {
    /// Entries whose modification time differs.
    pub times: u64,
    /// Entries whose owner or group differs.
    pub owners: u64,
}

/// Compares names, kinds, modes, link targets and contents; counts what differs in times and owners, because not
/// every tool keeps those in full.
///
/// # Errors
/// The first difference in names, kinds, modes, link targets or contents.
pub fn same_tree(original: &Path, restored: &Path) -> Result<Differences> {
    let mut found = Differences::default();
    compare(original, restored, &mut found)?;
    Ok(found)
}

/// Compares two files' contents.
///
/// # Errors
/// The files differ, or one cannot be read.
pub fn same_file(original: &Path, restored: &Path) -> Result<()> {
    let mut left = File::open(original).at(original)?;
    let mut right = File::open(restored).at(restored)?;
    let (mut a, mut b) = (vec![0; 1 << 17], vec![0; 1 << 17]);
    loop {
        let got = left.read(&mut a).at(original)?;
        if right.read_exact(&mut b[..got]).is_err() || a[..got] != b[..got] {
            return differ(original, restored, "content");
        }
        if got == 0 {
            let more = right.read(&mut b).at(restored)?;
            return if more == 0 { Ok(()) } else { differ(original, restored, "length") };
        }
    }
}

fn differ<T>(original: &Path, restored: &Path, what: &str) -> Result<T> {
    Err(Failure::Other(format!(
        "{} and {} differ in {what}",
        original.display(),
        restored.display()
    )))
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "directory"
    } else if kind.is_file() {
        "file"
    } else if kind.is_symlink() {
        "symlink"
    } else if kind.is_fifo() {
        "fifo"
    } else {
        "other"
    }
}

fn compare(original: &Path, restored: &Path, found: &mut Differences) -> Result<()> {
    let left = fs::symlink_metadata(original).at(original)?;
    let right = fs::symlink_metadata(restored).at(restored)?;
    if kind(&left) != kind(&right) {
        return differ(original, restored, "kind");
    }
    if left.mode() != right.mode() {
        return differ(original, restored, "mode");
    }
    found.times +=
        u64::from((left.mtime(), left.mtime_nsec()) != (right.mtime(), right.mtime_nsec()));
    found.owners += u64::from((left.uid(), left.gid()) != (right.uid(), right.gid()));
    match kind(&left) {
        "directory" => directories(original, restored, found),
        "file" => same_file(original, restored),
        "symlink"
            if fs::read_link(original).at(original)? != fs::read_link(restored).at(restored)? =>
        {
            differ(original, restored, "link target")
        }
        _ => Ok(()),
    }
}

fn directories(original: &Path, restored: &Path, found: &mut Differences) -> Result<()> {
    let (left, right) = (names(original)?, names(restored)?);
    if left != right {
        return differ(original, restored, "names");
    }
    for name in &left {
        compare(&original.join(name), &restored.join(name), found)?;
    }
    Ok(())
}

fn names(directory: &Path) -> Result<BTreeSet<OsString>> {
    let entries = fs::read_dir(directory).at(directory)?;
    entries.map(|entry| Ok(entry.at(directory)?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy is the same; one flipped byte, one name more or another mode is not.
    #[test]
    fn finds_each_kind_of_difference() {
        let base = tempfile::tempdir().unwrap();
        let (a, b) = (base.path().join("a"), base.path().join("b"));
        let check = |change: &dyn Fn(&Path), expected: bool| {
            for side in [&a, &b] {
                fs::create_dir_all(side.join("d")).unwrap();
                fs::write(side.join("d/f"), vec![7; 300_000]).unwrap();
                std::os::unix::fs::symlink("target", side.join("l")).unwrap();
            }
            change(&b);
            assert_eq!(same_tree(&a, &b).is_ok(), expected);
            fs::remove_dir_all(&a).unwrap();
            fs::remove_dir_all(&b).unwrap();
        };
        check(&|_| {}, true);
        check(&|b| fs::write(b.join("d/f"), vec![7; 299_999]).unwrap(), false);
        check(&|b| fs::write(b.join("d/f"), vec![7; 300_001]).unwrap(), false);
        check(
            &|b| {
                let mut bytes = vec![7; 300_000];
                bytes[299_998] = 8;
                fs::write(b.join("d/f"), bytes).unwrap();
            },
            false,
        );
        check(&|b| fs::write(b.join("more"), "").unwrap(), false);
        check(&|b| fs::remove_file(b.join("l")).unwrap(), false);
        let mode = |b: &Path| {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(b.join("d/f"), permissions).unwrap();
        };
        check(&mode, false);
    }
}
