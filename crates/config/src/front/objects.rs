//! Objects of a file that are read one by one: each has a name in a session, and is there once.

use super::Loader;
use crate::defs::{QueueDef, ScheduleDef, TaskDef, WebhookDef};
use crate::node::{Entry, Item, Node, Span, Table};

/// An object as it stands in a file.
struct Object {
    session: String,
    name: String,
    span: Span,
    table: Table,
}

impl Object {
    fn id(&self) -> (String, String) {
        (self.session.clone(), self.name.clone())
    }
}

impl Loader<'_> {
    /// The objects of a kind; what is no table has been told.
    fn take_all(&mut self, tree: &mut Table, kind: &str, scope: usize) -> Vec<Object> {
        let Some(Item::Table(all)) = tree.remove(kind).map(|node| node.item) else {
            return Vec::new();
        };
        let tables = all
            .0
            .into_iter()
            .filter_map(|(name, Entry { key, node })| match node.item {
                Item::Table(table) => Some((name, key, table)),
                _ => None,
            });
        let object = |(name, span, table): (String, Span, Table)| {
            let (session, name) = self.identity(scope, &name, &table);
            Object {
                session,
                name,
                span,
                table,
            }
        };
        tables.map(object).collect()
    }

    /// There was one of this name before: that is told.
    fn is_twice(&mut self, kind: &str, object: &Object, first: Option<Span>) -> bool {
        let Some(first) = first else {
            return false;
        };
        let name = &object.name;
        let help = format!("first in {}", self.report.place(first));
        let message = format!("{kind} `{name}` is defined twice");
        self.report
            .error(object.span, &format!("{kind}.{name}"), message, &help);
        true
    }

    /// Nodes are in no session.
    pub(super) fn nodes(&mut self, tree: &mut Table) {
        let Some(Item::Table(all)) = tree.remove("node").map(|node| node.item) else {
            return;
        };
        for (name, Entry { key, node }) in all.0 {
            let Item::Table(table) = node.item else { continue };
            if let Some((_, first)) = self.front.nodes.get(&name) {
                let help = format!("first in {}", self.report.place(*first));
                let message = format!("node `{name}` is defined twice");
                self.report.error(key, &format!("node.{name}"), message, &help);
                continue;
            }
            self.front.nodes.insert(name, (table, key));
        }
    }

    pub(super) fn webhooks(&mut self, tree: &mut Table, scope: usize) {
        for object in self.take_all(tree, "webhook", scope) {
            let first = self.front.webhooks.get(&object.id()).map(|first| first.span);
            if self.is_twice("webhook", &object, first) {
                continue;
            }
            let id = object.id();
            let def = WebhookDef {
                name: object.name,
                session: object.session,
                span: object.span,
                table: object.table,
            };
            self.front.webhooks.insert(id, def);
        }
    }

    pub(super) fn tasks(&mut self, tree: &mut Table, scope: usize) {
        for object in self.take_all(tree, "task", scope) {
            self.put_task(object, scope);
        }
    }

    fn put_task(&mut self, object: Object, scope: usize) {
        let first = self.front.tasks.get(&object.id()).map(|first| first.span);
        if self.is_twice("task", &object, first) {
            return;
        }
        let id = object.id();
        let def = TaskDef {
            name: object.name,
            session: object.session,
            span: object.span,
            scope,
            layers: vec![object.table],
        };
        self.front.tasks.insert(id, def);
    }

    pub(super) fn queues(&mut self, tree: &mut Table, scope: usize) {
        for object in self.take_all(tree, "queue", scope) {
            let first = self.front.queues.get(&object.id()).map(|first| first.span);
            if self.is_twice("queue", &object, first) {
                continue;
            }
            let id = object.id();
            let def = QueueDef {
                name: object.name,
                session: object.session,
                span: object.span,
                scope,
                layers: vec![object.table],
            };
            self.front.queues.insert(id, def);
        }
    }

    /// Schedules, and the tasks that those with `cmd` start. After the tasks of the file.
    pub(super) fn schedules(&mut self, tree: &mut Table, scope: usize) {
        for mut object in self.take_all(tree, "schedule", scope) {
            let profiles = object.table.get("profiles").map(Node::texts).unwrap_or_default();
            self.profiles_seen
                .extend(profiles.iter().map(|(name, _)| (*name).to_owned()));
            let selected = |(name, _): &(&str, Span)| self.bundle.profiles.iter().any(|known| known == name);
            if !profiles.is_empty() && !profiles.iter().any(selected) {
                continue;
            }
            let first = self.front.schedules.get(&object.id()).map(|first| first.span);
            if self.is_twice("schedule", &object, first) {
                continue;
            }
            if let Some(table) = crate::schedule::take_command(&object.name, &mut object.table, self.report) {
                let command = Object {
                    session: object.session.clone(),
                    name: object.name.clone(),
                    span: object.span,
                    table,
                };
                self.put_task(command, scope);
            }
            let id = object.id();
            let def = ScheduleDef {
                name: object.name,
                session: object.session,
                span: object.span,
                table: object.table,
            };
            self.front.schedules.insert(id, def);
        }
    }

    /// Session and name of an object. Importers write `session\0name` where two sessions have a job of one name.
    pub(super) fn identity(&self, scope: usize, key: &str, table: &Table) -> (String, String) {
        let name = key.split_once('\0').map_or(key, |(_, name)| name);
        let own = table.get("session").and_then(Node::as_str).map(str::to_owned);
        let session = own.or_else(|| self.front.scopes[scope].session.clone().map(|(name, _)| name));
        (session.unwrap_or_else(|| "default".to_owned()), name.to_owned())
    }
}
