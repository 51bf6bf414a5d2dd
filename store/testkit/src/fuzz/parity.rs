//! The parity target: an object that claims to protect a real pack, in a repository that has lost that pack.
//!
//! The seed is written here by FORMAT.md, not by the store: with one pack and one parity object, the parity is the pack.

use super::{REPOSITORY, seeds};
use crate::SeededEnv;
use std::sync::{Arc, LazyLock};
use stillpoint_store::backend::{Backend, Contents, MemoryBackend, put};
use stillpoint_store::crypto::KeyRing;
use stillpoint_store::id::{GroupId, ParityId, SlotId};
use stillpoint_store::record::Secret;
use stillpoint_store::record::slot::{KdfCost, KeySlot, NewSlot};
use stillpoint_store::{Env, ObjectName, OpenOptions, PackId, Repository};

const HEADER_LEN: usize = 32;
const STRIPE_BYTES: usize = 4096;
const TRAILER_REST: &[u8; 12] = b"\x01\0\0\0\0end.spa";
const OBJECT: ObjectName = ObjectName::Parity(ParityId::from_bytes([21; 16]));

/// A repository without a single pack, and the pack that it has lost.
struct Lost {
    contents: Contents,
    pack: PackId,
    bytes: Vec<u8>,
}

static LOST: LazyLock<Lost> = LazyLock::new(|| {
    let (pack, bytes) = seeds::real_pack();
    let env = SeededEnv::new(4);
    let keys = KeyRing::new(super::repository_key());
    let new = NewSlot { secret: &secret(), label: "laptop", cost: KdfCost::LEAST };
    let slot = KeySlot::wrap(&keys, &new, &REPOSITORY, None, &env).expect("a strong secret");
    let slot_name: SlotId = slot.id();
    let mut contents = Contents::default();
    let config = super::with_checksum(&seeds::config());
    contents.objects.insert(ObjectName::Config, Arc::new(config));
    contents.objects.insert(ObjectName::Key(slot_name), Arc::new(slot.encode()));
    Lost { contents, pack, bytes }
});

fn secret() -> Secret {
    Secret::key_file(&[1; 64])
}

/// Header, length of the table (2 bytes), table without its hash, parity. What heals a pack gives the very pack.
pub fn parity(data: &[u8]) -> bool {
    let Some((header, rest)) = data.split_at_checked(HEADER_LEN) else { return false };
    let Some((len, rest)) = rest.split_first_chunk::<2>() else { return false };
    let len = usize::from(u16::from_le_bytes(*len));
    let Some((table, parity)) = rest.split_at_checked(len) else { return false };
    let object = assemble(header, table, parity);
    let backend = MemoryBackend::with_contents(LOST.contents.clone());
    put(&backend, &OBJECT, &object).expect("memory takes everything");
    let backend: Arc<dyn Backend> = Arc::new(backend);
    let env: Arc<dyn Env> = Arc::new(SeededEnv::new(8));
    let options = OpenOptions::in_memory();
    let repository = Repository::open(Arc::clone(&backend), env, &secret(), options);
    let repository = repository.expect("config and slot are whole");
    let known = repository.packs_known_to_parity().expect("memory lists everything");
    let mut is_healed = false;
    for pack in known {
        if repository.heal_pack_without_catalogue(pack).is_ok_and(|healed| healed.is_some()) {
            assert!(pack == LOST.pack, "a pack of nowhere was healed");
            let len = u64::try_from(LOST.bytes.len()).expect("a small pack");
            let healed = backend.read(&ObjectName::Pack(pack), 0..len).expect("it was put back");
            assert!(*healed == *LOST.bytes, "a pack was healed to something else");
            is_healed = true;
        }
    }
    is_healed
}

/// The object with a table whose hash fits, which a fuzzer cannot guess.
fn assemble(header: &[u8], table: &[u8], parity: &[u8]) -> Vec<u8> {
    let hash = *blake3::Hasher::new().update(header).update(table).finalize().as_bytes();
    let len = u32::try_from(table.len() + hash.len()).expect("16 bits and a hash");
    [header, parity, table, &hash, &len.to_le_bytes(), TRAILER_REST].concat()
}

/// A group of the real pack alone with one parity object.
pub(super) fn seed() -> Vec<u8> {
    let pack = &LOST.bytes;
    let group = GroupId::from_bytes([22; 16]);
    let counts: Vec<u8> = [1u16, 1, 0].iter().flat_map(|count| count.to_le_bytes()).collect();
    let header = [b"stillpa\0\x01\0".as_slice(), &counts, group.as_bytes()].concat();
    let stripe = u32::try_from(STRIPE_BYTES).expect("4096");
    let size = u64::try_from(pack.len()).expect("a small pack");
    let mut table =
        [&[1, 0, 0, 0], stripe.to_le_bytes().as_slice(), REPOSITORY.as_bytes()].concat();
    table.extend_from_slice(LOST.pack.as_bytes());
    table.extend_from_slice(&size.to_le_bytes());
    table.extend_from_slice(blake3::hash(pack).as_bytes());
    let padded = |part: &[u8]| {
        let mut part = part.to_vec();
        part.resize(part.len().next_multiple_of(64), 0);
        part
    };
    let sum = |part: &[u8]| blake3::hash(part).as_bytes().first_chunk::<16>().copied();
    let parts = || pack.chunks(STRIPE_BYTES);
    table.extend(parts().filter_map(&sum).flatten());
    table.extend(parts().filter_map(|part| sum(&padded(part))).flatten());
    let parity: Vec<u8> = parts().flat_map(padded).collect();
    let len = u16::try_from(table.len()).expect("a short table").to_le_bytes();
    [header, len.to_vec(), table, parity].concat()
}
