//! Requests as a lock: those of a Bitbucket instance, described by hand.

use super::place::{Place, silent};
use super::suite::{Fixture, suite};
use std::path::Path;
use std::time::Duration;
use stillpoint_capture::Error;
use stillpoint_capture::lock::http::{Http, HttpOptions, HttpReady, HttpRequest};
use stillpoint_capture::lock::login::{Login, PasswordSource};
use stillpoint_capture::lock::web::WebOptions;
use stillpoint_capture::lock::{Drain, Keeper, LockAdapter};
use stillpoint_testkit::bitbucket::{Behaviour, Call, CallFault, FaultEffect};

struct Requests(Place);

impl Requests {
    fn options(&self) -> HttpOptions {
        let url = self.0.simulator.url();
        let request = |method: &str, path: &str| HttpRequest {
            method: method.into(),
            url: format!("{url}{path}"),
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: String::new(),
        };
        let password = PasswordSource::File(self.0.dir.path().join("password"));
        HttpOptions {
            application: "the wiki".into(),
            login: Some(Login { user: "admin".into(), password }),
            web: WebOptions::default(),
            lock: request("POST", "/mvc/maintenance/lock"),
            token: Some("/unlockToken".into()),
            occupied: vec![409],
            ready: Some(HttpReady {
                request: request("GET", "/status"),
                expect: vec![("/state".into(), "MAINTENANCE".into())],
            }),
            unlock: request("DELETE", "/mvc/maintenance/lock?token={token}"),
            gone: vec![404, 409],
        }
    }

    fn http(&self, change: impl FnOnce(&mut HttpOptions)) -> Http {
        let mut options = self.options();
        change(&mut options);
        Http::new(options, self.0.keeper(), silent())
    }
}

impl Fixture for Requests {
    fn adapter(&self, keeper: Keeper) -> Box<dyn LockAdapter> {
        Box::new(Http::new(self.options(), keeper, silent()))
    }

    fn state_dir(&self) -> &Path {
        self.0.dir.path()
    }

    fn keeper(&self) -> Keeper {
        self.0.keeper()
    }

    fn is_locked(&self) -> Option<bool> {
        Some(self.0.simulator.state().is_locked)
    }
}

#[test]
fn suite_of_adapters() {
    suite(&Requests(Place::new(Behaviour::default())));
}

// Waiting until the answer holds what is expected; failing unlocks are tried again.
#[test]
fn waiting_and_retries() {
    let fault = CallFault::first(Call::Unlock, 2, FaultEffect::Status(503));
    let place = Requests(Place::new(Behaviour { faults: vec![fault], ..Behaviour::default() }));
    let mut http = place.http(|options| {
        let ready = options.ready.as_mut().unwrap();
        ready.expect = vec![("/state".into(), "RUNNING".into())];
    });
    http.rehearse().unwrap();
    http.lock().unwrap();
    let drain = http.drain().unwrap();
    assert!(matches!(&drain, Drain::Waiting(why) if why.contains("/state")), "{drain:?}");
    http.unlock().unwrap();
    assert!(!place.0.simulator.state().is_locked);
    drop(http);
    place.0.leaves_nothing("after retries");
}

// A reply that was lost with the token in it: it is said that it may be locked. Without a token, unlocking undoes it.
#[test]
fn lost_replies() {
    let fault = CallFault::first(Call::Lock, 1, FaultEffect::DropAfter);
    let place = Requests(Place::new(Behaviour { faults: vec![fault], ..Behaviour::default() }));
    let mut http = place.http(|_| {});
    let error = http.lock().unwrap_err();
    assert!(matches!(error, Error::StillLocked { .. }), "{error}");

    let place = Requests(Place::new(Behaviour { faults: vec![fault], ..Behaviour::default() }));
    let mut http = place.http(|options| {
        (options.token, options.unlock.url) = (None, options.unlock.url.replace("{token}", "none"));
    });
    let error = http.lock().unwrap_err();
    assert!(matches!(error, Error::Failed(_)), "{error}");
    http.unlock().unwrap();
    let calls = place.0.simulator.state().calls;
    assert!(calls.iter().any(|seen| seen.call == Call::Unlock), "{calls:?}");
    drop(http);
    place.0.leaves_nothing("without a token");
}

// A profile that cannot work is refused before anything is sent.
#[test]
fn profiles() {
    let place = Requests(Place::new(Behaviour::default()));
    for change in [
        |options: &mut HttpOptions| options.token = None,
        |options: &mut HttpOptions| options.lock.url = "/relative".into(),
        |options: &mut HttpOptions| options.lock.body = "{token}".into(),
    ] {
        let error = place.http(change).rehearse().unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
    }
    let limit = Duration::from_secs(1);
    place.http(|options| options.web.call_limit = limit).rehearse().unwrap();
    assert!(place.0.simulator.state().calls.is_empty());
}
