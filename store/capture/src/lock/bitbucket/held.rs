//! A Bitbucket instance as an order: the lock request, and the way back from wherever it stopped.

use super::super::login::Login;
use super::super::order::{Ending, Hand, Hitch, TakeError};
use super::super::web::{NoReply, WebOptions, encoded};
use super::calls::{Api, LockInfo, Locked, body, repeat};
use serde::{Deserialize, Serialize};

const UNLOCKED: &str = "Bitbucket instance unlocked";
const NOT_LOCKED: &str = "Bitbucket instance was not locked any more";
/// How often a token is tried that the instance refuses although our user holds the lock.
const REFUSALS_MAX: u32 = 6;
const OTHERS: &str = "Bitbucket instance is locked by somebody else now";

/// An instance, and what is known of its lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The base URL, without a slash at its end.
    pub base: String,
    /// Who logs in.
    pub login: Login,
    /// How it is reached.
    pub web: WebOptions,
    /// The unlock token, once it is known.
    pub token: Option<String>,
    /// The cancel token, while a task may run.
    pub cancel: Option<String>,
    /// How often the instance refused the token although it is locked.
    #[serde(default)]
    pub refusals: u32,
}

/// What came of an attempt to unlock.
enum Attempt {
    Done(&'static str),
    /// It is locked, by our user, and the token is refused.
    Refused,
}

impl Held {
    pub(crate) fn title(&self) -> String {
        format!("Bitbucket at {}", self.base)
    }

    pub(crate) fn manual(&self) -> String {
        let (base, user) = (&self.base, &self.login.user);
        match &self.token {
            Some(token) => format!(
                "curl -u {user} -X DELETE '{base}/mvc/maintenance/lock?token={}'",
                encoded(token)
            ),
            None => format!(
                "the unlock token is not known: an administrator ends the maintenance on the page {base}/mvc/maintenance, or restarts Bitbucket"
            ),
        }
    }

    /// A line as the published scripts print it.
    pub fn line(&self, text: &str) -> String {
        format!("[{}]  INFO: {text}", self.base)
    }

    pub(crate) fn warm(&self, hand: &mut Hand) {
        if let Ok(api) = self.api(hand) {
            let _ = api.lock_info();
        }
    }

    fn api<'a>(&'a self, hand: &'a mut Hand) -> Result<Api<'a>, String> {
        let web = hand.web(&self.web, Some(&self.login.user)).map_err(|error| error.to_string())?;
        Ok(Api { web, base: &self.base })
    }

    /// Asks for the lock, once.
    pub(crate) fn take(&mut self, hand: &mut Hand) -> Result<(), TakeError> {
        let api = self.api(hand).map_err(TakeError::NotLocked)?;
        let trouble = match api.lock() {
            Ok(reply) if reply.is_success() => match body::<Locked>(&reply) {
                Some(locked) => {
                    self.token = Some(locked.unlock_token);
                    return Ok(());
                }
                None => format!("the lock's answer holds no token ({})", reply.complaint()),
            },
            Ok(reply) if reply.status == 409 => return Err(self.occupied(&api)),
            Ok(reply) if reply.is_passing() => reply.complaint(),
            Ok(reply) => return Err(TakeError::NotLocked(reply.complaint())),
            Err(error) if !error.may_be_done => return Err(TakeError::NotLocked(error.text)),
            Err(error) => format!("the reply to the lock request was lost: {}", error.text),
        };
        match repeat(|| api.lock_info()).result {
            Ok(reply) if reply.status == 404 => Err(TakeError::NotLocked(trouble)),
            Ok(reply) if reply.is_success() => Err(TakeError::Unknown(trouble)),
            _ => Err(TakeError::Unknown(format!("{trouble}, and it does not answer now"))),
        }
    }

    fn occupied(&self, api: &Api<'_>) -> TakeError {
        let info = repeat(|| api.lock_info()).result.ok();
        let owner = info.and_then(|reply| Some(body::<LockInfo>(&reply)?.owner.name));
        TakeError::Occupied {
            owner: match owner {
                Some(owner) if owner == self.login.user => format!(
                    "{owner}, in another run: it unlocks when that ends, or an administrator ends the maintenance on the page {}/mvc/maintenance",
                    self.base
                ),
                Some(owner) => owner,
                None => "somebody else".into(),
            },
        }
    }

    /// Cancels the task if the capture is given up, and unlocks.
    pub(crate) fn give_back(&mut self, hand: &mut Hand, ending: Ending) -> Result<String, Hitch> {
        let mut cancel = self.cancel.clone();
        let attempt = self.attempt(hand, ending, &mut cancel);
        self.cancel = cancel;
        let text = match attempt? {
            Attempt::Done(text) => text,
            Attempt::Refused => {
                self.refusals += 1;
                if self.refusals < REFUSALS_MAX {
                    return Err(Hitch::passing("it is locked and refuses the token"));
                }
                OTHERS
            }
        };
        Ok(self.line(text))
    }

    fn attempt(
        &self,
        hand: &mut Hand,
        ending: Ending,
        cancel: &mut Option<String>,
    ) -> Result<Attempt, Hitch> {
        let api = self.api(hand).map_err(Hitch::lasting)?;
        let Some(token) = &self.token else { return without_token(&api).map(Attempt::Done) };
        if let (Ending::Abandon, Some(known)) = (ending, &*cancel) {
            // Whatever comes of it, the lock is what matters.
            if api.cancel(known).is_ok_and(|reply| !reply.is_passing()) {
                *cancel = None;
            }
        }
        if unlock(&api, token)? {
            return Ok(Attempt::Done(UNLOCKED));
        }
        let info = api.lock_info().map_err(lost)?;
        match info.status {
            404 => return Ok(Attempt::Done(NOT_LOCKED)),
            200..300 => {}
            _ => return Err(Hitch::passing(info.complaint())),
        }
        let owner = body::<LockInfo>(&info).map(|info| info.owner.name);
        if owner.is_some_and(|owner| owner != self.login.user) {
            return Ok(Attempt::Done(OTHERS));
        }
        // Locked, and our token refused: some do that while a task runs, so it is ended first.
        if let Some(known) = cancel.take() {
            api.cancel(&known).map_err(lost)?;
            if unlock(&api, token)? {
                return Ok(Attempt::Done(UNLOCKED));
            }
        }
        let ended = api.progress(token, 100).map_err(lost)?;
        match ended.status {
            409 => Ok(Attempt::Refused),
            200..300 if unlock(&api, token)? => Ok(Attempt::Done(UNLOCKED)),
            _ => Err(Hitch::passing(ended.complaint())),
        }
    }
}

/// True when it was unlocked, false when the token was refused.
fn unlock(api: &Api<'_>, token: &str) -> Result<bool, Hitch> {
    let reply = api.unlock(token).map_err(lost)?;
    match reply.status {
        200..300 => Ok(true),
        404 | 409 => Ok(false),
        _ if reply.is_passing() => Err(Hitch::passing(reply.complaint())),
        _ => Err(Hitch::lasting(reply.complaint())),
    }
}

fn without_token(api: &Api<'_>) -> Result<&'static str, Hitch> {
    let info = api.lock_info().map_err(lost)?;
    match info.status {
        404 => Ok(NOT_LOCKED),
        200..300 => Err(Hitch::lasting("the reply that held the unlock token was lost")),
        _ => Err(Hitch::passing(info.complaint())),
    }
}

fn lost(error: NoReply) -> Hitch {
    Hitch::passing(error.text)
}
