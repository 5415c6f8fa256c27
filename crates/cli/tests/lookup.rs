//! Finding nodes and acting on them: real services, real nodes, the real command line.

use gaffer_testkit::{Lookupd, Node, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// Two services, and two nodes that know both.
struct Fleet {
    services: [Lookupd; 2],
    alpha: Node,
    beta: Node,
}

fn node(name: &str, services: &[Lookupd]) -> Node {
    let urls: Vec<String> = services.iter().map(Lookupd::url).collect();
    let text = format!(
        "[gaffer]\nname = \"{name}\"\nlookup = {}\nlabels = {{ zone = \"{}\" }}\n",
        json!(urls),
        &name[..1]
    );
    Node::builder()
        .bind("127.0.0.1:0")
        .config("gaffer.toml", &text)
        .start()
}

fn put(node: &mut Node, job: &str) {
    let spec = json!({ "cmd": [node.fixture(), "idle"], "cwd": "/", "stop": { "timeout": "5s" } });
    node.put_job("shop", job, &spec);
}

impl Fleet {
    /// `web` on both, `only` on beta.
    fn start() -> Fleet {
        let services = [Lookupd::start(&[]), Lookupd::start(&[])];
        let mut alpha = node("alpha", &services);
        let mut beta = node("beta", &services);
        put(&mut alpha, "web");
        put(&mut beta, "web");
        put(&mut beta, "only");
        for service in &services {
            wait_until(SOON, "both nodes", || {
                service.job("shop.web").len() == 2 && service.job("shop.only").len() == 1
            });
        }
        Fleet {
            services,
            alpha,
            beta,
        }
    }

    /// Without look-up services, with a file of one's own.
    fn own(&self, config: &Path, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer"));
        command.env_clear().current_dir("/").env("GAFFER_CONFIG", config);
        command
            .args(["--session", "shop"])
            .args(words)
            .output()
            .expect("gaffer runs")
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer"));
        command
            .env_clear()
            .current_dir("/")
            .args(["-L", &self.services[0].url(), "-L", &self.services[1].url()])
            .args(["--session", "shop"])
            .args(words);
        command.output().expect("gaffer runs")
    }

    #[track_caller]
    fn says(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        match code {
            0 => text(&output.stdout),
            _ => text(&output.stderr),
        }
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        let mut words = words.to_vec();
        words.push("--json");
        serde_json::from_str(&self.says(0, &words)).expect("JSON")
    }
}

fn wish(node: &mut Node, job: &str) -> String {
    let job = node.get(&format!("/v1/jobs/shop/{job}"));
    job["wish"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn s13_4_d61_lookup_commands_print_what_the_original_did_and_merge_services() {
    let fleet = Fleet::start();
    let [alpha, beta] = [&fleet.alpha, &fleet.beta].map(|node| format!("http://{}", node.addresses()[0]));
    let nodes = fleet.says(0, &["lookup:nodes"]);
    assert!(nodes.starts_with("2 node(s) found\n\n"), "{nodes}");
    assert!(
        nodes.contains(&format!("{alpha} - alpha (protocol: 0.1)\n")),
        "{nodes}"
    );
    let jobs = fleet.says(0, &["lookup:jobs"]);
    assert!(jobs.starts_with("2 job(s) found\n\n=== shop.only\n"), "{jobs}");
    assert!(
        jobs.contains(&format!("{beta} - beta: ")) && jobs.contains(", protocol: 0.1\n"),
        "{jobs}"
    );
    assert_eq!(fleet.says(0, &["lookup:session", "shop"]), jobs);
    let sessions = fleet.says(0, &["lookup:sessions"]);
    assert!(
        sessions.starts_with("1 session(s) found\n\n*** session: shop\n\n=== job: shop.only\n"),
        "{sessions}"
    );
    let job = fleet.says(0, &["lookup:job", "shop.only"]);
    assert!(
        job.starts_with(&format!("=== beta (Protocol: 0.1)\nOrigin: {beta}\nPids: ")),
        "{job}"
    );
    let none = fleet.run(&["lookup:job", "shop.none"]);
    assert_eq!(none.stdout, b"no job found\n");
    assert_eq!(none.status.code(), Some(3));
    let listed = fleet.json(&["lookup", "ls"]);
    assert_eq!(listed[1]["node"], "beta");
    assert_eq!(listed[1]["jobs"], 2);
}

#[test]
fn with_lookup_a_command_goes_to_every_node_that_has_what_it_names() {
    let mut fleet = Fleet::start();
    let rows = fleet.json(&["ps"]);
    let nodes: Vec<&str> = rows
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["node"].as_str())
        .collect();
    assert_eq!(nodes, ["alpha", "beta", "beta"]);
    let said = fleet.says(0, &["stop", "only"]);
    assert!(said.starts_with("beta ") && said.lines().count() == 1, "{said}");
    assert_eq!(wish(&mut fleet.beta, "only"), "stopped");
    assert_eq!(wish(&mut fleet.alpha, "web"), "running");
    fleet.says(0, &["scale", "web=2", "--batch", "1"]);
    for node in [&mut fleet.alpha, &mut fleet.beta] {
        assert_eq!(node.get("/v1/jobs/shop/web")["target"], 2);
    }
    fleet.says(0, &["stop", "web", "--node", "al*"]);
    assert_eq!(wish(&mut fleet.alpha, "web"), "stopped");
    assert_eq!(wish(&mut fleet.beta, "web"), "running");
    assert!(fleet.says(3, &["stop", "nothing"]).contains("no node has that"));
    assert!(
        fleet
            .says(3, &["ps", "--node", "gamma"])
            .contains("there are: alpha beta")
    );
    let several = fleet.says(2, &["job", "show", "web"]);
    assert!(
        several.contains("several nodes have `web`") && several.contains("alpha beta"),
        "{several}"
    );
    assert!(fleet.says(0, &["job", "show", "only"]).contains("only"));
}

#[test]
fn what_all_nodes_show_is_one_table_with_their_names() {
    let fleet = Fleet::start();
    let said = fleet.says(0, &["ps"]);
    let first: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(first, ["NODE", "alpha", "beta", "beta"], "{said}");
    let said = fleet.says(0, &["ps", "--label", "zone=b"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    let none = fleet.says(3, &["ps", "--label", "zone=c"]);
    assert!(none.contains("no node has the label zone=c"), "{none}");
}

#[test]
fn a_total_is_spread_over_the_nodes_that_have_the_job() {
    let mut fleet = Fleet::start();
    fleet.says(0, &["scale", "web", "only", "--total", "3"]);
    let target = |node: &mut Node, job: &str| node.get(&format!("/v1/jobs/shop/{job}"))["target"].clone();
    assert_eq!(target(&mut fleet.alpha, "web"), 2);
    assert_eq!(target(&mut fleet.beta, "web"), 1);
    assert_eq!(target(&mut fleet.beta, "only"), 3);
    let own = fleet.says(2, &["scale", "web=1", "--total", "3"]);
    assert!(own.contains("`web=1` has a number of its own"), "{own}");
    let none = fleet.says(3, &["scale", "nothing", "--total", "3"]);
    assert!(none.contains("no node has `nothing`"), "{none}");
}

#[test]
fn nodes_can_be_named_in_a_file_of_ones_own() {
    let mut fleet = Fleet::start();
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("gaffer/config.toml");
    let text = |output: &Output| {
        let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        String::from_utf8_lossy(&both).into_owned()
    };
    let none = fleet.own(&config, &["ps", "--all-nodes"]);
    assert!(none.status.code() == Some(3) && text(&none).contains("gaffer node add"));
    for (name, node) in [("one", &fleet.alpha), ("two", &fleet.beta)] {
        let url = format!("http://{}", node.addresses()[0]);
        let added = fleet.own(
            &config,
            &["node", "add", name, &url, "--label", &format!("n={name}")],
        );
        assert!(added.status.success(), "{}", text(&added));
    }
    let again = fleet.own(&config, &["node", "add", "one", "unix:/x"]);
    assert_eq!(again.status.code(), Some(4), "{}", text(&again));
    let listed = fleet.own(&config, &["node", "ls", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["node"], "one");
    assert_eq!(listed[1]["status"], "ok");
    assert_eq!(listed[1]["jobs"], 2);
    let stopped = fleet.own(&config, &["stop", "web", "--label", "n=two"]);
    assert!(stopped.status.success(), "{}", text(&stopped));
    assert_eq!(wish(&mut fleet.beta, "web"), "stopped");
    assert_eq!(wish(&mut fleet.alpha, "web"), "running");
    let shown = fleet.own(&config, &["node", "show", "two"]);
    assert!(text(&shown).contains("labels       zone=b"), "{}", text(&shown));
    assert!(fleet.own(&config, &["node", "rm", "two"]).status.success());
    let gone = fleet.own(&config, &["node", "show", "two"]);
    assert!(text(&gone).contains("there are: one"), "{}", text(&gone));
}

#[test]
fn a_gaffer_toml_names_nodes_whose_tokens_are_in_its_folder() {
    let fleet = Fleet::start();
    let dir = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::NamedTempFile::new().expect("a file");
    let url = |node: &Node| format!("http://{}", node.addresses()[0]);
    let ps = |more: &str, words: &[&str]| {
        let text = format!(
            "[job.broken]\nnothing = 1\n[node.two]\nurl = \"{}\"\nlabels = {{ n = \"two\" }}\n{more}",
            url(&fleet.beta)
        );
        std::fs::write(dir.path().join("gaffer.toml"), text).expect("written");
        let config = dir.path().join("config.toml");
        let own = format!("[node.one]\nurl = \"{}\"\n", url(&fleet.alpha));
        std::fs::write(&config, own).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer"));
        command
            .env_clear()
            .current_dir(dir.path())
            .env("GAFFER_CONFIG", config);
        command
            .args(["--session", "shop"])
            .args(words)
            .output()
            .expect("gaffer runs")
    };
    let text = |output: &Output| {
        let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        String::from_utf8_lossy(&both).into_owned()
    };
    let said = text(&ps("", &["node", "ls"]));
    assert!(said.contains("one ") && said.contains("n=two"), "{said}");
    let said = text(&ps("", &["ps", "--all-nodes", "only"]));
    assert!(said.contains("two "), "{said}");
    std::fs::write(dir.path().join("token"), "nobody knows it").expect("written");
    let refused = ps("token_file = \"token\"\n", &["ps", "--all-nodes", "only"]);
    assert!(
        text(&refused).contains("credential is not known"),
        "{}",
        text(&refused)
    );
    let outside = format!("token_file = {:?}\n", elsewhere.path());
    let refused = ps(&outside, &["ps", "--all-nodes"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused).contains("not a file below this folder"),
        "{}",
        text(&refused)
    );
    let theirs = ps("", &["node", "rm", "two"]);
    assert_eq!(theirs.status.code(), Some(4), "{}", text(&theirs));
}

#[test]
fn one_of_two_services_killed_is_no_difference_and_a_killed_node_is_one() {
    let mut fleet = Fleet::start();
    fleet.services[0].kill9();
    let rows = fleet.json(&["ps", "web"]);
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    fleet.says(0, &["restart", "web"]);
    fleet.alpha.kill9();
    wait_until(SOON, "one node", || fleet.services[1].nodes() == ["beta"]);
    let rows = fleet.json(&["ps", "web"]);
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
    fleet.services[1].kill9();
    assert!(
        fleet
            .says(69, &["ps"])
            .contains("no look-up service answers at http://127.0.0.1:")
    );
    // Whoever dropped it is to find it again.
    fleet.alpha.start_again();
}

#[test]
fn a_batch_that_fails_stops_the_rest() {
    let mut fleet = Fleet::start();
    // alpha's daemon stands still: it is in the lists, and does not answer.
    let bad = json!({ "cmd": ["/does/not/exist"], "cwd": "/", "retry": { "attempts": 1 } });
    fleet.alpha.put_job("shop", "web", &bad);
    let output = fleet.run(&["restart", "web", "--batch", "1", "--timeout", "20s"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("stopped: 0 of 1 nodes succeeded; 1 not asked"),
        "{said}"
    );
}
