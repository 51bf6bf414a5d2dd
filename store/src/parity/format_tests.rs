//! The vectors of FORMAT.md: a parity object and entries of the catalogue.

use super::encode::{Encoded, Job, Output, encode};
use super::entry::{ParityEntry, ParityObjects};
use super::object::{Header, Member, read_table};
use crate::backend::{Backend, MemoryBackend, put};
use crate::cancel::Cancel;
use crate::catalogue::{decode_value, encode_value};
use crate::env::Timestamp;
use crate::format_vectors::{check, vector};
use crate::id::{GroupId, ObjectName, PackId, ParityId, RepositoryId};

const GROUP: GroupId = GroupId::from_bytes([0x33; 16]);
const FIRST: PackId = PackId::from_bytes([0x44; 16]);
const SECOND: PackId = PackId::from_bytes([0x55; 16]);
const ZERO: ParityId = ParityId::from_bytes([0x66; 16]);
const ONE: ParityId = ParityId::from_bytes([0x77; 16]);

/// A parity object of two packs is written as the page says, and its table reads.
#[test]
fn a_parity_object() {
    let backend = MemoryBackend::new();
    let packs = [(FIRST, (0..100).collect()), (SECOND, vec![0xaa; 70])];
    let members = packs.map(|(pack, content): (PackId, Vec<u8>)| {
        put(&backend, &ObjectName::Pack(pack), &content).unwrap();
        let size_bytes = u64::try_from(content.len()).unwrap();
        Member { pack, size_bytes, hash: *blake3::hash(&content).as_bytes() }
    });
    let job = Job {
        backend: &backend,
        cancel: &Cancel::new(),
        repository: RepositoryId::from_bytes([0x11; 16]),
        stripe_bytes: 4096,
        header: Header { group: GROUP, data: 2, parity: 2, number: 0 },
        members: &members,
    };
    let one = ObjectName::Parity(ONE);
    let mut outputs = [Output::new(None), Output::new(Some(backend.create(&one).unwrap()))];
    let Encoded::Whole(table) = encode(&job, &mut outputs).unwrap() else { panic!("no damage") };
    let [_, output] = outputs;
    let size = output.size_bytes();
    output.writer.unwrap().finish().unwrap();
    check("parity-object", &backend.read(&one, 0..size).unwrap());
    let stored = MemoryBackend::new();
    put(&stored, &one, &vector("parity-object")).unwrap();
    let read = read_table(&stored, ONE, size).unwrap();
    assert_eq!(read, (Header { number: 1, ..job.header }, table));
}

/// Entries of the catalogue.
#[test]
fn an_announced_group() {
    let announced = Timestamp { seconds: 5, nanos: 6 };
    let entry = ParityEntry {
        members: vec![FIRST, SECOND],
        parities: vec![ZERO, ONE],
        announced,
        objects: None,
    };
    check("catalogue-group-announced", &encode_value(&entry));
    assert_eq!(decode_value::<ParityEntry>(&vector("catalogue-group-announced")).unwrap(), entry);
    entry.check(GROUP).unwrap();
}

/// The entry of a group whose objects are durable; numbers of hashes that do not fit are refused.
#[test]
fn a_complete_group() {
    let hash: [u8; 32] = std::array::from_fn(|at| [0x44, 0x55][at % 2]);
    let hashes = vec![serde_bytes::ByteArray::new(hash)];
    let entry = ParityEntry {
        members: vec![FIRST],
        parities: vec![ZERO],
        announced: Timestamp { seconds: 5, nanos: 6 },
        objects: Some(ParityObjects { size_bytes: 300, hashes }),
    };
    check("catalogue-group", &encode_value(&entry));
    assert_eq!(decode_value::<ParityEntry>(&vector("catalogue-group")).unwrap(), entry);
    entry.check(GROUP).unwrap();
    let two = ParityEntry { parities: vec![ZERO, ONE], ..entry.clone() };
    assert!(two.check(GROUP).unwrap_err().is_damage());
    let none = ParityEntry { members: Vec::new(), ..entry.clone() };
    assert!(none.check(GROUP).unwrap_err().is_damage());
    let many = ParityEntry { members: vec![FIRST; 129], ..entry };
    assert!(matches!(many.check(GROUP), Err(crate::Error::LimitExceeded { .. })));
}
