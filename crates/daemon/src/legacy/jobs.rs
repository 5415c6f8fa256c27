//! The routes of 0.5: jobs and processes.

use crate::legacy::error::{LegacyError, Result};
use crate::legacy::http::{Call, VERSION, json, text};
use crate::legacy::objects::{self, Process};
use crate::legacy::template::{self, Template};
use crate::legacy::{names, ops};
use axum::response::Response;
use gaffer::info::JobInfo;
use gaffer_core::name::JobId;
use serde_json::{Value, json as value};

/// Answers a known route.
pub async fn answer(mut call: Call) -> Result<Response> {
    match (call.route, call.method.as_str()) {
        ("/", _) => Ok(json(200, &value!({ "welcome": "gaffer", "version": VERSION }))),
        ("/version", _) => Ok(json(200, &value!({ "name": "gaffer", "version": VERSION }))),
        ("/ping", _) => Ok(text("OK")),
        ("/sessions" | "/jobs" | "/pids", _) => lists(&call),
        ("/jobs/:session", "GET") => session(&call),
        ("/jobs/:session", _) => load(&mut call).await,
        (route, _) if route.starts_with("/:pid") => process(&mut call).await,
        _ => job(&mut call).await,
    }
}

fn ok(status: u16) -> Response {
    json(status, &value!({ "ok": true }))
}

fn lists(call: &Call) -> Result<Response> {
    call.require(call.access.may_manage_all())?;
    let handle = &call.app.handle;
    Ok(json(
        200,
        &match call.route {
            "/sessions" => value!({ "sessions": objects::sessions(handle) }),
            "/jobs" => value!({ "jobs": named(&objects::jobs(handle, None)) }),
            _ => value!({ "pids": objects::all_pids(handle) }),
        },
    ))
}

fn named(jobs: &[JobInfo]) -> Vec<String> {
    jobs.iter().map(|info| info.view.job.to_string()).collect()
}

fn session(call: &Call) -> Result<Response> {
    let session = call.part(0);
    call.require(call.access.may_manage_session(session))?;
    let jobs = objects::jobs(&call.app.handle, Some(session));
    if jobs.is_empty() {
        return Err(LegacyError::not_found(format!("no session {session}")));
    }
    Ok(json(200, &value!({ "sessionid": session, "jobs": named(&jobs) })))
}

async fn load(call: &mut Call) -> Result<Response> {
    let session = call.part(0).to_owned();
    call.require(call.access.may_manage_session(&session))?;
    let template = Template::read(&call.json().await?, None)?;
    ops::load(
        &call.app.handle,
        &session,
        &template,
        None,
        None,
        &call.access.actor(),
    )
    .await?;
    Ok(ok(200))
}

async fn job(call: &mut Call) -> Result<Response> {
    let id = names::find_in(call.part(0), call.part(1))?;
    let reads = matches!(call.method.as_str(), "GET" | "HEAD");
    call.require(if reads {
        call.access.may_read(&id)
    } else {
        call.access.may_manage(&id)
    })?;
    let info = objects::job(&call.app.handle, &id)?;
    if reads {
        return look(call, &info).await;
    }
    change(call, &id).await
}

async fn look(call: &Call, info: &JobInfo) -> Result<Response> {
    let handle = &call.app.handle;
    let (kept, out) = objects::processes(handle, info);
    match call.route.rsplit('/').next() {
        Some("stats") => Ok(json(200, &objects::job_stats(handle, info).await)),
        Some("numprocesses") => Ok(json(200, &value!({ "numprocesses": info.view.target }))),
        Some("state") if kept.is_empty() && out.is_empty() => Ok(text("0")),
        Some("state") => Ok(text("1")),
        Some("pids") => Ok(json(200, &value!({ "pids": objects::pids(&kept) }))),
        _ => Ok(json(200, &objects::job_info(handle, info).await)),
    }
}

async fn change(call: &mut Call, id: &JobId) -> Result<Response> {
    let (handle, by) = (call.app.handle.clone(), call.access.actor());
    match (call.route.rsplit('/').next(), call.method.as_str()) {
        (Some("numprocesses"), _) => {
            let to = ops::scale_value(&call.json().await?["scale"])?;
            let now = ops::scale(&handle, id, to, &by).await?;
            Ok(json(200, &value!({ "numprocesses": now })))
        }
        (Some("signal"), _) => {
            let signal = ops::signal_value(&call.json().await?["signal"])?;
            ops::killall(&handle, id, signal, &by).await?;
            Ok(ok(202))
        }
        (Some("state"), _) => {
            match &*call.bytes().await? {
                b"1" => ops::start(&handle, id, &by).await?,
                b"0" => ops::stop(&handle, id, &by).await?,
                b"2" => ops::reload(&handle, id, &by).await?,
                _ => {
                    return Err(LegacyError::bad_value(
                        "the body is 1 (start), 0 (stop) or 2 (reload)",
                    ));
                }
            }
            Ok(ok(202))
        }
        (Some("commit"), _) => commit(call, id).await,
        (_, "PUT") => update(call, id).await,
        _ => {
            ops::unload(&handle, id, &by).await?;
            Ok(ok(200))
        }
    }
}

async fn commit(call: &mut Call, id: &JobId) -> Result<Response> {
    let body = call.json_or_empty().await?;
    if !body.is_object() {
        return Err(LegacyError::bad_request("the body is an object"));
    }
    let grace = match &body["graceful_timeout"] {
        Value::Null => None,
        Value::Number(number) => number.as_f64(),
        _ => {
            return Err(LegacyError::bad_request(
                "`graceful_timeout` is a number of seconds",
            ));
        }
    };
    let env = template::env_of(body.get("env"))?;
    let pid = ops::commit(&call.app.handle, id, grace, env, &call.access.actor()).await?;
    Ok(json(200, &value!({ "pid": pid })))
}

async fn update(call: &mut Call, id: &JobId) -> Result<Response> {
    let body = call.json().await?;
    let template = Template::read(&body, Some(id.job.as_str()))?;
    if names::make_in(id.session.as_str(), &template.name)? != *id {
        return Err(LegacyError::bad_request("template name conflict with the path"));
    }
    let start = template.start.unwrap_or(true);
    ops::update(&call.app.handle, id, &template, start, None, &call.access.actor()).await?;
    Ok(ok(201))
}

async fn process(call: &mut Call) -> Result<Response> {
    let (handle, by) = (call.app.handle.clone(), call.access.actor());
    let wrong = || LegacyError::bad_value(format!("{} is no process number", call.part(0)));
    if call.route == "/:pid/:other" {
        return match names::pid(call.part(1)) {
            Some(_) => Err(LegacyError::bad_value(format!("{} is no action", call.part(1)))),
            None => Err(LegacyError::not_found("there is no such route")),
        };
    }
    let pid = names::pid(call.part(0)).ok_or_else(wrong)?;
    let (info, found) = objects::process(&handle, pid)?;
    let id = &info.view.job;
    let reads = matches!(call.method.as_str(), "GET" | "HEAD");
    call.require(if reads {
        call.access.may_read(id)
    } else {
        call.access.may_manage(id)
    })?;
    match (call.route, call.method.as_str()) {
        ("/:pid/stats", _) => stats(call, &found).await,
        ("/:pid/signal", _) => {
            let signal = ops::signal_value(&call.json().await?["signal"])?;
            ops::kill(&handle, pid, signal, &by).await?;
            Ok(ok(202))
        }
        (_, "DELETE") => {
            ops::stop_process(&handle, pid, &by).await?;
            Ok(ok(202))
        }
        _ => Ok(json(200, &objects::process_info(&handle, &info, &found).await)),
    }
}

async fn stats(call: &Call, process: &Process) -> Result<Response> {
    let sample = objects::sample(&call.app.handle, process).await?;
    Ok(json(200, &value!({ "stats": sample.fields })))
}
