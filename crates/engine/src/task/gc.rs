//! Removing tasks that are over: by id, by age, by number, by the space they take. Active tasks are never looked at.
//!
//! A task goes in steps that may be interrupted anywhere: its file is renamed to a name that no id has (from then on it is not
//! listed), then its folder and output, then its checkpoint, then the renamed file. What an interrupted removal left is finished by the next.

use super::definition::Native;
use super::handle::{layout, read};
use super::layout::{Place, Root, check_id};
use super::stream;
use crate::handle::{Handle, Result};
use crate::info::Error;
use gaffer_core::task::record::{Header, Record, TaskState};
use gaffer_core::time::Wall;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collect {
    /// These, whatever their age.
    pub ids: Vec<String>,
    /// Those that are over for longer.
    pub age: Option<Duration>,
    /// The oldest, until so many are left.
    pub count: Option<usize>,
    /// The oldest, until the rest takes so many bytes.
    pub size: Option<u64>,
    /// Only say which.
    pub dry_run: bool,
}

/// A task that goes, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// Id.
    pub id: String,
    /// Since its checkpoint was last written.
    pub age: Duration,
    /// Bytes on disk: checkpoint and definition.
    pub metadata: u64,
    /// Bytes on disk: output.
    pub logs: u64,
    /// Bytes on disk: working directory; none: it is not of this root, or another task works there, and stays.
    pub data: Option<u64>,
}

impl Collected {
    pub(super) fn bytes(&self) -> u64 {
        self.metadata + self.logs + self.data.unwrap_or(0)
    }
}

#[cfg(test)]
impl Candidate {
    /// Without places.
    pub fn of(collected: Collected, kept: Option<Kept>) -> Candidate {
        Candidate {
            collected,
            kept,
            logs: None,
            data: None,
            sandbox: None,
        }
    }
}

/// What decides how long a run is kept.
pub(super) struct Kept {
    pub task: Arc<Native>,
    pub success: bool,
    pub ended: Wall,
}

impl Handle {
    /// Removes tasks that are over; gives them, the oldest first.
    pub async fn tasks_collect(&self, what: Collect) -> Result<Vec<Collected>> {
        let root = self.tasks_root();
        tokio::task::spawn_blocking(move || collect(&root, &what))
            .await
            .map_err(|_| Error::ShuttingDown)?
    }
}

/// A finished task with its places.
pub(super) struct Candidate {
    pub collected: Collected,
    /// How it ended, and how long such runs are kept; none: it is no native task, or cannot be read.
    pub kept: Option<Kept>,
    logs: Option<PathBuf>,
    data: Option<PathBuf>,
    /// A working directory of this root, and how many tasks work there.
    sandbox: Option<(PathBuf, u32)>,
}

fn collect(root: &Root, what: &Collect) -> Result<Vec<Collected>> {
    for id in &what.ids {
        check_id(id).map_err(layout)?;
        match root.place(id) {
            Some(Place::Finished) => {}
            Some(Place::Active) => return Err(Error::WrongState(format!("task {id} is not over"))),
            None => return Err(Error::TaskNotFound(id.clone())),
        }
    }
    if !what.dry_run {
        finish_removals(root)?;
    }
    let mut chosen = choose(candidates(root)?, what);
    share(&mut chosen);
    if !what.dry_run {
        for candidate in &chosen {
            remove(root, candidate)?;
        }
    }
    Ok(chosen.into_iter().map(|candidate| candidate.collected).collect())
}

/// Removes those of which this is true, and what earlier removals have left.
pub(super) fn sweep(
    root: &Root,
    choose: impl FnOnce(&[Candidate]) -> BTreeSet<String>,
) -> Result<Vec<Collected>> {
    finish_removals(root)?;
    let mut all = candidates(root)?;
    let chosen = choose(&all);
    all.retain(|one| chosen.contains(&one.collected.id));
    share(&mut all);
    all.iter().try_for_each(|one| remove(root, one))?;
    Ok(all.into_iter().map(|one| one.collected).collect())
}

/// All tasks that are over, the oldest first.
fn candidates(root: &Root) -> Result<Vec<Candidate>> {
    let listed = root.list(None).map_err(layout)?;
    let mut headers: BTreeMap<String, Header> = BTreeMap::new();
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    let mut works: BTreeMap<String, u32> = BTreeMap::new();
    for one in &listed {
        // One that cannot be read keeps its folder and its output: nobody knows where they are.
        if let Ok(info) = read(root, &one.id)
            && let Some(header) = info.history.header
        {
            if let (Some(task), Some(last)) = (info.native, info.history.statuses.last()) {
                let (success, ended) = (last.state == TaskState::Success, last.at);
                kept.insert(one.id.clone(), Kept { task, success, ended });
            }
            *works.entry(header.sandbox.to_string()).or_default() += 1;
            headers.insert(one.id.clone(), header);
        }
    }
    let over = listed.iter().filter(|one| one.place == Place::Finished);
    let mut all: Vec<Candidate> = over
        .map(|one| {
            let header = headers.get(&one.id);
            let own = |path: &str, folder: &str| {
                let path = PathBuf::from(path);
                (path == root.path().join(folder).join(&one.id)).then_some(path)
            };
            let logs = header.and_then(|header| own(&header.log_dir, "logs"));
            // That of a run again is the folder of the first, which may have gone without it.
            let sandbox = header.and_then(|header| {
                let users = works.get(&*header.sandbox).copied().unwrap_or_default();
                Some((sandbox_of(root, header)?, users))
            });
            candidate(root, &one.id, (logs, sandbox), kept.remove(&one.id))
        })
        .collect();
    all.sort_by(|a, b| {
        b.collected
            .age
            .cmp(&a.collected.age)
            .then(a.collected.id.cmp(&b.collected.id))
    });
    Ok(all)
}

/// A working directory that is of this root.
fn sandbox_of(root: &Root, header: &Header) -> Option<PathBuf> {
    let path = PathBuf::from(&*header.sandbox);
    (path.parent() == Some(&root.path().join("sandboxes"))).then_some(path)
}

fn candidate(
    root: &Root,
    id: &str,
    (logs, sandbox): (Option<PathBuf>, Option<(PathBuf, u32)>),
    kept: Option<Kept>,
) -> Candidate {
    let modified = fs::metadata(root.runner(id)).and_then(|data| data.modified());
    let age = modified
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    let alone = sandbox.as_ref().filter(|(_, users)| *users == 1);
    let data = alone.map(|(path, _)| path.clone());
    let metadata = space(&root.checkpoint(id)) + space(&root.task(id, Place::Finished));
    Candidate {
        collected: Collected {
            id: id.to_owned(),
            age: age.unwrap_or_default(),
            metadata,
            logs: logs.as_deref().map_or(0, space),
            data: data.as_deref().map(space),
        },
        kept,
        logs,
        data,
        sandbox,
    }
}

/// A working directory that several have goes with the last of them, if all of them go.
fn share(chosen: &mut [Candidate]) {
    let mut gone: BTreeMap<PathBuf, u32> = BTreeMap::new();
    for one in chosen {
        let Some((path, users)) = one.sandbox.clone().filter(|(_, users)| *users > 1) else {
            continue;
        };
        let count = gone.entry(path.clone()).or_default();
        *count += 1;
        if *count == users {
            one.collected.data = Some(space(&path));
            one.data = Some(path);
        }
    }
}

/// Those that go, of all in the order of their age.
fn choose(mut all: Vec<Candidate>, what: &Collect) -> Vec<Candidate> {
    let named = |candidate: &Candidate| what.ids.contains(&candidate.collected.id);
    let old = |candidate: &Candidate| what.age.is_some_and(|age| candidate.collected.age > age);
    let (mut chosen, mut rest): (Vec<_>, Vec<_>) = all.drain(..).partition(|one| named(one) || old(one));
    let mut bytes: u64 = rest.iter().map(|one| one.collected.bytes()).sum();
    let mut count = rest.len();
    let mut over = 0;
    for one in &rest {
        let too_many = what.count.is_some_and(|most| count > most);
        let too_large = what.size.is_some_and(|most| bytes > most);
        if !too_many && !too_large {
            break;
        }
        over += 1;
        count -= 1;
        bytes -= one.collected.bytes();
    }
    chosen.extend(rest.drain(..over));
    chosen
}

/// Bytes that a path takes on the disk, with everything below it. Links are not followed.
pub(super) fn space(path: &Path) -> u64 {
    let Ok(data) = fs::symlink_metadata(path) else {
        return 0;
    };
    let below = match data.is_dir() {
        true => fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| space(&entry.path()))
            .sum(),
        false => 0,
    };
    data.blocks() * 512 + below
}

/// A name that no id has: an id does not begin with a dot.
fn marked(root: &Root, id: &str) -> PathBuf {
    root.task(&format!(".{id}.gone"), Place::Finished)
}

fn remove(root: &Root, candidate: &Candidate) -> Result<()> {
    let id = &candidate.collected.id;
    let mark = marked(root, id);
    let result = fs::rename(root.task(id, Place::Finished), &mark)
        .and_then(|()| candidate.data.iter().try_for_each(|path| remove_all(path)))
        .and_then(|()| candidate.logs.iter().try_for_each(|path| remove_all(path)))
        .and_then(|()| remove_all(&root.checkpoint(id)))
        .and_then(|()| fs::remove_file(&mark));
    result.map_err(|error| Error::Task(format!("task {id} cannot be removed: {error}")))
}

fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What an earlier removal did not come to.
fn finish_removals(root: &Root) -> Result<()> {
    let finished = root.task(".", Place::Finished);
    for entry in fs::read_dir(finished).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.strip_prefix('.').and_then(|name| name.strip_suffix(".gone"));
        let Some(id) = id.filter(|id| check_id(id).is_ok()) else {
            continue;
        };
        let beside = |folder: &str| root.path().join(folder).join(id);
        // Its folder may be another's by now only if that one has its name, and then it is listed.
        let records = stream::read(&root.runner(id)).map(|contents| contents.records);
        let header = records
            .unwrap_or_default()
            .into_iter()
            .find_map(|record| match record {
                Record::Header(header) => Some(header),
                _ => None,
            });
        let sandbox = header.and_then(|header| sandbox_of(root, &header));
        let sandbox = sandbox.unwrap_or_else(|| beside("sandboxes"));
        let mut paths = Vec::new();
        if !others_work_in(root, &sandbox) {
            paths.push(sandbox);
        }
        paths.extend([beside("logs"), root.checkpoint(id)]);
        let result = paths
            .iter()
            .try_for_each(|path| remove_all(path))
            .and_then(|()| fs::remove_file(entry.path()));
        result.map_err(|error| Error::Task(format!("task {id} cannot be removed: {error}")))?;
    }
    Ok(())
}

fn others_work_in(root: &Root, sandbox: &Path) -> bool {
    let listed = root.list(None).unwrap_or_default();
    listed.iter().any(|one| {
        let header = read(root, &one.id).ok().and_then(|info| info.history.header);
        // One that cannot be read may.
        header.is_none_or(|header| Path::new(&*header.sandbox) == sandbox)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: &str, age: u64, bytes: u64) -> Candidate {
        let collected = Collected {
            id: id.to_owned(),
            age: Duration::from_secs(age),
            metadata: bytes,
            logs: 0,
            data: None,
        };
        Candidate::of(collected, None)
    }

    fn chosen(what: Collect) -> Vec<String> {
        let all = (0..5)
            .map(|n| candidate(&format!("t{n}"), 50 - n * 10, 100))
            .collect();
        choose(all, &what)
            .into_iter()
            .map(|one| one.collected.id)
            .collect()
    }

    #[test]
    fn u03_the_oldest_go_until_the_rest_fits() {
        let size = Some(300);
        assert_eq!(
            chosen(Collect {
                size,
                ..Collect::default()
            }),
            ["t0", "t1"]
        );
        let count = Some(1);
        assert_eq!(
            chosen(Collect {
                count,
                ..Collect::default()
            }),
            ["t0", "t1", "t2", "t3"]
        );
        let age = Some(Duration::from_secs(25));
        assert_eq!(
            chosen(Collect {
                age,
                ..Collect::default()
            }),
            ["t0", "t1", "t2"]
        );
        assert!(
            chosen(Collect::default()).is_empty(),
            "nothing goes unless somebody says so"
        );
        let ids = vec!["t4".to_owned()];
        assert_eq!(
            chosen(Collect {
                ids,
                count: Some(3),
                ..Collect::default()
            }),
            ["t4", "t0"]
        );
    }
}
