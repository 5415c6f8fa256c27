//! What is sent: the event of `/v1`, or the original's message.

use crate::http::Shared;
use crate::legacy::events::{translated, translated_old};
use crate::view;
use gaffer::outbox::HookEvent;
use gaffer_api::hooks::WebhookMessage;
use gaffer_api::types::Reason;
use gaffer_config::{Webhook, WebhookFormat};
use serde_json::Value;

/// The bodies of an event for a webhook, in the order to send them in; none: it is nothing there.
pub fn of(app: &Shared, webhook: &Webhook, event: &HookEvent) -> Vec<String> {
    match webhook.format {
        WebhookFormat::V1 => vec![v1(&app.node, event)],
        WebhookFormat::Legacy => legacy(app, webhook, event),
    }
}

/// The original's messages whose topics the webhook names: exactly, or `.` for all of 0.5. A name that only 0.4 has gets
/// the message of 0.4.
fn legacy(app: &Shared, webhook: &Webhook, event: &HookEvent) -> Vec<String> {
    if event.event == crate::webhooks::TEST {
        return vec![serde_json::json!({"event": event.event}).to_string()];
    }
    let Some(told) = event.told() else {
        return Vec::new();
    };
    let wanted = |topic: &str| webhook.events.iter().any(|event| event == topic);
    let all = wanted(".");
    let new = translated(&app.handle, &told);
    let mut bodies: Vec<String> = new
        .iter()
        .filter(|message| all || wanted(&message.topic))
        .map(|message| message.json().to_string())
        .collect();
    let old = translated_old(&app.handle, &told);
    let only_old = |topic: &str| !new.iter().any(|message| message.topic == topic);
    bodies.extend(
        old.into_iter()
            .filter(|message| only_old(&message.topic) && wanted(&message.topic))
            .map(|message| Value::Object(message.body).to_string()),
    );
    bodies
}

fn v1(node: &str, event: &HookEvent) -> String {
    let subject = event.slot.as_ref().or(event.job.as_ref());
    let message = WebhookMessage {
        id: event.id.clone(),
        time: view::time(event.time),
        event: event.event.clone(),
        node: node.to_owned(),
        subject: subject.cloned().unwrap_or_default(),
        run: event.run.clone(),
        by: event.by.clone(),
        reason: event.reason.as_ref().map(|(code, text)| Reason {
            code: code.clone(),
            text: text.clone(),
        }),
        data: event
            .data
            .iter()
            .map(|(key, value)| (key.clone(), Value::String(value.clone())))
            .collect(),
    };
    // Texts and maps always have a JSON form.
    serde_json::to_string(&message).unwrap_or_default()
}
