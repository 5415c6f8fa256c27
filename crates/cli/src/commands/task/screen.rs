//! How a task looks: a line for it, and one for each step (ux.md 5).

use super::output::StepLine;
use crate::escape::escape;
use crate::failure::Failure;
use crate::out::Out;
use crate::paint::Role;
use crate::table::cut;
use crate::when;
use gaffer_api::types::task::{Task, TaskRun, TaskStep};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

/// The glyph of a task's or step's state.
pub fn sign(out: &Out, state: &str) -> String {
    out.glyph(state)
}

fn now() -> String {
    when::instant("0s").unwrap_or_default()
}

/// How long a run has lived, or lives.
pub fn lived(run: &TaskRun) -> String {
    let begun = run.started_at.as_ref().or(run.forked_at.as_ref());
    let end = run.ended_at.clone().unwrap_or_else(now);
    begun
        .and_then(|begun| when::between_ms(begun, &end))
        .map(when::duration)
        .unwrap_or_default()
}

/// `attempt 2 of 5`, from the second on.
fn attempt(step: &TaskStep) -> String {
    let runs = step.runs.len();
    match step.attempts {
        _ if runs < 2 => String::new(),
        Some(attempts) if attempts > 1 => format!("attempt {runs} of {attempts}"),
        _ => format!("run {runs}"),
    }
}

/// `exit 3`, `SIGKILL`: how a run ended that did not succeed.
pub fn end(run: &TaskRun) -> String {
    match (&run.reason, run.exit_code, &run.signal) {
        (reason, ..) if !reason.is_empty() => reason.clone(),
        (_, Some(code), _) if code != 0 => format!("exit {code}"),
        (_, _, Some(signal)) => signal.clone(),
        _ => String::new(),
    }
}

/// `rows=18230`; what is long is cut.
fn output_value(name: &str, value: &str) -> String {
    const SHOWN: usize = 40;
    let value: String = value.escape_debug().to_string();
    match value.chars().count() {
        count if count > SHOWN => format!("{name}={}…", value.chars().take(SHOWN - 1).collect::<String>()),
        _ => format!("{name}={value}"),
    }
}

/// `cpu 98%  1.2G` of a run that lives.
fn uses(run: &TaskRun) -> Vec<String> {
    let Some(usage) = run.usage.as_ref().filter(|_| run.ended_at.is_none()) else {
        return Vec::new();
    };
    let cpu = usage.cpu_percent.map(|share| format!("cpu {share:.0}%"));
    let memory = usage.memory_bytes.map(when::size);
    cpu.into_iter().chain(memory).collect()
}

/// State, time and details of a step.
fn facts(step: &TaskStep) -> (String, String) {
    let last = step.runs.last();
    let mut details = vec![attempt(step)];
    if !step.reason.is_empty() {
        details.push(step.reason.clone());
    } else if let Some(last) = last {
        details.push(end(last));
    }
    details.extend(last.map(uses).unwrap_or_default());
    details.extend(step.outputs.iter().map(|(name, value)| output_value(name, value)));
    details.retain(|detail| !detail.is_empty());
    (last.map(lived).unwrap_or_default(), details.join("  "))
}

fn width(task: &Task) -> usize {
    let names = task.steps.iter().map(|step| step.name.chars().count());
    names.max().unwrap_or(0).min(32)
}

/// Its line, and a line for each step.
pub fn lines(out: &Out, task: &Task) -> Vec<String> {
    let name_width = width(task);
    let end = task.ended_at.clone().unwrap_or_else(now);
    let age = task
        .launched_at
        .as_ref()
        .and_then(|at| when::between_ms(at, &end))
        .map(when::duration)
        .unwrap_or_default();
    let state = if task.paused {
        "paused"
    } else {
        task.state.as_str()
    };
    let mut said = vec![task.summary.clone(), task.reason.clone()];
    said.retain(|text| !text.is_empty() && *text != task.state);
    said.extend(task.disk_bytes.map(|bytes| format!("disk {}", when::size(bytes))));
    let mut all = vec![format!(
        "{}   {state}  {age}  {}",
        out.paint.role(Role::Key, &task.id),
        said.join("  ")
    )];
    for step in &task.steps {
        let (time, details) = facts(step);
        let name = format!("{:name_width$}", step.name);
        let name = out.paint.name(&step.name, &name);
        let text = format!(
            "{} {name}  {:<9} {time:>7}  {details}",
            sign(out, &step.state),
            step.state
        );
        all.push(text.trim_end().to_owned());
    }
    all
}

/// As it is for a file or a pipe; on a terminal nothing of it is obeyed, and every line ends.
fn shown(bytes: &[u8], terminal: bool) -> Cow<'_, [u8]> {
    if !terminal {
        return Cow::Borrowed(bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let text = escape(text.trim_end_matches(['\r', '\n']));
    Cow::Owned(format!("{text}\n").into_bytes())
}

/// Shows a task as it changes: redrawn on a terminal, a line for each change elsewhere.
pub struct Progress<'a> {
    out: &'a Out,
    redraw: bool,
    /// Lines of the last drawing.
    drawn: usize,
    /// What was told of each step.
    told: BTreeMap<String, (String, usize)>,
    state: String,
}

impl<'a> Progress<'a> {
    /// Of one task.
    pub fn new(out: &'a Out, plain: bool) -> Progress<'a> {
        Progress {
            out,
            redraw: out.terminal && !plain,
            drawn: 0,
            told: BTreeMap::new(),
            state: String::new(),
        }
    }

    /// Output of its steps, as it is; above what is redrawn. Standard output may have to hold a document.
    pub fn print(&mut self, lines: &[StepLine]) -> Result<(), Failure> {
        if !lines.is_empty() {
            self.clear()?;
        }
        for line in lines {
            let to_stdout = line.stream == "stdout" && self.out.is_text();
            let mut stderr = std::io::stderr();
            let bytes = match to_stdout {
                true => shown(&line.bytes, self.out.terminal),
                false => shown(&line.bytes, stderr.is_terminal()),
            };
            if to_stdout {
                self.out.bytes(&bytes)?;
                continue;
            }
            self.out.flush()?;
            let written = stderr.write_all(&bytes);
            written.map_err(|error| Failure::failed(format!("standard error cannot be written: {error}")))?;
        }
        self.out.flush()
    }

    /// Takes the last drawing away.
    fn clear(&mut self) -> Result<(), Failure> {
        if self.drawn > 0 {
            let up = format!("\x1b[{}A\r\x1b[J", self.drawn);
            self.out.bytes(up.as_bytes())?;
            self.drawn = 0;
        }
        Ok(())
    }

    /// The task is like this now.
    pub fn show(&mut self, task: &Task) -> Result<(), Failure> {
        if !self.out.is_text() {
            return Ok(());
        }
        match self.redraw {
            true => self.draw(task)?,
            false => self.tell(task)?,
        }
        self.out.flush()
    }

    fn draw(&mut self, task: &Task) -> Result<(), Failure> {
        let (rows, columns) = (self.out.height(), self.out.width().unwrap_or(80));
        let mut all = lines(self.out, task);
        // What does not fit cannot be drawn over: steps that are over give way first.
        all.truncate(rows.saturating_sub(1).max(1));
        self.clear()?;
        for line in &all {
            let line = if self.out.paint.is_on() {
                line.clone()
            } else {
                cut(line, columns)
            };
            self.out.line(&line)?;
        }
        self.drawn = all.len();
        Ok(())
    }

    fn tell(&mut self, task: &Task) -> Result<(), Failure> {
        let name_width = width(task);
        for step in &task.steps {
            let now = (step.state.clone(), step.runs.len());
            let known = self.told.insert(step.name.clone(), now.clone());
            let is_news = known.as_ref() != Some(&now) && !step.runs.is_empty();
            // A run that is only decided is no news; one that ended and is tried again is.
            let is_begun = step
                .runs
                .last()
                .is_some_and(|run| run.state != "waiting" && run.state != "starting");
            if !is_news || !is_begun {
                continue;
            }
            let (time, details) = facts(step);
            let line = format!(
                "{} {} {:name_width$}  {:<9} {time:>7}  {details}",
                when::clock_now(),
                sign(self.out, &step.state),
                step.name,
                step.state
            );
            self.out.line(line.trim_end())?;
        }
        if self.state != task.state {
            self.state.clone_from(&task.state);
            let line = format!(
                "{} {} {}  {}  {}",
                when::clock_now(),
                sign(self.out, &task.state),
                task.id,
                task.state,
                task.reason
            );
            self.out.line(line.trim_end())?;
        }
        Ok(())
    }
}
