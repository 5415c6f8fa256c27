//! Records of a task as bytes: the body of one frame each, CBOR with numbered fields.
//!
//! Version history: 1 — this file. Numbers are never reused; a reader skips fields that it does not know. A record of
//! a kind that it does not know comes from a newer version: it is refused by name, for nothing may be decided on half a history.

use gaffer_core::name::RunId;
use gaffer_core::task::record::{
    Change, Header, Outputs, Record, Status, StepRecord, StepState, TaskState, Usage,
};
use gaffer_core::time::Wall;
use gaffer_shim::journal::RunIdWire;
use minicbor::{Decode, Encode};
use std::sync::Arc;

/// A record that is no record of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Its bytes say nothing.
    #[error("the record cannot be decoded: {0}")]
    Undecodable(String),
    /// Of a newer version.
    #[error("the record is of a newer version of gaffer ({what} number {number})")]
    Newer {
        /// What is not known.
        what: &'static str,
        /// Its number.
        number: u8,
    },
}

#[derive(Encode, Decode)]
struct Pair {
    #[n(0)]
    name: String,
    #[n(1)]
    value: String,
}

#[derive(Encode, Decode)]
struct PortWire {
    #[n(0)]
    name: String,
    #[n(1)]
    port: u16,
}

#[derive(Encode, Decode)]
struct HeaderWire {
    #[n(0)]
    task_id: String,
    #[n(1)]
    launched: i64,
    #[n(2)]
    sandbox: String,
    #[n(3)]
    hostname: String,
    #[n(4)]
    user: String,
    #[n(5)]
    uid: Option<u32>,
    #[n(6)]
    ports: Vec<PortWire>,
    #[n(7)]
    log_dir: String,
    #[n(8)]
    retry_of: Option<String>,
}

#[derive(Encode, Decode)]
struct StatusWire {
    #[n(0)]
    state: u8,
    #[n(1)]
    at: i64,
    #[n(2)]
    runner_pid: u32,
    #[n(3)]
    runner_uid: u32,
}

/// One flat shape for all changes of a step; `state` says which fields count.
#[derive(Encode, Decode)]
struct StepWire {
    #[n(0)]
    step: String,
    #[n(1)]
    seq: u64,
    #[n(2)]
    state: u8,
    #[n(3)]
    at: Option<i64>,
    #[n(4)]
    parent_pid: Option<u32>,
    #[n(5)]
    run: Option<RunIdWire>,
    #[n(6)]
    pid: Option<u32>,
    #[n(7)]
    code: Option<i32>,
    #[n(8)]
    reason: Option<String>,
    #[n(9)]
    outputs: Option<Vec<Pair>>,
    #[n(10)]
    fatal: Option<bool>,
    #[n(11)]
    cpu_ms: Option<u64>,
    #[n(12)]
    memory_peak: Option<u64>,
}

#[derive(Encode, Decode)]
struct CarriedWire {
    #[n(0)]
    step: String,
    #[n(1)]
    outputs: Vec<Pair>,
}

#[derive(Encode, Decode)]
struct ForcedWire {
    #[n(0)]
    state: u8,
    #[n(1)]
    at: i64,
    #[n(2)]
    grace_ms: u64,
    #[n(3)]
    reason: String,
}

/// A union: exactly one field is set.
#[derive(Default, Encode, Decode)]
struct RecordWire {
    #[n(0)]
    header: Option<HeaderWire>,
    #[n(1)]
    status: Option<StatusWire>,
    #[n(2)]
    step: Option<StepWire>,
    #[n(3)]
    carried: Option<CarriedWire>,
    #[n(4)]
    paused: Option<bool>,
    #[n(5)]
    forced: Option<ForcedWire>,
}

fn pairs(outputs: &Outputs) -> Vec<Pair> {
    let pair = |(name, value): &(Arc<str>, Arc<str>)| Pair {
        name: name.to_string(),
        value: value.to_string(),
    };
    outputs.iter().map(pair).collect()
}

fn outputs(pairs: Vec<Pair>) -> Outputs {
    let output = |pair: Pair| (Arc::from(pair.name), Arc::from(pair.value));
    pairs.into_iter().map(output).collect()
}

/// Ordinals of the original's enumeration.
fn step_number(state: StepState) -> u8 {
    match state {
        StepState::Waiting => 0,
        StepState::Forked => 1,
        StepState::Running => 2,
        StepState::Success => 3,
        StepState::Killed => 4,
        StepState::Failed => 5,
        StepState::Lost => 6,
    }
}

fn step_state(number: u8) -> Result<StepState, WireError> {
    Ok(match number {
        0 => StepState::Waiting,
        1 => StepState::Forked,
        2 => StepState::Running,
        3 => StepState::Success,
        4 => StepState::Killed,
        5 => StepState::Failed,
        6 => StepState::Lost,
        number => {
            return Err(WireError::Newer {
                what: "state of a step",
                number,
            });
        }
    })
}

fn task_number(state: TaskState) -> u8 {
    match state {
        TaskState::Active => 0,
        TaskState::Success => 1,
        TaskState::Failed => 2,
        TaskState::Killed => 3,
        TaskState::Lost => 4,
        TaskState::Cleaning => 5,
        TaskState::Finalizing => 6,
    }
}

fn task_state(number: u8) -> Result<TaskState, WireError> {
    Ok(match number {
        0 => TaskState::Active,
        1 => TaskState::Success,
        2 => TaskState::Failed,
        3 => TaskState::Killed,
        4 => TaskState::Lost,
        5 => TaskState::Cleaning,
        6 => TaskState::Finalizing,
        number => {
            return Err(WireError::Newer {
                what: "state of a task",
                number,
            });
        }
    })
}

/// The body of a frame.
pub fn encode(record: &Record) -> Vec<u8> {
    let mut wire = RecordWire::default();
    match record {
        Record::Header(header) => wire.header = Some(header_wire(header)),
        Record::Status(status) => {
            wire.status = Some(StatusWire {
                state: task_number(status.state),
                at: status.at.0,
                runner_pid: status.runner_pid,
                runner_uid: status.runner_uid,
            });
        }
        Record::Step(record) => wire.step = Some(step_wire(record)),
        Record::Carried { step, outputs } => {
            wire.carried = Some(CarriedWire {
                step: step.to_string(),
                outputs: pairs(outputs),
            });
        }
        Record::Paused(paused) => wire.paused = Some(*paused),
        Record::Forced {
            state,
            at,
            grace_ms,
            reason,
        } => {
            wire.forced = Some(ForcedWire {
                state: task_number(*state),
                at: at.0,
                grace_ms: *grace_ms,
                reason: reason.to_string(),
            });
        }
    }
    // Writing to memory cannot fail.
    minicbor::to_vec(&wire).unwrap_or_default()
}

fn header_wire(header: &Header) -> HeaderWire {
    let port = |(name, port): &(Arc<str>, u16)| PortWire {
        name: name.to_string(),
        port: *port,
    };
    HeaderWire {
        task_id: header.task_id.to_string(),
        launched: header.launched.0,
        sandbox: header.sandbox.to_string(),
        hostname: header.hostname.to_string(),
        user: header.user.to_string(),
        uid: header.uid,
        ports: header.ports.iter().map(port).collect(),
        log_dir: header.log_dir.to_string(),
        retry_of: header.retry_of.as_ref().map(ToString::to_string),
    }
}

fn step_wire(record: &StepRecord) -> StepWire {
    let mut wire = StepWire {
        step: record.step.to_string(),
        seq: record.seq,
        state: step_number(record.change.state()),
        at: None,
        parent_pid: None,
        run: None,
        pid: None,
        code: None,
        reason: None,
        outputs: None,
        fatal: None,
        cpu_ms: None,
        memory_peak: None,
    };
    match &record.change {
        Change::Waiting => {}
        Change::Forked { at, parent_pid, run } => {
            wire.at = Some(at.0);
            wire.parent_pid = Some(*parent_pid);
            wire.run = run.map(|run| RunIdWire {
                epoch: run.epoch,
                n: run.n,
            });
        }
        Change::Running { at, pid } => {
            wire.at = Some(at.0);
            wire.pid = Some(*pid);
        }
        Change::Ended {
            at,
            code,
            reason,
            outputs,
            fatal,
            usage,
            ..
        } => {
            wire.at = at.map(|at| at.0);
            wire.code = *code;
            wire.reason = reason.as_ref().map(ToString::to_string);
            wire.outputs = (!outputs.is_empty()).then(|| pairs(outputs));
            wire.fatal = fatal.then_some(true);
            wire.cpu_ms = usage.map(|usage| usage.cpu_ms);
            wire.memory_peak = usage.map(|usage| usage.memory_peak);
        }
    }
    wire
}

/// A record from the body of a frame. If several fields are set, the first counts.
pub fn decode(body: &[u8]) -> Result<Record, WireError> {
    let wire: RecordWire =
        minicbor::decode(body).map_err(|error| WireError::Undecodable(error.to_string()))?;
    if let Some(header) = wire.header {
        return Ok(Record::Header(header_of(header)));
    }
    if let Some(step) = wire.step {
        return step_of(step).map(Record::Step);
    }
    if let Some(status) = wire.status {
        return Ok(Record::Status(Status {
            state: task_state(status.state)?,
            at: Wall(status.at),
            runner_pid: status.runner_pid,
            runner_uid: status.runner_uid,
        }));
    }
    if let Some(carried) = wire.carried {
        return Ok(Record::Carried {
            step: carried.step.into(),
            outputs: outputs(carried.outputs),
        });
    }
    if let Some(paused) = wire.paused {
        return Ok(Record::Paused(paused));
    }
    if let Some(forced) = wire.forced {
        return Ok(Record::Forced {
            state: task_state(forced.state)?,
            at: Wall(forced.at),
            grace_ms: forced.grace_ms,
            reason: forced.reason.into(),
        });
    }
    Err(WireError::Undecodable(
        "no field of it is known to this version".into(),
    ))
}

fn header_of(wire: HeaderWire) -> Header {
    let port = |port: PortWire| (Arc::from(port.name), port.port);
    Header {
        task_id: wire.task_id.into(),
        launched: Wall(wire.launched),
        sandbox: wire.sandbox.into(),
        hostname: wire.hostname.into(),
        user: wire.user.into(),
        uid: wire.uid,
        ports: wire.ports.into_iter().map(port).collect(),
        log_dir: wire.log_dir.into(),
        retry_of: wire.retry_of.map(Arc::from),
    }
}

fn step_of(wire: StepWire) -> Result<StepRecord, WireError> {
    let missing =
        |field: &str| WireError::Undecodable(format!("the record of step {} has no {field}", wire.step));
    let state = step_state(wire.state)?;
    let change = match state {
        StepState::Waiting => Change::Waiting,
        StepState::Forked => Change::Forked {
            at: Wall(wire.at.ok_or_else(|| missing("fork time"))?),
            parent_pid: wire.parent_pid.ok_or_else(|| missing("parent"))?,
            run: wire.run.map(|run| RunId {
                epoch: run.epoch,
                n: run.n,
            }),
        },
        StepState::Running => Change::Running {
            at: Wall(wire.at.ok_or_else(|| missing("start time"))?),
            pid: wire.pid.ok_or_else(|| missing("pid"))?,
        },
        StepState::Success | StepState::Failed | StepState::Killed | StepState::Lost => Change::Ended {
            state,
            at: wire.at.map(Wall),
            code: wire.code,
            reason: wire.reason.map(Arc::from),
            outputs: wire.outputs.map(outputs).unwrap_or_default(),
            fatal: wire.fatal.unwrap_or_default(),
            usage: wire.cpu_ms.map(|cpu_ms| Usage {
                cpu_ms,
                memory_peak: wire.memory_peak.unwrap_or_default(),
            }),
        },
    };
    Ok(StepRecord {
        step: wire.step.into(),
        seq: wire.seq,
        change,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c04_a_record_of_nothing_is_no_record() {
        let nothing = minicbor::to_vec(RecordWire::default()).expect("encoded");
        for bytes in [&nothing[..], &[]] {
            assert!(
                matches!(decode(bytes), Err(WireError::Undecodable(_))),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn c09_what_a_state_must_say_is_named_where_it_is_missing() {
        let step = |state: StepState, pid| {
            let wire = StepWire {
                step: "a".to_owned(),
                seq: 1,
                state: step_number(state),
                at: Some(1),
                parent_pid: None,
                run: None,
                pid,
                code: None,
                reason: None,
                outputs: None,
                fatal: None,
                cpu_ms: None,
                memory_peak: None,
            };
            let record = RecordWire {
                step: Some(wire),
                ..RecordWire::default()
            };
            decode(&minicbor::to_vec(record).expect("encoded"))
        };
        for (state, missing) in [(StepState::Forked, "parent"), (StepState::Running, "pid")] {
            let told = step(state, None).expect_err("incomplete").to_string();
            assert!(told.contains(&format!("step a has no {missing}")), "{told}");
        }
        assert!(step(StepState::Running, Some(7)).is_ok());
    }
}
