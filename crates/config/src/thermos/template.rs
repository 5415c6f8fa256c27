//! Templates of task files of the original: `{{reference}}`, from the innermost scope outwards, until nothing changes.
//!
//! A reference is an identifier, then any number of `.identifier` or `[index]`, without blanks. `{{&x}}` is the text `{{x}}`
//! and never a reference. Single braces, `${…}` and `$(…)` are the shell's.

use crate::node::{Item, Node, Table};
use std::collections::{BTreeMap, BTreeSet};

/// Passes after which a text that still changes is given up.
const PASSES_MAX: usize = 100;

/// Stand for `{{` and `}}` of an escaped reference until the end: neither may occur in a task.
const OPEN: char = '\u{1}';
const CLOSE: char = '\u{2}';

/// Where values come from, innermost first.
pub(super) struct Scopes<'a> {
    /// The struct that the text is in, then those around it.
    pub structs: Vec<&'a Table>,
    /// `-E NAME=VALUE`; a name may be a path.
    pub bindings: &'a BTreeMap<String, String>,
    /// `thermos.task_id`, `thermos.user`, `thermos.ports[NAME]`.
    pub built_in: &'a BTreeMap<String, String>,
}

/// A text with everything filled in, and the references that have no value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filled {
    pub text: String,
    pub missing: BTreeSet<String>,
    /// It was still changing when it was given up.
    pub endless: bool,
}

impl Scopes<'_> {
    /// Fills in a text.
    pub fn fill(&self, text: &str) -> Filled {
        let mut filled = Filled {
            text: text.to_owned(),
            ..Filled::default()
        };
        for _ in 0..PASSES_MAX {
            let (next, missing) = self.pass(&filled.text);
            filled.missing = missing;
            if next == filled.text {
                filled.text = next.replace(OPEN, "{{").replace(CLOSE, "}}");
                return filled;
            }
            filled.text = next;
        }
        filled.endless = true;
        filled
    }

    /// One pass over the innermost references.
    fn pass(&self, text: &str) -> (String, BTreeSet<String>) {
        let mut out = String::with_capacity(text.len());
        let mut missing = BTreeSet::new();
        let mut rest = text;
        while let Some(close) = rest.find("}}") {
            let Some(open) = rest[..close].rfind("{{") else {
                out.push_str(&rest[..close + 2]);
                rest = &rest[close + 2..];
                continue;
            };
            let inner = &rest[open + 2..close];
            out.push_str(&rest[..open]);
            match inner.strip_prefix('&') {
                Some(name) if is_reference(name) => {
                    out.push(OPEN);
                    out.push_str(name);
                    out.push(CLOSE);
                }
                _ => match self.value(inner) {
                    Some(value) => out.push_str(&value),
                    None => {
                        missing.insert(inner.to_owned());
                        out.push_str(&rest[open..close + 2]);
                    }
                },
            }
            rest = &rest[close + 2..];
        }
        out.push_str(rest);
        (out, missing)
    }

    fn value(&self, name: &str) -> Option<String> {
        if !is_reference(name) {
            return None;
        }
        if let Some(own) = name.strip_prefix("self.") {
            return in_struct(self.structs.first()?, own);
        }
        if let Some(outer) = name.strip_prefix("super.") {
            return in_struct(self.structs.get(1)?, outer);
        }
        let found = self.structs.iter().find_map(|table| in_struct(table, name));
        found
            .or_else(|| self.bindings.get(name).cloned())
            .or_else(|| self.built_in.get(name).cloned())
    }
}

/// A scalar member of a struct, by a dotted path.
fn in_struct(table: &Table, path: &str) -> Option<String> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let node = table.get(name)?;
    match (rest, &node.item) {
        (None, _) => scalar(node),
        (Some(rest), Item::Table(below)) => in_struct(below, rest),
        (Some(_), _) => None,
    }
}

fn scalar(node: &Node) -> Option<String> {
    match &node.item {
        Item::Str(text) => Some(text.clone()),
        Item::Int(number) => Some(number.to_string()),
        Item::Float(number) => Some(number.to_string()),
        Item::Bool(value) => Some(value.to_string()),
        Item::List(_) | Item::Table(_) | Item::Other(_) => None,
    }
}

/// `a`, `a.b`, `a[b-1].c`.
pub(super) fn is_reference(text: &str) -> bool {
    let mut rest = text;
    if !identifier(&mut rest) {
        return false;
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            if !identifier(&mut rest) {
                return false;
            }
        } else if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = after.find(']') else {
                return false;
            };
            let index = &after[..end];
            let good = |one: char| one.is_alphanumeric() || "_-./".contains(one);
            if index.is_empty() || !index.chars().all(good) {
                return false;
            }
            rest = &after[end + 1..];
        } else {
            return false;
        }
    }
    true
}

fn identifier(rest: &mut &str) -> bool {
    let good = |one: char| one.is_ascii_alphanumeric() || one == '_';
    let end = rest.find(|one| !good(one)).unwrap_or(rest.len());
    let begins = rest.starts_with(|one: char| one.is_ascii_alphabetic() || one == '_');
    *rest = &rest[end..];
    begins && end > 0
}

/// Names in `thermos.ports[NAME]` in a text, filled in or not.
pub(super) fn ports(text: &str) -> BTreeSet<String> {
    const BEGIN: &str = "{{thermos.ports[";
    let mut found = BTreeSet::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        rest = &rest[at + BEGIN.len()..];
        if let Some(end) = rest.find(']') {
            found.insert(rest[..end].to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fill(text: &str, bindings: &[(&str, &str)]) -> Filled {
        let node = Node::from_json(&json!({"name": "zz", "resources": {"cpu": 1.5}, "cmdline": "x"}));
        let outer = Node::from_json(&json!({"name": "outer", "user": "ana"}));
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let bindings: BTreeMap<String, String> = bindings.iter().map(pair).collect();
        let built_in = BTreeMap::from([
            ("thermos.task_id".to_owned(), "id-1".to_owned()),
            ("thermos.ports[http]".to_owned(), "8080".to_owned()),
        ]);
        let scopes = Scopes {
            structs: vec![
                node.as_table().expect("a table"),
                outer.as_table().expect("a table"),
            ],
            bindings: &bindings,
            built_in: &built_in,
        };
        scopes.fill(text)
    }

    fn text(filled: Filled) -> String {
        assert_eq!((filled.missing.len(), filled.endless), (0, false), "{filled:?}");
        filled.text
    }

    #[test]
    fn s13_what_is_escaped_or_the_shells_stays() {
        assert_eq!(text(fill("{{&foo}} ${x} $(y) {z}", &[])), "{{foo}} ${x} $(y) {z}");
    }

    #[test]
    fn s14_the_closest_scope_wins() {
        assert_eq!(
            text(fill("echo {{name}} {{super.name}} {{self.name}} {{user}}", &[])),
            "echo zz outer zz ana"
        );
        assert_eq!(text(fill("{{resources.cpu}}", &[])), "1.5");
    }

    #[test]
    fn what_is_built_in_and_what_is_bound() {
        assert_eq!(
            text(fill("{{thermos.task_id}}:{{thermos.ports[http]}}", &[])),
            "id-1:8080"
        );
        assert_eq!(
            text(fill("{{profile.version}}", &[("profile.version", "7=8")])),
            "7=8"
        );
    }

    #[test]
    fn an_inner_reference_may_make_an_outer_one() {
        let bindings = [("which", "b"), ("a_b", "found"), ("twice", "{{which}}")];
        assert_eq!(text(fill("{{a_{{which}}}}", &bindings)), "found");
        assert_eq!(text(fill("{{twice}}", &bindings)), "b");
    }

    #[test]
    fn what_has_no_value_is_named() {
        let filled = fill("{{foo}} {{ name }} {{thermos.ports.http}}", &[]);
        let missing: Vec<&str> = filled.missing.iter().map(String::as_str).collect();
        assert_eq!(missing, [" name ", "foo", "thermos.ports.http"]);
        assert!(fill("{{x}}", &[("x", "{{x}}y")]).endless);
    }

    #[test]
    fn the_grammar_of_references() {
        for good in ["a", "_a1", "a.b", "a[b]", "a[b-1.c/d].e"] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", "1a", "a.", "a b", "a[", "a[]", "a[x y]", ".a", "a..b"] {
            assert!(!is_reference(bad), "{bad}");
        }
        assert_eq!(ports("{{thermos.ports[a]}} {{thermos.ports[b]}}").len(), 2);
    }
}
