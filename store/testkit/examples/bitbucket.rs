//! A simulated Bitbucket instance for shells and benchmarks; `--help` says how it is told what to do.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;
use stillpoint_testkit::bitbucket::{Behaviour, CallFault, Gate, Seen, Simulator};

const HELP: &str = "\
A simulated Bitbucket instance on a loopback port. Prints its URL, then each call, and ends when its standard input ends.

  --port N          port; 0 or nothing: a free one
  --user NAME       who may log in (admin)
  --password-env V  variable that holds the password (nothing: the password is `secret`)
  --version V       the version that it claims (7.21.0)
  --context PATH    path below which it is served, such as /bitbucket
  --drain-ms N      least time until database and files are drained (0); `never`
  --gate DIR        latches hold whoever passes the gates `db` and `scm` there: a shared lock (flock) on NAME.latch to
                    enter, one on NAME.work while in, as with
                    flock -s DIR/scm.latch sh -c 'exec 9<DIR/scm.work; flock -s 9; ...'
  --fault F         CALL:EFFECT[:FIRST[:COUNT]]; calls: lock start status progress unlock cancel lock-info properties
                    health; effects: a status, drop-before, drop-after, late-MS
  --task-fails-ms N the task fails after this time
  --strict-unlock   no unlock while a task runs
";

fn main() {
    let mut behaviour = Behaviour::default();
    let mut port = 0;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--strict-unlock" => behaviour.strict_unlock = true,
            "--help" => {
                print!("{HELP}");
                return;
            }
            _ => {
                let value = arguments.next().unwrap_or_else(|| fail(&format!("{name}: no value")));
                if name == "--port" {
                    port = number(&value);
                } else {
                    set(&mut behaviour, &name, &value);
                }
            }
        }
    }
    let port = u16::try_from(port).unwrap_or_else(|_| fail("--port: too large"));
    let simulator = Simulator::start_at(port, behaviour, Some(tell))
        .unwrap_or_else(|error| fail(&format!("listening: {error}")));
    println!("{}", simulator.url());
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn set(behaviour: &mut Behaviour, name: &str, value: &str) {
    match name {
        "--user" => behaviour.user = value.into(),
        "--password-env" => {
            behaviour.password =
                std::env::var(value).unwrap_or_else(|_| fail(&format!("{value} is not set")));
        }
        "--version" => behaviour.version = value.into(),
        "--context" => behaviour.context = value.trim_end_matches('/').into(),
        "--drain-ms" => {
            let delay = (value != "never").then(|| Duration::from_millis(number(value)));
            (behaviour.db_delay, behaviour.scm_delay) = (delay, delay);
        }
        "--gate" => {
            let gate = |name| {
                let gate = Gate::new(Path::new(value), name);
                Some(gate.unwrap_or_else(|error| fail(&format!("{value}: {error}"))))
            };
            (behaviour.db_gate, behaviour.scm_gate) = (gate("db"), gate("scm"));
        }
        "--fault" => {
            let fault = CallFault::parse(value);
            behaviour.faults.push(fault.unwrap_or_else(|| fail(&format!("--fault {value}?"))));
        }
        "--task-fails-ms" => {
            behaviour.task_fails_after = Some(Duration::from_millis(number(value)));
        }
        _ => fail(&format!("{name}? --help names the options")),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| fail(&format!("{text} is no number")))
}

fn tell(seen: &Seen) {
    let status = seen.status.map_or("dropped".into(), |status| status.to_string());
    println!("{} {status} {}", seen.call.name(), seen.query);
    let _ = std::io::stdout().flush();
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2)
}
