//! Asking for a change and waiting for its outcome: everything that was asked goes on in the daemon, whatever
//! happens to the one who asked.

use crate::context::Context;
use crate::failure::Failure;
use crate::when;
use gaffer_api::types::{Operation, Outcome};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

/// The daemon may hold an answer so long: short enough that progress is told soon.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// Then it is asked again.
const NEXT_ANSWER: Duration = Duration::from_secs(10);

/// How long to wait for outcomes.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Do not wait at all.
    pub no_wait: bool,
    /// At most so long, from the first request on.
    pub deadline: Option<Instant>,
}

impl Patience {
    /// As the options say, counted from now.
    pub fn new(ctx: &Context, no_wait: bool) -> Patience {
        Patience {
            no_wait,
            deadline: ctx.globals.timeout.map(|timeout| Instant::now() + timeout),
        }
    }

    /// What the first request asks the daemon for.
    pub fn first(&self) -> Option<Duration> {
        (!self.no_wait).then(|| self.cap(FIRST_ANSWER))
    }

    fn cap(&self, wait: Duration) -> Duration {
        self.deadline.map_or(wait, |deadline| {
            wait.min(deadline.saturating_duration_since(Instant::now()))
        })
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Waits until an operation is over, telling what it waits for once it takes a while. Ctrl-C stops the waiting only.
pub async fn settle(ctx: &Context, operation: Operation, patience: &Patience) -> Result<Operation, Failure> {
    let operation = wait_for(ctx, operation, patience).await?;
    match operation.state.as_str() {
        "pending" if !patience.no_wait => Err(late(ctx, &operation)),
        _ => Ok(operation),
    }
}

/// The same, but an operation that is still pending when the time is over is no failure yet: parts of it may be done.
pub async fn wait_for(
    ctx: &Context,
    mut operation: Operation,
    patience: &Patience,
) -> Result<Operation, Failure> {
    let mut told = String::new();
    while operation.state == "pending" && !patience.no_wait && !patience.is_over() {
        told = tell(ctx, &operation, told).await;
        tokio::select! {
            next = ctx.client.operation(&operation.operation, Some(patience.cap(NEXT_ANSWER))) => operation = next?,
            () = interrupted() => {
                ctx.out.say(&goes_on(&operation));
                return Err(Failure::silent(1));
            }
        }
    }
    Ok(operation)
}

/// The failure of an operation that is not over in time.
pub fn late(ctx: &Context, operation: &Operation) -> Failure {
    let after = ctx.globals.timeout.map_or(0, |timeout| {
        u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
    });
    let message = format!(
        "{} of {} is not done after {}{}",
        operation.verb,
        operation.target,
        when::duration(after),
        because(operation)
    );
    Failure::failed(message).hint(goes_on(operation))
}

/// `op-12 goes on: gaffer wait op-12`.
pub fn goes_on(operation: &Operation) -> String {
    format!("{0} goes on: gaffer wait {0}", operation.operation)
}

fn because(operation: &Operation) -> String {
    if operation.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", operation.reason)
    }
}

/// One line on standard error whenever what is waited for has changed.
async fn tell(ctx: &Context, operation: &Operation, told: String) -> String {
    let is_open = |outcome: &&Outcome| outcome.state == "pending";
    let open = operation.outcomes.iter().filter(is_open);
    let (left, all) = (open.clone().count(), operation.outcomes.len());
    // Of many the first is looked at: one question, however many there are.
    let first = open.map(|outcome| outcome.target.as_str()).next();
    let target = first.unwrap_or(&operation.target);
    let mut now = operation.reason.clone();
    if now.is_empty() {
        now = look(ctx, target).await.unwrap_or_default();
    }
    let count = match all {
        0 | 1 => String::new(),
        _ => format!("{} of {all}, waiting for ", all - left),
    };
    let line = format!("{} {count}{target} {now}", crate::paint::state("pending").0);
    if line != told {
        ctx.out.talk(&line);
    }
    line
}

/// How the job of a target is.
async fn look(ctx: &Context, target: &str) -> Option<String> {
    let (session, job) = target.split_once('.')?;
    let job = job
        .rsplit_once('.')
        .filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit()))
        .map_or(job, |(job, _)| job);
    let job = ctx.client.job(session, job, false).await.ok()?;
    Some(match job.reason.as_str() {
        "" => job.summary,
        reason => format!("{}: {reason}", job.summary),
    })
}

/// Ctrl-C, also one that came since it was last asked for: between two looks at the daemon nobody listens. If it cannot
/// be watched for, it ends the program as it always does.
pub async fn interrupted() {
    static CTRL_C: OnceLock<Option<Mutex<Signal>>> = OnceLock::new();
    let watched = CTRL_C.get_or_init(|| signal(SignalKind::interrupt()).ok().map(Mutex::new));
    match watched {
        Some(watched) => drop(watched.lock().await.recv().await),
        None => std::future::pending().await,
    }
}

/// Exit code of an operation that is over, 0 if it was only asked for.
pub fn exit_of(operation: &Operation) -> u8 {
    match operation.state.as_str() {
        "failed" | "cancelled" => gaffer_api::error::Code::from_word(&operation.reason_code)
            .map_or(1, gaffer_api::error::Code::exit),
        _ => 0,
    }
}
