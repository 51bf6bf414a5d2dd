//! `stillpoint completions`: a completion script for a shell.

use crate::args::Cli;
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use anyhow::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::io::Write as _;

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint completions bash > ~/.local/share/bash-completion/completions/stillpoint
  stillpoint completions fish > ~/.config/fish/completions/stillpoint.fish
  stillpoint completions zsh > \"${fpath[1]}/_stillpoint\"")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(context: &Context, args: &CompletionsArgs) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "stillpoint", &mut script);
    if context.output.is_json() {
        return Err(Problem::usage("a completion script is not JSON", "leave out --json"));
    }
    context.output.raw().write_all(&script)?;
    Ok(Outcome::Complete)
}
