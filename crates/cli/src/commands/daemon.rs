//! `daemon`: starting, stopping and looking after the daemon of this node. Nothing else ever starts one.

use crate::args::{DaemonCommand, DaemonStartArgs, FileArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::private::program;
use crate::when;
use futures_util::StreamExt;
use gaffer_api::client::ClientError;
use gaffer_api::types::Node;
use gaffer_api::{Client, Endpoint};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// A daemon that does not serve by then is not going to.
const SERVES_WITHIN: Duration = Duration::from_secs(30);
/// One that was asked to end has gone by then: `stop_within` and a little.
const GONE_WITHIN: Duration = Duration::from_secs(120);
/// A file has been applied by then.
const RELOADED_WITHIN: Duration = Duration::from_secs(30);
/// Asked so often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `daemon …`.
pub async fn daemon(ctx: &Context, verb: &DaemonCommand) -> Result<u8, Failure> {
    match verb {
        DaemonCommand::Start(args) => start(ctx, args).await,
        DaemonCommand::Stop { keep_running } => stop(ctx, *keep_running).await,
        DaemonCommand::Restart(args) | DaemonCommand::Upgrade(args) => restart(ctx, args).await,
        DaemonCommand::Reload => reload(ctx).await,
        DaemonCommand::Status => status(ctx).await,
        DaemonCommand::Dial => super::dial::dial(ctx).await,
        DaemonCommand::Install { print, user } => install(ctx, *print, *user).await,
    }
}

async fn start(ctx: &Context, args: &DaemonStartArgs) -> Result<u8, Failure> {
    if let Ok(node) = ctx.client.node().await {
        ctx.out.talk(&format!(
            "{} gafferd runs already: pid {}, up {}",
            ctx.out.talk_glyph("good"),
            node.pid,
            when::duration(node.up_ms)
        ));
        return Ok(0);
    }
    let node = launch(ctx, args).await?;
    ctx.out
        .talk(&format!("{} {}", ctx.out.talk_glyph("good"), summary(&node)));
    Ok(0)
}

/// Starts a daemon in the background; the one in the foreground ends when the other one serves, or says why not.
async fn launch(ctx: &Context, args: &DaemonStartArgs) -> Result<Node, Failure> {
    let Endpoint::Unix(socket) = ctx.client.endpoint() else {
        return Err(
            Failure::usage("a daemon is started on this machine; --url names another")
                .hint("its address for HTTP:  gaffer daemon start --bind HOST:PORT"),
        );
    };
    let program = program()?;
    let mut command = Command::new(&program);
    command.arg("--daemon").arg("--socket").arg(absolute(socket)?);
    if let Some(config) = &args.config {
        command.arg("-c").arg(absolute(config)?);
    }
    if let Some(state_dir) = &args.state_dir {
        command.arg("--state-dir").arg(absolute(state_dir)?);
    }
    for bind in &args.bind {
        command.arg("--bind").arg(bind);
    }
    for profile in args.profile.iter().filter(|profile| !profile.is_empty()) {
        command.arg("--profile").arg(profile);
    }
    // What it says goes to a file without a name: a pipe would stay open as long as anybody holds it.
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("{} cannot be run: {error}", program.display()))
    };
    let said = rustix::fs::memfd_create("gafferd", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|error| failed(&error))?;
    let mut said = File::from(said);
    let stderr = said.try_clone().map_err(|error| failed(&error))?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0);
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let within = ctx.globals.timeout.unwrap_or(SERVES_WITHIN);
    let Ok(status) = tokio::time::timeout(within, child.wait()).await else {
        let after = when::duration(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        return Err(
            Failure::failed(format!("gafferd does not serve after {after}; it goes on trying"))
                .hint("does it now?  gaffer daemon status"),
        );
    };
    let status = status.map_err(|error| failed(&error))?;
    if status.success() {
        return Ok(ctx.client.node().await?);
    }
    let exit = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    let text = read_back(&mut said);
    Err(if text.is_empty() {
        Failure::new(exit, "gafferd did not start")
    } else {
        Failure {
            rendered: Some(text),
            ..Failure::silent(exit)
        }
    })
}

/// What a daemon said that did not start; diagnostics keep their lines.
fn read_back(said: &mut File) -> String {
    use std::io::{Seek, SeekFrom};
    let mut bytes = Vec::new();
    let read = said
        .seek(SeekFrom::Start(0))
        .and_then(|_| said.read_to_end(&mut bytes));
    if read.is_err() || bytes.is_empty() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .map(|line| format!("{}\n", crate::escape::escape(line)))
        .collect()
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

async fn stop(ctx: &Context, keep_running: bool) -> Result<u8, Failure> {
    let node = ctx.client.node().await?;
    let runs = if node.runs == 1 {
        "1 run".to_owned()
    } else {
        format!("{} runs", node.runs)
    };
    let (mode, what) = if keep_running {
        ("leave", format!("{runs} left running"))
    } else {
        ("stop", format!("stopping {runs}"))
    };
    ctx.out.talk(&format!(
        "{} gafferd, pid {}: {what}",
        ctx.out.talk_glyph("stopping"),
        node.pid
    ));
    end(ctx, &node, mode).await?;
    ctx.out
        .talk(&format!("{} gafferd has ended", ctx.out.talk_glyph("stopped")));
    Ok(0)
}

/// Asks it to end and waits until it has: its socket goes first, its hold on the state directory last.
async fn end(ctx: &Context, node: &Node, mode: &str) -> Result<(), Failure> {
    let process = process_of(ctx, node);
    match crate::connect::shutdown(&ctx.client, mode).await {
        // It may be gone before its answer has arrived.
        Ok(()) | Err(ClientError::Protocol(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + ctx.globals.timeout.unwrap_or(GONE_WITHIN);
    loop {
        let gone = match &process {
            Some(process) => has_ended(process),
            // A connection of its own: a kept one may still be served.
            None => {
                let client = Client::new(ctx.client.endpoint().clone(), None);
                matches!(client.node().await, Err(ClientError::Unreachable { .. }))
            }
        };
        if gone {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::failed("gafferd is still ending").hint_pair(
                "what holds it:  gaffer ps",
                "end it at once:  gaffer stop --all --force",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The daemon's process, if it is on this machine: behind our socket, its number is one of ours.
fn process_of(ctx: &Context, node: &Node) -> Option<OwnedFd> {
    if !matches!(ctx.client.endpoint(), Endpoint::Unix(_)) {
        return None;
    }
    let pid = Pid::from_raw(i32::try_from(node.pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// A descriptor of a process can be read once it has ended, reaped or not.
fn has_ended(process: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

async fn restart(ctx: &Context, args: &DaemonStartArgs) -> Result<u8, Failure> {
    let old = ctx.client.node().await?;
    if let Some(unit) = unit_of(old.pid) {
        return Err(
            Failure::conflict(format!("gafferd is run by systemd as {unit}")).hint(format!(
                "restart it there; nothing stops:  systemctl restart {unit}"
            )),
        );
    }
    // The new one is to be like the old one, but for what was said.
    let mut args = args.clone();
    args.config = args.config.or_else(|| old.config.clone().map(PathBuf::from));
    // It takes charge of what is in this one's state directory, whatever the environment says of others: found out
    // only after the old one has ended, a mistake would leave no daemon at all.
    args.state_dir = Some(PathBuf::from(&old.state_dir));
    if args.bind.is_empty() {
        args.bind = binds(&old.listen);
    }
    end(ctx, &old, "leave").await?;
    let new = launch(ctx, &args).await?;
    let runs = if old.runs == 1 {
        "1 run".to_owned()
    } else {
        format!("{} runs", old.runs)
    };
    ctx.out.talk(&format!(
        "{} {}; took charge of {} of {runs}",
        ctx.out.talk_glyph("good"),
        summary(&new),
        new.runs
    ));
    Ok(0)
}

/// What `--bind` was, from what it listens on; its socket aside.
fn binds(listen: &[String]) -> Vec<String> {
    let tcp: Vec<String> = listen
        .iter()
        .map(|address| {
            address
                .strip_prefix("http://")
                .unwrap_or(address)
                .trim_end_matches('/')
                .to_owned()
        })
        .filter(|address| !address.starts_with('/') && !address.starts_with("unix:"))
        .collect();
    if tcp.is_empty() {
        vec!["none".to_owned()]
    } else {
        tcp
    }
}

/// The systemd unit that a process belongs to, if it is one of gaffer.
fn unit_of(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let unit = text
        .lines()
        .flat_map(|line| line.split('/'))
        .find(|part| part.starts_with("gaffer") && part.ends_with(".service"))?;
    Some(unit.to_owned())
}

/// Its file again; what comes of it is told by an event.
async fn reload(ctx: &Context) -> Result<u8, Failure> {
    // On this machine the file can be looked at first, and its errors be shown with their places.
    let path = ctx.client.node().await?.config.map(PathBuf::from);
    if let (Endpoint::Unix(_), Some(path)) = (ctx.client.endpoint(), path.filter(|path| path.is_file())) {
        let bundle = crate::file::gather(&ctx.out, &[path], &FileArgs::default())?;
        crate::file::load(&ctx.out, &bundle)?;
    }
    let mut events = ctx.client.events(Some("end"), true, Some("config.*")).await?;
    let _: serde_json::Value = ctx.client.post("/v1/node/reload", &serde_json::json!({})).await?;
    let within = ctx.globals.timeout.unwrap_or(RELOADED_WITHIN);
    let event = match tokio::time::timeout(within, events.next()).await {
        Ok(Some(event)) => event?,
        _ => {
            return Err(Failure::failed("gafferd has not said that it applied its file")
                .hint("what it did:  gaffer events"));
        }
    };
    let reason = event
        .reason
        .map(|reason| format!(": {}", reason.text))
        .unwrap_or_default();
    if event.event != "config.applied" {
        return Err(Failure::failed(format!("its file is not applied{reason}"))
            .hint("what is wrong with it:  gaffer check FILE"));
    }
    ctx.out.talk(&format!(
        "{} its file is applied{reason}",
        ctx.out.talk_glyph("good")
    ));
    Ok(0)
}

fn count(number: impl Into<u64>, what: &str) -> String {
    let number = number.into();
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn summary(node: &Node) -> String {
    format!(
        "gafferd {}, pid {}; {}",
        node.version,
        node.pid,
        node.listen.join(", ")
    )
}

async fn status(ctx: &Context) -> Result<u8, Failure> {
    let node = ctx.client.node().await?;
    if !ctx.out.is_text() {
        ctx.out.json(&node)?;
        return Ok(0);
    }
    ctx.out.line(&format!(
        "{} gafferd {} on {}, pid {}, up {}",
        ctx.out.glyph("good"),
        node.version,
        node.node,
        node.pid,
        when::duration(node.up_ms)
    ))?;
    let say = |name: &str, text: &str| {
        ctx.out
            .line(&format!("  {}  {text}", ctx.out.dim(&format!("{name:11}"))))
    };
    say("listens", &node.listen.join(", "))?;
    say("state", &node.state_dir)?;
    say("file", node.config.as_deref().unwrap_or("none"))?;
    if let Some(reason) = &node.config_refused {
        say(
            "refused",
            &format!(
                "its last reload, nothing was changed: {}",
                crate::escape::escape(reason)
            ),
        )?;
    }
    say("contains", &node.containment)?;
    say(
        "jobs",
        &format!(
            "{}, {}, {}",
            count(node.jobs, "job"),
            count(node.runs, "live run"),
            count(node.epoch, "daemon start")
        ),
    )?;
    for shim in &node.shims {
        say(
            "shim",
            &format!(
                "pid {} for session {}: {}, {}",
                shim.pid,
                shim.session,
                count(shim.runs, "run"),
                shim.state
            ),
        )?;
    }
    Ok(0)
}

async fn install(ctx: &Context, print: bool, user: bool) -> Result<u8, Failure> {
    let program = program()?;
    let output = Command::new(&program).arg("--print-unit").output().await;
    let output =
        output.map_err(|error| Failure::failed(format!("{} cannot be run: {error}", program.display())))?;
    if !output.status.success() {
        return Err(Failure::failed(format!("{} prints no unit", program.display()))
            .hint(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    if print {
        ctx.out.bytes(&output.stdout)?;
        return Ok(0);
    }
    let dir = match user {
        false => PathBuf::from("/etc/systemd/system"),
        true => {
            let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
            let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
            let base = config
                .or(home)
                .ok_or_else(|| Failure::failed("there is no home folder: HOME is not set"))?;
            base.join("systemd/user")
        }
    };
    let path = dir.join("gafferd.service");
    if user {
        std::fs::create_dir_all(&dir)
            .map_err(|error| Failure::failed(format!("{} cannot be made: {error}", dir.display())))?;
    }
    let written = std::fs::write(&path, &output.stdout);
    written.map_err(|error| {
        Failure::failed(format!("{} cannot be written: {error}", path.display()))
            .hint("print it:  gaffer daemon install --print")
    })?;
    let flag = if user { " --user" } else { "" };
    ctx.out.talk(&format!(
        "wrote {}          start it:  systemctl{flag} enable --now gafferd",
        path.display()
    ));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_daemon_listens_where_the_old_one_did() {
        let listen = [
            "unix:/run/gaffer/gaffer.sock".to_owned(),
            "http://127.0.0.1:5000".to_owned(),
        ];
        assert_eq!(binds(&listen), ["127.0.0.1:5000"]);
        assert_eq!(binds(&listen[..1]), ["none"]);
    }
}
