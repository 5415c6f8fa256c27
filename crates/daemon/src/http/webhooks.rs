//! Webhooks: which there are, how their deliveries went, and a test.

use crate::access::Access;
use crate::http::Shared;
use crate::http::page;
use crate::http::query::{Path, Query};
use crate::refusal::{Answer, Refusal};
use crate::{view, webhooks};
use axum::extract::State;
use axum::{Extension, Json};
use gaffer::outbox::{Delivery, Hook};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::hooks::{Webhook, WebhookDelivery};
use gaffer_core::time::Wall;
use hyper::header::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Deliveries shown of one webhook.
const SHOWN: usize = 100;

/// The routes.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(test))
}

/// Parameters of the list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those of this session.
    session: Option<String>,
    /// Items of a page, at most 1000.
    limit: Option<usize>,
    /// Of the page before.
    cursor: Option<String>,
}

/// All webhooks, each with its newest attempt.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", params(ListQuery),
    responses((status = 200, body = Vec<Webhook>), (status = "default", body = ErrorBody)))]
pub async fn list(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Query(query): Query<ListQuery>,
) -> Answer<(HeaderMap, Json<Vec<Webhook>>)> {
    allowed(access.may_read_all())?;
    let limit = page::limit(query.limit, page::USUAL)?;
    let of_session = |hook: &&Hook| {
        let wanted = query.session.as_deref();
        wanted.is_none_or(|session| hook.webhook.session.as_str() == session)
    };
    let hooks = app.handle.hooks();
    let mut hooks: Vec<&Hook> = hooks.iter().filter(of_session).collect();
    let next = page::cut(
        &mut hooks,
        |hook| hook.webhook.id(),
        limit,
        query.cursor.as_deref(),
    );
    let mut shown = Vec::new();
    for hook in hooks {
        shown.push(of(&app, hook, 1).await?);
    }
    let parameters = [
        ("session", query.session.clone()),
        ("limit", query.limit.map(|limit| limit.to_string())),
    ];
    Ok((page::link("/v1/webhooks", &parameters, next), Json(shown)))
}

/// One webhook with its newest attempts.
#[utoipa::path(get, path = "/v1/webhooks/{session}/{name}", tag = "webhooks",
    params(("session" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Webhook), (status = "default", body = ErrorBody)))]
pub async fn show(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path((session, name)): Path<(String, String)>,
) -> Answer<Json<Webhook>> {
    allowed(access.may_read_all())?;
    let hook = find(&app, &session, &name)?;
    Ok(Json(of(&app, &hook, SHOWN).await?))
}

/// Sends `webhook.test` now, once, past the outbox; how it went.
#[utoipa::path(post, path = "/v1/webhooks/{session}/{name}/test", tag = "webhooks",
    params(("session" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = WebhookDelivery), (status = "default", body = ErrorBody)))]
pub async fn test(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path((session, name)): Path<(String, String)>,
) -> Answer<Json<WebhookDelivery>> {
    allowed(access.may_operate_all())?;
    let hook = find(&app, &session, &name)?;
    let event = webhooks::test_event(app.handle.hook_test_id(), &access.actor());
    match webhooks::attempt(&app, &hook.webhook, &event, 1).await {
        Some(sent) => Ok(Json(delivery(&sent))),
        None => Err(Refusal::new(
            Code::WrongState,
            "this webhook has no message for a test",
        )),
    }
}

/// Webhooks are about no single job.
fn allowed(yes: bool) -> Answer<()> {
    match yes {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::Forbidden,
            "this credential is not for all jobs: webhooks are about no single one",
        )),
    }
}

fn find(app: &Shared, session: &str, name: &str) -> Answer<Hook> {
    let hooks = app.handle.hooks();
    let found = hooks
        .iter()
        .find(|hook| hook.webhook.session.as_str() == session && hook.webhook.name.as_str() == name);
    found.cloned().ok_or_else(|| {
        let message = format!(
            "no webhook `{}` in session {}",
            name.escape_debug(),
            session.escape_debug()
        );
        let names = hooks.iter().map(|hook| hook.webhook.name.as_str());
        let refusal = Refusal::new(Code::WebhookNotFound, message);
        match gaffer_config::nearest(name, names) {
            Some(near) => refusal.hint(format!("did you mean `{near}`?")),
            None => refusal.hint("gaffer webhook ls shows all; they are written in a file: [webhook.NAME]"),
        }
    })
}

async fn of(app: &Shared, hook: &Hook, deliveries: usize) -> Answer<Webhook> {
    let webhook = &hook.webhook;
    let id = webhook.id();
    let counts = app.handle.hook_counts(&id).await?;
    let newest = app.handle.hook_deliveries(&id, deliveries).await?;
    let failing = newest.first().is_some_and(|delivery| delivery.error.is_some());
    let state = match (counts.waiting, failing) {
        (_, true) => "failing",
        (0, false) => "idle",
        _ => "waiting",
    };
    Ok(Webhook {
        session: webhook.session.to_string(),
        name: webhook.name.to_string(),
        url: masked(&webhook.url),
        events: webhook.events.clone(),
        targets: webhook.targets.clone(),
        format: webhook.format.as_str().to_owned(),
        signed: webhook.secret_file.is_some(),
        headers: webhook.headers.keys().cloned().collect(),
        timeout_ms: u64::try_from(webhook.timeout.as_millis()).unwrap_or(u64::MAX),
        attempts: webhook.retry.attempts,
        file: hook.file.clone(),
        state: state.to_owned(),
        waiting: counts.waiting,
        delivered: counts.delivered,
        given_up: counts.given_up,
        dropped: counts.dropped,
        deliveries: newest.iter().map(delivery).collect(),
    })
}

fn delivery(delivery: &Delivery) -> WebhookDelivery {
    WebhookDelivery {
        id: delivery.id.clone(),
        event: delivery.event.clone(),
        attempt: delivery.attempt,
        at: view::time(Wall(delivery.at)),
        took_ms: delivery.took_ms,
        status: delivery.status,
        error: delivery.error.clone(),
    }
}

/// What stands behind the `?` is often a key.
pub fn masked(url: &str) -> String {
    match url.split_once('?') {
        Some((url, _)) => format!("{url}?***"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_what_may_be_a_key_is_masked() {
        assert_eq!(masked("http://a/b?token=x&y=1"), "http://a/b?***");
        assert_eq!(masked("http://a/b"), "http://a/b");
    }
}
