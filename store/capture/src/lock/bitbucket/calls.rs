//! The calls of the wire contract, and their answers.

use super::super::web::{Call, NoReply, Reply, Web, encoded};
use serde::Deserialize;
use std::time::Duration;

/// How often a call is made that may be repeated.
const TRIES: u32 = 3;
/// The pause after the first try; it grows fivefold.
const PAUSE: Duration = Duration::from_millis(20);

/// The calls of one instance.
#[derive(Debug, Clone, Copy)]
pub struct Api<'a> {
    pub web: &'a Web,
    pub base: &'a str,
}

/// The answer to the lock request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Locked {
    pub unlock_token: String,
}

/// The answer to the start of the backup task.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    pub cancel_token: String,
}

/// Who holds the lock.
#[derive(Debug, Deserialize)]
pub struct LockInfo {
    pub owner: Owner,
}

/// A user of the instance.
#[derive(Debug, Deserialize)]
pub struct Owner {
    pub name: String,
}

/// How far the instance is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    pub task: Option<Task>,
    pub db_state: String,
    pub scm_state: String,
}

/// The backup task.
#[derive(Debug, Deserialize)]
pub struct Task {
    pub state: String,
    pub progress: Option<Progress>,
}

/// What the backup task does.
#[derive(Debug, Deserialize)]
pub struct Progress {
    pub message: Option<String>,
}

/// What the instance is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Properties {
    pub version: String,
    pub display_name: Option<String>,
}

impl Api<'_> {
    pub fn lock(&self) -> Result<Reply, NoReply> {
        self.call("POST", "/mvc/maintenance/lock", None)
    }

    pub fn start(&self, token: &str) -> Result<Reply, NoReply> {
        self.call("POST", "/mvc/admin/backups?external=true", Some(token))
    }

    pub fn status(&self, token: Option<&str>) -> Result<Reply, NoReply> {
        self.call("GET", "/mvc/maintenance", token)
    }

    pub fn progress(&self, token: &str, percent: u8) -> Result<Reply, NoReply> {
        let path = "/mvc/admin/backups/progress/client";
        let token = encoded(token);
        self.call("POST", &format!("{path}?token={token}&percentage={percent}"), None)
    }

    pub fn unlock(&self, token: &str) -> Result<Reply, NoReply> {
        self.call("DELETE", &format!("/mvc/maintenance/lock?token={}", encoded(token)), None)
    }

    pub fn cancel(&self, token: &str) -> Result<Reply, NoReply> {
        self.call("POST", &format!("/mvc/maintenance?token={}", encoded(token)), None)
    }

    pub fn lock_info(&self) -> Result<Reply, NoReply> {
        self.call("GET", "/mvc/maintenance/lock", None)
    }

    pub fn properties(&self) -> Result<Reply, NoReply> {
        self.call("GET", "/rest/api/1.0/application-properties", None)
    }

    fn call(&self, method: &str, path: &str, token: Option<&str>) -> Result<Reply, NoReply> {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(token.map(|token| ("X-Atlassian-Maintenance-Token", token)));
        let url = format!("{}{path}", self.base);
        self.web.call(&Call { method, url: &url, headers: &headers, body: b"" })
    }
}

/// What came of a call that was repeated.
#[derive(Debug)]
pub struct Repeated {
    pub result: Result<Reply, NoReply>,
    /// True when an earlier try may have been carried out without an answer.
    pub may_be_done: bool,
}

/// Repeats a call while that may help, a few times.
pub fn repeat(mut call: impl FnMut() -> Result<Reply, NoReply>) -> Repeated {
    let mut may_be_done = false;
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        let result = call();
        match &result {
            Ok(reply) if !reply.is_passing() => return Repeated { result, may_be_done },
            Ok(_) => {}
            Err(error) => may_be_done |= error.may_be_done,
        }
        std::thread::sleep(pause);
        pause *= 5;
    }
    Repeated { result: call(), may_be_done }
}

/// The body of a reply, if it is what was expected.
pub fn body<'a, T: Deserialize<'a>>(reply: &'a Reply) -> Option<T> {
    serde_json::from_slice(&reply.body).ok()
}
