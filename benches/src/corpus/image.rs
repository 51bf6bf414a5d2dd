//! A disk image: an ext4 file system filled with real files, and its next version.

use super::files::{Budget, copy_tree};
use super::home::once;
use super::{Place, Scale};
use crate::measure::{Invocation, run_all};
use crate::random::Random;
use crate::{At, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BLOCK_BYTES: u64 = 4096;

/// Makes a folder with one image (about half full) if it is not there yet.
pub fn image(place: &Place, scale: &Scale) -> Result<PathBuf> {
    once(&place.corpus(scale, "image"), |making| {
        let content = making.with_extension("content");
        super::remove(&content)?;
        let mut budget =
            Budget { files: scale.image_bytes / (32 << 10), bytes: scale.image_bytes / 2 };
        for (number, source) in
            place.sources.iter().enumerate().filter(|(_, source)| source.is_dir())
        {
            copy_tree(source, &content.join(number.to_string()), &mut budget)?;
        }
        let path = making.join("disk.img");
        File::create(&path).at(&path)?.set_len(scale.image_bytes).at(&path)?;
        let make = Invocation::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-d"])
            .args([&content, &path]);
        run_all(&[make], &making.with_extension("log"))?;
        fs::remove_dir_all(&content).at(&content)
    })
}

/// Turns the image into its next version: 500 scattered blocks and one run of 16 MiB are overwritten.
pub fn change_image(folder: &Path) -> Result<()> {
    let path = folder.join("disk.img");
    let file = File::options().write(true).open(&path).at(&path)?;
    let blocks = file.metadata().at(&path)?.len() / BLOCK_BYTES;
    let mut random = Random::seeded(5);
    let mut bytes = vec![0; usize::try_from(BLOCK_BYTES).expect("a block")];
    let mut write = |block: u64, random: &mut Random| {
        random.fill(&mut bytes);
        file.write_all_at(&bytes, block * BLOCK_BYTES).at(&path)
    };
    for _ in 0..500 {
        let block = random.below(blocks);
        write(block, &mut random)?;
    }
    (blocks / 2..blocks / 2 + 4096).try_for_each(|block| write(block, &mut random))
}
