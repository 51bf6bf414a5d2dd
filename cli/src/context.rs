//! What every command works with: output, cancellation, and the repository that the command line names.

use crate::args::GlobalArgs;
use crate::failure::{self, in_source};
use crate::host;
use crate::location::{self, Side};
use crate::output::Output;
use crate::secret::{self, Purpose};
use crate::signals::Cancel;
use anyhow::Result;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use stillpoint_store::backend::{Backend, LocalBackend};
use stillpoint_store::record::Secret;
use stillpoint_store::repository::{CreateOptions, OpenOptions, OpenedIndex, Repository};
use stillpoint_store::{Env, Error, SystemEnv};

/// What every command works with.
pub struct Context {
    /// Where output goes.
    pub output: Arc<Output>,
    /// Whether somebody asked to stop.
    pub cancel: Cancel,
    global: GlobalArgs,
    env: Arc<dyn Env>,
    opened: Mutex<Vec<Arc<Repository>>>,
}

impl Context {
    /// The context of this process.
    pub fn new(global: GlobalArgs, output: Arc<Output>, cancel: Cancel) -> Self {
        Self { output, cancel, global, env: Arc::new(SystemEnv), opened: Mutex::default() }
    }

    /// The clock and the random generator.
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.env
    }

    /// Opens the repository that the command line names.
    ///
    /// # Errors
    /// Usage problems, what the secret's source gives, and what [`Repository::open`] gives.
    pub fn open(&self) -> Result<Arc<Repository>> {
        Ok(self.open_with_secret()?.0)
    }

    /// As [`Self::open`], with the secret that opened it: it cannot be read from its source again.
    pub fn open_with_secret(&self) -> Result<(Arc<Repository>, Secret)> {
        let backend = self.existing(&self.global, Side::Own)?;
        let secret = self.secret(&self.global, Side::Own, Purpose::Open)?;
        Ok((self.open_with(backend, &secret)?, secret))
    }

    /// Opens the repository that `from` names, and the one that the command line names.
    ///
    /// # Errors
    /// As [`Self::open`], for each of the two.
    pub fn open_both(&self, from: &GlobalArgs) -> Result<(Arc<Repository>, Arc<Repository>)> {
        let there = self.existing(&self.global, Side::Own)?;
        let source = self.existing(from, Side::Source).map_err(in_source)?;
        // Both secrets first: they may come from the environment, and opening may start threads.
        let secret = self.secret(&self.global, Side::Own, Purpose::Open)?;
        let from_secret = self.secret(from, Side::Source, Purpose::OpenSource)?;
        let source = self.open_with(source, &from_secret).map_err(in_source)?;
        Ok((source, self.open_with(there, &secret)?))
    }

    /// Asking for a passphrase makes no sense where there is nothing to open.
    fn existing(&self, args: &GlobalArgs, side: Side) -> Result<Arc<dyn Backend>> {
        let backend = LocalBackend::new(location::repository(args, side)?);
        if backend.size_bytes(&stillpoint_store::ObjectName::Config)?.is_none() {
            return Err(Error::NoRepository { location: backend.location() }.into());
        }
        Ok(Arc::new(backend))
    }

    fn open_with(&self, backend: Arc<dyn Backend>, secret: &Secret) -> Result<Arc<Repository>> {
        let options = self.open_options();
        let repository = Repository::open(backend, Arc::clone(&self.env), secret, options)?;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.push(Arc::clone(&repository));
        Ok(repository)
    }

    /// Creates a repository at the place that the command line names.
    ///
    /// # Errors
    /// `AlreadyExists`, and as [`Self::open`].
    pub fn create(&self) -> Result<Arc<Repository>> {
        let backend = self.backend()?;
        if backend.size_bytes(&stillpoint_store::ObjectName::Config)?.is_some() {
            let location = backend.location();
            return Err(stillpoint_store::Error::AlreadyExists { location }.into());
        }
        let secret = self.secret(&self.global, Side::Own, Purpose::Choose)?;
        let create = CreateOptions { label: host::user_at_host(), ..CreateOptions::default() };
        let env = Arc::clone(&self.env);
        Ok(Repository::create(backend, env, &secret, &create, self.open_options())?)
    }

    /// Tells what the repository has to say once: an index that was rebuilt, a roll-back that was noticed.
    pub fn tell_notices(&self) {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        for repository in opened.iter() {
            repository.notices().iter().for_each(|notice| self.output.notice(notice));
        }
    }

    /// True when standard input is what gives the passphrase.
    pub fn secret_is_stdin(&self) -> bool {
        self.global.secret.password_fd == Some(0)
    }

    /// The directory of the repository.
    ///
    /// # Errors
    /// As [`location::repository`].
    pub fn repository_dir(&self) -> Result<PathBuf> {
        location::repository(&self.global, Side::Own)
    }

    fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(LocalBackend::new(self.repository_dir()?)))
    }

    fn secret(&self, args: &GlobalArgs, side: Side, purpose: Purpose) -> Result<Secret> {
        let source = secret::source(&args.secret, side)?;
        secret::read(&source, purpose, &mut |warning| self.output.warn(warning))
    }

    fn open_options(&self) -> OpenOptions {
        OpenOptions {
            cache_dir: location::cache_dir(&self.global),
            index: Arc::new(|dir| {
                let index = stillpoint_rocks::open(dir).map_err(|error| match error {
                    Error::Io { source, .. } => {
                        Error::io(failure::OPENING_CACHE, dir.display(), source)
                    }
                    other => other,
                })?;
                let notice = index.notice();
                Ok(OpenedIndex { index, notice })
            }),
            cancel: self.cancel.token(),
        }
    }
}
