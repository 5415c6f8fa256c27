//! Pages and programs of plugins.

use gaffer_testkit::{Node, node::bin_dir, wait_until};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("an example").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a copy");
        }
    }
    // What a umask of 002 makes would be refused.
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(to, mode).expect("a mode");
}

/// A node with a folder of plugins that is not started yet.
fn prepared() -> (Node, PathBuf) {
    let node = Node::builder()
        .config("gaffer.toml", "[gaffer]\nplugins_dir = \"plugins\"\n")
        .prepare();
    let dir = node.root().join("plugins");
    std::fs::create_dir(&dir).expect("the folder");
    (node, dir)
}

/// The folder of plugins is beside the file that the daemon reads, unless the file says otherwise.
#[test]
fn k11_the_folder_of_plugins_is_beside_the_daemons_file() {
    let mut node = Node::builder().config("gaffer.toml", "").prepare();
    write(
        &node.root().join("plugins/hello/_site/index.html"),
        "hello from a site",
    );
    node.start_again();
    assert_eq!(plugin(&mut node, "hello")["name"], "hello");
    node.stop(SOON);
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
    std::fs::write(path, text).expect("a file");
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode(0o644)).expect("a mode");
    std::fs::set_permissions(path.parent().expect("a folder"), mode(0o755)).expect("a mode");
}

fn plugin(node: &mut Node, name: &str) -> Value {
    let all = node.get("/v1/plugins");
    let found = all
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["name"] == name);
    found.cloned().unwrap_or(Value::Null)
}

/// Paths at which there is no page, whatever lies there.
const NOTHING: &[&str] = &[
    "/_plugin/none/",
    "/_plugin/hello/none.html",
    "/_plugin/hello/../secret.txt",
    "/_plugin/hello/%2e%2e/plugin-notes.txt",
    "/_plugin/hello/..%2fplugin-notes.txt",
    "/_plugin/hello/..%2f..%2fsecret.txt",
    "/_plugin/hello/%2fetc%2fpasswd",
    "/_plugin/hello/link.txt",
    "/_plugin/hello/etc/passwd",
    "/_plugin/hello/hello.js/",
    "/_plugin/hello/index.html%00.js",
    "/_plugin/hello/..%5cplugin-notes.txt",
    "/_plugin/%2e%2e/plugins/hello/",
    "/_plugin/../plugins/secret.txt",
    "/_plugin/plain/.hidden",
    "/_plugin/secret.txt",
    "/_plugin/",
];

#[test]
fn s14_2_pages_of_a_plugin_are_served_and_nothing_else() {
    let (mut node, dir) = prepared();
    copy(&examples().join("hello"), &dir.join("hello"));
    write(&dir.join("plain/index.html"), "plain");
    write(&dir.join("plain/sub/index.html"), "sub");
    write(&dir.join("plain/.hidden"), "hidden");
    write(&dir.join("secret.txt"), "secret");
    write(&dir.join("hello/plugin-notes.txt"), "notes");
    symlink(dir.join("secret.txt"), dir.join("hello/_site/link.txt")).expect("a link");
    symlink("/etc", dir.join("hello/_site/etc")).expect("a link");
    node.start_again();
    let page = node.request("GET", "/_plugin/hello/", None);
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Sessions of this node"));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'self'"),
        "{policy}"
    );
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    let script = node.request("GET", "/_plugin/hello/hello.js", None);
    assert_eq!(
        script.header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    for (from, to) in [
        ("/_plugin/hello", "/_plugin/hello/"),
        ("/_plugin/plain/sub", "/_plugin/plain/sub/"),
    ] {
        let answer = node.request("GET", from, None);
        assert_eq!(
            (answer.status, answer.header("location")),
            (308, Some(to)),
            "{from}"
        );
    }
    assert_eq!(node.request("GET", "/_plugin/plain/sub/", None).text(), "sub");
    for path in NOTHING {
        let answer = node.request("GET", path, None);
        assert!(
            matches!(answer.status, 400 | 404),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(
        node.request("POST", "/_plugin/hello/", Some(&json!({}))).status,
        405
    );
    // A site that is added while the daemon runs is there at once.
    write(&dir.join("late/_site/index.html"), "late");
    assert_eq!(node.request("GET", "/_plugin/late/", None).text(), "late");
    assert_eq!(plugin(&mut node, "hello")["site"], "/_plugin/hello/");
}

#[test]
fn the_examples_in_python_and_rust_hear_of_events() {
    let (mut node, dir) = prepared();
    copy(&examples().join("deaths"), &dir.join("deaths"));
    copy(&examples().join("counter"), &dir.join("counter"));
    let built = bin_dir().join("examples/plugin-counter");
    std::fs::copy(&built, dir.join("counter/plugin-counter"))
        .expect("cargo builds the example with the tests");
    node.start_again();
    let said = |node: &Node, name: &str, text: &str| {
        let log = node.logged("plugins", name, 1, "stdout");
        String::from_utf8_lossy(&log).contains(text)
    };
    wait_until(SOON, "both listen", || {
        said(&node, "deaths", "listening behind") && said(&node, "counter", "plugin.start 1")
    });
    let dying = json!({"cmd": ["/bin/sh", "-c", "echo no more paper; exit 9"], "restart": "never"});
    node.put_job("shop", "printer", &dying);
    wait_until(SOON, "the last words in the log", || {
        said(&node, "deaths", "shop.printer.1: exit 9")
            && said(&node, "deaths", "its last words: no more paper")
    });
    wait_until(SOON, "counted", || {
        said(&node, "counter", "run.exited 1") && said(&node, "counter", "job.added 1")
    });
    assert_eq!(plugin(&mut node, "counter")["job"], "plugins.counter");
    // A killed daemon changes nothing for a plugin: the next one goes on telling.
    node.restart();
    node.put_job("shop", "printer2", &dying);
    wait_until(SOON, "told by the next daemon", || {
        said(&node, "deaths", "shop.printer2.1: exit 9")
    });
}

#[test]
fn a_reload_stops_what_is_gone_restarts_what_changed_and_skips_what_is_wrong() {
    let (mut node, dir) = prepared();
    let manifest = |name: &str, more: &str| format!("name = \"{name}\"\ncommand = [\"cat\"]\n{more}\n");
    write(&dir.join("keep/plugin.toml"), &manifest("keep", ""));
    write(&dir.join("gone/plugin.toml"), &manifest("gone", ""));
    write(
        &dir.join("wants/plugin.toml"),
        &manifest("wants", "requires = [\"gone\"]"),
    );
    write(&dir.join("bad/plugin.toml"), "name = \"bad\"\ncommandd = \"x\"\n");
    write(&dir.join("open/plugin.toml"), &manifest("open", ""));
    std::fs::set_permissions(dir.join("open"), std::fs::Permissions::from_mode(0o777)).expect("a mode");
    node.start_again();
    let running = |job: &Value| job["state"] == "running";
    let first = node.wait_job("plugins", "keep", SOON, running)["instances"][0]["run"].clone();
    node.wait_job("plugins", "wants", SOON, running);
    let problem = |node: &mut Node, name: &str| {
        plugin(node, name)["problem"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        problem(&mut node, "bad").contains("unknown key `commandd`"),
        "{}",
        problem(&mut node, "bad")
    );
    assert!(problem(&mut node, "open").contains("can be written by others"));
    assert!(node.log().contains("plugin.skipped"));
    let doctor = node.get("/v1/doctor").to_string();
    assert!(doctor.contains("5 plugins, 2 skipped"), "{doctor}");

    std::fs::remove_dir_all(dir.join("gone")).expect("removed");
    write(
        &dir.join("keep/plugin.toml"),
        &manifest("keep", "version = \"2\""),
    );
    write(&dir.join("new/plugin.toml"), &manifest("new", ""));
    let (status, _) = node.http("POST", "/v1/node/reload", Some(&json!({})));
    assert_eq!(status, 202);
    node_has(&mut node, "new", true);
    node_has(&mut node, "gone", false);
    node_has(&mut node, "wants", false);
    assert_eq!(problem(&mut node, "wants"), "`wants` requires `gone` to be used");
    node.wait_job("plugins", "keep", SOON, |job| {
        running(job) && job["instances"][0]["run"] != first
    });
}

#[track_caller]
fn node_has(node: &mut Node, plugin: &str, there: bool) {
    wait_until(SOON, plugin, || {
        let (status, _) = node.http("GET", &format!("/v1/jobs/plugins/{plugin}"), None);
        (status == 200) == there
    });
}
