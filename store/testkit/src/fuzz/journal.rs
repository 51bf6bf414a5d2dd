//! The kernel's records of changed files.
//!
//! The parser is compiled here from its source: its crate would bring the clients of databases into every build of a test.

#[path = "../../../capture/src/journal/records.rs"]
#[allow(dead_code, reason = "the journal uses more of it than the fuzzer")]
mod records;

use records::{Event, HANDLE_BYTES_MAX, Handle, encode, events, mask};

/// What the kernel's queue gave. Whatever is understood can be written again, and is the same then.
pub fn journal(data: &[u8]) -> bool {
    let found: Vec<_> = events(data).collect();
    let is_whole = found.iter().all(Result::is_ok);
    let failed = found.iter().position(Result::is_err);
    assert!(failed.is_none_or(|place| place + 1 == found.len()), "something follows an error");
    let found: Vec<Event<'_>> = found.into_iter().flatten().collect();
    for event in &found {
        for handle in event.directory.iter().chain(&event.object) {
            assert!(handle.bytes.len() <= HANDLE_BYTES_MAX, "a handle is longer than any");
        }
        assert!(!event.name.contains(&0) && !event.name.contains(&b'/'), "an impossible name");
    }
    let again: Vec<u8> =
        found.iter().filter(|event| event.name.len() <= 255).flat_map(encode).collect();
    let again = events(&again).map(|event| event.expect("what was encoded parses"));
    let short = found.iter().copied().filter(|event| event.name.len() <= 255);
    assert!(again.eq(short), "an event changed on its way through bytes");
    is_whole && !data.is_empty()
}

/// Events of each shape.
pub(super) fn seed() -> Vec<u8> {
    let handle = |bytes| Handle { filesystem: 0x0102_0304_0506_0708, kind: 1, bytes };
    let named = |mask, name| Event {
        mask,
        directory: Some(handle(b"\x02\0\0\0\0\0\0\0")),
        name,
        object: None,
    };
    let object = Some(handle(b"\x0c\0\0\0\x9a\x5b\xf2\x11"));
    let events = [
        named(mask::CREATE, b"new"),
        named(mask::CREATE | mask::ONDIR, b"directory"),
        named(mask::ATTRIB | mask::ONDIR, b"."),
        Event { object, ..named(mask::MODIFY | mask::CLOSE_WRITE, b"with \xff and object") },
        Event { object, mask: mask::ATTRIB, directory: None, name: b"" },
        Event { object: None, mask: mask::OVERFLOW, directory: None, name: b"" },
    ];
    events.iter().flat_map(encode).collect()
}
