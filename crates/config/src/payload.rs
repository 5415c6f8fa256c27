//! `[queue.X] schema`: what a payload has to look like. A part of JSON Schema is understood; what is not is an error that names it, for a
//! rule that is passed over is none.
//!
//! | of | keywords |
//! |---|---|
//! | any value | `type`, `enum`, `const` |
//! | numbers | `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum` |
//! | texts | `minLength`, `maxLength` |
//! | lists | `items`, `minItems`, `maxItems` |
//! | objects | `properties`, `required`, `additionalProperties` |
//! | nothing | `title`, `description`, `default`, `examples`, `deprecated`, `readOnly`, `writeOnly`, `$schema`, `$id`, `$comment` |
//!
//! What is wrong with a payload is said with its place and what is asked for, never with its value: that may be a secret.

use gaffer_core::queue::schema::{Bounds, Kind, Others, Schema};
use serde_json::{Map, Number, Value};
use std::sync::Arc;

/// Schemas are at most so deep.
const DEEPEST: usize = 64;

/// Words that say something to people, and ask nothing of a value.
const ANNOTATIONS: &[&str] = &[
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$schema",
    "$id",
    "$comment",
];

const KINDS: [(&str, Kind); 7] = [
    ("null", Kind::Null),
    ("boolean", Kind::Boolean),
    ("integer", Kind::Integer),
    ("number", Kind::Number),
    ("string", Kind::String),
    ("array", Kind::Array),
    ("object", Kind::Object),
];

/// Reads a schema; the error says what is wrong with it, and where.
pub fn schema_of(value: &Value) -> Result<Schema, String> {
    read(value, "", 0)
}

/// Something is wrong at a place of a schema.
fn wrong<T>(place: &str, key: &str, what: &str) -> Result<T, String> {
    Err(format!("`{}` {what}", join(place, key)))
}

fn join(place: &str, name: &str) -> String {
    if place.is_empty() {
        return name.to_owned();
    }
    format!("{place}.{name}")
}

fn read(value: &Value, place: &str, depth: usize) -> Result<Schema, String> {
    let Value::Object(keys) = value else {
        let place = if place.is_empty() { "the schema" } else { place };
        return Err(format!(
            "`{place}` is {}, and has to be an object",
            kind_of(value)
        ));
    };
    if depth > DEEPEST {
        return Err(format!("`{place}` is more than {DEEPEST} deep"));
    }
    let mut schema = Schema::default();
    for (key, value) in keys {
        match key.as_str() {
            "type" => schema.kinds = kinds(value, place)?,
            "enum" => match value {
                Value::Array(list) if !list.is_empty() => {
                    schema.one_of = Some(list.iter().map(canonical).collect());
                }
                _ => return wrong(place, key, "has to be a list of values"),
            },
            "const" => schema.one_of = Some(vec![canonical(value)]),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                bound(&mut schema.number, key, value, place)?;
            }
            "minLength" => schema.length.0 = count(value, key, place)?,
            "maxLength" => schema.length.1 = Some(count(value, key, place)?),
            "minItems" => schema.count.0 = count(value, key, place)?,
            "maxItems" => schema.count.1 = Some(count(value, key, place)?),
            "items" => schema.items = Some(Box::new(read(value, &join(place, key), depth + 1)?)),
            "required" => schema.required = names(value, place)?,
            "properties" => {
                let Value::Object(fields) = value else {
                    return wrong(place, key, "has to be an object");
                };
                for (name, field) in fields {
                    let place = join(&join(place, key), name);
                    let field = read(field, &place, depth + 1)?;
                    schema.properties.insert(name.as_str().into(), field);
                }
            }
            "additionalProperties" => schema.others = others(value, &join(place, key), depth)?,
            key if ANNOTATIONS.contains(&key) => {}
            key => {
                return wrong(
                    place,
                    key,
                    "is not understood: leave it out, or check it in the worker",
                );
            }
        }
    }
    if keys.contains_key("enum") && keys.contains_key("const") {
        return wrong(
            place,
            "const",
            "and `enum` are two answers: leave one of them out",
        );
    }
    Ok(schema)
}

fn others(value: &Value, place: &str, depth: usize) -> Result<Others, String> {
    Ok(match value {
        Value::Bool(true) => Others::Allowed,
        Value::Bool(false) => Others::Refused,
        value => Others::Like(Box::new(read(value, place, depth + 1)?)),
    })
}

fn kinds(value: &Value, place: &str) -> Result<Vec<Kind>, String> {
    let list = match value {
        Value::Array(list) if !list.is_empty() => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let kind = |value: &Value| {
        let word = value.as_str()?;
        KINDS
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, kind)| *kind)
    };
    match list.iter().map(kind).collect() {
        Some(kinds) => Ok(kinds),
        None => wrong(
            place,
            "type",
            "has to be null, boolean, integer, number, string, array, object, or a list of these",
        ),
    }
}

fn bound(bounds: &mut Bounds, key: &str, value: &Value, place: &str) -> Result<(), String> {
    let Some(number) = value.as_f64() else {
        return wrong(place, key, "has to be a number");
    };
    let bound = match key {
        "minimum" => &mut bounds.min,
        "maximum" => &mut bounds.max,
        "exclusiveMinimum" => &mut bounds.above,
        _ => &mut bounds.below,
    };
    *bound = Some(number);
    Ok(())
}

fn count(value: &Value, key: &str, place: &str) -> Result<u64, String> {
    match whole(value).and_then(|number| u64::try_from(number).ok()) {
        Some(count) => Ok(count),
        None => wrong(place, key, "has to be a whole number, 0 or more"),
    }
}

fn names(value: &Value, place: &str) -> Result<Vec<Arc<str>>, String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Option<Vec<Arc<str>>> = list.iter().map(|name| name.as_str().map(Arc::from)).collect();
    match names.filter(|_| value.is_array()) {
        Some(names) => Ok(names),
        None => wrong(place, "required", "has to be a list of names"),
    }
}

/// A number without a fraction.
fn whole(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    let exact = number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from));
    // More than 2^53 has no fraction to lose.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it has no fraction, and is within the bounds"
    )]
    exact.or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 1e30).then_some(float as i128)
    })
}

/// The same value is the same text: names in order, `1.0` is `1`.
fn canonical(value: &Value) -> Arc<str> {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
            Value::Object(fields) => {
                let mut names: Vec<&String> = fields.keys().collect();
                names.sort();
                let pairs = names
                    .into_iter()
                    .map(|name| (name.clone(), sorted(&fields[name])));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
            Value::Number(_) => match whole(value).and_then(Number::from_i128) {
                Some(number) => Value::Number(number),
                None => value.clone(),
            },
            other => other.clone(),
        }
    }
    sorted(value).to_string().into()
}

/// Nothing is wrong with a payload, or the first thing that is.
pub fn check_payload(schema: &Schema, payload: &Value) -> Result<(), String> {
    check(schema, payload, &mut Vec::new())
}

fn refuse(path: &[String], what: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err(format!("the payload {what}"));
    }
    Err(format!("`{}` {what}", path.join(".")))
}

fn check(schema: &Schema, value: &Value, path: &mut Vec<String>) -> Result<(), String> {
    let is = |kind: &Kind| match kind {
        Kind::Null => value.is_null(),
        Kind::Boolean => value.is_boolean(),
        Kind::Integer => whole(value).is_some(),
        Kind::Number => value.is_number(),
        Kind::String => value.is_string(),
        Kind::Array => value.is_array(),
        Kind::Object => value.is_object(),
    };
    if !schema.kinds.is_empty() && !schema.kinds.iter().any(is) {
        let wanted: Vec<&str> = schema.kinds.iter().map(|kind| words(*kind)).collect();
        return refuse(
            path,
            &format!("is {}, and has to be {}", kind_of(value), wanted.join(" or ")),
        );
    }
    if let Some(list) = &schema.one_of
        && !list.contains(&canonical(value))
    {
        let shown: Vec<&str> = list.iter().take(10).map(|one| &**one).collect();
        return refuse(path, &format!("has to be one of {}", shown.join(", ")));
    }
    match value {
        Value::Number(number) => in_bounds(&schema.number, number, path),
        Value::String(text) => in_length(schema.length, text.chars().count(), "characters", path),
        Value::Array(list) => {
            in_length(schema.count, list.len(), "entries", path)?;
            for (number, entry) in list.iter().enumerate() {
                let Some(items) = &schema.items else { break };
                below(items, entry, &number.to_string(), path)?;
            }
            Ok(())
        }
        Value::Object(fields) => check_fields(schema, fields, path),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn below(schema: &Schema, value: &Value, name: &str, path: &mut Vec<String>) -> Result<(), String> {
    path.push(name.to_owned());
    let checked = check(schema, value, path);
    path.pop();
    checked
}

fn check_fields(schema: &Schema, fields: &Map<String, Value>, path: &mut Vec<String>) -> Result<(), String> {
    for name in &schema.required {
        if !fields.contains_key(&**name) {
            path.push(name.to_string());
            return refuse(path, "is missing");
        }
    }
    for (name, value) in fields {
        match (schema.properties.get(name.as_str()), &schema.others) {
            (Some(field), _) => below(field, value, name, path)?,
            (None, Others::Allowed) => {}
            (None, Others::Like(field)) => below(field, value, name, path)?,
            (None, Others::Refused) => {
                path.push(name.clone());
                return refuse(path, "is no field that the schema names");
            }
        }
    }
    Ok(())
}

fn in_bounds(bounds: &Bounds, number: &Number, path: &[String]) -> Result<(), String> {
    let Some(number) = number.as_f64() else {
        return Ok(());
    };
    let Bounds {
        min,
        max,
        above,
        below,
    } = bounds;
    let rules = [
        (min, min.is_some_and(|min| number < min), "at least"),
        (max, max.is_some_and(|max| number > max), "at most"),
        (above, above.is_some_and(|above| number <= above), "more than"),
        (below, below.is_some_and(|below| number >= below), "less than"),
    ];
    match rules.into_iter().find(|(_, broken, _)| *broken) {
        Some((bound, _, word)) => refuse(path, &format!("has to be {word} {}", bound.unwrap_or_default())),
        None => Ok(()),
    }
}

fn in_length((min, max): (u64, Option<u64>), is: usize, of: &str, path: &[String]) -> Result<(), String> {
    let is = u64::try_from(is).unwrap_or(u64::MAX);
    if is < min {
        return refuse(path, &format!("has {is} {of}, and needs at least {min}"));
    }
    match max.filter(|max| is > *max) {
        Some(max) => refuse(path, &format!("has {is} {of}, and may have at most {max}")),
        None => Ok(()),
    }
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Boolean => "true or false",
        Kind::Integer => "a whole number",
        Kind::Number => "a number",
        Kind::String => "a text",
        Kind::Array => "a list",
        Kind::Object => "an object",
    }
}

fn kind_of(value: &Value) -> &'static str {
    words(match value {
        Value::Null => Kind::Null,
        Value::Bool(_) => Kind::Boolean,
        Value::Number(_) => Kind::Number,
        Value::String(_) => Kind::String,
        Value::Array(_) => Kind::Array,
        Value::Object(_) => Kind::Object,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(schema: &Value, payload: &Value) -> String {
        let schema = schema_of(schema).expect("a schema");
        check_payload(&schema, payload).err().unwrap_or_default()
    }

    fn card() -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A card", "type": "object",
            "required": ["card"], "additionalProperties": false,
            "properties": {
                "card": { "type": "object", "required": ["number"], "properties": {
                    "number": { "type": "string", "minLength": 12, "maxLength": 19 },
                    "month": { "type": "integer", "minimum": 1, "maximum": 12 },
                    "share": { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 } } },
                "size": { "enum": ["a", 2, null] },
                "tags": { "type": ["array", "null"], "items": { "type": "string" }, "minItems": 1, "maxItems": 2 } },
        })
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let schema = card();
        let number = "411111111111";
        let good = json!({ "card": { "number": number, "month": 2.0, "share": 0.5, "more": 1 }, "size": 2.0, "tags": null });
        assert_eq!(said(&schema, &good), "");
        for (payload, wanted) in [
            (json!([]), "the payload is a list, and has to be an object"),
            (json!({}), "`card` is missing"),
            (json!({ "card": {} }), "`card.number` is missing"),
            (
                json!({ "card": { "number": 4111 } }),
                "`card.number` is a number, and has to be a text",
            ),
            (
                json!({ "card": { "number": "411" } }),
                "`card.number` has 3 characters, and needs at least 12",
            ),
            (
                json!({ "card": { "number": number.repeat(2) } }),
                "`card.number` has 24 characters, and may have at most 19",
            ),
            (
                json!({ "card": { "number": number, "month": 13 } }),
                "`card.month` has to be at most 12",
            ),
            (
                json!({ "card": { "number": number, "month": 0 } }),
                "`card.month` has to be at least 1",
            ),
            (
                json!({ "card": { "number": number, "month": 1.5 } }),
                "`card.month` is a number, and has to be a whole number",
            ),
            (
                json!({ "card": { "number": number, "share": 0 } }),
                "`card.share` has to be more than 0",
            ),
            (
                json!({ "card": { "number": number, "share": 1 } }),
                "`card.share` has to be less than 1",
            ),
            (
                json!({ "card": { "number": number }, "size": 3 }),
                "`size` has to be one of \"a\", 2, null",
            ),
            (
                json!({ "card": { "number": number }, "tags": ["a", 1] }),
                "`tags.1` is a number, and has to be a text",
            ),
            (
                json!({ "card": { "number": number }, "tags": [] }),
                "`tags` has 0 entries, and needs at least 1",
            ),
            (
                json!({ "card": { "number": number }, "tags": "a" }),
                "`tags` is a text, and has to be a list or null",
            ),
            (
                json!({ "card": { "number": number }, "other": 1 }),
                "`other` is no field that the schema names",
            ),
        ] {
            assert_eq!(said(&schema, &payload), wanted, "{payload}");
        }
    }

    #[test]
    fn other_fields_may_have_to_look_like_something_and_a_constant_is_one_value() {
        let schema = json!({ "additionalProperties": { "type": "integer" }, "properties": { "v": { "const": { "b": 1, "a": [2] } } } });
        assert_eq!(said(&schema, &json!({ "x": 1, "v": { "a": [2.0], "b": 1 } })), "");
        assert_eq!(
            said(&schema, &json!({ "x": "1" })),
            "`x` is a text, and has to be a whole number"
        );
        assert_eq!(
            said(&schema, &json!({ "v": 1 })),
            "`v` has to be one of {\"a\":[2],\"b\":1}"
        );
        assert_eq!(said(&json!({}), &json!([1])), "", "nothing is asked for");
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_it() {
        for (schema, wanted) in [
            (json!([]), "`the schema` is a list, and has to be an object"),
            (
                json!({ "properties": { "a": { "pattern": "x" } } }),
                "`properties.a.pattern` is not understood",
            ),
            (json!({ "$ref": "#/x" }), "`$ref` is not understood"),
            (
                json!({ "items": { "anyOf": [] } }),
                "`items.anyOf` is not understood",
            ),
            (json!({ "format": "email" }), "`format` is not understood"),
            (
                json!({ "type": "text" }),
                "`type` has to be null, boolean, integer",
            ),
            (json!({ "required": "a" }), "`required` has to be a list of names"),
            (json!({ "enum": [] }), "`enum` has to be a list of values"),
            (json!({ "maximum": "3" }), "`maximum` has to be a number"),
            (
                json!({ "maxLength": -1 }),
                "`maxLength` has to be a whole number, 0 or more",
            ),
            (json!({ "properties": [] }), "`properties` has to be an object"),
            (
                json!({ "additionalProperties": 1 }),
                "`additionalProperties` is a number, and has to be an object",
            ),
            (
                json!({ "enum": [1], "const": 1 }),
                "`const` and `enum` are two answers",
            ),
        ] {
            let error = schema_of(&schema).expect_err("refused");
            assert!(error.starts_with(wanted), "{schema}: {error}");
        }
        let mut deep = json!({});
        for _ in 0..70 {
            deep = json!({ "items": deep });
        }
        assert!(
            schema_of(&deep)
                .expect_err("refused")
                .ends_with("is more than 64 deep")
        );
    }
}
