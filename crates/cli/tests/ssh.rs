//! Nodes that are reached by `ssh`, with a real one.

use gaffer_testkit::ssh::Ssh;
use gaffer_testkit::{Node, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

struct Far {
    node: Node,
    ssh: Ssh,
}

impl Far {
    fn start() -> Far {
        let bin = gaffer_testkit::node::bin_dir();
        Far {
            node: Node::start(),
            ssh: Ssh::new(&bin),
        }
    }

    fn url(&self) -> String {
        format!("ssh://alpha{}", self.node.socket().display())
    }

    /// A command of somebody who has no daemon here.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.node.cli_command(words);
        command
            .env_remove("GAFFER_SOCKET")
            .env("GAFFER_CONFIG", self.node.root().join("own.toml"))
            .env("PATH", self.ssh.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(words).output().expect("gaffer");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (status.code(), text(stdout), text(stderr))
    }

    fn ok(&self, words: &[&str]) -> String {
        let (code, out, err) = self.run(words);
        assert_eq!(code, Some(0), "{words:?}: {out}{err}");
        out
    }
}

#[test]
fn a_node_behind_a_login_is_asked_and_told_like_any_other() {
    let mut far = Far::start();
    let script = "while read line; do echo \"got $line\"; done";
    let spec = json!({ "cmd": script, "shell": true, "stdin": "pipe" });
    far.node.put_job("shop", "echo", &spec);
    far.ok(&["node", "add", "alpha", &far.url(), "--label", "zone=eu"]);
    let list: Value = serde_json::from_str(&far.ok(&["node", "ls", "--json"])).expect("JSON");
    assert_eq!(list[0]["state"], "up", "{list:#}");
    let at = |words: &[&'static str]| [words, &["--node", "alpha", "--session", "shop"]].concat();
    assert!(far.ok(&at(&["ps"])).contains("echo.1"));
    far.ok(&at(&["send", "echo", "hello"]));
    // A stream of its own, and its end: the login does not outlive the command.
    let mut follow = far
        .command(&["logs", "echo", "-f", "--session", "shop", "--url", &far.url()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("gaffer");
    let mut lines = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
    let mut comes = |wanted: &str| lines.any(|line| line.expect("text").ends_with(wanted));
    assert!(comes("got hello"));
    far.ok(&at(&["send", "echo", "again"]));
    assert!(comes("got again"));
    let logins = || {
        let of_node = far.node.socket().display().to_string();
        let all = std::fs::read_dir("/proc").expect("processes").flatten();
        all.filter_map(|one| std::fs::read_to_string(one.path().join("cmdline")).ok())
            .filter(|words| words.contains("dial") && words.contains(&of_node))
            .count()
    };
    assert!(logins() > 0);
    follow.kill().expect("killed");
    follow.wait().expect("its end");
    wait_until(Duration::from_secs(20), "every login has ended", || logins() == 0);
    far.ok(&at(&["stop", "echo"]));
    far.node.assert_no_job_processes();
}

#[test]
fn what_is_wrong_at_the_other_end_is_told_in_its_words() {
    let far = Far::start();
    let fails = |url: &str, words: &[&str]| {
        let (code, out, err) = far.run(&["ps", "--url", url]);
        assert_eq!(code, Some(69), "{url}: {out}{err}");
        for word in words {
            assert!(err.contains(word), "{url}: no `{word}` in: {err}");
        }
        assert!(err.contains("is the address right?"), "{err}");
    };
    fails(
        "ssh://alpha/nonexistent/x.sock",
        &["alpha", "no daemon answers at /nonexistent/x.sock"],
    );
    fails("ssh://beta.invalid", &["beta.invalid", "resolve hostname"]);
    let nobody = Ssh::new(far.node.root());
    let mut command = far.command(&["ps", "--url", &far.url()]);
    let output = command.env("PATH", nobody.path()).output().expect("gaffer");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{err}");
    assert!(err.contains("not on the PATH"), "{err}");
    let (code, _, err) = far.run(&["ps", "--url", "ssh://-oProxyCommand=touch"]);
    assert_eq!(code, Some(2), "{err}");
}
