//! What every backend must do: one suite, run against each implementation.

use crate::random::Random;
use crate::with_label;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use stillpoint_store::backend::{Backend, Swap, put, read_whole};
use stillpoint_store::id::{ParityId, SlotId};
use stillpoint_store::{Error, NodeId, ObjectKind, ObjectName, PackId, SnapshotId};

/// One empty place for a repository.
pub struct BackendFixture {
    /// Gives a new handle on the same storage.
    pub open: Box<dyn Fn() -> Arc<dyn Backend>>,
    /// Kept until the end of a check, such as a temporary folder.
    pub guard: Box<dyn Any>,
}

const KINDS: [ObjectKind; 6] = [
    ObjectKind::Config,
    ObjectKind::Key,
    ObjectKind::Pack,
    ObjectKind::Catalogue,
    ObjectKind::Snapshot,
    ObjectKind::Parity,
];
/// Larger than any buffer or mapping threshold of an implementation.
const LARGE_BYTES: usize = 3 << 20;
const THREADS: u8 = 8;

/// Runs all checks, each on a fresh place.
///
/// # Panics
/// Where the backend does not do what the trait promises.
pub fn backend_suite(make: impl Fn() -> BackendFixture) {
    let checks: [(&str, fn(&BackendFixture)); 11] = [
        ("objects come back whole and in ranges", objects_come_back),
        ("large objects come back", large_objects_come_back),
        ("an unfinished object leaves nothing", unfinished_leaves_nothing),
        ("a taken name is never reused", taken_names_stay),
        ("bytes are put back whole", replacing_is_whole),
        ("lists are complete", lists_are_complete),
        ("removal is idempotent", removal_is_idempotent),
        ("the head swaps", head_swaps),
        ("racing swaps lose no update", racing_swaps_lose_nothing),
        ("racing creators: one wins", racing_creators),
        ("random operations agree with a map", random_operations),
    ];
    with_label("initialise refuses a repository", || initialise_refuses_a_repository(&make()));
    with_label("remains of an attempt go", || remains_of_an_attempt_go(&make()));
    for (what, check) in checks {
        let fixture = make();
        with_label(what, || {
            (fixture.open)().initialise().unwrap();
            check(&fixture);
        });
    }
}

/// A name of any kind; config stands for every number.
fn name(kind: ObjectKind, number: u8) -> ObjectName {
    match kind {
        ObjectKind::Config => ObjectName::Config,
        ObjectKind::Key => ObjectName::Key(SlotId::from_bytes([number; 16])),
        ObjectKind::Pack => ObjectName::Pack(PackId::from_bytes([number; 16])),
        ObjectKind::Catalogue => ObjectName::Catalogue(NodeId::from_bytes([number; 32])),
        ObjectKind::Snapshot => ObjectName::Snapshot(SnapshotId::from_bytes([number; 16])),
        ObjectKind::Parity => ObjectName::Parity(ParityId::from_bytes([number; 16])),
    }
}

fn objects_come_back(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    for kind in KINDS {
        let name = name(kind, 0xab);
        assert!(matches!(backend.read(&name, 0..0), Err(Error::Missing { .. })));
        assert_eq!(backend.size_bytes(&name).unwrap(), None);
        let mut writer = backend.create(&name).unwrap();
        for part in [&b"0123"[..], b"", b"456789"] {
            writer.write(part).unwrap();
        }
        writer.finish().unwrap();
        for handle in [backend.clone(), (fixture.open)()] {
            assert_eq!(handle.size_bytes(&name).unwrap(), Some(10));
            for (range, bytes) in [
                (0..10, &b"0123456789"[..]),
                (0..0, b""),
                (10..10, b""),
                (3..7, b"3456"),
                (9..10, b"9"),
            ] {
                assert_eq!(&*handle.read(&name, range).unwrap(), bytes);
            }
            #[allow(clippy::reversed_empty_ranges, reason = "that is what is tested")]
            for range in [0..11, 11..11, 5..u64::MAX, u64::MAX..u64::MAX, 7..3] {
                let error = handle.read(&name, range).err().expect("outside");
                assert!(matches!(error, Error::Damaged { .. }), "{error}");
            }
        }
    }
    put(&*backend, &name(ObjectKind::Pack, 1), b"").unwrap();
    assert_eq!(backend.read(&name(ObjectKind::Pack, 1), 0..0).unwrap().len(), 0);
}

fn large_objects_come_back(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    let name = name(ObjectKind::Pack, 1);
    let mut random = Random::new(1);
    let bytes = random.bytes(LARGE_BYTES);
    let mut writer = backend.create(&name).unwrap();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (part, later) = rest.split_at(rest.len().min(1 + random.index(200_000)));
        writer.write(part).unwrap();
        rest = later;
    }
    writer.finish().unwrap();
    assert_eq!(&*read_whole(&*backend, &name, LARGE_BYTES).unwrap(), &bytes[..]);
    assert!(matches!(
        read_whole(&*backend, &name, LARGE_BYTES - 1),
        Err(Error::LimitExceeded { .. })
    ));
    let windows: Vec<_> = (0..50)
        .map(|_| {
            let start = random.index(LARGE_BYTES);
            let end = start + random.index(LARGE_BYTES - start + 1);
            (start..end, backend.read(&name, start as u64..end as u64).unwrap())
        })
        .collect();
    backend.remove(&name).unwrap();
    for (range, window) in windows {
        assert_eq!(&*window, &bytes[range], "bytes stay readable after a removal");
    }
}

fn unfinished_leaves_nothing(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    let name = name(ObjectKind::Pack, 1);
    let mut writer = backend.create(&name).unwrap();
    writer.write(&[7; LARGE_BYTES]).unwrap();
    let nothing = |backend: &dyn Backend| {
        assert_eq!(backend.size_bytes(&name).unwrap(), None);
        assert_eq!(backend.list(ObjectKind::Pack).unwrap(), []);
    };
    nothing(&*backend);
    drop(writer);
    nothing(&*backend);
    nothing(&*(fixture.open)());
    put(&*backend, &name, b"the name is still free").unwrap();
}

fn taken_names_stay(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    for kind in KINDS {
        let name = name(kind, 9);
        let mut early = backend.create(&name).unwrap();
        early.write(b"begun early, finished late").unwrap();
        put(&*backend, &name, b"first").unwrap();
        assert!(matches!(early.finish(), Err(Error::AlreadyExists { .. })));
        let again = put(&*(fixture.open)(), &name, b"second");
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        assert_eq!(&*backend.read(&name, 0..5).unwrap(), b"first");
        assert_eq!(backend.size_bytes(&name).unwrap(), Some(5));
    }
}

fn replacing_is_whole(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    for kind in KINDS {
        let name = name(kind, 9);
        let (damaged, good) = (vec![1; 200_000], vec![2; 200_000]);
        put(&*backend, &name, &damaged).unwrap();
        let window = backend.read(&name, 0..200_000).unwrap();
        for finished in [false, true] {
            let mut writer = backend.replace(&name).unwrap();
            writer.write(&good).unwrap();
            assert_eq!(&*backend.read(&name, 0..200_000).unwrap(), &damaged[..]);
            if finished {
                writer.finish().unwrap();
            }
        }
        for handle in [backend.clone(), (fixture.open)()] {
            assert_eq!(&*handle.read(&name, 0..200_000).unwrap(), &good[..]);
            assert_eq!(handle.list(kind).unwrap(), [(name, 200_000)]);
        }
        assert_eq!(&*window, &damaged[..], "bytes stay readable after they were replaced");
        backend.remove(&name).unwrap();
        let mut writer = backend.replace(&name).unwrap();
        writer.write(&good).unwrap();
        writer.finish().unwrap();
        assert_eq!(backend.size_bytes(&name).unwrap(), Some(200_000), "a lost object comes back");
    }
}

fn lists_are_complete(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    for kind in KINDS {
        assert_eq!(backend.list(kind).unwrap(), []);
    }
    for kind in KINDS {
        let numbers = if kind == ObjectKind::Config { 0..=0 } else { 0..=u8::MAX };
        let wanted: Vec<_> =
            numbers.step_by(51).map(|number| (name(kind, number), u64::from(number) + 1)).collect();
        for (name, size) in &wanted {
            put(&*backend, name, &vec![1; usize::try_from(*size).unwrap()]).unwrap();
        }
        let mut listed = (fixture.open)().list(kind).unwrap();
        listed.sort_unstable();
        assert_eq!(listed, wanted);
    }
}

fn removal_is_idempotent(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    for kind in KINDS {
        let (gone, stays) = (name(kind, 1), name(kind, 2));
        backend.remove(&gone).unwrap();
        put(&*backend, &gone, b"bytes").unwrap();
        if gone != stays {
            put(&*backend, &stays, b"bytes").unwrap();
        }
        backend.read(&gone, 0..5).unwrap();
        backend.remove(&gone).unwrap();
        backend.remove(&gone).unwrap();
        for handle in [backend.clone(), (fixture.open)()] {
            assert!(matches!(handle.read(&gone, 0..5), Err(Error::Missing { .. })));
            assert_eq!(handle.size_bytes(&gone).unwrap(), None);
            let left = if gone == stays { 0 } else { 1 };
            assert_eq!(handle.list(kind).unwrap().len(), left);
        }
    }
}

fn head_swaps(fixture: &BackendFixture) {
    let (one, two) = ((fixture.open)(), (fixture.open)());
    assert_eq!(one.read_head().unwrap(), None);
    assert_eq!(one.swap_head(Some(b""), b"x").unwrap(), Swap::Lost);
    assert_eq!(one.swap_head(Some(b"a"), b"x").unwrap(), Swap::Lost);
    assert_eq!(one.read_head().unwrap(), None);
    assert_eq!(one.swap_head(None, b"a").unwrap(), Swap::Done);
    assert_eq!(two.read_head().unwrap().as_deref(), Some(&b"a"[..]));
    for wrong in [None, Some(&b"b"[..]), Some(b""), Some(b"ab")] {
        assert_eq!(two.swap_head(wrong, b"x").unwrap(), Swap::Lost);
    }
    assert_eq!(two.swap_head(Some(b"a"), b"bb").unwrap(), Swap::Done);
    assert_eq!(one.swap_head(Some(b"a"), b"x").unwrap(), Swap::Lost);
    assert_eq!(one.read_head().unwrap().as_deref(), Some(&b"bb"[..]));
    let long = vec![3; 100_000];
    assert_eq!(one.swap_head(Some(b"bb"), &long).unwrap(), Swap::Done);
    assert_eq!(two.read_head().unwrap(), Some(long));
    for kind in KINDS {
        assert_eq!(one.list(kind).unwrap(), [], "the head is not an object");
    }
}

fn racing_swaps_lose_nothing(fixture: &BackendFixture) {
    const ROUNDS: u64 = 10;
    let handles: Vec<_> = (0..THREADS).map(|_| (fixture.open)()).collect();
    std::thread::scope(|scope| {
        for backend in &handles {
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    loop {
                        let old = backend.read_head().unwrap();
                        let text = old.as_deref().map_or("0", |head| str::from_utf8(head).unwrap());
                        let new = (text.parse::<u64>().unwrap() + 1).to_string();
                        if backend.swap_head(old.as_deref(), new.as_bytes()).unwrap() == Swap::Done
                        {
                            break;
                        }
                    }
                }
            });
        }
    });
    let total = (u64::from(THREADS) * ROUNDS).to_string();
    assert_eq!((fixture.open)().read_head().unwrap(), Some(total.into_bytes()));
}

fn racing_creators(fixture: &BackendFixture) {
    for number in 0..10 {
        let name = name(ObjectKind::Catalogue, number);
        let handles: Vec<_> = (0..THREADS).map(|_| (fixture.open)()).collect();
        let barrier = std::sync::Barrier::new(handles.len());
        let winners: Vec<u8> = std::thread::scope(|scope| {
            let barrier = &barrier;
            let racers: Vec<_> = handles
                .iter()
                .zip(0u8..)
                .map(|(backend, racer)| {
                    scope.spawn(move || {
                        let mut writer = backend.create(&name).unwrap();
                        writer.write(&[racer; 5000]).unwrap();
                        barrier.wait();
                        match writer.finish() {
                            Ok(()) => Some(racer),
                            Err(Error::AlreadyExists { .. }) => None,
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "exactly one creator wins");
        let backend = (fixture.open)();
        assert_eq!(&*backend.read(&name, 0..5000).unwrap(), &[winners[0]; 5000]);
    }
}

fn initialise_refuses_a_repository(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    assert_eq!(backend.read_head().unwrap(), None);
    assert_eq!(backend.size_bytes(&ObjectName::Config).unwrap(), None);
    backend.initialise().unwrap();
    backend.initialise().unwrap(); // cut short before the config was written: may run again
    put(&*backend, &ObjectName::Config, b"config").unwrap();
    assert!(matches!(backend.initialise(), Err(Error::AlreadyExists { .. })));
    assert!(matches!((fixture.open)().initialise(), Err(Error::AlreadyExists { .. })));
    assert!(!backend.location().is_empty());
}

fn remains_of_an_attempt_go(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    backend.initialise().unwrap();
    let beginning = [name(ObjectKind::Key, 1), name(ObjectKind::Catalogue, 2)];
    beginning.iter().for_each(|name| put(&*backend, name, b"bytes").unwrap());
    assert_eq!(backend.swap_head(None, b"head").unwrap(), Swap::Done);
    drop(backend); // cut short before the config was written
    let backend = (fixture.open)();
    backend.initialise().unwrap();
    assert_eq!(backend.read_head().unwrap(), None);
    for name in beginning {
        assert_eq!(
            backend.list(name.kind()).unwrap(),
            [],
            "a slot of another repository would stay"
        );
    }
    assert_eq!(backend.swap_head(None, b"head").unwrap(), Swap::Done);
    for kind in [ObjectKind::Pack, ObjectKind::Snapshot, ObjectKind::Parity] {
        put(&*backend, &name(kind, 3), b"data").unwrap();
        assert!(
            matches!(backend.initialise(), Err(Error::Invalid(_))),
            "{kind:?} without a config"
        );
        assert_eq!(backend.read_head().unwrap().as_deref(), Some(&b"head"[..]));
        backend.remove(&name(kind, 3)).unwrap();
    }
}

fn random_operations(fixture: &BackendFixture) {
    let backend = (fixture.open)();
    let mut random = Random::new(42);
    let mut model: BTreeMap<ObjectName, Vec<u8>> = BTreeMap::new();
    for step in 0..150 {
        let kind = *random.pick(&KINDS);
        let name = name(kind, u8::try_from(random.below(6)).unwrap());
        with_label(format_args!("step {step}, {name}"), || match random.below(4) {
            0 | 1 => {
                let len = random.index(3000);
                let bytes = random.bytes(len);
                match put(&*backend, &name, &bytes) {
                    Ok(()) => assert!(model.insert(name, bytes).is_none()),
                    Err(Error::AlreadyExists { .. }) => assert!(model.contains_key(&name)),
                    Err(error) => panic!("{error}"),
                }
            }
            2 => {
                backend.remove(&name).unwrap();
                model.remove(&name);
            }
            _ => {
                let found = match read_whole(&*backend, &name, 3000) {
                    Ok(bytes) => Some(bytes.to_vec()),
                    Err(Error::Missing { .. }) => None,
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(found.as_ref(), model.get(&name));
            }
        });
    }
    let mut listed: Vec<_> = KINDS.iter().flat_map(|kind| backend.list(*kind).unwrap()).collect();
    listed.sort_unstable();
    let wanted: Vec<_> = model.iter().map(|(name, bytes)| (*name, bytes.len() as u64)).collect();
    assert_eq!(listed, wanted);
}
