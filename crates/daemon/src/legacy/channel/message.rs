//! What is said on the channel: JSON objects with `event`, one per message.

use serde_json::{Map, Value, json};

/// A message of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A sign of life.
    Nop,
    /// Begin to follow a topic.
    Subscribe(String),
    /// Follow it no more.
    Unsubscribe(String),
    /// Do something.
    Command(Command),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Given back in the answer.
    pub id: Value,
    /// Of the command.
    pub name: String,
    /// By place.
    pub args: Vec<Value>,
    /// By name.
    pub kwargs: Map<String, Value>,
}

/// Reads a message; or why it is `invalid_msg`.
pub fn read(text: &str) -> Result<Request, &'static str> {
    let Ok(Value::Object(mut message)) = serde_json::from_str(text) else {
        return Err("invalid_json");
    };
    let event = message.remove("event");
    let data = message.remove("data");
    let topic = || match data.as_ref().ok_or("data_missing")?.get("topic") {
        Some(Value::String(topic)) => Ok(topic.clone()),
        _ => Err("topic_missing"),
    };
    match event.as_ref().and_then(Value::as_str) {
        None => Err("event_missing"),
        Some("NOP") => Ok(Request::Nop),
        Some("SUB") => topic().map(Request::Subscribe),
        Some("UNSUB") => topic().map(Request::Unsubscribe),
        Some("CMD") => command(data.unwrap_or_default()).map(Request::Command),
        Some(_) => Err("unknown_cmd"),
    }
}

fn command(data: Value) -> Result<Command, &'static str> {
    let Value::Object(mut data) = data else {
        return Err("data_missing");
    };
    let name = match data.remove("name") {
        Some(Value::String(name)) if !name.is_empty() => name,
        _ => return Err("cmd_name_missing"),
    };
    let id = match data.remove("identity") {
        None | Some(Value::Null) => return Err("cmd_identity_missing"),
        Some(id) => id,
    };
    let args = match data.remove("args") {
        Some(Value::Array(args)) => args,
        Some(Value::Null) | None => Vec::new(),
        Some(one) => vec![one],
    };
    let kwargs = match data.remove("kwargs") {
        Some(Value::Object(kwargs)) => kwargs,
        _ => Map::new(),
    };
    Ok(Command {
        id,
        name,
        args,
        kwargs,
    })
}

/// It is followed, or is not any more.
pub fn subscribed(topic: &str) -> String {
    json!({"event": "gaffer:subscription_success", "topic": topic}).to_string()
}

/// It cannot be followed.
pub fn not_subscribed(topic: &str, reason: &str) -> String {
    json!({"event": "gaffer:subscription_error", "topic": topic, "data": {"reason": reason}}).to_string()
}

/// The command was carried out.
pub fn done(id: &Value, result: Value) -> String {
    json!({"event": "gaffer:command_success", "data": {"id": id, "result": result}}).to_string()
}

/// The command was not carried out.
pub fn failed(id: &Value, errno: u16, reason: &str) -> String {
    let error = json!({"errno": errno, "reason": reason});
    json!({"event": "gaffer:command_error", "data": {"id": id, "error": error}}).to_string()
}

/// A message could not be read.
pub fn invalid(reason: &str) -> String {
    json!({"event": "gaffer:error", "data": {"error": "invalid_msg", "reason": reason}}).to_string()
}

/// No key (401), or one that is not known (403); the reason is JSON in a text.
pub fn auth_required(errno: u16) -> String {
    let word = if errno == 401 { "unauthorized" } else { "forbidden" };
    let reason = json!({"error": word, "errno": errno}).to_string();
    json!({"event": "gaffer:error", "data": {"error": "AUTH_REQUIRED", "reason": reason}}).to_string()
}

/// An event of a topic.
pub fn event(topic: &str, event: &str, fields: impl IntoIterator<Item = (String, Value)>) -> String {
    let mut data = Map::new();
    data.insert("event".to_owned(), event.into());
    data.insert("topic".to_owned(), topic.into());
    data.extend(fields);
    json!({"event": "gaffer:event", "data": data}).to_string()
}

/// A reader was too slow: so many events, or bytes, are not kept any more. `none`: nobody knows how many.
pub fn gap(topic: &str, missed: Option<u64>) -> String {
    event(topic, "gap", [("missed".to_owned(), missed.into())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_2_messages_are_read() {
        assert_eq!(read(r#"{"event":"NOP"}"#), Ok(Request::Nop));
        let subscribe = Request::Subscribe("EVENTS:.".to_owned());
        assert_eq!(
            read(r#"{"event":"SUB","data":{"topic":"EVENTS:."}}"#),
            Ok(subscribe)
        );
        let command = read(r#"{"event":"CMD","data":{"identity":"a1","name":"jobs","args":["s"]}}"#);
        let Ok(Request::Command(command)) = command else {
            panic!("{command:?}");
        };
        assert_eq!((command.id, command.name), (json!("a1"), "jobs".to_owned()));
        assert_eq!((command.args, command.kwargs.len()), (vec![json!("s")], 0));
    }

    #[test]
    fn s8_3_what_is_wrong_with_a_message_has_a_word() {
        for (text, reason) in [
            ("", "invalid_json"),
            ("AUTH:x", "invalid_json"),
            ("[]", "invalid_json"),
            ("{}", "event_missing"),
            (r#"{"event":1}"#, "event_missing"),
            (r#"{"event":"SUB"}"#, "data_missing"),
            (r#"{"event":"SUB","data":{}}"#, "topic_missing"),
            (r#"{"event":"UNSUB","data":{"topic":3}}"#, "topic_missing"),
            (r#"{"event":"CMD"}"#, "data_missing"),
            (r#"{"event":"CMD","data":{"identity":"x"}}"#, "cmd_name_missing"),
            (
                r#"{"event":"CMD","data":{"name":"jobs"}}"#,
                "cmd_identity_missing",
            ),
            (r#"{"event":"DANCE"}"#, "unknown_cmd"),
        ] {
            assert_eq!(read(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn s8_3_a_missing_key_is_told_as_json_in_a_text() {
        let message: Value = serde_json::from_str(&auth_required(401)).expect("JSON");
        assert_eq!(message["data"]["error"], "AUTH_REQUIRED");
        assert_eq!(
            message["data"]["reason"],
            r#"{"error":"unauthorized","errno":401}"#
        );
    }
}
