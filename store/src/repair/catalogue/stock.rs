//! The packs that there are, by what is known of them, and whether they hold what snapshots need.

use super::rule::Ruling;
use crate::catalogue::{Key, PackEntry};
use crate::check::{CheckProgress, Footers, hash_if_sound, is_finding};
use crate::error::{Error, Result};
use crate::id::{ChunkKind, NodeId, ObjectKind, ObjectName, PackId, SnapshotId};
use crate::mark::{Mark, Marked};
use crate::repository::Repository;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Packs by what is known of them.
pub(super) struct Stock {
    sizes: BTreeMap<PackId, u64>,
    /// Listed as live.
    pub listed: BTreeMap<PackId, PackEntry>,
    /// Not listed and not condemned; their hashes are not known before they are read.
    found: BTreeMap<PackId, PackEntry>,
    /// Condemned, and still there: what is needed of them will be stored again.
    condemned: BTreeMap<PackId, PackEntry>,
    /// Those of the found ones that were read and are sound.
    sound: BTreeSet<PackId>,
}

/// What is needed, and what is there.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Found packs that hold something that is needed.
    pub packs: BTreeMap<PackId, PackEntry>,
    /// Doubtful snapshots of which something is nowhere.
    pub torn: BTreeSet<SnapshotId>,
}

impl Stock {
    /// Lists packs and reads the footers of those that are not listed as live. `is_unknown` says of which of these it is
    /// not known that they are not live.
    ///
    /// # Errors
    /// Errors of a list; `Cancelled`. A footer that cannot be read makes its pack none.
    pub fn read(
        repository: &Repository,
        ruling: &Ruling,
        is_unknown: impl Fn(&PackId) -> bool,
    ) -> Result<Self> {
        let mut sizes = BTreeMap::new();
        let (mut found, mut condemned) = (BTreeMap::new(), BTreeMap::new());
        for (name, size) in repository.backend.list(ObjectKind::Pack)? {
            repository.cancel().check()?;
            let ObjectName::Pack(id) = name else { continue };
            sizes.insert(id, size);
            let is_condemned = ruling.tombstones.contains_key(&id);
            if ruling.packs.contains_key(&id) || !(is_condemned || is_unknown(&id)) {
                continue;
            }
            let Some(entry) = entry_of(repository, id, size)? else { continue };
            let list = if is_condemned { &mut condemned } else { &mut found };
            list.insert(id, entry);
        }
        let mut listed = ruling.packs.clone();
        // One that is gone, and that was perhaps condemned, would only be found missing.
        listed.retain(|id, _| sizes.contains_key(id) || !ruling.doubtful_packs.contains(id));
        Ok(Self { sizes, listed, found, condemned, sound: BTreeSet::new() })
    }

    /// No head under which one of the found packs was begun has a greater number.
    pub fn last_head(&self) -> u64 {
        self.found.values().chain(self.condemned.values()).map(|pack| pack.born).max().unwrap_or(0)
    }

    /// Which of the found packs are needed, and which doubtful snapshots are not whole. Found packs are read whole unless
    /// `is_dry`; those that are not sound count as not there.
    ///
    /// # Errors
    /// Errors of the storage; `Cancelled`.
    pub fn needs(
        &mut self,
        repository: &Arc<Repository>,
        ruling: &Ruling,
        is_dry: bool,
        progress: CheckProgress<'_>,
    ) -> Result<Needs> {
        loop {
            let mut needs = self.look(repository, ruling)?;
            if is_dry || self.verify(repository, &mut needs, progress)? {
                return Ok(needs);
            }
        }
    }

    fn look(&self, repository: &Repository, ruling: &Ruling) -> Result<Needs> {
        let live = ruling.live.values().map(|entry| entry.root.id);
        let forgotten = ruling.forgotten.values().map(|one| one.entry.root.id);
        let doubtful = ruling.doubtful.values().map(|doubt| doubt.entry().root.id);
        let roots: Vec<NodeId> = live.chain(forgotten).chain(doubtful).collect();
        let others: Vec<PackId> = self.found.keys().chain(self.condemned.keys()).copied().collect();
        let marked = self.mark(repository, &self.listed, &others, &roots)?;
        if marked.lost.is_empty() {
            return Ok(Needs::default());
        }
        let mut all = self.listed.clone();
        all.extend(self.found.iter().chain(&self.condemned).map(|(id, entry)| (*id, *entry)));
        let marked = self.mark(repository, &all, &[], &roots)?;
        let used = marked.packs().iter().filter(|pack| pack.used_bytes > 0);
        let used = used.filter_map(|pack| Some((pack.id, *self.found.get(&pack.id)?)));
        let mut needs = Needs { packs: used.collect(), torn: BTreeSet::new() };
        if self.is_whole(&marked, ruling)? {
            return Ok(needs);
        }
        for (id, doubt) in &ruling.doubtful {
            let marked = self.mark(repository, &all, &[], &[doubt.entry().root.id])?;
            if !self.is_whole(&marked, ruling)? {
                needs.torn.insert(*id);
            }
        }
        Ok(needs)
    }

    fn mark(
        &self,
        repository: &Repository,
        packs: &BTreeMap<PackId, PackEntry>,
        guides: &[PackId],
        roots: &[NodeId],
    ) -> Result<Marked> {
        let footers = Footers::new(repository, self.sizes.clone());
        let load = |id: &PackId, entry: &PackEntry| footers.load(id, entry);
        let mark = Mark::new(repository, packs).guides(guides).load(&load);
        mark.live(roots.iter().copied()).run()
    }

    /// True where nothing is lost but what was given up before.
    fn is_whole(&self, marked: &Marked, ruling: &Ruling) -> Result<bool> {
        let mut is_whole = true;
        marked.lost.each(|id| {
            is_whole &= ruling.others.contains_key(&Key::Lost(*id));
            Ok(())
        })?;
        Ok(is_whole)
    }

    /// Reads needed packs whole, each once, and fills in their hashes. False if some are not sound.
    fn verify(
        &mut self,
        repository: &Arc<Repository>,
        needs: &mut Needs,
        progress: CheckProgress<'_>,
    ) -> Result<bool> {
        let reader = repository.reader_of(Arc::new(repository.blank_view()));
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let (all, mut is_sound) = (count(needs.packs.len()), true);
        for (done, (id, needed)) in (0..).zip(&mut needs.packs) {
            progress(done, all);
            if self.sound.contains(id) {
                continue;
            }
            let footer = match repository.footer(id, needed.size_bytes) {
                Err(error) if is_finding(&error) => {
                    self.found.remove(id);
                    is_sound = false;
                    continue;
                }
                other => other?,
            };
            match hash_if_sound(&reader, id, needed, &footer)? {
                Some(hash) => {
                    needed.hash = hash;
                    self.sound.insert(*id);
                    self.found.insert(*id, *needed);
                }
                None => {
                    self.found.remove(id);
                    is_sound = false;
                }
            }
        }
        progress(all, all);
        Ok(is_sound)
    }
}

/// What a catalogue would say of a pack, but for its hash; None where its footer cannot be read.
fn entry_of(repository: &Repository, id: PackId, size_bytes: u64) -> Result<Option<PackEntry>> {
    let footer = match repository.footer(&id, size_bytes) {
        Err(Error::Io { .. }) => repository.footer(&id, size_bytes),
        other => other,
    };
    let footer = match footer {
        Ok(footer) => footer,
        Err(error) if is_finding(&error) => return Ok(None),
        Err(Error::Unsupported { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let count = |kind: ChunkKind| {
        let frames = footer.frames().iter().filter(|frame| frame.kind == kind);
        frames.fold(0u32, |sum, frame| sum.saturating_add(frame.chunk_count))
    };
    let (data_chunks, node_chunks) = (count(ChunkKind::Data), count(ChunkKind::Node));
    let (born, generation) = (footer.born(), footer.generation());
    let hash = [0; 32];
    Ok(Some(PackEntry { size_bytes, hash, born, data_chunks, node_chunks, generation }))
}
