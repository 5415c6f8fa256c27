//! `doctor`: is everything as it should be? Without a daemon, what this machine alone can tell.

use crate::connect::EXIT_UNREACHABLE;
use crate::context::Context;
use crate::failure::Failure;
use clap::Args;
use gaffer_api::client::ClientError;
use gaffer_api::types::{Check, Doctor};
use std::path::Path;
use std::time::Duration;

/// `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Kill a private daemon and its shims at random, and report what was kept
    #[arg(long)]
    pub chaos: bool,
    /// With --chaos: for so long
    #[arg(long, value_name = "N", default_value_t = 15, requires = "chaos", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
}

/// `doctor`: exit 1 if something is bad, 69 if there is no daemon.
pub async fn doctor(ctx: &Context, args: &DoctorArgs) -> Result<u8, Failure> {
    if args.chaos {
        return crate::commands::chaos::chaos(ctx, Duration::from_secs(args.seconds)).await;
    }
    let (doctor, daemon_missing) = match ctx.client.doctor().await {
        Ok(doctor) => (doctor, false),
        Err(error @ ClientError::Unreachable { .. }) => (offline(ctx, &error).await, true),
        Err(error) => return Err(error.into()),
    };
    if ctx.out.is_text() {
        show(ctx, &doctor)?;
    } else {
        ctx.out.json(&doctor)?;
    }
    let bad = doctor.checks.iter().any(|check| check.state == "bad");
    Ok(if daemon_missing {
        EXIT_UNREACHABLE
    } else {
        u8::from(bad)
    })
}

/// Checks as a screen.
pub fn show(ctx: &Context, doctor: &Doctor) -> Result<(), Failure> {
    let width = doctor
        .checks
        .iter()
        .map(|check| check.name.chars().count())
        .max()
        .unwrap_or(0)
        .max(11);
    for check in &doctor.checks {
        let margin = " ".repeat(width + 4);
        let room = ctx
            .out
            .width()
            .unwrap_or(100)
            .min(100)
            .saturating_sub(width + 4)
            .max(20);
        let text = wrap(&check.text, room).join(&format!("\n{margin}"));
        ctx.out.line(&format!(
            "{} {:width$}  {text}",
            ctx.out.glyph(&check.state),
            check.name
        ))?;
        if let Some(hint) = &check.hint {
            ctx.out.line(&format!(
                "{margin}→ {}",
                wrap(hint, room - 2).join(&format!("\n{margin}  "))
            ))?;
        }
    }
    let of = |state: &str| doctor.checks.iter().filter(|check| check.state == state).count();
    let mut parts = vec![format!("{} good", of("good"))];
    for state in ["limited", "bad"] {
        if of(state) > 0 {
            parts.push(format!("{} {state}", of(state)));
        }
    }
    ctx.out
        .line(&format!("{} checks: {}", doctor.checks.len(), parts.join(", ")))
}

/// Words in lines of at most so many characters.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().map(|line| (line.chars().count(), line));
        match last {
            Some((0, line)) => line.push_str(word),
            Some((used, line)) if used + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What can be seen without a daemon: by `gafferd --doctor` where that works, else a little by ourselves.
async fn offline(ctx: &Context, error: &ClientError) -> Doctor {
    let mut checks = vec![Check {
        name: "daemon".to_owned(),
        state: "bad".to_owned(),
        text: error.to_string(),
        hint: Some("gaffer daemon start".to_owned()),
    }];
    match from_gafferd().await {
        Some(doctor) => checks.extend(doctor.checks.into_iter().filter(|check| check.name != "daemon")),
        None => checks.extend([gafferd(), kernel(), containment()]),
    }
    ctx.out
        .talk("no daemon answers; these are checks of this machine only");
    Doctor { checks }
}

async fn from_gafferd() -> Option<Doctor> {
    let program = crate::private::program().ok()?;
    let output = tokio::process::Command::new(program)
        .arg("--doctor")
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

fn check(name: &str, state: &str, text: String, hint: Option<&str>) -> Check {
    Check {
        name: name.to_owned(),
        state: state.to_owned(),
        text,
        hint: hint.map(str::to_owned),
    }
}

fn gafferd() -> Check {
    match crate::private::program() {
        Ok(path) => check("program", "good", format!("{}", path.display()), None),
        Err(failure) => check(
            "program",
            "bad",
            failure.message,
            Some("install gafferd beside gaffer"),
        ),
    }
}

fn kernel() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 4) {
        return check(
            "kernel",
            "bad",
            format!("{release}: too old"),
            Some("gaffer needs Linux 5.4 or later"),
        );
    }
    check("kernel", "good", release, None)
}

fn containment() -> Check {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let cgroup2 = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let dir = words.nth(1)?;
            (words.next()? == "cgroup2").then(|| dir.to_owned())
        })
        .next();
    match cgroup2 {
        None => check(
            "containment",
            "limited",
            "no cgroup v2: process groups and a subreaper are used".to_owned(),
            None,
        ),
        Some(dir) => {
            let writable = rustix::fs::access(Path::new(&dir), rustix::fs::Access::WRITE_OK).is_ok();
            match writable {
                true => check("containment", "good", format!("cgroup v2 at {dir}"), None),
                false => check(
                    "containment",
                    "limited",
                    format!("cgroup v2 at {dir}, not writable for this user"),
                    Some("run gafferd as a systemd unit with Delegate=yes"),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped_at_words() {
        assert_eq!(
            wrap("cgroup v2, but memory is not delegated", 20),
            ["cgroup v2, but", "memory is not", "delegated"]
        );
        assert_eq!(wrap("", 20), [""]);
    }
}
