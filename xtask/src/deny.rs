//! The rules of `deny.toml`, checked with what cargo knows: licences, banned crates, sources, wildcards.
//!
//! `cargo deny check` reads the same file, and knows more (advisories); but it is not on every machine.

use crate::shell::{cargo, output, root};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

struct Rules {
    licences: Vec<String>,
    banned: BTreeMap<String, Ban>,
    registries: Vec<String>,
}

/// A crate that is refused, unless only these crates want it.
struct Ban {
    why: String,
    wrappers: Vec<String>,
}

/// Checks every package that is built for our targets.
pub fn deny() -> Result<()> {
    let rules = rules(&std::fs::read_to_string(root().join("deny.toml"))?)?;
    let mut faults = Vec::new();
    let mut count = 0;
    for target in TARGETS {
        let words = [
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            target,
        ];
        let metadata: Value = serde_json::from_str(&output(&mut cargo(&words))?)?;
        let used: Vec<&str> = list(&metadata["resolve"]["nodes"])
            .filter_map(|node| node["id"].as_str())
            .collect();
        let packages = list(&metadata["packages"])
            .filter(|package| package["id"].as_str().is_some_and(|id| used.contains(&id)));
        for package in packages {
            count += 1;
            judge(package, &rules, &wanted_by(package, &metadata), &mut faults);
        }
    }
    faults.sort();
    faults.dedup();
    if !faults.is_empty() {
        bail!("{} faults:\n{}", faults.len(), faults.join("\n"));
    }
    println!(
        "{count} packages on {} targets: licences, bans and sources are as deny.toml says",
        TARGETS.len()
    );
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Names of the packages that depend on this one.
fn wanted_by<'a>(package: &Value, metadata: &'a Value) -> Vec<&'a str> {
    let depends = |node: &&Value| list(&node["dependencies"]).any(|id| *id == package["id"]);
    let wanting: Vec<&Value> = list(&metadata["resolve"]["nodes"])
        .filter(depends)
        .map(|node| &node["id"])
        .collect();
    list(&metadata["packages"])
        .filter(|one| wanting.contains(&&one["id"]))
        .filter_map(|one| one["name"].as_str())
        .collect()
}

fn judge(package: &Value, rules: &Rules, wanted_by: &[&str], faults: &mut Vec<String>) {
    let name = package["name"].as_str().unwrap_or_default();
    let shown = format!("{name} {}", package["version"].as_str().unwrap_or_default());
    match package["license"].as_str() {
        None => faults.push(format!("{shown}: no licence is named")),
        Some(licence) if !allowed(licence, &rules.licences) => {
            faults.push(format!("{shown}: licence {licence} is not allowed"))
        }
        Some(_) => {}
    }
    if let Some(ban) = rules.banned.get(name) {
        let excused = |wanting: &&str| ban.wrappers.iter().any(|wrapper| wrapper == wanting);
        if wanted_by.is_empty() || !wanted_by.iter().all(excused) {
            faults.push(format!("{shown}: banned: {}", ban.why));
        }
    }
    // Packages of this repository have no source.
    if let Some(source) = package["source"].as_str() {
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        if !rules.registries.iter().any(|known| known == registry) {
            faults.push(format!("{shown}: comes from {source}"));
        }
    }
    for dependency in list(&package["dependencies"]).filter(|_| package["source"].is_null()) {
        if dependency["req"] == "*" && dependency["path"].is_null() {
            faults.push(format!(
                "{shown}: any version of {} would do; name one",
                dependency["name"]
            ));
        }
    }
}

fn rules(text: &str) -> Result<Rules> {
    let section = |name: &str| {
        let start = text
            .find(&format!("\n[{name}]"))
            .with_context(|| format!("deny.toml has no [{name}]"))?;
        let rest = text.get(start + 1..).unwrap_or_default();
        Ok::<_, anyhow::Error>(rest.split("\n[").next().unwrap_or_default())
    };
    let array = |part: &str, key: &str| -> Vec<String> {
        let start = part
            .find(&format!("{key} = ["))
            .map(|place| place + key.len() + 4)
            .unwrap_or(part.len());
        let inside = part
            .get(start..)
            .unwrap_or_default()
            .split(']')
            .next()
            .unwrap_or_default();
        inside.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let bans = section("bans")?.lines().filter_map(|line| {
        let mut texts = line
            .trim()
            .strip_prefix("{ crate =")?
            .split('"')
            .skip(1)
            .step_by(2);
        let name = texts.next()?.to_owned();
        // `wrappers = ["…"]` stand between the name and the reason.
        let mut rest: Vec<String> = texts.map(str::to_owned).collect();
        let why = rest.pop().unwrap_or_else(|| "see deny.toml".to_owned());
        let wrappers = rest;
        Some((name, Ban { why, wrappers }))
    });
    let rules = Rules {
        licences: array(section("licenses")?, "allow"),
        banned: bans.collect(),
        registries: array(section("sources")?, "allow-registry"),
    };
    if rules.licences.is_empty() || rules.banned.is_empty() || rules.registries.is_empty() {
        bail!("deny.toml is not as this check reads it: a list is empty");
    }
    Ok(rules)
}

/// An SPDX expression: `OR` needs one side, `AND` both. The old `A/B` means `A OR B`.
fn allowed(expression: &str, known: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut place = 0;
    let verdict = either(&words, &mut place, known);
    verdict && place == words.len()
}

fn either(words: &[&str], place: &mut usize, known: &[String]) -> bool {
    let mut verdict = both(words, place, known);
    while words.get(*place) == Some(&"OR") {
        *place += 1;
        // Read it in any case: the place must move on.
        let other = both(words, place, known);
        verdict = verdict || other;
    }
    verdict
}

fn both(words: &[&str], place: &mut usize, known: &[String]) -> bool {
    let mut verdict = one(words, place, known);
    while words.get(*place) == Some(&"AND") {
        *place += 1;
        let other = one(words, place, known);
        verdict = verdict && other;
    }
    verdict
}

fn one(words: &[&str], place: &mut usize, known: &[String]) -> bool {
    let Some(word) = words.get(*place) else {
        return false;
    };
    *place += 1;
    if *word == "(" {
        let verdict = either(words, place, known);
        *place += 1;
        return verdict;
    }
    let mut licence = (*word).to_owned();
    if words.get(*place) == Some(&"WITH") {
        licence = format!("{licence} WITH {}", words.get(*place + 1).unwrap_or(&""));
        *place += 2;
    }
    known.contains(&licence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_understood() {
        let known: Vec<String> = [
            "MIT",
            "Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "Unicode-3.0",
        ]
        .map(str::to_owned)
        .into();
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "(GPL-3.0 OR MIT) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(allowed(good, &known), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "GPL-3.0 OR (MIT AND LGPL-2.1)",
            "",
            "MIT MIT",
            "MIT WITH Something",
        ] {
            assert!(!allowed(bad, &known), "{bad}");
        }
    }

    #[test]
    fn a_banned_crate_an_odd_source_and_a_missing_licence_are_faults() {
        let rules = rules(&std::fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap();
        let mut faults = Vec::new();
        judge(
            &serde_json::json!({"name": "openssl-sys", "version": "1.0.0", "license": "MIT", "source": "git+https://example.org/x"}),
            &rules,
            &["gafferd"],
            &mut faults,
        );
        judge(
            &serde_json::json!({"name": "x", "version": "1.0.0", "license": null, "source": null}),
            &rules,
            &[],
            &mut faults,
        );
        assert_eq!(faults.len(), 3, "{faults:?}");
        let time = serde_json::json!({"name": "time", "version": "1.0.0", "license": "MIT", "source": null});
        judge(&time, &rules, &["rcgen"], &mut faults);
        assert_eq!(faults.len(), 3, "excused: {faults:?}");
        judge(&time, &rules, &["rcgen", "gafferd"], &mut faults);
        assert_eq!(faults.len(), 4, "not by us: {faults:?}");
    }
}
