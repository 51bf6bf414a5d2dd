//! Which position of the journal belongs to which snapshot: kept in the state directory, because positions mean nothing elsewhere.

use super::log::Position;
use crate::error::{Error, Result};
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Snapshots whose positions are kept; older ones are forgotten, and cost a walk.
const KEPT_MAX: usize = 1000;

/// The positions that are kept in one state directory.
#[derive(Debug, Clone)]
pub struct Positions {
    folder: PathBuf,
}

impl Positions {
    /// Those of this state directory.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join(super::service::FOLDER) }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("positions")
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Failed(format!("keeping a position in {}: {error}", self.file().display()))
    }

    /// Keeps the position at which the walk for a snapshot began: from there on, nothing that changed may be missing in what the
    /// next snapshot looks at. `snapshot` is its id, without blanks or line feeds.
    ///
    /// # Errors
    /// Whatever writing a file gives.
    pub fn remember(&self, snapshot: &str, position: &Position) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| self.failed(&error))?;
        let options = File::options().write(true).create(true).truncate(false).mode(0o600).clone();
        let lock = options.open(self.folder.join("positions.lock"));
        let lock = lock.map_err(|error| self.failed(&error))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| self.failed(&error))?;
        let mut lines = self.lines();
        lines.retain(|(kept, _)| kept != snapshot);
        lines.push((snapshot.to_owned(), position.to_string()));
        let surplus = lines.len().saturating_sub(KEPT_MAX);
        let text: String = lines
            .iter()
            .skip(surplus)
            .map(|(snapshot, position)| format!("{snapshot} {position}\n"))
            .collect();
        let draft = self.folder.join("positions.new");
        let written = options.clone().truncate(true).open(&draft).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            std::fs::rename(&draft, self.file())
        });
        written.map_err(|error| self.failed(&error))
    }

    /// The position of a snapshot, if it is known.
    pub fn find(&self, snapshot: &str) -> Option<Position> {
        let lines = self.lines();
        let line = lines.iter().rfind(|(kept, _)| kept == snapshot)?;
        line.1.parse().ok()
    }

    fn lines(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let parts = |line: &str| {
            line.split_once(' ').map(|(snapshot, position)| (snapshot.into(), position.into()))
        };
        text.lines().filter_map(parts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The newest position of each snapshot is kept, and those of the oldest snapshots go.
    #[test]
    fn kept_and_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let positions = Positions::new(&temp.path().join("state"));
        let position = |number| Position { journal: "a".into(), number };
        assert_eq!(positions.find("s1"), None);
        positions.remember("s1", &position(1)).unwrap();
        positions.remember("s2", &position(2)).unwrap();
        positions.remember("s1", &position(3)).unwrap();
        assert_eq!(positions.find("s1"), Some(position(3)));
        assert_eq!(positions.find("s2"), Some(position(2)));
        for number in 0..998 {
            positions.remember(&format!("t{number}"), &position(number)).unwrap();
        }
        assert!(positions.find("s1").is_some() && positions.find("s2").is_some());
        positions.remember("last", &position(9)).unwrap();
        assert_eq!(positions.find("s2"), None);
        assert_eq!(positions.find("last"), Some(position(9)));
        std::fs::write(positions.file(), b"s1\nx y z\n\xff").unwrap();
        assert_eq!(positions.find("s1"), None);
    }
}
