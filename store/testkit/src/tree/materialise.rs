//! Writes a described tree to disk.

use super::{SpecKind, SpecMeta, SpecNode, SpecPath, TreeSpec, join};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use stillpoint_store::Timestamp;

impl TreeSpec {
    /// Writes the tree into `dir`, which must be there and hold none of its names. The directory's own metadata is left
    /// alone, but for its times.
    ///
    /// # Errors
    /// What the file system refuses; `Unsupported` where it has no extended attributes.
    pub fn materialise(&self, dir: &Path) -> io::Result<()> {
        TreeSpec::default().become_on_disk(self, dir)
    }

    /// Turns `dir`, which holds `self`, into `new`, touching only what differs: so equal entries keep inode and times.
    ///
    /// # Errors
    /// As [`Self::materialise`].
    pub fn become_on_disk(&self, new: &Self, dir: &Path) -> io::Result<()> {
        let mut touched = BTreeSet::new();
        self.remove_differing(new, dir, &mut touched)?;
        // In order of paths, so parents come first; hard links last, when all their targets are there.
        let fresh = |path: &SpecPath| touched.contains(path) || !self.nodes.contains_key(path);
        let to_create: Vec<_> = new.nodes.iter().filter(|(path, _)| fresh(path)).collect();
        for links in [false, true] {
            for (path, node) in &to_create {
                if matches!(node.kind, SpecKind::HardLink(_)) == links {
                    create(dir, path, node)?;
                }
            }
        }
        let mut changed: BTreeSet<SpecPath> = touched;
        changed.extend(to_create.iter().map(|(path, _)| (*path).clone()));
        let differs = |(path, node): &(&SpecPath, &SpecNode)| self.nodes.get(*path) != Some(*node);
        changed.extend(new.nodes.iter().filter(differs).map(|(path, _)| path.clone()));
        let parents: Vec<SpecPath> = changed
            .iter()
            .filter_map(|path| path.split_last().map(|(_, parent)| parent.to_vec()))
            .collect();
        changed.extend(parents);
        // Deepest first, because creating an entry changes its directory's times.
        for path in changed.iter().rev() {
            if let Some(node) = new.nodes.get(path) {
                set_metadata(&join(dir, path), node)?;
            }
        }
        Ok(())
    }

    /// Removes what is gone or must be made anew, and notes the removed paths. A file whose content alone differs is
    /// rewritten in place, and a hard link whose target is made anew is made anew as well.
    fn remove_differing(
        &self,
        new: &Self,
        dir: &Path,
        touched: &mut BTreeSet<SpecPath>,
    ) -> io::Result<()> {
        for (path, node) in self.nodes.iter().rev() {
            let place = join(dir, path);
            match (&node.kind, new.nodes.get(path).map(|node| &node.kind)) {
                (SpecKind::File(old), Some(SpecKind::File(now))) if old != now => {
                    fs::set_permissions(&place, fs::Permissions::from_mode(0o600))?;
                    let file = File::options().write(true).truncate(true).open(&place)?;
                    now.write_to(&file)?;
                }
                (old, Some(now)) if old == now => {
                    if let SpecKind::HardLink(to) = now
                        && !matches!(
                            self.nodes.get(to).map(|node| &node.kind),
                            Some(SpecKind::File(_))
                        )
                    {
                        fs::remove_file(&place)?;
                        touched.insert(path.clone());
                    }
                }
                (SpecKind::File(_), Some(SpecKind::File(_))) => {}
                (SpecKind::Directory, _) => {
                    fs::remove_dir(&place)?;
                    touched.insert(path.clone());
                }
                _ => {
                    fs::remove_file(&place)?;
                    touched.insert(path.clone());
                }
            }
        }
        Ok(())
    }
}

fn create(dir: &Path, path: &SpecPath, node: &SpecNode) -> io::Result<()> {
    let place = join(dir, path);
    match &node.kind {
        SpecKind::Directory => fs::create_dir(&place),
        SpecKind::File(content) => content.write_to(&File::create_new(&place)?),
        SpecKind::Symlink(target) => Ok(rustix::fs::symlink(target.as_slice(), &place)?),
        SpecKind::HardLink(to) => fs::hard_link(join(dir, to), &place),
        SpecKind::Fifo => {
            Ok(rustix::fs::mknodat(CWD, &place, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?)
        }
    }
}

/// Owner, then attributes, then mode, then times: each later step survives the earlier ones.
fn set_metadata(place: &Path, node: &SpecNode) -> io::Result<()> {
    let SpecMeta { mode, mtime, owner, xattrs } = &node.meta;
    if matches!(node.kind, SpecKind::HardLink(_)) {
        return Ok(());
    }
    let found = fs::symlink_metadata(place)?;
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (user, group) = owner.unwrap_or(own);
    if (found.uid(), found.gid()) != (user, group) {
        std::os::unix::fs::lchown(place, Some(user), Some(group))?;
    }
    if matches!(node.kind, SpecKind::File(_) | SpecKind::Directory) {
        for name in list_xattrs(place)? {
            if name.starts_with(b"user.") && !xattrs.contains_key(&name) {
                rustix::fs::lremovexattr(place, name.as_slice())?;
            }
        }
        for (name, value) in xattrs {
            rustix::fs::lsetxattr(place, name.as_slice(), value, XattrFlags::empty())?;
        }
    }
    if !matches!(node.kind, SpecKind::Symlink(_)) {
        fs::set_permissions(place, fs::Permissions::from_mode(*mode))?;
    }
    set_mtime(place, *mtime)
}

fn set_mtime(place: &Path, mtime: Timestamp) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
    };
    Ok(rustix::fs::utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Names of the extended attributes; none where the file system has no such thing.
pub(super) fn list_xattrs(place: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0u8; 64 << 10];
    match rustix::fs::llistxattr(place, &mut buffer[..]) {
        Ok(len) => {
            let names = buffer[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
            Ok(names.map(<[u8]>::to_vec).collect())
        }
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
