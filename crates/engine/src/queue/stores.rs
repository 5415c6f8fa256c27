//! Stores of a node: its own (`[gaffer] queue_store`), and those that queues name (`store`). Each has a machine and a connection of its own, so
//! that one that does not answer holds back its own queues only.
//!
//! A store is known by what names its database, without a password; queues that name the same one share it. The number that it gets is kept in
//! the store of the node and never given to another one, for it is a part of the numbers of tasks
//! ([`gaffer_queue::numbers`]). Where the tasks of a queue are is settled when the daemon first hears of the queue: another `store` counts from
//! the next start.

use super::defined::AllDefined;
use super::service::Queues;
use crate::store::Change;
use gaffer_core::queue::dispatch::{Dispatch, Input};
use gaffer_core::queue::spec::QueueId;
use gaffer_core::queue::task::{Claimed, TaskId};
use gaffer_queue::numbers::{STORE_MAX, StoreNumber, store_of};
use gaffer_queue::postgres::name_of;
use gaffer_queue::{Numbered, StoreError};
use std::collections::BTreeMap;
use std::iter::once;
use std::sync::Arc;

/// The node's own store.
pub(crate) const OWN: StoreNumber = 0;

/// What names the file in the state directory.
const FILE: &str = "sqlite";

/// A store, and the machine of the queues whose tasks are in it.
pub(crate) struct Home {
    /// What names it, without a password.
    pub name: Arc<str>,
    /// Where it is; none: the file in the state directory.
    pub(super) url: Option<String>,
    pub dispatch: Dispatch,
    /// Open, and ready for requests.
    pub store: Option<Numbered>,
    /// It is being opened.
    pub(super) opening: bool,
    /// Why it cannot be opened.
    pub(super) failed: Option<StoreError>,
    /// What operators said, and what an earlier incarnation had, is known.
    pub(super) known: bool,
    /// The machine has nothing left to wait for: the node may end.
    pub(super) done: bool,
}

impl Home {
    fn new(name: Arc<str>, url: Option<String>, seed: u64) -> Home {
        Home {
            name,
            url,
            dispatch: Dispatch::new(seed),
            store: None,
            opening: false,
            failed: None,
            known: false,
            done: false,
        }
    }

    /// Other nodes may be in it.
    pub fn is_shared(&self) -> bool {
        self.url.is_some()
    }
}

/// All stores of a node.
pub(crate) struct Homes {
    own: Home,
    others: BTreeMap<StoreNumber, Home>,
    /// Where the tasks of a queue are, for as long as this daemon lives.
    of: BTreeMap<QueueId, StoreNumber>,
    /// Numbers that were ever given.
    numbers: BTreeMap<Arc<str>, StoreNumber>,
    seed: u64,
}

/// What names the store of a text of a file, and where it is.
fn named(text: &str) -> (Arc<str>, Option<String>) {
    if text == FILE {
        return (FILE.into(), None);
    }
    // A URL that cannot be read is refused in words when it is opened.
    let hidden = || gaffer_config::without_password(text);
    let name = name_of(text).unwrap_or_else(|_| hidden());
    (name.into(), Some(text.to_owned()))
}

impl Homes {
    /// The node's own store, and the numbers that others were given.
    pub fn new(own: Option<&str>, numbers: &[(StoreNumber, String)], seed: u64) -> Homes {
        let (name, url) = named(own.unwrap_or(FILE));
        let numbers = numbers.iter();
        Homes {
            own: Home::new(name, url, seed),
            others: BTreeMap::new(),
            of: BTreeMap::new(),
            numbers: numbers
                .map(|(number, name)| (name.as_str().into(), *number))
                .collect(),
            seed,
        }
    }

    /// The number of a store; one that is new gets the next.
    fn number(&mut self, name: &Arc<str>) -> Option<StoreNumber> {
        if *name == self.own.name {
            return Some(OWN);
        }
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        let highest = self.numbers.values().copied().max().unwrap_or(OWN);
        let number = highest.checked_add(1).filter(|number| *number <= STORE_MAX)?;
        self.numbers.insert(name.clone(), number);
        Some(number)
    }

    /// Numbers of the stores that these queues name, as they have to be kept before a task is put into one.
    pub fn keep_numbers(&mut self, defined: &AllDefined) -> Vec<Change> {
        let named = defined.values().filter_map(|one| one.spec.store.as_deref());
        let names: Vec<Arc<str>> = named.map(named_of).collect();
        let mut changes = Vec::new();
        for name in names {
            if let Some(number) = self.number(&name).filter(|number| *number != OWN) {
                let name = name.to_string();
                changes.push(Change::QueueStore { number, name });
            }
        }
        changes
    }

    /// Every queue has its store from now on, for as long as this daemon lives.
    pub fn place(&mut self, defined: &AllDefined) {
        for (queue, one) in defined {
            let named = one.spec.store.as_deref().map(named);
            let wanted = match &named {
                None => Some(OWN),
                Some((name, _)) => self.number(name),
            };
            let Some(wanted) = wanted else {
                tracing::error!(%queue, "there are no numbers for more stores: its tasks are put into the node's own");
                self.of.entry(queue.clone()).or_insert(OWN);
                continue;
            };
            let placed = *self.of.entry(queue.clone()).or_insert(wanted);
            if placed != wanted {
                tracing::warn!(%queue, "its tasks stay in the store where they are until the daemon is started again");
                continue;
            }
            if let Some((name, url)) = named.filter(|_| wanted != OWN) {
                let seed = self.seed ^ (u64::from(wanted) << 32);
                let home = || Home::new(name, url, seed);
                self.others.entry(wanted).or_insert_with(home);
            }
        }
    }

    /// The store with a number; none: no queue of this node names it.
    pub fn get(&self, number: StoreNumber) -> Option<&Home> {
        match number {
            OWN => Some(&self.own),
            other => self.others.get(&other),
        }
    }

    pub fn get_mut(&mut self, number: StoreNumber) -> Option<&mut Home> {
        match number {
            OWN => Some(&mut self.own),
            other => self.others.get_mut(&other),
        }
    }

    /// The number of the store of a queue; of one that nobody defines: the node's own.
    pub fn number_of(&self, queue: &QueueId) -> StoreNumber {
        self.of.get(queue).copied().unwrap_or(OWN)
    }

    /// The store of a queue.
    pub fn of(&self, queue: &QueueId) -> &Home {
        self.get(self.number_of(queue)).unwrap_or(&self.own)
    }

    /// All of them with their numbers, the node's own first.
    pub fn all(&self) -> impl Iterator<Item = (StoreNumber, &Home)> {
        let others = self.others.iter().map(|(number, home)| (*number, home));
        once((OWN, &self.own)).chain(others)
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Home> {
        once(&mut self.own).chain(self.others.values_mut())
    }

    /// Which machine an input is for; none: for each.
    pub fn route(&self, input: &Input) -> Option<StoreNumber> {
        match input {
            Input::Put { queue, .. }
            | Input::Removed(queue)
            | Input::Paused { queue, .. }
            | Input::Worker { queue, .. }
            | Input::Claimed { queue, .. }
            | Input::Hint(Some(queue)) => Some(self.number_of(queue)),
            Input::Ended { handle, .. }
            | Input::Gone(handle)
            | Input::Settled { handle, .. }
            | Input::Found { handle, .. } => Some(store_of(handle.task)),
            Input::CancelAsked(task) => Some(store_of(*task)),
            Input::Tick
            | Input::Hint(None)
            | Input::Renew
            | Input::Due(_)
            | Input::Renewed { .. }
            | Input::Upkept(_)
            | Input::Orphans(_)
            | Input::Recovered
            | Input::Shutdown
            | Input::Drain(_)
            | Input::Release => None,
        }
    }
}

fn named_of(text: &str) -> Arc<str> {
    named(text).0
}

impl Queues {
    /// The machine of a queue.
    pub fn machine(&self, queue: &QueueId) -> &Dispatch {
        &self.homes.of(queue).dispatch
    }

    /// The task of an attempt that is worked on here, and its seat.
    pub fn held(&self, task: TaskId) -> Option<(&Claimed, u32)> {
        self.homes.get(store_of(task))?.dispatch.held(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::QueueDefined;
    use gaffer_core::name::JobId;
    use gaffer_core::queue::spec::{By, Queue};
    use serde_json::Value;

    const FAR: &str = "postgres://gaffer:SECRET@db.example/queue";

    fn defined(stores: &[(&str, Option<&str>)]) -> AllDefined {
        let one = |(name, store): &(&str, Option<&str>)| {
            let mut spec = Queue::of(By::Others);
            spec.store = store.map(Into::into);
            let defined = QueueDefined {
                workers: spec.workers,
                spec: Arc::new(spec),
                typed: Value::Null,
                file: String::new(),
            };
            (JobId::parse(name).expect("a name"), defined)
        };
        stores.iter().map(one).collect()
    }

    fn at(homes: &Homes, queue: &str) -> StoreNumber {
        homes.number_of(&JobId::parse(queue).expect("a name"))
    }

    #[test]
    fn queues_that_name_the_same_database_share_it() {
        let mut homes = Homes::new(None, &[], 0);
        let same = "postgresql://other@db.example:5432/queue";
        homes.place(&defined(&[
            ("a", None),
            ("b", Some("sqlite")),
            ("c", Some(FAR)),
            ("d", Some(same)),
            ("e", Some("postgres://gaffer@db.example/another")),
        ]));
        let places = ["a", "b", "c", "d", "e"].map(|queue| at(&homes, queue));
        assert_eq!(places, [0, 0, 1, 1, 2]);
        assert_eq!(homes.all().count(), 3);
        let names = homes.all().map(|(_, home)| home.name.to_string());
        assert!(names.into_iter().all(|name| !name.contains("SECRET")));
    }

    #[test]
    fn the_file_is_a_store_of_its_own_where_the_node_has_a_database() {
        let mut homes = Homes::new(Some(FAR), &[], 0);
        homes.place(&defined(&[("a", None), ("b", Some("sqlite")), ("c", Some(FAR))]));
        assert_eq!(["a", "b", "c"].map(|queue| at(&homes, queue)), [0, 1, 0]);
        assert!(homes.get(OWN).is_some_and(Home::is_shared));
        assert!(homes.get(1).is_some_and(|home| !home.is_shared()));
    }

    #[test]
    fn a_number_is_kept_and_never_given_to_another_store() {
        let kept = [(3, "postgres://db.example:5432/queue".to_owned())];
        let mut homes = Homes::new(None, &kept, 0);
        let all = defined(&[("a", Some(FAR)), ("b", Some("postgres://gaffer@elsewhere/q"))]);
        let changes = homes.keep_numbers(&all);
        homes.place(&all);
        assert_eq!(["a", "b"].map(|queue| at(&homes, queue)), [3, 4]);
        let numbers: Vec<_> = changes
            .iter()
            .map(|change| match change {
                Change::QueueStore { number, name } => (*number, name.as_str()),
                _ => panic!("another change"),
            })
            .collect();
        let names = [
            (3, "postgres://db.example:5432/queue"),
            (4, "postgres://elsewhere:5432/q"),
        ];
        assert_eq!(numbers, names);
    }

    #[test]
    fn another_store_of_a_queue_counts_from_the_next_start() {
        let mut homes = Homes::new(None, &[], 0);
        homes.place(&defined(&[("a", None)]));
        homes.place(&defined(&[("a", Some(FAR))]));
        assert_eq!(at(&homes, "a"), OWN);
        let mut next = Homes::new(None, &[], 0);
        next.place(&defined(&[("a", Some(FAR))]));
        assert_eq!(at(&next, "a"), 1);
    }
}
