//! What each route needs, in one table; what is not in it is for admins.
//!
//! The table is asked before any handler, with the path as the router matched it. Routes whose needs depend on the body
//! or on a first message are marked as such: their handlers ask the [`Access`] themselves.

use super::Access;
use super::identify::is_native;
use crate::http::Shared;
use crate::refusal::Refusal;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gaffer_api::error::Code;
use gaffer_core::name::{JobId, RunId};
use hyper::Method;

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// Some credential.
    Credential,
    /// Read the job in the path, by name or by its run.
    Read,
    /// Write to it.
    Write,
    /// Operate it.
    Operate,
    /// Define it.
    Manage,
    /// Read the session in the path.
    ReadSession,
    /// Define jobs of the session in the path.
    ManageSession,
    /// Read all jobs.
    ReadAll,
    /// Operate all jobs.
    OperateAll,
    /// Define all jobs.
    ManageAll,
    /// Make keys.
    CreateKey,
    /// Make users.
    CreateUser,
    /// Everything.
    Admin,
    /// Its handler asks.
    Handler,
}

/// Methods, path with `{}` for each parameter, need. A path may end with `/**`: whatever is below.
#[rustfmt::skip] // A table reads better as one.
pub const TABLE: &[(&str, &str, Need)] = &[
    // The native API.
    ("GET", "/healthz", Need::Nothing),
    ("GET", "/metrics", Need::ReadAll),
    ("GET", "/v1/openapi.json", Need::Credential),
    ("GET", "/openapi.json", Need::Credential),
    ("GET", "/v1/sessions", Need::ReadAll),
    ("GET", "/v1/jobs", Need::ReadAll),
    ("GET", "/v1/jobs/{}/{}", Need::Read),
    ("PUT DELETE", "/v1/jobs/{}/{}", Need::Manage),
    ("POST", "/v1/jobs/{}", Need::OperateAll),
    ("POST", "/v1/jobs/{}/{}/{}", Need::Operate),
    ("POST", "/v1/jobs/{}/{}/scale", Need::Operate),
    ("POST", "/v1/jobs/{}/{}/signal", Need::Operate),
    // A one-off runs any command.
    ("POST", "/v1/jobs/{}/{}/run", Need::Manage),
    ("GET", "/v1/jobs/{}/{}/deaths", Need::Read),
    ("GET", "/v1/jobs/{}/{}/logs", Need::Read),
    ("GET", "/v1/jobs/{}/{}/instances/{}", Need::Read),
    ("POST", "/v1/jobs/{}/{}/instances/{}/{}", Need::Operate),
    ("POST", "/v1/jobs/{}/{}/instances/{}/signal", Need::Operate),
    ("GET", "/v1/jobs/{}/{}/instances/{}/deaths", Need::Read),
    ("GET", "/v1/stats", Need::ReadAll),
    ("GET", "/v1/runs", Need::ReadAll),
    ("GET", "/v1/runs/{}", Need::Read),
    ("GET", "/v1/runs/{}/stats", Need::Read),
    ("POST", "/v1/runs/{}/signal", Need::Operate),
    ("POST", "/v1/runs/{}/input", Need::Write),
    ("GET", "/v1/runs/{}/logs/{}", Need::Read),
    ("GET", "/v1/runs/{}/attach", Need::Write),
    ("GET", "/v1/logs", Need::ReadAll),
    ("GET", "/v1/events", Need::ReadAll),
    ("GET", "/v1/stream", Need::ReadAll),
    ("GET", "/v1/operations/{}", Need::ReadAll),
    ("DELETE", "/v1/operations/{}", Need::OperateAll),
    ("GET", "/v1/node", Need::Credential),
    ("GET", "/v1/nodes", Need::Credential),
    ("GET", "/v1/nodes/{}", Need::Credential),
    ("GET", "/v1/node/drain", Need::Credential),
    ("POST DELETE", "/v1/node/drain", Need::Admin),
    ("POST DELETE", "/v1/nodes/{}/drain", Need::Admin),
    ("POST", "/v1/node/shutdown", Need::Admin),
    ("POST", "/v1/node/reload", Need::Admin),
    ("POST", "/v1/plan", Need::ManageAll),
    // A file may say as whom its programs run.
    ("POST", "/v1/apply", Need::ManageAll),
    ("GET", "/v1/config", Need::ManageAll),
    ("GET", "/v1/doctor", Need::ReadAll),
    ("GET", "/v1/tasks", Need::ReadAll),
    // Its steps run any command.
    ("POST", "/v1/tasks", Need::ManageAll),
    ("GET", "/v1/tasks/{}", Need::ReadAll),
    ("GET", "/v1/tasks/{}/wait", Need::ReadAll),
    ("GET", "/v1/tasks/{}/steps/{}", Need::ReadAll),
    ("GET", "/v1/tasks/{}/steps/{}/logs/{}", Need::ReadAll),
    // A working directory may be any of this machine.
    ("GET", "/v1/tasks/{}/files", Need::ManageAll),
    ("GET", "/v1/tasks/{}/files/content", Need::ManageAll),
    ("POST", "/v1/tasks/{}/kill", Need::OperateAll),
    ("POST", "/v1/tasks/{}/pause", Need::OperateAll),
    ("POST", "/v1/tasks/{}/retry", Need::OperateAll),
    ("POST", "/v1/tasks/gc", Need::OperateAll),
    ("POST", "/v1/tasks/{}/resume", Need::OperateAll),
    ("POST", "/v1/tasks/{}/cancel", Need::OperateAll),
    ("DELETE", "/v1/tasks/{}", Need::OperateAll),
    ("POST", "/v1/tasks/{}/edit", Need::OperateAll),
    ("POST", "/v1/tasks/{}/renew", Need::OperateAll),
    ("POST", "/v1/tasks/{}/settle", Need::OperateAll),
    ("GET", "/v1/queues", Need::ReadAll),
    ("GET", "/v1/queues/{}/{}", Need::Read),
    ("GET", "/v1/queues/{}/{}/tasks", Need::Read),
    ("GET", "/v1/queues/{}/{}/stats", Need::Read),
    ("GET", "/v1/queues/{}/{}/logs", Need::Read),
    // What a push makes run is in the file.
    ("POST", "/v1/queues/{}/{}/tasks", Need::Operate),
    ("POST", "/v1/queues/{}/{}/claim", Need::Operate),
    ("POST", "/v1/queues/{}/{}/pause", Need::Operate),
    ("POST", "/v1/queues/{}/{}/scale", Need::Operate),
    ("POST", "/v1/queues/{}/{}/purge", Need::Operate),
    ("POST", "/v1/queues/{}/{}/retry", Need::Operate),
    ("POST", "/v1/queues/{}/{}/{}", Need::Operate),
    ("GET", "/v1/schedules", Need::ReadAll),
    ("GET", "/v1/schedules/{}/{}", Need::Read),
    ("GET", "/v1/schedules/{}/{}/next", Need::Read),
    // What a tick does is in the file.
    ("POST", "/v1/schedules/{}/{}/trigger", Need::Operate),
    ("POST", "/v1/schedules/{}/{}/pause", Need::Operate),
    ("POST", "/v1/schedules/{}/{}/resume", Need::Operate),
    ("GET", "/v1/tokens", Need::Admin),
    ("POST", "/v1/tokens", Need::CreateKey),
    ("GET DELETE", "/v1/tokens/{}", Need::Handler),
    ("GET", "/v1/users", Need::Admin),
    ("POST", "/v1/users", Need::CreateUser),
    ("GET PUT DELETE", "/v1/users/{}", Need::Handler),
    ("GET", "/v1/plugins", Need::ReadAll),
    ("GET", "/v1/webhooks", Need::ReadAll),
    ("GET", "/v1/webhooks/{}/{}", Need::ReadSession),
    ("PUT DELETE", "/v1/webhooks/{}/{}", Need::ManageSession),
    ("POST", "/v1/webhooks/{}/{}/test", Need::ManageSession),
    // Keys, users and channels of the original. Its other routes are not the router's: each asks the access itself.
    ("GET", "/_plugin/**", Need::Nothing),
    ("GET", "/auth", Need::Nothing),
    ("GET POST", "/keys", Need::Handler),
    ("GET DELETE", "/keys/{}", Need::Handler),
    ("GET POST", "/users", Need::Handler),
    ("GET PUT DELETE", "/users/{}", Need::Handler),
    ("PUT", "/users/{}/password", Need::Handler),
    ("PUT", "/users/{}/key", Need::Handler),
    ("GET", "/channel", Need::Nothing),
    ("GET POST", "/channel/**", Need::Handler),
    ("GET", "/{}/channel", Need::Handler),
    ("GET", "/{}/channel/{}", Need::Handler),
    ("GET", "/wstreams/{}", Need::Handler),
];

/// A path of the router in the form of the table.
pub fn form(path: &str) -> String {
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true if part.starts_with("{*") => "**",
        true => "{}",
        false => part,
    });
    parts.collect::<Vec<&str>>().join("/")
}

/// What a route needs; none: it is not in the table.
pub fn need(method: &Method, path: &str) -> Option<Need> {
    if *method == Method::OPTIONS && !is_native(path) {
        return Some(Need::Nothing);
    }
    // HEAD is a GET without its body.
    let method = if *method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    let path = form(path);
    let of_method = || {
        TABLE
            .iter()
            .filter(|(methods, _, _)| methods.split(' ').any(|own| own == method))
    };
    let exact = of_method().find(|(_, own, _)| *own == path);
    let below =
        || of_method().find(|(_, own, _)| own.strip_suffix("**").is_some_and(|base| path.starts_with(base)));
    exact.or_else(below).map(|(_, _, need)| *need)
}

/// Lets a request through to its handler, or refuses it.
pub async fn gate(
    State(app): State<Shared>,
    path: MatchedPath,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let access = request.extensions().get::<Access>().cloned();
    let Some(access) = access else {
        return Refusal::new(Code::Unauthorized, "nobody knows who asks this").into_response();
    };
    if !access.is_admin() {
        let need = need(request.method(), path.as_str()).unwrap_or(Need::Admin);
        let texts: Vec<&str> = params.iter().map(|(_, value)| value).collect();
        if let Err(refusal) = check(&app, &access, need, path.as_str(), &texts).await {
            return refusal.into_response();
        }
    }
    next.run(request).await
}

async fn check(
    app: &Shared,
    access: &Access,
    need: Need,
    path: &str,
    params: &[&str],
) -> Result<(), Refusal> {
    if matches!(need, Need::Nothing | Need::Handler) {
        return Ok(());
    }
    if access.is_nobody() {
        return Err(Refusal::new(Code::Unauthorized, "this needs a token"));
    }
    let session = params.first().copied().unwrap_or_default();
    let (may, what) = match need {
        Need::Nothing | Need::Handler | Need::Credential => return Ok(()),
        Need::ReadAll => (access.may_read_all(), "read on all jobs".to_owned()),
        Need::OperateAll => (access.may_operate_all(), "operate on all jobs".to_owned()),
        Need::ManageAll => (access.may_manage_all(), "manage on all jobs".to_owned()),
        Need::CreateKey => (access.may_create_key(), "create_key".to_owned()),
        Need::CreateUser => (access.may_create_user(), "create_user".to_owned()),
        Need::Admin => (false, "admin".to_owned()),
        Need::ReadSession => (
            access.may_read_session(session),
            format!("read on session {session:?}"),
        ),
        Need::ManageSession => (
            access.may_manage_session(session),
            format!("manage on session {session:?}"),
        ),
        Need::Read | Need::Write | Need::Operate | Need::Manage => {
            let job = job(app, path, params).await;
            let may = job.as_ref().is_some_and(|job| match need {
                Need::Read => access.may_read(job),
                Need::Write => access.may_write(job),
                Need::Operate => access.may_operate(job),
                _ => access.may_manage(job),
            });
            let word = match need {
                Need::Read => "read",
                Need::Write => "write",
                Need::Operate => "operate",
                _ => "manage",
            };
            (may, format!("{word} on that job"))
        }
    };
    if may {
        return Ok(());
    }
    // The same whether there is such a job or not: who may not see it learns nothing.
    Err(Refusal::new(
        Code::Forbidden,
        format!("{} may not do this: it needs {what}", access.actor()),
    )
    .hint("`gaffer token create NAME --scope SCOPE --for PATTERN` makes a token that may"))
}

/// The job that a path is about.
async fn job(app: &Shared, path: &str, params: &[&str]) -> Option<JobId> {
    let first = params.first()?;
    if path.starts_with("/v1/runs/") {
        let run = RunId::parse(first.strip_prefix('@').unwrap_or(first)).ok()?;
        return Some(app.handle.run(run).await.ok()?.slot.job);
    }
    JobId::parse(&format!("{first}.{}", params.get(1)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Every route of the document has an entry of its own.
    #[test]
    fn every_route_of_the_native_api_has_a_need() {
        let document: serde_json::Value =
            serde_json::from_str(&crate::http::router::openapi_json()).expect("a document");
        let mut missing = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for method in methods.as_object().expect("methods").keys() {
                let name = method.to_uppercase();
                let method = Method::from_bytes(name.as_bytes()).expect("a method");
                if need(&method, path).is_none() {
                    missing.insert(format!("{name} {path}"));
                }
            }
        }
        assert!(missing.is_empty(), "add them to access/routes.rs: {missing:?}");
    }

    /// Every path that the source routes by name is in the table.
    #[test]
    fn every_route_beside_the_document_has_a_need() {
        let mut missing = BTreeSet::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let all: Vec<String> = ["legacy", "http"]
            .iter()
            .flat_map(|dir| routed(&source.join(dir)))
            .collect();
        assert!(all.len() > 10, "they are found: {all:?}");
        for path in all {
            let own = form(&path);
            let known = TABLE.iter().any(|(_, entry, _)| {
                *entry == own || entry.strip_suffix("**").is_some_and(|base| own.starts_with(base))
            });
            if !known {
                missing.insert(path);
            }
        }
        assert!(missing.is_empty(), "add them to access/routes.rs: {missing:?}");
    }

    /// What stands in `.route("…"` below a directory.
    fn routed(dir: &Path) -> Vec<String> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                paths.extend(routed(&path));
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let parts = text.split(".route(").skip(1);
                let quoted = parts.filter_map(|part| part.trim_start().strip_prefix('"')?.split('"').next());
                paths.extend(quoted.map(str::to_owned));
            }
        }
        paths
    }

    #[test]
    fn an_unknown_route_and_an_unknown_method_are_in_no_table() {
        for (method, path) in [
            (Method::GET, "/v1/new"),
            (Method::PATCH, "/v1/jobs/{session}/{job}"),
            (Method::OPTIONS, "/v1/jobs"),
            (Method::POST, "/v1/node"),
        ] {
            assert_eq!(need(&method, path), None, "{method} {path}");
        }
        assert_eq!(need(&Method::HEAD, "/v1/jobs/{s}/{j}"), Some(Need::Read));
        assert_eq!(need(&Method::OPTIONS, "/keys"), Some(Need::Nothing));
        assert_eq!(need(&Method::GET, "/channel/{*rest}"), Some(Need::Handler));
    }
}
