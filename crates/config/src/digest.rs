//! The digest of a launch: equal digests, equal runs.
//!
//! It is the 64-bit FNV-1a hash of a canonical JSON text: an object with sorted keys, without blanks, that holds
//! what of the launch and its probes differs from the default. A key that a later version adds is not there
//! until somebody uses it, so a new version of the daemon does not find every run outdated. Users and groups
//! go in as they are written, not as what they mean today: a new member of a group replaces no run.

use crate::env_text::Variables;
use crate::merge::Layer;
use crate::node::{Node, Table};
use crate::units::exact_duration;
use gaffer_core::job::{EnvInherit, EnvLayer, Job, Launch, Output, Port, Probe, ProbeKind, Stdin};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Hash of a job's launch; `table` is the merged definition. What files of variables say counts by its own digest,
/// `files`: a stored definition knows that also when it cannot read them.
pub(crate) fn launch_digest(job: &Job, table: &Table, layers: &[Layer], files: Option<&str>) -> u64 {
    let mut map = BTreeMap::new();
    launch(&job.launch, &mut map);
    if layers.iter().any(|layer| layer.is_file) {
        let of_file = |at: usize| layers.get(at).is_some_and(|layer| layer.is_file);
        let env = job.launch.env.iter().enumerate();
        let env: Vec<&EnvLayer> = env
            .filter(|(at, _)| !of_file(*at))
            .map(|(_, layer)| layer)
            .collect();
        map.remove("env");
        if !env.is_empty() {
            map.insert("env", json!(env));
        }
    }
    if let Some(files) = files {
        map.insert("env_file", files.into());
    }
    for key in ["user", "group", "groups"] {
        if let Some(node) = table.get(key) {
            map.insert(key, as_written(node));
        }
    }
    for (key, probe) in [("ready", &job.ready), ("health", &job.health)] {
        if let Some(probe) = probe {
            map.insert(key, self::probe(probe));
        }
    }
    if job.ready.is_some() && job.ready_within.as_secs() != 60 {
        map.insert("ready_within", exact_duration(job.ready_within).into());
    }
    let sorted: Map<String, Value> = map
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    fnv1a(Value::Object(sorted).to_string().as_bytes())
}

/// Hash of what the files of variables say; none if that is nothing.
pub(crate) fn files_digest(layers: &[Layer]) -> Option<String> {
    let files: Vec<&Variables> = layers
        .iter()
        .filter(|layer| layer.is_file)
        .map(|layer| &layer.variables)
        .collect();
    (!files.is_empty()).then(|| format!("{:016x}", fnv1a(json!(files).to_string().as_bytes())))
}

/// An id is the same as a number and as a text.
fn as_written(node: &Node) -> Value {
    match node.as_list() {
        Some(list) => list.iter().map(as_written).collect(),
        None => crate::kind::scalar(node).unwrap_or_default().into(),
    }
}

fn launch(launch: &Launch, map: &mut BTreeMap<&'static str, Value>) {
    map.insert("cmd", json!(launch.cmd));
    map.insert("cwd", json!(launch.cwd));
    let mut put = |key, differs: bool, value: Value| {
        if differs {
            map.insert(key, value);
        }
    };
    put("shell", launch.shell.is_some(), json!(launch.shell));
    put("argv0", launch.argv0.is_some(), json!(launch.argv0));
    put("wrap", !launch.wrap.is_empty(), json!(launch.wrap));
    put("env", !launch.env.is_empty(), json!(launch.env));
    let inherit = match &launch.env_inherit {
        EnvInherit::Base => Value::Null,
        EnvInherit::All => json!("all"),
        EnvInherit::None => json!("none"),
        EnvInherit::Patterns(names) => json!(names),
    };
    put("env_inherit", launch.env_inherit != EnvInherit::Base, inherit);
    put("umask", launch.umask != 0o022, json!(launch.umask));
    put("nice", launch.nice != 0, json!(launch.nice));
    put("oom_score", launch.oom_score != 0, json!(launch.oom_score));
    put("no_new_privs", launch.no_new_privs, json!(true));
    put("rlimits", !launch.rlimits.is_empty(), json!(launch.rlimits));
    put(
        "port",
        launch.port.is_some(),
        launch.port.map_or(Value::Null, port),
    );
    let ports: BTreeMap<&str, Value> = launch
        .ports
        .iter()
        .map(|(name, one)| (name.as_str(), port(*one)))
        .collect();
    put("ports", !ports.is_empty(), json!(ports));
    let stdin = match &launch.stdin {
        Stdin::Null => Value::Null,
        Stdin::Pipe => json!("pipe"),
        Stdin::File(path) => json!({ "file": path }),
    };
    put("stdin", launch.stdin != Stdin::Null, stdin);
    put("pty", launch.pty, json!(true));
    put("streams", !launch.streams.is_empty(), json!(launch.streams));
    put(
        "stdout",
        launch.stdout != Output::Keep,
        json!(output(launch.stdout)),
    );
    put(
        "stderr",
        launch.stderr != Output::Keep,
        json!(output(launch.stderr)),
    );
}

fn output(output: Output) -> &'static str {
    match output {
        Output::Keep => "keep",
        Output::Null => "null",
        Output::Stdout => "stdout",
    }
}

fn port(port: Port) -> Value {
    match port {
        Port::Auto => json!("auto"),
        Port::Fixed(number) => json!(number),
    }
}

fn probe(probe: &Probe) -> Value {
    let kind = match &probe.kind {
        ProbeKind::Http(url) => json!({ "http": url }),
        ProbeKind::Tcp(address) => json!({ "tcp": address }),
        ProbeKind::Cmd { cmd, shell } => json!({ "cmd": cmd, "shell": shell }),
        ProbeKind::Log(pattern) => json!({ "log": pattern }),
        ProbeKind::Notify => json!("notify"),
        ProbeKind::After(time) => json!({ "after": exact_duration(*time) }),
        ProbeKind::Heartbeat(time) => json!({ "heartbeat": exact_duration(*time) }),
    };
    json!([
        kind,
        exact_duration(probe.every),
        exact_duration(probe.timeout),
        exact_duration(probe.delay),
        probe.successes,
        probe.failures,
    ])
}

/// FNV-1a, 64 bits: stable across versions.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_digest_of_a_plain_job_never_changes() {
        let job = Job::of(Launch::of(vec!["sleep".to_owned(), "1".to_owned()]));
        // Golden: {"cmd":["sleep","1"],"cwd":"/"}
        let text = r#"{"cmd":["sleep","1"],"cwd":"/"}"#;
        assert_eq!(
            launch_digest(&job, &Table::default(), &[], None),
            fnv1a(text.as_bytes())
        );
    }
}
