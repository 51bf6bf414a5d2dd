//! What is left out of a backup: gitignore-style patterns, marker files, cache directories, size.
//!
//! Decides on paths and directory listings only; opens nothing. Patterns are those of a `.gitignore` that lies in
//! the root directory: `*.o` matches anywhere, `/home/*/tmp` at that place, `build/` directories only, `!keep.o`
//! takes an earlier exclusion back. What lies below an excluded directory is not looked at.

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use stillpoint_store::{Error, Result};

/// The name of the file that marks a cache directory; see <https://bford.info/cachedir/>.
pub const CACHE_TAG: &str = "CACHEDIR.TAG";
/// The first bytes of a file that marks a cache directory.
pub const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// Longest header that a marker file may be asked for, bytes.
pub const MARKER_HEADER_MAX: usize = 4096;

/// What to leave out, as the user said it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterOptions {
    /// Patterns, the last match decides.
    pub excludes: Vec<String>,
    /// Patterns that ignore the case of letters.
    pub excludes_ignoring_case: Vec<String>,
    /// Leave out the content of directories that hold such a file; `NAME` or `NAME:HEADER`.
    pub if_present: Vec<String>,
    /// Leave out the content of directories with a valid `CACHEDIR.TAG`.
    pub caches: bool,
    /// Leave out files larger than this, bytes.
    pub larger_than: Option<u64>,
}

/// A file whose presence excludes the rest of its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The file's name.
    pub(crate) name: Vec<u8>,
    /// What the file must start with; empty: anything.
    pub(crate) header: Vec<u8>,
}

/// Compiled rules.
#[derive(Debug)]
pub struct Filter {
    exact: Option<Gitignore>,
    ignoring_case: Option<Gitignore>,
    markers: Vec<Marker>,
    larger_than: Option<u64>,
}

impl Filter {
    /// Compiles the rules.
    ///
    /// # Errors
    /// `Invalid` for a pattern that is none, or a marker that is not the name of a file.
    pub fn new(options: &FilterOptions) -> Result<Self> {
        let mut markers =
            options.if_present.iter().map(|rule| marker(rule)).collect::<Result<Vec<_>>>()?;
        if options.caches {
            markers.push(Marker { name: CACHE_TAG.into(), header: CACHE_SIGNATURE.into() });
        }
        Ok(Self {
            exact: compile(&options.excludes, false)?,
            ignoring_case: compile(&options.excludes_ignoring_case, true)?,
            markers,
            larger_than: options.larger_than,
        })
    }

    /// False when no pattern can match, so that nobody needs to build paths.
    pub(crate) fn has_patterns(&self) -> bool {
        self.exact.is_some() || self.ignoring_case.is_some()
    }

    /// Whether patterns exclude this path (absolute, without the leading `/`).
    pub fn excludes(&self, path: &[u8], is_directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        [&self.exact, &self.ignoring_case]
            .into_iter()
            .flatten()
            .any(|rules| matches!(rules.matched(path, is_directory), Match::Ignore(_)))
    }

    /// Whether a file is left out for its size, bytes.
    pub(crate) fn excludes_size(&self, size: u64) -> bool {
        self.larger_than.is_some_and(|limit| size > limit)
    }

    /// The files that exclude the rest of their directory.
    pub(crate) fn markers(&self) -> &[Marker] {
        &self.markers
    }
}

fn marker(rule: &str) -> Result<Marker> {
    let (name, header) = rule.split_once(':').unwrap_or((rule, ""));
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(Error::Invalid(format!("{rule:?} does not name a file")));
    }
    if header.len() > MARKER_HEADER_MAX {
        return Err(Error::Invalid(format!("the header of {name:?} is too long")));
    }
    Ok(Marker { name: name.into(), header: header.into() })
}

fn compile(patterns: &[String], ignoring_case: bool) -> Result<Option<Gitignore>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut builder = GitignoreBuilder::new("");
    let invalid =
        |pattern: &str, error| Error::Invalid(format!("exclude pattern {pattern:?}: {error}"));
    builder.case_insensitive(ignoring_case).map_err(|error| invalid("", error))?;
    builder.allow_unclosed_class(false);
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|error| invalid(pattern, error))?;
    }
    let rules = builder.build().map_err(|error| Error::Invalid(error.to_string()))?;
    Ok((!rules.is_empty()).then_some(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(excludes: &[&str], path: &str, is_directory: bool, expected: bool) {
        let excludes = excludes.iter().map(ToString::to_string).collect();
        let filter = Filter::new(&FilterOptions { excludes, ..Default::default() }).unwrap();
        assert_eq!(filter.excludes(path.as_bytes(), is_directory), expected, "{path}");
    }

    // Patterns mean what they mean in a .gitignore of the root directory.
    #[test]
    fn gitignore_patterns() {
        check(&["*.o"], "home/u/x.o", false, true);
        check(&["*.o", "!keep.o"], "home/u/keep.o", false, false);
        check(&["/home/*/tmp"], "home/u/tmp", true, true);
        check(&["/home/*/tmp"], "srv/home/u/tmp", true, false);
        check(&["build/"], "home/build", true, true);
        check(&["build/"], "home/build", false, false);
        check(&["# a comment", ""], "a comment", false, false);
        check(&["**/a/b"], "x/y/a/b", false, true);
        check(&["*.O"], "x.o", false, false);
    }

    // Names that are not text are matched as bytes.
    #[test]
    fn names_of_any_bytes() {
        let options = FilterOptions { excludes: vec!["*.o".into()], ..Default::default() };
        let filter = Filter::new(&options).unwrap();
        assert!(filter.excludes(b"\xff\xfe\n.o", false));
        assert!(!filter.excludes(b"\xff\xfe\n", false));
    }

    #[test]
    fn ignoring_case_and_sizes() {
        let filter = Filter::new(&FilterOptions {
            excludes_ignoring_case: vec!["*.ISO".into()],
            larger_than: Some(10),
            ..Default::default()
        })
        .unwrap();
        assert!(filter.excludes(b"a.iso", false));
        assert!(filter.excludes_size(11) && !filter.excludes_size(10));
    }

    // Rules that cannot work are refused before anything is read.
    #[test]
    fn bad_rules_are_refused() {
        for rule in ["", "a/b", "..", ":header"] {
            let options = FilterOptions { if_present: vec![rule.into()], ..Default::default() };
            assert!(Filter::new(&options).is_err(), "{rule:?}");
        }
        let options = FilterOptions { excludes: vec!["a[".into()], ..Default::default() };
        assert!(Filter::new(&options).is_err());
    }
}
