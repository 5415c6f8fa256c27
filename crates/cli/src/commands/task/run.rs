//! `task run`: a task here, led by a runner of its own; and `task start`, which hands it to the daemon.

use super::screen::Progress;
use super::{exit_of, wait_for};
use crate::args::task::{TaskFileArgs, TaskRunArgs, TaskStartArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::file;
use crate::foreground::Signals;
use crate::private::Private;
use crate::runner;
use gaffer_api::client::ClientError;
use gaffer_api::types::task::{Task, TaskKillRequest, TaskRequest};
use gaffer_config::{ThermosContext, load_thermos};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the task of a command, as Thermos has it.
const SIMPLE: &str = "simple";
/// The daemon may hold an answer so long.
const HOLD: Duration = Duration::from_secs(30);
/// A runner that was killed is replaced so often.
const RUNNERS_MAX: u32 = 100;

/// Reads the file, checks it with its place in the file, and gives what is asked of a daemon.
fn request(ctx: &Context, args: &TaskFileArgs, id: Option<&str>) -> Result<TaskRequest, Failure> {
    let (text, path) = match &args.file {
        Some(path) => (read(path)?, path.clone()),
        None => {
            let step = json!({ "name": SIMPLE, "cmdline": args.command.join(" ") });
            (
                json!({ "name": SIMPLE, "processes": [step] }).to_string(),
                PathBuf::from("CMD"),
            )
        }
    };
    let cwd = match (&args.cwd, &args.file) {
        (Some(cwd), _) => Some(cwd.clone()),
        (None, Some(_)) => Some(PathBuf::from(".")),
        (None, None) => None,
    };
    let sandbox = cwd.map(|cwd| {
        std::path::absolute(&cwd)
            .map(|cwd| {
                cwd.components()
                    .collect::<PathBuf>()
                    .to_string_lossy()
                    .into_owned()
            })
            .map_err(|error| Failure::usage(format!("{}: {error}", cwd.display())))
    });
    let mut context = ThermosContext {
        task: args.task.clone(),
        task_id: id.unwrap_or("ID").to_owned(),
        user: args.user.clone().unwrap_or_default(),
        ports: args.ports.iter().cloned().collect(),
        bindings: args.vars.iter().cloned().collect(),
        sandbox: sandbox.transpose()?.unwrap_or_else(|| "/".to_owned()),
    };
    let task = load_thermos(&text, &path, &context).map_err(|found| file::invalid(&ctx.out, &found))?;
    let id = match id {
        Some(id) => id.to_owned(),
        None => format!(
            "{}-{}",
            task.spec.name,
            jiff::Zoned::now().strftime("%Y%m%d-%H%M%S.%6f")
        ),
    };
    runner::check_id(&id)?;
    let has_place = args.cwd.is_some() || args.file.is_some();
    Ok(TaskRequest {
        task: None,
        text: Some(text),
        name: args.task.clone(),
        id: Some(id),
        ports: context.ports,
        bindings: context.bindings,
        user: args.user.clone(),
        sandbox: has_place.then(|| std::mem::take(&mut context.sandbox)),
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    if path.extension().is_some_and(|extension| extension == "toml") {
        return Err(Failure::usage(format!(
            "{}: tasks in TOML come with a later version",
            path.display()
        ))
        .hint("a task file is JSON: {\"name\": …, \"processes\": [{\"name\": …, \"cmdline\": …}]}"));
    }
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))
}

/// `task start`.
pub async fn start(ctx: &Context, args: &TaskStartArgs) -> Result<u8, Failure> {
    if let Some(id) = &args.file.id {
        runner::check_id(id)?;
    }
    let request = request(ctx, &args.file, args.file.id.as_deref())?;
    let task = ctx.client.task_start(&request).await?;
    if args.wait {
        let task = wait_for(ctx, None, &task.id).await?;
        return print_result(ctx, &task, true);
    }
    match ctx.out.is_text() {
        true => ctx.out.line(&task.id)?,
        false => ctx.out.json(&task)?,
    }
    Ok(0)
}

fn print_result(ctx: &Context, task: &Task, text: bool) -> Result<u8, Failure> {
    match (ctx.out.is_text(), text) {
        (false, _) => ctx.out.json(task)?,
        (true, true) => ctx
            .out
            .line(&format!("{}  {}  {}", task.id, task.state, task.reason))?,
        (true, false) => {}
    }
    Ok(exit_of(task))
}

/// `task run`.
pub async fn run(ctx: &Context, args: &TaskRunArgs) -> Result<u8, Failure> {
    let root = runner::root(args.root.as_deref())?;
    let request = request(ctx, &args.file, args.file.id.as_deref())?;
    let id = request.id.clone().unwrap_or_default();
    // From here on a signal is a wish about the task.
    let mut signals = Signals::watch()?;
    let private = runner::start(&root, &id).await?;
    let task = match private.client.task_start(&request).await {
        Ok(task) => task,
        Err(error) => {
            private.let_go().await;
            return Err(error.into());
        }
    };
    if task.location == "finished" {
        private.let_go().await;
        ctx.out.talk(&format!("task {id} is over already"));
        return print_result(ctx, &task, true);
    }
    if args.detach {
        return detached(ctx, &task);
    }
    if ctx.out.is_text() {
        ctx.out.talk(&format!(
            "task {id} in {}; status: gaffer task status {id} --root {}",
            root.display(),
            root.display()
        ));
    }
    let mut led = Led {
        ctx,
        root: &root,
        id: &id,
        request: &request,
        private: Some(private),
        asked: 0,
    };
    let outcome = led.follow_its_end(task, args.plain, &mut signals).await;
    if let Some(private) = led.private.take() {
        private.let_go().await;
    }
    match outcome? {
        Some(task) => print_result(ctx, &task, false),
        None => Ok(1),
    }
}

/// The runner ends with the task, as its leash breaks when we end.
fn detached(ctx: &Context, task: &Task) -> Result<u8, Failure> {
    match ctx.out.is_text() {
        true => ctx.out.line(&task.id)?,
        false => ctx.out.json(task)?,
    }
    Ok(0)
}

/// A task that is led by a runner of ours.
struct Led<'a> {
    ctx: &'a Context,
    root: &'a Path,
    id: &'a str,
    request: &'a TaskRequest,
    private: Option<Private>,
    asked: u32,
}

impl Led<'_> {
    /// Shows the task until it is over. None: we leave it to its runner.
    async fn follow_its_end(
        &mut self,
        task: Task,
        plain: bool,
        signals: &mut Signals,
    ) -> Result<Option<Task>, Failure> {
        let mut progress = Progress::new(&self.ctx.out, plain);
        let mut task = task;
        let mut runners = 1;
        loop {
            progress.show(&task)?;
            if task.location == "finished" {
                return Ok(Some(task));
            }
            let client = self.client()?;
            tokio::select! {
                now = client.task_wait(self.id, Some(task.revision), HOLD) => match now {
                    Ok(now) => task = now,
                    Err(ClientError::Unreachable { .. }) if runners < RUNNERS_MAX => {
                        runners += 1;
                        task = self.again().await?;
                    }
                    Err(error) => return Err(error.into()),
                },
                why = signals.next() => {
                    if why == "a hang-up" {
                        self.ctx.out.talk(&format!("task {} goes on", self.id));
                        return Ok(None);
                    }
                    self.interrupted(why).await?;
                }
            }
        }
    }

    fn client(&self) -> Result<gaffer_api::Client, Failure> {
        let private = self.private.as_ref();
        private
            .map(|private| private.client.clone())
            .ok_or_else(|| Failure::failed("the runner is gone"))
    }

    /// Somebody killed the runner: another one takes charge.
    async fn again(&mut self) -> Result<Task, Failure> {
        if let Some(gone) = self.private.take() {
            gone.let_go().await;
        }
        let private = runner::start(self.root, self.id).await?;
        let task = private.client.task_start(self.request).await;
        self.private = Some(private);
        Ok(task?)
    }

    async fn interrupted(&mut self, why: &str) -> Result<(), Failure> {
        self.asked += 1;
        let force = self.asked > 1;
        match force {
            false => self
                .ctx
                .out
                .talk(&format!("ending the task, asked by {why}; again: KILL")),
            true => self.ctx.out.talk("KILL"),
        }
        let kill = TaskKillRequest {
            force,
            ..TaskKillRequest::default()
        };
        match self.client()?.task_kill(self.id, &kill).await {
            Ok(_) => Ok(()),
            // It was over before it heard of it; or its runner is just being replaced.
            Err(ClientError::Api(..) | ClientError::Unreachable { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
