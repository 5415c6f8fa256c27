//! The daemon's own file again, on SIGHUP or when asked: all of it, or nothing.
//!
//! Everything that can fail comes first: reading, checking, opening the log and the listeners, committing the jobs. Then
//! what `[gaffer]` says is taken over, which cannot fail. A file that is refused is told by an event, by the log, and for
//! as long as it lasts by `gaffer daemon status` and `gaffer doctor`.

use crate::bound::{Bound, Opened};
use crate::guard::Guard;
use crate::http::{Live, RefusedFile};
use crate::life::{Life, actor_of, apply, origin};
use crate::listen::Bind;
use crate::peer::Uid;
use crate::setup::{self, File, SetupError};
use crate::sink::Sink;
use crate::{journal, listen, tls, view, writer};
use gaffer::Tuning;
use gaffer_config::{DaemonSettings, Diagnostics, Severity};
use std::sync::Arc;

/// What a file says and what it needs, ready to be taken over.
struct Next {
    file: File,
    daemon: DaemonSettings,
    sink: Sink,
    binds: Vec<Bind>,
    opened: Vec<Opened>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Life<'_> {
    /// Applies the file again; one with errors changes nothing.
    pub(crate) async fn reload(&mut self) {
        let Some(file) = self.plan.file.clone() else {
            tracing::warn!(reason = "the daemon was started without a file", "config.refused");
            return;
        };
        if let Some(manager) = &self.manager {
            manager.tell_reloading();
        }
        let outcome = match self.prepare(&file) {
            Ok(next) => match apply(&self.handle, &next.file).await {
                Ok(changed) => Ok((next, changed)),
                Err(gaffer::info::Error::Config(diagnostics)) => Err(first_of(&diagnostics)),
                Err(error) => Err(error.to_string()),
            },
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok((next, changed)) => {
                let (shown, by) = (next.file.path.display().to_string(), actor_of(&next.file));
                self.take_over(next);
                crate::plugins::load(&self.app).await;
                // Of changed jobs the engine has told already.
                if !changed {
                    self.handle.tell_file_read(shown, by, None);
                }
            }
            Err(reason) => self.refuse(&file, reason),
        }
        if let Some(manager) = &self.manager {
            manager.tell("READY=1");
        }
    }

    fn prepare(&self, file: &File) -> Result<Next, String> {
        let (file, daemon) =
            File::read(&file.path, &file.profiles, &file.options).map_err(|error| match error {
                SetupError::Config(diagnostics) => first_of(&diagnostics),
                error => error.to_string(),
            })?;
        // Opened anew also if it is the same: whoever moved the file away wants a new one.
        let sink = Sink::open(&daemon.log_to)?;
        let binds = match self.plan.fixed.bind {
            true => self.plan.binds.clone(),
            false => setup::binds(&daemon.bind).map_err(|error| error.to_string())?,
        };
        listen::check_reach(&binds, daemon.tls.is_some(), self.app.keyring.has_any())
            .map_err(|error| error.to_string())?;
        let tls = daemon.tls.as_ref().map(tls::config).transpose();
        let tls = tls.map_err(|error| error.to_string())?;
        let opened = self
            .bound
            .open_missing(&binds)
            .map_err(|error| error.to_string())?;
        Ok(Next {
            file,
            daemon,
            sink,
            binds,
            opened,
            tls,
        })
    }

    fn take_over(&mut self, next: Next) {
        let Next {
            file,
            daemon,
            sink,
            binds,
            opened,
            tls,
        } = next;
        writer::write_to(sink);
        if !self.plan.fixed.level {
            journal::write_up_to(setup::level_of(daemon.log_level));
        }
        self.handle.tune(Tuning::from(&daemon));
        self.bound.switch(&binds, opened, &self.app, &self.router);
        let origin = origin(&daemon, &self.bound, &self.plan.socket);
        self.registrar.serve(&daemon.lookup, &origin);
        let later = later(&self.plan.daemon, &daemon);
        if !later.is_empty() {
            tracing::warn!(keys = %later.join(","), "config.later");
        }
        let live = live(&daemon, &self.app.node, &self.bound, origin, tls);
        self.app.change(|now| *now = Live { later, ..live });
        self.plan.file = Some(file);
        self.plan.binds = binds;
    }

    fn refuse(&self, file: &File, reason: String) {
        // The log says so by the event.
        let shown = file.path.display().to_string();
        self.handle
            .tell_file_read(shown, actor_of(file), Some(reason.clone()));
        let refused = RefusedFile {
            at: view::now(),
            reason,
        };
        self.app.change(|now| now.refused = Some(refused));
    }
}

/// What `[gaffer]` says about requests, with what is listened at.
pub(crate) fn live(
    daemon: &DaemonSettings,
    node: &str,
    bound: &Bound,
    origin: String,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Live {
    let scheme = if tls.is_some() { "https" } else { "http" };
    Live {
        guard: Guard::new(
            Uid(rustix::process::geteuid().as_raw()),
            daemon.require_token,
            node,
            scheme,
            &bound.addresses(),
            &daemon.allow_hosts,
            &daemon.allow_origins,
        )
        .with_legacy_origins(&daemon.legacy_origins),
        listen: bound.shown(scheme),
        tls,
        nodes: daemon.nodes.clone(),
        lookup: daemon.lookup.clone(),
        origin,
        labels: daemon.labels.clone(),
        metrics: daemon.metrics,
        legacy_api: daemon.legacy_api,
        require_token: daemon.require_token,
        later: Vec::new(),
        refused: None,
    }
}

/// Keys that say something else than at the start, and count from the next one.
fn later(started: &DaemonSettings, now: &DaemonSettings) -> Vec<&'static str> {
    let keys = [
        ("name", started.name != now.name),
        ("socket", started.socket != now.socket),
        ("socket_owner", started.socket_owner != now.socket_owner),
        ("socket_mode", started.socket_mode != now.socket_mode),
        ("state_dir", started.state_dir != now.state_dir),
        ("backlog", started.backlog != now.backlog),
        ("queue_store", started.queue_store != now.queue_store),
        ("containment", started.containment != now.containment),
        ("plugins_dir", started.plugins_dir != now.plugins_dir),
        ("pidfile", started.pidfile != now.pidfile),
        ("umask", started.umask != now.umask),
    ];
    keys.into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
}

/// The first error in one line: `gaffer.toml:3:1: unknown key …; and 2 more`.
fn first_of(diagnostics: &Diagnostics) -> String {
    let errors: Vec<_> = diagnostics
        .iter()
        .filter(|one| one.severity == Severity::Error)
        .collect();
    let Some(first) = errors.first() else {
        return diagnostics.to_string();
    };
    let place = match (&first.file, first.line, first.column) {
        (Some(file), Some(line), Some(column)) => format!("{}:{line}:{column}: ", file.display()),
        (Some(file), _, _) => format!("{}: ", file.display()),
        _ => String::new(),
    };
    let more = match errors.len() {
        0 | 1 => String::new(),
        count => format!("; and {} more", count - 1),
    };
    format!("{place}{}{more}", first.message)
}
