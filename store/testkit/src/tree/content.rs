//! What stands in a file: segments that are described by a seed and written on demand.

use crate::random::Random;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes are made and written in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// The content of a file: segments one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The segments.
    pub segments: Vec<Segment>,
}

/// A run of bytes, or a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Length in bytes.
    pub len: u64,
    /// With what it is filled.
    pub filling: Filling,
}

/// Kinds of content; equal seeds give equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// Nothing is written; reads as zeros.
    Hole,
    /// Zeros that are written.
    Zeros,
    /// Words and line ends, which compress well.
    Text(u64),
    /// Bytes that do not compress.
    Noise(u64),
    /// A short pattern over and over.
    Pattern(u64),
}

impl Content {
    /// One segment.
    pub fn of(filling: Filling, len: u64) -> Self {
        Self { segments: vec![Segment { len, filling }] }
    }

    /// Length in bytes, holes included.
    pub fn len(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes, for small files.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let sink: io::Result<()> = self.for_each_piece(|_, piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        sink.expect("a vector takes everything");
        bytes
    }

    /// Writes the content to an empty file, leaving holes where they are described.
    pub(super) fn write_to(&self, file: &File) -> io::Result<()> {
        file.set_len(self.len())?;
        let mut holes = Vec::new();
        let mut at = 0;
        for segment in &self.segments {
            if segment.filling == Filling::Hole {
                holes.push(at..at + segment.len);
            }
            at += segment.len;
        }
        self.for_each_piece(|offset, piece| {
            if holes.iter().any(|hole| hole.contains(&offset)) {
                return Ok(());
            }
            file.write_all_at(piece, offset)
        })
    }

    /// Gives the bytes in pieces that do not cross segments, each with its offset.
    fn for_each_piece(&self, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut offset = 0;
        for segment in &self.segments {
            let mut source = Source::new(segment.filling);
            let mut rest = segment.len;
            while rest > 0 {
                let len = usize::try_from(rest).map_or(PIECE_BYTES, |rest| rest.min(PIECE_BYTES));
                source.fill(&mut piece, len);
                take(offset, &piece)?;
                offset += len as u64;
                rest -= len as u64;
            }
        }
        Ok(())
    }
}

/// Makes the bytes of one segment.
enum Source {
    Zeros,
    Text(Random),
    Noise(Random),
    Pattern { pattern: Vec<u8>, at: usize },
}

const WORDS: [&str; 32] = [
    "the", "a", "of", "snapshot", "and", "let", "mut", "fn", "return", "struct", "path", "file",
    "chunk", "index", "for", "in", "if", "else", "match", "self", "0", "1", "42", "{", "}", "(",
    ");", "=", "->", "manifest", "restore", "\n",
];

impl Source {
    fn new(filling: Filling) -> Self {
        match filling {
            Filling::Hole | Filling::Zeros => Self::Zeros,
            Filling::Text(seed) => Self::Text(Random::new(seed)),
            Filling::Noise(seed) => Self::Noise(Random::new(seed)),
            Filling::Pattern(seed) => {
                let mut random = Random::new(seed);
                let len = 1 + random.index(200);
                Self::Pattern { pattern: random.bytes(len), at: 0 }
            }
        }
    }

    /// Replaces `piece` by the next `len` bytes.
    fn fill(&mut self, piece: &mut Vec<u8>, len: usize) {
        piece.clear();
        match self {
            Self::Zeros => piece.resize(len, 0),
            Self::Noise(random) => {
                piece.resize(len, 0);
                random.fill(piece);
            }
            Self::Text(random) => {
                while piece.len() < len {
                    let mut draw = random.next_u64();
                    // Nine words from one draw, the rare ones with a number, so that lines do not simply repeat.
                    for _ in 0..9 {
                        let word = WORDS[usize::try_from(draw & 31).expect("five bits")];
                        piece.extend_from_slice(word.as_bytes());
                        piece.push(b' ');
                        draw >>= 5;
                    }
                    if draw & 7 == 0 {
                        piece.extend_from_slice((draw >> 3).to_string().as_bytes());
                    }
                }
                piece.truncate(len);
            }
            Self::Pattern { pattern, at } => {
                piece.extend(pattern.iter().cycle().skip(*at).take(len));
                *at = (*at + len) % pattern.len();
            }
        }
    }
}
