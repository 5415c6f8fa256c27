//! `logs`: what programs wrote, line by line with time and name, or their bytes.

use crate::args::{Format, LogsArgs};
use crate::ask::interrupted;
use crate::context::Context;
use crate::failure::Failure;
use crate::paint::Role;
use crate::target::{Scope, Selected};
use crate::when;
use futures_util::future::FutureExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use gaffer_api::client::ClientError;
use gaffer_api::routes::LogQuery;
use gaffer_api::types::{LogLine, Run};
use std::collections::VecDeque;
use std::time::Duration;

/// Lines that are shown unless more is asked for.
const LINES: usize = 100;
/// The past of several jobs is put in order as long as it keeps coming this fast.
const PAST_PAUSE: Duration = Duration::from_millis(150);
/// A new run is looked for so often when raw bytes are followed.
const NEXT_RUN_EVERY: Duration = Duration::from_millis(300);
/// Names in one request, as long as they are in its address: the daemon bounds the head of a request at 32 KiB.
const NAMES_BYTES_MAX: usize = 16 << 10;
/// Runs of an instance that the daemon remembers at most.
const RUNS_MAX: u32 = 1000;

type Lines = BoxStream<'static, Result<LogLine, ClientError>>;

/// `logs`.
pub async fn logs(ctx: &Context, args: &LogsArgs) -> Result<u8, Failure> {
    let (selected, worst) = match &args.run {
        Some(run) => (vec![ctx.run_of(run.trim_start_matches('@')).await?], 0),
        None => {
            let jobs = ctx.jobs(false).await?;
            ctx.looked(&args.targets, &jobs).await?
        }
    };
    if ctx.out.format() == Format::Raw {
        raw(ctx, args, &selected).await?;
        return Ok(worst);
    }
    let query = query(args)?;
    let streams = streams(ctx, args, &selected, &query).await?;
    let mut printer = Printer::new(ctx, &selected);
    let tail = query.tail.and_then(|tail| usize::try_from(tail).ok());
    if args.follow {
        follow(ctx, streams, tail, &mut printer).await?;
    } else {
        past(streams, tail, &mut printer).await?;
    }
    printer.end()?;
    Ok(worst)
}

/// As few streams as will do: one for all jobs of a session, one for all that are named.
async fn streams(
    ctx: &Context,
    args: &LogsArgs,
    selected: &[Selected],
    query: &LogQuery,
) -> Result<Vec<Lines>, Failure> {
    if args.targets.is_empty() && args.run.is_none() {
        let session = match &ctx.scope {
            Scope::One(session) if !ctx.scope_is_fallback => Some(session.as_str()),
            _ => None,
        };
        return Ok(vec![ctx.client.logs(session, None, query).await?]);
    }
    let mut streams: Vec<Lines> = Vec::new();
    let mut names: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for one in selected {
        if one.run.is_none() && selected.len() > 1 {
            let name = one.shown(&Scope::All);
            let bytes = gaffer_api::routes::escape(&name).len() + "%2C".len();
            if bytes > room {
                names.push(Vec::new());
                room = NAMES_BYTES_MAX;
            }
            room = room.saturating_sub(bytes);
            names
                .last_mut()
                .into_iter()
                .for_each(|part| part.push(name.clone()));
            continue;
        }
        let wanted = LogQuery {
            instance: one.instance,
            run: one.run.clone(),
            ..query.clone()
        };
        streams.push(ctx.client.job_logs(&one.session, &one.job, &wanted).await?);
    }
    for part in &names {
        streams.push(ctx.client.logs(None, Some(part), query).await?);
    }
    Ok(streams)
}

/// What is asked for.
pub fn query(args: &LogsArgs) -> Result<LogQuery, Failure> {
    let whole = args.since.is_some() || args.run.is_some() || args.until.is_some();
    let tail = args.lines.or((!whole).then_some(LINES));
    Ok(LogQuery {
        follow: args.follow,
        tail: tail.map(|tail| u32::try_from(tail).unwrap_or(u32::MAX)),
        since: args.since.as_deref().map(when::instant).transpose()?,
        until: args.until.as_deref().map(when::instant).transpose()?,
        grep: args.grep.clone(),
        stream: args.stream.clone(),
        instance: None,
        run: None,
        events: args.events || args.follow,
    })
}

/// Merges by time: one line of each stream is held, the oldest goes first.
pub async fn past(
    mut streams: Vec<Lines>,
    tail: Option<usize>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let mut heads: Vec<Option<LogLine>> = Vec::new();
    for stream in &mut streams {
        heads.push(stream.next().await.transpose()?);
    }
    // One job has been cut to length by the daemon.
    let keep = tail.filter(|_| streams.len() > 1);
    let mut kept: VecDeque<LogLine> = VecDeque::new();
    loop {
        let oldest = heads
            .iter()
            .enumerate()
            .filter_map(|(i, head)| head.as_ref().map(|line| (&line.time, i)))
            .min();
        let Some(at) = oldest.map(|(_, i)| i) else {
            break;
        };
        let next = streams[at].next().await.transpose()?;
        let Some(line) = std::mem::replace(&mut heads[at], next) else {
            break;
        };
        match keep {
            None => printer.line(&line)?,
            Some(keep) => {
                kept.push_back(line);
                if kept.len() > keep {
                    kept.pop_front();
                }
            }
        }
    }
    kept.iter().try_for_each(|line| printer.line(line))
}

/// First what was, in order, then what comes, as it comes.
pub async fn follow(
    ctx: &Context,
    streams: Vec<Lines>,
    tail: Option<usize>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let several = streams.len() > 1;
    let mut all = stream::select_all(streams);
    if several {
        let mut first = Vec::new();
        while let Ok(Some(line)) = tokio::time::timeout(PAST_PAUSE, all.next()).await {
            first.push(line?);
        }
        first.sort_by(|left, right| left.time.cmp(&right.time));
        let skip = tail.map_or(0, |tail| first.len().saturating_sub(tail));
        first[skip..].iter().try_for_each(|line| printer.line(line))?;
    }
    loop {
        let next = match all.next().now_or_never() {
            Some(next) => next,
            None => {
                ctx.out.flush()?;
                tokio::select! {
                    next = all.next() => next,
                    () = interrupted() => return Ok(()),
                }
            }
        };
        match next {
            Some(line) => printer.line(&line?)?,
            None => return Ok(()),
        }
    }
}

/// Prints lines in the form that was asked for.
pub struct Printer<'a> {
    ctx: &'a Context,
    scope: Scope,
    width: usize,
    document: Option<Vec<LogLine>>,
}

impl<'a> Printer<'a> {
    /// For the lines of what was selected; all in one session have short names.
    pub fn new(ctx: &'a Context, selected: &[Selected]) -> Printer<'a> {
        let first = selected.first().map(|one| one.session.clone());
        let one_session = first.filter(|session| selected.iter().all(|one| one.session == *session));
        let scope = one_session.map_or(Scope::All, Scope::One);
        let name = |one: &Selected| {
            Selected {
                instance: one.instance.or(Some(1)),
                run: None,
                ..one.clone()
            }
            .shown(&scope)
            .chars()
            .count()
        };
        let width = selected.iter().map(name).max().unwrap_or(0).min(32);
        let document = (ctx.out.format() == Format::Json).then(Vec::new);
        Printer {
            ctx,
            scope,
            width,
            document,
        }
    }

    /// One line.
    pub fn line(&mut self, line: &LogLine) -> Result<(), Failure> {
        if let Some(document) = &mut self.document {
            document.push(line.clone());
            return Ok(());
        }
        if self.ctx.out.format() == Format::Jsonl {
            return self.ctx.out.json_line(line);
        }
        let text = self.text(line);
        self.ctx.out.line(&text)
    }

    /// `14:02:18.201 web.2 | booting`.
    fn text(&mut self, line: &LogLine) -> String {
        let name = match &self.scope {
            Scope::One(session) => line
                .subject
                .strip_prefix(session.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                .unwrap_or(&line.subject),
            Scope::All => &line.subject,
        };
        let name = &*named(name, line);
        self.width = self.width.max(name.chars().count());
        let paint = &self.ctx.out.paint;
        let pad = " ".repeat(self.width - name.chars().count());
        let time = paint.role(Role::Dim, &when::clock_ms(&line.time));
        let name = paint.name(name, name);
        let text = crate::escape::line(&line.text);
        match line.stream.as_str() {
            "event" => {
                let run = line
                    .run
                    .as_ref()
                    .map(|run| format!("run @{run}"))
                    .unwrap_or_default();
                // The run stands at the right where there is room for it.
                let before = 12 + 1 + self.width + 3 + text.chars().count();
                let end = self.ctx.out.width().unwrap_or(100).min(100);
                let gap = " ".repeat(end.saturating_sub(before + run.chars().count()).max(2));
                let said = format!("─ {text}{gap}{run}");
                format!("{time} {name}{pad} {}", paint.role(Role::Dim, said.trim_end()))
            }
            "gap" => format!(
                "{time} {name}{pad} {}",
                paint.role(Role::Warn, &format!("─ {text}"))
            ),
            "stdout" => format!("{time} {name}{pad} {} {text}", paint.role(Role::Dim, "|")),
            "stderr" => format!("{time} {name}{pad} {} {text}", paint.role(Role::Bad, "!")),
            label => format!(
                "{time} {name}{pad} {} {text}",
                paint.role(Role::Dim, &format!("{label}|"))
            ),
        }
    }

    /// The end of the document.
    pub fn end(self) -> Result<(), Failure> {
        self.document
            .map_or(Ok(()), |document| self.ctx.out.json(&document))
    }
}

/// Of a queue it is the task that counts, not the worker: `thumbs#17`.
fn named<'a>(subject: &'a str, line: &LogLine) -> std::borrow::Cow<'a, str> {
    let Some(task) = line.task else {
        return subject.into();
    };
    let queue = match subject.rsplit_once('.') {
        Some((queue, n)) if n.bytes().all(|byte| byte.is_ascii_digit()) => queue,
        _ => subject,
    };
    format!("{queue}#{task}").into()
}

/// The bytes of the programs, run by run.
async fn raw(ctx: &Context, args: &LogsArgs, selected: &[Selected]) -> Result<(), Failure> {
    if args.grep.is_some() || args.since.is_some() || args.until.is_some() {
        return Err(Failure::usage(
            "raw bytes have no lines and no times: --grep, --since and --until do not go with --format raw",
        ));
    }
    let stream = args.stream.as_deref().unwrap_or("stdout");
    let mut done: Vec<String> = Vec::new();
    let mut tail = args.lines.map(Tail::new);
    loop {
        let runs: Vec<Run> = runs(ctx, selected)
            .await?
            .into_iter()
            .filter(|run| !done.contains(&run.run))
            .collect();
        for run in runs {
            let follow = args.follow && run.ended_at.is_none();
            if follow && let Some(tail) = tail.take() {
                ctx.out.bytes(&tail.bytes)?;
            }
            tokio::select! {
                copied = copy(ctx, &run, stream, follow, &mut tail) => copied?,
                () = interrupted(), if follow => return Ok(()),
            }
            done.push(run.run);
        }
        if !args.follow {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(NEXT_RUN_EVERY) => {}
            () = interrupted() => return Ok(()),
        }
    }
    tail.map_or(Ok(()), |tail| ctx.out.bytes(&tail.bytes))
}

/// All runs of what was selected that are known, oldest first.
async fn runs(ctx: &Context, selected: &[Selected]) -> Result<Vec<Run>, Failure> {
    let mut runs: Vec<Run> = Vec::new();
    for one in selected {
        if let Some(run) = &one.run {
            runs.push(ctx.client.run(run).await?);
            continue;
        }
        let mut of_job = ctx
            .client
            .deaths(&one.session, &one.job, one.instance, RUNS_MAX, 0)
            .await?;
        let job = ctx.client.job(&one.session, &one.job, false).await?;
        for instance in job
            .instances
            .iter()
            .filter(|instance| one.instance.is_none_or(|n| u64::from(n) == instance.instance))
        {
            if let Some(run) = &instance.run
                && !of_job.iter().any(|known| known.run == *run)
            {
                of_job.push(ctx.client.run(run).await?);
            }
        }
        of_job.sort_by(|left, right| {
            (left.instance, &left.started_at, &left.run).cmp(&(right.instance, &right.started_at, &right.run))
        });
        runs.extend(of_job);
    }
    Ok(runs)
}

async fn copy(
    ctx: &Context,
    run: &Run,
    stream: &str,
    follow: bool,
    tail: &mut Option<Tail>,
) -> Result<(), Failure> {
    let opened = ctx.client.run_log(&run.run, stream, "start", follow).await;
    let mut bytes = match opened {
        Ok((_, bytes)) => bytes,
        // A run that never wrote has no such stream; neither has one whose exec failed.
        Err(error)
            if error.code() == Some(gaffer_api::error::Code::StreamNotFound)
                && !run.logs.contains_key(stream) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    loop {
        let next = match bytes.next().now_or_never() {
            Some(next) => next,
            None => {
                ctx.out.flush()?;
                bytes.next().await
            }
        };
        match (next, &mut *tail) {
            (None, _) => return Ok(()),
            (Some(chunk), None) => ctx.out.bytes(&chunk?)?,
            (Some(chunk), Some(tail)) => tail.push(&chunk?),
        }
    }
}

/// The last lines of what passed by.
struct Tail {
    lines: usize,
    bytes: Vec<u8>,
}

impl Tail {
    fn new(lines: usize) -> Tail {
        Tail {
            lines,
            bytes: Vec::new(),
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
        // An unended last line counts as one.
        let body = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let mut starts = body
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at + 1);
        let cut = if self.lines == 0 {
            Some(self.bytes.len())
        } else {
            starts.nth(self.lines - 1)
        };
        if let Some(cut) = cut {
            self.bytes.drain(..cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_lines_of_many_chunks() {
        let mut tail = Tail::new(2);
        for chunk in ["a\nb", "b\nc\n", "d"] {
            tail.push(chunk.as_bytes());
        }
        assert_eq!(tail.bytes, b"c\nd");
        tail.push(b"\n");
        assert_eq!(tail.bytes, b"c\nd\n");
    }
}
