//! Removing a tree without following links, whatever its depth.

use super::dir::Dir;
use rustix::io::Errno;

/// Directories held open at once; what lies deeper is first renamed to the top of the tree that goes.
const DEPTH_MAX: usize = 64;

/// A directory on its way out.
struct Level {
    dir: Dir,
    name: Vec<u8>,
    names: Vec<Vec<u8>>,
}

impl Dir {
    /// Removes what stands under a name with everything below; gives the number of names removed. Removing what is
    /// not there succeeds.
    ///
    /// # Errors
    /// `EXDEV` where another file system is mounted inside: it is not emptied. Else what the kernel says.
    pub fn remove_tree(&self, name: &[u8]) -> rustix::io::Result<u64> {
        match self.unlink(name) {
            Err(Errno::ISDIR) => {}
            other => return other.map(|()| 1),
        }
        let device = rustix::fs::fstat(self.fd())?.st_dev;
        let mut removed = 0;
        let mut levels = vec![self.descend(name, device)?];
        while let Some(level) = levels.last_mut() {
            let Some(next) = level.names.pop() else {
                let name = levels.pop().map(|level| level.name).unwrap_or_default();
                let parent = levels.last().map_or(self, |level| &level.dir);
                parent.remove_dir(&name)?;
                removed += 1;
                continue;
            };
            match level.dir.unlink(&next) {
                Err(Errno::ISDIR) if levels.len() < DEPTH_MAX => {
                    let below = levels.last().expect("just seen").dir.descend(&next, device)?;
                    levels.push(below);
                }
                Err(Errno::ISDIR) => {
                    let moved = raise(&levels, &next)?;
                    levels.first_mut().expect("not empty").names.push(moved);
                }
                other => {
                    other?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn descend(&self, name: &[u8], device: u64) -> rustix::io::Result<Level> {
        if let Some(stat) = self.stat(name)? {
            self.make_accessible(name, &stat)?;
        }
        let dir = self.open_dir(name)?;
        if rustix::fs::fstat(dir.fd())?.st_dev != device {
            return Err(Errno::XDEV);
        }
        let names = dir.names()?;
        Ok(Level { dir, name: name.to_vec(), names })
    }
}

/// Moves a directory from the deepest level to the first one; gives its new name there.
fn raise(levels: &[Level], name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let (first, last) = (levels.first().ok_or(Errno::INVAL)?, levels.last().ok_or(Errno::INVAL)?);
    let (moved, ()) = first.dir.with_temporary(|free| {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(last.dir.fd(), name, first.dir.fd(), free, flags)
    })?;
    Ok(moved)
}
