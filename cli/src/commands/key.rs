//! `stillpoint key`: lists, adds, removes and changes passphrases and key files; rotates the keys that they wrap.

use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::host;
use crate::secret::{self, Purpose};
use crate::text::{self, Align, Table};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_store::Repository;
use stillpoint_store::id::SlotId;
use stillpoint_store::record::{KdfCost, KeySlot, NewSlot, Secret, SlotKind};
use stillpoint_store::repository::{KeyState, OtherKeys, Rotation};

/// Options of `key`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Every passphrase and key file opens the whole repository. Changing them touches no data: they only wrap the \
repository's own key. Who has opened the repository with a passphrase may have kept that key, though: removing the \
passphrase does not take it back. After `key rotate` a fresh key seals what is stored from then on, and the old one \
opens none of it; data that somebody copied before stays readable to them.")]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// List the key slots
    List,
    /// Add a passphrase or key file
    Add {
        #[command(flatten)]
        new: NewSecretArgs,
        /// What to call it in the list (default: USER@HOST)
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
    },
    /// Remove a key slot
    Remove {
        /// The slot's id, or the first digits of it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Replace the passphrase or key file that opened the repository by a new one
    Passwd(NewSecretArgs),
    /// Draw a fresh key for everything that is stored from now on
    ///
    /// Nothing is stored anew: the fresh key lies beside the old ones, which open what was stored before. The passphrase
    /// or key file stays the one that opens the repository now, or becomes the new one that is named. Somebody who may
    /// have learnt it keeps nothing only if it is a new one. Others cannot be kept: add them again afterwards.
    Rotate {
        #[command(flatten)]
        new: NewSecretArgs,
        /// Remove the other passphrases and key files, which would open nothing
        #[arg(long)]
        drop_other_keys: bool,
    },
    /// Write a new random key file, for `init --key-file` or `key add --new-key-file`; needs no repository
    Generate {
        /// The file to create
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Where the new secret comes from; the terminal asks when nothing is given.
#[derive(Debug, Args)]
struct NewSecretArgs {
    /// File whose first line is the new passphrase
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,

    /// Shell command that prints the new passphrase
    #[arg(long, value_name = "COMMAND")]
    new_password_command: Option<String>,

    /// File whose whole content is the new secret
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
}

impl NewSecretArgs {
    fn is_given(&self) -> bool {
        self.new_password_file.is_some()
            || self.new_password_command.is_some()
            || self.new_key_file.is_some()
    }
}

/// Lists or changes the key slots.
pub fn run(context: &Context, args: KeyArgs) -> Result<Outcome> {
    match args.command {
        KeyCommand::List => list(context),
        KeyCommand::Add { new, label } => add(context, new, label),
        KeyCommand::Remove { id } => remove(context, &id),
        KeyCommand::Passwd(new) => passwd(context, new),
        KeyCommand::Rotate { new, drop_other_keys } => rotate(context, new, drop_other_keys),
        KeyCommand::Generate { file } => generate(context, &file),
    }
}

fn list(context: &Context) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Key<'a> {
        id: String,
        current: bool,
        kind: &'static str,
        label: &'a str,
        created: String,
        generation: u32,
        state: &'static str,
    }
    let repository = context.open()?;
    // Where it is damaged, the list is still worth having.
    let view = repository.head().ok();
    let mut table = Table::new(&[
        ("", Align::Left),
        ("ID", Align::Left),
        ("Kind", Align::Left),
        ("Created", Align::Left),
        ("Generation", Align::Right),
        ("Label", Align::Left),
    ]);
    for slot in repository.key_slots()? {
        let current = slot.id() == repository.current_slot();
        let kind = match slot.kind() {
            SlotKind::Passphrase(_) => "passphrase",
            SlotKind::KeyFile => "key file",
        };
        let (label, created, generation) = (slot.label(), slot.created(), slot.generation().0);
        let (state, remark) = match repository.key_state(&slot, view.as_ref()) {
            KeyState::InUse => ("in use", ""),
            KeyState::Pending => ("pending", " (rotation not completed)"),
            KeyState::Outdated => ("outdated", " (outdated, opens nothing)"),
        };
        table.row([
            if current { "*" } else { "" }.into(),
            short(&slot.id()),
            kind.into(),
            text::time(created),
            generation.to_string(),
            format!("{}{remark}", text::safe(label)),
        ]);
        let (id, created) = (slot.id().to_string(), text::rfc3339(created));
        let key = Key { id, current, kind, label, created, generation, state };
        context.output.message("key", &key)?;
    }
    context.output.lines(table.lines())?;
    context.output.say("")?;
    context.output.say("* opened the repository just now")?;
    Ok(Outcome::Complete)
}

fn short(id: &SlotId) -> String {
    id.to_string().chars().take(8).collect()
}

#[derive(Serialize)]
struct Added {
    id: String,
    replaced: Option<String>,
}

fn add(context: &Context, new: NewSecretArgs, label: Option<String>) -> Result<Outcome> {
    let (repository, secret) = open_and_read(context, new)?;
    let label = label.unwrap_or_else(host::user_at_host);
    let id = repository.add_key(&secret, &label, KdfCost::default())?;
    context.output.say(format!("added key {}", short(&id)))?;
    context.output.message("key_added", &Added { id: id.to_string(), replaced: None })?;
    Ok(Outcome::Complete)
}

fn passwd(context: &Context, new: NewSecretArgs) -> Result<Outcome> {
    let (repository, secret) = open_and_read(context, new)?;
    let old = repository.current_slot();
    let label = own_label(&repository)?;
    let id = repository.add_key(&secret, &label, KdfCost::default())?;
    // Only once the new one is durable: whatever happens in between, at least one of the two opens.
    repository.remove_key(old)?;
    context.output.say(format!("key {} replaces key {}", short(&id), short(&old)))?;
    let replaced = Some(old.to_string());
    context.output.message("key_added", &Added { id: id.to_string(), replaced })?;
    Ok(Outcome::Complete)
}

fn rotate(context: &Context, new: NewSecretArgs, drop_other_keys: bool) -> Result<Outcome> {
    let is_new = new.is_given();
    let source =
        secret::new_source(new.new_password_file, new.new_password_command, new.new_key_file)?;
    let (repository, opened_by) = context.open_with_secret()?;
    let others = repository.other_keys()?;
    if !others.is_empty() && !drop_other_keys {
        let list: Vec<String> = others.iter().map(short).collect();
        return Err(Problem::failed(
            format!(
                "the fresh key cannot be wrapped for other passphrases and key files: {}",
                list.join(", ")
            ),
            "`--drop-other-keys` removes them; add them again afterwards with `stillpoint key add`",
        ));
    }
    let mut warn = |text| context.output.warn(text);
    let secret = match is_new {
        true => secret::read(&source, Purpose::Choose, &mut warn)?,
        false => opened_by,
    };
    let label = own_label(&repository)?;
    let new = NewSlot { secret: &secret, label: &label, cost: KdfCost::default() };
    let others = if drop_other_keys { OtherKeys::Drop } else { OtherKeys::Refuse };
    let rotation = repository.rotate_keys(&new, others)?;
    tell_rotation(context, repository.current_slot(), &rotation)
}

fn tell_rotation(context: &Context, replaced: SlotId, rotation: &Rotation) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Rotated {
        id: String,
        generation: u32,
        replaced: String,
        dropped: Vec<String>,
        left: Vec<String>,
    }
    let (id, generation) = (rotation.repository.current_slot(), rotation.repository.generation().0);
    context.output.say(format!("key {} replaces key {}", short(&id), short(&replaced)))?;
    for id in &rotation.dropped {
        context.output.say(format!("removed key {}", short(id)))?;
    }
    context.output.say(format!("generation {generation} seals what is stored from now on"))?;
    for id in &rotation.left {
        let id = short(id);
        let text = format!("key {id} is still there and opens nothing that is stored from now on");
        context.output.warn(format!("{text}: `stillpoint key remove {id}` removes it"));
    }
    let hex = |ids: &[SlotId]| ids.iter().map(SlotId::to_string).collect();
    let message = Rotated {
        id: id.to_string(),
        generation,
        replaced: replaced.to_string(),
        dropped: hex(&rotation.dropped),
        left: hex(&rotation.left),
    };
    context.output.message("key_rotated", &message)?;
    Ok(Outcome::unless(!rotation.left.is_empty()))
}

/// What the user called the slot that opened the repository.
fn own_label(repository: &Arc<Repository>) -> Result<String> {
    let slots = repository.key_slots()?;
    let own = slots.iter().find(|slot| slot.id() == repository.current_slot());
    Ok(own.map_or_else(host::user_at_host, |slot| slot.label().to_owned()))
}

/// Opens the repository first: nobody is asked for a new passphrase who does not know the old one.
fn open_and_read(context: &Context, new: NewSecretArgs) -> Result<(Arc<Repository>, Secret)> {
    let source =
        secret::new_source(new.new_password_file, new.new_password_command, new.new_key_file)?;
    let repository = context.open()?;
    let secret = secret::read(&source, Purpose::Choose, &mut |text| context.output.warn(text))?;
    Ok((repository, secret))
}

fn generate(context: &Context, path: &Path) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Generated {
        path: String,
    }
    let content = Secret::generate_key_file(&**context.env());
    let failed = || format!("creating the key file {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(failed)?;
    file.write_all(&content).and_then(|()| file.sync_all()).with_context(failed)?;
    context.output.say(format!("wrote a new key to {}", text::safe(&path.to_string_lossy())))?;
    context.output.say("Keep a copy of it in a safe place: what it opens, nothing else opens.")?;
    let path = path.to_string_lossy().into_owned();
    context.output.message("key_generated", &Generated { path })?;
    Ok(Outcome::Complete)
}

fn remove(context: &Context, spec: &str) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Removed {
        id: String,
    }
    let repository = context.open()?;
    let slots = repository.key_slots()?;
    let mut found = slots.iter().map(KeySlot::id).filter(|id| id.to_string().starts_with(spec));
    let id = match (found.next(), found.next()) {
        (Some(id), None) if !spec.is_empty() => id,
        (None, _) => return Err(Problem::failed(format!("no key begins with {spec:?}"), LIST)),
        _ => return Err(Problem::failed(format!("several keys begin with {spec:?}"), LIST)),
    };
    if id == repository.current_slot() && !repository.other_keys()?.is_empty() {
        return Err(Problem::failed(
            format!("key {} opened the repository just now", short(&id)),
            "open the repository with another passphrase or key file to remove this one, or use `stillpoint key passwd`",
        ));
    }
    repository.remove_key(id)?;
    context.output.say(format!("removed key {}", short(&id)))?;
    context.output.message("key_removed", &Removed { id: id.to_string() })?;
    Ok(Outcome::Complete)
}

const LIST: &str = "`stillpoint key list` shows the keys";
