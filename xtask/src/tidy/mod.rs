//! Rules of style that no other tool checks; each says why when it is broken.

mod hazards;
mod source;

use crate::shell;
use anyhow::{Result, bail};
use source::{Function, Masked, functions};
use std::collections::BTreeSet;
use std::path::Path;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// What may not be written in code, and why.
const BANNED: [(&str, &str); 6] = [
    ("todo!", "unfinished work is said in an issue, not met by a user"),
    (
        "unimplemented!",
        "unfinished work is said in an issue, not met by a user",
    ),
    ("dbg!", "left over from debugging"),
    (
        "#[allow(",
        "#[expect(…, reason = \"…\")] complains when it is no longer needed",
    ),
    (
        "#![allow(",
        "#![expect(…, reason = \"…\")] complains when it is no longer needed",
    ),
    ("#[ignore", "a test that does not run proves nothing"),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] = [
    "util", "utils", "common", "helper", "helpers", "manager", "misc", "base", "stuff",
];

/// Paths of one machine. In pieces, because this file is checked as well.
const MACHINE_PATHS: [&str; 5] = [
    concat!("/wo", "rk/main"),
    concat!("/wo", "rk/shared"),
    concat!("/tm", "p/t/"),
    concat!("/tm", "p/plan"),
    concat!("/ro", "ot/."),
];

/// What each crate may depend on, where that is an invariant of the architecture.
const MAY_DEPEND: [(&str, &[&str]); 2] = [
    ("crates/core/Cargo.toml", &["thiserror"]),
    (
        "crates/shim/Cargo.toml",
        &["rustix", "libc", "minicbor", "crc32fast", "thiserror"],
    ),
];

/// What each crate may not depend on.
const MAY_NOT_DEPEND: [(&str, &[&str]); 3] = [
    (
        "crates/config/Cargo.toml",
        &["gaffer", "gaffer-shim", "gaffer-api", "tokio", "rusqlite"],
    ),
    (
        "crates/cli/Cargo.toml",
        &["gaffer", "gaffer-shim", "gafferd", "rusqlite"],
    ),
    ("crates/engine/Cargo.toml", &["gaffer-api", "axum", "clap"]),
];

/// Checks all files of the repository.
pub fn tidy() -> Result<()> {
    let mut faults = Vec::new();
    let files = shell::files()?;
    let mut tests = BTreeSet::new();
    for path in &files {
        // What is no text is not ours to judge.
        let Ok(text) = std::fs::read_to_string(shell::root().join(path)) else {
            continue;
        };
        check_text(path, &text, &mut faults);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => {
                check_rust(path, &text, &mut faults);
                tests.extend(hazards::tests(&text));
            }
            Some("toml") if path.ends_with("Cargo.toml") => check_manifest(path, &text, &mut faults),
            _ => {}
        }
    }
    let table = std::fs::read_to_string(shell::root().join(hazards::TABLE))?;
    faults.extend(hazards::missing(&table, &tests));
    if !faults.is_empty() {
        bail!("{} faults:\n{}", faults.len(), faults.join("\n"));
    }
    println!("{} files are tidy", files.len());
    Ok(())
}

fn check_text(path: &Path, text: &str, faults: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        if let Some(found) = MACHINE_PATHS.iter().find(|found| line.contains(**found)) {
            faults.push(format!(
                "{}:{}: {found} exists on one machine only",
                path.display(),
                number + 1
            ));
        }
    }
    let script = text.starts_with("#!") && !text.starts_with("#![");
    for word in ["pkill", "killall"] {
        if script && text.contains(word) {
            faults.push(format!(
                "{}: {word} ends processes of other people too",
                path.display()
            ));
        }
    }
}

fn check_rust(path: &Path, text: &str, faults: &mut Vec<String>) {
    let shown = path.display();
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        faults.push(format!("{shown}: a file opens with what it is about (//!)"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!(
            "{shown}: {lines} lines; more than {FILE_LINES_MAX} are two subjects"
        ));
    }
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if EMPTY_NAMES.contains(&stem) {
        faults.push(format!(
            "{shown}: the name `{stem}` says nothing; name what is inside"
        ));
    }
    let masked = Masked::new(text);
    let functions = functions(&masked);
    for (number, line) in masked.lines() {
        for (word, why) in BANNED {
            if line.contains(word) {
                faults.push(format!("{shown}:{number}: {word}: {why}"));
            }
        }
        check_line(path, &masked, number, line, faults);
        check_sleep(path, &masked, &functions, (number, line), faults);
    }
    for function in &functions {
        if function.lines > FUNCTION_LINES_MAX {
            let (name, lines, line) = (&function.name, function.lines, function.line);
            faults.push(format!(
                "{shown}:{line}: `{name}` has {lines} lines; at most {FUNCTION_LINES_MAX} fit a screen"
            ));
        }
    }
}

fn check_line(path: &Path, masked: &Masked, number: usize, line: &str, faults: &mut Vec<String>) {
    let shown = path.display();
    let in_tests = path.components().any(|part| part.as_os_str() == "tests") || masked.is_test(number);
    let signals = ["libc::kill(", "kill_process("]
        .iter()
        .any(|call| line.contains(call));
    // Where the processes are children that are not yet reaped, the number is theirs.
    let is_parent = path.starts_with("crates/shim/src") || path.ends_with("bare.rs");
    if signals && !in_tests && !is_parent {
        faults.push(format!(
            "{shown}:{number}: a bare pid may be a stranger by now; signal by pidfd"
        ));
    }
    // Zero and negative numbers are groups, ours among them.
    let groups = [
        "killpg(",
        "process_group(Signal",
        "kill(0,",
        "kill(-",
        "kill(libc::getpgrp",
        "kill_process_group(",
    ];
    if groups.iter().any(|call| line.contains(call)) {
        faults.push(format!(
            "{shown}:{number}: a number that is not positive means a whole group; signal each by pidfd"
        ));
    }
    if line.contains("process::exit(") && !path.ends_with("main.rs") && !path.iter().any(|part| part == "bin")
    {
        faults.push(format!("{shown}:{number}: only `main` ends the process"));
    }
}

/// Tests wait for conditions. A function that does the waiting (its name says so) may sleep between two looks.
fn check_sleep(
    path: &Path,
    masked: &Masked,
    functions: &[Function],
    (number, line): (usize, &str),
    faults: &mut Vec<String>,
) {
    let in_tests = path.components().any(|part| part.as_os_str() == "tests") || masked.is_test(number);
    if !in_tests || !(line.contains("thread::sleep") || line.contains("time::sleep")) {
        return;
    }
    // The last one that begins before the line and ends behind it is the innermost.
    let inside = |function: &&Function| (function.line..function.line + function.lines).contains(&number);
    let name = functions
        .iter()
        .rfind(inside)
        .map_or("", |function| function.name.as_str());
    if !["wait", "until", "poll"].iter().any(|word| name.contains(word)) {
        let shown = path.display();
        faults.push(format!(
            "{shown}:{number}: a test that sleeps is slow or flaky; wait for a condition"
        ));
    }
}

fn check_manifest(path: &Path, text: &str, faults: &mut Vec<String>) {
    let shown = path.display();
    if text.contains("[package]") {
        if !text.contains("license.workspace = true") {
            faults.push(format!(
                "{shown}: the licence is the workspace's (license.workspace = true)"
            ));
        }
        if !text.lines().any(|line| {
            line.strip_prefix("description = \"")
                .is_some_and(|rest| rest.len() > 1)
        }) {
            faults.push(format!("{shown}: a description, in one line"));
        }
    }
    let depends = dependencies(text);
    let rule = MAY_DEPEND.iter().find(|(of, _)| path == Path::new(of));
    for name in depends
        .iter()
        .filter(|name| rule.is_some_and(|(_, may)| !may.contains(name)))
    {
        faults.push(format!(
            "{shown}: may not depend on {name} (an invariant of the architecture)"
        ));
    }
    let rule = MAY_NOT_DEPEND.iter().find(|(of, _)| path == Path::new(of));
    for name in depends
        .iter()
        .filter(|name| rule.is_some_and(|(_, not)| not.contains(name)))
    {
        faults.push(format!(
            "{shown}: may not depend on {name} (an invariant of the architecture)"
        ));
    }
}

/// Names in `[dependencies]`; those of tests and build scripts are their own affair.
fn dependencies(text: &str) -> Vec<&str> {
    let lines = text.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(path: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check_text(Path::new(path), text, &mut faults);
        check_rust(Path::new(path), text, &mut faults);
        faults
    }

    #[test]
    fn every_rule_can_be_broken() {
        let long = format!("//! x\nfn long() {{\n{}}}\n", "    work();\n".repeat(80));
        let cases = [
            ("src/a.rs", "fn a() {}\n", "opens with"),
            ("src/util.rs", "//! x\n", "says nothing"),
            (
                "src/a.rs",
                &format!("//! x\n{}", "// y\n".repeat(900)),
                "two subjects",
            ),
            ("src/a.rs", &long, "at most 70"),
            ("src/a.rs", "//! x\nfn a() { todo!() }\n", "todo!"),
            ("src/a.rs", "//! x\n#[allow(dead_code)]\nfn a() {}\n", "expect"),
            (
                "tests/a.rs",
                "//! x\nfn a() { std::thread::sleep(x); }\n",
                "sleeps",
            ),
            (
                "src/a.rs",
                "//! x\n#[cfg(test)]\nmod tests {\n    fn a() { std::thread::sleep(x); }\n}\n",
                "sleeps",
            ),
            ("src/a.rs", "//! x\nfn a() { libc::kill(pid, 9); }\n", "stranger"),
            (
                "tests/a.rs",
                "//! x\nfn a() { libc::kill(0, 9); }\n",
                "whole group",
            ),
            (
                "src/a.rs",
                "//! x\nfn a() { std::process::exit(1); }\n",
                "only `main`",
            ),
            (
                "src/a.rs",
                concat!("//! x\n// see /wo", "rk/main\n"),
                "one machine",
            ),
        ];
        for (path, text, part) in cases {
            let faults = faults_of(path, text);
            assert!(
                faults.iter().any(|fault| fault.contains(part)),
                "{part}: {faults:?}"
            );
        }
    }

    #[test]
    fn whoever_waits_for_a_condition_may_sleep_between_two_looks() {
        let text = "//! x\nfn wait_until() {\n    loop { std::thread::sleep(x); }\n}\n";
        assert_eq!(faults_of("tests/a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn hazard_16_no_signal_goes_to_a_number_that_is_not_positive() {
        for call in [
            "libc::kill(0, 15)",
            "libc::kill(-pid, 9)",
            "libc::killpg(pid, 9)",
            "kill_process_group(pid, s)",
        ] {
            for path in ["tests/a.rs", "crates/shim/src/bin/gaffer-shim/a.rs"] {
                let faults = faults_of(path, &format!("//! x\nfn a() {{ {call}; }}\n"));
                assert!(
                    faults.iter().any(|fault| fault.contains("whole group")),
                    "{call}: {faults:?}"
                );
            }
        }
    }

    #[test]
    fn text_in_strings_and_comments_breaks_no_rule() {
        let text = "//! x\n// todo!() and {{{\nfn a() -> &'static str {\n    let _c = '{';\n    r#\"todo!() \" {\"#\n}\n";
        assert_eq!(faults_of("src/a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn dependencies_are_read_from_their_section_only() {
        let text = "[package]\nname = \"x\"\n\n[dependencies]\nlibc.workspace = true\n# why\nrustix = \"1\"\n\n[dev-dependencies]\ntokio = \"1\"\n";
        assert_eq!(dependencies(text), ["libc", "rustix"]);
    }
}
