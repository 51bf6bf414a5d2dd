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
            assert_eq!(sealed.len(), plaintext.len() + MetadataKey::OVERHEAD);
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

/// Every flipped bit and every cut of a sealed record is damage; a newer version is unsupported.
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
            let newer = byte == 0 && changed[0] > 1;
            assert_eq!(matches!(error, Error::Unsupported { supported: 1, .. }), newer, "{error}");
            assert_eq!(error.is_damage(), !newer, "{error}");
        }
        let error = metadata.open(&place, &sealed[..byte]).unwrap_err();
        assert!(error.is_damage(), "cut to {byte}: {error}");
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
        *keys.psk,
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

/// Nothing secret can be printed.
#[test]
fn debug_shows_no_secret() {
    let key = RepositoryKey::from_bytes(&[0xab; 32]);
    let shown = format!("{key:?} {:?} {:?}", key.metadata(), key.domain(DomainId(0)));
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
