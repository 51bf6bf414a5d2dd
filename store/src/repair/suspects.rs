//! Packs in which a check found damage, remembered in the cache folder so that a repair on the same host need not read
//! all data again. Nothing is believed of it: a suspect is read once more before anything is done about it.

use crate::id::PackId;
use crate::repository::Repository;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Most suspects that are remembered.
const SUSPECTS_MAX: usize = 100_000;

impl Repository {
    fn suspects_file(&self) -> Option<PathBuf> {
        self.options.cache_dir.as_ref().map(|dir| dir.join("suspects"))
    }

    /// The packs in which this host found damage.
    pub(super) fn suspects(&self) -> BTreeSet<PackId> {
        let text = self.suspects_file().and_then(|path| fs::read_to_string(path).ok());
        text.unwrap_or_default().lines().take(SUSPECTS_MAX).filter_map(PackId::from_hex).collect()
    }

    /// Remembers damaged packs and forgets whole ones. A cache that cannot be written only loses this.
    pub(crate) fn update_suspects<'p>(
        &self,
        damaged: impl Iterator<Item = &'p PackId>,
        whole: &BTreeSet<PackId>,
    ) {
        let Some(path) = self.suspects_file() else { return };
        let before = self.suspects();
        let mut now = before.clone();
        now.extend(damaged);
        now.retain(|id| !whole.contains(id));
        if now == before {
            return;
        }
        let text: String = now.iter().take(SUSPECTS_MAX).map(|id| format!("{id}\n")).collect();
        if let Some(dir) = path.parent() {
            let _ = fs::create_dir_all(dir);
        }
        let _ = fs::write(path, text);
    }
}
