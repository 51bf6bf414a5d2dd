//! What a restore refuses before it touches anything: what would delete or replace more than was saved.
//!
//! Decides on the snapshot's record, its manifest and a look at the target; changes nothing.

use crate::failure::Problem;
use crate::text;
use anyhow::Result;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use stillpoint_archive::{Entry, ManifestSchema, path};
use stillpoint_store::tree::Tree;
use stillpoint_store::{Reader, Snapshot};

/// A restore that somebody asked for.
pub struct Request<'a> {
    /// The snapshot, and how it was named.
    pub snapshot: &'a Snapshot,
    /// The name of the snapshot on the command line.
    pub spec: &'a str,
    /// Key of what is restored.
    pub subtree: &'a [u8],
    /// The directory to restore into.
    pub target: &'a Path,
    /// Whether what the snapshot does not have is removed.
    pub delete: bool,
    /// Patterns of what is left out.
    pub exclude: &'a [String],
    /// The directory of the repository.
    pub repository: &'a Path,
}

impl Request<'_> {
    /// Refuses what would reach beyond what was saved.
    ///
    /// # Errors
    /// A [`Problem`] that names what to do instead; what the repository gives.
    pub fn check(&self, reader: &Reader) -> Result<()> {
        self.spares_the_repository(reader)?;
        if self.delete {
            self.deletes_only_what_was_saved(reader)?;
        }
        self.keeps_links_above()
    }

    /// Deletion is for what was saved as a whole: of the directories above it only the way to it is known, so
    /// everything else in them would count as gone.
    fn deletes_only_what_was_saved(&self, reader: &Reader) -> Result<()> {
        if !self.saved().any(|root| path::is_within(self.subtree, &root)) {
            let asked = shown(self.subtree);
            return Err(Problem::usage(
                format!(
                    "--delete would remove what was never saved: of {asked} the snapshot holds only a part"
                ),
                self.narrower(),
            ));
        }
        let tree = Tree::<ManifestSchema>::open(self.snapshot.record.root, reader);
        let top = tree.get(self.subtree)?.map(|value| Entry::decode(&value)).transpose()?;
        if top.is_some_and(|top| !top.is_directory()) {
            return Err(Problem::usage(
                format!("--delete goes with directories, and {} is none", shown(self.subtree)),
                "leave out --delete: everything else in the target would be removed",
            ));
        }
        Ok(())
    }

    /// A directory above a saved path would take the place of a link or file of the same name.
    fn keeps_links_above(&self) -> Result<()> {
        for root in self.saved().filter(|root| path::is_within(root, self.subtree)) {
            let mut above = path::parent_key(&root);
            while let Some(key) = above.filter(|key| key.len() > self.subtree.len()) {
                let place = self.target.join(relative(key, self.subtree));
                if std::fs::symlink_metadata(&place).is_ok_and(|found| !found.is_dir()) {
                    let place = text::safe(&place.to_string_lossy());
                    return Err(Problem::failed(
                        format!(
                            "{place} is no directory but perhaps a link to one: restoring would replace it"
                        ),
                        self.narrower(),
                    ));
                }
                above = path::parent_key(key);
            }
        }
        Ok(())
    }

    /// The repository that is read must not be written to or deleted from.
    fn spares_the_repository(&self, reader: &Reader) -> Result<()> {
        let (repository, target) = (real(self.repository), real(self.target));
        if target.starts_with(&repository) {
            return Err(Problem::usage(
                "the target lies inside the repository",
                "choose a --target outside of it: its files must not be touched",
            ));
        }
        let Ok(inside) = repository.strip_prefix(&target) else { return Ok(()) };
        let place = text::safe(&repository.to_string_lossy());
        if self.delete {
            return Err(Problem::usage(
                format!("the target holds the repository {place}: --delete could remove it"),
                "leave out --delete, or choose a --target that does not hold the repository",
            ));
        }
        let mut key = self.subtree.to_vec();
        for name in inside {
            path::push_name(&mut key, name.as_bytes());
        }
        let tree = Tree::<ManifestSchema>::open(self.snapshot.record.root, reader);
        if tree.get(&key)?.is_none() || self.leaves_out(inside) {
            return Ok(());
        }
        Err(Problem::usage(
            format!(
                "the snapshot holds an old state of the repository {place} and would write it there"
            ),
            format!("add --exclude '/{}', or choose another --target", inside.display()),
        ))
    }

    /// True when a pattern names this path or a directory above it, and no other one takes it in again.
    fn leaves_out(&self, inside: &Path) -> bool {
        let named = |pattern: &String| {
            let plain = pattern.strip_prefix('/').map(|rest| rest.trim_end_matches('/'));
            plain.is_some_and(|plain| !plain.is_empty() && inside.starts_with(plain))
        };
        !self.exclude.iter().any(|pattern| pattern.starts_with('!'))
            && self.exclude.iter().any(named)
    }

    /// The keys of the saved paths; names of streams count from the root.
    fn saved(&self) -> impl Iterator<Item = Vec<u8>> {
        let paths = self.snapshot.record.paths.iter();
        paths.filter_map(|saved| {
            let saved = Path::new(OsStr::from_bytes(saved));
            path::key_from_path(&Path::new("/").join(saved)).ok()
        })
    }

    /// How to ask for the same without what is above the saved paths.
    fn narrower(&self) -> String {
        let below = self.saved().find(|root| path::is_within(root, self.subtree));
        match below {
            Some(root) => format!(
                "restore each saved path into its own place, for instance `stillpoint restore {}:{} --target {}{}`",
                self.spec,
                shown(&root),
                text::safe(&self.target.join(relative(&root, self.subtree)).to_string_lossy()),
                if self.delete { " --delete" } else { "" },
            ),
            None => {
                "name one of the paths that `stillpoint snapshots` shows, as SNAPSHOT:/PATH".into()
            }
        }
    }
}

fn shown(key: &[u8]) -> String {
    text::name(path::path_from_key(key).as_os_str().as_bytes())
}

/// The path of a key, counted from a directory above it.
fn relative(key: &[u8], above: &[u8]) -> PathBuf {
    let names = path::components(key).skip(path::components(above).count());
    names.map(OsStr::from_bytes).collect()
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(found) = path.canonicalize() {
        return found;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        (Some(parent), None) => real(parent),
        _ => path,
    }
}
