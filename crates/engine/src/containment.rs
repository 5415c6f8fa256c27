//! Where runs get their cgroups: a writable cgroup v2 hierarchy, or none.

use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// `[gaffer] containment`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Containment {
    /// Use cgroups if they can be had.
    #[default]
    Auto,
    /// Refuse to start without.
    Require,
    /// Never.
    Off,
}

/// Finds or makes the directory below which every run gets its own group.
///
/// It lies beside the daemon's own group when that is the delegated `…/daemon` of our unit, else below it. The state
/// directory is part of its name, so that two nodes on one host never share one.
pub(crate) fn prepare(wanted: Containment, state_dir: &Path) -> Result<Option<PathBuf>, String> {
    if wanted == Containment::Off {
        return Ok(None);
    }
    match find(state_dir) {
        Ok(base) => Ok(Some(base)),
        Err(why) if wanted == Containment::Require => Err(format!(
            "containment = \"require\", but runs cannot be put into cgroups: {why}"
        )),
        Err(_) => Ok(None),
    }
}

fn find(state_dir: &Path) -> Result<PathBuf, String> {
    let mount = mount_point().ok_or("no cgroup v2 hierarchy is mounted")?;
    let own = std::fs::read_to_string("/proc/self/cgroup")
        .map_err(|error| format!("/proc/self/cgroup: {error}"))?;
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("the daemon is in no cgroup v2 group")?;
    let own = own.trim_start_matches('/');
    // A group with processes of its own may not hand out controllers: runs go beside the daemon, not below.
    let parent = own.strip_suffix("/daemon").unwrap_or(own);
    let base = mount.join(parent).join(format!("gaffer-{}", node_id(state_dir)));
    let made = std::fs::DirBuilder::new().mode(0o755).create(&base);
    if let Err(error) = made
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(format!("{}: {error}", base.display()));
    }
    // Made by somebody else, or not writable by us: then a run could not be born there.
    let probe = base.join("probe");
    std::fs::create_dir(&probe).or_else(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(format!("{}: {error}", probe.display())),
    })?;
    let killable = probe.join("cgroup.kill").exists();
    std::fs::remove_dir(&probe).map_err(|error| format!("{}: {error}", probe.display()))?;
    if killable {
        Ok(base)
    } else {
        Err("the kernel has no cgroup.kill (5.14)".to_owned())
    }
}

fn mount_point() -> Option<PathBuf> {
    let mut mounts = mounts().into_iter();
    mounts
        .find(|(_, kind, _)| kind == "cgroup2")
        .map(|(place, ..)| place)
}

/// What is mounted: place, kind and options.
pub(crate) fn mounts() -> Vec<(PathBuf, String, String)> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let lines = mounts.lines().map(|line| line.split(' ').skip(1));
    lines
        .filter_map(|mut fields| {
            let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            Some((PathBuf::from(place), kind.to_owned(), options.to_owned()))
        })
        .collect()
}

/// Eight hex digits that name the node on its host: FNV-1a over the canonical path of its state directory.
pub(crate) fn node_id(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let bytes = path.as_os_str().as_encoded_bytes();
    let digest = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    format!("{digest:08x}")
}

/// Removes groups that no longer hold anything (runs whose shim died, an old shutdown), but for those of `live` runs,
/// which may be about to be entered.
pub(crate) fn sweep(base: &Path, live: &HashSet<String>) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| !live.contains(&*entry.file_name().to_string_lossy()))
    {
        // EBUSY: something lives there, and the journals know what.
        let _busy = std::fs::remove_dir(entry.path());
    }
}
