//! What alerts are made from.

use super::Trouble;
use super::session::Session;
use crate::port::Answer;
use crate::rows::{SIGNS_MAX, Signs};
use gaffer_core::queue::spec::QueueId;
use gaffer_core::time::Wall;

pub(super) async fn signs(session: &Session, queue: &QueueId, since: Wall) -> Result<Answer, Trouble> {
    let queue = queue.to_string();
    let died = format!(
        "SELECT COUNT(*), MIN(finished_at) FROM (SELECT finished_at FROM task
            WHERE queue = $1 AND state IN ('dead', 'lost') AND finished_at >= $2 ORDER BY finished_at LIMIT {SIGNS_MAX}) d"
    );
    let mut signs = Signs::default();
    if let Some(row) = session.first(&died, &[&queue, &since.0]).await? {
        let first: Option<i64> = row.get(1);
        signs.died = first.map(|first| (row.get::<_, i64>(0).cast_unsigned(), Wall(first)));
    }
    let minutes =
        "SELECT minute, SUM(done + dead)::bigint, MAX(waiting) FROM minute WHERE queue = $1 AND minute >= $2
         GROUP BY minute ORDER BY minute";
    for row in session.query(minutes, &[&queue, &since.0]).await? {
        let number = |column: usize| row.get::<_, i64>(column).cast_unsigned();
        signs.minute((row.get(0), number(1), number(2)));
    }
    let kinds = format!(
        "SELECT kind, MIN(at) FROM (SELECT kind, COALESCE(run_at, created_at) AS at FROM task
            WHERE queue = $1 AND state = 'queued' ORDER BY rank, id LIMIT {SIGNS_MAX}) k GROUP BY kind ORDER BY kind"
    );
    for row in session.query(&kinds, &[&queue]).await? {
        signs.kinds.push((row.get(0), Wall(row.get(1))));
    }
    Ok(Answer::Signs(signs))
}
