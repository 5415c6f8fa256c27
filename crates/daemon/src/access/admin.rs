//! The first admin, made while no daemon need run: `gafferd --create-admin-user`, `--list-admins`.

use super::keyring::{Keyring, KeyringError, New};
use super::permissions::Permissions;
use super::store::{Kind, StoreError, User};
use crate::view;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes a user with a key for everything, asks for what is missing, and prints the key. The exit code.
pub async fn create(
    state_dir: &Path,
    name: Option<String>,
    password: Option<String>,
) -> Result<u8, KeyringError> {
    let name = match name {
        Some(name) => name,
        None => ask("Username: ", false)?,
    };
    if !is_user_name(&name) {
        eprintln!("error: `{}` is no name of a user", name.escape_debug());
        return Ok(2);
    }
    make_dir(state_dir)?;
    let keyring = Keyring::open(state_dir)?;
    if keyring.user(&name).is_some() {
        eprintln!("username '{name}' already exists. Please choose another");
        return Ok(1);
    }
    let Some(password) = password.map_or_else(ask_twice, |password| Ok(Some(password)))? else {
        eprintln!("error: the two passwords differ");
        return Ok(1);
    };
    if super::tokens::check_password(&password).is_err() {
        eprintln!(
            "error: a password has 1 to {} bytes",
            super::tokens::PASSWORD_BYTES_MAX
        );
        return Ok(2);
    }
    let new = New {
        may: Permissions::admin(),
        label: Some("admin key".to_owned()),
        by: "gafferd --create-admin-user".to_owned(),
        ..New::default()
    };
    let (key, text) = keyring.add(new).await?;
    let user = User {
        name: name.clone(),
        password: String::new(),
        kind: 0,
        key: Some(key.id.clone()),
        extra: "{}".to_owned(),
        made: view::now(),
    };
    match keyring.add_user(user, password).await {
        Ok(()) => {
            println!("User '{name}' created.\nAPI Key: {text}");
            Ok(0)
        }
        Err(error) => {
            keyring.remove(&key.id).await?;
            match error {
                KeyringError::Store(StoreError::Taken(_)) => {
                    eprintln!("username '{name}' already exists. Please choose another");
                    Ok(1)
                }
                error => Err(error),
            }
        }
    }
}

/// The state directory, private from its first moment.
pub fn make_dir(state_dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(state_dir)
}

/// Can a user be called so, in a path and in basic authentication?
pub fn is_user_name(name: &str) -> bool {
    let wrong = |c: char| c.is_control() || matches!(c, '/' | ':' | '?');
    !name.is_empty() && !name.contains(wrong)
}

/// Prints `name - key` for each user that is an admin.
pub fn list(state_dir: &Path) -> Result<u8, KeyringError> {
    let keyring = Keyring::open(state_dir)?;
    for user in keyring.users().into_iter().filter(|user| user.kind == 0) {
        let key = user.key.as_deref().and_then(|id| keyring.find(Kind::Key, id));
        let text = key.and_then(|key| keyring.text(&key));
        println!("{} - {}", user.name, text.as_deref().unwrap_or("no key"));
    }
    Ok(0)
}

/// A password, if it is the same twice.
fn ask_twice() -> io::Result<Option<String>> {
    let first = ask("Password: ", true)?;
    Ok((first == ask("Password (again): ", true)?).then_some(first))
}

/// One line of the terminal, or of the standard input.
fn ask(prompt: &str, secret: bool) -> io::Result<String> {
    let stdin = io::stdin();
    let before = match secret && stdin.is_terminal() {
        true => Some(rustix::termios::tcgetattr(&stdin)?),
        false => None,
    };
    if stdin.is_terminal() {
        eprint!("{prompt}");
        io::stderr().flush()?;
    }
    if let Some(before) = &before {
        let mut quiet = before.clone();
        quiet.local_modes.remove(rustix::termios::LocalModes::ECHO);
        rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, &quiet)?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(before) = &before {
        rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, before)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
