//! The daemon as a client of look-up services: one task for each, which compares and tells.
//!
//! What a service has been told is compared with what there is: when the connection begins, and whenever something has
//! happened. There is no queue of changes that could be lost or pile up, so an outage on either side is repaired by the
//! same few lines that serve every day. Without a service nothing runs here.

use crate::bound::Bound;
use crate::lookup::service::host_name;
use futures_util::{SinkExt, StreamExt};
use gaffer::Handle;
use gaffer_api::client::{Message as Frame, WebSocket};
use gaffer_api::lookup::{Message, PROTOCOL, Reply, Say};
use gaffer_api::{Client, Endpoint};
use gaffer_core::job::Retry;
use gaffer_core::name::JobId;
use gaffer_core::retry::{Dice, delay};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// How often a service is told that we are there.
pub const PING_EVERY: Duration = Duration::from_secs(15);

/// How long connecting, and each answer, may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Messages that are sent before their answers are read.
const AT_ONCE: usize = 64;

/// Changes within so much time are told together.
const GATHER: Duration = Duration::from_millis(20);

/// Longest pause between attempts to connect.
pub const PAUSE_MAX: Duration = Duration::from_secs(15);

/// What runs where: processes by job.
type Picture = BTreeMap<JobId, BTreeSet<u64>>;

/// How this node is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Node name.
    pub name: String,
    /// URL of its API.
    pub origin: String,
    /// Of this life of the daemon.
    pub life: String,
}

/// Keeps all services up to date.
pub struct Registrar {
    handle: Handle,
    life: String,
    ping_every: Duration,
    served: BTreeMap<String, (Identity, AbortHandle)>,
}

impl Registrar {
    /// Tells nobody yet.
    pub fn new(handle: Handle, ping_every: Option<Duration>) -> Registrar {
        Registrar {
            handle,
            life: life(),
            ping_every: ping_every.unwrap_or(PING_EVERY),
            served: BTreeMap::new(),
        }
    }

    /// From now on these services are told, and no others.
    pub fn serve(&mut self, urls: &[String], origin: &str) {
        let identity = Identity {
            name: self.handle.node().name,
            origin: origin.to_owned(),
            life: self.life.clone(),
        };
        self.served.retain(|url, (known, task)| {
            let stays = urls.contains(url) && *known == identity;
            if !stays {
                task.abort();
            }
            stays
        });
        for url in urls {
            if self.served.contains_key(url) {
                continue;
            }
            // The configuration has been checked.
            let Ok(endpoint) = Endpoint::parse(&with_port(url)) else {
                continue;
            };
            let one = One {
                handle: self.handle.clone(),
                client: Client::new(endpoint, None),
                url: url.clone(),
                identity: identity.clone(),
                ping_every: self.ping_every,
            };
            let task = tokio::spawn(one.keep()).abort_handle();
            self.served.insert(url.clone(), (identity.clone(), task));
        }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.served.values().for_each(|(_, task)| task.abort());
    }
}

/// The port of the look-up service where the URL names none.
pub(crate) fn with_port(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let host = url.rsplit("//").next().unwrap_or_default();
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match has_port {
        true => url.to_owned(),
        false => format!("{url}:{}", gaffer_api::lookup::DEFAULT_PORT),
    }
}

/// The URL under which others reach this node, unless `[gaffer] advertise` says it.
pub fn origin(bound: &Bound, control: &std::path::Path, secure: bool) -> String {
    let scheme = if secure { "https" } else { "http" };
    let addresses = bound.addresses();
    let reachable = addresses.iter().find(|address| !address.ip().is_loopback());
    match reachable.or(addresses.first()) {
        Some(address) => format!("{scheme}://{}", shown(address)),
        None => format!("unix:{}", control.display()),
    }
}

fn shown(address: &SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("{}:{}", host_name(), address.port()),
        false => address.to_string(),
    }
}

/// A text that no other life of a daemon has.
fn life() -> String {
    let mut bytes = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        // In a bare chroot: the time and our number do not come again either.
        Err(_) => format!("{}-{:?}", std::process::id(), std::time::SystemTime::now()),
    }
}

/// One service.
struct One {
    handle: Handle,
    client: Client,
    url: String,
    identity: Identity,
    ping_every: Duration,
}

impl One {
    async fn keep(self) {
        let retry = Retry {
            attempts: None,
            delay: vec![Duration::from_millis(250)],
            factor: 2.0,
            increment: None,
            max_delay: PAUSE_MAX,
            jitter: 0.5,
            reset_after: Duration::ZERO,
        };
        let seed = self.identity.life.bytes().chain(self.url.bytes());
        let mut dice =
            Dice::new(seed.fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))));
        let mut failures = 0;
        loop {
            let mut talk = None;
            let why = self.talk(&mut talk).await;
            if talk.is_some() {
                failures = 0;
            }
            failures += 1;
            let pause = delay(&retry, failures, dice.share());
            // Once for each outage: it may last for days.
            if failures == 1 {
                tracing::warn!(url = %self.url, reason = %why, "lookup.lost");
            } else {
                tracing::debug!(url = %self.url, reason = %why, "lookup.lost");
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One connection, to its end; why it has ended. `registered` is set once everything has been told.
    async fn talk(&self, registered: &mut Option<()>) -> String {
        let mut talk = match self.connect().await {
            Ok(talk) => talk,
            Err(why) => return why,
        };
        let events = self.handle.events();
        let mut ping = tokio::time::interval_at(Instant::now() + self.ping_every, self.ping_every);
        loop {
            // Before the picture: what happens meanwhile is looked at again.
            let seen = events.newest();
            let picture = self.picture();
            if let Err(why) = talk.tell(picture).await {
                return why;
            }
            if registered.replace(()).is_none() {
                tracing::info!(url = %self.url, jobs = talk.told.len(), "lookup.registered");
            }
            loop {
                tokio::select! {
                    () = events.wait(seen) => break,
                    _ = ping.tick() => if let Err(why) = talk.say(&[Say::Ping]).await { return why },
                    why = talk.closed() => return why,
                }
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn connect(&self) -> Result<Talk, String> {
        let connected = timeout(ANSWER_TIME_MAX, self.client.websocket("/ws")).await;
        let socket = connected
            .map_err(|_| "it does not answer".to_owned())?
            .map_err(|error| error.to_string())?;
        let mut talk = Talk {
            socket,
            told: Picture::new(),
            sent: 0,
            full: false,
        };
        let identify = Say::Identify {
            name: self.identity.name.clone(),
            origin: self.identity.origin.clone(),
            version: PROTOCOL.to_owned(),
            life: Some(self.identity.life.clone()),
        };
        talk.say(&[identify]).await?;
        Ok(talk)
    }

    /// What there is now.
    fn picture(&self) -> Picture {
        let jobs = self.handle.jobs(None).into_iter();
        jobs.map(|job| {
            let live = job
                .view
                .instances
                .iter()
                .filter(|instance| instance.pid.is_some());
            let runs = live.filter_map(|instance| instance.run);
            let pids = runs.map(|run| self.handle.pid_of(run)).collect();
            (job.view.job, pids)
        })
        .collect()
    }
}

/// A connection, and what has been told over it.
struct Talk {
    socket: WebSocket,
    told: Picture,
    sent: u64,
    /// The service takes no more: said once.
    full: bool,
}

impl Talk {
    /// Tells the difference between what was told and what is.
    async fn tell(&mut self, picture: Picture) -> Result<(), String> {
        let says = difference(&self.told, &picture);
        for some in says.chunks(AT_ONCE) {
            self.say(some).await?;
        }
        self.told = picture;
        Ok(())
    }

    /// Sends messages and reads as many answers.
    async fn say(&mut self, says: &[Say]) -> Result<(), String> {
        for say in says {
            self.sent += 1;
            let message = Message {
                msgid: self.sent.to_string(),
                say: say.clone(),
            };
            // Texts and numbers always have a JSON form.
            let text = serde_json::to_string(&message).unwrap_or_default();
            let sent = timeout(ANSWER_TIME_MAX, self.socket.feed(Frame::Text(text.into()))).await;
            sent.map_err(|_| "it does not read".to_owned())?
                .map_err(|error| error.to_string())?;
        }
        let sent = timeout(ANSWER_TIME_MAX, self.socket.flush()).await;
        sent.map_err(|_| "it does not read".to_owned())?
            .map_err(|error| error.to_string())?;
        for say in says {
            let answer = timeout(ANSWER_TIME_MAX, self.answer()).await;
            let reply = answer.map_err(|_| "it does not answer".to_owned())??;
            self.take(say, reply)?;
        }
        Ok(())
    }

    fn take(&mut self, say: &Say, reply: Reply) -> Result<(), String> {
        let Some(errno) = reply.errno.filter(|_| !reply.ok) else {
            return Ok(());
        };
        let reason = reply.reason.unwrap_or_default();
        let of_job = matches!(say, Say::RegisterJob { .. } | Say::RegisterProcess { .. });
        // What it has no room for is missing there; the rest is right.
        if of_job && matches!(errno, 503 | 404) && (errno == 503 || self.full) {
            if !std::mem::replace(&mut self.full, true) {
                tracing::warn!(reason = %reason, "lookup.full");
            }
            return Ok(());
        }
        Err(format!("it refuses: {reason}"))
    }

    async fn answer(&mut self) -> Result<Reply, String> {
        loop {
            match self.socket.next().await {
                Some(Ok(Frame::Text(text))) => {
                    return serde_json::from_str(&text).map_err(|_| "it speaks another language".to_owned());
                }
                Some(Ok(Frame::Close(_))) | None => return Err("it has closed the connection".to_owned()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    /// Resolves when the connection ends; why. Answers pings meanwhile.
    async fn closed(&mut self) -> String {
        loop {
            match self.answer().await {
                Ok(_) => {}
                Err(why) => return why,
            }
        }
    }
}

/// What must be said so that `told` becomes `picture`.
fn difference(told: &Picture, picture: &Picture) -> Vec<Say> {
    let mut says = Vec::new();
    let none = BTreeSet::new();
    for (job, pids) in told {
        let job_name = job.to_string();
        match picture.get(job) {
            None => says.push(Say::UnregisterJob { job_name }),
            Some(now) => says.extend(pids.difference(now).map(|pid| Say::UnregisterProcess {
                job_name: job_name.clone(),
                pid: *pid,
            })),
        }
    }
    for (job, pids) in picture {
        let job_name = job.to_string();
        if !told.contains_key(job) {
            says.push(Say::RegisterJob {
                job_name: job_name.clone(),
            });
        }
        let before = told.get(job).unwrap_or(&none);
        says.extend(pids.difference(before).map(|pid| Say::RegisterProcess {
            job_name: job_name.clone(),
            pid: *pid,
        }));
    }
    says
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaffer_core::name::{JobName, Name};

    fn picture(jobs: &[(&str, &[u64])]) -> Picture {
        let jobs = jobs.iter().map(|(name, pids)| {
            let job = JobId {
                session: Name::parse("s").expect("a name"),
                job: JobName::parse(name).expect("a name"),
            };
            (job, pids.iter().copied().collect())
        });
        jobs.collect()
    }

    fn words(told: &Picture, now: &Picture) -> Vec<String> {
        difference(told, now)
            .iter()
            .map(|say| match say {
                Say::RegisterJob { job_name } => format!("+{job_name}"),
                Say::UnregisterJob { job_name } => format!("-{job_name}"),
                Say::RegisterProcess { job_name, pid } => format!("+{job_name} {pid}"),
                Say::UnregisterProcess { job_name, pid } => format!("-{job_name} {pid}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn s10_4_only_the_difference_is_told_and_jobs_come_before_their_processes() {
        let before = picture(&[("gone", &[1]), ("same", &[2]), ("web", &[3, 4])]);
        let now = picture(&[("new", &[5]), ("same", &[2]), ("web", &[4, 6])]);
        let said = words(&before, &now);
        assert_eq!(said, ["-s.gone", "-s.web 3", "+s.new", "+s.new 5", "+s.web 6"]);
        assert!(words(&now, &now).is_empty());
        assert_eq!(words(&Picture::new(), &before).len(), 7);
    }

    #[test]
    fn a_url_without_a_port_means_that_of_the_service() {
        assert_eq!(with_port("http://a"), "http://a:5010");
        assert_eq!(with_port("http://a:1/"), "http://a:1");
        assert_eq!(with_port("http://[::1]"), "http://[::1]:5010");
    }
}
