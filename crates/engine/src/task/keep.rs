//! `keep`: runs that are over go by themselves, when they are old, many or large.
//!
//! It is looked at when a run has ended, when definitions change and when the next one is due. What a file says now counts for all runs of
//! its task; a task that no file has any more keeps to what its newest run was started with. Tasks of Thermos are kept until somebody
//! removes them. A removal that is interrupted is finished by the next look (see `gc`).

use super::gc::{self, Candidate, Kept};
use super::layout::Root;
use super::service::Tasks;
use super::stream::Writer;
use crate::clock;
use crate::owner::lock;
use crate::settings::TasksLed;
use crate::state::State;
use gaffer_config::Keep;
use gaffer_core::name::JobId;
use gaffer_core::time::{Duration, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Whoever waits for a run has so long to ask for it, whatever is said of keeping.
const LEAST: Duration = Duration::from_secs(10);

/// Ends that come together are looked at together; looking takes a small share of the time.
const PAUSE: Duration = Duration::from_secs(5);
const SHARE: u32 = 20;

/// Streams of led tasks are stamped so often.
const STAMP_EVERY: Duration = Duration::from_secs(10);

/// The wall clock may be set: it is asked again after this, whatever it said.
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);

/// Begins to remove what is over, until the engine is gone.
pub(crate) fn begin(state: &Arc<Mutex<State>>) {
    if lock(state).settings.tasks_led != TasksLed::All {
        return;
    }
    let bell = lock(state).tasks.keeps.clone();
    let state = Arc::downgrade(state);
    tokio::spawn(async move {
        loop {
            let Some((root, rules, store)) = state.upgrade().map(|state| {
                let state = lock(&state);
                let root = Root::new(state.settings.tasks_dir());
                (root, rules(&state.tasks), state.store.clone())
            }) else {
                return;
            };
            // How a run ended that something waits for is in the store before its files go.
            if store.check_written().await.is_err() {
                return;
            }
            let begun = Instant::now();
            let looked = tokio::task::spawn_blocking(move || look(&root, &rules)).await;
            let due = looked.ok().flatten();
            let pause = PAUSE.max(begun.elapsed() * SHARE);
            tokio::time::sleep(pause).await;
            let wait = due.map(|due| due.saturating_sub(pause).min(LONGEST));
            match wait {
                None => bell.notified().await,
                Some(wait) => drop(tokio::time::timeout(wait, bell.notified()).await),
            }
        }
    });
}

/// Says of every task that is led that it is: watchers judge its age by the time of its stream. Nothing is done while none is led.
pub(crate) fn begin_stamps(state: &Arc<Mutex<State>>) {
    let mut bell = lock(state).tasks.bell.subscribe();
    let state = Arc::downgrade(state);
    tokio::spawn(async move {
        loop {
            let Some(writers) = state.upgrade().map(|state| lock(&state).tasks.writers()) else {
                return;
            };
            if writers.is_empty() {
                if bell.changed().await.is_err() {
                    return;
                }
                continue;
            }
            // A disk that takes no time stamp takes no record either, and that is told.
            let _told =
                tokio::task::spawn_blocking(move || writers.iter().for_each(|writer| stamp(writer))).await;
            tokio::time::sleep(STAMP_EVERY).await;
        }
    });
}

fn stamp(writer: &Mutex<Writer>) {
    let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = writer.touch() {
        tracing::debug!(%error, "the time of a stream cannot be set");
    }
}

fn rules(tasks: &Tasks) -> BTreeMap<JobId, Keep> {
    let all = tasks.defined().iter();
    all.map(|(id, defined)| (id.clone(), defined.keep)).collect()
}

/// Removes what has to go; gives the time until the next one has.
fn look(root: &Root, rules: &BTreeMap<JobId, Keep>) -> Option<Duration> {
    let mut due = None;
    let gone = gc::sweep(root, |all| {
        let (ids, next) = choose(all, rules, clock::wall());
        due = next;
        ids
    });
    match gone {
        Ok(gone) if gone.is_empty() => {}
        Ok(gone) => tracing::info!(count = gone.len(), "tasks.removed"),
        // Tried again with the next look.
        Err(error) => tracing::warn!(%error, "runs that are over cannot be removed"),
    }
    due
}

/// Ids that go now, and the time until the next one does. `all`: in any order.
fn choose(
    all: &[Candidate],
    rules: &BTreeMap<JobId, Keep>,
    now: Wall,
) -> (BTreeSet<String>, Option<Duration>) {
    let mut runs: BTreeMap<&JobId, Vec<(&Kept, &Candidate)>> = BTreeMap::new();
    for one in all {
        if let Some(kept) = &one.kept {
            runs.entry(&kept.task.id).or_default().push((kept, one));
        }
    }
    let mut gone = BTreeSet::new();
    let mut due: Option<Duration> = None;
    for (task, mut runs) in runs {
        // The newest first.
        runs.sort_by_key(|(kept, one)| (std::cmp::Reverse(kept.ended.0), &one.collected.id));
        let Some(keep) = rules
            .get(task)
            .copied()
            .or_else(|| Some(runs.first()?.0.task.keep))
        else {
            continue;
        };
        let (mut count, mut bytes) = (0u32, 0u64);
        for (kept, one) in runs {
            let age = now.since(kept.ended);
            let limit = if kept.success { keep.done } else { keep.failed };
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(one.collected.bytes());
            let too_much =
                keep.count.is_some_and(|most| count > most) || keep.size.is_some_and(|most| bytes > most);
            let limit = if too_much { LEAST } else { limit.max(LEAST) };
            match limit.checked_sub(age).filter(|left| !left.is_zero()) {
                None => drop(gone.insert(one.collected.id.clone())),
                Some(left) => due = Some(due.map_or(left, |due| due.min(left))),
            }
        }
    }
    (gone, due)
}

#[cfg(test)]
mod tests {
    use super::super::definition::Native;
    use super::super::gc::Collected;
    use super::*;
    use gaffer_core::job::After;

    const DAY: u64 = 24 * 60 * 60;

    fn run(id: &str, days: u64, success: bool, keep: Keep) -> Candidate {
        let task = Native {
            id: JobId::parse("default.t").expect("a name"),
            params: BTreeMap::new(),
            unique: None,
            after: After::new(),
            after_tasks: After::new(),
            keep,
        };
        let collected = Collected {
            id: id.to_owned(),
            age: Duration::ZERO,
            metadata: 100,
            logs: 0,
            data: None,
        };
        let ended = Wall(NOW.0 - i64::try_from(days * DAY * 1000).expect("small"));
        let task = Arc::new(task);
        Candidate::of(collected, Some(Kept { task, success, ended }))
    }

    const NOW: Wall = Wall(1_800_000_000_000);

    fn gone(all: &[Candidate], rules: &BTreeMap<JobId, Keep>) -> (Vec<String>, Option<u64>) {
        let (ids, due) = choose(all, rules, NOW);
        (ids.into_iter().collect(), due.map(|due| due.as_secs() / DAY))
    }

    #[test]
    fn each_kind_of_end_has_its_time() {
        let keep = Keep::default();
        let all = [
            run("a", 6, true, keep),
            run("b", 8, true, keep),
            run("c", 8, false, keep),
            run("d", 31, false, keep),
        ];
        assert_eq!(
            gone(&all, &BTreeMap::new()),
            (vec!["b".into(), "d".into()], Some(1))
        );
    }

    #[test]
    fn the_newest_stay_when_there_are_too_many_or_they_are_too_large() {
        let count = Keep {
            count: Some(2),
            ..Keep::default()
        };
        let size = Keep {
            size: Some(250),
            ..Keep::default()
        };
        for keep in [count, size] {
            let all = [
                run("old", 3, true, keep),
                run("new", 1, false, keep),
                run("mid", 2, true, keep),
            ];
            assert_eq!(gone(&all, &BTreeMap::new()).0, ["old"], "{keep:?}");
        }
    }

    #[test]
    fn what_the_file_says_now_counts_and_nobody_is_surprised_at_once() {
        let never = Keep {
            done: Duration::from_secs(100 * DAY),
            ..Keep::default()
        };
        let at_once = Keep {
            done: Duration::ZERO,
            count: Some(1),
            ..Keep::default()
        };
        let rules = BTreeMap::from([(JobId::parse("default.t").expect("a name"), at_once)]);
        let all = [run("a", 1, true, never), run("b", 0, true, never)];
        let (ids, due) = choose(&all, &rules, NOW);
        assert_eq!(
            (ids.into_iter().collect::<Vec<_>>(), due),
            (vec!["a".to_owned()], Some(LEAST))
        );
    }
}
