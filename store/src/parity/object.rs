//! The bytes of a parity object (FORMAT.md): header, parity, table, trailer.
//!
//! The table stands behind the parity because it holds its checksums, and stands in each object of a group, because one
//! of them must be enough. Nothing is sealed: all of it can be computed from the packs, which are. It is protected
//! against damage, not against forgery: whatever is restored by it counts only after it was compared with the
//! catalogue.

use super::layout::Layout;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::id::{GroupId, ObjectName, PackId, ParityId, RepositoryId};
use crate::limits::{
    PACK_BYTES_MAX, PARITY_DATA_MAX, PARITY_OBJECTS_MAX, PARITY_TABLE_BYTES_MAX, STRIPE_BYTES_MAX,
    STRIPE_BYTES_MIN,
};
use crate::pack::newer_or_damaged;

/// Length of the header, bytes.
pub(super) const HEADER_LEN: usize = 32;
/// Length of the trailer, bytes.
const TRAILER_LEN: usize = 16;
const MAGIC: [u8; 8] = *b"stillpa\0";
const TRAILER_MAGIC: [u8; 8] = *b"\0end.spa";
const VERSION: u8 = 1;
/// Version, zeros, length of a stripe, repository.
const TABLE_FIXED_LEN: usize = 8 + RepositoryId::LEN;
/// Name, length, hash.
const MEMBER_LEN: usize = PackId::LEN + 8 + 32;
const HASH_LEN: usize = 32;

/// The beginning of the BLAKE3 of one part of a stripe: it finds damage, and is never trusted against forgery.
pub(super) type Checksum = [u8; 16];

/// The checksum of a part; a pack's part ends with the pack, the zeros behind it do not count.
pub(super) fn checksum(part: &[u8]) -> Checksum {
    let mut checksum = Checksum::default();
    blake3::Hasher::new().update(part).finalize_xof().fill(&mut checksum);
    checksum
}

/// What stands before the parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The group.
    pub group: GroupId,
    /// Number of packs.
    pub data: u16,
    /// Number of parity objects.
    pub parity: u16,
    /// Which of them this is, from 0.
    pub number: u16,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let fields = [
            MAGIC.as_slice(),
            &[VERSION, 0],
            &self.data.to_le_bytes(),
            &self.parity.to_le_bytes(),
            &self.number.to_le_bytes(),
            self.group.as_bytes(),
        ];
        for (slot, byte) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *slot = *byte;
        }
        bytes
    }

    /// # Errors
    /// `Damaged`, `Unsupported`, `LimitExceeded`.
    pub fn parse(object: ObjectName, bytes: &[u8]) -> Result<Self> {
        let damaged = |detail: &str| Error::damaged(object, detail);
        let mut fields = Fields(bytes);
        let short = || damaged("it is too short");
        if fields.take::<8>().ok_or_else(short)? != MAGIC {
            return Err(damaged("it does not start as a parity object"));
        }
        let [version, zero] = fields.take().ok_or_else(short)?;
        check_version(object, version)?;
        let mut counts = [0; 3];
        for count in &mut counts {
            *count = u16::from_le_bytes(fields.take().ok_or_else(short)?);
        }
        let group = GroupId::from_bytes(fields.take().ok_or_else(short)?);
        let [data, parity, number] = counts;
        limit(object, "number of packs", data.into(), PARITY_DATA_MAX)?;
        limit(object, "number of parity objects", parity.into(), PARITY_OBJECTS_MAX)?;
        if zero != 0 || data == 0 || number >= parity || !fields.0.is_empty() {
            return Err(damaged("its header has impossible values"));
        }
        Ok(Self { group, data, parity, number })
    }
}

/// A pack of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name.
    pub pack: PackId,
    /// Its length, bytes.
    pub size_bytes: u64,
    /// BLAKE3 of all its bytes.
    pub hash: [u8; 32],
}

/// What all parity objects of a group say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// The repository.
    pub repository: RepositoryId,
    /// Length of a stripe, bytes.
    pub stripe_bytes: u32,
    /// The packs, in the order in which they stand in the code.
    pub members: Vec<Member>,
    /// For each pack the checksums of its parts.
    pub data_checksums: Vec<Vec<Checksum>>,
    /// For each parity object the checksums of its parts.
    pub parity_checksums: Vec<Vec<Checksum>>,
}

impl Table {
    /// The geometry of the group.
    pub fn layout(&self) -> Layout {
        let sizes = self.members.iter().map(|member| member.size_bytes).collect();
        Layout::new(self.stripe_bytes, sizes)
    }

    /// The table and the trailer behind it, as they stand in the object with this header.
    pub fn encode(&self, header: &Header) -> Vec<u8> {
        let mut out = vec![VERSION, 0, 0, 0];
        out.extend_from_slice(&self.stripe_bytes.to_le_bytes());
        out.extend_from_slice(self.repository.as_bytes());
        for member in &self.members {
            out.extend_from_slice(member.pack.as_bytes());
            out.extend_from_slice(&member.size_bytes.to_le_bytes());
            out.extend_from_slice(&member.hash);
        }
        for checksums in self.data_checksums.iter().chain(&self.parity_checksums) {
            checksums.iter().for_each(|checksum| out.extend_from_slice(checksum));
        }
        let hash = table_hash(&header.encode(), &out);
        out.extend_from_slice(&hash);
        let len = u32::try_from(out.len()).expect("limited by PARITY_TABLE_BYTES_MAX");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        out.extend_from_slice(&TRAILER_MAGIC);
        out
    }

    /// Parses the table of the object with this header, without the trailer.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`, `LimitExceeded`.
    pub fn parse(object: ObjectName, header: &Header, bytes: &[u8]) -> Result<Self> {
        let damaged = |detail: &str| Error::damaged(object, format!("table: {detail}"));
        let short = || damaged("it is too short");
        let (content, hash) = bytes.split_last_chunk::<HASH_LEN>().ok_or_else(short)?;
        if let Some(version) = content.first() {
            check_version(object, *version)?;
        }
        if table_hash(&header.encode(), content) != *hash {
            return Err(damaged("its checksum does not fit"));
        }
        let mut fields = Fields(content);
        let [_version, zeros @ ..] = fields.take::<4>().ok_or_else(short)?;
        let stripe_bytes = u32::from_le_bytes(fields.take().ok_or_else(short)?);
        let repository = RepositoryId::from_bytes(fields.take().ok_or_else(short)?);
        let lengths = STRIPE_BYTES_MIN..=STRIPE_BYTES_MAX;
        if zeros != [0; 3] || !lengths.contains(&stripe_bytes) || stripe_bytes % 64 != 0 {
            return Err(damaged("it has impossible values"));
        }
        let (data, parity) = (usize::from(header.data), usize::from(header.parity));
        let members = fields.slots::<MEMBER_LEN>(data).ok_or_else(short)?;
        let members = parse_members(object, members)?;
        let (data_checksums, parity_checksums) = (Vec::new(), Vec::new());
        let mut table =
            Self { repository, stripe_bytes, members, data_checksums, parity_checksums };
        let layout = table.layout();
        let mut checksums = |stripes: u64| -> Result<Vec<Checksum>> {
            let count = usize::try_from(stripes).map_err(|_| short())?;
            Ok(fields.slots::<16>(count).ok_or_else(short)?.to_vec())
        };
        for member in 0..data {
            table.data_checksums.push(checksums(layout.stripes_of(member))?);
        }
        for _ in 0..parity {
            table.parity_checksums.push(checksums(layout.stripes())?);
        }
        if fields.0.is_empty() { Ok(table) } else { Err(damaged("it is too long")) }
    }
}

fn parse_members(object: ObjectName, slots: &[[u8; MEMBER_LEN]]) -> Result<Vec<Member>> {
    let mut members: Vec<Member> = Vec::with_capacity(slots.len());
    for slot in slots {
        let mut fields = Fields(slot);
        let member = fields.take().zip(fields.take()).zip(fields.take());
        let ((pack, size), hash) = member.expect("a slot is as long as its fields");
        let (pack, size_bytes) = (PackId::from_bytes(pack), u64::from_le_bytes(size));
        limit_bytes(object, "length of a pack", size_bytes, PACK_BYTES_MAX)?;
        if size_bytes == 0 || members.iter().any(|member| member.pack == pack) {
            return Err(Error::damaged(object, "table: a pack is empty or named twice"));
        }
        members.push(Member { pack, size_bytes, hash });
    }
    Ok(members)
}

fn table_hash(header: &[u8; HEADER_LEN], table: &[u8]) -> [u8; HASH_LEN] {
    *blake3::Hasher::new().update(header).update(table).finalize().as_bytes()
}

/// Length of each parity object of a group, bytes; all are equally long.
pub(super) fn object_len(layout: &Layout, members: usize, parity: usize) -> u64 {
    let of_members: u64 = (0..members).map(|member| layout.stripes_of(member)).sum();
    let wide = |count: usize| u64::try_from(count).expect("64 bits hold any count");
    let checksums = (of_members + layout.stripes() * wide(parity)) * wide(size_of::<Checksum>());
    let fixed = HEADER_LEN + TABLE_FIXED_LEN + MEMBER_LEN * members + HASH_LEN + TRAILER_LEN;
    wide(fixed) + checksums + layout.parity_bytes()
}

/// Reads header and table of a parity object of `size` bytes.
///
/// # Errors
/// `Missing`, `Damaged`, `Unsupported`, `LimitExceeded`, or what the backend gives.
pub(super) fn read_table(
    backend: &dyn Backend,
    id: ParityId,
    size: u64,
) -> Result<(Header, Table)> {
    let found = read_and_parse(backend, id, size);
    found.map_err(|error| newer_or_damaged(backend, ObjectName::Parity(id), error))
}

fn read_and_parse(backend: &dyn Backend, id: ParityId, size: u64) -> Result<(Header, Table)> {
    let object = ObjectName::Parity(id);
    let damaged = |detail: &str| Error::damaged(object, detail);
    let wide = |len: usize| u64::try_from(len).expect("64 bits hold any length");
    let trailer_start = size
        .checked_sub(wide(TRAILER_LEN))
        .filter(|start| *start >= wide(HEADER_LEN))
        .ok_or_else(|| damaged("it is too short"))?;
    let header = Header::parse(object, &backend.read(&object, 0..wide(HEADER_LEN))?)?;
    let trailer = backend.read(&object, trailer_start..size)?;
    let table_len = parse_trailer(object, &trailer)?;
    let table_start = trailer_start
        .checked_sub(table_len)
        .filter(|start| *start >= wide(HEADER_LEN))
        .ok_or_else(|| damaged("its table is longer than the object"))?;
    let table = Table::parse(object, &header, &backend.read(&object, table_start..trailer_start)?)?;
    if wide(HEADER_LEN) + table.layout().parity_bytes() != table_start {
        return Err(damaged("it does not hold the parity of its packs"));
    }
    Ok((header, table))
}

/// What a parity object says of its group, believed as far as its checksum goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParityDescription {
    /// The repository.
    pub repository: RepositoryId,
    /// The group.
    pub group: GroupId,
    /// The packs and their lengths, bytes.
    pub packs: Vec<(PackId, u64)>,
    /// Parity objects of the group.
    pub parity: u16,
    /// Which of them this is, from 0.
    pub number: u16,
    /// Stripes.
    pub stripes: u64,
}

/// Reads what a parity object says of its group, without any key; its parity is not read.
///
/// # Errors
/// `Missing`, `Damaged`, `Unsupported`, `LimitExceeded`, or what the backend gives.
pub fn describe(backend: &dyn Backend, id: ParityId) -> Result<ParityDescription> {
    let object = ObjectName::Parity(id);
    let size = backend.size_bytes(&object)?.ok_or_else(|| Error::missing(object))?;
    let (header, table) = read_table(backend, id, size)?;
    Ok(ParityDescription {
        repository: table.repository,
        group: header.group,
        packs: table.members.iter().map(|member| (member.pack, member.size_bytes)).collect(),
        parity: header.parity,
        number: header.number,
        stripes: table.layout().stripes(),
    })
}

/// The length of the table, from the last bytes of the object.
fn parse_trailer(object: ObjectName, trailer: &[u8]) -> Result<u64> {
    let damaged = |detail: &str| Error::damaged(object, detail);
    let mut fields = Fields(trailer);
    let read = (fields.take(), fields.take::<4>(), fields.take());
    let (Some(len), Some([version, zeros @ ..]), Some(magic)) = read else {
        return Err(damaged("it has no trailer"));
    };
    if magic != TRAILER_MAGIC {
        return Err(damaged("it does not end as a parity object"));
    }
    check_version(object, version)?;
    if zeros != [0; 3] {
        return Err(damaged("the trailer has impossible values"));
    }
    let len = u64::from(u32::from_le_bytes(len));
    let max = u64::try_from(PARITY_TABLE_BYTES_MAX).expect("64 bits hold any length");
    limit_bytes(object, "length of the table", len, max)?;
    Ok(len)
}

fn check_version(object: ObjectName, version: u8) -> Result<()> {
    if version > VERSION {
        let (found, supported) = (version.into(), VERSION.into());
        return Err(Error::Unsupported { object: object.to_string(), found, supported });
    }
    if version != VERSION {
        return Err(Error::damaged(object, format!("there is no version {version}")));
    }
    Ok(())
}

fn limit(object: ObjectName, what: &'static str, found: usize, limit: usize) -> Result<()> {
    let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    limit_bytes(object, what, wide(found), wide(limit))
}

fn limit_bytes(object: ObjectName, what: &'static str, found: u64, limit: u64) -> Result<()> {
    if found <= limit {
        return Ok(());
    }
    Err(Error::LimitExceeded { object: object.path(), what, found, limit })
}

/// Takes fields from the front of bytes from outside.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    /// `count` fields of `N` bytes each, not copied; None where there are fewer.
    fn slots<const N: usize>(&mut self, count: usize) -> Option<&'a [[u8; N]]> {
        let (slots, rest) = self.0.split_at_checked(count.checked_mul(N)?)?;
        self.0 = rest;
        Some(slots.as_chunks::<N>().0)
    }
}
