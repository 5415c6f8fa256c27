//! `gaffer start` and `gaffer dev`: the file in front of you, run here by a private daemon, as one screen of what
//! starts, says something, and ends.
//!
//! Ctrl-C, TERM and a hang-up stop everything in order; the second time kills. If this program is killed itself, the
//! leash of the private daemon breaks and everything stops all the same.

mod screen;

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
use gaffer_api::types::{ApplyRequest, Event, Job, LogLine, Operation, SignalRequest};
use screen::Screen;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Output that is still on its way when the daemon has ended is waited for so long.
const DRAIN: Duration = Duration::from_millis(300);
/// The last words of a program arrive at most so long after the news of its end.
const LAST_WORDS: Duration = Duration::from_millis(15);
/// States without an event of their own are looked for so often while something is not settled.
const LOOK_EVERY: Duration = Duration::from_millis(250);

type Lines = BoxStream<'static, Result<LogLine, ClientError>>;

/// `start` without a target, and `dev`.
pub async fn dev(ctx: &Context, args: &DevArgs) -> Result<u8, Failure> {
    let mut bundle = file::gather_here(&ctx.out, &args.foreground.file)?;
    let config = file::load(&ctx.out, &bundle)?;
    file::warnings(&ctx.out, &config);
    if !args.jobs.is_empty() {
        file::only(&mut bundle, &config, &args.jobs)?;
    }
    let session = config.session.to_string();
    if !args.foreground.anyway {
        refuse_second(ctx, &session, &args.foreground).await?;
    }
    let bundle = serde_json::to_value(&bundle)
        .map_err(|error| Failure::failed(format!("the files cannot be sent: {error}")))?;
    let mut private = Private::start().await?;
    let screen = Screen::new(ctx, &session, config.jobs.keys().map(|id| id.job.to_string()));
    screen.header(&file::shown(&config.file), &args.foreground.file.profile)?;
    let result = run(ctx, &mut private, screen, bundle, args.foreground.stop_on).await;
    private.release();
    private.ended().await;
    private.clean();
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
    session: String,
    stop_on: Option<StopOn>,
    /// Lines of all jobs.
    logs: Lines,
    /// How often it was asked to stop.
    asked: u32,
    asked_at: Option<Instant>,
    /// Exit code that the first stop was asked with.
    code: Option<u8>,
    jobs: Vec<Job>,
}

async fn run(
    ctx: &Context,
    private: &mut Private,
    screen: Screen<'_>,
    bundle: serde_json::Value,
    stop_on: Option<StopOn>,
) -> Result<u8, Failure> {
    let mut signals = Signals::watch()?;
    let client = private.client.clone();
    let mut events = client.events(Some("start"), true, None).await?;
    // One stream for all jobs, open before there are any.
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    // It ends with the daemon, and is asked again after that.
    let logs = client
        .logs(Some(&screen.session), None, &query)
        .await?
        .fuse()
        .boxed();
    let request = ApplyRequest {
        bundle,
        ..ApplyRequest::default()
    };
    let operation: Operation = client.apply(&request, Some(Duration::ZERO)).await?;
    if operation.state == "failed" {
        return Err(Failure::new(crate::ask::exit_of(&operation), operation.reason));
    }
    let session = screen.session.clone();
    let mut fore = Foreground {
        client,
        screen,
        session,
        stop_on,
        logs,
        asked: 0,
        asked_at: None,
        code: None,
        jobs: Vec::new(),
    };
    fore.look().await?;
    let mut ended = None;
    while ended.is_none() {
        fore.drain_ready()?;
        ctx.out.flush()?;
        tokio::select! {
            biased;
            Some(line) = fore.logs.next() => fore.line(line)?,
            event = events.next() => match event {
                Some(Ok(event)) => fore.event(&event).await?,
                // The daemon ends: its exit code comes next.
                _ => ended = Some(private.ended().await),
            },
            code = private.ended() => ended = Some(code),
            why = signals.next() => fore.interrupted(why).await?,
            () = tokio::time::sleep(LOOK_EVERY) => fore.look().await?,
        }
    }
    fore.drain_until_quiet(DRAIN).await?;
    fore.screen.stopped(&fore.jobs, fore.asked_at)?;
    ctx.out.flush()?;
    let daemon = ended.flatten().and_then(|code| u8::try_from(code).ok());
    match (fore.code, daemon) {
        (Some(code), Some(0)) => Ok(code),
        (_, Some(code)) => Ok(code),
        (_, None) => Err(Failure::failed("the private daemon was killed")
            .hint("what it ran is stopped or left behind: gaffer doctor")),
    }
}

impl Foreground<'_> {
    /// A line of a program. A stream that breaks off ends with its daemon.
    fn line(&mut self, line: Result<LogLine, ClientError>) -> Result<(), Failure> {
        line.map_or(Ok(()), |line| self.screen.line(&line))
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

    /// Whether the run of an event counts as running already.
    async fn is_running(&self, event: &Event) -> bool {
        let place = self.screen.name(&event.subject);
        let Some((job, n)) = place.rsplit_once('.') else {
            return false;
        };
        let Ok(n) = n.parse() else { return false };
        let instance = self.client.instance(&self.session, job, n).await;
        instance.is_ok_and(|instance| instance.run == event.run && instance.state == "running")
    }

    async fn event(&mut self, event: &Event) -> Result<(), Failure> {
        // What a program said before its end comes before it.
        if event.event == "run.exited" {
            self.drain_until_quiet(LAST_WORDS).await?;
        } else {
            self.drain_ready()?;
        }
        // Without a `ready` to wait for, a run is running at once.
        let runs = event.event == "run.started" && self.is_running(event).await;
        self.screen.event(event, runs)?;
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
        let Ok(jobs) = self.client.jobs(Some(&self.session), false).await else {
            return Ok(());
        };
        if self.asked == 0 {
            self.screen.states(&jobs)?;
        }
        self.jobs = jobs;
        let mut instances = self.jobs.iter().flat_map(|job| &job.instances).peekable();
        let any = instances.peek().is_some();
        let over = any
            && instances.all(|one| matches!(one.state.as_str(), "exited" | "failed") && one.pid.is_none());
        if over && self.asked == 0 {
            let failed = self
                .jobs
                .iter()
                .flat_map(|job| &job.instances)
                .any(|one| one.state == "failed");
            self.stop("everything has ended", u8::from(failed)).await?;
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
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn watch() -> Result<Signals, Failure> {
        let watch = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("signals cannot be watched: {error}")))
        };
        Ok(Signals {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "TERM",
            _ = self.hangup.recv() => "a hang-up",
        }
    }
}
