//! Starting is recovering: lock, store, epoch, walk the shims, `Hello`, read the journals, and only then act.
//!
//! A shim that does not answer holds back the starts of its group only. A shim that is dead is settled from its journal:
//! its runs are killed if anything of them lives, the journal is read again, and what it does not
//! tell stays `unknown`, never 0.

use crate::clock;
use crate::facts::{Exit, Fold, RunFacts};
use crate::owner::Message;
use crate::pids::{Pids, PidsKept};
use crate::settle;
use crate::shims::{Connection, Shim, ShimState, unwire, watch_end};
use crate::state::{State, orphan};
use crate::store::{JobRow, Loaded, RunRow};
use crate::tree;
use gaffer_core::io::{Death, Found, Input, Stamp, Wish, WishState};
use gaffer_core::name::{JobId, JobName, Name, RunId, Slot};
use gaffer_core::time::{Duration, Wall};
use gaffer_shim::client::{self, ShimDir};
use gaffer_shim::identity::World;
use gaffer_shim::journal::{Position, Reader, Record};
use gaffer_shim::message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// How long a shim may take to answer `Hello` before it counts as silent.
const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// How long what a dead shim left behind may take to die.
const KILL_WITHIN: Duration = Duration::from_secs(10);

/// Puts the jobs, wishes and one-offs of the store into the core. Commands are held back until the end of recovery.
pub(crate) fn load_intent(state: &mut State, loaded: Loaded) {
    for row in loaded.jobs {
        let id = match job_id(&row.session, &row.job) {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(session = row.session, job = row.job, %error, "a stored job has a bad name");
                continue;
            }
        };
        load_job(state, id, row);
    }
    for row in loaded.wishes {
        let Ok(id) = job_id(&row.session, &row.job) else {
            continue;
        };
        let wish = Wish {
            state: wish_state(&row.wish),
            seq: row.wish_seq,
            restart: row.restart_seq,
        };
        let Some(meta) = state.jobs.get_mut(&id) else {
            continue;
        };
        meta.instance_wishes.insert(row.instance, wish);
        state.feed(Input::Wished {
            job: id,
            instance: Some(row.instance),
            wish,
            how: Default::default(),
            by: "the store".into(),
        });
    }
    for row in loaded.reloads {
        let Ok(id) = job_id(&row.session, &row.job) else {
            continue;
        };
        if state.jobs.contains_key(&id) {
            crate::acts::reload_recovered(state, id, &row);
        }
    }
    for row in loaded.one_offs {
        let Ok(id) = job_id(&row.session, &row.job) else {
            continue;
        };
        crate::requests::one_off_recovered(state, id, row.n, &row.request);
    }
    // Last: a removal ends what was asked for before.
    let removed: Vec<JobId> = state
        .jobs
        .iter()
        .filter(|(_, meta)| meta.removed)
        .map(|(job, _)| job.clone())
        .collect();
    for job in removed {
        state.feed(Input::JobRemoved {
            job,
            by: "the store".into(),
        });
    }
}

fn load_job(state: &mut State, id: JobId, row: JobRow) {
    let typed = serde_json::from_str(&row.spec).unwrap_or(serde_json::Value::Null);
    let loaded = match gaffer_config::load_job_json(
        &row.session,
        &row.job,
        &typed,
        &gaffer_config::StoredHost,
    ) {
        Ok(loaded) => loaded,
        Err(error) => {
            // Its runs, if any, are left as they are: nothing is killed because of a text we cannot read.
            tracing::error!(job = %id, error = %error.render(false), "a stored job cannot be understood; it is left alone");
            return;
        }
    };
    let removed = row.wish == "removed";
    let wish = Wish {
        state: wish_state(&row.wish),
        seq: row.wish_seq,
        restart: row.restart_seq,
    };
    let by: Arc<str> = row.changed_by.as_str().into();
    let meta = crate::state::JobMeta {
        spec: loaded.spec.clone(),
        revision: row.revision,
        file: row.file.as_deref().map(Into::into),
        line: row.line,
        wish,
        scaled: row.scaled,
        instance_wishes: BTreeMap::new(),
        removed,
    };
    state.jobs.insert(id.clone(), Box::new(meta));
    state.feed(Input::JobPut {
        job: id.clone(),
        spec: loaded.spec,
        launch_digest: loaded.launch_digest,
        wish,
        scaled: row.scaled,
        by: by.clone(),
    });
}

fn wish_state(word: &str) -> WishState {
    match word {
        "running" => WishState::Running,
        "paused" => WishState::Paused,
        _ => WishState::Stopped,
    }
}

/// A shim's directory as recovery found it.
struct Seen {
    dir: ShimDir,
    fold: Fold,
}

/// Walks the shims and brings the core up to date. Returns when everything that answers has been adopted.
pub(crate) async fn recover(
    state: &Arc<Mutex<State>>,
    rx: &mut mpsc::UnboundedReceiver<Message>,
    history: Vec<RunRow>,
    kept: &PidsKept,
) -> std::io::Result<()> {
    let shims_dir = crate::owner::lock(state).settings.shims_dir();
    let mut waiting = BTreeSet::new();
    let mut dead = Vec::new();
    for dir in client::walk(&shims_dir)? {
        let n = dir.n;
        {
            let mut state = crate::owner::lock(state);
            state.shims.next = state.shims.next.max(n + 1);
        }
        // Elsewhere its number means somebody else: then its lock alone says that it lives.
        let elsewhere = is_of_another_world(&dir.path);
        if dir.locked && (elsewhere || client::shim_alive(&dir.path)) {
            greet(state, dir, elsewhere)?;
            waiting.insert(n);
        } else {
            dead.push(dir);
        }
    }
    let mut messages = hear(rx, &mut waiting).await;
    let node_id = crate::owner::lock(state).node_id.clone();
    let mut folds = Vec::new();
    for dir in dead {
        folds.push(bury(dir, &node_id).await?);
    }
    let recovered = read_journals(&mut crate::owner::lock(state), folds)?;
    begin_pids(state, &recovered.folds, kept, !waiting.is_empty()).await;
    let mut state = crate::owner::lock(state);
    for n in &waiting {
        if let Some(shim) = state.shims.all.get_mut(n) {
            tracing::warn!(
                shim = n,
                group = shim.group,
                "the shim does not answer; nothing is started in its group until it does or is dead"
            );
            shim.state = ShimState::Silent;
        }
    }
    let frozen: BTreeSet<RunId> = messages.iter().flat_map(frozen_runs).collect();
    settle_recovered(&mut state, recovered, &history, &frozen);
    for message in messages.drain(..) {
        // Pushed behind whatever came meanwhile: greetings first watch the shim, then read its journal again.
        let _ended = state.owner.send(message);
    }
    Ok(())
}

/// Another boot or another pid namespace: a container that was started again on its volume, say.
fn is_of_another_world(dir: &std::path::Path) -> bool {
    let first = Reader::open(dir, Position::default()).and_then(|mut journal| journal.read_next());
    match (first, World::current()) {
        (Ok(Some((Record::Head { world, .. }, _))), Ok(ours)) => world != ours.to_string(),
        _ => false,
    }
}

fn greet(state: &Arc<Mutex<State>>, dir: ShimDir, elsewhere: bool) -> std::io::Result<()> {
    let mut state = crate::owner::lock(state);
    let group = std::fs::read_to_string(dir.path.join("group")).unwrap_or_default();
    let connection = match client::connect(&dir.path) {
        _ if elsewhere => {
            tracing::error!(
                shim = dir.n,
                "the shim lives in another pid namespace: start the daemon there, or end the shim"
            );
            None
        }
        Ok(stream) => {
            let connection = Connection::open(dir.n, stream, state.owner.clone())?;
            connection.send(&state.hello());
            Some(connection)
        }
        Err(error) => {
            tracing::warn!(shim = dir.n, %error, "cannot connect to the shim");
            None
        }
    };
    // It may die before it answers: what it leaves is buried then, and nobody waits for ever.
    let ended = client::shim_process(&dir.path)
        .filter(|_| !elsewhere)
        .map(|pidfd| watch_end(pidfd, state.owner.clone(), Message::ShimEnded { shim: dir.n }));
    let shim = Shim {
        journal: Reader::open(&dir.path, Position::default())?,
        dir: dir.path,
        group,
        connection,
        position: Position::default(),
        pid: 0,
        guard_pid: 0,
        version: message::VERSION,
        runs: 0,
        state: ShimState::Connected,
        full: false,
        last: false,
        watches: ended.transpose()?.into_iter().collect(),
    };
    state.shims.all.insert(dir.n, shim);
    Ok(())
}

/// Waits until every shim has answered or the time is up; gives back what was heard, in order.
async fn hear(rx: &mut mpsc::UnboundedReceiver<Message>, waiting: &mut BTreeSet<u64>) -> Vec<Message> {
    let deadline = tokio::time::Instant::now() + HELLO_WITHIN;
    let mut heard = Vec::new();
    while !waiting.is_empty() {
        let Ok(Some(message)) = tokio::time::timeout_at(deadline, rx.recv()).await else {
            break;
        };
        if let Message::ShimHello { shim, .. } = &message {
            waiting.remove(shim);
        }
        heard.push(message);
    }
    heard
}

/// Ends what a dead shim left behind, and reads its journal when nobody can write it any more.
async fn bury(dir: ShimDir, node_id: &str) -> std::io::Result<Seen> {
    let first = read_all(&dir)?;
    let mut orphans: Vec<_> = first
        .fold
        .runs
        .values()
        .filter(|facts| !facts.is_over())
        .map(|facts| orphan(facts, node_id))
        .collect();
    if is_of_another_world(&dir.path) {
        // By cgroup and environment only: their numbers belong to others here.
        orphans.iter_mut().for_each(|orphan| orphan.start_ticks = 0);
    }
    for orphan in &orphans {
        tree::kill(orphan);
    }
    for orphan in &orphans {
        if !tree::kill_and_wait(orphan, KILL_WITHIN).await {
            tracing::error!(run = %orphan.run, "what its dead shim left behind does not die");
        }
    }
    // A guard that still reaps writes until it lets go of the lock.
    let deadline = tokio::time::Instant::now() + KILL_WITHIN;
    while matches!(client::is_locked(&dir.path), Ok(true)) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    read_all(&dir)
}

fn read_all(dir: &ShimDir) -> std::io::Result<Seen> {
    let mut reader = Reader::open(&dir.path, Position::default())?;
    let mut fold = Fold::default();
    while let Some((record, _)) = reader.read_next()? {
        fold.take(dir.n, &record);
    }
    Ok(Seen {
        dir: dir.clone(),
        fold,
    })
}

/// What recovery knows besides the journals.
struct Known<'a> {
    /// Shims that are dead.
    buried: BTreeSet<u64>,
    /// Runs that are frozen, as their shims say.
    frozen: &'a BTreeSet<RunId>,
}

fn frozen_runs(message: &Message) -> Vec<RunId> {
    match message {
        Message::ShimHello { greeting, .. } => greeting
            .table
            .iter()
            .filter(|live| live.frozen)
            .map(|live| unwire(live.run))
            .collect(),
        _ => Vec::new(),
    }
}

/// What the journals of all shims say.
struct Journals {
    folds: Vec<(u64, Fold)>,
    /// Dead shims, and their directories.
    graves: Vec<(u64, std::path::PathBuf)>,
}

fn read_journals(state: &mut State, dead: Vec<Seen>) -> std::io::Result<Journals> {
    let mut folds: Vec<(u64, Fold)> = Vec::new();
    for n in state.shims.all.keys().copied().collect::<Vec<_>>() {
        let Some(shim) = state.shims.all.get_mut(&n) else {
            continue;
        };
        let mut fold = Fold::default();
        while let Some((record, position)) = shim.journal.read_next()? {
            fold.take(n, &record);
            shim.position = position;
        }
        shim.runs =
            u32::try_from(fold.runs.values().filter(|facts| !facts.is_over()).count()).unwrap_or(u32::MAX);
        folds.push((n, fold));
    }
    let mut graves = Vec::new();
    for seen in dead {
        graves.push((seen.dir.n, seen.dir.path));
        folds.push((seen.dir.n, seen.fold));
    }
    Ok(Journals { folds, graves })
}

/// Where the small process numbers of this daemon begin: on disk before anything may start.
async fn begin_pids(state: &Arc<Mutex<State>>, folds: &[(u64, Fold)], kept: &PidsKept, silent: bool) {
    let committing = {
        let mut state = crate::owner::lock(state);
        let (pids, change) = Pids::begin(state.epoch, kept, folds.iter().map(|(_, fold)| fold), silent);
        state.pids = pids;
        state.store.begin_commit(vec![change])
    };
    match committing.await {
        Ok(Ok(())) => {}
        // A full disk keeps nobody from taking charge of what runs.
        Ok(Err(error)) => tracing::warn!(%error, "process numbers may not be the same after the next start"),
        Err(_) => tracing::warn!("the store has ended"),
    }
}

/// Tells the core of every slot's newest run, then of what happened to it since, then lets it act.
fn settle_recovered(
    state: &mut State,
    Journals { folds, graves }: Journals,
    history: &[RunRow],
    frozen: &BTreeSet<RunId>,
) {
    let buried: BTreeSet<u64> = graves.iter().map(|(n, _)| *n).collect();
    let known: BTreeSet<RunId> = history
        .iter()
        .map(|row| RunId {
            epoch: row.epoch,
            n: row.n,
        })
        .collect();
    let mut newest: BTreeMap<String, Box<RunFacts>> = BTreeMap::new();
    for (_, fold) in folds {
        for (run, mut facts) in fold.runs {
            facts.settled = known.contains(&run);
            if !facts.settled {
                state.note_found_start(&facts);
            }
            let place = newest.entry(facts.slot.clone()).or_insert_with(|| facts.clone());
            let mut older = if place.run < run {
                std::mem::replace(place, facts)
            } else if place.run > run {
                facts
            } else {
                continue;
            };
            let dead_shim = buried.contains(&older.shim);
            settle_older(state, &mut older, dead_shim);
        }
    }
    report_slots(state, newest, history, &Known { buried, frozen });
    state.drain_as_found();
    state.feed(Input::Recovered);
    state.flush_settled();
    for (_, dir) in graves {
        state.remove_shim_dir(dir);
    }
}

/// An earlier run of a slot whose death did not reach the history: the daemon that decided about it was killed first.
fn settle_older(state: &mut State, facts: &mut RunFacts, dead_shim: bool) {
    if facts.settled || !(facts.born || facts.failed.is_some()) {
        return;
    }
    if facts.exit.is_none() && facts.failed.is_none() {
        if !dead_shim {
            return;
        }
        // Nobody saw its end, and the one who was told so did not live to write it down.
        facts.exit = Some(Box::new(Exit::unseen()));
    }
    let Ok(slot) = facts.slot.parse::<Slot>() else {
        return;
    };
    let (death, reason) = settle::unexplained(facts);
    let mut settled = settle::row(facts, &slot, &death, &reason);
    state.tell_unexplained(&slot, &mut settled);
    state.settled.push(settled);
}

fn report_slots(
    state: &mut State,
    newest: BTreeMap<String, Box<RunFacts>>,
    history: &[RunRow],
    known: &Known<'_>,
) {
    let mut past: BTreeMap<&str, Vec<Death>> = BTreeMap::new();
    for row in history {
        if let Some(death) = settle::death(row) {
            past.entry(&row.slot).or_default().push(death);
        }
    }
    // Slots that only the history remembers: their shim and its journal are gone in good order.
    for (slot, deaths) in &past {
        let Some(last) = deaths.last().filter(|_| !newest.contains_key(*slot)) else {
            continue;
        };
        let Ok(slot) = slot.parse::<Slot>() else {
            continue;
        };
        if state.jobs.contains_key(&slot.job) {
            let earlier = deaths.get(..deaths.len() - 1).unwrap_or_default().to_vec();
            let found = Found::Dead(last.clone());
            state.feed(Input::SlotFound {
                slot,
                run: last.run,
                stamp: Stamp::default(),
                found,
                past: earlier,
            });
        }
    }
    for (text, facts) in newest {
        let Ok(slot) = text.parse::<Slot>() else {
            let dead_shim = known.buried.contains(&facts.shim);
            if text.starts_with("queue:") {
                state.note_queue_run(&text, *facts, dead_shim);
            } else {
                state.note_task_run(&text, *facts, dead_shim);
            }
            continue;
        };
        let (own, earlier): (Vec<Death>, Vec<Death>) = past
            .get(text.as_str())
            .into_iter()
            .flatten()
            .cloned()
            .partition(|death| death.run == facts.run);
        report_slot(state, slot, *facts, (own.into_iter().next(), earlier), known);
    }
}

/// One slot: what its newest run is as far as the core needs to know, then what happened to it since.
fn report_slot(
    state: &mut State,
    slot: Slot,
    facts: RunFacts,
    (own, past): (Option<Death>, Vec<Death>),
    known: &Known<'_>,
) {
    let run = facts.run;
    let stamp = Stamp {
        restart: facts.stamp[0],
        launch: facts.stamp[1],
    };
    let dead_shim = known.buried.contains(&facts.shim);
    let silent = state
        .shims
        .all
        .get(&facts.shim)
        .is_some_and(|shim| shim.state == ShimState::Silent);
    let undecided = facts.exit.is_none() && facts.failed.is_none();
    let found = if facts.settled && facts.is_over() {
        // As it was decided then.
        Found::Dead(own.unwrap_or_else(|| settle::unexplained(&facts).0))
    } else if dead_shim && !facts.born && facts.failed.is_none() {
        Found::NotStarted
    } else {
        let lived = facts
            .started
            .map_or(0, |(_, mono)| clock::mono().0.saturating_sub(mono.0));
        Found::Alive {
            pid: facts.pid,
            started: facts.started.map_or(Wall(0), |(wall, _)| wall),
            lived: Duration::from_nanos(lived),
            paused: known.frozen.contains(&run),
            ended: None,
        }
    };
    let alive = matches!(found, Found::Alive { .. });
    if alive {
        state.runs.runs.insert(run, Box::new(facts.clone()));
    }
    state.feed(Input::SlotFound {
        slot,
        run,
        stamp,
        found,
        past,
    });
    if alive && silent && undecided {
        // As its journal says it lives; what it is now only its shim could tell.
        state.feed(Input::Unreachable { run, silent: true });
    } else if alive {
        replay(state, facts, dead_shim);
    }
}

/// What happened to a run while nobody read, as the same inputs as live.
fn replay(state: &mut State, facts: RunFacts, dead_shim: bool) {
    let run = facts.run;
    if let Some(failure) = &facts.failed {
        let text = crate::launch::start_failure(&failure.stage, failure.errno, &failure.text).into();
        let stage = failure.stage.as_str().into();
        state.feed(Input::StartFailed {
            run,
            stage,
            errno: failure.errno,
            text,
        });
    } else if let Some(end) = facts.end() {
        let survivors = facts.exit.as_ref().map_or(0, |exit| exit.survivors);
        state.feed(Input::Exited {
            run,
            end,
            survivors,
            successor: None,
        });
        if survivors > 0 && facts.gone {
            state.feed(Input::TreeGone { run });
        } else if dead_shim {
            state.resolve_run(&facts, false);
        }
    } else if dead_shim {
        state.resolve_run(&facts, false);
    }
    state.drop_if_over(run);
}

fn job_id(session: &str, job: &str) -> Result<JobId, gaffer_core::name::NameError> {
    Ok(JobId::new(Name::parse(session)?, JobName::parse(job)?))
}
