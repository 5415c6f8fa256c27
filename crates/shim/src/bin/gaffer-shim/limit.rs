//! Limits of a run: files of its own cgroup, and further groups that its child puts itself into.

use crate::plan::Failure;
use gaffer_shim::message::{LimitFile, Spawn};
use std::ffi::CString;
use std::io;

/// The further groups of a run.
pub fn groups(spawn: &Spawn) -> Vec<String> {
    let limits = spawn.limits.iter();
    limits
        .flat_map(|limits| &limits.groups)
        .map(|group| format!("{}/{}", group.dir, spawn.run))
        .collect()
}

/// Sets the limits before anybody is there to be limited: the files that the child writes itself into, and a note.
pub fn prepare(spawn: &Spawn, own: Option<&str>) -> Result<(Vec<CString>, Option<String>), Failure> {
    let Some(limits) = &spawn.limits else {
        return Ok((Vec::new(), None));
    };
    let mut note = None;
    match own {
        Some(path) => write(path, &limits.own)?,
        None if limits.own.is_empty() => {}
        None => lack(
            limits.required,
            &mut note,
            "no cgroup of its own",
            &io::ErrorKind::NotFound.into(),
        )?,
    }
    let mut joins = Vec::new();
    for (group, path) in limits.groups.iter().zip(groups(spawn)) {
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                lack(limits.required, &mut note, &path, &error)?;
            }
            _ => {
                write(&path, &group.files)?;
                let procs = format!("{path}/cgroup.procs");
                joins.push(CString::new(procs).map_err(|error| Failure {
                    stage: "limits",
                    errno: libc::EINVAL,
                    text: String::from_utf8_lossy(&error.into_vec()).into_owned(),
                })?);
            }
        }
    }
    Ok((joins, note))
}

/// A limit cannot be had.
fn lack(required: bool, note: &mut Option<String>, what: &str, error: &io::Error) -> Result<(), Failure> {
    if required {
        return Err(Failure::system("limits", error, what));
    }
    *note = Some(format!("limits not enforced: {what}: {error}"));
    Ok(())
}

fn write(path: &str, files: &[LimitFile]) -> Result<(), Failure> {
    for LimitFile { name, text } in files {
        std::fs::write(format!("{path}/{name}"), text)
            .map_err(|error| Failure::system("limits", &error, &format!("{name} = {text}")))?;
    }
    Ok(())
}

/// Was a process of one of these groups killed for memory?
pub fn killed_for_memory(groups: &[String]) -> bool {
    groups.iter().any(|path| {
        // Only the group of the memory controller has it.
        let control = std::fs::read_to_string(format!("{path}/memory.oom_control")).unwrap_or_default();
        let killed = control.lines().find_map(|line| line.strip_prefix("oom_kill "));
        killed.is_some_and(|count| count.trim() != "0")
    })
}
