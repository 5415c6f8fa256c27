//! Queues of a foreground session: what their workers write, and tasks that do not succeed.

use super::screen::Screen;
use crate::failure::Failure;
use crate::when;
use futures_util::stream::{SelectAll, StreamExt};
use gaffer_api::Client;
use gaffer_api::client::ItemStream;
use gaffer_api::routes::LogQuery;
use gaffer_api::types::{Event, LogLine};

/// Their lines, as they come.
pub struct Queues {
    names: Vec<String>,
    lines: SelectAll<ItemStream<LogLine>>,
}

impl Queues {
    /// These are defined.
    pub fn expect(names: Vec<String>) -> Queues {
        Queues {
            names,
            lines: SelectAll::new(),
        }
    }

    /// From now on; they are defined by now.
    pub async fn follow(&mut self, client: &Client, session: &str) -> Result<(), Failure> {
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        for name in &self.names {
            self.lines
                .push(client.queue_logs(session, name, None, &query).await?);
        }
        Ok(())
    }

    /// The next line of one of them. A stream that breaks off ends with its daemon.
    pub async fn line(&mut self) -> LogLine {
        loop {
            match self.lines.next().await {
                Some(Ok(line)) => return line,
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// An attempt that did not succeed.
pub struct End<'a> {
    event: &'a Event,
    word: &'static str,
}

impl End<'_> {
    /// None: the event is of something else.
    pub fn of(event: &Event) -> Option<End<'_>> {
        let word = match event.event.as_str() {
            "queue.task.failed" => "backoff",
            "queue.task.dead" | "queue.task.lost" => "failed",
            _ => return None,
        };
        Some(End { event, word })
    }

    /// `mail ✗ failed  task 7 is dead: exit 1`.
    pub fn tell(&self, screen: &Screen<'_>) -> Result<(), Failure> {
        let of = |key: &str| {
            let value = self.event.data.get(key);
            value.and_then(|value| value.as_str()).unwrap_or_default()
        };
        let task = of("task");
        let what = match self.word {
            "failed" => format!("task {task} is {}", of("state")),
            _ => format!("task {task} will be tried again"),
        };
        let text = match &self.event.reason {
            Some(reason) => format!("{what}: {}", reason.text),
            None => what,
        };
        let time = when::clock(&self.event.time);
        screen.state(&time, &screen.name(of("queue")), self.word, &text)
    }
}
