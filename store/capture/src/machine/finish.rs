//! After the release: databases are dumped from what was pinned, what was held is stored, the checkpoint is committed.

use super::locked::Outcome;
use super::warm::{Warm, copy};
use super::{CaptureReport, Ending, Run};
use crate::error::{Error, Result};
use stillpoint_archive::backup::{backup, backup_changes};
use stillpoint_archive::{BackupOptions, ParentChoice, StreamSource};
use stillpoint_store::WriteOptions;
use stillpoint_store::record::Consistency;

impl Run<'_> {
    pub(super) fn finish(&mut self, warm: Warm<'_>, outcome: Outcome) -> Result<CaptureReport> {
        let Warm { base, drafts, journal, unsaved, .. } = warm;
        let unsaved = unsaved.len();
        drop(journal);
        let options = copy(&self.options.backup)?;
        let write = WriteOptions { supersedes: drafts, ..options.write.clone() };
        let options = BackupOptions { write, estimate: false, ..options };
        match outcome {
            Outcome::Held(held) => {
                let streams = self.dumps()?;
                let time = Some(options.time.unwrap_or(held.moment));
                let capture = Some(self.info.clone());
                // What was to be held and is not is no part of the instant that the record claims.
                let all_or_nothing = self.info.level != Consistency::None;
                let options = BackupOptions { streams, time, capture, all_or_nothing, ..options };
                let changes = held.frozen.into_changes();
                let observer = self.watcher.observer();
                let backup = backup_changes(self.repository, &base, changes, options, observer)?;
                Ok(CaptureReport { backup, ending: Ending::Complete, unsaved })
            }
            Outcome::TooSlow => {
                for database in &mut self.databases {
                    database.pin()?;
                }
                let streams = self.dumps()?;
                self.info.changes = "live".into();
                let capture = Some(self.info.clone());
                let parent = ParentChoice::Snapshot(base.id);
                let options = BackupOptions { streams, capture, parent, ..options };
                let backup = backup(self.repository, options, self.watcher.observer())?;
                Ok(CaptureReport { backup, ending: Ending::Degraded, unsaved: 0 })
            }
        }
    }

    /// The dumps of all databases, as streams of different names.
    fn dumps(&mut self) -> Result<Vec<Box<dyn StreamSource>>> {
        let mut streams = Vec::new();
        for database in &mut self.databases {
            streams.extend(database.dump()?);
        }
        let mut names: Vec<&str> = streams.iter().map(|stream| stream.name()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::Refused {
                what: format!("two databases would both be saved as {}", pair[0]),
                hint: Some("give each a name of its own: --database NAME=URL".into()),
            }),
            None => Ok(streams),
        }
    }
}
