//! The command `stillpoint`: what people see. Everything it does is done by the libraries.

mod args;
mod clock;
mod commands;
mod context;
mod damage;
mod exit;
mod failure;
mod host;
mod json;
mod listing;
mod location;
mod output;
mod progress;
mod safeguard;
mod secret;
mod selection;
mod signals;
mod sources;
mod stdin;
mod text;
mod values;

use crate::args::{Cli, GlobalArgs};
use crate::context::Context;
use crate::output::{Output, Style, Verbosity};
use crate::signals::Cancel;
use clap::Parser as _;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    signals::harden();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(refuse(&error)),
    };
    let output = Arc::new(output_for(&cli.global));
    let installed = match cli.command.minds_signals_itself() {
        true => Ok(Cancel::default()),
        false => Cancel::install(cli.command.ends_gracefully()),
    };
    let cancel = match installed {
        Ok(cancel) => cancel,
        Err(error) => return ExitCode::from(fail(&output, &error.into(), None)),
    };
    let context = Context::new(cli.global, Arc::clone(&output), cancel);
    let result = commands::run(&context, cli.command);
    context.tell_notices();
    let result = result.and_then(|outcome| {
        output.flush()?;
        Ok(outcome)
    });
    ExitCode::from(match result {
        Ok(outcome) => outcome.code(),
        Err(error) => fail(&output, &error, context.cancel.exit_code()),
    })
}

/// Says what failed, unless the reader of the output is gone and that is all, and gives the exit code; a command that a signal stopped ends with the signal's code.
fn fail(output: &Output, error: &anyhow::Error, stopped: Option<u8>) -> u8 {
    if output.is_broken() {
        return exit::BROKEN_PIPE;
    }
    let failure = failure::explain(error);
    let code = match stopped {
        Some(code) if failure.code == exit::INTERRUPTED => code,
        _ => failure.code,
    };
    output.failure(&failure.message, failure.hint.as_deref(), code);
    code
}

/// Shows help, or what is wrong with the command line, in the style that was asked for.
fn refuse(error: &clap::Error) -> u8 {
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && is_json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Output::new(Style::Json, Verbosity::Normal).failure(message, None, exit::USAGE);
    } else {
        // The reader may be gone; the exit code says it all.
        let _ = error.print();
    }
    if error.use_stderr() { exit::USAGE } else { exit::OK }
}

fn output_for(global: &GlobalArgs) -> Output {
    let style = if global.json { Style::Json } else { Style::Text };
    let verbosity = match (global.quiet, global.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, 1) => Verbosity::Verbose,
        (false, _) => Verbosity::Everything,
    };
    Output::new(style, verbosity)
}
