//! `[webhook.X]`, and `[webhooks]` of the original.

mod fixture;

use fixture::toml;
use gaffer_config::{ExportFormat, Webhook, WebhookFormat, export};
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
        ("[webhook.ops]\nurl = \"https://h/\"", "not yet supported"),
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
            "[webhook.ops]\nurl = \"http://h/\"\nformat = \"legacy\"",
            "not yet supported",
        ),
    ] {
        let said = refused(text);
        assert!(said.contains(wanted), "{text}\n{said}");
    }
}
