//! `stillpoint init`: creates a repository.

use crate::context::Context;
use crate::exit::Outcome;
use anyhow::Result;
use clap::Args;
use serde::Serialize;

/// Options of `init`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint -r /srv/backup init                       asks for a new passphrase, twice
  stillpoint -r /srv/backup -p ~/.backup-pass init     takes the first line of the file

Without the passphrase or key file nothing in the repository can be read again, by anybody. Keep a copy of it \
somewhere else, or add a second one with `stillpoint key add`.")]
pub struct InitArgs {}

/// Creates the repository.
pub fn run(context: &Context, _: &InitArgs) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Initialized {
        id: String,
        repository: String,
    }
    let repository = context.create()?;
    let place = repository.backend().location();
    context.output.say(format!(
        "created repository {} at {}",
        short(&repository.id().to_string()),
        crate::text::safe(&place)
    ))?;
    context.output.say("")?;
    context.output.say(
        "Keep a copy of the passphrase or key file in a safe place: without it nothing can be restored.",
    )?;
    let message = Initialized { id: repository.id().to_string(), repository: place };
    context.output.message("initialized", &message)?;
    Ok(Outcome::Complete)
}

fn short(id: &str) -> String {
    id.chars().take(8).collect()
}
