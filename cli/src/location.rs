//! Which repository, and where what can be rebuilt is kept: flags, environment, defaults.

use crate::args::GlobalArgs;
use crate::failure::Problem;
use anyhow::{Context as _, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const CACHE_DIR: &str = "STILLPOINT_CACHE_DIR";
const STATE_DIR: &str = "STILLPOINT_STATE_DIR";
/// Longest file that is read for the repository's place, bytes.
const REPOSITORY_FILE_BYTES_MAX: u64 = 64 << 10;
/// What other tools' users may type, and what is not there yet.
const REMOTE: [&str; 10] =
    ["sftp:", "rest:", "s3:", "b2:", "azure:", "gs:", "swift:", "rclone:", "http:", "https:"];

/// Which of two repositories flags and variables are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that the command works on.
    Own,
    /// The one that `copy` reads.
    Source,
}

impl Side {
    /// The name of an environment variable, from its end.
    pub fn variable(self, end: &str) -> String {
        match self {
            Self::Own => format!("STILLPOINT_{end}"),
            Self::Source => format!("STILLPOINT_FROM_{end}"),
        }
    }

    /// The spelling of a flag.
    pub fn flag(self, own: &'static str, source: &'static str) -> &'static str {
        match self {
            Self::Own => own,
            Self::Source => source,
        }
    }
}

/// The directory that holds the repository. A flag beats the environment.
///
/// # Errors
/// A usage problem when none, or two, are named, or when it is not a directory on this machine.
pub fn repository(args: &GlobalArgs, side: Side) -> Result<PathBuf> {
    let (place_variable, file_variable) =
        (side.variable("REPOSITORY"), side.variable("REPOSITORY_FILE"));
    let (place, file) = match (&args.repo, &args.repository_file) {
        (Some(_), Some(_)) => {
            return Err(both(
                side.flag("-r and --repository-file", "--from-repo and --from-repository-file"),
            ));
        }
        (None, None) => (path_variable(&place_variable), path_variable(&file_variable)),
        given => (given.0.clone(), given.1.clone()),
    };
    let place = match (place, file) {
        (Some(_), Some(_)) => return Err(both(&format!("${place_variable} and _REPOSITORY_FILE"))),
        (Some(place), None) => place,
        (None, Some(file)) => first_line(&file)?,
        (None, None) => {
            let flag = side.flag("-r", "--from-repo");
            return Err(Problem::usage(
                side.flag(
                    "which repository? none is named",
                    "which repository to copy from? none is named",
                ),
                format!("use {flag} PLACE or set ${place_variable}"),
            ));
        }
    };
    local(&place)
}

fn both(names: &str) -> anyhow::Error {
    Problem::usage(format!("{names} both name a repository"), "use only one of them")
}

fn local(place: &Path) -> Result<PathBuf> {
    let bytes = place.as_os_str().as_bytes();
    if let Some(scheme) = REMOTE.iter().find(|scheme| bytes.starts_with(scheme.as_bytes())) {
        return Err(Problem::usage(
            format!("repositories at {scheme} are not supported by this version"),
            format!("use a directory; for one with such a name write ./{}", place.display()),
        ));
    }
    let path = bytes.strip_prefix(b"local:").unwrap_or(bytes);
    if path.is_empty() {
        return Err(Problem::usage("the repository's place is empty", "use -r PLACE"));
    }
    Ok(PathBuf::from(OsStr::from_bytes(path)))
}

fn first_line(file: &Path) -> Result<PathBuf> {
    use std::io::Read as _;
    let failed = || format!("reading the repository file {}", file.display());
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(REPOSITORY_FILE_BYTES_MAX).read_to_string(&mut text))
        .with_context(failed)?;
    Ok(text.lines().next().unwrap_or("").trim().into())
}

/// The directory for the index and other things that can be rebuilt; None where nothing is to be kept.
pub fn cache_dir(args: &GlobalArgs) -> Option<PathBuf> {
    if args.no_cache {
        return None;
    }
    let below = |base: PathBuf, rest: &str| base.is_absolute().then(|| base.join(rest));
    args.cache_dir
        .clone()
        .or_else(|| path_variable(CACHE_DIR))
        .or_else(|| path_variable("XDG_CACHE_HOME").and_then(|base| below(base, "stillpoint")))
        .or_else(|| path_variable("HOME").and_then(|base| below(base, ".cache/stillpoint")))
}

/// The directory for what must survive a restart, such as what is needed to unlock an application.
///
/// # Errors
/// A usage problem when there is no place for it.
pub fn state_dir(flag: Option<&Path>) -> Result<PathBuf> {
    let below = |base: PathBuf, rest: &str| base.is_absolute().then(|| base.join(rest));
    flag.map(Path::to_owned)
        .or_else(|| path_variable(STATE_DIR))
        .or_else(|| path_variable("XDG_STATE_HOME").and_then(|base| below(base, "stillpoint")))
        .or_else(|| path_variable("HOME").and_then(|base| below(base, ".local/state/stillpoint")))
        .map(|dir| std::path::absolute(&dir).unwrap_or(dir))
        .ok_or_else(|| {
            Problem::usage(
                "there is no place for what must survive a restart",
                format!("use --state-dir DIR or set ${STATE_DIR}"),
            )
        })
}

fn path_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    // A directory by its path or as local:PATH; remote places are refused by name, not taken for directories.
    #[test]
    fn places() {
        let local = |place: &str| local(Path::new(place));
        assert_eq!(local("/srv/backup").unwrap(), Path::new("/srv/backup"));
        assert_eq!(local("local:backup").unwrap(), Path::new("backup"));
        assert_eq!(local("./s3:odd").unwrap(), Path::new("./s3:odd"));
        for place in ["s3:host/bucket", "sftp:me@host:/srv", "", "local:"] {
            assert!(local(place).is_err(), "{place}");
        }
    }

    // Two names for one repository are a mistake.
    #[test]
    fn flags_exclude_each_other() {
        let args = GlobalArgs {
            repo: Some("a".into()),
            repository_file: Some("b".into()),
            ..GlobalArgs::default()
        };
        assert_eq!(crate::failure::explain(&repository(&args, Side::Own).unwrap_err()).code, 2);
    }
}
