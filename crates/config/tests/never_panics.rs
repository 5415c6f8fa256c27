//! Whatever a file holds, there is an answer, and soon.

mod fixture;

use fixture::{ROOT, bundle, toml};
use gaffer_config::{escape_templates, load, load_job_json, parse_duration, parse_size};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Pieces of files, so that more than the first line of a parser is reached.
fn words(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let one = prop_oneof![4 => proptest::sample::select(pieces).prop_map(str::to_owned), 1 => ".{0,4}"];
    proptest::collection::vec(one, 0..40).prop_map(|words| words.concat())
}

const TOML: &[&str] = &[
    "[job.web]\n",
    "[job.b]\n",
    "[template.T]\n",
    "[profile.p.job.web]\n",
    "[defaults]\n",
    "[gaffer]\n",
    "[vars]\n",
    "cmd = \"x\"\n",
    "cmd = \"a $B {{vars.x}} {{instance-1:02}} 'c\"\n",
    "cmd = [\"a\", \"${B:-c}\"]\n",
    "shell = true\n",
    "after = [\"b\", \"web\"]\n",
    "after = { b = \"done\" }\n",
    "stop.timeout = ",
    "\"5s\"\n",
    "5\n",
    "extends = \"T\"\n",
    "unset = [\"env.A\", \"stop\"]\n",
    "env = { A = \"$A{{\" }\n",
    "x = 1\n",
    "instances = 3\n",
    "ready = { ",
    "tcp = \"x:1\"",
    "}\n",
    "user = \"deploy\"\n",
    "= ",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    "\n",
    "é",
    "{{",
    "}}",
    "$",
    "session = \"s\"\n",
    "include = [\"*\"]\n",
    "env_file = \"?x\"\n",
    "port = 1\n",
    "ports.a = 2\n",
    "retry = ",
    "health = ",
];
const INI: &[&str] = &[
    "[gaffer]\n",
    "[job:a]\n",
    "[process:s:b]\n",
    "[env:a]\n",
    "[DEFAULT]\n",
    "cmd = x\n",
    "args: 'y'\n",
    "cmd = 'x",
    "%(cmd)s",
    "%(",
    "%%",
    "%",
    "\n",
    "  more\n",
    "flapping = 2, 1., 7.\n",
    "numprocesses = 3\n",
    "os_env = yes\n",
    "=",
    ":",
    "[",
    "]",
    ";",
    "#",
    "é",
    "env:A = b\n",
    "bind = x, y\n",
];
const ENV: &[&str] = &[
    "A", "B", "=", "'", "\"", "$A", "${B}", "${C:-d}", "\\", "\n", " ", "#", "export ", "{{x}}", "{{", "é",
    "$",
];
const PROC: &[&str] = &[
    "web",
    "b",
    ":",
    "\t",
    " ",
    "\n",
    "x 'y'",
    "$PORT",
    "{{z}}",
    "&&",
    "#",
    "release: q\n",
    "'",
    "\\",
    "é",
];
const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"name\":",
    "\"cmd\":",
    "\"x\"",
    "\"a.b\"",
    "\"jobs\":",
    "1",
    "-",
    "1e9",
    "null",
    "true",
    "\\",
    "\"",
    "\"args\":",
    "\"flapping\":",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn toml_text_never_panics(text in words(TOML)) {
        if let Err(error) = toml(&text) {
            prop_assert!(error.errors() > 0);
            prop_assert!(!error.render(true).is_empty());
        }
    }

    #[test]
    fn ini_text_never_panics(text in words(INI)) {
        let _ = load(&bundle(&[("gaffer.ini", &text)]), &ROOT).map_err(|error| error.render(false));
    }

    #[test]
    fn procfiles_and_variables_never_panic(text in words(PROC), env in words(ENV)) {
        let _ = load(&bundle(&[("Procfile", &text), (".env", &env)]), &ROOT).map_err(|error| error.render(false));
    }

    #[test]
    fn json_text_never_panics(text in words(JSON)) {
        let _ = load(&bundle(&[("jobs.json", &text)]), &ROOT).map_err(|error| error.render(false));
    }

    #[test]
    fn what_loads_is_stored_and_read_back(text in words(TOML)) {
        if let Ok(config) = toml(&text) {
            for (id, job) in &config.jobs {
                let again = load_job_json(id.session.as_str(), id.job.as_str(), &job.typed, &ROOT);
                let again = again.map_err(|error| TestCaseError::fail(format!("{text}\n{}\n{error}", job.typed)))?;
                prop_assert_eq!(&again.spec, &job.spec);
                prop_assert_eq!(again.launch_digest, job.launch_digest);
            }
        }
    }

    #[test]
    fn texts_of_units_never_panic(text in "[0-9.]{0,30}[a-zA-Z%]{0,3}[0-9 .smhd]{0,6}") {
        let _ = (parse_duration(&text), parse_size(&text));
    }

    #[test]
    fn an_escaped_text_is_one_word_of_text(text in "[^\0{}]{0,20}") {
        let body = serde_json::json!({ "cmd": ["x", escape_templates(&text)] });
        prop_assert!(load_job_json("s", "j", &body, &ROOT).is_ok());
    }
}

#[test]
fn a_thousand_jobs_load_in_no_time() {
    let text = |count: usize| {
        let mut text =
            String::from("[defaults]\nenv.A = \"1\"\n[template.T]\nstop = \"5s\"\nready.tcp = \"x:1\"\n");
        for n in 0..count {
            let after = if n > 0 {
                format!("after = [\"job{}\"]\n", n - 1)
            } else {
                String::new()
            };
            text.push_str(&format!("[job.job{n}]\nextends = \"T\"\ncmd = \"sleep {n} $A {{{{instance}}}}\"\nuser = \"deploy\"\nport = {}\n{after}", n + 1));
        }
        text
    };
    let time = |count: usize| {
        let text = text(count);
        let begin = Instant::now();
        assert_eq!(
            toml(&text).unwrap_or_else(|error| panic!("{error}")).jobs.len(),
            count
        );
        begin.elapsed()
    };
    let (small, large) = (time(1_000), time(8_000));
    assert!(small < Duration::from_secs(2), "{small:?}");
    // Eight times as many: a quadratic step would take 64 times as long.
    assert!(
        large < small.max(Duration::from_millis(20)) * 32,
        "{small:?}, {large:?}"
    );
}

#[test]
fn a_thousand_mistakes_are_not_all_told() {
    let mut text = String::new();
    for n in 0..1_000 {
        text.push_str(&format!("[job.job{n}]\ncmd = \"x\"\nbad{n} = 1\n"));
    }
    assert_eq!(toml(&text).expect_err("all wrong").len(), 100);
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    let deep = "[".repeat(100_000);
    assert!(toml(&format!("x = {deep}")).is_err());
    assert!(load(&bundle(&[("x.json", &deep)]), &ROOT).is_err());
    let keys = vec!["a"; 5_000].join(".");
    assert!(toml(&format!("{keys} = 1")).is_err());
}
