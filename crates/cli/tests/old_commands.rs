//! The commands of the original gaffer, typed as its users type them, in a home of their own.

use gaffer_testkit::{Node, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A node, and the folder of an application `shop` whose programs are the fixture.
struct Shop {
    node: Node,
    folder: PathBuf,
    url: String,
}

impl Shop {
    fn start() -> Shop {
        let node = Node::builder().bind("127.0.0.1:0").start();
        let folder = node.root().join("shop");
        std::fs::create_dir_all(&folder).expect("made");
        let procfile = format!("web: {0} idle\nworker: {0} idle\n", node.fixture());
        std::fs::write(folder.join("Procfile"), procfile).expect("written");
        let url = format!("http://{}", node.addresses()[0]);
        Shop { node, folder, url }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("written");
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.node.cli_command(&["-g", &self.url]);
        command
            .args(line.split_whitespace())
            .env("HOME", self.node.root())
            .env_remove("GAFFER_SOCKET")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .current_dir(&self.folder);
        command
    }

    /// Exit code, standard output, standard error; the command is ended if it takes too long.
    fn run(&self, line: &str) -> (i32, String, String) {
        self.finish(self.command(line), b"")
    }

    fn run_with(&self, line: &str, input: &[u8]) -> (i32, String, String) {
        self.finish(self.command(line), input)
    }

    fn finish(&self, mut command: Command, input: &[u8]) -> (i32, String, String) {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("gaffer");
        child
            .stdin
            .take()
            .expect("stdin")
            .write_all(input)
            .expect("its input");
        let output = child.wait_with_output().expect("its end");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// A command that must do what it says; its standard output.
    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!(code, 0, "{line}: {out}{err}");
        out
    }

    /// A command that must say this and exit with 1.
    #[track_caller]
    fn fails(&self, line: &str, said: &str) {
        let (code, out, err) = self.run(line);
        assert!(
            code == 1 && format!("{out}{err}").contains(said),
            "{line}: {code} {out}{err}"
        );
    }

    /// Value of a line `key: value` of `ps:info`.
    #[track_caller]
    fn info(&self, target: &str, key: &str) -> String {
        let text = self.ok(&format!("ps:info {target}"));
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
    }
}

#[test]
fn s13_4_load_and_unload_of_a_procfile() {
    let shop = Shop::start();
    let said = shop.ok("load -c web=3 -c worker=2");
    assert_eq!(said, format!("==> 'shop' has been loaded in {}\n", shop.url));
    assert_eq!(shop.ok("apps"), "shop\n");
    assert_eq!(
        (shop.info("web", "active"), shop.info("web", "running")),
        ("True".into(), "3".into())
    );
    assert_eq!(shop.info("shop/worker", "num_processes"), "2");
    assert_eq!(shop.info("shop.web", "pids").split(',').count(), 3);
    // What is there stays as it is, and is told.
    let again = shop.ok("load");
    assert!(
        again.contains("'web' already loaded\n'worker' already loaded\n"),
        "{again}"
    );
    assert_eq!(shop.info("web", "running"), "3");
    // By name, by job, and what is not there.
    assert_eq!(shop.ok("unload web --no-input"), "job 'web' unloaded\n");
    shop.fails("ps:info web", "'web' not found in 'shop'");
    shop.fails("unload web --no-input", "'web' not found in 'shop'");
    let (code, out, err) = shop.run_with("unload", b"n\n");
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("Do you want to unload 'shop'? [y]|n:"), "{err}");
    let (code, out, err) = shop.run_with("unload", b"\n");
    assert_eq!((code, out.as_str()), (0, "==> app 'shop' unloaded\n"), "{err}");
    assert_eq!(shop.ok("apps"), "");
    shop.fails("unload --no-input", "'shop' not found");
    shop.node.assert_no_job_processes();
}

#[test]
fn s13_4_load_takes_the_old_count_and_can_leave_jobs_stopped() {
    let shop = Shop::start();
    shop.ok("--app other load --nostart -c web=2,worker=3");
    assert_eq!(shop.ok("apps"), "other\n");
    let text = shop.ok("ps:info other.web");
    assert_eq!(text, "active: False\nrunning: 0\nnum_processes: 0\npids: \n");
    assert_eq!(shop.ok("ps:start web --app other"), "'web' started\n");
    let running = || shop.ok("ps:info web --app other").contains("running: 2\n");
    wait_until(SOON, "two of web", running);
    assert_eq!(
        shop.ok("ps:stop --app other --no-input"),
        "==> all jobs in 'other' stopped\n"
    );
    assert!(
        shop.ok("ps:info web --app other")
            .starts_with("active: False\nrunning: 0\n")
    );
}

#[test]
fn s12_5_load_of_job_files_and_of_standard_input() {
    let shop = Shop::start();
    let fixture = shop.node.fixture();
    let file = format!(
        r#"{{"jobs": [{{"name": "api.front", "cmd": "{fixture}", "args": ["idle"], "os_env": true}},
                     {{"name": "back", "cmd": "{fixture} idle", "numprocesses": 2, "start": false, "os_env": true}}]}}"#
    );
    shop.write("jobs.json", &file);
    let said = shop.ok("--app api load jobs.json");
    let url = &shop.url;
    assert_eq!(
        said,
        format!(
            "'api.front' has been loaded in {url}\n'api.back' has been loaded in {url}\n'jobs.json' has been loaded\n"
        )
    );
    assert_eq!(shop.info("api.front", "running"), "1");
    assert_eq!(shop.info("api.back", "running"), "0");
    assert!(
        shop.ok("--app api load jobs.json")
            .contains("'api.front' already loaded\n")
    );
    assert_eq!(
        shop.ok("--app api unload --from-file jobs.json --no-input"),
        "job 'api.front' unloaded\njob 'api.back' unloaded\n"
    );
    let one = format!(r#"{{"name": "one", "cmd": "{fixture} idle"}}"#);
    let (code, out, err) = shop.run_with("load -", one.as_bytes());
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        out,
        format!("'shop.one' has been loaded in {url}\n'-' has been loaded\n")
    );
    // Nothing of a wrong file.
    shop.write(
        "wrong.json",
        r#"{"jobs": [{"name": "a", "cmd": "true"}, {"name": "b", "numprocesses": -1}]}"#,
    );
    let (code, _, err) = shop.run("load wrong.json");
    assert!(code != 0 && err.contains("wrong.json"), "{err}");
    shop.fails("ps:info shop.a", "not found");
}

#[test]
fn s13_4_a_missing_file_and_a_missing_program_are_told() {
    let shop = Shop::start();
    shop.fails("-f nowhere load", "config error: procfile 'nowhere' not found");
    shop.fails("load nothing.json", "'nothing.json' not found");
    std::fs::remove_file(shop.folder.join("Procfile")).expect("removed");
    shop.fails("load", "procfile or job file is missing");
    shop.write("Procfile", "web: /no/such/program\n");
    shop.fails("load", "/no/such/program");
    shop.fails("ps:info 99999999", "not found");
    shop.fails("ps --app nobody", "'nobody' not loaded");
}

#[test]
fn s13_4_ps_shows_running_jobs_with_their_processes() {
    let shop = Shop::start();
    shop.ok("load -c web=2");
    shop.ok("ps:stop worker");
    let text = shop.ok("ps --app .");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("=== web: `{} idle`", shop.node.fixture()));
    assert!(
        lines[1].starts_with("Total CPU: ") && lines[1].contains(" Total MEM: "),
        "{text}"
    );
    assert_eq!(lines[2], "");
    let pids = shop.info("web", "pids");
    for (line, pid) in lines[3..5].iter().zip(pids.split(',')) {
        assert!(line.starts_with(&format!("web.{pid}: up for 0:0")), "{text}");
    }
    assert!(!text.contains("worker"), "{text}");
    // A process by its number.
    let pid = pids.split(',').next().expect("a process").to_owned();
    // A small number, never given twice: not the one that the system calls it by.
    assert_ne!(pid, shop.info(&pid, "os_pid"));
    assert!(pid.parse::<u32>().is_ok_and(|pid| pid < 100), "{pid}");
    let table = shop.ok("--session shop ps --columns job,number,pid web.1");
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["web.1", &pid, &shop.info(&pid, "os_pid")]);
    shop.ok(&format!("signal CONT {pid}"));
    let (code, _, err) = shop.run("why 999");
    assert!(
        code == 3 && err.contains("no process has the number 999 now"),
        "{code} {err}"
    );
    assert_eq!(shop.info(&pid, "name"), "shop.web");
    assert_eq!(shop.info(&pid, "commited"), "False");
    assert!(Path::new(&format!("/proc/{}", shop.info(&pid, "os_pid"))).exists());
}

#[test]
fn s13_4_ps_scale_in_three_ways() {
    let shop = Shop::start();
    shop.ok("load -c worker=3");
    let said = shop.ok("ps:scale web=3 worker-1");
    assert_eq!(
        said,
        "Scaling shop.web processes... done, now running 3\nScaling shop.worker processes... done, now running 2\n"
    );
    assert_eq!(
        shop.ok("ps:scale web+2"),
        "Scaling shop.web processes... done, now running 5\n"
    );
    assert_eq!(shop.info("web", "running"), "5");
    shop.fails("ps:scale nobody=1", "'shop.nobody' not found");
    let (code, _, err) = shop.run("ps:scale web");
    assert_eq!(code, 2, "{err}");
}

#[test]
fn d58_ps_stop_and_start_without_jobs_act_on_the_application_only() {
    let shop = Shop::start();
    shop.ok("load");
    shop.ok("--app other load");
    assert_eq!(shop.ok("ps:stop --no-input"), "==> all jobs in 'shop' stopped\n");
    assert_eq!(shop.info("shop.web", "running"), "0");
    assert_eq!(shop.info("other.web", "running"), "1");
    assert_eq!(shop.ok("ps:start"), "==> all jobs in 'shop' started\n");
    assert_eq!(shop.info("shop.web", "running"), "1");
    assert_eq!(
        shop.ok("reload --app shop --no-input"),
        "==> app 'shop' reloaded\n"
    );
    assert_eq!(
        shop.ok("reload web --app shop --no-input"),
        "job 'web' reloaded\n"
    );
    shop.fails("ps:stop nobody", "'nobody' not found in 'shop'");
    shop.fails("--app none ps:start", "'none' not found");
}

#[test]
fn s13_4_ps_stop_of_a_process_and_ps_kill() {
    let shop = Shop::start();
    shop.ok("load");
    let pid = shop.info("web", "pids");
    assert_eq!(shop.ok(&format!("ps:stop {pid}")), format!("'{pid}' stopped\n"));
    let next = || {
        let now = shop.info("web", "pids");
        !now.is_empty() && now != pid
    };
    wait_until(SOON, "another process in its place", next);
    let second = shop.info("web", "pids");
    assert_eq!(
        shop.ok(&format!("ps:kill {second} KILL")),
        format!("'KILL' sent to '{second}'\n")
    );
    wait_until(SOON, "a third one", || {
        let now = shop.info("web", "pids");
        !now.is_empty() && now != second
    });
    // The signal of a whole job; 0 only asks.
    assert_eq!(shop.ok("ps:kill web 0"), "'0' sent to 'web'\n");
    let (code, _, err) = shop.run("ps:kill web NONSENSE");
    assert!(code != 0 && err.contains("NONSENSE"), "{err}");
}

#[test]
fn k9_run_commits_a_job_or_runs_a_command_here() {
    let shop = Shop::start();
    shop.write("Procfile", "once: sh -c 'echo $A $B > said'\n");
    shop.write(".env", "# no\nA = \"one\"\nB=two\n");
    shop.ok("load --nostart");
    let said = shop.ok("run once -p B=three --app shop");
    let rest = said.strip_prefix("'shop.once': new process ");
    assert!(rest.is_some_and(|rest| rest.ends_with(" launched\n")), "{said}");
    let file = shop.folder.join("said");
    wait_until(SOON, "what it wrote", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text == "one three\n")
    });
    assert_eq!(shop.info("once", "running"), "0");
    // D54: once, with its exit code.
    let mut command = shop.command("dev:run");
    command.args(["sh", "-c", "echo $A; exit 7"]);
    let (code, out, err) = shop.finish(command, b"");
    assert_eq!((code, out.as_str()), (7, "one\n"), "{err}");
    let mut command = shop.command("run");
    command.args(["sh", "-c", "echo $B; exit 3"]);
    let (code, out, err) = shop.finish(command, b"");
    assert_eq!((code, out.as_str()), (3, "two\n"), "{err}");
}

#[test]
fn s13_4_send_and_recv() {
    let shop = Shop::start();
    shop.write("Procfile", "cat: cat\nmute: sleep 1000\n");
    shop.write(".env", "GAFFER_REDIRECT_INPUT=cat\n");
    shop.ok("load");
    let pid = shop.info("cat", "pids");
    let mut reader = shop.command(&format!("recv {pid}"));
    let mut child = reader.stdout(Stdio::piped()).spawn().expect("recv");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    // It may not listen yet: what is said again is heard.
    let (heard, hear) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        let line = lines.next().expect("a line").expect("text");
        let _gone = heard.send(line);
    });
    let mut line = None;
    wait_until(SOON, "a line comes back", || {
        shop.ok(&format!("send {pid} hello world"));
        line = hear.recv_timeout(Duration::from_millis(200)).ok();
        line.is_some()
    });
    assert_eq!(line.as_deref(), Some("hello world"));
    child.kill().expect("ended");
    child.wait().expect("its end");
    listener.join().expect("it heard");
    // Lines until a lone dot.
    let (code, _, err) = shop.run_with(&format!("send {pid} -"), b"first\nsecond\n.\nthird\n");
    assert_eq!(code, 0, "{err}");
    wait_until(SOON, "both lines", || {
        let logs = shop.ok("logs cat");
        logs.contains("first") && logs.contains("second") && !logs.contains("third")
    });
    let mute = shop.info("mute", "pids");
    shop.fails(&format!("send {mute} x"), "Error (403): EPERM");
    shop.fails(&format!("send {pid}.nothing x"), "Error (404): ENOENT");
    shop.fails("send 99999999 x", "Error (404): not_found");
}

#[test]
fn s13_4_logs_events_follows_the_application() {
    let shop = Shop::start();
    let mut command = shop.command("--app shop logs --events --no-color");
    let mut child = command.stdout(Stdio::piped()).spawn().expect("logs");
    let (heard, hear) = std::sync::mpsc::channel();
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let listener = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if heard.send(line).is_err() {
                break;
            }
        }
    });
    shop.ok("load");
    let mut seen = Vec::new();
    wait_until(SOON, "a start and a process", || {
        // Whoever listened too late hears of the next one.
        shop.ok("ps:stop web");
        shop.ok("ps:start web");
        while let Ok(line) = hear.recv_timeout(Duration::from_millis(200)) {
            seen.push(line);
        }
        seen.iter()
            .any(|line| line.contains(" shop.web | spawn process with pid "))
            && seen
                .iter()
                .any(|line| line.ends_with(" shop.web | stop shop.web"))
    });
    child.kill().expect("ended");
    child.wait().expect("its end");
    listener.join().expect("it heard");
    assert!(
        seen.iter()
            .all(|line| line.as_bytes()[2] == b':' && line.as_bytes()[5] == b':'),
        "{seen:?}"
    );
}

#[test]
fn d50_export_is_read_back_with_its_names() {
    let shop = Shop::start();
    let ini = shop.ok("export --format ini -c web=2");
    assert!(
        ini.contains("[process:shop:web]") && ini.contains("numprocesses = 2"),
        "{ini}"
    );
    shop.ok("export web --format=json --out=web.json");
    let text = std::fs::read_to_string(shop.folder.join("web.json")).expect("written");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["name"], "shop.web");
    for key in ["cmd", "args", "env", "numprocesses"] {
        assert!(!json[key].is_null(), "{key}: {text}");
    }
    assert!(shop.ok("load web.json").contains("'shop.web' has been loaded"));
}

#[test]
fn s13_4_unknown_and_help() {
    let shop = Shop::start();
    let (code, out, err) = shop.run("nonsense");
    assert!(code != 0 && err.contains("nonsense"), "{out}{err}");
    let help = shop.ok("help old-commands");
    for word in ["load", "ps:scale", "recv", "dev:start", "--app", "gafferctl"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(shop.ok("help").lines().count() < 68);
}
