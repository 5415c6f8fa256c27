//! Tasks out of outboxes: which rows were taken is written with the tasks that they became.

use super::session::Session;
use super::{Trouble, push};
use crate::port::{Answer, Moving, StoreError};
use crate::rows::{ids_of, ids_text};

/// All of them or none, and only if nobody took some since whoever asks looked. An earlier incarnation of the node may have a
/// commit under way: whoever writes the row second waits for the first.
pub(super) async fn take(session: &Session, moving: &Moving) -> Result<Answer, Trouble> {
    if let Some(StoreError::Closed(queue)) = push::refusal(&moving.tasks, &push::closed(session).await?) {
        return Err(Trouble::Refused(StoreError::Closed(queue)));
    }
    let known = ids_text(&moving.known);
    session
        .execute(
            "INSERT INTO outbox (source, ids) VALUES ($1, '[]') ON CONFLICT (source) DO NOTHING",
            &[&&*moving.source],
        )
        .await?;
    let changed = session
        .execute(
            "UPDATE outbox SET ids = $2 WHERE source = $1 AND ids = $3",
            &[&&*moving.source, &ids_text(&moving.ids), &known],
        )
        .await?;
    if changed == 0 {
        return Ok(Answer::Taken(None));
    }
    let pushed = push::push(session, &moving.tasks, moving.now).await?;
    Ok(Answer::Taken(Some(pushed)))
}

/// The rows that were taken last.
pub(super) async fn moved(session: &Session, source: &str) -> Result<Answer, Trouble> {
    let row = session
        .first("SELECT ids FROM outbox WHERE source = $1", &[&source])
        .await?;
    let text: Option<String> = row.map(|row| row.get(0));
    Ok(Answer::Moved(ids_of(text.as_deref())))
}

/// They are not in the outbox any more.
pub(super) async fn forget(session: &Session, source: &str) -> Result<Answer, Trouble> {
    session
        .execute("DELETE FROM outbox WHERE source = $1", &[&source])
        .await?;
    Ok(Answer::Noted)
}
