//! The commands of the channel. Each is what a route of the HTTP API is, with the same permission.

use super::message::Command;
use crate::access::Access;
use crate::http::Shared;
use crate::legacy::error::LegacyError;
use crate::legacy::template::{Template, env_of};
use crate::legacy::{names, objects, ops};
use gaffer::info::Actor;
use gaffer_core::name::JobId;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long a process may take to take what is sent to it; the channel waits meanwhile.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a command was not carried out: `errno`, `reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub errno: u16,
    /// Word or text.
    pub reason: String,
}

type Done = Result<Value, Failure>;

impl From<LegacyError> for Failure {
    fn from(error: LegacyError) -> Failure {
        // What has a word of its own is told by that; all that is wrong with the input in words.
        let reason = match error.status {
            400 | 500.. => error.reason,
            _ => error.word.to_owned(),
        };
        Failure {
            errno: error.status,
            reason,
        }
    }
}

fn failure(errno: u16, word: &str) -> Failure {
    Failure {
        errno,
        reason: word.to_owned(),
    }
}

fn bad_command() -> Failure {
    failure(400, "bad_command")
}

fn forbidden() -> Failure {
    failure(403, "forbidden")
}

/// Carries a command out.
pub async fn carry_out(app: &Shared, access: &Access, command: &Command) -> Done {
    let call = Call {
        app,
        access,
        by: access.actor(),
        command,
    };
    match command.name.as_str() {
        "sessions" => call.all("sessions", json!(objects::sessions(&app.handle))),
        "jobs" => call.jobs(),
        "pids" => call.pids(),
        "load" => call.load().await,
        "update" => call.update().await,
        "unload" => call.unload().await,
        "reload" => call.reload().await,
        "start_job" => call.start_job().await,
        "stop_job" => call.stop_job().await,
        "stopall" => call.stopall().await,
        "scale" => call.scale().await,
        "killall" => call.killall().await,
        "commit" => call.commit().await,
        "info" => call.info().await,
        "stats" => call.stats().await,
        "process_info" => call.process_info().await,
        "process_stats" => call.process_stats().await,
        "stop_process" => call.stop_process().await,
        "kill" => call.kill().await,
        "send" => call.send().await,
        _ => Err(failure(404, "command_not_found")),
    }
}

fn ok() -> Done {
    Ok(json!({"ok": true}))
}

/// A command and who gives it.
struct Call<'a> {
    app: &'a Shared,
    access: &'a Access,
    by: Actor,
    command: &'a Command,
}

impl Call<'_> {
    /// A parameter by place or by name; null is none.
    fn maybe(&self, place: usize, name: &str) -> Option<&Value> {
        let by_place = self.command.args.get(place);
        by_place
            .or_else(|| self.command.kwargs.get(name))
            .filter(|value| !value.is_null())
    }

    fn need(&self, place: usize, name: &str) -> Result<&Value, Failure> {
        self.maybe(place, name).ok_or_else(bad_command)
    }

    /// Parameters that the client gives by name; the original took them by place too.
    fn text(&self, place: usize, name: &str) -> Result<Option<&str>, Failure> {
        self.maybe(place, name)
            .map(|value| value.as_str().ok_or_else(bad_command))
            .transpose()
    }

    /// The job that a command is about: in the session that the command names, else as the name says.
    fn job(&self) -> Result<JobId, Failure> {
        let name = self.need(0, "name")?.as_str().ok_or_else(bad_command)?;
        let by_place = matches!(self.command.name.as_str(), "unload" | "reload").then_some(1);
        let session = self.text(by_place.unwrap_or(usize::MAX), "sessionid")?;
        let Some(session) = session else {
            return Ok(names::find(name)?);
        };
        let own = names::find_in(session, name);
        let is_there = |job: &JobId| objects::job(&self.app.handle, job).is_ok();
        // A dotted name may say its session once more.
        match name.contains(['.', '/']) && !own.as_ref().is_ok_and(is_there) {
            true => Ok(names::find(name)?),
            false => Ok(own?),
        }
    }

    /// That job, if it may be managed.
    fn managed(&self) -> Result<JobId, Failure> {
        let job = self.job()?;
        match self.access.may_manage(&job) {
            true => Ok(job),
            false => Err(forbidden()),
        }
    }

    /// That job, if it may be looked at.
    fn read(&self) -> Result<gaffer::info::JobInfo, Failure> {
        let job = self.job()?;
        match self.access.may_read(&job) {
            true => Ok(objects::job(&self.app.handle, &job)?),
            false => Err(forbidden()),
        }
    }

    /// The number of a process: a number, or digits.
    fn pid(&self) -> Result<u64, Failure> {
        match self.need(0, "pid")? {
            Value::Number(number) => number.as_u64().ok_or_else(|| failure(404, "not_found")),
            Value::String(text) => names::pid(text).ok_or_else(|| failure(404, "not_found")),
            _ => Err(bad_command()),
        }
    }

    /// That process, if `may` says so of its job.
    fn process(
        &self,
        may: impl Fn(&Access, &JobId) -> bool,
    ) -> Result<(gaffer::info::JobInfo, objects::Process), Failure> {
        let (info, process) = objects::process(&self.app.handle, self.pid()?)?;
        match may(self.access, &info.view.job) {
            true => Ok((info, process)),
            false => Err(forbidden()),
        }
    }

    fn all(&self, key: &str, value: Value) -> Done {
        match self.access.may_manage_all() {
            true => Ok(json!({ key: value })),
            false => Err(forbidden()),
        }
    }

    fn jobs(&self) -> Done {
        let names = |session| {
            let jobs = objects::jobs(&self.app.handle, session);
            let names: Vec<String> = jobs.iter().map(|info| info.view.job.to_string()).collect();
            names
        };
        let Some(session) = self.text(0, "sessionid")? else {
            return self.all("jobs", json!(names(None)));
        };
        if !self.access.may_manage_session(session) {
            return Err(forbidden());
        }
        match names(Some(session)) {
            names if names.is_empty() => Err(failure(404, "not_found")),
            names => Ok(json!({"sessionid": session, "jobs": names})),
        }
    }

    fn pids(&self) -> Done {
        let Some(name) = self.text(0, "name")? else {
            return self.all("pids", json!(objects::all_pids(&self.app.handle)));
        };
        let info = self.read()?;
        let (kept, _) = objects::processes(&self.app.handle, &info);
        Ok(json!({"sessionid": name, "pids": objects::pids(&kept)}))
    }

    fn template(&self) -> Result<(Template, String), Failure> {
        let config = self
            .maybe(0, "config")
            .ok_or_else(|| failure(400, "config_missing"))?;
        if !config.is_object() {
            return Err(failure(400, "invalid_config"));
        }
        let template = Template::read(config, None)?;
        let session = match self.text(1, "sessionid")? {
            Some(session) => session.to_owned(),
            // The command line's files say it in the name.
            None => names::split(&template.name).0.to_owned(),
        };
        Ok((template, session))
    }

    /// Variables of the session.
    fn env(&self) -> Result<Option<&Map<String, Value>>, Failure> {
        let given = self.maybe(2, "env");
        env_of(given)?;
        Ok(given.and_then(Value::as_object))
    }

    fn starts(&self) -> Result<Option<bool>, Failure> {
        let given = self.maybe(3, "start");
        given
            .map(|value| value.as_bool().ok_or_else(bad_command))
            .transpose()
    }

    async fn load(&self) -> Done {
        let (template, session) = self.template()?;
        if !self.access.may_manage_session(&session) {
            return Err(forbidden());
        }
        let (start, env) = (self.starts()?, self.env()?);
        ops::load(&self.app.handle, &session, &template, start, env, &self.by).await?;
        ok()
    }

    async fn update(&self) -> Done {
        let (template, session) = self.template()?;
        let job = names::make_in(&session, &template.name)?;
        if !self.access.may_manage(&job) {
            return Err(forbidden());
        }
        let start = self.starts()?.or(template.start).unwrap_or(false);
        ops::update(&self.app.handle, &job, &template, start, self.env()?, &self.by).await?;
        ok()
    }

    async fn unload(&self) -> Done {
        ops::unload(&self.app.handle, &self.managed()?, &self.by).await?;
        ok()
    }

    async fn reload(&self) -> Done {
        ops::reload(&self.app.handle, &self.managed()?, &self.by).await?;
        ok()
    }

    async fn start_job(&self) -> Done {
        ops::start(&self.app.handle, &self.managed()?, &self.by).await?;
        ok()
    }

    async fn stop_job(&self) -> Done {
        ops::stop(&self.app.handle, &self.managed()?, &self.by).await?;
        ok()
    }

    async fn stopall(&self) -> Done {
        ops::stopall(&self.app.handle, &self.managed()?, &self.by).await?;
        ok()
    }

    async fn scale(&self) -> Done {
        let job = self.managed()?;
        let to = ops::scale_value(self.need(1, "numprocesses")?)?;
        let count = ops::scale(&self.app.handle, &job, to, &self.by).await?;
        Ok(json!({"numprocesses": count}))
    }

    async fn killall(&self) -> Done {
        let job = self.managed()?;
        let signal = ops::signal_value(self.need(1, "sig")?)?;
        ops::killall(&self.app.handle, &job, signal, &self.by).await?;
        ok()
    }

    async fn commit(&self) -> Done {
        let job = self.managed()?;
        let grace = self.maybe(1, "graceful_timeout");
        let grace = grace
            .map(|value| value.as_f64().ok_or_else(bad_command))
            .transpose()?;
        let env = env_of(self.maybe(2, "env"))?;
        let pid = ops::commit(&self.app.handle, &job, grace, env, &self.by).await?;
        Ok(json!({"ok": true, "pid": pid}))
    }

    async fn info(&self) -> Done {
        let info = self.read()?;
        Ok(json!({"info": objects::job_info(&self.app.handle, &info).await}))
    }

    async fn stats(&self) -> Done {
        let info = self.read()?;
        Ok(json!({"stats": objects::job_stats(&self.app.handle, &info).await}))
    }

    async fn process_info(&self) -> Done {
        let (info, process) = self.process(Access::may_read)?;
        let shown = objects::process_info(&self.app.handle, &info, &process).await;
        Ok(json!({ "info": shown }))
    }

    async fn process_stats(&self) -> Done {
        let (_, process) = self.process(Access::may_read)?;
        let sample = objects::sample(&self.app.handle, &process).await?;
        Ok(json!({"stats": sample.fields}))
    }

    async fn stop_process(&self) -> Done {
        let (_, process) = self.process(Access::may_manage)?;
        ops::stop_process(&self.app.handle, process.pid, &self.by).await?;
        ok()
    }

    async fn kill(&self) -> Done {
        let (_, process) = self.process(Access::may_manage)?;
        let signal = ops::signal_value(self.need(1, "sig")?)?;
        ops::kill(&self.app.handle, process.pid, signal, &self.by).await?;
        ok()
    }

    async fn send(&self) -> Done {
        let (_, process) = self.process(Access::may_write)?;
        let data = match self.need(1, "lines")? {
            Value::String(text) => text.clone(),
            Value::Array(texts) => {
                let texts = texts.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
                texts.ok_or_else(bad_command)?.concat()
            }
            _ => return Err(bad_command()),
        };
        let stream = self.text(2, "stream")?;
        let sent = ops::send(&self.app.handle, process.pid, data.into_bytes(), stream);
        match tokio::time::timeout(SEND_TIME_MAX, sent).await {
            Ok(sent) => sent?,
            Err(_) => return Err(failure(500, "the process does not read its input")),
        }
        ok()
    }
}
