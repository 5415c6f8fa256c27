//! `task run`: a task here, led by a runner of its own; and `task start`, which hands it to the daemon.

use super::output::StepOutput;
use super::screen::Progress;
use super::{exit_of, wait_for};
use crate::args::FileArgs;
use crate::args::task::{TaskFileArgs, TaskRunArgs, TaskStartArgs};
use crate::commands::queue as queues;
use crate::context::Context;
use crate::failure::Failure;
use crate::file;
use crate::foreground::Signals;
use crate::private::Private;
use crate::runner;
use gaffer_api::Client;
use gaffer_api::client::ClientError;
use gaffer_api::types::queue::PushRequest;
use gaffer_api::types::task::{Task, TaskKillRequest, TaskRequest, TaskStep};
use gaffer_config::{Config, LoadedTask, ThermosContext, load_thermos};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the task of a command, as Thermos has it.
const SIMPLE: &str = "simple";
/// The daemon may hold an answer so long.
const HOLD: Duration = Duration::from_secs(30);
/// So long a step that writes to the console may keep a line to itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A runner that was killed is replaced so often.
const RUNNERS_MAX: u32 = 100;

/// Reads the file, checks it with its place in the file, and gives what is asked of a daemon.
fn request(ctx: &Context, args: &TaskFileArgs, id: Option<&str>) -> Result<TaskRequest, Failure> {
    let is_toml = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
    let mut request = match &args.file {
        Some(path) if is_toml(path) => native(ctx, args, path, args.task.as_deref())?,
        Some(name) if !name.exists() && is_name(name) => {
            let here = file::find(None).filter(|path| is_toml(path));
            let Some(here) = here else {
                let message = format!(
                    "there is no file {}, and no gaffer.toml here or above",
                    name.display()
                );
                return Err(Failure::not_found(message));
            };
            native(ctx, args, &here, name.to_str())?
        }
        _ => thermos(ctx, args, id)?,
    };
    let id = match (id, &request.id) {
        (Some(id), _) => id.to_owned(),
        (None, Some(made)) => made.clone(),
        (None, None) => {
            let name = request.name.clone().unwrap_or_default();
            made_id(&name)
        }
    };
    runner::check_id(&id)?;
    request.id = Some(id);
    request.ports = args.ports.iter().cloned().collect();
    request.user.clone_from(&args.user);
    Ok(request)
}

/// Can it be the name of a task, perhaps with its session?
fn is_name(path: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    let text = path.to_str().filter(|text| !text.ends_with(".json"));
    text.is_some_and(|text| text.chars().all(plain))
}

fn made_id(name: &str) -> String {
    format!("{name}-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S.%6f"))
}

/// A task of a `gaffer.toml`. `-E` gives its parameters, and variables of the file.
fn native(
    ctx: &Context,
    args: &TaskFileArgs,
    path: &Path,
    wanted: Option<&str>,
) -> Result<TaskRequest, Failure> {
    let files = FileArgs {
        files: vec![path.to_owned()],
        profile: args.profile.clone(),
        vars: args
            .vars
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        ..FileArgs::default()
    };
    let bundle = file::gather(&ctx.out, &[], &files)?;
    let config = file::load(&ctx.out, &bundle)?;
    let task = chosen(&config, wanted, path)?;
    let known = |name: &String| task.params.contains_key(name) || config.vars.contains(name);
    if let Some((name, _)) = args.vars.iter().find(|(name, _)| !known(name)) {
        let message = format!(
            "`{name}` is neither a parameter of task {} nor a variable of the file",
            task.id.job
        );
        let all = task.params.keys().chain(&config.vars).map(String::as_str);
        let failure = Failure::usage(message);
        return Err(match gaffer_config::nearest(name, all) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure,
        });
    }
    let params = args
        .vars
        .iter()
        .filter(|(name, _)| task.params.contains_key(name));
    let params: BTreeMap<String, String> = params.cloned().collect();
    let missing = task
        .params
        .iter()
        .find(|(name, default)| default.is_none() && !params.contains_key(*name));
    if let Some((name, _)) = missing {
        let message = format!("task {} needs a value for parameter `{name}`", task.id.job);
        return Err(Failure::usage(message).hint(format!("give it one:  -E {name}=VALUE")));
    }
    Ok(TaskRequest {
        task: Some(task.typed.clone()),
        name: Some(task.id.job.to_string()),
        session: Some(task.id.session.to_string()),
        sandbox: args.cwd.as_deref().map(absolute).transpose()?,
        params,
        ..TaskRequest::default()
    })
}

/// The one task that is meant.
fn chosen<'c>(config: &'c Config, wanted: Option<&str>, path: &Path) -> Result<&'c LoadedTask, Failure> {
    let mut tasks: Vec<&LoadedTask> = config.tasks.values().collect();
    if let Some(wanted) = wanted {
        tasks.retain(|task| task.id.job.as_str() == wanted || task.id.to_string() == wanted);
    }
    match (&tasks[..], wanted) {
        ([one], _) => Ok(one),
        ([], Some(wanted)) => Err(no_task(config, wanted, path)),
        ([], None) => {
            let message = format!("there is no [task.X] in {}", path.display());
            Err(Failure::not_found(message).hint("how it is written:  docs/tasks.md"))
        }
        (several, _) => {
            let names: Vec<String> = several.iter().map(|task| task.id.to_string()).collect();
            let message = format!(
                "there are several tasks in {}: {}",
                path.display(),
                names.join(", ")
            );
            Err(Failure::usage(message).hint("name one:  --task NAME"))
        }
    }
}

fn no_task(config: &Config, wanted: &str, path: &Path) -> Failure {
    let names: Vec<&str> = config.tasks.keys().map(|id| id.job.as_str()).collect();
    let failure = Failure::not_found(format!("there is no task `{wanted}` in {}", path.display()));
    match (gaffer_config::nearest(wanted, names.iter().copied()), &names[..]) {
        (Some(near), _) => failure.hint(format!("did you mean `{near}`?")),
        (None, []) => failure,
        (None, names) => failure.hint(format!("there are {}", names.join(", "))),
    }
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let found =
        std::path::absolute(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    // Without `.` in the middle.
    Ok(found
        .components()
        .collect::<PathBuf>()
        .to_string_lossy()
        .into_owned())
}

/// A task file of Thermos, or a command.
fn thermos(ctx: &Context, args: &TaskFileArgs, id: Option<&str>) -> Result<TaskRequest, Failure> {
    let (text, path) = match &args.file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let unread = |error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
            (text.map_err(unread)?, path.clone())
        }
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
    let sandbox = cwd.map(|cwd| absolute(&cwd)).transpose()?;
    let context = ThermosContext {
        task: args.task.clone(),
        task_id: id.unwrap_or("ID").to_owned(),
        user: args.user.clone().unwrap_or_default(),
        run_as: None,
        ports: args.ports.iter().cloned().collect(),
        bindings: args.vars.iter().cloned().collect(),
        sandbox: sandbox.clone().unwrap_or_else(|| "/".to_owned()),
    };
    let task = load_thermos(&text, &path, &context).map_err(|found| file::invalid(&ctx.out, &found))?;
    Ok(TaskRequest {
        text: Some(text),
        name: args.task.clone(),
        id: id.is_none().then(|| made_id(&task.spec.name)),
        bindings: context.bindings,
        sandbox,
        ..TaskRequest::default()
    })
}

/// A task of a file that was applied: the daemon knows it.
fn by_name(ctx: &Context, args: &TaskFileArgs, name: &str) -> Result<TaskRequest, Failure> {
    if args.task.is_some() || args.user.is_some() {
        let failure = Failure::usage("--task and --user go with a file");
        return Err(failure.hint(format!("task {name} is what its file says")));
    }
    Ok(TaskRequest {
        name: Some(name.to_owned()),
        session: Some(ctx.session().to_owned()),
        id: args.id.clone(),
        params: args.vars.iter().cloned().collect(),
        ports: args.ports.iter().cloned().collect(),
        sandbox: args.cwd.as_deref().map(absolute).transpose()?,
        ..TaskRequest::default()
    })
}

/// `task start NAME --queue Q`: a queue whose tasks are runs of this one takes it, with the parameters as its payload.
async fn enqueue(ctx: &Context, args: &TaskStartArgs, queue: &str) -> Result<u8, Failure> {
    let file = &args.file;
    let name = file.file.as_ref().and_then(|name| name.to_str());
    let Some(name) = name.filter(|name| is_name(Path::new(name))) else {
        return Err(
            Failure::usage("a queue runs tasks of its gaffer.toml: which one, by name?")
                .hint(format!("gaffer task start NAME --queue {queue}")),
        );
    };
    let other = file.id.is_some() || file.task.is_some() || file.user.is_some() || file.cwd.is_some();
    if other || !file.ports.is_empty() {
        return Err(Failure::usage(
            "with --queue a task gets parameters (-E) and nothing else",
        ));
    }
    let (session, queue) = queues::find(ctx, queue).await?;
    let spec = ctx.client.queue(&session, &queue, true).await?.spec;
    let runs = spec
        .as_ref()
        .and_then(|spec| spec.get("task"))
        .and_then(Value::as_str);
    if runs != Some(name) {
        let message = format!("queue {session}.{queue} does not run task {name}");
        return Err(Failure::conflict(message).hint(match runs {
            Some(other) => format!("it runs {other}:  gaffer task start {other} --queue {queue}"),
            None => format!("in its file:  [queue.{queue}] task = \"{name}\""),
        }));
    }
    let params = file
        .vars
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()));
    let push = PushRequest {
        payload: Value::Object(params.collect()),
        delay: args.delay.map(|delay| format!("{}ms", delay.as_millis())),
        at: args.at.clone(),
        ..PushRequest::default()
    };
    queues::put(ctx, &session, &queue, push, args.wait).await
}

/// `task start`.
pub async fn start(ctx: &Context, args: &TaskStartArgs) -> Result<u8, Failure> {
    if let Some(queue) = &args.queue {
        return enqueue(ctx, args, queue).await;
    }
    if args.delay.is_some() || args.at.is_some() {
        let option = if args.at.is_some() { "--at" } else { "--in" };
        let failure = Failure::usage(format!("{option} is for tasks that wait in a queue: --queue Q"));
        return Err(failure.hint("at a time, without a queue:  [schedule.X] at = \"…\""));
    }
    if let Some(id) = &args.file.id {
        runner::check_id(id)?;
    }
    let defined = args
        .file
        .file
        .as_ref()
        .filter(|name| !name.exists() && is_name(name));
    let request = match defined.and_then(|name| name.to_str()) {
        Some(name) => by_name(ctx, &args.file, name)?,
        None => request(ctx, &args.file, args.file.id.as_deref())?,
    };
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
        runners: 1,
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
    /// How many there were.
    runners: u32,
}

/// What is shown of it.
struct RunScreen<'a> {
    progress: Progress<'a>,
    output: StepOutput,
}

impl RunScreen<'_> {
    /// Shows what steps with a console have written. False: nothing new.
    async fn output(&mut self, client: &Client, task: &Task) -> Result<bool, Failure> {
        let lines = self.output.lines(client, task, |step| step.console).await;
        self.progress.print(&lines)?;
        Ok(!lines.is_empty())
    }
}

impl Led<'_> {
    /// Shows the task until it is over. None: we leave it to its runner.
    async fn follow_its_end(
        &mut self,
        task: Task,
        plain: bool,
        signals: &mut Signals,
    ) -> Result<Option<Task>, Failure> {
        let mut screen = RunScreen {
            progress: Progress::new(&self.ctx.out, plain),
            output: StepOutput::default(),
        };
        let mut task = task;
        loop {
            let is_over = task.location == "finished";
            while screen.output(&self.client()?, &task).await? && is_over {}
            screen.progress.show(&task)?;
            if is_over {
                return Ok(Some(task));
            }
            match self.change(&task, &mut screen, signals).await? {
                Some(now) => task = now,
                None => return Ok(None),
            }
        }
    }

    /// The task when it has changed. None: we leave it to its runner.
    async fn change(
        &mut self,
        task: &Task,
        screen: &mut RunScreen<'_>,
        signals: &mut Signals,
    ) -> Result<Option<Task>, Failure> {
        let (client, id) = (self.client()?, self.id);
        let writes = |step: &TaskStep| step.console && step.state == "running";
        let may_write = task.steps.iter().any(writes);
        let change = client.task_wait(id, Some(task.revision), HOLD);
        tokio::pin!(change);
        loop {
            tokio::select! {
                now = &mut change => return match now {
                    Ok(now) => Ok(Some(now)),
                    Err(ClientError::Unreachable { .. }) if self.runners < RUNNERS_MAX => {
                        self.runners += 1;
                        self.again().await.map(Some)
                    }
                    Err(error) => Err(error.into()),
                },
                () = tokio::time::sleep(LOOK_EVERY), if may_write => {
                    if screen.output(&client, task).await? {
                        screen.progress.show(task)?;
                    }
                }
                why = signals.next() => {
                    if why == "a hang-up" {
                        self.ctx.out.talk(&format!("task {id} goes on"));
                        return Ok(None);
                    }
                    self.interrupted(why)?;
                }
            }
        }
    }

    fn client(&self) -> Result<Client, Failure> {
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

    fn interrupted(&mut self, why: &str) -> Result<(), Failure> {
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
        let (client, id) = (self.client()?, self.id.to_owned());
        // Not waited for: it may be asked to end in steps, and a second signal counts meanwhile. That it was over before it heard of it,
        // or that its runner is just being replaced, is no failure.
        tokio::spawn(async move {
            let _over = client.task_kill(&id, &kill).await;
        });
        Ok(())
    }
}
