//! The output of a queue's workers: all seats merged by time, each line with the task that it is of, then followed.
//!
//! Which bytes are whose is noted beside the streams. A reader that follows may be faster than that note: it meets bytes behind the end of
//! the last part that it knows, and waits a moment for the next one.

use crate::http::Shared;
use crate::http::lines::Source;
use crate::http::merge::{Item, Wanted, due_mark, is_wanted, item, plain};
use crate::http::sorted::Sorted;
use crate::refusal::{Answer, Refusal};
use crate::view;
use gaffer::info::{Cursor, EventRecord};
use gaffer::queue::{Part, Parts, Seat};
use gaffer_api::error::Code;
use gaffer_api::types::LogLine;
use gaffer_core::name::JobId;
use gaffer_core::queue::task::TaskId;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Lines given at once.
const BATCH: usize = 256;
/// Lines on their way to the reader.
const UNDERWAY: usize = 256;
/// Silence after which an unfinished line is shown.
const PARTIAL_AFTER: Duration = Duration::from_millis(500);
/// So long a note of whose bytes these are is waited for, and looked for so often.
const NOTE_WITHIN: Duration = Duration::from_millis(500);
const NOTE_EVERY: Duration = Duration::from_millis(10);
/// The mark of an end waits so long for the last lines.
const MARK_WAIT: Duration = Duration::from_millis(150);

/// What was.
pub struct QueueLines {
    app: Shared,
    queue: JobId,
    wanted: Wanted,
    /// Only of this task.
    task: Option<TaskId>,
    owners: Vec<Owners>,
    sorted: Sorted,
    marks: VecDeque<LogLine>,
    /// Behind the newest event that was looked at.
    cursor: Cursor,
    at_end: bool,
}

/// Whose the bytes of a stream are.
struct Owners {
    seat: Seat,
    stream: String,
    parts: Parts,
}

impl Owners {
    /// The part that a byte is in; `true`: nobody else's can come.
    fn of(&self, offset: u64) -> (Option<&Part>, bool) {
        let range = |part: &Part| part.range(&self.stream);
        let part = self.parts.list().iter().rfind(|part| range(part).0 <= offset);
        let is_sure = part.is_some_and(|part| range(part).1.is_none_or(|to| offset < to));
        (part, is_sure)
    }

    /// A line with its task; none: it is of another one than is wanted.
    fn item(
        &self,
        source: &Source,
        wanted: &Wanted,
        task: Option<TaskId>,
        line: super::lines::Line,
    ) -> Option<Item> {
        if !is_wanted(wanted, &line) {
            return None;
        }
        let (part, _) = self.of(line.offset);
        let is_ours = task.is_none_or(|task| part.is_some_and(|part| part.task == Some(task)))
            && wanted
                .run
                .is_none_or(|run| part.is_some_and(|part| part.run == run));
        let mut item = item(source, line);
        item.line.task = part.and_then(|part| part.task);
        item.line.run = part.map(|part| part.run.to_string());
        is_ours.then_some(item)
    }
}

impl QueueLines {
    /// Opens all seats and finds where each begins. `at_end`: nothing will be followed.
    pub fn open(
        app: &Shared,
        queue: JobId,
        task: Option<TaskId>,
        wanted: Wanted,
        at_end: bool,
    ) -> Answer<QueueLines> {
        let cursor = app.handle.events().newest();
        let mut lines = QueueLines {
            app: app.clone(),
            queue,
            wanted,
            task,
            owners: Vec::new(),
            sorted: Sorted::default(),
            marks: VecDeque::new(),
            cursor,
            at_end,
        };
        let mut sources = Vec::new();
        for seat in app.handle.queue_seats(&lines.queue)? {
            for stream in lines.streams()? {
                if let Some((owners, source)) = lines.source(&seat, stream)? {
                    lines.owners.push(owners);
                    sources.push(source);
                }
            }
        }
        let whose = match (lines.task, lines.wanted.run) {
            (Some(task), _) => Some(format!("task {task}")),
            (None, run) => run.map(|run| format!("run @{run}")),
        };
        if let Some(whose) = whose.filter(|_| sources.is_empty() && at_end) {
            let message = format!("no output of {whose} is kept in queue {}", lines.queue);
            return Err(Refusal::new(Code::StreamNotFound, message));
        }
        lines.sorted = Sorted::new(sources, 1)?;
        if at_end {
            lines.sorted.end();
        }
        if lines.wanted.events {
            lines.marks = lines.past_marks();
        }
        Ok(lines)
    }

    fn streams(&self) -> Answer<Vec<&'static str>> {
        let known = ["stdout", "stderr"];
        match &self.wanted.stream {
            None => Ok(known.to_vec()),
            Some(wanted) => match known.into_iter().find(|known| known == wanted) {
                Some(one) => Ok(vec![one]),
                None => {
                    let message = format!("workers of queues have no stream `{}`", wanted.escape_debug());
                    Err(Refusal::new(Code::StreamNotFound, message).hint(known.join(", ")))
                }
            },
        }
    }

    /// A stream of a seat; none: nothing in it is wanted.
    fn source(&self, seat: &Seat, stream: &'static str) -> Answer<Option<(Owners, Source)>> {
        let reader = self.app.handle.queue_log(&self.queue, seat, stream);
        let subject = format!("{}.{}", self.queue, seat.n);
        let kind = if seat.resident { "r" } else { "" };
        let key = format!("{kind}{}/{stream}", seat.n);
        let mut source = Source::new(reader, stream, subject, key.as_str().into())?;
        let owners = Owners {
            seat: seat.clone(),
            stream: stream.to_owned(),
            parts: self.app.handle.queue_parts(&self.queue, seat),
        };
        source.runs = runs_of(&owners);
        let is_chosen = self.task.is_some() || self.wanted.run.is_some();
        let (first, end) = source.range()?;
        if !is_chosen {
            if first == end && self.at_end {
                return Ok(None);
            }
            self.wanted.seek(&mut source)?;
            return Ok(Some((owners, source)));
        }
        let mut chosen = owners.parts.list().iter().filter(|part| {
            self.task.is_none_or(|task| part.task == Some(task))
                && self.wanted.run.is_none_or(|run| part.run == run)
        });
        let oldest = chosen.next();
        if let Some(part) = oldest {
            source.offset = source.offset.max(part.range(stream).0);
            let last = chosen.next_back().unwrap_or(part);
            source.limit = Some(last.range(stream).1.unwrap_or(end));
        } else {
            source.offset = end;
            source.limit = Some(end);
        }
        // What is between its parts is of others: the last lines are not the last lines of these.
        let wanted = Wanted {
            tail: None,
            ..self.wanted.clone()
        };
        wanted.seek(&mut source)?;
        Ok((oldest.is_some() || !self.at_end).then_some((owners, source)))
    }

    /// The next lines, in order; empty at the end of what was.
    pub fn catch_up(&mut self) -> Answer<Vec<Item>> {
        let mut items = Vec::new();
        while items.len() < BATCH {
            if let Some(mark) = due_mark(&mut self.marks, self.sorted.next_ms()) {
                items.push(plain(mark));
                continue;
            }
            let Some((index, line)) = self.sorted.pop()? else {
                break;
            };
            if let (Some(source), Some(owners)) = (self.sorted.source(index), self.owners.get(index)) {
                items.extend(owners.item(source, &self.wanted, self.task, line));
            }
        }
        Ok(items)
    }

    fn past_marks(&self) -> VecDeque<LogLine> {
        let log = self.app.handle.events();
        let mut marks = VecDeque::new();
        let mut cursor = log.oldest();
        while cursor < self.cursor {
            let records = log.read(cursor, BATCH);
            let Some(last) = records.last() else { break };
            cursor = last.cursor;
            let before = records.iter().filter(|record| record.cursor <= self.cursor);
            marks.extend(before.filter_map(|record| self.mark(record)));
        }
        marks
    }

    /// The task of an event of this queue.
    fn task_of(&self, record: &EventRecord) -> Option<TaskId> {
        let value = |wanted: &str| {
            let mut data = record.event.data.iter();
            data.find(|(name, _)| *name == wanted)
                .map(|(_, value)| value.as_str())
        };
        let is_ours = value("queue") == Some(self.queue.to_string().as_str());
        value("task").filter(|_| is_ours)?.parse().ok()
    }

    /// The mark of an event, if it is about what is wanted.
    fn mark(&self, record: &EventRecord) -> Option<LogLine> {
        let event = &record.event;
        let what = event.event.strip_prefix("queue.task.")?;
        let task = self.task_of(record)?;
        let is_ours = self.task.is_none_or(|wanted| wanted == task)
            && self.wanted.run.is_none_or(|run| event.run == Some(run));
        let text = match &event.reason {
            Some(reason) if !reason.text.is_empty() => format!("{what}: {}", reason.text),
            _ => what.to_owned(),
        };
        let line = LogLine {
            subject: self.queue.to_string(),
            task: Some(task),
            run: event.run.map(|run| run.to_string()),
            stream: "event".to_owned(),
            time: view::time(record.time),
            offset: 0,
            text,
            complete: true,
        };
        (is_ours && self.wanted.takes_time(record.time.0)).then_some(line)
    }

    /// Goes on with what comes. Of one task until it is over.
    pub async fn follow(mut self) -> QueueFollow {
        let (tx, rx) = mpsc::channel(UNDERWAY);
        let stop = watch::Sender::new(false);
        let sources = std::mem::take(&mut self.sorted).into_sources();
        let owners = std::mem::take(&mut self.owners);
        let mut follow = QueueFollow {
            lines: self,
            seats: BTreeSet::new(),
            tx: Some(tx),
            rx,
            stop,
            held: VecDeque::new(),
            pumps: tokio::task::JoinSet::new(),
        };
        for (owners, source) in owners.into_iter().zip(sources) {
            follow.watch(owners, source);
        }
        follow.look_at_task().await;
        follow
    }
}

fn runs_of(owners: &Owners) -> Vec<(u64, gaffer_core::name::RunId)> {
    let parts = owners.parts.list().iter();
    parts
        .map(|part| (part.range(&owners.stream).0, part.run))
        .collect()
}

/// What comes, as it comes.
pub struct QueueFollow {
    lines: QueueLines,
    seats: BTreeSet<Seat>,
    tx: Option<mpsc::Sender<Item>>,
    rx: mpsc::Receiver<Item>,
    /// True: nothing more will be written.
    stop: watch::Sender<bool>,
    /// Marks that wait for the last lines.
    held: VecDeque<(Instant, LogLine)>,
    pumps: tokio::task::JoinSet<()>,
}

impl QueueFollow {
    fn watch(&mut self, owners: Owners, mut source: Source) {
        let Some(tx) = self.tx.clone() else { return };
        self.seats.insert(owners.seat.clone());
        source.limit = None;
        let pump = Pump {
            owners,
            source,
            wanted: self.lines.wanted.clone(),
            task: self.lines.task,
            tx,
        };
        self.pumps.spawn(pump.run(self.stop.subscribe()));
    }

    /// Ends with what there is when the task that is followed is over.
    async fn look_at_task(&mut self) {
        let Some(task) = self.lines.task else { return };
        let found = self.lines.app.handle.queue_task(task).await;
        if found.is_ok_and(|found| !found.row.state.is_final()) {
            return;
        }
        self.stop.send_replace(true);
        self.tx = None;
    }

    /// The next lines; empty when nothing will come any more. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Item> {
        let log = self.lines.app.handle.events();
        let app = self.lines.app.clone();
        loop {
            let due = self.held.front().map(|(until, _)| *until);
            tokio::select! {
                biased;
                item = self.rx.recv() => {
                    let Some(item) = item else {
                        let marks = std::mem::take(&mut self.held);
                        return marks.into_iter().map(|(_, line)| plain(line)).collect();
                    };
                    let mut items = vec![item];
                    while let (true, Ok(more)) = (items.len() < BATCH, self.rx.try_recv()) {
                        items.push(more);
                    }
                    items.sort_by(|left, right| left.line.time.cmp(&right.line.time));
                    return items;
                }
                () = log.wait(self.lines.cursor) => self.look().await,
                () = sleep_until(due), if due.is_some() => {}
                () = app.closed() => return Vec::new(),
            }
            let now = Instant::now();
            let mut items = Vec::new();
            while let Some((_, line)) = self.held.pop_front_if(|(until, _)| *until <= now) {
                items.push(plain(line));
            }
            if !items.is_empty() {
                return items;
            }
        }
    }

    /// Looks at new events: marks, new seats, the end of the task that is followed.
    async fn look(&mut self) {
        let records = self.lines.app.handle.events().read(self.lines.cursor, BATCH);
        let (mut ours, mut over) = (false, false);
        for record in &records {
            self.lines.cursor = record.cursor;
            let task = self.lines.task_of(record);
            ours |= task.is_some() || record.event.event == "config.applied";
            let is_start = record.event.event == "queue.task.started";
            over |= !is_start && task.is_some() && task == self.lines.task;
            if self.lines.wanted.events
                && let Some(line) = self.lines.mark(record)
            {
                let wait = if is_start { Duration::ZERO } else { MARK_WAIT };
                self.held.push_back((Instant::now() + wait, line));
            }
        }
        if ours && self.tx.is_some() {
            self.take_up_seats();
        }
        if over {
            self.look_at_task().await;
        }
    }

    /// Workers that were not there when the reading began.
    fn take_up_seats(&mut self) {
        // A queue that is gone has no new ones.
        let seats = self
            .lines
            .app
            .handle
            .queue_seats(&self.lines.queue)
            .unwrap_or_default();
        for seat in seats {
            if self.seats.contains(&seat) {
                continue;
            }
            for stream in self.lines.streams().unwrap_or_default() {
                if let Ok(Some((owners, source))) = self.lines.source(&seat, stream) {
                    self.watch(owners, source);
                }
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Follows one stream of a seat.
struct Pump {
    owners: Owners,
    source: Source,
    wanted: Wanted,
    task: Option<TaskId>,
    tx: mpsc::Sender<Item>,
}

impl Pump {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let stopped = *stop.borrow_and_update();
            // A stream that cannot be read now may be readable later; it is looked at again.
            let more = self.source.fill(64 << 10).unwrap_or(false);
            if stopped && !more {
                self.source.flush(true);
            }
            if self.send().await.is_none() || (stopped && !more) {
                return;
            }
            if more {
                continue;
            }
            let holds_back = self.source.holds_back();
            tokio::select! {
                grown = self.source.grown() => if grown.is_err() {
                    // Out of watches: looking now and then still works.
                    tokio::time::sleep(Duration::from_millis(250)).await;
                },
                changed = stop.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PARTIAL_AFTER), if holds_back => self.source.flush(false),
                () = self.tx.closed() => return,
            }
        }
    }

    /// Sends the lines that were read; none: nobody listens any more.
    async fn send(&mut self) -> Option<()> {
        self.owners.parts.refresh();
        // Where nothing is noted (a full disk) all of these lines wait as long as one of them.
        let until = Instant::now() + NOTE_WITHIN;
        while let Some(line) = self.source.ready.pop_front() {
            self.known(line.offset, until).await;
            let Some(item) = self.owners.item(&self.source, &self.wanted, self.task, line) else {
                continue;
            };
            self.tx.send(item).await.ok()?;
        }
        self.source.runs = runs_of(&self.owners);
        Some(())
    }

    /// Waits until it is known whose a byte is.
    async fn known(&mut self, offset: u64, until: Instant) {
        while !self.owners.of(offset).1 && Instant::now() < until {
            tokio::time::sleep(NOTE_EVERY).await;
            self.owners.parts.refresh();
        }
    }
}
