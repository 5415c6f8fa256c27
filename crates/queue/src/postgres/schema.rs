//! Tables in the schema `gaffer` of a database, and their versions.

use crate::port::StoreError;
use tokio_postgres::Client;

/// Where notices of changes are heard: the payload is `tasks`, or `told` for what an operator said.
pub(super) const CHANNEL: &str = "gaffer_queue";

/// Numbers are never reused; a migration is never edited once released.
const MIGRATIONS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
];

/// Brings the database to this version. Nodes that start together wait for each other.
pub(super) async fn migrate(client: &Client) -> Result<(), StoreError> {
    client
        .batch_execute(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('gaffer schema', 0));
             CREATE SCHEMA IF NOT EXISTS gaffer;
             CREATE TABLE IF NOT EXISTS gaffer.version (version INTEGER NOT NULL);",
        )
        .await
        .map_err(super::failed)?;
    let found = client
        .query_one("SELECT COALESCE(MAX(version), 0) FROM gaffer.version", &[])
        .await
        .map_err(super::failed)?;
    let found: i32 = found.get(0);
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    if found > known {
        return Err(StoreError::Newer(format!(
            "the database was written by a newer version (schema {found}, this one knows {known}): start that version again"
        )));
    }
    for (number, sql) in (1i32..).zip(MIGRATIONS) {
        if number > found {
            client.batch_execute(sql).await.map_err(super::failed)?;
            client
                .execute("INSERT INTO gaffer.version VALUES ($1)", &[&number])
                .await
                .map_err(super::failed)?;
        }
    }
    client.batch_execute("COMMIT").await.map_err(super::failed)
}
