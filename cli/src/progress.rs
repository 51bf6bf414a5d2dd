//! Progress of long work: a bar on a terminal, a line now and then elsewhere, `status` messages under `--json`.
//!
//! Receives the library's events on any thread, counts them in atomics, and shows them from one thread of its own.

use crate::json;
use crate::output::{Output, Verbosity};
use crate::signals::Cancel;
use crate::text;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use stillpoint_archive::{Event, Observer, Outcome, path};

/// How often the display changes: on a terminal, elsewhere, and for programs.
const BAR_EVERY: Duration = Duration::from_millis(150);
const LINE_EVERY: Duration = Duration::from_secs(15);
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// The rate is that of about this many seconds.
const RATE_SECONDS: f64 = 8.0;

/// What was counted so far.
#[derive(Default)]
struct Counters {
    entries: AtomicU64,
    bytes: AtomicU64,
    entries_expected: AtomicU64,
    bytes_expected: AtomicU64,
    expected_is_final: AtomicBool,
    problems: AtomicU64,
}

struct Shared {
    output: Arc<Output>,
    cancel: Cancel,
    action: &'static str,
    started: Instant,
    counters: Counters,
    over: Mutex<bool>,
    wake: Condvar,
}

/// Progress of one piece of work; an [`Observer`] for the libraries.
pub struct Progress {
    shared: Arc<Shared>,
    display: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts showing progress of `action` (`snapshot`, `restore`, ...).
    pub fn start(output: &Arc<Output>, cancel: &Cancel, action: &'static str) -> Self {
        let shared = Arc::new(Shared {
            output: Arc::clone(output),
            cancel: cancel.clone(),
            action,
            started: Instant::now(),
            counters: Counters::default(),
            over: Mutex::new(false),
            wake: Condvar::new(),
        });
        let display = (output.verbosity() >= Verbosity::Normal).then(|| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || Display::new(shared).run())
        });
        Self { shared, display }
    }

    /// Sets how many items of how many are done, for work that is not counted by events.
    pub fn set_items(&self, done: u64, all: u64) {
        let counters = &self.shared.counters;
        counters.entries.store(done, Relaxed);
        counters.entries_expected.store(all, Relaxed);
        counters.expected_is_final.store(true, Relaxed);
    }

    /// Takes the display away.
    pub fn finish(mut self) -> Duration {
        self.stop();
        self.shared.started.elapsed()
    }

    fn stop(&mut self) {
        *self.shared.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        if let Some(display) = self.display.take() {
            // It only fails by a panic, which has told about itself.
            let _ = display.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Observer for Progress {
    fn event(&self, event: Event<'_>) {
        let counters = &self.shared.counters;
        match event {
            Event::Expected { totals, last } => {
                counters.entries_expected.store(totals.entries, Relaxed);
                counters.bytes_expected.store(totals.bytes, Relaxed);
                counters.expected_is_final.store(last, Relaxed);
            }
            Event::Entry { key, outcome, bytes } => {
                counters.entries.fetch_add(1, Relaxed);
                // What was read or written has been counted as it happened.
                if !matches!(outcome, Outcome::New | Outcome::Changed | Outcome::Failed) {
                    counters.bytes.fetch_add(bytes, Relaxed);
                }
                self.name(key, outcome, bytes);
            }
            Event::Bytes(bytes) => {
                counters.bytes.fetch_add(bytes, Relaxed);
            }
            Event::Problem(problem) => {
                counters.problems.fetch_add(1, Relaxed);
                let path = problem.path.as_os_str().as_bytes();
                self.shared.output.problem(self.shared.action, path, &problem.what);
            }
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.shared.cancel.is_requested()
    }
}

impl Progress {
    /// Names an entry when the user wants to see it.
    fn name(&self, key: &[u8], outcome: Outcome, bytes: u64) {
        let wanted = match outcome {
            Outcome::Unmodified | Outcome::Skipped | Outcome::Verified => Verbosity::Everything,
            _ => Verbosity::Verbose,
        };
        let output = &self.shared.output;
        if output.verbosity() < wanted {
            return;
        }
        let path = path::path_from_key(key);
        let path = path.as_os_str().as_bytes();
        // Whoever reads the list may leave; the work goes on.
        let _ = if output.is_json() {
            #[derive(Serialize)]
            struct VerboseStatus<'a> {
                action: &'a str,
                #[serde(flatten)]
                path: json::Path<'a>,
                size: u64,
            }
            let path = json::Path::item(path);
            output.message(
                "verbose_status",
                &VerboseStatus { action: word(outcome), path, size: bytes },
            )
        } else {
            output.line(format!("{:<10} {}", word(outcome), text::name(path)))
        };
    }
}

/// The word for an outcome, in lists and in JSON.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::New => "new",
        Outcome::Changed => "changed",
        Outcome::MetadataChanged => "metadata",
        Outcome::Unmodified => "unchanged",
        Outcome::Moved => "moved",
        Outcome::Removed => "removed",
        Outcome::Skipped => "skipped",
        Outcome::Verified => "verified",
        Outcome::Failed => "failed",
    }
}

/// One look at the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Look {
    elapsed: f64,
    entries: u64,
    bytes: u64,
    entries_expected: u64,
    bytes_expected: u64,
    is_final: bool,
    problems: u64,
    rate: f64,
}

impl Look {
    /// The share that is done, once it is known what there is to do.
    fn share(&self) -> Option<f64> {
        if !self.is_final {
            return None;
        }
        let (done, expected) = if self.bytes_expected > 0 {
            (self.bytes, self.bytes_expected)
        } else {
            (self.entries, self.entries_expected)
        };
        (expected > 0).then(|| (done as f64 / expected as f64).min(1.0))
    }

    /// Seconds left at the present rate.
    fn seconds_left(&self) -> Option<u64> {
        let left = self.bytes_expected.checked_sub(self.bytes)? as f64;
        (self.is_final && self.rate >= 1.0).then(|| text::whole((left / self.rate).min(1e9)))
    }

    /// The figures in one line.
    fn line(&self) -> String {
        let mut parts = Vec::new();
        if let Some(share) = self.share() {
            parts.push(format!("{:.0} %", (share * 100.0).floor()));
        }
        let more = if self.is_final { "" } else { " so far" };
        if self.entries > 0 || self.entries_expected > 0 {
            parts.push(text::count(self.entries, "entry", "entries"));
        }
        if self.bytes_expected > 0 {
            let expected = text::size(self.bytes_expected);
            parts.push(format!("{} of {expected}{more}", text::size(self.bytes)));
        } else if self.bytes > 0 {
            parts.push(text::size(self.bytes));
        }
        if self.rate >= 1.0 {
            parts.push(format!("{}/s", text::size(text::whole(self.rate))));
        }
        if let Some(seconds) = self.seconds_left() {
            parts.push(format!("{} left", text::clock(seconds)));
        }
        if self.problems > 0 {
            parts.push(text::count(self.problems, "problem", "problems"));
        }
        parts.join(", ")
    }
}

/// Shows the counters until the work is over.
struct Display {
    shared: Arc<Shared>,
    bar: Option<ProgressBar>,
    last: Look,
}

impl Display {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bar: None, last: Look::default() }
    }

    fn run(mut self) {
        let on_terminal = !self.shared.output.is_json() && std::io::stderr().is_terminal();
        let every = match (self.shared.output.is_json(), on_terminal) {
            (true, _) => STATUS_EVERY,
            (false, true) => BAR_EVERY,
            (false, false) => LINE_EVERY,
        };
        let shared = Arc::clone(&self.shared);
        let mut over = shared.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            let (guard, timeout) =
                shared.wake.wait_timeout(over, every).unwrap_or_else(PoisonError::into_inner);
            over = guard;
            if timeout.timed_out() && !*over {
                drop(over);
                self.show(on_terminal);
                over = shared.over.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
        if let Some(bar) = self.bar.take() {
            shared.output.set_bar(None);
            bar.finish_and_clear();
        }
    }

    fn show(&mut self, on_terminal: bool) {
        let look = self.look();
        if self.shared.output.is_json() {
            let _ =
                self.shared.output.message_now("status", &Status::new(self.shared.action, &look));
        } else if on_terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template("[{bar:24}] {msg}");
                bar.set_style(style.expect("the template is sound").progress_chars("=> "));
                self.shared.output.set_bar(Some(bar.clone()));
                bar
            });
            bar.set_position(text::whole(look.share().unwrap_or(0.0) * 1000.0));
            bar.set_message(look.line());
        } else {
            self.shared.output.error_line(&format!("{}: {}", self.shared.action, look.line()));
        }
        self.last = look;
    }

    fn look(&self) -> Look {
        let counters = &self.shared.counters;
        let elapsed = self.shared.started.elapsed().as_secs_f64();
        let bytes = counters.bytes.load(Relaxed);
        let seconds = (elapsed - self.last.elapsed).max(1e-3);
        let now = bytes.saturating_sub(self.last.bytes) as f64 / seconds;
        let weight = weight(seconds, elapsed);
        Look {
            elapsed,
            entries: counters.entries.load(Relaxed),
            bytes,
            entries_expected: counters.entries_expected.load(Relaxed),
            bytes_expected: counters.bytes_expected.load(Relaxed),
            is_final: counters.expected_is_final.load(Relaxed),
            problems: counters.problems.load(Relaxed),
            rate: self.last.rate * (1.0 - weight) + now * weight,
        }
    }
}

/// Weighs the newest stretch of so many seconds by its length; early on it is the average since the start. A stretch
/// may be longer than the span that counts, where nobody watches or the machine is busy.
fn weight(seconds: f64, elapsed: f64) -> f64 {
    seconds / elapsed.min(RATE_SECONDS).max(seconds)
}

/// The `status` message; `percent_done` is a share from 0 to 1, as restic's users know it.
#[derive(Serialize)]
struct Status {
    action: &'static str,
    seconds_elapsed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_remaining: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent_done: Option<f64>,
    entries_done: u64,
    total_entries: u64,
    bytes_done: u64,
    total_bytes: u64,
    bytes_per_second: u64,
    error_count: u64,
}

impl Status {
    fn new(action: &'static str, look: &Look) -> Self {
        Self {
            action,
            seconds_elapsed: text::whole(look.elapsed),
            seconds_remaining: look.seconds_left(),
            percent_done: look.share(),
            entries_done: look.entries,
            total_entries: look.entries_expected,
            bytes_done: look.bytes,
            total_bytes: look.bytes_expected,
            bytes_per_second: text::whole(look.rate),
            error_count: look.problems,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The newest stretch counts in full where it is all there is, and never for more, however long it was.
    #[test]
    fn stretches_are_weighed() {
        assert_eq!(weight(2.0, 2.0), 1.0);
        assert_eq!(weight(RATE_SECONDS / 4.0, 1000.0), 0.25);
        assert_eq!(weight(2.0 * RATE_SECONDS, 3.0 * RATE_SECONDS), 1.0);
    }

    // The line says what is known and leaves out what is not.
    #[test]
    fn the_line_says_what_is_known() {
        let mut look = Look { entries: 12, bytes: 1 << 20, ..Look::default() };
        assert_eq!(look.line(), "12 entries, 1.00 MiB");
        look = Look { bytes_expected: 4 << 20, entries_expected: 20, rate: 1048576.0, ..look };
        assert_eq!(look.line(), "12 entries, 1.00 MiB of 4.00 MiB so far, 1.00 MiB/s");
        look = Look { is_final: true, problems: 1, ..look };
        assert_eq!(
            look.line(),
            "25 %, 12 entries, 1.00 MiB of 4.00 MiB, 1.00 MiB/s, 0:03 left, 1 problem"
        );
    }

    // More than was expected is never more than all.
    #[test]
    fn the_share_stays_below_one() {
        let look = Look { bytes: 9, bytes_expected: 4, is_final: true, ..Look::default() };
        assert_eq!(look.share(), Some(1.0));
        assert_eq!(look.seconds_left(), None);
    }
}
