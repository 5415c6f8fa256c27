//! One job out of its layers: built-in → `[defaults]` → `[defaults.job]` → templates → the object → profiles.
//!
//! The environment is kept in layers of its own, lowest first, because `$X` in a value means the layer below:
//! `[env]`, each file of variables, `env` of the job.

use crate::bundle::Bundle;
use crate::defs::{Front, JobDef, QueueDef, Scope, TaskDef};
use crate::env_text::Variables;
use crate::host::Host;
use crate::keys::{JOB, Key, Use};
use crate::keys_queue::{is_queue_only, queue_keys, work_keys};
use crate::keys_task::{is_task_only, step_keys};
use crate::kind::env_value;
use crate::node::{Entry, Item, Node, Span, Table};
use crate::overlay::overlay_job;
use crate::report::Report;
use crate::source::{Unread, plain};
use crate::template::{escape_templates, split_words, substitute};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A layer of environment with the name of where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// `[env]`, or the path of the file.
    pub from: String,
    pub variables: Variables,
    /// Of a file: the store keeps its path only, for its values may be secrets.
    pub is_file: bool,
}

/// A job with everything inherited: the keys of `[job.X]` without those that only say how to merge.
#[derive(Debug)]
pub(crate) struct Merged {
    pub session: String,
    pub name: String,
    pub span: Span,
    pub table: Table,
    /// Below `env` of the table.
    pub layers: Vec<Layer>,
    /// Why a file of variables could not be read, of a stored definition.
    pub unread: Option<String>,
    pub profiles: Vec<String>,
}

/// A task with everything that its steps inherit.
#[derive(Debug)]
pub(crate) struct MergedTask {
    pub session: String,
    pub name: String,
    pub span: Span,
    /// Keys of the task alone.
    pub table: Table,
    /// In the order of the file; a task without `step` is one of its own name.
    pub steps: Vec<MergedStep>,
}

/// A queue with everything inherited.
#[derive(Debug)]
pub(crate) struct MergedQueue {
    pub session: String,
    pub name: String,
    pub span: Span,
    /// Keys of the queue alone.
    pub table: Table,
    /// What is done for a task of no kind.
    pub work: MergedStep,
    /// In the order of the file.
    pub kinds: Vec<MergedStep>,
}

/// All objects of a load that inherit.
pub(crate) struct AllMerged {
    pub jobs: Vec<Merged>,
    pub tasks: Vec<MergedTask>,
    pub queues: Vec<MergedQueue>,
}

/// A step with everything inherited.
#[derive(Debug)]
pub(crate) struct MergedStep {
    pub name: String,
    pub span: Span,
    pub table: Table,
    /// Below `env` of the table.
    pub layers: Vec<Layer>,
    /// Why a file of variables could not be read, of a stored definition.
    pub unread: Option<String>,
}

/// An object laid over what it inherits.
struct Inherited {
    table: Table,
    /// `[env]` below its own variables.
    below: Table,
    /// Variables that `unset` took out.
    gone: Vec<String>,
}

/// Everything that merging looks things up in.
pub(crate) struct Merger<'a> {
    pub bundle: &'a Bundle,
    pub front: &'a mut Front,
    pub host: &'a dyn Host,
    pub report: &'a mut Report,
    /// `job.web.`: how the paths of the job in hand begin.
    pub prefix: String,
}

/// Templates by name, each with what profiles lay over it.
type Templates = BTreeMap<String, Vec<(Table, Span)>>;

/// Keys whose texts are templates.
const TEMPLATED: &[&str] = &["argv0", "cwd", "env", "env_file", "stdin"];

impl Merger<'_> {
    /// All jobs, tasks and queues that exist under the selected profiles.
    pub fn all(&mut self) -> AllMerged {
        let jobs = std::mem::take(&mut self.front.jobs);
        let tasks = std::mem::take(&mut self.front.tasks);
        let queues = std::mem::take(&mut self.front.queues);
        let scopes = std::mem::take(&mut self.front.scopes);
        let templates = std::mem::take(&mut self.front.templates);
        let jobs = jobs
            .into_values()
            .filter_map(|def| self.job(&scopes[def.scope], &templates, def))
            .collect();
        let tasks = tasks
            .into_values()
            .filter_map(|def| self.task(&scopes[def.scope], &templates, def))
            .collect();
        let queues = queues
            .into_values()
            .filter_map(|def| self.queue(&scopes[def.scope], &templates, def))
            .collect();
        AllMerged { jobs, tasks, queues }
    }

    fn job(&mut self, scope: &Scope, templates: &Templates, def: JobDef) -> Option<Merged> {
        let path = format!("job.{}", def.name);
        let layers: Vec<&Table> = def.layers.iter().collect();
        let inherited = self.inherit(scope, &scope.defaults_job, templates, &layers);
        let Inherited {
            mut table,
            below,
            gone,
        } = inherited;
        let profiles = self.profiles(&table)?;
        self.misfits(&mut table, &layers, JOB, &format!("job `{}`", def.name));
        for key in ["extends", "unset", "profiles", "session"] {
            table.remove(key);
        }
        self.prefix = format!("{path}.");
        self.place_of_work(&mut table, def.span);
        self.fill(&mut table, &path);
        let layers = self.layers(&mut table, scope, &below, &gone, &path);
        self.choices(&def, &mut table, &layers);
        Some(Merged {
            session: def.session,
            name: def.name,
            span: def.span,
            table,
            layers,
            unread: None,
            profiles,
        })
    }

    fn task(&mut self, scope: &Scope, templates: &Templates, def: TaskDef) -> Option<MergedTask> {
        let mut table = Table::default();
        def.layers.iter().for_each(|layer| table.overlay(layer));
        self.profiles(&table)?;
        let path = format!("task.{}", def.name);
        let steps = table.remove("step");
        let mut merged = Vec::new();
        match steps.as_ref().and_then(Node::as_table) {
            None => {
                let layers: Vec<&Table> = def.layers.iter().collect();
                let mut only = self.step(scope, templates, &layers, &def.name, &path, def.span);
                // What is the task's alone stays there; `description` and `meta` too.
                only.table
                    .0
                    .retain(|name, _| name == "stop" || !is_task_only(name));
                table.0.retain(|name, _| is_task_only(name));
                merged.push(only);
            }
            Some(steps) => {
                for (name, entry) in steps.in_order() {
                    let own = |layer: &'_ Table| {
                        layer
                            .get_table("step")
                            .and_then(|steps| steps.get_table(name))
                            .cloned()
                    };
                    let layers: Vec<Table> = def.layers.iter().filter_map(own).collect();
                    let layers: Vec<&Table> = layers.iter().collect();
                    let path = format!("{path}.step.{name}");
                    merged.push(self.step(scope, templates, &layers, name, &path, entry.key));
                }
            }
        }
        for key in ["profiles", "session", "extends", "unset"] {
            table.remove(key);
        }
        self.prefix = format!("{path}.");
        for key in ["params", "unique"] {
            if let Some(entry) = table.0.get_mut(key) {
                self.texts(&mut entry.node, &format!("{path}.{key}"));
            }
        }
        Some(MergedTask {
            session: def.session,
            name: def.name,
            span: def.span,
            table,
            steps: merged,
        })
    }

    fn step(
        &mut self,
        scope: &Scope,
        templates: &Templates,
        layers: &[&Table],
        name: &str,
        path: &str,
        span: Span,
    ) -> MergedStep {
        let Inherited {
            mut table,
            below,
            gone,
        } = self.inherit(scope, &scope.defaults_step, templates, layers);
        let one_step = !path.contains(".step.");
        if !one_step {
            self.misfits(&mut table, layers, step_keys(), &format!("step `{name}`"));
        }
        for key in ["extends", "unset", "profiles", "session"] {
            table.remove(key);
        }
        self.prefix = format!("{path}.");
        self.place_of_work(&mut table, span);
        self.fill(&mut table, path);
        let layers = self.layers(&mut table, scope, &below, &gone, path);
        if self.bundle.inherit_env && table.get("env_inherit").is_none() {
            table.put("env_inherit", Node::str("all", span));
        }
        MergedStep {
            name: name.to_owned(),
            span,
            table,
            layers,
            unread: None,
        }
    }

    fn queue(&mut self, scope: &Scope, templates: &Templates, def: QueueDef) -> Option<MergedQueue> {
        let path = format!("queue.{}", def.name);
        let layers: Vec<&Table> = def.layers.iter().collect();
        let mut all = self
            .inherit(scope, &scope.defaults_queue, templates, &layers)
            .table;
        self.profiles(&all)?;
        self.misfits(&mut all, &layers, queue_keys(), &format!("queue `{}`", def.name));
        if let Some(Entry { node, .. }) = all.0.get_mut("outbox") {
            self.texts(node, &format!("{path}.outbox"));
            self.absolute(node, "outbox");
        }
        let kinds = all.remove("kind");
        let mut work = self.work(scope, templates, &layers, &def.name, &path, def.span);
        // What a queue does not run itself, its kinds may inherit: it has no folder to be in.
        if work.table.get("cmd").is_none() {
            work.table.remove("cwd");
        }
        let mut merged = Vec::new();
        for (name, entry) in kinds
            .as_ref()
            .and_then(Node::as_table)
            .map(Table::in_order)
            .unwrap_or_default()
        {
            let own = |layer: &'_ Table| {
                layer
                    .get_table("kind")
                    .and_then(|kinds| kinds.get_table(name))
                    .cloned()
            };
            let own: Vec<Table> = def.layers.iter().filter_map(own).collect();
            let mut below = def.layers.clone();
            // Work is one of both: a kind's own takes the place of the queue's.
            for key in ["cmd", "task"] {
                if own.iter().any(|layer| layer.get(key).is_some()) {
                    below.iter_mut().for_each(|layer| {
                        layer.remove("cmd");
                        layer.remove("task");
                    });
                }
            }
            let levels: Vec<&Table> = below.iter().chain(&own).collect();
            let path = format!("{path}.kind.{name}");
            merged.push(self.work(scope, templates, &levels, name, &path, entry.key));
        }
        all.0.retain(|name, _| is_queue_only(name));
        for key in ["profiles", "session", "extends", "unset"] {
            all.remove(key);
        }
        Some(MergedQueue {
            session: def.session,
            name: def.name,
            span: def.span,
            table: all,
            work,
            kinds: merged,
        })
    }

    /// What a queue, or a kind of it, runs.
    fn work(
        &mut self,
        scope: &Scope,
        templates: &Templates,
        layers: &[&Table],
        name: &str,
        path: &str,
        span: Span,
    ) -> MergedStep {
        let Inherited {
            mut table,
            below,
            gone,
        } = self.inherit(scope, &scope.defaults_queue, templates, layers);
        let is_resident = table.get("resident").and_then(Node::as_bool) == Some(true);
        table.0.retain(|name, _| !is_queue_only(name));
        self.prefix = format!("{path}.");
        for key in ["ready", "health"] {
            let own = layers.iter().rev().find_map(|layer| layer.0.get(key));
            if let Some(entry) = own.filter(|_| !is_resident) {
                let message = format!("`{key}` is of resident workers");
                let place = format!("{path}.{key}");
                self.report
                    .error(entry.key, &place, message, "add resident = true");
            }
        }
        self.misfits(
            &mut table,
            layers,
            work_keys(is_resident),
            &format!("queue `{name}`"),
        );
        self.place_of_work(&mut table, span);
        self.fill(&mut table, path);
        let layers = self.layers(&mut table, scope, &below, &gone, path);
        if self.bundle.inherit_env && table.get("env_inherit").is_none() {
            table.put("env_inherit", Node::str("all", span));
        }
        MergedStep {
            name: name.to_owned(),
            span,
            table,
            layers,
            unread: None,
        }
    }

    /// Defaults, templates and the object itself, each over the one before.
    fn inherit(
        &mut self,
        scope: &Scope,
        of_kind: &Table,
        templates: &Templates,
        layers: &[&Table],
    ) -> Inherited {
        let mut table = scope.defaults.clone();
        overlay_job(&mut table, of_kind);
        let mut below = scope.env.clone();
        let extends = layers.iter().rev().find_map(|layer| layer.get("extends"));
        let mut levels: Vec<&Table> = Vec::new();
        if let Some(node) = extends {
            self.templates(templates, node, &mut levels);
        }
        levels.extend(layers);
        let mut gone: Vec<String> = Vec::new();
        for level in levels {
            for (path, span) in level.get("unset").map(Node::texts).unwrap_or_default() {
                self.unset(&mut table, &mut below, path, span, &mut gone);
            }
            overlay_job(&mut table, level);
        }
        Inherited { table, below, gone }
    }

    /// `profiles` of an object; none: it does not exist under the selected ones.
    fn profiles(&self, table: &Table) -> Option<Vec<String>> {
        let texts = table.get("profiles").map(Node::texts).unwrap_or_default();
        let profiles: Vec<String> = texts.into_iter().map(|(name, _)| name.to_owned()).collect();
        let exists = profiles.is_empty() || profiles.iter().any(|name| self.bundle.profiles.contains(name));
        exists.then_some(profiles)
    }

    /// A template is for jobs and steps: what it has and the object cannot have is told, at its place. What `[defaults]` has
    /// for all and an object has no use for is left out.
    fn misfits(&mut self, table: &mut Table, own: &[&Table], keys: &'static [Key], what: &str) {
        let fits = |name: &str| {
            let key = crate::keys::find(keys, name).map(|key| key.used);
            matches!(key, Some(Use::Run | Use::Job | Use::File))
        };
        let misfits: Vec<(String, Span)> = table
            .in_order()
            .into_iter()
            .filter(|(name, _)| !fits(name))
            .map(|(name, entry)| (name.to_owned(), entry.key))
            .collect();
        for (name, span) in misfits {
            table.remove(&name);
            let of_all = crate::keys::find(JOB, &name).is_some_and(|key| key.used == Use::Run);
            // What stands in the object itself has been told.
            if !of_all && !own.iter().any(|layer| layer.get(&name).is_some()) {
                let message = format!("`{name}` has no meaning in {what}");
                self.report
                    .error(span, &name, message, "it comes with a template");
            }
        }
    }

    /// The templates named by `extends`, farthest first.
    fn templates<'t>(&mut self, known: &'t Templates, extends: &Node, levels: &mut Vec<&'t Table>) {
        let mut chain: Vec<&str> = Vec::new();
        let mut groups: Vec<&'t Vec<(Table, Span)>> = Vec::new();
        let mut next = extends.as_str().map(|name| (name.to_owned(), extends.span));
        while let Some((name, span)) = next.take() {
            let Some((name, group)) = known.get_key_value(&name) else {
                let near = crate::suggest::nearest(&name, known.keys().map(String::as_str));
                let help = near
                    .map(|near| format!("did you mean `{near}`?"))
                    .unwrap_or_default();
                self.report
                    .error(span, "extends", format!("there is no template `{name}`"), &help);
                break;
            };
            if chain.contains(&name.as_str()) {
                chain.push(name);
                let message = format!("templates extend each other in a circle: {}", chain.join(" → "));
                self.report.error(span, "extends", message, "");
                break;
            }
            chain.push(name);
            groups.push(group);
            next = group
                .iter()
                .rev()
                .find_map(|(table, _)| table.get("extends"))
                .and_then(|node| Some((node.as_str()?.to_owned(), node.span)));
        }
        levels.extend(groups.into_iter().rev().flatten().map(|(table, _)| table));
    }

    fn unset(
        &mut self,
        table: &mut Table,
        below: &mut Table,
        path: &str,
        span: Span,
        gone: &mut Vec<String>,
    ) {
        let first = path.split('.').next().unwrap_or_default();
        if crate::keys::find(crate::keys::JOB, first).is_none() {
            let help = crate::keys::hint(crate::keys::JOB, "", first);
            self.report.error(
                span,
                "unset",
                format!("`unset` names `{path}`, which is not a key"),
                &help,
            );
            return;
        }
        let there = table.unset(path);
        if let Some(name) = path.strip_prefix("env.") {
            below.0.remove(name);
            // A file of variables may hold it too; those are read later.
            gone.push(name.to_owned());
        } else if path == "env" {
            below.0.clear();
        } else if !there && path != "env_file" {
            self.report.warning(
                span,
                "unset",
                format!("`unset` names `{path}`, which was not inherited"),
                "",
            );
        }
    }

    /// `cwd`, if nobody says: the folder of the file. Relative paths are relative to their own file.
    fn place_of_work(&mut self, table: &mut Table, span: Span) {
        if table.get("cwd").is_none() {
            table.put("cwd", Node::str(".", span));
        }
    }

    /// `{{vars.x}}`, `{{profile}}` and `{{file.dir}}` get their values; commands become words; paths absolute.
    fn fill(&mut self, table: &mut Table, path: &str) {
        let shell = is_shell(table.get("shell"));
        for (key, entry) in &mut table.0 {
            let place = format!("{path}.{key}");
            match (key.as_str(), &mut entry.node.item) {
                ("cmd", _) => self.command(&mut entry.node, shell, &place),
                ("wrap", _) => self.command(&mut entry.node, false, &place),
                ("ready" | "health" | "stop", Item::Table(below)) => {
                    let shell = is_shell(below.get("shell"));
                    for (key, entry) in &mut below.0 {
                        let place = format!("{place}.{key}");
                        match key.as_str() {
                            "cmd" => self.command(&mut entry.node, shell, &place),
                            "http" | "tcp" => self.texts(&mut entry.node, &place),
                            _ => {}
                        }
                    }
                }
                (key, _) if TEMPLATED.contains(&key) => self.texts(&mut entry.node, &place),
                _ => {}
            }
        }
        for key in ["cwd", "stdin"] {
            if let Some(Entry { node, .. }) = table.0.get_mut(key) {
                self.absolute(node, key);
            }
        }
    }

    /// A command string becomes its words, except where a shell takes it as it is.
    fn command(&mut self, node: &mut Node, shell: bool, place: &str) {
        if !shell && let Item::Str(text) = &node.item {
            match split_words(text) {
                Ok(words) => {
                    let span = node.span;
                    node.item = Item::List(words.into_iter().map(|word| Node::str(word, span)).collect());
                }
                Err(why) => self.report.error(
                    node.span,
                    place,
                    format!("`{}` cannot be split: {why}", self.key_of(place)),
                    "",
                ),
            }
        }
        self.fill_texts(node, shell, place);
    }

    fn texts(&mut self, node: &mut Node, place: &str) {
        self.fill_texts(node, false, place);
    }

    fn fill_texts(&mut self, node: &mut Node, shell: bool, place: &str) {
        let span = node.span;
        match &mut node.item {
            Item::Str(text) => match self.filled(text, shell, span) {
                Ok(filled) => *text = filled,
                Err(why) => {
                    self.report
                        .error(span, place, format!("{why} (in `{}`)", self.key_of(place)), "")
                }
            },
            Item::List(list) => list.iter_mut().for_each(|one| self.fill_texts(one, shell, place)),
            Item::Table(table) => {
                for (key, entry) in &mut table.0 {
                    self.fill_texts(&mut entry.node, shell, &format!("{place}.{key}"));
                }
            }
            _ => {}
        }
    }

    /// `ready.cmd` of `job.web.ready.cmd`.
    fn key_of<'p>(&self, place: &'p str) -> &'p str {
        place.strip_prefix(self.prefix.as_str()).unwrap_or(place)
    }

    fn filled(&self, text: &str, shell: bool, span: Span) -> Result<String, String> {
        let folder = || {
            self.report
                .folder_of(span)
                .unwrap_or(Path::new("/"))
                .to_string_lossy()
                .into_owned()
        };
        substitute(text, shell, &|name| {
            if let Some(var) = name.strip_prefix("vars.") {
                return Some(self.front.vars.get(var).cloned().ok_or_else(|| self.no_var(var)));
            }
            match name {
                "file.dir" => Some(Ok(folder())),
                "profile" => {
                    Some(
                        self.bundle.profiles.last().cloned().ok_or_else(|| {
                            "`{{profile}}` has no value without a selected profile".to_owned()
                        }),
                    )
                }
                _ => None,
            }
        })
    }

    fn no_var(&self, var: &str) -> String {
        let near = crate::suggest::nearest(var, self.front.vars.keys().map(String::as_str));
        let help = near
            .map(|near| format!(" (did you mean `{near}`?)"))
            .unwrap_or_default();
        format!("`{{{{vars.{var}}}}}` is not in [vars]{help}")
    }

    /// Relative to the folder of the file where it is written. What begins with `$` or `{{` is left alone.
    fn absolute(&self, node: &mut Node, key: &str) {
        let folder = self
            .report
            .folder_of(node.span)
            .unwrap_or(Path::new("/"))
            .to_string_lossy()
            .into_owned();
        let Item::Str(text) = &mut node.item else { return };
        let (prefix, path) = match key {
            "stdin" => match text.strip_prefix("file:") {
                Some(path) => ("file:", path),
                None => return,
            },
            _ => ("", text.as_str()),
        };
        if path.starts_with(['/', '$']) || path.starts_with("{{") {
            return;
        }
        let path = path.trim_start_matches("./");
        let folder = escape_templates(&folder);
        let folder = folder.trim_end_matches('/');
        *text = match path {
            "" | "." if folder.is_empty() => format!("{prefix}/"),
            "" | "." => format!("{prefix}{folder}"),
            path => format!("{prefix}{folder}/{path}"),
        };
    }

    /// The layers under `env`: `[env]`, files of the top, files of the job, files of the command line.
    fn layers(
        &mut self,
        table: &mut Table,
        scope: &Scope,
        below: &Table,
        gone: &[String],
        path: &str,
    ) -> Vec<Layer> {
        let mut layers = Vec::new();
        let mut shared = Node::table(below.clone(), Span::NONE);
        self.texts(&mut shared, "env");
        let variables: Variables = shared
            .as_table()
            .into_iter()
            .flat_map(Table::in_order)
            .filter_map(|(name, entry)| Some((name.to_owned(), env_value(&entry.node)?)))
            .collect();
        layers.push(Layer {
            from: "[env]".to_owned(),
            variables,
            is_file: false,
        });
        let mut files: Vec<(String, Span)> = Vec::new();
        for (text, span) in &scope.env_files {
            match self.filled(text, false, *span) {
                Ok(text) => files.push((text, *span)),
                Err(why) => self
                    .report
                    .error(*span, "env_file", format!("{why} (in `env_file`)"), ""),
            }
        }
        if let Some(own) = table.remove("env_file") {
            files.extend(
                own.texts()
                    .into_iter()
                    .map(|(text, span)| (text.to_owned(), span)),
            );
        }
        let options = self
            .bundle
            .env_files
            .iter()
            .map(|file| (file.to_string_lossy().into_owned(), Span::NONE));
        files.extend(options);
        let mut named = Vec::new();
        for (text, span) in files {
            let (optional, file) = self.env_file(&text, span);
            let mark = if optional { "?" } else { "" };
            named.push(format!("{mark}{}", escape_templates(&file.to_string_lossy())));
            layers.extend(self.layer(&file, optional, span, path));
        }
        let list = |texts: &[String]| {
            let texts = texts.iter().map(|text| Node::str(text.as_str(), Span::NONE));
            Node::new(Item::List(texts.collect()), Span::NONE)
        };
        if !named.is_empty() {
            table.put("env_file", list(&named));
            if !gone.is_empty() {
                table.put("env_without", list(gone));
            }
        }
        without(&mut layers, gone);
        layers
    }

    /// The file that is meant, and whether it may be missing.
    fn env_file(&self, text: &str, span: Span) -> (bool, PathBuf) {
        let (optional, name) = env_file(text);
        let folder = self.report.folder_of(span).unwrap_or(Path::new("/"));
        (optional, folder.join(name))
    }

    fn layer(&mut self, file: &Path, optional: bool, span: Span, path: &str) -> Option<Layer> {
        let (bundle, host) = (self.bundle, self.host);
        let read = || match (bundle.files.get(file), bundle.unread.get(file)) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(why)) => Err(Unread::Failed(why.clone())),
            (None, None) => host.read_file(file).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Unread::Missing,
                _ => Unread::Failed(plain(&error)),
            }),
        };
        let found = self.front.variables(file, read, self.report, span);
        let Some(variables) = found else {
            if !optional {
                let place = format!("{path}.env_file");
                let base = self.bundle.root.parent().unwrap_or(Path::new("/"));
                let name = file.strip_prefix(base).unwrap_or(file).display();
                let message = format!("`env_file` names {name}, which does not exist");
                self.report.error(
                    span,
                    &place,
                    message,
                    "a file that may be missing is written \"?path\"",
                );
            }
            return None;
        };
        Some(Layer {
            from: file.to_string_lossy().into_owned(),
            variables: (*variables).clone(),
            is_file: true,
        })
    }

    /// What the command line and the way of starting decide.
    fn choices(&mut self, def: &JobDef, table: &mut Table, layers: &[Layer]) {
        if self.bundle.inherit_env && table.get("env_inherit").is_none() {
            table.put("env_inherit", Node::str("all", def.span));
        }
        if def.procfile {
            let mut named = layers
                .iter()
                .flat_map(|layer| &layer.variables)
                .filter(|(name, _)| name == "GAFFER_REDIRECT_INPUT");
            if named
                .next_back()
                .is_some_and(|(_, jobs)| jobs.split_whitespace().any(|job| job == def.name))
            {
                table.put("stdin", Node::str("pipe", def.span));
            }
        }
    }
}

/// An entry of `env_file`: may it be missing, and its path. Templates have been filled in; what is left of the
/// escapes is taken back.
pub(crate) fn env_file(text: &str) -> (bool, String) {
    let (optional, name) = match text.strip_prefix('?') {
        Some(name) => (true, name),
        None => (false, text),
    };
    (optional, name.replace("$$", "$").replace("{{&", "{{"))
}

/// Takes variables out of all layers, and then the layers that are empty.
pub(crate) fn without(layers: &mut Vec<Layer>, gone: &[String]) {
    for layer in layers.iter_mut() {
        layer.variables.retain(|(name, _)| !gone.contains(name));
    }
    layers.retain(|layer| !layer.variables.is_empty());
}

/// Is a script asked for?
pub(crate) fn is_shell(node: Option<&Node>) -> bool {
    node.is_some_and(|node| node.as_bool() != Some(false))
}
