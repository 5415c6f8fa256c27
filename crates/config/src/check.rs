//! Is a table made of known keys with values of the right kind? Looked at where it is written, so that each
//! mistake is told once and in its place, however many jobs inherit it.

use crate::keys::{self, Key, Use};
use crate::kind::Type;
use crate::node::{Entry, Node, Table};
use crate::report::Report;

/// A table under examination.
pub(crate) struct Checked<'a> {
    /// Which keys there are.
    pub keys: &'static [Key],
    /// `job.web.`, for the paths of diagnostics.
    pub path: &'a str,
    /// `job `web``, for messages.
    pub what: &'a str,
    /// Keys of this use are not allowed: jobs' keys in `[defaults]`, `extends` and the like in both of them.
    pub without: Option<Use>,
    /// Text that gaffer itself wrote: keys that it adds are allowed.
    pub written: bool,
}

/// What gaffer adds to the text of the store.
pub(crate) const WRITTEN: &[&str] = &["env_digest", "env_layers", "env_without", "run_as"];

impl Checked<'_> {
    /// Reports every mistake in the table.
    pub fn check(&self, table: &Table, report: &mut Report) {
        self.level("", table, report);
    }

    fn level(&self, prefix: &str, table: &Table, report: &mut Report) {
        for (name, entry) in table.in_order() {
            if self.written && prefix.is_empty() && WRITTEN.contains(&name) {
                continue;
            }
            self.entry(prefix, name, entry, report);
        }
    }

    fn entry(&self, prefix: &str, name: &str, entry: &Entry, report: &mut Report) {
        let whole = format!("{prefix}{name}");
        let place = format!("{}{whole}", self.path);
        let Some(key) = keys::find(self.keys, &whole) else {
            let help = keys::hint(self.keys, prefix, name);
            let message = format!("unknown key `{whole}` in {}", self.what);
            report.error(entry.key, &place, message, &help);
            return;
        };
        if let Some((message, help)) = self.refusal(key, &whole) {
            report.error(entry.key, &place, message, help);
            return;
        }
        if let (Type::Table, Some(below)) = (key.ty, entry.node.as_table()) {
            self.level(&format!("{whole}."), below, report);
            return;
        }
        let (target, ty) = match key.short {
            Some(short) => {
                let path = format!("{whole}.{short}");
                let ty = keys::find(self.keys, &path).map_or(key.ty, |key| key.ty);
                (path, ty)
            }
            None => (whole, key.ty),
        };
        report_problem(ty, &target, &place, &entry.node, report);
    }

    /// Why a known key may not stand here, and what to do.
    fn refusal(&self, key: &Key, whole: &str) -> Option<(String, &'static str)> {
        match key.used {
            Use::NotYet => Some((format!("`{whole}` is not yet supported"), "leave it out")),
            Use::Refused(help) => Some((format!("`{whole}` has no meaning in {}", self.what), help)),
            Use::Job if self.without == Some(Use::Job) => Some((
                format!("`{whole}` is a key of jobs"),
                "put it into [defaults.job]",
            )),
            Use::File if self.without.is_some() => {
                Some((format!("`{whole}` has no meaning in {}", self.what), ""))
            }
            Use::File if self.written => {
                Some((format!("`{whole}` is understood in files only"), "leave it out"))
            }
            Use::Run | Use::Job | Use::File => None,
        }
    }
}

/// Checks one value.
pub(crate) fn report_problem(ty: Type, name: &str, place: &str, node: &Node, report: &mut Report) {
    if let Err(problem) = ty.check(node) {
        report.error(
            problem.span,
            place,
            format!("`{name}` {}", problem.says),
            &problem.help,
        );
    }
}

/// Puts plain values that stand for a table into that table: `stop = "10s"` is `stop.timeout = "10s"`.
pub(crate) fn lengthen(keys: &'static [Key], table: &mut Table) {
    for key in keys {
        let Some(short) = key.short else { continue };
        let Some(entry) = table.0.get_mut(key.path) else {
            continue;
        };
        if entry.node.as_table().is_none() {
            let span = entry.node.span;
            let below = Table::from_iter([(short.to_owned(), entry.node.clone())]);
            entry.node = Node::table(below, span);
        }
    }
}
