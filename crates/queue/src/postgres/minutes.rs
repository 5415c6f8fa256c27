//! What was done, by the minute, by all nodes together.

use super::Trouble;
use super::session::Session;
use crate::port::Answer;
use crate::rows::{COUNT_MAX, MinuteRow};
use gaffer_core::queue::spec::QueueId;
use gaffer_core::time::Wall;
use tokio_postgres::Row;

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Adds to what is there.
pub(super) async fn add(
    session: &Session,
    rows: &[MinuteRow],
    keep: &[(QueueId, Wall)],
) -> Result<Answer, Trouble> {
    let add = format!(
        "INSERT INTO minute AS m (queue, minute, kind, begun, done, retried, dead, waited, waited_max, took, took_max, waiting)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
            (SELECT COUNT(*) FROM (SELECT 1 FROM task WHERE state = 'queued' AND queue = $1 LIMIT {COUNT_MAX}) c))
         ON CONFLICT (queue, minute, kind) DO UPDATE SET begun = m.begun + $4, done = m.done + $5, retried = m.retried + $6,
            dead = m.dead + $7, waited = m.waited + $8, waited_max = GREATEST(m.waited_max, $9), took = m.took + $10,
            took_max = GREATEST(m.took_max, $11), waiting = excluded.waiting"
    );
    for row in rows {
        session
            .execute(
                &add,
                &[
                    &row.queue,
                    &row.minute.0,
                    &row.kind,
                    &signed(row.begun),
                    &signed(row.done),
                    &signed(row.retried),
                    &signed(row.dead),
                    &signed(row.waited_ms.0),
                    &signed(row.waited_ms.1),
                    &signed(row.took_ms.0),
                    &signed(row.took_ms.1),
                ],
            )
            .await?;
    }
    for (queue, before) in keep {
        let old = "DELETE FROM minute WHERE queue = $1 AND minute < $2";
        session.execute(old, &[&queue.to_string(), &before.0]).await?;
    }
    Ok(Answer::Noted)
}

pub(super) async fn since(session: &Session, queue: &QueueId, since: Wall) -> Result<Answer, Trouble> {
    let all = "SELECT queue, minute, kind, begun, done, retried, dead, waited, waited_max, took, took_max, waiting FROM minute
         WHERE queue = $1 AND minute >= $2 ORDER BY minute, kind";
    let rows = session.query(all, &[&queue.to_string(), &since.0]).await?;
    Ok(Answer::Minutes(rows.iter().map(of_row).collect()))
}

fn of_row(row: &Row) -> MinuteRow {
    let number = |column: usize| row.get::<_, i64>(column).cast_unsigned();
    MinuteRow {
        queue: row.get(0),
        minute: Wall(row.get(1)),
        kind: row.get(2),
        begun: number(3),
        done: number(4),
        retried: number(5),
        dead: number(6),
        waited_ms: (number(7), number(8)),
        took_ms: (number(9), number(10)),
        waiting: number(11),
    }
}
