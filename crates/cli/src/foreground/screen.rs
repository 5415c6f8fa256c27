//! The lines of a foreground session: time, name, sign, text.

use crate::context::Context;
use crate::escape;
use crate::failure::Failure;
use crate::file::count;
use crate::out::Out;
use crate::paint::{Role, state};
use crate::when;
use gaffer_api::types::{Event, Instance, Job, LogLine};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest name that all lines make room for.
const NAME_MAX: usize = 24;

/// An event arrives at most so long after what it tells can be seen.
pub const EVENT_WITHIN: Duration = Duration::from_millis(500);

/// Prints them.
pub struct Screen<'a> {
    ctx: &'a Context,
    /// The session; its name is left out.
    pub session: String,
    width: usize,
    /// What was said last about each instance: no state is told twice.
    told: BTreeMap<String, String>,
    /// Ends that were seen before their event came, and since when.
    early: BTreeMap<String, Instant>,
}

impl<'a> Screen<'a> {
    /// For the jobs of a session.
    pub fn new(ctx: &'a Context, session: &str, jobs: impl Iterator<Item = String>) -> Screen<'a> {
        let longest = jobs.map(|job| job.chars().count() + 2).max().unwrap_or(0);
        Screen {
            ctx,
            session: session.to_owned(),
            width: longest.clamp(8, NAME_MAX),
            told: BTreeMap::new(),
            early: BTreeMap::new(),
        }
    }

    /// Where it prints.
    pub fn out(&self) -> &Out {
        &self.ctx.out
    }

    /// `shop · gaffer.toml · private daemon                Ctrl-C stops all`.
    pub fn header(&self, file: &str, profiles: &[String]) -> Result<(), Failure> {
        if self.ctx.globals.quiet {
            return Ok(());
        }
        let profile = if profiles.is_empty() {
            String::new()
        } else {
            format!(" · profile {}", profiles.join(", "))
        };
        let left = format!("{} · {file}{profile} · private daemon", self.session);
        let right = if self.ctx.out.terminal {
            "Ctrl-C stops all"
        } else {
            ""
        };
        let width = self.ctx.out.width().unwrap_or(80).min(80);
        let pad = width
            .saturating_sub(left.chars().count() + right.chars().count())
            .max(2);
        self.ctx.out.line(
            self.ctx
                .out
                .dim(&format!("{left}{}{right}", " ".repeat(pad)))
                .trim_end(),
        )
    }

    /// Name of a subject, without the session.
    pub fn name(&self, subject: &str) -> String {
        subject
            .strip_prefix(self.session.as_str())
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or(subject)
            .to_owned()
    }

    /// Whether a start of this instance has been told, and no end of it.
    pub fn lives(&self, subject: &str) -> bool {
        let told = self.told.get(&self.name(subject));
        told.is_some_and(|told| told.starts_with("starting") || told.starts_with("running"))
    }

    /// A line that a program wrote.
    pub fn line(&self, line: &LogLine) -> Result<(), Failure> {
        let time = when::clock(&line.time);
        self.text(&time, &self.name(&line.subject), &line.stream, &line.text)
    }

    /// A line of one of the streams of something.
    pub fn text(&self, time: &str, name: &str, stream: &str, text: &str) -> Result<(), Failure> {
        let (sign, role) = match stream {
            "stderr" => ("!", Role::Bad),
            "gap" => ("─", Role::Warn),
            "event" => ("─", Role::Dim),
            _ => ("|", Role::Dim),
        };
        let text = escape::line(text);
        self.put(time, name, &self.ctx.out.paint.role(role, sign), &text)
    }

    /// What happened, where it is worth a line. `now` is the instance, if it is still about this run: an event tells
    /// what happened, the instance what has come of it.
    pub fn event(&mut self, event: &Event, now: Option<&Instance>) -> Result<(), Failure> {
        if !event.subject.starts_with(&format!("{}.", self.session)) {
            return Ok(());
        }
        let name = self.name(&event.subject);
        let reason = event
            .reason
            .as_ref()
            .map(|reason| reason.text.clone())
            .unwrap_or_default();
        let (word, text) = match event.event.as_str() {
            "run.started" => {
                let pid = datum(event, "pid")
                    .map(|pid| format!("pid {pid}"))
                    .unwrap_or_default();
                // Without a `ready` to wait for, a run is running at once.
                let runs = now.is_some_and(|now| now.state == "running");
                (if runs { "running" } else { "starting" }, pid)
            }
            "run.ready" => ("running", ready_text(event, &reason)),
            "run.exited" => match now.filter(|now| now.state == "failed") {
                Some(now) => {
                    self.told.insert(name.clone(), shown(now));
                    return self.state(&when::clock(&event.time), &name, "failed", &now.reason);
                }
                None => (end_word(event), reason),
            },
            "run.unhealthy" => ("degraded", reason),
            "log.dropped" => ("degraded", reason),
            _ => return Ok(()),
        };
        self.told.insert(name.clone(), word.to_owned());
        self.state(&when::clock(&event.time), &name, word, &text)
    }

    /// An end is seen a moment before its event is read, and the event of its start too: they come first.
    fn is_early(&mut self, name: &str, instance: &Instance) -> bool {
        let ended = matches!(instance.state.as_str(), "exited" | "failed");
        let lives = self.told.get(name).is_none_or(|told| {
            ["waiting", "starting", "running"]
                .iter()
                .any(|word| told.starts_with(word))
        });
        if !ended || !lives {
            self.early.remove(name);
            return false;
        }
        let since = self.early.entry(name.to_owned()).or_insert_with(Instant::now);
        since.elapsed() < EVENT_WITHIN
    }

    /// Tells states that no event tells: waiting, pauses, the end for good. False: the events of some have not come yet.
    pub fn states(&mut self, jobs: &[Job]) -> Result<bool, Failure> {
        let mut all = true;
        for job in jobs {
            for instance in &job.instances {
                let name = format!("{}.{}", job.job, instance.instance);
                let now = shown(instance);
                let worth = matches!(
                    instance.state.as_str(),
                    "waiting" | "flapping" | "failed" | "exited" | "stop-stuck" | "paused"
                );
                if self.is_early(&name, instance) {
                    all = false;
                    continue;
                }
                let told = self.told.get(&name).map(String::as_str);
                if !worth || told == Some(now.as_str()) || told == Some(instance.state.as_str()) {
                    continue;
                }
                // While it waits, only who is waited for is news; how long it has taken, and how far the other one is
                // by now, is not: lines of its own tell that.
                let waits = |text: &str| text.split(": ").next().unwrap_or_default().to_owned();
                if instance.state == "waiting" && told.map(waits) == Some(waits(&now)) {
                    continue;
                }
                let mut reason = instance.reason.as_str();
                if instance.state == "waiting" {
                    reason = reason.split(": ").next().unwrap_or_default();
                    reason = reason.strip_prefix("waiting ").unwrap_or(reason);
                }
                self.state(&when::clock_now(), &name, &instance.state, reason)?;
                self.told.insert(name, now);
            }
        }
        Ok(all)
    }

    /// A line about everything.
    pub fn all(&self, word: &str, text: &str) -> Result<(), Failure> {
        self.state(&when::clock_now(), "all", word, text)
    }

    /// The last line.
    pub fn stopped(&self, jobs: &[Job], since: Option<Instant>) -> Result<(), Failure> {
        let took = since.map(|since| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        let took = took
            .map(|ms| format!(" in {}", when::duration(ms)))
            .unwrap_or_default();
        self.all("stopped", &format!("{}{took}", count(jobs.len(), "job")))
    }

    /// A line about the state of something.
    pub fn state(&self, time: &str, name: &str, word: &str, text: &str) -> Result<(), Failure> {
        if self.ctx.globals.quiet {
            return Ok(());
        }
        let (glyph, role) = state(word);
        let paint = &self.ctx.out.paint;
        let said = format!(
            "{} {} {}",
            paint.role(role, glyph),
            paint.role(role, &format!("{word:9}")),
            escape::escape(text)
        );
        self.put(time, name, said.trim_end(), "")
    }

    fn put(&self, time: &str, name: &str, sign: &str, text: &str) -> Result<(), Failure> {
        let out = &self.ctx.out;
        let pad = " ".repeat(self.width.saturating_sub(name.chars().count()));
        let name = if name == "all" {
            name.to_owned()
        } else {
            out.paint.name(name, name)
        };
        let space = if text.is_empty() { "" } else { " " };
        out.line(&format!("{} {name}{pad} {sign}{space}{text}", out.dim(time)))
    }
}

fn shown(instance: &Instance) -> String {
    format!("{} {}", instance.state, instance.reason)
}

fn datum(event: &Event, key: &str) -> Option<String> {
    event
        .data
        .get(key)
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn ready_text(event: &Event, reason: &str) -> String {
    match (reason, datum(event, "after"), datum(event, "probe")) {
        ("", Some(after), Some(probe)) => format!("ready after {after} ({probe})"),
        ("", _, Some(probe)) if !probe.is_empty() => format!("ready ({probe})"),
        (reason, _, _) => reason.to_owned(),
    }
}

/// State that an end leads to, as far as the event tells; what comes of it is told by the reason.
fn end_word(event: &Event) -> &'static str {
    let code = event
        .reason
        .as_ref()
        .map(|reason| reason.code.as_str())
        .unwrap_or_default();
    match (datum(event, "cause").as_deref(), code) {
        (Some("stopped"), _) => "stopped",
        (Some("replaced"), _) => "replaced",
        (_, "gave-up") => "failed",
        (_, "flapping") => "flapping",
        (Some("exit"), _) if exit_code(event) == 0 => "exited",
        _ => "backoff",
    }
}

/// Exit code of an end, 128 + signal.
pub fn exit_code(event: &Event) -> u8 {
    let code = datum(event, "code").and_then(|code| code.parse::<i32>().ok());
    let stopped = datum(event, "cause").is_some_and(|cause| cause == "stopped" || cause == "replaced");
    if stopped {
        0
    } else {
        crate::commands::talk::exit_code_of(code, datum(event, "signal").as_deref())
    }
}
