//! What the daemon listens at: opened before anything else, changed by a reload of its file.

use crate::http::Shared;
use crate::http::server::{serve_tcp, serve_unix};
use crate::listen::{self, Access, Bind, ControlSocket, ListenError};
use axum::Router;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// An open listener.
pub struct Opened {
    bind: Bind,
    socket: Socket,
    /// A port 0 has become a number here.
    address: Option<SocketAddr>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(ControlSocket),
}

impl Opened {
    fn open(bind: &Bind, backlog: u32) -> Result<Opened, ListenError> {
        let (socket, address) = match bind {
            Bind::Tcp(address) => {
                let listener = listen::tcp(*address, backlog)?;
                let source = |source| ListenError::Tcp {
                    address: *address,
                    source,
                };
                let bound = listener.local_addr().map_err(source)?;
                (Socket::Tcp(listener), Some(bound))
            }
            Bind::Unix(path) => (Socket::Unix(listen::unix(path, &Access::default())?), None),
        };
        Ok(Opened {
            bind: bind.clone(),
            socket,
            address,
        })
    }

    fn serve(self, app: &Shared, router: &Router) -> Served {
        let (app, router) = (app.clone(), router.clone());
        let task = match self.socket {
            Socket::Tcp(listener) => tokio::spawn(serve_tcp(app, router, listener)),
            Socket::Unix(socket) => tokio::spawn(serve_unix(app, router, socket)),
        };
        Served {
            bind: self.bind,
            address: self.address,
            task: task.abort_handle(),
        }
    }
}

/// A listener in service.
struct Served {
    bind: Bind,
    address: Option<SocketAddr>,
    task: AbortHandle,
}

/// All listeners: the control socket, and those of `bind`.
pub struct Bound {
    opened: Vec<Opened>,
    control: Option<ControlSocket>,
    served: Vec<Served>,
    shown_control: String,
    backlog: u32,
}

impl Bound {
    /// Opens everything; nothing is served yet.
    pub fn open(binds: &[Bind], backlog: u32, control: &Path, access: &Access) -> Result<Bound, ListenError> {
        let opened: Result<Vec<Opened>, ListenError> =
            binds.iter().map(|bind| Opened::open(bind, backlog)).collect();
        Ok(Bound {
            opened: opened?,
            control: Some(listen::unix(control, access)?),
            served: Vec::new(),
            shown_control: format!("unix:{}", control.display()),
            backlog,
        })
    }

    /// Begins to serve.
    pub fn serve(&mut self, app: &Shared, router: &Router) {
        if let Some(control) = self.control.take() {
            tokio::spawn(serve_unix(app.clone(), router.clone(), control));
        }
        let opened = std::mem::take(&mut self.opened);
        self.served
            .extend(opened.into_iter().map(|one| one.serve(app, router)));
    }

    /// Opens what is in the list and not in service yet. An error changes nothing.
    pub fn open_missing(&self, binds: &[Bind]) -> Result<Vec<Opened>, ListenError> {
        binds
            .iter()
            .filter(|bind| !self.served.iter().any(|served| served.bind == **bind))
            .map(|bind| Opened::open(bind, self.backlog))
            .collect()
    }

    /// From now on the list counts. Connections that are there stay.
    pub fn switch(&mut self, binds: &[Bind], opened: Vec<Opened>, app: &Shared, router: &Router) {
        self.served.retain(|served| {
            let wanted = binds.contains(&served.bind);
            if !wanted {
                served.task.abort();
            }
            wanted
        });
        self.served
            .extend(opened.into_iter().map(|one| one.serve(app, router)));
    }

    /// Addresses with their ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let opened = self.opened.iter().filter_map(|one| one.address);
        opened
            .chain(self.served.iter().filter_map(|one| one.address))
            .collect()
    }

    /// As shown to people.
    pub fn shown(&self, scheme: &str) -> Vec<String> {
        let mut shown: Vec<String> = self
            .addresses()
            .iter()
            .map(|address| format!("{scheme}://{address}"))
            .collect();
        let opened = self.opened.iter().map(|one| &one.bind);
        for bind in opened.chain(self.served.iter().map(|one| &one.bind)) {
            if let Bind::Unix(path) = bind {
                shown.push(format!("unix:{}", path.display()));
            }
        }
        shown.push(self.shown_control.clone());
        shown
    }
}
