//! Computing the parity objects of a group from its packs.
//!
//! Reads each pack once, in order and beside the others, a bounded window at a time, and compares it with the hash in
//! the catalogue on the way: parity over a damaged pack would preserve the damage.

use super::code::Coder;
use super::group::stripes_at_once;
use super::object::{Checksum, Header, Member, Table, checksum};
use crate::backend::{Backend, ObjectBytes, ObjectWriter};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::id::{ObjectName, PackId, RepositoryId};
use rayon::prelude::*;

/// What is to be computed.
pub(super) struct Job<'a> {
    pub backend: &'a dyn Backend,
    pub cancel: &'a Cancel,
    pub repository: RepositoryId,
    pub stripe_bytes: u32,
    /// Header of the first parity object; the others differ by their number.
    pub header: Header,
    pub members: &'a [Member],
}

/// A parity object on its way: what was written so far, and where to.
pub(super) struct Output {
    /// None computes its hash alone.
    pub writer: Option<Box<dyn ObjectWriter>>,
    hasher: blake3::Hasher,
    size_bytes: u64,
}

impl Output {
    /// Nothing is written yet.
    pub fn new(writer: Option<Box<dyn ObjectWriter>>) -> Self {
        Self { writer, hasher: blake3::Hasher::new(), size_bytes: 0 }
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size_bytes += u64::try_from(bytes.len()).expect("64 bits hold any length");
        match &mut self.writer {
            Some(writer) => writer.write(bytes),
            None => Ok(()),
        }
    }

    /// BLAKE3 of what was written.
    pub fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// Length of what was written, bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// The outcome of [`encode`].
pub(super) enum Encoded {
    /// All bytes are written; the writers are not finished.
    Whole(Table),
    /// These packs are not what the catalogue says, or cannot be read.
    Damaged(Vec<(PackId, Error)>),
}

/// A pack while it is read.
struct Reading {
    member: Member,
    hasher: blake3::Hasher,
    checksums: Vec<Checksum>,
    window: ObjectBytes,
}

/// Computes the parity objects into `outputs`, one for each number.
///
/// # Errors
/// Errors of writing; `Cancelled`.
pub(super) fn encode(job: &Job<'_>, outputs: &mut [Output]) -> Result<Encoded> {
    let mut table = Table {
        repository: job.repository,
        stripe_bytes: job.stripe_bytes,
        members: job.members.to_vec(),
        data_checksums: Vec::new(),
        parity_checksums: vec![Vec::new(); outputs.len()],
    };
    let layout = table.layout();
    let headers = (0..job.header.parity).map(|number| Header { number, ..job.header });
    for (output, header) in outputs.iter_mut().zip(headers.clone()) {
        output.write(&header.encode())?;
    }
    let mut readings: Vec<Reading> = job.members.iter().copied().map(Reading::new).collect();
    let step = stripes_at_once(job.members.len(), job.stripe_bytes);
    let stripe_len = usize::try_from(job.stripe_bytes).expect("a stripe fits into memory");
    let mut start = 0;
    while start < layout.stripes() {
        job.cancel.check()?;
        let end = layout.stripes().min(start + step);
        let damaged: Vec<(PackId, Error)> = readings
            .par_iter_mut()
            .enumerate()
            .filter_map(|(at, reading)| {
                let range = layout.data_range(at, start).start..layout.data_range(at, end - 1).end;
                reading.advance(job.backend, range, stripe_len).err()
            })
            .collect();
        if !damaged.is_empty() {
            return Ok(Encoded::Damaged(damaged));
        }
        let rows: Vec<Vec<Vec<u8>>> = (start..end)
            .into_par_iter()
            .map_init(
                || Coder::new(job.members.len(), job.header.parity.into()),
                |coder, stripe| {
                    let at = usize::try_from(stripe - start).expect("a window fits into memory");
                    let parts: Vec<&[u8]> =
                        readings.iter().map(|reading| reading.part(at, stripe_len)).collect();
                    let len = usize::try_from(layout.code_len(stripe)).expect("as above");
                    coder.encode(&parts, len)
                },
            )
            .collect();
        for row in rows {
            let places = outputs.iter_mut().zip(&mut table.parity_checksums);
            for ((output, checksums), part) in places.zip(row) {
                checksums.push(checksum(&part));
                output.write(&part)?;
            }
        }
        start = end;
    }
    let damaged: Vec<_> = readings.iter().filter_map(|reading| reading.verify().err()).collect();
    if !damaged.is_empty() {
        return Ok(Encoded::Damaged(damaged));
    }
    table.data_checksums = readings.into_iter().map(|reading| reading.checksums).collect();
    for (output, header) in outputs.iter_mut().zip(headers) {
        output.write(&table.encode(&header))?;
    }
    Ok(Encoded::Whole(table))
}

impl Reading {
    fn new(member: Member) -> Self {
        let (hasher, window) = (blake3::Hasher::new(), Vec::new().into());
        Self { member, hasher, checksums: Vec::new(), window }
    }

    /// Reads the next window.
    fn advance(
        &mut self,
        backend: &dyn Backend,
        range: std::ops::Range<u64>,
        stripe_len: usize,
    ) -> Result<(), (PackId, Error)> {
        self.window = Vec::new().into();
        if !range.is_empty() {
            let name = ObjectName::Pack(self.member.pack);
            self.window = backend.read(&name, range).map_err(|error| (self.member.pack, error))?;
        }
        self.hasher.update(&self.window);
        self.checksums.extend(self.window.chunks(stripe_len).map(checksum));
        Ok(())
    }

    /// The part of the window's stripe with this number.
    fn part(&self, at: usize, stripe_len: usize) -> &[u8] {
        self.window.chunks(stripe_len).nth(at).unwrap_or_default()
    }

    fn verify(&self) -> Result<(), (PackId, Error)> {
        if *self.hasher.finalize().as_bytes() == self.member.hash {
            return Ok(());
        }
        let name = ObjectName::Pack(self.member.pack);
        let error = Error::damaged(name, "its bytes are not those that were committed");
        Err((self.member.pack, error))
    }
}
