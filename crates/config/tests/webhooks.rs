//! `[webhook.X]`, and `[webhooks]` of the original.

mod fixture;

use fixture::{ROOT, bundle, toml};
use gaffer_config::{ExportFormat, Webhook, WebhookFormat, export, load};
use std::path::Path;
use std::time::Duration;

fn refused(text: &str) -> String {
    toml(text).expect_err(text).render(false)
}

#[test]
fn a_webhook_has_defaults_and_paths_of_its_file() {
    let config = toml(
        "session = \"shop\"\n[webhook.ops]\nurl = \"http://127.0.0.1:9/x?k=1\"\nsecret_file = \"key\"\n\
         headers = { X-Team = \"ops\", Authorization = \"file:auth\" }\nretry.attempts = 3\n",
    )
    .expect("good");
    let [hook] = config.webhooks.as_slice() else {
        panic!("one webhook")
    };
    assert_eq!(hook.id(), "shop.ops");
    assert_eq!(
        (hook.events.join(" "), hook.targets.join(" ")),
        ("*".to_owned(), "*".to_owned())
    );
    assert_eq!(hook.secret_file.as_deref(), Some(Path::new("/app/key")));
    assert_eq!(hook.headers["Authorization"], "file:/app/auth");
    assert_eq!(
        (hook.timeout, hook.retry.attempts),
        (Duration::from_secs(10), Some(3))
    );
    assert_eq!(
        (hook.retry.delay[0], hook.retry.max_delay),
        (Duration::from_secs(1), Duration::from_secs(300))
    );
    assert_eq!(hook.format, WebhookFormat::V1);
    // What the store keeps means the same.
    let again = Webhook::from_typed("shop", "ops", &hook.typed()).expect("good");
    assert_eq!(&again, hook);
    let written = export(&config, ExportFormat::Toml);
    assert_eq!(
        toml(&written).expect("what is written can be read").webhooks,
        config.webhooks,
        "{written}"
    );
}

#[test]
fn what_cannot_be_is_refused_in_its_place() {
    for (text, wanted) in [
        (
            "[webhook.ops]\nevents = [\"run.exited\"]",
            "a webhook needs a `url`",
        ),
        ("[webhook.ops]\nurl = \"https:///x\"", "names no host"),
        ("[webhook.ops]\nurl = \"http:///x\"", "names no host"),
        ("[webhook.ops]\nurl = \"http://u:p@h/\"", "a user or a password"),
        ("[webhook.ops]\nurl = \"http://h/a b\"", "must be escaped"),
        (
            "[webhook.ops]\nurl = \"http://h/\"\nevents = [\"Run.exited\"]",
            "no pattern of events",
        ),
        (
            "[webhook.ops]\nurl = \"http://h/\"\nheaders = { Host = \"x\" }",
            "is set by gaffer",
        ),
        (
            "[webhook.ops]\nurl = \"http://h/\"\nheaders = { \"a b\" = \"x\" }",
            "no name of a header",
        ),
        (
            "[webhook.ops]\nurl = \"http://h/\"\nheaders = { A = \"x\\ny\" }",
            "control characters",
        ),
        (
            "[webhook.ops]\nurl = \"http://h/\"\nretries = 3",
            "unknown key `retries`",
        ),
        ("[webhook.ops]\nurl = \"http://h/\"\nformat = \"v2\"", "format"),
        ("[webhook.\"a b\"]\nurl = \"http://h/\"", "a b"),
        (
            "[webhook.ops]\nurl = \"http://h/\"\nformat = \"legacy\"\nevents = [\"spwn\"]",
            "did you mean `spawn`?",
        ),
    ] {
        let said = refused(text);
        assert!(said.contains(wanted), "{text}\n{said}");
    }
}

#[test]
fn s14_1_webhooks_of_the_original_are_webhooks_with_its_format() {
    let text = "[webhooks]\nspawn = http://h:1/a\n. = http://h:1/all\njob.Shop.Web.exit: http://h:1/b\nproc.dummy.spawn = http://h:1/c\ncreate = http://h:1/d\n";
    let config = load(&bundle(&[("gaffer.ini", text)]), &ROOT).expect("good");
    let shown: Vec<String> = config
        .webhooks
        .iter()
        .map(|hook| format!("{} {} {}", hook.name, hook.events.join(","), hook.url))
        .collect();
    let wanted = [
        "all . http://h:1/all",
        "create create http://h:1/d",
        "job-Shop-Web-exit job.Shop.Web.exit http://h:1/b",
        "proc-dummy-spawn proc.dummy.spawn http://h:1/c",
        "spawn spawn http://h:1/a",
    ];
    assert_eq!(shown, wanted);
    assert!(
        config
            .webhooks
            .iter()
            .all(|hook| hook.format == WebhookFormat::Legacy)
    );
    let again = toml(&export(&config, ExportFormat::Toml)).expect("what is written can be read");
    assert_eq!(again.webhooks, config.webhooks);
    let error = load(
        &bundle(&[("gaffer.ini", "[webhooks]\nspwan = http://h/\n")]),
        &ROOT,
    );
    let said = error.expect_err("no event").render(false);
    assert!(said.contains("did you mean `spawn`?"), "{said}");
}
