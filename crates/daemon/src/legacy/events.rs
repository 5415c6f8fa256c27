//! Events of the engine in the words of the old APIs.
//!
//! One event of the engine becomes several messages, in this order: the global topic, then `job.<session>.<job>.…`, then
//! `proc.<pid>.…`. A reader that keeps a cursor of the engine's log and passes each record through `translate` has them
//! in order, and is told by a `gap` of the log when it was too slow.
//!
//! What the engine does not tell apart and the original did (a stop by hand and a scale down to nothing, say) is in the
//! events' `data`: `why` a run was asked to end, `restart` of a start that is one.

use crate::legacy::names;
use gaffer::Handle;
use gaffer::info::Event;
use gaffer_core::name::{JobId, Place, RunId};
use serde_json::{Map, Value, json};

/// Whose doing a change of the count is that only follows from a start, stop or reload: it is not told on its own.
pub const IMPLIED: &str = "a start, stop or reload by an old client";

/// A message of the 0.5 API.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// `spawn`, `job.shop.web.spawn`, `proc.17.spawn`.
    pub topic: String,
    /// The job it is about.
    pub job: JobId,
    /// Last part: `spawn`.
    pub verb: &'static str,
    /// `pid`, `os_pid`, `exit_status`, … without `event` and `name`.
    pub fields: Map<String, Value>,
}

impl Message {
    /// The whole message with the full topic as `event`.
    pub fn json(&self) -> Value {
        self.json_as(&self.topic)
    }

    /// The message with another word as `event`, as relative subscriptions have it.
    pub fn json_as(&self, event: &str) -> Value {
        let mut all = Map::new();
        all.insert("event".to_owned(), event.into());
        all.insert("name".to_owned(), self.job.to_string().into());
        all.extend(self.fields.clone());
        Value::Object(all)
    }

    /// The message of the 0.4 API that this one is, if it has one there.
    pub fn old(&self) -> Option<Old> {
        let verb = match self.verb {
            "load" => "create",
            "unload" => "delete",
            "stop_process" => "stop_pid",
            verb @ ("start" | "stop" | "update" | "restart" | "spawn" | "reap" | "exit") => verb,
            _ => return None,
        };
        let name = names::old_name(&self.job);
        let topic = match self.topic.split('.').next() {
            Some("proc") => return None,
            Some("job") if matches!(verb, "create" | "delete" | "update" | "restart") => return None,
            Some("job") => format!("proc.{name}.{verb}"),
            _ => verb.to_owned(),
        };
        let mut all = Map::new();
        all.insert("event".to_owned(), topic.clone().into());
        all.insert("name".to_owned(), name.into());
        for (key, value) in self.fields.iter().filter(|(key, _)| *key != "once") {
            all.insert(key.clone(), value.clone());
        }
        if verb == "exit" {
            let status = self.fields.get("exit_status").cloned().unwrap_or(Value::Null);
            all.insert("exit_code".to_owned(), status);
        }
        Some(Old {
            topic,
            job: self.job.clone(),
            verb,
            body: all,
        })
    }
}

/// A message of the 0.4 API.
#[derive(Clone, Debug, PartialEq)]
pub struct Old {
    /// `spawn`, `proc.shop:web.spawn`.
    pub topic: String,
    /// The job it is about.
    pub job: JobId,
    /// Last part.
    pub verb: &'static str,
    /// The whole message.
    pub body: Map<String, Value>,
}

/// Which topics a listener gets: a dotted prefix of whole parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Option<String>);

impl Pattern {
    /// `.` is everything; a trailing dot counts for nothing.
    pub fn parse(text: &str) -> Pattern {
        let text = text.strip_suffix('.').unwrap_or(text);
        Pattern((!text.is_empty()).then(|| text.to_owned()))
    }

    /// `a.b` is for `a.b` and `a.b.c`, not for `a.bc`.
    pub fn matches(&self, topic: &str) -> bool {
        let Some(prefix) = &self.0 else { return true };
        let rest = topic.strip_prefix(prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// The messages that an event of the engine is, in their order, of both APIs. `pid_of` gives the small number of a run.
fn translate(event: &Event, pid_of: impl Fn(RunId) -> u64) -> Vec<Message> {
    let Some(job) = &event.job else {
        return Vec::new();
    };
    let of_job = |verbs: &[(&'static str, bool)]| of_job(job, verbs);
    let said = |key: &str| data(event, key).is_some();
    match event.event {
        "job.added" if data(event, "wish") == Some("running") => of_job(&[("load", false), ("start", true)]),
        "job.added" => of_job(&[("load", false)]),
        "job.removed" => of_job(&[("unload", false), ("stop", true)]),
        "job.started" if said("restart") => of_job(&[("restart", false)]),
        "job.started" => of_job(&[("start", true)]),
        "job.stopped" => of_job(&[("stop", true)]),
        "job.scaled" if event.by.as_deref() == Some(IMPLIED) => Vec::new(),
        "job.scaled" | "job.changed" => of_job(&[("update", false)]),
        "job.flapping" => of_job(&[("flap", false)]),
        "job.failed"
            if event
                .reason
                .as_ref()
                .is_some_and(|why| why.text.contains(" exits in a row")) =>
        {
            of_job(&[("flap", false)])
        }
        "run.started" => of_run(event, job, "spawn", &pid_of, Map::new()),
        "run.exited" if said("pid") => of_run(event, job, "exit", &pid_of, ended(event)),
        "run.signalled" if event.by.is_some() => signalled(event, job, &pid_of),
        "run.signalled" => match data(event, "why") {
            None | Some("survivors") => Vec::new(),
            Some("scale") => of_run(event, job, "reap", &pid_of, Map::new()),
            Some(_) => of_run(event, job, "stop_process", &pid_of, Map::new()),
        },
        _ => Vec::new(),
    }
}

/// The 0.5 messages of one record of the engine's log, in their order.
pub fn translated(handle: &Handle, event: &Event) -> Vec<Message> {
    let mut all = translate(event, |run| handle.pid_of(run));
    // 0.4 only.
    all.retain(|message| message.verb != "restart");
    all
}

/// The 0.4 messages of one record of the engine's log, in their order.
pub fn translated_old(handle: &Handle, event: &Event) -> Vec<Old> {
    let all = translate(event, |run| handle.pid_of(run));
    let mut old: Vec<Old> = all.iter().filter_map(Message::old).collect();
    for spawn in old.iter_mut().filter(|one| one.verb == "spawn") {
        let detached = handle.job(&spawn.job).is_some_and(|info| info.spec.keep_running);
        for key in ["detached", "detach"] {
            spawn.body.insert(key.to_owned(), detached.into());
        }
    }
    old
}

fn data<'a>(event: &'a Event, key: &str) -> Option<&'a str> {
    let found = event.data.iter().find(|(name, _)| *name == key);
    found.map(|(_, value)| value.as_str())
}

/// Global topics, with the job's own behind those that have one.
fn of_job(job: &JobId, verbs: &[(&'static str, bool)]) -> Vec<Message> {
    let mut all = Vec::new();
    for (verb, own) in verbs {
        let message = |topic: String| Message {
            topic,
            job: job.clone(),
            verb,
            fields: Map::new(),
        };
        all.push(message((*verb).to_owned()));
        if *own {
            all.push(message(format!("job.{job}.{verb}")));
        }
    }
    all
}

fn of_run(
    event: &Event,
    job: &JobId,
    verb: &'static str,
    pid_of: &dyn Fn(RunId) -> u64,
    more: Map<String, Value>,
) -> Vec<Message> {
    let Some(run) = event.run else {
        return Vec::new();
    };
    let pid = pid_of(run);
    let mut fields = Map::new();
    fields.insert("pid".to_owned(), pid.into());
    let os_pid = data(event, "pid").and_then(|pid| pid.parse::<u32>().ok());
    fields.insert("os_pid".to_owned(), json!(os_pid));
    fields.extend(more);
    [
        verb.to_owned(),
        format!("job.{job}.{verb}"),
        format!("proc.{pid}.{verb}"),
    ]
    .into_iter()
    .map(|topic| Message {
        topic,
        job: job.clone(),
        verb,
        fields: fields.clone(),
    })
    .collect()
}

fn ended(event: &Event) -> Map<String, Value> {
    let signal = data(event, "signal")
        .and_then(gaffer_core::signal::parse)
        .unwrap_or(0);
    let code = data(event, "code").and_then(|code| code.parse::<i32>().ok());
    // Nobody saw it: that is not success.
    let status = code.unwrap_or(if signal == 0 { -1 } else { 0 });
    let once = event
        .slot
        .as_ref()
        .is_some_and(|slot| matches!(slot.place, Place::OneOff(_)));
    let mut fields = Map::new();
    fields.insert("exit_status".to_owned(), status.into());
    fields.insert("term_signal".to_owned(), signal.into());
    fields.insert("once".to_owned(), once.into());
    fields
}

fn signalled(event: &Event, job: &JobId, pid_of: &dyn Fn(RunId) -> u64) -> Vec<Message> {
    let number = data(event, "signal")
        .and_then(gaffer_core::signal::parse)
        .unwrap_or(0);
    let mut fields = Map::new();
    let topic = match event.run {
        None => format!("job.{job}.kill"),
        Some(run) => {
            fields.insert("pid".to_owned(), pid_of(run).into());
            format!("proc.{}.kill", pid_of(run))
        }
    };
    fields.insert("signum".to_owned(), number.into());
    vec![Message {
        topic,
        job: job.clone(),
        verb: "kill",
        fields,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaffer_core::name::Slot;

    fn event(event: &'static str, data: &[(&'static str, &str)]) -> Event {
        let slot = Slot::parse("shop.web.1").expect("a slot");
        let of_run = event.starts_with("run.");
        Event {
            event,
            job: Some(slot.job.clone()),
            slot: of_run.then_some(slot),
            run: of_run.then_some(RunId { epoch: 1, n: 17 }),
            by: None,
            reason: None,
            data: data
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned()))
                .collect(),
        }
    }

    fn topics(event: &Event) -> Vec<String> {
        let all = translate(event, |run| run.n.into());
        all.into_iter().map(|message| message.topic).collect()
    }

    #[test]
    fn s5_1_the_global_topic_comes_first_then_the_job_then_the_process() {
        let spawn = event("run.started", &[("pid", "4711")]);
        assert_eq!(topics(&spawn), ["spawn", "job.shop.web.spawn", "proc.17.spawn"]);
        let exit = event(
            "run.exited",
            &[("cause", "signal"), ("signal", "KILL"), ("pid", "4711")],
        );
        let all = translate(&exit, |run| run.n.into());
        let wanted = json!({"event": "exit", "name": "shop.web", "pid": 17, "os_pid": 4711,
            "exit_status": 0, "term_signal": 9, "once": false});
        assert_eq!(all[0].json(), wanted);
        assert_eq!(
            topics(&event("run.signalled", &[("signal", "TERM"), ("why", "scale")]))[0],
            "reap"
        );
        assert_eq!(
            topics(&event("run.signalled", &[("signal", "TERM"), ("why", "stop")]))[0],
            "stop_process"
        );
    }

    #[test]
    fn s5_1_a_change_of_the_job_is_told_with_what_follows_from_it() {
        let added = event("job.added", &[("wish", "running")]);
        assert_eq!(topics(&added), ["load", "start", "job.shop.web.start"]);
        assert_eq!(
            topics(&event("job.removed", &[])),
            ["unload", "stop", "job.shop.web.stop"]
        );
        let mut scaled = event("job.scaled", &[]);
        assert_eq!(topics(&scaled), ["update"]);
        scaled.by = Some(IMPLIED.into());
        assert!(topics(&scaled).is_empty());
        let mut signalled = event("run.signalled", &[("signal", "HUP")]);
        signalled.by = Some("ana".into());
        assert_eq!(topics(&signalled), ["proc.17.kill"]);
    }

    #[test]
    fn s5_2_a_pattern_is_a_prefix_of_whole_parts() {
        let gets = |pattern: &str, topic: &str| Pattern::parse(pattern).matches(topic);
        assert!(gets(".", "a.b") && gets("a", "a") && gets("a.", "a.b") && gets("a.b", "a.b.c"));
        assert!(!gets("a.b", "a.bc") && !gets("a.b", "a") && !gets("b", "a.b"));
        assert_eq!(Pattern::parse("a."), Pattern::parse("a"));
    }

    #[test]
    fn s11_3_old_names_of_topics() {
        let all = translate(&event("run.exited", &[("code", "3"), ("pid", "9")]), |run| {
            run.n.into()
        });
        let old: Vec<Old> = all.iter().filter_map(Message::old).collect();
        assert_eq!(
            old.iter().map(|one| one.topic.as_str()).collect::<Vec<_>>(),
            ["exit", "proc.shop:web.exit"]
        );
        assert_eq!(
            (&old[0].body["exit_code"], &old[0].body["exit_status"]),
            (&json!(3), &json!(3))
        );
        let all = translate(&event("job.added", &[]), |_| 0);
        assert_eq!(all[0].old().map(|old| old.topic), Some("create".to_owned()));
    }
}
