//! A database that many nodes share.
//!
//! One connection writes. Everything that comes while it commits is its next transaction (*group commit*), and pushes and outcomes
//! that come together are one statement each. A transaction that fails is undone, and each of its requests is tried alone.
//!
//! **Others work on the same rows.** A claim passes over rows that another node is taking (`FOR UPDATE SKIP LOCKED`). Claims of a queue
//! with limits wait for each other; what is counted are rows that run. Nodes tell each other of pushes and of what operators say by
//! `NOTIFY`, in the transaction that it is about; a look every 5 s stands behind it.
//!
//! **The connection may break at any time.** Requests are refused at once until it is back. A transaction whose `COMMIT` was under way
//! is in doubt: each one writes its number into a row of its own (`commit_mark`), and the next connection first ends the server's
//! process of the old one, then reads that row. (`pg_xact_status` cannot tell: numbers of transactions come again after a crash of
//! the server.) Only then whoever asked is answered, so that no claim is ours without our knowing.
//!
//! **Times are the database's.** What a node's clock differs by is measured and added.
//!
//! Programs push with `SELECT gaffer.enqueue(queue, kind, payload, options)` within their own transactions.

mod batch;
mod changes;
mod claim;
mod clock;
mod keeper;
mod minutes;
mod moves;
mod push;
mod rows;
mod schema;
mod session;
mod settle;
mod signs;
mod tls;

use crate::port::{Done, Request, StoreError};
use session::Session;
use std::error::Error as _;
use std::time::Duration;
use tls::Target;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_postgres::config::Host;

/// A server that says nothing for so long is given up, with the connection.
const PATIENCE: Duration = Duration::from_secs(15);

/// What others did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// There may be tasks.
    Tasks,
    /// An operator said something about a queue or a task, or nothing was heard for a while: all of it is to be asked again.
    Told,
}

/// Called when somebody else changed the store.
pub type Bell = Box<dyn Fn(Rung) + Send>;

/// Why a request was not done.
enum Trouble {
    /// Alone: the transaction goes on.
    Refused(StoreError),
    /// With all of its transaction.
    Sql(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Trouble {
        Trouble::Sql(error)
    }
}

enum Message {
    Ask(Request, Done),
    Close(oneshot::Sender<()>),
}

/// Talks to a database. Cheap to clone; its connections end with the last clone.
#[derive(Clone)]
pub struct Postgres {
    writer: UnboundedSender<Message>,
    reader: UnboundedSender<(Request, Done)>,
}

impl Postgres {
    /// Connects, brings the tables to this version, and keeps the connection from now on. It lives on the runtime that this is called on.
    ///
    /// # Errors
    ///
    /// The URL is wrong, the database cannot be reached, is too old, or its tables are of a newer version.
    pub async fn open(url: &str, bell: Bell) -> Result<Postgres, StoreError> {
        let config = config(url)?;
        let session = Session::open(&config, true).await?;
        session.migrate().await?;
        let (writer, asked) = unbounded_channel();
        let (reader, reads) = unbounded_channel();
        let keeper = keeper::Keeper::new(config.clone(), asked, bell);
        tokio::spawn(keeper.run(session));
        tokio::spawn(serve_reads(config, reads));
        Ok(Postgres { writer, reader })
    }

    /// See [`crate::Store::ask`]. Lists and counts do not wait for what is being written.
    pub fn ask(&self, request: Request, done: Done) {
        let given_back = match request {
            Request::Tasks(_) | Request::Counts(_) => {
                self.reader.send((request, done)).err().map(|error| error.0.1)
            }
            request => match self.writer.send(Message::Ask(request, done)) {
                Err(error) => match error.0 {
                    Message::Ask(_, done) => Some(done),
                    Message::Close(_) => None,
                },
                Ok(()) => None,
            },
        };
        if let Some(done) = given_back {
            done(Err(StoreError::Unavailable("it is closed".to_owned())));
        }
    }

    /// See [`crate::Store::end`].
    pub fn end(&self) {
        let (tx, _nobody) = oneshot::channel();
        // It may have ended already.
        let _ended = self.writer.send(Message::Close(tx));
    }

    /// Writes what is pending and ends the connection.
    pub async fn close(&self) {
        let (tx, rx) = oneshot::channel();
        if self.writer.send(Message::Close(tx)).is_ok() {
            let _ended = rx.await;
        }
    }
}

/// Which database a URL names: `postgres://HOST:PORT/DATABASE`, without who comes and with which password. Two URLs with the same
/// answer are the same store.
///
/// # Errors
///
/// The URL cannot be read; the text does not repeat it.
pub fn name_of(url: &str) -> Result<String, StoreError> {
    let config = tls::target(url)?.config;
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let hosts: Vec<String> = hosts.collect();
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    let port = if ports.is_empty() {
        "5432".to_owned()
    } else {
        ports.join(",")
    };
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    Ok(format!("postgres://{}:{port}/{database}", hosts.join(",")))
}

/// What a URL says, and what it leaves open.
fn config(url: &str) -> Result<Target, StoreError> {
    let mut target = tls::target(url)?;
    if target.config.get_application_name().is_none() {
        target.config.application_name("gaffer");
    }
    // A network that swallows everything is noticed.
    target.config.keepalives_idle(Duration::from_secs(10));
    target.config.tcp_user_timeout(Duration::from_secs(15));
    Ok(target)
}

/// What PostgreSQL says, in one line.
fn words(error: &tokio_postgres::Error) -> String {
    let mut text = match error.as_db_error() {
        Some(said) => said.message().to_owned(),
        None => error.to_string(),
    };
    let mut source = if error.as_db_error().is_some() {
        None
    } else {
        error.source()
    };
    while let Some(deeper) = source {
        let more = deeper.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = deeper.source();
    }
    text
}

fn failed(error: tokio_postgres::Error) -> StoreError {
    StoreError::Unavailable(format!("the database: {}", words(&error)))
}

async fn serve_reads(config: Target, mut reads: UnboundedReceiver<(Request, Done)>) {
    let mut session: Option<Session> = None;
    while let Some((request, done)) = reads.recv().await {
        if session.as_ref().is_none_or(Session::is_closed) {
            session = match Session::open(&config, false).await {
                Ok(session) => Some(session),
                Err(error) => {
                    done(Err(error));
                    continue;
                }
            };
        }
        let Some(open) = &session else { continue };
        let look = async {
            match &request {
                Request::Tasks(filter) => rows::tasks(open, filter).await,
                Request::Counts(queue) => rows::counts(open, queue).await,
                // Nothing else is sent here.
                _ => Err(Trouble::Refused(StoreError::Unavailable("not a list".to_owned()))),
            }
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(answer) => done(answer.map_err(|trouble| match trouble {
                Trouble::Refused(error) => error,
                Trouble::Sql(error) => failed(error),
            })),
            Err(_) => {
                done(Err(StoreError::Unavailable(
                    "the database does not answer".to_owned(),
                )));
                session = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_database_has_no_password_and_is_the_same_for_all_who_come() {
        let name = |url: &str| name_of(url).expect("a URL");
        let one = name("postgres://gaffer:SECRET@db.example/queue?sslmode=disable");
        assert_eq!(one, "postgres://db.example:5432/queue");
        assert_eq!(one, name("postgresql://other:pass@db.example:5432/queue"));
        assert_ne!(one, name("postgres://gaffer@db.example:5433/queue"));
        assert_ne!(one, name("postgres://gaffer@db.example/other"));
        assert_eq!(name("postgres://me@%2Frun%2Fpg/q"), "postgres:///run/pg:5432/q");
        let error = name_of("postgres://gaffer:SECRET@h:x/q").expect_err("no port");
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}
