//! Reads the kernel's event records: bytes in, events out.
//!
//! Pure, and needs nothing but the standard library (the fuzzer compiles it alone): knows the layout of `fanotify(7)` and nothing of files. Every length is compared with what is there before it is
//! believed. Resolving the handles is done elsewhere.

/// Bytes before the information records of an event.
const HEADER_LEN: usize = 24;
/// Version of the layout that is understood.
const VERSION: u8 = 3;
/// Bytes of an information record before its file handle's own fields: type, padding, length, file system.
const INFO_LEN: usize = 12;
/// The longest file handle that the kernel gives.
pub const HANDLE_BYTES_MAX: usize = 128;

const INFO_OBJECT: u8 = 1;
const INFO_DIRECTORY_NAME: u8 = 2;
const INFO_DIRECTORY: u8 = 3;

/// What happened, as bits of an event's mask (`FAN_*`).
pub mod mask {
    /// Content was written or cut.
    pub const MODIFY: u64 = 0x2;
    /// Metadata changed.
    pub const ATTRIB: u64 = 0x4;
    /// A file that was open for writing was closed.
    pub const CLOSE_WRITE: u64 = 0x8;
    /// A name went away by a rename.
    pub const MOVED_FROM: u64 = 0x40;
    /// A name came by a rename.
    pub const MOVED_TO: u64 = 0x80;
    /// A name was created.
    pub const CREATE: u64 = 0x100;
    /// A name was removed.
    pub const DELETE: u64 = 0x200;
    /// Events were lost.
    pub const OVERFLOW: u64 = 0x4000;
    /// It is about a directory.
    pub const ONDIR: u64 = 0x4000_0000;
    /// Bits that are about a name in a directory.
    pub const NAMES: u64 = MOVED_FROM | MOVED_TO | CREATE | DELETE;
    /// Bits that are about a rename.
    pub const MOVES: u64 = MOVED_FROM | MOVED_TO;
}

/// The bytes are not a sequence of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the kernel's event records cannot be read: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// What names an inode for as long as it exists, whatever its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle<'a> {
    /// The file system, as `statvfs` names it.
    pub filesystem: u64,
    /// How the file system reads the bytes.
    pub kind: i32,
    /// Opaque; at most [`HANDLE_BYTES_MAX`].
    pub bytes: &'a [u8],
}

/// One event, perhaps several that the kernel joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened; see [`mask`].
    pub mask: u64,
    /// The directory that holds the name, or that the event is about if the name is `.`.
    pub directory: Option<Handle<'a>>,
    /// The name in that directory; empty when the event has none.
    pub name: &'a [u8],
    /// The inode itself.
    pub object: Option<Handle<'a>>,
}

impl Event<'_> {
    /// True when one of these bits is set.
    pub fn has(&self, bits: u64) -> bool {
        self.mask & bits != 0
    }
}

/// The events of one read of the kernel's queue. After an error there is nothing more.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    rest: &'a [u8],
}

/// The events in these bytes.
pub fn events(bytes: &[u8]) -> Events<'_> {
    Events { rest: bytes }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = parse_event(self.rest);
        self.rest = parsed.as_ref().map_or(&[], |(_, rest)| *rest);
        Some(parsed.map(|(event, _)| event))
    }
}

/// Takes fields off the front, in the machine's byte order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(len).ok_or(Malformed("a record is cut off"))?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (front, rest) =
            self.0.split_first_chunk::<N>().ok_or(Malformed("a record is cut off"))?;
        self.0 = rest;
        Ok(*front)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn short(&mut self) -> Result<usize, Malformed> {
        self.array().map(|bytes| usize::from(u16::from_ne_bytes(bytes)))
    }

    fn word(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    fn len(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.word()?).map_err(|_| Malformed("a length is too large"))
    }
}

fn parse_event(bytes: &[u8]) -> Result<(Event<'_>, &[u8]), Malformed> {
    let mut header = Fields(bytes);
    let event_len = header.len()?;
    let version = header.byte()?;
    header.byte()?;
    let metadata_len = header.short()?;
    let mask = u64::from_ne_bytes(header.array()?);
    if version != VERSION {
        return Err(Malformed("their version is another one"));
    }
    if metadata_len < HEADER_LEN || event_len < metadata_len {
        return Err(Malformed("an event is shorter than its header"));
    }
    let (event, rest) =
        bytes.split_at_checked(event_len).ok_or(Malformed("an event is cut off"))?;
    let infos = event.get(metadata_len..).unwrap_or_default();
    Ok((parse_infos(mask, infos)?, rest))
}

fn parse_infos(mask: u64, mut infos: &[u8]) -> Result<Event<'_>, Malformed> {
    let mut event = Event { mask, directory: None, name: b"", object: None };
    while !infos.is_empty() {
        let mut header = Fields(infos);
        let kind = header.byte()?;
        header.byte()?;
        let len = header.short()?;
        if len < 4 {
            return Err(Malformed("a record is shorter than its header"));
        }
        let mut info = Fields(infos);
        let mut record = Fields(info.take(len)?);
        record.take(4)?;
        let is_directory = matches!(kind, INFO_DIRECTORY | INFO_DIRECTORY_NAME);
        if is_directory && event.directory.is_some()
            || kind == INFO_OBJECT && event.object.is_some()
        {
            return Err(Malformed("an event names two places"));
        }
        match kind {
            INFO_OBJECT => event.object = Some(parse_handle(&mut record)?),
            INFO_DIRECTORY => event.directory = Some(parse_handle(&mut record)?),
            INFO_DIRECTORY_NAME => {
                event.directory = Some(parse_handle(&mut record)?);
                event.name = parse_name(record.0)?;
            }
            // Records that nobody asked for say nothing about paths.
            _ => {}
        }
        infos = info.0;
    }
    Ok(event)
}

fn parse_handle<'a>(record: &mut Fields<'a>) -> Result<Handle<'a>, Malformed> {
    let (low, high) = (record.word()?, record.word()?);
    let len = record.len()?;
    let kind = i32::from_ne_bytes(record.array()?);
    if len > HANDLE_BYTES_MAX {
        return Err(Malformed("a file handle is too long"));
    }
    let filesystem = u64::from(low) | u64::from(high) << 32;
    Ok(Handle { filesystem, kind, bytes: record.take(len)? })
}

/// The name up to its zero byte; behind it stands padding.
fn parse_name(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(Malformed("a name has no end"))?;
    let name = bytes.get(..end).unwrap_or_default();
    if name.is_empty() || name == b".." || name.contains(&b'/') {
        return Err(Malformed("a name is impossible"));
    }
    Ok(name)
}

/// The bytes that the kernel gives for an event. For tests and the seeds of fuzzers; handles are at most
/// [`HANDLE_BYTES_MAX`] and names at most 255 bytes long.
pub fn encode(event: &Event<'_>) -> Vec<u8> {
    let mut infos = Vec::new();
    if let Some(directory) = &event.directory {
        let has_name = !event.name.is_empty();
        let kind = if has_name { INFO_DIRECTORY_NAME } else { INFO_DIRECTORY };
        encode_info(&mut infos, kind, directory, has_name.then_some(event.name));
    }
    if let Some(object) = &event.object {
        encode_info(&mut infos, INFO_OBJECT, object, None);
    }
    let len = u32::try_from(HEADER_LEN + infos.len()).expect("handles and names are short");
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend([VERSION, 0]);
    bytes.extend(u16::try_from(HEADER_LEN).expect("24").to_ne_bytes());
    bytes.extend(event.mask.to_ne_bytes());
    // No descriptor, and no process.
    bytes.extend((-1i32).to_ne_bytes());
    bytes.extend(0i32.to_ne_bytes());
    bytes.extend(infos);
    bytes
}

fn encode_info(infos: &mut Vec<u8>, kind: u8, handle: &Handle<'_>, name: Option<&[u8]>) {
    let name_len = name.map_or(0, |name| name.len() + 1);
    let used = INFO_LEN + 8 + handle.bytes.len() + name_len;
    let len = used.next_multiple_of(4);
    infos.extend([kind, 0]);
    infos.extend(u16::try_from(len).expect("handles and names are short").to_ne_bytes());
    let low = u32::try_from(handle.filesystem & 0xffff_ffff).expect("masked");
    let high = u32::try_from(handle.filesystem >> 32).expect("shifted");
    infos.extend([low.to_ne_bytes(), high.to_ne_bytes()].concat());
    let handle_len = u32::try_from(handle.bytes.len()).expect("handles are short");
    infos.extend(handle_len.to_ne_bytes());
    infos.extend(handle.kind.to_ne_bytes());
    infos.extend(handle.bytes);
    infos.extend(name.unwrap_or_default());
    infos.resize(infos.len() + len - used + usize::from(name.is_some()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: Handle<'_> = Handle { filesystem: 7 << 32 | 9, kind: 1, bytes: b"12345678" };
    const OBJECT: Handle<'_> = Handle { filesystem: 7 << 32 | 9, kind: -2, bytes: b"abc" };

    fn samples() -> Vec<Event<'static>> {
        let named = |name| Event {
            mask: mask::CREATE | mask::ONDIR,
            directory: Some(DIRECTORY),
            name,
            object: None,
        };
        vec![
            named(b"a"),
            named(b"abc"),
            named(b"abcd"),
            named(b"."),
            Event { object: Some(OBJECT), ..named(b"\xff\n") },
            Event { mask: mask::ATTRIB, directory: None, name: b"", object: Some(OBJECT) },
            Event { mask: mask::OVERFLOW, directory: None, name: b"", object: None },
            Event { mask: mask::MODIFY, directory: Some(DIRECTORY), name: b"", object: None },
        ]
    }

    // What is written is read, one event or many in a row.
    #[test]
    fn there_and_back() {
        let bytes: Vec<u8> = samples().iter().flat_map(encode).collect();
        let read: Vec<_> = events(&bytes).map(Result::unwrap).collect();
        assert_eq!(read, samples());
        assert_eq!(events(b"").count(), 0);
    }

    // A record that ends too early is refused, wherever it ends.
    #[test]
    fn every_cut_is_refused() {
        for event in samples() {
            let bytes = encode(&event);
            for len in 1..bytes.len() {
                let found: Vec<_> = events(&bytes[..len]).collect();
                assert!(matches!(found[..], [Err(_)]), "{event:?} cut to {len}: {found:?}");
            }
        }
    }

    // Lengths that lead nowhere, another version and impossible names are refused; nothing is read behind them.
    #[test]
    fn lies_are_refused() {
        let good = encode(&samples()[0]);
        let check = |place: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[place] = value;
            bytes.extend(&good);
            assert!(matches!(events(&bytes).next(), Some(Err(_))), "{value} at {place}");
            assert_eq!(events(&bytes).count(), 1);
        };
        check(4, 2);
        check(6, 8);
        check(0, 20);
        check(26, 3);
        check(26, 255);
        check(36, 200);
        check(36, 129);
        let twice = encode(&Event { directory: None, name: b"", object: Some(OBJECT), mask: 4 });
        let mut twice = [&twice[..], &twice[24..]].concat();
        let len = u32::try_from(twice.len()).unwrap();
        twice[..4].copy_from_slice(&len.to_ne_bytes());
        assert!(events(&twice).next().unwrap().is_err());
        for name in [&b".."[..], b"a/b"] {
            assert!(events(&encode(&Event { name, ..samples()[0] })).next().unwrap().is_err());
        }
    }
}
