//! The lines of a job: all its streams and instances merged by time, then followed.
//!
//! Catching up is a merge of sources that are sorted already, one piece of each in memory. Following gives every source
//! a task of its own that reads on from where catching up ended, through a bounded channel: a reader that is slow
//! makes the tasks wait, not the memory grow. A mark of the end of a run waits (shortly) for the last lines of it.

use crate::http::lines::{Line, Source};
use crate::http::sorted::{Sorted, newest};
use crate::http::{App, Shared};
use crate::refusal::{Answer, Refusal};
use crate::view;
use gaffer::info::{Cursor, EventRecord, RunInfo};
use gaffer_api::error::Code;
use gaffer_api::types::LogLine;
use gaffer_core::job::{Output, ReloadHow};
use gaffer_core::name::{JobId, Place, RunId, Slot};
use gaffer_core::time::Wall;
use regex_lite::Regex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes of the newest lines that are held for `tail`.
pub const TAIL_BYTES_MAX: usize = 16 << 20;

/// Lines given at once.
const BATCH: usize = 256;

/// Lines on their way from the sources to the reader.
const UNDERWAY: usize = 256;

/// Silence after which an unfinished line is shown: a prompt has no line feed.
const PARTIAL_AFTER: Duration = Duration::from_millis(500);

/// How long the mark of an end waits for the last lines.
const MARK_WAIT: Duration = Duration::from_millis(500);

/// Deaths that are looked up to tell which bytes are whose.
const RUNS_MAX: usize = 200;

/// What is wanted of the log of a job.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only so many of the newest lines.
    pub tail: Option<usize>,
    /// Not before, Unix ms.
    pub since_ms: Option<i64>,
    /// Not after, Unix ms.
    pub until_ms: Option<i64>,
    /// On the text.
    pub grep: Option<Regex>,
    /// One stream.
    pub stream: Option<String>,
    /// One instance.
    pub instance: Option<u32>,
    /// One run.
    pub run: Option<RunId>,
    /// Marks of life too.
    pub events: bool,
    /// Offsets to resume at, by source (`2~1/stdout`).
    pub resume: BTreeMap<String, u64>,
    /// Jobs that are read at once and share the memory; 0 is one.
    pub jobs: usize,
}

impl Wanted {
    /// Moves a source to where its lines may begin to be wanted; it ends at what there is now.
    pub fn seek(&self, source: &mut Source) -> Answer<()> {
        if let Some(offset) = self.resume.get(&*source.key) {
            source.offset = source.offset.max(*offset);
        } else if let Some(since_ms) = self.since_ms {
            source.seek_time(since_ms)?;
        }
        // With a pattern the lines that count are not known yet.
        if let (Some(tail), None) = (self.tail, &self.grep)
            && self.resume.is_empty()
        {
            source.seek_tail(tail.max(1))?;
        }
        if source.limit.is_none() {
            source.limit = Some(source.range()?.1);
        }
        Ok(())
    }

    /// Is this a time that is wanted?
    pub fn takes_time(&self, wall_ms: i64) -> bool {
        self.since_ms.is_none_or(|since| wall_ms >= since)
            && self.until_ms.is_none_or(|until| wall_ms <= until)
    }
}

/// A line with its place.
#[derive(Clone, Debug)]
pub struct Item {
    /// As sent.
    pub line: LogLine,
    /// Of the source; empty for marks.
    pub key: Arc<str>,
    /// Offset behind it.
    pub end: u64,
}

/// The merged log.
pub struct Merge {
    app: Shared,
    job: JobId,
    wanted: Wanted,
    /// Whose the sources are, in their order.
    slots: Vec<Slot>,
    sorted: Sorted,
    marks: VecDeque<LogLine>,
    /// Behind the newest event that was looked at.
    cursor: Cursor,
}

impl Merge {
    /// Opens all sources and finds where each begins.
    pub async fn open(app: &Shared, job: &JobId, wanted: Wanted) -> Answer<Merge> {
        let cursor = app.handle.events().newest();
        let mut merge = Merge {
            app: app.clone(),
            job: job.clone(),
            wanted,
            slots: Vec::new(),
            sorted: Sorted::default(),
            marks: VecDeque::new(),
            cursor,
        };
        let runs = merge.runs().await?;
        let mut sources = Vec::new();
        for slot in merge.slots(&runs)? {
            for stream in merge.streams()? {
                if let Some(source) = merge.source(&slot, &stream, &runs)? {
                    merge.slots.push(slot.clone());
                    sources.push(source);
                }
            }
        }
        merge.sorted = Sorted::new(sources, merge.wanted.jobs)?;
        if merge.wanted.events {
            merge.marks = merge.past_marks();
        }
        Ok(merge)
    }

    /// The runs whose bytes may be asked for: the one that is wanted, or the live ones and the last deaths.
    async fn runs(&self) -> Answer<Vec<RunInfo>> {
        if let Some(run) = self.wanted.run {
            return Ok(vec![self.app.handle.run(run).await?]);
        }
        let target = gaffer::info::Target {
            job: self.job.clone(),
            instance: self.wanted.instance,
        };
        let mut runs = self.app.handle.deaths(&target, None, RUNS_MAX).await?;
        let live = self
            .app
            .handle
            .job(&self.job)
            .map(|job| job.view.instances)
            .unwrap_or_default();
        for run in live.iter().filter_map(|view| view.run) {
            if !runs.iter().any(|known| known.run == run) {
                // One that was pruned in between has nothing to tell.
                runs.extend(self.app.handle.run(run).await.ok());
            }
        }
        Ok(runs)
    }

    fn slots(&self, runs: &[RunInfo]) -> Answer<BTreeSet<Slot>> {
        let info = crate::http::jobs::find(&self.app, &self.job)?;
        if self.wanted.run.is_some() {
            return Ok(runs.iter().map(|run| run.slot.clone()).collect());
        }
        let mut slots: BTreeSet<Slot> = info.view.instances.iter().map(|view| view.slot.clone()).collect();
        slots.extend(runs.iter().map(|run| run.slot.clone()));
        if info.spec.reload.how == ReloadHow::Surge {
            slots.extend(slots.clone().iter().filter_map(other_lane));
        }
        slots.retain(|slot| self.takes(slot));
        if let Some(instance) = self.wanted.instance.filter(|_| slots.is_empty()) {
            return Err(crate::http::jobs::no_instance(&info, instance));
        }
        Ok(slots)
    }

    fn takes(&self, slot: &Slot) -> bool {
        slot.job == self.job
            && match slot.place {
                Place::Instance { n, .. } => self.wanted.instance.is_none_or(|wanted| wanted == n),
                // One-offs are asked for by their run.
                Place::OneOff(_) => self.wanted.run.is_some(),
            }
    }

    fn streams(&self) -> Answer<Vec<String>> {
        let launch = crate::http::jobs::find(&self.app, &self.job)?.spec.launch.clone();
        let mut streams = vec!["stdout".to_owned()];
        if launch.stderr == Output::Keep {
            streams.push("stderr".to_owned());
        }
        streams.extend(launch.streams.iter().cloned());
        match &self.wanted.stream {
            None => Ok(streams),
            // Of an earlier definition there may be streams that this one does not know.
            Some(wanted) if streams.contains(wanted) || wanted == "stderr" => Ok(vec![wanted.clone()]),
            Some(wanted) => {
                let message = format!("job `{}` has no stream `{}`", self.job, wanted.escape_debug());
                Err(Refusal::new(Code::StreamNotFound, message).hint(streams.join(", ")))
            }
        }
    }

    fn source(&self, slot: &Slot, stream: &str, runs: &[RunInfo]) -> Answer<Option<Source>> {
        let mut source = Source::open(&self.app.handle, slot, stream)?;
        let mut starts: Vec<(u64, RunId)> = Vec::new();
        for run in runs.iter().filter(|run| run.slot == *slot) {
            if let Some((from, to)) = run.logs.get(stream) {
                starts.push((*from, run.run));
                if self.wanted.run.is_some() {
                    source.offset = source.offset.max(*from);
                    source.limit = *to;
                }
            } else if self.wanted.run.is_some() {
                return Ok(None);
            }
        }
        starts.sort_unstable();
        source.runs = starts;
        self.wanted.seek(&mut source)?;
        Ok(Some(source))
    }

    /// The next lines of catching up, in order; empty at the end of it. `at_end`: nothing will be followed.
    pub fn catch_up(&mut self, at_end: bool) -> Answer<Vec<Item>> {
        if at_end {
            self.sorted.end();
        }
        let mut items = Vec::new();
        let batch = (BATCH / self.wanted.jobs.max(1)).max(1);
        while items.len() < batch {
            if let Some(mark) = due_mark(&mut self.marks, self.sorted.next_ms()) {
                items.push(plain(mark));
                continue;
            }
            let Some((index, line)) = self.sorted.pop()? else {
                break;
            };
            if let Some(source) = self.sorted.source(index)
                && is_wanted(&self.wanted, &line)
            {
                items.push(item(source, line));
            }
        }
        Ok(items)
    }

    /// All of catching up, but only the newest lines of it.
    pub fn catch_up_tail(&mut self, tail: usize, at_end: bool) -> Answer<VecDeque<Item>> {
        newest(tail, || self.catch_up(at_end))
    }

    /// Marks of what happened before, as far as it is still known.
    fn past_marks(&self) -> VecDeque<LogLine> {
        let log = self.app.handle.events();
        let mut marks: VecDeque<LogLine> = VecDeque::new();
        let mut cursor = log.oldest();
        while cursor < self.cursor {
            let records = log.read(cursor, BATCH);
            let Some(last) = records.last() else { break };
            cursor = last.cursor;
            marks.extend(
                records
                    .iter()
                    .filter(|record| record.cursor <= self.cursor)
                    .filter_map(|r| self.mark(r)),
            );
        }
        marks
    }

    /// The mark of an event, if it is about what is wanted.
    fn mark(&self, record: &EventRecord) -> Option<LogLine> {
        let event = &record.event;
        let is_ours = match (&event.slot, &event.job) {
            (Some(slot), _) => self.takes(slot),
            (None, Some(job)) => {
                *job == self.job && self.wanted.instance.is_none() && self.wanted.run.is_none()
            }
            (None, None) => false,
        };
        let is_run = self.wanted.run.is_none_or(|run| event.run == Some(run));
        let is_now = self.wanted.takes_time(record.time.0);
        (is_ours && is_run && is_now).then(|| mark_line(record))
    }

    /// Goes on with what comes. Sources continue where catching up ended.
    pub fn follow(self) -> Follow {
        Follow::new(self)
    }
}

fn other_lane(slot: &Slot) -> Option<Slot> {
    match slot.place {
        Place::Instance { n, lane } => Some(Slot {
            job: slot.job.clone(),
            place: Place::Instance {
                n,
                lane: 1 - lane.min(1),
            },
        }),
        Place::OneOff(_) => None,
    }
}

/// The next mark, if it comes before the next line.
pub fn due_mark(marks: &mut VecDeque<LogLine>, next_ms: Option<i64>) -> Option<LogLine> {
    let time = &marks.front()?.time;
    let is_due = next_ms.is_none_or(|wall_ms| *time <= view::time(Wall(wall_ms)));
    marks.pop_front_if(|_| is_due)
}

/// Does a line count?
pub fn is_wanted(wanted: &Wanted, line: &Line) -> bool {
    let in_time = wanted
        .since_ms
        .is_none_or(|since| line.wall_ms >= since || line.is_gap)
        && wanted.until_ms.is_none_or(|until| line.wall_ms <= until);
    in_time
        && (line.is_gap
            || wanted
                .grep
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(&line.text)))
}

/// A line as it is sent.
pub fn item(source: &Source, line: Line) -> Item {
    let stream = if line.is_gap {
        "gap".to_owned()
    } else {
        source.stream.clone()
    };
    Item {
        key: source.key.clone(),
        end: line.end,
        line: LogLine {
            subject: source.subject.clone(),
            task: None,
            run: source.run_at(line.offset).map(|run| run.to_string()),
            stream,
            time: view::time(Wall(line.wall_ms)),
            offset: line.offset,
            text: line.text,
            complete: line.complete,
        },
    }
}

fn mark_line(record: &EventRecord) -> LogLine {
    let event = &record.event;
    let what = event.event.rsplit('.').next().unwrap_or(event.event);
    let text = match &event.reason {
        Some(reason) if !reason.text.is_empty() => reason.text.to_string(),
        _ => match event.data.iter().find(|(name, _)| *name == "pid") {
            Some((_, pid)) => format!("{what}, pid {pid}"),
            None => what.to_owned(),
        },
    };
    let subject = match (&event.slot, &event.job) {
        (Some(slot), _) => view::subject(slot),
        (None, Some(job)) => job.to_string(),
        (None, None) => String::new(),
    };
    LogLine {
        subject,
        task: None,
        run: event.run.map(|run| run.to_string()),
        stream: "event".to_owned(),
        time: view::time(record.time),
        offset: 0,
        text,
        complete: true,
    }
}

/// A source that is followed by a task.
struct Watched {
    slot: Slot,
    stream: String,
    /// Next byte to read.
    progress: Arc<AtomicU64>,
    /// Told to the task: new runs, and where to end.
    news: watch::Sender<News>,
}

#[derive(Clone, Debug, Default)]
struct News {
    runs: Vec<(u64, RunId)>,
    end: Option<u64>,
}

/// A mark that waits for lines.
struct Held {
    line: LogLine,
    until: Instant,
    behind: Vec<(Arc<AtomicU64>, u64)>,
}

/// What comes, as it comes.
pub struct Follow {
    merge: Merge,
    watched: Vec<Watched>,
    tx: Option<mpsc::Sender<Item>>,
    rx: mpsc::Receiver<Item>,
    held: VecDeque<Held>,
    tasks: tokio::task::JoinSet<()>,
}

impl Follow {
    fn new(mut merge: Merge) -> Follow {
        let (tx, rx) = mpsc::channel(UNDERWAY);
        let sources = std::mem::take(&mut merge.sorted).into_sources();
        let slots = std::mem::take(&mut merge.slots);
        let mut follow = Follow {
            merge,
            watched: Vec::new(),
            tx: Some(tx),
            rx,
            held: VecDeque::new(),
            tasks: tokio::task::JoinSet::new(),
        };
        for (slot, mut source) in slots.into_iter().zip(sources) {
            // Of one run the end is known once it has ended; otherwise there is none.
            let is_live = follow.merge.wanted.run.is_none_or(|run| follow.is_live(run));
            if is_live {
                source.limit = None;
            }
            follow.watch(slot, source);
        }
        if follow.merge.wanted.run.is_some() {
            follow.tx = None;
        }
        follow
    }

    fn is_live(&self, run: RunId) -> bool {
        let Some(job) = self.merge.app.handle.job(&self.merge.job) else {
            return false;
        };
        job.view
            .instances
            .iter()
            .any(|view| view.run == Some(run) && view.pid.is_some())
    }

    fn watch(&mut self, slot: Slot, source: Source) {
        let Some(tx) = self.tx.clone() else { return };
        let progress = Arc::new(AtomicU64::new(source.offset));
        let news = News {
            runs: source.runs.clone(),
            end: source.limit,
        };
        let (news_tx, news_rx) = watch::channel(news);
        self.watched.push(Watched {
            slot,
            stream: source.stream.clone(),
            progress: progress.clone(),
            news: news_tx,
        });
        self.tasks
            .spawn(pump(source, self.merge.wanted.clone(), tx, progress, news_rx));
    }

    /// The next lines; empty when nothing will come any more. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Item> {
        let log = self.merge.app.handle.events();
        let app = self.merge.app.clone();
        loop {
            let due = self.held.front().map(|held| held.until);
            tokio::select! {
                biased;
                item = self.rx.recv() => {
                    let Some(item) = item else {
                        let marks = std::mem::take(&mut self.held);
                        return marks.into_iter().map(|held| plain(held.line)).collect();
                    };
                    let mut items = vec![item];
                    while let (true, Ok(more)) = (items.len() < BATCH, self.rx.try_recv()) {
                        items.push(more);
                    }
                    items.sort_by(|left, right| left.line.time.cmp(&right.line.time));
                    self.release(&mut items);
                    return items;
                }
                () = log.wait(self.merge.cursor) => self.look(&app).await,
                () = sleep_until(due), if due.is_some() => {}
                () = app.closed() => return Vec::new(),
            }
            let mut items = Vec::new();
            self.release(&mut items);
            if !items.is_empty() {
                return items;
            }
        }
    }

    /// Moves marks whose lines have been sent, or that have waited long enough, to the items.
    fn release(&mut self, items: &mut Vec<Item>) {
        while let Some(held) = self.held.front() {
            let is_behind = held
                .behind
                .iter()
                .any(|(at, to)| at.load(Ordering::Acquire) < *to);
            if is_behind && Instant::now() < held.until {
                return;
            }
            // Progress is told after its lines were sent: what is in the channel comes first.
            while let Ok(item) = self.rx.try_recv() {
                items.push(item);
            }
            items.extend(self.held.pop_front().map(|held| plain(held.line)));
        }
    }

    /// Looks at new events: new slots, new runs, ends, marks.
    async fn look(&mut self, app: &App) {
        let records = app.handle.events().read(self.merge.cursor, BATCH);
        for record in &records {
            self.merge.cursor = record.cursor;
            let Some(slot) = record.event.slot.clone().filter(|slot| self.merge.takes(slot)) else {
                self.hold(record, Vec::new());
                continue;
            };
            let ended = record.event.event == "run.exited";
            let run = match record.event.run {
                Some(run) if ended || matches!(record.event.event, "run.started" | "run.adopted") => {
                    app.handle.run(run).await.ok()
                }
                _ => None,
            };
            let mut behind = Vec::new();
            if let Some(run) = run {
                self.learn(&slot, &run);
                if ended {
                    behind = self.ends(&run);
                }
            }
            self.hold(record, behind);
        }
    }

    /// A run of a slot: its streams are followed, and its first bytes known.
    fn learn(&mut self, slot: &Slot, run: &RunInfo) {
        if !self.watched.iter().any(|watched| watched.slot == *slot) {
            for stream in self.merge.streams().unwrap_or_default() {
                if let Ok(source) = Source::open(&self.merge.app.handle, slot, &stream) {
                    self.watch(slot.clone(), source);
                }
            }
        }
        for watched in self.watched.iter().filter(|watched| watched.slot == *slot) {
            let Some((from, to)) = run.logs.get(&watched.stream) else {
                continue;
            };
            let only = self.merge.wanted.run == Some(run.run);
            watched.news.send_modify(|news| {
                if !news.runs.iter().any(|(_, known)| *known == run.run) {
                    news.runs.push((*from, run.run));
                    news.runs.sort_unstable();
                }
                if only {
                    news.end = *to;
                }
            });
        }
    }

    fn ends(&self, run: &RunInfo) -> Vec<(Arc<AtomicU64>, u64)> {
        let of_run = self.watched.iter().filter(|watched| watched.slot == run.slot);
        of_run
            .filter_map(|watched| Some((watched.progress.clone(), run.logs.get(&watched.stream)?.1?)))
            .collect()
    }

    fn hold(&mut self, record: &EventRecord, behind: Vec<(Arc<AtomicU64>, u64)>) {
        if !self.merge.wanted.events {
            return;
        }
        if let Some(line) = self.merge.mark(record) {
            self.held.push_back(Held {
                line,
                until: Instant::now() + MARK_WAIT,
                behind,
            });
        }
    }
}

/// A mark as it is sent.
pub fn plain(line: LogLine) -> Item {
    Item {
        line,
        key: "".into(),
        end: 0,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Follows one source; ends at its end, or with its reader.
async fn pump(
    mut source: Source,
    wanted: Wanted,
    tx: mpsc::Sender<Item>,
    progress: Arc<AtomicU64>,
    mut news: watch::Receiver<News>,
) {
    loop {
        {
            let news = news.borrow_and_update();
            source.runs.clone_from(&news.runs);
            source.limit = news.end;
        }
        // A stream that cannot be read now may be readable later; it is looked at again.
        let more = source.fill(64 << 10).unwrap_or(false);
        while let Some(line) = source.ready.pop_front() {
            if is_wanted(&wanted, &line) && tx.send(item(&source, line)).await.is_err() {
                return;
            }
        }
        if !source.holds_back() || !more {
            progress.store(source.offset, Ordering::Release);
        }
        if more {
            continue;
        }
        if source.limit.is_some_and(|limit| source.offset >= limit) {
            source.flush(true);
            while let Some(line) = source.ready.pop_front() {
                if is_wanted(&wanted, &line) && tx.send(item(&source, line)).await.is_err() {
                    return;
                }
            }
            return;
        }
        let holds_back = source.holds_back();
        tokio::select! {
            grown = source.grown() => if grown.is_err() {
                // Out of watches: looking now and then still works.
                tokio::time::sleep(Duration::from_millis(250)).await;
            },
            changed = news.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PARTIAL_AFTER), if holds_back => source.flush(false),
            () = tx.closed() => return,
        }
    }
}
