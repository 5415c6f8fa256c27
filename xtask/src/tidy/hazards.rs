//! The table of hazards names tests that exist: a reader checks a promise by running them.

use std::collections::BTreeSet;

/// Where the table is.
pub const TABLE: &str = "docs/hazards.md";

/// Names of tests that the table has and the sources have not.
pub fn missing(table: &str, sources: &BTreeSet<String>) -> Vec<String> {
    named(table)
        .difference(sources)
        .map(|name| format!("{TABLE}: there is no test `{name}`"))
        .collect()
}

/// Names in backticks that are those of tests.
fn named(table: &str) -> BTreeSet<String> {
    let names = table.split('`').skip(1).step_by(2);
    names
        .filter(|name| name.starts_with("hazard_"))
        .map(str::to_owned)
        .collect()
}

/// Tests of a source that carry the number of a row.
pub fn tests(source: &str) -> impl Iterator<Item = String> + '_ {
    source.lines().filter_map(|line| {
        let name = line.trim_start().strip_prefix("fn hazard_")?;
        let (name, _) = name.split_once('(')?;
        Some(format!("hazard_{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_gone_is_missed() {
        let sources: BTreeSet<String> = tests("#[test]\nfn hazard_01_a() {}\n").collect();
        assert_eq!(
            missing("| 1 | `hazard_01_a` of `cargo test` |", &sources),
            [""; 0]
        );
        assert_eq!(missing("`hazard_01_a`<br>`hazard_01_b`", &sources).len(), 1);
    }
}
