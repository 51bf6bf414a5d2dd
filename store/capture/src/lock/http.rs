//! Any application whose lock is an HTTP request: `lock`, `ready` and `unlock`, described by the profile.
//!
//! The text `{token}` in an address, a header or a body stands for the token that the answer to `lock` holds.

use super::guarded::Guarded;
use super::keeper::Keeper;
use super::login::Login;
use super::order::{Hand, Hitch, Order, TakeError};
use super::web::{Call, NoReply, Reply, Web, WebOptions, encoded, host_of};
use super::{Drain, LockAdapter, Rehearsal, Tell};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What stands for the token.
const TOKEN: &str = "{token}";

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// `POST`, `DELETE`, ...
    pub method: String,
    /// The whole address.
    pub url: String,
    /// Headers besides the log-in.
    pub headers: Vec<(String, String)>,
    /// The body; empty: none.
    pub body: String,
}

/// A request whose answer says whether the application is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpReady {
    /// The request.
    pub request: HttpRequest,
    /// It is drained when the JSON of the answer holds this text at each of these places (RFC 6901), as
    /// `/db-state`; none: when the status is 2xx.
    pub expect: Vec<(String, String)>,
}

/// The requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpOptions {
    /// The application, for people.
    pub application: String,
    /// Who logs in (Basic).
    pub login: Option<Login>,
    /// Certificates and time limits.
    pub web: WebOptions,
    /// Takes the lock, once; 2xx: taken.
    pub lock: HttpRequest,
    /// Where the token stands in the JSON of the answer (RFC 6901), if there is one.
    pub token: Option<String>,
    /// The statuses of `lock` that mean that somebody else holds it.
    pub occupied: Vec<u16>,
    /// Asks whether it is drained. None: it is when it is locked.
    pub ready: Option<HttpReady>,
    /// Gives the lock back; may be sent more than once.
    pub unlock: HttpRequest,
    /// The statuses of `unlock` that mean that nothing is locked any more.
    pub gone: Vec<u16>,
}

/// An application that is locked by requests.
pub struct Http {
    options: HttpOptions,
    guarded: Guarded,
    web: Option<Web>,
}

impl Http {
    /// Locks by these requests.
    pub fn new(options: HttpOptions, keeper: Keeper, tell: Tell) -> Self {
        let options = HttpOptions {
            login: options.login.map(Login::anchored),
            web: options.web.anchored(),
            ..options
        };
        let order = Order::Http(Held { options: options.clone(), token: None });
        Self { options, guarded: Guarded::new(keeper, order, tell), web: None }
    }

    fn judge(&self, ready: &HttpReady, reply: &Reply) -> Result<Drain> {
        if !reply.is_success() {
            let text =
                format!("{}: asking its state: {}", self.options.application, reply.complaint());
            return Err(Error::Failed(text));
        }
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        for (place, expected) in &ready.expect {
            let found = body.pointer(place);
            if found.map(text_of).as_ref() != Some(expected) {
                return Ok(Drain::Waiting(format!("{place} is not {expected} yet")));
            }
        }
        Ok(Drain::Drained)
    }
}

impl LockAdapter for Http {
    fn rehearse(&mut self) -> Result<Rehearsal> {
        let HttpOptions { application, login, lock, ready, unlock, token, .. } = &self.options;
        let requests = [Some(lock), ready.as_ref().map(|ready| &ready.request), Some(unlock)];
        for request in requests.into_iter().flatten() {
            let is_web = request.url.starts_with("http://") || request.url.starts_with("https://");
            if !is_web || (request.uses_token() && token.is_none()) || lock.uses_token() {
                return Err(Error::Refused {
                    what: format!("{} {} cannot be sent", request.method, request.url),
                    hint: Some("give a whole address, and `token`, the place of the token in the answer to `lock`".into()),
                });
            }
        }
        let password = login.as_ref().map(|login| login.read(host_of(&lock.url))).transpose()?;
        let pair = login.as_ref().zip(password.as_ref());
        let pair = pair.map(|(login, password)| (login.user.as_str(), password.as_str()));
        self.web = Some(Web::new(&self.options.web, pair)?);
        let application = application.clone();
        let notes = self.guarded.rehearse()?;
        Ok(Rehearsal { application, notes, ..Rehearsal::default() })
    }

    fn lock(&mut self) -> Result<()> {
        self.guarded.take()
    }

    fn drain(&mut self) -> Result<Drain> {
        self.guarded.confirm()?;
        let Some(ready) = &self.options.ready else { return Ok(Drain::Drained) };
        let Order::Http(held) = self.guarded.order() else { return Ok(Drain::Drained) };
        let web = self.web.as_ref().ok_or_else(|| Error::Failed("not rehearsed".into()))?;
        match ready.request.send(web, held.token.as_deref()) {
            Ok(reply) if reply.is_passing() => Ok(Drain::Waiting(reply.complaint())),
            Ok(reply) => self.judge(ready, &reply),
            Err(error) => Ok(Drain::Waiting(error.text)),
        }
    }

    fn progress(&mut self, _percent: u8) -> Result<()> {
        self.guarded.confirm()
    }

    fn complete(&mut self) -> Result<()> {
        self.guarded.complete()
    }

    fn unlock(&mut self) -> Result<()> {
        self.guarded.give_back()
    }
}

/// A text as it is, anything else as JSON writes it.
fn text_of(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl HttpRequest {
    fn uses_token(&self) -> bool {
        let headers = self.headers.iter().map(|(_, value)| value);
        [&self.url, &self.body].into_iter().chain(headers).any(|text| text.contains(TOKEN))
    }

    fn send(&self, web: &Web, token: Option<&str>) -> std::result::Result<Reply, NoReply> {
        let token = token.unwrap_or_default();
        let quoted = serde_json::to_string(token).unwrap_or_default();
        let in_json = quoted.trim_matches('"');
        let headers: Vec<(&str, String)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.replace(TOKEN, token)))
            .collect();
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        web.call(&Call {
            method: &self.method,
            url: &self.url.replace(TOKEN, &encoded(token)),
            headers: &headers,
            body: self.body.replace(TOKEN, in_json).as_bytes(),
        })
    }
}

/// The requests as an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    options: HttpOptions,
    token: Option<String>,
}

impl Held {
    pub(crate) fn title(&self) -> String {
        self.options.application.clone()
    }

    pub(crate) fn manual(&self) -> String {
        let HttpRequest { method, url, .. } = &self.options.unlock;
        let user = self.options.login.as_ref().map(|login| format!("-u {} ", login.user));
        let url = url.replace(TOKEN, &encoded(self.token.as_deref().unwrap_or("TOKEN")));
        format!("curl {}-X {method} '{url}'", user.unwrap_or_default())
    }

    pub(crate) fn login(&self) -> Option<(&Login, &str)> {
        Some((self.options.login.as_ref()?, &self.options.lock.url))
    }

    fn web<'a>(&self, hand: &'a mut Hand) -> Result<&'a Web> {
        hand.web(&self.options.web, self.options.login.as_ref().map(|login| login.user.as_str()))
    }

    /// What may have happened when no answer came: the unlock undoes it, unless it needs the token.
    fn unclear(&self, text: String) -> TakeError {
        match self.options.unlock.uses_token() {
            true => TakeError::Unknown(format!("the reply that held the token was lost: {text}")),
            false => TakeError::Halfway(text),
        }
    }

    pub(crate) fn take(&mut self, hand: &mut Hand) -> std::result::Result<(), TakeError> {
        let web = self.web(hand).map_err(|error| TakeError::NotLocked(error.to_string()))?;
        let reply = match self.options.lock.send(web, None) {
            Ok(reply) if reply.is_success() => reply,
            Ok(reply) if self.options.occupied.contains(&reply.status) => {
                return Err(TakeError::Occupied { owner: "somebody else".into() });
            }
            Ok(reply) if reply.is_passing() => return Err(self.unclear(reply.complaint())),
            Ok(reply) => return Err(TakeError::NotLocked(reply.complaint())),
            Err(error) if error.may_be_done => return Err(self.unclear(error.text)),
            Err(error) => return Err(TakeError::NotLocked(error.text)),
        };
        let Some(place) = &self.options.token else { return Ok(()) };
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let token = body.pointer(place).map(text_of);
        if token.is_none() {
            return Err(self.unclear(format!("there is no {place} in the answer to `lock`")));
        }
        self.token = token;
        Ok(())
    }

    pub(crate) fn give_back(&self, hand: &mut Hand) -> std::result::Result<String, Hitch> {
        if self.token.is_none() && self.options.unlock.uses_token() {
            return Err(Hitch::lasting("the reply that held the token was lost"));
        }
        let web = self.web(hand).map_err(|error| Hitch::lasting(error.to_string()))?;
        let reply = self.options.unlock.send(web, self.token.as_deref());
        let reply = reply.map_err(|error| Hitch::passing(error.text))?;
        if reply.is_success() || self.options.gone.contains(&reply.status) {
            Ok(format!("{} unlocked", self.options.application))
        } else if reply.is_passing() {
            Err(Hitch::passing(reply.complaint()))
        } else {
            Err(Hitch::lasting(reply.complaint()))
        }
    }
}
