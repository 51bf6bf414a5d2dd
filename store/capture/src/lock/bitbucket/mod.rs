//! A Bitbucket instance as an application that can be locked, after the published backup scripts.
//!
//! Owns the order of the calls and the lines that people know from those scripts. The lock itself is the watchdog's.

mod calls;
mod held;

pub use held::Held;

use super::keeper::{Keeper, Watch};
use super::login::Login;
use super::order::{Ending, Hand, Order};
use super::web::{NoReply, Reply, Web, WebOptions, host_of};
use super::{Drain, LockAdapter, Rehearsal, Tell};
use crate::error::{Error, Result};
use calls::{Api, LockInfo, Owner, Properties, Started, Status, body, repeat};
use serde::{Deserialize, Serialize};

const DRAINED: &str = "DRAINED";
const AVAILABLE: &str = "AVAILABLE";
const RUNNING: &str = "RUNNING";
/// The most dots in the line about waiting.
const DOTS_MAX: usize = 60;

/// Not saved from the home directory, for versions before 6 (the founding script and later ones).
const EXCLUDES: [&str; 12] = [
    "/caches/",
    "/data/db.*",
    "/export/",
    "/log/",
    "/plugins/.*/",
    "/tmp",
    "/.lock",
    "/shared/data/db.*",
    "/search/data/",
    "/shared/search/data/",
    "/shared/export/",
    "/shared/.lock",
];
/// Not saved from version 6 on.
const EXCLUDES_6: [&str; 4] = ["/caches/", "/log/", "/tmp", "/.lock"];

/// How an instance is reached, and what of it is not saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BitbucketOptions {
    /// The base URL, with a context path if there is one.
    pub url: String,
    /// A user with backup rights.
    pub login: Login,
    /// Certificates and time limits.
    pub web: WebOptions,
    /// Repositories, by number, that are not saved.
    pub exclude_repositories: Vec<u64>,
}

/// A Bitbucket instance.
pub struct Bitbucket {
    options: BitbucketOptions,
    keeper: Keeper,
    tell: Tell,
    held: Held,
    web: Option<Web>,
    watch: Option<Watch>,
    ending: Ending,
    polls: usize,
    was_latched: bool,
    percent: Option<u8>,
}

impl Bitbucket {
    /// The instance at a URL; `tell` is given the lines of the published scripts.
    pub fn new(options: BitbucketOptions, keeper: Keeper, tell: Tell) -> Self {
        let held = Held {
            base: options.url.trim_end_matches('/').to_owned(),
            login: options.login.clone().anchored(),
            web: options.web.clone().anchored(),
            token: None,
            cancel: None,
            refusals: 0,
        };
        Self {
            options,
            keeper,
            tell,
            held,
            web: None,
            watch: None,
            ending: Ending::Abandon,
            polls: 0,
            was_latched: false,
            percent: None,
        }
    }

    /// A line as the published scripts print it: `[URL]  INFO: TEXT`.
    pub fn line(&self, text: &str) -> String {
        self.held.line(text)
    }

    fn say(&self, text: &str) {
        (self.tell)(&self.held.line(text));
    }

    fn api(&self) -> Result<Api<'_>> {
        let web = self.web.as_ref().ok_or_else(|| Error::Failed("not rehearsed".into()))?;
        Ok(Api { web, base: &self.held.base })
    }

    fn token(&self) -> Result<&str> {
        let token = self.held.token.as_deref();
        token.ok_or_else(|| Error::Failed(format!("{} is not locked", self.held.title())))
    }

    fn refuse(&self, what: impl std::fmt::Display, hint: &str) -> Error {
        let what = format!("{}: {what}", self.held.title());
        Error::Refused { what, hint: Some(hint.into()) }
    }

    /// What it is; follows a redirection to the place where the instance really is.
    fn properties(&mut self) -> Result<Properties> {
        let hint = "check the URL, with the context path if there is one";
        let api = self.api()?;
        let reply =
            repeat(|| api.properties()).result.map_err(|error| self.refuse(error.text, hint))?;
        let properties: Option<Properties> = body(&reply).filter(|_| reply.is_success());
        let properties = properties.ok_or_else(|| {
            self.refuse(format!("no Bitbucket answers ({})", reply.complaint()), hint)
        })?;
        if let Some(base) = reply.url.strip_suffix("/rest/api/1.0/application-properties")
            && host_of(base) == host_of(&self.held.base)
        {
            self.held.base = base.to_owned();
        }
        Ok(properties)
    }

    /// Logs in for trial, and looks whether somebody else holds the lock.
    fn try_rights(&self) -> Result<()> {
        let api = self.api()?;
        let status = repeat(|| api.status(None)).result;
        let reply = status.map_err(|error| self.refuse(error.text, "try again"))?;
        match reply.status {
            200..300 => {}
            401 => return Err(self.refuse(reply.complaint(), "check user and password")),
            403 => {
                return Err(self.refuse(
                    reply.complaint(),
                    "the user needs the right to back up (a system administrator has it)",
                ));
            }
            _ => return Err(self.refuse(reply.complaint(), "check that Bitbucket is well")),
        }
        match repeat(|| api.lock_info()).result {
            Ok(reply) if reply.is_success() => {
                let info: Option<LockInfo> = body(&reply);
                let owner =
                    info.map_or("somebody".into(), |LockInfo { owner: Owner { name } }| name);
                Err(Error::Occupied { application: self.held.title(), owner })
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self) -> Result<()> {
        let api = self.api()?;
        let token = self.token()?;
        let repeated = repeat(|| api.start(token));
        let reply = self.answered(repeated.result, "starting the backup")?;
        if reply.status == 409 && repeated.may_be_done {
            return Err(Error::Failed(format!(
                "{}: the backup was started, but the reply with its cancel token was lost",
                self.held.title()
            )));
        }
        self.accepted(&reply, "starting the backup")?;
        let started: Option<Started> = body(&reply);
        let cancel = started.map(|started| started.cancel_token).ok_or_else(|| {
            Error::Failed(format!("{}: no cancel token in its answer", self.held.title()))
        })?;
        self.say(&format!("backup started with '{cancel}'"));
        self.held.cancel = Some(cancel);
        let order = Order::Bitbucket(self.held.clone());
        self.watch.as_mut().map_or(Ok(()), |watch| watch.update(order))
    }

    fn answered(&self, result: Result<Reply, NoReply>, what: &str) -> Result<Reply> {
        result.map_err(|error| {
            Error::Failed(format!("{}: {what}: {}", self.held.title(), error.text))
        })
    }

    /// 409 means that the lock or the task is not ours any more.
    fn accepted(&self, reply: &Reply, what: &str) -> Result<()> {
        let text = || format!("{}: {what}: {}", self.held.title(), reply.complaint());
        match reply.status {
            200..300 => Ok(()),
            409 => Err(Error::Lost(text())),
            _ => Err(Error::Failed(text())),
        }
    }

    /// Why it does not hold still any more: the watchdog may know better.
    fn lost(&mut self, otherwise: String) -> Drain {
        let confirmed = self.watch.as_mut().map_or(Ok(()), Watch::confirm);
        Drain::Lost(match confirmed {
            Err(Error::Lost(why)) => why,
            _ => otherwise,
        })
    }

    fn judge(&mut self, status: &Status) -> Drain {
        let Some(task) = &status.task else {
            return self
                .lost("the backup task is gone: somebody cancelled it, or it failed".into());
        };
        if task.state != RUNNING {
            return self.lost(format!("the backup task is {}", task.state));
        }
        let states = [status.db_state.as_str(), status.scm_state.as_str()];
        if states == [DRAINED, DRAINED] {
            let dots = ".".repeat(self.polls.min(DOTS_MAX));
            self.say(&format!("Waiting for DRAINED state{dots} done"));
            self.say(&format!("db state '{DRAINED}'"));
            self.say(&format!("scm state '{DRAINED}'"));
            return Drain::Drained;
        }
        let is_latched = !states.contains(&AVAILABLE);
        if self.was_latched && !is_latched {
            return self.lost("the latches opened again: draining failed".into());
        }
        self.was_latched |= is_latched;
        let progress = task.progress.as_ref().and_then(|progress| progress.message.as_deref());
        Drain::Waiting(format!(
            "database {}, files {}: {}",
            states[0].to_lowercase(),
            states[1].to_lowercase(),
            progress.unwrap_or("waiting")
        ))
    }
}

impl LockAdapter for Bitbucket {
    fn rehearse(&mut self) -> Result<Rehearsal> {
        let password = self.held.login.read(host_of(&self.held.base))?;
        let login = (self.held.login.user.as_str(), password.as_str());
        self.web = Some(Web::new(&self.held.web, Some(login))?);
        let properties = self.properties()?;
        let notes = self.keeper.tidy();
        self.try_rights()?;
        let order = Order::Bitbucket(self.held.clone());
        self.watch = Some(Watch::start(&self.keeper, order, Hand::new(Some(password)))?);
        let name = properties.display_name.as_deref().unwrap_or("Bitbucket");
        let major = properties.version.split('.').next().and_then(|text| text.parse::<u32>().ok());
        let patterns: &[&str] =
            if major.is_some_and(|major| major >= 6) { &EXCLUDES_6 } else { &EXCLUDES };
        let repositories = self.options.exclude_repositories.iter();
        let mut excludes: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        excludes.extend(repositories.map(|id| format!("/shared/data/repositories/{id}")));
        Ok(Rehearsal {
            application: format!("{name} {} at {}", properties.version, self.held.base),
            excludes,
            notes,
            ..Rehearsal::default()
        })
    }

    fn lock(&mut self) -> Result<()> {
        if !self.watch.as_mut().is_some_and(Watch::is_ready) {
            self.rehearse()?;
        }
        // A connection that the other side closed meanwhile is found out here, not at the first call under the lock.
        let _ = self.api()?.status(None);
        let watch = self.watch.as_mut().expect("rehearsed");
        if let Order::Bitbucket(held) = watch.take()? {
            self.held = held.clone();
        }
        (self.ending, self.polls, self.was_latched, self.percent) =
            (Ending::Abandon, 0, false, None);
        self.say(&format!("locked with '{}'", self.token()?));
        self.start()
    }

    fn drain(&mut self) -> Result<Drain> {
        self.polls += 1;
        let api = self.api()?;
        let token = self.token()?;
        let reply = self.answered(repeat(|| api.status(Some(token))).result, "asking its state")?;
        if matches!(reply.status, 404 | 409) {
            return Ok(self.lost(reply.complaint()));
        }
        self.accepted(&reply, "asking its state")?;
        match body::<Status>(&reply) {
            Some(status) => Ok(self.judge(&status)),
            None => Err(Error::Failed(format!("{}: no states in its answer", self.held.title()))),
        }
    }

    fn progress(&mut self, percent: u8) -> Result<()> {
        let percent = percent.min(99);
        if self.percent.is_some_and(|last| last >= percent) {
            return Ok(());
        }
        self.percent = Some(percent);
        let (api, token) = (self.api()?, self.token()?);
        match repeat(|| api.progress(token, percent)).result {
            Ok(reply) if reply.status == 409 => self.accepted(&reply, "telling the progress"),
            Ok(reply) if reply.is_success() => {
                self.say(&format!("Backup progress updated to {percent}"));
                Ok(())
            }
            other => {
                tracing::warn!(?other, percent, "the progress was not accepted");
                Ok(())
            }
        }
    }

    fn complete(&mut self) -> Result<()> {
        let (api, token) = (self.api()?, self.token()?);
        let repeated = repeat(|| api.progress(token, 100));
        let reply = self.answered(repeated.result, "completing the backup")?;
        self.accepted(&reply, "completing the backup")?;
        self.ending = Ending::Complete;
        self.held.cancel = None;
        self.say("Backup progress updated to 100");
        Ok(())
    }

    fn unlock(&mut self) -> Result<()> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        if let Some(line) = watch.give_back(self.ending)? {
            (self.tell)(&line);
        }
        self.held.token = None;
        self.held.cancel = None;
        Ok(())
    }
}
