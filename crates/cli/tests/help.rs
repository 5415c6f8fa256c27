//! Every help text is a surface: committed, compared, and rewritten with `BLESS=1`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn gaffer(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer"));
    command.args(args).env_clear().env("COLUMNS", "100");
    command.output().expect("gaffer runs")
}

fn stdout(args: &[&str]) -> String {
    let output = gaffer(args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

fn compare(path: &Path, text: &str, wrong: &mut Vec<String>) {
    let text: String = text
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &text).expect("the snapshot can be written");
    }
    if std::fs::read_to_string(path).unwrap_or_default() != text {
        wrong.push(path.display().to_string());
    }
}

/// Names of the commands of a help text of clap.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_texts_are_as_committed() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let reference = stdout(&["help", "--reference"]);
    let mut wrong = Vec::new();
    compare(&dir.join("gaffer.txt"), &stdout(&["--help"]), &mut wrong);
    let commands = reference
        .lines()
        .filter_map(|line| line.strip_prefix("## gaffer "));
    for command in commands {
        let text = stdout(&["help", command]);
        for inner in subcommands(&text) {
            compare(
                &dir.join(format!("{command}-{inner}.txt")),
                &stdout(&["help", command, &inner]),
                &mut wrong,
            );
        }
        compare(&dir.join(format!("{command}.txt")), &text, &mut wrong);
    }
    for topic in [
        "options",
        "targets",
        "config",
        "exit-codes",
        "templates",
        "events",
    ] {
        compare(
            &dir.join(format!("topic-{topic}.txt")),
            &stdout(&["help", topic]),
            &mut wrong,
        );
    }
    assert!(
        wrong.is_empty(),
        "these differ (BLESS=1 rewrites them): {wrong:?}"
    );
}

#[test]
fn the_reference_page_is_as_committed() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let mut wrong = Vec::new();
    compare(&page, &stdout(&["help", "--reference"]), &mut wrong);
    assert!(wrong.is_empty(), "docs/cli.md differs (BLESS=1 rewrites it)");
}

#[test]
fn help_is_the_same_in_all_three_ways() {
    assert_eq!(stdout(&["--help"]), stdout(&["help"]));
    assert_eq!(stdout(&["-h"]), stdout(&["help"]));
    assert_eq!(
        stdout(&["stop", "--help"]).trim_end(),
        stdout(&["help", "stop"]).trim_end()
    );
}

#[test]
fn the_help_of_every_command_teaches_by_examples() {
    let reference = stdout(&["help", "--reference"]);
    let mut without = Vec::new();
    for section in reference.split("\n##").skip(1) {
        let name = section
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches('#')
            .trim();
        let name = name.strip_prefix("gaffer ");
        if name.is_some_and(|name| name != "version" && !section.contains("Examples:\n  ")) {
            without.extend(name);
        }
    }
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn an_option_of_the_design_that_is_not_there_yet_is_named_as_such() {
    let output = gaffer(&["scale", "web=3", "--pin"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.starts_with("error: `--pin` comes with a later version\n"),
        "{said}"
    );
}

#[test]
fn no_command_at_all_shows_the_way_and_is_wrong_use() {
    let output = gaffer(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("gaffer start"));
}

#[test]
fn a_typo_in_a_command_gets_the_answer_of_the_design() {
    let output = gaffer(&["resart", "web"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "error: there is no command `gaffer resart`\n  did you mean `gaffer restart`?          all commands:  gaffer help\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    let output = gaffer(&["import", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .starts_with("error: `gaffer import` comes with a later version\n")
    );
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_it() {
    let dir = std::env::temp_dir();
    let socket = dir.join(format!("gaffer-nobody-{}.sock", std::process::id()));
    let socket = socket.to_str().expect("a plain path");
    for args in [
        &["ps"][..],
        &["stop", "web"],
        &["logs"],
        &["why", "web"],
        &["events"],
        &["wait", "web"],
        &["daemon", "status"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer"));
        let output = command
            .args(args)
            .args(["--socket", socket])
            .env_clear()
            .current_dir("/")
            .output()
            .expect("gaffer runs");
        assert_eq!(output.status.code(), Some(69), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.starts_with(&format!("error: no daemon answers at {socket}: ")),
            "{args:?}: {said}"
        );
        assert!(
            said.contains("start it:  gaffer daemon start"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&["completions", shell]).contains("restart"), "{shell}");
    }
    assert!(stdout(&["man"]).contains(".TH gaffer 1"));
}
