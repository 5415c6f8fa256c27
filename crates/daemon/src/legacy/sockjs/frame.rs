//! Frames of SockJS 0.3: `o`, `h`, `a["…"]`, `c[code,"reason"]`, and what clients send.

use serde_json::Value;
use std::fmt::Write;

/// Opening.
pub const OPEN: &str = "o";

/// Sign of life.
pub const HEARTBEAT: &str = "h";

/// Why a conversation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// 3000, 2010, 1002.
    pub code: u16,
    /// In words.
    pub reason: &'static str,
}

/// The application has said all it had to say.
pub const GO_AWAY: Close = Close {
    code: 3000,
    reason: "Go away!",
};

/// Somebody else is receiving, or the session is another address's.
pub const STILL_OPEN: Close = Close {
    code: 2010,
    reason: "Another connection still open",
};

/// A receiving connection broke off: what it was about to get is lost.
pub const INTERRUPTED: Close = Close {
    code: 1002,
    reason: "Connection interrupted",
};

impl Close {
    /// `c[3000,"Go away!"]`.
    pub fn frame(self) -> String {
        format!("c[{},{}]", self.code, quote(self.reason))
    }
}

/// `a["…","…"]`.
pub fn messages<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut frame = String::from("a[");
    for (n, text) in texts.into_iter().enumerate() {
        if n > 0 {
            frame.push(',');
        }
        frame.push_str(&quote(text));
    }
    frame.push(']');
    frame
}

/// A JSON text that every browser's transports carry unchanged: characters that some of them alter are escaped.
pub fn quote(text: &str) -> String {
    // A text always has a JSON form.
    let json = serde_json::to_string(text).unwrap_or_default();
    if !json.chars().any(is_fragile) {
        return json;
    }
    let mut quoted = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_fragile(character) {
            // Writing to a String cannot fail. All of them are below 0x10000.
            let _written = write!(quoted, "\\u{:04x}", u32::from(character));
        } else {
            quoted.push(character);
        }
    }
    quoted
}

fn is_fragile(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{600}'..='\u{604}' | '\u{70f}' | '\u{17b4}' | '\u{17b5}'
        | '\u{200c}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff0}'..='\u{ffff}')
}

/// What a client sent cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Empty,
    /// No JSON, or no list of texts.
    Json,
}

impl Broken {
    /// As SockJS says it.
    pub fn text(self) -> &'static str {
        match self {
            Broken::Empty => "Payload expected.",
            Broken::Json => "Broken JSON encoding.",
        }
    }
}

/// `["…","…"]`, or one text.
pub fn read(bytes: &[u8]) -> Result<Vec<String>, Broken> {
    if bytes.is_empty() {
        return Err(Broken::Empty);
    }
    let text = |value| match value {
        Value::String(text) => Ok(text),
        _ => Err(Broken::Json),
    };
    match serde_json::from_slice(bytes) {
        Ok(Value::Array(values)) => values.into_iter().map(text).collect(),
        Ok(value) => Ok(vec![text(value)?]),
        Err(_) => Err(Broken::Json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_1_frames_are_those_of_sockjs() {
        assert_eq!(messages(["x", "{\"a\":\"ü\"}"]), r#"a["x","{\"a\":\"ü\"}"]"#);
        assert_eq!(GO_AWAY.frame(), r#"c[3000,"Go away!"]"#);
        assert_eq!(
            quote("\u{2028}\u{200d}\u{fffd}\u{0}"),
            r#""\u2028\u200d\ufffd\u0000""#
        );
    }

    #[test]
    fn s8_1_a_client_sends_a_list_of_texts_or_one() {
        assert_eq!(read(br#"["a","b"]"#), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read(br#""a""#), Ok(vec!["a".to_owned()]));
        assert_eq!(read(b""), Err(Broken::Empty));
        for broken in [&b"[\"a"[..], b"{}", b"[1]", b"3", b"\xff"] {
            assert_eq!(read(broken), Err(Broken::Json));
        }
    }
}
