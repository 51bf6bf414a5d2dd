//! Configuration and key slots: what opens them, what does not, and what damage does.

use super::config::*;
use super::slot::*;
use crate::crypto::test_env::SeededEnv;
use crate::crypto::{Generation, KeyRing, RepositoryKey};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::{RepositoryId, SlotId};
use crate::limits::{ARGON2_KIB_MAX, ARGON2_LANES_MAX, ARGON2_PASSES_MAX, RECORD_BYTES_MAX};
use crate::pack::Level;
use proptest::prelude::*;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([7; 16]);

fn config(env: &SeededEnv) -> Config {
    let sizes = |avg| Sizes { min: avg / 4, avg, max: avg * 8 };
    let chunks = ChunkSizes { general: sizes(65536), dump: sizes(8192), image: sizes(32768) };
    let config = Config::new(REPOSITORY, env.now(), chunks, sizes(32768));
    Config { level: Level::new(-3).unwrap(), ..config }
}

fn root() -> RepositoryKey {
    RepositoryKey::from_bytes(&[3; 32])
}

fn key_file() -> Secret {
    Secret::key_file(&[1; 32])
}

fn ring() -> KeyRing {
    KeyRing::new(root())
}

fn wrap_for(keys: &KeyRing, secret: &Secret, cost: KdfCost, env: &SeededEnv) -> Result<KeySlot> {
    let replaces = (!keys.generation().is_first()).then_some([6; 32]);
    let new = NewSlot { secret, label: "mine", cost };
    KeySlot::wrap(keys, &new, &REPOSITORY, replaces, env)
}

fn wrap(secret: &Secret, env: &SeededEnv) -> KeySlot {
    wrap_for(&ring(), secret, KdfCost::LEAST, env).unwrap()
}

/// The configuration comes back as it was, for the holder of the key alone.
#[test]
fn configurations_round_trip() {
    let env = SeededEnv::new(1);
    let config = config(&env);
    let bytes = config.encode(&root().metadata());
    let parsed = UncheckedConfig::parse(&bytes).unwrap();
    assert_eq!(parsed.repository(), REPOSITORY);
    assert_eq!(parsed.check(&root().metadata()).unwrap(), config);
    let other = RepositoryKey::from_bytes(&[4; 32]).metadata();
    let error = UncheckedConfig::parse(&bytes).unwrap().check(&other).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let forged = Config { level: Level::STORE, ..config }.encode(&other);
    let error = UncheckedConfig::parse(&forged).unwrap().check(&root().metadata()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

/// Flips, cuts and excess length of a record in the clear are damage; a newer version is unsupported.
fn check_damage(bytes: &[u8], newest: u32, parse: &dyn Fn(&[u8]) -> Result<()>) {
    parse(bytes).unwrap();
    for byte in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.to_vec();
            changed[byte] ^= 1 << bit;
            let error = parse(&changed).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "byte {byte} bit {bit}: {error}");
        }
        let error = parse(&bytes[..byte]).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "cut to {byte}: {error}");
    }
    let magic = bytes.first_chunk::<8>().unwrap();
    let newer = super::frame(magic, newest + 1, b"whatever comes then");
    let error = parse(&newer).unwrap_err();
    let is_newer = |found, supported| found == newest + 1 && supported == newest;
    assert!(
        matches!(error, Error::Unsupported { found, supported, .. } if is_newer(found, supported)),
        "{error}"
    );
    let error = parse(&super::frame(magic, 0, b"")).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let error = parse(&vec![0; RECORD_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { .. }), "{error}");
    let error = parse(&super::frame(magic, 1, &[bytes, b"more"].concat())).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

/// A damaged configuration is named as damaged.
#[test]
fn damaged_configurations_are_refused() {
    let bytes = config(&SeededEnv::new(1)).encode(&root().metadata());
    check_damage(&bytes, 1, &|bytes| UncheckedConfig::parse(bytes).map(|_| ()));
}

/// A damaged key slot is named as damaged, never as a wrong passphrase.
#[test]
fn damaged_slots_are_refused() {
    let env = SeededEnv::new(1);
    for keys in [ring(), ring().rotated(&env).unwrap()] {
        let slot = wrap_for(&keys, &key_file(), KdfCost::LEAST, &env).unwrap();
        check_damage(&slot.encode(), 2, &|bytes| {
            unlock([(slot.id(), bytes)], &key_file(), &REPOSITORY).map(|_| ())
        });
    }
}

/// Each slot opens with its own secret; any other secret is wrong, and nothing else is said.
#[test]
fn slots_open_with_their_secret() {
    let env = SeededEnv::new(2);
    let secrets = [
        Secret::passphrase("correct horse"),
        Secret::passphrase("battery staple"),
        key_file(),
        Secret::KeyFile(Secret::generate_key_file(&env)),
    ];
    let slots: Vec<KeySlot> = secrets.iter().map(|secret| wrap(secret, &env)).collect();
    let stored: Vec<(SlotId, Vec<u8>)> =
        slots.iter().map(|slot| (slot.id(), slot.encode())).collect();
    let all = || stored.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
    for (secret, slot) in secrets.iter().zip(&slots) {
        let (id, key) = unlock(all(), secret, &REPOSITORY).unwrap();
        assert_eq!((id, key.newest().expose()), (slot.id(), root().expose()));
        let parsed = KeySlot::parse(slot.id(), &slot.encode()).unwrap();
        assert_eq!(&parsed, slot);
        assert_eq!((parsed.label(), parsed.created()), ("mine", env.now()));
    }
    for secret in [
        Secret::passphrase("correct hors"),
        Secret::passphrase("Correct horse"),
        Secret::key_file(b"correct horse"),
        Secret::key_file(&[2; 32]),
        Secret::passphrase("\u{1}"),
    ] {
        let error = unlock(all(), &secret, &REPOSITORY).unwrap_err();
        assert!(matches!(error, Error::WrongSecret), "{error}");
    }
    assert!(matches!(unlock([], &key_file(), &REPOSITORY), Err(Error::WrongSecret)));
}

/// A slot of later keys gives them and all before; of several slots that a secret opens, the newest comes first.
#[test]
fn slots_of_later_generations() {
    let env = SeededEnv::new(9);
    let second = ring().rotated(&env).unwrap();
    let third = second.rotated(&env).unwrap();
    let secret = Secret::passphrase("correct horse");
    let slots = [&second, &ring(), &third].map(|keys| {
        let slot = wrap_for(keys, &secret, KdfCost::LEAST, &env).unwrap();
        assert!(slot.holds(keys));
        slot
    });
    let stored = slots.each_ref().map(|slot| (slot.id(), slot.encode()));
    let all = || stored.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
    let found: Vec<_> =
        openings(all(), &secret, &REPOSITORY).map(|opened| opened.unwrap()).collect();
    let generations: Vec<_> = found.iter().map(|(slot, _)| slot.generation().0).collect();
    assert_eq!(generations, [2, 1, 0]);
    for ((slot, keys), expected) in found.iter().zip([&third, &second, &ring()]) {
        assert_eq!(keys.encode(), expected.encode());
        assert_eq!(slot.replaces(), (!slot.generation().is_first()).then_some([6; 32]));
        assert!(slot.holds(keys) && slot.generation() == keys.generation());
    }
    assert_eq!(unlock(all(), &secret, &REPOSITORY).unwrap().0, slots[2].id());
    assert!(!slots[0].holds(&ring().rotated(&env).unwrap()), "another key of the same generation");
}

/// A slot whose version does not fit its keys is damaged: an old program must never take later keys for the first.
#[test]
fn versions_fit_generations() {
    let env = SeededEnv::new(10);
    let later = ring().rotated(&env).unwrap();
    for (keys, wrong) in [(ring(), 2), (later, 1)] {
        let slot = wrap_for(&keys, &key_file(), KdfCost::LEAST, &env).unwrap();
        let bytes = slot.encode();
        let magic = bytes.first_chunk::<8>().unwrap();
        let changed = super::frame(magic, wrong, &bytes[12..bytes.len() - 32]);
        let error = KeySlot::parse(slot.id(), &changed).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert_eq!(slot.generation() == Generation::FIRST, wrong == 2);
    }
}

/// A slot under another name or of another repository does not open, although the secret is right.
#[test]
fn slots_are_bound_to_their_place() {
    let slot = wrap(&key_file(), &SeededEnv::new(3));
    let bytes = slot.encode();
    let renamed = KeySlot::parse(SlotId::from_bytes([1; 16]), &bytes).unwrap();
    let elsewhere = RepositoryId::from_bytes([8; 16]);
    for result in [renamed.unwrap(&key_file(), &REPOSITORY), slot.unwrap(&key_file(), &elsewhere)] {
        assert!(matches!(result, Err(Error::Damaged { .. })), "{result:?}");
    }
}

/// One damaged slot hides no healthy one, and where none opens it is named instead of a wrong secret.
#[test]
fn a_damaged_slot_hides_no_other() {
    let env = SeededEnv::new(4);
    let slot = wrap(&key_file(), &env);
    let good = slot.encode();
    let mut bad = good.clone();
    bad[20] ^= 1;
    let broken = (SlotId::random(&env), bad.as_slice());
    let (id, _) = unlock([broken, (slot.id(), &good)], &key_file(), &REPOSITORY).unwrap();
    assert_eq!(id, slot.id());
    let error = unlock([broken, (slot.id(), &good)], &Secret::key_file(&[9; 40]), &REPOSITORY);
    assert!(matches!(error, Err(Error::Damaged { .. })), "{error:?}");
}

/// What a slot may cost is limited before any memory is taken, when it is written and when it is read.
#[test]
fn costs_are_capped() {
    let env = SeededEnv::new(5);
    let secret = Secret::passphrase("x");
    let least = KdfCost::LEAST;
    for cost in [
        KdfCost { memory_kib: ARGON2_KIB_MAX + 1, ..least },
        KdfCost { passes: ARGON2_PASSES_MAX + 1, ..least },
        KdfCost { lanes: ARGON2_LANES_MAX + 1, memory_kib: 1 << 20, ..least },
    ] {
        let result = wrap_for(&ring(), &secret, cost, &env);
        assert!(matches!(result, Err(Error::LimitExceeded { .. })), "{result:?}");
    }
    for cost in [KdfCost { passes: 0, ..least }, KdfCost { memory_kib: 7, ..least }] {
        let result = wrap_for(&ring(), &secret, cost, &env);
        assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
    }
    let cost = KdfCost { memory_kib: 1 << 16, ..least };
    let slot = wrap_for(&ring(), &secret, cost, &env).unwrap();
    let dearer = replace(&slot.encode(), b"jmemory_kib\x1a\0", |byte| *byte = 0xff);
    let error = KeySlot::parse(slot.id(), &dearer).unwrap_err();
    let found = (0xff << 24) + (1 << 16);
    assert!(matches!(error, Error::LimitExceeded { found: f, .. } if f == found), "{error}");
    let impossible = replace(&slot.encode(), b"fpasses\x01", |value| *value = 0);
    let error = KeySlot::parse(slot.id(), &impossible).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

/// Changes the last byte of a pattern inside the terms of a slot, and makes the checksum fit again.
fn replace(slot: &[u8], pattern: &[u8], change: impl FnOnce(&mut u8)) -> Vec<u8> {
    let mut bytes = slot.to_vec();
    let at = bytes.windows(pattern.len()).position(|window| window == pattern).unwrap();
    change(&mut bytes[at + pattern.len() - 1]);
    let magic = *bytes.first_chunk::<8>().unwrap();
    super::frame(&magic, 1, &bytes[12..bytes.len() - 32])
}

/// Changed terms are noticed even where the checksum was made to fit.
#[test]
fn forged_terms_are_noticed() {
    let slot = wrap(&key_file(), &SeededEnv::new(6));
    let forged = replace(&slot.encode(), b"mine", |letter| *letter = b'd');
    let parsed = KeySlot::parse(slot.id(), &forged).unwrap();
    assert_eq!(parsed.label(), "mind");
    let result = parsed.unwrap(&key_file(), &REPOSITORY);
    assert!(matches!(result, Err(Error::Damaged { .. })), "{result:?}");
}

/// Weak secrets are refused when a slot is made.
#[test]
fn weak_secrets_are_refused() {
    let env = SeededEnv::new(7);
    for secret in [Secret::passphrase(""), Secret::key_file(b""), Secret::key_file(&[1; 31])] {
        let result = wrap_for(&ring(), &secret, KdfCost::LEAST, &env);
        assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
    }
    assert_eq!(format!("{:?}", Secret::passphrase("hidden")), "Passphrase(redacted)");
    assert_eq!(format!("{:?}", key_file()), "KeyFile(redacted)");
}

proptest! {
    /// Random bytes in well-formed framing never panic and never open.
    #[test]
    fn random_records_are_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(UncheckedConfig::parse(&super::frame(b"stillcf\0", 1, &body)).is_err());
        let slot = super::frame(b"stillks\0", 1, &body);
        let id = SlotId::from_bytes([1; 16]);
        prop_assert!(unlock([(id, slot.as_slice())], &key_file(), &REPOSITORY).is_err());
    }
}

/// Every place of a body, with every other value in it.
fn changed_bodies(body: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let places = 0..body.len();
    places.flat_map(move |at| (0..=255).map(move |value| (at, value))).filter_map(
        move |(at, value)| {
            let mut changed = body.to_vec();
            changed[at] = value;
            (body[at] != value).then_some(changed)
        },
    )
}

/// A record whose CBOR was changed anywhere is refused, unless the change means nothing: names of fields may be byte
/// strings as well, outside of what is sealed.
#[test]
fn changed_cbor_never_passes() {
    let env = SeededEnv::new(8);
    let bytes = config(&env).encode(&root().metadata());
    let mut tried = 0;
    for changed in changed_bodies(&bytes[12..bytes.len() - 32]) {
        let checked = UncheckedConfig::parse(&super::frame(b"stillcf\0", 1, &changed))
            .and_then(|config| config.check(&root().metadata()));
        assert!(checked.is_err(), "{changed:?}");
        tried += 1;
    }
    let slot = wrap(&key_file(), &env);
    let bytes = slot.encode();
    for changed in changed_bodies(&bytes[12..bytes.len() - 32]) {
        let changed = super::frame(b"stillks\0", 1, &changed);
        let opened = unlock([(slot.id(), changed.as_slice())], &key_file(), &REPOSITORY);
        let means_the_same = || KeySlot::parse(slot.id(), &changed).unwrap().encode() == bytes;
        assert!(opened.is_err() || means_the_same(), "{changed:?}");
        tried += 1;
    }
    assert!(tried > 100 * 255, "{tried}");
}
