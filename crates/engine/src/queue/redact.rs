//! `redact`: fields of a payload that nobody is shown. Workers get them; whoever looks at a task, and whatever is written about it, does
//! not. Everything that leaves the engine about a task that is no worker's goes through [`Masks`].

use crate::info::Error;
use crate::state::State;
use gaffer_core::name::JobId;
use gaffer_core::queue::spec::Queue;
use gaffer_queue::rows::TaskRow;
use serde_json::Value;
use std::sync::Arc;

/// What is shown in the place of a value.
pub(super) const MASK: &str = "[redacted]";

/// What may be shown of the tasks of a queue.
pub(super) enum Masks {
    /// What its definition says.
    Of(Arc<Queue>),
    /// No file defines it here: nobody knows what may be shown.
    Unknown,
}

impl State {
    /// What may be shown of the tasks of a queue, `session.queue`.
    pub(super) fn queue_masks(&self, queue: &str) -> Masks {
        let spec = JobId::parse(queue).ok().and_then(|id| self.queues.spec(&id));
        spec.map_or(Masks::Unknown, |spec| Masks::Of(spec.clone()))
    }
}

impl Masks {
    /// A row as it may be shown.
    pub(super) fn row(&self, row: &mut TaskRow) {
        let Masks::Of(spec) = self else {
            row.payload = Value::from(MASK).to_string();
            return;
        };
        if spec.redact.is_empty() {
            return;
        }
        row.payload = match serde_json::from_str::<Value>(&row.payload) {
            Ok(mut payload) => {
                for path in &spec.redact {
                    mask(&mut payload, &parts(path));
                }
                payload
            }
            // No JSON: what is where in it cannot be told.
            Err(_) => Value::from(MASK),
        }
        .to_string();
        if hides_keys(spec) {
            row.unique_key = row.unique_key.as_ref().map(|_| MASK.to_owned());
        }
    }

    /// Refuses a payload in which what is shown stands for what is there.
    pub(super) fn check(&self, payload: &Value) -> Result<(), Error> {
        match self {
            Masks::Of(spec) => check(spec, payload),
            Masks::Unknown => refuse_mask(payload),
        }
    }
}

/// Refuses a payload in which what is shown stands for what is there.
pub(super) fn check(spec: &Queue, payload: &Value) -> Result<(), Error> {
    if spec.redact.is_empty() {
        return Ok(());
    }
    refuse_mask(payload)
}

fn refuse_mask(payload: &Value) -> Result<(), Error> {
    match find_mask(payload, &mut Vec::new()) {
        None => Ok(()),
        Some(place) => Err(Error::Invalid(format!(
            "the payload has \"{MASK}\" {place}: that is shown instead of a value, and is none; write the value itself"
        ))),
    }
}

/// Is a part of what is not shown in keys that are made of payloads?
pub(super) fn hides_keys(spec: &Queue) -> bool {
    let made_of = spec.unique.iter().flat_map(|unique| &unique.by);
    made_of.into_iter().any(|path| hides(spec, path))
}

/// Is something of what is at a path not shown?
fn hides(spec: &Queue, path: &str) -> bool {
    // Numbers of a list are not named where all of its entries are meant.
    let names = |path| -> Vec<&str> {
        let parts: Vec<&str> = parts(path);
        parts
            .into_iter()
            .filter(|part| part.parse::<usize>().is_err())
            .collect()
    };
    let path = names(path);
    spec.redact.iter().any(|hidden| {
        let hidden = names(hidden);
        hidden.starts_with(&path) || path.starts_with(&hidden)
    })
}

fn parts(path: &str) -> Vec<&str> {
    path.split('.').filter(|part| !part.is_empty()).collect()
}

/// Masks what is at a path. A list is gone through where the path does not say which of its entries.
fn mask(value: &mut Value, path: &[&str]) {
    let Some((part, rest)) = path.split_first() else {
        *value = Value::from(MASK);
        return;
    };
    match value {
        Value::Object(fields) => {
            if let Some(field) = fields.get_mut(*part) {
                mask(field, rest);
            }
        }
        Value::Array(list) => match part.parse::<usize>() {
            Ok(number) => {
                if let Some(entry) = list.get_mut(number) {
                    mask(entry, rest);
                }
            }
            Err(_) => list.iter_mut().for_each(|entry| mask(entry, path)),
        },
        _ => {}
    }
}

/// Where the mask stands for a value.
fn find_mask(value: &Value, path: &mut Vec<String>) -> Option<String> {
    match value {
        Value::String(text) if text == MASK => Some(match path.is_empty() {
            true => "in place of all of it".to_owned(),
            false => format!("at {}", path.join(".")),
        }),
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            path.push(name.clone());
            let found = find_mask(field, path);
            path.pop();
            found
        }),
        Value::Array(list) => list.iter().enumerate().find_map(|(number, entry)| {
            path.push(number.to_string());
            let found = find_mask(entry, path);
            path.pop();
            found
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaffer_core::queue::spec::{By, Conflict, Unique};
    use serde_json::json;

    fn spec(redact: &[&str]) -> Queue {
        Queue {
            redact: redact.iter().map(|path| (*path).to_owned()).collect(),
            ..Queue::of(By::Others)
        }
    }

    fn masked(redact: &[&str], mut payload: Value) -> Value {
        for path in &spec(redact).redact {
            mask(&mut payload, &parts(path));
        }
        payload
    }

    #[test]
    fn what_a_path_names_is_masked_and_nothing_beside_it() {
        let payload = json!({ "card": { "number": 4111, "name": "ana" }, "number": 7 });
        assert_eq!(
            masked(&["card.number"], payload.clone()),
            json!({ "card": { "number": "[redacted]", "name": "ana" }, "number": 7 })
        );
        assert_eq!(
            masked(&["card", "nothing.here"], payload),
            json!({ "card": "[redacted]", "number": 7 })
        );
        assert_eq!(masked(&["a"], json!([1, 2])), json!([1, 2]));
    }

    #[test]
    fn all_entries_of_a_list_are_meant_unless_the_path_says_which() {
        let cards = json!({ "cards": [{ "n": 1 }, { "n": 2 }] });
        assert_eq!(
            masked(&["cards.n"], cards.clone()),
            json!({ "cards": [{ "n": "[redacted]" }, { "n": "[redacted]" }] })
        );
        assert_eq!(
            masked(&["cards.1.n"], cards),
            json!({ "cards": [{ "n": 1 }, { "n": "[redacted]" }] })
        );
        assert_eq!(
            masked(&["n"], json!([{ "n": 1 }])),
            json!([{ "n": "[redacted]" }])
        );
    }

    #[test]
    fn a_key_that_is_made_of_what_is_hidden_is_hidden() {
        for (by, is_hidden) in [
            ("card.number", true),
            ("card", true),
            ("card.number.first", true),
            ("cards.0.n", true),
            ("user", false),
            ("card.name", false),
        ] {
            let queue = Queue {
                unique: Some(Unique {
                    by: vec![by.to_owned()],
                    within: None,
                    while_running: false,
                    while_done: false,
                    conflict: Conflict::Return,
                    max_delay: None,
                }),
                ..spec(&["card.number", "cards.n"])
            };
            assert_eq!(hides_keys(&queue), is_hidden, "{by}");
        }
    }

    #[test]
    fn the_mask_is_no_value() {
        let masks = Masks::Of(Arc::new(spec(&["card"])));
        let refused = masks.check(&json!({ "a": [1, { "card": "[redacted]" }] }));
        let why = refused.expect_err("refused").to_string();
        assert!(why.contains("\"[redacted]\" at a.1.card: "), "{why}");
        assert!(masks.check(&json!({ "card": "a [redacted] text" })).is_ok());
        let plain = Masks::Of(Arc::new(spec(&[])));
        assert!(plain.check(&json!("[redacted]")).is_ok(), "it hides nothing");
        assert!(Masks::Unknown.check(&json!("[redacted]")).is_err());
    }
}
