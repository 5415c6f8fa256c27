//! Files of variables, read again: their values are in no store, so a reload looks at them as they are now.

use crate::handle::{Handle, Result};
use crate::info::{Act, Error};
use crate::owner::lock;
use crate::requests::Prepared;
use crate::state::State;
use gaffer_config::{Diagnostics, LoadedJob, Origin};
use gaffer_core::io::Actor;
use gaffer_core::job::ReloadHow;
use gaffer_core::name::JobId;
use std::collections::BTreeMap;

/// A definition as stored, with what its files of variables say now.
pub(crate) struct Fresh {
    revision: u64,
    loaded: Box<LoadedJob>,
}

/// Of each job that has such files. An error is one of its files: the reload of that job is refused.
pub(crate) type FreshJobs = BTreeMap<JobId, Result<Fresh>>;

impl Handle {
    /// What the reload of these jobs needs to know. Other requests need nothing.
    pub(crate) async fn fresh(&self, jobs: impl Iterator<Item = &JobId>, act: &Act) -> Result<FreshJobs> {
        let mut fresh = FreshJobs::new();
        // A signal is for the runs that live; they keep the environment that they were born with.
        if !matches!(act, Act::Reload(how) if *how != Some(ReloadHow::Signal)) {
            return Ok(fresh);
        }
        for job in jobs {
            let Some(revision) = lock(&self.state).meta(job).ok().map(|meta| meta.revision) else {
                continue;
            };
            let typed = self.stored(job).await?;
            if typed.get("env_file").is_none() {
                continue;
            }
            let loaded = gaffer_config::load_again(job.session.as_str(), job.job.as_str(), &typed);
            let loaded = loaded
                .map_err(|errors| refused(job, &errors))
                .map(|loaded| Fresh {
                    revision,
                    loaded: Box::new(loaded),
                });
            fresh.insert(job.clone(), loaded);
        }
        Ok(fresh)
    }
}

fn refused(job: &JobId, errors: &Diagnostics) -> Error {
    let why = errors.0.first().map_or("", |first| first.message.as_str());
    Error::WrongState(format!("{job} is not reloaded: {why}"))
}

impl State {
    /// Puts the definition again if its files say something else than they did.
    pub(crate) fn refresh(&self, prepared: &mut Prepared, job: &JobId, by: Actor) -> Result<()> {
        let Some(fresh) = prepared.fresh.remove(job) else {
            return Ok(());
        };
        let Fresh { revision, mut loaded } = fresh?;
        let meta = self.meta(job)?;
        let (now, new) = (&meta.spec.launch, &loaded.spec.launch);
        // A definition that came meanwhile has brought its files with it.
        if meta.revision != revision || (now.env == new.env && now.unread == new.unread) {
            return Ok(());
        }
        loaded.origin = meta.file.as_deref().map(|file| Origin {
            file: file.to_owned(),
            line: meta.line.unwrap_or(0),
        });
        self.prepare_put(prepared, job.clone(), loaded, true, false, by);
        // The reload has its own.
        prepared.outcomes.pop();
        Ok(())
    }
}
