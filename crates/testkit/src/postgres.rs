//! A real PostgreSQL of a test: its own data directory, a unix socket, nobody else's port.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server with a database `queue`.
pub struct Postgres {
    dir: tempfile::TempDir,
    programs: PathBuf,
    server: Option<Child>,
    /// Not the usual one.
    port: Option<u16>,
    /// Options of the server in addition.
    more: Vec<String>,
}

/// PostgreSQL refuses to run as root.
fn unprivileged(command: &mut Command) -> Option<u32> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let ids = Command::new("id").args(["-u", "postgres"]).output().ok()?;
    let uid: u32 = String::from_utf8_lossy(&ids.stdout).trim().parse().ok()?;
    let gids = Command::new("id").args(["-g", "postgres"]).output().ok()?;
    let gid: u32 = String::from_utf8_lossy(&gids.stdout).trim().parse().ok()?;
    command.uid(uid).gid(gid);
    Some(uid)
}

/// Where `initdb` and `postgres` are: Debian keeps them out of the PATH.
fn programs() -> PathBuf {
    let of_debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<PathBuf> = of_debian.map(|version| version.path().join("bin")).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    let found = found
        .into_iter()
        .find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists());
    found.expect("PostgreSQL is installed (Debian: apt-get install postgresql)")
}

impl Postgres {
    /// Makes a cluster and starts its server.
    ///
    /// # Panics
    ///
    /// PostgreSQL is not installed, or does not start: its log is shown.
    pub fn start() -> Postgres {
        let dir = tempfile::tempdir().expect("a directory");
        let mut postgres = Postgres {
            dir,
            programs: programs(),
            server: None,
            port: None,
            more: Vec::new(),
        };
        if let Some(uid) = unprivileged(&mut Command::new("true")) {
            std::os::unix::fs::chown(postgres.dir.path(), Some(uid), None).expect("given away");
        }
        let data = postgres.dir.path().join("data");
        let made = postgres
            .command("initdb")
            .arg("-D")
            .arg(&data)
            .args([
                "-U",
                "gaffer",
                "--auth=trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ])
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.start_again();
        postgres.sql_in("postgres", "CREATE DATABASE queue");
        postgres
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        unprivileged(&mut command);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Starts the server on what is there.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("a log");
        let server = self
            .command("postgres")
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .arg("-k")
            .arg(self.dir.path())
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "shared_buffers=32MB",
                "-c",
                "max_connections=60",
            ])
            .args(["-c", "checkpoint_timeout=1h", "-c", "autovacuum_naptime=10s"])
            .args(&self.more)
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("postgres");
        self.server = Some(server);
        crate::wait_until(Duration::from_secs(60), "PostgreSQL answers", || {
            let ready = self.psql("postgres").args(["-c", "SELECT 1"]).output();
            ready.is_ok_and(|ready| ready.status.success())
        });
    }

    /// Starts it anew, speaking TLS with this certificate and key (PEM) on a port of this machine, besides its socket. Gives the port.
    pub fn speak_tls(&mut self, certificate: &str, key: &str) -> u16 {
        use std::os::unix::fs::PermissionsExt;
        self.end(rustix::process::Signal::INT);
        for (name, text) in [("server.pem", certificate), ("server.key", key)] {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("private");
            if let Some(uid) = unprivileged(&mut Command::new("true")) {
                std::os::unix::fs::chown(&path, Some(uid), None).expect("given away");
            }
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        self.more = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", file("server.pem")),
            format!("ssl_key_file={}", file("server.key")),
        ]
        .into_iter()
        .flat_map(|option| ["-c".to_owned(), option])
        .collect();
        self.port = Some(port);
        self.start_again();
        port
    }

    /// Ends it as a loss of power would end a server: nothing is written any more, nobody is told.
    pub fn crash(&mut self) {
        self.end(rustix::process::Signal::QUIT);
    }

    fn end(&mut self, signal: rustix::process::Signal) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        if let Some(process) = crate::process::Handle::open(server.id()) {
            // It may have ended by itself.
            process.signal(signal);
        }
        server.wait().expect("waited for");
    }

    /// The server's process, which the tests may freeze.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().map_or(0, Child::id)
    }

    /// Folder of the unix socket.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// URL of the database.
    pub fn url(&self) -> String {
        self.url_of("queue")
    }

    /// URL of another database of this server.
    pub fn url_of(&self, database: &str) -> String {
        let dir = self.dir.path().to_string_lossy().replace('/', "%2F");
        format!("postgres://gaffer@{dir}/{database}")
    }

    fn psql(&self, database: &str) -> Command {
        let mut psql = self.command("psql");
        psql.args([
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "gaffer",
            "-d",
            database,
            "-h",
        ])
        .arg(self.dir.path());
        if let Some(port) = self.port {
            psql.args(["-p", &port.to_string()]);
        }
        psql
    }

    /// What a statement answers, as `psql -At` prints it.
    ///
    /// # Panics
    ///
    /// It fails.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("queue", sql)
    }

    /// The same in another database.
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The answer, or what psql complained of.
    ///
    /// # Errors
    ///
    /// The statement fails.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let answer = self.psql(database).args(["-c", sql]).output().expect("psql");
        match answer.status.success() {
            true => Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&answer.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(rustix::process::Signal::QUIT);
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("PostgreSQL said:\n{log}");
        }
    }
}
