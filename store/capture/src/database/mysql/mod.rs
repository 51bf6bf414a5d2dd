//! MariaDB and MySQL: an instant is pinned under the lock by one session, which dumps it after the lock is given back.
//!
//! The vendors' dump tools begin their transaction in their own time and cannot take over one that was begun under a
//! lock; so rows and definitions are read by the session itself (decision 10).

mod catalogue;
mod dump;
mod restore;
mod settings;
mod values;

pub(super) use restore::restore;

use super::piped::{self, Held};
use super::{DatabaseOptions, DatabaseSource, PinReport, Url, file_name, refused};
use crate::error::{Error, Result};
use catalogue::{Catalogue, Pin};
use dump::Origin;
use mysql::Conn;
use settings::Settings;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use stillpoint_archive::StreamSource;

/// How often pinning begins again because tables came or went.
const ATTEMPTS_MAX: u32 = 5;

/// A database of MariaDB or MySQL whose tables are InnoDB's.
pub struct MysqlSource {
    settings: Settings,
    options: DatabaseOptions,
    name: String,
    rehearsed: Option<(Origin, Catalogue)>,
    session: Option<Conn>,
    pinned: Option<Instant>,
    report: Arc<Mutex<PinReport>>,
}

impl MysqlSource {
    /// The database that a URL names, after the rules of the vendors' clients. Connects to nothing.
    ///
    /// # Errors
    /// `Refused` when option files are unusable or no database is named.
    pub fn new(url: &Url, options: DatabaseOptions) -> Result<Self> {
        let settings = Settings::new(url, &options)?;
        let name = file_name(options.name.as_ref(), &settings.database)?;
        Ok(Self {
            settings,
            options,
            name,
            rehearsed: None,
            session: None,
            pinned: None,
            report: Arc::default(),
        })
    }

    fn connect(&self) -> Result<Conn> {
        let mut session = self.settings.connect(true)?;
        catalogue::prepare(&mut session, self.options.lock_timeout)?;
        Ok(session)
    }

    fn try_everything(&mut self) -> Result<(Origin, Catalogue)> {
        self.pinned = None;
        let mut session = self.connect()?;
        let origin = Origin::ask(&mut session)?;
        let catalogue = Catalogue::read(&mut session, &self.settings)?;
        let catalogue = pin(&mut session, catalogue, &self.settings)?;
        catalogue::release(&mut session)?;
        self.session = Some(session);
        Ok((origin, catalogue))
    }

    /// Pins by the session that is there, or by a new one if that one was cut.
    fn pin_warm(&mut self, catalogue: &Catalogue) -> Result<Catalogue> {
        if let Some(session) = &mut self.session {
            let pinned = pin(session, catalogue.clone(), &self.settings);
            if pinned.is_ok() || session.ping().is_ok() {
                return pinned;
            }
        }
        let mut session = self.connect()?;
        let catalogue = pin(&mut session, catalogue.clone(), &self.settings)?;
        self.session = Some(session);
        Ok(catalogue)
    }
}

fn pin(session: &mut Conn, mut catalogue: Catalogue, settings: &Settings) -> Result<Catalogue> {
    for _ in 0..ATTEMPTS_MAX {
        match catalogue.pin(session)? {
            Pin::Done => return Ok(catalogue),
            Pin::Changed => catalogue = Catalogue::read(session, settings)?,
        }
    }
    Err(Error::Failed(
        "tables of the database come and go all the time: nothing can be pinned".into(),
    ))
}

fn nothing_pinned() -> Error {
    Error::Failed("nothing is pinned in the database, so there is nothing to dump".into())
}

impl DatabaseSource for MysqlSource {
    fn title(&self) -> String {
        let product = self.rehearsed.as_ref().map(|(origin, _)| origin.product());
        let product = product.unwrap_or_else(|| "MariaDB or MySQL".into());
        format!("{product}, database {} on {}", self.settings.database, self.settings.place())
    }

    fn rehearse(&mut self) -> Result<()> {
        let rehearsed = self.try_everything().map_err(|error| match error {
            Error::Failed(what) => refused(what, "nothing was locked: mend it and run again"),
            other => other,
        })?;
        self.rehearsed = Some(rehearsed);
        Ok(())
    }

    fn pin(&mut self) -> Result<()> {
        let started = Instant::now();
        if self.pinned.take().is_some()
            && let Some(session) = &mut self.session
        {
            catalogue::release(session)?;
        }
        let (_, catalogue) = self.rehearsed.as_ref().ok_or_else(nothing_pinned)?;
        let catalogue = self.pin_warm(&catalogue.clone())?;
        if let Some((_, rehearsed)) = &mut self.rehearsed {
            *rehearsed = catalogue;
        }
        self.pinned = Some(started);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        *report = PinReport { pin: Some(started.elapsed()), held: None };
        Ok(())
    }

    fn dump(&mut self) -> Result<Vec<Box<dyn StreamSource>>> {
        let since = self.pinned.take().ok_or_else(nothing_pinned)?;
        let session = self.session.take().ok_or_else(nothing_pinned)?;
        let (origin, catalogue) = self.rehearsed.clone().ok_or_else(nothing_pinned)?;
        let mut held = Held::new(session, since, Arc::clone(&self.report));
        let name = format!("{}.sql", self.name);
        let stream =
            piped::start(name, move |out| dump::write(held.session()?, &origin, &catalogue, out))?;
        Ok(vec![stream])
    }

    fn report(&self) -> PinReport {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
