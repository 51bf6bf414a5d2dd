//! Seals open where they belong and nowhere else; keys of different purposes are unrelated.

use super::test_env::SeededEnv;
use super::*;
use crate::error::Error;
use crate::id::{ChunkKind, DomainId, RepositoryId};
use proptest::prelude::*;

fn root() -> RepositoryKey {
    RepositoryKey::from_bytes(&[3; 32])
}

fn context(kind: RecordKind, name: &[u8]) -> RecordContext<'_> {
    RecordContext { repository: RepositoryId::from_bytes([4; 16]), kind, name }
}

/// A record opens in its own place with either cipher, and two seals of it have nothing in common.
#[test]
fn records_open_where_they_belong() {
    let (metadata, env) = (root().metadata(), SeededEnv::new(1));
    let place = context(RecordKind::Snapshot, b"name");
    for aead in [Aead::Aes256Gcm, Aead::ChaCha20Poly1305] {
        for plaintext in [b"".as_slice(), b"some record"] {
            let sealed = metadata.seal_with(aead, &place, plaintext, &env);
            assert_eq!(sealed.len(), plaintext.len() + MetadataKey::overhead(Generation::FIRST));
            assert_eq!(metadata.open(&place, &sealed).unwrap(), plaintext);
            let again = metadata.seal_with(aead, &place, plaintext, &env);
            assert_ne!(sealed[2..], again[2..], "each message has its own salt");
        }
    }
    let sealed = metadata.seal(&place, b"some record", &env);
    let elsewhere = RecordContext {
        repository: RepositoryId::from_bytes([5; 16]),
        ..context(place.kind, b"name")
    };
    for (what, place) in [
        ("another kind", context(RecordKind::Catalogue, b"name")),
        ("another name", context(RecordKind::Snapshot, b"nam")),
        ("another repository", elsewhere),
    ] {
        let result = metadata.open(&place, &sealed);
        assert!(matches!(result, Err(Error::Damaged { .. })), "{what}: {result:?}");
    }
    let other = RepositoryKey::from_bytes(&[9; 32]).metadata();
    assert!(matches!(other.open(&place, &sealed), Err(Error::Damaged { .. })));
}

/// Every flipped bit and every cut of a sealed record is damage; what says that it is of a newer version and is not one of
/// ours is unsupported, unless there can be no such version.
#[test]
fn changed_records_are_refused() {
    let (metadata, env) = (root().metadata(), SeededEnv::new(2));
    let place = context(RecordKind::Head, b"");
    let sealed = metadata.seal(&place, b"a head", &env);
    for byte in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[byte] ^= 1 << bit;
            let error = metadata.open(&place, &changed).unwrap_err();
            assert!(error.is_damage(), "{error}");
        }
        let error = metadata.open(&place, &sealed[..byte]).unwrap_err();
        assert!(error.is_damage(), "cut to {byte}: {error}");
    }
    for version in 3..=u8::MAX {
        let mut newer = sealed.clone();
        newer[0] = version;
        newer[40] ^= 1;
        let error = metadata.open(&place, &newer).unwrap_err();
        let claimed = u32::from(version);
        let newer =
            matches!(error, Error::Unsupported { found, supported: 2, .. } if found == claimed);
        assert_eq!(newer, version <= 15, "{error}");
        assert_eq!(error.is_damage(), !newer, "{error}");
    }
}

/// Keys of different purposes, domains and repositories differ; write-only keys name and cut alike.
#[test]
fn derived_keys_are_unrelated() {
    let keys = root().domain(DomainId(1));
    let id = |keys: &DomainKeys, kind| keys.id_key(kind).id(b"chunk");
    let all = [
        *id(&keys, ChunkKind::Data).as_bytes(),
        *id(&keys, ChunkKind::Node).as_bytes(),
        *id(&root().domain(DomainId(2)), ChunkKind::Data).as_bytes(),
        *id(&RepositoryKey::from_bytes(&[9; 32]).domain(DomainId(1)), ChunkKind::Data).as_bytes(),
        *keys.gear_secret(),
        *keys.boundary_key(),
        *keys.sealing().psk,
    ];
    for (at, key) in all.iter().enumerate() {
        assert!(!all[..at].contains(key), "key {at} occurs twice");
    }
    let host = keys.write_only();
    assert!(keys.can_open() && !host.can_open());
    assert_eq!(id(&host, ChunkKind::Data), id(&keys, ChunkKind::Data));
    assert_eq!(host.gear_secret(), keys.gear_secret());
    assert!(keys.verify_chunk(ChunkKind::Data, &id(&keys, ChunkKind::Data), b"chunk"));
    assert!(!keys.verify_chunk(ChunkKind::Node, &id(&keys, ChunkKind::Data), b"chunk"));
    assert!(!keys.verify_chunk(ChunkKind::Data, &id(&keys, ChunkKind::Data), b"chunk "));
}

fn rotated() -> (KeyRing, KeyRing, KeyRing) {
    let env = SeededEnv::new(5);
    let first = KeyRing::new(root());
    let second = first.rotated(&env).unwrap();
    let third = second.rotated(&env).unwrap();
    (first, second, third)
}

/// What a generation seals opens with it and with all later ones, and with none before.
#[test]
fn generations_open_backwards_only() {
    let (first, second, third) = rotated();
    let rings = [&first, &second, &third];
    let (env, place) = (SeededEnv::new(6), context(RecordKind::Snapshot, b"name"));
    for (sealer, sealing) in rings.iter().enumerate() {
        let generation = Generation(u32::try_from(sealer).unwrap());
        assert_eq!(
            (sealing.generation(), sealing.metadata().generation()),
            (generation, generation)
        );
        let sealed = sealing.metadata().seal(&place, b"some record", &env);
        assert_eq!(sealed.len(), 11 + MetadataKey::overhead(generation));
        assert_eq!(MetadataKey::generation_of(&place, &sealed).unwrap(), generation);
        let (keys, secret) = (sealing.domain(DomainId(1)), Key::new([8; 32]));
        let envelope = SealedPackKey::seal(&secret, &keys, b"info", &env);
        for (opener, opening) in rings.iter().enumerate() {
            let record = opening.metadata().open(&place, &sealed);
            let pack = envelope.open(&opening.domain(DomainId(1)), generation, b"info", "pack");
            if opener >= sealer {
                assert_eq!(
                    (record.unwrap().as_slice(), *pack.unwrap()),
                    (&b"some record"[..], *secret)
                );
            } else {
                assert!(matches!(record, Err(Error::Damaged { .. })), "{record:?}");
                assert!(matches!(pack, Err(Error::Damaged { .. })));
            }
        }
    }
}

/// The number of a generation cannot be changed in what it sealed: neither the keys of an older one, told that it
/// is theirs, nor any other key opens it.
#[test]
fn generations_cannot_be_renumbered() {
    let (first, second, third) = rotated();
    let (env, place) = (SeededEnv::new(7), context(RecordKind::Head, b""));
    let sealed = second.metadata().seal(&place, b"a head", &env);
    for byte in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[byte] ^= 1 << bit;
            assert!(third.metadata().open(&place, &changed).is_err(), "byte {byte} bit {bit}");
        }
        assert!(third.metadata().open(&place, &sealed[..byte]).is_err(), "cut to {byte}");
    }
    let as_first = [&[1, sealed[1]], &sealed[6..]].concat();
    for ring in [first, third] {
        assert!(ring.metadata().open(&place, &as_first).is_err());
    }
}

/// Rotation changes what seals, and nothing that names or cuts.
#[test]
fn identity_survives_rotation() {
    let (first, _, third) = rotated();
    let (old, new) = (first.domain(DomainId(1)), third.domain(DomainId(1)));
    for kind in [ChunkKind::Data, ChunkKind::Node] {
        assert_eq!(old.id_key(kind).id(b"chunk"), new.id_key(kind).id(b"chunk"));
    }
    assert_eq!(old.gear_secret(), new.gear_secret());
    assert_eq!(old.boundary_key(), new.boundary_key());
    assert_ne!(old.public_bytes(), new.public_bytes());
    assert_ne!(*old.sealing().psk, *new.sealing().psk);
    let (old, new) = (first.metadata(), third.metadata());
    assert_eq!(old.catalogue_boundary_key(), new.catalogue_boundary_key());
    assert_eq!(old.config_code(b"config"), new.config_code(b"config"));
    assert_ne!(first.name(), third.name());
    let host = third.domain(DomainId(1)).write_only();
    let envelope = SealedPackKey::seal(&Key::new([8; 32]), &host, b"info", &SeededEnv::new(1));
    assert!(envelope.open(&host, Generation(2), b"info", "pack").is_err());
    assert!(
        host.of_generation(Generation(0)).is_none(),
        "a host that may only write opens nothing"
    );
}

/// A wrapped ring comes back; what is cut, out of order or without the first generation does not.
#[test]
fn rings_round_trip() {
    let (first, second, third) = rotated();
    for ring in [&first, &second, &third] {
        let bytes = ring.encode();
        let again = KeyRing::decode(&bytes).unwrap();
        assert_eq!((again.encode(), again.name()), (bytes.clone(), ring.name()));
        for len in 0..bytes.len() {
            assert!(KeyRing::decode(&bytes[..len]).is_none(), "cut to {len}");
        }
    }
    let bytes = third.encode();
    let [a, b, c] = [&bytes[..36], &bytes[36..72], &bytes[72..]];
    for wrong in [[b, a, c], [a, a, c], [c, b, a], [a, c, b], [a, c, c]] {
        assert!(KeyRing::decode(&wrong.concat()).is_none());
    }
    let count = crate::limits::KEY_GENERATIONS_MAX;
    let many = |count: usize| -> Vec<u8> {
        let numbers = (0..u32::try_from(count).unwrap()).rev();
        numbers.flat_map(|number| [&number.to_le_bytes()[..], &[1; 32]].concat()).collect()
    };
    let full = KeyRing::decode(&many(count)).unwrap();
    let error = full.rotated(&SeededEnv::new(1)).unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { .. }), "{error}");
    assert!(KeyRing::decode(&many(count + 1)).is_none());
}

/// Nothing secret can be printed.
#[test]
fn debug_shows_no_secret() {
    let key = RepositoryKey::from_bytes(&[0xab; 32]);
    let shown = format!("{key:?} {:?} {:?}", key.metadata(), key.domain(DomainId(0)));
    assert_eq!(
        format!("{:?}", KeyRing::new(key)),
        "KeyRing { first: RepositoryKey(redacted), later: {} }"
    );
    assert_eq!(
        shown,
        "RepositoryKey(redacted) MetadataKey(redacted) \
         DomainKeys { domain: DomainId(0), can_open: true, .. }"
    );
}

proptest! {
    /// Random bytes never open and never panic.
    #[test]
    fn random_records_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), valid in any::<bool>()) {
        if valid && bytes.len() >= 2 {
            bytes[..2].copy_from_slice(&[1, 1]);
        }
        prop_assert!(root().metadata().open(&context(RecordKind::Footer, b"x"), &bytes).is_err());
    }
}
