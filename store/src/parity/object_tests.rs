//! The codec of parity objects: what is written is read, what was changed is refused, nothing panics.

use super::object::*;
use crate::backend::{Backend, MemoryBackend, put};
use crate::error::{Error, Result};
use crate::id::{GroupId, ObjectName, PackId, ParityId, RepositoryId};
use proptest::prelude::*;

const ID: ParityId = ParityId::from_bytes([7; 16]);
const OBJECT: ObjectName = ObjectName::Parity(ID);

/// A group of packs of these lengths; checksums and hashes are made up.
fn table(stripe_bytes: u32, sizes: &[u64], parity: u16) -> (Header, Table) {
    let data = u16::try_from(sizes.len()).unwrap();
    let group = GroupId::from_bytes([5; 16]);
    let header = Header { group, data, parity, number: parity - 1 };
    let member = |(at, size): (u8, &u64)| Member {
        pack: PackId::from_bytes([at; 16]),
        size_bytes: *size,
        hash: [at ^ 0xff; 32],
    };
    let mut table = Table {
        repository: RepositoryId::from_bytes([3; 16]),
        stripe_bytes,
        members: (0..).zip(sizes).map(member).collect(),
        data_checksums: Vec::new(),
        parity_checksums: Vec::new(),
    };
    let layout = table.layout();
    let checksums = |seed: u8, stripes: u64| -> Vec<Checksum> {
        (0..stripes).map(|at| checksum(&[seed, u8::try_from(at % 256).unwrap()])).collect()
    };
    let stripes = (0..sizes.len()).map(|at| layout.stripes_of(at));
    table.data_checksums = (0..).zip(stripes).map(|(at, n)| checksums(at, n)).collect();
    table.parity_checksums = (0..parity).map(|_| checksums(200, layout.stripes())).collect();
    (header, table)
}

fn object(header: &Header, table: &Table) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    bytes.resize(HEADER_LEN + usize::try_from(table.layout().parity_bytes()).unwrap(), 0xaa);
    bytes.extend_from_slice(&table.encode(header));
    bytes
}

fn read(bytes: &[u8]) -> Result<(Header, Table)> {
    let backend = MemoryBackend::new();
    put(&backend, &OBJECT, bytes).unwrap();
    read_table(&backend as &dyn Backend, ID, u64::try_from(bytes.len()).unwrap())
}

proptest! {
    /// What is written is read again, and is as long as was promised.
    #[test]
    fn round_trip(
        stripe in (4096u32 / 64..20_000 / 64).prop_map(|units| units * 64),
        sizes in prop::collection::vec(1u64..300_000, 1..8),
        parity in 1u16..5,
    ) {
        let (header, table) = table(stripe, &sizes, parity);
        let bytes = object(&header, &table);
        let promised = object_len(&table.layout(), sizes.len(), parity.into());
        prop_assert_eq!(u64::try_from(bytes.len()).unwrap(), promised);
        prop_assert_eq!(read(&bytes).unwrap(), (header, table));
    }

    /// A flip outside the parity bytes is noticed; so is every cut.
    #[test]
    fn damage_is_noticed(place in any::<prop::sample::Index>(), bit in 0u8..8, cut: bool) {
        let (header, table) = table(4096, &[9000, 100, 8192], 2);
        let mut bytes = object(&header, &table);
        let place = place.index(bytes.len());
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= 1 << bit;
        }
        let parity = HEADER_LEN..HEADER_LEN + usize::try_from(table.layout().parity_bytes()).unwrap();
        match read(&bytes) {
            Ok(found) => {
                prop_assert!(!cut && parity.contains(&place));
                prop_assert_eq!(found, (header, table));
            }
            Err(error) => prop_assert!(
                error.is_damage() || matches!(error, Error::Unsupported { .. }), "{}", error
            ),
        }
    }

    /// Any bytes behind a header, with a checksum that fits, parse or are refused; nothing panics or allocates for what
    /// is not there.
    #[test]
    fn any_table(data in 0u16..200, parity in 0u16..40, content in prop::collection::vec(any::<u8>(), 0..600)) {
        let header = Header { group: GroupId::from_bytes([1; 16]), data, parity, number: 0 };
        let encoded = header.encode();
        let hash = blake3::Hasher::new().update(&encoded).update(&content).finalize();
        let table = [&content[..], hash.as_bytes()].concat();
        let mut bytes = [&encoded[..], &table].concat();
        bytes.extend_from_slice(&u32::try_from(table.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(b"\x01\0\0\0\0end.spa");
        prop_assert!(read(&bytes).is_err(), "there is no parity");
        if Header::parse(OBJECT, &encoded).is_ok() {
            let _ = Table::parse(OBJECT, &header, &table);
        }
    }

    /// Any bytes at all.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
        let _ = Header::parse(OBJECT, &bytes);
    }
}

/// A newer version is unsupported if both ends name it, and damage otherwise; limits are named.
#[test]
fn newer_versions_and_limits() {
    let (header, table) = table(4096, &[5000, 6000], 2);
    let whole = object(&header, &table);
    let table_at = HEADER_LEN + usize::try_from(table.layout().parity_bytes()).unwrap();
    let mut newer = whole.clone();
    [8, table_at, whole.len() - 12].iter().for_each(|place| newer[*place] = 2);
    let error = read(&newer).unwrap_err();
    assert!(matches!(error, Error::Unsupported { found: 2, supported: 1, .. }), "{error}");
    for place in [8, table_at, whole.len() - 12] {
        let mut flipped = whole.clone();
        flipped[place] = 2;
        assert!(read(&flipped).unwrap_err().is_damage());
    }
    for (place, value) in [(10, 129), (12, 33)] {
        let mut many = whole.clone();
        many[place] = value;
        let error = read(&many).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { .. }), "{error}");
    }
    let mut long = whole.clone();
    let len = whole.len();
    long[len - 16..len - 12].copy_from_slice(&(17u32 << 20).to_le_bytes());
    assert!(matches!(read(&long).unwrap_err(), Error::LimitExceeded { .. }));
}
