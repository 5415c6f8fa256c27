//! Credentials on the command line: login, tokens, users and keys of today and of the original, certificates.

use gaffer_testkit::Node;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const PASSWORD: &str = "correct:horse";

/// A daemon that asks everybody on TCP for a key, and somebody far away who has a home of his own.
struct Far {
    node: Node,
    url: String,
    home: PathBuf,
}

impl Far {
    fn start() -> Far {
        let node = Node::builder().bind("127.0.0.1:0").arg("--require-key").start();
        let url = format!("http://{}", node.addresses()[0]);
        Far::of(node, url)
    }

    fn of(node: Node, url: String) -> Far {
        let home = node.root().join("home");
        std::fs::create_dir_all(&home).expect("made");
        Far { node, url, home }
    }

    /// Over TCP, with what is kept in the home.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.node.cli_command(&["--url", &self.url]);
        command
            .args(words)
            .env("HOME", &self.home)
            .env_remove("GAFFER_SOCKET")
            .env_remove("GAFFER_CONFIG")
            .env_remove("XDG_CONFIG_HOME");
        command
    }

    /// Over the control socket, where the daemon's user is an admin.
    fn near(&self, words: &[&str]) -> Command {
        let mut command = self.node.cli_command(words);
        command.env("HOME", self.home.join("nobody"));
        command
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let (code, out, err) = finish(self.command(words), "");
        assert_eq!(code, 0, "{words:?}: {out}{err}");
        out
    }

    /// What it said; it must end with this code.
    #[track_caller]
    fn fails(&self, wanted: i32, words: &[&str]) -> String {
        let (code, out, err) = finish(self.command(words), "");
        assert_eq!(code, wanted, "{words:?}: {out}{err}");
        out + &err
    }

    fn make_admin(&self, name: &str) {
        let (code, out, err) = finish(
            self.near(&["user", "create", name, "--scope", "admin"]),
            &format!("{PASSWORD}\n"),
        );
        assert_eq!((code, out), (0, format!("User '{name}' created.\n")), "{err}");
    }

    fn token(&self, words: &[&str]) -> String {
        let all: Vec<&str> = ["token", "create"].iter().chain(words).copied().collect();
        let (code, out, err) = finish(self.near(&all), "");
        assert_eq!(code, 0, "{err}");
        out.trim().to_owned()
    }
}

fn finish(mut command: Command, input: &str) -> (i32, String, String) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("gaffer");
    let mut stdin = child.stdin.take().expect("stdin");
    // One that asks for nothing may have ended.
    let _written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    (code, text(&output.stdout), text(&output.stderr))
}

#[test]
fn s13_4_login_keeps_the_key_that_later_commands_show() {
    let far = Far::start();
    far.make_admin("ana");
    far.fails(5, &["ps"]);
    assert!(
        far.fails(1, &["login", "-u", "ana", "-p", "wrong"])
            .contains("unauthorized: username or password is wrong")
    );
    let file = far.home.join(".config/gaffer/config.toml");
    assert!(!file.exists());
    let (code, out, err) = finish(far.command(&["login"]), &format!("ana\n{PASSWORD}\n"));
    assert_eq!((code, out.as_str()), (0, "User 'ana' authenticated.\n"), "{err}");
    let mode = std::fs::metadata(&file).expect("kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    far.ok(&["ps"]);
    // The nodes that are named by hand are in the same file, and it still belongs to its owner only.
    far.ok(&["node", "add", "build", "http://build.example:5000"]);
    far.ok(&["ps"]);
    far.ok(&["node", "rm", "build"]);
    // Another daemon is shown nothing of it: its section has another URL.
    let text = std::fs::read_to_string(&file).expect("kept");
    assert!(
        text.starts_with(&format!("[login.\"{}\"]\nkey = \"", far.url)),
        "{text}"
    );
}

#[test]
fn s7_1_where_no_key_is_required_there_is_none_to_get() {
    let node = Node::builder().bind("127.0.0.1:0").start();
    let url = format!("http://{}", node.addresses()[0]);
    let far = Far::of(node, url);
    let said = far.fails(1, &["login", "-u", "ana", "-p", PASSWORD]);
    assert!(said.contains("asks nobody like you for a key"), "{said}");
    let said = far.fails(1, &["user:add", "x", "-p", "x", "--no-input"]);
    assert!(said.contains("keys are not required"), "{said}");
}

#[test]
fn s12_6_the_originals_file_and_one_that_is_named_are_used() {
    let far = Far::start();
    let token = far.token(&["ini", "--scope", "read"]);
    let old = far.home.join(".gaffer/gaffer.ini");
    std::fs::create_dir_all(old.parent().expect("a folder")).expect("made");
    std::fs::write(&old, format!("[node \"{}\"]\nkey = {token}\n", far.url)).expect("written");
    far.ok(&["ps"]);
    std::fs::remove_file(&old).expect("removed");
    far.fails(5, &["ps"]);
    let named = far.home.join("mine.ini");
    std::fs::write(&named, "# mine\n[other]\na = b\n").expect("written");
    let with = |words: &[&str]| {
        let mut command = far.command(words);
        command.env("GAFFER_CONFIG", &named);
        command
    };
    let (code, out, err) = finish(with(&["login", "--with-token"]), &token);
    assert!(
        code == 0 && out.starts_with("The token is good for "),
        "{out}{err}"
    );
    let text = std::fs::read_to_string(&named).expect("kept");
    assert_eq!(
        text,
        format!(
            "# mine\n[other]\na = b\n\n[node \"{}\"]\nkey = {token}\n",
            far.url
        )
    );
    assert_eq!(finish(with(&["ps"]), "").0, 0);
    // A token that is not one is not kept.
    let (code, _, err) = finish(far.command(&["login", "--with-token"]), "nonsense");
    assert_eq!(code, 5, "{err}");
    assert!(!far.home.join(".config/gaffer/config.toml").exists());
}

#[test]
fn tokens_are_made_listed_shown_and_revoked() {
    let far = Far::start();
    let token = far.token(&["ci", "--scope", "read", "--expires", "30d"]);
    far.token(&["shop", "--scope", "operate", "--for", "shop.*,mail.web"]);
    let with = |words: &[&str]| {
        let mut command = far.command(words);
        command.env("GAFFER_TOKEN", &token);
        command
    };
    assert_eq!(finish(with(&["ps"]), "").0, 0);
    let (code, _, err) = finish(with(&["job", "add", "web", "--", "sleep", "9"]), "");
    assert_eq!(code, 5, "{err}");
    let (_, out, _) = finish(far.near(&["token", "ls"]), "");
    let rows: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["NAME", "SCOPE", "FOR", "EXPIRES", "BY", "ID"]);
    assert_eq!(rows[1][..3], ["ci", "read", "everything"]);
    assert!(rows[1][3] != "never", "{out}");
    assert_eq!(rows[2][..4], ["shop", "operate", "shop.*,mail.web", "never"]);
    assert!(!out.contains(&token));
    let (code, _, err) = finish(far.near(&["token", "rm", "ci"]), "");
    assert!(code == 2 && err.contains("revoke ci?"), "{code} {err}");
    assert_eq!(finish(with(&["ps"]), "").0, 0);
    assert_eq!(finish(far.near(&["token", "rm", "ci", "nobody", "-y"]), "").0, 3);
    assert_eq!(finish(with(&["ps"]), "").0, 5);
}

#[test]
fn users_are_made_changed_and_removed() {
    let far = Far::start();
    far.make_admin("ana");
    let (_, out, _) = finish(far.near(&["user", "ls", "--json"]), "");
    let users: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&users[0]["name"], &users[0]["admin"]),
        (&"ana".into(), &true.into())
    );
    assert!(
        finish(far.near(&["user", "show", "ana"]), "")
            .1
            .contains("ana   admin")
    );
    assert_eq!(finish(far.near(&["user", "password", "bob"]), "x\n").0, 3);
    assert_eq!(finish(far.near(&["user", "password", "ana"]), "other\n").0, 0);
    far.fails(1, &["login", "-u", "ana", "-p", PASSWORD]);
    far.ok(&["login", "-u", "ana", "-p", "other"]);
    assert_eq!(finish(far.near(&["user", "rm", "ana", "-y"]), "").0, 0);
    // With the user its key is gone, and with it whoever used it.
    far.fails(5, &["ps"]);
}

#[test]
fn s13_4_users_and_keys_of_the_original() {
    let far = Far::start();
    assert!(
        far.fails(1, &["apps"])
            .contains("Unauthorized access. You need an API key")
    );
    assert!(
        far.fails(1, &["--api-key", "nonsense", "apps"])
            .contains("Unauthorized access. You need an API key")
    );
    far.make_admin("ana");
    far.ok(&["login", "-u", "ana", "-p", PASSWORD]);
    let made = far.ok(&["--no-input", "key:create", "+u", "shop+rw", "--label", "shop's"]);
    let key = made
        .strip_prefix("The key '")
        .and_then(|rest| rest.strip_suffix("' has been created.\n"))
        .unwrap_or_else(|| panic!("{made}"));
    assert_eq!(
        far.ok(&["key", key]),
        format!(
            "Key '{key}' found.\nLabel: shop's\nPermisssions:\n    admin: False\n    create_key: False\n    \
             create_user: True\n    manage: \n    read: shop\n    write: shop\n"
        )
    );
    // Asked for, what is missing comes in the order of the questions.
    let (code, out, err) = finish(far.command(&["user:add", "-k", key]), "bob\nsecret\ny\n");
    assert_eq!((code, out.as_str()), (0, "User 'bob' created\n"), "{err}");
    assert!(
        err.contains("Do you want to create the user 'bob'? [y]|n:"),
        "{err}"
    );
    assert!(
        far.fails(1, &["user:add", "bob", "-p", "x", "--no-input"])
            .contains("'bob' already exists")
    );
    assert_eq!(
        far.ok(&["user", "bob"]),
        format!("User 'bob' found\nAPI Key: {key}\n")
    );
    assert_eq!(
        far.ok(&["--no-input", "user:setpassword", "bob", "-p", "new"]),
        "bob's password changed\n"
    );
    let second = far.ok(&["--no-input", "key:create", "shop+r"]);
    let second = second.split('\'').nth(1).expect("a key");
    assert_eq!(
        far.ok(&["--no-input", "user:setkey", "bob", "-k", second]),
        "bob's key changed\n"
    );
    let (code, out, _) = finish(far.command(&["user:del", "bob"]), "n\n");
    assert_eq!((code, out.as_str()), (0, ""));
    assert_eq!(far.ok(&["user:del", "bob", "--no-input"]), "User 'bob' deleted\n");
    assert!(far.fails(1, &["user", "bob"]).contains("user 'bob' not found"));
    assert_eq!(
        far.ok(&["--no-input", "key:delete", key]),
        format!("The key '{key}' has been deleted.\n")
    );
    assert!(far.fails(1, &["key", key]).contains("not found"));
    assert_eq!(far.fails(2, &["key:create", "shop"]).lines().count(), 2);
}

#[test]
fn s14_6_https_with_an_authority_of_its_own() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let names = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = names.signed_by(&key, &authority).expect("signed");
    let files = tempfile::tempdir().expect("a folder");
    let file = |name: &str| files.path().join(name).display().to_string();
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("a.pem", certificate.pem()),
        ("a.key", key.serialize_pem()),
    ] {
        std::fs::write(file(name), text).expect("written");
    }
    let node = Node::builder()
        .bind("127.0.0.1:0")
        .arg("--require-key")
        .arg("--certfile")
        .arg(&file("a.pem"))
        .arg("--keyfile")
        .arg(&file("a.key"))
        .start();
    let url = format!("https://localhost:{}", node.addresses()[0].port());
    let far = Far::of(node, url);
    let token = far.token(&["far", "--scope", "read"]);
    let refused = far.fails(69, &["--api-key", &token, "ps"]);
    assert!(
        refused.contains("certificate") || refused.contains("authorities"),
        "{refused}"
    );
    far.ok(&["--cacert", &file("ca.pem"), "--api-key", &token, "ps"]);
    assert!(
        far.fails(69, &["--cacert", "/dev/null", "ps"])
            .contains("no certificate in it")
    );
    // The same from the file, from whose folder on paths are.
    let config = far.home.join(".config/gaffer");
    std::fs::create_dir_all(&config).expect("made");
    std::fs::copy(file("ca.pem"), config.join("ca.pem")).expect("copied");
    let text = format!(
        "[login.\"{}\"]\nkey = \"{token}\"\ncacert = \"ca.pem\"\n",
        far.url
    );
    std::fs::write(config.join("config.toml"), text).expect("written");
    far.ok(&["ps"]);
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_gafferctl"));
    ctl.args([
        "--cacert",
        &file("ca.pem"),
        "--connect",
        &far.url,
        "--api-key",
        &token,
        "processes",
    ]);
    let (code, _, err) = finish(ctl, "");
    assert_eq!(code, 0, "{err}");
}
