//! Kinds of values: what a key takes, checked and read. A problem is said as the rest of a sentence that
//! begins with the key: "`stop.timeout` **is a duration and needs a unit**".

use crate::node::{Item, Node, Span};
use crate::units::{UnitError, exact_size, parse_duration, parse_size};
use gaffer_core::job::{Batch, ExitMatch, Port};
use std::time::Duration;

/// What is wrong with a value.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub says: String,
    pub help: String,
    pub span: Span,
}

pub(crate) type Read<T> = Result<T, Problem>;

pub(crate) fn problem<T>(node: &Node, says: impl Into<String>, help: impl Into<String>) -> Read<T> {
    Err(Problem {
        says: says.into(),
        help: help.into(),
        span: node.span,
    })
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Type {
    Bool,
    /// Whole number, at least, at most.
    Int(i64, i64),
    /// Whole number, at least; or `"unlimited"`.
    Count(i64),
    /// Number, at least, at most.
    Number(f64, f64),
    Duration,
    Durations,
    Size,
    SizeOrShare,
    /// Percent of one, at least 1.
    Percent,
    /// Numbers and ranges of them: `0-3,8`.
    Numbers,
    Command,
    Text,
    Texts,
    /// Texts, at most so many.
    Labels(usize),
    Name,
    Path,
    Paths,
    Word(&'static [&'static str]),
    Octal,
    Signal,
    Ends,
    User,
    Users,
    Owner,
    Shell,
    Inherit,
    Env,
    Map,
    Rlimits,
    Port,
    Ports,
    Stdin,
    Start,
    After,
    AfterStep,
    /// A list of names, or a list of such lists.
    Order,
    /// Names and defaults.
    Params,
    Batch,
    Regex,
    Redact,
    Url,
    Address,
    True,
    LogTo,
    Empty,
    /// Whatever can be written.
    Any,
    /// Has keys of its own in the table of keys.
    Table,
}

impl Type {
    /// Nothing is wrong with the value, or the first thing that is.
    pub fn check(self, node: &Node) -> Read<()> {
        match self {
            Type::Bool => boolean(node).map(drop),
            Type::Int(min, max) => int(node, min, max).map(drop),
            Type::Count(min) => count(node, min).map(drop),
            Type::Number(min, max) => number(node, min, max).map(drop),
            Type::Duration => duration(node).map(drop),
            Type::Durations => durations(node).map(drop),
            Type::Size => size(node).map(drop),
            Type::SizeOrShare => size_or_share(node),
            Type::Percent => match node.as_str().and_then(percent) {
                Some(1..=100_000) => Ok(()),
                _ => problem(node, "is a share of one core", "write \"150%\""),
            },
            Type::Numbers => match node.as_str() {
                Some(list) if is_numbers(list) => Ok(()),
                _ => problem(node, "is a text of numbers and ranges", "write \"0-3,8\""),
            },
            Type::Command => command_shape(node),
            Type::Text | Type::Path => text(node).map(drop),
            Type::Texts | Type::Paths => texts(node, usize::MAX).map(drop),
            Type::Users => users(node).map(drop),
            Type::Labels(max) => texts(node, max).map(drop),
            Type::Name => text(node).map(drop),
            Type::Word(words) => word(node, words).map(drop),
            Type::Octal => octal(node).map(drop),
            Type::Signal => signal(node).map(drop),
            Type::Ends => ends(node).map(drop),
            Type::User => user(node).map(drop),
            Type::Owner => text(node).map(drop),
            Type::Shell => shell(node).map(drop),
            Type::Inherit => inherit(node),
            Type::Env => env(node),
            Type::Map => map(node),
            Type::Rlimits => crate::rlimit::rlimits(node).map(drop),
            Type::Port => port(node).map(drop),
            Type::Ports => ports(node),
            Type::Stdin => stdin(node),
            Type::Start => start(node),
            Type::After => after_shape(node, CONDITIONS),
            Type::AfterStep => after_shape(node, STEP_CONDITIONS),
            Type::Order => order(node).map(drop),
            Type::Params => params(node).map(drop),
            Type::Batch => batch(node).map(drop),
            Type::Regex => regex(node),
            Type::Redact => redact(node),
            Type::Url => url(node),
            Type::Address => address(node),
            Type::True => match boolean(node)? {
                true => Ok(()),
                false => problem(node, "can only be true", "leave it out instead"),
            },
            Type::LogTo => log_to(node),
            Type::Empty => match node.as_list() {
                Some([]) => Ok(()),
                _ => problem(
                    node,
                    "is not yet supported",
                    "leave it out; `gaffer logs` shows what is kept",
                ),
            },
            Type::Any => Ok(()),
            Type::Table => match node.as_table() {
                Some(_) => Ok(()),
                None => problem(node, format!("is a table, not {}", node.kind()), ""),
            },
        }
    }
}

fn wrong<T>(node: &Node, wanted: &str, help: &str) -> Read<T> {
    match &node.item {
        Item::Other(what) => problem(node, format!("is {wanted}, not {what}"), help),
        _ => problem(node, format!("is {wanted}, not {}", node.kind()), help),
    }
}

pub(crate) fn text(node: &Node) -> Read<&str> {
    match &node.item {
        Item::Str(text) if text.contains('\0') => problem(node, "holds a NUL character", ""),
        Item::Str(text) => Ok(text),
        Item::Int(number) => wrong(node, "a text", &format!("write \"{number}\"")),
        Item::Float(number) => wrong(node, "a text", &format!("write \"{number}\"")),
        Item::Bool(value) => wrong(node, "a text", &format!("write \"{value}\"")),
        _ => wrong(node, "a text", ""),
    }
}

pub(crate) fn boolean(node: &Node) -> Read<bool> {
    match &node.item {
        Item::Bool(value) => Ok(*value),
        Item::Str(word) if ["true", "yes", "on"].contains(&word.to_lowercase().as_str()) => {
            wrong(node, "true or false", "write true, without quotes")
        }
        Item::Str(word) if ["false", "no", "off"].contains(&word.to_lowercase().as_str()) => {
            wrong(node, "true or false", "write false, without quotes")
        }
        _ => wrong(node, "true or false", ""),
    }
}

pub(crate) fn int(node: &Node, min: i64, max: i64) -> Read<i64> {
    let Item::Int(number) = node.item else {
        let help = match node.as_str().map(str::parse::<i64>) {
            Some(Ok(number)) => format!("write {number}, without quotes"),
            _ => String::new(),
        };
        return wrong(node, "a whole number", &help);
    };
    if number < min {
        let says = if min == 0 {
            "must not be negative".to_owned()
        } else {
            format!("must be at least {min}")
        };
        return problem(node, says, "");
    }
    if number > max {
        return problem(node, format!("must be at most {max}"), "");
    }
    Ok(number)
}

/// None is `"unlimited"`.
pub(crate) fn count(node: &Node, min: i64) -> Read<Option<u32>> {
    if node.as_str() == Some("unlimited") {
        return Ok(None);
    }
    if let Item::Int(-1 | 0) = node.item
        && min > 0
    {
        return problem(
            node,
            format!("must be at least {min}"),
            "without end is \"unlimited\"",
        );
    }
    let number = int(node, min, i64::from(u32::MAX))?;
    Ok(u32::try_from(number).ok())
}

pub(crate) fn number(node: &Node, min: f64, max: f64) -> Read<f64> {
    let number = match node.item {
        Item::Float(number) => number,
        // Whole numbers of a file are far below 2^53.
        Item::Int(number) => number as f64,
        _ => return wrong(node, "a number", ""),
    };
    if number < min {
        return problem(node, format!("must be at least {min}"), "");
    }
    if number > max {
        return problem(node, format!("must be at most {max}"), "");
    }
    Ok(number)
}

pub(crate) fn duration(node: &Node) -> Read<Duration> {
    let text = match &node.item {
        Item::Str(text) => text,
        Item::Int(number) if *number < 0 => {
            return problem(node, "is a duration and must not be negative", "");
        }
        Item::Int(number) => {
            return problem(
                node,
                "is a duration and needs a unit",
                format!("write \"{number}s\""),
            );
        }
        Item::Float(number) => {
            return problem(
                node,
                "is a duration and needs a unit",
                format!("write \"{number}s\""),
            );
        }
        _ => return wrong(node, "a duration", "write \"30s\", \"250ms\", \"1h30m\""),
    };
    parse_duration(text).or_else(|error| match error {
        UnitError::NoUnit => problem(
            node,
            "is a duration and needs a unit",
            format!("write \"{}s\"", text.trim()),
        ),
        UnitError::Negative => problem(node, "is a duration and must not be negative", ""),
        UnitError::UnknownUnit(unit, known) => problem(
            node,
            format!("is a duration, and `{unit}` is not a unit"),
            format!("there are {known}"),
        ),
        UnitError::TooLarge => problem(node, "is longer than a hundred years", ""),
        UnitError::NoNumber => problem(node, "is a duration", "write \"30s\", \"250ms\", \"1h30m\""),
    })
}

pub(crate) fn durations(node: &Node) -> Read<Vec<Duration>> {
    match node.as_list() {
        Some([]) => problem(node, "has no entry", "write one duration, or a list of them"),
        Some(list) if list.len() > 1_000 => problem(node, "has more than 1000 entries", ""),
        Some(list) => list.iter().map(duration).collect(),
        None => Ok(vec![duration(node)?]),
    }
}

pub(crate) fn size(node: &Node) -> Read<u64> {
    let text = match &node.item {
        Item::Str(text) => text,
        Item::Int(number) => {
            let help = match u64::try_from(*number) {
                Ok(bytes) if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => {
                    format!("write \"{}\"", exact_size(bytes))
                }
                Ok(number) => format!("write \"{number}M\", or \"{number}B\" for bytes"),
                Err(_) => String::new(),
            };
            return problem(node, "is a size and needs a unit", help);
        }
        _ => return wrong(node, "a size", "write \"512M\", \"2G\", \"64K\""),
    };
    parse_size(text).or_else(|error| match error {
        UnitError::NoUnit => problem(
            node,
            "is a size and needs a unit",
            format!("write \"{}M\"", text.trim()),
        ),
        UnitError::Negative => problem(node, "is a size and must not be negative", ""),
        UnitError::UnknownUnit(unit, known) => problem(
            node,
            format!("is a size, and `{unit}` is not a unit"),
            format!("there are {known}"),
        ),
        UnitError::TooLarge => problem(node, "is too large", ""),
        UnitError::NoNumber => problem(node, "is a size", "write \"512M\", \"2G\", \"64K\""),
    })
}

/// `50%`.
pub(crate) fn percent(text: &str) -> Option<u32> {
    text.trim().strip_suffix('%')?.trim().parse().ok()
}

fn size_or_share(node: &Node) -> Read<()> {
    match node.as_str().and_then(percent) {
        Some(1..=100) => Ok(()),
        Some(_) => problem(node, "is more than all", "write \"1%\" to \"100%\""),
        None => size(node).map(drop),
    }
}

/// `0-3,8`, as the kernel takes it.
fn is_numbers(list: &str) -> bool {
    list.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) => first <= last,
            _ => false,
        }
    })
}

/// Text or list of texts; its words are looked at where it is resolved.
fn command_shape(node: &Node) -> Read<()> {
    match &node.item {
        Item::Str(text) if text.trim().is_empty() => problem(node, "is empty", "write the program to run"),
        Item::Str(_) => text(node).map(drop),
        Item::List(list) if list.is_empty() => problem(node, "is empty", "write the program to run"),
        Item::List(list) => list.iter().try_for_each(|word| text(word).map(drop)),
        _ => wrong(node, "a command: a text or a list of texts", ""),
    }
}

pub(crate) fn texts(node: &Node, max: usize) -> Read<Vec<&str>> {
    match &node.item {
        Item::Str(_) => Ok(vec![text(node)?]),
        Item::List(list) if list.len() > max => problem(node, format!("has more than {max} entries"), ""),
        Item::List(list) => list.iter().map(text).collect(),
        _ => wrong(node, "a list of texts", ""),
    }
}

pub(crate) fn word(node: &Node, words: &'static [&'static str]) -> Read<&'static str> {
    let known = words
        .iter()
        .map(|word| format!("\"{word}\""))
        .collect::<Vec<_>>()
        .join(", ");
    let Some(text) = node.as_str() else {
        return wrong(node, "a word", &format!("one of {known}"));
    };
    match words.iter().find(|word| **word == text) {
        Some(word) => Ok(word),
        None => {
            let near = crate::suggest::nearest(&text.replace('_', "-"), words.iter().copied());
            let help = match near {
                Some(word) => format!("did you mean \"{word}\"? (one of {known})"),
                None => format!("one of {known}"),
            };
            problem(node, format!("cannot be \"{text}\""), help)
        }
    }
}

/// A mode such as `"022"`.
pub(crate) fn octal(node: &Node) -> Read<u32> {
    match &node.item {
        Item::Str(text) => match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
            Ok(mode) if mode <= 0o777 && !text.starts_with('+') => Ok(mode),
            _ => problem(node, "is three octal digits", "write \"022\""),
        },
        Item::Int(number) => wrong(node, "octal digits in quotes", &format!("write \"{number:03}\"")),
        _ => wrong(node, "octal digits in quotes", "write \"022\""),
    }
}

pub(crate) fn signal(node: &Node) -> Read<i32> {
    match &node.item {
        Item::Int(number) if (1..=64).contains(number) => Ok(i32::try_from(*number).unwrap_or(0)),
        Item::Str(name) => match gaffer_core::signal::parse(name) {
            Some(number) => Ok(number),
            None => {
                let upper = name.trim_start_matches("SIG").to_uppercase();
                let near = crate::suggest::nearest(&upper, gaffer_core::signal::NAMES);
                let help = match near {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "write \"TERM\", \"HUP\", \"USR1\", …".to_owned(),
                };
                problem(node, format!("names no signal: \"{name}\""), help)
            }
        },
        _ => wrong(
            node,
            "the name of a signal",
            "write \"TERM\", \"HUP\", \"USR1\", …",
        ),
    }
}

pub(crate) fn ends(node: &Node) -> Read<Vec<ExitMatch>> {
    let one = |node: &Node| match &node.item {
        Item::Int(code) if (0..=255).contains(code) => Ok(ExitMatch::Code(i32::try_from(*code).unwrap_or(0))),
        Item::Int(_) => problem(node, "takes exit codes from 0 to 255", ""),
        Item::Str(_) => signal(node).map(ExitMatch::Signal),
        _ => wrong(node, "a list of exit codes and names of signals", ""),
    };
    match node.as_list() {
        Some(list) => list.iter().map(one).collect(),
        None => Ok(vec![one(node)?]),
    }
}

/// Name or number, as text.
pub(crate) fn user(node: &Node) -> Read<String> {
    match &node.item {
        Item::Int(id) if (0..i64::from(u32::MAX)).contains(id) => Ok(id.to_string()),
        Item::Int(_) => problem(node, "is not an id", ""),
        Item::Str(name) if name.trim().is_empty() => problem(node, "is empty", ""),
        Item::Str(_) => text(node).map(str::to_owned),
        _ => wrong(node, "a name or an id", ""),
    }
}

/// Ids and names of `groups`.
pub(crate) fn users(node: &Node) -> Read<Vec<(String, Span)>> {
    match node.as_list() {
        Some(list) => list.iter().map(|one| Ok((user(one)?, one.span))).collect(),
        None => Ok(vec![(user(node)?, node.span)]),
    }
}

/// `Some("")` is the configured shell, another text names one.
pub(crate) fn shell(node: &Node) -> Read<Option<String>> {
    match &node.item {
        Item::Bool(false) => Ok(None),
        Item::Bool(true) => Ok(Some(String::new())),
        Item::Str(name) if name.trim().is_empty() || name.contains(char::is_whitespace) => {
            problem(node, "names a shell: one word", "write true, \"bash\" or a path")
        }
        Item::Str(_) => text(node).map(|name| Some(name.to_owned())),
        _ => wrong(node, "true, false or the name of a shell", ""),
    }
}

fn inherit(node: &Node) -> Read<()> {
    match &node.item {
        Item::Str(word) if ["base", "all", "none"].contains(&word.as_str()) => Ok(()),
        Item::Str(word) => problem(
            node,
            format!("cannot be \"{word}\""),
            "\"base\", \"all\", \"none\", or a list of names: [\"SSH_*\"]",
        ),
        Item::Bool(true) => wrong(node, "a word", "write \"all\""),
        Item::Bool(false) => wrong(node, "a word", "write \"none\""),
        Item::List(list) => list.iter().try_for_each(|name| text(name).map(drop)),
        _ => wrong(node, "\"base\", \"all\", \"none\" or a list of names", ""),
    }
}

fn env(node: &Node) -> Read<()> {
    let Some(table) = node.as_table() else {
        return wrong(node, "a table", "write env = { NAME = \"value\" }");
    };
    for (name, entry) in table.in_order() {
        if !env_name(name) {
            let says = format!("has a variable named `{name}`: a name has no `=` and is not empty");
            return Err(Problem {
                says,
                help: String::new(),
                span: entry.key,
            });
        }
        match &entry.node.item {
            Item::Str(text) if text.contains('\0') => {
                return problem(&entry.node, format!("has a NUL character in `{name}`"), "");
            }
            Item::Str(_) | Item::Int(_) | Item::Float(_) => {}
            Item::Bool(value) => {
                return problem(
                    &entry.node,
                    format!("takes texts and numbers: `{name}` is {}", entry.node.kind()),
                    format!("write \"{value}\""),
                );
            }
            _ => {
                let says = format!("takes texts and numbers: `{name}` is {}", entry.node.kind());
                return problem(&entry.node, says, "");
            }
        }
    }
    Ok(())
}

pub(crate) fn env_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// The text of a variable's value.
pub(crate) fn env_value(node: &Node) -> Option<String> {
    match &node.item {
        Item::Str(text) => Some(text.clone()),
        Item::Int(number) => Some(number.to_string()),
        Item::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn map(node: &Node) -> Read<()> {
    let Some(table) = node.as_table() else {
        return wrong(node, "a table of texts", "");
    };
    match table.iter().find(|(_, entry)| scalar(&entry.node).is_none()) {
        Some((name, entry)) => problem(
            &entry.node,
            format!("takes texts: `{name}` is {}", entry.node.kind()),
            "",
        ),
        None => Ok(()),
    }
}

/// Text, number or bool as text.
pub(crate) fn scalar(node: &Node) -> Option<String> {
    match &node.item {
        Item::Bool(value) => Some(value.to_string()),
        _ => env_value(node),
    }
}

pub(crate) fn port(node: &Node) -> Read<Port> {
    match &node.item {
        Item::Str(word) if word == "auto" => Ok(Port::Auto),
        Item::Int(number @ 1..=65_535) => Ok(Port::Fixed(u16::try_from(*number).unwrap_or(0))),
        Item::Int(_) => problem(node, "must be a port from 1 to 65535", "any free one is \"auto\""),
        _ => wrong(node, "a port number or \"auto\"", "any free one is \"auto\""),
    }
}

fn ports(node: &Node) -> Read<()> {
    let Some(table) = node.as_table() else {
        return wrong(node, "a table", "write ports = { admin = \"auto\" }");
    };
    for (name, entry) in table.in_order() {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            let says = format!("has a port named `{name}`: use letters, digits, `_` and `-`");
            return Err(Problem {
                says,
                help: String::new(),
                span: entry.key,
            });
        }
        port(&entry.node)?;
    }
    Ok(())
}

fn stdin(node: &Node) -> Read<()> {
    let word = text(node)?;
    match word {
        "null" | "pipe" => Ok(()),
        _ if word.starts_with("socket:") => problem(node, "is not yet supported with \"socket:\"", ""),
        _ => match word.strip_prefix("file:") {
            Some(path) if !path.is_empty() => Ok(()),
            _ => problem(
                node,
                format!("cannot be \"{word}\""),
                "\"null\", \"pipe\" or \"file:PATH\"",
            ),
        },
    }
}

fn start(node: &Node) -> Read<()> {
    match node.as_str() {
        Some("on-socket") => problem(
            node,
            "is not yet supported as \"on-socket\"",
            "write true or false",
        ),
        _ => boolean(node).map(drop),
    }
}

/// Conditions of `after`.
pub(crate) const CONDITIONS: &[&str] = &["started", "ready", "done", "ended"];

/// Conditions of `after` between steps.
pub(crate) const STEP_CONDITIONS: &[&str] = &["done", "ended", "failed"];

fn after_shape(node: &Node, conditions: &'static [&'static str]) -> Read<()> {
    match &node.item {
        Item::Str(_) => wrong(
            node,
            "a list or a table",
            &format!("write [\"{}\"]", node.as_str().unwrap_or_default()),
        ),
        Item::List(list) => list.iter().try_for_each(|name| text(name).map(drop)),
        Item::Table(table) => table
            .iter()
            .try_for_each(|(_, entry)| word(&entry.node, conditions).map(drop)),
        _ => wrong(node, "a list of names, or a table of names and conditions", ""),
    }
}

/// Lists of names, each after the one before it.
pub(crate) fn order(node: &Node) -> Read<Vec<Vec<(&str, Span)>>> {
    fn names(list: &[Node]) -> Read<Vec<(&str, Span)>> {
        list.iter().map(|one| Ok((text(one)?, one.span))).collect()
    }
    match node.as_list() {
        Some([]) => Ok(Vec::new()),
        Some(list) if list.iter().all(|one| one.as_list().is_some()) => list
            .iter()
            .map(|one| names(one.as_list().unwrap_or_default()))
            .collect(),
        Some(list) => Ok(vec![names(list)?]),
        None => wrong(
            node,
            "a list of names, or a list of such lists",
            "write [\"first\", \"second\"]",
        ),
    }
}

/// Names with their defaults; none has to be given.
pub(crate) fn params(node: &Node) -> Read<Vec<(&str, Option<String>)>> {
    let Some(table) = node.as_table() else {
        return wrong(node, "a table", "write params = { day = \"today\" }");
    };
    let one = |name: &str, entry: &crate::node::Entry| -> Read<Option<String>> {
        if !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
            || name.is_empty()
        {
            return Err(Problem {
                says: format!("has a name `{name}`: use letters, digits, `_` and `-`"),
                help: String::new(),
                span: entry.key,
            });
        }
        match (&entry.node.item, scalar(&entry.node)) {
            (_, Some(text)) => Ok(Some(text)),
            (Item::Table(below), None) => match below.get("required").and_then(Node::as_bool) {
                Some(true) if below.0.len() == 1 => Ok(None),
                _ => problem(
                    &entry.node,
                    format!("cannot have this for `{name}`"),
                    "write a default, or { required = true }",
                ),
            },
            (_, None) => problem(
                &entry.node,
                format!("takes texts: `{name}` is {}", entry.node.kind()),
                "",
            ),
        }
    };
    table
        .iter()
        .map(|(name, entry)| Ok((name, one(name, entry)?)))
        .collect()
}

pub(crate) fn batch(node: &Node) -> Read<Batch> {
    match &node.item {
        Item::Int(number @ 1..=100_000) => Ok(Batch::Count(u32::try_from(*number).unwrap_or(1))),
        Item::Str(text) => match percent(text) {
            Some(share @ 1..=100) => Ok(Batch::Percent(share)),
            _ => problem(node, "is a number of instances or a share", "write 2 or \"25%\""),
        },
        _ => problem(
            node,
            "is a number of instances or a share, at least 1",
            "write 2 or \"25%\"",
        ),
    }
}

fn regex(node: &Node) -> Read<()> {
    let pattern = text(node)?;
    match regex_lite::Regex::new(pattern) {
        Ok(_) => Ok(()),
        Err(error) => problem(node, format!("is not a regular expression: {error}"), ""),
    }
}

fn redact(node: &Node) -> Read<()> {
    texts(node, usize::MAX)?;
    let entries = node.texts();
    match crate::redact::Redaction::new(entries.iter().map(|(text, _)| *text)) {
        Ok(_) => Ok(()),
        Err(why) => problem(
            node,
            why,
            "a plain word is a JSON field: [\"password\", 'key=\\S+']",
        ),
    }
}

fn url(node: &Node) -> Read<()> {
    let url = text(node)?;
    if url.starts_with("{{") || url.starts_with('$') {
        return Ok(());
    }
    if let Some(rest) = url.strip_prefix("http://") {
        return match rest.is_empty() || rest.starts_with('/') {
            true => problem(node, "names no host", "write \"http://127.0.0.1:$PORT/up\""),
            false => Ok(()),
        };
    }
    if url.starts_with("https://") {
        return problem(
            node,
            "is not yet supported with https://",
            "a probe on this machine can do with http://",
        );
    }
    problem(
        node,
        "is a URL that begins with http://",
        "write \"http://127.0.0.1:$PORT/up\"",
    )
}

fn address(node: &Node) -> Read<()> {
    let address = text(node)?;
    let good = match address.strip_prefix("unix:") {
        Some(path) => !path.is_empty(),
        None => match address.rsplit_once(':') {
            Some((host, port)) => {
                let number = port.parse::<u16>().is_ok_and(|port| port > 0);
                !host.is_empty() && (number || port.contains('$') || port.contains("}}"))
            }
            // `{{…}}` may hold the whole address.
            None => address.contains('$') || address.contains("{{"),
        },
    };
    if good {
        Ok(())
    } else {
        problem(node, "is an address", "write \"127.0.0.1:6379\" or \"unix:PATH\"")
    }
}

fn log_to(node: &Node) -> Read<()> {
    let word = text(node)?;
    match word {
        "stderr" | "journal" | "syslog" => Ok(()),
        _ if word.strip_prefix("file:").is_some_and(|path| !path.is_empty()) => Ok(()),
        _ => problem(
            node,
            format!("cannot be \"{word}\""),
            "\"stderr\", \"journal\", \"syslog\" or \"file:PATH\"",
        ),
    }
}
