//! What every request passes before any route sees it, on every listener.
//!
//! Loopback and the unix socket are reachable through other people's programs: a web page that the user opens
//! can send requests to `127.0.0.1`, and by DNS rebinding under a name of its own. So `Host` must be one of our names,
//! `Origin` absent or ours *with our port* (comparing it with `Host` would prove nothing), `Sec-Fetch-Site` not that of
//! another site, and whatever changes something carries a header that a form cannot send. Only then
//! comes the question who it is ([`crate::access`]).

use crate::access::identify::{API_KEY, Terms, is_native};
use crate::peer::Uid;
use crate::refusal::Refusal;
use gaffer_api::error::Code;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Uri};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// A header that no form can send; its value does not matter.
pub const OURS: HeaderName = HeaderName::from_static("x-gaffer");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Headers of every answer.
pub const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// Who may ask, and under which names.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The daemon's own user.
    own: Uid,
    /// Anonymous requests over TCP are refused also from that user.
    require_token: bool,
    /// Lower-case host names and addresses, without port.
    hosts: BTreeSet<String>,
    /// Whole origins, `http://localhost:5000`.
    origins: BTreeSet<String>,
    /// Origins that may use the API of the original.
    legacy_origins: BTreeSet<String>,
}

impl Guard {
    /// A guard for a daemon that listens at `bound`; `node` is its host name, `scheme` http or https, the lists are `[gaffer]`'s.
    pub fn new(
        own: Uid,
        require_token: bool,
        node: &str,
        scheme: &str,
        bound: &[SocketAddr],
        allow_hosts: &[String],
        allow_origins: &[String],
    ) -> Guard {
        let mut hosts: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        hosts.insert(node.to_ascii_lowercase());
        hosts.extend(bound.iter().map(|address| address.ip().to_string()));
        hosts.extend(allow_hosts.iter().map(|host| host.to_ascii_lowercase()));
        let mut origins: BTreeSet<String> = allow_origins
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase())
            .collect();
        for address in bound {
            let names = [
                "localhost".to_owned(),
                node.to_ascii_lowercase(),
                bracketed(address.ip()),
            ];
            origins.extend(
                names
                    .iter()
                    .map(|name| format!("{scheme}://{name}:{}", address.port())),
            );
        }
        Guard {
            own,
            require_token,
            hosts,
            origins,
            legacy_origins: BTreeSet::new(),
        }
    }

    /// With `[gaffer] legacy_origins`.
    #[must_use]
    pub fn with_legacy_origins(mut self, origins: &[String]) -> Guard {
        let origins = origins
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase());
        self.legacy_origins = origins.collect();
        self
    }

    /// May pages of this origin use the API of the original?
    pub fn is_legacy_origin(&self, origin: &str) -> bool {
        self.legacy_origins.contains(&origin.to_ascii_lowercase())
    }

    /// Lets a request pass, or says why not. Who sends it is the next question.
    pub fn check(&self, request: &Parts) -> Result<(), Refusal> {
        self.check_host(&request.headers, &request.uri)?;
        let mut origins = request.headers.get_all(ORIGIN).iter();
        let listed = match (origins.next(), origins.next()) {
            (Some(origin), None) => origin.to_str().is_ok_and(|origin| self.is_legacy_origin(origin)),
            _ => false,
        };
        if listed && !is_native(request.uri.path()) {
            return Ok(());
        }
        self.check_origin(&request.headers)?;
        check_sender(&request.method, request.uri.path(), &request.headers)
    }

    /// What is required of whom.
    pub fn terms(&self) -> Terms {
        Terms {
            own: self.own,
            require_token: self.require_token,
        }
    }

    fn check_host(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
        let mut values = headers.get_all(HOST).iter();
        let (Some(host), None) = (values.next(), values.next()) else {
            return Err(Refusal::new(
                Code::BadHost,
                "a request needs exactly one Host header",
            ));
        };
        let host = host.to_str().ok().and_then(host_name).unwrap_or_default();
        let named = uri.authority().map(|authority| authority.as_str());
        let uri_is_ours =
            named.is_none_or(|named| host_name(named).is_some_and(|name| self.hosts.contains(&name)));
        if self.hosts.contains(&host) && uri_is_ours {
            return Ok(());
        }
        Err(
            Refusal::new(Code::BadHost, "the Host header is not a name of this daemon")
                .hint("use localhost, an address it is bound to, or list the name in [gaffer] allow_hosts"),
        )
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let foreign = headers.get_all(ORIGIN).iter().any(|origin| {
            let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
            !self.origins.contains(&origin)
        });
        if foreign {
            return Err(Refusal::new(
                Code::Forbidden,
                "the Origin header is not ours: a web page elsewhere sent this",
            )
            .hint("an origin that may do so is listed in [gaffer] allow_origins"));
        }
        let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        match site {
            None | Some(b"same-origin" | b"none") => Ok(()),
            // A listed origin is another site by definition.
            Some(_) if headers.contains_key(ORIGIN) => Ok(()),
            Some(_) => Err(Refusal::new(
                Code::Forbidden,
                "a web page of another site sent this request",
            )),
        }
    }
}

/// Does the sender of a change show that it is not a form on a web page?
fn check_sender(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        || [OURS, AUTHORIZATION, API_KEY]
            .iter()
            .any(|name| headers.contains_key(name))
    {
        return Ok(());
    }
    let kind = headers
        .get(CONTENT_TYPE)
        .map(|kind| kind.to_str().unwrap_or_default());
    let kind = kind.map(|kind| {
        kind.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    });
    let browser = [ORIGIN, SEC_FETCH_SITE, hyper::header::REFERER]
        .iter()
        .any(|name| headers.contains_key(name));
    match kind.as_deref() {
        Some("application/json") => Ok(()),
        None if !browser => Ok(()),
        // The original does not look at the type, and its clients' tools send what they like. Each browser that
        // exists names itself when it sends a form.
        Some(_) if !browser && !is_native(path) => Ok(()),
        _ => Err(Refusal::new(
            Code::Forbidden,
            "this could have been sent by a form on a web page",
        )
        .hint("send Content-Type: application/json, or the header X-Gaffer: 1")),
    }
}

/// The name in `name:port`, `[v6]:port`; lower case, without a final dot.
fn host_name(text: &str) -> Option<String> {
    let name = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']')?;
            if !(rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)) {
                return None;
            }
            name
        }
        None => match text.split_once(':') {
            None => text,
            Some((name, port)) => is_port(port).then_some(name)?,
        },
    };
    Some(name.to_ascii_lowercase())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn guard() -> Guard {
        let bound = ["127.0.0.1:5000".parse().expect("an address")];
        Guard::new(
            Uid(1000),
            false,
            "alpha",
            "http",
            &bound,
            &["dev.test".into()],
            &["https://ok.test".into()],
        )
    }

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn code(method: &str, uri: &str, headers: &[(&str, &str)]) -> &'static str {
        match guard().check(&parts(method, uri, headers)) {
            Ok(()) => "ok",
            Err(refusal) => refusal.0.code().word(),
        }
    }

    #[test]
    fn a_host_that_is_not_ours_is_refused_whatever_the_origin_says() {
        for host in [
            "localhost",
            "LOCALHOST:5000",
            "127.0.0.1:9",
            "[::1]:5000",
            "alpha",
            "dev.test:80",
        ] {
            assert_eq!(code("GET", "/v1/jobs", &[("host", host)]), "ok", "{host}");
        }
        for host in [
            "",
            "evil.test",
            "evil.test:5000",
            "localhost.evil.test",
            "127.0.0.1.evil.test",
            "localhost:x",
            "[::1",
        ] {
            assert_eq!(code("GET", "/v1/jobs", &[("host", host)]), "bad-host", "{host}");
            let origin = format!("http://{host}");
            assert_eq!(
                code("GET", "/v1/jobs", &[("host", host), ("origin", &origin)]),
                "bad-host",
                "{host}"
            );
        }
        assert_eq!(code("GET", "/v1/jobs", &[]), "bad-host");
        assert_eq!(
            code("GET", "/v1/jobs", &[("host", "localhost"), ("host", "evil.test")]),
            "bad-host"
        );
        assert_eq!(
            code("GET", "http://evil.test/v1/jobs", &[("host", "localhost")]),
            "bad-host"
        );
    }

    #[test]
    fn an_origin_must_be_ours_with_our_port() {
        let with = |origin| {
            code(
                "GET",
                "/v1/jobs",
                &[("host", "localhost:5000"), ("origin", origin)],
            )
        };
        for origin in [
            "http://localhost:5000",
            "http://127.0.0.1:5000",
            "https://ok.test",
        ] {
            assert_eq!(with(origin), "ok", "{origin}");
        }
        for origin in [
            "null",
            "http://localhost",
            "http://localhost:3000",
            "https://localhost:5000",
            "http://evil.test",
            "",
        ] {
            assert_eq!(with(origin), "forbidden", "{origin}");
        }
    }

    #[test]
    fn another_site_is_refused_even_without_an_origin() {
        let with = |site| {
            code(
                "GET",
                "/v1/jobs",
                &[("host", "localhost"), ("sec-fetch-site", site)],
            )
        };
        assert_eq!([with("same-origin"), with("none")], ["ok", "ok"]);
        assert_eq!(
            [with("cross-site"), with("same-site"), with("")],
            ["forbidden"; 3]
        );
    }

    #[test]
    fn a_form_cannot_change_anything_and_a_bare_curl_can() {
        let post = |headers: &[(&str, &str)]| {
            let all: Vec<(&str, &str)> = [("host", "localhost")]
                .into_iter()
                .chain(headers.iter().copied())
                .collect();
            code("POST", "/v1/jobs/a/b/stop", &all)
        };
        assert_eq!(post(&[]), "ok");
        assert_eq!(post(&[("content-type", "application/json; charset=utf-8")]), "ok");
        assert_eq!(post(&[("content-type", "text/plain"), ("x-gaffer", "1")]), "ok");
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
        ] {
            assert_eq!(post(&[("content-type", kind)]), "forbidden", "{kind}");
        }
        let original = |headers: &[(&str, &str)]| code("POST", "/jobs/a/b/state", headers);
        let form = ("content-type", "application/x-www-form-urlencoded");
        assert_eq!(original(&[("host", "localhost"), form]), "ok");
        for named in [
            ("origin", "http://localhost:5000"),
            ("referer", "http://x/"),
            ("sec-fetch-site", "none"),
        ] {
            assert_eq!(
                original(&[("host", "localhost"), form, named]),
                "forbidden",
                "{named:?}"
            );
        }
        assert_eq!(post(&[("origin", "http://localhost:5000")]), "forbidden");
        assert_eq!(post(&[("referer", "http://evil.test/")]), "forbidden");
    }
}
