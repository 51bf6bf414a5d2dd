//! Environment variables that databases' own settings come from, and what child processes get of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// The process's environment with some variables set or taken away.
#[derive(Clone, Default)]
pub struct Environment {
    changed: BTreeMap<String, Option<String>>,
}

impl Environment {
    /// That of this process.
    pub fn own() -> Self {
        Self::default()
    }

    /// The same with one variable set.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.changed.insert(name.into(), Some(value.into()));
        self
    }

    /// The same without one variable.
    #[must_use]
    pub fn without(mut self, name: impl Into<String>) -> Self {
        self.changed.insert(name.into(), None);
        self
    }

    /// A variable that is set and not empty, as databases' clients understand it.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let value = match self.changed.get(name) {
            Some(value) => value.clone(),
            None => std::env::var(name).ok(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// The home directory.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }

    /// The name of the user that this process runs as, as far as it is known.
    pub(crate) fn user(&self) -> Option<String> {
        let id = rustix::process::geteuid().as_raw().to_string();
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let line = users.lines().find(|line| line.split(':').nth(2) == Some(&id));
        let name = line.and_then(|line| line.split(':').next()).map(str::to_owned);
        name.or_else(|| self.get("USER"))
    }

    /// Gives a child process this environment.
    pub(crate) fn apply(&self, command: &mut Command) {
        for (name, value) in &self.changed {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
}

impl fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.changed.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is set here wins over the process's own, empty counts as not set, and no value is ever shown.
    #[test]
    fn variables() {
        let own = Environment::own();
        assert!(own.get("PATH").is_some() && own.get("NO_SUCH_VARIABLE").is_none());
        let changed = own.with("PGPASSWORD", "secret").with("EMPTY", "").without("PATH");
        assert_eq!(changed.get("PGPASSWORD").as_deref(), Some("secret"));
        assert!(changed.get("EMPTY").is_none() && changed.get("PATH").is_none());
        let shown = format!("{changed:?}");
        assert!(shown.contains("PGPASSWORD") && !shown.contains("secret"), "{shown}");
    }
}
