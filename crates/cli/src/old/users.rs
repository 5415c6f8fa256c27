//! `user`, `user:add|del|setpassword|setkey`, `key`, `key:create`, `key:delete`: users and keys of the original.

use super::args::{KeyCreateArgs, UserAddArgs};
use super::load::confirm;
use super::{App, refused};
use crate::failure::Failure;
use crate::prompt;
use gaffer_api::ClientError;
use gaffer_api::keys::{NewKeyUser, Permissions};
use std::io::IsTerminal;

/// Type of a user who is an application.
const APPLICATION: i64 = 1;

fn missing(what: String) -> impl FnOnce(ClientError) -> Failure {
    move |error| match error {
        ClientError::Api(_, 404) => Failure::not_found(what),
        error => refused(error),
    }
}

fn no_user(name: &str) -> impl FnOnce(ClientError) -> Failure + use<> {
    missing(format!("user '{name}' not found"))
}

fn no_key(key: &str) -> impl FnOnce(ClientError) -> Failure + use<> {
    missing(format!("key '{key}' not found"))
}

/// Asks, unless `--no-input`; an answer that is not yes is no failure.
fn sure(app: &App, question: &str) -> Result<bool, Failure> {
    if app.ctx.globals.yes {
        return Ok(true);
    }
    confirm(app, &format!("{question} [y]|n:"))
}

/// A password, asked for if it was not given: twice on a terminal.
fn password(app: &App, given: Option<&String>) -> Result<String, Failure> {
    match given {
        Some(password) => Ok(password.clone()),
        None if std::io::stdin().is_terminal() => prompt::new_password(&app.ctx.out),
        None => prompt::needed(prompt::line(&app.ctx.out, "")?, "a password"),
    }
}

/// `user`.
pub async fn show(app: &App, name: &str) -> Result<u8, Failure> {
    let user = app.ctx.client.key_user(name).await.map_err(no_user(name))?;
    app.ctx.out.line(&format!("User '{name}' found"))?;
    app.ctx
        .out
        .line(&format!("API Key: {}", user.key.as_deref().unwrap_or("None")))?;
    Ok(0)
}

/// `user:add`.
pub async fn add(app: &App, args: &UserAddArgs) -> Result<u8, Failure> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => prompt::needed(prompt::line(&app.ctx.out, "Username: ")?, "a username")?,
    };
    let user = NewKeyUser {
        password: password(app, args.password.as_ref())?,
        user_type: args.kind.unwrap_or(APPLICATION),
        key: args.key.clone(),
        username: name.clone(),
    };
    if !sure(app, &format!("Do you want to create the user '{name}'?"))? {
        return Ok(0);
    }
    match app.ctx.client.key_user_create(&user).await {
        Err(ClientError::Api(_, 409)) => {
            return Err(Failure::conflict(format!("user '{name}' already exists")));
        }
        made => made.map_err(refused)?,
    }
    app.ctx.out.line(&format!("User '{name}' created"))?;
    Ok(0)
}

/// `user:del`.
pub async fn delete(app: &App, name: &str) -> Result<u8, Failure> {
    let client = &app.ctx.client;
    client.key_user(name).await.map_err(no_user(name))?;
    if sure(app, &format!("Do you want to delete the user '{name}'?"))? {
        client.key_user_delete(name).await.map_err(no_user(name))?;
        app.ctx.out.line(&format!("User '{name}' deleted"))?;
    }
    Ok(0)
}

/// `user:setpassword`.
pub async fn set_password(app: &App, name: &str, given: Option<&String>) -> Result<u8, Failure> {
    let client = &app.ctx.client;
    client.key_user(name).await.map_err(no_user(name))?;
    let password = password(app, given)?;
    if sure(app, &format!("Do you want to change the password of '{name}'?"))? {
        client
            .key_user_password(name, &password)
            .await
            .map_err(no_user(name))?;
        app.ctx.out.line(&format!("{name}'s password changed"))?;
    }
    Ok(0)
}

/// `user:setkey`.
pub async fn set_key(app: &App, name: &str, given: Option<&String>) -> Result<u8, Failure> {
    let client = &app.ctx.client;
    client.key_user(name).await.map_err(no_user(name))?;
    let key = match given {
        Some(key) => key.clone(),
        None => prompt::needed(prompt::line(&app.ctx.out, "API Key: ")?, "a key")?,
    };
    if sure(app, &format!("Do you want to change the key of '{name}'?"))? {
        client
            .key_user_key(name, Some(&key))
            .await
            .map_err(no_user(name))?;
        app.ctx.out.line(&format!("{name}'s key changed"))?;
    }
    Ok(0)
}

/// `key`.
pub async fn key(app: &App, key: &str) -> Result<u8, Failure> {
    let found = app.ctx.client.key(key).await.map_err(no_key(key))?;
    let out = &app.ctx.out;
    out.line(&format!("Key '{key}' found."))?;
    out.line(&format!("Label: {}", found.label.as_deref().unwrap_or("")))?;
    // As the original spells it: scripts look for it.
    out.line("Permisssions:")?;
    for line in shown(&found.permissions) {
        out.line(&line)?;
    }
    Ok(0)
}

fn shown(permissions: &Permissions) -> [String; 6] {
    let truth = |value: bool| if value { "True" } else { "False" };
    [
        format!("    admin: {}", truth(permissions.admin)),
        format!("    create_key: {}", truth(permissions.create_key)),
        format!("    create_user: {}", truth(permissions.create_user)),
        format!("    manage: {}", permissions.manage.join(",")),
        format!("    read: {}", permissions.read.join(",")),
        format!("    write: {}", permissions.write.join(",")),
    ]
}

/// Reads `+a`, `+u`, `+k`, `+m`, and `session[.job]+rwm`.
fn permissions(words: &[String]) -> Result<Permissions, Failure> {
    let mut found = Permissions::default();
    for word in words {
        let wrong = || {
            Failure::usage(format!("`{word}` is no permission"))
                .hint("+a admin, +u create_user, +k create_key, +m manage all, SESSION[.JOB]+rwm")
        };
        let (target, letters) = word.rsplit_once('+').ok_or_else(wrong)?;
        if letters.is_empty() {
            return Err(wrong());
        }
        for letter in letters.chars() {
            match (letter, target) {
                ('a', "") => found.admin = true,
                ('u', "") => found.create_user = true,
                ('k', "") => found.create_key = true,
                ('m', "") => found.manage.push("*".to_owned()),
                ('m', target) => found.manage.push(target.to_owned()),
                ('r', target) if !target.is_empty() => found.read.push(target.to_owned()),
                ('w', target) if !target.is_empty() => found.write.push(target.to_owned()),
                _ => return Err(wrong()),
            }
        }
    }
    Ok(found)
}

/// `key:create`.
pub async fn create_key(app: &App, args: &KeyCreateArgs) -> Result<u8, Failure> {
    let permissions = permissions(&args.permissions)?;
    app.ctx.out.talk("Permisssions:");
    for line in shown(&permissions) {
        app.ctx.out.talk(&line);
    }
    if !sure(app, "Do you want to create this key?")? {
        return Ok(0);
    }
    let made = app
        .ctx
        .client
        .key_create(&permissions, args.label.as_deref())
        .await
        .map_err(refused)?;
    app.ctx.out.line(&format!("The key '{made}' has been created."))?;
    Ok(0)
}

/// `key:delete`.
pub async fn delete_key(app: &App, key: &str) -> Result<u8, Failure> {
    let client = &app.ctx.client;
    client.key(key).await.map_err(no_key(key))?;
    if sure(app, &format!("Do you want to delete the key '{key}'?"))? {
        client.key_delete(key).await.map_err(no_key(key))?;
        app.ctx.out.line(&format!("The key '{key}' has been deleted."))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Permissions, Failure> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        permissions(&words)
    }

    #[test]
    fn s13_4_permissions_of_a_new_key() {
        let found = read("+u shop+r shop.web+wm").unwrap();
        assert!(found.create_user && !found.admin && !found.create_key);
        assert_eq!(found.read, ["shop"]);
        assert_eq!(
            (found.write, found.manage),
            (vec!["shop.web".to_owned()], vec!["shop.web".to_owned()])
        );
        let found = read("+ak +m").unwrap();
        assert!(found.admin && found.create_key);
        assert_eq!(found.manage, ["*"]);
        for wrong in ["shop", "+", "+r", "shop+x", "shop+a"] {
            assert_eq!(read(wrong).unwrap_err().exit, 2, "{wrong}");
        }
    }
}
