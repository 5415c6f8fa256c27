//! What every command works with: both outputs, the client, and the session that short names belong to.

use crate::args::Globals;
use crate::connect;
use crate::failure::Failure;
use crate::file;
use crate::out::Out;
use crate::target::{Scope, Selected, Target, parse, resolve};
use gaffer_api::Client;
use gaffer_api::types::{Job, Run};

/// Session of what names none.
const SESSION_DEFAULT: &str = "default";

/// Of one command.
pub struct Context {
    /// Both outputs.
    pub out: Out,
    /// Options that every command takes.
    pub globals: Globals,
    /// The daemon, not yet connected to.
    pub client: Client,
    /// Where short names are looked up.
    pub scope: Scope,
    /// Nobody and no file named a session: listing commands then show all of them.
    pub scope_is_fallback: bool,
}

impl Context {
    /// As the options say.
    pub fn new(globals: &Globals, out: Out) -> Result<Context, Failure> {
        let named = globals.session.clone().filter(|session| !session.is_empty());
        let found = named.or_else(|| file::find(None).and_then(|path| file::session_of(&path)));
        let scope = match found.as_deref() {
            Some("*") => Scope::All,
            Some(session) => Scope::One(session.to_owned()),
            None => Scope::One(SESSION_DEFAULT.to_owned()),
        };
        Ok(Context {
            out,
            globals: globals.clone(),
            client: connect::client(globals)?,
            scope,
            scope_is_fallback: found.is_none(),
        })
    }

    /// The current session, for what must have one.
    pub fn session(&self) -> &str {
        match &self.scope {
            Scope::One(session) => session,
            Scope::All => SESSION_DEFAULT,
        }
    }

    /// The session that a name without one means, of those that have it: the current one, else the only one.
    pub fn session_of<'a>(&self, have_it: impl Iterator<Item = &'a str>) -> String {
        let have_it: Vec<&str> = have_it.collect();
        match have_it[..] {
            [one] => one.to_owned(),
            _ => self.session().to_owned(),
        }
    }

    /// The jobs that short and full names can mean.
    pub async fn jobs(&self, stats: bool) -> Result<Vec<Job>, Failure> {
        Ok(self.client.jobs(None, stats).await?)
    }

    /// Targets of a changing command: something must be named. All are looked up; those that are not there are told
    /// and the worst exit code is kept.
    pub async fn changed(&self, targets: &[String], all: bool) -> Result<(Vec<Selected>, u8), Failure> {
        if targets.is_empty() && !all {
            return Err(Failure::usage("no target is named").hint_pair(
                "all jobs of the session:  --all",
                "what can be named:  gaffer help targets",
            ));
        }
        let jobs = self.jobs(false).await?;
        if all {
            let found = jobs.iter().filter(|job| self.scope.holds(&job.session));
            let found: Vec<Selected> = found
                .map(|job| Selected {
                    session: job.session.clone(),
                    job: job.job.clone(),
                    instance: None,
                    run: None,
                })
                .collect();
            if found.is_empty() {
                return Err(self.no_jobs(&jobs));
            }
            return Ok((found, 0));
        }
        self.select(targets, &jobs, false).await
    }

    /// Targets of a command that only looks; none means all of the session.
    pub async fn looked(&self, targets: &[String], jobs: &[Job]) -> Result<(Vec<Selected>, u8), Failure> {
        if !targets.is_empty() {
            return self.select(targets, jobs, true).await;
        }
        let any = self.scope_is_fallback;
        let found = jobs.iter().filter(|job| any || self.scope.holds(&job.session));
        let found: Vec<Selected> = found
            .map(|job| Selected {
                session: job.session.clone(),
                job: job.job.clone(),
                instance: None,
                run: None,
            })
            .collect();
        if found.is_empty() && !jobs.is_empty() {
            return Err(self.no_jobs(jobs));
        }
        Ok((found, 0))
    }

    /// Exactly one run: of `@run`, of an instance, or of a job that has one live run only.
    pub async fn one_run(&self, target: &str) -> Result<(Selected, String), Failure> {
        let jobs = self.jobs(false).await?;
        let (selected, _) = self
            .select(std::slice::from_ref(&target.to_owned()), &jobs, false)
            .await?;
        let mut live = Vec::new();
        for one in &selected {
            if let Some(run) = &one.run {
                return Ok((one.clone(), run.clone()));
            }
            let Some(job) = jobs
                .iter()
                .find(|job| job.session == one.session && job.job == one.job)
            else {
                continue;
            };
            for instance in &job.instances {
                let wanted = one.instance.is_none_or(|n| u64::from(n) == instance.instance);
                if let (true, Some(run), Some(_)) = (wanted, &instance.run, instance.pid) {
                    let n = u32::try_from(instance.instance).ok();
                    live.push((
                        Selected {
                            instance: n,
                            ..one.clone()
                        },
                        run.clone(),
                    ));
                }
            }
        }
        match live.len() {
            1 => Ok(live.remove(0)),
            0 => Err(Failure::conflict(format!("`{target}` has no live run"))
                .hint(format!("why? gaffer why {target}"))),
            several => {
                let names: Vec<String> = live.iter().map(|(one, _)| one.shown(&self.scope)).collect();
                Err(
                    Failure::usage(format!("`{target}` has {several} live runs; name one"))
                        .hint(names.join(" ")),
                )
            }
        }
    }

    /// Looks all targets up and says which are not there. Fails if none is.
    async fn select(
        &self,
        targets: &[String],
        jobs: &[Job],
        looking: bool,
    ) -> Result<(Vec<Selected>, u8), Failure> {
        let mut found: Vec<Selected> = Vec::new();
        let mut failures = Vec::new();
        for text in targets {
            let result = match parse(text) {
                Ok(Target::Run(prefix)) => self.run_of(&prefix).await.map(|one| vec![one]),
                Ok(target) => resolve(&target, jobs, &self.scope, looking),
                Err(failure) => Err(failure),
            };
            match result {
                Ok(selected) => found.extend(
                    selected
                        .into_iter()
                        .filter(|one| !found.contains(one))
                        .collect::<Vec<_>>(),
                ),
                // Without a daemon there is nothing to look up: once is enough.
                Err(failure) if failure.exit == connect::EXIT_UNREACHABLE => return Err(failure),
                Err(failure) => failures.push(failure),
            }
        }
        let worst = failures.iter().map(|failure| failure.exit).max().unwrap_or(0);
        if found.is_empty()
            && let Some(last) = failures.pop()
        {
            failures.iter().for_each(|failure| self.out.fail(failure));
            return Err(Failure { exit: worst, ..last });
        }
        failures.iter().for_each(|failure| self.out.fail(failure));
        Ok((found, worst))
    }

    /// The run whose id begins so.
    pub async fn run_of(&self, prefix: &str) -> Result<Selected, Failure> {
        let runs: Vec<Run> = self.client.runs_by_prefix(prefix).await?;
        match runs.as_slice() {
            [] => Err(Failure::not_found(format!("no run begins with `@{prefix}`"))
                .hint("the last runs of a job:  gaffer why JOB")),
            [run] => Ok(Selected {
                session: run.session.clone(),
                job: run.job.clone(),
                instance: run.instance,
                run: Some(run.run.clone()),
            }),
            several => match several.iter().find(|run| run.run == prefix) {
                Some(run) => Ok(Selected {
                    session: run.session.clone(),
                    job: run.job.clone(),
                    instance: run.instance,
                    run: Some(run.run.clone()),
                }),
                None => {
                    let ids: Vec<String> = several.iter().map(|run| format!("@{}", run.run)).collect();
                    Err(Failure::usage(format!("several runs begin with `@{prefix}`")).hint(ids.join(" ")))
                }
            },
        }
    }

    fn no_jobs(&self, jobs: &[Job]) -> Failure {
        let failure = Failure::not_found(format!("no jobs in {}", self.scope.describe()));
        let mut sessions: Vec<&str> = jobs.iter().map(|job| job.session.as_str()).collect();
        sessions.dedup();
        match sessions.as_slice() {
            [] => failure.hint_pair(
                "apply a file:  gaffer apply",
                "add one:  gaffer job add NAME -- CMD",
            ),
            others => failure.hint(format!(
                "there are sessions: {}          all jobs:  gaffer ps --session '*'",
                others.join(", ")
            )),
        }
    }
}
