//! The promise under load: the daemon, and if asked for shims and guards, are killed at random moments while jobs write,
//! end, start, stop and scale.
//!
//! Afterwards everything is compared with what the programs themselves counted: no line is missing, doubled or out of
//! order, no run was ever beside another in its place, and every end has one record with its status. A run whose shim is
//! killed is ended and may be `unknown`, but its lines are all there. Only where the guard was killed as well nobody held
//! its pipes: then what was still in them is gone, and nothing else.

use crate::process::Process;
use crate::{Node, wait_until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const SESSION: &str = "chaos";
/// Deaths of a job that history keeps.
const KEPT: usize = 200;
/// Exit code of jobs that end by themselves.
const CODE: u64 = 3;

/// When it is enough.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// So many kills.
    Kills(u32),
    /// So much time.
    Elapsed(Duration),
}

/// Who is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Victims {
    /// The daemon.
    #[default]
    Daemon,
    /// The daemon, a shim, or both; never a guard.
    Shims,
    /// Daemon, shim, guard, or several of them.
    All,
}

impl fmt::Display for Victims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Victims::Daemon => "the daemon",
            Victims::Shims => "the daemon, a shim or both",
            Victims::All => "the daemon, a shim, a guard or several",
        })
    }
}

impl std::str::FromStr for Victims {
    type Err = String;

    fn from_str(word: &str) -> Result<Victims, String> {
        match word {
            "daemon" => Ok(Victims::Daemon),
            "shims" => Ok(Victims::Shims),
            "all" => Ok(Victims::All),
            other => Err(format!("`{other}` is none of: daemon shims all")),
        }
    }
}

/// How much of it.
#[derive(Clone, Debug)]
pub struct Load {
    /// Who is killed.
    pub victims: Victims,
    /// Jobs that write.
    pub jobs: u32,
    /// When it is enough.
    pub until: Until,
    /// The same seed makes the same choices (not the same schedule).
    pub seed: u64,
    /// Programs; none: those beside the test.
    pub bin_dir: Option<PathBuf>,
}

/// What was survived.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rounds, each with one SIGKILL or several at once.
    pub kills: u32,
    /// Runs.
    pub runs: usize,
    /// Lines.
    pub lines: u64,
    /// Death records that were compared.
    pub deaths: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            kills,
            runs,
            lines,
            deaths,
        } = self;
        write!(
            f,
            "{kills} kills survived: {runs} runs, {lines} lines, each once and in order; {deaths} ends on record"
        )
    }
}

/// Xorshift: chance that can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// Does it, and checks.
///
/// # Panics
/// When anything was lost or doubled; the message says what.
pub fn survive(load: &Load) -> Report {
    let mut chance = Chance(load.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut builder = Node::builder();
    if let Some(dir) = &load.bin_dir {
        builder = builder.bin_dir(dir);
    }
    let mut node = builder.start();
    let tallies = node.root().join("tallies");
    std::fs::create_dir(&tallies).expect("a directory for tallies");
    for number in 0..load.jobs {
        let spec = spec(&node, &tallies, number);
        node.put_job(SESSION, &name(number), &spec);
    }
    wait_until(PATIENCE, "the first runs", || {
        node.job_processes().len() >= load.jobs as usize / 2
    });
    let begun = Instant::now();
    let mut report = Report::default();
    let enough = |kills: u32| match load.until {
        Until::Kills(number) => kills >= number,
        Until::Elapsed(time) => begun.elapsed() >= time,
    };
    while !enough(report.kills) {
        disturb(&mut node, &mut chance, load.jobs);
        pass(chance.below(60));
        strike(&mut node, &mut chance, load.victims);
        report.kills += 1;
        // Some end while nobody is there.
        pass(chance.below(80));
        if node.daemon_pid().is_none() {
            node.start_again();
        }
        assert_single(&node);
    }
    end(&mut node, load.jobs);
    check(&mut node, &tallies, load, &mut report);
    report
}

/// Kills somebody.
fn strike(node: &mut Node, chance: &mut Chance, victims: Victims) {
    let (daemon, shim, guard) = match (victims, chance.below(8)) {
        (Victims::Daemon, _) | (_, 0 | 1) => (true, false, false),
        (Victims::Shims, 2..=4) | (_, 2 | 3) => (false, true, false),
        (Victims::Shims, _) | (_, 4) => (true, true, false),
        (_, 5) => (false, false, true),
        (_, 6) => (false, true, true),
        (_, _) => (true, true, true),
    };
    let info = node.get("/v1/node");
    let shims = info["shims"].as_array().cloned().unwrap_or_default();
    let one = usize::try_from(chance.below(shims.len() as u64)).ok();
    let one = one.and_then(|place| shims.get(place));
    let process = |key: &str| Process::read(u32::try_from(one?[key].as_u64()?).ok()?);
    let hit = [(shim, "pid"), (guard, "guard_pid")];
    let hit: Vec<Process> = hit
        .iter()
        .filter(|(wanted, _)| *wanted)
        .filter_map(|(_, key)| process(key))
        .collect();
    if daemon {
        node.kill9();
    }
    hit.iter().for_each(crate::process::kill);
}

/// Lets time pass: chaos is not a test that waits for something.
fn pass(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn name(number: u32) -> String {
    format!("w{number}")
}

fn is_endless(number: u32) -> bool {
    number % 10 < 7
}

fn spec(node: &Node, tallies: &Path, number: u32) -> Value {
    let tally = tallies.to_string_lossy();
    let mut cmd = vec![
        node.fixture(),
        "lines".into(),
        "--tally".into(),
        tally.into_owned(),
    ];
    cmd.extend(["--every-us".into(), "10000".into()]);
    if !is_endless(number) {
        cmd.extend(["--count".into(), "150".into(), "--exit".into(), CODE.to_string()]);
    }
    // Every tenth is not started again when it ends.
    let restart = if number % 10 == 9 { "never" } else { "always" };
    let retry = json!({"delay": "50ms", "factor": 1, "jitter": 0});
    json!({"cmd": cmd, "restart": restart, "retry": retry, "stop": {"timeout": "10s"}})
}

/// A few requests; of the last one the answer is not waited for, so that the kill meets it anywhere.
fn disturb(node: &mut Node, chance: &mut Chance, jobs: u32) {
    for _ in 0..chance.below(6) {
        let (path, body) = request(chance, jobs);
        // Refused or not (scaling what was stopped meanwhile…): only what is lost counts.
        let _answer = node.try_http("POST", &path, &body);
    }
    let (path, body) = request(chance, jobs);
    if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(node.socket()) {
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        let _sent = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
    }
}

fn request(chance: &mut Chance, jobs: u32) -> (String, Value) {
    let job = name(u32::try_from(chance.below(u64::from(jobs))).unwrap_or(0));
    let (verb, body) = match chance.below(5) {
        0 => ("stop", json!({})),
        1 | 2 => ("start", json!({})),
        3 => ("restart", json!({})),
        _ => ("scale", json!({"to": format!("={}", 1 + chance.below(3))})),
    };
    (format!("/v1/jobs/{SESSION}/{job}/{verb}"), body)
}

/// No place has two live runs.
fn assert_single(node: &Node) {
    let mut places: BTreeMap<(String, String), Vec<Process>> = BTreeMap::new();
    for process in node.job_processes() {
        if let (Some(job), Some(instance)) = (process.env("GAFFER_JOB"), process.env("INSTANCE")) {
            places.entry((job, instance)).or_default().push(process);
        }
    }
    for (place, processes) in places.into_iter().filter(|(_, processes)| processes.len() > 1) {
        // One may have ended and the next have begun while we looked: only those count that still live together.
        let alive = |seen: &&Process| {
            Process::read(seen.pid).is_some_and(|now| !now.is_zombie() && now.start_ticks == seen.start_ticks)
        };
        let together: Vec<&Process> = processes.iter().filter(alive).collect();
        assert!(
            together.len() < 2,
            "two runs of {place:?}: {together:#?}\n{}",
            node.log()
        );
    }
}

fn end(node: &mut Node, jobs: u32) {
    for number in 0..jobs {
        let (status, answer) = node.http(
            "POST",
            &format!("/v1/jobs/{SESSION}/{}/stop", name(number)),
            Some(&json!({})),
        );
        assert!(status < 300, "stop {}: {status} {answer}", name(number));
    }
    wait_until(PATIENCE, "all have stopped", || node.job_processes().is_empty());
}

fn check(node: &mut Node, tallies: &Path, load: &Load, report: &mut Report) {
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for entry in std::fs::read_dir(tallies).expect("the tallies").flatten() {
        let bytes = std::fs::read(entry.path()).expect("a tally");
        let count = bytes.try_into().map(u64::from_ne_bytes).unwrap_or(0);
        counted.insert(entry.file_name().to_string_lossy().into_owned(), count);
    }
    report.runs = counted.len();
    let mut seen = BTreeSet::new();
    for number in 0..load.jobs {
        let job = name(number);
        let mut of_job = BTreeMap::new();
        for instance in 1..=3 {
            let bytes = node.logged(SESSION, &job, instance, "stdout");
            let text = String::from_utf8(bytes).expect("lines of text");
            let text = match load.victims {
                Victims::All => without_torn_lines(&text),
                _ => text,
            };
            assert!(
                text.is_empty() || text.ends_with('\n'),
                "{job}.{instance}: the last line is torn"
            );
            for (run, lines) in runs_of(&text, &job) {
                assert!(
                    seen.insert(run.clone()),
                    "{job}.{instance}: run {run} is there twice"
                );
                of_job.insert(run, lines);
            }
        }
        for (run, lines) in &of_job {
            let counted = counted
                .get(run)
                .copied()
                .unwrap_or_else(|| panic!("{job}: run {run} has no tally"));
            // Killed between a write and its count: one more line than was counted.
            assert!(
                *lines == counted
                    || *lines == counted + 1
                    || (load.victims == Victims::All && *lines < counted),
                "{job}, run {run}: wrote {counted}, {lines} in the logs"
            );
            report.lines += lines;
        }
        report.deaths += check_deaths(node, number, load.victims, &of_job);
    }
    let lost: Vec<_> = counted
        .iter()
        .filter(|(run, count)| **count > 0 && !seen.contains(*run))
        .collect();
    assert!(
        lost.is_empty() || load.victims == Victims::All,
        "runs that wrote lines of which none is in the logs: {lost:?}"
    );
}

/// Leaves out lines that were torn because the pipe died with both who held it; the next run's first line may follow at
/// once.
fn without_torn_lines(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        // No id and no number has the sign in it: what is before the last one is torn, and what follows is not.
        match line.rfind('@') {
            Some(from) => whole.push_str(&line[from..]),
            None => whole.push_str(line),
        }
    }
    whole
}

/// Runs in the order of a stream, with the number of their lines. Each is in one piece, numbered from 0.
fn runs_of(text: &str, job: &str) -> Vec<(String, u64)> {
    let mut runs: Vec<(String, u64)> = Vec::new();
    let mut before = ["", ""];
    for line in text.lines() {
        let (run, number) = line
            .strip_prefix('@')
            .and_then(|line| line.split_once(' '))
            .unwrap_or_else(|| panic!("{job}: a line that nobody wrote: {line:?}"));
        let number: u64 = number
            .parse()
            .unwrap_or_else(|_| panic!("{job}: a torn line: {line:?}"));
        match runs.last_mut().filter(|(last, _)| last == run) {
            Some((_, next)) => {
                assert_eq!(
                    number, *next,
                    "{job}, run {run}: a line is missing, doubled or out of order"
                );
                *next += 1;
            }
            None => {
                assert_eq!(
                    number, 0,
                    "{job}, run {run}: its first lines are missing, or others are between them; before: {before:?}"
                );
                runs.push((run.to_owned(), 1));
            }
        }
        before = [before[1], line];
    }
    runs
}

/// Every run of a job has one record of its end, with a status that it can have had. Older ones than the history
/// keeps are left out.
fn check_deaths(node: &mut Node, number: u32, victims: Victims, runs: &BTreeMap<String, u64>) -> usize {
    let job = name(number);
    let path = format!("/v1/jobs/{SESSION}/{job}/deaths?limit=1000");
    let mut deaths: Vec<Value> = Vec::new();
    wait_until(PATIENCE, "all ends are settled", || {
        deaths = node.get(&path).as_array().cloned().unwrap_or_default();
        deaths.len() >= runs.len().min(KEPT)
    });
    let mut of_run: BTreeMap<&str, &Value> = BTreeMap::new();
    for death in &deaths {
        let run = death["run"].as_str().unwrap_or_default().trim_start_matches('@');
        assert!(
            of_run.insert(run, death).is_none(),
            "{job}: two records of run {run}"
        );
    }
    // Runs without a line have a record too, and history keeps the newest: what is older than the oldest of a full one is
    // not missed. The text of ids is in their order.
    let oldest = of_run.keys().next().filter(|_| deaths.len() >= KEPT).copied();
    for run in runs
        .keys()
        .filter(|run| oldest.is_none_or(|oldest| run.as_str() >= oldest))
    {
        let Some(death) = of_run.get(run.as_str()) else {
            panic!("{job}: no record of the end of run {run}: {deaths:#?}")
        };
        let by_signal = death["signal"].is_string();
        let by_itself = !is_endless(number) && death["exit_code"] == json!(CODE);
        // Whatever ended it (a kill, a restart that was asked for): nobody saw the status, and none was invented.
        let unseen = death["exit_code"].is_null() && death["signal"].is_null();
        assert!(
            by_signal || by_itself || (unseen && victims != Victims::Daemon),
            "{job}, run {run}: an end that it cannot have had: {death:#}"
        );
    }
    deaths.len()
}

#[cfg(test)]
mod tests {
    use super::{runs_of, without_torn_lines};

    #[test]
    fn torn_lines_are_left_out_and_what_follows_them_is_not() {
        // The torn number and the id after it look like an id themselves.
        let torn = "@1111 00000000\n@1111 00000012@122ab 00000000\n@122ab 00000001\n@122ab 0000";
        let whole = "@1111 00000000\n@122ab 00000000\n@122ab 00000001\n";
        assert_eq!(without_torn_lines(torn), whole);
        assert_eq!(without_torn_lines(whole), whole);
    }

    #[test]
    fn runs_are_told_apart_and_their_lines_counted() {
        let runs = runs_of("@1.1 00000000\n@1.1 00000001\n@1.2 00000000\n", "w0");
        assert_eq!(runs, [("1.1".to_owned(), 2), ("1.2".to_owned(), 1)]);
    }

    #[test]
    fn a_missing_a_doubled_and_a_torn_line_are_noticed() {
        let wrong = [
            "@1.1 00000000\n@1.1 00000002\n",
            "@1.1 00000000\n@1.1 00000000\n",
            "@1.1 00000001\n",
            "@1.1 00000000\n@1.1 0000\u{0}001\n",
            "00000000\n",
            "1.1 00000000\n",
        ];
        for text in wrong {
            assert!(
                std::panic::catch_unwind(|| runs_of(text, "w0")).is_err(),
                "{text:?}"
            );
        }
    }
}
