//! A task as the machines see it: resolved, complete, and with a graph that can be walked.

use crate::job::{ExitClass, ExitMatch, Launch, Logs, Retry, Stop};
use crate::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A task, fully resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: Arc<str>,
    /// Steps in the order of their declaration, which is the order in which equals are begun.
    pub steps: Vec<Step>,
    /// Steps that fail for good before the task fails; none is unlimited.
    pub failures: Option<u32>,
    /// Steps at once; none is unlimited. Regular and final steps each have as many.
    pub concurrency: Option<u32>,
    /// One budget for clean-up and final steps.
    pub finalize_timeout: Duration,
    /// Longest life of the whole.
    pub timeout: Option<Duration>,
    /// Budget of a kill.
    pub stop_timeout: Duration,
    /// Runs of one step, whatever their end, before it is not run again; none is unlimited.
    pub runs_max: Option<u32>,
}

/// A step, fully resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its name.
    pub name: Arc<str>,
    /// How its runs are launched.
    pub launch: Arc<Launch>,
    /// What must hold before it runs, by index of the other step.
    pub after: Vec<(usize, When)>,
    /// Success does not finish it.
    pub restart_always: bool,
    /// Does not keep the task alive nor fail it.
    pub background: bool,
    /// Runs at the end, whatever the result.
    pub is_final: bool,
    /// Pace and number of attempts.
    pub retry: Retry,
    /// A run that is ended by a signal counts as failed attempt (native tasks), or is simply run again (thermos).
    pub signals_count: bool,
    /// Classes of ends.
    pub exit: ExitClass,
    /// How a run is asked to end.
    pub stop: Stop,
    /// Longest life of a run.
    pub timeout: Option<Duration>,
    /// Names that a run must give a value.
    pub outputs: Vec<Arc<str>>,
    /// Bounds of its output.
    pub logs: Logs,
    /// Whoever runs the task in the foreground shows its output.
    pub console: bool,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It succeeded.
    Done,
    /// It ended for good, or will never run.
    Ended,
    /// It failed for good.
    Failed,
}

impl Step {
    /// A step with the defaults of ux.md 2.5 and 2.7 around a launch.
    pub fn of(name: impl Into<Arc<str>>, launch: Launch) -> Step {
        let job = crate::job::Job::of(Launch::of(Vec::new()));
        Step {
            name: name.into(),
            launch: Arc::new(launch),
            after: Vec::new(),
            restart_always: false,
            background: false,
            is_final: false,
            retry: Retry {
                attempts: Some(1),
                delay: vec![Duration::from_secs(5)],
                factor: 2.0,
                increment: None,
                max_delay: Duration::from_secs(300),
                jitter: 0.2,
                reset_after: Duration::MAX,
            },
            signals_count: true,
            exit: ExitClass {
                ok: vec![ExitMatch::Code(0)],
                fatal: Vec::new(),
            },
            stop: job.stop,
            timeout: None,
            outputs: Vec::new(),
            logs: job.logs,
            console: false,
        }
    }
}

impl Task {
    /// A task with the defaults of ux.md 2.7.
    pub fn of(name: impl Into<Arc<str>>, steps: Vec<Step>) -> Task {
        Task {
            name: name.into(),
            steps,
            failures: Some(1),
            concurrency: None,
            finalize_timeout: Duration::from_secs(30),
            timeout: None,
            stop_timeout: Duration::from_secs(60),
            runs_max: None,
        }
    }

    /// Index of a step.
    pub fn step(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| &*step.name == name)
    }

    /// Says what makes the graph impossible; the first thing in the order of declaration.
    pub fn check(&self) -> Result<(), GraphError> {
        let mut known = BTreeMap::new();
        for (index, step) in self.steps.iter().enumerate() {
            if known.insert(step.name.clone(), index).is_some() {
                return Err(GraphError::Twice(step.name.clone()));
            }
        }
        for step in &self.steps {
            for (on, _) in &step.after {
                self.check_edge(step, *on)?;
            }
        }
        match self.cycle() {
            None => Ok(()),
            Some(cycle) => Err(GraphError::Cycle(cycle)),
        }
    }

    fn check_edge(&self, step: &Step, on: usize) -> Result<(), GraphError> {
        let Some(other) = self.steps.get(on) else {
            return Err(GraphError::Unknown(step.name.clone()));
        };
        let pair = (step.name.clone(), other.name.clone());
        if step.is_final != other.is_final {
            return Err(GraphError::Mixed(pair.0, pair.1));
        }
        if other.restart_always {
            return Err(GraphError::AfterEndless(pair.0, pair.1));
        }
        if other.background && !step.background {
            return Err(GraphError::AfterBackground(pair.0, pair.1));
        }
        Ok(())
    }

    /// Names along a cycle, first and last the same (Kahn's sort, then a walk through what is left).
    fn cycle(&self) -> Option<Vec<Arc<str>>> {
        let mut open: Vec<usize> = self.steps.iter().map(|step| step.after.len()).collect();
        let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); self.steps.len()];
        for (index, step) in self.steps.iter().enumerate() {
            for (on, _) in &step.after {
                dependents[*on].push(index);
            }
        }
        let mut free: Vec<usize> = (0..open.len()).filter(|index| open[*index] == 0).collect();
        while let Some(index) = free.pop() {
            for dependent in &dependents[index] {
                open[*dependent] -= 1;
                if open[*dependent] == 0 {
                    free.push(*dependent);
                }
            }
        }
        let mut at = open.iter().position(|count| *count > 0)?;
        // Everything that is left has a predecessor that is left: going back must come round.
        let mut path = vec![at];
        loop {
            let before = self.steps[at].after.iter().map(|(on, _)| *on);
            at = before.into_iter().find(|on| open[*on] > 0)?;
            if let Some(start) = path.iter().position(|seen| *seen == at) {
                path.drain(..start);
                path.push(at);
                path.reverse();
                return Some(
                    path.into_iter()
                        .map(|index| self.steps[index].name.clone())
                        .collect(),
                );
            }
            path.push(at);
        }
    }
}

/// A graph that cannot be walked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two steps of one name.
    #[error("two steps are called `{0}`")]
    Twice(Arc<str>),
    /// Waits for something that is not there.
    #[error("step `{0}` waits for a step that does not exist")]
    Unknown(Arc<str>),
    /// Regular and final.
    #[error("step `{0}` cannot wait for `{1}`: one of them is final and the other is not")]
    Mixed(Arc<str>, Arc<str>),
    /// Waits for what never ends.
    #[error("step `{0}` cannot wait for `{1}`, which is run again whenever it ends")]
    AfterEndless(Arc<str>, Arc<str>),
    /// Waits for what does not count.
    #[error("step `{0}` cannot wait for `{1}`, which runs in the background and does not count")]
    AfterBackground(Arc<str>, Arc<str>),
    /// Round and round.
    #[error("steps wait for each other: {}", path(.0))]
    Cycle(Vec<Arc<str>>),
}

fn path(names: &[Arc<str>]) -> String {
    names.join(" → ")
}
