//! Webhooks, as far as nothing may be lost: which event is for which, and how it gets into the outbox.
//!
//! An event is put in the transaction that makes it true: an end with the row of the history, a start with a mark
//! beside it, what a request tells behind a promise that was committed with the request. Other events are put as
//! soon as they happen, and are lost if the daemon is killed in that moment. Delivery is not done here.

use crate::clock;
use crate::facts::RunFacts;
use crate::handle::{Handle, Result};
use crate::info::{Error, Event, HookChange, PlanAction};
use crate::owner::lock;
use crate::requests::Effect;
use crate::state::State;
use crate::store::{Change, HookRow, OutboxChange, OutboxRow, Settled};
pub use crate::store::{Delivery, Fate, HookCounts};
use gaffer_config::{Webhook, WebhookFormat};
use gaffer_core::io::{Command, Input, WishState};
use gaffer_core::name::{JobId, RunId, Slot};
use gaffer_core::time::Wall;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Events that come with a death, and are put with it.
const OF_A_DEATH: &[&str] = &["run.exited", "run.oom", "job.failed", "job.flapping"];

/// A webhook in force.
#[derive(Clone, Debug)]
pub struct Hook {
    /// What it says.
    pub webhook: Webhook,
    /// The file it came from.
    pub file: String,
}

/// An event on its way to a webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct HookEvent {
    /// The same for every attempt and after every restart.
    pub id: String,
    /// When it happened, or was read from the journal.
    pub time: Wall,
    /// `run.exited`, ….
    pub event: String,
    /// Job, if it is about one.
    pub job: Option<String>,
    /// `shop.web.2`, for runs.
    pub slot: Option<String>,
    /// Run id.
    pub run: Option<String>,
    /// Whose doing.
    pub by: Option<String>,
    /// Code and sentence.
    pub reason: Option<(String, String)>,
    /// Further fields.
    pub data: BTreeMap<String, String>,
}

impl HookEvent {
    fn of(event: &Event, id: String) -> HookEvent {
        HookEvent {
            id,
            time: clock::wall(),
            event: event.event.to_owned(),
            job: event.job.as_ref().map(JobId::to_string),
            slot: event.slot.as_ref().map(Slot::to_string),
            run: event.run.map(|run| run.to_string()),
            by: event.by.as_deref().map(str::to_owned),
            reason: event
                .reason
                .as_ref()
                .map(|reason| (reason.code.to_owned(), reason.text.to_string())),
            data: event
                .data
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect(),
        }
    }

    fn to_json(&self) -> String {
        json!({
            "id": self.id, "time": self.time.0, "event": self.event, "job": self.job, "slot": self.slot,
            "run": self.run, "by": self.by, "reason": self.reason, "data": self.data,
        })
        .to_string()
    }

    /// What was written by this or an earlier version; what is missing is none.
    fn from_json(text: &str) -> Option<HookEvent> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let reason = match (value["reason"][0].as_str(), value["reason"][1].as_str()) {
            (Some(code), Some(text)) => Some((code.to_owned(), text.to_owned())),
            _ => None,
        };
        Some(HookEvent {
            id: text("id")?,
            time: Wall(value["time"].as_i64().unwrap_or_default()),
            event: text("event")?,
            job: text("job"),
            slot: text("slot"),
            run: text("run"),
            by: text("by"),
            reason,
            data: serde_json::from_value(value["data"].clone()).unwrap_or_default(),
        })
    }
}

impl HookEvent {
    /// As it was told in the log of events; none for one that no version has told.
    pub fn told(&self) -> Option<Event> {
        let word = |text: &str| WORDS.iter().find(|word| **word == text).copied();
        Some(Event {
            event: word(&self.event)?,
            job: self.job.as_deref().and_then(|job| JobId::parse(job).ok()),
            slot: self.slot.as_deref().and_then(|slot| slot.parse().ok()),
            run: self.run.as_deref().and_then(|run| run.parse().ok()),
            by: self.by.as_deref().map(Into::into),
            reason: self.reason.as_ref().map(|(code, text)| gaffer_core::io::Reason {
                code: crate::settle::static_code(code),
                text: text.as_str().into(),
            }),
            data: self
                .data
                .iter()
                .filter_map(|(key, value)| Some((word(key)?, value.clone())))
                .collect(),
        })
    }
}

/// Names of events about jobs and runs, and of their data.
const WORDS: &[&str] = &[
    "job.added",
    "job.changed",
    "job.started",
    "job.stopped",
    "job.scaled",
    "job.flapping",
    "job.failed",
    "job.removed",
    "run.started",
    "run.ready",
    "run.exited",
    "run.oom",
    "run.adopted",
    "run.signalled",
    "run.unhealthy",
    "pid",
    "code",
    "signal",
    "cause",
    "lived",
    "why",
    "wish",
    "restart",
    "from",
    "to",
    "probe",
];

/// The next event of a webhook.
#[derive(Clone, Debug)]
pub struct Due {
    /// Row of the outbox.
    pub n: u64,
    /// Failed attempts so far.
    pub attempts: u32,
    /// What.
    pub event: HookEvent,
}

/// What the owner keeps.
pub(crate) struct Hooks {
    pub list: Arc<Vec<Hook>>,
    changed: watch::Sender<u64>,
    /// Highest number of an event in use.
    newest: u64,
    /// To hand to the store at the end of the turn.
    pending: Vec<OutboxChange>,
    /// While a request is carried out: what it tells.
    captured: Option<Vec<OutboxRow>>,
    /// While an output is taken: what comes with its deaths.
    with_death: BTreeMap<RunId, Vec<OutboxRow>>,
}

impl Hooks {
    pub fn new(rows: &[HookRow], newest: u64) -> Hooks {
        let read = |row: &HookRow| {
            let typed = serde_json::from_str(&row.spec).unwrap_or_default();
            match Webhook::from_typed(&row.session, &row.name, &typed) {
                Ok(webhook) => Some(Hook {
                    webhook,
                    file: row.file.clone(),
                }),
                Err(error) => {
                    tracing::error!(
                        session = row.session,
                        name = row.name,
                        error,
                        "a stored webhook cannot be understood"
                    );
                    None
                }
            }
        };
        Hooks {
            list: Arc::new(rows.iter().filter_map(read).collect()),
            changed: watch::Sender::new(0),
            newest,
            pending: Vec::new(),
            captured: None,
            with_death: BTreeMap::new(),
        }
    }

    /// A row for every webhook that wants the event.
    fn rows(&mut self, epoch: u32, event: &Event, hooks: &[Hook]) -> Vec<OutboxRow> {
        let mut rows = Vec::new();
        for hook in hooks.iter().filter(|hook| wants(&hook.webhook, event)) {
            self.newest += 1;
            rows.push(OutboxRow {
                n: self.newest,
                hook: hook.webhook.id(),
                event: HookEvent::of(event, format!("{epoch}.{}", self.newest)).to_json(),
                attempts: 0,
            });
        }
        rows
    }
}

/// Is the event for this webhook?
fn wants(webhook: &Webhook, event: &Event) -> bool {
    if event.event == "gap" {
        return false;
    }
    let named = match webhook.format {
        WebhookFormat::V1 => webhook
            .events
            .iter()
            .any(|pattern| crate::events::matches(pattern, event.event)),
        // Which of the original's topics it becomes is known when it is translated.
        WebhookFormat::Legacy => event.event.starts_with("run.") || event.event.starts_with("job."),
    };
    named
        && webhook
            .targets
            .iter()
            .any(|pattern| is_target(pattern, webhook.session.as_str(), event))
}

/// `web` and `web.2` are of the session, `shop.` and `shop.*` all jobs of one, `*` is everything.
fn is_target(pattern: &str, session: &str, event: &Event) -> bool {
    if pattern == "*" {
        return true;
    }
    let pattern = pattern.replace('/', ".");
    let whole = match pattern.strip_suffix('.') {
        Some(session) => format!("{session}.*"),
        None => pattern,
    };
    let own = format!("{session}.{whole}");
    let names = [
        event.job.as_ref().map(JobId::to_string),
        event.slot.as_ref().map(Slot::to_string),
    ];
    names
        .into_iter()
        .flatten()
        .any(|name| glob(&whole, &name) || glob(&own, &name))
}

/// `*` is any text.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

fn event_of(event: &'static str, job: &JobId, by: &crate::info::Actor) -> Event {
    Event {
        event,
        job: Some(job.clone()),
        slot: None,
        run: None,
        by: Some(by.clone()),
        reason: None,
        data: Vec::new(),
    }
}

impl State {
    /// Appends an event of the engine itself.
    pub fn tell(&mut self, event: Event) {
        self.put_event(&event);
        self.counters.events += self.events.append([event]);
    }

    /// Takes note of what an output of the core tells.
    pub fn note_output(&mut self, events: &[Event], commands: &[Command]) {
        self.hooks.with_death.clear();
        if self.hooks.list.is_empty() {
            return;
        }
        let deaths: Vec<(RunId, &JobId)> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Settle { slot, death, .. } => Some((death.run, &slot.job)),
                _ => None,
            })
            .collect();
        for event in events {
            let dead = deaths.iter().find(|(run, job)| {
                OF_A_DEATH.contains(&event.event)
                    && event
                        .run
                        .map_or(event.job.as_ref() == Some(*job), |told| told == *run)
            });
            let dead = dead.map(|(run, _)| *run);
            match (dead, event.event, event.run) {
                (Some(run), ..) => {
                    let rows = self.rows_of(event);
                    self.hooks.with_death.entry(run).or_default().extend(rows);
                }
                (None, "run.started", Some(run)) => self.note_started(run, event),
                _ => self.put_event(event),
            }
        }
    }

    fn rows_of(&mut self, event: &Event) -> Vec<OutboxRow> {
        let hooks = self.hooks.list.clone();
        self.hooks.rows(self.epoch, event, &hooks)
    }

    pub fn put_event(&mut self, event: &Event) {
        if self.hooks.list.is_empty() {
            return;
        }
        let rows = self.rows_of(event);
        match &mut self.hooks.captured {
            _ if rows.is_empty() => {}
            Some(captured) => captured.extend(rows),
            None => self.hooks.pending.push(OutboxChange::Put { kept: None, rows }),
        }
    }

    fn note_started(&mut self, run: RunId, event: &Event) {
        let rows = self.rows_of(event);
        self.hooks.pending.push(OutboxChange::Started {
            epoch: run.epoch,
            n: run.n,
            rows,
        });
    }

    /// What is put with a death that is being settled; none: there are no webhooks.
    pub fn told_with(&mut self, run: RunId) -> Option<Vec<OutboxRow>> {
        (!self.hooks.list.is_empty()).then(|| self.hooks.with_death.remove(&run).unwrap_or_default())
    }

    /// A death whose decision was lost with the daemon that made it is told as the history has it.
    pub fn tell_unexplained(&mut self, slot: &Slot, settled: &mut Settled) {
        if self.hooks.list.is_empty() {
            return;
        }
        let row = &settled.row;
        let run = RunId {
            epoch: row.epoch,
            n: row.n,
        };
        let mut data = vec![("cause", row.cause.clone())];
        match row.status.as_deref().and_then(crate::settle::parse_status) {
            Some(gaffer_core::io::Status::Code(code)) => data.push(("code", code.to_string())),
            Some(gaffer_core::io::Status::Signal(signal, _)) => {
                let name = gaffer_core::signal::short(signal);
                data.push(("signal", name.map_or_else(|| signal.to_string(), str::to_owned)));
            }
            _ => {}
        }
        data.extend(row.pid.map(|pid| ("pid", pid.to_string())));
        let event = Event {
            event: "run.exited",
            job: Some(slot.job.clone()),
            slot: Some(slot.clone()),
            run: Some(run),
            by: None,
            reason: Some(gaffer_core::io::Reason {
                code: crate::settle::static_code(&row.reason_code),
                text: row.reason.as_str().into(),
            }),
            data,
        };
        settled.tell = Some(self.rows_of(&event));
    }

    /// Recovery: a start that is in a journal is told, if it was not before.
    pub fn note_found_start(&mut self, facts: &RunFacts) {
        if self.hooks.list.is_empty() || facts.started.is_none() {
            return;
        }
        let Ok(slot) = facts.slot.parse::<Slot>() else {
            return;
        };
        let event = Event {
            event: "run.started",
            job: Some(slot.job.clone()),
            slot: Some(slot),
            run: Some(facts.run),
            by: None,
            reason: None,
            data: vec![("pid", facts.pid.to_string())],
        };
        self.note_started(facts.run, &event);
    }

    /// What a request is going to tell, to be committed with it.
    pub(crate) fn promise(&mut self, seq: u64, effects: &[Effect]) -> Option<Change> {
        let hooks = effects.iter().find_map(|effect| match effect {
            Effect::Webhooks(list) => Some(list.clone()),
            _ => None,
        });
        let hooks = hooks.unwrap_or_else(|| self.hooks.list.clone());
        if hooks.is_empty() {
            return None;
        }
        let mut rows = Vec::new();
        for effect in effects {
            if let Some(event) = self.foreseen(effect) {
                rows.extend(self.hooks.rows(self.epoch, &event, &hooks));
            }
        }
        (!rows.is_empty()).then_some(Change::Outbox(OutboxChange::Promise { seq, rows }))
    }

    fn foreseen(&self, effect: &Effect) -> Option<Event> {
        match effect {
            Effect::Put {
                job,
                loaded,
                wish,
                by,
                ..
            } => match self.jobs.get(job) {
                None => {
                    let mut event = event_of("job.added", job, by);
                    if wish.state == WishState::Running {
                        event.data.push(("wish", "running".to_owned()));
                    }
                    Some(event)
                }
                Some(meta) if meta.spec != loaded.spec => Some(event_of("job.changed", job, by)),
                Some(_) => None,
            },
            Effect::Feed(Input::Wished {
                job,
                instance: None,
                wish,
                by,
                ..
            }) => match wish.state {
                WishState::Running => Some(event_of("job.started", job, by)),
                WishState::Stopped => Some(event_of("job.stopped", job, by)),
                WishState::Paused => None,
            },
            Effect::Retire { job, by } => Some(event_of("job.removed", job, by)),
            Effect::Scale { job, to, by } => Some(Event {
                data: to.map(|to| ("to", to.to_string())).into_iter().collect(),
                ..event_of("job.scaled", job, by)
            }),
            Effect::Applied { file, by } => Some(Event {
                event: "config.applied",
                job: None,
                slot: None,
                run: None,
                by: Some(by.clone()),
                reason: None,
                data: vec![("file", file.clone())],
            }),
            _ => None,
        }
    }

    /// From here on events are those of a request.
    pub fn begin_request(&mut self) {
        self.hooks.captured = Some(Vec::new());
    }

    /// What the request told takes the place of what was promised.
    pub fn end_request(&mut self, seq: u64) {
        let rows = self.hooks.captured.take().unwrap_or_default();
        if !self.hooks.list.is_empty() {
            self.hooks.pending.push(OutboxChange::Put {
                kept: Some(seq),
                rows,
            });
        }
    }

    /// The webhooks are these now.
    pub fn set_hooks(&mut self, list: Arc<Vec<Hook>>) {
        let first = self.hooks.list.is_empty() && !list.is_empty();
        self.hooks.list = list;
        if first {
            // What runs already has started before anybody listened.
            let started = self.runs.runs.values().filter(|facts| facts.started.is_some());
            let told: Vec<OutboxChange> = started
                .map(|facts| OutboxChange::Started {
                    epoch: facts.run.epoch,
                    n: facts.run.n,
                    rows: Vec::new(),
                })
                .collect();
            self.hooks.pending.extend(told);
        }
        self.hooks.changed.send_modify(|n| *n += 1);
    }

    /// Hands this turn's events to the store; before the deaths of the turn.
    pub fn flush_hooks(&mut self) {
        if !self.hooks.pending.is_empty() {
            let pending = std::mem::take(&mut self.hooks.pending);
            self.store
                .upkeep(pending.into_iter().map(Change::Outbox).collect());
        }
    }

    /// Which webhooks applying a file adds, changes and removes.
    pub(crate) fn hook_changes(&self, file: &str, webhooks: &[Webhook]) -> Vec<HookChange> {
        let change = |action, webhook: &Webhook| HookChange {
            action,
            session: webhook.session.to_string(),
            name: webhook.name.to_string(),
        };
        let there = |webhook: &Webhook| {
            self.hooks
                .list
                .iter()
                .find(|hook| hook.webhook.id() == webhook.id())
        };
        let new = webhooks.iter().filter_map(|webhook| match there(webhook) {
            None => Some(change(PlanAction::Add, webhook)),
            Some(hook) if hook.webhook != *webhook || hook.file != file => {
                Some(change(PlanAction::Change, webhook))
            }
            Some(_) => None,
        });
        let gone = |hook: &&Hook| {
            let stays = webhooks.iter().any(|new| new.id() == hook.webhook.id());
            hook.file == file && !stays
        };
        let old = self.hooks.list.iter().filter(gone);
        new.chain(old.map(|hook| change(PlanAction::Remove, &hook.webhook)))
            .collect()
    }

    /// The webhooks once a file is applied, if that changes them.
    pub(crate) fn hooks_after(&self, file: &str, webhooks: &[Webhook]) -> Option<Vec<Hook>> {
        if self.hook_changes(file, webhooks).is_empty() {
            return None;
        }
        let new = |webhook: &Webhook| Hook {
            webhook: webhook.clone(),
            file: file.to_owned(),
        };
        let replaced = |hook: &Hook| webhooks.iter().any(|new| new.id() == hook.webhook.id());
        let others = self.hooks.list.iter();
        let mut list: Vec<Hook> = others
            .filter(|hook| hook.file != file && !replaced(hook))
            .cloned()
            .chain(webhooks.iter().map(new))
            .collect();
        list.sort_by_key(|hook| hook.webhook.id());
        Some(list)
    }
}

impl Handle {
    /// Webhooks in force, in the order of their names.
    pub fn hooks(&self) -> Arc<Vec<Hook>> {
        lock(&self.state).hooks.list.clone()
    }

    /// Counts up whenever the webhooks change.
    pub fn hooks_changed(&self) -> watch::Receiver<u64> {
        lock(&self.state).hooks.changed.subscribe()
    }

    /// Counts up whenever something is put into the outbox.
    pub fn outbox_bell(&self) -> watch::Receiver<u64> {
        self.store.outbox_bell()
    }

    /// What is to be delivered next by a webhook (`session.name`).
    pub async fn hook_due(&self, hook: &str) -> Result<Option<Due>> {
        let row = self.store.outbox_next(hook).await;
        let row = row.map_err(|error| Error::Store(error.to_string()))?;
        Ok(row.and_then(|row| {
            Some(Due {
                n: row.n,
                attempts: row.attempts,
                event: HookEvent::from_json(&row.event)?,
            })
        }))
    }

    /// Writes down an attempt, before the next one is made.
    pub async fn hook_attempted(
        &self,
        hook: &str,
        n: u64,
        delivery: Option<Delivery>,
        fate: Fate,
    ) -> Result<()> {
        let change = Change::Outbox(OutboxChange::Attempted {
            hook: hook.to_owned(),
            n,
            delivery,
            fate,
        });
        self.store.upkeep(vec![change]);
        // A read waits for the writes before it.
        let written = self.store.check_written().await;
        written.map_err(|error| Error::Store(error.to_string()))
    }

    /// Newest attempts first.
    pub async fn hook_deliveries(&self, hook: &str, limit: usize) -> Result<Vec<Delivery>> {
        let deliveries = self.store.hook_deliveries(hook, limit).await;
        deliveries.map_err(|error| Error::Store(error.to_string()))
    }

    /// Totals of a webhook.
    pub async fn hook_counts(&self, hook: &str) -> Result<HookCounts> {
        let counts = self.store.hook_counts(hook).await;
        counts.map_err(|error| Error::Store(error.to_string()))
    }

    /// A number for an event that is in no outbox.
    pub fn hook_test_id(&self) -> String {
        let mut state = lock(&self.state);
        state.hooks.newest += 1;
        format!("{}.{}", state.epoch, state.hooks.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_is_any_text_and_matches_whole_names() {
        assert!(glob("shop.*", "shop.web") && glob("*.web", "shop.web") && glob("s*w*b", "shop.web"));
        assert!(
            !glob("shop.web", "shop.web.2") && !glob("shop.*", "shopping.web") && !glob("*.we", "shop.web")
        );
    }

    #[test]
    fn targets_are_of_the_session_unless_they_name_one() {
        let event = event_of(
            "job.started",
            &JobId::parse("shop.web").expect("name"),
            &"ana".into(),
        );
        for pattern in ["*", "web", "shop.web", "shop.", "shop.*", "shop/web", "*.web"] {
            assert!(is_target(pattern, "shop", &event), "{pattern}");
        }
        for pattern in ["we", "web.1", "other.*", "other.web"] {
            assert!(!is_target(pattern, "shop", &event), "{pattern}");
        }
        assert!(!is_target("web", "other", &event));
    }

    #[test]
    fn an_event_survives_the_store() {
        let event = Event {
            reason: Some(gaffer_core::io::Reason {
                code: "exit",
                text: "exit 1".into(),
            }),
            data: vec![("code", "1".to_owned())],
            ..event_of(
                "run.exited",
                &JobId::parse("shop.web").expect("name"),
                &"ana".into(),
            )
        };
        let event = HookEvent::of(&event, "3.7".to_owned());
        assert_eq!(HookEvent::from_json(&event.to_json()), Some(event));
    }
}
