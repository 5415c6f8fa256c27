//! The table of results.

use std::fmt;

/// Rows, in the order in which they were measured.
#[derive(Default)]
pub struct Table(Vec<Row>);

struct Row {
    what: String,
    bare: String,
    gaffer: String,
    ratio: String,
    target: String,
    ok: bool,
}

impl Table {
    /// A ratio with an upper bound: `gaffer` may be so many times `bare`.
    pub fn at_most(&mut self, what: &str, unit: &str, bare: f64, gaffer: f64, bound: f64) {
        self.ratio(
            what,
            unit,
            [bare, gaffer],
            format!("≤ {bound:.2} ×"),
            gaffer / bare <= bound,
        );
    }

    /// A ratio with a lower bound.
    pub fn at_least(&mut self, what: &str, unit: &str, bare: f64, gaffer: f64, bound: f64) {
        self.ratio(
            what,
            unit,
            [bare, gaffer],
            format!("≥ {bound:.2} ×"),
            gaffer / bare >= bound,
        );
    }

    /// What the kernel alone takes for a run as gaffer makes it: no promise, but below it nothing can be promised.
    pub fn floor(&mut self, what: &str, unit: &str, bare: f64, floor: f64) {
        self.ratio(what, unit, [bare, floor], "-".to_owned(), true);
    }

    /// A number of its own with an upper bound.
    pub fn absolute(&mut self, what: &str, unit: &str, value: f64, bound: f64) {
        let (gaffer, target) = (format!("{value:.1} {unit}"), format!("≤ {bound:.0} {unit}"));
        println!("  {what}: {gaffer}, target {target}");
        let row = Row {
            what: what.to_owned(),
            bare: "-".into(),
            gaffer,
            ratio: "-".into(),
            target,
            ok: value <= bound,
        };
        self.0.push(row);
    }

    /// A number of its own with a lower bound.
    pub fn floor_of(&mut self, what: &str, unit: &str, value: f64, bound: f64) {
        let (gaffer, target) = (format!("{value:.0} {unit}"), format!("≥ {bound:.0} {unit}"));
        println!("  {what}: {gaffer}, target {target}");
        self.0.push(Row {
            what: what.to_owned(),
            bare: "-".into(),
            gaffer,
            ratio: "-".into(),
            target,
            ok: value >= bound,
        });
    }

    fn ratio(&mut self, what: &str, unit: &str, [bare, gaffer]: [f64; 2], target: String, ok: bool) {
        let ratio = format!("{:.2} ×", gaffer / bare);
        println!("  {what}: bare {bare:.1} {unit}, gaffer {gaffer:.1} {unit}, {ratio}, target {target}");
        let row = Row {
            what: what.to_owned(),
            bare: format!("{bare:.1} {unit}"),
            gaffer: format!("{gaffer:.1} {unit}"),
            ratio,
            target,
            ok,
        };
        self.0.push(row);
    }

    /// How many targets were missed.
    pub fn missed(&self) -> usize {
        self.0.iter().filter(|row| !row.ok).count()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| what | bare | gaffer | ratio | target | ok |\n|---|---:|---:|---:|---:|---|"
        )?;
        for row in &self.0 {
            let ok = if row.ok { "yes" } else { "**no**" };
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {ok} |",
                row.what, row.bare, row.gaffer, row.ratio, row.target
            )?;
        }
        Ok(())
    }
}
