//! Chunk sizes: validated parameters, and the profiles for kinds of stream.

use std::fmt;

/// Longest chunk that any parameters may allow: 8 MiB.
pub const CHUNK_BYTES_MAX: u32 = 8 << 20;
/// Least value of the smallest chunk size.
pub const MIN_BYTES_LEAST: u32 = 64;
/// Least average: the mask table of the algorithm begins there.
pub const AVG_BYTES_LEAST: u32 = 256;
/// Greatest average: the mask table of the algorithm ends there.
pub const AVG_BYTES_MOST: u32 = 4 << 20;

/// Chunk sizes in bytes, valid by construction.
///
/// Streams share chunks only if they were cut with equal parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Params {
    min: u32,
    avg: u32,
    max: u32,
}

/// Chunk sizes that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "chunk sizes must satisfy {MIN_BYTES_LEAST} <= min < avg < max <= {CHUNK_BYTES_MAX}, min and max even, avg a power \
     of two from {AVG_BYTES_LEAST} to {AVG_BYTES_MOST}; found {min}, {avg}, {max}"
)]
pub struct ParamsError {
    min: u32,
    avg: u32,
    max: u32,
}

impl Params {
    /// Checks the sizes.
    ///
    /// # Errors
    /// When they break one of the bounds that [`ParamsError`] names.
    pub const fn new(min: u32, avg: u32, max: u32) -> Result<Self, ParamsError> {
        let ordered = MIN_BYTES_LEAST <= min && min < avg && avg < max && max <= CHUNK_BYTES_MAX;
        let average = avg.is_power_of_two() && AVG_BYTES_LEAST <= avg && avg <= AVG_BYTES_MOST;
        // The algorithm takes two bytes at a time, so odd sizes would not mean what they say.
        if ordered && average && min.is_multiple_of(2) && max.is_multiple_of(2) {
            Ok(Self { min, avg, max })
        } else {
            Err(ParamsError { min, avg, max })
        }
    }

    /// Only the last chunk of a stream is shorter.
    pub const fn min_bytes(&self) -> u32 {
        self.min
    }

    /// The size that most chunks are near to. Content up to this length is one chunk.
    pub const fn avg_bytes(&self) -> u32 {
        self.avg
    }

    /// No chunk is longer.
    pub const fn max_bytes(&self) -> u32 {
        self.max
    }
}

/// A kind of stream. Small chunks find more that is equal but cost more index entries and compress worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Profile {
    /// Files of all kinds.
    #[default]
    General = 0,
    /// Database dumps: small changes scattered over long text.
    Dump = 1,
    /// Disk images and database files: changes of whole pages.
    Image = 2,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 3] = [Self::General, Self::Dump, Self::Image];

    /// Average chunk of [`Self::General`]: 32 KiB. An edit somewhere in a large file stores about 1.2 times this
    /// again, while frames keep compression independent of it.
    pub const GENERAL_AVG_BYTES: u32 = 32 << 10;
    /// Average chunk of [`Self::Dump`]: 4 KiB. Below, ids and content lists grow faster than what is new shrinks.
    pub const DUMP_AVG_BYTES: u32 = 4 << 10;
    /// Average chunk of [`Self::Image`]: 32 KiB.
    pub const IMAGE_AVG_BYTES: u32 = 32 << 10;

    /// The sizes for this kind of stream: a quarter of the average to four times the average.
    pub const fn params(self) -> Params {
        let avg = match self {
            Self::General => Self::GENERAL_AVG_BYTES,
            Self::Dump => Self::DUMP_AVG_BYTES,
            Self::Image => Self::IMAGE_AVG_BYTES,
        };
        match Params::new(avg / 4, avg, avg * 4) {
            Ok(params) => params,
            Err(_) => panic!("the averages of profiles are valid"),
        }
    }

    /// The profile's number in records.
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::General => 0,
            Self::Dump => 1,
            Self::Image => 2,
        }
    }

    /// The profile with this number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.as_u8() == number)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::General => "general",
            Self::Dump => "dump",
            Self::Image => "image",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bound is checked on both of its sides.
    #[test]
    fn sizes_are_checked() {
        let cases = [
            ((64, 256, 258), true),
            ((62, 256, 512), false),
            ((65, 256, 512), false),
            ((64, 128, 512), false),
            ((64, 300, 512), false),
            ((256, 256, 512), false),
            ((64, 256, 256), false),
            ((64, 256, 511), false),
            ((2 << 20, 4 << 20, 8 << 20), true),
            ((2 << 20, 4 << 20, (8 << 20) + 2), false),
            ((4 << 20, 8 << 20, 8 << 20), false),
        ];
        for ((min, avg, max), valid) in cases {
            assert_eq!(Params::new(min, avg, max).is_ok(), valid, "{min} {avg} {max}");
        }
    }

    /// Profiles have valid sizes and come back from their numbers.
    #[test]
    fn profiles_come_back() {
        for profile in Profile::ALL {
            assert_eq!(Profile::from_u8(profile.as_u8()), Some(profile));
            assert!(profile.params().min_bytes() >= 1024);
        }
        assert_eq!(Profile::from_u8(3), None);
    }
}
