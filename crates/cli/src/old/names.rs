//! Names of the original: applications, `app.job`, `app/job`, `job`, and process numbers.

use super::args::OldGlobals;
use super::{App, refused};
use crate::args::Globals;
use crate::failure::Failure;
use gaffer_api::types::{Instance, Job};
use std::path::{Path, PathBuf};

/// Application of what names none.
const DEFAULT: &str = "default";

/// The folder that a command works in: the root, else that of the Procfile, else this one.
pub fn root(old: &OldGlobals) -> Result<PathBuf, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::failed(format!("this folder cannot be named: {error}")))?;
    let given = old.root.as_ref().map(|root| here.join(root));
    let of_file = old.procfile.as_ref().map(|file| here.join(file));
    let root = given
        .or_else(|| of_file.and_then(|file| file.parent().map(Path::to_owned)))
        .unwrap_or(here);
    // `..` and links have no name that could be an application's.
    std::fs::canonicalize(&root)
        .map_err(|error| Failure::failed(format!("config error: root '{}': {error}", root.display())))
}

/// The Procfile that is named or lies in the root. One that is named must exist.
pub fn procfile(old: &OldGlobals) -> Result<Option<PathBuf>, Failure> {
    match &old.procfile {
        Some(path) if path.is_file() => std::fs::canonicalize(path)
            .map(Some)
            .map_err(|error| Failure::failed(format!("config error: {}: {error}", path.display()))),
        Some(path) => Err(Failure::failed(format!(
            "config error: procfile '{}' not found",
            path.display()
        ))),
        None => {
            let path = root(old)?.join("Procfile");
            Ok(path.is_file().then_some(path))
        }
    }
}

/// `--app`, `.` for the folder's name, else the Procfile's, else `default`.
pub fn app_name(globals: &Globals, old: &OldGlobals) -> Result<String, Failure> {
    match globals.session.as_deref().filter(|name| !name.is_empty()) {
        Some(".") => named_by(&root(old)?),
        Some(name) => Ok(name.to_owned()),
        None => match procfile(old)? {
            Some(_) => named_by(&root(old)?),
            None => Ok(DEFAULT.to_owned()),
        },
    }
}

fn named_by(root: &Path) -> Result<String, Failure> {
    let file = root.join("Procfile");
    let options = gaffer_config::GatherOptions {
        kind: Some(gaffer_config::Kind::Procfile),
        ..Default::default()
    };
    // A Procfile has the rule for names that fit; without one its name is that of the folder as it is.
    let loaded = gaffer_config::gather(&[file], &options)
        .ok()
        .and_then(|bundle| gaffer_config::load(&bundle, &gaffer_config::SystemHost::new()).ok());
    if let Some(config) = loaded {
        return Ok(config.session.to_string());
    }
    root.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .ok_or_else(|| Failure::usage("this folder has no name; say --app NAME"))
}

/// Session and job of a written name.
pub fn split(app: &str, name: &str) -> (String, String) {
    match name.replacen('/', ".", 1).split_once('.') {
        Some((session, job)) => (session.to_owned(), job.to_owned()),
        None => (app.to_owned(), name.to_owned()),
    }
}

/// Is it the number of a process?
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number that a process is called by.
pub fn number(instance: &Instance) -> Option<u64> {
    instance.number.filter(|_| instance.pid.is_some())
}

/// Processes that live, those kept alive first.
pub fn live(job: &Job) -> impl Iterator<Item = &Instance> {
    job.instances
        .iter()
        .chain(&job.one_offs)
        .filter(|instance| instance.pid.is_some())
}

/// A process of a job.
pub struct Process {
    pub job: Job,
    pub instance: Instance,
    /// Run alone, not kept alive.
    pub is_one_off: bool,
    pub run: String,
}

impl App {
    /// Jobs of the application.
    pub async fn jobs(&self, stats: bool) -> Result<Vec<Job>, Failure> {
        self.ctx
            .client
            .jobs(Some(&self.name), stats)
            .await
            .map_err(refused)
    }

    /// A job by its name; none if there is none.
    pub async fn job(&self, name: &str, spec: bool) -> Result<Option<Job>, Failure> {
        let (session, job) = split(&self.name, name);
        let found = self.ctx.client.job(&session, &job, spec).await;
        match found {
            Err(error) if error.exit_code() == 3 || error.exit_code() == 2 => {}
            found => return found.map(Some).map_err(refused),
        }
        // The dot may be one of the job's name.
        match self.ctx.client.job(&self.name, name, spec).await {
            Err(error) if error.exit_code() == 3 || error.exit_code() == 2 => Ok(None),
            found => found.map(Some).map_err(refused),
        }
    }

    /// A process by its number; none if there is none.
    pub async fn process(&self, text: &str) -> Result<Option<Process>, Failure> {
        let Ok(wanted) = text.parse::<u64>() else {
            return Ok(None);
        };
        let jobs = self.ctx.client.jobs(None, false).await.map_err(refused)?;
        Ok(jobs.into_iter().find_map(|job| {
            let found = live(&job)
                .find(|instance| number(instance) == Some(wanted))?
                .clone();
            let is_one_off = !job.instances.iter().any(|kept| kept.run == found.run);
            Some(Process {
                run: found.run.clone()?,
                instance: found,
                is_one_off,
                job,
            })
        }))
    }

    /// What is said, and exit code 1, where a name means nothing.
    pub fn not_found(&self, name: &str) -> u8 {
        self.ctx
            .out
            .say(&format!("'{name}' not found in '{}'", self.name));
        1
    }
}
