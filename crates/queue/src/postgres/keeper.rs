//! Keeps a connection: makes it again when it broke, and finds out what became of what was under way.

use super::batch::{Answers, Mark, Outcome, transact};
use super::session::Session;
use super::tls::Target;
use super::{Bell, Message, PATIENCE, Rung, clock, failed};
use crate::port::{Done, Request, StoreError};
use gaffer_core::time::Wall;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// What others did is looked for so often, whatever was heard.
pub const POLL: Duration = Duration::from_secs(5);
/// Requests of one transaction at most.
const BATCH: usize = 1_024;
/// Longest time of an attempt to connect, with what has to be found out then.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// A transaction of which nobody knows whether it was committed.
struct Doubt {
    number: i64,
    backend: (i32, i64),
    answers: Answers,
    dones: Vec<Done>,
}

/// Why serving ended.
enum End {
    /// All who could ask are gone, or somebody closed it.
    Closed,
    Lost(StoreError),
}

/// See the module.
pub(super) struct Keeper {
    config: Target,
    asked: UnboundedReceiver<Message>,
    bell: Bell,
    /// Of the row that tells which of its transactions were committed.
    name: String,
    number: i64,
    doubt: Option<Doubt>,
    /// What has to be added to a time of this node.
    difference: i64,
}

fn now() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Wall(since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
}

/// Differs from that of every other store that ever was.
fn name_of(session: &Session) -> String {
    format!(
        "{}-{}-{}",
        std::process::id(),
        session.backend.0,
        session.backend.1
    )
}

impl Keeper {
    pub fn new(config: Target, asked: UnboundedReceiver<Message>, bell: Bell) -> Keeper {
        Keeper {
            config,
            asked,
            bell,
            name: String::new(),
            number: 0,
            doubt: None,
            difference: 0,
        }
    }

    /// Serves until all who could ask are gone.
    pub async fn run(mut self, session: Session) {
        self.name = name_of(&session);
        let mut session = Some(session);
        loop {
            let open = match session.take() {
                Some(open) => open,
                None => match self.connect_again().await {
                    Some(open) => {
                        // What was said meanwhile was not heard.
                        (self.bell)(Rung::Told);
                        open
                    }
                    None => return,
                },
            };
            match self.serve(open).await {
                End::Closed => return,
                End::Lost(why) => {
                    tracing::warn!(%why, "the connection to the queue store is lost; it is made again")
                }
            }
        }
    }

    /// A new connection, when what was in doubt is known; none: nobody needs it any more. Meanwhile requests are refused at once.
    async fn connect_again(&mut self) -> Option<Session> {
        let mut pause = AGAIN;
        loop {
            let (config, name, doubt) = (self.config.clone(), self.name.clone(), self.doubt.as_ref());
            let doubt = doubt.map(|doubt| (doubt.number, doubt.backend));
            let connect = async move {
                let session = Session::open(&config, true).await?;
                session.migrate().await?;
                let committed = match doubt {
                    Some((number, backend)) => Some(was_committed(&session, &name, number, backend).await?),
                    None => None,
                };
                Ok::<_, StoreError>((session, committed))
            };
            let connect = async {
                let late = |_| StoreError::Unavailable("the database does not answer".to_owned());
                timeout(CONNECT_MAX, connect).await.map_err(late)?
            };
            let error = match self
                .meanwhile_refuse(connect, "the connection to the database is being made")
                .await?
            {
                Ok((session, committed)) => {
                    if let (Some(doubt), Some(committed)) = (self.doubt.take(), committed) {
                        doubt.resolve(committed, self.difference);
                    }
                    tracing::info!("the queue store is connected again");
                    return Some(session);
                }
                Err(error) => error,
            };
            tracing::debug!(%error, "the queue store cannot be reached");
            let why = match &error {
                StoreError::Unavailable(why) => why.clone(),
                other => other.to_string(),
            };
            self.meanwhile_refuse(tokio::time::sleep(pause), &why).await?;
            pause = (pause * 2).min(AGAIN_MAX);
        }
    }

    /// None: nobody needs it any more.
    async fn meanwhile_refuse<T>(&mut self, work: impl Future<Output = T>, why: &str) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                message = self.asked.recv() => match message {
                    Some(Message::Ask(_, done)) => done(Err(StoreError::Unavailable(why.to_owned()))),
                    Some(Message::Close(done)) => {
                        let _gone = done.send(());
                        return None;
                    }
                    None => return None,
                },
            }
        }
    }

    async fn serve(&mut self, mut session: Session) -> End {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The clock comes first: claims depend on it.
        let _at_once = poll.tick().await;
        if let Some(end) = self.look(&session).await {
            return end;
        }
        loop {
            tokio::select! {
                notice = session.notices.recv() => match notice {
                    Some(Ok(notice)) if notice.process_id() == session.backend.0 => {}
                    Some(Ok(notice)) if notice.payload() == "told" => (self.bell)(Rung::Told),
                    Some(Ok(_)) => (self.bell)(Rung::Tasks),
                    Some(Err(error)) => return End::Lost(failed(error)),
                    None => return End::Lost(StoreError::Unavailable("the server closed the connection".to_owned())),
                },
                message = self.asked.recv() => match message {
                    Some(message) => {
                        if let Some(end) = self.serve_all(&mut session, message).await {
                            return end;
                        }
                    }
                    None => return End::Closed,
                },
                _ = poll.tick() => {
                    if let Some(end) = self.look(&session).await {
                        return end;
                    }
                }
            }
        }
    }

    /// There may be something that nobody told of.
    async fn look(&mut self, session: &Session) -> Option<End> {
        match timeout(PATIENCE, self.measure(session)).await {
            Ok(Ok(())) => {
                (self.bell)(Rung::Tasks);
                None
            }
            Ok(Err(error)) => Some(End::Lost(error)),
            Err(_) => Some(End::Lost(StoreError::Unavailable(
                "the database does not answer".to_owned(),
            ))),
        }
    }

    async fn measure(&mut self, session: &Session) -> Result<(), StoreError> {
        let asked = now();
        let row = session.first("SELECT now_ms()", &[]).await.map_err(failed)?;
        let Some(row) = row else { return Ok(()) };
        let difference = clock::difference(asked, row.get(0), now());
        // It is measured anew each time: what it moves by is not worth a change.
        if clock::difference(Wall(self.difference), difference, Wall(self.difference)) != 0 {
            tracing::warn!(
                milliseconds = difference,
                "the clock of the database differs from this node's; its time is used"
            );
            self.difference = difference;
        }
        Ok(())
    }

    /// Everything that came is one transaction.
    async fn serve_all(&mut self, session: &mut Session, first: Message) -> Option<End> {
        let mut requests = Vec::new();
        let mut dones = Vec::new();
        let mut closing = None;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Ask(mut request, done) => {
                    clock::to_database(&mut request, self.difference);
                    requests.push(request);
                    dones.push(done);
                }
                Message::Close(done) => closing = Some(done),
            }
            next = match requests.len() < BATCH && closing.is_none() {
                true => self.asked.try_recv().ok(),
                false => None,
            };
        }
        let end = match requests.is_empty() {
            true => None,
            false => self.transact(session, requests, dones).await,
        };
        if let Some(done) = closing {
            let _gone = done.send(());
            return Some(End::Closed);
        }
        end
    }

    async fn transact(&mut self, session: &Session, requests: Vec<Request>, dones: Vec<Done>) -> Option<End> {
        match self.attempt(session, &requests, requests.len() > 1).await {
            Outcome::Done(answers) => {
                tell(answers, dones, self.difference);
                None
            }
            Outcome::Refused(error) if requests.len() == 1 => {
                tracing::warn!(%error, "the queue store cannot do it");
                refuse(dones, &error);
                None
            }
            Outcome::Refused(_) => self.one_by_one(session, requests, dones).await,
            Outcome::Lost(error) => {
                refuse(dones, &error);
                Some(End::Lost(error))
            }
            Outcome::Doubt(answers, error) => {
                self.doubt = Some(Doubt {
                    number: self.number,
                    backend: session.backend,
                    answers,
                    dones,
                });
                Some(End::Lost(error))
            }
        }
    }

    /// What one of them is refused does not concern the others.
    async fn one_by_one(
        &mut self,
        session: &Session,
        requests: Vec<Request>,
        dones: Vec<Done>,
    ) -> Option<End> {
        let mut rest = requests.into_iter().zip(dones);
        while let Some((request, done)) = rest.next() {
            // Boxed: it is the function that called this one.
            let one = Box::pin(self.transact(session, vec![request], vec![done]));
            if let Some(end) = one.await {
                if let End::Lost(error) = &end {
                    refuse(rest.map(|(_, done)| done).collect(), error);
                }
                return Some(end);
            }
        }
        None
    }

    async fn attempt(&mut self, session: &Session, requests: &[Request], together: bool) -> Outcome {
        self.number += 1;
        let mark = Mark {
            name: &self.name,
            number: self.number,
        };
        transact(session, requests, together, &mark).await
    }
}

fn tell(answers: Answers, dones: Vec<Done>, difference: i64) {
    for (mut answer, done) in answers.into_iter().zip(dones) {
        if let Ok(answer) = &mut answer {
            clock::to_node(answer, difference);
        }
        done(answer);
    }
}

fn refuse(dones: Vec<Done>, error: &StoreError) {
    dones.into_iter().for_each(|done| done(Err(error.clone())));
}

impl Doubt {
    fn resolve(self, committed: bool, difference: i64) {
        if committed {
            return tell(self.answers, self.dones, difference);
        }
        let undone =
            StoreError::Unavailable("the connection to the database broke before it was written".to_owned());
        refuse(self.dones, &undone);
    }
}

/// Was the transaction committed? The server's process that did it is ended first: it may still be at it.
async fn was_committed(
    session: &Session,
    name: &str,
    number: i64,
    (pid, since): (i32, i64),
) -> Result<bool, StoreError> {
    let there = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::bigint = $2";
    while session
        .first(there, &[&pid, &since])
        .await
        .map_err(failed)?
        .is_some()
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mark = session
        .first("SELECT n FROM commit_mark WHERE name = $1", &[&name])
        .await
        .map_err(failed)?;
    Ok(mark.is_some_and(|row| row.get::<_, i64>(0) == number))
}
