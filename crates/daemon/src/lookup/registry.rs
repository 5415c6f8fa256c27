//! Who is there and what they have: in memory, bounded, each change told to watchers in its order.

use gaffer_api::lookup::{
    Event, FoundJob, Named, NodeInfo, Refused, Say, Session, Source, full_name, split_name,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, broadcast};

/// Nodes that may be connected at once.
pub const NODES_MAX: usize = 1_024;
/// Jobs of one node.
pub const JOBS_OF_NODE_MAX: usize = 4_096;
/// Processes of one node.
pub const PIDS_OF_NODE_MAX: usize = 16_384;
/// Jobs and processes of all nodes.
pub const ENTRIES_MAX: usize = 500_000;
/// Bytes of a name (node, job, version, life).
const NAME_BYTES_MAX: usize = 256;
/// Bytes of an origin.
const ORIGIN_BYTES_MAX: usize = 1_024;
/// Events that a watcher may be behind before it is told that it has missed some, and dropped.
pub const EVENTS_BEHIND_MAX: usize = 4_096;

/// All nodes.
pub struct Registry {
    nodes: Mutex<All>,
    events: broadcast::Sender<Arc<str>>,
}

#[derive(Default)]
struct All {
    next: u64,
    nodes: BTreeMap<u64, Node>,
    /// Jobs and processes of all of them.
    entries: usize,
}

#[derive(Default)]
struct Node {
    info: Option<NodeInfo>,
    life: Option<String>,
    jobs: BTreeMap<String, BTreeSet<u64>>,
    pids: usize,
    /// Told when a newer connection of the same node takes its place.
    replaced: Arc<Notify>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry {
            nodes: Mutex::default(),
            events: broadcast::channel(EVENTS_BEHIND_MAX).0,
        }
    }
}

/// A node's place in the registry: it and all it has told go when this is dropped.
pub struct Seat {
    registry: Arc<Registry>,
    id: u64,
    /// Resolves when a newer connection of the same node has taken its place.
    pub replaced: Arc<Notify>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.leave(self.id);
    }
}

impl Seat {
    /// Carries a message out.
    pub fn take(&self, say: Say) -> Result<(), Refused> {
        self.registry.take(self.id, say)
    }
}

impl Registry {
    /// A place for a new connection; none: there are too many.
    pub fn enter(self: &Arc<Registry>) -> Option<Seat> {
        let mut all = self.lock();
        if all.nodes.len() >= NODES_MAX {
            return None;
        }
        let id = all.next;
        all.next += 1;
        let node = Node::default();
        let replaced = node.replaced.clone();
        all.nodes.insert(id, node);
        self.tell(&Event::AddNode(Named::default()));
        drop(all);
        Some(Seat {
            registry: self.clone(),
            id,
            replaced,
        })
    }

    /// Events from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<str>> {
        self.events.subscribe()
    }

    /// Nodes that have named themselves.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let mut nodes: Vec<NodeInfo> = self
            .lock()
            .nodes
            .values()
            .filter_map(|node| node.info.clone())
            .collect();
        nodes.sort();
        nodes
    }

    /// Jobs by the names in which they were registered; `wanted` sees the node and the name.
    pub fn jobs(&self, wanted: impl Fn(&NodeInfo, &str) -> bool) -> Vec<FoundJob> {
        let all = self.lock();
        let mut jobs: BTreeMap<&str, Vec<Source>> = BTreeMap::new();
        for node in all.nodes.values() {
            let Some(info) = &node.info else { continue };
            for (name, pids) in &node.jobs {
                if wanted(info, name) {
                    jobs.entry(name).or_default().push(Source {
                        name: name.clone(),
                        pids: pids.iter().copied().collect(),
                        node_info: info.clone(),
                    });
                }
            }
        }
        let found = jobs.into_iter().map(|(name, mut sources)| {
            sources.sort_by(|a, b| a.node_info.cmp(&b.node_info));
            FoundJob {
                name: name.to_owned(),
                sources,
            }
        });
        found.collect()
    }

    /// Sessions, of all nodes or of those with this name.
    pub fn sessions(&self, node: Option<&str>) -> Vec<Session> {
        let mut sessions: BTreeMap<String, BTreeMap<String, Vec<Source>>> = BTreeMap::new();
        for job in self.jobs(|info, _| node.is_none_or(|name| info.name == name)) {
            let (session, _) = split_name(&job.name);
            sessions
                .entry(session.to_owned())
                .or_default()
                .insert(job.name, job.sources);
        }
        let sessions = sessions.into_iter();
        sessions
            .map(|(sessionid, jobs)| Session { sessionid, jobs })
            .collect()
    }

    /// Where a job is, whatever form of its name was registered.
    pub fn sources(&self, name: &str) -> Vec<Source> {
        let wanted = full_name(name);
        let found = self.jobs(|_, job| full_name(job) == wanted);
        found.into_iter().flat_map(|job| job.sources).collect()
    }

    fn take(&self, id: u64, say: Say) -> Result<(), Refused> {
        let mut all = self.lock();
        match say {
            Say::Ping => Ok(()),
            Say::Identify {
                name,
                origin,
                version,
                life,
            } => {
                let info = NodeInfo {
                    name,
                    origin,
                    version,
                };
                self.identify(&mut all, id, info, life)
            }
            Say::RegisterJob { job_name } => self.add_job(&mut all, id, job_name),
            Say::UnregisterJob { job_name } => self.remove_job(&mut all, id, &job_name),
            Say::RegisterProcess { job_name, pid } => self.add_pid(&mut all, id, &job_name, pid),
            Say::UnregisterProcess { job_name, pid } => self.remove_pid(&mut all, id, &job_name, pid),
        }
    }

    fn identify(&self, all: &mut All, id: u64, info: NodeInfo, life: Option<String>) -> Result<(), Refused> {
        if [&info.name, &info.version].iter().any(|text| bad_name(text))
            || life.as_deref().is_some_and(bad_name)
            || info.origin.is_empty()
            || info.origin.len() > ORIGIN_BYTES_MAX
        {
            return Err(Refused::new(
                400,
                "name, version and origin are 1 to 256, 256 and 1024 bytes long",
            ));
        }
        if all.nodes.get(&id).is_some_and(|node| node.info.is_some()) {
            return Err(Refused::new(409, "this connection has identified itself already"));
        }
        let same = |(_, node): &(&u64, &Node)| {
            let known = node.info.as_ref();
            known.is_some_and(|known| (&known.name, &known.origin) == (&info.name, &info.origin))
        };
        let rival = all.nodes.iter().find(same).map(|(id, _)| *id);
        if let Some(rival) = rival {
            let same_life = life.is_some() && all.nodes.get(&rival).is_some_and(|node| node.life == life);
            if !same_life {
                let message = format!(
                    "node '{}' at {} is connected already; if that is you, it is dropped soon",
                    info.name, info.origin
                );
                return Err(Refused::new(409, message));
            }
            // The same daemon has come back before its old connection was found dead.
            if let Some(node) = self.remove(all, rival) {
                node.replaced.notify_one();
            }
        }
        let Some(node) = all.nodes.get_mut(&id) else {
            return Err(gone());
        };
        node.info = Some(info);
        node.life = life;
        self.tell(&Event::Identify(Named::from(node.info.as_ref())));
        Ok(())
    }

    fn add_job(&self, all: &mut All, id: u64, job_name: String) -> Result<(), Refused> {
        let none_left = all.entries >= ENTRIES_MAX;
        let (node, info) = named(all, id)?;
        if bad_name(&job_name) {
            return Err(Refused::new(400, "a job's name is 1 to 256 bytes long"));
        }
        if node.jobs.contains_key(&job_name) {
            return Err(Refused::new(
                409,
                format!("job '{job_name}' is already registered"),
            ));
        }
        if node.jobs.len() >= JOBS_OF_NODE_MAX || none_left {
            return Err(full());
        }
        node.jobs.insert(job_name.clone(), BTreeSet::new());
        all.entries += 1;
        self.tell(&Event::AddJob { node: info, job_name });
        Ok(())
    }

    fn remove_job(&self, all: &mut All, id: u64, job_name: &str) -> Result<(), Refused> {
        let (node, info) = named(all, id)?;
        if let Some(pids) = node.jobs.remove(job_name) {
            node.pids -= pids.len();
            all.entries -= 1 + pids.len();
            self.tell(&Event::RemoveJob {
                node: info,
                job_name: job_name.to_owned(),
            });
        }
        Ok(())
    }

    fn add_pid(&self, all: &mut All, id: u64, job_name: &str, pid: u64) -> Result<(), Refused> {
        let none_left = all.entries >= ENTRIES_MAX;
        let (node, info) = named(all, id)?;
        let none_left = none_left || node.pids >= PIDS_OF_NODE_MAX;
        let Some(pids) = node.jobs.get_mut(job_name) else {
            return Err(Refused::new(404, format!("job '{job_name}' is not registered")));
        };
        if pids.contains(&pid) {
            return Ok(());
        }
        if none_left {
            return Err(full());
        }
        pids.insert(pid);
        node.pids += 1;
        all.entries += 1;
        self.tell(&Event::AddProcess {
            node: info,
            job_name: job_name.to_owned(),
            pid,
        });
        Ok(())
    }

    fn remove_pid(&self, all: &mut All, id: u64, job_name: &str, pid: u64) -> Result<(), Refused> {
        let (node, info) = named(all, id)?;
        let had = node.jobs.get_mut(job_name).is_some_and(|pids| pids.remove(&pid));
        if had {
            node.pids -= 1;
            all.entries -= 1;
            self.tell(&Event::RemoveProcess {
                node: info,
                job_name: job_name.to_owned(),
                pid,
            });
        }
        Ok(())
    }

    fn leave(&self, id: u64) {
        let mut all = self.lock();
        // A replaced node has gone before.
        let _gone = self.remove(&mut all, id);
    }

    fn remove(&self, all: &mut All, id: u64) -> Option<Node> {
        let node = all.nodes.remove(&id)?;
        all.entries -= node.jobs.len() + node.pids;
        self.tell(&Event::RemoveNode(Named::from(node.info.as_ref())));
        Some(node)
    }

    /// Under the lock, so that the order of events is the order of changes.
    fn tell(&self, event: &Event) {
        if self.events.receiver_count() == 0 {
            return;
        }
        // Texts and numbers always have a JSON form; without a watcher there is nobody to tell.
        let text: Arc<str> = serde_json::to_string(event).unwrap_or_default().into();
        let _nobody = self.events.send(text);
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bad_name(text: &str) -> bool {
    text.is_empty() || text.len() > NAME_BYTES_MAX
}

fn full() -> Refused {
    let message = format!(
        "a node may have {JOBS_OF_NODE_MAX} jobs and {PIDS_OF_NODE_MAX} processes, all together {ENTRIES_MAX} of both"
    );
    Refused::new(503, message)
}

fn gone() -> Refused {
    Refused::new(409, "a newer connection of this node has taken its place")
}

fn named(all: &mut All, id: u64) -> Result<(&mut Node, NodeInfo), Refused> {
    let node = all.nodes.get_mut(&id).ok_or_else(gone)?;
    match node.info.clone() {
        Some(info) => Ok((node, info)),
        None => Err(Refused::new(404, "need to send IDENTIFY message first")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(name: &str, life: Option<&str>) -> Say {
        Say::Identify {
            name: name.into(),
            origin: format!("http://{name}:5000"),
            version: "0.1".into(),
            life: life.map(str::to_owned),
        }
    }

    fn job(name: &str) -> Say {
        Say::RegisterJob {
            job_name: name.into(),
        }
    }

    fn pid(name: &str, pid: u64) -> Say {
        Say::RegisterProcess {
            job_name: name.into(),
            pid,
        }
    }

    fn errno(done: Result<(), Refused>) -> u16 {
        done.expect_err("a refusal").errno
    }

    #[test]
    fn s10_2_what_is_refused_and_with_which_number() {
        let registry = Arc::new(Registry::default());
        let seat = registry.enter().expect("a seat");
        assert_eq!(errno(seat.take(job("web"))), 404);
        assert_eq!(seat.take(Say::Ping), Ok(()));
        assert_eq!(seat.take(identify("a", None)), Ok(()));
        assert_eq!(errno(seat.take(identify("a", None))), 409);
        assert_eq!(errno(seat.take(pid("web", 1))), 404);
        assert_eq!(seat.take(job("web")), Ok(()));
        let again = seat.take(job("web")).expect_err("a refusal");
        assert_eq!(
            (again.errno, again.reason.as_str()),
            (409, "job 'web' is already registered")
        );
        let rival = registry.enter().expect("a seat");
        assert_eq!(errno(rival.take(identify("a", None))), 409);
        let unknown = Say::UnregisterJob {
            job_name: "no".into(),
        };
        assert_eq!(seat.take(unknown), Ok(()));
    }

    #[test]
    fn the_same_life_of_a_daemon_takes_its_own_place_and_no_other_does() {
        let registry = Arc::new(Registry::default());
        let old = registry.enter().expect("a seat");
        old.take(identify("a", Some("one"))).expect("it is new");
        old.take(job("web")).expect("it is new");
        let stranger = registry.enter().expect("a seat");
        assert_eq!(errno(stranger.take(identify("a", Some("two")))), 409);
        let back = registry.enter().expect("a seat");
        back.take(identify("a", Some("one"))).expect("it is the same");
        assert!(registry.jobs(|_, _| true).is_empty());
        assert_eq!(errno(old.take(job("web"))), 409);
        drop(old);
        assert_eq!(registry.nodes().len(), 1);
    }

    #[test]
    fn everything_goes_with_its_node_and_is_counted() {
        let registry = Arc::new(Registry::default());
        let seat = registry.enter().expect("a seat");
        seat.take(identify("a", None)).expect("it is new");
        seat.take(job("s.web")).expect("it is new");
        for n in 0..5 {
            seat.take(pid("s.web", n)).expect("it is new");
        }
        seat.take(pid("s.web", 4)).expect("it is there");
        let gone = Say::UnregisterProcess {
            job_name: "s.web".into(),
            pid: 4,
        };
        seat.take(gone).expect("it was there");
        assert_eq!(registry.lock().entries, 5);
        assert_eq!(registry.sources("s/web")[0].pids, [0, 1, 2, 3]);
        drop(seat);
        assert_eq!(registry.lock().entries, 0);
        assert!(registry.sources("s.web").is_empty());
    }

    #[test]
    fn a_node_has_as_many_jobs_as_it_may_and_no_more() {
        let registry = Arc::new(Registry::default());
        let seat = registry.enter().expect("a seat");
        seat.take(identify("a", None)).expect("it is new");
        for n in 0..JOBS_OF_NODE_MAX {
            seat.take(job(&format!("j{n}"))).expect("there is room");
        }
        assert_eq!(errno(seat.take(job("one-more"))), 503);
        assert_eq!(registry.jobs(|_, _| true).len(), JOBS_OF_NODE_MAX);
    }
}
