//! What the files say, object by object, before anything is given a meaning.

use crate::env_text::{self, Variables};
use crate::node::{Span, Table};
use crate::report::Report;
use crate::source::Unread;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What all objects of a file inherit; an included file adds to what its includer has.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    pub session: Option<(String, Span)>,
    /// `[defaults]` of the chain, without `env`.
    pub defaults: Table,
    /// `[defaults.job]`.
    pub defaults_job: Table,
    /// `[defaults.step]`.
    pub defaults_step: Table,
    /// `[defaults.queue]`.
    pub defaults_queue: Table,
    /// `[env]` and `[defaults.env]`.
    pub env: Table,
    /// `env_file` at the top of the files.
    pub env_files: Vec<(String, Span)>,
}

/// A job as written.
pub(crate) struct JobDef {
    pub name: String,
    pub session: String,
    /// Of its header.
    pub span: Span,
    pub scope: usize,
    /// The object, then what selected profiles lay over it.
    pub layers: Vec<Table>,
    /// From a Procfile: `.env` may name it in `GAFFER_REDIRECT_INPUT`.
    pub procfile: bool,
}

/// A task as written, with its steps in `step`.
pub(crate) struct TaskDef {
    pub name: String,
    pub session: String,
    /// Of its header.
    pub span: Span,
    pub scope: usize,
    /// The object, then what selected profiles lay over it.
    pub layers: Vec<Table>,
}

/// A queue as written, with its kinds in `kind`.
pub(crate) struct QueueDef {
    pub name: String,
    pub session: String,
    /// Of its header.
    pub span: Span,
    pub scope: usize,
    /// The object, then what selected profiles lay over it.
    pub layers: Vec<Table>,
}

/// A webhook as written.
pub(crate) struct WebhookDef {
    pub name: String,
    pub session: String,
    /// Of its header.
    pub span: Span,
    pub table: Table,
}

/// A schedule as written.
pub(crate) struct ScheduleDef {
    pub name: String,
    pub session: String,
    /// Of its header.
    pub span: Span,
    pub table: Table,
}

/// Everything the files say, before anything is given a meaning.
pub(crate) struct Front {
    pub scopes: Vec<Scope>,
    pub jobs: BTreeMap<(String, String), JobDef>,
    pub tasks: BTreeMap<(String, String), TaskDef>,
    pub queues: BTreeMap<(String, String), QueueDef>,
    pub templates: BTreeMap<String, Vec<(Table, Span)>>,
    pub vars: BTreeMap<String, String>,
    /// Names of `[vars]` of all files.
    pub declared_vars: BTreeSet<String>,
    pub daemon: Option<(Table, Span)>,
    /// `[node.X]` by name, each with its place.
    pub nodes: BTreeMap<String, (Table, Span)>,
    pub webhooks: BTreeMap<(String, String), WebhookDef>,
    pub schedules: BTreeMap<(String, String), ScheduleDef>,
    pub session: String,
    /// Contents of files of variables, by path; none: it is missing.
    pub variables: BTreeMap<PathBuf, Option<Rc<Variables>>>,
}

impl Front {
    /// Variables of a file, read once. None: it is missing, or was told to the report.
    pub fn variables(
        &mut self,
        path: &Path,
        read: impl FnOnce() -> Result<String, Unread>,
        report: &mut Report,
        span: Span,
    ) -> Option<Rc<Variables>> {
        if let Some(known) = self.variables.get(path) {
            return known.clone();
        }
        let found = match read() {
            Ok(text) => {
                let file = report.add_private_file(path, &text);
                Some(Rc::new(env_text::parse(&text, file, report)))
            }
            Err(Unread::Missing) => None,
            Err(Unread::Failed(why)) => {
                report.error(
                    span,
                    "env_file",
                    format!("cannot read {}: {why}", path.display()),
                    "",
                );
                // Told once; an empty file is not told again as missing.
                Some(Rc::new(Variables::new()))
            }
        };
        self.variables.insert(path.to_owned(), found.clone());
        found
    }
}
