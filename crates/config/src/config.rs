//! A whole configuration, resolved: what [`load`] gives back.

use crate::after::{self, On, Wait, Who};
use crate::bundle::Bundle;
use crate::check::{Checked, lengthen};
use crate::daemon::DaemonSettings;
use crate::defs::Front;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::digest::{files_digest, launch_digest};
use crate::front::front;
use crate::host::{Host, StoredHost};
use crate::keys::JOB;
use crate::merge::{Layer, Merged, Merger, is_shell, without};
use crate::node::{Item, Node, Span, Table};
use crate::queue::LoadedQueue;
use crate::report::Report;
use crate::resolve::{Resolved, Resolver, World};
use crate::schedule::LoadedSchedule;
use crate::source::Gathered;
use crate::task::LoadedTask;
use crate::webhook::Webhook;
use gaffer_core::job::{Condition, Job, Launch, Port, Restart};
use gaffer_core::name::{JobId, JobName, Name};
use gaffer_core::queue::spec::By;
use gaffer_core::schedule::Does;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that the files say, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[gaffer]`.
    pub daemon: DaemonSettings,
    /// Where `[gaffer]` is; it counts only in the daemon's own file.
    pub daemon_section: Option<Origin>,
    /// All jobs that exist under the selected profiles.
    pub jobs: BTreeMap<JobId, LoadedJob>,
    /// All tasks that exist under the selected profiles.
    pub tasks: BTreeMap<JobId, LoadedTask>,
    /// All queues that exist under the selected profiles.
    pub queues: BTreeMap<JobId, LoadedQueue>,
    /// All schedules that exist under the selected profiles.
    pub schedules: BTreeMap<JobId, LoadedSchedule>,
    /// All webhooks.
    pub webhooks: Vec<Webhook>,
    /// Names of `[vars]`.
    pub vars: BTreeSet<String>,
    /// `session` of the file.
    pub session: Name,
    /// What is odd but works.
    pub warnings: Vec<Diagnostic>,
    /// The first file, absolute.
    pub file: PathBuf,
}

impl Config {
    /// Tasks that a schedule or a queue starts.
    pub fn started(&self) -> BTreeSet<JobId> {
        let schedules = self
            .schedules
            .values()
            .filter_map(|schedule| match &schedule.spec.does {
                Does::Task { task, .. } => Some(task.clone()),
                _ => None,
            });
        let queues = self.queues.values().flat_map(|queue| {
            let works = std::iter::once(&queue.spec.work).chain(queue.spec.kinds.values());
            works.filter_map(|work| match &work.by {
                By::Task(name) => JobId::parse_in(name, &queue.id.session).ok(),
                _ => None,
            })
        });
        schedules.chain(queues).collect()
    }

    /// Jobs that a job comes after, by itself or by a task between them.
    pub fn comes_after(&self, job: &JobId) -> BTreeSet<JobId> {
        let Some(job) = self.jobs.get(job) else {
            return BTreeSet::new();
        };
        let mut jobs: BTreeSet<JobId> = job.spec.after.keys().cloned().collect();
        let mut open: Vec<&JobId> = job.spec.after_tasks.keys().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if let (true, Some(task)) = (seen.insert(id), self.tasks.get(id)) {
                jobs.extend(task.after.keys().cloned());
                open.extend(task.after_tasks.keys());
            }
        }
        jobs
    }
}

/// A job: what it means, and what was typed.
#[derive(Clone, Debug)]
pub struct LoadedJob {
    /// For the core.
    pub spec: Arc<Job>,
    /// The merged object with the keys of `[job.X]`, as canonical JSON (keys sorted): what the store keeps
    /// and the API shows. [`load_job_json`] reads it back to the same `spec`.
    pub typed: serde_json::Value,
    /// Decides whether a run is outdated. Stable across versions of the daemon.
    pub launch_digest: u64,
    /// Where it is written; none for jobs made without a file.
    pub origin: Option<Origin>,
    /// `profiles` of the object.
    pub profiles: Vec<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Absolute path.
    pub file: String,
    /// From 1.
    pub line: u32,
}

/// Gives the gathered files their meaning. Warnings are inside; with an error there is nothing else.
pub fn load(bundle: &Bundle, host: &dyn Host) -> Result<Config, Diagnostics> {
    let base = bundle.root.parent().unwrap_or(Path::new("/"));
    let mut report = Report::new(base);
    let mut source = Gathered(bundle);
    let mut front = front(bundle, &mut source, &mut report);
    let daemon_section = front.daemon.as_ref().map(|(_, span)| origin(&report, *span));
    let daemon = daemon_settings(&mut front, host, &mut report);
    let webhooks = std::mem::take(&mut front.webhooks).into_values();
    let webhooks = webhooks.filter_map(|def| crate::webhook::resolve(def, &mut report));
    let webhooks = webhooks.collect();
    let schedules = std::mem::take(&mut front.schedules).into_values();
    let schedules = schedules.filter_map(|def| crate::schedule::resolve(def, &mut report));
    let schedules: BTreeMap<JobId, LoadedSchedule> = schedules.map(|one| (one.id.clone(), one)).collect();
    let mut world = World::new(host);
    let session = front.session.clone();
    let vars = std::mem::take(&mut front.declared_vars);
    let all = {
        let (front, report) = (&mut front, &mut report);
        Merger {
            bundle,
            front,
            host,
            report,
            prefix: String::new(),
        }
        .all()
    };
    let mut drafts = BTreeMap::new();
    for mut job in all.jobs {
        if let Some((id, draft)) = draft(&mut job, bundle, &mut world, &mut report) {
            drafts.insert(id, draft);
        }
    }
    let tasks = all.tasks.into_iter();
    let tasks = tasks.filter_map(|task| crate::task::resolve(task, &mut world, &mut report));
    let mut tasks: BTreeMap<JobId, LoadedTask> = tasks.map(|task| (task.id.clone(), task)).collect();
    crate::queue_store::check_pools(&all.queues, &mut report);
    let queues = all.queues.into_iter();
    let queues = queues.filter_map(|queue| crate::queue::resolve(queue, &mut world, &mut report));
    let queues: BTreeMap<JobId, LoadedQueue> = queues.map(|queue| (queue.id.clone(), queue)).collect();
    crate::schedule::check_targets(&schedules, &drafts, &tasks, &queues, &mut report);
    check_counts(bundle, &drafts, &mut report);
    dependencies(&mut drafts, &mut tasks, &mut report);
    overlapping_ports(&drafts, &mut report);
    let session = Name::parse(&session).unwrap_or_else(|_| Name::default_session());
    let jobs = drafts
        .into_iter()
        .map(|(id, draft)| (id, draft.finish(&report)))
        .collect();
    let failed = report.has_errors();
    let Diagnostics(warnings) = report.finish();
    if failed {
        return Err(Diagnostics(warnings));
    }
    Ok(Config {
        daemon,
        daemon_section,
        jobs,
        tasks,
        queues,
        schedules,
        webhooks,
        vars,
        session,
        warnings,
        file: bundle.root.clone(),
    })
}

/// `[gaffer]`, and the nodes that the daemon may ask.
fn daemon_settings(front: &mut Front, host: &dyn Host, report: &mut Report) -> DaemonSettings {
    let mut daemon = match &front.daemon {
        Some((table, _)) => crate::daemon::settings(table, host, report),
        None => DaemonSettings::default(),
    };
    for (name, (table, span)) in std::mem::take(&mut front.nodes) {
        let node = crate::user_nodes::resolve(&name, &table, span, report);
        daemon.nodes.extend(node.map(|node| (name, node)));
    }
    daemon
}

pub(crate) fn origin(report: &Report, span: Span) -> Origin {
    let file = report
        .path_of(span)
        .unwrap_or(Path::new(""))
        .to_string_lossy()
        .into_owned();
    Origin {
        file,
        line: report.line_of(span).unwrap_or(0),
    }
}

/// A job on its way: resolved but for the names it waits for.
struct Draft {
    id: JobId,
    job: Job,
    waits: Vec<Wait>,
    after: BTreeMap<On, (Condition, Span)>,
    table: Table,
    layers: Vec<Layer>,
    /// Digest of what the files of variables said: now, or when the definition was stored.
    files: Option<String>,
    profiles: Vec<String>,
    span: Span,
    from_file: bool,
}

impl Draft {
    fn finish(self, report: &Report) -> LoadedJob {
        let launch_digest = launch_digest(&self.job, &self.table, &self.layers, self.files.as_deref());
        let mut typed = typed(&self.table, &self.layers, &self.job.launch, self.files);
        if let Some(typed) = typed.as_object_mut()
            && !self.after.is_empty()
        {
            typed.insert("after".to_owned(), after::typed(&self.id, &self.after));
        }
        let origin = self.from_file.then(|| origin(report, self.span));
        let mut job = self.job;
        (job.after, job.after_tasks) = after::split(&self.after);
        LoadedJob {
            spec: Arc::new(job),
            typed,
            launch_digest,
            origin,
            profiles: self.profiles,
        }
    }
}

/// The table, with what gaffer has found out: `[env]` under the files of variables, and the user of that moment.
pub(crate) fn typed(table: &Table, layers: &[Layer], launch: &Launch, files: Option<String>) -> Value {
    let mut typed: BTreeMap<String, Value> = table
        .iter()
        .map(|(key, entry)| (key.to_owned(), entry.node.to_json()))
        .collect();
    // Of files only the paths: their values are never kept.
    let mut kept = layers.iter().filter(|layer| !layer.is_file).peekable();
    if kept.peek().is_some() {
        let one = |layer: &Layer| {
            let env: Vec<Value> = layer
                .variables
                .iter()
                .map(|(name, value)| json!([name, value]))
                .collect();
            json!({ "env": env, "from": layer.from })
        };
        typed.insert("env_layers".to_owned(), kept.map(one).collect());
    }
    if let Some(files) = files {
        typed.insert("env_digest".to_owned(), files.into());
    }
    if let (Some(user), Some(node)) = (&launch.user, table.get("user")) {
        let run_as = json!({
            "gid": user.gid, "groups": user.groups, "home": user.home, "name": crate::kind::scalar(node),
            "shell": user.shell, "uid": user.uid, "user": user.name,
        });
        typed.insert("run_as".to_owned(), run_as);
    }
    Value::Object(typed.into_iter().collect())
}

fn draft(
    merged: &mut Merged,
    bundle: &Bundle,
    world: &mut World<'_>,
    report: &mut Report,
) -> Option<(JobId, Draft)> {
    let path = format!("job.{}", merged.name);
    let id = match (Name::parse(&merged.session), JobName::parse(&merged.name)) {
        (Ok(session), Ok(job)) => JobId { session, job },
        (session, job) => {
            for error in [session.err(), job.err()].into_iter().flatten() {
                report.error(merged.span, &path, error.to_string(), "");
            }
            return None;
        }
    };
    let mut resolver = Resolver {
        world,
        report,
        path: format!("{path}."),
        name: &merged.name,
        span: merged.span,
        table: &merged.table,
        layers: &merged.layers,
        unread: merged.unread.as_deref(),
        task: None,
    };
    let Resolved { mut job, waits } = resolver.resolve();
    let count = bundle
        .counts
        .get(id.job.as_str())
        .or_else(|| bundle.counts.get(&id.to_string()));
    if let Some(&count) = count {
        job.instances = count;
        merged
            .table
            .put("instances", Node::new(Item::Int(i64::from(count)), merged.span));
    }
    let files = files_digest(&merged.layers);
    let draft = Draft {
        id: id.clone(),
        job,
        files,
        waits,
        after: BTreeMap::new(),
        table: std::mem::take(&mut merged.table),
        layers: std::mem::take(&mut merged.layers),
        profiles: std::mem::take(&mut merged.profiles),
        span: merged.span,
        from_file: true,
    };
    Some((id, draft))
}

fn check_counts(bundle: &Bundle, drafts: &BTreeMap<JobId, Draft>, report: &mut Report) {
    let names: Vec<&str> = drafts.keys().map(|id| id.job.as_str()).collect();
    for name in bundle.counts.keys() {
        let known = drafts
            .keys()
            .any(|id| id.job.as_str() == name || id.to_string() == *name);
        if !known && !report.has_errors() {
            let near = crate::suggest::nearest(name, names.iter().copied());
            let help = near
                .map(|near| format!("did you mean `{near}`?"))
                .unwrap_or_default();
            report.error(
                Span::NONE,
                "instances",
                format!("there is no job `{name}` to count"),
                &help,
            );
        }
    }
}

/// Names in `after` become jobs and tasks.
fn dependencies(
    drafts: &mut BTreeMap<JobId, Draft>,
    tasks: &mut BTreeMap<JobId, LoadedTask>,
    report: &mut Report,
) {
    let endless = drafts
        .iter()
        .filter(|(_, draft)| draft.job.restart == Restart::Always);
    let endless: BTreeSet<JobId> = endless.map(|(id, _)| id.clone()).collect();
    let jobs = drafts.iter().map(|(id, draft)| (id, &draft.waits[..]));
    let of_tasks = tasks.iter().map(|(id, task)| (id, &task.waits[..]));
    let found = after::resolve(jobs.collect(), of_tasks.collect(), &endless, report);
    let starting = after::named(&found, |task| tasks.get(task).is_some_and(|task| task.start));
    for (who, after) in found {
        match who {
            On::Job(id) => {
                if let Some(draft) = drafts.get_mut(&id) {
                    draft.after = after;
                }
            }
            On::Task(id) => {
                if let Some(task) = tasks.get_mut(&id) {
                    task.comes_after(&after);
                }
            }
        }
    }
    for id in starting {
        if let Some(task) = tasks.get_mut(&id) {
            task.start_if_unsaid();
        }
    }
    tasks.values().for_each(|task| task.check_start(report));
}

/// Two jobs with one port: the second would not start.
fn overlapping_ports(drafts: &BTreeMap<JobId, Draft>, report: &mut Report) {
    let mut ranges: Vec<(u32, u32, &JobId, String, Span)> = Vec::new();
    for (id, draft) in drafts {
        let launch = &draft.job.launch;
        let own = launch.port.iter().map(|port| ("port".to_owned(), port));
        let named = launch
            .ports
            .iter()
            .map(|(name, port)| (format!("ports.{name}"), port));
        for (key, port) in own.chain(named) {
            if let Port::Fixed(port) = port {
                let first = u32::from(*port);
                let last = first + draft.job.instances.saturating_sub(1);
                let span = draft.table.at(&key).map_or(draft.span, |node| node.span);
                ranges.push((first, last, id, key, span));
            }
        }
    }
    ranges.sort_by(|a, b| (a.0, a.2, &a.3).cmp(&(b.0, b.2, &b.3)));
    let mut widest: Option<(u32, &JobId)> = None;
    for (first, last, id, key, span) in &ranges {
        if let Some((taken, other)) = widest
            && *first <= taken
        {
            let message = match other == *id {
                true => format!("two ports of job `{}` are both {first}", id.job),
                false => format!("port {first} belongs to job `{}` too", other.job),
            };
            report.warning(
                *span,
                &format!("job.{}.{key}", id.job),
                message,
                "instance n gets port + n - 1",
            );
        }
        if widest.is_none_or(|(taken, _)| *last > taken) {
            widest = Some((*last, id));
        }
    }
}

/// One job from JSON with the keys of `[job.X]`: the body of a PUT, and the store's text.
pub fn load_job_json(
    session: &str,
    name: &str,
    typed: &Value,
    host: &dyn Host,
) -> Result<LoadedJob, Diagnostics> {
    // Of a stored definition that is in force which was asked for: its runs are not outdated because a file of
    // variables has changed since, or has gone.
    let kept = || typed.get("env_digest").and_then(Value::as_str).map(str::to_owned);
    job_json(session, name, typed, host, host.is_store().then(kept))
}

/// The store's text with what its files of variables say now. One that is missing or wrong is an error.
pub fn load_again(session: &str, name: &str, typed: &Value) -> Result<LoadedJob, Diagnostics> {
    let loaded = job_json(session, name, typed, &StoredHost, None)?;
    match &loaded.spec.launch.unread {
        Some(why) => Err(Diagnostic::error(why.clone()).into()),
        None => Ok(loaded),
    }
}

/// `kept`: the digest of the files, instead of that of what they say now.
fn job_json(
    session: &str,
    name: &str,
    typed: &Value,
    host: &dyn Host,
    kept: Option<Option<String>>,
) -> Result<LoadedJob, Diagnostics> {
    let mut report = Report::new(Path::new("/"));
    let node = Node::from_json(typed);
    let Item::Table(mut table) = node.item else {
        return Err(Diagnostic::error("a job is an object with the keys of [job.X]").into());
    };
    check_body(session, name, &mut table, &mut report);
    lengthen(JOB, &mut table);
    split_commands(&mut table);
    let (layers, unread) = kept_layers(&mut table, host, &mut report);
    table.remove("env_digest");
    if table.get("cwd").is_none() {
        let here = crate::template::escape_templates(&host.current_dir().to_string_lossy());
        table.put("cwd", Node::str(here, Span::NONE));
    }
    let mut merged = Merged {
        session: session.to_owned(),
        name: name.to_owned(),
        span: Span::NONE,
        table,
        layers,
        unread,
        profiles: Vec::new(),
    };
    let draft = draft(
        &mut merged,
        &Bundle::default(),
        &mut World::new(host),
        &mut report,
    );
    let loaded = draft.map(|(id, mut draft)| {
        let who = Who { kind: "job", id: &id };
        draft.after = after::as_written(&who, &std::mem::take(&mut draft.waits), &mut report);
        draft.from_file = false;
        draft.table.remove("run_as");
        if let Some(kept) = kept {
            draft.files = kept;
        }
        draft.finish(&report)
    });
    match loaded {
        Some(loaded) if !report.has_errors() => Ok(loaded),
        _ => Err(report.finish()),
    }
}

/// Known keys with values of the right kind. The path of a request names the job; its body may repeat that.
fn check_body(session: &str, name: &str, table: &mut Table, report: &mut Report) {
    let (path, what) = (format!("job.{name}."), format!("job `{name}`"));
    for (key, value) in [("name", name), ("session", session)] {
        if table.remove(key).is_some_and(|node| node.as_str() != Some(value)) {
            let message = format!("`{key}` is not that of the request");
            report.error(Span::NONE, &format!("{path}{key}"), message, "leave it out");
        }
    }
    let checked = Checked {
        keys: JOB,
        path: &path,
        what: &what,
        without: None,
        written: true,
    };
    checked.check(table, report);
}

/// Commands of a PUT that are one text become words, as in files.
pub(crate) fn split_commands(table: &mut Table) {
    let scripted = is_shell(table.get("shell"));
    split(table, "cmd", scripted);
    split(table, "wrap", false);
    for key in ["ready", "health", "stop"] {
        if let Some(Item::Table(below)) = table.0.get_mut(key).map(|entry| &mut entry.node.item) {
            let scripted = is_shell(below.get("shell"));
            split(below, "cmd", scripted);
        }
    }
}

fn split(table: &mut Table, key: &str, scripted: bool) {
    if let Some(entry) = table.0.get_mut(key)
        && let (false, Some(text)) = (scripted, entry.node.as_str())
        && let Ok(words) = crate::template::split_words(text)
    {
        entry.node.item = Item::List(
            words
                .into_iter()
                .map(|word| Node::str(word, Span::NONE))
                .collect(),
        );
    }
}

/// Layers under `env`: those kept with the definition, and the files that it names. Beside them, why a file of a
/// stored definition could not be read.
pub(crate) fn kept_layers(
    table: &mut Table,
    host: &dyn Host,
    report: &mut Report,
) -> (Vec<Layer>, Option<String>) {
    let mut layers: Vec<Layer> = table
        .remove("env_layers")
        .as_ref()
        .and_then(Node::as_list)
        .unwrap_or_default()
        .iter()
        .filter_map(kept_layer)
        .collect();
    let mut unread = None;
    for (text, _) in table.get("env_file").map(Node::texts).unwrap_or_default() {
        match layer_of_file(text, host, report) {
            Ok(layer) => layers.extend(layer),
            Err(why) if host.is_store() => {
                unread.get_or_insert(why);
            }
            Err(why) => report.error(Span::NONE, "env_file", why, ""),
        }
    }
    if let Some(Item::Str(text)) = table.get("env_file").map(|node| node.item.clone()) {
        let list = Item::List(vec![Node::str(text, Span::NONE)]);
        table.put("env_file", Node::new(list, Span::NONE));
    }
    let gone = table.get("env_without").map(Node::texts).unwrap_or_default();
    let gone: Vec<String> = gone.into_iter().map(|(name, _)| name.to_owned()).collect();
    without(&mut layers, &gone);
    (layers, unread)
}

/// None: the file is missing, and may be. The error is a sentence with the path, and nothing of what the file says.
fn layer_of_file(text: &str, host: &dyn Host, report: &mut Report) -> Result<Option<Layer>, String> {
    let (optional, name) = crate::merge::env_file(text);
    if !name.starts_with('/') {
        return Err(format!("`env_file` is {name}, which is not absolute"));
    }
    let path = Path::new(&name);
    let text = match host.read_file(path) {
        Ok(text) => text,
        Err(error) if optional && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {name}: {}", crate::source::plain(&error))),
    };
    let mut own = Report::new(Path::new("/"));
    let report = if host.is_store() { &mut own } else { report };
    let file = report.add_private_file(path, &text);
    let variables = crate::env_text::parse(&text, file, report);
    if let Some(first) = own.finish().0.first() {
        let line = first.line.unwrap_or_default();
        return Err(format!("cannot read {name}: {} in line {line}", first.message));
    }
    Ok(Some(Layer {
        from: name,
        variables,
        is_file: true,
    }))
}

fn kept_layer(node: &Node) -> Option<Layer> {
    let table = node.as_table()?;
    let pair = |pair: &Node| match pair.as_list()? {
        [name, value] => {
            let (name, value) = (name.as_str()?, value.as_str()?);
            let good = crate::kind::env_name(name) && !value.contains('\0');
            good.then(|| (name.to_owned(), value.to_owned()))
        }
        _ => None,
    };
    Some(Layer {
        from: table
            .get("from")
            .and_then(Node::as_str)
            .unwrap_or_default()
            .to_owned(),
        variables: table.get("env")?.as_list()?.iter().filter_map(pair).collect(),
        is_file: false,
    })
}
