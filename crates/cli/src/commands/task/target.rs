//! `task:ID` and `step:ID/NAME` where a job could stand: for `wait`, `logs` and `why`.

use super::{look, wait};
use crate::args::task::{TaskLogsArgs, TaskLookArgs, TaskRoot};
use crate::args::{LogsArgs, WaitArgs, WhyArgs};
use crate::context::Context;
use crate::failure::Failure;

/// A task, or one of its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    id: String,
    step: Option<String>,
}

/// The tasks that are named; none: they are no tasks.
pub fn named(targets: &[String]) -> Result<Option<Vec<Named>>, Failure> {
    let found: Vec<Option<Named>> = targets.iter().map(|target| one(target)).collect();
    let count = found.iter().flatten().count();
    if count == 0 {
        return Ok(None);
    }
    if count < targets.len() {
        return Err(Failure::usage("tasks and jobs are asked for one after the other").hint("tasks: task:ID"));
    }
    Ok(Some(found.into_iter().flatten().collect()))
}

fn one(target: &str) -> Option<Named> {
    if let Some(id) = target.strip_prefix("task:") {
        return Some(Named {
            id: id.to_owned(),
            step: None,
        });
    }
    let (id, step) = target.strip_prefix("step:")?.split_once('/')?;
    Some(Named {
        id: id.to_owned(),
        step: Some(step.to_owned()),
    })
}

fn look_at(tasks: &[Named]) -> TaskLookArgs {
    TaskLookArgs {
        ids: tasks.iter().map(|task| task.id.clone()).collect(),
        root: TaskRoot::default(),
    }
}

/// `logs task:ID`.
pub async fn logs(ctx: &Context, args: &LogsArgs, tasks: &[Named]) -> Result<u8, Failure> {
    let other = args.lines.is_some() || args.since.is_some() || args.until.is_some() || args.grep.is_some();
    if other || args.run.is_some() || args.events {
        let failure = Failure::usage("of tasks only --follow and --stream are known");
        return Err(failure.hint("runs of a step:  gaffer task logs ID STEP --attempt N"));
    }
    if args.follow && tasks.len() > 1 {
        return Err(Failure::usage("one task at a time can be followed"));
    }
    for task in tasks {
        let args = TaskLogsArgs {
            id: task.id.clone(),
            step: task.step.clone(),
            follow: args.follow,
            attempt: None,
            stream: args.stream.clone(),
            root: TaskRoot::default(),
        };
        super::logs::logs(ctx, &args).await?;
    }
    Ok(0)
}

/// `why task:ID`.
pub async fn why(ctx: &Context, _args: &WhyArgs, tasks: &[Named]) -> Result<u8, Failure> {
    look::why(ctx, &look_at(tasks)).await
}

/// The tasks of `wait`: `task:ID`, or `task:ID=done`.
pub fn awaited(args: &WaitArgs) -> Result<Option<Vec<Named>>, Failure> {
    let is_task = |condition: &&String| condition.starts_with("task:");
    let plain = |condition: &String| condition.strip_suffix("=done").unwrap_or(condition).to_owned();
    let targets: Vec<String> = args.conditions.iter().map(plain).collect();
    if let Some(other) = targets.iter().filter(is_task).find(|target| target.contains('=')) {
        return Err(Failure::usage(format!(
            "`{other}`: a task is waited for until it is done"
        )));
    }
    named(&targets)
}

/// `wait task:ID`.
pub async fn until(ctx: &Context, args: &WaitArgs, tasks: &[Named]) -> Result<u8, Failure> {
    if args.any && tasks.len() > 1 {
        return Err(Failure::usage("--any is for jobs"));
    }
    wait(ctx, &look_at(tasks)).await
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
        let task = |id: &str, step: Option<&str>| Named {
            id: id.to_owned(),
            step: step.map(str::to_owned),
        };
        assert_eq!(
            names(&["task:n-1", "step:n-1/load"]),
            Some(vec![task("n-1", None), task("n-1", Some("load"))])
        );
        assert!(named(&["web".to_owned(), "task:n-1".to_owned()]).is_err());
    }
}
