//! One connection, its prepared statements, and what the server says unasked.

use super::tls::Target;
use super::{failed, schema};
use crate::port::StoreError;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Error, Notification, Row, Statement};

/// Longest time that a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(5);

/// A value of a statement.
pub(super) type Value<'a> = &'a (dyn ToSql + Sync);

/// A connection in use.
pub(super) struct Session {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    /// What the server says unasked, and why the connection ended.
    pub notices: UnboundedReceiver<Result<Notification, Error>>,
    /// The server's process, and when it began: pids come again.
    pub backend: (i32, i64),
    driver: tokio::task::AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        // With the socket closed the server ends what it was doing.
        self.driver.abort();
    }
}

impl Session {
    /// Connects, and says how this session works. `listens`: it hears of what other nodes do.
    pub async fn open(to: &Target, listens: bool) -> Result<Session, StoreError> {
        match tokio::time::timeout(CONNECT, Session::connect(to, listens)).await {
            Ok(session) => session,
            Err(_) => Err(StoreError::Unavailable(format!(
                "the database does not answer within {CONNECT:?}"
            ))),
        }
    }

    async fn connect(to: &Target, listens: bool) -> Result<Session, StoreError> {
        let (client, mut connection) = to.config.connect(to.tls.clone()).await.map_err(failed)?;
        let (said, notices) = unbounded_channel();
        let driver = tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                let message = match message {
                    Ok(AsyncMessage::Notification(notification)) => Ok(notification),
                    Ok(_) => continue,
                    Err(error) => Err(error),
                };
                // After an error there is nothing but that error.
                let over = message.is_err();
                if said.send(message).is_err() || over {
                    return;
                }
            }
        });
        let mut session = Session {
            client,
            statements: Mutex::default(),
            notices,
            backend: (0, 0),
            driver: driver.abort_handle(),
        };
        session.set_up(listens).await?;
        Ok(session)
    }

    async fn set_up(&mut self, listens: bool) -> Result<(), StoreError> {
        let row = self
            .client
            .query_one(
                "SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint, current_setting('server_version_num')::int,
                    current_setting('synchronous_commit'), pg_is_in_recovery() FROM pg_stat_activity WHERE pid = pg_backend_pid()",
                &[],
            )
            .await
            .map_err(failed)?;
        self.backend = (row.get(0), row.get(1));
        let version: i32 = row.get(2);
        if version < 130_000 {
            return Err(StoreError::Unavailable(format!(
                "PostgreSQL {} is too old: 13 or newer is needed",
                version / 10_000
            )));
        }
        if row.get(4) {
            return Err(StoreError::Unavailable(
                "the database is a standby: tasks cannot be taken there".to_owned(),
            ));
        }
        // A stalled node must not hold rows for ever. Statements are written for their indexes: a plan made from statistics of a
        // table that was empty a moment ago is worse than none.
        self.client
            .batch_execute(
                "SET search_path = gaffer; SET lock_timeout = '5s'; SET statement_timeout = '10s';
                 SET idle_in_transaction_session_timeout = '20s'; SET jit = off; SET client_min_messages = warning;
                 SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off",
            )
            .await
            .map_err(failed)?;
        if row.get::<_, &str>(3) == "off" {
            self.client
                .batch_execute("SET synchronous_commit = on")
                .await
                .map_err(failed)?;
        }
        if listens {
            let listen = format!("LISTEN {}", schema::CHANNEL);
            self.client.batch_execute(&listen).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Tables are there, in this version.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        schema::migrate(&self.client).await
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn prepared(&self, sql: &str) -> Result<Statement, Error> {
        let known = self.known().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.known().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Rows of a statement, which is prepared once.
    pub async fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        let statement = self.prepared(sql).await?;
        self.client.query(&statement, values).await
    }

    /// The first row.
    pub async fn first(&self, sql: &str, values: &[Value<'_>]) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// Rows changed.
    pub async fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, Error> {
        let statement = self.prepared(sql).await?;
        self.client.execute(&statement, values).await
    }

    /// Statements without values.
    pub async fn run(&self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
