//! `webhook`: which there are, how their deliveries go, and a test.

use crate::context::Context;
use crate::failure::Failure;
use crate::paint::Role;
use crate::table::{Cell, Column, lines};
use crate::when;
use clap::{Args, Subcommand};
use gaffer_api::hooks::{Webhook, WebhookDelivery};

/// `webhook`.
#[derive(Args, Clone, Debug)]
pub struct WebhookArgs {
    /// What to do
    #[command(subcommand)]
    pub verb: WebhookCommand,
}

/// Verbs of `webhook`.
#[derive(Subcommand, Clone, Debug)]
pub enum WebhookCommand {
    /// List webhooks
    #[command(after_help = "Examples:\n  gaffer webhook ls --json")]
    Ls,
    /// Show a webhook and its last deliveries
    #[command(after_help = "Examples:\n  gaffer webhook show ops -n 50")]
    Show {
        /// NAME or SESSION.NAME
        #[arg(value_name = "NAME")]
        name: String,
        /// So many deliveries
        #[arg(short, default_value_t = 10, value_name = "N")]
        n: usize,
    },
    /// Send it a `webhook.test` event now
    #[command(after_help = "Examples:\n  gaffer webhook test shop.ops")]
    Test {
        /// NAME or SESSION.NAME
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// `webhook`.
pub async fn webhook(ctx: &Context, verb: &WebhookCommand) -> Result<u8, Failure> {
    match verb {
        WebhookCommand::Ls => ls(ctx).await,
        WebhookCommand::Show { name, n } => show(ctx, name, *n).await,
        WebhookCommand::Test { name } => test(ctx, name).await,
    }
}

/// The session and the name: `ops` is one of the current session, else the only one of that name.
async fn find(ctx: &Context, text: &str) -> Result<(String, String), Failure> {
    let text = text.replace('/', ".");
    if let Some((session, name)) = text.split_once('.') {
        return Ok((session.to_owned(), name.to_owned()));
    }
    let all = ctx.client.webhooks().await?;
    let named: Vec<&Webhook> = all.iter().filter(|hook| hook.name == text).collect();
    let own = named.iter().find(|hook| hook.session == ctx.session());
    let session = match (own, named.as_slice()) {
        (Some(own), _) => own.session.clone(),
        (None, [one]) => one.session.clone(),
        (None, _) => match all.first() {
            // The daemon says what is like it.
            Some(first) => first.session.clone(),
            None => ctx.session().to_owned(),
        },
    };
    Ok((session, text))
}

async fn ls(ctx: &Context) -> Result<u8, Failure> {
    let hooks = ctx.client.webhooks().await?;
    if !ctx.out.is_text() {
        ctx.out.json_list(&hooks)?;
        return Ok(0);
    }
    if hooks.is_empty() {
        ctx.out
            .say("no webhooks; they are written in a file: [webhook.NAME]");
        return Ok(0);
    }
    let column = |title: &str, right: bool| Column {
        title: title.to_owned(),
        right,
    };
    let columns = [
        column("WEBHOOK", false),
        column("STATE", false),
        column("WAITING", true),
        column("DELIVERED", true),
        column("LOST", true),
        column("LAST", false),
        column("URL", false),
    ];
    let rows: Vec<Vec<Cell>> = hooks
        .iter()
        .map(|hook| {
            let name = match hook.session == ctx.session() {
                true => hook.name.clone(),
                false => format!("{}.{}", hook.session, hook.name),
            };
            let last = hook.deliveries.first();
            vec![
                Cell::name(name),
                Cell::role(role(&hook.state), &hook.state),
                Cell::plain(hook.waiting.to_string()),
                Cell::plain(hook.delivered.to_string()),
                Cell::plain((hook.given_up + hook.dropped).to_string()),
                Cell::plain(last.map(|last| when::date_or_clock(&last.at)).unwrap_or_default()),
                Cell::plain(&hook.url),
            ]
        })
        .collect();
    for line in lines(&columns, &rows, ctx.out.width(), &ctx.out.paint) {
        ctx.out.line(&line)?;
    }
    Ok(0)
}

fn role(state: &str) -> Role {
    match state {
        "idle" => Role::Ok,
        "waiting" => Role::Busy,
        _ => Role::Bad,
    }
}

async fn show(ctx: &Context, name: &str, n: usize) -> Result<u8, Failure> {
    let (session, name) = find(ctx, name).await?;
    let mut hook = ctx.client.webhook(&session, &name).await?;
    hook.deliveries.truncate(n);
    if !ctx.out.is_text() {
        ctx.out.json(&hook)?;
        return Ok(0);
    }
    let paint = &ctx.out.paint;
    let attempts = match hook.attempts {
        Some(attempts) => format!("{attempts} attempts"),
        None => "attempts without end".to_owned(),
    };
    let signed = if hook.signed { "signed" } else { "not signed" };
    let mut facts = vec![
        ("url", hook.url.clone()),
        ("events", hook.events.join(" ")),
        ("targets", hook.targets.join(" ")),
        (
            "sends",
            format!(
                "{}, {signed}, {} each, {attempts}",
                hook.format,
                when::duration(hook.timeout_ms)
            ),
        ),
    ];
    if !hook.headers.is_empty() {
        facts.push(("headers", hook.headers.join(" ")));
    }
    facts.push((
        "events so far",
        format!(
            "{} delivered, {} waiting, {} given up, {} dropped",
            hook.delivered, hook.waiting, hook.given_up, hook.dropped
        ),
    ));
    facts.push(("file", hook.file.clone()));
    let title = format!("{}.{}", hook.session, hook.name);
    let state = paint.role(role(&hook.state), &hook.state);
    ctx.out
        .line(&format!("{}  {state}", paint.name(&title, &title)))?;
    for (key, value) in facts {
        let key = paint.role(Role::Key, &format!("{key:14}"));
        ctx.out
            .line(&format!("  {key} {}", crate::escape::escape(&value)))?;
    }
    for delivery in &hook.deliveries {
        ctx.out.line(&format!("  {}", line(ctx, delivery)))?;
    }
    Ok(0)
}

fn line(ctx: &Context, delivery: &WebhookDelivery) -> String {
    let paint = &ctx.out.paint;
    let time = paint.role(Role::Dim, &when::date_or_clock(&delivery.at));
    let (role, outcome) = match (&delivery.error, delivery.status) {
        (None, Some(status)) => (Role::Ok, status.to_string()),
        (None, None) => (Role::Ok, "taken".to_owned()),
        (Some(error), _) => (Role::Bad, crate::escape::escape(error).into_owned()),
    };
    let attempt = match delivery.attempt {
        1 => String::new(),
        n => format!(", attempt {n}"),
    };
    let outcome = paint.role(role, &outcome);
    let rest = format!("({} ms{attempt}, id {})", delivery.took_ms, delivery.id);
    format!(
        "{time} {:14} {outcome} {}",
        delivery.event,
        paint.role(Role::Dim, &rest)
    )
}

async fn test(ctx: &Context, name: &str) -> Result<u8, Failure> {
    let (session, name) = find(ctx, name).await?;
    let delivery = ctx.client.webhook_test(&session, &name).await?;
    if !ctx.out.is_text() {
        ctx.out.json(&delivery)?;
        return Ok(u8::from(delivery.error.is_some()));
    }
    if let Some(error) = &delivery.error {
        return Err(Failure::failed(format!("{session}.{name}: {error}")));
    }
    ctx.out.line(&line(ctx, &delivery))?;
    Ok(0)
}
