//! Prints how fast the index opens, fills and answers: `rates [entries] [folder]`.

use std::io::Write;
use std::time::{Duration, Instant};
use stillpoint_store::ChunkId;
use stillpoint_store::index::Index;
use stillpoint_testkit::Random;
use stillpoint_testkit::index_suite::{id, place, state};

const APPLY: u64 = 1000;
const LOOKUPS: usize = 500_000;

fn say(line: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").expect("stdout takes a line");
}

fn timed<T>(what: &str, count: u64, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let took = start.elapsed();
    let rate = count as f64 / took.as_secs_f64();
    say(format_args!("{what:<34} {took:>12.2?} {rate:>12.0}/s"));
    result
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let entries: u64 = arguments.next().map_or(1_000_000, |text| text.parse().expect("a number"));
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = arguments.next().map_or(temporary.path().to_path_buf(), Into::into);
    let open = || stillpoint_rocks::open(&dir).expect("opens");
    let index = timed("create", 1, open);
    timed("close", 1, || drop(index));
    let index = timed("open, empty", 1, open);
    let mut source = (0..entries).map(|number| Ok((id(number), place(1, number))));
    timed("rebuild", entries, || index.rebuild(&mut source, state(1)).expect("rebuilds"));
    drop(index);
    let index = timed("open", 1, open);
    let batch: Vec<_> = (0..APPLY).map(|n| (id(entries + n), place(2, n))).collect();
    timed("apply 1000", APPLY, || index.apply(&batch, state(2)).expect("applies"));
    timed("apply nothing but a state", 1, || index.apply(&[], state(3)).expect("applies"));
    let bulk: Vec<_> = (0..entries / 10).map(|n| (id(2 * entries + n), place(3, n))).collect();
    timed("apply a tenth", entries / 10, || index.apply(&bulk, state(4)).expect("applies"));
    let mut random = Random::new(1);
    for (what, from) in [("look up, missing", 10 * entries), ("look up, present", 0)] {
        let asked: Vec<ChunkId> = (0..LOOKUPS).map(|_| id(from + random.below(entries))).collect();
        for round in ["first", "again"] {
            timed(&format!("{what}, {round}"), LOOKUPS as u64, || look_up(&*index, &asked));
        }
    }
    timed("close", 1, || drop(index));
    let times: Vec<Duration> = (0..20)
        .map(|_| {
            let start = Instant::now();
            let index = open();
            index.lookup(&[id(1)], &|_| true).expect("answers");
            start.elapsed()
        })
        .collect();
    say(format_args!("open and one look-up, median       {:>12.2?}", median(times)));
    let owner = open();
    timed("open beside the owner", 1, open);
    drop(owner);
    say(format_args!("resident, peak                     {:>9} MiB", resident_mib()));
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn look_up(index: &dyn Index, asked: &[ChunkId]) {
    for batch in asked.chunks(4096) {
        index.lookup(batch, &|_| true).expect("answers");
    }
}
