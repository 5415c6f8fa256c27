//! The front of a load: files to a tree per file, includes, overlays, profiles; objects by name.
//!
//! It runs twice: on the disk while gathering, to find out what is read, and on the gathered text.

mod objects;

use crate::bundle::{Bundle, Kind};
use crate::check::{Checked, lengthen, report_problem};
use crate::defs::{Front, JobDef, QueueDef, Scope, TaskDef};
use crate::keys::{self, DAEMON, JOB, TOP, Use};
use crate::keys_queue::{kind_keys, queue_keys};
use crate::keys_task::{is_task_only, step_keys, task_keys, template_keys};
use crate::kind::Type;
use crate::node::{Entry, Node, Span, Table};
use crate::report::Report;
use crate::source::{Source, Unread, is_glob};
use crate::{ini, json_jobs, procfile, toml_text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Includes of includes of ….
const INCLUDE_DEPTH_MAX: usize = 8;

struct Loader<'a> {
    bundle: &'a Bundle,
    source: &'a mut dyn Source,
    report: &'a mut Report,
    front: Front,
    read: BTreeSet<PathBuf>,
    /// Objects and templates that profiles lay over.
    overlays: Vec<Overlay>,
    profiles_seen: BTreeSet<String>,
}

struct Overlay {
    /// Place of the profile in the selection.
    order: usize,
    scope: usize,
    kind: Laid,
    name: String,
    entry: Entry,
}

/// What a profile lays something over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Laid {
    Template,
    Job,
    Task,
    Queue,
}

/// Reads and orders everything. Mistakes go to the report.
pub(crate) fn front(bundle: &Bundle, source: &mut dyn Source, report: &mut Report) -> Front {
    let front = Front {
        scopes: Vec::new(),
        jobs: BTreeMap::new(),
        tasks: BTreeMap::new(),
        queues: BTreeMap::new(),
        templates: BTreeMap::new(),
        vars: BTreeMap::new(),
        declared_vars: BTreeSet::new(),
        daemon: None,
        nodes: BTreeMap::new(),
        webhooks: BTreeMap::new(),
        schedules: BTreeMap::new(),
        session: "default".to_owned(),
        variables: BTreeMap::new(),
    };
    let mut loader = Loader {
        bundle,
        source,
        report,
        front,
        read: BTreeSet::new(),
        overlays: Vec::new(),
        profiles_seen: BTreeSet::new(),
    };
    loader.run();
    loader.front
}

/// The format that a name tells.
pub(crate) fn kind_of(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    match path
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase())
        .as_deref()
    {
        Some("toml") => Some(Kind::Toml),
        Some("ini" | "conf" | "cfg") => Some(Kind::Ini),
        Some("json") => Some(Kind::Json),
        _ if name.starts_with("procfile") || name.ends_with("procfile") => Some(Kind::Procfile),
        _ => None,
    }
}

impl Loader<'_> {
    fn run(&mut self) {
        let paths: Vec<PathBuf> = std::iter::once(&self.bundle.root)
            .chain(&self.bundle.overlays)
            .cloned()
            .collect();
        let mut root = Table::default();
        let mut includes = Vec::new();
        let mut procfile = false;
        for (at, path) in paths.iter().enumerate() {
            self.read.insert(path.clone());
            let kind = self
                .bundle
                .kind
                .filter(|_| at == 0)
                .or_else(|| kind_of(path))
                .unwrap_or(Kind::Toml);
            procfile |= kind == Kind::Procfile;
            let Some(mut tree) = self.tree(path, kind, None) else {
                continue;
            };
            includes.extend(tree.remove("include"));
            root.overlay(&tree);
        }
        self.vars_of_command_line();
        self.file(root, Scope::default(), includes, 0, procfile);
        self.front.session = self
            .front
            .scopes
            .first()
            .and_then(|scope| scope.session.clone())
            .map_or_else(|| "default".to_owned(), |(name, _)| name);
        self.lay_over();
        self.check_profiles();
    }

    /// Reads one file into the shape of a `gaffer.toml`.
    fn tree(&mut self, path: &Path, kind: Kind, named_at: Option<Span>) -> Option<Table> {
        let text = match self.source.read(path) {
            Ok(text) => text,
            Err(why) => {
                let why = match why {
                    Unread::Missing => "there is no such file".to_owned(),
                    Unread::Failed(text) => text,
                };
                let message = format!("cannot read {}: {why}", path.display());
                self.report.error(named_at.unwrap_or(Span::NONE), "", message, "");
                return None;
            }
        };
        let file = self.report.add_file(path, &text);
        match kind {
            Kind::Toml => {
                let mut tree = toml_text::parse(&text, file, self.report)?;
                self.check_tree(&mut tree, "");
                Some(tree)
            }
            Kind::Procfile => {
                let ports = self.bundle.base_port.map(|base| (base, 100));
                Some(procfile::tree(
                    &text,
                    file,
                    path,
                    ports,
                    named_at.is_none(),
                    self.report,
                ))
            }
            Kind::Ini => ini::tree(&text, file, self.source, self.report),
            Kind::Json => json_jobs::tree(&text, file, self.report),
        }
    }

    /// Known keys with values of the right kind, short forms made long.
    fn check_tree(&mut self, tree: &mut Table, path: &str) {
        let in_profile = !path.is_empty();
        for (name, entry) in tree.in_order() {
            let place = format!("{path}{name}");
            let Some(key) = keys::find(TOP, name) else {
                self.unknown_at_top(name, entry, &place, in_profile);
                continue;
            };
            let misplaced = in_profile && ["include", "profile"].contains(&name);
            if key.used == Use::NotYet {
                self.report.error(
                    entry.key,
                    &place,
                    format!("`{name}` is not yet supported"),
                    "leave it out",
                );
            } else if misplaced {
                self.report.error(
                    entry.key,
                    &place,
                    format!("`{name}` has no meaning inside of a profile"),
                    "",
                );
            } else {
                report_problem(key.ty, name, &place, &entry.node, self.report);
            }
        }
        self.check_tables(tree, path);
        if !in_profile
            && let Some(Entry { node, .. }) = tree.0.get_mut("profile")
            && let crate::node::Item::Table(profiles) = &mut node.item
        {
            for (name, entry) in &mut profiles.0 {
                self.profiles_seen.insert(name.clone());
                if let crate::node::Item::Table(below) = &mut entry.node.item {
                    self.check_tree(below, &format!("profile.{name}."));
                } else {
                    report_problem(Type::Table, name, "profile", &entry.node, self.report);
                }
            }
        }
    }

    fn unknown_at_top(&mut self, name: &str, entry: &Entry, place: &str, in_profile: bool) {
        let mut help = keys::hint(TOP, "", name);
        if keys::find(JOB, name).is_some() {
            help = format!("put it into [job.NAME], or into [defaults] for all: defaults.{name}");
        }
        let what = if in_profile { "a profile" } else { "the file" };
        let message = match entry.node.as_table() {
            Some(_) => format!("unknown table `{name}` in {what}"),
            None => format!("unknown key `{name}` in {what}"),
        };
        self.report.error(entry.key, place, message, &help);
    }

    fn check_tables(&mut self, tree: &mut Table, path: &str) {
        use crate::node::Item;
        for (name, entry) in &mut tree.0 {
            let Item::Table(table) = &mut entry.node.item else {
                continue;
            };
            match name.as_str() {
                "defaults" => self.check_defaults(table, path),
                "template" | "job" | "task" | "queue" => {
                    for (object, entry) in &mut table.0 {
                        let place = format!("{path}{name}.{object}");
                        let what = format!("{name} `{object}`");
                        let inside = format!("{place}.");
                        match &mut entry.node.item {
                            Item::Table(below) if name == "task" => self.check_task(below, &inside, &what),
                            Item::Table(below) if name == "queue" => self.check_queue(below, &inside, &what),
                            Item::Table(below) if name == "template" => {
                                self.check_object(template_keys(), below, &inside, &what, None);
                            }
                            Item::Table(below) => self.check_object(JOB, below, &inside, &what, None),
                            _ => report_problem(
                                Type::Table,
                                &format!("{name}.{object}"),
                                &place,
                                &entry.node,
                                self.report,
                            ),
                        }
                    }
                }
                "webhook" | "schedule" | "node" => {
                    let check = match name.as_str() {
                        "webhook" => crate::webhook::check,
                        "node" => crate::user_nodes::check,
                        _ => crate::schedule::check,
                    };
                    for (object, entry) in &mut table.0 {
                        match &mut entry.node.item {
                            Item::Table(below) => check(below, path, object, self.report),
                            _ => {
                                let name = format!("{name}.{object}");
                                let place = format!("{path}{name}");
                                report_problem(Type::Table, &name, &place, &entry.node, self.report);
                            }
                        }
                    }
                }
                "gaffer" => {
                    let checked = Checked {
                        keys: DAEMON,
                        path: &format!("{path}gaffer."),
                        what: "[gaffer]",
                        without: None,
                        written: false,
                    };
                    checked.check(table, self.report);
                }
                _ => {}
            }
        }
    }

    fn check_defaults(&mut self, table: &mut Table, path: &str) {
        use crate::node::Item;
        let kinds = [("job", JOB), ("step", step_keys()), ("queue", queue_keys())]
            .map(|(kind, keys)| (kind, keys, table.remove(kind)));
        let (place, without) = (format!("{path}defaults."), Some(Use::Job));
        self.check_object(JOB, table, &place, "[defaults]", without);
        for (kind, keys, node) in kinds {
            let Some(mut node) = node else { continue };
            let name = format!("defaults.{kind}");
            let place = format!("{path}{name}");
            match &mut node.item {
                Item::Table(below) => {
                    let (inside, what) = (format!("{place}."), format!("[{name}]"));
                    self.check_object(keys, below, &inside, &what, Some(Use::File));
                }
                _ => report_problem(Type::Table, &name, &place, &node, self.report),
            }
            table.put(kind, node);
        }
    }

    fn check_object(
        &mut self,
        keys: &'static [keys::Key],
        table: &mut Table,
        path: &str,
        what: &str,
        without: Option<Use>,
    ) {
        Checked {
            keys,
            path,
            what,
            without,
            written: false,
        }
        .check(table, self.report);
        lengthen(keys, table);
    }

    /// A task and its steps. With steps, what runs a program belongs into them.
    fn check_task(&mut self, table: &mut Table, path: &str, what: &str) {
        use crate::node::Item;
        let steps = table.0.remove("step");
        self.check_object(task_keys(), table, path, what, None);
        let Some(mut steps) = steps else { return };
        let Item::Table(below) = &mut steps.node.item else {
            report_problem(
                Type::Table,
                "step",
                &format!("{path}step"),
                &steps.node,
                self.report,
            );
            return;
        };
        for (name, entry) in &mut below.0 {
            let place = format!("{path}step.{name}");
            match &mut entry.node.item {
                Item::Table(step) => {
                    let (inside, what) = (format!("{place}."), format!("step `{name}`"));
                    self.check_object(step_keys(), step, &inside, &what, None);
                }
                _ => report_problem(
                    Type::Table,
                    &format!("step.{name}"),
                    &place,
                    &entry.node,
                    self.report,
                ),
            }
        }
        for (name, entry) in table.in_order() {
            let known = keys::find(task_keys(), name).is_some();
            if known && !is_task_only(name) {
                let message = format!("`{name}` at {what}, which has steps");
                let help = "put it into the steps, or into [defaults.step] for all";
                self.report
                    .error(entry.key, &format!("{path}{name}"), message, help);
            }
        }
        table.0.insert("step".to_owned(), steps);
    }

    /// A queue and its kinds.
    fn check_queue(&mut self, table: &mut Table, path: &str, what: &str) {
        use crate::node::Item;
        let kinds = table.0.remove("kind");
        self.check_object(queue_keys(), table, path, what, None);
        let Some(mut kinds) = kinds else { return };
        let Item::Table(below) = &mut kinds.node.item else {
            report_problem(
                Type::Table,
                "kind",
                &format!("{path}kind"),
                &kinds.node,
                self.report,
            );
            return;
        };
        for (name, entry) in &mut below.0 {
            let place = format!("{path}kind.{name}");
            match &mut entry.node.item {
                Item::Table(kind) => {
                    let (inside, what) = (format!("{place}."), format!("kind `{name}`"));
                    self.check_object(kind_keys(), kind, &inside, &what, None);
                }
                _ => {
                    let name = format!("kind.{name}");
                    report_problem(Type::Table, &name, &place, &entry.node, self.report);
                }
            }
        }
        table.0.insert("kind".to_owned(), kinds);
    }

    fn vars_of_command_line(&mut self) {
        self.front.vars = self.bundle.vars.clone();
    }

    /// One file with everything below it.
    fn file(&mut self, mut tree: Table, above: Scope, includes: Vec<Node>, depth: usize, procfile: bool) {
        let profiles = tree.remove("profile");
        let selected = self.selected(profiles.as_ref());
        for (_, profile) in &selected {
            let mut shared = profile.clone();
            shared
                .0
                .retain(|name, _| !["job", "task", "queue", "template"].contains(&name.as_str()));
            tree.overlay(&shared);
        }
        let scope = self.scope(&tree, above);
        let index = self.front.scopes.len();
        self.front.scopes.push(scope.clone());
        for (order, mut profile) in selected {
            for (name, kind) in [
                ("template", Laid::Template),
                ("job", Laid::Job),
                ("task", Laid::Task),
                ("queue", Laid::Queue),
            ] {
                let Some(crate::node::Item::Table(table)) = profile.remove(name).map(|node| node.item) else {
                    continue;
                };
                let overlays = table.0.into_iter();
                self.overlays.extend(overlays.map(|(name, entry)| Overlay {
                    order,
                    scope: index,
                    kind,
                    name,
                    entry,
                }));
            }
        }
        if let Some(vars) = tree.get_table("vars") {
            for (name, entry) in vars.iter() {
                self.front.declared_vars.insert(name.to_owned());
                if let Some(text) = crate::kind::scalar(&entry.node) {
                    self.front.vars.entry(name.to_owned()).or_insert(text);
                }
            }
        }
        self.nodes(&mut tree);
        self.webhooks(&mut tree, index);
        self.objects(&mut tree, index, procfile);
        self.schedules(&mut tree, index);
        for list in includes {
            for (pattern, span) in list.texts() {
                self.include(pattern, span, &scope, depth);
            }
        }
    }

    /// The selected profiles of a file, weakest first, each with its place in the selection.
    fn selected(&self, profiles: Option<&Node>) -> Vec<(usize, Table)> {
        let Some(profiles) = profiles.and_then(Node::as_table) else {
            return Vec::new();
        };
        let named = self.bundle.profiles.iter().enumerate();
        named
            .filter_map(|(order, name)| Some((order, profiles.get_table(name)?.clone())))
            .collect()
    }

    fn scope(&mut self, tree: &Table, above: Scope) -> Scope {
        let mut scope = above;
        if let Some(node) = tree.get("session")
            && let Some(name) = node.as_str()
        {
            scope.session = Some((name.to_owned(), node.span));
            if let Err(error) = gaffer_core::name::Name::parse(name) {
                self.report.error(node.span, "session", error.to_string(), "");
            }
        }
        if let Some(defaults) = tree.get_table("defaults") {
            let mut defaults = defaults.clone();
            for (kind, known) in [
                ("job", &mut scope.defaults_job),
                ("step", &mut scope.defaults_step),
                ("queue", &mut scope.defaults_queue),
            ] {
                if let Some(node) = defaults.remove(kind)
                    && let Some(table) = node.as_table()
                {
                    known.overlay(table);
                }
            }
            if let Some(env) = defaults.remove("env")
                && let Some(env) = env.as_table()
            {
                scope.env.overlay(env);
            }
            scope.defaults.overlay(&defaults);
        }
        if let Some(env) = tree.get_table("env") {
            scope.env.overlay(env);
        }
        if let Some(files) = tree.get("env_file") {
            scope.env_files.extend(
                files
                    .texts()
                    .into_iter()
                    .map(|(path, span)| (path.to_owned(), span)),
            );
        }
        scope
    }

    fn objects(&mut self, tree: &mut Table, scope: usize, procfile: bool) {
        use crate::node::Item;
        if let Some(Entry { key, node }) = tree.0.remove("gaffer")
            && let Item::Table(table) = node.item
        {
            match &self.front.daemon {
                Some((_, first)) => {
                    let help = format!("first in {}", self.report.place(*first));
                    self.report.error(key, "gaffer", "[gaffer] is there twice", &help);
                }
                None => self.front.daemon = Some((table, key)),
            }
        }
        if let Some(Item::Table(templates)) = tree.remove("template").map(|node| node.item) {
            for (name, Entry { key, node }) in templates.0 {
                let Item::Table(table) = node.item else { continue };
                if let Some(first) = self.front.templates.get(&name).and_then(|layers| layers.first()) {
                    let help = format!("first in {}", self.report.place(first.1));
                    self.report
                        .error(key, "", format!("template `{name}` is defined twice"), &help);
                    continue;
                }
                self.front.templates.insert(name, vec![(table, key)]);
            }
        }
        self.tasks(tree, scope);
        self.queues(tree, scope);
        let Some(Item::Table(jobs)) = tree.remove("job").map(|node| node.item) else {
            return;
        };
        for (key_name, Entry { key, node }) in jobs.0 {
            let Item::Table(table) = node.item else { continue };
            let (session, name) = self.identity(scope, &key_name, &table);
            let id = (session.clone(), name.clone());
            if let Some(first) = self.front.jobs.get(&id) {
                let help = format!("first in {}", self.report.place(first.span));
                self.report.error(
                    key,
                    &format!("job.{name}"),
                    format!("job `{name}` is defined twice"),
                    &help,
                );
                continue;
            }
            let def = JobDef {
                name,
                session,
                span: key,
                scope,
                layers: vec![table],
                procfile,
            };
            self.front.jobs.insert(id, def);
        }
    }

    fn include(&mut self, pattern: &str, span: Span, scope: &Scope, depth: usize) {
        let folder = self.report.folder_of(span).unwrap_or(Path::new("/")).to_owned();
        let full = folder.join(pattern);
        let found = if is_glob(pattern) {
            self.source.glob(&full)
        } else {
            vec![full]
        };
        if depth >= INCLUDE_DEPTH_MAX {
            self.report.error(
                span,
                "include",
                format!("`include` is more than {INCLUDE_DEPTH_MAX} deep"),
                "",
            );
            return;
        }
        for path in found {
            if !self.read.insert(path.clone()) {
                continue;
            }
            let kind = kind_of(&path).unwrap_or(Kind::Toml);
            let Some(mut tree) = self.tree(&path, kind, Some(span)) else {
                continue;
            };
            let includes = tree.remove("include").into_iter().collect();
            self.file(tree, scope.clone(), includes, depth + 1, kind == Kind::Procfile);
        }
    }

    /// Lays the objects of profiles over those of the files; what is new exists only in the profile.
    fn lay_over(&mut self) {
        let mut overlays = std::mem::take(&mut self.overlays);
        overlays.sort_by_key(|overlay| overlay.order);
        for Overlay {
            scope,
            kind,
            name,
            entry,
            ..
        } in overlays
        {
            let crate::node::Item::Table(table) = entry.node.item else {
                continue;
            };
            if kind == Laid::Template {
                self.front
                    .templates
                    .entry(name)
                    .or_default()
                    .push((table, entry.key));
                continue;
            }
            let (session, name) = self.identity(scope, &name, &table);
            let id = (session.clone(), name.clone());
            if kind == Laid::Task {
                let new = || TaskDef {
                    name,
                    session,
                    span: entry.key,
                    scope,
                    layers: Vec::new(),
                };
                self.front.tasks.entry(id).or_insert_with(new).layers.push(table);
                continue;
            }
            if kind == Laid::Queue {
                let new = || QueueDef {
                    name,
                    session,
                    span: entry.key,
                    scope,
                    layers: Vec::new(),
                };
                self.front.queues.entry(id).or_insert_with(new).layers.push(table);
                continue;
            }
            match self.front.jobs.get_mut(&id) {
                Some(job) => job.layers.push(table),
                None => {
                    let def = JobDef {
                        name,
                        session,
                        span: entry.key,
                        scope,
                        layers: vec![table],
                        procfile: false,
                    };
                    self.front.jobs.insert(id, def);
                }
            }
        }
    }

    /// A selected profile must be somewhere.
    fn check_profiles(&mut self) {
        let jobs = self.front.jobs.values().flat_map(|job| &job.layers);
        let tasks = self.front.tasks.values().flat_map(|task| &task.layers);
        let queues = self.front.queues.values().flat_map(|queue| &queue.layers);
        for table in jobs.chain(tasks).chain(queues) {
            if let Some(list) = table.get("profiles") {
                self.profiles_seen
                    .extend(list.texts().into_iter().map(|(name, _)| name.to_owned()));
            }
        }
        for name in &self.bundle.profiles {
            if self.profiles_seen.contains(name) {
                continue;
            }
            let near = crate::suggest::nearest(name, self.profiles_seen.iter().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None if self.profiles_seen.is_empty() => "the file has none".to_owned(),
                None => {
                    let all: Vec<&str> = self.profiles_seen.iter().map(String::as_str).collect();
                    format!("there are {}", all.join(", "))
                }
            };
            self.report.error(
                Span::NONE,
                "profile",
                format!("there is no profile `{name}`"),
                &help,
            );
        }
    }
}
