//! Plan and apply: what a file would change, why, and then exactly that in one transaction.

use crate::handle::Result;
use crate::info::{Actor, ApplyOptions, Error, PlanAction, PlanChange, PlanInfo, Target};
use crate::requests::{Effect, Prepared};
use crate::state::State;
use crate::store::{Change, HookRow, OutboxChange};
use crate::task::latest_rows;
use gaffer_config::{ChangeClass, Config, LoadedJob, LoadedTask};
use gaffer_core::job::{Condition, ReloadHow};
use gaffer_core::name::JobId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file, loaded, beside what is in force: all that a plan is made of.
pub(crate) struct Draft {
    pub config: Config,
    /// Present definitions of the jobs that the file has or had: revision and text, understood.
    pub present: BTreeMap<JobId, (u64, LoadedJob)>,
}

impl State {
    /// Jobs of a plan that exist now: those the file names, those that came from it, and with `prune` those of its
    /// session that came from no file.
    pub(crate) fn concerned(&self, config: &Config, prune: bool) -> BTreeMap<JobId, u64> {
        let file = config.file.to_string_lossy();
        self.jobs
            .iter()
            .filter(|(_, meta)| !meta.removed)
            .filter(|(job, meta)| {
                config.jobs.contains_key(job)
                    || meta.file.as_deref() == Some(&*file)
                    || (prune && meta.file.is_none() && job.session == config.session)
            })
            .map(|(job, meta)| (job.clone(), meta.revision))
            .collect()
    }

    /// What applying the draft would do.
    pub(crate) fn plan(&self, draft: &Draft, options: &ApplyOptions) -> PlanInfo {
        let mut changes = Vec::new();
        let mut unchanged = 0;
        for (job, new) in &draft.config.jobs {
            match draft.present.get(job) {
                None => changes.push(added(job, new, options.no_start)),
                Some((_, old)) => match self.changed(job, old, new, options) {
                    Some(change) => changes.push(change),
                    None => unchanged += 1,
                },
            }
        }
        for job in draft
            .present
            .keys()
            .filter(|job| !draft.config.jobs.contains_key(job))
        {
            changes.push(self.removed(job));
        }
        let runs_ended = changes.iter().map(|change| self.ends(change)).sum();
        let mut plan = PlanInfo {
            hash: String::new(),
            file: draft.config.file.to_string_lossy().into_owned(),
            session: draft.config.session.to_string(),
            changes,
            unchanged,
            runs_ended,
            tasks: self.task_changes(
                &draft.config.file.to_string_lossy(),
                &draft.config.tasks,
                options.no_start,
            ),
            queues: self.queue_changes(&draft.config.file.to_string_lossy(), &draft.config.queues),
            schedules: self.schedule_changes(&draft.config.file.to_string_lossy(), &draft.config.schedules),
            webhooks: self.hook_changes(&draft.config.file.to_string_lossy(), &draft.config.webhooks),
            warnings: draft
                .config
                .warnings
                .iter()
                .map(|warning| warning.render(false))
                .collect(),
        };
        plan.hash = hash(draft, &plan);
        plan
    }

    fn live_count(&self, job: &JobId) -> u32 {
        u32::try_from(
            self.live_of(&Target {
                job: job.clone(),
                instance: None,
            })
            .len(),
        )
        .unwrap_or(u32::MAX)
    }

    fn ends(&self, change: &PlanChange) -> u32 {
        if matches!(change.effect, "reload" | "stop") {
            self.live_count(&change.job)
        } else {
            0
        }
    }

    fn changed(
        &self,
        job: &JobId,
        old: &LoadedJob,
        new: &LoadedJob,
        options: &ApplyOptions,
    ) -> Option<PlanChange> {
        let keys = gaffer_config::diff(old, new);
        let rescaled = options.reset_scale && self.jobs.get(job).is_some_and(|meta| meta.scaled.is_some());
        // What the daemon holds, not what the file says by now: it may have been read, or missing, since.
        let held = self.jobs.get(job).map(|meta| &meta.spec.launch);
        let stale = held.is_some_and(|held| {
            let new = &new.spec.launch;
            held.env != new.env || held.unread != new.unread
        });
        if keys.is_empty() && !rescaled && !stale && old.typed == new.typed {
            return None;
        }
        let runs = self.live_count(job);
        let reload = old.launch_digest != new.launch_digest;
        let (effect, summary) = if reload {
            let how = match (runs, new.spec.reload.how) {
                (0, _) => "no run lives; the next ones are new".to_owned(),
                (_, ReloadHow::Surge) => format!(
                    "{} replaced one by one, new ones ready first (surge)",
                    runs_text(runs)
                ),
                (_, ReloadHow::Rolling) => format!(
                    "{} replaced, one batch after the other (rolling)",
                    runs_text(runs)
                ),
                (_, ReloadHow::Restart) => {
                    format!("{} replaced at once (restart)", runs_text(runs))
                }
                (_, ReloadHow::Signal) => format!("{} told by a signal", runs_text(runs)),
            };
            ("reload", how)
        } else if stale || keys.iter().any(|key| key.class == ChangeClass::NextStart) {
            ("next", "counts from the next start of a run".to_owned())
        } else {
            ("live", "no run is touched".to_owned())
        };
        Some(PlanChange {
            job: job.clone(),
            action: PlanAction::Change,
            effect,
            summary,
            keys,
        })
    }

    fn removed(&self, job: &JobId) -> PlanChange {
        let runs = self.live_count(job);
        let verb = if runs == 1 { "is" } else { "are" };
        let summary = format!("{} {verb} stopped and the job removed", runs_text(runs));
        PlanChange {
            job: job.clone(),
            action: PlanAction::Remove,
            effect: "stop",
            summary,
            keys: Vec::new(),
        }
    }

    /// Checks that the draft still fits, and prepares exactly its plan.
    pub(crate) fn apply(
        &mut self,
        prepared: &mut Prepared,
        mut draft: Draft,
        options: &ApplyOptions,
        by: Actor,
    ) -> Result<()> {
        let plan = self.plan(&draft, options);
        let seen: BTreeMap<JobId, u64> = draft
            .present
            .iter()
            .map(|(job, (revision, _))| (job.clone(), *revision))
            .collect();
        let fits = seen == self.concerned(&draft.config, options.prune);
        if !fits || options.hash.as_ref().is_some_and(|hash| *hash != plan.hash) {
            return Err(Error::PlanStale(plan.hash));
        }
        prepared.verb = "apply";
        if !plan.is_empty() {
            prepared.changes.extend(self.previous(&draft, &plan.file));
        }
        let hooks = self.hooks_after(&plan.file, &draft.config.webhooks);
        let mut jobs = std::mem::take(&mut draft.config.jobs);
        for change in &plan.changes {
            match change.action {
                PlanAction::Remove => self.prepare_remove(prepared, change.job.clone(), by.clone()),
                PlanAction::Add | PlanAction::Change => {
                    let Some(loaded) = jobs.remove(&change.job) else {
                        continue;
                    };
                    let (start, reset) = (!options.no_start, options.reset_scale);
                    self.prepare_put(
                        prepared,
                        change.job.clone(),
                        Box::new(loaded),
                        start,
                        reset,
                        by.clone(),
                    );
                }
            }
        }
        let defines = &draft.config;
        if !plan.tasks.is_empty() {
            self.prepare_tasks(prepared, &plan.file, &defines.tasks, options.no_start);
        }
        if !plan.queues.is_empty() {
            let (defined, changes) = self.queues_after(&plan.file, &defines.queues);
            prepared.effects.push(Effect::Queues(defined));
            prepared.changes.extend(changes);
        }
        if !plan.schedules.is_empty() {
            let (defined, change) = self.schedules_after(&plan.file, &defines.schedules);
            prepared.define(Effect::Schedules(defined), change);
        }
        if let Some(list) = hooks {
            // First: it hears of the rest.
            prepared.effects.insert(0, Effect::Webhooks(Arc::new(list)));
            prepared.changes.push(webhooks(&defines.webhooks, &plan.file));
        }
        if !plan.is_empty() {
            prepared.effects.push(Effect::Applied {
                file: plan.file.clone(),
                by,
            });
        }
        prepared.plan = Some(plan);
        Ok(())
    }
}

impl State {
    fn prepare_tasks(
        &self,
        prepared: &mut Prepared,
        file: &str,
        tasks: &BTreeMap<JobId, LoadedTask>,
        no_start: bool,
    ) {
        let (defined, change) = self.tasks_after(file, tasks);
        let latest = self.latest_after(&defined, no_start);
        prepared.changes.push(change);
        prepared.changes.extend(latest_rows(&latest));
        // Before the jobs: they wait for a new definition to be run, and not for what the old one has come to.
        prepared.effects.insert(0, Effect::Tasks(defined, latest));
    }
}

/// The webhooks of a file, for the store.
fn webhooks(webhooks: &[gaffer_config::Webhook], file: &str) -> Change {
    let row = |webhook: &gaffer_config::Webhook| HookRow {
        session: webhook.session.to_string(),
        name: webhook.name.to_string(),
        file: file.to_owned(),
        spec: webhook.typed().to_string(),
    };
    Change::Outbox(OutboxChange::Webhooks {
        file: file.to_owned(),
        rows: webhooks.iter().map(row).collect(),
    })
}

fn runs_text(runs: u32) -> String {
    if runs == 1 {
        "1 run".to_owned()
    } else {
        format!("{runs} runs")
    }
}

fn added(job: &JobId, new: &LoadedJob, no_start: bool) -> PlanChange {
    let count = new.spec.instances;
    let mut summary = if count == 1 {
        "1 instance".to_owned()
    } else {
        format!("{count} instances")
    };
    for (other, condition) in new.spec.after.iter().chain(&new.spec.after_tasks) {
        let name = if other.session == job.session {
            other.job.to_string()
        } else {
            other.to_string()
        };
        let state = match condition {
            Condition::Started => "has started",
            Condition::Ready => "is ready",
            Condition::Done => "is done",
            Condition::Ended => "has ended",
        };
        summary.push_str(&format!(", after {name} {state}"));
    }
    if no_start || !new.spec.start {
        summary.push_str(", not started");
    }
    PlanChange {
        job: job.clone(),
        action: PlanAction::Add,
        effect: "start",
        summary,
        keys: Vec::new(),
    }
}

/// Eight hex digits over all that the plan depends on: another file, another present, another hash.
fn hash(draft: &Draft, plan: &PlanInfo) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(&plan.file);
    for (job, loaded) in &draft.config.jobs {
        add(&job.to_string());
        // With the digest of what its files of variables say.
        add(&loaded.typed.to_string());
    }
    for (job, (revision, _)) in &draft.present {
        add(&job.to_string());
        add(&revision.to_string());
    }
    for change in &plan.changes {
        add(change.effect);
    }
    for (task, loaded) in &draft.config.tasks {
        add(&task.to_string());
        add(&loaded.typed.to_string());
    }
    for (queue, loaded) in &draft.config.queues {
        add(&queue.to_string());
        add(&loaded.typed.to_string());
    }
    for (schedule, loaded) in &draft.config.schedules {
        add(&schedule.to_string());
        add(&loaded.typed.to_string());
    }
    for webhook in &draft.config.webhooks {
        add(&webhook.id());
        add(&webhook.typed().to_string());
    }
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}
