//! A schedule: `[schedule.X]`, from its table to what the core and the calendar need, and the same as JSON.
//!
//! With `cmd` the schedule is also a task of one step, of its own name, which it starts: everything that a task has, a scheduled
//! command has too.

use crate::calendar::Calendar;
use crate::check::{Checked, lengthen};
use crate::config::{Origin, origin};
use crate::defs::ScheduleDef;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::keys_schedule::schedule_keys;
use crate::kind;
use crate::node::{Item, Node, Span, Table};
use crate::report::Report;
use crate::template::substitute;
use gaffer_core::name::{JobId, JobName, Name};
use gaffer_core::schedule::{Does, JobAction, Missed, Overlap, Schedule};
use gaffer_core::time::{Duration, Wall};
use jiff::tz::TimeZone;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A schedule: what it means, and what was typed.
#[derive(Clone, Debug)]
pub struct LoadedSchedule {
    /// Session and name.
    pub id: JobId,
    /// For the core.
    pub spec: Arc<Schedule>,
    /// When it ticks.
    pub calendar: Arc<Calendar>,
    /// The keys of `[schedule.X]`: what is kept, and what the API shows. [`load_schedule_json`] reads it back.
    pub typed: Value,
    /// Where it is written; none for one made without a file.
    pub origin: Option<Origin>,
    /// Of its header.
    span: Span,
}

impl LoadedSchedule {
    /// A text or payload with `{{tick}}` and `{{tick.date}}` filled in.
    ///
    /// # Errors
    ///
    /// It names something else.
    pub fn fill(&self, text: &str, tick: Wall) -> Result<String, String> {
        fill(&self.calendar, text, tick)
    }
}

fn fill(calendar: &Calendar, text: &str, tick: Wall) -> Result<String, String> {
    let value = |name: &str| match name {
        "tick" => {
            let at = jiff::Timestamp::from_millisecond(tick.0).ok()?;
            Some(Ok(at.to_string()))
        }
        "tick.date" => Some(Ok(calendar.day(tick))),
        other => Some(Err(format!("there is no {{{{{other}}}}}"))),
    };
    substitute(text, true, &value)
}

/// One schedule from JSON with the keys of `[schedule.X]`: what was kept.
pub fn load_schedule_json(session: &str, name: &str, json: &Value) -> Result<LoadedSchedule, Diagnostics> {
    let mut report = Report::new(Path::new("/"));
    let Item::Table(table) = Node::from_json(json).item else {
        return Err(Diagnostic::error("a schedule is an object with the keys of [schedule.X]").into());
    };
    let def = ScheduleDef {
        name: name.to_owned(),
        session: session.to_owned(),
        span: Span::NONE,
        table,
    };
    match resolve(def, &mut report) {
        Some(mut loaded) if !report.has_errors() => {
            loaded.origin = None;
            Ok(loaded)
        }
        _ => Err(report.finish()),
    }
}

/// Known keys with values of the right kind, short forms made long.
pub(crate) fn check(table: &mut Table, path: &str, name: &str, report: &mut Report) {
    Checked {
        keys: schedule_keys(),
        path: &format!("{path}schedule.{name}."),
        what: &format!("schedule `{name}`"),
        without: None,
        written: false,
    }
    .check(table, report);
    lengthen(schedule_keys(), table);
}

/// Gives a checked table its meaning.
pub(crate) fn resolve(def: ScheduleDef, report: &mut Report) -> Option<LoadedSchedule> {
    let path = format!("schedule.{}", def.name);
    let name = Name::parse(&def.name).map_err(|error| error.to_string());
    let name = name.and_then(|name| JobName::parse(name.as_str()).map_err(|error| error.to_string()));
    let session = Name::parse(&def.session).map_err(|error| error.to_string());
    let (Ok(session), Ok(name)) = (&session, &name) else {
        for error in [session.err(), name.err()].into_iter().flatten() {
            report.error(def.span, &path, error, "");
        }
        return None;
    };
    let mut values = Values {
        table: &def.table,
        path: &path,
        span: def.span,
        session,
        report,
    };
    let calendar = values.calendar()?;
    let does = values.does(&calendar)?;
    if values.word("once_per") == Some("fleet") && !matches!(does, Does::Push { .. }) {
        let message = "`once_per = \"fleet\"` is for schedules that push to a queue: whichever node is free works on the task";
        values.error(
            "once_per",
            message.to_owned(),
            "write `queue = NAME`; `[queue.NAME]` may have `task = NAME`",
        );
    }
    let spec = values.spec(does);
    let sorted: BTreeMap<String, Value> = def
        .table
        .iter()
        .filter(|(key, _)| !["session", "profiles"].contains(key))
        .map(|(key, entry)| (key.to_owned(), entry.node.to_json()))
        .collect();
    Some(LoadedSchedule {
        id: JobId::new(session.clone(), name.clone()),
        spec: Arc::new(spec),
        calendar: Arc::new(calendar),
        typed: Value::Object(sorted.into_iter().collect()),
        origin: Some(origin(report, def.span)),
        span: def.span,
    })
}

struct Values<'a> {
    table: &'a Table,
    path: &'a str,
    span: Span,
    session: &'a Name,
    report: &'a mut Report,
}

impl Values<'_> {
    fn word(&self, key: &str) -> Option<&str> {
        self.table.get(key).and_then(Node::as_str)
    }

    fn duration(&self, key: &str) -> Option<Duration> {
        self.table.get(key).and_then(|node| kind::duration(node).ok())
    }

    fn error(&mut self, key: &str, message: impl Into<String>, help: &str) {
        let span = self.table.get(key).map_or(self.span, |node| node.span);
        self.report
            .error(span, &format!("{}.{key}", self.path), message, help);
    }

    /// Exactly one of these keys; the error says which there are.
    fn one_of(&mut self, keys: &[&'static str], what: &str, help: &str) -> Option<&'static str> {
        let given: Vec<&'static str> = keys
            .iter()
            .copied()
            .filter(|key| self.table.get(key).is_some())
            .collect();
        match given[..] {
            [one] => Some(one),
            [] => {
                let message = format!("a schedule needs {what}");
                self.report.error(self.span, self.path, message, help);
                None
            }
            [_, second, ..] => {
                let message = format!("`{}`: a schedule has one {what}", given.join("` and `"));
                self.error(second, message, "leave the other out, or write two schedules");
                None
            }
        }
    }

    fn calendar(&mut self) -> Option<Calendar> {
        let help = "cron = \"30 3 * * *\", every = \"15m\", or at = \"2026-12-24T18:00:00Z\"";
        let rule = self.one_of(&["cron", "every", "at"], "`cron`, `every` or `at`", help)?;
        let zone = match self.word("zone").map(Calendar::zone) {
            None => TimeZone::UTC,
            Some(Ok(zone)) => zone,
            Some(Err(why)) => {
                let name = self.word("zone").unwrap_or_default();
                self.error("zone", format!("there is no time zone `{name}`"), &why);
                return None;
            }
        };
        let calendar = match rule {
            "every" => Calendar::every(self.duration("every")?, zone),
            "at" => Calendar::at(self.word("at")?, zone),
            _ => Calendar::cron(self.word("cron")?, zone),
        };
        let help = match rule {
            "every" => "every = \"15m\"",
            "at" => "at = \"2026-12-24T18:00:00Z\", or \"2026-12-24T18:00\" in `zone`",
            _ => "minute hour day month weekday: \"30 3 * * *\", \"0 9 * * MON-FRI\", \"@daily\"",
        };
        calendar
            .map_err(|why| self.error(rule, format!("`{rule}` cannot be understood: {why}"), help))
            .ok()
    }

    fn target(&mut self, key: &'static str) -> Option<JobId> {
        let id = JobId::parse_in(self.word(key)?, self.session);
        id.map_err(|error| self.error(key, error.to_string(), "")).ok()
    }

    fn does(&mut self, calendar: &Calendar) -> Option<Does> {
        let help = "task = \"NAME\", queue = \"NAME\", job = \"NAME\", or cmd = \"…\"";
        let what = self.one_of(&["task", "queue", "job"], "`task`, `queue`, `job` or `cmd`", help)?;
        for (key, of) in [
            ("params", "task"),
            ("kind", "queue"),
            ("payload", "queue"),
            ("action", "job"),
        ] {
            if self.table.get(key).is_some() && of != what {
                self.error(
                    key,
                    format!("`{key}` belongs to `{of}`; this one has `{what}`"),
                    "leave it out",
                );
            }
        }
        Some(match what {
            "task" => Does::Task {
                task: self.target("task")?,
                params: self.params(calendar),
            },
            "queue" => Does::Push {
                queue: self.target("queue")?,
                kind: self.word("kind").map(Into::into),
                payload: self.payload(calendar),
            },
            _ => Does::Job {
                job: self.target("job")?,
                action: match self.word("action") {
                    Some("reload") => JobAction::Reload,
                    Some("start") => JobAction::Start,
                    Some("stop") => JobAction::Stop,
                    Some("run") => JobAction::Run,
                    _ => JobAction::Restart,
                },
            },
        })
    }

    fn params(&mut self, calendar: &Calendar) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let table = self.table.get_table("params");
        for (name, entry) in table.into_iter().flat_map(Table::iter) {
            let Some(text) = kind::scalar(&entry.node) else {
                continue;
            };
            self.check_template("params", calendar, &text);
            all.insert(name.to_owned(), text);
        }
        all
    }

    fn payload(&mut self, calendar: &Calendar) -> Arc<str> {
        let Some(node) = self.table.get("payload") else {
            return "null".into();
        };
        let payload = node.to_json().to_string();
        self.check_template("payload", calendar, &payload);
        payload.into()
    }

    fn check_template(&mut self, key: &str, calendar: &Calendar, text: &str) {
        if let Err(why) = fill(calendar, text, Wall(0)) {
            let help = "there are {{tick}} and {{tick.date}}";
            self.error(key, format!("`{key}` cannot be filled in: {why}"), help);
        }
    }

    fn spec(&self, does: Does) -> Schedule {
        let most = self.table.get("missed_max");
        let most = most.and_then(|node| kind::int(node, 1, 10_000).ok());
        Schedule {
            does,
            missed: match self.word("missed") {
                Some("last") => Missed::Last,
                Some("all") => Missed::All,
                _ => Missed::Skip,
            },
            missed_max: most.and_then(|most| u32::try_from(most).ok()).unwrap_or(100),
            overlap: match self.word("overlap") {
                Some("allow") => Overlap::Allow,
                Some("queue") => Overlap::Queue,
                Some("replace") => Overlap::Replace,
                _ => Overlap::Skip,
            },
            jitter: self.duration("jitter").unwrap_or_default(),
            fleet: self.word("once_per") == Some("fleet"),
            start: self.table.get("start").and_then(Node::as_bool) != Some(false),
        }
    }
}

/// A target of the schedule's own session that no file here defines is most likely a slip: it would be noticed when the first tick comes.
pub(crate) fn check_targets<J, T, Q>(
    schedules: &BTreeMap<JobId, LoadedSchedule>,
    jobs: &BTreeMap<JobId, J>,
    tasks: &BTreeMap<JobId, T>,
    queues: &BTreeMap<JobId, Q>,
    report: &mut Report,
) {
    for schedule in schedules.values() {
        let (kind, target, known) = match &schedule.spec.does {
            Does::Push { queue, .. } => ("queue", queue, queues.contains_key(queue)),
            Does::Task { task, .. } => ("task", task, tasks.contains_key(task)),
            Does::Job { job, .. } => ("job", job, jobs.contains_key(job)),
        };
        if target.session == schedule.id.session && !known {
            let path = format!("schedule.{}.{kind}", schedule.id.job);
            let message = format!("there is no {kind} `{}` in these files", target.job);
            let help = "every tick is given up while there is none";
            report.warning(schedule.span, &path, message, help);
        }
    }
}

/// The task that a schedule with `cmd` stands for: what its table has of a step, which leaves the table.
pub(crate) fn take_command(name: &str, table: &mut Table, report: &mut Report) -> Option<Table> {
    table.get("cmd")?;
    for key in ["task", "queue", "job", "params"] {
        if let Some(node) = table.get(key) {
            let message = format!("`cmd` and `{key}`: a schedule does one thing");
            let path = format!("schedule.{name}.{key}");
            report.error(node.span, &path, message, "leave one of them out");
        }
    }
    let mut task = table.clone();
    task.0
        .retain(|key, _| !crate::keys_schedule::is_schedule_only(key));
    table
        .0
        .retain(|key, _| crate::keys_schedule::is_schedule_only(key));
    let span = task.get("cmd").map_or(Span::NONE, |node| node.span);
    table.put("task", Node::str(name, span));
    Some(task)
}
