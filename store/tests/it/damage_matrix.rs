//! Every kind of object damaged in every way: what notices it, what still restores, and what a repair brings back.
//!
//! The result is a table in docs/reliability.md, which must say what is so; `STILLPOINT_WRITE_DAMAGE=1` writes it.
//! `STILLPOINT_DAMAGE=all` flips every bit of every object.

use crate::lab::{self, Files, LabSchema, create, files, memory, restore_by_id, snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use stillpoint_store::backend::{Backend, Contents, MemoryBackend};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::parity::ParityOptions;
use stillpoint_store::repair::RepairOptions;
use stillpoint_store::tree::node_references;
use stillpoint_store::{Env, ObjectKind, ObjectName, Repository, SnapshotId};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md");
const BEGIN: &str = "<!-- damage: begin -->\n";
const END: &str = "<!-- damage: end -->\n";

/// What is damaged: the head, or an object. The order is that of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Config,
    KeySlot,
    Head,
    Catalogue,
    Snapshot,
    Pack,
    PackWithParity,
    Parity,
}

impl Part {
    fn words(self) -> &'static str {
        match self {
            Self::Config => "configuration",
            Self::KeySlot => "the only key slot",
            Self::Head => "head",
            Self::Catalogue => "node of the catalogue",
            Self::Snapshot => "snapshot record",
            Self::Pack => "pack",
            Self::PackWithParity => "pack, with parity",
            Self::Parity => "parity object",
        }
    }

    fn of(name: &ObjectName, has_parity: bool) -> Self {
        match name {
            ObjectName::Config => Self::Config,
            ObjectName::Key(_) => Self::KeySlot,
            ObjectName::Catalogue(_) => Self::Catalogue,
            ObjectName::Snapshot(_) => Self::Snapshot,
            ObjectName::Pack(_) if has_parity => Self::PackWithParity,
            ObjectName::Pack(_) => Self::Pack,
            ObjectName::Parity(_) => Self::Parity,
        }
    }
}

const WAYS: [&str; 4] = ["lost", "cut", "flipped", "swapped"];

/// A place whose bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Head,
    Object(ObjectName),
}

/// A repository with snapshots, what they hold, and whether it has parity.
struct Scene {
    whole: Contents,
    env: Arc<dyn Env>,
    snapshots: Vec<(SnapshotId, Files)>,
    has_parity: bool,
}

impl Scene {
    fn new(has_parity: bool) -> Self {
        let disk = MemoryBackend::new();
        let (backend, env): (Arc<dyn Backend>, _) = (Arc::new(disk.clone()), memory().1);
        let repository = create(&backend, &env);
        // Every 38th of these files is small.
        let small = |seeds: std::ops::Range<u64>| files(seeds.map(|seed| seed * 38 + 38));
        let contents = [small(0..8), small(4..12), small(20..24)];
        let snapshots = contents.map(|files| (snapshot(&repository, &files).unwrap(), files));
        if has_parity {
            let options = ParityOptions { data: 4, parity: 1, ..ParityOptions::default() };
            repository.add_parity(&options, &|_, _| {}).unwrap();
        }
        let whole = disk.contents();
        let mut scene = Self { whole, env, snapshots: snapshots.into(), has_parity };
        scene.drop_old_nodes();
        scene
    }

    /// Removes the nodes of earlier catalogues: damage of what nothing names is no damage.
    fn drop_old_nodes(&mut self) {
        let nodes = self.whole.objects.keys().filter(|name| name.kind() == ObjectKind::Catalogue);
        for name in nodes.copied().collect::<Vec<_>>() {
            let without = self.damaged(Place::Object(name), None);
            let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::with_contents(without.clone()));
            let repository = lab::open(&backend, &self.env).unwrap();
            let report = repository.check(CheckOptions::read_all(), &|_, _| {});
            if report.is_ok_and(|report| report.findings.is_empty()) {
                self.whole = without;
            }
        }
    }

    fn places(&self) -> Vec<(Part, Place)> {
        let object = |name: &ObjectName| (Part::of(name, self.has_parity), Place::Object(*name));
        let head = (!self.has_parity).then_some((Part::Head, Place::Head));
        let parts = self.whole.objects.keys().map(object).chain(head);
        let wanted = |part: &Part| match part {
            Part::PackWithParity | Part::Parity => self.has_parity,
            _ => !self.has_parity,
        };
        parts.filter(|(part, _)| wanted(part)).collect()
    }

    fn bytes(&self, place: Place) -> &[u8] {
        match place {
            Place::Head => self.whole.head.as_ref().unwrap(),
            Place::Object(name) => &self.whole.objects[&name],
        }
    }

    /// All bytes that a damage in one way leaves at a place; None: nothing is there.
    fn damages(&self, part: Part, place: Place, way: &str) -> Vec<Option<Vec<u8>>> {
        let bytes = self.bytes(place);
        match way {
            "lost" => vec![None],
            "cut" => cuts(bytes.len()).map(|len| Some(bytes[..len].to_vec())).collect(),
            "flipped" => flips(bytes.len())
                .into_iter()
                .map(|(at, bit)| {
                    let mut changed = bytes.to_vec();
                    changed[at] ^= 1 << bit;
                    Some(changed)
                })
                .collect(),
            _ => {
                let others = self.places().into_iter().filter(|other| *other != (part, place));
                let alike = others.filter(|(other, _)| *other == part);
                alike.take(3).map(|(_, other)| Some(self.bytes(other).to_vec())).collect()
            }
        }
    }

    fn damaged(&self, place: Place, bytes: Option<Vec<u8>>) -> Contents {
        let mut contents = self.whole.clone();
        match (place, bytes) {
            (Place::Head, bytes) => contents.head = bytes,
            (Place::Object(name), None) => {
                contents.objects.remove(&name);
            }
            (Place::Object(name), Some(bytes)) => {
                contents.objects.insert(name, Arc::new(bytes));
            }
        }
        contents
    }

    /// What happens then, in words.
    fn outcome(&self, contents: Contents) -> String {
        let disk = MemoryBackend::with_contents(contents);
        let backend: Arc<dyn Backend> = Arc::new(disk);
        let noticed = match lab::open(&backend, &self.env) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                "refused"
            }
            Ok(repository) => match repository.check(CheckOptions::read_all(), &|_, _| {}) {
                Err(_) => "refused",
                Ok(report) if report.findings.is_empty() => "not noticed",
                Ok(_) if self.restorable(&repository) == self.files() => {
                    "named by check, all restores"
                }
                Ok(_) => "named by check, the rest restores",
            },
        };
        format!("{noticed}; {}", self.repaired(&backend))
    }

    fn files(&self) -> usize {
        self.snapshots.iter().map(|(_, files)| files.len()).sum()
    }

    /// How many files of all snapshots restore exactly. One that restores to something else fails the test.
    fn restorable(&self, repository: &Arc<Repository>) -> usize {
        let restored = self.snapshots.iter();
        restored.map(|(id, files)| lab::restore_what_is_there(repository, *id, files)).sum()
    }

    /// What a repair makes of it.
    fn repaired(&self, backend: &Arc<dyn Backend>) -> &'static str {
        let repository = match lab::open(backend, &self.env) {
            Ok(repository) => repository,
            Err(_) => return "not for a repair",
        };
        let options =
            RepairOptions { read_all: true, ..RepairOptions::new(node_references::<LabSchema>) };
        let Ok(report) = repository.repair(&options, &|_, _| {}) else {
            return "not for a repair";
        };
        if let Some(after) = &report.after {
            assert_eq!(after.findings, []);
        }
        let repository = lab::open(backend, &self.env).unwrap();
        if report.plan.chunks_given_up == 0 {
            for (id, files) in &self.snapshots {
                assert_eq!(restore_by_id(&repository, *id).unwrap(), *files);
            }
            lab::assert_whole(&repository);
            return "repair brings all back";
        }
        for (_, files) in &self.snapshots {
            snapshot(&repository, files).unwrap();
        }
        assert_eq!(self.restorable(&repository), self.files());
        "repair keeps the rest, the next backup supplies what is lost"
    }
}

fn cuts(len: usize) -> impl Iterator<Item = usize> {
    BTreeSet::from([0, 1, len / 3, len / 2, len.saturating_sub(33), len - 1]).into_iter()
}

/// The first and the last bytes and some between.
fn flips(len: usize) -> Vec<(usize, usize)> {
    if std::env::var("STILLPOINT_DAMAGE").is_ok_and(|value| value == "all") {
        return (0..len).flat_map(|at| (0..8).map(move |bit| (at, bit))).collect();
    }
    let step = (len / 29).max(1);
    let edges = (0..len.min(12)).chain(len.saturating_sub(20)..len);
    let places: BTreeSet<usize> = (0..len).step_by(step).chain(edges).collect();
    places.into_iter().map(|at| (at, at % 8)).collect()
}

/// The table, and how many damages were tried.
fn table() -> (String, usize) {
    let mut cells: BTreeMap<(Part, usize), BTreeSet<String>> = BTreeMap::new();
    let mut tried = 0;
    for scene in [Scene::new(false), Scene::new(true)] {
        for (part, place) in scene.places() {
            for (column, way) in WAYS.into_iter().enumerate() {
                for bytes in scene.damages(part, place, way) {
                    let label = format!("{part:?} {way}, {place:?}");
                    let outcome = stillpoint_testkit::with_label(label, || {
                        scene.outcome(scene.damaged(place, bytes))
                    });
                    cells.entry((part, column)).or_default().insert(outcome);
                    tried += 1;
                }
            }
        }
    }
    let mut text = format!("| object | {} |\n|---|---|---|---|---|\n", WAYS.join(" | "));
    let parts: BTreeSet<Part> = cells.keys().map(|(part, _)| *part).collect();
    for part in parts {
        let cell = |column: usize| match cells.get(&(part, column)) {
            Some(outcomes) => outcomes.iter().cloned().collect::<Vec<_>>().join(", or "),
            None => "there is only one".to_owned(),
        };
        let row: Vec<String> = (0..WAYS.len()).map(cell).collect();
        text.push_str(&format!("| {} | {} |\n", part.words(), row.join(" | ")));
    }
    (text, tried)
}

/// Nothing is overlooked, nothing restores to something else, and the page says what is so.
#[test]
fn the_damage_table_says_what_is_so() {
    let (table, tried) = table();
    assert!(tried > 700, "{tried}");
    assert!(!table.contains("not noticed"), "{table}");
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let new = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("STILLPOINT_WRITE_DAMAGE").is_some() {
        std::fs::write(PAGE, new).unwrap();
    } else {
        assert!(new == page, "docs/reliability.md is stale; the table should be:\n{table}");
    }
}
