//! What resident workers say: lines of their stdout, and what they mean.

use super::service::QueueNews;
use crate::logs::{Chunk, LogReader};
use crate::owner::Message;
use gaffer_core::name::RunId;
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::task::{Failure, TaskId};
use gaffer_core::time::Duration;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

/// Longest line that is looked at; what is longer is output.
const LINE_MAX: usize = 1 << 20;

/// What a worker says.
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    #[serde(rename = "type")]
    what: String,
    pub id: Option<TaskId>,
    pub token: Option<u64>,
    result: Option<Value>,
    error: Option<Problem>,
    after: Option<String>,
    #[serde(default)]
    fatal: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Problem {
    Text(String),
    Full {
        #[serde(default)]
        kind: Option<String>,
        #[serde(default)]
        message: Option<String>,
    },
}

/// The outcome that a line tells; none: it tells none.
pub(super) fn outcome_of(said: &Said) -> Option<Outcome> {
    let after = said
        .after
        .as_deref()
        .and_then(|text| gaffer_config::parse_duration(text).ok());
    let failure = || match &said.error {
        Some(Problem::Text(message)) => Failure::of("failed", message.as_str()),
        Some(Problem::Full { kind, message }) => Failure::of(
            kind.as_deref().unwrap_or("failed"),
            message.as_deref().unwrap_or("its worker says so"),
        ),
        None => Failure::of("failed", "its worker says so"),
    };
    Some(match said.what.as_str() {
        "done" => Outcome::Done(said.result.as_ref().map(|result| result.to_string().into())),
        "fail" if said.fatal => Outcome::Fatal(failure()),
        "fail" => match after {
            Some(after) => Outcome::RetryAfter(failure(), after),
            None => Outcome::Failed(failure()),
        },
        "snooze" => Outcome::Snooze(after.unwrap_or(Duration::from_secs(2))),
        "cancelled" => Outcome::Cancelled,
        _ => return None,
    })
}

/// Reads the lines of one run.
pub(super) struct Follower {
    pub reader: LogReader,
    pub at: u64,
    pub line: Vec<u8>,
    pub run: RunId,
    pub owner: tokio::sync::mpsc::UnboundedSender<Message>,
    pub last: watch::Receiver<Option<u64>>,
}

impl Follower {
    /// Until its last word, or nobody listens any more.
    pub async fn follow(mut self) {
        loop {
            let mut lines = Vec::new();
            while let Ok(Some(chunk)) = self.reader.read(self.at, 256 << 10) {
                self.take(chunk, &mut lines);
            }
            if !lines.is_empty() && !self.say(Some(lines)) {
                return;
            }
            let last = *self.last.borrow_and_update();
            // What is not there will not come: the disk was full, or it was rotated away.
            let end = self.reader.range().map_or(0, |(_, end)| end);
            if last.is_some_and(|last| self.at >= last.min(end)) {
                self.say(None);
                return;
            }
            tokio::select! {
                grown = self.reader.grown(self.at) => if grown.is_err() {
                    self.say(None);
                    return;
                },
                changed = self.last.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    fn take(&mut self, chunk: Chunk, lines: &mut Vec<String>) {
        match chunk {
            Chunk::Bytes { offset, data, .. } => {
                self.at = offset + data.len() as u64;
                for byte in data {
                    match byte {
                        b'\n' => {
                            let line = std::mem::take(&mut self.line);
                            if line.first() == Some(&b'{') && line.len() < LINE_MAX {
                                lines.push(String::from_utf8_lossy(&line).into_owned());
                            }
                        }
                        _ if self.line.len() < LINE_MAX => self.line.push(byte),
                        _ => {}
                    }
                }
            }
            Chunk::Gap { to, .. } => {
                self.line.clear();
                self.at = to;
            }
            Chunk::Dropped { .. } => self.line.clear(),
        }
    }

    fn say(&self, lines: Option<Vec<String>>) -> bool {
        let news = QueueNews::Said(self.run, lines);
        self.owner.send(Message::Queue(news)).is_ok()
    }
}
