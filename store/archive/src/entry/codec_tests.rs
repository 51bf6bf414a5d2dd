use super::*;
use crate::entry::{CONTENT_ITEMS_MAX, INLINE_BYTES_MAX, ManifestSchema};
use proptest::collection::vec;
use proptest::prelude::*;
use stillpoint_store::limits::TREE_LEVEL_MAX;
use stillpoint_store::tree::{Root, Schema};

fn time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn item() -> impl Strategy<Value = ContentItem> {
    prop_oneof![
        (any::<[u8; 32]>(), 1..=8_388_608u32)
            .prop_map(|(id, len)| ContentItem::Data { id: ChunkId::from_bytes(id), len }),
        (1..1u64 << 50).prop_map(|len| ContentItem::Hole { len }),
    ]
}

fn kind() -> impl Strategy<Value = (EntryKind, u64)> {
    let file = |content, size| (EntryKind::File(content), size);
    prop_oneof![
        bytes(INLINE_BYTES_MAX).prop_map(move |b| {
            let size = b.len() as u64;
            file(Content::Inline(b), size)
        }),
        vec(item(), 0..=CONTENT_ITEMS_MAX).prop_map(move |items| {
            let size = items.iter().map(ContentItem::len_bytes).sum();
            file(Content::Chunks(items), size)
        }),
        (any::<[u8; 32]>(), 0..=TREE_LEVEL_MAX, any::<u64>(), any::<u64>()).prop_map(
            move |(id, level, entries, bytes)| {
                let id = ChunkId::from_bytes(id);
                file(Content::Tree(Root { id, level, entries, bytes }), bytes)
            }
        ),
        Just((EntryKind::Directory, 0)),
        bytes(300).prop_map(|target| (EntryKind::Symlink { target }, 0)),
        Just((EntryKind::Fifo, 0)),
        Just((EntryKind::Socket, 0)),
        any::<(u32, u32)>().prop_map(|(major, minor)| (EntryKind::CharDevice { major, minor }, 0)),
        any::<(u32, u32)>().prop_map(|(major, minor)| (EntryKind::BlockDevice { major, minor }, 0)),
    ]
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (
        kind(),
        any::<(u32, u32, u32, u32, u32)>(),
        (bytes(20), bytes(20)),
        (time(), time(), proptest::option::of(time())),
        any::<(u64, u64, bool)>(),
        proptest::collection::btree_map(bytes(30), bytes(80), 0..4),
    )
        .prop_map(|(kind, numbers, names, times, rest, xattrs)| Entry {
            kind: kind.0,
            size: kind.1,
            mode: numbers.0,
            uid: numbers.1,
            gid: numbers.2,
            nlink: numbers.3,
            flags: numbers.4,
            user: names.0,
            group: names.1,
            mtime: times.0,
            ctime: times.1,
            btime: times.2,
            inode: rest.0,
            device: rest.1,
            racy: rest.2,
            xattrs: xattrs.into_iter().collect(),
        })
}

proptest! {
    // An entry survives its byte form exactly, and the head and the references agree with it.
    #[test]
    fn round_trip(entry in entry()) {
        let encoded = entry.to_bytes();
        prop_assert_eq!(&Entry::decode(&encoded).unwrap(), &entry);
        let head = EntryHead::decode(&encoded).unwrap();
        prop_assert_eq!(head.kind.is_file(), entry.is_file());
        prop_assert_eq!(
            (head.racy, head.size, head.mtime, head.ctime, head.inode, head.device),
            (entry.racy, entry.size, entry.mtime, entry.ctime, entry.inode, entry.device)
        );
        let mut found = Vec::new();
        ManifestSchema::references(b"key", &encoded, &mut found).unwrap();
        let expected: Vec<ChunkId> = match &entry.kind {
            EntryKind::File(Content::Chunks(items)) => items
                .iter()
                .filter_map(|i| match i {
                    ContentItem::Data { id, .. } => Some(*id),
                    ContentItem::Hole { .. } => None,
                })
                .collect(),
            EntryKind::File(Content::Tree(root)) => vec![root.id],
            _ => vec![],
        };
        prop_assert_eq!(found, expected);
        prop_assert_eq!(ManifestSchema::weight(b"key", &encoded), entry.size);
    }

    // The byte form is canonical: whatever decodes encodes to the same bytes. So no two forms of one entry exist.
    #[test]
    fn damage_is_refused_or_canonical(entry in entry(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut encoded = entry.to_bytes();
        let at = at.index(encoded.len());
        encoded[at] ^= 1 << bit;
        if let Ok(decoded) = Entry::decode(&encoded) {
            prop_assert_eq!(decoded.to_bytes(), encoded);
        }
    }

    // A cut entry is always refused; random bytes never panic.
    #[test]
    fn cut_entries_are_refused(entry in entry(), cut in any::<prop::sample::Index>(), noise in bytes(200)) {
        let encoded = entry.to_bytes();
        let cut = cut.index(encoded.len());
        prop_assert!(Entry::decode(&encoded[..cut]).is_err());
        let mut input = noise;
        let _ = Entry::decode(&input);
        input.insert(0, VERSION);
        let _ = Entry::decode(&input);
        let _ = ContentItem::decode(&input);
        let _ = ManifestSchema::references(b"", &input, &mut Vec::new());
    }

    #[test]
    fn items_round_trip(item in item()) {
        let mut encoded = Vec::new();
        item.encode(&mut encoded);
        prop_assert_eq!(ContentItem::decode(&encoded).unwrap(), item);
    }
}

// A newer version is unsupported, never damaged.
#[test]
fn newer_version_is_unsupported() {
    let mut encoded = Entry::default().to_bytes();
    encoded[0] = VERSION + 1;
    assert!(matches!(Entry::decode(&encoded), Err(Error::Unsupported { .. })));
}

// A list that claims more than the limits is refused before it is allocated.
#[test]
fn limits_are_enforced() {
    let mut entry = Entry {
        kind: EntryKind::Symlink { target: vec![b'x'; ENTRY_BYTES_MAX] },
        ..Entry::default()
    };
    assert!(matches!(Entry::decode(&entry.to_bytes()), Err(Error::LimitExceeded { .. })));
    let items = vec![ContentItem::Hole { len: 1 }; CONTENT_ITEMS_MAX + 1];
    entry.size = items.len() as u64;
    entry.kind = EntryKind::File(Content::Chunks(items));
    assert!(Entry::decode(&entry.to_bytes()).is_err());
    entry.kind = EntryKind::File(Content::Inline(vec![0; INLINE_BYTES_MAX + 1]));
    entry.size = INLINE_BYTES_MAX as u64 + 1;
    assert!(Entry::decode(&entry.to_bytes()).is_err());
}
