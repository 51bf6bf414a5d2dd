//! A day's work on a tree: edits in place, new, deleted and renamed entries, small edits scattered over the big file.

use super::files::{regular_files, sorted};
use crate::random::Random;
use crate::{At, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What changes.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// The seed, so that two mutations of one tree differ.
    pub seed: u64,
    /// Small edits scattered over the big file.
    pub scattered_edits: u64,
    /// One file in this many is edited in place (0: none).
    pub edit_one_in: u64,
    /// Whether there are new, deleted and renamed entries as well.
    pub moves: bool,
}

/// Longest file that is edited in place, in bytes.
const EDITED_BYTES_MAX: u64 = 4 << 20;

/// Changes the tree in place.
pub fn mutate(tree: &Path, mutation: Mutation) -> Result<()> {
    let mut random = Random::seeded(mutation.seed);
    let big = tree.join("machine.bin");
    if big.exists() {
        scatter(&big, mutation.scattered_edits, &mut random)?;
    }
    let mut files = Vec::new();
    regular_files(tree, &mut files)?;
    files.retain(|path| *path != big && !path.components().any(|part| part.as_os_str() == ".git"));
    if mutation.edit_one_in > 0 {
        edit(&files, mutation.edit_one_in, &mut random)?;
    }
    if mutation.moves {
        moves(tree, &files, &mut random)?;
    }
    Ok(())
}

/// Overwrites 16 to 200 bytes at random places.
fn scatter(path: &Path, edits: u64, random: &mut Random) -> Result<()> {
    let file = File::options().write(true).open(path).at(path)?;
    let len = file.metadata().at(path)?.len();
    for _ in 0..edits {
        let mut bytes = vec![0; usize::try_from(16 + random.below(184)).expect("short")];
        random.fill(&mut bytes);
        file.write_all_at(&bytes, random.below(len - 200)).at(path)?;
    }
    Ok(())
}

/// Half of the edits overwrite bytes, half insert a line.
fn edit(files: &[PathBuf], one_in: u64, random: &mut Random) -> Result<()> {
    for path in files {
        let len = fs::metadata(path).at(path)?.len();
        if random.below(one_in) != 0 || len > EDITED_BYTES_MAX {
            continue;
        }
        let mut bytes = fs::read(path).at(path)?;
        let line = random.line();
        let at = usize::try_from(random.below(len + 1)).expect("a small file");
        let replaced = if random.below(2) == 0 { bytes.len().min(at + 20) } else { at };
        bytes.splice(at..replaced, line.bytes());
        fs::write(path, bytes).at(path)?;
    }
    Ok(())
}

/// One file in 500 is deleted, one in 200 gets a new neighbour, up to four directories are renamed.
fn moves(tree: &Path, files: &[PathBuf], random: &mut Random) -> Result<()> {
    for path in files {
        if random.below(500) == 0 {
            fs::remove_file(path).at(path)?;
        }
        if random.below(200) == 0 {
            let text: String = (0..1 + random.below(200)).map(|_| random.line()).collect();
            let new = path.with_extension(format!("new{}", random.below(1000)));
            fs::write(&new, text).at(&new)?;
        }
    }
    for group in sorted(&tree.join("sources")).unwrap_or_default().into_iter().take(4) {
        let directories: Vec<_> =
            sorted(&group)?.into_iter().filter(|path| path.is_dir()).collect();
        if let Some(chosen) = directories.get(directories.len() / 2) {
            fs::rename(chosen, chosen.with_extension("renamed")).at(chosen)?;
        }
    }
    Ok(())
}
