//! Plugins: folders with pages, with a program, or with both.
//!
//! A program is a job of the session `plugins`, kept alive like any other; what it is told comes as lines on its standard
//! input (`feed`), what it wants it asks over the control socket. Pages are read when they are asked for (`site`).
//! Folders are looked at when the daemon starts and when its file is read again.

mod feed;
mod folder;
mod site;
mod token;

pub use folder::Folder;
pub use site::{Page, page};

use crate::http::Shared;
use crate::refusal::{Answer, Refusal};
use gaffer::info::PutOptions;
use gaffer_api::error::Code;
use gaffer_core::name::{JobId, JobName, Name};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// Session of plugins' jobs.
pub const SESSION: &str = "plugins";

/// Key of `meta` by which a plugin's job is known.
const META: &str = "plugin";

/// Who asks for plugins' jobs.
const ACTOR: &str = "its plugin";

/// The plugins of this daemon.
#[derive(Debug, Default)]
pub struct Plugins {
    dir: Option<PathBuf>,
    found: Mutex<Arc<Vec<Folder>>>,
    feeds: Mutex<BTreeMap<String, (Folder, JoinHandle<()>)>>,
}

impl Plugins {
    /// Those in a folder; none: there are no plugins.
    pub fn new(dir: Option<PathBuf>) -> Plugins {
        Plugins {
            dir,
            ..Plugins::default()
        }
    }

    /// Where they are.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// As they were found last, in the order of their names.
    pub fn list(&self) -> Arc<Vec<Folder>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Looks at the folders, and makes the jobs what the manifests say: gone ones are removed, changed ones restarted, new
/// ones started. A plugin that is wrong is logged and skipped.
pub async fn load(app: &Shared) {
    let Some(dir) = app.plugins.dir.clone() else {
        return;
    };
    let mut folders = folder::scan(&dir);
    for folder in &folders {
        if let Some(problem) = &folder.problem {
            tracing::warn!(plugin = folder.name, problem, "plugin.skipped");
        }
    }
    let wanted: BTreeSet<&str> = folders
        .iter()
        .filter(|folder| folder.runs())
        .map(|folder| folder.name.as_str())
        .collect();
    for job in ours(app).await {
        if !wanted.contains(job.job.as_str())
            && let Err(error) = app.handle.job_remove(job.clone(), ACTOR.into()).await
        {
            tracing::warn!(plugin = %job.job, %error, "plugin.not-removed");
        }
    }
    token::revoke_others(app, &wanted).await;
    let mut problems = BTreeMap::new();
    for folder in folders.iter().filter(|folder| folder.runs()) {
        let put = match token::provide(app, folder).await {
            Ok(token) => put(app, folder, &token)
                .await
                .map_err(|refusal| refusal.0.message),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = put {
            tracing::warn!(plugin = folder.name, problem, "plugin.skipped");
            problems.insert(folder.name.clone(), problem);
        }
    }
    for folder in &mut folders {
        folder.problem = problems.remove(&folder.name).or(folder.problem.take());
    }
    feed_all(app, &folders);
    *app.plugins.found.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(folders);
}

fn id(name: &str) -> Option<JobId> {
    Some(JobId {
        session: Name::parse(SESSION).ok()?,
        job: JobName::parse(name).ok()?,
    })
}

/// Jobs that plugins made.
async fn ours(app: &Shared) -> Vec<JobId> {
    let typed = app.handle.jobs_typed(Some(SESSION)).await.unwrap_or_default();
    let is_ours = |spec: &Value| spec["meta"][META].is_string();
    typed
        .into_iter()
        .filter(|(_, spec)| is_ours(spec))
        .map(|(job, _)| job)
        .collect()
}

async fn put(app: &Shared, folder: &Folder, token: &Path) -> Answer<()> {
    let Some(job) = id(&folder.name) else {
        return Ok(());
    };
    let spec = spec(app, folder, token);
    let loaded = app.handle.load_job(&job, &spec)?;
    if app.handle.job(&job).is_some() {
        let there = app.handle.job_typed(&job).await?;
        if !there["meta"][META].is_string() {
            return Err(Refusal::new(
                Code::JobExists,
                format!("there is a job `{job}` already"),
            ));
        }
        if there == loaded.typed {
            return Ok(());
        }
    }
    let options = PutOptions {
        over_file: true,
        ..PutOptions::default()
    };
    app.handle.job_put(job, loaded, options, ACTOR.into()).await?;
    Ok(())
}

/// The job of a plugin, as in a file.
fn spec(app: &Shared, folder: &Folder, token: &Path) -> Value {
    let mut env = Map::new();
    let mut set = |name: &str, value: String| {
        env.insert(
            name.to_owned(),
            gaffer_config::escape_templates(&value).replace('$', "$$").into(),
        );
    };
    set("GAFFER_PLUGIN", folder.name.clone());
    set(
        "GAFFER_PLUGIN_VERSION",
        folder.version().unwrap_or_default().to_owned(),
    );
    set("GAFFER_URL", format!("unix:{}", app.setup.socket.display()));
    set("GAFFER_TOKEN_FILE", token.display().to_string());
    json!({
        "cmd": folder.command(), "cwd": folder.path, "stdin": "pipe", "env": env,
        "env_inherit": "all", "description": folder.description().unwrap_or_default(),
        "meta": {META: folder.name}, "retry": {"delay": "1s", "max_delay": "1m"},
    })
}

/// A task for each program; one whose manifest changed begins anew.
fn feed_all(app: &Shared, folders: &[Folder]) {
    let mut feeds = app.plugins.feeds.lock().unwrap_or_else(PoisonError::into_inner);
    feeds.retain(|name, (folder, task)| {
        let same = folders
            .iter()
            .any(|new| new == folder && new.runs() && new.name == *name);
        if !same {
            task.abort();
        }
        same
    });
    for folder in folders.iter().filter(|folder| folder.runs()) {
        let Some(job) = id(&folder.name) else { continue };
        feeds.entry(folder.name.clone()).or_insert_with(|| {
            let feed = feed::run(app.clone(), job, folder.events().to_vec());
            (folder.clone(), tokio::spawn(feed))
        });
    }
}
