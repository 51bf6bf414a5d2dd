//! What commands that save files have in common: which files, and what the snapshot's record says.

use crate::commands::version::PROGRAM;
use crate::context::Context;
use crate::host;
use crate::values;
use anyhow::{Context as _, Result};
use clap::Args;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use stillpoint_archive::backup::BackupOptions;
use stillpoint_archive::filter::{Filter, FilterOptions};
use stillpoint_store::{Timestamp, WriteOptions};

const SELECT: &str = "What to leave out";

/// What is saved.
#[derive(Debug, Args)]
pub struct SelectArgs {
    /// Files and directories to save
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Also save the paths listed in this file, one a line (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    pub files_from: Vec<PathBuf>,

    /// Leave out what matches this pattern, as in .gitignore; `!PATTERN` takes it in again
    #[arg(short, long, value_name = "PATTERN", help_heading = SELECT)]
    pub exclude: Vec<String>,

    /// The same without regard to upper and lower case
    #[arg(long, value_name = "PATTERN", help_heading = SELECT)]
    pub iexclude: Vec<String>,

    /// Read such patterns from a file
    #[arg(long, value_name = "FILE", help_heading = SELECT)]
    pub exclude_file: Vec<PathBuf>,

    /// Leave out what is in a directory that holds a file of this name, but for that file; with :HEADER only if it begins so
    #[arg(long, value_name = "NAME[:HEADER]", help_heading = SELECT)]
    pub exclude_if_present: Vec<String>,

    /// Leave out caches: directories marked by a CACHEDIR.TAG
    #[arg(long, help_heading = SELECT)]
    pub exclude_caches: bool,

    /// Leave out files larger than this (500, 64k, 1.5G)
    #[arg(long, value_name = "SIZE", value_parser = values::size, help_heading = SELECT)]
    pub exclude_larger_than: Option<u64>,

    /// Do not cross into other file systems below the given paths
    #[arg(short = 'x', long, help_heading = SELECT)]
    pub one_file_system: bool,
}

impl SelectArgs {
    /// The paths of the command line and of the files that list some.
    pub fn roots(&self) -> Result<Vec<PathBuf>> {
        let mut roots = self.paths.clone();
        for list in &self.files_from {
            let failed = || format!("reading the list of paths {}", list.display());
            let mut bytes = Vec::new();
            if list.as_os_str() == "-" {
                std::io::stdin().read_to_end(&mut bytes).with_context(failed)?;
            } else {
                bytes = std::fs::read(list).with_context(failed)?;
            }
            let lines = bytes.split(|byte| *byte == b'\n');
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
            roots.extend(lines.map(|line| PathBuf::from(OsStr::from_bytes(line))));
        }
        Ok(roots)
    }

    /// The rules, compiled once for trial.
    pub fn filter(&self) -> Result<FilterOptions> {
        let mut excludes = self.exclude.clone();
        for file in &self.exclude_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("reading the patterns in {}", file.display()))?;
            excludes.extend(text.lines().map(str::to_owned));
        }
        let options = FilterOptions {
            excludes,
            excludes_ignoring_case: self.iexclude.clone(),
            if_present: self.exclude_if_present.clone(),
            caches: self.exclude_caches,
            larger_than: self.exclude_larger_than,
        };
        Filter::new(&options)?;
        Ok(options)
    }
}

/// What the record says.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Label of the snapshot; may be given several times
    #[arg(long, value_name = "TAG[,TAG]", value_delimiter = ',')]
    pub tag: Vec<String>,

    /// A sentence to keep with the snapshot
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,

    /// Protect the snapshot from being forgotten, as `stillpoint protect` does
    #[arg(long)]
    pub protect: bool,

    /// Host name to record [default: this machine's]
    #[arg(short = 'H', long, value_name = "NAME")]
    pub host: Option<String>,

    /// Time to record ('2026-03-01 14:05:09' or RFC 3339) [default: now]
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub time: Option<Timestamp>,
}

impl RecordArgs {
    /// Options of a backup of these paths under these rules; the rest is the caller's.
    pub fn options(
        &self,
        context: &Context,
        (roots, filter, select): (Vec<PathBuf>, FilterOptions, &SelectArgs),
        write: WriteOptions,
    ) -> BackupOptions {
        BackupOptions {
            roots,
            filter,
            one_file_system: select.one_file_system,
            time: self.time,
            host: self.host.clone().unwrap_or_else(host::name),
            user: host::user(),
            tags: self.tag.iter().filter(|tag| !tag.is_empty()).cloned().collect(),
            description: self.description.clone(),
            program: PROGRAM.to_owned(),
            estimate: context.output.shows_progress(),
            write: WriteOptions { protect: self.protect, ..write },
            ..BackupOptions::default()
        }
    }
}
