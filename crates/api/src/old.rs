//! The API of 0.4, as far as `gafferctl` shows what it says: `/processes/{name}`, `/watch`.

use crate::client::{Client, ClientError, ItemStream};
use crate::routes::escape;
use serde::Deserialize;
use serde_json::Value;

type Result<T> = std::result::Result<T, ClientError>;

/// An event of 0.4; it has more members.
#[derive(Clone, Debug, Deserialize)]
pub struct OldEvent {
    /// `start stop spawn reap exit stop_pid create delete update`.
    pub event: String,
    /// Name of the job: `job` or `session:job`.
    #[serde(default)]
    pub name: String,
    /// Small number of the process, if it is about one.
    #[serde(default)]
    pub pid: Option<u64>,
}

impl Client {
    /// Definition of a job (`job` or `session:job`) in the form of 0.4.
    pub async fn process_04(&self, name: &str) -> Result<Value> {
        self.get(&format!("/processes/{}", escape(name))).await
    }

    /// Events as they come, of a pattern (`start`, `proc.web.spawn`) or all.
    pub async fn watch_04(&self, pattern: Option<&str>) -> Result<ItemStream<OldEvent>> {
        let parts = pattern.unwrap_or_default().splitn(3, '.');
        let path: String = parts
            .filter(|part| !part.is_empty())
            .map(|part| format!("/{}", escape(part)))
            .collect();
        self.stream_lines(&format!("/watch{path}?feed=continuous")).await
    }
}
