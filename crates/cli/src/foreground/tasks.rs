//! Tasks of a foreground session: those that start by themselves, with what their steps write.

use super::screen::Screen;
use crate::commands::task::output::StepOutput;
use crate::commands::task::screen as words;
use crate::failure::Failure;
use crate::when;
use gaffer_api::Client;
use gaffer_api::types::Event;
use gaffer_api::types::task::{Task, TaskKillRequest};
use std::collections::{BTreeMap, BTreeSet};

/// What has been told of them.
#[derive(Default)]
pub struct Tasks {
    /// Names of those that start by themselves and are not over.
    expected: BTreeSet<String>,
    /// By id: those that are not over.
    open: BTreeMap<String, Told>,
    /// One has not succeeded.
    pub failed: bool,
}

#[derive(Default)]
struct Told {
    state: String,
    output: StepOutput,
}

impl Tasks {
    /// These start by themselves.
    pub fn expect(names: impl Iterator<Item = String>) -> Tasks {
        Tasks {
            expected: names.collect(),
            ..Tasks::default()
        }
    }

    /// Nothing of them is to come.
    pub fn over(&self) -> bool {
        self.expected.is_empty() && self.open.is_empty()
    }

    /// Is this about a task? Then it is looked at.
    pub fn concerns(&mut self, event: &Event) -> bool {
        let Some(id) = event.data.get("task").and_then(|id| id.as_str()) else {
            return false;
        };
        if event.event == "task.accepted" {
            self.open.entry(id.to_owned()).or_default();
        }
        self.open.contains_key(id)
    }

    /// Tells what is new.
    pub async fn look(&mut self, client: &Client, screen: &Screen<'_>) -> Result<(), Failure> {
        for id in self.open.keys().cloned().collect::<Vec<_>>() {
            let Ok(task) = client.task(&id, false).await else {
                continue;
            };
            let Some(told) = self.open.get_mut(&id) else {
                continue;
            };
            told.output(client, &task, screen).await?;
            if told.state != task.state {
                told.state.clone_from(&task.state);
                tell(&task, screen)?;
            }
            if task.location == "finished" {
                self.failed |= task.state != "success";
                self.expected.remove(&task.name);
                self.open.remove(&id);
            }
        }
        Ok(())
    }

    /// Ends what still runs, now.
    pub async fn kill(&self, client: &Client) {
        let request = TaskKillRequest {
            force: true,
            ..TaskKillRequest::default()
        };
        for id in self.open.keys() {
            // What is over already cannot be killed.
            let _over = client.task_kill(id, &request).await;
        }
    }
}

/// `migrate ● success 0.8s`.
fn tell(task: &Task, screen: &Screen<'_>) -> Result<(), Failure> {
    let ended = task.ended_at.as_ref().zip(task.launched_at.as_ref());
    let took = ended
        .and_then(|(ended, begun)| when::between_ms(begun, ended))
        .map(when::duration);
    let mut said = vec![took.unwrap_or_default(), task.reason.clone()];
    if task.steps.len() == 1 && task.state == "failed" {
        // Which step has failed is no news.
        said.truncate(1);
    }
    if !matches!(&task.state[..], "success" | "active") {
        let failed = task.steps.iter().filter(|step| step.state == "failed");
        said.extend(failed.filter_map(|step| step.runs.last()).map(words::end).take(1));
    }
    said.retain(|text| !text.is_empty());
    screen.state(&when::clock_now(), &task.name, &task.state, &said.join("  "))
}

impl Told {
    /// Lines of steps, as far as they are written.
    async fn output(&mut self, client: &Client, task: &Task, screen: &Screen<'_>) -> Result<(), Failure> {
        let single = task.steps.len() == 1;
        loop {
            let lines = self.output.lines(client, task, |_| true).await;
            if lines.is_empty() {
                return Ok(());
            }
            for line in lines {
                let name = match single {
                    true => task.name.clone(),
                    false => format!("{}/{}", task.name, line.step),
                };
                let text = String::from_utf8_lossy(&line.bytes);
                screen.text(
                    &when::clock_now(),
                    &name,
                    line.stream,
                    text.trim_end_matches('\n'),
                )?;
            }
        }
    }
}
