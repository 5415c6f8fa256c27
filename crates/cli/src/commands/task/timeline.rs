//! Runs of a task over time (ux.md 5): one line for each step, as wide as the terminal allows.

use super::screen;
use crate::out::Out;
use crate::paint::Role;
use crate::when;
use gaffer_api::types::task::{Task, TaskRun, TaskStep};

/// Where nothing says how wide a line may be, and the widest that is of use.
const WIDTH: usize = 100;
/// Room for how a step ended and how long it took.
const RIGHT: usize = 43;
/// Ticks of the scale, in milliseconds.
const TICKS: &[u64] = &[
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    7_200_000,
    21_600_000,
    43_200_000,
    86_400_000,
    604_800_000,
];

/// What a line is drawn with.
struct Pen {
    run: char,
    pause: char,
}

/// From when to when, on how many columns.
struct Scale {
    from: String,
    total: u64,
    columns: usize,
}

impl Scale {
    /// Column of a time; the last one for what is later.
    fn column(&self, at: &str) -> usize {
        let ms = when::between_ms(&self.from, at).unwrap_or(0);
        let column = u128::from(ms) * self.columns as u128 / u128::from(self.total.max(1));
        usize::try_from(column)
            .unwrap_or(usize::MAX)
            .min(self.columns.saturating_sub(1))
    }

    /// The line of times above.
    fn ticks(&self) -> String {
        let room = (self.columns / 10).max(1) as u64;
        let last = TICKS.last().copied().unwrap_or(1);
        let tick = TICKS
            .iter()
            .copied()
            .find(|tick| self.total / tick <= room)
            .unwrap_or(last);
        let mut line = String::new();
        let mut at = 0;
        while at <= self.total {
            let column =
                usize::try_from(u128::from(at) * self.columns as u128 / u128::from(self.total.max(1)));
            let (column, text) = (column.unwrap_or(0), when::duration(at));
            let free = line.chars().count();
            if column + text.chars().count() > self.columns || (free > 0 && column <= free) {
                break;
            }
            line.push_str(&" ".repeat(column - free));
            line.push_str(&text);
            at += tick;
        }
        line
    }
}

/// Its line, the scale, and a line for each step.
pub fn lines(out: &Out, task: &Task) -> Vec<String> {
    let now = when::instant("0s").unwrap_or_default();
    let from = task.launched_at.clone().unwrap_or_else(|| now.clone());
    let end = task.ended_at.clone().unwrap_or_else(|| now.clone());
    let total = when::between_ms(&from, &end).unwrap_or(0).max(1);
    let names = task.steps.iter().map(|step| step.name.chars().count()).max();
    let names = names.unwrap_or(0).clamp(4, 24);
    let width = out.width().unwrap_or(WIDTH).clamp(60, 140);
    let scale = Scale {
        columns: width.saturating_sub(names + RIGHT + 4).max(16),
        from: from.clone(),
        total,
    };
    let pen = match crate::paint::is_utf8() {
        true => Pen {
            run: '━', pause: '╌'
        },
        false => Pen { run: '=', pause: '.' },
    };
    let verb = if task.ended_at.is_some() { "in" } else { "for" };
    let mut all = vec![
        format!(
            "{}     {} {verb} {}     {} → {}",
            out.paint.role(Role::Key, &task.id),
            task.state,
            when::duration(total),
            when::clock(&from),
            when::clock(&end)
        ),
        format!("{:names$}  {}", "", out.dim(scale.ticks().trim_end())),
    ];
    for step in &task.steps {
        let name: String = step.name.chars().take(names).collect();
        let name = out.paint.name(&step.name, &format!("{name:names$}"));
        let (bar, used) = bar(out, &pen, &scale, step, &now);
        let gap = " ".repeat(scale.columns.saturating_sub(used));
        all.push(
            format!("{name}  {bar}{gap}  {}", right(step))
                .trim_end()
                .to_owned(),
        );
    }
    all
}

/// The runs of a step, and how many columns that takes.
fn bar(out: &Out, pen: &Pen, scale: &Scale, step: &TaskStep, now: &str) -> (String, usize) {
    let mut bar = String::new();
    let mut used = 0;
    for (at, run) in step.runs.iter().enumerate() {
        let Some(begun) = run
            .started_at
            .as_ref()
            .or(run.forked_at.as_ref())
            .or(run.ended_at.as_ref())
        else {
            continue;
        };
        let first = scale.column(begun);
        if first < used {
            // Several runs in one column: the last one counts.
            continue;
        }
        let filler = if at == 0 || used == 0 { ' ' } else { pen.pause };
        bar.extend(std::iter::repeat_n(filler, first - used));
        bar.push_str(&screen::sign(out, &run.state));
        let last = scale.column(run.ended_at.as_deref().unwrap_or(now));
        bar.extend(std::iter::repeat_n(pen.run, last.saturating_sub(first)));
        used = last.max(first) + 1;
    }
    (bar, used)
}

/// `exit 1, then success   41.2s`.
fn right(step: &TaskStep) -> String {
    let Some(last) = step.runs.last() else {
        return match step.reason.is_empty() {
            true => step.state.clone(),
            false => step.reason.clone(),
        };
    };
    let word = match (step.is_final, step.state.as_str()) {
        (true, "success") => "final",
        (_, state) => state,
    };
    let before = step.runs.len().checked_sub(2).and_then(|at| step.runs.get(at));
    let before = before.map(short).filter(|text| !text.is_empty());
    let said = match before {
        Some(before) => format!("{before}, then {word}"),
        None => match short(last) {
            end if end.is_empty() => word.to_owned(),
            end => end,
        },
    };
    let room = RIGHT - 17;
    let said: String = said.chars().take(room).collect();
    let peak = last.usage.as_ref().and_then(|usage| usage.memory_peak_bytes);
    let peak = peak.map(|peak| format!("  {:>5}", crate::when::size(peak)));
    format!(
        "{said:room$} {:>8}{}",
        screen::lived(last),
        peak.unwrap_or_default()
    )
}

/// `exit 1`, `SIGKILL`, or nothing.
fn short(run: &TaskRun) -> String {
    match (run.state.as_str(), run.exit_code, &run.signal) {
        ("success", ..) => String::new(),
        (_, Some(code), _) => format!("exit {code}"),
        (_, _, Some(signal)) => signal.clone(),
        (state @ ("failed" | "lost" | "killed"), ..) => state.to_owned(),
        _ => String::new(),
    }
}
