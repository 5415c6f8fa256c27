//! A real `ssh` and `sshd` of a test, over pipes: no server, no port, nobody's keys.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An `ssh` that knows one host, `alpha`, where it logs in as the user of the test.
pub struct Ssh {
    dir: tempfile::TempDir,
}

/// Out of the PATH of most users.
fn sshd() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = dirs.map(|dir| dir.join("sshd")).find(|program| program.exists());
    found.expect("OpenSSH is installed (Debian: apt-get install openssh-server openssh-client)")
}

fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "ssh-keygen");
}

impl Ssh {
    /// Makes keys, and what both ends are told; a login finds programs in `bin` first.
    ///
    /// # Panics
    ///
    /// OpenSSH is not installed.
    pub fn new(bin: &Path) -> Ssh {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let put = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("written");
        if rustix::process::getuid().is_root() {
            // Debian makes it when the service starts, which it never did.
            std::fs::create_dir_all("/run/sshd").expect("a directory");
        }
        keygen(&dir.path().join("host"));
        keygen(&dir.path().join("id"));
        let host_key = std::fs::read_to_string(at("host.pub")).expect("a key");
        put("known_hosts", format!("alpha {host_key}"));
        put(
            "sshd_config",
            format!(
                "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPrintMotd no\n\
                 PermitRootLogin prohibit-password\nPasswordAuthentication no\nSetEnv PATH={}:/usr/bin:/bin\n",
                at("host"),
                at("id.pub"),
                bin.display()
            ),
        );
        let (sshd, id, known) = (sshd(), at("id"), at("known_hosts"));
        put(
            "ssh_config",
            format!(
                "Host alpha\n  ProxyCommand {} -i -f {}\n  IdentityFile {id}\n  IdentitiesOnly yes\n  BatchMode yes\n  \
                 UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n  HostKeyAlias alpha\n",
                sshd.display(),
                at("sshd_config"),
            ),
        );
        std::fs::create_dir(at("bin")).expect("a directory");
        put(
            "bin/ssh",
            format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", at("ssh_config")),
        );
        let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(at("bin/ssh"), runs).expect("a mode");
        Ssh { dir }
    }

    /// The PATH on which `ssh` is this one.
    pub fn path(&self) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}", self.dir.path().join("bin").display())
    }
}
