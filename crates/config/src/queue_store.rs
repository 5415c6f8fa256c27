//! Where tasks of queues are: `[gaffer] queue_store`, and `store` of a queue.

use crate::merge::MergedQueue;
use crate::node::{Node, Span};
use crate::report::Report;
use std::collections::BTreeMap;

/// What is shown in place of a password.
const HIDDEN: &str = "***";

/// Is it `sqlite`, or the URL of a database? A URL is checked as far as it can be without the database.
pub(crate) fn is_store(text: &str) -> bool {
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"));
    text == "sqlite" || rest.is_some_and(|rest| !rest.is_empty())
}

/// A store as it may be shown: without a password.
pub fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (place, words) = match rest.split_once('?') {
        Some((place, words)) => (place, Some(words)),
        None => (rest, None),
    };
    // A password may have an @ of its own: only the last one ends it.
    let place = match place.rsplit_once('@') {
        Some((who, at)) => match who.split_once(':') {
            Some((name, _)) => format!("{name}:{HIDDEN}@{at}"),
            None => format!("{who}@{at}"),
        },
        None => place.to_owned(),
    };
    let hidden = |word: &str| match word.split_once('=') {
        Some((key, _)) if key.eq_ignore_ascii_case("password") => format!("{key}={HIDDEN}"),
        _ => word.to_owned(),
    };
    match words {
        Some(words) => {
            let words: Vec<String> = words.split('&').map(hidden).collect();
            format!("{scheme}://{place}?{}", words.join("&"))
        }
        None => format!("{scheme}://{place}"),
    }
}

/// Queues of a pool take turns at one store: nobody could say whose turn it is between two.
pub(crate) fn check_pools(queues: &[MergedQueue], report: &mut Report) {
    let mut first: BTreeMap<(&str, &str), (&str, Option<&str>)> = BTreeMap::new();
    for queue in queues {
        let word = |key| queue.table.get(key).and_then(Node::as_str);
        let Some(pool) = word("pool") else { continue };
        let store = word("store");
        let known = first.entry((&queue.session, pool));
        let (name, other) = *known.or_insert((&queue.name, store));
        if other != store {
            let span = queue.table.get("pool").map_or(Span::NONE, |node| node.span);
            let path = format!("queue.{}.pool", queue.name);
            let message = format!(
                "pool `{pool}`: queues `{name}` and `{}` have different stores",
                queue.name
            );
            report.error(
                span,
                &path,
                message,
                "give them the same `store`, or pools of their own",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_word_or_the_url_of_a_database() {
        assert!(is_store("sqlite"));
        assert!(is_store("postgres://gaffer@db/queue"));
        assert!(is_store("postgresql:///queue?host=/run/postgresql"));
        for wrong in ["", "sqlite:/a/file", "queue.db", "postgres://", "mysql://h/x"] {
            assert!(!is_store(wrong), "{wrong}");
        }
    }

    #[test]
    fn nobody_is_shown_a_password() {
        let all = [
            ("sqlite", "sqlite"),
            ("postgres://db/queue", "postgres://db/queue"),
            ("postgres://gaffer@db/queue", "postgres://gaffer@db/queue"),
            (
                "postgres://gaffer:secret@db:5433/queue",
                "postgres://gaffer:***@db:5433/queue",
            ),
            (
                "postgres://gaffer:s@cr:et@db/queue?sslmode=require",
                "postgres://gaffer:***@db/queue?sslmode=require",
            ),
            (
                "postgres://db/queue?user=a&password=secret",
                "postgres://db/queue?user=a&password=***",
            ),
        ];
        for (written, shown) in all {
            assert_eq!(without_password(written), shown);
        }
    }
}
