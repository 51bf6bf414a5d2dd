//! Copying, listing and removing files for corpora.

use crate::{At, Result};
use std::fs::{self, File, FileTimes, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How much may still be copied.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Files left.
    pub files: u64,
    /// Bytes left.
    pub bytes: u64,
}

/// A directory's entries in byte order of their names.
pub fn sorted(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).at(directory)? {
        paths.push(entry.at(directory)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Copies directories, files and symlinks with modes and times, in order of names, until the budget is spent.
/// Unreadable and special files are left out.
pub fn copy_tree(from: &Path, to: &Path, budget: &mut Budget) -> Result<()> {
    fs::create_dir_all(to).at(to)?;
    for path in sorted(from)? {
        let target = to.join(path.file_name().expect("an entry has a name"));
        let metadata = fs::symlink_metadata(&path).at(&path)?;
        if metadata.is_dir() {
            copy_tree(&path, &target, budget)?;
        } else if metadata.is_symlink() {
            let link = fs::read_link(&path).at(&path)?;
            std::os::unix::fs::symlink(link, &target).at(&target)?;
        } else if metadata.is_file() && budget.files > 0 && metadata.len() <= budget.bytes {
            budget.files -= 1;
            budget.bytes -= metadata.len();
            fs::copy(&path, &target).at(&target)?;
            set_time(&target, &metadata)?;
        }
        if budget.files == 0 {
            break;
        }
    }
    Ok(())
}

fn set_time(target: &Path, metadata: &Metadata) -> Result<()> {
    let modified = metadata.modified().at(target)?;
    let file = File::options().append(true).open(target).at(target)?;
    file.set_times(FileTimes::new().set_modified(modified)).at(target)
}

/// Every regular file below a directory, in order.
pub fn regular_files(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in sorted(directory)? {
        let metadata = fs::symlink_metadata(&path).at(&path)?;
        if metadata.is_dir() {
            regular_files(&path, found)?;
        } else if metadata.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// Files and their bytes below a path; a file with several names counts once per name.
pub fn tree_bytes(path: &Path) -> Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).at(path)?;
    if !metadata.is_dir() {
        return Ok((1, metadata.size()));
    }
    let mut sum = (0, 0);
    for entry in fs::read_dir(path).at(path)? {
        let below = tree_bytes(&entry.at(path)?.path())?;
        sum = (sum.0 + below.0, sum.1 + below.1);
    }
    Ok(sum)
}

/// Removes a tree if there is one.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(path),
        _ => Ok(()),
    }
}
