//! A small mutation fuzzer for where cargo-fuzz cannot run: seeded, so that a failure can be had again.
//!
//! Inputs that a target accepts join the pool, so that edits pile up on what reaches the inside of a parser. It measures no
//! coverage.

use super::Target;
use crate::random::Random;

/// Inputs that are kept beside the corpus.
const POOL_MAX: usize = 512;
/// Longest input.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Edits to one input at most.
const EDITS_MAX: u64 = 6;
/// Numbers at which parsers break.
const ODD: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX - 1,
    u64::MAX,
];

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fuzzed {
    /// Inputs that were tried.
    pub executions: u64,
    /// Those among them that were accepted.
    pub accepted: u64,
}

/// Feeds edited inputs to a target for as long as `go_on` says, which is told how many there were.
///
/// # Panics
/// As the target does; the input is then written to standard error as hexadecimal digits.
pub fn fuzz(
    target: Target,
    corpus: &[Vec<u8>],
    seed: u64,
    mut go_on: impl FnMut(u64) -> bool,
) -> Fuzzed {
    let mut random = Random::new(seed);
    let mut pool: Vec<Vec<u8>> = corpus.to_vec();
    pool.push(Vec::new());
    let mut done = Fuzzed::default();
    while go_on(done.executions) {
        let mut input = random.pick(&pool).clone();
        for _ in 0..1 + random.below(EDITS_MAX) {
            edit(&mut input, &pool, &mut random);
        }
        input.truncate(INPUT_BYTES_MAX);
        let label = || input.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let outcome = std::panic::catch_unwind(|| target(&input));
        let accepted = outcome.unwrap_or_else(|panic| {
            eprintln!("failed with seed {seed}, execution {}, input {}", done.executions, label());
            std::panic::resume_unwind(panic)
        });
        done.executions += 1;
        done.accepted += u64::from(accepted);
        if accepted && pool.len() < POOL_MAX {
            pool.push(input);
        } else if accepted {
            let place = corpus.len() + random.index(POOL_MAX - corpus.len());
            pool[place] = input;
        }
    }
    done
}

/// One edit of a kind that breaks parsers.
fn edit(input: &mut Vec<u8>, pool: &[Vec<u8>], random: &mut Random) {
    let at = random.index(input.len() + 1);
    let len = 1 + random.index(16);
    let end = (at + len).min(input.len());
    match random.below(9) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.pick(&ODD).to_le_bytes()[0];
            }
        }
        3 => drop(input.drain(at..end)),
        4 => input.truncate(at),
        5 => {
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        6 => {
            let bytes = random.bytes(len);
            input.splice(at..at, bytes);
        }
        7 => {
            let width = *random.pick(&[1, 2, 4, 8]);
            let number = *random.pick(&ODD);
            let bytes = match random.percent(50) {
                true => number.to_le_bytes()[..width].to_vec(),
                false => number.to_be_bytes()[8 - width..].to_vec(),
            };
            let end = (at + width).min(input.len());
            input.splice(at..end, bytes);
        }
        _ => {
            let other = random.pick(pool);
            let from = random.index(other.len() + 1);
            let tail = &other[from..];
            input.truncate(at);
            input.extend_from_slice(tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It finds its way through a check of four bytes, one after the other, because accepted inputs pile up; equal seeds do equal things.
    #[test]
    fn it_reaches_the_inside() {
        fn starts_like_seed(data: &[u8]) -> bool {
            data.starts_with(b"ab")
        }
        let run = |seed| fuzz(starts_like_seed, &[b"abcdef".to_vec()], seed, |count| count < 2000);
        let done = run(1);
        assert!(done.accepted > 200 && done.accepted < 1900, "{done:?}");
        assert_eq!(done, run(1));
        assert_ne!(done, run(2));
    }

    /// A property that is broken is found and passed on.
    #[test]
    #[should_panic(expected = "a long input")]
    fn it_finds_a_panic() {
        fn panics(data: &[u8]) -> bool {
            assert!(data.len() < 40, "a long input");
            true
        }
        fuzz(panics, &[vec![0; 8]], 1, |count| count < 100_000);
    }
}
