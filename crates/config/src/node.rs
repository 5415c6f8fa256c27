//! A value that knows where it was written: the tree that every format becomes.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A part of a file: bytes `start..end` of the file with this index in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub file: u32,
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Of values that nobody wrote.
    pub const NONE: Span = Span {
        file: u32::MAX,
        start: 0,
        end: 0,
    };

    pub fn new(file: u32, range: std::ops::Range<usize>) -> Span {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span {
            file,
            start: offset(range.start),
            end: offset(range.end),
        }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub item: Item,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum Item {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Node>),
    Table(Table),
    /// What no key takes: a date, a null. The text is what it is called.
    Other(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Of the key.
    pub key: Span,
    pub node: Node,
}

/// Keys in order of their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(pub BTreeMap<String, Entry>);

impl Node {
    pub fn new(item: Item, span: Span) -> Node {
        Node { item, span }
    }

    pub fn str(text: impl Into<String>, span: Span) -> Node {
        Node {
            item: Item::Str(text.into()),
            span,
        }
    }

    pub fn table(table: Table, span: Span) -> Node {
        Node {
            item: Item::Table(table),
            span,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.item {
            Item::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_table(&self) -> Option<&Table> {
        match &self.item {
            Item::Table(table) => Some(table),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.item {
            Item::List(list) => Some(list),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self.item {
            Item::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// What it is, for messages: `a number`.
    pub fn kind(&self) -> &'static str {
        match &self.item {
            Item::Str(_) => "a text",
            Item::Int(_) => "a number",
            Item::Float(_) => "a number with a fraction",
            Item::Bool(_) => "true or false",
            Item::List(_) => "a list",
            Item::Table(_) => "a table",
            Item::Other(what) => what,
        }
    }

    /// Texts of a list of texts, or the single text.
    pub fn texts(&self) -> Vec<(&str, Span)> {
        match &self.item {
            Item::Str(text) => vec![(text, self.span)],
            Item::List(list) => list
                .iter()
                .filter_map(|one| Some((one.as_str()?, one.span)))
                .collect(),
            _ => Vec::new(),
        }
    }

    pub fn to_json(&self) -> Value {
        match &self.item {
            Item::Str(text) => Value::from(text.as_str()),
            Item::Int(number) => Value::from(*number),
            Item::Float(number) => Value::from(*number),
            Item::Bool(value) => Value::from(*value),
            Item::List(list) => Value::Array(list.iter().map(Node::to_json).collect()),
            Item::Table(table) => table.to_json(),
            Item::Other(_) => Value::Null,
        }
    }

    pub fn from_json(value: &Value) -> Node {
        let item = match value {
            Value::Null => Item::Other("null"),
            Value::Bool(value) => Item::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) => Item::Int(int),
                (None, Some(float)) => Item::Float(float),
                (None, None) => Item::Other("a number that is too large"),
            },
            Value::String(text) => Item::Str(text.clone()),
            Value::Array(list) => Item::List(list.iter().map(Node::from_json).collect()),
            Value::Object(map) => Item::Table(
                map.iter()
                    .map(|(key, value)| (key.clone(), Node::from_json(value)))
                    .collect(),
            ),
        };
        Node {
            item,
            span: Span::NONE,
        }
    }
}

impl FromIterator<(String, Node)> for Table {
    fn from_iter<T: IntoIterator<Item = (String, Node)>>(entries: T) -> Table {
        let entry = |(key, node): (String, Node)| (key, Entry { key: node.span, node });
        Table(entries.into_iter().map(entry).collect())
    }
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.0.get(key).map(|entry| &entry.node)
    }

    pub fn get_table(&self, key: &str) -> Option<&Table> {
        self.get(key).and_then(Node::as_table)
    }

    /// The node at a dotted path.
    pub fn at(&self, path: &str) -> Option<&Node> {
        match path.split_once('.') {
            None => self.get(path),
            Some((first, rest)) => self.get_table(first)?.at(rest),
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Node> {
        self.0.remove(key).map(|entry| entry.node)
    }

    /// Puts a value that takes its key's place from the value.
    pub fn put(&mut self, key: impl Into<String>, node: Node) {
        let key_span = node.span;
        self.0.insert(key.into(), Entry { key: key_span, node });
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// Entries in the order of the file.
    pub fn in_order(&self) -> Vec<(&str, &Entry)> {
        let mut entries: Vec<_> = self.iter().collect();
        entries.sort_by_key(|(_, entry)| (entry.key.file, entry.key.start));
        entries
    }

    /// Entries in the order of their names: what does not depend on how a file is arranged.
    pub fn in_order_by_name(&self) -> Vec<(&str, &Entry)> {
        self.iter().collect()
    }

    pub fn to_json(&self) -> Value {
        // `Map` keeps the order of insertion: sorted here, so the text is canonical.
        let map: Map<String, Value> = self
            .iter()
            .map(|(key, entry)| (key.to_owned(), entry.node.to_json()))
            .collect();
        Value::Object(map)
    }

    /// Lays `over` on top: tables key by key, everything else replaces.
    pub fn overlay(&mut self, over: &Table) {
        for (key, entry) in &over.0 {
            match self.0.get_mut(key) {
                Some(mine) => {
                    if let (Item::Table(below), Item::Table(above)) = (&mut mine.node.item, &entry.node.item)
                    {
                        below.overlay(above);
                    } else {
                        *mine = entry.clone();
                    }
                }
                None => {
                    self.0.insert(key.clone(), entry.clone());
                }
            }
        }
    }

    /// Takes a dotted path out; was it there?
    pub fn unset(&mut self, path: &str) -> bool {
        match path.split_once('.') {
            None => self.0.remove(path).is_some(),
            Some((first, rest)) => match self.0.get_mut(first).map(|entry| &mut entry.node.item) {
                Some(Item::Table(table)) => table.unset(rest),
                _ => false,
            },
        }
    }
}
