//! The original's keys, users and login, as its client uses them.

use crate::node::{Node, gafferd, refused, temp_dir};
use crate::{PASSWORD, create_admin, guarded, with_key};
use serde_json::{Value, json};

fn auth(node: &Node, name: &str, password: &str) -> crate::node::Answer {
    let coded = data_encoding::BASE64.encode(format!("{name}:{password}").as_bytes());
    node.over_tcp(
        "GET",
        "/auth",
        &format!("host: localhost\r\nauthorization: Basic {coded}\r\n"),
        b"",
    )
}

fn made(node: &Node, key: &str, body: &Value) -> String {
    let answer = with_key(node, "POST", "/keys", key, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let made = answer.json()["api_key"].as_str().expect("a key").to_owned();
    assert_eq!(answer.header("x-api-key").as_deref(), Some(made.as_str()));
    assert!(
        answer
            .header("location")
            .is_some_and(|at| at.ends_with(&format!("/keys/{made}")))
    );
    made
}

#[test]
fn s13_1_the_first_admin_is_made_while_no_daemon_runs_and_logs_in() {
    let dir = temp_dir();
    let key = create_admin(dir.path(), "ana");
    assert_eq!(key.len(), 32);
    let mut again = gafferd(dir.path());
    again.args(["--create-admin-user", "--username", "ana", "--password", "x"]);
    let (code, said) = refused(again);
    assert_eq!(code, 1);
    assert!(
        said.contains("username 'ana' already exists. Please choose another"),
        "{said}"
    );
    let listed = gafferd(dir.path()).arg("--list-admins").output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), format!("ana - {key}\n"));

    let node = Node::start_in(dir.clone(), &["--bind", "127.0.0.1:0", "--require-key"]);
    let login = auth(&node, "ana", PASSWORD);
    assert_eq!((login.status, &login.json()["api_key"]), (200, &json!(key)));
    assert_eq!(login.header("x-api-key").as_deref(), Some(key.as_str()));
    for (name, password) in [("ana", "wrong"), ("bob", PASSWORD), ("", "")] {
        let answer = auth(&node, name, password);
        assert_eq!(answer.status, 401, "{name}");
        assert_eq!(answer.json()["error"], 401);
        assert_eq!(
            answer.header("www-authenticate").as_deref(),
            Some("Basic realm=\"gaffer\"")
        );
    }
    // Made while the daemon runs: it counts at once.
    let second = create_admin(dir.path(), "bea");
    assert_eq!(with_key(&node, "GET", "/keys", &second, &Value::Null).status, 200);
}

#[test]
fn s6_2_keys_are_made_listed_shown_and_revoked_with_their_subkeys() {
    let (node, admin) = guarded();
    let nothing = Value::Null;
    let parent = made(
        &node,
        &admin,
        &json!({
        "permissions": {"create_key": true, "manage": ["shop"], "read": {"bank.web": true}},
        "label": "deploy", "parent": null, "key": "chosen by the caller"}),
    );
    let child = made(&node, &parent, &json!({"permissions": {"write": ["shop.web"]}}));
    let named = made(&node, &admin, &json!({"permissions": {}, "parent": parent}));
    let listed = with_key(&node, "GET", "/keys", &admin, &nothing).json()["keys"].clone();
    assert_eq!(listed, json!([admin, parent, child, named]));
    let shown = with_key(&node, "GET", &format!("/keys/{parent}"), &admin, &nothing).json();
    assert_eq!(shown["key"], json!(parent));
    assert_eq!(shown["label"], "deploy");
    assert_eq!(shown["permissions"]["manage"], json!(["shop"]));
    assert!(shown.get("keys").is_none());
    for option in ["?include_keys=true", "%3Finclude_keys=true"] {
        let shown = with_key(&node, "GET", &format!("/keys/{parent}{option}"), &admin, &nothing).json();
        assert_eq!(shown["keys"].as_array().map(Vec::len), Some(2), "{option}");
    }
    let again = with_key(&node, "GET", &format!("/keys/{parent}"), &admin, &nothing).json();
    assert!(
        again.get("keys").is_none(),
        "D62: looking with the option changes nothing"
    );
    let objects = with_key(&node, "GET", "/keys?include_keys=true", &admin, &nothing).json();
    assert_eq!(objects["keys"][1]["label"], "deploy");
    for more in [
        json!({"admin": true}),
        json!({"manage": ["bank"]}),
        json!({"create_user": true}),
    ] {
        let answer = with_key(&node, "POST", "/keys", &parent, &json!({"permissions": more}));
        assert_eq!(answer.status, 403, "{more}");
    }
    for (who, method, path, status) in [
        (&child, "GET", format!("/keys/{child}"), 200),
        (&child, "GET", format!("/keys/{parent}"), 403),
        (&child, "POST", "/keys".to_owned(), 403),
        (&parent, "GET", "/keys".to_owned(), 403),
        (&parent, "GET", format!("/keys/{admin}"), 403),
        (&parent, "DELETE", format!("/keys/{admin}"), 403),
        (&admin, "GET", "/keys/nosuch".to_owned(), 404),
        (&admin, "HEAD", format!("/keys/{child}"), 200),
        (&admin, "HEAD", "/keys/nosuch".to_owned(), 404),
        (&admin, "DELETE", "/keys/nosuch".to_owned(), 404),
        (&admin, "DELETE", format!("/keys/{parent}"), 200),
        (&admin, "HEAD", format!("/keys/{child}"), 404),
        (&child, "GET", format!("/keys/{child}"), 403),
    ] {
        assert_eq!(
            with_key(&node, method, &path, who, &nothing).status,
            status,
            "{method} {path}"
        );
    }
}

#[test]
fn s6_2_a_key_that_cannot_be_is_a_400() {
    let (node, admin) = guarded();
    for wrong in [
        json!({"permissions": []}),
        json!({"permissions": {"read": ["a/b"]}}),
        json!({"parent": "x"}),
        json!([]),
    ] {
        assert_eq!(
            with_key(&node, "POST", "/keys", &admin, &wrong).status,
            400,
            "{wrong}"
        );
    }
}

#[test]
fn s6_2_users_are_made_changed_and_removed() {
    let (node, admin) = guarded();
    let nothing = Value::Null;
    let key = made(&node, &admin, &json!({"permissions": {"read": ["shop"]}}));
    let ana = json!({"username": "ana", "password": "pw", "user_type": 1, "key": key, "mail": "a@b"});
    assert_eq!(with_key(&node, "POST", "/users", &admin, &ana).status, 200);
    assert_eq!(with_key(&node, "POST", "/users", &admin, &ana).status, 409);
    assert_eq!(auth(&node, "ana", "pw").json()["api_key"], json!(key));
    let object = json!({"mail": "a@b", "username": "ana", "user_type": 1, "key": key});
    assert_eq!(
        with_key(&node, "GET", "/users/ana", &key, &nothing).json(),
        object
    );
    let users = with_key(&node, "GET", "/users", &admin, &nothing).json();
    assert_eq!(users, json!({"users": ["root", "ana"]}));
    let users = with_key(&node, "GET", "/users?include_user=true", &admin, &nothing);
    assert_eq!(users.json()["users"][1], object);
    // D34: no hash anywhere.
    assert!(!String::from_utf8_lossy(&users.body).contains("argon2"));
    let set = |who: &str, what: &str, body: Value| {
        with_key(&node, "PUT", &format!("/users/{what}"), who, &body).status
    };
    assert_eq!(set(&key, "ana/password", json!({"password": "new"})), 200);
    assert_eq!(auth(&node, "ana", "pw").status, 401);
    assert_eq!(auth(&node, "ana", "new").status, 200);
    assert_eq!(set(&key, "ana/key", json!({"key": admin})), 403);
    assert_eq!(set(&key, "root/password", json!({"password": "mine"})), 403);
    assert_eq!(set(&admin, "nobody/password", json!({"password": "x"})), 404);
    assert_eq!(set(&admin, "nobody/key", json!({"key": null})), 404);
    assert_eq!(set(&admin, "ana/key", json!({"key": "unknown"})), 400);
    assert_eq!(set(&admin, "ana/key", json!({})), 400);
    assert_eq!(set(&admin, "ana/password", json!({})), 400);
    assert_eq!(set(&admin, "ana", json!({"user_type": 1})), 400);
    // Its own key changes its user, and neither its type nor its key.
    assert_eq!(
        set(
            &key,
            "ana",
            json!({"password": "own", "user_type": 0, "key": admin, "mail": "c"})
        ),
        200
    );
    let object = json!({"mail": "c", "username": "ana", "user_type": 1, "key": key});
    assert_eq!(
        with_key(&node, "GET", "/users/ana", &key, &nothing).json(),
        object
    );
    // Who makes users makes none that is more than he is, and does not take over such a one.
    let maker = made(&node, &admin, &json!({"permissions": {"create_user": true}}));
    let bob = |more: Value| {
        let mut body = json!({"username": "bob", "password": "pw"});
        body.as_object_mut()
            .expect("one")
            .extend(more.as_object().expect("one").clone());
        with_key(&node, "POST", "/users", &maker, &body).status
    };
    assert_eq!(bob(json!({"user_type": 0})), 403);
    assert_eq!(bob(json!({"key": admin})), 403);
    assert_eq!(bob(json!({})), 200);
    assert_eq!(set(&maker, "root/password", json!({"password": "mine"})), 403);
    assert_eq!(set(&maker, "bob/password", json!({"password": "other"})), 200);
    assert_eq!(
        with_key(&node, "DELETE", "/users/bob", &maker, &nothing).status,
        200
    );
    assert_eq!(with_key(&node, "GET", "/users/bob", &admin, &nothing).status, 404);
}

#[test]
fn s7_1_without_keys_required_there_is_no_login_and_no_key_route() {
    let node = Node::start();
    let ask = |method: &str, path: &str| node.over_tcp(method, path, "host: localhost\r\n", b"{}");
    assert_eq!(ask("GET", "/auth").status, 404);
    for (method, path) in [
        ("GET", "/keys"),
        ("POST", "/keys"),
        ("GET", "/users"),
        ("POST", "/users"),
    ] {
        let answer = ask(method, path);
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (403, &json!(403)),
            "{method} {path}"
        );
    }
}

#[test]
fn s7_2_no_key_is_401_an_unknown_one_403_and_both_are_in_the_original_s_form() {
    let (node, admin) = guarded();
    let none = node.over_tcp("GET", "/keys", "host: localhost\r\n", b"");
    assert_eq!((none.status, none.json()["error"].clone()), (401, json!(401)));
    assert_eq!(none.json()["reason"], "unauthorized");
    let unknown = with_key(
        &node,
        "GET",
        "/keys",
        "0123456789abcdef0123456789abcdef",
        &Value::Null,
    );
    assert_eq!(
        (unknown.status, unknown.json()["errno"].clone()),
        (403, json!(403))
    );
    assert_eq!(with_key(&node, "GET", "/keys", &admin, &Value::Null).status, 200);
}

#[test]
fn s17_options_of_lists_come_as_the_stock_client_escapes_them() {
    let (node, admin) = guarded();
    let nothing = Value::Null;
    let child = made(
        &node,
        &admin,
        &json!({"permissions": {"read": ["shop"]}, "parent": admin}),
    );
    let get = |path: &str| with_key(&node, "GET", path, &admin, &nothing);
    for (plain, escaped) in [
        ("/keys?include_keys=true", "/keys%3Finclude_keys%3Dtrue"),
        ("/users?include_user=true", "/users%3finclude_user%3dtrue"),
    ] {
        let (plain, escaped) = (get(plain), get(escaped));
        assert_eq!((plain.status, escaped.status), (200, 200));
        assert_eq!(plain.json(), escaped.json());
    }
    let shown = get(&format!("/keys/{admin}%3Finclude_keys%3Dtrue")).json();
    assert_eq!(shown["keys"][0]["key"], json!(child), "{shown}");
    // It is a way to write the question, and no way around its answer.
    let answer = with_key(&node, "GET", "/keys%3Finclude_keys%3Dtrue", &child, &nothing);
    assert_eq!(answer.status, 403);
    assert_eq!(get("/users/nosuch%3Fx=1").status, 404);
}

/// What the original has in its folder.
fn original(dir: &std::path::Path) {
    let auth = rusqlite::Connection::open(dir.join("auth.db")).expect("made");
    auth.execute_batch(
        "CREATE TABLE auth(user text primary key, pwd text, user_type int, key text, extra text);
         INSERT INTO auth VALUES('ana', 'PBKDF2-256$0123456789abcdef0123456789abcdef:1000$cb87f2b3e7593c9f574953f9aaa9bd7ae88dca51c9ad32b3',
            0, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '{\"mail\": \"a@b\"}');
         INSERT INTO auth VALUES('bob', 'x', 1, NULL, 'null');",
    )
    .expect("filled");
    let keys = rusqlite::Connection::open(dir.join("keys.db")).expect("made");
    keys.execute_batch(
        "CREATE TABLE keys(key text primary key, data text, parent text);
         INSERT INTO keys VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '{\"permissions\": {\"admin\": true}, \"label\": \"admin key\"}', NULL);
         INSERT INTO keys VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '{\"permissions\": {\"read\": {\"shop\": 1}}}',
            'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa');",
    )
    .expect("filled");
}

#[test]
fn s7_4_users_and_keys_of_the_original_are_taken_over_and_go_on_to_count() {
    let (dir, old) = (temp_dir(), tempfile::tempdir().expect("a folder"));
    let import = || {
        let mut command = gafferd(dir.path());
        let output = command
            .arg("--import-keys")
            .arg(old.path())
            .output()
            .expect("runs");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    };
    let (code, said) = import();
    assert!(
        code == Some(2) && said.contains("neither auth.db nor keys.db"),
        "{said}"
    );
    original(old.path());
    assert_eq!(
        import(),
        (
            Some(0),
            "2 of 2 users and 2 of 2 keys were taken over.\n".to_owned()
        )
    );
    // Once more changes nothing.
    let (code, said) = import();
    assert!(
        code == Some(0) && said.starts_with("0 of 2 users and 0 of 2 keys"),
        "{said}"
    );

    let node = Node::start_in(dir.clone(), &["--bind", "127.0.0.1:0", "--require-key"]);
    let (admin, child) = ("a".repeat(32), "b".repeat(32));
    let login = auth(&node, "ana", "pass:word");
    assert_eq!((login.status, &login.json()["api_key"]), (200, &json!(admin)));
    assert_eq!(auth(&node, "bob", "x").status, 401);
    let shown = with_key(&node, "GET", "/users/ana", &admin, &Value::Null).json();
    assert_eq!(
        shown,
        json!({"username": "ana", "user_type": 0, "key": admin, "mail": "a@b"})
    );
    let keys = with_key(&node, "GET", "/keys?include_keys=true", &admin, &Value::Null).json();
    assert_eq!(
        keys["keys"],
        json!([{"key": admin, "label": "admin key", "permissions": {"admin": true}},
               {"key": child, "permissions": {"read": ["shop"]}}])
    );
    assert_eq!(
        with_key(&node, "GET", "/sessions", &child, &Value::Null).status,
        403
    );
    // The subkey goes with its parent, as it did.
    let second = made(&node, &admin, &json!({"permissions": {"admin": true}}));
    drop(second);
    assert_eq!(
        with_key(&node, "DELETE", &format!("/keys/{admin}"), &admin, &Value::Null).status,
        200
    );
    assert_eq!(
        with_key(&node, "GET", &format!("/keys/{child}"), &child, &Value::Null).status,
        403
    );
}

#[test]
fn s7_4_what_cannot_be_taken_over_is_named_and_nothing_is() {
    let (dir, old) = (temp_dir(), tempfile::tempdir().expect("a folder"));
    original(old.path());
    let keys = rusqlite::Connection::open(old.path().join("keys.db")).expect("open");
    keys.execute_batch("INSERT INTO keys VALUES('cc', '{\"permissions\": {\"read\": [\"a/b\"]}}', NULL);")
        .expect("filled");
    let mut command = gafferd(dir.path());
    command.arg("--import-keys").arg(old.path());
    let (code, said) = refused(command);
    assert!(
        code == 2 && said.contains("keys.db") && said.contains("a/b") && said.contains("nothing was changed"),
        "{said}"
    );
    let listed = gafferd(dir.path()).arg("--list-admins").output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "");
}
