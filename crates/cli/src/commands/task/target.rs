//! What else can stand where a job could, for `wait`, `logs` and `why`: `task:ID`, `step:ID/NAME`, `queue:NAME`, `schedule:NAME`.

use super::{look, wait};
use crate::args::task::{TaskLogsArgs, TaskLookArgs, TaskRoot};
use crate::args::{LogsArgs, WaitArgs, WhyArgs};
use crate::commands::{queue, queue_logs, queue_look, schedule};
use crate::context::Context;
use crate::failure::Failure;

/// A task or one of its steps, a queue, a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A task of steps.
    Task { id: String, step: Option<String> },
    /// A queued task: its number.
    Queued(i64),
    /// A queue.
    Queue(String),
    /// A schedule.
    Schedule(String),
}

/// What is named; none: they are jobs.
pub fn named(targets: &[String]) -> Result<Option<Vec<Named>>, Failure> {
    let found: Vec<Option<Named>> = targets.iter().map(|target| one(target)).collect();
    let count = found.iter().flatten().count();
    if count == 0 {
        return Ok(None);
    }
    if count < targets.len() {
        let failure = Failure::usage("jobs, tasks and queues are asked for one after the other");
        return Err(failure.hint("task:ID, step:ID/NAME, queue:NAME, schedule:NAME"));
    }
    Ok(Some(found.into_iter().flatten().collect()))
}

fn one(target: &str) -> Option<Named> {
    let (kind, name) = target.split_once(':')?;
    match kind {
        "task" => Some(match name.parse::<i64>() {
            Ok(id) if name.bytes().all(|byte| byte.is_ascii_digit()) => Named::Queued(id),
            _ => Named::Task {
                id: name.to_owned(),
                step: None,
            },
        }),
        "step" => {
            let (id, step) = name.split_once('/')?;
            Some(Named::Task {
                id: id.to_owned(),
                step: Some(step.to_owned()),
            })
        }
        "queue" => Some(Named::Queue(name.to_owned())),
        "schedule" => Some(Named::Schedule(name.to_owned())),
        _ => None,
    }
}

/// The tasks of steps among what is named.
fn look_at(named: &[Named]) -> TaskLookArgs {
    let ids = named.iter().filter_map(|one| match one {
        Named::Task { id, .. } => Some(id.clone()),
        _ => None,
    });
    TaskLookArgs {
        ids: ids.collect(),
        root: TaskRoot::default(),
    }
}

/// `logs task:ID`, `logs queue:NAME`.
pub async fn logs(ctx: &Context, args: &LogsArgs, named: Vec<Named>) -> Result<u8, Failure> {
    let mut tasks = Vec::new();
    let mut lines = Vec::new();
    for mut one in named {
        if let Named::Schedule(name) = &one {
            let became = queue_logs::of_schedule(ctx, name).await?;
            one = self::one(&became)
                .ok_or_else(|| Failure::not_found(format!("schedule {name} became {became}")))?;
        }
        match one {
            Named::Queue(name) => lines.push(queue_logs::of_queue(ctx, &name).await?),
            Named::Queued(id) => match queue_logs::run_of(ctx, id).await? {
                Some(run) => tasks.push((run, None)),
                None => lines.push(queue_logs::of_task(ctx, id).await?),
            },
            Named::Task { id, step } => tasks.push((id, step)),
            Named::Schedule(_) => {}
        }
    }
    match (tasks.is_empty(), lines.is_empty()) {
        (true, _) => queue_logs::logs(ctx, args, &lines).await,
        (false, true) => steps(ctx, args, tasks).await,
        (false, false) => Err(Failure::usage(
            "tasks of steps and queues are asked for one after the other",
        )),
    }
}

async fn steps(ctx: &Context, args: &LogsArgs, tasks: Vec<(String, Option<String>)>) -> Result<u8, Failure> {
    let other = args.lines.is_some() || args.since.is_some() || args.until.is_some() || args.grep.is_some();
    if other || args.run.is_some() || args.events {
        let failure = Failure::usage("of tasks only --follow and --stream are known");
        return Err(failure.hint("runs of a step:  gaffer task logs ID STEP --attempt N"));
    }
    if args.follow && tasks.len() > 1 {
        return Err(Failure::usage("one task at a time can be followed"));
    }
    for (id, step) in tasks {
        let args = TaskLogsArgs {
            id,
            step,
            follow: args.follow,
            attempt: None,
            stream: args.stream.clone(),
            root: TaskRoot::default(),
        };
        super::logs::logs(ctx, &args).await?;
    }
    Ok(0)
}

/// `why task:ID`, `why queue:NAME`, `why schedule:NAME`.
pub async fn why(ctx: &Context, args: &WhyArgs, named: &[Named]) -> Result<u8, Failure> {
    let tasks = look_at(named);
    let mut worst = match tasks.ids.is_empty() {
        true => 0,
        false => look::why(ctx, &tasks).await?,
    };
    for one in named {
        worst = worst.max(match one {
            Named::Task { .. } => 0,
            Named::Queued(id) => queue_look::show_task(ctx, *id).await?,
            Named::Queue(name) => queue_logs::why(ctx, args, name).await?,
            Named::Schedule(name) => schedule::show(ctx, name).await?,
        });
    }
    Ok(worst)
}

/// The tasks of `wait`: `task:ID`, or `task:ID=done`.
pub fn awaited(args: &WaitArgs) -> Result<Option<Vec<Named>>, Failure> {
    let is_task = |condition: &&String| condition.starts_with("task:");
    if let Some(other) = args
        .conditions
        .iter()
        .find(|condition| condition.starts_with("schedule:"))
    {
        let failure = Failure::usage(format!("`{other}`: a schedule is never done"));
        return Err(failure.hint("what it did last:  gaffer schedule show NAME"));
    }
    let plain = |condition: &String| condition.strip_suffix("=done").unwrap_or(condition).to_owned();
    let targets: Vec<String> = args.conditions.iter().map(plain).collect();
    if let Some(other) = targets.iter().filter(is_task).find(|target| target.contains('=')) {
        return Err(Failure::usage(format!(
            "`{other}`: a task is waited for until it is done"
        )));
    }
    // Queues are waited for beside jobs.
    match targets
        .iter()
        .any(|target| is_task(&target) || target.starts_with("step:"))
    {
        true => named(&targets),
        false => Ok(None),
    }
}

/// `wait task:ID`.
pub async fn until(ctx: &Context, args: &WaitArgs, named: &[Named]) -> Result<u8, Failure> {
    if args.any && named.len() > 1 {
        return Err(Failure::usage("--any is for jobs"));
    }
    let tasks = look_at(named);
    let mut worst = match tasks.ids.is_empty() {
        true => 0,
        false => wait(ctx, &tasks).await?,
    };
    for one in named {
        worst = worst.max(match one {
            Named::Task { .. } => 0,
            Named::Queued(id) => queue::wait(ctx, *id).await?,
            Named::Queue(name) | Named::Schedule(name) => {
                return Err(Failure::usage(format!(
                    "`{name}`: tasks are waited for by themselves"
                )));
            }
        });
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(targets: &[&str]) -> Option<Vec<Named>> {
        let targets: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
        named(&targets).unwrap_or_else(|_| panic!("refused"))
    }

    #[test]
    fn tasks_and_steps_are_told_from_jobs() {
        assert_eq!(names(&["web", "shop.web"]), None);
        let task = |id: &str, step: Option<&str>| Named::Task {
            id: id.to_owned(),
            step: step.map(str::to_owned),
        };
        assert_eq!(
            names(&["task:n-1", "step:n-1/load"]),
            Some(vec![task("n-1", None), task("n-1", Some("load"))])
        );
        assert!(named(&["web".to_owned(), "task:n-1".to_owned()]).is_err());
    }

    #[test]
    fn a_number_is_a_queued_task() {
        assert_eq!(
            names(&["task:17", "queue:shop.mail", "schedule:nightly"]),
            Some(vec![
                Named::Queued(17),
                Named::Queue("shop.mail".to_owned()),
                Named::Schedule("nightly".to_owned())
            ])
        );
    }
}
