//! `load`, `unload`, `reload`: jobs of a JSON file or of the Procfile, one by one or all.

use super::args::{LoadArgs, ManyArgs};
use super::names::{procfile, root};
use super::{App, HOLD, done, refused};
use crate::args::FileArgs;
use crate::failure::Failure;
use crate::file;
use gaffer_config::{Bundle, Config, Kind};
use serde_json::{Value, json};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

/// Largest file on standard input.
const INPUT_MAX: u64 = 16 << 20;

/// What is done with many jobs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Unload,
    Reload,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Unload => "unload",
            Verb::Reload => "reload",
        }
    }
}

/// `load`.
pub async fn load(app: &App, args: &LoadArgs) -> Result<u8, Failure> {
    match args.file.as_deref() {
        Some("-") => load_jobs(app, &standard_input()?, "-", args).await,
        Some(path) if Path::new(path).is_file() => {
            let bundle = json_file(app, Path::new(path))?;
            load_jobs(app, &bundle, path, args).await
        }
        // As documented: the name of the application.
        Some(name) => match procfile(&app.old)? {
            Some(path) if !name.contains(['/', '.']) => load_procfile(app, name, &path, args).await,
            _ => Err(Failure::failed(format!("'{name}' not found"))),
        },
        None => match procfile(&app.old)? {
            Some(path) => load_procfile(app, &app.name, &path, args).await,
            None => Err(Failure::failed("procfile or job file is missing")),
        },
    }
}

fn standard_input() -> Result<Bundle, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(INPUT_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format!("standard input cannot be read: {error}")))?;
    let here = std::env::current_dir()
        .map_err(|error| Failure::failed(format!("this folder cannot be named: {error}")))?;
    let path = here.join("standard input");
    Ok(Bundle {
        root: path.clone(),
        files: [(path, text)].into(),
        kind: Some(Kind::Json),
        ..Bundle::default()
    })
}

fn json_file(app: &App, path: &Path) -> Result<Bundle, Failure> {
    let args = FileArgs {
        files: vec![path.to_owned()],
        ..FileArgs::default()
    };
    let mut bundle = file::gather(&app.ctx.out, &[], &args)?;
    let named = bundle.root.extension().is_some();
    if !named {
        bundle.kind = Some(Kind::Json);
    }
    Ok(bundle)
}

/// Jobs in the order in which they start.
fn in_order(config: &Config) -> Vec<(String, String, Value)> {
    let mut jobs: Vec<_> = config.jobs.iter().collect();
    jobs.sort_by_key(|(_, job)| job.spec.priority);
    jobs.into_iter()
        .map(|(id, job)| (id.session.to_string(), id.job.to_string(), job.typed.clone()))
        .collect()
}

async fn load_jobs(app: &App, bundle: &Bundle, shown: &str, args: &LoadArgs) -> Result<u8, Failure> {
    let mut bundle = bundle.clone();
    bundle.counts = file::counts(&args.counts)?;
    let config = file::load(&app.ctx.out, &bundle)?;
    let url = app.ctx.client.endpoint().to_string();
    let mut worst = 0;
    for (session, job, spec) in in_order(&config) {
        // A name without a session belongs to the application.
        let session = if session == "default" {
            app.name.clone()
        } else {
            session
        };
        let name = format!("{session}.{job}");
        worst = worst.max(match put(app, &session, &job, spec, args.nostart).await? {
            Put::Loaded => said(app, &format!("'{name}' has been loaded in {url}"))?,
            Put::There => said(app, &format!("'{name}' already loaded"))?,
            Put::Down(failure) => told(app, &failure),
        });
    }
    said(app, &format!("'{shown}' has been loaded"))?;
    Ok(worst)
}

async fn load_procfile(app: &App, name: &str, path: &Path, args: &LoadArgs) -> Result<u8, Failure> {
    let config = file::load(&app.ctx.out, &procfile_bundle(app, path, &args.counts)?)?;
    file::warnings(&app.ctx.out, &config);
    let with_input = redirected_input(app)?;
    let mut worst = 0;
    for (_, job, mut spec) in in_order(&config) {
        if with_input.contains(&job) {
            spec["stdin"] = json!("pipe");
        }
        worst = worst.max(match put(app, name, &job, spec, args.nostart).await? {
            Put::Loaded => 0,
            Put::There => said(app, &format!("'{job}' already loaded"))?,
            Put::Down(failure) => told(app, &failure),
        });
    }
    let url = app.ctx.client.endpoint().to_string();
    said(app, &format!("==> '{name}' has been loaded in {url}"))?;
    Ok(worst)
}

/// The Procfile with its variables and counts.
fn procfile_bundle(app: &App, path: &Path, counts: &[String]) -> Result<Bundle, Failure> {
    let args = FileArgs {
        files: vec![path.to_owned()],
        env_files: absolute(&app.old.env)?,
        counts: counts.to_vec(),
        ..FileArgs::default()
    };
    file::gather(&app.ctx.out, &[], &args)
}

fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    paths
        .iter()
        .map(|path| {
            std::path::absolute(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
        })
        .collect()
}

/// Jobs that `GAFFER_REDIRECT_INPUT` of the variables names.
fn redirected_input(app: &App) -> Result<Vec<String>, Failure> {
    let variables = variables(app)?;
    let found = variables
        .iter()
        .rev()
        .find(|(name, _)| name == "GAFFER_REDIRECT_INPUT");
    Ok(found
        .map(|(_, names)| names.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default())
}

/// Variables of `.env` in the root and of each `-e`, later ones win.
pub fn variables(app: &App) -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    let own = root(&app.old)?.join(".env");
    let named = absolute(&app.old.env)?;
    for (path, must) in std::iter::once((own, false)).chain(named.into_iter().map(|path| (path, true))) {
        match std::fs::read_to_string(&path) {
            Ok(text) => variables.extend(text.lines().filter_map(assignment)),
            Err(error) if !must && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
        }
    }
    Ok(variables)
}

/// Split at the first `=`; every double quote goes; comments are left out.
fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    (!name.is_empty() && !name.starts_with('#')).then(|| (name.to_owned(), value.replace('"', "")))
}

/// What came of a load.
enum Put {
    Loaded,
    There,
    /// Loaded, but it does not run.
    Down(Failure),
}

async fn put(app: &App, session: &str, job: &str, mut spec: Value, nostart: bool) -> Result<Put, Failure> {
    if nostart && spec.get("start").is_none() {
        spec["start"] = json!(false);
    }
    let put = app.ctx.client.job_put(session, job, &spec, Some(0), Some(HOLD));
    match put.await {
        Ok(operation) => Ok(match done(operation) {
            Ok(()) => Put::Loaded,
            Err(failure) => Put::Down(failure),
        }),
        Err(error) if error.exit_code() == 4 => Ok(Put::There),
        Err(error) => Err(refused(error)),
    }
}

fn said(app: &App, line: &str) -> Result<u8, Failure> {
    app.ctx.out.line(line).map(|()| 0)
}

fn told(app: &App, failure: &Failure) -> u8 {
    app.ctx.out.fail(failure);
    1
}

/// `unload`, `reload`.
pub async fn many(app: &App, verb: Verb, args: &ManyArgs) -> Result<u8, Failure> {
    let mut targets = args.jobs.clone();
    if let Some(path) = &args.from_file {
        if !path.is_file() {
            return Err(Failure::failed(format!("'{}' not found", path.display())));
        }
        let config = file::load(&app.ctx.out, &json_file(app, path)?)?;
        targets.extend(in_order(&config).into_iter().map(|(session, job, _)| {
            let session = if session == "default" {
                app.name.clone()
            } else {
                session
            };
            format!("{session}.{job}")
        }));
    }
    if targets.is_empty() {
        return whole(app, verb, &app.name).await;
    }
    let mut worst = 0;
    for target in targets {
        worst = worst.max(one(app, verb, &target).await?);
    }
    Ok(worst)
}

async fn one(app: &App, verb: Verb, name: &str) -> Result<u8, Failure> {
    let Some(job) = app.job(name, false).await? else {
        // As documented: the name of an application.
        let jobs = app.ctx.client.jobs(Some(name), false).await;
        return match jobs {
            Ok(jobs) if !jobs.is_empty() => whole(app, verb, name).await,
            _ => Ok(app.not_found(name)),
        };
    };
    if !asked(app, verb, name)? {
        return Ok(0);
    }
    carry_out(app, verb, &job.session, &job.job).await?;
    said(app, &format!("job '{name}' {}ed", verb.word()))
}

async fn whole(app: &App, verb: Verb, name: &str) -> Result<u8, Failure> {
    let jobs = app.ctx.client.jobs(Some(name), false).await.map_err(refused)?;
    if jobs.is_empty() {
        app.ctx.out.say(&format!("'{name}' not found"));
        return Ok(1);
    }
    if !asked(app, verb, name)? {
        return Ok(0);
    }
    for job in &jobs {
        carry_out(app, verb, &job.session, &job.job).await?;
    }
    said(app, &format!("==> app '{name}' {}ed", verb.word()))
}

async fn carry_out(app: &App, verb: Verb, session: &str, job: &str) -> Result<(), Failure> {
    let client = &app.ctx.client;
    let operation = match verb {
        Verb::Unload => client.job_delete(session, job, Some(HOLD)).await,
        Verb::Reload => {
            client
                .act(session, job, None, "reload", &Default::default(), Some(HOLD))
                .await
        }
    };
    done(operation.map_err(refused)?)
}

/// Whether it shall be done; nobody is asked with `--no-input`.
fn asked(app: &App, verb: Verb, name: &str) -> Result<bool, Failure> {
    if app.ctx.globals.yes {
        return Ok(true);
    }
    confirm(app, &format!("Do you want to {} '{name}'? [y]|n:", verb.word()))
}

/// A question with the answer yes if only Enter is pressed. The answer may also come from a pipe.
pub fn confirm(app: &App, question: &str) -> Result<bool, Failure> {
    app.ctx.out.flush()?;
    eprint!("{question} ");
    let mut answer = String::new();
    let read = std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed(format!("no answer: {error}")))?;
    if read == 0 {
        eprintln!();
        let message = if std::io::stdin().is_terminal() {
            "no answer"
        } else {
            "nobody is there to answer; say --no-input"
        };
        return Err(Failure::usage(message));
    }
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}
