//! What every index must do: one suite, run against each implementation.

use crate::random::Random;
use crate::with_label;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use stillpoint_store::id::RepositoryId;
use stillpoint_store::index::{Index, IndexState, Location};
use stillpoint_store::tree::Root;
use stillpoint_store::{ChunkId, Error, PackId, Result};

/// One place for an index.
pub struct IndexFixture {
    /// Opens the index. A persistent one is opened again after the first handle was dropped.
    pub open: Box<dyn Fn() -> Box<dyn Index>>,
    /// True if a dropped and reopened index keeps what it was given.
    pub persistent: bool,
    /// Kept until the end of a check, such as a temporary folder.
    pub guard: Box<dyn Any>,
}

/// More than any batch of an implementation.
const MANY: u64 = 20_000;

/// Runs all checks, each on a fresh place.
///
/// # Panics
/// Where the index does not do what the trait promises.
pub fn index_suite(make: impl Fn() -> IndexFixture) {
    let checks: [(&str, fn(&IndexFixture)); 9] = [
        ("a new index is empty", new_is_empty),
        ("places come back in the order asked", places_come_back),
        ("only places in live packs are given", only_live_places),
        ("the state moves with the additions", state_moves),
        ("a rebuild replaces everything", rebuild_replaces),
        ("an interrupted rebuild leaves no state", interrupted_rebuild),
        ("many entries", many_entries),
        ("look-ups run beside additions", lookups_beside_additions),
        ("random operations agree with a map", random_operations),
    ];
    for (what, check) in checks {
        let fixture = make();
        with_label(what, || check(&fixture));
    }
}

/// The state of head `seq`.
pub fn state(seq: u64) -> IndexState {
    let repository = RepositoryId::from_bytes([7; 16]);
    let byte = u8::try_from(seq % 251).expect("small");
    let catalogue =
        Root { id: ChunkId::from_bytes([byte; 32]), level: byte % 4, entries: seq, bytes: seq * 7 };
    IndexState { repository, seq, head_hash: [byte; 32], catalogue }
}

/// A chunk id that looks like a hash of the number.
pub fn id(number: u64) -> ChunkId {
    let mut bytes = [0; ChunkId::LEN];
    Random::new(number).fill(&mut bytes);
    ChunkId::from_bytes(bytes)
}

/// A place in a pack.
pub fn place(pack: u8, number: u64) -> Location {
    let number = u32::try_from(number & 0xffff).expect("16 bits");
    Location {
        pack: PackId::from_bytes([pack; 16]),
        frame: number,
        frame_offset: number * 3,
        frame_len: number + 5,
        offset: number ^ 1,
        len: number + 1,
    }
}

fn all_live(_: &PackId) -> bool {
    true
}

fn new_is_empty(fixture: &IndexFixture) {
    let index = (fixture.open)();
    assert_eq!(index.state().unwrap(), None);
    assert_eq!(index.lookup(&[id(1), id(2)], &all_live).unwrap(), [None, None]);
    assert_eq!(index.lookup(&[], &all_live).unwrap(), []);
    assert_eq!(index.len_estimate().unwrap(), 0);
}

fn places_come_back(fixture: &IndexFixture) {
    let index = (fixture.open)();
    let extreme = |byte: u8, number: u32| Location {
        pack: PackId::from_bytes([byte; 16]),
        frame: number,
        frame_offset: number,
        frame_len: number,
        offset: number,
        len: number,
    };
    let (low, high) = (ChunkId::from_bytes([0; 32]), ChunkId::from_bytes([255; 32]));
    let (first, last) = (extreme(0, 0), extreme(255, u32::MAX));
    index.apply(&[(high, last), (id(1), place(1, 1)), (low, first)], state(1)).unwrap();
    let asked = [id(1), id(2), low, high, id(1), id(3)];
    let given = [Some(place(1, 1)), None, Some(first), Some(last), Some(place(1, 1)), None];
    assert_eq!(index.lookup(&asked, &all_live).unwrap(), given);
    reopened(fixture, index, |index| {
        assert_eq!(index.lookup(&asked, &all_live).unwrap(), given);
        assert_eq!(index.state().unwrap(), Some(state(1)));
    });
}

/// Checks a persistent index once more after it was closed and opened.
fn reopened(fixture: &IndexFixture, index: Box<dyn Index>, check: impl FnOnce(&dyn Index)) {
    if fixture.persistent {
        drop(index);
        check(&*(fixture.open)());
    }
}

fn only_live_places(fixture: &IndexFixture) {
    let index = (fixture.open)();
    for round in 0..2 {
        for pack in 1..=3 {
            index.apply(&[(id(1), place(pack, 1))], state(u64::from(pack))).unwrap();
        }
        index.apply(&[(id(2), place(1, 2)), (id(2), place(1, 2))], state(4 + round)).unwrap();
    }
    let check = |index: &dyn Index| {
        for mask in 0..8u8 {
            let live = |pack: &PackId| {
                (1..=3).any(|n| mask >> (n - 1) & 1 == 1 && pack.as_bytes()[0] == n)
            };
            let found = index.lookup(&[id(1), id(2)], &live).unwrap();
            let packs: Vec<_> = (1..=3).filter(|n| mask >> (n - 1) & 1 == 1).collect();
            match found[0] {
                Some(given) => {
                    let pack = given.pack.as_bytes()[0];
                    assert!(packs.contains(&pack));
                    assert_eq!(given, place(pack, 1));
                }
                None => assert!(packs.is_empty()),
            }
            assert_eq!(found[1], packs.contains(&1).then(|| place(1, 2)));
        }
    };
    check(&*index);
    reopened(fixture, index, check);
}

fn state_moves(fixture: &IndexFixture) {
    let index = (fixture.open)();
    index.apply(&[], state(1)).unwrap();
    assert_eq!(index.state().unwrap(), Some(state(1)));
    let other = IndexState { repository: RepositoryId::from_bytes([8; 16]), ..state(9) };
    index.apply(&[(id(1), place(1, 1))], other).unwrap();
    assert_eq!(index.state().unwrap(), Some(other));
    reopened(fixture, index, |index| assert_eq!(index.state().unwrap(), Some(other)));
}

fn rebuild_replaces(fixture: &IndexFixture) {
    let index = (fixture.open)();
    index
        .apply(&[(id(1), place(1, 1)), (id(2), place(1, 2)), (id(2), place(2, 2))], state(1))
        .unwrap();
    let entries =
        [(id(5), place(5, 5)), (id(3), place(3, 3)), (id(5), place(6, 5)), (id(5), place(5, 5))];
    index.rebuild(&mut entries.into_iter().map(Ok), state(2)).unwrap();
    let check = |index: &dyn Index| {
        assert_eq!(index.state().unwrap(), Some(state(2)));
        let only = |live: u8| move |pack: &PackId| pack.as_bytes()[0] == live;
        let asked = [id(1), id(2), id(3), id(5)];
        assert_eq!(index.lookup(&asked, &only(5)).unwrap(), [None, None, None, Some(place(5, 5))]);
        assert_eq!(index.lookup(&asked, &only(6)).unwrap(), [None, None, None, Some(place(6, 5))]);
        assert_eq!(index.lookup(&asked, &only(3)).unwrap(), [None, None, Some(place(3, 3)), None]);
        assert_eq!(index.lookup(&asked, &only(2)).unwrap(), [None; 4]);
    };
    check(&*index);
    index.apply(&[(id(9), place(9, 9))], state(3)).unwrap();
    assert_eq!(index.lookup(&[id(9)], &all_live).unwrap(), [Some(place(9, 9))]);
    index.rebuild(&mut std::iter::empty(), state(4)).unwrap();
    assert_eq!(index.lookup(&[id(5), id(9)], &all_live).unwrap(), [None, None]);
    assert_eq!(index.state().unwrap(), Some(state(4)));
    index.rebuild(&mut entries.into_iter().map(Ok), state(2)).unwrap();
    reopened(fixture, index, check);
}

fn interrupted_rebuild(fixture: &IndexFixture) {
    let index = (fixture.open)();
    index.apply(&[(id(1), place(1, 1))], state(1)).unwrap();
    let mut entries =
        [Ok((id(2), place(2, 2))), Err(Error::damaged("pack", "made for this test"))].into_iter();
    let error = index.rebuild(&mut entries, state(2)).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert_eq!(index.state().unwrap(), None);
    index.rebuild(&mut [Ok((id(3), place(3, 3)))].into_iter(), state(3)).unwrap();
    assert_eq!(index.state().unwrap(), Some(state(3)));
    assert_eq!(index.lookup(&[id(3)], &all_live).unwrap(), [Some(place(3, 3))]);
    let mut entries = [Err(Error::damaged("pack", "made for this test"))].into_iter();
    index.rebuild(&mut entries, state(4)).unwrap_err();
    reopened(fixture, index, |index| assert_eq!(index.state().unwrap(), None));
}

fn many_entries(fixture: &IndexFixture) {
    let entries: Vec<_> = (0..MANY).map(|number| (id(number), place(1, number))).collect();
    let asked: Vec<ChunkId> = (0..2 * MANY).map(id).collect();
    let check = |index: &dyn Index| {
        let found = index.lookup(&asked, &all_live).unwrap();
        for (number, found) in (0..2 * MANY).zip(found) {
            assert_eq!(found, (number < MANY).then(|| place(1, number)));
        }
    };
    let index = (fixture.open)();
    index.apply(&entries, state(1)).unwrap();
    check(&*index);
    index.rebuild(&mut entries.iter().rev().copied().map(Ok), state(2)).unwrap();
    check(&*index);
    let about = index.len_estimate().unwrap();
    assert!((MANY / 2..MANY * 2).contains(&about), "{about} is far from {MANY}");
    reopened(fixture, index, check);
}

fn lookups_beside_additions(fixture: &IndexFixture) {
    let index = (fixture.open)();
    index.apply(&[(id(0), place(1, 0))], state(0)).unwrap();
    std::thread::scope(|scope| {
        let index = &*index;
        for _ in 0..3 {
            scope.spawn(move || {
                loop {
                    // The state is read first, so all additions up to it must be found.
                    let seq = index.state().unwrap().expect("always set").seq;
                    let asked: Vec<_> = (0..=seq).map(id).collect();
                    let found = index.lookup(&asked, &all_live).unwrap();
                    assert!(found.iter().all(Option::is_some), "all up to {seq}");
                    if seq == 100 {
                        break;
                    }
                }
            });
        }
        for seq in 1..=100 {
            index.apply(&[(id(seq), place(1, seq))], state(seq)).unwrap();
        }
    });
}

type Model = BTreeMap<ChunkId, BTreeSet<u8>>;

fn random_operations(fixture: &IndexFixture) {
    let mut random = Random::new(7);
    let mut index = (fixture.open)();
    let mut model = Model::new();
    for step in 0..120u64 {
        with_label(format_args!("step {step}"), || {
            let count = random.below(60);
            let entries: Vec<(ChunkId, Location)> = (0..count)
                .map(|_| (random.below(150), u8::try_from(random.below(5)).expect("small")))
                .map(|(number, pack)| (id(number), place(pack, number)))
                .collect();
            if random.percent(10) {
                let mut entries = entries.iter().copied().map(Ok::<_, Error>);
                index
                    .rebuild(&mut entries as &mut dyn Iterator<Item = Result<_>>, state(step))
                    .unwrap();
                model.clear();
            } else {
                index.apply(&entries, state(step)).unwrap();
            }
            for (id, place) in &entries {
                model.entry(*id).or_default().insert(place.pack.as_bytes()[0]);
            }
            check_model(&*index, &model, random.below(32));
            assert_eq!(index.state().unwrap(), Some(state(step)));
        });
        if fixture.persistent && random.percent(10) {
            drop(index);
            index = (fixture.open)();
        }
    }
}

fn check_model(index: &dyn Index, model: &Model, live: u64) {
    let is_live = |pack: &PackId| live >> pack.as_bytes()[0] & 1 == 1;
    let asked: Vec<_> = (0..150).map(id).collect();
    let found = index.lookup(&asked, &is_live).unwrap();
    for (number, found) in (0..150).zip(found) {
        let packs = model.get(&id(number)).cloned().unwrap_or_default();
        let live: Vec<u8> = packs.into_iter().filter(|pack| live >> pack & 1 == 1).collect();
        match found {
            Some(given) => {
                let pack = given.pack.as_bytes()[0];
                assert!(live.contains(&pack), "chunk {number} in pack {pack}");
                assert_eq!(given, place(pack, number));
            }
            None => assert_eq!(live, [0u8; 0], "chunk {number} has live places"),
        }
    }
}
