//! `login`, `token …`, `user …`: credentials of a daemon, and the one that this user shows it.

use crate::access::{LoginArgs, May, TokenCommand, UserCommand};
use crate::commands::job::confirm;
use crate::connect;
use crate::context::Context;
use crate::failure::Failure;
use crate::paint::Role;
use crate::prompt;
use crate::table::{Cell, Column, lines};
use crate::when;
use crate::{credentials, escape::escape};
use gaffer_api::ClientError;
use gaffer_api::access::{Token, TokenRequest, TokenScope, User, UserRequest};
use std::io::IsTerminal;

/// `login`: of a user with a password, or of who has a token already.
pub async fn login(ctx: &Context, args: &LoginArgs) -> Result<u8, Failure> {
    if args.with_token {
        return with_token(ctx).await;
    }
    let out = &ctx.out;
    let user = match &args.username {
        Some(user) => user.clone(),
        None => prompt::needed(prompt::line(out, "Username: ")?, "a username")?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None => prompt::needed(prompt::secret(out, "Password: ")?, "a password")?,
    };
    let key = match ctx.client.login(&user, &password).await {
        Ok(Some(key)) => key,
        Ok(None) => return Err(Failure::failed(format!("user '{}' has no key", escape(&user)))),
        Err(ClientError::Api(_, 401)) => {
            return Err(Failure::failed("unauthorized: username or password is wrong"));
        }
        Err(ClientError::Api(_, 404)) => {
            let endpoint = ctx.client.endpoint();
            return Err(
                Failure::failed(format!("{endpoint} asks nobody like you for a key"))
                    .hint("where keys are required:  gaffer login --url https://HOST:PORT"),
            );
        }
        Err(error) => return Err(error.into()),
    };
    let file = credentials::save(ctx.client.endpoint(), &key)?;
    out.line(&format!("User '{user}' authenticated."))?;
    out.talk(&format!("kept in {}", file.display()));
    Ok(0)
}

async fn with_token(ctx: &Context) -> Result<u8, Failure> {
    let token = prompt::needed(prompt::secret(&ctx.out, "Token: ")?, "a token")?;
    let token = token.trim();
    let node = connect::client_with(&ctx.globals, Some(token.to_owned()))?
        .node()
        .await?;
    let file = credentials::save(ctx.client.endpoint(), token)?;
    ctx.out.line(&format!("The token is good for {}.", node.node))?;
    ctx.out.talk(&format!("kept in {}", file.display()));
    Ok(0)
}

/// `token …`.
pub async fn token(ctx: &Context, verb: &TokenCommand) -> Result<u8, Failure> {
    match verb {
        TokenCommand::Create { name, may, expires } => {
            let request = TokenRequest {
                name: name.clone(),
                scope: may.scope.of_api(),
                jobs: may.jobs.clone(),
                expires: expires.clone(),
            };
            let made = ctx.client.token_create(&request).await?;
            if !ctx.out.is_text() {
                ctx.out.json(&made)?;
                return Ok(0);
            }
            ctx.out.line(&made.token)?;
            if std::io::stdout().is_terminal() {
                ctx.out
                    .talk("it is not shown again; others use it by:  gaffer login --with-token");
            }
        }
        TokenCommand::Ls => {
            let tokens = ctx.client.tokens().await?;
            if !ctx.out.is_text() {
                ctx.out.json_list(&tokens)?;
                return Ok(0);
            }
            let titles = ["NAME", "SCOPE", "FOR", "EXPIRES", "BY", "ID"];
            table(ctx, &titles, tokens.iter().map(token_cells).collect())?;
        }
        TokenCommand::Rm { names } => {
            confirm(ctx, &format!("revoke {}?", names.join(", ")))?;
            return each(ctx, names, async |name| ctx.client.token_remove(name).await).await;
        }
    }
    Ok(0)
}

fn token_cells(token: &Token) -> Vec<Cell> {
    let jobs = if token.jobs.is_empty() {
        "everything".to_owned()
    } else {
        token.jobs.join(",")
    };
    let expires = token.expires_at.as_deref().map(when::date_or_clock);
    vec![
        Cell::name(token.name.clone()),
        scope_cell(token.scope),
        Cell::plain(jobs),
        Cell::plain(expires.unwrap_or_else(|| "never".to_owned())),
        Cell::plain(escape(&token.created_by)),
        Cell::plain(token.id.clone()),
    ]
}

fn scope_cell(scope: TokenScope) -> Cell {
    match scope {
        TokenScope::Read => Cell::plain("read"),
        TokenScope::Operate => Cell::plain("operate"),
        TokenScope::Admin => Cell::role(Role::Warn, "admin"),
    }
}

/// `user …`.
pub async fn user(ctx: &Context, verb: &UserCommand) -> Result<u8, Failure> {
    match verb {
        UserCommand::Create { name, may } => create(ctx, name, may).await,
        UserCommand::Ls => {
            let users = ctx.client.users().await?;
            if ctx.out.is_text() {
                let titles = ["NAME", "KIND", "KEY", "CREATED"];
                table(ctx, &titles, users.iter().map(user_cells).collect())?;
            } else {
                ctx.out.json_list(&users)?;
            }
            Ok(0)
        }
        UserCommand::Show { name } => {
            let user = ctx.client.user(name).await?;
            if ctx.out.is_text() {
                let titles = ["NAME", "KIND", "KEY", "CREATED"];
                table(ctx, &titles, vec![user_cells(&user)])?;
            } else {
                ctx.out.json(&user)?;
            }
            Ok(0)
        }
        UserCommand::Password { name } => {
            // Who is not there needs no password.
            ctx.client.user(name).await?;
            let password = prompt_password(ctx)?;
            ctx.client.user_password(name, &password).await?;
            ctx.out.talk(&format!("{} has another password", escape(name)));
            Ok(0)
        }
        UserCommand::Rm { names } => {
            let question = format!("remove {} and what their keys allow?", names.join(", "));
            confirm(ctx, &question)?;
            each(ctx, names, async |name| ctx.client.user_remove(name).await).await
        }
    }
}

async fn create(ctx: &Context, name: &str, may: &May) -> Result<u8, Failure> {
    let request = UserRequest {
        name: name.to_owned(),
        password: prompt_password(ctx)?,
        scope: may.scope.of_api(),
        jobs: may.jobs.clone(),
    };
    let made = ctx.client.user_create(&request).await?;
    if ctx.out.is_text() {
        ctx.out.line(&format!("User '{}' created.", escape(&made.name)))?;
    } else {
        ctx.out.json(&made)?;
    }
    Ok(0)
}

/// Twice on a terminal, once from a pipe.
fn prompt_password(ctx: &Context) -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        return prompt::new_password(&ctx.out);
    }
    prompt::needed(prompt::secret(&ctx.out, "")?, "a password")
}

fn user_cells(user: &User) -> Vec<Cell> {
    vec![
        Cell::name(user.name.clone()),
        if user.admin {
            Cell::role(Role::Warn, "admin")
        } else {
            Cell::plain("user")
        },
        Cell::plain(user.key.clone().unwrap_or_else(|| "-".to_owned())),
        Cell::plain(when::date_or_clock(&user.created_at)),
    ]
}

fn table(ctx: &Context, titles: &[&str], rows: Vec<Vec<Cell>>) -> Result<(), Failure> {
    let columns: Vec<Column> = titles
        .iter()
        .map(|title| Column {
            title: (*title).to_owned(),
            right: false,
        })
        .collect();
    for line in lines(&columns, &rows, ctx.out.width(), &ctx.out.paint) {
        ctx.out.line(&line)?;
    }
    Ok(())
}

/// All are tried; the exit code is the worst one.
async fn each(
    ctx: &Context,
    names: &[String],
    mut remove: impl AsyncFnMut(&str) -> Result<(), ClientError>,
) -> Result<u8, Failure> {
    let mut worst = 0;
    for name in names {
        match remove(name).await {
            Ok(()) => ctx.out.talk(&format!("{} is removed", escape(name))),
            Err(error) => {
                let failure: Failure = error.into();
                worst = worst.max(failure.exit);
                ctx.out.fail(&failure);
            }
        }
    }
    Ok(worst)
}
