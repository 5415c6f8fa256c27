//! The systemd unit of the daemon, and what is wrong with the one we run under.

use std::path::Path;

/// A unit for this program; `system` for the whole machine, else for one user.
///
/// `KillMode=process` leaves shims and runs alone when the daemon stops or is restarted; `DelegateSubgroup` puts the
/// daemon beside the groups of its runs, as a group with processes may not hand out controllers.
pub fn text(program: &Path, config: Option<&Path>, system: bool) -> String {
    let mut command = quoted(program);
    if let Some(config) = config {
        command.push_str(" -c ");
        command.push_str(&quoted(config));
    }
    let wanted_by = if system {
        "multi-user.target"
    } else {
        "default.target"
    };
    let directories = if system {
        "StateDirectory=gaffer\nStateDirectoryMode=0700\n"
    } else {
        ""
    };
    format!(
        "[Unit]\n\
         Description=gaffer: launches programs and keeps them alive\n\
         After=network.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={command}\n\
         ExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=always\n\
         RestartSec=1s\n\
         # Jobs outlive the daemon: their shims are left alone, and the next daemon takes charge of them.\n\
         KillMode=process\n\
         OOMPolicy=continue\n\
         Delegate=yes\n\
         DelegateSubgroup=daemon\n\
         TasksMax=infinity\n\
         LimitNOFILE=1024:524288\n\
         TimeoutStopSec=120s\n\
         RuntimeDirectory=gaffer\n\
         RuntimeDirectoryMode=0700\n\
         RuntimeDirectoryPreserve=yes\n\
         {directories}\
         \n\
         [Install]\n\
         WantedBy={wanted_by}\n"
    )
}

/// A path as a word of `ExecStart=` (systemd.service(5)).
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('$', "$$");
    match text.contains([' ', '"', '\'', '\\', '\t']) {
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_61_the_unit_leaves_jobs_alone_and_quotes_paths() {
        let unit = text(
            Path::new("/opt/my gaffer/gafferd"),
            Some(Path::new("/etc/100%.toml")),
            true,
        );
        assert!(unit.contains("ExecStart=\"/opt/my gaffer/gafferd\" -c /etc/100%%.toml\n"));
        for line in [
            "KillMode=process",
            "Delegate=yes",
            "DelegateSubgroup=daemon",
            "OOMPolicy=continue",
            "TasksMax=infinity",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line}");
        }
        assert!(!unit.contains("PrivateTmp"));
    }
}
