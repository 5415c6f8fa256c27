//! Jobs, processes and statistics as the old APIs show them.

use crate::legacy::error::{LegacyError, Result};
use crate::legacy::{names, template};
use gaffer::Handle;
use gaffer::info::{JobInfo, ProcessStats, RunStats};
use gaffer_core::io::State;
use gaffer_core::job::{EnvInherit, Launch};
use gaffer_core::name::{JobId, Place, RunId, Slot};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A process that the old APIs may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Small number.
    pub pid: u64,
    /// Its run.
    pub run: RunId,
    /// OS pid.
    pub os_pid: u32,
    /// Its place.
    pub slot: Slot,
    /// Unix milliseconds.
    pub started: i64,
}

impl Process {
    /// Launched by a commit, and not kept alive?
    pub fn commited(&self) -> bool {
        matches!(self.slot.place, Place::OneOff(_))
    }
}

/// A job that is there. One that was unloaded is not, whatever still runs of it.
pub fn job(handle: &Handle, job: &JobId) -> Result<JobInfo> {
    let found = handle.job(job).filter(|info| !info.removed);
    found.ok_or_else(|| LegacyError::not_found(format!("no job {job}")))
}

/// All jobs, in the order in which they were loaded (those of files first, by name).
pub fn jobs(handle: &Handle, session: Option<&str>) -> Vec<JobInfo> {
    let mut jobs = handle.jobs(session);
    jobs.retain(|info| !info.removed);
    jobs.sort_by_cached_key(|info| template::kept(&info.spec).map_or(0, |kept| kept.created));
    jobs
}

/// All sessions, in the order in which their first job was loaded.
pub fn sessions(handle: &Handle) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let all = jobs(handle, None)
        .into_iter()
        .map(|info| info.view.job.session.to_string());
    all.filter(|session| seen.insert(session.clone())).collect()
}

/// The kept-alive processes of a job, oldest first, and its commits. Those that are being stopped are not among them.
pub fn processes(handle: &Handle, info: &JobInfo) -> (Vec<Process>, Vec<Process>) {
    let seen = info
        .view
        .instances
        .iter()
        .filter(|one| !matches!(one.state, State::Stopping | State::StopStuck));
    let mut all: Vec<Process> = seen
        .filter_map(|one| {
            let run = one.run?;
            Some(Process {
                pid: handle.pid_of(run),
                run,
                os_pid: one.pid?,
                slot: one.slot.clone(),
                started: one.started.map_or(0, |at| at.0),
            })
        })
        .collect();
    all.sort_by_key(|process| process.pid);
    all.into_iter().partition(|process| !process.commited())
}

/// A process by its number, with its job.
pub fn process(handle: &Handle, pid: u64) -> Result<(JobInfo, Process)> {
    let none = || LegacyError::not_found(format!("no process {pid}"));
    let (run, slot) = handle.run_of_pid(pid).ok_or_else(none)?;
    let info = job(handle, &slot.job).map_err(|_| none())?;
    let (kept, out) = processes(handle, &info);
    let found = kept.into_iter().chain(out).find(|process| process.run == run);
    Ok((info, found.ok_or_else(none)?))
}

/// Numbers of processes.
pub fn pids(processes: &[Process]) -> Vec<u64> {
    processes.iter().map(|process| process.pid).collect()
}

/// All live numbers.
pub fn all_pids(handle: &Handle) -> Vec<u64> {
    let mut all = Vec::new();
    for info in jobs(handle, None) {
        let (kept, out) = processes(handle, &info);
        all.extend(pids(&kept));
        all.extend(pids(&out));
    }
    all.sort_unstable();
    all
}

/// Job info of 0.5.
pub async fn job_info(handle: &Handle, info: &JobInfo) -> Value {
    let (kept, out) = processes(handle, info);
    let running = kept.len() + out.len();
    let mut numbers = pids(&kept);
    numbers.extend(pids(&out));
    json!({
        "name": info.view.job.to_string(),
        "active": running > 0,
        "running": running,
        "running_out": out.len(),
        "max_processes": info.view.target,
        "processes": numbers,
        "config": template::of(handle, info).await,
    })
}

/// Process info of 0.5.
pub async fn process_info(handle: &Handle, info: &JobInfo, process: &Process) -> Value {
    let template = template::of(handle, info).await;
    let native = template::kept(&info.spec).is_none();
    let environ = environ(process.os_pid).unwrap_or_default();
    let argv = argv(info, &environ);
    let shown: BTreeMap<&String, String> = environ
        .iter()
        .map(|(name, value)| (name, shown_value(&template, native, name, value)))
        .collect();
    let member = |key: &str| template.get(key).cloned().unwrap_or(Value::Null);
    let labels: Vec<String> = template::labels(&template)
        .into_iter()
        .map(|(label, _)| label)
        .collect();
    json!({
        "pid": process.pid,
        "name": info.view.job.to_string(),
        "cmd": argv.first(),
        "args": argv.get(1..).unwrap_or_default(),
        "env": shown,
        "uid": member("uid"),
        "gid": member("gid"),
        "os_pid": process.os_pid,
        "create_time": process.started as f64 / 1000.0,
        "commited": process.commited(),
        "redirect_output": labels,
        "redirect_input": info.spec.launch.stdin == gaffer_core::job::Stdin::Pipe,
        "custom_streams": info.spec.launch.streams,
        "active": true,
    })
}

/// The client that loaded a job gave its variables. Those of other jobs may come from files of secrets: only what the
/// definition itself says, and what is no secret, is shown.
fn shown_value(template: &Map<String, Value>, native: bool, name: &str, value: &str) -> String {
    const PLAIN: &[&str] = &[
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TERM", "INSTANCE", "PORT",
    ];
    let said = template
        .get("env")
        .and_then(Value::as_object)
        .is_some_and(|env| env.contains_key(name));
    let open =
        !native || said || PLAIN.contains(&name) || name.starts_with("GAFFER_") || name.starts_with("LC_");
    if open { value.to_owned() } else { "***".to_owned() }
}

/// The environment that a process was started with, as the kernel keeps it.
fn environ(os_pid: u32) -> Option<BTreeMap<String, String>> {
    let bytes = std::fs::read(format!("/proc/{os_pid}/environ")).ok()?;
    let pairs = bytes.split(|byte| *byte == 0).filter_map(|pair| {
        let pair = String::from_utf8_lossy(pair);
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    Some(pairs.collect())
}

/// Program and arguments after substitution, with the environment that the process was started with.
fn argv(info: &JobInfo, environ: &BTreeMap<String, String>) -> Vec<String> {
    let mut spec = (*info.spec).clone();
    spec.launch = Arc::new(Launch {
        env_inherit: EnvInherit::None,
        env: vec![
            environ
                .iter()
                .map(|(name, value)| (name.clone(), gaffer_config::escape_templates(value)))
                .collect(),
        ],
        ..(*info.spec.launch).clone()
    });
    match template::expand(&spec, &info.view.job, &BTreeMap::new()) {
        Ok(expanded) => expanded.argv,
        Err(_) => info.spec.launch.cmd.clone(),
    }
}

/// Statistics of one process, in 0.5's members, with `pid` and `os_pid`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Small number.
    pub pid: u64,
    /// OS pid.
    pub os_pid: u32,
    /// Percent of a core; none: it may not be read.
    pub cpu: Option<f64>,
    /// Percent of all memory.
    pub mem: Option<f64>,
    /// Members of the table in 3.5.
    pub fields: Map<String, Value>,
    /// Processes that it has started, and theirs.
    pub children: Vec<Sample>,
}

/// Samples a live process.
pub async fn sample(handle: &Handle, process: &Process) -> Result<Sample> {
    let stats = handle.run_stats(process.run).await?;
    Ok(sample_of(process, &stats))
}

fn sample_of(process: &Process, stats: &RunStats) -> Sample {
    let main = stats.processes.iter().find(|one| one.pid == process.os_pid);
    let cpu = main.map(|_| round(stats.cpu_percent.unwrap_or(0.0)));
    let mut sample = measured(process.pid, process.os_pid, main, cpu);
    sample.children = children(process.os_pid, &stats.processes, CHILDREN_DEPTH);
    sample
}

/// Children of children that are shown.
const CHILDREN_DEPTH: u8 = 16;

/// What a process has started and what that has; shares of a core are measured of the whole only.
fn children(parent: u32, all: &[ProcessStats], depth: u8) -> Vec<Sample> {
    if depth == 0 {
        return Vec::new();
    }
    let own = all.iter().filter(|one| one.parent == parent && one.pid != parent);
    own.map(|one| Sample {
        children: children(one.pid, all, depth - 1),
        ..measured(0, one.pid, Some(one), None)
    })
    .collect()
}

fn measured(pid: u64, os_pid: u32, main: Option<&ProcessStats>, cpu: Option<f64>) -> Sample {
    let total = memory_total();
    let mem = main
        .zip(total)
        .map(|(main, total)| round(main.memory_bytes as f64 * 100.0 / total as f64));
    let or_none = |value: Option<f64>| value.map_or_else(|| json!("N/A"), |value| json!(value));
    let size = |bytes: Option<u64>| json!(bytes.map_or_else(|| "N/A".to_owned(), human));
    let time = main.map_or_else(|| "N/A".to_owned(), |main| clock(main.cpu.as_millis()));
    let fields = json!({
        "mem_info1": size(main.map(|main| main.memory_bytes)),
        "mem_info2": size(main.and_then(|main| virtual_size(main.pid))),
        "cpu": or_none(cpu),
        "mem": or_none(mem),
        "ctime": time,
        "pid": pid,
        "os_pid": os_pid,
    });
    Sample {
        pid,
        os_pid,
        cpu,
        mem,
        fields: fields.as_object().cloned().unwrap_or_default(),
        children: Vec::new(),
    }
}

fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// `8M`, `512B`: steps of 1024, cut.
fn human(bytes: u64) -> String {
    let (mut number, mut unit) = (bytes, 0);
    while number >= 1024 && unit + 1 < UNITS.len() {
        number /= 1024;
        unit += 1;
    }
    format!("{number}{}", UNITS[unit])
}

const UNITS: [&str; 6] = ["B", "K", "M", "G", "T", "P"];

/// `M:SS.hh`; minutes go on beyond 59.
fn clock(millis: u128) -> String {
    let hundredths = millis / 10;
    let (minutes, rest) = (hundredths / 6000, hundredths % 6000);
    format!("{minutes}:{:02}.{:02}", rest / 100, rest % 100)
}

fn memory_total() -> Option<u64> {
    kib("/proc/meminfo", "MemTotal:")
}

/// A line of a file of the kernel that ends with `kB`, in bytes.
fn kib(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn virtual_size(os_pid: u32) -> Option<u64> {
    kib(&format!("/proc/{os_pid}/status"), "VmSize:")
}

/// Statistics of a job in 0.5's members. A process that ended meanwhile is left out.
pub async fn job_stats(handle: &Handle, info: &JobInfo) -> Value {
    let (kept, out) = processes(handle, info);
    let mut samples = Vec::new();
    for process in kept.iter().chain(&out) {
        if let Ok(sample) = sample(handle, process).await {
            samples.push(sample);
        }
    }
    let mut all = Map::new();
    all.insert("name".to_owned(), info.view.job.to_string().into());
    let listed: Vec<Value> = samples
        .iter()
        .map(|one| Value::Object(one.fields.clone()))
        .collect();
    all.insert("stats".to_owned(), listed.into());
    all.extend(aggregates(&samples));
    Value::Object(all)
}

/// Sum, highest and lowest of memory and processor; `N/A` where there is nothing to add up.
pub fn aggregates(samples: &[Sample]) -> Map<String, Value> {
    let mut all = Map::new();
    let columns = [
        ("mem", samples.iter().map(|one| one.mem).collect::<Vec<_>>()),
        ("cpu", samples.iter().map(|one| one.cpu).collect::<Vec<_>>()),
    ];
    for (name, values) in columns {
        let known: Option<Vec<f64>> = values.into_iter().collect();
        let known = known.filter(|known| !known.is_empty());
        let shown = |value: Option<f64>| value.map_or_else(|| json!("N/A"), |value| json!(value));
        let fold =
            |pick: fn(f64, f64) -> f64| known.as_ref().and_then(|all| all.iter().copied().reduce(pick));
        all.insert(name.to_owned(), shown(fold(|a, b| a + b).map(round)));
        all.insert(format!("max_{name}"), shown(fold(f64::max)));
        all.insert(format!("min_{name}"), shown(fold(f64::min)));
    }
    all
}

/// The 0.4 template of a job: with its 0.4 name, and its group if it has one.
pub async fn old_template(handle: &Handle, info: &JobInfo) -> Value {
    let mut template = template::of(handle, info).await;
    let job = &info.view.job;
    template.insert("name".to_owned(), names::old_name(job).into());
    if job.session.as_str() != gaffer_core::name::DEFAULT_SESSION {
        template.insert("group".to_owned(), job.session.as_str().into());
    }
    Value::Object(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_5_sizes_and_times_have_the_old_form() {
        assert_eq!([human(512), human(8 << 20), human(1023)], ["512B", "8M", "1023B"]);
        assert_eq!(human(1536 << 10), "1M");
        assert_eq!(clock(200), "0:00.20");
        // D41: hours are not lost.
        assert_eq!(clock(2 * 3_600_000 + 61_050), "121:01.05");
    }

    #[test]
    fn d26_aggregates_of_nothing_are_not_available() {
        let all = aggregates(&[]);
        assert!(
            ["mem", "max_mem", "min_cpu"].iter().all(|key| all[*key] == "N/A"),
            "{all:?}"
        );
        let one = |cpu, mem| Sample {
            pid: 1,
            os_pid: 1,
            cpu,
            mem,
            fields: Map::new(),
            children: Vec::new(),
        };
        let all = aggregates(&[one(Some(1.5), Some(0.5)), one(Some(2.0), None)]);
        assert_eq!(
            (&all["cpu"], &all["max_cpu"], &all["mem"]),
            (&json!(3.5), &json!(2.0), &json!("N/A"))
        );
    }
}
