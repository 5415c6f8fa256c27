//! After every input: deadlines, changes that pass through dependencies, turns to start, and the orderly end.

use crate::group::Group;
use crate::hub::{Key, Shutdown, Timer};
use crate::instance::In;
use crate::io::{Actor, Command, TaskStanding};
use crate::name::{JobId, Place};
use crate::node::Node;

impl Node {
    pub(crate) fn deadlines(&mut self) {
        // Each at most once per input: a deadline that sets itself anew cannot hold up the node.
        let end = Timer::Seat(Key::MAX, Place::OneOff(u64::MAX));
        let due: Vec<_> = self
            .hub
            .timers
            .range(..=(self.hub.now.mono, end))
            .copied()
            .collect();
        for (at, timer) in due {
            if !self.hub.timers.remove(&(at, timer)) {
                continue;
            }
            match timer {
                // Whose turn it is now is seen to below, after every input.
                Timer::Node => {}
                Timer::Job(key) => {
                    self.with(key, |group, hub| group.due(hub));
                }
                Timer::Seat(key, place) => {
                    self.with(key, |group, hub| {
                        if let Some(at) = group.find(place) {
                            group.seats[at].armed = None;
                        }
                        group.fact(place, In::Due, hub);
                    });
                }
            }
        }
    }

    /// Lets changes pass through dependencies, then lets those start whose turn it is, until all is quiet.
    pub(crate) fn settle(&mut self) {
        let mut any = false;
        loop {
            if let Some(key) = self.hub.moved.pop_first() {
                any = true;
                self.moved(key);
            } else if let Some((_, key, place)) = self.hub.next_turn() {
                self.with(key, |group, hub| group.go(place, hub));
            } else if any && self.hub.shutdown.is_some() {
                any = false;
                self.shutdown_on();
            } else {
                return;
            }
        }
    }

    fn moved(&mut self, key: Key) {
        let Some(standing) = self.with(key, |group, hub| {
            group.forget_one_offs(hub);
            group.stand()
        }) else {
            return;
        };
        let Some(group) = self.group(key) else { return };
        let id = group.id.clone();
        if standing != group.standing {
            self.with(key, |group, _| group.standing = standing);
            for dependent in self.dependents.get(&id).cloned().unwrap_or_default() {
                self.refresh_footing(dependent);
            }
        }
        let Some(group) = self.group(key) else { return };
        if group.forgettable() && self.hub.recovered {
            return self.forget(key, &id);
        }
        if let Some(code) = group.over_for_good().filter(|_| self.hub.shutdown.is_none()) {
            let told = self.with(key, |group, _| std::mem::replace(&mut group.told_over, true));
            if told == Some(false) {
                self.hub.out.commands.push(Command::EndNode { code, job: id });
            }
        } else {
            self.with(key, |group, _| group.told_over = false);
        }
    }

    fn forget(&mut self, key: Key, id: &JobId) {
        self.with(key, |group, hub| {
            group.unqueue_all(hub);
            group.arm(None, hub);
        });
        let spec = self.group(key).and_then(|group| group.spec.clone());
        self.depend(key, spec.as_deref(), None);
        let group = self.groups[key as usize].take();
        let seats = group
            .iter()
            .flat_map(|group| group.seats.iter().filter(|seat| !seat.one_off()));
        let graves: Vec<_> = seats.filter_map(|seat| Some((seat.place, seat.last?))).collect();
        if !graves.is_empty() {
            self.graves.insert(id.clone(), graves);
        }
        self.by_id.remove(id);
        self.hub.out.commands.push(Command::Forget {
            slot: None,
            job: id.clone(),
        });
        self.hub.out.touched.push(id.clone());
        for dependent in self.dependents.get(id).cloned().unwrap_or_default() {
            self.refresh_footing(dependent);
        }
    }

    /// A job looks again at those it comes after.
    pub(crate) fn refresh_footing(&mut self, key: Key) {
        let Some(group) = self.group(key) else { return };
        let standing = |job: &JobId| {
            let other = self.by_id.get(job).and_then(|key| self.group(*key))?;
            other.spec.as_ref().map(|_| other.standing)
        };
        let footing = group.footing_from(standing, |task| self.tasks.get(task));
        if footing == group.footing {
            return;
        }
        self.with(key, |group, hub| {
            group.footing = footing;
            group.queue_all(hub);
            group.reconcile(hub);
        });
    }

    /// A task stands otherwise: those that wait for it look again.
    pub(crate) fn task_stood(&mut self, task: &JobId, standing: Option<TaskStanding>) {
        if self.tasks.get(task) == standing.as_ref() {
            return;
        }
        match standing {
            Some(standing) => drop(self.tasks.insert(task.clone(), standing)),
            None => drop(self.tasks.remove(task)),
        }
        for dependent in self.task_dependents.get(task).cloned().unwrap_or_default() {
            self.refresh_footing(dependent);
            // Its words are others, also where the condition is the same.
            self.hub.touched.insert(dependent);
        }
    }

    // ── orderly end ──

    pub(crate) fn shutdown(&mut self, all: bool, by: Actor) {
        let all = all || self.hub.shutdown.as_ref().is_some_and(|shutdown| shutdown.all);
        self.hub.shutdown = Some(Shutdown {
            all,
            by,
            done: false,
            drain: false,
        });
        self.shutdown_on();
    }

    pub(crate) fn drain(&mut self, stop: bool, by: &Actor) {
        self.hub.drain = Some(by.clone());
        if stop && self.hub.shutdown.is_none() {
            self.hub.shutdown = Some(Shutdown {
                all: true,
                by: by.clone(),
                done: false,
                drain: true,
            });
            self.shutdown_on();
        }
    }

    pub(crate) fn undrain(&mut self) {
        self.hub.drain = None;
        match &self.hub.shutdown {
            // The end of the node goes on.
            Some(Shutdown { drain: false, .. }) => return,
            _ => self.hub.shutdown = None,
        }
        let keys: Vec<Key> = self.by_id.values().copied().collect();
        for key in keys {
            self.with(key, |group, hub| {
                if group.stopping.take().is_some() {
                    group.queue_all(hub);
                    group.reconcile(hub);
                }
            });
        }
    }

    /// Tells the next jobs to stop: dependents first, then higher priority first; says when all is done.
    fn shutdown_on(&mut self) {
        let Some(Shutdown {
            all,
            by,
            done: false,
            drain,
        }) = self.hub.shutdown.clone()
        else {
            return;
        };
        let kept = |group: &Group| !all && group.spec.as_ref().is_some_and(|spec| spec.keep_running);
        let ending: Vec<&Group> = self
            .groups
            .iter()
            .flatten()
            .map(|group| &**group)
            .filter(|group| !kept(group))
            .collect();
        let on_its_way = |group: &&Group| !group.is_at_rest();
        let mut untold: Vec<&Group> = ending
            .iter()
            .copied()
            .filter(|group| group.stopping.is_none())
            .collect();
        if untold.is_empty() {
            if !ending.iter().any(on_its_way) {
                self.hub.out.commands.push(match drain {
                    true => Command::Drained,
                    false => Command::ShutdownDone,
                });
                self.hub.shutdown = Some(Shutdown {
                    all,
                    by,
                    done: true,
                    drain,
                });
            }
            return;
        }
        let first = |group: &&Group| {
            let dependents = self.dependents.get(&group.id).into_iter().flatten();
            dependents
                .filter_map(|key| self.group(*key))
                .all(|other| other.key == group.key || kept(other) || other.is_at_rest())
        };
        let mut next: Vec<&Group> = untold.iter().copied().filter(first).collect();
        // A circle of dependencies, against all rules: nobody in it comes first, so all do.
        if next.is_empty()
            && !ending
                .iter()
                .any(|group| group.stopping.is_some() && !group.is_at_rest())
        {
            std::mem::swap(&mut next, &mut untold);
        }
        next.sort_by_key(|group| {
            let priority = group.spec.as_ref().map_or(0, |spec| spec.priority);
            (std::cmp::Reverse(priority), std::cmp::Reverse(group.key))
        });
        let next: Vec<Key> = next.into_iter().map(|group| group.key).collect();
        let any = !next.is_empty();
        for key in next {
            self.with(key, |group, hub| {
                group.stopping = Some(by.clone());
                group.reconcile(hub);
            });
        }
        if any {
            self.shutdown_on();
        }
    }
}
