//! Asking for a change and waiting for its outcome: everything that was asked goes on in the daemon, whatever
//! happens to the one who asked.

use crate::context::Context;
use crate::failure::Failure;
use crate::when;
use gaffer_api::types::Operation;
use std::time::{Duration, Instant};

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
pub async fn settle(
    ctx: &Context,
    mut operation: Operation,
    patience: &Patience,
) -> Result<Operation, Failure> {
    let mut told = String::new();
    while operation.state == "pending" && !patience.no_wait {
        if patience.is_over() {
            let after = ctx.globals.timeout.map_or(0, |timeout| {
                u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
            });
            let message = format!(
                "{} of {} is not done after {}{}",
                operation.verb,
                operation.target,
                when::duration(after),
                because(&operation)
            );
            return Err(Failure::failed(message).hint(goes_on(&operation)));
        }
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

/// One line on standard error whenever the reason has changed.
async fn tell(ctx: &Context, operation: &Operation, told: String) -> String {
    let mut now = operation.reason.clone();
    if now.is_empty()
        && let Some((session, job)) = operation.target.split_once('.')
    {
        let job = job
            .rsplit_once('.')
            .filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit()))
            .map_or(job, |(job, _)| job);
        if let Ok(job) = ctx.client.job(session, job, false).await {
            now = if job.reason.is_empty() {
                job.summary
            } else {
                format!("{}: {}", job.summary, job.reason)
            };
        }
    }
    let line = format!(
        "{} {} {}",
        crate::paint::state("pending").0,
        operation.target,
        now
    );
    if line != told {
        ctx.out.talk(&line);
    }
    line
}

/// Ctrl-C. If it cannot be watched for, it ends the program as it always does.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
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
