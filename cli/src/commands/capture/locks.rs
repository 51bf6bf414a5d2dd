//! Which application is locked, and how.

use crate::failure::Problem;
use crate::values;
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stillpoint_capture::lock::bitbucket::{Bitbucket, BitbucketOptions};
use stillpoint_capture::lock::hooks::{Hooks, HooksOptions};
use stillpoint_capture::lock::http::{Http, HttpOptions, HttpReady, HttpRequest};
use stillpoint_capture::lock::login::{Login, PasswordSource};
use stillpoint_capture::lock::none::NoLock;
use stillpoint_capture::lock::web::WebOptions;
use stillpoint_capture::lock::{Keeper, LockAdapter, Tell};

const LOCK: &str = "Lock";

/// How much later than the capture itself the watchdog finds that the budget is over.
const WATCHDOG_LATER: Duration = Duration::from_millis(250);

/// The lock and what it needs.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// How the application is asked to hold still
    #[arg(long, value_enum, default_value_t = LockKind::None, help_heading = LOCK)]
    lock: LockKind,

    /// File that describes the requests (http), in JSON: docs/capture/locks.md
    #[arg(long, value_name = "FILE", help_heading = LOCK)]
    lock_profile: Option<PathBuf>,

    /// Base URL of the instance (bitbucket)
    #[arg(long, value_name = "URL", help_heading = LOCK)]
    url: Option<String>,

    /// User who logs in (bitbucket, http)
    #[arg(long, value_name = "NAME", help_heading = LOCK)]
    user: Option<String>,

    /// File whose first line is that user's password [default: the variable STILLPOINT_LOCK_PASSWORD]
    #[arg(long, value_name = "FILE", help_heading = LOCK)]
    user_password_file: Option<PathBuf>,

    /// File of certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE", help_heading = LOCK)]
    ca_file: Option<PathBuf>,

    /// Repository of the instance, by number, that is not saved (bitbucket); may be given several times
    #[arg(long, value_name = "NUMBER", help_heading = LOCK)]
    exclude_repository: Vec<u64>,

    /// Shell command that locks; what it prints is the token (hooks)
    #[arg(long, value_name = "COMMAND", help_heading = LOCK)]
    lock_command: Option<String>,

    /// Shell command that says whether the application is drained: 0 yes, 1 not yet (hooks)
    #[arg(long, value_name = "COMMAND", help_heading = LOCK)]
    ready_command: Option<String>,

    /// Shell command that unlocks; must be harmless when nothing is locked (hooks)
    #[arg(long, value_name = "COMMAND", help_heading = LOCK)]
    unlock_command: Option<String>,

    /// The longest that one of these commands may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::short_duration, help_heading = LOCK)]
    command_limit: Duration,

    /// Directory for what must survive a restart [env: STILLPOINT_STATE_DIR]
    /// [default: $XDG_STATE_HOME/stillpoint or ~/.local/state/stillpoint]
    #[arg(long, value_name = "DIR", help_heading = LOCK)]
    pub state_dir: Option<PathBuf>,
}

/// The kinds of locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LockKind {
    /// Nothing is locked: files are saved as they are when they are read
    None,
    /// A Bitbucket instance, after the published backup scripts
    Bitbucket,
    /// Commands of your own
    Hooks,
    /// Requests of your own
    Http,
}

/// What `--lock-profile` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    application: String,
    lock: Request,
    #[serde(default)]
    token: Option<String>,
    #[serde(default = "conflict")]
    occupied: Vec<u16>,
    #[serde(default)]
    ready: Option<Ready>,
    unlock: Request,
    #[serde(default = "gone")]
    gone: Vec<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ready {
    request: Request,
    #[serde(default)]
    expect: BTreeMap<String, String>,
}

fn conflict() -> Vec<u16> {
    vec![409]
}

fn gone() -> Vec<u16> {
    vec![404, 409, 410]
}

impl From<Request> for HttpRequest {
    fn from(Request { method, url, headers, body }: Request) -> Self {
        Self { method, url, headers: headers.into_iter().collect(), body }
    }
}

impl LockArgs {
    /// The adapter and its name. Unlocking begins anew at the latest a little after the budget.
    pub fn adapter(
        &self,
        state_dir: &Path,
        budget: Duration,
        tell: Tell,
    ) -> Result<(String, Box<dyn LockAdapter>)> {
        let keeper = || Keeper::new(state_dir, budget + WATCHDOG_LATER);
        Ok(match self.lock {
            LockKind::None => ("none".into(), Box::new(NoLock)),
            LockKind::Bitbucket => {
                let options = self.bitbucket()?;
                ("bitbucket".into(), Box::new(Bitbucket::new(options, keeper(), tell)))
            }
            LockKind::Http => {
                let options = self.http()?;
                ("http".into(), Box::new(Http::new(options, keeper(), tell)))
            }
            LockKind::Hooks => {
                let options = self.hooks()?;
                ("hooks".into(), Box::new(Hooks::new(options, keeper(), tell)))
            }
        })
    }

    fn login(&self, user: &str) -> Result<Login> {
        let password = match &self.user_password_file {
            Some(file) => PasswordSource::File(std::path::absolute(file)?),
            None => PasswordSource::Env("STILLPOINT_LOCK_PASSWORD".into()),
        };
        Ok(Login { user: user.to_owned(), password })
    }

    fn web(&self) -> WebOptions {
        WebOptions { ca_file: self.ca_file.clone(), ..WebOptions::default() }
    }

    fn http(&self) -> Result<HttpOptions> {
        let file = needed(self.lock_profile.as_ref(), "--lock-profile", "what to request")?;
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("reading the profile {}", file.display()))?;
        let profile: Profile = serde_json::from_str(&text).map_err(|error| {
            Problem::usage(
                format!("the profile {}: {error}", file.display()),
                "docs/capture/locks.md has an example",
            )
        })?;
        Ok(HttpOptions {
            application: profile.application,
            login: self.user.as_deref().map(|user| self.login(user)).transpose()?,
            web: self.web(),
            lock: profile.lock.into(),
            token: profile.token,
            occupied: profile.occupied,
            ready: profile.ready.map(|ready| HttpReady {
                request: ready.request.into(),
                expect: ready.expect.into_iter().collect(),
            }),
            unlock: profile.unlock.into(),
            gone: profile.gone,
        })
    }

    fn bitbucket(&self) -> Result<BitbucketOptions> {
        let user = needed(self.user.as_ref(), "--user", "a user with the right to back up")?;
        Ok(BitbucketOptions {
            url: needed(self.url.as_ref(), "--url", "the instance's base URL")?.clone(),
            login: self.login(user)?,
            web: self.web(),
            exclude_repositories: self.exclude_repository.clone(),
        })
    }

    fn hooks(&self) -> Result<HooksOptions> {
        // The watchdog runs them, from the root directory and perhaps much later; they mean the directory of now.
        let here = std::env::current_dir()?.to_string_lossy().into_owned();
        let shell = |line: &String| -> Vec<String> {
            ["/bin/sh", "-c", "cd \"$1\" && eval \"$2\"", "sh", &here, line].map(Into::into).into()
        };
        let lock = needed(self.lock_command.as_ref(), "--lock-command", "how to lock")?;
        let unlock = needed(self.unlock_command.as_ref(), "--unlock-command", "how to unlock")?;
        Ok(HooksOptions {
            application: format!("what `{lock}` locks"),
            lock: shell(lock),
            ready: self.ready_command.as_ref().map(shell),
            unlock: shell(unlock),
            lock_limit: self.command_limit,
            ready_limit: self.command_limit,
            unlock_limit: self.command_limit,
        })
    }
}

fn needed<T>(value: Option<T>, option: &str, what: &str) -> Result<T> {
    value.ok_or_else(|| {
        Problem::usage(format!("this lock needs {option}"), format!("name {what} with {option}"))
    })
}
