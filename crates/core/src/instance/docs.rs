//! `docs/states.md`, generated from the table: its diff is the review of a change in behaviour.

use super::table::{Cue, Level, Phase, Rule, rule};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The table of the instance machine as Markdown, with its diagram in Mermaid.
pub fn state_table_markdown() -> String {
    let mut page = String::from(
        "# States of an instance\n\n\
         Generated from `crates/core/src/instance/table.rs`; `BLESS=1 cargo test -p gaffer-core states` writes it anew.\n\n\
         Wish and state are two variables. An input meets both: the rule is looked up here, and what a rule does is \
         listed at the end. Inputs that are not listed for a state change nothing there: they are late, repeated, or \
         have no meaning.\n",
    );
    page.push_str(&diagram());
    for phase in Phase::ALL {
        let _ = write!(
            page,
            "\n## {phase:?}\n\n| input | wish: up | wish: down | wish: frozen |\n|---|---|---|---|\n"
        );
        for cue in Cue::ALL {
            let rules = Level::ALL.map(|wish| rule(phase, cue, wish));
            if rules.iter().all(|rule| *rule == Rule::Stay) {
                continue;
            }
            let cells = rules.map(cell);
            let _ = writeln!(page, "| {cue:?} | {} |", cells.join(" | "));
        }
    }
    page.push_str("\n## Rules\n\n| rule | does |\n|---|---|\n");
    for rule in Rule::ALL {
        let _ = writeln!(page, "| {rule:?} | {} |", rule.words());
    }
    page
}

fn cell(rule: Rule) -> String {
    if rule == Rule::Stay {
        "–".into()
    } else {
        format!("{rule:?}")
    }
}

/// Arrows that change the state, adoption apart (it may lead anywhere).
fn diagram() -> String {
    let mut arrows: BTreeMap<(Phase, Phase), BTreeSet<String>> = BTreeMap::new();
    for from in Phase::ALL {
        for cue in Cue::ALL {
            for rule in Level::ALL.map(|wish| rule(from, cue, wish)) {
                let tells_nothing = matches!(rule, Rule::Adopt);
                for to in rule
                    .leads_to(from)
                    .iter()
                    .filter(|to| **to != from && !tells_nothing)
                {
                    arrows.entry((from, *to)).or_default().insert(format!("{rule:?}"));
                }
            }
        }
    }
    let mut text = String::from("\n```mermaid\nstateDiagram-v2\n    [*] --> Stopped\n");
    for ((from, to), rules) in arrows {
        let rules: Vec<String> = rules.into_iter().collect();
        let _ = writeln!(text, "    {from:?} --> {to:?}: {}", rules.join(", "));
    }
    text.push_str("```\n");
    text
}
