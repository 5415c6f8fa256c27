//! Transports that receive: one answer per frame (polling), or many in one answer (streaming).

use crate::legacy::sockjs::page::{HTML, SCRIPT};
use crate::legacy::sockjs::send::{field, refuse};
use crate::legacy::sockjs::session::{Reception, Refused};
use crate::legacy::sockjs::{Endpoint, frame};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use std::convert::Infallible;
use std::net::IpAddr;

/// After so many bytes a streaming answer ends, and the client asks again: browsers keep all of it.
const STREAM_BYTES_MAX: usize = 128 << 10;

/// Bytes before the first frame that make browsers show what comes.
const PRELUDE: usize = 2048;

/// How frames are written into an answer.
#[derive(Clone, Debug)]
enum Wrap {
    /// A line.
    Line,
    /// An event of a stream of events.
    Event,
    /// A script that calls `p`.
    Script,
    /// A call of this function.
    Call(String),
}

impl Wrap {
    fn write(&self, frame: &str) -> String {
        match self {
            Wrap::Line => format!("{frame}\n"),
            Wrap::Event => format!("data: {frame}\r\n\r\n"),
            Wrap::Script => format!("<script>\np({});\n</script>\r\n", in_script(frame)),
            Wrap::Call(name) => format!("{name}({});\r\n", frame::quote(frame)),
        }
    }
}

/// A text inside of a page's script, which it must not end.
fn in_script(frame: &str) -> String {
    frame::quote(frame).replace('<', "\\u003c")
}

fn begin(
    endpoint: &Endpoint,
    session: &str,
    from: Option<IpAddr>,
    parts: &Parts,
) -> Result<Reception, Refused> {
    let open = |ours| (endpoint.open)(ours, parts);
    endpoint.sessions.receive(session, from, open)
}

fn full() -> Response {
    refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        "Too many sessions: come back later.",
    )
}

/// One frame, then the answer ends.
async fn poll(reception: Result<Reception, Refused>, kind: &'static str, wrap: Wrap) -> Response {
    let frame = match reception {
        Err(Refused::Full) => return full(),
        Err(Refused::Closed(close)) => close.frame(),
        Ok(mut reception) => {
            let (frame, _) = reception.next().await;
            reception.finish();
            frame
        }
    };
    ([(CONTENT_TYPE, kind)], wrap.write(&frame)).into_response()
}

/// `xhr`
pub async fn xhr(endpoint: &Endpoint, session: &str, from: Option<IpAddr>, parts: &Parts) -> Response {
    poll(begin(endpoint, session, from, parts), SCRIPT, Wrap::Line).await
}

/// `jsonp`
pub async fn jsonp(endpoint: &Endpoint, session: &str, from: Option<IpAddr>, parts: &Parts) -> Response {
    match callback(parts) {
        Err(text) => refuse(StatusCode::BAD_REQUEST, text),
        Ok(name) => poll(begin(endpoint, session, from, parts), SCRIPT, Wrap::Call(name)).await,
    }
}

/// The function that a page wants to be called: a name, and nothing that could be anything else.
fn callback(parts: &Parts) -> Result<String, &'static str> {
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let name = field(query, "c").or_else(|| field(query, "callback"));
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or("\"callback\" parameter required")?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    match String::from_utf8(name) {
        Ok(name) if name.len() <= 128 && name.bytes().all(|byte| plain(&byte)) => Ok(name),
        _ => Err("invalid \"callback\" parameter"),
    }
}

/// `xhr_streaming`
pub fn xhr_streaming(endpoint: &Endpoint, session: &str, from: Option<IpAddr>, parts: &Parts) -> Response {
    let prelude = format!("{}\n", frame::HEARTBEAT.repeat(PRELUDE));
    stream_of(begin(endpoint, session, from, parts), SCRIPT, prelude, Wrap::Line)
}

/// `eventsource`
pub fn event_source(endpoint: &Endpoint, session: &str, from: Option<IpAddr>, parts: &Parts) -> Response {
    let kind = "text/event-stream; charset=UTF-8";
    stream_of(
        begin(endpoint, session, from, parts),
        kind,
        "\r\n".to_owned(),
        Wrap::Event,
    )
}

/// `htmlfile`
pub fn html_file(endpoint: &Endpoint, session: &str, from: Option<IpAddr>, parts: &Parts) -> Response {
    match callback(parts) {
        Err(text) => refuse(StatusCode::BAD_REQUEST, text),
        Ok(name) => stream_of(
            begin(endpoint, session, from, parts),
            HTML,
            html(&name),
            Wrap::Script,
        ),
    }
}

/// The page that frames are appended to.
fn html(callback: &str) -> String {
    let page = format!(
        "<!doctype html>\n<html><head>\n  <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />\n  \
         <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />\n</head><body><h2>Don't panic!</h2>\n  \
         <script>\n    document.domain = document.domain;\n    var c = parent.{callback};\n    c.start();\n    \
         function p(d) {{c.message(d);}};\n    window.onload = function() {{c.stop();}};\n  </script>\n"
    );
    // Browsers show nothing before they have a KiB.
    format!("{page:<1024}\r\n\r\n")
}

/// What is still to be written of a streaming answer.
enum Stage {
    Prelude(String, Result<Reception, frame::Close>),
    Frames(Reception, usize),
    Over,
}

/// Frames until enough bytes were sent.
fn stream_of(
    reception: Result<Reception, Refused>,
    kind: &'static str,
    prelude: String,
    wrap: Wrap,
) -> Response {
    let reception = match reception {
        Ok(reception) => Ok(reception),
        Err(Refused::Closed(close)) => Err(close),
        Err(Refused::Full) => return full(),
    };
    let first = Stage::Prelude(prelude, reception);
    let body = stream::unfold((first, wrap), async |(stage, wrap)| {
        let (text, stage) = match stage {
            Stage::Over => return None,
            Stage::Prelude(prelude, Ok(reception)) => (prelude, Stage::Frames(reception, 0)),
            Stage::Prelude(prelude, Err(close)) => (prelude + &wrap.write(&close.frame()), Stage::Over),
            Stage::Frames(reception, sent) => next(reception, sent, &wrap).await,
        };
        Some((Ok::<_, Infallible>(Bytes::from(text)), (stage, wrap)))
    });
    ([(CONTENT_TYPE, kind)], Body::from_stream(body)).into_response()
}

async fn next(mut reception: Reception, sent: usize, wrap: &Wrap) -> (String, Stage) {
    let (frame, last) = reception.next().await;
    let text = wrap.write(&frame);
    let sent = sent + text.len();
    if last || sent >= STREAM_BYTES_MAX {
        reception.finish();
        return (text, Stage::Over);
    }
    (text, Stage::Frames(reception, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_1_frames_are_wrapped_as_each_transport_wants() {
        let frame = r#"a["</script>"]"#;
        assert_eq!(Wrap::Line.write("o"), "o\n");
        assert_eq!(Wrap::Event.write("o"), "data: o\r\n\r\n");
        assert_eq!(
            Wrap::Call("x".to_owned()).write(frame),
            "x(\"a[\\\"</script>\\\"]\");\r\n"
        );
        assert_eq!(
            Wrap::Script.write(frame),
            "<script>\np(\"a[\\\"\\u003c/script>\\\"]\");\n</script>\r\n"
        );
    }

    #[test]
    fn b2_a_callback_is_a_name() {
        let of = |query: &str| {
            let request = hyper::Request::builder()
                .uri(format!("/x?{query}"))
                .body(())
                .expect("a request");
            callback(&request.into_parts().0)
        };
        assert_eq!(of("c=_sockjs.a1"), Ok("_sockjs.a1".to_owned()));
        for wrong in ["", "c=", "c=alert(1)", "c=%3Cscript%3E", "c=a%20b"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
