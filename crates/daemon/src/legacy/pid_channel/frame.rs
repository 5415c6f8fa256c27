//! Frames of pid channels: `V1 SP type SP id NUL body`.

use tokio_tungstenite::tungstenite::Message;

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data, or a key.
    Message,
    /// Done.
    Response,
    /// Not done.
    Error,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Message => "message",
            Kind::Response => "response",
            Kind::Error => "error",
        }
    }
}

/// A frame of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Kind.
    pub kind: Kind,
    /// Names it in the answer.
    pub id: &'a str,
    /// Any bytes.
    pub body: &'a [u8],
}

/// Longest id; 32 digits are usual.
const ID_BYTES_MAX: usize = 256;

/// Reads a frame; the body begins behind the first NUL and may hold more of them.
pub fn read(bytes: &[u8]) -> Option<Frame<'_>> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (header, body) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    let header = std::str::from_utf8(header)
        .ok()
        .filter(|header| header.is_ascii())?;
    let mut words = header.split(' ');
    let (version, kind, id) = (words.next()?, words.next()?, words.next()?);
    if version != "V1" || id.is_empty() || id.len() > ID_BYTES_MAX || words.next().is_some() {
        return None;
    }
    let kind = match kind {
        "message" => Kind::Message,
        "response" => Kind::Response,
        "error" => Kind::Error,
        _ => return None,
    };
    Some(Frame { kind, id, body })
}

/// A frame of ours: a text message if it is text, else a binary one.
pub fn write(kind: Kind, id: &str, body: &[u8]) -> Message {
    let mut bytes = format!("V1 {} {id}\0", kind.word()).into_bytes();
    bytes.extend_from_slice(body);
    match String::from_utf8(bytes) {
        Ok(text) => Message::Text(text.into()),
        Err(bytes) => Message::Binary(bytes.into_bytes().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s9_1_a_frame_is_read_and_written() {
        let frame = read(b"V1 message 0af\0hello").expect("a frame");
        assert_eq!(
            (frame.kind, frame.id, frame.body),
            (Kind::Message, "0af", &b"hello"[..])
        );
        assert_eq!(
            write(Kind::Response, "0af", b"OK"),
            Message::Text("V1 response 0af\0OK".into())
        );
        assert!(matches!(write(Kind::Message, "1", b"\xff"), Message::Binary(_)));
    }

    #[test]
    fn d44_the_first_nul_ends_the_header_and_the_body_may_hold_more() {
        assert_eq!(
            read(b"V1 message 1\0a\0b\0").map(|frame| frame.body),
            Some(&b"a\0b\0"[..])
        );
        assert_eq!(read(b"V1 message 1\0").map(|frame| frame.body), Some(&b""[..]));
    }

    #[test]
    fn s9_1_what_is_no_frame_is_refused() {
        for wrong in [
            &b""[..],
            b"hello",
            b"V1 message 1",
            b"V2 message 1\0x",
            b"V1 shout 1\0x",
            b"V1 message \0x",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(read(b"V1 message 1 2\0x"), None);
        assert_eq!(read(b"V1 message \xc3\xa4\0x"), None);
    }
}
