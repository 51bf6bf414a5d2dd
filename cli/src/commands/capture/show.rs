//! What a capture shows while it goes on, and at its end.

use crate::context::Context;
use crate::json;
use crate::output::Output;
use crate::progress::Progress;
use crate::selection::{CaptureJson, SummaryJson};
use crate::text;
use anyhow::Result;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_archive::Observer;
use stillpoint_capture::lock::Tell;
use stillpoint_capture::machine::{CaptureReport, Ending, Event, Watcher};
use stillpoint_store::record::CaptureInfo;

/// Shows a capture.
pub struct Shown {
    output: Arc<Output>,
}

/// A message of one event.
#[derive(Serialize)]
struct PhaseJson<'a> {
    phase: &'a str,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Serialize)]
struct WarmJson {
    pass: u32,
    milliseconds: f64,
    files_changed: u64,
    bytes_read: u64,
}

#[derive(Serialize)]
struct NoteJson<'a> {
    message: &'a str,
}

#[derive(Serialize)]
struct Summary<'a> {
    snapshot_id: Option<String>,
    ending: Ending,
    hostname: &'a str,
    time: String,
    capture: CaptureJson<'a>,
    figures: SummaryJson,
}

impl Shown {
    /// On the command's output.
    pub fn new(context: &Context) -> Self {
        Self { output: Arc::clone(&context.output) }
    }

    /// What adapters tell, line by line.
    pub fn tell(&self) -> Tell {
        let output = Arc::clone(&self.output);
        Arc::new(move |line| note(&output, line))
    }

    /// The machine's watcher, beside the progress of its passes.
    pub fn watcher<'a>(&'a self, progress: &'a Progress) -> impl Watcher + 'a {
        Watching { output: &self.output, progress }
    }
}

struct Watching<'a> {
    output: &'a Output,
    progress: &'a Progress,
}

impl Watcher for Watching<'_> {
    fn event(&self, event: Event<'_>) {
        // Whoever read the output may be gone: that is no reason to leave an application locked.
        let _ = show(self.output, event);
    }

    fn observer(&self) -> &dyn Observer {
        self.progress
    }
}

fn note(output: &Output, line: &str) {
    let _ = output.say(text::safe(line));
    let _ = output.message_now("note", &NoteJson { message: line });
}

fn show(output: &Output, event: Event<'_>) -> Result<()> {
    match event {
        Event::Began { phase } => {
            let message = PhaseJson {
                phase: phase.name(),
                event: "began",
                milliseconds: None,
                message: None,
            };
            output.message_now("phase", &message)?;
        }
        Event::Ended { phase, took, failure } => {
            let event = if failure.is_some() { "failed" } else { "ended" };
            let milliseconds = Some(milliseconds(took));
            let message = PhaseJson { phase: phase.name(), event, milliseconds, message: failure };
            output.message_now("phase", &message)?;
        }
        Event::Warmed { pass, took, bytes_read, changed } => {
            output.say(format!(
                "pass {pass}: {} changed, {} read, {}",
                text::count(changed, "file", "files"),
                text::size(bytes_read),
                text::duration(took),
            ))?;
            let milliseconds = milliseconds(took);
            let message = WarmJson { pass, milliseconds, files_changed: changed, bytes_read };
            output.message_now("pass", &message)?;
        }
        Event::Released(info) => {
            if info.locked_ns.is_some() && info.lock != "none" {
                output.say(locked(info))?;
            }
            output.message_now("released", &CaptureJson::new(info))?;
        }
        Event::Note(line) => note(output, line),
        _ => {}
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    text::milliseconds(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// How long the lock was held, in one line.
fn locked(info: &CaptureInfo) -> String {
    let ms = |nanos: u64| format!("{:.1} ms", text::milliseconds(nanos));
    format!(
        "locked for {}: request {}, drain {}, freeze {} ({}, {}), release {}",
        ms(info.locked_ns.unwrap_or(0)),
        ms(info.request_ns),
        ms(info.drain_ns),
        ms(info.freeze_ns),
        text::count(info.residual_files, "entry", "entries"),
        text::size(info.residual_bytes),
        ms(info.release_ns),
    )
}

/// What came of it.
pub fn report(context: &Context, report: &CaptureReport) -> Result<()> {
    let output = &context.output;
    let (record, figures, info) = (&report.backup.record, report.backup.summary(), report.info());
    if figures.problems > 0 {
        let problems = text::count(figures.problems, "problem", "problems");
        output.say(format!("{problems}: named above, the rest is saved"))?;
    }
    output.say(format!(
        "Data         {} in all, {} read, {} new, {} stored",
        text::size(figures.bytes_total),
        text::size(figures.bytes_read),
        text::size(figures.bytes_added),
        text::size(figures.bytes_stored),
    ))?;
    if let Some(id) = &report.backup.snapshot {
        output.say(format!("snapshot {} saved; consistency: {}", id.short(), info.level.name()))?;
    }
    let summary = Summary {
        snapshot_id: report.backup.snapshot.map(|id| id.to_string()),
        ending: report.ending,
        hostname: &record.host,
        time: json::moment(record.time),
        capture: CaptureJson::new(&info),
        figures: SummaryJson::new(figures),
    };
    output.message("summary", &summary)?;
    Ok(())
}
