//! `job show|add|set|rm`: jobs one by one, also without a file.

use crate::args::{JobAddArgs, TargetArgs, WaitOptions};
use crate::ask::{Patience, settle};
use crate::commands::act::{ask_each, finish};
use crate::context::Context;
use crate::failure::Failure;
use crate::paint::Role;
use crate::target::{Scope, Selected};
use gaffer_api::types::{Job, JobsRequest};
use serde_json::{Map, Value, json};
use std::io::IsTerminal;

/// `job show`.
pub async fn show(ctx: &Context, target: &str) -> Result<u8, Failure> {
    let jobs = ctx.jobs(false).await?;
    let (selected, worst) = ctx
        .looked(std::slice::from_ref(&target.to_owned()), &jobs)
        .await?;
    let mut documents = Vec::new();
    for one in &selected {
        let job = ctx.client.job(&one.session, &one.job, true).await?;
        if ctx.out.is_text() {
            print(ctx, &job)?;
        } else {
            documents.push(job);
        }
    }
    match documents.as_slice() {
        [] => {}
        [one] => ctx.out.json(one)?,
        several => ctx.out.json_list(several)?,
    }
    Ok(worst)
}

fn print(ctx: &Context, job: &Job) -> Result<(), Failure> {
    let full = format!("{}.{}", job.session, job.job);
    let origin = match (&job.file, job.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        _ => "no file".to_owned(),
    };
    let (_, role) = crate::paint::state(&job.state);
    let mut state = ctx.out.paint.role(role, &job.state);
    if job.summary != job.state && !job.summary.is_empty() {
        state = format!("{state}: {}", job.summary);
    }
    ctx.out.line(&format!(
        "{} {}  {state}",
        ctx.out.glyph(&job.state),
        ctx.out.paint.name(&full, &full),
    ))?;
    if !job.description.is_empty() {
        ctx.out.line(&crate::escape::escape(&job.description))?;
    }
    ctx.out.line(&ctx.out.dim(&format!(
        "from {origin}, revision {}, wish {}, {} wanted",
        job.revision, job.wish, job.target
    )))?;
    let Some(Value::Object(spec)) = &job.spec else {
        return Ok(());
    };
    ctx.out.line("")?;
    let table = if job.job.contains('.') {
        toml_string(&job.job)
    } else {
        job.job.clone()
    };
    ctx.out
        .line(&ctx.out.paint.role(Role::Key, &format!("[job.{table}]")))?;
    for (key, value) in spec {
        ctx.out.line(&format!("{key} = {}", toml(value)))?;
    }
    Ok(())
}

/// A value as `gaffer.toml` writes it, on one line.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let inner: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{} = {}", toml_key(key), toml(value)))
                .collect();
            if inner.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", inner.join(", "))
            }
        }
        Value::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::String(text) => toml_string(text),
        Value::Null => "\"\"".to_owned(),
        other => other.to_string(),
    }
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { toml_string(key) }
}

/// JSON's escapes are those of TOML, but for DEL.
fn toml_string(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// `job add`.
pub async fn add(ctx: &Context, args: &JobAddArgs) -> Result<u8, Failure> {
    let name = args.name.replacen('/', ".", 1);
    let (session, job) = match name.split_once('.') {
        Some((session, job)) => (session.to_owned(), job.to_owned()),
        None => (ctx.session().to_owned(), name.clone()),
    };
    if ctx.client.job(&session, &job, false).await.is_ok() {
        return Err(
            Failure::conflict(format!("job `{job}` exists already in session {session}")).hint_pair(
                &format!("change it:  gaffer job set {job} KEY=VALUE"),
                &format!("remove it:  gaffer job rm {job}"),
            ),
        );
    }
    let spec = spec_of(args)?;
    let patience = Patience::new(ctx, args.wait.no_wait);
    let answer = ctx
        .client
        .job_put(&session, &job, &spec, None, patience.first())
        .await;
    let selected = Selected {
        session,
        job,
        instance: None,
        run: None,
    };
    let mut operation = settle(ctx, answer?, &patience).await?;
    // What was not there before was added, not changed.
    operation.verb = "add".to_owned();
    finish(ctx, vec![(selected, Ok(operation))], &patience, 0).await
}

fn spec_of(args: &JobAddArgs) -> Result<Value, Failure> {
    let mut spec = Map::new();
    spec.insert("cmd".to_owned(), json!(args.cmd));
    let here = std::env::current_dir()
        .map_err(|error| Failure::failed(format!("this folder cannot be named: {error}")))?;
    let cwd = args
        .cwd
        .as_ref()
        .map_or_else(|| here.clone(), |cwd| here.join(cwd));
    spec.insert("cwd".to_owned(), json!(cwd.to_string_lossy()));
    if let Some(instances) = args.instances {
        spec.insert("instances".to_owned(), json!(instances));
    }
    if args.no_start {
        spec.insert("start".to_owned(), json!(false));
    }
    let mut spec = Value::Object(spec);
    for pair in &args.env {
        let (key, value) = pair.split_once('=').ok_or_else(|| no_pair(pair))?;
        put(&mut spec, &["env", key], json!(value))?;
    }
    for change in &args.set {
        set_one(&mut spec, change)?;
    }
    Ok(spec)
}

/// `job set`.
pub async fn set(ctx: &Context, target: &str, changes: &[String], wait: &WaitOptions) -> Result<u8, Failure> {
    let (selected, worst) = ctx
        .changed(std::slice::from_ref(&target.to_owned()), false)
        .await?;
    let patience = Patience::new(ctx, wait.no_wait);
    let mut asked = Vec::new();
    for one in selected {
        let job = ctx.client.job(&one.session, &one.job, true).await?;
        if let Some(file) = &job.file {
            let line = job.line.map(|line| format!(":{line}")).unwrap_or_default();
            return Err(Failure::conflict(format!(
                "job `{}` comes from {file}{line}; it is changed there",
                one.job
            ))
            .hint_pair(&format!("edit {file}{line}"), "then:  gaffer apply"));
        }
        let mut spec = job.spec.unwrap_or_else(|| json!({}));
        changes.iter().try_for_each(|change| set_one(&mut spec, change))?;
        let answer = ctx
            .client
            .job_put(
                &one.session,
                &one.job,
                &spec,
                Some(job.revision),
                patience.first(),
            )
            .await;
        asked.push((one, answer.map_err(Failure::from)));
    }
    finish(ctx, asked, &patience, worst).await
}

/// `KEY.SUB=VALUE`: a value that is JSON is taken as such, anything else is text; without a value the key goes.
fn set_one(spec: &mut Value, change: &str) -> Result<(), Failure> {
    let (path, text) = change.split_once('=').ok_or_else(|| no_pair(change))?;
    let keys: Vec<&str> = path.split('.').collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(no_pair(change));
    }
    if text.is_empty() {
        remove(spec, &keys);
        return Ok(());
    }
    // Environment values are text also where they look like numbers.
    let value = if keys[0] == "env" {
        json!(text)
    } else {
        serde_json::from_str(text).unwrap_or_else(|_| json!(text))
    };
    put(spec, &keys, value)
}

fn no_pair(text: &str) -> Failure {
    Failure::usage(format!("`{text}` is no KEY=VALUE"))
        .hint("examples: instances=3  env.LOG=debug  stop.timeout=20s  cmd='[\"a\",\"b c\"]'")
}

fn put(spec: &mut Value, keys: &[&str], value: Value) -> Result<(), Failure> {
    let Some((first, rest)) = keys.split_first() else {
        *spec = value;
        return Ok(());
    };
    let table = spec
        .as_object_mut()
        .ok_or_else(|| Failure::usage(format!("`{first}` is below something that is no table")))?;
    put(
        table.entry((*first).to_owned()).or_insert_with(|| json!({})),
        rest,
        value,
    )
}

fn remove(spec: &mut Value, keys: &[&str]) {
    match (spec.as_object_mut(), keys) {
        (Some(table), [last]) => {
            table.shift_remove(*last);
        }
        (Some(table), [first, rest @ ..]) => {
            if let Some(inner) = table.get_mut(*first) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}

/// `job rm`.
pub async fn rm(ctx: &Context, args: &TargetArgs) -> Result<u8, Failure> {
    let (selected, worst) = ctx.changed(&args.targets, args.all).await?;
    if let Some(part) = selected
        .iter()
        .find(|one| one.instance.is_some() || one.run.is_some())
    {
        return Err(Failure::usage(format!(
            "`{}` is not a whole job; only jobs are removed",
            part.shown(&ctx.scope)
        ))
        .hint(format!("one instance fewer:  gaffer scale {}=-1", part.job)));
    }
    let names: Vec<String> = selected.iter().map(|one| one.shown(&Scope::All)).collect();
    confirm(ctx, &format!("stop and remove {}?", names.join(", ")))?;
    let patience = Patience::new(ctx, args.wait.no_wait);
    let asked = ask_each(ctx, "remove", selected, &JobsRequest::default(), &patience).await?;
    finish(ctx, asked, &patience, worst).await
}

/// Asks before what cannot be taken back. Without a terminal nothing is asked: then `-y` is needed.
pub fn confirm(ctx: &Context, question: &str) -> Result<(), Failure> {
    if ctx.globals.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody is here to answer")).hint("yes:  -y"));
    }
    ctx.out.say(&format!("{question} [y/N]"));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer).is_ok();
    match read && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        true => Ok(()),
        false => Err(Failure::failed("nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_where_they_can_be() {
        let mut spec = json!({"cmd": "x", "env": {"A": "1"}});
        for change in [
            "instances=3",
            "stop.timeout=20s",
            "env.PORT=80",
            "env.A=",
            "pty=true",
            "cmd=[\"a\",\"b c\"]",
        ] {
            set_one(&mut spec, change).unwrap();
        }
        let expected = json!({"cmd": ["a", "b c"], "env": {"PORT": "80"}, "instances": 3, "stop": {"timeout": "20s"}, "pty": true});
        assert_eq!(spec, expected);
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for wrong in ["instances", "=3", "a..b=1", "cmd.x=1"] {
            assert_eq!(
                set_one(&mut json!({"cmd": "x"}), wrong).unwrap_err().exit,
                2,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_definition_is_shown_as_toml() {
        let value = json!({"a": ["x", 1], "b.c": {"d": true}});
        assert_eq!(toml(&value), "{ a = [\"x\", 1], \"b.c\" = { d = true } }");
    }
}
