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

#[test]
fn every_row_of_the_original_has_tests_that_are_there() {
    let page = std::fs::read_to_string(root().join("docs/legacy-rows.md")).expect("the table");
    let mut known = BTreeSet::new();
    tests(&root().join("crates"), &mut known);
    assert!(known.len() > 1000, "tests are found: {}", known.len());
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let named: Vec<&str> = cells
            .last()
            .map_or("", |cell| cell)
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        rows.insert(
            cells[0].to_owned(),
            named.into_iter().map(str::to_owned).collect::<Vec<_>>(),
        );
    }
    let defects = (1..=63).map(|n| format!("D{n}"));
    let further = ["D28b", "D34b"].map(str::to_owned);
    let conflicts = (1..=16).map(|n| format!("K{n}"));
    let chapters = CHAPTERS.split_whitespace().map(str::to_owned);
    for row in chapters.chain(defects).chain(further).chain(conflicts) {
        let named = rows
            .get(&row)
            .unwrap_or_else(|| panic!("row {row} is not in docs/legacy-rows.md"));
        assert!(!named.is_empty(), "row {row} names no test");
        for name in named {
            assert!(known.contains(name), "row {row} names {name}, which is no test");
        }
    }
}
