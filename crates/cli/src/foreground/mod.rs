//! `gaffer start` and `gaffer dev`: the file in front of you, run here by a private daemon, as one screen of what
//! starts, says something, and ends.
//!
//! Ctrl-C, TERM and a hang-up stop everything in order; the second time kills. If this program is killed itself, the
//! leash of the private daemon breaks and everything stops all the same.

mod queues;
mod screen;
mod tasks;

use crate::args::{DevArgs, ForegroundArgs, StopOn};
use crate::context::Context;
use crate::failure::Failure;
use crate::file;
use crate::private::Private;
use futures_util::future::FutureExt;
use futures_util::stream::{BoxStream, StreamExt};
use gaffer_api::Client;
use gaffer_api::client::ClientError;
use gaffer_api::routes::LogQuery;
use gaffer_api::types::{ApplyRequest, Event, Instance, Job, LogLine, Operation, SignalRequest};
use gaffer_config::LoadedTask;
use queues::Queues;
use screen::Screen;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tasks::Tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Output that is still on its way when the daemon has ended is waited for so long.
const DRAIN: Duration = Duration::from_millis(300);
/// The last words of a program arrive at most so long after the news of its end.
const LAST_WORDS: Duration = Duration::from_millis(15);
/// States without an event of their own are looked for so often while something is not settled.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs whose start is remembered.
const BEGUN_MAX: usize = 4096;
/// Lines that wait for the start of their run to be told.
const HELD_MAX: usize = 10_000;

type Lines = BoxStream<'static, Result<LogLine, ClientError>>;

/// `start` without a target, and `dev`.
pub async fn dev(ctx: &Context, args: &DevArgs) -> Result<u8, Failure> {
    let mut bundle = file::gather_here(&ctx.out, &args.foreground.file)?;
    let config = file::load(&ctx.out, &bundle)?;
    file::warnings(&ctx.out, &config);
    let started = config.started();
    let alone = |task: &&LoadedTask| !task.start && !started.contains(&task.id);
    for task in config.tasks.values().filter(alone) {
        let name = &task.id.job;
        ctx.out.talk(&format!(
            "task {name} does not start by itself: gaffer task run {name}"
        ));
    }
    let starting = config.tasks.values().filter(|task| task.start);
    let starting: Vec<String> = starting.map(|task| task.id.job.to_string()).collect();
    let works = !config.queues.is_empty() || !config.schedules.is_empty();
    if config.jobs.is_empty() && starting.is_empty() && !works {
        return Err(
            Failure::usage(format!("there is no job in {}", file::shown(&config.file)))
                .hint("write one, for example:  [job.web]  and below it  cmd = \"python3 -m http.server\""),
        );
    }
    if !args.jobs.is_empty() {
        file::only(&mut bundle, &config, &args.jobs)?;
    }
    let session = config.session.to_string();
    if !args.foreground.anyway {
        refuse_second(ctx, &session, &args.foreground).await?;
    }
    let bundle = serde_json::to_value(&bundle)
        .map_err(|error| Failure::failed(format!("the files cannot be sent: {error}")))?;
    let mut private = Private::start(&ctx.out).await?;
    let jobs = config.jobs.keys().map(|id| id.job.to_string());
    let queues = config.queues.keys().filter(|id| id.session == config.session);
    let queues: Vec<String> = queues.map(|id| id.job.to_string()).collect();
    let names = jobs.chain(starting.iter().cloned()).chain(queues.iter().cloned());
    let screen = Screen::new(ctx, &session, names);
    let tasks = Tasks::expect(starting.into_iter());
    screen.header(&file::shown(&config.file), &args.foreground.file.profile)?;
    let result = run(
        ctx,
        &mut private,
        (screen, tasks, Queues::expect(queues)),
        bundle,
        args.foreground.stop_on,
        works,
    )
    .await;
    private.finish(&ctx.out).await;
    result
}

/// Two copies of an application get in each other's way: ports, files, queues.
async fn refuse_second(ctx: &Context, session: &str, args: &ForegroundArgs) -> Result<(), Failure> {
    let jobs = ctx.client.jobs(Some(session), false).await.unwrap_or_default();
    if jobs.is_empty() || args.anyway {
        return Ok(());
    }
    let count = file::count(jobs.len(), "job");
    Err(
        Failure::conflict(format!("the daemon runs session {session} already ({count})")).hint_pair(
            "look at it:  gaffer ps",
            "a second copy here:  gaffer dev --anyway",
        ),
    )
}

struct Foreground<'a> {
    client: Client,
    screen: Screen<'a>,
    tasks: Tasks,
    queues: Queues,
    /// There are queues or schedules: something may always be to come.
    works: bool,
    session: String,
    stop_on: Option<StopOn>,
    /// Lines of all jobs.
    logs: Lines,
    /// Runs whose start has been told, the newest.
    begun: BTreeSet<String>,
    /// Lines of others, and since when.
    held: Vec<(Instant, LogLine)>,
    /// How often it was asked to stop.
    asked: u32,
    asked_at: Option<Instant>,
    /// Exit code that the first stop was asked with.
    code: Option<u8>,
    jobs: Vec<Job>,
    /// Something starts that is no job.
    has_tasks: bool,
}

async fn run(
    ctx: &Context,
    private: &mut Private,
    (screen, tasks, mut queues): (Screen<'_>, Tasks, Queues),
    bundle: serde_json::Value,
    stop_on: Option<StopOn>,
    works: bool,
) -> Result<u8, Failure> {
    let mut signals = Signals::watch()?;
    let client = private.client.clone();
    let mut events = client.events(Some("start"), true, None).await?;
    let logs = lines_of_all(&client, &screen.session).await?;
    let request = ApplyRequest {
        bundle,
        ..ApplyRequest::default()
    };
    let operation: Operation = client.apply(&request, Some(Duration::ZERO)).await?;
    if operation.state == "failed" {
        return Err(Failure::new(crate::ask::exit_of(&operation), operation.reason));
    }
    let session = screen.session.clone();
    queues.follow(&client, &session).await?;
    let has_tasks = !tasks.over();
    let mut fore = Foreground {
        client,
        screen,
        tasks,
        queues,
        works,
        session,
        stop_on,
        logs,
        begun: BTreeSet::new(),
        held: Vec::new(),
        asked: 0,
        asked_at: None,
        code: None,
        jobs: Vec::new(),
        has_tasks,
    };
    fore.look().await?;
    let mut ended = None;
    while ended.is_none() {
        fore.release(|(since, _)| since.elapsed() > screen::EVENT_WITHIN)?;
        ctx.out.flush()?;
        tokio::select! {
            biased;
            // Before lines: a start is told before what it says. An end waits for its last lines by itself.
            event = events.next() => match event {
                Some(Ok(event)) => fore.event(&event).await?,
                // The daemon ends: its exit code comes next.
                _ => ended = Some(private.ended().await),
            },
            Some(line) = fore.logs.next() => fore.line(line)?,
            line = fore.queues.line() => fore.screen.line(&line)?,
            code = private.ended() => ended = Some(code),
            why = signals.next() => fore.interrupted(why).await?,
            () = tokio::time::sleep(LOOK_EVERY) => fore.look().await?,
        }
    }
    fore.drain_until_quiet(DRAIN).await?;
    while let Some(line) = fore.queues.line().now_or_never() {
        fore.screen.line(&line)?;
    }
    fore.release(|_| true)?;
    fore.screen.stopped(&fore.jobs, fore.asked_at)?;
    ctx.out.flush()?;
    verdict(fore.code, ended.flatten())
}

/// Exit code: the one that was decided on if the daemon ended well, else the daemon's.
fn verdict(code: Option<u8>, daemon: Option<i32>) -> Result<u8, Failure> {
    match (code, daemon.and_then(|code| u8::try_from(code).ok())) {
        (Some(code), Some(0)) => Ok(code),
        (_, Some(code)) => Ok(code),
        (_, None) => Err(Failure::failed("the private daemon was killed")
            .hint("what it ran has been stopped; start again:  gaffer start")),
    }
}

/// One stream for all jobs, open before there are any.
async fn lines_of_all(client: &Client, session: &str) -> Result<Lines, Failure> {
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let lines = client.logs(Some(session), None, &query).await?;
    // It ends with the daemon, and is asked again after that.
    Ok(lines.fuse().boxed())
}

impl Foreground<'_> {
    /// A line of a program. A stream that breaks off ends with its daemon. Lines and events come on different ways: a
    /// line waits until the start of its run has been told.
    fn line(&mut self, line: Result<LogLine, ClientError>) -> Result<(), Failure> {
        let Ok(line) = line else { return Ok(()) };
        let early = match &line.run {
            Some(run) => !self.begun.contains(run),
            // Read before anybody knew whose it is.
            None => !self.screen.lives(&line.subject),
        };
        if !early {
            return self.screen.line(&line);
        }
        self.held.push((Instant::now(), line));
        if self.held.len() > HELD_MAX {
            self.release(|_| true)?;
        }
        Ok(())
    }

    /// The start of a run has been told, or nobody waits for it any longer.
    fn begins(&mut self, run: &str) {
        self.begun.insert(run.to_owned());
        // Ids sort by age.
        if self.begun.len() > BEGUN_MAX {
            self.begun.pop_first();
        }
    }

    /// Prints the lines that have waited, those of which this is true. What follows them does not wait any more.
    fn release(&mut self, which: impl Fn(&(Instant, LogLine)) -> bool) -> Result<(), Failure> {
        let (now, later) = std::mem::take(&mut self.held).into_iter().partition(which);
        self.held = later;
        for (_, line) in now {
            if let Some(run) = &line.run {
                self.begins(run);
            }
            self.screen.line(&line)?;
        }
        Ok(())
    }

    /// What is there already, without waiting.
    fn drain_ready(&mut self) -> Result<(), Failure> {
        while let Some(Some(line)) = self.logs.next().now_or_never() {
            self.line(line)?;
        }
        Ok(())
    }

    /// What is still on its way.
    async fn drain_until_quiet(&mut self, quiet: Duration) -> Result<(), Failure> {
        while let Ok(Some(line)) = tokio::time::timeout(quiet, self.logs.next()).await {
            self.line(line)?;
        }
        Ok(())
    }

    /// The instance that an event of a run is about, if no newer run has taken its place.
    async fn instance(&self, event: &Event) -> Option<Instance> {
        if event.event != "run.started" && event.event != "run.exited" {
            return None;
        }
        let place = self.screen.name(&event.subject);
        let (job, n) = place.rsplit_once('.')?;
        let instance = self.client.instance(&self.session, job, n.parse().ok()?).await;
        let instance = instance.ok()?;
        // Once nothing lives in its place, an instance names its last run or none.
        let same = instance.run == event.run || (instance.run.is_none() && event.event == "run.exited");
        same.then_some(instance)
    }

    async fn event(&mut self, event: &Event) -> Result<(), Failure> {
        if self.tasks.concerns(event) {
            return self.look_at_tasks().await;
        }
        if let Some(end) = queues::End::of(event) {
            // After what was said before it, unless others go on and on.
            let since = Instant::now();
            while since.elapsed() < DRAIN
                && let Ok(line) = tokio::time::timeout(LAST_WORDS, self.queues.line()).await
            {
                self.screen.line(&line)?;
            }
            return end.tell(&self.screen);
        }
        // What a program said before its end comes before it, and what it says at all comes after its start.
        match event.event.as_str() {
            "run.exited" => self.drain_until_quiet(LAST_WORDS).await?,
            "run.started" => {}
            _ => self.drain_ready()?,
        }
        let now = self.instance(event).await;
        // One that is ended already has a line of its own coming.
        let now = now.filter(|now| self.asked == 0 || event.event == "run.started" || now.state == "failed");
        let started = event.event == "run.started";
        if started {
            self.screen.event(event, now.as_ref())?;
            self.begins(event.run.as_deref().unwrap_or_default());
        }
        self.release(|(_, line)| match &line.run {
            Some(_) => line.run == event.run,
            None => line.subject == event.subject,
        })?;
        if !started {
            self.screen.event(event, now.as_ref())?;
        }
        self.look().await?;
        if event.event != "run.exited" || self.asked > 0 {
            return Ok(());
        }
        let code = screen::exit_code(event);
        let ends = match self.stop_on {
            Some(StopOn::Exit) => true,
            Some(StopOn::Failure) => code != 0,
            None => false,
        };
        if ends {
            let name = self.screen.name(&event.subject);
            self.stop(&format!("{name} has ended"), code).await?;
        }
        Ok(())
    }

    /// Looks at all instances: tells states that no event tells, and ends when nothing is left.
    async fn look(&mut self) -> Result<(), Failure> {
        self.look_at_tasks().await?;
        let Ok(jobs) = self.client.jobs(Some(&self.session), false).await else {
            return Ok(());
        };
        let all_told = self.asked > 0 || self.screen.states(&jobs)?;
        self.jobs = jobs;
        let mut instances = self.jobs.iter().flat_map(|job| &job.instances).peekable();
        let any = instances.peek().is_some() || self.has_tasks;
        let over = any
            && !self.works
            && self.tasks.over()
            && instances.all(|one| matches!(one.state.as_str(), "exited" | "failed") && one.pid.is_none());
        if over && all_told && self.asked == 0 {
            let failed = self
                .jobs
                .iter()
                .flat_map(|job| &job.instances)
                .any(|one| one.state == "failed");
            let failed = failed || self.tasks.failed;
            self.stop("everything has ended", u8::from(failed)).await?;
        }
        Ok(())
    }

    /// What tasks write, and their ends.
    async fn look_at_tasks(&mut self) -> Result<(), Failure> {
        let failed = self.tasks.failed;
        self.tasks.look(&self.client, &self.screen).await?;
        if self.tasks.failed && !failed && self.asked == 0 && self.stop_on.is_some() {
            self.stop("a task has failed", 1).await?;
        }
        Ok(())
    }

    async fn interrupted(&mut self, why: &'static str) -> Result<(), Failure> {
        // The terminal has shown `^C`: our lines begin on the next.
        if why == "Ctrl-C" && self.screen.out().terminal {
            self.screen.out().line("")?;
        }
        if self.asked == 0 {
            return self.stop(&format!("asked by {why}; again: KILL"), 0).await;
        }
        self.asked += 1;
        self.screen.all("stopping", "KILL")?;
        // A daemon that is ending takes no new wishes, but it hands signals on.
        let kill = SignalRequest {
            signal: "KILL".to_owned(),
            to: Some("all".to_owned()),
        };
        self.look().await?;
        self.tasks.kill(&self.client).await;
        for instance in self.jobs.iter().flat_map(|job| &job.instances) {
            if let (Some(run), Some(_)) = (&instance.run, instance.pid) {
                // What is gone already cannot be killed.
                let _ = self.client.run_signal(run, &kill).await;
            }
        }
        Ok(())
    }

    async fn stop(&mut self, why: &str, code: u8) -> Result<(), Failure> {
        self.asked += 1;
        self.asked_at = Some(Instant::now());
        self.code = Some(code);
        self.screen.all("stopping", why)?;
        self.screen.out().flush()?;
        crate::connect::shutdown(&self.client, "stop-all").await?;
        Ok(())
    }
}

/// What ends a foreground program.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on they do not end this program by themselves.
    pub fn watch() -> Result<Signals, Failure> {
        let watch = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("signals cannot be watched: {error}")))
        };
        Ok(Signals {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }

    /// The next one, in words.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "TERM",
            _ = self.hangup.recv() => "a hang-up",
        }
    }
}
