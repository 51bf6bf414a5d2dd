//! Trees from a seed.

use super::{Content, Filling, Segment, SpecKind, SpecMeta, SpecNode, SpecPath, TreeSpec};
use crate::random::Random;
use std::collections::BTreeMap;
use stillpoint_store::Timestamp;

/// How a generated tree looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Number of entries, directories included.
    pub entries: usize,
    /// Percent of the entries that are directories.
    pub directory_percent: u64,
    /// Most levels of directories.
    pub depth_max: usize,
    /// Typical size of a file in bytes; the sizes are spread over several powers of two around it.
    pub file_bytes: u64,
    /// Names of any bytes, links, FIFOs, holes, attributes, odd modes and times. False: plain files and names only.
    pub odd: bool,
    /// Owners other than the process's (setting them needs root).
    pub owners: bool,
}

impl Shape {
    /// A small tree with everything odd in it; with foreign owners if the process is root.
    pub fn odd(entries: usize) -> Self {
        Self {
            entries,
            directory_percent: 20,
            depth_max: 6,
            file_bytes: 2000,
            odd: true,
            owners: rustix::process::geteuid().is_root(),
        }
    }

    /// A tree like a home directory: mostly small text files, some binary ones, ordinary names.
    pub fn home(entries: usize) -> Self {
        Self {
            entries,
            directory_percent: 10,
            depth_max: 8,
            file_bytes: 6000,
            odd: false,
            owners: false,
        }
    }
}

impl TreeSpec {
    /// The tree of this seed.
    pub fn seeded(seed: u64, shape: &Shape) -> Self {
        let mut generator = Generator { random: Random::new(seed), shape };
        let mut directories: Vec<SpecPath> = vec![Vec::new()];
        let mut files: Vec<SpecPath> = Vec::new();
        let mut nodes = BTreeMap::new();
        while nodes.len() < shape.entries {
            let mut path = generator.random.pick(&directories).clone();
            path.push(generator.name(nodes.len()));
            if nodes.contains_key(&path) {
                continue;
            }
            let node = generator.node(path.len(), &files);
            match &node.kind {
                SpecKind::Directory => directories.push(path.clone()),
                SpecKind::File(_) => files.push(path.clone()),
                _ => {}
            }
            nodes.insert(path, node);
        }
        Self { nodes }
    }
}

/// Draws the parts of a tree.
pub(super) struct Generator<'a> {
    pub(super) random: Random,
    pub(super) shape: &'a Shape,
}

impl Generator<'_> {
    /// A name; the number makes plain ones unique.
    pub(super) fn name(&mut self, number: usize) -> Vec<u8> {
        let plain = || format!("entry-{number:05}.txt").into_bytes();
        if !self.shape.odd || self.random.percent(50) {
            return plain();
        }
        match self.random.below(9) {
            0 => vec![b'x'; 255],
            1 => vec![0xff, 0xfe, b'0' + u8::try_from(number % 10).expect("a digit")],
            2 => format!(" leading and trailing {number} ").into_bytes(),
            3 => format!("line\nbreak\ttab\x1b[31m{number}").into_bytes(),
            4 => format!("-rf *?[{number}]\\'\"$`").into_bytes(),
            5 => format!("ünïcødé-{number}-日本").into_bytes(),
            6 => format!("..{number}").into_bytes(),
            7 => vec![b'a' + u8::try_from(number % 26).expect("a letter")],
            _ => {
                let len = 1 + self.random.index(20);
                let mut name = self.random.bytes(len);
                name.iter_mut().for_each(|byte| {
                    if matches!(*byte, 0 | b'/' | b'.') {
                        *byte = b'_';
                    }
                });
                name
            }
        }
    }

    fn node(&mut self, level: usize, files: &[SpecPath]) -> SpecNode {
        let kind =
            if level < self.shape.depth_max && self.random.percent(self.shape.directory_percent) {
                SpecKind::Directory
            } else if self.shape.odd && self.random.percent(25) {
                self.odd_kind(files)
            } else {
                SpecKind::File(self.content())
            };
        let meta = self.meta(&kind);
        SpecNode { kind, meta }
    }

    fn odd_kind(&mut self, files: &[SpecPath]) -> SpecKind {
        match self.random.below(4) {
            0 if !files.is_empty() => SpecKind::HardLink(self.random.pick(files).clone()),
            1 => SpecKind::Fifo,
            2 => SpecKind::File(self.sparse_content()),
            _ => {
                let targets: [&[u8]; 5] =
                    [b"target", b"../..//./x", b"/nonexistent/\xff", b".", &[b'y'; 1000]];
                SpecKind::Symlink(self.random.pick(&targets).to_vec())
            }
        }
    }

    pub(super) fn content(&mut self) -> Content {
        // Between nothing and 32 times the typical size, every power of two equally often.
        let scale = self.shape.file_bytes >> 5 << self.random.below(11);
        let len = self.random.below(scale.max(2));
        let seed = self.random.next_u64();
        let filling = match self.random.below(10) {
            0 if self.shape.odd => Filling::Zeros,
            1 => Filling::Pattern(seed),
            2 | 3 => Filling::Noise(seed),
            _ => Filling::Text(seed),
        };
        Content::of(filling, len)
    }

    fn sparse_content(&mut self) -> Content {
        let count = 1 + self.random.index(5);
        let segments = (0..count).map(|number| {
            let seed = self.random.next_u64();
            if number % 2 == 0 {
                Segment { len: 4096 * self.random.below(64), filling: Filling::Hole }
            } else {
                Segment { len: 1 + self.random.below(20_000), filling: Filling::Noise(seed) }
            }
        });
        Content { segments: segments.collect() }
    }

    pub(super) fn meta(&mut self, kind: &SpecKind) -> SpecMeta {
        let directory = *kind == SpecKind::Directory;
        let plain = if directory { 0o755 } else { 0o644 };
        let mode = if !self.shape.odd || self.random.percent(60) {
            plain
        } else if directory {
            *self.random.pick(&[0o700, 0o1777, 0o2755, 0o711])
        } else {
            *self.random.pick(&[0o600, 0o400, 0o755, 0o4755, 0o2711, 0o1644, 0o777])
        };
        let mut xattrs = BTreeMap::new();
        if self.shape.odd
            && directory | matches!(kind, SpecKind::File(_))
            && self.random.percent(15)
        {
            for number in 0..1 + self.random.below(3) {
                let len = self.random.index(100);
                let name = format!("user.stillpoint.{number}");
                xattrs.insert(name.into_bytes(), self.random.bytes(len));
            }
        }
        let owner = (self.shape.owners && self.random.percent(30))
            .then(|| (1000 + self.id(), 2000 + self.id()));
        SpecMeta { mode, mtime: self.mtime(), owner, xattrs }
    }

    fn id(&mut self) -> u32 {
        u32::try_from(self.random.below(3)).expect("small")
    }

    fn mtime(&mut self) -> Timestamp {
        let nanos = u32::try_from(self.random.below(1_000_000_000)).expect("below 2^32");
        let year_2024 = 1_704_067_200;
        let recent = year_2024 - i64::try_from(self.random.below(100_000_000)).expect("small");
        if !self.shape.odd || self.random.percent(80) {
            return Timestamp { seconds: recent, nanos };
        }
        let seconds = *self.random.pick(&[0, -1, -2_000_000_000, 1 << 31, 8_000_000_000]);
        let nanos = *self.random.pick(&[0, 1, 999_999_999, nanos]);
        Timestamp { seconds, nanos }
    }
}
