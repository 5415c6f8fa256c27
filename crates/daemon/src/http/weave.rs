//! The lines of several jobs as one: caught up in the order of time, then followed together.
//!
//! Each job is a [`Merge`] of its own; they share the memory of one. Whoever asked for jobs by a filter also gets those
//! that are added later.

use crate::http::Shared;
use crate::http::merge::{Follow, Item, Merge, Wanted};
use crate::http::page::Labels;
use crate::refusal::{Answer, Refusal};
use crate::view;
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use gaffer::info::{Cursor, JobInfo, Target};
use gaffer_api::error::Code;
use gaffer_core::name::JobId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

/// Jobs of one stream: each has files open, and a task for each of its streams while it is followed.
pub const JOBS_MAX: usize = 1000;

/// Lines given at once.
const BATCH: usize = 256;

/// Whose lines are wanted.
pub enum Whose {
    /// Exactly these.
    Named(Vec<Target>),
    /// Those of a filter, also those that are added later.
    All {
        /// Of one session.
        session: Option<String>,
        /// With these labels.
        labels: Labels,
    },
}

impl Whose {
    fn takes(&self, job: &JobInfo, node: &BTreeMap<String, String>) -> bool {
        match self {
            Whose::Named(_) => false,
            Whose::All { session, labels } => {
                let id = &job.view.job;
                session
                    .as_deref()
                    .is_none_or(|session| id.session.as_str() == session)
                    && labels.are_of(&job.spec.meta, node)
            }
        }
    }

    /// The jobs of the filter that there are now, without those that are known.
    fn found(&self, app: &Shared, known: &BTreeSet<JobId>) -> Vec<JobId> {
        let node = app.labels();
        let jobs = app
            .handle
            .jobs(None)
            .into_iter()
            .filter(|job| self.takes(job, &node));
        jobs.map(|job| job.view.job)
            .filter(|job| !known.contains(job))
            .collect()
    }
}

/// What was, of all jobs.
pub struct Weave {
    app: Shared,
    parts: Vec<Part>,
    /// Time of the next line of each part.
    order: BinaryHeap<Reverse<(String, usize)>>,
    /// Nothing is followed: unfinished last lines are given too.
    at_end: bool,
    later: Option<Later>,
}

struct Part {
    merge: Merge,
    ready: VecDeque<Item>,
}

/// What is needed to take jobs up that are added later.
struct Later {
    whose: Whose,
    wanted: Wanted,
    known: BTreeSet<JobId>,
    /// Behind the newest event that was looked at.
    cursor: Cursor,
}

impl Weave {
    /// Opens all jobs. `at_end`: nothing will be followed.
    pub async fn open(app: &Shared, whose: Whose, mut wanted: Wanted, at_end: bool) -> Answer<Weave> {
        let cursor = app.handle.events().newest();
        let now = view::now();
        let targets = match &whose {
            Whose::Named(targets) => targets.clone(),
            Whose::All { .. } => {
                let found = whose.found(app, &BTreeSet::new()).into_iter();
                found.map(|job| Target { job, instance: None }).collect()
            }
        };
        if targets.len() > JOBS_MAX {
            let message = format!(
                "the lines of {} jobs are more than can be read at once",
                targets.len()
            );
            return Err(Refusal::new(Code::BadValue, message)
                .hint(format!("at most {JOBS_MAX}; choose by session, label or jobs")));
        }
        let is_named = matches!(whose, Whose::Named(_));
        wanted.jobs = targets.len();
        let mut weave = Weave {
            app: app.clone(),
            parts: Vec::new(),
            order: BinaryHeap::new(),
            at_end,
            later: None,
        };
        let mut missing = None;
        for target in &targets {
            let wanted = Wanted {
                instance: target.instance.or(wanted.instance),
                ..wanted.clone()
            };
            match Merge::open(app, &target.job, wanted).await {
                Ok(merge) => weave.add(merge)?,
                // Not every job has every stream, and one that was found may have been removed by now.
                Err(refusal) if is_absent(&refusal, is_named) => drop(missing.get_or_insert(refusal)),
                Err(refusal) => return Err(refusal),
            }
        }
        if let Some(refusal) = missing.filter(|_| weave.parts.is_empty()) {
            return Err(refusal);
        }
        if !is_named {
            // What a job of the same name wrote in an earlier life is no news.
            wanted.since_ms = wanted.since_ms.max(Some(now.0));
            (wanted.tail, wanted.jobs) = (None, JOBS_MAX);
            weave.later = Some(Later {
                whose,
                wanted,
                known: targets.into_iter().map(|target| target.job).collect(),
                cursor,
            });
        }
        Ok(weave)
    }

    fn add(&mut self, merge: Merge) -> Answer<()> {
        let ready = VecDeque::new();
        self.parts.push(Part { merge, ready });
        self.queue(self.parts.len() - 1)
    }

    /// Puts the next line of a part in the order.
    fn queue(&mut self, index: usize) -> Answer<()> {
        let Some(part) = self.parts.get_mut(index) else {
            return Ok(());
        };
        if part.ready.is_empty() {
            part.ready = part.merge.catch_up(self.at_end)?.into();
        }
        if let Some(item) = part.ready.front() {
            self.order.push(Reverse((item.line.time.clone(), index)));
        }
        Ok(())
    }

    /// The next lines, in order; empty at the end of what was.
    pub fn catch_up(&mut self) -> Answer<Vec<Item>> {
        // One job alone is in order already.
        if let [only] = self.parts.as_mut_slice() {
            return match std::mem::take(&mut only.ready) {
                none if none.is_empty() => only.merge.catch_up(self.at_end),
                ready => Ok(ready.into()),
            };
        }
        let mut items = Vec::new();
        while items.len() < BATCH {
            let Some(Reverse((_, index))) = self.order.pop() else {
                break;
            };
            items.extend(self.parts.get_mut(index).and_then(|part| part.ready.pop_front()));
            self.queue(index)?;
        }
        Ok(items)
    }

    /// Goes on with what comes.
    pub fn follow(self) -> Woven {
        let follows = self.parts.into_iter().map(|part| lines_of(part.merge.follow()));
        Woven {
            app: self.app,
            streams: follows.collect(),
            later: self.later,
            stash: Vec::new(),
        }
    }
}

fn is_absent(refusal: &Refusal, is_named: bool) -> bool {
    match refusal.0.code() {
        Code::StreamNotFound => true,
        Code::JobNotFound => !is_named,
        _ => false,
    }
}

fn lines_of(follow: Follow) -> BoxStream<'static, Vec<Item>> {
    let next = |mut follow: Follow| async move {
        let items = follow.next().await;
        (!items.is_empty()).then_some((items, follow))
    };
    stream::unfold(follow, next).boxed()
}

/// What comes, of all jobs.
pub struct Woven {
    app: Shared,
    streams: SelectAll<BoxStream<'static, Vec<Item>>>,
    later: Option<Later>,
    /// First lines of jobs that were just taken up.
    stash: Vec<Item>,
}

impl Woven {
    /// The next lines; empty when nothing will come any more. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Item> {
        let app = self.app.clone();
        let log = app.handle.events();
        loop {
            if !self.stash.is_empty() {
                return std::mem::take(&mut self.stash);
            }
            if self.streams.is_empty() && self.later.is_none() {
                return Vec::new();
            }
            let cursor = self.later.as_ref().map(|later| later.cursor);
            tokio::select! {
                biased;
                Some(items) = self.streams.next() => return items,
                () = news(&log, cursor), if cursor.is_some() => self.look().await,
                // What the streams still hold is given before they end by themselves.
                () = app.closed(), if cursor.is_some() => self.later = None,
                else => return Vec::new(),
            }
        }
    }

    /// Takes jobs up that were added.
    async fn look(&mut self) {
        let Some(later) = &mut self.later else { return };
        let records = self.app.handle.events().read(later.cursor, BATCH);
        if records
            .iter()
            .any(|record| matches!(record.event.event, "job.added" | "gap"))
        {
            for job in later.whose.found(&self.app, &later.known) {
                if later.known.len() >= JOBS_MAX {
                    break;
                }
                // One that is gone already has nothing to tell.
                if let Ok(mut merge) = Merge::open(&self.app, &job, later.wanted.clone()).await {
                    self.stash
                        .extend(merge.catch_up_tail(usize::MAX, false).unwrap_or_default());
                    self.streams.push(lines_of(merge.follow()));
                }
                later.known.insert(job);
            }
        }
        if let Some(last) = records.last() {
            later.cursor = last.cursor;
        }
    }
}

async fn news(log: &gaffer::events::EventLog, cursor: Option<Cursor>) {
    match cursor {
        Some(cursor) => log.wait(cursor).await,
        None => std::future::pending().await,
    }
}
