//! Packs: immutable objects of sealed frames and a footer that says which chunk lies where.
//!
//! Owns the bytes of a pack (FORMAT.md): header, frames, padding, footer, trailer. Knows nothing of liveness, of the
//! index or of what a node says. Compression stands apart from sealing: it runs on any thread before a frame has a place.

mod builder;
mod compress;
mod footer;
mod frame;
mod header;
mod padding;
mod read_footer;
mod version;

#[cfg(test)]
mod compress_tests;
#[cfg(test)]
mod parse_tests;
#[cfg(test)]
mod tests;

pub use builder::{FrameChunk, PackBuilder, PackEnd, PackOptions, PackSummary};
pub use compress::{Codec, CompressedFrame, Level, compress_frame, verify_frame};
pub use footer::{Footer, FrameEntry};
pub use frame::{Frame, PackKey};
pub use header::PACK_HEADER_LEN;
pub use padding::padme;
pub use read_footer::read_footer;
pub(crate) use version::newer_or_damaged;

/// Plaintext that a frame should hold: 1 MiB. See docs/decisions/0002-sizes.md.
pub const FRAME_TARGET_BYTES: usize = 1 << 20;

/// Length of a full pack: exactly 32 MiB.
pub const PACK_TARGET_BYTES: u64 = 32 << 20;
