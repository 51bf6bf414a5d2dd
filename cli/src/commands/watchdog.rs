//! `stillpoint watchdog`: the process that gives an application's lock back when the capture cannot. Started by captures only.

use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use anyhow::Result;
use clap::Args;
use std::os::fd::AsFd as _;
use stillpoint_capture::lock::watchdog;

/// Options of `watchdog`: all that it must know comes through its standard input.
#[derive(Debug, Args)]
pub struct WatchdogArgs {}

/// Serves the capture at the other end of standard input.
pub fn run(context: &Context) -> Result<Outcome> {
    let channel = std::io::stdin().as_fd().try_clone_to_owned()?;
    let result = watchdog::run(channel, &|line| context.output.warn(line));
    result.map_err(|error| {
        Problem::failed(error.to_string(), "`stillpoint unlock` shows and unlocks what is locked")
    })?;
    Ok(Outcome::Complete)
}
