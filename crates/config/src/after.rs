//! `after` of jobs and tasks: names become jobs and tasks, circles are refused.
//!
//! A name is a job or a task of the own session, else `session.name`; what is both is written `task:x` when the task is meant. A job is
//! waited for until it is `ready`, a task until it is `done`, where nothing else is said.

use crate::node::{Item, Span, Table};
use crate::report::Report;
use gaffer_core::job::{After, Condition};
use gaffer_core::name::{JobId, JobName};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// In front of the name of a task.
const TASK: &str = "task:";

/// A name in `after`, not yet looked up.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub name: String,
    /// None: what is usual.
    pub condition: Option<Condition>,
    pub span: Span,
}

/// What is waited for, and who waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum On {
    Job(JobId),
    Task(JobId),
}

impl On {
    fn id(&self) -> &JobId {
        match self {
            On::Job(id) | On::Task(id) => id,
        }
    }

    fn who(&self) -> Who<'_> {
        match self {
            On::Job(id) => Who { kind: "job", id },
            On::Task(id) => Who { kind: "task", id },
        }
    }

    fn usual(&self) -> Condition {
        match self {
            On::Job(_) => Condition::Ready,
            On::Task(_) => Condition::Done,
        }
    }
}

/// Who waits, for messages.
pub(crate) struct Who<'a> {
    pub kind: &'static str,
    pub id: &'a JobId,
}

impl Who<'_> {
    fn path(&self) -> String {
        format!("{}.{}.after", self.kind, self.id.job)
    }
}

type Found = BTreeMap<On, (Condition, Span)>;
type Waits<'a> = BTreeMap<&'a JobId, &'a [Wait]>;

/// `after` of an object.
pub(crate) fn waits(table: &Table) -> Vec<Wait> {
    let condition = |word: Option<&str>| match word {
        Some("started") => Some(Condition::Started),
        Some("ready") => Some(Condition::Ready),
        Some("done") => Some(Condition::Done),
        Some("ended") => Some(Condition::Ended),
        _ => None,
    };
    let Some(node) = table.get("after") else {
        return Vec::new();
    };
    match &node.item {
        Item::Table(table) => {
            let all = table.in_order().into_iter();
            let wait = |(name, entry): (&str, &crate::node::Entry)| Wait {
                name: name.to_owned(),
                condition: condition(entry.node.as_str()),
                span: entry.key,
            };
            all.map(wait).collect()
        }
        Item::List(_) => {
            let names = node.texts().into_iter();
            let wait = |(name, span): (&str, Span)| Wait {
                name: name.to_owned(),
                condition: None,
                span,
            };
            names.map(wait).collect()
        }
        _ => Vec::new(),
    }
}

/// All `after` of some files: what each name means, and for what of it.
pub(crate) fn resolve(
    jobs: Waits<'_>,
    tasks: Waits<'_>,
    endless: &BTreeSet<JobId>,
    report: &mut Report,
) -> BTreeMap<On, Found> {
    let names = Names {
        jobs: jobs.keys().copied().collect(),
        tasks: tasks.keys().copied().collect(),
    };
    let of_jobs = jobs.into_iter().map(|(id, waits)| (On::Job(id.clone()), waits));
    let of_tasks = tasks.into_iter().map(|(id, waits)| (On::Task(id.clone()), waits));
    let mut all = BTreeMap::new();
    for (on, waits) in of_jobs.chain(of_tasks) {
        let who = on.who();
        let mut found = Found::new();
        for wait in waits {
            match names.lookup(&who, wait) {
                Ok(other) => {
                    if let Some(condition) = condition(&who, wait, &other, report) {
                        found.insert(other, (condition, wait.span));
                    }
                }
                Err((message, help)) => report.error(wait.span, &who.path(), message, &help),
            }
        }
        for (other, (condition, span)) in &found {
            let ends = !matches!(other, On::Job(job) if endless.contains(job));
            if matches!(condition, Condition::Done | Condition::Ended) && !ends {
                let message = format!(
                    "{} `{}` waits for `{}` to end, which is always restarted",
                    who.kind,
                    who.id.job,
                    other.id().job
                );
                report.error(*span, &who.path(), message, "give it restart = \"on-failure\"");
            }
        }
        all.insert(on, found);
    }
    refuse_circle(&all, report);
    all
}

/// Names as they are: which jobs and tasks there are is known to the engine only.
pub(crate) fn as_written(who: &Who<'_>, waits: &[Wait], report: &mut Report) -> Found {
    let mut found = Found::new();
    for wait in waits {
        let (name, task) = match wait.name.strip_prefix(TASK) {
            Some(name) => (name, true),
            None => (&wait.name[..], false),
        };
        let id = match JobId::parse_in(name, &who.id.session) {
            Ok(id) => id,
            Err(error) => {
                report.error(Span::NONE, &who.path(), error.to_string(), "");
                continue;
            }
        };
        let other = if task { On::Task(id) } else { On::Job(id) };
        if other.who().kind == who.kind && other.id() == who.id {
            let message = format!("{} `{}` waits for itself", who.kind, who.id.job);
            report.error(Span::NONE, &who.path(), message, "");
        } else if let Some(condition) = condition(who, wait, &other, report) {
            found.insert(other, (condition, Span::NONE));
        }
    }
    found
}

fn condition(who: &Who<'_>, wait: &Wait, other: &On, report: &mut Report) -> Option<Condition> {
    let condition = wait.condition.unwrap_or(other.usual());
    if matches!(other, On::Task(_)) && matches!(condition, Condition::Started | Condition::Ready) {
        let message = format!(
            "{} `{}` waits for task `{}`",
            who.kind,
            who.id.job,
            other.id().job
        );
        let message = format!("{message} to be ready, which a task never is");
        report.error(wait.span, &who.path(), message, "write \"done\" or \"ended\"");
        return None;
    }
    Some(condition)
}

struct Names<'a> {
    jobs: BTreeSet<&'a JobId>,
    tasks: BTreeSet<&'a JobId>,
}

impl Names<'_> {
    fn lookup(&self, who: &Who<'_>, wait: &Wait) -> Result<On, (String, String)> {
        if let Some(name) = wait.name.strip_prefix(TASK) {
            let found = find(name, who, &self.tasks).map(On::Task);
            return found.ok_or_else(|| self.missing(who, wait));
        }
        let job = find(&wait.name, who, &self.jobs);
        let task = find(&wait.name, who, &self.tasks);
        match (job, task) {
            (Some(job), Some(task)) => match (self.jobs.contains(&job), self.tasks.contains(&task)) {
                (true, true) => Err((
                    format!("`{}` is a job and a task", wait.name),
                    format!(
                        "write \"{TASK}{}\" for the task, or give one of them another name",
                        wait.name
                    ),
                )),
                (false, true) => Ok(On::Task(task)),
                // A session that is not in these files may be known to the daemon.
                (_, false) => Ok(On::Job(job)),
            },
            (Some(job), None) => Ok(On::Job(job)),
            (None, Some(task)) => Ok(On::Task(task)),
            (None, None) => Err(self.missing(who, wait)),
        }
    }

    fn missing(&self, who: &Who<'_>, wait: &Wait) -> (String, String) {
        let message = format!(
            "{} `{}` waits for `{}`, which does not exist",
            who.kind, who.id.job, wait.name
        );
        let bare = wait.name.strip_prefix(TASK).unwrap_or(&wait.name);
        let own = |ids: &BTreeSet<&JobId>, kind: &str| -> Vec<String> {
            let others = ids.iter().filter(|other| other.session == who.id.session);
            let others = others.filter(|other| kind != who.kind || **other != who.id);
            others.map(|other| other.job.to_string()).collect()
        };
        let (jobs, tasks) = (own(&self.jobs, "job"), own(&self.tasks, "task"));
        let all = jobs.iter().chain(&tasks).map(String::as_str);
        let help = match crate::suggest::nearest(bare, all) {
            Some(near) if jobs.iter().any(|job| job == near) => format!("did you mean `{near}`?"),
            Some(near) => format!("did you mean task `{near}`?"),
            None => {
                let mut elsewhere = self.jobs.iter().chain(&self.tasks);
                let elsewhere = elsewhere.find(|other| other.job.as_str() == bare);
                elsewhere
                    .map(|other| format!("did you mean `{other}`?"))
                    .unwrap_or_default()
            }
        };
        (message, help)
    }
}

/// One of the own session, else `session.name`.
fn find(name: &str, who: &Who<'_>, ids: &BTreeSet<&JobId>) -> Option<JobId> {
    if let Ok(name) = JobName::parse(name) {
        let own = JobId::new(who.id.session.clone(), name);
        if ids.contains(&own) {
            return Some(own);
        }
    }
    let other = JobId::parse(name).ok().filter(|_| name.contains('.'))?;
    // A session that is not in these files may be known to the daemon.
    let known = ids.contains(&other) || !ids.iter().any(|id| id.session == other.session);
    known.then_some(other)
}

/// Tasks that are waited for by a job, or by a task that starts by itself.
pub(crate) fn named(all: &BTreeMap<On, Found>, starts: impl Fn(&JobId) -> bool) -> BTreeSet<JobId> {
    let begun = all.keys().filter(|who| match who {
        On::Job(_) => true,
        On::Task(task) => starts(task),
    });
    let mut open: Vec<&On> = begun.collect();
    let mut named = BTreeSet::new();
    while let Some(who) = open.pop() {
        for on in all.get(who).into_iter().flat_map(BTreeMap::keys) {
            if let On::Task(task) = on
                && named.insert(task.clone())
            {
                open.push(on);
            }
        }
    }
    named
}

/// Jobs and tasks apart.
pub(crate) fn split(found: &Found) -> (After, After) {
    let (mut jobs, mut tasks) = (After::new(), After::new());
    for (on, (condition, _)) in found {
        match on {
            On::Job(id) => drop(jobs.insert(id.clone(), *condition)),
            On::Task(id) => drop(tasks.insert(id.clone(), *condition)),
        }
    }
    (jobs, tasks)
}

/// `after` with names that mean the same without the file: `b.c` is a job of session `b` there.
pub(crate) fn typed(id: &JobId, found: &Found) -> Value {
    let name = |on: &On| {
        let other = on.id();
        let name = match other.session == id.session && !other.job.as_str().contains('.') {
            true => other.job.to_string(),
            false => other.to_string(),
        };
        match on {
            On::Job(_) => name,
            On::Task(_) => format!("{TASK}{name}"),
        }
    };
    let word = |condition: &Condition| match condition {
        Condition::Started => "started",
        Condition::Ready => "ready",
        Condition::Done => "done",
        Condition::Ended => "ended",
    };
    if found.iter().all(|(on, (condition, _))| *condition == on.usual()) {
        return found.keys().map(name).collect();
    }
    let pairs: BTreeMap<String, &str> = found
        .iter()
        .map(|(on, (condition, _))| (name(on), word(condition)))
        .collect();
    json!(pairs)
}

fn refuse_circle(all: &BTreeMap<On, Found>, report: &mut Report) {
    let Some(circle) = circle(all) else { return };
    let (first, next) = (&circle[0], &circle[1]);
    let span = all.get(first).and_then(|after| after.get(next));
    let span = span.map_or(Span::NONE, |(_, span)| *span);
    let names: Vec<String> = circle.iter().map(|on| format!("`{}`", on.id().job)).collect();
    let kinds = match circle.iter().any(|on| matches!(on, On::Task(_))) {
        true => "jobs and tasks",
        false => "jobs",
    };
    let message = format!("{kinds} wait for each other in a circle: {}", names.join(" → "));
    report.error(
        span,
        &first.who().path(),
        message,
        "one of them has to start first",
    );
}

/// A circle in the graph, its first one repeated at the end. Iterative: files may be long.
fn circle(all: &BTreeMap<On, Found>) -> Option<Vec<On>> {
    let mut done: BTreeSet<&On> = BTreeSet::new();
    for start in all.keys() {
        let mut path: Vec<&On> = vec![start];
        let mut on_path: BTreeSet<&On> = BTreeSet::from([start]);
        let mut iters = vec![all[start].keys()];
        while let Some(iter) = iters.last_mut() {
            let Some(next) = iter.next() else {
                iters.pop();
                if let Some(id) = path.pop() {
                    on_path.remove(id);
                    done.insert(id);
                }
                continue;
            };
            if on_path.contains(next) {
                let at = path.iter().position(|id| *id == next)?;
                return Some(path[at..].iter().copied().chain([next]).cloned().collect());
            }
            if let Some((next, after)) = all.get_key_value(next)
                && !done.contains(next)
            {
                path.push(next);
                on_path.insert(next);
                iters.push(after.keys());
            }
        }
    }
    None
}
