//! From a recording to the states in which a power cut could have left the disk.
//!
//! Every moment of the recording is a cut. What is pending then is an item: one entry of a folder, or the bytes of one
//! file. The images of a moment: nothing pending happened, all of it did, each item alone was lost (bytes in several ways),
//! each item alone happened, and some random mixtures. Places that hold nothing of worth (temporary files, a cache) are
//! one item together, so that they do not multiply the others.

use super::content::{Contents, History, Pending};
use super::{Action, FileId, Files, Recording};
use crate::random::Random;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Beyond this many items at one moment, a random choice of so many is varied alone.
const ALONE_MAX: usize = 12;

/// One state in which a power cut could have left the disk.
#[derive(Debug, Clone)]
pub struct PowerImage {
    /// What the disk holds.
    pub files: Files,
    /// What the program had said before the cut.
    pub said: Vec<String>,
    /// Moment and choices, for failure messages.
    pub label: String,
    /// Equal for equal files and equal numbers of things said.
    pub fingerprint: [u8; 32],
}

/// Enumerates images.
#[derive(Debug)]
pub struct Images<'a> {
    recording: &'a Recording,
    coarse: Vec<PathBuf>,
    mixtures: usize,
    names: BTreeMap<PathBuf, Vec<NameEvent>>,
    data: Vec<History>,
    file_syncs: HashMap<FileId, Vec<Span>>,
    folder_syncs: HashMap<PathBuf, Vec<Span>>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    begun: usize,
    ended: usize,
}

/// What a name meant from some moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Nothing,
    Folder,
    File(FileId),
}

#[derive(Debug, Clone, Copy)]
struct NameEvent {
    begun: usize,
    ended: usize,
    meaning: Meaning,
}

/// Something that a power cut may have undone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    /// A name: its durable state and its newest one, as numbers of states.
    Name { path: PathBuf, durable: usize, newest: usize },
    /// A file's bytes: its durable changes and all of them, as numbers of changes.
    Data(Pending),
}

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Kept,
    Lost,
    /// Bytes up to a part of the pending ones, in 256ths; a name at a state in between.
    Torn(u8),
    /// The length is there, the bytes are zeros.
    Zeros,
}

/// The state of the disk at one moment, before the choices.
struct Moment {
    at: usize,
    items: Vec<(Item, bool)>,
}

impl<'a> Images<'a> {
    /// The images of a recording; places below `coarse` hold nothing of worth. `mixtures` random images a moment.
    pub fn new(recording: &'a Recording, coarse: &[&str], mixtures: usize) -> Self {
        let coarse = coarse.iter().map(PathBuf::from).collect();
        let start = recording.known.iter().map(|path| History {
            start: recording.start.files.get(path).cloned(),
            changes: Vec::new(),
        });
        let mut images = Self {
            recording,
            coarse,
            mixtures,
            names: BTreeMap::new(),
            data: start.collect(),
            file_syncs: HashMap::new(),
            folder_syncs: HashMap::new(),
        };
        images.gather();
        images
    }

    /// Sorts the operations by what they concern.
    fn gather(&mut self) {
        let recording = self.recording;
        let before = NameEvent { begun: 0, ended: 0, meaning: Meaning::Nothing };
        for folder in &recording.start.folders {
            let event = NameEvent { meaning: Meaning::Folder, ..before };
            self.names.insert(folder.clone(), vec![event]);
        }
        for (number, path) in recording.known.iter().enumerate() {
            let event = NameEvent { meaning: Meaning::File(FileId(number)), ..before };
            self.names.insert(path.clone(), vec![event]);
        }
        for (number, operation) in recording.operations.iter().enumerate() {
            let span = Span { begun: operation.begun, ended: operation.ended };
            match &operation.action {
                Action::MakeFolder(path) => self.name(path, span, Meaning::Folder),
                Action::Create(path) => {
                    let id = FileId(self.data.len());
                    self.data.push(History::default());
                    self.name(path, span, Meaning::File(id));
                }
                Action::Rename(from, to) => {
                    let meaning = self.meaning(from);
                    self.name(to, span, meaning);
                    self.name(from, span, Meaning::Nothing);
                }
                Action::Link(from, to) => {
                    let meaning = self.meaning(from);
                    self.name(to, span, meaning);
                }
                Action::Unlink(path) | Action::RemoveFolder(path) => {
                    self.name(path, span, Meaning::Nothing);
                }
                Action::Write(id, ..) | Action::SetLen(id, _) => {
                    self.data[id.0].changes.push(number);
                }
                Action::SyncFile(id) => self.file_syncs.entry(*id).or_default().push(span),
                Action::SyncFolder(path) => {
                    self.folder_syncs.entry(path.clone()).or_default().push(span);
                }
                Action::Say(_) => {}
            }
        }
    }

    fn name(&mut self, path: &Path, span: Span, meaning: Meaning) {
        let nothing = NameEvent { begun: 0, ended: 0, meaning: Meaning::Nothing };
        let events = self.names.entry(path.to_owned()).or_insert_with(|| vec![nothing]);
        events.push(NameEvent { begun: span.begun, ended: span.ended, meaning });
    }

    fn meaning(&self, path: &Path) -> Meaning {
        let newest = self.names.get(path).and_then(|events| events.last());
        newest.map_or(Meaning::Nothing, |event| event.meaning)
    }

    /// Gives every image of every moment to `visit`, equal ones once.
    pub fn each(&self, mut visit: impl FnMut(PowerImage)) {
        let mut seen = HashSet::new();
        let mut contents = Contents::default();
        let spans = self.recording.operations.iter().flat_map(|done| [done.begun, done.ended]);
        let mut moments: Vec<usize> = spans.flat_map(|moment| [moment, moment + 1]).collect();
        moments.push(0);
        moments.sort_unstable();
        moments.dedup();
        let mut random = Random::new(0x706f_7765);
        for at in moments {
            let moment = self.at(at);
            let said = self.said(at);
            for fates in self.choices(&moment, &mut random) {
                let (files, mut print) = self.image(&moment, &fates, &mut contents);
                print.update(&said.len().to_le_bytes());
                let fingerprint = *print.finalize().as_bytes();
                if seen.insert(fingerprint) {
                    let label = label(&moment, &fates);
                    visit(PowerImage { files, said: said.clone(), label, fingerprint });
                }
            }
        }
    }

    /// Everything that was done, as the running program saw it: what a kill at the end would leave.
    pub fn final_state(&self) -> Files {
        let moment = self.at(usize::MAX);
        let kept = vec![Fate::Kept; moment.items.len()];
        self.image(&moment, &kept, &mut Contents::default()).0
    }

    fn said(&self, at: usize) -> Vec<String> {
        let done = self.recording.operations.iter().filter(|operation| operation.ended < at);
        done.filter_map(|operation| match &operation.action {
            Action::Say(text) => Some(text.clone()),
            _ => None,
        })
        .collect()
    }

    /// What is pending just before this moment.
    fn at(&self, at: usize) -> Moment {
        let mut items = Vec::new();
        let mut alive = HashSet::new();
        for (path, events) in &self.names {
            let newest = events.iter().rposition(|event| event.begun < at || event.ended == 0);
            let Some(newest) = newest else { continue };
            let parent = path.parent().unwrap_or(Path::new(""));
            let no_syncs = Vec::new();
            let syncs = self.folder_syncs.get(parent).unwrap_or(&no_syncs);
            let is_durable = |event: &NameEvent| event.ended == 0 || covers(syncs, event.ended, at);
            let durable = events.iter().take(newest + 1).rposition(is_durable).unwrap_or(0);
            let coarse = self.is_coarse(path);
            for event in events.iter().take(newest + 1).skip(durable) {
                if let Meaning::File(id) = event.meaning {
                    alive.insert((id, coarse));
                }
            }
            items.push((Item::Name { path: path.clone(), durable, newest }, coarse));
        }
        for (number, history) in self.data.iter().enumerate() {
            let id = FileId(number);
            let coarse = !alive.contains(&(id, false));
            if !coarse || alive.contains(&(id, true)) {
                items.push((Item::Data(self.pending(id, history, at)), coarse));
            }
        }
        Moment { at, items }
    }

    fn pending(&self, id: FileId, history: &History, at: usize) -> Pending {
        let operation = |change: &usize| &self.recording.operations[*change];
        let begun = history.changes.iter().take_while(|change| operation(change).begun < at);
        let newest = begun.count();
        let is_durable = |change: &&usize| {
            let syncs = self.file_syncs.get(&id);
            syncs.is_some_and(|syncs| covers(syncs, operation(change).ended, at))
        };
        let durable = history.changes.iter().take(newest).take_while(is_durable).count();
        Pending { id, durable, newest }
    }

    fn is_coarse(&self, path: &Path) -> bool {
        self.coarse.iter().any(|coarse| path.starts_with(coarse))
    }

    /// The fates of all items, one list for each image.
    fn choices(&self, moment: &Moment, random: &mut Random) -> Vec<Vec<Fate>> {
        let pending: Vec<usize> =
            (0..moment.items.len()).filter(|number| moment.items[*number].0.is_pending()).collect();
        let all = |fate| vec![fate; moment.items.len()];
        let with = |mut fates: Vec<Fate>, change: &[usize], fate| {
            change.iter().for_each(|number| fates[*number] = fate);
            fates
        };
        let mut lists = vec![all(Fate::Kept), all(Fate::Lost)];
        let (coarse, fine): (Vec<usize>, Vec<usize>) =
            pending.iter().partition(|number| moment.items[**number].1);
        let mut alone: Vec<Vec<usize>> = fine.iter().map(|number| vec![*number]).collect();
        while alone.len() > ALONE_MAX {
            alone.swap_remove(random.index(alone.len()));
        }
        alone.push(coarse);
        for group in &alone {
            lists.push(with(all(Fate::Kept), group, Fate::Lost));
            lists.push(with(all(Fate::Lost), group, Fate::Kept));
            let is_data = group.iter().any(|n| matches!(moment.items[*n].0, Item::Data(_)));
            if is_data {
                let part = u8::try_from(random.below(256)).expect("below 256");
                lists.push(with(all(Fate::Kept), group, Fate::Torn(part)));
                lists.push(with(all(Fate::Kept), group, Fate::Zeros));
            }
        }
        for _ in 0..self.mixtures {
            let mut fates = all(Fate::Kept);
            for number in &pending {
                fates[*number] = match random.below(6) {
                    0 | 1 => Fate::Kept,
                    2 | 3 => Fate::Lost,
                    4 => Fate::Zeros,
                    _ => Fate::Torn(u8::try_from(random.below(256)).expect("below 256")),
                };
            }
            lists.push(fates);
        }
        lists
    }

    /// The disk with these fates, and a fingerprint of it.
    fn image(
        &self,
        moment: &Moment,
        fates: &[Fate],
        made: &mut Contents,
    ) -> (Files, blake3::Hasher) {
        let mut bytes = HashMap::new();
        for ((item, _), fate) in moment.items.iter().zip(fates) {
            if let Item::Data(pending) = item {
                let history = &self.data[pending.id.0];
                bytes.insert(pending.id, made.get(self.recording, history, *pending, *fate));
            }
        }
        let mut files = Files::default();
        let mut print = blake3::Hasher::new();
        let mut missing: Option<&Path> = None;
        // In the order of the paths, a folder comes before what it holds.
        for ((item, _), fate) in moment.items.iter().zip(fates) {
            let Item::Name { path, durable, newest } = item else { continue };
            if missing.is_some_and(|missing| path.starts_with(missing)) {
                continue;
            }
            let state = match fate {
                Fate::Kept | Fate::Zeros => *newest,
                Fate::Lost => *durable,
                Fate::Torn(part) => durable + (newest - durable) * usize::from(*part) / 256,
            };
            match self.names[path][state].meaning {
                Meaning::Nothing => missing = Some(path),
                Meaning::Folder => {
                    print.update(format!("{path:?} folder\n").as_bytes());
                    files.folders.insert(path.clone());
                }
                Meaning::File(id) => {
                    let (content, hash) = bytes.get(&id).expect("a file that is named is alive");
                    print.update(format!("{path:?} {hash}\n").as_bytes());
                    files.files.insert(path.clone(), Arc::clone(content));
                }
            }
        }
        (files, print)
    }
}

impl Item {
    fn is_pending(&self) -> bool {
        let (Self::Name { durable, newest, .. } | Self::Data(Pending { durable, newest, .. })) =
            self;
        durable < newest
    }
}

/// True when one of the syncs began after this moment and had returned before the other.
fn covers(syncs: &[Span], ended: usize, at: usize) -> bool {
    syncs.iter().any(|sync| sync.begun > ended && sync.ended < at)
}

fn label(moment: &Moment, fates: &[Fate]) -> String {
    let pending = moment.items.iter().zip(fates).filter(|((item, _), _)| item.is_pending());
    let (mut kept, mut other) = (0, Vec::new());
    for ((item, _), fate) in pending {
        match (fate, item) {
            (Fate::Kept, _) => kept += 1,
            (fate, Item::Name { path, .. }) => other.push(format!("{} {fate:?}", path.display())),
            (fate, Item::Data(pending)) => {
                other.push(format!("bytes of file {} {fate:?}", pending.id.0));
            }
        }
    }
    other.truncate(20);
    format!("power cut at moment {}: {kept} pending kept; {}", moment.at, other.join(", "))
}
