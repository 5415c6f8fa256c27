//! `gaffer-lookupd`, row by row of its specification.

use crate::peer::{SOON, Socket, client, identify, job, process};
use gaffer_api::Endpoint;
use gaffer_testkit::http::{Address, Answer, Connection};
use gaffer_testkit::{Lookupd, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

fn request(lookupd: &Lookupd, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut connection = Connection::new(Address::Tcp(lookupd.address())).with_timeout(SOON);
    connection.request(method, path, headers, b"").expect("an answer")
}

fn node(name: &str) -> Value {
    json!({"name": name, "origin": format!("http://{name}:5000"), "version": "0.1"})
}

#[tokio::test]
async fn s10_1_the_lists_have_the_shapes_of_the_original() {
    let lookupd = Lookupd::start(&[]);
    assert_eq!(lookupd.get("/")["welcome"], "gaffer-lookupd");
    assert!(lookupd.get("/version")["version"].is_string());
    assert_eq!(request(&lookupd, "GET", "/ping", &[]).text(), "OK");
    assert_eq!(lookupd.get("/nodes"), json!({"nodes": []}));

    let mut alpha = Socket::node(&lookupd, "alpha").await;
    let mut beta = Socket::node(&lookupd, "beta").await;
    // D46: a node that has not named itself is no node of the list.
    let _silent = Socket::open(&lookupd, "/ws").await;
    alpha.done(job("REGISTER_JOB", "shop.web")).await;
    alpha.done(process("REGISTER_PROCESS", "shop.web", 1)).await;
    alpha.done(process("REGISTER_PROCESS", "shop.web", 2)).await;
    alpha.done(job("REGISTER_JOB", "bare")).await;
    beta.done(job("REGISTER_JOB", "shop.web")).await;

    assert_eq!(
        lookupd.get("/nodes"),
        json!({"nodes": [node("alpha"), node("beta")]})
    );
    let web = json!([
        {"name": "shop.web", "pids": [1, 2], "node_info": node("alpha")},
        {"name": "shop.web", "pids": [], "node_info": node("beta")},
    ]);
    let bare = json!([{"name": "bare", "pids": [], "node_info": node("alpha")}]);
    assert_eq!(
        lookupd.get("/jobs"),
        json!({"nb_jobs": 2, "jobs": [{"name": "bare", "sources": bare}, {"name": "shop.web", "sources": web}]})
    );
    assert_eq!(
        lookupd.get("/sessions"),
        json!({"nb_sessions": 2, "sessions": [
            {"sessionid": "default", "jobs": {"bare": bare}},
            {"sessionid": "shop", "jobs": {"shop.web": web}},
        ]})
    );
    assert_eq!(lookupd.get("/sessions/beta")["nb_sessions"], 1);
    assert_eq!(lookupd.get("/findJob?name=shop.web"), json!({"sources": web}));
    assert_eq!(
        lookupd.get("/findJob?name=default.bare"),
        json!({"sources": bare})
    );
    assert_eq!(lookupd.get("/findJob?name=no"), json!({"sources": []}));
    assert_eq!(
        lookupd.get("/findSession?sessionid=shop"),
        json!({"nb_jobs": 1, "jobs": [{"name": "shop.web", "sources": web}]})
    );
    for path in ["/findJob", "/findSession", "/findJob?name="] {
        let answer = request(&lookupd, "GET", path, &[]);
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.text().contains(r#""errno":400"#), "{}", answer.text());
    }
    assert_eq!(request(&lookupd, "GET", "/no", &[]).status, 404);
    assert_eq!(request(&lookupd, "POST", "/nodes", &[]).status, 405);
}

#[tokio::test]
async fn s10_2_d47_what_is_refused_keeps_the_connection() {
    let lookupd = Lookupd::start(&[]);
    let mut socket = Socket::open(&lookupd, "/ws").await;
    socket.send("{").await;
    assert_eq!(
        socket.next().await,
        Some(json!({"errno": 400, "reason": "invalid_json", "msgid": null}))
    );
    let refused = |reply: &Value| (reply["errno"].as_u64(), reply["msgid"].clone());
    let m = json!("m");
    assert_eq!(
        refused(&socket.ask(json!({"type": "DANCE"})).await),
        (Some(400), m.clone())
    );
    let early = socket.ask(job("REGISTER_JOB", "web")).await;
    assert_eq!(early["reason"], "need to send IDENTIFY message first");
    assert_eq!(early["errno"], 404);
    socket.done(json!({"type": "PING"})).await;
    socket.done(identify("alpha")).await;
    assert_eq!(
        refused(&socket.ask(identify("alpha")).await),
        (Some(409), m.clone())
    );
    assert_eq!(
        refused(&socket.ask(process("REGISTER_PROCESS", "web", 1)).await),
        (Some(404), m.clone())
    );
    socket.done(job("REGISTER_JOB", "web")).await;
    assert_eq!(
        socket.ask(job("REGISTER_JOB", "web")).await["reason"],
        "job 'web' is already registered"
    );
    let mut rival = Socket::open(&lookupd, "/ws").await;
    assert_eq!(refused(&rival.ask(identify("alpha")).await), (Some(409), m));
    socket.done(job("UNREGISTER_JOB", "never")).await;
    socket.done(process("UNREGISTER_PROCESS", "web", 9)).await;
    drop(socket);
    wait_until(SOON, "the node to go", || lookupd.nodes().is_empty());
    rival.done(identify("alpha")).await;
}

#[tokio::test]
async fn s10_3_watchers_are_told_everything_in_order() {
    let lookupd = Lookupd::start(&[]);
    let mut watcher = Socket::open(&lookupd, "/lookup/websocket").await;
    let mut alpha = Socket::node(&lookupd, "alpha").await;
    alpha.done(job("REGISTER_JOB", "s.web")).await;
    alpha.done(process("REGISTER_PROCESS", "s.web", 1)).await;
    // Told once: it is registered once.
    alpha.done(process("REGISTER_PROCESS", "s.web", 1)).await;
    alpha.done(process("UNREGISTER_PROCESS", "s.web", 2)).await;
    alpha.done(process("UNREGISTER_PROCESS", "s.web", 1)).await;
    alpha.done(job("UNREGISTER_JOB", "s.web")).await;
    drop(alpha);
    let named = |event: &str| {
        let mut named = node("alpha");
        named["event"] = json!(event);
        named
    };
    let of_job = |event: &str| json!({"event": event, "node": node("alpha"), "job_name": "s.web"});
    let of_pid = |event: &str| {
        let mut event = of_job(event);
        event["pid"] = json!(1);
        event
    };
    for expected in [
        json!({"event": "add_node", "name": null, "origin": null, "version": null}),
        named("identify"),
        of_job("add_job"),
        of_pid("add_process"),
        of_pid("remove_process"),
        of_job("remove_job"),
        named("remove_node"),
    ] {
        assert_eq!(watcher.next().await, Some(expected));
    }
}

#[tokio::test]
async fn s10_3_watchers_may_speak_sockjs() {
    let lookupd = Lookupd::start(&[]);
    let info = request(&lookupd, "GET", "/lookup/info", &[]);
    assert_eq!(info.status, 200);
    assert!(info.text().contains("\"websocket\":true"), "{}", info.text());
    let mut connection = Connection::new(Address::Tcp(lookupd.address())).with_timeout(SOON);
    let mut poll = |word: &str| {
        let path = format!("/lookup/000/one/{word}");
        let answer = connection.request("POST", &path, &[], b"[]").expect("an answer");
        (answer.status, answer.text())
    };
    assert_eq!(poll("xhr"), (200, "o\n".to_owned()));
    let mut alpha = Socket::node(&lookupd, "alpha").await;
    alpha.done(job("REGISTER_JOB", "s.web")).await;
    let mut heard = String::new();
    while !heard.contains("add_job") {
        let (status, frame) = poll("xhr");
        assert!(status == 200 && frame.starts_with('a'), "{status} {frame}");
        heard.push_str(&frame);
    }
    for part in ["add_node", "identify", "s.web"] {
        assert!(heard.contains(part), "{heard}");
    }
    // What a watcher says is taken, and means nothing.
    assert_eq!(poll("xhr_send").0, 204);
    let mut framed = Socket::open(&lookupd, "/lookup/000/two/websocket").await;
    assert_eq!(framed.text().await.as_deref(), Some("o"));
    drop(alpha);
    let gone = framed.text().await.unwrap_or_default();
    assert!(
        gone.starts_with("a[\"{") && gone.contains("remove_node"),
        "{gone}"
    );
    let unknown = request(&lookupd, "GET", "/lookup/000/one/smoke", &[]);
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn hazard_b5_a_watcher_that_does_not_read_is_told_and_dropped_and_delays_nobody() {
    let lookupd = Lookupd::start(&[]);
    let mut slow = Socket::open(&lookupd, "/lookup/websocket").await;
    let mut alpha = Socket::node(&lookupd, "alpha").await;
    alpha.done(job("REGISTER_JOB", "s.web")).await;
    let (mut sent, mut missed) = (0u64, None);
    // Socket buffers on both sides take some megabytes before anything piles up in the service.
    for round in 0..40u64 {
        for pid in 0..2_000 {
            let message = if round % 2 == 0 {
                process("REGISTER_PROCESS", "s.web", pid)
            } else {
                process("UNREGISTER_PROCESS", "s.web", pid)
            };
            alpha.done(message).await;
            sent += 1;
        }
    }
    let mut events = 0u64;
    while let Some(event) = slow.next().await {
        events += 1;
        if event["event"] == "missed" {
            missed = event["count"].as_u64();
        }
    }
    assert!(missed.is_some_and(|count| count > 0), "{events} of {sent} came");
}

#[tokio::test]
async fn hazard_b5_a_watcher_that_stops_reading_gives_its_place_back_whatever_it_speaks() {
    let lookupd = Lookupd::start(&["--silent-after", "400ms"]);
    let descriptors = || {
        let dir = format!("/proc/{}/fd", lookupd.pid().expect("it runs"));
        std::fs::read_dir(dir).map_or(0, |entries| entries.count())
    };
    let mut alpha = Socket::node(&lookupd, "alpha").await;
    alpha.done(job("REGISTER_JOB", "s.web")).await;
    let before = descriptors();
    // Kept open, and never read from here on.
    let mut mute = Vec::new();
    for path in ["/lookup/websocket", "/lookup/0/framed/websocket"] {
        mute.push(Socket::open(&lookupd, path).await);
    }
    let mut streaming = std::net::TcpStream::connect(lookupd.address()).expect("connects");
    std::io::Write::write_all(
        &mut streaming,
        b"POST /lookup/0/stream/xhr_streaming HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    )
    .expect("sent");
    wait_until(SOON, "all three are served", || descriptors() == before + 3);
    let deadline = std::time::Instant::now() + SOON;
    while descriptors() > before {
        assert!(
            std::time::Instant::now() < deadline,
            "{} still there",
            descriptors() - before
        );
        for pid in 0..500u64 {
            alpha.done(process("REGISTER_PROCESS", "s.web", pid)).await;
            alpha.done(process("UNREGISTER_PROCESS", "s.web", pid)).await;
        }
    }
    drop(mute);
    assert_eq!(lookupd.nodes(), ["alpha"], "who is there is not disturbed");
}

#[tokio::test]
async fn hazard_b5_a_message_that_is_too_large_ends_its_connection_only() {
    let lookupd = Lookupd::start(&[]);
    let mut alpha = Socket::node(&lookupd, "alpha").await;
    let mut rude = Socket::node(&lookupd, "rude").await;
    rude.send_or_be_cut_off(&format!("{{\"type\":\"{}\"}}", "x".repeat(1 << 20)))
        .await;
    assert_eq!(rude.next().await, None);
    let reply = alpha.ask(job("REGISTER_JOB", &"x".repeat(300))).await;
    assert_eq!(reply["errno"], 400);
    alpha.done(json!({"type": "PING"})).await;
    wait_until(SOON, "the rude one to go", || lookupd.nodes() == ["alpha"]);
}

#[tokio::test]
async fn a_node_that_says_nothing_is_removed_after_the_time_that_was_said() {
    let lookupd = Lookupd::start(&["--silent-after", "600ms"]);
    // Not reading means not answering pings: the runtime does nothing for this socket while nobody polls it.
    let _mute = Socket::node(&lookupd, "mute").await;
    let mut lively = Socket::node(&lookupd, "lively").await;
    let watched = async {
        loop {
            lively.done(json!({"type": "PING"})).await;
            if lookupd.nodes() == ["lively"] {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, watched)
        .await
        .expect("the mute one goes, the lively one stays");
}

#[test]
fn hazard_b2_a_web_page_elsewhere_cannot_use_it() {
    let lookupd = Lookupd::start(&["--allow-origin", "https://ok.test"]);
    for path in [
        "/",
        "/nodes",
        "/jobs",
        "/findJob?name=x",
        "/ws",
        "/lookup/websocket",
        "/lookup/info",
    ] {
        for headers in [
            [("Host", "evil.test"), ("Accept", "*/*")],
            [("Host", "localhost"), ("Origin", "http://evil.test")],
            [("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")],
        ] {
            let answer = request(&lookupd, "GET", path, &headers);
            assert_eq!(answer.status, 403, "{path} {headers:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    let answer = request(&lookupd, "OPTIONS", "/nodes", &[("Origin", "https://ok.test")]);
    assert_eq!(answer.status, 204);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://ok.test")
    );
    let plain = request(&lookupd, "GET", "/nodes", &[]);
    assert_eq!(
        (plain.status, plain.header("access-control-allow-origin")),
        (200, None)
    );
}

#[tokio::test]
async fn s13_2_signals_pidfile_and_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, pidfile) = (dir.path().join("l.sock"), dir.path().join("l.pid"));
    let mut lookupd = Lookupd::start(&[
        "--bind",
        &format!("unix:{}", socket.display()),
        "--pidfile",
        &pidfile.display().to_string(),
    ]);
    let pid = std::fs::read_to_string(&pidfile).expect("a pid file");
    assert_eq!(
        pid.trim(),
        lookupd.pid().map(|pid| pid.to_string()).unwrap_or_default()
    );
    let by_socket = gaffer_api::lookup::Lookup::new(Endpoint::Unix(socket.clone()));
    assert_eq!(by_socket.nodes().await.expect("an answer"), []);
    let hup = gaffer_testkit::process::Handle::open(lookupd.pid().expect("it runs")).expect("it runs");
    assert!(hup.signal(Signal::HUP));
    assert_eq!(lookupd.get("/nodes"), json!({"nodes": []}));
    let mut alpha = Socket::node(&lookupd, "alpha").await;
    assert_eq!(lookupd.end_by(Signal::TERM).code(), Some(0));
    assert_eq!(alpha.next().await, None);
    assert!(!pidfile.exists() && !socket.exists());
    assert!(client(&lookupd).get::<Value>("/nodes").await.is_err());
}

#[test]
fn hazard_b1_other_machines_are_not_served_unless_that_was_said() {
    let refused = Lookupd::command()
        .args(["--bind", "0.0.0.0:0"])
        .output()
        .expect("it ends");
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("--insecure"), "{said}");
}
