//! Files, without any daemon: what `init` writes, what `export` makes of it, and what a new user gets for a mistake.

use std::path::Path;
use std::process::{Command, Output};

struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Folder {
        let root = tempfile::Builder::new()
            .prefix("shop")
            .tempdir()
            .expect("a folder");
        let folder = Folder { root };
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        folder
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn gaffer(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer"));
        command.args(words).current_dir(self.path());
        for name in ["GAFFER_URL", "GAFFER_SESSION", "GAFFER_TOKEN", "GAFFER_PROFILE"] {
            command.env_remove(name);
        }
        command.env("GAFFER_SOCKET", self.path().join("nobody.sock"));
        command.output().expect("gaffer runs")
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.gaffer(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) -> String {
        let output = self.gaffer(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        said
    }
}

#[test]
fn init_writes_a_file_that_is_right_and_never_over_another() {
    let folder = Folder::new(&[
        (
            "Procfile",
            b"web: python3 -m http.server $PORT\nworker: sleep 1000\n",
        ),
        (".env", b"A=b\n"),
    ]);
    let printed = folder.ok(&["init", "--print"]);
    assert!(!folder.path().join("gaffer.toml").exists());
    folder.ok(&["init"]);
    let written = std::fs::read_to_string(folder.path().join("gaffer.toml")).expect("a file");
    assert_eq!(written, printed);
    for line in ["[job.web]", "[job.worker]", "env_file = [\"?.env\"]"] {
        assert!(written.contains(line), "{line}: {written}");
    }
    assert_eq!(folder.ok(&["check"]), "● gaffer.toml: 2 jobs, no errors\n");
    let again = folder.fails(4, &["init"]);
    assert!(
        again.starts_with("error: gaffer.toml exists already\n"),
        "{again}"
    );
    let empty = Folder::new(&[]);
    empty.ok(&["init"]);
    assert_eq!(empty.ok(&["check"]), "● gaffer.toml: 0 jobs, no errors\n");
}

#[test]
fn export_writes_every_form_and_gaffer_reads_its_own_again() {
    let text = b"session = \"shop\"\n[job.web]\ncmd = \"python3 web.py\"\nport = 8000\nenv.LOG = \"a b\"\n\
                 [job.worker]\ncmd = \"sleep 1000\"\ninstances = 2\nafter = [\"web\"]\n";
    let folder = Folder::new(&[("gaffer.toml", text)]);
    let procfile = folder.ok(&["export", "--to", "procfile"]);
    assert!(
        procfile.contains("web: python3 web.py\n") && procfile.contains("worker: sleep 1000\n"),
        "{procfile}"
    );
    let ini = folder.ok(&["export", "--to", "ini"]);
    assert!(
        ini.contains("[process:shop:web]") && ini.contains("numprocesses = 2"),
        "{ini}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&folder.ok(&["export", "--to", "json"])).expect("JSON");
    assert_eq!(json["jobs"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        folder.ok(&["export", "--format", "json"]),
        folder.ok(&["export", "--to", "json"])
    );
    let unit = folder.ok(&["export", "web", "--to", "systemd"]);
    assert!(
        unit.contains("[Service]") && unit.contains("python3 web.py") && !unit.contains("worker"),
        "{unit}"
    );
    for (kind, name) in [
        ("procfile", "Procfile"),
        ("ini", "gaffer.ini"),
        ("json", "jobs.json"),
        ("toml", "gaffer.toml"),
    ] {
        let again = Folder::new(&[]);
        let path = again.path().join(name);
        folder.ok(&["export", "--to", kind, "-o", &path.to_string_lossy()]);
        // Where its programs are is said in the file, if the form can say it.
        let checked = again.ok(&["check", "-f", name, "-d", &again.path().to_string_lossy()]);
        assert!(checked.contains("2 jobs, no errors"), "{kind}: {checked}");
    }
    let typo = folder.fails(3, &["export", "wbe"]);
    assert!(
        typo.starts_with("error: nothing is named `wbe` in gaffer.toml\n  did you mean `web`?"),
        "{typo}"
    );
    assert!(
        folder
            .fails(2, &["export", "--to", "yaml"])
            .contains("procfile, ini, json, systemd, toml")
    );
}

#[test]
fn mistakes_in_a_procfile_are_shown_with_place_and_way_out() {
    for (text, place, hint) in [
        (
            &b"web: sleep 1\n\tworker: sleep 2\n"[..],
            "Procfile:2:1",
            "begin it with the name",
        ),
        (b"web sleep 100\n", "Procfile:1:1", "write `name: command`"),
        (
            b"we.b: sleep 1\n",
            "Procfile:1:3",
            "use letters, digits, `_` and `-`",
        ),
        (b"web: a\nweb: b\n", "Procfile:2:1", "each name once"),
        (b"", "Procfile:1:1", "web: python3 web.py"),
    ] {
        let folder = Folder::new(&[("Procfile", text)]);
        let said = folder.fails(2, &["check"]);
        assert!(said.contains(place) && said.contains(hint), "{said}");
        assert!(said.ends_with("1 error; nothing was changed\n"), "{said}");
    }
    let folder = Folder::new(&[("Procfile", b"web: echo hi\r\nworker: echo ho\r\n")]);
    assert_eq!(folder.ok(&["check"]), "● Procfile: 2 jobs, no errors\n");
    assert!(!folder.ok(&["export"]).contains("\\r"));
}

#[test]
fn mistakes_in_a_toml_file_are_shown_with_place_and_way_out() {
    for (text, place, hint) in [
        (
            "[job.a]\ncmd = \"x\"\nrestrat = \"always\"\n",
            "gaffer.toml:3:1",
            "did you mean `restart`?",
        ),
        (
            "[job.a]\ncmd = \"x\"\nnumprocesses = 3\n",
            "gaffer.toml:3:1",
            "use `instances`",
        ),
        (
            "[job.a]\ncmd = \"x\"\nstop.timeout = 20\n",
            "gaffer.toml:3:16",
            "write \"20s\"",
        ),
        (
            "[job.a]\ncmd = \"x\"\nuser = \"no-such-user\"\n",
            "gaffer.toml:3:8",
            "create it, or name another one",
        ),
        (
            "[job.a]\ncmd = \"x\"\ncwd = \"/no/such\"\n",
            "gaffer.toml:3:7",
            "where there is no folder",
        ),
        (
            "[job.\"a b\"]\ncmd = \"x\"\n",
            "gaffer.toml:1:6",
            "is not a job name",
        ),
        (
            "[job.17]\ncmd = \"x\"\n",
            "gaffer.toml:1:6",
            "must not be all digits",
        ),
        ("[job.a\ncmd = \"x\"\n", "gaffer.toml:1:7", "this is not TOML"),
        (
            "[job.a]\ncmd = \"x\"\nafter = [\"b\"]\n[job.b]\ncmd = \"x\"\nafter = [\"a\"]\n",
            "gaffer.toml:3:10",
            "`a` → `b` → `a`",
        ),
        (
            "[schedule.a]\ncron = \"x\"\n",
            "gaffer.toml:2:8",
            "`cron` cannot be understood",
        ),
    ] {
        let folder = Folder::new(&[("gaffer.toml", text.as_bytes())]);
        let said = folder.fails(2, &["check"]);
        assert!(said.contains(place) && said.contains(hint), "{said}");
        assert!(said.ends_with("1 error; nothing was changed\n"), "{said}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = Folder::new(&[("latin.toml", b"[job.a]\ncmd = \"sl\xe9ep\"\n")]);
    let said = folder.fails(2, &["check", "latin.toml"]);
    assert!(said.contains("latin.toml: line 2 is not UTF-8 text"), "{said}");
    std::fs::create_dir(folder.path().join("folder.toml")).expect("a folder");
    let said = folder.fails(2, &["check", "folder.toml"]);
    assert!(said.contains("folder.toml"), "{said}");
    let said = folder.fails(3, &["check", "nothing.toml"]);
    assert!(
        said.contains("there is no file ") && said.contains("nothing.toml"),
        "{said}"
    );
    let said = folder.fails(2, &["start"]);
    assert!(
        said.contains("there is no gaffer.toml and no Procfile in "),
        "{said}"
    );
}
