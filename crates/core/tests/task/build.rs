//! Tasks in few words: `"a", "b after a", "e bg", "d daemon max=2 gap=10", "f final"`.

use gaffer_core::job::Launch;
use gaffer_core::task::spec::{Step, Task, When};
use gaffer_core::time::Duration;

/// A task of thermos steps, whose defaults are: one failure, 5 s between runs, signals do not count.
pub fn task(lines: &[&str]) -> Task {
    let names: Vec<&str> = lines
        .iter()
        .map(|line| line.split(' ').next().expect("a name"))
        .collect();
    let index = |name: &str| names.iter().position(|known| *known == name).expect("a step");
    let steps = lines.iter().map(|line| {
        let mut words = line.split(' ');
        let mut step = thermos_step(words.next().expect("a name"));
        while let Some(word) = words.next() {
            match word.split_once('=').unwrap_or((word, "")) {
                ("after", _) => {
                    let names = words.next().expect("names");
                    step.after
                        .extend(names.split(',').map(|name| match name.split_once(':') {
                            None => (index(name), When::Done),
                            Some((name, "failed")) => (index(name), When::Failed),
                            Some((name, _)) => (index(name), When::Ended),
                        }));
                }
                ("bg", _) => step.background = true,
                ("daemon", _) => step.restart_always = true,
                ("final", _) => step.is_final = true,
                ("max", "0") => step.retry.attempts = None,
                ("max", count) => step.retry.attempts = Some(count.parse().expect("a count")),
                ("gap", seconds) => {
                    step.retry.delay = vec![Duration::from_secs(seconds.parse().expect("seconds"))]
                }
                ("timeout", seconds) => {
                    step.timeout = Some(Duration::from_secs(seconds.parse().expect("seconds")))
                }
                ("signals", _) => step.signals_count = true,
                (other, _) => panic!("`{other}` says nothing"),
            }
        }
        step
    });
    let mut task = Task::of("t", steps.collect());
    task.finalize_timeout = Duration::from_secs(30);
    task
}

fn thermos_step(name: &str) -> Step {
    let mut step = Step::of(name, Launch::of(vec!["true".into()]));
    step.retry.delay = vec![Duration::from_secs(5)];
    step.retry.factor = 1.0;
    step.retry.jitter = 0.0;
    step.signals_count = false;
    step.stop.timeout = Duration::MAX;
    step
}
