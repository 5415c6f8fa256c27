//! Webhooks and plugins: what is shown of them, what is sent, and the client's methods.

use crate::client::{Client, ClientError};
use crate::routes::escape;
use crate::types::Reason;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A webhook: `GET /v1/webhooks`. No secret is in it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    /// Session that relative targets mean.
    pub session: String,
    /// Name.
    pub name: String,
    /// Where events are posted; values behind the `?` are masked.
    pub url: String,
    /// Which events.
    pub events: Vec<String>,
    /// Which jobs.
    pub targets: Vec<String>,
    /// `v1 legacy`.
    pub format: String,
    /// Is there a signature?
    pub signed: bool,
    /// Names of further headers.
    pub headers: Vec<String>,
    /// Longest time of one attempt.
    pub timeout_ms: u64,
    /// Attempts before an event is given up; none: no end.
    pub attempts: Option<u32>,
    /// File it comes from.
    pub file: String,
    /// `idle`, `waiting` (events are in the outbox), `failing` (the last attempt failed).
    pub state: String,
    /// Events in the outbox.
    pub waiting: u64,
    /// Events taken by the receiver.
    pub delivered: u64,
    /// Events given up after the last attempt.
    pub given_up: u64,
    /// Events dropped because the outbox was full.
    pub dropped: u64,
    /// Newest attempts first; in the list only the newest one.
    pub deliveries: Vec<WebhookDelivery>,
}

/// One attempt to deliver an event.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WebhookDelivery {
    /// Id of the event, the same for every attempt.
    pub id: String,
    /// Its name.
    pub event: String,
    /// From 1.
    pub attempt: u32,
    /// When.
    pub at: String,
    /// How long it took.
    pub took_ms: u64,
    /// Status of the answer; none: there was none.
    pub status: Option<u16>,
    /// Why it failed; none: it was taken.
    pub error: Option<String>,
}

/// Body of a webhook with `format = "v1"`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WebhookMessage {
    /// The same for every attempt, also after a restart: whoever has seen it may ignore it.
    pub id: String,
    /// When it happened.
    pub time: String,
    /// `run.exited`, ….
    pub event: String,
    /// Node.
    pub node: String,
    /// `shop.web`, `shop.web.2`; empty: none.
    pub subject: String,
    /// Run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Whose doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Further fields.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub data: Map<String, Value>,
}

/// A plugin: `GET /v1/plugins`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Plugin {
    /// Name of its folder.
    pub name: String,
    /// Of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Plugins that must be there.
    pub requires: Vec<String>,
    /// Path of its pages, if it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Its job, if it has a program: `plugins.NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// `active`, or `skipped` with a problem.
    pub state: String,
    /// Why it is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Client {
    /// All webhooks.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, ClientError> {
        self.get_list("/v1/webhooks").await
    }

    /// One webhook with its newest deliveries.
    pub async fn webhook(&self, session: &str, name: &str) -> Result<Webhook, ClientError> {
        self.get(&format!("/v1/webhooks/{}/{}", escape(session), escape(name)))
            .await
    }

    /// Sends `webhook.test` now, once; how it went.
    pub async fn webhook_test(&self, session: &str, name: &str) -> Result<WebhookDelivery, ClientError> {
        let path = format!("/v1/webhooks/{}/{}/test", escape(session), escape(name));
        self.post(&path, &Map::new()).await
    }

    /// All plugins.
    pub async fn plugins(&self) -> Result<Vec<Plugin>, ClientError> {
        self.get_list("/v1/plugins").await
    }
}
