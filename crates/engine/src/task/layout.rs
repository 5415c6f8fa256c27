//! A checkpoint root: the files of its tasks.
//!
//! | path | content |
//! |---|---|
//! | `tasks/active/<id>` | the definition, as JSON; there while the task is not over |
//! | `tasks/finished/<id>` | the same file afterwards |
//! | `checkpoints/<id>/runner` | the runner stream |
//! | `checkpoints/<id>/node/` | journals and locks of the shims of a task that has a runner of its own |
//! | `<log_dir>/<step>/<run>/` | output of one run, numbered from 0 |
//!
//! Tasks are found by listing directories and by nothing else: no name is a pattern.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// Longest id of a task, in bytes.
pub const ID_MAX: usize = 200;

/// A root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

/// Where the file of a task lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// It is not over.
    Active,
    /// It is over.
    Finished,
}

/// A task that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Id.
    pub id: String,
    /// Where its file lies.
    pub place: Place,
    /// When that file was written or moved.
    pub modified: SystemTime,
}

/// A root or id that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Not a name for a file.
    #[error("`{0}` cannot be the id of a task: {1}")]
    BadId(String, &'static str),
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was finished before.
    #[error("task {0} is finished already: choose another id, or remove it with gaffer task gc")]
    Finished(String),
    /// There is none.
    #[error("there is no active task {0}")]
    NotActive(String),
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> LayoutError + '_ {
    |source| LayoutError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Refuses what cannot be the name of one file.
pub fn check_id(id: &str) -> Result<(), LayoutError> {
    let bad = |why| Err(LayoutError::BadId(id.to_owned(), why));
    let mut parts = Path::new(id).components();
    match (parts.next(), parts.next()) {
        _ if id.is_empty() => bad("it is empty"),
        _ if id.len() > ID_MAX => bad("it is longer than 200 bytes"),
        _ if id.contains(['\0', '\n', '/']) => bad("it holds a slash, a line end or a NUL"),
        _ if id.starts_with('.') => bad("it begins with a dot"),
        (Some(Component::Normal(_)), None) => Ok(()),
        _ => bad("it is not one name"),
    }
}

impl Root {
    /// A root, absolute or not; nothing is made.
    pub fn new(path: impl Into<PathBuf>) -> Root {
        Root(path.into())
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn directory(&self, place: Place) -> PathBuf {
        self.0.join("tasks").join(match place {
            Place::Active => "active",
            Place::Finished => "finished",
        })
    }

    /// The file of a task.
    pub fn task(&self, id: &str, place: Place) -> PathBuf {
        self.directory(place).join(id)
    }

    /// The directory of a task's streams.
    pub fn checkpoint(&self, id: &str) -> PathBuf {
        self.0.join("checkpoints").join(id)
    }

    /// The runner stream.
    pub fn runner(&self, id: &str) -> PathBuf {
        self.checkpoint(id).join("runner")
    }

    /// The state directory of a runner of the task's own.
    pub fn node(&self, id: &str) -> PathBuf {
        self.checkpoint(id).join("node")
    }

    /// Makes the directories of a task, mode 0700 where they are new.
    pub fn make(&self, id: &str) -> Result<(), LayoutError> {
        check_id(id)?;
        let directories = [
            self.directory(Place::Active),
            self.directory(Place::Finished),
            self.checkpoint(id),
        ];
        for directory in directories {
            let mut builder = fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder
                .recursive(true)
                .create(&directory)
                .map_err(failed(&directory))?;
        }
        Ok(())
    }

    /// Where the file of a task lies, if it has one. The finished one counts: it was moved there last.
    pub fn place(&self, id: &str) -> Option<Place> {
        [Place::Finished, Place::Active]
            .into_iter()
            .find(|place| self.task(id, *place).is_file())
    }

    /// Writes the definition of a new task; one that is there stays as it is.
    pub fn begin(&self, id: &str, definition: &[u8]) -> Result<(), LayoutError> {
        if self.task(id, Place::Finished).exists() {
            return Err(LayoutError::Finished(id.to_owned()));
        }
        let path = self.task(id, Place::Active);
        if path.exists() {
            return Ok(());
        }
        let directory = self.directory(Place::Active);
        // A name that no id has: an id does not begin with a dot.
        let fresh = directory.join(format!(".{id}.new"));
        let write = || -> io::Result<()> {
            fs::write(&fresh, definition)?;
            File::open(&fresh)?.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&directory)?.sync_all()
        };
        write().map_err(failed(&path))
    }

    /// Moves the file of a task that is over; doing it twice is harmless.
    pub fn finish(&self, id: &str) -> Result<(), LayoutError> {
        let (from, to) = (self.task(id, Place::Active), self.task(id, Place::Finished));
        match (from.exists(), to.exists()) {
            (false, true) => return Ok(()),
            (false, false) => return Err(LayoutError::NotActive(id.to_owned())),
            (true, true) => return Err(LayoutError::Finished(id.to_owned())),
            (true, false) => {}
        }
        let now = fs::FileTimes::new().set_modified(SystemTime::now());
        let move_it = || -> io::Result<()> {
            File::options().write(true).open(&from)?.set_times(now)?;
            fs::rename(&from, &to)?;
            File::open(self.directory(Place::Finished))?.sync_all()
        };
        move_it().map_err(failed(&to))
    }

    /// All tasks, or those of one place, in the order of their ids. A root that is not there has none.
    pub fn list(&self, place: Option<Place>) -> Result<Vec<Listed>, LayoutError> {
        let mut found = Vec::new();
        for place in [Place::Active, Place::Finished]
            .into_iter()
            .filter(|one| place.is_none_or(|place| place == *one))
        {
            let directory = self.directory(place);
            for entry in entries(&directory)? {
                let Some(id) = name_of(&entry.path()).filter(|id| check_id(id).is_ok()) else {
                    continue;
                };
                let Ok(modified) = entry.metadata().and_then(|data| data.modified()) else {
                    // It moved between the two looks.
                    continue;
                };
                found.push(Listed { id, place, modified });
            }
        }
        found.sort_by(|a, b| a.id.cmp(&b.id).then(b.place.cmp(&a.place)));
        // A task that moved meanwhile was seen twice.
        found.dedup_by(|later, first| later.id == first.id);
        Ok(found)
    }
}

/// The directory of one run's output.
pub fn run_logs(log_dir: &Path, step: &str, run: usize) -> PathBuf {
    log_dir.join(step).join(run.to_string())
}

/// Runs that have a directory of output: `(step, run)`, in order.
pub fn runs(log_dir: &Path) -> Result<Vec<(String, usize)>, LayoutError> {
    let mut found = Vec::new();
    for step in entries(log_dir)? {
        let Some(name) = name_of(&step.path()) else {
            continue;
        };
        for run in entries(&step.path())? {
            let number = name_of(&run.path()).and_then(|text| text.parse().ok());
            found.extend(number.map(|number| (name.clone(), number)));
        }
    }
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name().and_then(OsStr::to_str).map(str::to_owned)
}

/// Entries of a directory; one that is not there, or is none, has no entries.
fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>, LayoutError> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.collect::<io::Result<_>>().map_err(failed(directory)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(failed(directory)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::new(dir.path());
        (dir, root)
    }

    #[test]
    fn d01_an_empty_root_has_nothing() {
        let (dir, root) = root();
        assert!(root.list(None).expect("no error").is_empty());
        assert!(
            Root::new(dir.path().join("none"))
                .list(None)
                .expect("no error")
                .is_empty()
        );
        assert!(runs(&dir.path().join("none")).expect("no error").is_empty());
    }

    #[test]
    fn d02_active_and_finished_tasks_are_found() {
        let (dir, root) = root();
        for id in ["one", "two"] {
            root.make(id).expect("made");
            root.begin(id, b"{}").expect("begun");
        }
        root.finish("two").expect("finished");
        let places: Vec<(String, Place)> = root
            .list(None)
            .expect("listed")
            .into_iter()
            .map(|listed| (listed.id, listed.place))
            .collect();
        assert_eq!(
            places,
            [("one".into(), Place::Active), ("two".into(), Place::Finished)]
        );
        assert_eq!(root.list(Some(Place::Finished)).expect("listed").len(), 1);
        let logs = dir.path().join("logs");
        fs::create_dir_all(run_logs(&logs, "hello", 3)).expect("made");
        assert_eq!(runs(&logs).expect("listed"), [("hello".to_owned(), 3)]);
    }

    #[test]
    fn d04_names_with_blanks_and_patterns_are_found() {
        let (dir, root) = root();
        for id in ["a*b[c]?", "with blank", "per%cent"] {
            root.make(id).expect("made");
            root.begin(id, b"{}").expect("begun");
        }
        assert_eq!(root.list(None).expect("listed").len(), 3);
        let logs = dir.path().join("logs");
        fs::create_dir_all(run_logs(&logs, "a step %s *", 0)).expect("made");
        assert_eq!(runs(&logs).expect("listed"), [("a step %s *".to_owned(), 0)]);
    }

    #[test]
    fn t01_checkpoints_are_below_the_root() {
        let root = Root::new("/r");
        assert_eq!(root.runner("x"), Path::new("/r/checkpoints/x/runner"));
        assert_eq!(root.task("x", Place::Active), Path::new("/r/tasks/active/x"));
        assert_eq!(run_logs(Path::new("/l"), "s", 2), Path::new("/l/s/2"));
    }

    #[test]
    fn t02_output_lies_below_the_folder_that_is_named() {
        let dir = run_logs(Path::new("/var/log/x"), "a b", 3);
        assert_eq!(dir, Path::new("/var/log/x/a b/3"));
    }

    #[test]
    fn t03_what_is_no_name_of_a_file_is_refused() {
        let long = "x".repeat(201);
        for id in ["", ".", "..", ".x", "a/b", "/a", "a\nb", "a\0b", &long] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        check_id("nightly-20261122-033000.412").expect("a usual id");
    }

    #[test]
    fn a_task_moves_once_and_is_not_begun_again() {
        let (_dir, root) = root();
        root.make("x").expect("made");
        root.begin("x", b"first").expect("begun");
        root.begin("x", b"second").expect("there already");
        assert_eq!(fs::read(root.task("x", Place::Active)).expect("read"), b"first");
        root.finish("x").expect("finished");
        root.finish("x").expect("once more");
        assert!(matches!(root.begin("x", b"third"), Err(LayoutError::Finished(_))));
        assert!(matches!(root.finish("y"), Err(LayoutError::NotActive(_))));
    }
}
