//! From a request and its peer to an [`Access`].
//!
//! A credential that is shown counts for what it allows, also from a peer that needs none. The exception is the
//! original's `X-Api-Key` on its own routes while no key is required: clients send what is in their configuration, and
//! a request counts as an admin's then, as the original has it.

use super::Access;
use super::keyring::Keyring;
use crate::peer::{Peer, Uid};
use crate::refusal::Refusal;
use gaffer_api::error::Code;
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use hyper::http::request::Parts;

/// Header of the original's keys.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Who is asked, and what is required of whom.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The daemon's own user.
    pub own: Uid,
    /// Anonymous requests over TCP are refused also from that user.
    pub require_token: bool,
}

/// Is it a route of the native API? All others are the original's.
pub fn is_native(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(first, "v1" | "metrics" | "healthz" | "openapi.json")
}

/// May a request come in without any credential? Channels ask for a key in their first message.
pub fn is_open(method: &Method, path: &str) -> bool {
    if path == "/healthz" {
        return method == Method::GET;
    }
    if is_native(path) {
        return false;
    }
    let mut parts = path.trim_start_matches('/').split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let is_pid = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    let open_names = ["", "ping", "version", "auth"];
    *method == Method::OPTIONS
        || (open_names.contains(&first) && second.is_none())
        || matches!(first, "_plugin" | "channel")
        || (is_pid && second == Some("channel"))
}

/// Who sends this request, or why it is not answered.
pub fn identify(terms: Terms, keyring: &Keyring, request: &Parts, peer: &Peer) -> Result<Access, Refusal> {
    let path = request.uri.path();
    let native = is_native(path);
    let required = terms.require_token && matches!(peer, Peer::Tcp { .. });
    let is_run = matches!(peer, Peer::Unix { is_run: true, .. });
    let trusted = !required && !is_run && peer.is_trusted(terms.own);
    let shown = shown(&request.headers)?;
    match shown {
        Some(Shown::Key(_)) if trusted && !native => {}
        Some(Shown::Key(text) | Shown::Token(text)) => {
            return match keyring.resolve(text) {
                Some(access) => Ok(access),
                None if is_open(&request.method, path) => Ok(Access::nobody(peer)),
                None => Err(unknown(native)),
            };
        }
        None => {}
    }
    if trusted {
        return Ok(Access::trusted(peer, terms.require_token));
    }
    if is_open(&request.method, path) {
        return Ok(Access::nobody(peer));
    }
    Err(missing(terms, peer, is_run))
}

/// A credential as it was sent.
enum Shown<'a> {
    /// In `X-Api-Key`.
    Key(&'a str),
    /// In `Authorization: Bearer`.
    Token(&'a str),
}

fn shown(headers: &HeaderMap) -> Result<Option<Shown<'_>>, Refusal> {
    let twice = || Refusal::new(Code::BadRequest, "a request shows one credential at most");
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(twice()),
            (value, None) => Ok(value.map(|value| value.to_str().unwrap_or("?"))),
        }
    };
    // Basic credentials are for the route that wants them.
    let bearer = one(&AUTHORIZATION)?.and_then(|value| {
        let (scheme, text) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
    });
    match (one(&API_KEY)?, bearer) {
        (Some(_), Some(_)) => Err(twice()),
        (Some(key), None) => Ok(Some(Shown::Key(key.trim()))),
        (None, Some(token)) => Ok(Some(Shown::Token(token))),
        (None, None) => Ok(None),
    }
}

fn unknown(native: bool) -> Refusal {
    // The original tells a key that it does not know from none at all.
    let code = if native {
        Code::Unauthorized
    } else {
        Code::Forbidden
    };
    Refusal::new(code, "the credential is not known here, has expired or was revoked")
        .hint("`gaffer token ls` lists those there are; make a new one with `gaffer token create NAME --scope SCOPE`")
}

fn missing(terms: Terms, peer: &Peer, is_run: bool) -> Refusal {
    if is_run {
        return Refusal::new(Code::Forbidden, "a run may not control the daemon that runs it")
            .hint("its job would end what ends it; ask from outside, or give the job a token");
    }
    let message = match (peer, peer.uid()) {
        (Peer::Tcp { .. }, Some(uid)) if peer.is_trusted(terms.own) => {
            format!("require_token is set: uid {} needs a token over TCP", uid.0)
        }
        (_, Some(uid)) => format!(
            "uid {} is neither the daemon's user nor root: a token is needed",
            uid.0
        ),
        (_, None) => "the kernel does not say whose connection this is: a token is needed".to_owned(),
    };
    Refusal::new(Code::Unauthorized, message).hint(
        "make one with `gaffer token create NAME --scope read|operate|admin` as the daemon's user, and give it with \
         --token-file or GAFFER_TOKEN",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::keyring::New;
    use crate::access::permissions::Permissions;
    use hyper::Request;
    use std::net::SocketAddr;

    const OWN: Uid = Uid(1000);

    fn terms(require_token: bool) -> Terms {
        Terms {
            own: OWN,
            require_token,
        }
    }

    fn tcp(uid: Option<u32>) -> Peer {
        Peer::Tcp {
            from: SocketAddr::from(([127, 0, 0, 1], 9)),
            uid: uid.map(Uid),
        }
    }

    fn unix(uid: u32, is_run: bool) -> Peer {
        Peer::Unix {
            uid: Uid(uid),
            is_run,
            invited: false,
        }
    }

    fn parts(path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    /// `admin`, `nobody`, `some`, or the code.
    fn who(
        terms: Terms,
        keyring: &Keyring,
        path: &str,
        headers: &[(&str, &str)],
        peer: &Peer,
    ) -> &'static str {
        match identify(terms, keyring, &parts(path, headers), peer) {
            Ok(access) if access.is_admin() => "admin",
            Ok(access) if access.is_nobody() => "nobody",
            Ok(_) => "some",
            Err(refusal) => refusal.0.code().word(),
        }
    }

    #[test]
    fn who_is_not_known_needs_a_token_except_for_what_is_open() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let keyring = Keyring::open(dir.path()).expect("opened");
        let ask = |required, path: &str, peer: &Peer| who(terms(required), &keyring, path, &[], peer);
        for (peer, open, required) in [
            (tcp(Some(1000)), "admin", "unauthorized"),
            (tcp(Some(0)), "admin", "unauthorized"),
            (tcp(Some(1001)), "unauthorized", "unauthorized"),
            (tcp(None), "unauthorized", "unauthorized"),
            (unix(1000, false), "admin", "admin"),
            (unix(1001, false), "unauthorized", "unauthorized"),
            (unix(1000, true), "forbidden", "forbidden"),
        ] {
            for path in [
                "/v1/jobs",
                "/jobs",
                "/metrics",
                "/1/stats",
                "/wstreams/1",
                "/v1/tokens",
                "/keys",
            ] {
                assert_eq!(ask(false, path, &peer), open, "{peer:?} {path}");
                assert_eq!(ask(true, path, &peer), required, "{peer:?} {path} required");
            }
        }
        for path in [
            "/",
            "/ping",
            "/version",
            "/auth",
            "/healthz",
            "/_plugin/x/y",
            "/channel/websocket",
            "/7/channel",
        ] {
            assert_eq!(ask(true, path, &tcp(None)), "nobody", "{path}");
        }
        for path in [
            "/ping/x",
            "/auth/x",
            "/channels",
            "/x/channel",
            "/7",
            "//v1/jobs",
            "/v1",
            "/healthz/x",
        ] {
            assert_eq!(ask(true, path, &tcp(None)), "unauthorized", "{path}");
        }
    }

    #[tokio::test]
    async fn a_credential_counts_for_what_it_allows_whoever_shows_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let keyring = Keyring::open(dir.path()).expect("opened");
        let read = Permissions {
            create_key: true,
            ..Permissions::default()
        };
        let (_, token) = keyring
            .add(New {
                name: Some("t".to_owned()),
                may: read,
                by: "test".to_owned(),
                ..New::default()
            })
            .await
            .expect("made");
        let bearer = format!("Bearer {token}");
        let ask = |path: &str, headers: &[(&str, &str)], peer: &Peer| {
            who(terms(false), &keyring, path, headers, peer)
        };
        for peer in [tcp(None), tcp(Some(1000)), unix(1001, false), unix(1000, true)] {
            assert_eq!(
                ask("/v1/jobs", &[("authorization", &bearer)], &peer),
                "some",
                "{peer:?}"
            );
            assert_eq!(
                ask("/v1/jobs", &[("x-api-key", &token)], &peer),
                "some",
                "{peer:?}"
            );
            assert_eq!(
                ask("/v1/jobs", &[("authorization", "Bearer x")], &peer),
                "unauthorized",
                "{peer:?}"
            );
        }
        assert_eq!(ask("/jobs", &[("x-api-key", &token)], &tcp(None)), "some");
        assert_eq!(ask("/jobs", &[("x-api-key", "x")], &tcp(None)), "forbidden");
        assert_eq!(ask("/jobs", &[("x-api-key", "x")], &tcp(Some(1000))), "admin");
        let both = [("authorization", bearer.as_str()), ("x-api-key", token.as_str())];
        assert_eq!(ask("/v1/jobs", &both, &tcp(None)), "bad-request");
        let twice = [("x-api-key", token.as_str()), ("x-api-key", "y")];
        assert_eq!(ask("/v1/jobs", &twice, &tcp(None)), "bad-request");
        assert_eq!(
            ask("/auth", &[("authorization", "Basic eDp5")], &tcp(None)),
            "nobody"
        );
    }
}
