//! Which paths a restore includes: patterns as in a `.gitignore`, relative to what is restored.

use crate::path::path_from_key;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::Path;
use stillpoint_store::{Error, Result};

/// Include and exclude patterns. A pattern with a slash in front or inside counts from the restored directory; one
/// without matches at any depth. An excluded directory excludes everything below it.
#[derive(Debug, Clone)]
pub struct Selection {
    include: Option<Gitignore>,
    exclude: Gitignore,
}

impl Default for Selection {
    fn default() -> Self {
        Self { include: None, exclude: Gitignore::empty() }
    }
}

impl Selection {
    /// Everything that matches one of `include` (everything, if there is none) and none of `exclude`.
    ///
    /// # Errors
    /// `Invalid` for a pattern that does not parse.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self> {
        let include = if include.is_empty() { None } else { Some(matcher(include)?) };
        Ok(Self { include, exclude: matcher(exclude)? })
    }

    /// Whether patterns leave anything out.
    pub fn is_everything(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// Whether the path is left out, together with everything below it.
    pub(super) fn excludes(&self, key: &[u8], is_dir: bool) -> bool {
        !self.exclude.is_empty() && self.exclude.matched(path_from_key(key), is_dir).is_ignore()
    }

    /// Whether the path is asked for by itself; what lies below it is asked for then, too.
    pub(super) fn includes(&self, key: &[u8], is_dir: bool) -> bool {
        match &self.include {
            None => true,
            Some(include) => include.matched(path_from_key(key), is_dir).is_ignore(),
        }
    }
}

fn matcher(patterns: &[String]) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new(Path::new("/"));
    let invalid = |error: ignore::Error| Error::Invalid(format!("pattern: {error}"));
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(invalid)?;
    }
    builder.build().map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_select_as_in_a_gitignore() {
        let patterns = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let selection =
            Selection::new(&patterns(&["*.rs", "/docs"]), &patterns(&["target/", "/a/b"])).unwrap();
        let key = |path: &str| path.replace('/', "\0").into_bytes();
        assert!(selection.includes(&key("x/main.rs"), false));
        assert!(selection.includes(&key("docs"), true));
        assert!(!selection.includes(&key("x/docs"), true));
        assert!(selection.excludes(&key("x/target"), true));
        assert!(!selection.excludes(&key("x/target"), false));
        assert!(selection.excludes(&key("a/b"), false));
        assert!(!selection.excludes(&key("x/a/b"), false));
        assert!(selection.includes(b"\xff\xfe.rs", false));
        assert!(!selection.is_everything() && Selection::default().is_everything());
        assert!(Selection::default().includes(&key("anything"), false));
        assert!(Selection::new(&patterns(&["a{b"]), &[]).is_err());
    }
}
