//! `stillpoint dump`: prints a file, or a directory as a tar archive, to standard output.

use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::{self, in_snapshot, in_target};
use crate::json;
use crate::listing;
use crate::text;
use crate::values::{self, SnapshotPath};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use stillpoint_archive::Problem;
use stillpoint_archive::dump::dump;
use stillpoint_store::tree::Root;
use stillpoint_store::{Error, Reader};

/// Options of `dump`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint dump latest /etc/fstab
  stillpoint dump latest shop.sql | psql shop
  stillpoint dump latest:/home/me project | tar t")]
pub struct DumpArgs {
    /// The snapshot; with :/PATH the directory that PATH is relative to
    #[arg(value_name = "SNAPSHOT[:/PATH]", value_parser = values::snapshot_path_parser())]
    snapshot: SnapshotPath,

    /// The file or directory
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    target: Option<PathBuf>,
}

impl DumpArgs {
    /// True where a half-written file must be taken away before the process ends.
    pub fn writes_a_file(&self) -> bool {
        self.target.is_some()
    }
}

/// Writes the file or archive.
pub fn run(context: &Context, args: &DumpArgs) -> Result<Outcome> {
    let to_stdout = args.target.is_none();
    if to_stdout && context.output.is_json() {
        return Err(failure::Problem::usage(
            "the content of a file is not JSON",
            "with --json name a file to write to: --target FILE",
        ));
    }
    let repository = context.open()?;
    let snapshot = repository.find_snapshot(&args.snapshot.snapshot)?;
    let key = listing::key(args.snapshot.path.as_deref(), &args.path)?;
    let reader = repository.reader()?;
    let root = snapshot.record.root;
    let (problems, bytes) = match &args.target {
        None => (into_stdout(context, &reader, root, &key)?, None),
        Some(path) => {
            let (problems, bytes) = into_file(context, &reader, root, &key, path)?;
            (problems, Some(bytes))
        }
    };
    for problem in &problems {
        context.output.problem("dump", problem.path.as_os_str().as_bytes(), &problem.what);
    }
    if let Some(bytes) = bytes {
        let path = listing::path_bytes(&key);
        let message = Dumped { path: json::Path::item(&path), bytes };
        context.output.say(format!("wrote {}", text::size(bytes)))?;
        context.output.message("summary", &message)?;
    }
    Ok(Outcome::unless(!problems.is_empty()))
}

#[derive(Serialize)]
struct Dumped<'a> {
    #[serde(flatten)]
    path: json::Path<'a>,
    bytes: u64,
}

fn into_stdout(context: &Context, reader: &Reader, root: Root, key: &[u8]) -> Result<Vec<Problem>> {
    let mut out = context.output.raw();
    let problems = in_snapshot(dump(reader, root, key, &mut out))?;
    out.flush()?;
    Ok(problems)
}

/// Writes beside the file and renames at the end: what was there stays until all of the new content is on disk.
fn into_file(
    context: &Context,
    reader: &Reader,
    root: Root,
    key: &[u8],
    path: &Path,
) -> Result<(Vec<Problem>, u64)> {
    let failed = format!("writing {}", path.display());
    let failed = |error| failure::while_writing(error, &failed);
    let found = std::fs::metadata(path).ok();
    if found.as_ref().is_some_and(|found| !found.is_file()) {
        // A device or a pipe has no content that could be lost, and must not be replaced by a file.
        let file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
        let mut out = Sink { file: io::BufWriter::new(file), context, bytes: 0 };
        let problems = in_target(dump(reader, root, key, &mut out))?;
        out.file.flush().map_err(failed)?;
        return Ok((problems, out.bytes));
    }
    // Where the name is a link, the file that it leads to is replaced.
    let path = if found.is_some() { path.canonicalize().map_err(failed)? } else { path.to_owned() };
    let beside = beside(&path)?;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&beside);
    let file = file.map_err(failed)?;
    let written = (|| {
        if let Some(found) = found {
            // Only root may give files away; for everybody else the file is theirs as it was.
            let _ = std::os::unix::fs::fchown(&file, Some(found.uid()), Some(found.gid()));
            file.set_permissions(found.permissions()).map_err(failed)?;
        }
        let file = io::BufWriter::with_capacity(1 << 20, file);
        let mut out = Sink { file, context, bytes: 0 };
        let problems = match dump(reader, root, key, &mut out) {
            Err(_) if context.cancel.is_requested() => return Err(Error::Cancelled.into()),
            result => in_target(result)?,
        };
        let file = out.file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&beside, &path).map_err(failed)?;
        Ok((problems, out.bytes))
    })();
    if written.is_err() {
        // What failed is told; a second failure would add nothing.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// A name in the same directory that nobody else uses.
fn beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        failure::Problem::usage(
            format!("{} is no name of a file", path.display()),
            "name the file to write: --target FILE",
        )
    })?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".stillpoint-{}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

/// A file that counts what is written, and refuses more once somebody asked to stop.
struct Sink<'a> {
    file: io::BufWriter<File>,
    context: &'a Context,
    bytes: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.context.cancel.is_requested() {
            return Err(io::Error::other("stopped"));
        }
        let written = self.file.write(bytes)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
