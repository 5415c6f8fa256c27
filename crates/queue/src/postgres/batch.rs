//! One transaction for all that came together.

use super::session::Session;
use super::{PATIENCE, Trouble, changes, claim, failed, minutes, moves, push, rows, schema, settle, signs};
use crate::port::{Answer, Cancelled, NewTask, Request, StoreError};
use gaffer_core::queue::task::{Settlement, TaskState};
use gaffer_core::time::Wall;
use tokio_postgres::Error;
use tokio_postgres::error::Severity;

/// One answer for each request.
pub(super) type Answers = Vec<Result<Answer, StoreError>>;

/// What became of a transaction.
pub(super) enum Outcome {
    /// It is committed.
    Done(Answers),
    /// The server refused it, in words.
    Refused(StoreError),
    /// It is undone, and the connection is of no use any more.
    Lost(StoreError),
    /// The same, but its commit was under way; these are the answers if it is committed.
    Doubt(Answers, StoreError),
}

/// The row that tells whether a transaction was committed, and its number.
pub(super) struct Mark<'a> {
    pub name: &'a str,
    pub number: i64,
}

/// Why a statement has no answer.
enum Silence {
    Sql(Error),
    /// Nothing came for [`PATIENCE`].
    Late,
}

impl Silence {
    /// The transaction is over, the connection is not.
    fn is_refusal(&self) -> bool {
        let said = match self {
            Silence::Sql(error) => error.as_db_error(),
            Silence::Late => None,
        };
        said.is_some_and(|said| said.parsed_severity() == Some(Severity::Error))
    }

    fn told(self) -> StoreError {
        match self {
            Silence::Sql(error) => failed(error),
            Silence::Late => StoreError::Unavailable("the database does not answer".to_owned()),
        }
    }
}

async fn patiently<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Silence> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(Silence::Sql),
        Err(_) => Err(Silence::Late),
    }
}

/// Does them all, or none of them. `together`: what can be said in one statement is.
pub(super) async fn transact(
    session: &Session,
    requests: &[Request],
    together: bool,
    mark: &Mark<'_>,
) -> Outcome {
    let reads = requests.iter().all(reads_only);
    let work = async {
        let answers = perform_all(session, requests, together).await?;
        if !reads {
            sign(session, requests, &answers, mark).await?;
        }
        Ok(answers)
    };
    let answers = match patiently(work).await {
        Ok(answers) => answers,
        Err(silence) if silence.is_refusal() => {
            return match patiently(session.run("ROLLBACK")).await {
                Ok(()) => Outcome::Refused(silence.told()),
                Err(_) => Outcome::Lost(silence.told()),
            };
        }
        Err(silence) => return Outcome::Lost(silence.told()),
    };
    match patiently(session.run("COMMIT")).await {
        Ok(()) => Outcome::Done(answers),
        Err(silence) if silence.is_refusal() => Outcome::Refused(silence.told()),
        Err(silence) if reads => Outcome::Lost(silence.told()),
        Err(silence) => Outcome::Doubt(answers, silence.told()),
    }
}

/// The number of the transaction, and the notice for the other nodes, are part of it.
async fn sign(
    session: &Session,
    requests: &[Request],
    answers: &Answers,
    mark: &Mark<'_>,
) -> Result<(), Error> {
    let notify = format!("SELECT pg_notify('{}', $1)", schema::CHANNEL);
    let told = requests.iter().zip(answers).any(|(request, answer)| {
        is_said(request) || matches!(answer, Ok(Answer::Cancelled(Cancelled::Asked(_))))
    });
    if told {
        session.query(&notify, &[&"told"]).await?;
    } else if requests.iter().zip(answers).any(gives_back) || answers.iter().any(brings_tasks) {
        session.query(&notify, &[&"tasks"]).await?;
    }
    let sign = "INSERT INTO commit_mark AS m (name, n) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = $2, at = now()";
    session.execute(sign, &[&mark.name, &mark.number]).await?;
    Ok(())
}

/// Do other nodes have to look it up?
fn is_said(request: &Request) -> bool {
    match request {
        Request::Mode(..) | Request::Schedule(..) => true,
        Request::Tick(tick) => tick.push.is_none(),
        _ => false,
    }
}

/// A node that ends, or that cannot begin what it took, leaves it to others.
fn gives_back((request, answer): (&Request, &Result<Answer, StoreError>)) -> bool {
    let settled = match request {
        Request::Settle(settlement, _) => settlement.state == TaskState::Queued,
        _ => false,
    };
    settled && *answer == Ok(Answer::Settled(true))
}

fn brings_tasks(answer: &Result<Answer, StoreError>) -> bool {
    match answer {
        Ok(Answer::Pushed(pushed) | Answer::Taken(Some(pushed))) => !pushed.is_empty(),
        Ok(Answer::Ticked(ticked)) => ticked.is_some_and(|pushed| pushed.is_some()),
        Ok(Answer::Upkept(upkept)) => !upkept.moved.is_empty(),
        Ok(Answer::Again(again)) => again.is_ok(),
        _ => false,
    }
}

fn reads_only(request: &Request) -> bool {
    matches!(
        request,
        Request::Modes
            | Request::Schedules
            | Request::Task(_)
            | Request::Tasks(_)
            | Request::Counts(_)
            | Request::Signs(..)
            | Request::Minutes(..)
            | Request::Moved(_)
    )
}

/// May a crash of the server undo it after it was acknowledged? Only pushes that said so: a claim or an outcome that is undone
/// while its node lives would be nobody's.
fn is_relaxed(request: &Request) -> bool {
    match request {
        Request::Push(tasks, _) => tasks.iter().all(|task| !task.full),
        request => reads_only(request),
    }
}

async fn perform_all(session: &Session, requests: &[Request], together: bool) -> Result<Answers, Error> {
    let begin = match requests.iter().all(is_relaxed) {
        true => "BEGIN; SET LOCAL synchronous_commit = off",
        false => "BEGIN",
    };
    session.run(begin).await?;
    let mut answers = Vec::with_capacity(requests.len());
    while answers.len() < requests.len() {
        let rest = &requests[answers.len()..];
        let alike = rest
            .iter()
            .take_while(|request| together && is_simple(request))
            .count();
        if alike > 1 {
            many(session, &rest[..alike], &mut answers).await?;
            continue;
        }
        match perform(session, &rest[0]).await {
            Ok(answer) => answers.push(Ok(answer)),
            Err(Trouble::Refused(error)) => answers.push(Err(error)),
            Err(Trouble::Sql(error)) => return Err(error),
        }
    }
    Ok(answers)
}

/// Pushes without keys and outcomes concern rows that nobody else of the transaction does: their order means nothing.
fn is_simple(request: &Request) -> bool {
    match request {
        Request::Push(tasks, _) => tasks.iter().all(|task| task.unique.is_none()),
        Request::Settle(..) => true,
        _ => false,
    }
}

/// All pushes with one statement, all outcomes with another.
async fn many(session: &Session, requests: &[Request], answers: &mut Answers) -> Result<(), Error> {
    let mut tasks: Vec<(&NewTask, Wall)> = Vec::new();
    let mut settled: Vec<(&Settlement, Wall)> = Vec::new();
    let pushes = requests
        .iter()
        .any(|request| matches!(request, Request::Push(..)));
    let closed = match pushes {
        true => push::closed(session).await?,
        false => Default::default(),
    };
    for request in requests {
        match request {
            Request::Push(new, now) if push::refusal(new, &closed).is_none() => {
                tasks.extend(new.iter().map(|task| (task, *now)));
            }
            Request::Settle(settlement, now) => settled.push((settlement, *now)),
            _ => {}
        }
    }
    let mut pushed = match tasks.is_empty() {
        true => Vec::new(),
        false => push::insert(session, &tasks).await?,
    }
    .into_iter();
    let mut written = match settled.is_empty() {
        true => Vec::new(),
        false => settle::write(session, &settled, true).await?,
    }
    .into_iter();
    for request in requests {
        answers.push(match request {
            Request::Push(new, _) => match push::refusal(new, &closed) {
                Some(refused) => Err(refused),
                None => Ok(Answer::Pushed(pushed.by_ref().take(new.len()).collect())),
            },
            _ => Ok(Answer::Settled(written.next().unwrap_or(false))),
        });
    }
    Ok(())
}

async fn perform(session: &Session, request: &Request) -> Result<Answer, Trouble> {
    match request {
        Request::Push(tasks, now) => push::push(session, tasks, *now).await.map(Answer::Pushed),
        Request::Claim(claim) => claim::claim(session, claim).await,
        Request::Settle(settlement, now) => settle::one(session, settlement, *now).await.map(Answer::Settled),
        Request::Renew(handles, now) => settle::renew(session, handles, *now).await,
        Request::Upkeep { owner, now } => settle::upkeep(session, owner, *now).await,
        Request::Orphans { node, owner } => settle::orphans(session, node, owner).await,
        Request::Cancel(id, now) => changes::cancel(session, *id, *now).await,
        Request::Again(id, now) => changes::again(session, *id, *now).await,
        Request::Edit {
            task,
            payload,
            now,
            shown,
        } => changes::edit(session, *task, payload, *now, *shown).await,
        Request::Remove(id) => changes::remove(session, *id).await,
        Request::Purge(queue, state, most) => changes::purge(session, queue, *state, *most).await,
        Request::Prune(now, most) => changes::prune(session, *now, *most).await,
        Request::Age(queue, step, now) => changes::age(session, queue, *step, *now).await,
        Request::Mode(queue, mode) => changes::mode(session, queue, mode).await,
        Request::Modes => rows::modes(session).await,
        Request::Tick(tick) => changes::tick(session, tick).await,
        Request::Schedule(name, row) => changes::put_schedule(session, name, row.as_ref()).await,
        Request::Schedules => changes::schedules(session).await,
        Request::Move(moving) => moves::take(session, moving).await,
        Request::Moved(source) => moves::moved(session, source).await,
        Request::Forget(source) => moves::forget(session, source).await,
        Request::Count(rows, keep) => minutes::add(session, rows, keep).await,
        Request::Minutes(queue, since) => minutes::since(session, queue, *since).await,
        Request::Task(id) => rows::task(session, *id).await,
        Request::Tasks(filter) => rows::tasks(session, filter).await,
        Request::Counts(queue) => rows::counts(session, queue).await,
        Request::Signs(queue, since) => signs::signs(session, queue, *since).await,
    }
}
