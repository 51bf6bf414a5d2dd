//! The home-like tree: real sources and packages, a git repository, noise, one big file; and the tree of tiny files.

use super::files::{Budget, copy_tree, sorted};
use super::{Place, Scale};
use crate::measure::{Invocation, run_all};
use crate::random::Random;
use crate::{At, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Makes the home-like tree if it is not there yet, and gives its folder.
pub fn home(place: &Place, scale: &Scale) -> Result<PathBuf> {
    once(&place.corpus(scale, "home"), |making| {
        let mut budget = Budget { files: scale.home_files, bytes: scale.home_bytes };
        for (number, source) in place.sources.iter().enumerate() {
            if source.is_dir() {
                copy_tree(source, &making.join(format!("sources/{number:02}")), &mut budget)?;
            }
        }
        packages(place, scale, &making.join("packages"))?;
        repository(&making.join("sources"), &making.join("project"))?;
        noise(scale, &making.join("photos"))?;
        big(scale, &making.join("machine.bin"))
    })
}

/// Makes the tree of tiny files (10 to 200 bytes, a thousand a directory) if it is not there yet.
pub fn tiny(place: &Place, scale: &Scale) -> Result<PathBuf> {
    once(&place.corpus(scale, "tiny"), |making| {
        let mut random = Random::seeded(11);
        for number in 0..scale.tiny_files {
            let directory =
                making.join(format!("{:02}/{:03}", number / 100_000, number / 1000 % 100));
            if number % 1000 == 0 {
                fs::create_dir_all(&directory).at(&directory)?;
            }
            let mut text = random.line();
            text.push_str(&random.line());
            let len = usize::try_from(10 + random.below(text.len() as u64 - 10)).expect("short");
            let path = directory.join(format!("{number:07}.txt"));
            fs::write(&path, &text.as_bytes()[..len]).at(&path)?;
        }
        Ok(())
    })
}

/// Makes a folder under a temporary name and renames it when it is whole.
pub(super) fn once(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if !folder.exists() {
        let making = folder.with_extension("making");
        super::remove(&making)?;
        fs::create_dir_all(&making).at(&making)?;
        make(&making)?;
        fs::rename(&making, folder).at(folder)?;
    }
    Ok(folder.to_path_buf())
}

/// Packages: at most a tenth of the tree's bytes.
fn packages(place: &Place, scale: &Scale, to: &Path) -> Result<()> {
    let mut budget = Budget { files: scale.home_files / 50, bytes: scale.home_bytes / 10 };
    for (number, folder) in place.packages.iter().enumerate() {
        if folder.is_dir() {
            copy_tree(folder, &to.join(format!("{number:02}")), &mut budget)?;
        }
    }
    Ok(())
}

/// A git repository whose objects stand in one pack: the first source folder's parts, committed one after the other.
fn repository(sources: &Path, to: &Path) -> Result<()> {
    let Some(first) = sources
        .is_dir()
        .then(|| sorted(sources))
        .transpose()?
        .and_then(|all| all.into_iter().next())
    else {
        return Ok(());
    };
    let mut budget = Budget { files: 4000, bytes: 60 << 20 };
    copy_tree(&first, to, &mut budget)?;
    let git = |args: &[&str]| {
        let fixed = [
            "-C",
            to.to_str().expect("a path in UTF-8"),
            "-c",
            "user.name=home",
            "-c",
            "user.email=home@localhost",
        ];
        Invocation::new("git").args(fixed.iter().chain(args).copied())
    };
    let commands = [
        git(&["init", "-q"]),
        git(&["add", "-A", "-f"]),
        git(&["commit", "-q", "-m", "everything"]),
        git(&["gc", "-q"]),
    ];
    run_all(&commands, &to.with_extension("log")).map(drop)
}

/// Incompressible files of 1 to 8 MiB.
fn noise(scale: &Scale, to: &Path) -> Result<()> {
    let mut random = Random::seeded(7);
    let mut left = scale.noise_bytes;
    fs::create_dir_all(to).at(to)?;
    for number in 0_u32.. {
        if left == 0 {
            break;
        }
        let len = left.min((1 << 20) + random.below(7 << 20));
        let path = to.join(format!("{number:04}.raw"));
        random.write_noise(&mut File::create(&path).at(&path)?, len).at(&path)?;
        left -= len;
    }
    Ok(())
}

/// One big file: blocks of records with noise between them, about half of it compressible.
fn big(scale: &Scale, path: &Path) -> Result<()> {
    let mut random = Random::seeded(3);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).at(path)?);
    let mut left = scale.big_bytes;
    while left > 0 {
        let len = left.min(4096);
        if random.below(2) == 0 {
            random.write_noise(&mut out, len).at(path)?;
        } else {
            let mut page = String::new();
            while (page.len() as u64) < len {
                page.push_str(&random.line());
            }
            out.write_all(&page.as_bytes()[..usize::try_from(len).expect("a page")]).at(path)?;
        }
        left -= len;
    }
    out.flush().at(path)
}
