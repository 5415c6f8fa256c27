//! Declared outputs of a step: the file that its program is given, and what it says at the end of a run.
//!
//! The file is `checkpoints/<id>/outputs/<step>.<attempt>`, which only our own user can reach; that of a step with another
//! `user` lies in a directory of `/run` that all can pass through and nobody can list. It is empty when the run begins and
//! read when it has ended: lines `name=value`, the last of a name counts. What is said becomes part of the record of
//! the end, which is the truth; the file goes then.

use gaffer_core::task::record::Outputs;
use gaffer_core::task::spec::Step;
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest content of the file, in bytes.
pub(super) const OUTPUTS_MAX: u64 = 64 << 10;

/// Where the file of a run lies.
pub(super) struct OutputFile {
    /// Its path.
    pub path: PathBuf,
    /// Whose it is, if not ours.
    pub user: Option<u32>,
}

impl OutputFile {
    /// Of one run of a step; none: the step declares no outputs.
    pub fn of(checkpoint: &Path, node_id: &str, task: &str, step: &Step, attempt: u32) -> Option<OutputFile> {
        if step.outputs.is_empty() {
            return None;
        }
        let user = crate::notify::foreign(&step.launch);
        let path = match user {
            None => checkpoint
                .join("outputs")
                .join(format!("{}.{attempt}", step.name)),
            Some(_) => passage(node_id).join(format!("{task}.{}.{attempt}", step.name)),
        };
        Some(OutputFile { path, user })
    }

    /// Makes it, empty.
    pub fn make(&self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let mode = if self.user.is_some() { 0o711 } else { 0o700 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir)?;
        if self.user.is_some() {
            // The umask may have taken away what others need.
            fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        match self.user {
            Some(uid) => fchown(&file, Some(uid), None),
            None => Ok(()),
        }
    }

    /// What a run that succeeded has said: every declared name, and no other. The error is a sentence.
    pub fn read(&self, step: &Step) -> Result<Outputs, Arc<str>> {
        let text = self
            .text()
            .map_err(|why| Arc::from(format!("its outputs cannot be read: {why}")))?;
        parse(&text, step)
    }

    fn text(&self) -> Result<String, String> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut options = fs::OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
            .open(&self.path);
        let file = match file {
            // A program may remove it: it says nothing then.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            other => other.map_err(|error| error.to_string())?,
        };
        if !file.metadata().is_ok_and(|data| data.is_file()) {
            return Err("it is no file any more".to_owned());
        }
        let mut bytes = Vec::new();
        let read = file.take(OUTPUTS_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())?;
        if bytes.len() as u64 > OUTPUTS_MAX {
            return Err("they are longer than 64K".to_owned());
        }
        String::from_utf8(bytes).map_err(|_| "they are not UTF-8".to_owned())
    }

    /// Its content is on record: it goes.
    pub fn remove(&self) {
        // It may never have been made.
        let _gone = fs::remove_file(&self.path);
    }
}

fn passage(node_id: &str) -> PathBuf {
    Path::new("/run").join(format!("gaffer-outputs-{node_id}"))
}

fn parse(text: &str, step: &Step) -> Result<Outputs, Arc<str>> {
    let mut said: BTreeMap<&str, &str> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {number} of its outputs is not name=value").into());
        };
        let name = name.trim();
        if !step.outputs.iter().any(|known| **known == *name) {
            let known: Vec<&str> = step.outputs.iter().map(|name| &**name).collect();
            let name = name.escape_debug();
            return Err(format!(
                "it wrote output `{name}`, which is not declared ({})",
                known.join(", ")
            )
            .into());
        }
        if value.contains('\0') {
            return Err(format!("its output `{name}` holds a NUL").into());
        }
        said.insert(name, value);
    }
    let one = |name: &Arc<str>| match said.get(&**name) {
        Some(value) => Ok((name.clone(), Arc::from(*value))),
        None => Err(Arc::from(format!(
            "it ended without its output `{name}`: write {name}=… to $GAFFER_OUTPUT"
        ))),
    };
    step.outputs.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaffer_core::job::Launch;

    fn step(outputs: &[&str]) -> Step {
        let mut step = Step::of("s", Launch::of(vec!["true".to_owned()]));
        step.outputs = outputs.iter().map(|name| Arc::from(*name)).collect();
        step
    }

    #[test]
    fn lines_are_values_and_the_last_of_a_name_counts() {
        let said = parse("a=1\nb= x = y \n\na=2\n", &step(&["a", "b"])).expect("good");
        let said: Vec<(&str, &str)> = said.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(said, [("a", "2"), ("b", " x = y ")]);
        assert!(parse("", &step(&[])).expect("nothing").is_empty());
    }

    #[test]
    fn what_is_missing_unknown_or_no_line_is_said() {
        let wrong = |text| parse(text, &step(&["a"])).expect_err("wrong").to_string();
        assert!(wrong("").contains("without its output `a`"));
        assert!(wrong("a=1\nx=2").contains("`x`, which is not declared (a)"));
        assert!(wrong("a=1\nhello").contains("line 2"));
    }

    #[test]
    fn a_file_that_is_too_long_or_none_is_no_output() {
        let dir = tempfile::tempdir().expect("a directory");
        let step = step(&["a"]);
        let file = OutputFile::of(dir.path(), "node", "task", &step, 1).expect("declared");
        assert!(
            file.read(&step)
                .expect_err("not there")
                .contains("without its output")
        );
        file.make().expect("made");
        file.make().expect("made again");
        fs::write(&file.path, "a=1").expect("written");
        assert_eq!(file.read(&step).expect("read").len(), 1);
        fs::write(&file.path, vec![b'a'; 70 << 10]).expect("written");
        assert!(file.read(&step).expect_err("too long").contains("64K"));
        fs::write(&file.path, b"a=\xff").expect("written");
        assert!(file.read(&step).expect_err("no text").contains("UTF-8"));
        fs::remove_file(&file.path).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", &file.path).expect("linked");
        assert!(file.read(&step).is_err(), "a link is not followed");
        file.remove();
        assert!(fs::symlink_metadata(&file.path).is_err());
    }
}
