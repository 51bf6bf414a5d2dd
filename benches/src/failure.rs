//! What ends a comparison run: one error with the object it concerns.

use std::path::Path;

/// A step of the run that could not be done, or a restore that differs.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file or program could not be used.
    #[error("{object}: {source}")]
    Io {
        /// The path or program.
        object: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, Failure>;

/// Names the object of an input or output error.
pub trait At<T> {
    /// The same result, with the object named in its error.
    fn at(self, object: &Path) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, object: &Path) -> Result<T> {
        self.map_err(|source| Failure::Io { object: object.display().to_string(), source })
    }
}
