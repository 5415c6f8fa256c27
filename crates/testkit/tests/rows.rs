//! Every row of `docs/legacy-rows.md` has tests, and they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Chapters of the description that say something to hold; 15 and 16 are the rows of `D` and `K`.
const CHAPTERS: &str = "1 2 3 3.1 3.2 3.3 3.4 3.5 4 5 5.1 5.2 6 6.1 6.2 6.3 7 7.1 7.2 7.3 7.4 8 8.1 8.2 8.3 8.4 8.5 9 9.1 9.2 \
    10 10.1 10.2 10.3 10.4 11 11.1 11.2 11.3 12 12.1 12.2 12.3 12.4 12.5 12.6 13 13.1 13.2 13.3 13.4 13.5 14 14.1 14.2 14.3 \
    14.4 14.5 14.6 17";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Names of the functions that are marked as tests, below a folder.
fn tests(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            tests(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let Some(name) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") else {
                    continue;
                };
                if std::mem::take(&mut is_test) {
                    names.extend(name.split('(').next().map(str::to_owned));
                }
            }
        }
    }
}

/// Rows of a table, each with the tests that its last cell names, and that cell.
fn table(page: &str) -> BTreeMap<String, (Vec<String>, String)> {
    let page = std::fs::read_to_string(root().join(page)).expect("the table");
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let last = cells.last().map_or("", |cell| cell);
        let named = last.split('`').skip(1).step_by(2).map(str::to_owned);
        rows.insert(cells[0].to_owned(), (named.collect(), last.to_owned()));
    }
    rows
}

fn known_tests() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    tests(&root().join("crates"), &mut known);
    assert!(known.len() > 1000, "tests are found: {}", known.len());
    known
}

#[test]
fn every_row_of_the_original_has_tests_that_are_there() {
    let (known, rows) = (known_tests(), table("docs/legacy-rows.md"));
    let defects = (1..=63).map(|n| format!("D{n}"));
    let further = ["D28b", "D34b"].map(str::to_owned);
    let conflicts = (1..=16).map(|n| format!("K{n}"));
    let chapters = CHAPTERS.split_whitespace().map(str::to_owned);
    for row in chapters.chain(defects).chain(further).chain(conflicts) {
        let (named, _) = rows
            .get(&row)
            .unwrap_or_else(|| panic!("row {row} is not in docs/legacy-rows.md"));
        assert!(!named.is_empty(), "row {row} names no test");
        for name in named {
            assert!(known.contains(name), "row {row} names {name}, which is no test");
        }
    }
}

/// How many scenarios there are of each letter.
const SCENARIOS: &[(char, u32)] = &[
    ('P', 39),
    ('C', 21),
    ('R', 20),
    ('E', 5),
    ('F', 11),
    ('L', 9),
    ('K', 17),
    ('X', 11),
    ('I', 6),
    ('G', 12),
    ('D', 4),
    ('T', 4),
    ('O', 6),
    ('M', 7),
    ('S', 14),
    ('B', 7),
    ('U', 3),
    ('H', 5),
];

#[test]
fn every_scenario_of_thermos_has_tests_that_are_there_or_a_reason() {
    let (known, rows) = (known_tests(), table("docs/thermos-rows.md"));
    let all = SCENARIOS
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}{n:02}")));
    let all: Vec<String> = all.collect();
    assert_eq!(all.len(), 201);
    let mut without = 0;
    for row in &all {
        let (named, said) = rows
            .get(row)
            .unwrap_or_else(|| panic!("row {row} is not in docs/thermos-rows.md"));
        let reasons = [
            "does not apply: ",
            "not built: ",
            "no test yet",
            "not tested as such: ",
            "shown by ",
        ];
        if reasons.iter().any(|reason| said.starts_with(reason)) {
            without += 1;
            continue;
        }
        assert!(!named.is_empty(), "row {row} names neither test nor reason");
        for name in named {
            assert!(known.contains(name), "row {row} names {name}, which is no test");
        }
    }
    // A row that loses its tests needs others, not a reason.
    assert!(without <= 13, "{without} rows have no test");
}
