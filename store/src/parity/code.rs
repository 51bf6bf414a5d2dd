//! The code: parity of equally long parts, and lost parts back from any others in sufficient number.
//!
//! Reed-Solomon over GF(2^16) in the additive FFT form (Lin, Al-Naffouri, Han, Chung: "Novel polynomial basis and its
//! application to Reed-Solomon erasure codes", FOCS 2014), always at the *high rate*; FORMAT.md says which bytes that
//! gives. Knows nothing of packs, and does not notice parts that were changed: that is what checksums are for.

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

/// Computes with parts of one group. Keeps its working space from stripe to stripe; each thread has its own.
pub(super) struct Coder {
    data: usize,
    parity: usize,
    /// One part, padded with zeros.
    padded: Vec<u8>,
    encoder: Option<HighRateEncoder<DefaultEngine>>,
    decoder: Option<HighRateDecoder<DefaultEngine>>,
}

/// The limits on a group's size, which are checked before, are far below what the code can do.
const SUPPORTED: &str = "counts and lengths were checked against their limits";

impl Coder {
    /// For groups of `data` packs and `parity` parity objects.
    pub fn new(data: usize, parity: usize) -> Self {
        Self { data, parity, padded: Vec::new(), encoder: None, decoder: None }
    }

    /// The parity of `data` parts, each counted as zeros up to `len` bytes, a multiple of 64.
    pub fn encode<T: AsRef<[u8]>>(&mut self, parts: &[T], len: usize) -> Vec<Vec<u8>> {
        let (data, parity) = (self.data, self.parity);
        let encoder = match &mut self.encoder {
            Some(encoder) => {
                encoder.reset(data, parity, len).expect(SUPPORTED);
                encoder
            }
            none => none.insert(
                HighRateEncoder::new(data, parity, len, DefaultEngine::new(), None)
                    .expect(SUPPORTED),
            ),
        };
        for part in parts {
            let part = pad(part.as_ref(), len, &mut self.padded);
            encoder.add_original_shard(part).expect(SUPPORTED);
        }
        let encoded = encoder.encode().expect(SUPPORTED);
        encoded.recovery_iter().map(<[u8]>::to_vec).collect()
    }

    /// The missing ones of `data` parts, with their numbers, each `len` bytes long. `parts` are first those of the
    /// packs, then the parities. None where fewer than `data` of them are there.
    pub fn restore<T: AsRef<[u8]>>(
        &mut self,
        parts: &[Option<T>],
        len: usize,
    ) -> Option<Vec<(usize, Vec<u8>)>> {
        let (data, parity) = (self.data, self.parity);
        let decoder = match &mut self.decoder {
            Some(decoder) => {
                decoder.reset(data, parity, len).expect(SUPPORTED);
                decoder
            }
            none => none.insert(
                HighRateDecoder::new(data, parity, len, DefaultEngine::new(), None)
                    .expect(SUPPORTED),
            ),
        };
        let present =
            parts.iter().enumerate().filter_map(|(at, part)| Some((at, part.as_ref()?.as_ref())));
        let mut count = 0;
        for (at, part) in present.take(data) {
            let part = pad(part, len, &mut self.padded);
            match at.checked_sub(data) {
                None => decoder.add_original_shard(at, part).expect(SUPPORTED),
                Some(number) => decoder.add_recovery_shard(number, part).expect(SUPPORTED),
            }
            count += 1;
        }
        if count < data {
            return None;
        }
        let decoded = decoder.decode().expect(SUPPORTED);
        Some(decoded.restored_original_iter().map(|(at, part)| (at, part.to_vec())).collect())
    }
}

/// The part, with zeros behind it where it is shorter than `len`.
fn pad<'p>(part: &'p [u8], len: usize, padded: &'p mut Vec<u8>) -> &'p [u8] {
    if part.len() == len {
        return part;
    }
    padded.clear();
    padded.extend_from_slice(part);
    padded.resize(len, 0);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The code as FORMAT.md defines it, by interpolation: slow, and independent of the library.
    mod definition {
        const POLYNOMIAL: u32 = 0x1002d;
        const BASIS: [u16; 16] = [
            0x0001, 0xacca, 0x3c0e, 0x163e, 0xc582, 0xed2e, 0x914c, 0x4012, 0x6c98, 0x10d8, 0x6a72,
            0xb900, 0xfdb8, 0xfb34, 0xff38, 0x991e,
        ];

        /// The field's element of a symbol.
        fn element(symbol: u16) -> u16 {
            let bits = (0..16).filter(|bit| symbol >> bit & 1 == 1);
            bits.fold(0, |sum, bit| sum ^ BASIS[bit])
        }

        fn multiply(a: u16, b: u16) -> u16 {
            let mut product = 0u32;
            for bit in (0..16).rev() {
                product <<= 1;
                if product & 0x10000 != 0 {
                    product ^= POLYNOMIAL;
                }
                if b >> bit & 1 == 1 {
                    product ^= u32::from(a);
                }
            }
            u16::try_from(product).unwrap()
        }

        fn inverse(a: u16) -> u16 {
            // a^(2^16 - 2)
            (1..16)
                .fold((1, a), |(result, power), _| {
                    let power = multiply(power, power);
                    (multiply(result, power), power)
                })
                .0
        }

        /// Parity `number` of one symbol of each pack.
        fn parity_symbol(data: &[u16], count: usize, number: u16, symbols: &[u16]) -> u16 {
            let block = count.next_power_of_two();
            let point = |at: usize| element(u16::try_from(at).unwrap());
            let at = point(number.into());
            let mut sum = 0;
            for (index, symbol) in data.iter().enumerate() {
                let own = block + index;
                let first = own / block * block;
                let others = (first..first + block).filter(|other| *other != own).map(point);
                let weight = others.fold(1, |weight, other| {
                    multiply(weight, multiply(at ^ other, inverse(point(own) ^ other)))
                });
                sum ^= multiply(element(*symbol), weight);
            }
            symbols[usize::from(sum)]
        }

        /// The parities of parts whose length is a multiple of 64.
        pub fn encode(parts: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
            let mut symbols = vec![0; 1 << 16];
            (0..=u16::MAX).for_each(|symbol| symbols[usize::from(element(symbol))] = symbol);
            let len = parts[0].len();
            let mut parities = vec![vec![0; len]; count];
            for (number, parity) in (0..).zip(&mut parities) {
                for low in (0..len).filter(|at| at % 64 < 32) {
                    let column: Vec<u16> = parts
                        .iter()
                        .map(|part| u16::from_le_bytes([part[low], part[low + 32]]))
                        .collect();
                    let symbol = parity_symbol(&column, count, number, &symbols);
                    [parity[low], parity[low + 32]] = symbol.to_le_bytes();
                }
            }
            parities
        }
    }

    fn parts(seed: u8, count: usize, len: usize) -> Vec<Vec<u8>> {
        let mut stream = blake3::Hasher::new().update(&[seed]).finalize_xof();
        let part = |_| {
            let mut part = vec![0; len];
            stream.fill(&mut part);
            part
        };
        (0..count).map(part).collect()
    }

    /// The library computes the code that FORMAT.md defines; another version of it that did not would fail here.
    #[test]
    fn the_code_is_the_one_that_is_defined() {
        for (data, parity) in [(1, 1), (1, 3), (2, 2), (3, 1), (5, 3), (10, 2), (11, 4), (20, 6)] {
            let parts = parts(1, data, 128);
            let encoded = Coder::new(data, parity).encode(&parts, 128);
            assert_eq!(encoded, definition::encode(&parts, parity), "{data} + {parity}");
        }
    }

    /// A coder keeps its working space; what it computed before has no influence.
    #[test]
    fn a_coder_is_used_again() {
        let mut coder = Coder::new(3, 2);
        for (seed, len) in [(1, 4096), (2, 64), (3, 8192), (4, 4096)] {
            let parts = parts(seed, 3, len);
            let encoded = coder.encode(&parts, len);
            assert_eq!(encoded, Coder::new(3, 2).encode(&parts, len));
            let have = [None, Some(&parts[1]), None, Some(&encoded[0]), Some(&encoded[1])];
            let restored = coder.restore(&have, len).unwrap();
            assert_eq!(restored, [(0, parts[0].clone()), (2, parts[2].clone())]);
        }
    }

    proptest! {
        /// Any parts in sufficient number give back the others; fewer give nothing.
        #[test]
        fn any_sufficient_parts_restore(
            data in 1usize..20,
            parity in 1usize..8,
            units in 1usize..4,
            short in 0usize..64,
            seed: u8,
            order in any::<prop::sample::Index>(),
            lost in 0usize..10,
        ) {
            let len = units * 64;
            let mut parts = parts(seed, data, len);
            parts[0].truncate(len - short);
            let mut coder = Coder::new(data, parity);
            let encoded = coder.encode(&parts, len);
            let mut have: Vec<_> = parts.iter().chain(&encoded).map(Some).collect();
            let all = have.len();
            let first = order.index(all);
            for step in 0..lost.min(all) {
                // 7 is prime to no more than a few of the lengths: the gaps lie apart or together.
                have[(first + step * 7) % all] = None;
            }
            let there = have.iter().filter(|part| part.is_some()).count();
            let gone: Vec<usize> = (0..data).filter(|at| have[*at].is_none()).collect();
            match coder.restore(&have, len) {
                None => prop_assert!(there < data),
                Some(restored) => {
                    prop_assert!(there >= data);
                    prop_assert_eq!(restored.iter().map(|(at, _)| *at).collect::<Vec<_>>(), gone);
                    for (at, part) in restored {
                        prop_assert_eq!(&part[..parts[at].len()], &parts[at][..]);
                        prop_assert!(part[parts[at].len()..].iter().all(|byte| *byte == 0));
                    }
                }
            }
        }
    }
}
