//! `gafferd`: the daemon of a node.

use clap::Parser;
use gafferd::access::{admin, import};
use gafferd::background::{self, Side, Waiter};
use gafferd::life::{self, LifeError};
use gafferd::options::Options;
use gafferd::setup::{self, Plan};
use gafferd::sink::Sink;
use gafferd::{doctor, http, journal, oom, unit, writer};
use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.print_openapi {
        print!("{}", http::router::openapi_json());
        return ExitCode::SUCCESS;
    }
    if options.print_unit {
        return print_unit(&options);
    }
    if let Some(file) = &options.read_checkpoint {
        return print_checkpoint(file);
    }
    match start(&options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(options: &Options) -> Result<u8, LifeError> {
    let plan = setup::plan(options)?;
    if options.create_admin_user || options.list_admins || options.import_keys.is_some() {
        return administrate(options, &plan);
    }
    if options.doctor {
        return Ok(print_doctor(&plan));
    }
    keep_memory_small();
    outlive_size_limits();
    oom::spare_this_process();
    // What cannot be raised is as it is; the engine says so if it is too low.
    let _raised = gaffer::raise_open_files();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(plan.daemon.umask));
    let leash = options.leash_fd.map(life::leash).transpose()?;
    let waiter = match options.daemon {
        false => None,
        true => match background::split().map_err(|source| system("cannot go to the background", source))? {
            Side::Foreground(code) => return Ok(code),
            Side::Background(waiter) => Some(waiter),
        },
    };
    let sink =
        Sink::open(&plan.daemon.log_to).map_err(|why| LifeError::Setup(setup::SetupError::Wrong(why)))?;
    journal::begin(plan.level, sink).map_err(|source| system("the log cannot be written", source))?;
    // One thread does everything: it is the smallest, and nothing wakes a second one. What blocks (the store, the
    // shims) has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| system("the runtime cannot be made", source))?;
    let log = plan.engine.state_dir.join("gafferd.log");
    let waiter: Rc<Cell<Option<Waiter>>> = Rc::new(Cell::new(waiter));
    let at_ready = waiter.clone();
    let ready = move || {
        if let Some(waiter) = at_ready.take()
            && let Err(error) = waiter.ready(&log)
        {
            tracing::error!(error = %error, "background.failed");
        }
    };
    let lived = runtime.block_on(life::live(plan, leash, ready));
    writer::flush();
    if let (Some(waiter), Err(error)) = (waiter.take(), &lived) {
        report(error);
        waiter.failed(error.exit_code());
        return Ok(error.exit_code());
    }
    lived
}

/// What is done with users while no daemon need run.
fn administrate(options: &Options, plan: &Plan) -> Result<u8, LifeError> {
    let dir = &plan.engine.state_dir;
    if options.list_admins {
        return Ok(admin::list(dir)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| system("the runtime cannot be made", source))?;
    if let Some(from) = &options.import_keys {
        return Ok(runtime.block_on(import::import(dir, from))?);
    }
    let (name, password) = (options.username.clone(), options.password.clone());
    Ok(runtime.block_on(admin::create(dir, name, password))?)
}

fn system(what: &str, source: std::io::Error) -> LifeError {
    LifeError::System {
        what: what.to_owned(),
        source,
    }
}

/// Errors as clients print them; those of a file are rendered with their place.
fn report(error: &LifeError) {
    match error {
        LifeError::Setup(setup::SetupError::Config(diagnostics)) => {
            writer::say(diagnostics.render(false));
            writer::say("nothing was changed".to_owned());
        }
        error => writer::say(format!("error: {error}")),
    }
    writer::flush();
}

/// Two arenas: more would each keep what they once needed.
fn keep_memory_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt may be called while there is one thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// A file that reached the limit of its size (`ulimit -f`) refuses what is written to it, as a full disk does. The signal that comes with
/// it would be the end of the daemon. Shims put it back before they start anything.
fn outlive_size_limits() {
    // SAFETY: no handler is installed, and there is one thread.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

fn print_checkpoint(file: &std::path::Path) -> ExitCode {
    match gafferd::checkpoint::read(file) {
        Ok(found) => {
            println!("{found:#}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn print_unit(options: &Options) -> ExitCode {
    let Ok(program) = std::env::current_exe() else {
        eprintln!("error: the path of this program is not known");
        return ExitCode::FAILURE;
    };
    let config = options
        .config
        .as_deref()
        .and_then(|path| std::path::absolute(path).ok());
    print!(
        "{}",
        unit::text(&program, config.as_deref(), rustix::process::getuid().is_root())
    );
    ExitCode::SUCCESS
}

fn print_doctor(plan: &Plan) -> u8 {
    let setup = doctor::Setup {
        state_dir: plan.engine.state_dir.clone(),
        socket: plan.socket.clone(),
        require_token: plan.daemon.require_token,
    };
    let found = doctor::examine(&setup, None, &[]);
    // Checks are texts: they always have a JSON form.
    println!("{}", serde_json::to_string_pretty(&found).unwrap_or_default());
    u8::from(found.checks.iter().any(|check| check.state == "bad"))
}
