//! What the old APIs can ask, as calls of the engine: shared by the HTTP routes of 0.5 and 0.4 and by channel commands.
//!
//! Everything here is said to the store before it counts, as any request. Where the answer of the original implied that
//! processes were there already, these wait for them, within `BIRTH_WITHIN`.

use crate::legacy::error::{LegacyError, Result};
use crate::legacy::events::IMPLIED;
use crate::legacy::names;
use crate::legacy::objects::{self, Process};
use crate::legacy::template::{self, Template};
use gaffer::Handle;
use gaffer::info::{Act, Actor, Cursor, How, JobInfo, OneOff, PutOptions, ScaleTo, Target};
use gaffer_core::io::{InstanceView, State, WishState};
use gaffer_core::job::{Scope, Stdin};
use gaffer_core::name::{JobId, Place, RunId, Slot};
use gaffer_core::time::Duration;
use serde_json::{Map, Value};

/// How long an answer waits for the processes that it asked for.
const BIRTH_WITHIN: Duration = Duration::from_secs(3);

/// Events that are looked at together.
const READ_AT_ONCE: usize = 256;

/// Adds a job; if `start` (or the template's own `start`) says so it is running when this returns. One that cannot be run
/// is not loaded.
pub async fn load(
    handle: &Handle,
    session: &str,
    template: &Template,
    start: Option<bool>,
    env: Option<&Map<String, Value>>,
    by: &Actor,
) -> Result<JobId> {
    let job = names::make_in(session, &template.name)?;
    let start = template.start.or(start).unwrap_or(true);
    let loaded = template.load(handle, &job, env, start, crate::view::now().0)?;
    let seen = handle.events().newest();
    let options = PutOptions {
        if_revision: Some(0),
        over_file: false,
    };
    handle.job_put(job.clone(), loaded, options, by.clone()).await?;
    if start && let Some(why) = births(handle, &job, seen).await {
        handle.job_remove(job, by.clone()).await?;
        return Err(cannot_run(&why));
    }
    Ok(job)
}

fn cannot_run(why: &str) -> LegacyError {
    LegacyError::bad_request(format!("the job cannot be run: {why}"))
}

/// Stops a job and forgets it. It is gone at once, its processes soon.
pub async fn unload(handle: &Handle, job: &JobId, by: &Actor) -> Result<()> {
    objects::job(handle, job)?;
    handle.job_remove(job.clone(), by.clone()).await?;
    Ok(())
}

/// Replaces the template; every process is replaced. With `start` a stopped job starts.
pub async fn update(
    handle: &Handle,
    job: &JobId,
    template: &Template,
    start: bool,
    env: Option<&Map<String, Value>>,
    by: &Actor,
) -> Result<()> {
    let info = objects::job(handle, job)?;
    let created = template::kept(&info.spec).map_or(0, |kept| kept.created);
    let runs = start || info.view.wish == WishState::Running;
    let loaded = template.load(handle, job, env, runs, created)?;
    let before = handle.job_typed(job).await?;
    let seen = handle.events().newest();
    put_over(handle, job, loaded, by).await?;
    implied(handle, &info, ScaleTo::Auto).await?;
    if !runs {
        return stop_all(handle, &info, false, by).await;
    }
    stop_all(handle, &info, true, by).await?;
    match births(handle, job, seen).await {
        None => Ok(()),
        Some(why) => {
            let loaded = handle.load_job(job, &before)?;
            put_over(handle, job, loaded, by).await?;
            if info.view.wish == WishState::Stopped {
                act(handle, job, None, Act::Stop(How::default()), by).await?;
            }
            Err(cannot_run(&why))
        }
    }
}

async fn put_over(handle: &Handle, job: &JobId, loaded: gaffer_config::LoadedJob, by: &Actor) -> Result<()> {
    let options = PutOptions {
        if_revision: None,
        over_file: true,
    };
    handle.job_put(job.clone(), loaded, options, by.clone()).await?;
    Ok(())
}

/// Wishes the job up, with its definition's number of processes.
pub async fn start(handle: &Handle, job: &JobId, by: &Actor) -> Result<()> {
    let info = objects::job(handle, job)?;
    let seen = handle.events().newest();
    implied(handle, &info, ScaleTo::Auto).await?;
    act(handle, job, None, Act::Start, by).await?;
    let _failed = births(handle, job, seen).await;
    Ok(())
}

/// Wishes the job down, and its number of processes to 0. Commits end too.
pub async fn stop(handle: &Handle, job: &JobId, by: &Actor) -> Result<()> {
    let info = objects::job(handle, job)?;
    act(handle, job, None, Act::Stop(How::default()), by).await?;
    implied(handle, &info, ScaleTo::Set(0)).await
}

/// New processes for all, as many as the definition says. A job that was stopped stays down.
pub async fn reload(handle: &Handle, job: &JobId, by: &Actor) -> Result<()> {
    let info = objects::job(handle, job)?;
    let seen = handle.events().newest();
    let runs = info.view.wish == WishState::Running || is_idle(&info);
    implied(handle, &info, ScaleTo::Auto).await?;
    stop_all(handle, &info, runs, by).await?;
    if runs {
        let _failed = births(handle, job, seen).await;
    }
    Ok(())
}

/// Stops every process; those that are kept alive come back.
pub async fn stopall(handle: &Handle, job: &JobId, by: &Actor) -> Result<()> {
    let info = objects::job(handle, job)?;
    let runs = info.view.wish == WishState::Running;
    stop_all(handle, &info, runs, by).await
}

/// Ends what runs; kept-alive processes come back if the job `runs`.
async fn stop_all(handle: &Handle, info: &JobInfo, runs: bool, by: &Actor) -> Result<()> {
    let job = &info.view.job;
    let (_, out) = objects::processes(handle, info);
    if runs {
        act(handle, job, None, Act::Restart(How::default()), by).await?;
    }
    for process in out {
        stop_commit(handle, &process, by).await?;
    }
    Ok(())
}

/// What a scale request says: a JSON number, or a text.
///
/// `3` and `"3"`, `"+3"`: three more; `-3`, `0`, `"-3"`: fewer; `"=3"`: exactly.
pub fn scale_value(value: &Value) -> Result<ScaleTo> {
    let wrong = || {
        LegacyError::bad_value(format!(
            "{value} is no number of processes: N, \"+N\", \"-N\" or \"=N\""
        ))
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse::<u32>().ok())
            .flatten()
            .ok_or_else(wrong)
    };
    match value {
        Value::Number(count) => {
            let count = count.as_i64().ok_or_else(wrong)?;
            let size = u32::try_from(count.unsigned_abs()).map_err(|_| wrong())?;
            Ok(if count > 0 {
                ScaleTo::Add(size)
            } else {
                ScaleTo::Sub(size)
            })
        }
        Value::String(text) => match text.as_bytes().first() {
            Some(b'+') => Ok(ScaleTo::Add(number(&text[1..])?)),
            Some(b'-') => Ok(ScaleTo::Sub(number(&text[1..])?)),
            Some(b'=') => Ok(ScaleTo::Set(number(&text[1..])?)),
            _ => Ok(ScaleTo::Add(number(text)?)),
        },
        _ => Err(wrong()),
    }
}

/// Changes the number of processes and gives the new one. On a stopped job only the number changes.
pub async fn scale(handle: &Handle, job: &JobId, to: ScaleTo, by: &Actor) -> Result<u32> {
    let info = objects::job(handle, job)?;
    let idle = is_idle(&info);
    let seen = handle.events().newest();
    act(handle, job, None, Act::Scale { to, force: true }, by).await?;
    if idle {
        act(handle, job, None, Act::Start, by).await?;
    }
    let now = objects::job(handle, job)?;
    if now.view.wish == WishState::Running && now.view.target > info.view.target || idle {
        let _failed = births(handle, job, seen).await;
    }
    Ok(now.view.target)
}

/// Loaded with `start: false` and never started: not stopped, only not begun.
fn is_idle(info: &JobInfo) -> bool {
    info.view.wish == WishState::Stopped && !info.spec.start && info.scaled.is_none()
}

/// Launches one process beside those that are kept alive, once.
pub async fn commit(
    handle: &Handle,
    job: &JobId,
    grace: Option<f64>,
    env: Vec<(String, String)>,
    by: &Actor,
) -> Result<u64> {
    objects::job(handle, job)?;
    let grace = grace.map(seconds).transpose()?;
    let seen = handle.events().newest();
    let one_off = OneOff {
        env,
        grace,
        ..OneOff::default()
    };
    let (_, slot) = handle.one_off(job.clone(), one_off, by.clone()).await?;
    match first_news(handle, &slot, seen).await {
        Some((run, None)) => Ok(handle.pid_of(run)),
        Some((_, Some(why))) => Err(cannot_run(&why)),
        None => {
            let run = handle.job(job).and_then(|info| {
                let found = info.view.instances.into_iter().find(|one| one.slot == slot);
                found.and_then(|one| one.run)
            });
            run.map(|run| handle.pid_of(run))
                .ok_or_else(|| LegacyError::new(503, "unavailable", "it has not started yet"))
        }
    }
}

/// Seconds of the old APIs.
pub fn seconds(value: f64) -> Result<Duration> {
    if (0.0..=3e9).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(LegacyError::bad_value(format!("{value} is no number of seconds")))
    }
}

/// Asks one process to end. The job starts another one, unless it was a commit.
pub async fn stop_process(handle: &Handle, pid: u64, by: &Actor) -> Result<()> {
    let (info, process) = objects::process(handle, pid)?;
    match process.slot.place {
        Place::OneOff(_) => stop_commit(handle, &process, by).await,
        Place::Instance { n, .. } => {
            act(handle, &info.view.job, Some(n), Act::Restart(How::default()), by).await
        }
    }
}

async fn stop_commit(handle: &Handle, process: &Process, by: &Actor) -> Result<()> {
    let Place::OneOff(n) = process.slot.place else {
        return Ok(());
    };
    let stopped = handle.one_off_stop(process.slot.job.clone(), n, How::default(), by.clone());
    match stopped.await {
        // It ended by itself in between.
        Err(gaffer::info::Error::RunNotFound(_)) => Ok(()),
        other => Ok(other?),
    }
}

/// A signal as old clients write it: a number, digits, a name with or without `SIG`. 0 asks whether it is there.
pub fn signal_value(value: &Value) -> Result<i32> {
    let wrong = || LegacyError::new(400, "bad_signal", format!("{value} is no signal"));
    let parsed = match value {
        Value::Number(number) => number.as_i64().map(|number| number.to_string()),
        Value::String(text) => Some(text.trim().to_owned()),
        _ => None,
    };
    match parsed.ok_or_else(wrong)?.as_str() {
        "0" => Ok(0),
        text => gaffer_core::signal::parse(text).ok_or_else(wrong),
    }
}

/// Sends a signal to one process.
pub async fn kill(handle: &Handle, pid: u64, signal: i32, by: &Actor) -> Result<()> {
    let (_, process) = objects::process(handle, pid)?;
    if signal != 0 {
        handle
            .run_signal(process.run, signal, Scope::Main, by.clone())
            .await?;
    }
    Ok(())
}

/// Sends a signal to every process of a job, commits included.
pub async fn killall(handle: &Handle, job: &JobId, signal: i32, by: &Actor) -> Result<()> {
    objects::job(handle, job)?;
    if signal != 0 {
        handle.job_signal(job, signal, Scope::Main, by.clone()).await?;
    }
    Ok(())
}

/// Writes to a process: its stdin, or one of its own streams. Returns when the pipe took all of it.
pub async fn send(handle: &Handle, pid: u64, data: Vec<u8>, stream: Option<&str>) -> Result<()> {
    let (info, process) = objects::process(handle, pid)?;
    let stream = writable(handle, &info, stream).await?;
    Ok(handle.run_input(process.run, &stream, data, false).await?)
}

/// The stream that writes to a label go to: stdin for none and for outputs, else the stream itself.
pub async fn writable(handle: &Handle, info: &JobInfo, stream: Option<&str>) -> Result<String> {
    let custom = stream.filter(|name| info.spec.launch.streams.iter().any(|label| label == name));
    if let Some(custom) = custom {
        return Ok(custom.to_owned());
    }
    if let Some(name) = stream.filter(|name| *name != "stdin") {
        let template = template::of(handle, info).await;
        if template::labels(&template).iter().all(|(label, _)| label != name) {
            return Err(LegacyError::new(
                404,
                "stream_not_found",
                format!("no stream {name}"),
            ));
        }
    }
    if info.spec.launch.stdin != Stdin::Pipe {
        return Err(LegacyError::forbidden("stdin is not redirected"));
    }
    Ok("stdin".to_owned())
}

async fn act(handle: &Handle, job: &JobId, instance: Option<u32>, act: Act, by: &Actor) -> Result<()> {
    let target = Target {
        job: job.clone(),
        instance,
    };
    handle.act(target, act, by.clone()).await?;
    Ok(())
}

/// A change of the number that follows from something else that was asked for.
async fn implied(handle: &Handle, info: &JobInfo, to: ScaleTo) -> Result<()> {
    if to == ScaleTo::Auto && info.scaled.is_none() {
        return Ok(());
    }
    let force = true;
    act(
        handle,
        &info.view.job,
        None,
        Act::Scale { to, force },
        &IMPLIED.into(),
    )
    .await
}

/// Waits until every process that is wished for is there, within bounds. Some: one could not be started, and why.
async fn births(handle: &Handle, job: &JobId, seen: Cursor) -> Option<String> {
    let (log, mut cursor, mut failed) = (handle.events(), seen, None);
    let waiting = async {
        loop {
            let newest = log.newest();
            for record in log.read(cursor, READ_AT_ONCE) {
                cursor = record.cursor;
                if record.event.job.as_ref() == Some(job) {
                    failed = failed.take().or_else(|| start_failure(&record.event));
                }
            }
            let info = handle.job(job);
            let Some(info) = info.filter(|info| !info.removed && failed.is_none()) else {
                return;
            };
            if info.view.instances.iter().all(|one| !is_coming(&info, one)) {
                return;
            }
            log.wait(newest).await;
        }
    };
    let _late = tokio::time::timeout(BIRTH_WITHIN, waiting).await;
    failed
}

/// Is it wished for and still on its way?
fn is_coming(info: &JobInfo, one: &InstanceView) -> bool {
    let counted = matches!(one.slot.place, Place::Instance { n, lane: 0 } if n <= info.view.target);
    counted
        && one.wish == WishState::Running
        && match one.state {
            State::Waiting | State::Stopping | State::Stopped => true,
            State::Starting => one.pid.is_none(),
            _ => false,
        }
}

/// Why a run could not be started, if that is what an event says.
fn start_failure(event: &gaffer::info::Event) -> Option<String> {
    let cause = event
        .data
        .iter()
        .find(|(key, _)| *key == "cause")
        .map(|(_, cause)| cause.as_str());
    let never = event.event == "run.exited" && matches!(cause, Some("exec-failed" | "setup-failed"));
    let reason = event.reason.as_ref().filter(|_| never)?;
    // What follows in the sentence is about the next attempt.
    Some(reason.text.split("; ").next().unwrap_or_default().to_owned())
}

/// The first that is heard of a one-off: its run, and why that could not be started.
async fn first_news(handle: &Handle, slot: &Slot, seen: Cursor) -> Option<(RunId, Option<String>)> {
    let (log, mut cursor) = (handle.events(), seen);
    let waiting = async {
        loop {
            for record in log.read(cursor, READ_AT_ONCE) {
                cursor = record.cursor;
                let event = &record.event;
                if let (Some(run), true) = (event.run, event.slot.as_ref() == Some(slot)) {
                    return (run, start_failure(event));
                }
            }
            log.wait(cursor).await;
        }
    };
    tokio::time::timeout(BIRTH_WITHIN, waiting).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn s3_2_scale_values() {
        let read = |value: Value| scale_value(&value).map_err(|error| error.word);
        assert_eq!(read(json!(2)), Ok(ScaleTo::Add(2)));
        assert_eq!(read(json!(-2)), Ok(ScaleTo::Sub(2)));
        assert_eq!(read(json!(0)), Ok(ScaleTo::Sub(0)));
        assert_eq!(read(json!("2")), Ok(ScaleTo::Add(2)));
        assert_eq!(read(json!("=2")), Ok(ScaleTo::Set(2)));
        assert_eq!(read(json!("-2")), Ok(ScaleTo::Sub(2)));
        for wrong in [
            json!("x"),
            json!("+"),
            json!("="),
            json!(""),
            json!(1.5),
            json!(null),
            json!("=-1"),
        ] {
            assert_eq!(read(wrong.clone()), Err("bad_value"), "{wrong}");
        }
    }

    #[test]
    fn s3_2_signals() {
        let read = |value: Value| signal_value(&value).map_err(|error| error.word);
        for term in [
            json!(15),
            json!("15"),
            json!("TERM"),
            json!("sigterm"),
            json!("SIGTERM"),
        ] {
            assert_eq!(read(term.clone()), Ok(15), "{term}");
        }
        assert_eq!([read(json!(0)), read(json!("0"))], [Ok(0), Ok(0)]);
        for wrong in [json!("NOPE"), json!(99), json!(-1), json!(null), json!([])] {
            assert_eq!(read(wrong.clone()), Err("bad_signal"), "{wrong}");
        }
    }
}
