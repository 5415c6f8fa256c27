//! What one client follows.
//!
//! Events come from one reader of the engine's log per client, so that they keep their order whatever it follows; output
//! and statistics from a task for each topic. All of them wait for the client ([`Outbox`]), and end with it.

use super::message;
use super::topic::{self, Topic};
use crate::access::Access;
use crate::http::Shared;
use crate::http::stats::every_min;
use crate::legacy::conversation::{Gone, Outbox};
use crate::legacy::events::{self, Message, Pattern};
use crate::legacy::feed::{Feeds, Follower, What};
use crate::legacy::objects::{self, Process};
use crate::legacy::template;
use gaffer::events::EventLog;
use gaffer::info::{Cursor, EventRecord};
use gaffer_core::name::JobId;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// Topics of one client.
const TOPICS_MAX: usize = 1000;

/// Events that are read together.
const READ_AT_ONCE: usize = 64;

/// What one client follows.
pub struct Subscriptions {
    app: Shared,
    feeds: Arc<Feeds>,
    out: Outbox,
    topics: HashMap<String, Subscription>,
    listeners: Listeners,
    events: Option<Ending>,
}

/// One topic.
struct Subscription {
    /// So many times asked for.
    count: u64,
    /// What feeds it, unless that is the reader of events.
    _source: Option<Ending>,
}

/// A task that ends when this is dropped.
struct Ending(JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Who wants events. It is locked while they are sent, so that a topic's first event comes behind the answer to its SUB.
type Listeners = Arc<Mutex<Vec<Listener>>>;

struct Listener {
    topic: String,
    wants: Wants,
    /// Events behind this one.
    after: Cursor,
}

enum Wants {
    Pattern(Pattern),
    Job(JobId),
    Process(String),
}

impl Wants {
    /// The event's name as this listener has it, if it wants it.
    fn name<'a>(&self, message: &'a Message) -> Option<&'a str> {
        match self {
            Wants::Pattern(pattern) => pattern.matches(&message.topic).then_some(message.topic.as_str()),
            Wants::Job(job) => {
                (message.job == *job && message.topic.starts_with("job.")).then_some(message.verb)
            }
            Wants::Process(prefix) => message.topic.starts_with(prefix.as_str()).then_some(message.verb),
        }
    }

    /// Those that want everything are served first.
    fn rank(&self) -> u8 {
        match self {
            Wants::Pattern(pattern) if *pattern == Pattern::parse(".") => 0,
            _ => 1,
        }
    }
}

/// What a new topic is fed by.
enum Source {
    Events(Wants),
    Task(futures_util::future::BoxFuture<'static, Result<(), Gone>>),
}

impl Subscriptions {
    /// Nothing yet.
    pub fn new(app: Shared, feeds: Arc<Feeds>, out: Outbox) -> Subscriptions {
        Subscriptions {
            app,
            feeds,
            out,
            topics: HashMap::new(),
            listeners: Listeners::default(),
            events: None,
        }
    }

    /// Follows a topic, once more if it does already; answers.
    pub async fn add(&mut self, topic: String, access: &Access) -> Result<(), Gone> {
        if let Some(subscription) = self.topics.get_mut(&topic) {
            subscription.count += 1;
            return self.out.send(message::subscribed(&topic)).await;
        }
        let source = match topic::read(&topic) {
            Ok(_) if self.topics.len() >= TOPICS_MAX => Err("too_many_topics"),
            Ok(read) => self.source(&topic, read, access).await,
            Err(reason) => Err(reason),
        };
        let source = match source {
            Ok(source) => source,
            Err(reason) => return self.out.send(message::not_subscribed(&topic, reason)).await,
        };
        let source = match source {
            Source::Events(wants) => {
                let mut listeners = self.listeners.lock().await;
                let after = self.app.handle.events().newest();
                self.out.send(message::subscribed(&topic)).await?;
                let rank = wants.rank();
                let place = listeners.partition_point(|other| other.wants.rank() <= rank);
                let topic = topic.clone();
                listeners.insert(place, Listener { topic, wants, after });
                drop(listeners);
                if self.events.is_none() {
                    let reader = Reader {
                        app: self.app.clone(),
                        out: self.out.clone(),
                        listeners: self.listeners.clone(),
                    };
                    self.events = Some(Ending(tokio::spawn(reader.run(after))));
                }
                None
            }
            Source::Task(task) => {
                self.out.send(message::subscribed(&topic)).await?;
                let task = async move {
                    // The client is gone, which its conversation notices too.
                    let _gone = task.await;
                };
                Some(Ending(tokio::spawn(task)))
            }
        };
        let subscription = Subscription {
            count: 1,
            _source: source,
        };
        self.topics.insert(topic, subscription);
        Ok(())
    }

    /// Takes one of its subscriptions back; with the last one nothing comes any more.
    pub async fn remove(&mut self, topic: &str) {
        let Some(subscription) = self.topics.get_mut(topic) else {
            return;
        };
        subscription.count -= 1;
        if subscription.count > 0 {
            return;
        }
        self.topics.remove(topic);
        let mut listeners = self.listeners.lock().await;
        listeners.retain(|listener| listener.topic != topic);
        if listeners.is_empty() {
            self.events = None;
        }
    }

    async fn source(&self, topic: &str, read: Topic, access: &Access) -> Result<Source, &'static str> {
        let handle = &self.app.handle;
        let allow = |allowed: bool| if allowed { Ok(()) } else { Err("forbidden") };
        let process = |pid| objects::process(handle, pid).map_err(|_| "not_found");
        Ok(match read {
            Topic::Events(pattern) => {
                allow(access.may_manage_all())?;
                Source::Events(Wants::Pattern(pattern))
            }
            Topic::Job(job) => {
                allow(access.may_manage(&job))?;
                objects::job(handle, &job).map_err(|_| "not_found")?;
                Source::Events(Wants::Job(job))
            }
            Topic::Process(pid) => {
                let (info, _) = process(pid)?;
                allow(access.may_manage(&info.view.job))?;
                Source::Events(Wants::Process(format!("proc.{pid}.")))
            }
            Topic::ProcessStats(pid) => {
                let (info, process) = process(pid)?;
                allow(access.may_read(&info.view.job))?;
                self.stats(topic, Sampled::Process(process))
            }
            Topic::JobStats(job) => {
                allow(access.may_read(&job))?;
                objects::job(handle, &job).map_err(|_| "not_found")?;
                self.stats(topic, Sampled::Job(job))
            }
            Topic::Stream(pid, label) => {
                let (info, process) = process(pid)?;
                allow(access.may_read(&info.view.job))?;
                let template = template::of(handle, &info).await;
                let (event, stream) = output(&template, label.as_deref()).ok_or("stream_not_found")?;
                let follower = self.feeds.follow(&self.app, process.run, &process.slot, &stream);
                let follower = follower.map_err(|_| "stream_not_found")?;
                let name = info.view.job.to_string();
                let head = Head {
                    topic: topic.to_owned(),
                    event,
                    name,
                    pid,
                };
                Source::Task(Box::pin(tell_output(follower, head, self.out.clone())))
            }
        })
    }

    fn stats(&self, topic: &str, sampled: Sampled) -> Source {
        let samples = Samples {
            app: self.app.clone(),
            out: self.out.clone(),
            topic: topic.to_owned(),
            sampled,
        };
        Source::Task(Box::pin(samples.run()))
    }
}

/// Name of the events and stream of a label; the first output for none.
fn output(template: &serde_json::Map<String, Value>, label: Option<&str>) -> Option<(String, String)> {
    let labels = template::labels(template);
    let Some(label) = label else {
        return labels
            .into_iter()
            .next()
            .map(|(label, stream)| (label, stream.to_owned()));
    };
    if template::custom_streams(template)
        .iter()
        .any(|custom| custom == label)
    {
        return Some(("READ".to_owned(), label.to_owned()));
    }
    let found = labels.into_iter().find(|(known, _)| known == label);
    found.map(|(label, stream)| (label, stream.to_owned()))
}

/// Reads the engine's events for one client.
struct Reader {
    app: Shared,
    out: Outbox,
    listeners: Listeners,
}

impl Reader {
    async fn run(self, mut cursor: Cursor) {
        let log: EventLog = self.app.handle.events();
        loop {
            log.wait(cursor).await;
            for record in log.read(cursor, READ_AT_ONCE) {
                let told = match record.event.event {
                    "gap" => self.tell_gap(cursor, record.cursor).await,
                    _ => self.tell(&record).await,
                };
                if told.is_err() {
                    return;
                }
                cursor = record.cursor;
            }
        }
    }

    async fn tell_gap(&self, from: Cursor, to: Cursor) -> Result<(), Gone> {
        let missed = (from.epoch == to.epoch).then(|| to.seq.saturating_sub(from.seq));
        for listener in self.listeners.lock().await.iter() {
            self.out.send(message::gap(&listener.topic, missed)).await?;
        }
        Ok(())
    }

    async fn tell(&self, record: &EventRecord) -> Result<(), Gone> {
        let messages = events::translated(&self.app.handle, &record.event);
        if messages.is_empty() {
            return Ok(());
        }
        let listeners = self.listeners.lock().await;
        for message in &messages {
            for listener in listeners.iter().filter(|listener| listener.after < record.cursor) {
                if let Some(name) = listener.wants.name(message) {
                    let job = Value::from(message.job.to_string());
                    let fields = [("name".to_owned(), job)]
                        .into_iter()
                        .chain(message.fields.clone());
                    self.out
                        .send(message::event(&listener.topic, name, fields))
                        .await?;
                }
            }
        }
        Ok(())
    }
}

/// Whose statistics.
enum Sampled {
    Process(Process),
    Job(JobId),
}

/// Statistics, now and then; the pause begins when the client has taken the last of them.
struct Samples {
    app: Shared,
    out: Outbox,
    topic: String,
    sampled: Sampled,
}

impl Samples {
    async fn run(self) -> Result<(), Gone> {
        loop {
            let processes = match &self.sampled {
                Sampled::Process(process) => vec![process.clone()],
                Sampled::Job(job) => match objects::job(&self.app.handle, job) {
                    Ok(info) => {
                        let (mut kept, out) = objects::processes(&self.app.handle, &info);
                        kept.extend(out);
                        kept
                    }
                    // It may be loaded again.
                    Err(_) => Vec::new(),
                },
            };
            for process in processes {
                match objects::sample(&self.app.handle, &process).await {
                    Ok(sample) => {
                        let name = ("name".to_owned(), Value::from(process.slot.job.to_string()));
                        let fields = [name].into_iter().chain(sample.fields);
                        self.out.send(message::event(&self.topic, "stat", fields)).await?;
                    }
                    // It has ended, for good.
                    Err(_) if matches!(self.sampled, Sampled::Process(_)) => return Ok(()),
                    Err(_) => {}
                }
            }
            tokio::time::sleep(every_min(&self.app)).await;
        }
    }
}

/// What all messages of a stream have.
struct Head {
    topic: String,
    event: String,
    name: String,
    pid: u64,
}

impl Head {
    /// Everything before the text.
    fn text(&self) -> String {
        let fields = [
            ("name".to_owned(), Value::from(self.name.clone())),
            ("pid".to_owned(), Value::from(self.pid)),
            ("data".to_owned(), Value::Null),
        ];
        let whole = message::event(&self.topic, &self.event, fields);
        whole.strip_suffix(TAIL).unwrap_or_default().to_owned()
    }
}

/// Where the text of a message of output goes.
const TAIL: &str = "null}}";

/// Sends output as text, until the process has ended.
async fn tell_output(mut follower: Follower, head: Head, out: Outbox) -> Result<(), Gone> {
    let before = head.text();
    // The beginning of a character whose end is in the next piece.
    let mut begun: Vec<u8> = Vec::new();
    while let Some(piece) = follower.next().await {
        let text = match &piece.what {
            What::Missed(bytes) => {
                begun.clear();
                out.send(message::gap(&head.topic, Some(*bytes))).await?;
                continue;
            }
            What::Bytes(bytes) if begun.is_empty() && open_end(bytes) == 0 => {
                format!("{before}{}}}}}", piece.json())
            }
            What::Bytes(bytes) => {
                begun.extend(bytes);
                let rest = begun.split_off(begun.len() - open_end(&begun));
                let whole = std::mem::replace(&mut begun, rest);
                if whole.is_empty() {
                    continue;
                }
                // A text always has a JSON form.
                let text = serde_json::to_string(&String::from_utf8_lossy(&whole)).unwrap_or_default();
                format!("{before}{text}}}}}")
            }
        };
        out.send(text).await?;
    }
    Ok(())
}

/// So many bytes at the end begin a character that is not complete.
fn open_end(bytes: &[u8]) -> usize {
    let last = bytes.len().saturating_sub(3);
    let tail = bytes.get(last..).unwrap_or_default();
    for (at, byte) in tail.iter().enumerate().rev() {
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        let there = tail.len() - at;
        return if there < length { there } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_4_a_character_that_is_cut_waits_for_its_end() {
        let euro = "€".as_bytes();
        assert_eq!(
            [open_end(euro), open_end(&euro[..2]), open_end(&euro[..1])],
            [0, 2, 1]
        );
        assert_eq!(
            [open_end(b""), open_end(b"abc"), open_end(b"\xff\x80\x80\x80")],
            [0, 0, 0]
        );
        assert_eq!(open_end("a😀".as_bytes()), 0);
        assert_eq!(open_end(&"a😀".as_bytes()[..4]), 3);
    }

    #[test]
    fn s8_4_the_text_is_put_where_the_message_has_its_place() {
        let head = Head {
            topic: "STREAM:1".to_owned(),
            event: "out".to_owned(),
            name: "a.b".to_owned(),
            pid: 1,
        };
        let text = format!("{}\"x\"}}}}", head.text());
        let message: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(message["data"]["data"], "x");
        assert_eq!(message["data"]["topic"], "STREAM:1");
    }
}
