//! `stillpoint restore --into`: the dump of a database becomes a new database.

use super::RestoreArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::{Problem, in_snapshot};
use crate::listing;
use crate::text;
use anyhow::Result;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;
use stillpoint_archive::dump::dump;
use stillpoint_archive::listing::{Depth, list};
use stillpoint_archive::path;
use stillpoint_capture::Error;
use stillpoint_capture::database::{DatabaseOptions, restore_into};
use stillpoint_store::Reader;
use stillpoint_store::tree::Root;

/// What the names of dumps end in.
const ENDINGS: [&[u8]; 2] = [b".sql", b".sqlite"];

/// Restores the dump that the command line names, or the only one that there is, into a new database.
pub fn run(context: &Context, args: &RestoreArgs, url: &str) -> Result<Outcome> {
    let started = Instant::now();
    let repository = context.open()?;
    let snapshot = repository.find_snapshot(&args.snapshot.snapshot)?;
    let reader = repository.reader()?;
    let root = snapshot.record.root;
    let key = match args.snapshot.path.as_deref() {
        Some(typed) => listing::key(Some(typed), Path::new(""))?,
        None => only_dump(&reader, root)?,
    };
    let mut bytes = 0;
    let mut content = |out: &mut dyn Write| {
        let mut out = Counted { out, context, bytes: 0 };
        let done = dump(&reader, root, &key, &mut out);
        bytes = out.bytes;
        done.map(drop)
    };
    let restored = restore_into(url, &DatabaseOptions::default(), &mut content);
    if restored.is_err() && context.cancel.is_requested() {
        return Err(stillpoint_store::Error::Cancelled.into());
    }
    let restored = restored.or_else(explain)?;
    let file = path::path_from_key(&key).to_string_lossy().into_owned();
    let (from, took) = (snapshot.id.short(), text::duration(started.elapsed()));
    let (shown, into) = (text::safe(&file), text::safe(&restored.title));
    let output = &context.output;
    output.say(format!("restored {shown} of snapshot {from} into {into} in {took}"))?;
    for note in &restored.notes {
        output.warn(note.clone());
    }
    let message = Summary {
        snapshot_id: snapshot.id.to_string(),
        file,
        database: restored.title,
        notes: restored.notes,
        bytes_written: bytes,
        total_duration: started.elapsed().as_secs_f64(),
    };
    output.message("summary", &message)?;
    Ok(Outcome::unless(false))
}

#[derive(Serialize)]
struct Summary {
    snapshot_id: String,
    file: String,
    database: String,
    notes: Vec<String>,
    bytes_written: u64,
    total_duration: f64,
}

/// The key of the dump at the top of the snapshot, if there is one and no other.
fn only_dump(reader: &Reader, root: Root) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    in_snapshot(list(reader, root, b"", Depth::Children, &mut |key, entry| {
        if entry.is_file() && ENDINGS.iter().any(|ending| key.ends_with(ending)) {
            found.push(key.to_vec());
        }
        Ok(())
    }))?;
    if found.len() > 1 {
        let names: Vec<_> = found.iter().map(|key| String::from_utf8_lossy(key)).collect();
        return Err(Problem::usage(
            format!("the snapshot holds several dumps: {}", names.join(", ")),
            "name one behind the snapshot: latest:/NAME.sql",
        ));
    }
    found.pop().ok_or_else(|| {
        Problem::failed(
            "there is no dump of a database at the top of the snapshot",
            "`stillpoint ls SNAPSHOT` lists what the snapshot holds; name the dump: latest:/PATH",
        )
    })
}

fn explain<T>(error: Error) -> Result<T> {
    match error {
        Error::Refused { what, hint } => {
            Err(Problem::failed(what, hint.unwrap_or_else(|| "nothing was changed".into())))
        }
        Error::Store(error) => in_snapshot(Err(error)),
        other => Err(Problem::failed(
            other.to_string(),
            "nothing is left of it: mend what is said there, and run the command again",
        )),
    }
}

/// A writer that counts, and refuses more once somebody asked to stop.
struct Counted<'a> {
    out: &'a mut dyn Write,
    context: &'a Context,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.context.cancel.is_requested() {
            return Err(io::Error::other("stopped"));
        }
        let written = self.out.write(bytes)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
