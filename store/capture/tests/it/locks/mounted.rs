//! A file system of our own, on a file, mounted in a mount namespace of this thread.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Enough for the smallest Btrfs.
const IMAGE_BYTES: u64 = 160 << 20;

/// A file system that vanishes afterwards.
pub struct Mounted {
    pub dir: PathBuf,
    base: tempfile::TempDir,
}

impl Mounted {
    /// Made by this program; None where that is not possible, which is printed.
    pub fn new(maker: &[&str]) -> Option<Self> {
        match Self::make(maker) {
            Ok(mounted) => Some(mounted),
            Err(why) => {
                eprintln!("skipped: no file system of our own: {why}");
                None
            }
        }
    }

    fn make(maker: &[&str]) -> Result<Self, String> {
        // SAFETY: only this thread, which made no other use of its namespace, gets a new one.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err("no mount namespace".into());
        }
        run(&["mount", "--make-rprivate", "/"])?;
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("mounted");
        std::fs::create_dir(&dir).unwrap();
        let image = base.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
        let image = image.to_str().unwrap();
        run(&[maker, &[image]].concat())?;
        run(&["mount", "-o", "loop", image, dir.to_str().unwrap()])?;
        Ok(Self { dir, base })
    }

    /// A place on another file system.
    pub fn outside(&self) -> &Path {
        self.base.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test that failed may leave it frozen, and then it could never be unmounted.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.dir).output();
        let _ = Command::new("umount").arg(&self.dir).status();
    }
}

/// Runs a program of the system to its end.
pub fn run(command: &[&str]) -> Result<String, String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(command[0]).args(&command[1..]).env("PATH", path).output();
    let output = output.map_err(|error| format!("{}: {error}", command[0]))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{}: {}", command[0], String::from_utf8_lossy(&output.stderr).trim()))
}
