//! `--read-checkpoint`: what a checkpoint file says, also a damaged one, without serving and without a root.

use crate::view::time;
use crate::view_task;
use gaffer::task::stream;
use gaffer_core::task::fold::History;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The file replayed as far as it goes, and where it stops.
pub fn read(path: &Path) -> Result<Value, String> {
    // Only here: elsewhere a stream that is not there is one that nobody has begun.
    std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let contents = stream::read(path).map_err(|error| error.to_string())?;
    let mut history = History::default();
    let torn = (contents.torn > 0).then(|| format!("an unfinished record of {} bytes", contents.torn));
    let fault = contents.fault.clone().or(torn);
    let mut stops = fault.map(|reason| json!({ "offset": contents.length, "reason": reason }));
    let mut replayed = 0usize;
    for record in &contents.records {
        if let Err(error) = history.apply(record, true) {
            stops = Some(json!({ "record": replayed, "reason": error.to_string() }));
            break;
        }
        replayed += 1;
    }
    let header = history.header.as_ref().map(|header| {
        let ports: Map<String, Value> = header
            .ports
            .iter()
            .map(|(name, port)| (name.to_string(), (*port).into()))
            .collect();
        json!({
            "id": &*header.task_id, "launched_at": time(header.launched), "sandbox": &*header.sandbox,
            "hostname": &*header.hostname, "user": &*header.user, "uid": header.uid, "ports": ports,
            "log_dir": &*header.log_dir,
        })
    });
    let steps: Vec<Value> = history
        .steps
        .iter()
        .map(|(name, runs)| json!({ "name": &**name, "runs": view_task::runs(runs, &BTreeMap::new()) }))
        .collect();
    let state = match history.statuses.last() {
        Some(status) => status.state.word(),
        None => "unknown",
    };
    Ok(json!({
        "file": path, "header": header, "state": state, "statuses": view_task::statuses(&history), "steps": steps,
        "records": replayed, "stops": stops,
    }))
}
