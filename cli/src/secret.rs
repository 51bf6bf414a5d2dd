//! Where the passphrase or key file comes from: flag, environment, file, command, descriptor or terminal; never an
//! argument, which every user of the machine can see.

use crate::args::SecretArgs;
use crate::failure::Problem;
use crate::location::Side;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use stillpoint_store::record::Secret;
use zeroize::{Zeroize as _, Zeroizing};

/// Longest secret that is read, bytes.
const SECRET_BYTES_MAX: usize = 1 << 20;

/// What a key file is called in messages.
const KEY: &str = "the key file";

/// Where a secret is to be found; nothing was read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The first line of a file.
    PasswordFile(PathBuf),
    /// The first line that a shell command prints.
    PasswordCommand(String),
    /// The first line read from an inherited descriptor.
    PasswordDescriptor(i32),
    /// This environment variable.
    Environment(String),
    /// The whole content of a file.
    KeyFile(PathBuf),
    /// Ask the person at the terminal.
    Terminal,
}

/// Decides where the repository's secret comes from. Any flag beats the environment, whose variables are spelt as
/// restic's users know them.
///
/// # Errors
/// A usage problem when several flags, or several variables, name different sources.
pub fn source(args: &SecretArgs, side: Side) -> Result<SecretSource> {
    let by_flag = [
        args.password_file.clone().map(SecretSource::PasswordFile),
        args.password_command.clone().map(SecretSource::PasswordCommand),
        args.password_fd.map(SecretSource::PasswordDescriptor),
        args.key_file.clone().map(SecretSource::KeyFile),
    ];
    let names = side.flag(
        "-p, --password-command, --password-fd or --key-file",
        "--from-password-file, --from-password-command, --from-password-fd or --from-key-file",
    );
    if let Some(found) = only_one(by_flag, "flags", names)? {
        return Ok(found);
    }
    let named = side.variable("PASSWORD");
    let by_environment = [
        variable(&side.variable("PASSWORD_FILE"))
            .map(|value| SecretSource::PasswordFile(value.into())),
        variable(&side.variable("PASSWORD_COMMAND"))
            .map(|value| SecretSource::PasswordCommand(value.to_string_lossy().into_owned())),
        variable(&named).map(|value| {
            value.into_vec().zeroize();
            SecretSource::Environment(named.clone())
        }),
        variable(&side.variable("KEY_FILE")).map(|value| SecretSource::KeyFile(value.into())),
    ];
    let key_file = side.variable("KEY_FILE");
    let names = format!("${named}, _PASSWORD_FILE, _PASSWORD_COMMAND or ${key_file}");
    Ok(only_one(by_environment, "environment variables", &names)?.unwrap_or(SecretSource::Terminal))
}

/// Where the new secret of `key add` and `key passwd` comes from; None when no flag names it.
pub fn new_source(
    password_file: Option<PathBuf>,
    password_command: Option<String>,
    key_file: Option<PathBuf>,
) -> Result<SecretSource> {
    let sources = [
        password_file.map(SecretSource::PasswordFile),
        password_command.map(SecretSource::PasswordCommand),
        key_file.map(SecretSource::KeyFile),
    ];
    let names = "--new-password-file, --new-password-command or --new-key-file";
    Ok(only_one(sources, "flags", names)?.unwrap_or(SecretSource::Terminal))
}

fn only_one(
    sources: impl IntoIterator<Item = Option<SecretSource>>,
    what: &str,
    names: &str,
) -> Result<Option<SecretSource>> {
    let mut found = sources.into_iter().flatten();
    let first = found.next();
    if found.next().is_some() {
        return Err(Problem::usage(
            format!("several {what} name a passphrase or key file"),
            format!("use only one of {names}"),
        ));
    }
    Ok(first)
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Why the secret is read: decides the wording of the prompt and whether it asks twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To open a repository.
    Open,
    /// To open the repository that `copy` reads.
    OpenSource,
    /// To create a repository or a key slot.
    Choose,
}

/// Reads the secret.
///
/// # Errors
/// What could not be read, or that there is nobody to ask.
pub fn read(
    source: &SecretSource,
    purpose: Purpose,
    warn: &mut dyn FnMut(String),
) -> Result<Secret> {
    let passphrase = match source {
        SecretSource::KeyFile(path) => {
            let bytes = read_file(path, KEY, purpose, warn)?;
            if bytes.is_empty() {
                return Err(empty_key_file(path));
            }
            return Ok(Secret::KeyFile(bytes));
        }
        SecretSource::PasswordFile(path) => {
            first_line(read_file(path, "the password file", purpose, warn)?)?
        }
        SecretSource::PasswordCommand(command) => first_line(run(command)?)?,
        SecretSource::PasswordDescriptor(number) => first_line(read_descriptor(*number)?)?,
        SecretSource::Environment(name) => from_environment(name)?,
        SecretSource::Terminal => ask(purpose)?,
    };
    if passphrase.is_empty() {
        return Err(Problem::usage(
            "the passphrase is empty",
            "choose a passphrase of several words, or use --key-file",
        ));
    }
    Ok(Secret::Passphrase(passphrase))
}

fn empty_key_file(path: &Path) -> anyhow::Error {
    Problem::usage(
        format!("the key file {} is empty", path.display()),
        format!("create one with `stillpoint key generate {}`", path.display()),
    )
}

/// Takes the passphrase out of the environment, so that commands that are run do not inherit it.
fn from_environment(name: &str) -> Result<Zeroizing<String>> {
    let bytes = Zeroizing::new(variable(name).unwrap_or_default().into_vec());
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Problem::usage(format!("${name} is not UTF-8"), "use a key file instead"))?;
    // SAFETY: the secret is read before any thread is started.
    unsafe { std::env::remove_var(name) };
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_file(
    path: &Path,
    what: &str,
    purpose: Purpose,
    warn: &mut dyn FnMut(String),
) -> Result<Zeroizing<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && purpose == Purpose::Choose => {
            let hint = match what {
                KEY => format!("create one with `stillpoint key generate {}`", path.display()),
                _ => "write the passphrase into it, and `chmod 600` it".to_owned(),
            };
            return Err(Problem::usage(format!("{what} {} does not exist", path.display()), hint));
        }
        other => other.with_context(|| format!("opening {what} {}", path.display()))?,
    };
    let metadata = file.metadata().with_context(|| format!("reading {what} {}", path.display()))?;
    if metadata.is_file() {
        judge_mode(path, what, metadata.permissions().mode(), metadata.uid(), warn)?;
    }
    read_limited(file).with_context(|| format!("reading {what} {}", path.display()))
}

/// Refuses a secret that everybody on the machine can read or replace, warns about one that the group can.
fn judge_mode(
    path: &Path,
    what: &str,
    mode: u32,
    owner: u32,
    warn: &mut dyn FnMut(String),
) -> Result<()> {
    let fix = format!("run `chmod 600 {}`", path.display());
    let me = rustix::process::geteuid().as_raw();
    if mode & 0o007 != 0 {
        return Err(Problem::usage(
            format!("{what} {} is open to every user (mode {:04o})", path.display(), mode & 0o7777),
            format!(
                "{fix}; if that cannot be changed, pass it as a descriptor: --password-fd 3 3<{}",
                path.display()
            ),
        ));
    }
    if mode & 0o070 != 0 {
        warn(format!(
            "{what} {} is open to its group (mode {:04o}): {fix}",
            path.display(),
            mode & 0o7777
        ));
    }
    if owner != me && owner != 0 {
        warn(format!("{what} {} belongs to another user (uid {owner})", path.display()));
    }
    Ok(())
}

fn read_limited(source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for the largest secret from the start: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
    let limit = u64::try_from(SECRET_BYTES_MAX + 1).unwrap_or(u64::MAX);
    source.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(io::Error::other("longer than 1 MiB"));
    }
    Ok(bytes)
}

fn first_line(bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| {
        Problem::usage("the passphrase is not UTF-8", "use --key-file for secrets of any bytes")
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Runs the command by the shell; what it prints on standard error is the user's to see.
fn run(command: &str) -> Result<Zeroizing<Vec<u8>>> {
    let failed = || "running the password command".to_string();
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(failed)?;
    let stdout = child.stdout.take().expect("asked for a pipe");
    let bytes = read_limited(stdout).with_context(failed);
    let status = child.wait().with_context(failed)?;
    if !status.success() {
        return Err(Problem::failed(
            format!("the password command failed: {status}"),
            "run it by hand to see why",
        ));
    }
    bytes
}

fn read_descriptor(number: i32) -> Result<Zeroizing<Vec<u8>>> {
    let failed = || format!("reading the passphrase from descriptor {number}");
    if number < 0 {
        return Err(Problem::usage(
            "--password-fd wants a number from 0",
            "for instance --password-fd 3 3<FILE",
        ));
    }
    // SAFETY: the descriptor was inherited from our parent and nothing in this process owns or closes it; a number
    // that is not open makes the duplication fail, which is reported.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    let file = inherited.try_clone_to_owned().map(File::from);
    read_limited(file.with_context(failed)?).with_context(failed)
}

fn ask(purpose: Purpose) -> Result<Zeroizing<String>> {
    let nobody = || {
        Problem::usage(
            "no passphrase given, and there is no terminal to ask at",
            match purpose {
                Purpose::OpenSource => {
                    "use --from-password-file, --from-password-command, --from-key-file or $STILLPOINT_FROM_PASSWORD"
                }
                _ => "use -p FILE, --password-command, --key-file or $STILLPOINT_PASSWORD",
            },
        )
    };
    if !io::stderr().is_terminal() && !io::stdin().is_terminal() {
        return Err(nobody());
    }
    let prompt = |text: &str| match rpassword::prompt_password(text) {
        Ok(line) => Ok(Zeroizing::new(line)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Err(stillpoint_store::Error::Cancelled.into())
        }
        Err(_) => Err(nobody()),
    };
    match purpose {
        Purpose::Open => return prompt("passphrase for the repository: "),
        Purpose::OpenSource => return prompt("passphrase for the repository to copy from: "),
        Purpose::Choose => {}
    }
    let first = prompt("choose a passphrase: ")?;
    let second = prompt("the same again: ")?;
    if *first != *second {
        return Err(Problem::usage("the two passphrases differ", "type the same one twice"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn passphrase(secret: Secret) -> String {
        match secret {
            Secret::Passphrase(text) => text.to_string(),
            Secret::KeyFile(_) => panic!("a passphrase was asked for"),
        }
    }

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn read_with(content: &[u8], mode: u32) -> (Result<Secret>, Vec<String>) {
        let file = file(content, mode);
        let mut warnings = Vec::new();
        let source = SecretSource::PasswordFile(file.path().to_owned());
        let secret = read(&source, Purpose::Open, &mut |text| warnings.push(text));
        (secret, warnings)
    }

    // Only the first line counts, with either line end, and blanks belong to the passphrase.
    #[test]
    fn the_first_line_is_the_passphrase() {
        let check = |content: &[u8], expected: &str| {
            assert_eq!(passphrase(read_with(content, 0o600).0.unwrap()), expected);
        };
        check(b"horse", "horse");
        check(b"horse\n", "horse");
        check(b"horse \r\nsecond line\n", "horse ");
    }

    // A secret open to all is refused, one open to the group is pointed out, and both say how to fix it.
    #[test]
    fn the_mode_of_the_file_is_judged() {
        let (secret, warnings) = read_with(b"horse", 0o640);
        assert!(secret.is_ok());
        assert!(warnings.iter().any(|text| text.contains("chmod 600")), "{warnings:?}");
        let failure = crate::failure::explain(&read_with(b"horse", 0o604).0.err().unwrap());
        assert_eq!(failure.code, 2);
        assert!(failure.hint.unwrap().contains("chmod 600"));
    }

    // Empty secrets, secrets that are not text, and failing commands are refused.
    #[test]
    fn unusable_secrets_are_refused() {
        assert!(read_with(b"", 0o600).0.is_err());
        assert!(read_with(b"\n", 0o600).0.is_err());
        assert!(read_with(b"\xff\xfe", 0o600).0.is_err());
        assert!(read_with(&vec![b'x'; SECRET_BYTES_MAX + 1], 0o600).0.is_err());
        let failing = SecretSource::PasswordCommand("echo horse; exit 3".into());
        assert!(read(&failing, Purpose::Open, &mut |_| ()).is_err());
        let working = SecretSource::PasswordCommand("echo 'horse stable'".into());
        assert_eq!(passphrase(read(&working, Purpose::Open, &mut |_| ()).unwrap()), "horse stable");
    }

    // Two flags that name different secrets are a mistake, not a choice of ours.
    #[test]
    fn several_sources_are_refused() {
        let args = SecretArgs {
            password_file: Some("a".into()),
            key_file: Some("b".into()),
            ..SecretArgs::default()
        };
        assert_eq!(crate::failure::explain(&source(&args, Side::Own).unwrap_err()).code, 2);
        let one = SecretArgs { password_fd: Some(3), ..SecretArgs::default() };
        assert_eq!(source(&one, Side::Own).unwrap(), SecretSource::PasswordDescriptor(3));
    }
}
