//! Delivery of one webhook: the head of its outbox, again and again until it is taken or given up.

use crate::http::Shared;
use crate::webhooks::{message, post};
use gaffer::clock;
use gaffer::outbox::{Delivery, Due, Fate, HookEvent};
use gaffer_config::Webhook;
use gaffer_core::retry::{Dice, delay};
use ring::hmac;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a store that cannot be read is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// Largest key of a signature, and largest header from a file.
const SECRET_BYTES_MAX: u64 = 4096;

/// Delivers until it is aborted or the engine ends.
pub async fn run(app: Shared, webhook: Webhook) {
    let id = webhook.id();
    let mut bell = app.handle.outbox_bell();
    let mut dice = Dice::new(clock::mono().0);
    loop {
        bell.borrow_and_update();
        match app.handle.hook_due(&id).await {
            Ok(Some(due)) => one(&app, &webhook, due, &mut dice).await,
            Ok(None) => {
                if bell.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(hook = id, %error, "webhook.store-failed");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    }
}

/// One attempt, written down, and the pause behind it.
async fn one(app: &Shared, webhook: &Webhook, due: Due, dice: &mut Dice) {
    let id = webhook.id();
    let delivery = attempt(app, webhook, &due.event, due.attempts + 1).await;
    let fate = match &delivery {
        None => Fate::Skipped,
        Some(delivery) if delivery.error.is_none() => Fate::Delivered,
        Some(delivery)
            if webhook
                .retry
                .attempts
                .is_some_and(|most| delivery.attempt >= most) =>
        {
            Fate::GivenUp
        }
        Some(_) => Fate::Again,
    };
    let failed = delivery.as_ref().and_then(|delivery| delivery.error.clone());
    if let Some(error) = failed {
        match fate {
            Fate::GivenUp => {
                tracing::warn!(
                    hook = id,
                    event = due.event.event,
                    id = due.event.id,
                    attempts = due.attempts + 1,
                    error,
                    "webhook.gave-up"
                );
            }
            _ => {
                tracing::debug!(
                    hook = id,
                    event = due.event.event,
                    id = due.event.id,
                    attempt = due.attempts + 1,
                    error,
                    "webhook.failed"
                );
            }
        }
    }
    if let Err(error) = app.handle.hook_attempted(&id, due.n, delivery, fate).await {
        tracing::warn!(hook = id, %error, "webhook.store-failed");
        tokio::time::sleep(STORE_PAUSE).await;
    }
    if fate == Fate::Again {
        tokio::time::sleep(delay(&webhook.retry, due.attempts + 1, dice.share())).await;
    }
}

/// Sends an event once; none: in this webhook's format it is nothing.
pub async fn attempt(app: &Shared, webhook: &Webhook, event: &HookEvent, attempt: u32) -> Option<Delivery> {
    let bodies = message::of(app, webhook, event);
    if bodies.is_empty() {
        return None;
    }
    let (at, began) = (clock::wall(), Instant::now());
    let mut status = None;
    let mut error = None;
    for body in bodies {
        match send(webhook, event, attempt, body).await {
            Ok(answered) => {
                status = Some(answered);
                if !(200..300).contains(&answered) {
                    error = Some(format!("the receiver answered {answered}"));
                }
            }
            Err(why) => {
                status = None;
                error = Some(why);
            }
        }
        if error.is_some() {
            break;
        }
    }
    Some(Delivery {
        id: event.id.clone(),
        event: event.event.clone(),
        attempt,
        at: at.0,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        status,
        error,
    })
}

/// Name of the event of a test.
pub const TEST: &str = "webhook.test";

/// An event that tells nothing, to see whether it arrives.
pub fn test_event(id: String, by: &str) -> HookEvent {
    HookEvent {
        id,
        time: clock::wall(),
        event: TEST.to_owned(),
        job: None,
        slot: None,
        run: None,
        by: Some(by.to_owned()),
        reason: None,
        data: BTreeMap::new(),
    }
}

async fn send(webhook: &Webhook, event: &HookEvent, attempt: u32, body: String) -> Result<u16, String> {
    let timestamp = (clock::wall().0 / 1000).to_string();
    let mut headers = vec![
        ("gaffer-event".to_owned(), event.event.clone()),
        ("gaffer-event-id".to_owned(), event.id.clone()),
        ("gaffer-attempt".to_owned(), attempt.to_string()),
        ("gaffer-timestamp".to_owned(), timestamp.clone()),
    ];
    for (name, value) in &webhook.headers {
        let value = match value.strip_prefix("file:") {
            Some(path) => text_of(Path::new(path)).await?,
            None => value.clone(),
        };
        headers.push((name.clone(), value));
    }
    if let Some(path) = &webhook.secret_file {
        let secret = text_of(path).await?;
        headers.push((
            "gaffer-signature".to_owned(),
            signature(secret.as_bytes(), &timestamp, &body),
        ));
    }
    post::post(&webhook.url, &headers, body, webhook.timeout).await
}

/// `v1=` and HMAC-SHA256, in hexadecimal digits, of the timestamp, a dot and the body.
fn signature(secret: &[u8], timestamp: &str, body: &str) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(timestamp.as_bytes());
    context.update(b".");
    context.update(body.as_bytes());
    let digits: String = context
        .sign()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("v1={digits}")
}

/// What a file says, without the line end; the error names the file and never its content.
async fn text_of(path: &Path) -> Result<String, String> {
    let cannot = |why: &str| format!("cannot read {}: {why}", path.display());
    let meta = tokio::fs::metadata(path)
        .await
        .map_err(|error| cannot(&error.to_string()))?;
    if !meta.is_file() || meta.len() > SECRET_BYTES_MAX {
        return Err(cannot("it is no file of at most 4096 bytes"));
    }
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| cannot(&error.to_string()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    match text.is_empty() {
        true => Err(cannot("it is empty")),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_the_documentation_says() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        let wanted = "v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";
        assert_eq!(signature(b"key", "1700000000", r#"{"a":1}"#), wanted);
    }
}
