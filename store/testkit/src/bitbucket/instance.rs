//! The state of an instance, and what each call does to it.

use super::call::Call;
use super::fault::CallFault;
use super::gate::Gate;
use super::http::{Answer, Request};
use super::latch::{Latch, LatchState};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

/// How an instance behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Who may log in.
    pub user: String,
    /// Their password.
    pub password: String,
    /// The version that it claims.
    pub version: String,
    /// The path below which it is served, without a slash at its end.
    pub context: String,
    /// The least time until the database is drained; None: it never is.
    pub db_delay: Option<Duration>,
    /// The least time until the files are drained; None: they never are.
    pub scm_delay: Option<Duration>,
    /// The gate of those who write to the database.
    pub db_gate: Option<Gate>,
    /// The gate of those who write files.
    pub scm_gate: Option<Gate>,
    /// The task fails when it is asked for after this time.
    pub task_fails_after: Option<Duration>,
    /// The lock is not given back while a task runs.
    pub strict_unlock: bool,
    /// The status of an accepted unlock.
    pub unlock_status: u16,
    /// What goes wrong.
    pub faults: Vec<CallFault>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            user: "admin".into(),
            password: "secret".into(),
            version: "7.21.0".into(),
            context: String::new(),
            db_delay: Some(Duration::ZERO),
            scm_delay: Some(Duration::ZERO),
            db_gate: None,
            scm_gate: None,
            task_fails_after: None,
            strict_unlock: false,
            unlock_status: 202,
            faults: Vec::new(),
        }
    }
}

/// A call that came, and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When it came.
    pub at: Instant,
    /// Which it was.
    pub call: Call,
    /// What stood in its query.
    pub query: String,
    /// The answer's status; None: the connection was closed instead.
    pub status: Option<u16>,
}

/// What can be asked of an instance from outside of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// True while it is locked.
    pub is_locked: bool,
    /// True while a task runs.
    pub has_task: bool,
    /// The unlock token while it is locked.
    pub token: Option<String>,
    /// The cancel token while a task runs.
    pub cancel_token: Option<String>,
    /// The calls that came, in order.
    pub calls: Vec<Seen>,
    /// How long it was locked, each time that it was.
    pub locked: Vec<Duration>,
    /// The percentages that the client sent.
    pub percentages: Vec<u8>,
}

#[derive(Debug)]
struct Task {
    id: String,
    cancel: String,
    shown: Option<u8>,
    begin: Instant,
    db: Latch,
    scm: Latch,
}

#[derive(Debug)]
struct Lock {
    token: String,
    since: Instant,
    task: Option<Task>,
}

/// An instance.
#[derive(Debug)]
pub struct Instance {
    pub behaviour: Behaviour,
    lock: Option<Lock>,
    pub seen: Vec<Seen>,
    locked: Vec<Duration>,
    percentages: Vec<u8>,
    pub counts: HashMap<Call, usize>,
}

impl Instance {
    pub fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            lock: None,
            seen: Vec::new(),
            locked: Vec::new(),
            percentages: Vec::new(),
            counts: HashMap::new(),
        }
    }

    pub fn state(&self) -> State {
        let task = self.lock.as_ref().and_then(|lock| lock.task.as_ref());
        State {
            is_locked: self.lock.is_some(),
            has_task: task.is_some(),
            token: self.lock.as_ref().map(|lock| lock.token.clone()),
            cancel_token: task.map(|task| task.cancel.clone()),
            calls: self.seen.clone(),
            locked: self.locked.clone(),
            percentages: self.percentages.clone(),
        }
    }

    /// Gives up the lock as an administrator would.
    pub fn unlock_by_hand(&mut self) {
        if let Some(lock) = self.lock.take() {
            self.locked.push(lock.since.elapsed());
        }
    }

    /// Cancels the task as an administrator would.
    pub fn cancel_by_hand(&mut self) {
        if let Some(lock) = &mut self.lock {
            lock.task = None;
        }
    }

    /// Carries a call out.
    pub fn answer(&mut self, call: Call, request: &Request) -> Answer {
        if !call.is_open() && !self.is_logged_in(request) {
            return refused(
                401,
                "Authentication failed. Please check your credentials and try again.",
            );
        }
        self.fail_task();
        match call {
            Call::Lock => self.take(),
            Call::Start => self.start(request.header("X-Atlassian-Maintenance-Token")),
            Call::Status => self.status(),
            Call::Progress => self.progress(request),
            Call::Unlock => self.unlock(request.parameter("token")),
            Call::Cancel => self.cancel(request.parameter("token")),
            Call::LockInfo => match &self.lock {
                Some(_) => given(200, &json!({ "owner": self.owner() })),
                None => refused(404, "The system is not locked for maintenance."),
            },
            Call::Properties => given(
                200,
                &json!({
                    "version": self.behaviour.version, "buildNumber": "7021000",
                    "buildDate": "1646113842000", "displayName": "Bitbucket"
                }),
            ),
            Call::Health => {
                let state = if self.lock.is_some() { "MAINTENANCE" } else { "RUNNING" };
                given(200, &json!({ "state": state }))
            }
        }
    }

    fn is_logged_in(&self, request: &Request) -> bool {
        use base64::Engine as _;
        let Behaviour { user, password, .. } = &self.behaviour;
        let wanted = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        request.header("Authorization") == Some(&format!("Basic {wanted}"))
    }

    fn owner(&self) -> Value {
        json!({ "displayName": self.behaviour.user, "name": self.behaviour.user })
    }

    fn fail_task(&mut self) {
        let Some(limit) = self.behaviour.task_fails_after else { return };
        if let Some(lock) = &mut self.lock {
            lock.task.take_if(|task| task.begin.elapsed() >= limit);
        }
    }

    fn take(&mut self) -> Answer {
        if self.lock.is_some() {
            return refused(409, "The system is already locked for maintenance.");
        }
        let token = fresh_token();
        let answer = given(202, &json!({ "unlockToken": token, "owner": self.owner() }));
        self.lock = Some(Lock { token, since: Instant::now(), task: None });
        answer
    }

    fn start(&mut self, token: Option<&str>) -> Answer {
        let behaviour = &self.behaviour;
        let Some(lock) = self.lock.as_mut().filter(|lock| token == Some(&lock.token)) else {
            return refused(409, "The maintenance lock token is not valid.");
        };
        if lock.task.is_some() {
            return refused(409, "A backup is running already.");
        }
        let task = Task {
            id: fresh_token(),
            cancel: fresh_token(),
            shown: None,
            begin: Instant::now(),
            db: Latch::set(behaviour.db_gate.clone(), behaviour.db_delay),
            scm: Latch::set(behaviour.scm_gate.clone(), behaviour.scm_delay),
        };
        let progress =
            json!({ "message": "Closing connections to the current database", "percentage": 5 });
        let answer = given(
            202,
            &json!({
                "id": fresh_token(), "progress": progress, "state": "RUNNING",
                "type": "BACKUP", "cancelToken": task.cancel
            }),
        );
        lock.task = Some(task);
        answer
    }

    fn status(&self) -> Answer {
        let Some(task) = self.lock.as_ref().and_then(|lock| lock.task.as_ref()) else {
            return given(200, &json!({ "db-state": "AVAILABLE", "scm-state": "AVAILABLE" }));
        };
        let (db, scm) = (task.db.state(), task.scm.state());
        let is_drained = db == LatchState::Drained && scm == LatchState::Drained;
        let percentage = task.shown.unwrap_or(if is_drained { 10 } else { 5 });
        let message = if is_drained { "Backing up Bitbucket home" } else { "Draining connections" };
        let progress = json!({ "message": message, "percentage": percentage });
        let task = json!({
            "id": task.id, "progress": progress, "state": "RUNNING", "type": "BACKUP"
        });
        given(200, &json!({ "task": task, "db-state": db.name(), "scm-state": scm.name() }))
    }

    fn progress(&mut self, request: &Request) -> Answer {
        let percentage = request.parameter("percentage").and_then(|text| text.parse::<u8>().ok());
        let Some(percentage) = percentage.filter(|percentage| *percentage <= 100) else {
            return refused(400, "percentage is to be a whole number from 0 to 100.");
        };
        let lock =
            self.lock.as_mut().filter(|lock| request.parameter("token") == Some(&lock.token));
        let Some(lock) = lock else {
            return refused(409, "The maintenance lock token is not valid.");
        };
        let Some(task) = &mut lock.task else {
            return refused(409, "No backup is running.");
        };
        task.shown = Some(10 + u8::try_from(u16::from(percentage) * 9 / 10).expect("at most 90"));
        self.percentages.push(percentage);
        if percentage == 100 {
            lock.task = None;
        }
        Answer { status: 202, body: String::new() }
    }

    fn unlock(&mut self, token: Option<&str>) -> Answer {
        let Some(lock) = self.lock.as_ref().filter(|lock| token == Some(&lock.token)) else {
            return refused(409, "The maintenance lock token is not valid.");
        };
        if self.behaviour.strict_unlock && lock.task.is_some() {
            return refused(409, "A backup is running.");
        }
        self.unlock_by_hand();
        Answer { status: self.behaviour.unlock_status, body: String::new() }
    }

    fn cancel(&mut self, token: Option<&str>) -> Answer {
        let Some(lock) = &mut self.lock else {
            return refused(409, "No task is running.");
        };
        if lock.task.take_if(|task| token == Some(&task.cancel)).is_none() {
            return refused(409, "The cancel token is not valid.");
        }
        Answer { status: 202, body: String::new() }
    }
}

/// 40 hexadecimal digits that nobody can guess.
fn fresh_token() -> String {
    let part = |_| format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    let mut token: String = (0..3).map(part).collect();
    token.truncate(40);
    token
}

fn given(status: u16, body: &Value) -> Answer {
    Answer { status, body: body.to_string() }
}

/// An answer with the envelope that errors come in.
pub fn refused(status: u16, message: &str) -> Answer {
    let error = json!({ "context": null, "message": message, "exceptionName": null });
    given(status, &json!({ "errors": [error] }))
}
