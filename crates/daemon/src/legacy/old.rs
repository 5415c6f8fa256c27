//! The routes of 0.4, as documented: flat names, groups, feeds.

use crate::legacy::error::{LegacyError, Result};
use crate::legacy::http::{Call, json};
use crate::legacy::names::{self, Old};
use crate::legacy::objects::{self, Process};
use crate::legacy::template::{self, Template};
use crate::legacy::{feeds, ops};
use axum::response::Response;
use gaffer::info::{JobInfo, ScaleTo};
use gaffer_core::name::{DEFAULT_SESSION, JobId};
use serde_json::{Map, Value, json as value};

/// Answers a known route.
pub async fn answer(mut call: Call) -> Result<Response> {
    match (call.route, call.method.as_str()) {
        ("/processes", "GET") => list(&call),
        ("/processes", _) => add(&mut call).await,
        ("/processes/:name", _) => one(&mut call).await,
        ("/processes/:name/:action" | "/processes/:name/:action/:value", _) => act(&call).await,
        ("/status/:name", _) => status(&call),
        ("/groups", _) => groups(&call),
        ("/groups/:group", "GET") => group(&call),
        ("/groups/:group" | "/groups/:group/:action", _) => act_group(&call).await,
        ("/stats", _) => all_stats(&call).await,
        ("/stats/:name" | "/stats/:name/:pid", _) => stats(&call).await,
        ("/streams/:pid/:label", "POST") => write(&mut call).await,
        ("/streams/:pid/:label", _) => feeds::stream(call).await,
        _ => feeds::watch(call).await,
    }
}

fn ok() -> Response {
    json(200, &value!({ "ok": true }))
}

/// What exists, answered as 0.4 did.
fn gone() -> LegacyError {
    LegacyError::new(404, "resource_not_found", "there is no such action")
}

fn list(call: &Call) -> Result<Response> {
    call.require(call.access.may_manage_all())?;
    let handle = &call.app.handle;
    let running = call.query.get("running").map(String::as_str);
    if matches!(running, Some("true" | "1")) {
        return Ok(json(200, &value!(objects::all_pids(handle))));
    }
    let jobs = objects::jobs(handle, None);
    let named: Vec<String> = jobs.iter().map(|info| names::old_name(&info.view.job)).collect();
    Ok(json(200, &value!(named)))
}

fn wrong_info(error: LegacyError) -> LegacyError {
    match (error.status, error.word) {
        (400, "bad_request") if error.reason.starts_with("the body is no JSON") => LegacyError {
            word: "invalid_json",
            ..error
        },
        (400, _) => LegacyError {
            word: "invalid_process_info",
            ..error
        },
        (409, _) => LegacyError {
            word: "conflict",
            ..error
        },
        _ => error,
    }
}

/// A template of 0.4: its name is an old one, and it has the node's environment unless it says otherwise.
fn template(body: &Value, path: Option<&str>) -> Result<(JobId, Template)> {
    let mut template = Template::read(body, path)?;
    let mut name = template.name.clone();
    let group = template
        .object
        .get("group")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !group.is_empty() && !name.contains(':') {
        name = format!("{group}:{name}");
    }
    let job = names::old_job(&name).map_err(|error| LegacyError::bad_request(error.to_string()))?;
    template.name = job.job.to_string();
    template.object.entry("os_env").or_insert(Value::Bool(true));
    Ok((job, template))
}

async fn add(call: &mut Call) -> Result<Response> {
    let body = call.json().await.map_err(wrong_info)?;
    let (job, template) = template(&body, None).map_err(wrong_info)?;
    call.require(call.access.may_manage_session(job.session.as_str()))?;
    let by = call.access.actor();
    let loaded = ops::load(&call.app.handle, job.session.as_str(), &template, None, None, &by).await;
    loaded.map_err(wrong_info)?;
    Ok(ok())
}

/// A job that is there, and that the sender may look at or change.
fn found(call: &Call, job: &JobId, reads: bool) -> Result<JobInfo> {
    call.require(if reads {
        call.access.may_read(job)
    } else {
        call.access.may_manage(job)
    })?;
    objects::job(&call.app.handle, job)
}

/// The same of a process.
fn process(call: &Call, pid: u64, reads: bool) -> Result<(JobInfo, Process)> {
    let (info, process) = objects::process(&call.app.handle, pid)?;
    found(call, &info.view.job, reads)?;
    Ok((info, process))
}

async fn one(call: &mut Call) -> Result<Response> {
    let (handle, by) = (call.app.handle.clone(), call.access.actor());
    let reads = matches!(call.method.as_str(), "GET" | "HEAD");
    let name = names::old(call.part(0))?;
    match (name, call.method.as_str()) {
        (Old::Pid(pid), "GET" | "HEAD") => {
            let (info, _) = process(call, pid, reads)?;
            Ok(json(200, &objects::old_template(&handle, &info).await))
        }
        (Old::Pid(pid), "DELETE") => {
            process(call, pid, reads)?;
            ops::stop_process(&handle, pid, &by).await?;
            Ok(ok())
        }
        (Old::Pid(_), _) => Err(LegacyError::new(
            405,
            "method_not_allowed",
            "a process has no template",
        )),
        (Old::Job(job), "GET" | "HEAD") => {
            let info = found(call, &job, reads)?;
            Ok(json(200, &objects::old_template(&handle, &info).await))
        }
        (Old::Job(job), "DELETE") => {
            found(call, &job, reads)?;
            ops::unload(&handle, &job, &by).await?;
            Ok(ok())
        }
        (Old::Job(job), _) => {
            found(call, &job, reads)?;
            let body = call.json().await.map_err(wrong_info)?;
            let (named, template) = template(&body, Some(call.part(0))).map_err(wrong_info)?;
            if named != job {
                let reason = "template name conflict with the path";
                return Err(wrong_info(LegacyError::bad_request(reason)));
            }
            let start = template.start.unwrap_or(true);
            let updated = ops::update(&handle, &job, &template, start, None, &by).await;
            updated.map_err(wrong_info)?;
            Ok(ok())
        }
    }
}

async fn act(call: &Call) -> Result<Response> {
    let (handle, by) = (&call.app.handle, call.access.actor());
    let (action, given) = (call.part(1), call.parts.get(2).map(String::as_str));
    let reads = call.method == hyper::Method::GET;
    let name = names::old(call.part(0))?;
    match (name, action, given) {
        (Old::Job(job), "_pids", None) if reads => {
            let (kept, _) = objects::processes(handle, &found(call, &job, true)?);
            Ok(json(200, &value!({ "ok": true, "pids": objects::pids(&kept) })))
        }
        (_, "_pids" | "_start" | "_stop" | "_restart" | "_add" | "_sub" | "_signal", _) if reads => {
            Err(LegacyError::new(405, "method_not_allowed", "method not allowed"))
        }
        (Old::Job(job), "_start" | "_stop" | "_restart", None) => {
            found(call, &job, false)?;
            act_job(call, &job).await?;
            Ok(ok())
        }
        (Old::Job(job), "_add" | "_sub", given) => {
            found(call, &job, false)?;
            let wrong = || LegacyError::bad_value("a number of processes");
            let count: u32 = given.map_or(Ok(1), str::parse).map_err(|_| wrong())?;
            let to = if action == "_add" {
                ScaleTo::Add(count)
            } else {
                ScaleTo::Sub(count)
            };
            let now = ops::scale(handle, &job, to, &by).await?;
            Ok(json(200, &value!({ "ok": true, "numprocesses": now })))
        }
        (name, "_signal", given) => {
            let given = given.ok_or_else(|| LegacyError::new(400, "no_signal_number", "which signal?"))?;
            let signal =
                ops::signal_value(&Value::String(given.to_owned())).map_err(|error| LegacyError {
                    word: "bad_value",
                    ..error
                })?;
            match name {
                Old::Job(job) => {
                    found(call, &job, false)?;
                    ops::killall(handle, &job, signal, &by).await?;
                }
                Old::Pid(pid) => {
                    process(call, pid, false)?;
                    ops::kill(handle, pid, signal, &by).await?;
                }
            }
            Ok(ok())
        }
        (Old::Pid(pid), "_stop", None) => {
            process(call, pid, false)?;
            ops::stop_process(handle, pid, &by).await?;
            Ok(ok())
        }
        _ => Err(gone()),
    }
}

async fn act_job(call: &Call, job: &JobId) -> Result<()> {
    let (handle, by) = (&call.app.handle, call.access.actor());
    match call.part(1) {
        "_start" => ops::start(handle, job, &by).await,
        "_stop" => ops::stop(handle, job, &by).await,
        _ => ops::reload(handle, job, &by).await,
    }
}

fn status(call: &Call) -> Result<Response> {
    let Old::Job(job) = names::old(call.part(0))? else {
        return Err(LegacyError::not_found("a process has no status"));
    };
    let info = found(call, &job, true)?;
    let (kept, out) = objects::processes(&call.app.handle, &info);
    let running = kept.len() + out.len();
    Ok(json(
        200,
        &value!({
            "active": running > 0,
            "running": running,
            "max_processes": info.view.target,
            "numprocesses": info.view.target,
        }),
    ))
}

fn groups(call: &Call) -> Result<Response> {
    call.require(call.access.may_manage_all())?;
    let mut groups = objects::sessions(&call.app.handle);
    groups.retain(|group| group != DEFAULT_SESSION);
    Ok(json(200, &value!(groups)))
}

/// Jobs of a group. Jobs without one are in none.
fn members(call: &Call) -> Result<Vec<JobId>> {
    let group = call.part(0);
    call.require(call.access.may_manage_session(group))?;
    let jobs = objects::jobs(&call.app.handle, Some(group));
    if jobs.is_empty() || group == DEFAULT_SESSION {
        return Err(LegacyError::not_found(format!("no group {group}")));
    }
    Ok(jobs.into_iter().map(|info| info.view.job).collect())
}

fn group(call: &Call) -> Result<Response> {
    let named: Vec<String> = members(call)?.iter().map(names::old_name).collect();
    Ok(json(200, &value!(named)))
}

async fn act_group(call: &Call) -> Result<Response> {
    let members = members(call)?;
    let known = ["_start", "_stop", "_restart"].contains(&call.part(1));
    let delete = call.method == hyper::Method::DELETE;
    if !delete && !known {
        return Err(gone());
    }
    for job in members {
        if delete {
            ops::unload(&call.app.handle, &job, &call.access.actor()).await?;
        } else {
            act_job(call, &job).await?;
        }
    }
    Ok(ok())
}

/// Statistics of 0.4: `pid` is the OS's, `id` ours.
async fn job_stats(call: &Call, info: &JobInfo) -> Value {
    let handle = &call.app.handle;
    let (kept, out) = objects::processes(handle, info);
    let (mut samples, mut shown) = (Vec::new(), Vec::new());
    for process in kept.iter().chain(&out) {
        if let Ok(sample) = objects::sample(handle, process).await {
            shown.push(Value::Object(feeds::old_sample(&sample)));
            samples.push(sample);
        }
    }
    let mut all = Map::new();
    all.insert("name".to_owned(), names::old_name(&info.view.job).into());
    all.insert("stats".to_owned(), shown.into());
    all.extend(objects::aggregates(&samples));
    Value::Object(all)
}

async fn all_stats(call: &Call) -> Result<Response> {
    call.require(call.access.may_manage_all())?;
    let mut all = Vec::new();
    for info in objects::jobs(&call.app.handle, None) {
        all.push(job_stats(call, &info).await);
    }
    Ok(json(200, &Value::Array(all)))
}

async fn stats(call: &Call) -> Result<Response> {
    let Old::Job(job) = names::old(call.part(0))? else {
        return Err(LegacyError::not_found("no job is named so"));
    };
    let info = found(call, &job, true)?;
    let pid = match call.parts.get(1) {
        None => None,
        Some(text) => Some(names::pid(text).ok_or_else(|| LegacyError::bad_value("a process number"))?),
    };
    let of_pid = |pid: u64| -> Result<Process> {
        let (owner, process) = objects::process(&call.app.handle, pid)?;
        if owner.view.job == job {
            Ok(process)
        } else {
            Err(LegacyError::not_found("not of this job"))
        }
    };
    let process = pid.map(of_pid).transpose()?;
    if call.query.get("feed").is_some_and(|feed| feed != "normal") {
        return feeds::stats(call, job, pid);
    }
    match process {
        None => Ok(json(200, &job_stats(call, &info).await)),
        Some(process) => {
            let sample = objects::sample(&call.app.handle, &process).await?;
            Ok(json(200, &Value::Object(feeds::old_sample(&sample))))
        }
    }
}

async fn write(call: &mut Call) -> Result<Response> {
    let pid = names::pid(call.part(0)).ok_or_else(|| LegacyError::bad_value("a process number"))?;
    let (info, _) = objects::process(&call.app.handle, pid)?;
    call.require(call.access.may_write(&info.view.job))?;
    let label = match call.part(1) {
        "stdin" | "ttin" => None,
        other => Some(other.to_owned()),
    };
    let bytes = call.bytes().await?;
    let written = ops::send(&call.app.handle, pid, bytes.to_vec(), label.as_deref()).await;
    written.map_err(|error| match error.status {
        403 => LegacyError {
            word: "forbidden_write",
            ..error
        },
        404 => LegacyError {
            word: "not_found",
            ..error
        },
        _ => error,
    })?;
    Ok(ok())
}

/// Labels of a job's outputs, and the streams that they are.
pub async fn outputs(call: &Call, info: &JobInfo) -> Vec<(String, String)> {
    let template = template::of(&call.app.handle, info).await;
    let outputs = template::labels(&template).into_iter();
    let mut all: Vec<(String, String)> = outputs
        .map(|(label, stream)| (label, stream.to_owned()))
        .collect();
    all.extend(
        info.spec
            .launch
            .streams
            .iter()
            .map(|label| (label.clone(), label.clone())),
    );
    all
}
