//! One directory on each file system that this machine can offer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of a file system in a file, bytes; XFS takes no less than 300 MB.
const IMAGE_BYTES: u64 = 400 << 20;

/// A directory on a file system.
pub struct Place {
    pub name: &'static str,
    pub dir: PathBuf,
    _base: tempfile::TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.dir).status();
    }
}

/// All that can be had; why another cannot is printed. Mounts are made in a mount namespace of this thread's own, so
/// nothing is left behind, whatever happens.
pub fn places() -> Vec<Place> {
    if !private_mounts() {
        eprintln!("skipped: no mount namespace, so no file systems of our own");
        return Vec::new();
    }
    let makers: [(&'static str, &[&str]); 4] = [
        ("ext4", &["mkfs.ext4", "-q", "-F"]),
        ("tmpfs", &[]),
        ("XFS", &["mkfs.xfs", "-q", "-f"]),
        ("Btrfs", &["mkfs.btrfs", "-q", "-f"]),
    ];
    let made = |(name, maker): (&'static str, &[&str])| match make(name, maker) {
        Ok(place) => Some(place),
        Err(why) => {
            eprintln!("skipped: no {name}: {why}");
            None
        }
    };
    makers.into_iter().filter_map(made).collect()
}

/// Gives this thread a mount namespace of its own.
pub fn private_mounts() -> bool {
    // SAFETY: only this thread, which made no other use of its namespace, gets a new one.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    unshared && run(Command::new("mount").args(["--make-rprivate", "/"])).is_ok()
}

fn make(name: &'static str, maker: &[&str]) -> Result<Place, String> {
    let base = tempfile::tempdir().map_err(|error| error.to_string())?;
    let dir = base.path().join("mounted");
    fs::create_dir(&dir).map_err(|error| error.to_string())?;
    match maker.split_first() {
        None => run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&dir))?,
        Some((program, arguments)) => {
            let image = image(base.path())?;
            run(Command::new(program).args(arguments).arg(&image))?;
            run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&dir))?;
        }
    }
    Ok(Place { name, dir, _base: base })
}

fn image(base: &Path) -> Result<PathBuf, String> {
    let path = base.join("image");
    let file = fs::File::create(&path).map_err(|error| error.to_string())?;
    file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
    Ok(path)
}

/// Runs a command; its complaint if it fails.
pub fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
