//! Tables that fit: aligned columns on a terminal, the last one cut with `…`; in a pipe everything, with `-` for
//! what is empty, so that every line has the same number of columns up to the last.

use crate::paint::{Paint, Role};

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Title in capitals; empty for the glyph.
    pub title: String,
    /// Numbers stand to the right.
    pub right: bool,
}

/// A cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its text, without control characters.
    pub text: String,
    /// Its colour; `None` paints it as a name.
    pub role: Option<Role>,
}

impl Cell {
    /// A cell without colour.
    pub fn plain(text: impl Into<String>) -> Cell {
        Cell {
            text: text.into(),
            role: Some(Role::Plain),
        }
    }

    /// A cell in the colour of a role.
    pub fn role(role: Role, text: impl Into<String>) -> Cell {
        Cell {
            text: text.into(),
            role: Some(role),
        }
    }

    /// A cell in the colour of its name.
    pub fn name(text: impl Into<String>) -> Cell {
        Cell {
            text: text.into(),
            role: None,
        }
    }
}

/// The narrowest a cut column gets.
const NARROWEST: usize = 8;

/// Lays a table out. `width` is that of the terminal, `None` in a pipe (nothing is cut, empty cells are `-`).
pub fn lines(columns: &[Column], rows: &[Vec<Cell>], width: Option<usize>, paint: &Paint) -> Vec<String> {
    let gap = |i: usize| if columns[i].title.is_empty() { 1 } else { 2 };
    let mut widths: Vec<usize> = columns
        .iter()
        .map(|column| column.title.chars().count())
        .collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width)
                .max(cell.text.chars().count())
                .max(usize::from(!cell.text.is_empty()));
        }
    }
    if let Some(width) = width {
        fit(&mut widths, columns, width);
    }
    let mut lines = Vec::with_capacity(rows.len() + 1);
    let header: Vec<Cell> = columns
        .iter()
        .map(|column| Cell::role(Role::Dim, column.title.clone()))
        .collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let empty = width.is_none() && cell.text.is_empty();
            let text = cut(
                if empty { "-" } else { &cell.text },
                widths[i].max(usize::from(empty)),
            );
            let pad = " ".repeat(widths[i].saturating_sub(text.chars().count()));
            let painted = cell
                .role
                .map_or_else(|| paint.name(&cell.text, &text), |role| paint.role(role, &text));
            if columns[i].right {
                line.push_str(&pad);
                line.push_str(&painted);
            } else {
                line.push_str(&painted);
                line.push_str(&pad);
            }
            if i + 1 < row.len() {
                line.push_str(&" ".repeat(gap(i)));
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// Narrows the last column, then the widest ones, until the line fits.
fn fit(widths: &mut [usize], columns: &[Column], width: usize) {
    let gaps: usize = columns
        .iter()
        .rev()
        .skip(1)
        .map(|c| if c.title.is_empty() { 1 } else { 2 })
        .sum();
    let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
    if let Some(last) = widths.last_mut() {
        let take = over.min(last.saturating_sub(NARROWEST));
        *last -= take;
        over -= take;
    }
    while over > 0 {
        let Some(widest) = widths.iter_mut().max() else {
            return;
        };
        if *widest <= NARROWEST {
            return;
        }
        *widest -= 1;
        over -= 1;
    }
}

/// Text of at most `width` characters, `…` where it was cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        [("", false), ("JOB", false), ("PID", true), ("REASON", false)]
            .map(|(title, right)| Column {
                title: title.to_owned(),
                right,
            })
            .into()
    }

    fn row(glyph: &str, job: &str, pid: &str, reason: &str) -> Vec<Cell> {
        [glyph, job, pid, reason].map(Cell::plain).into()
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let rows = [
            row("●", "web.1", "4101", ""),
            row("✗", "worker.1", "-", "exit 1 after 1.1s; next try 14:02:31"),
        ];
        let shown = lines(&columns(), &rows, Some(40), &Paint::off());
        assert_eq!(
            shown,
            [
                "  JOB        PID  REASON",
                "● web.1     4101",
                "✗ worker.1     -  exit 1 after 1.1s; ne…"
            ]
        );
        assert!(shown.iter().all(|line| line.chars().count() <= 40));
    }

    #[test]
    fn a_pipe_gets_everything_and_no_empty_cell() {
        let rows = [
            row("o", "web.1", "", ""),
            row(
                "x",
                "worker.1",
                "7",
                "a very long reason that no terminal would hold",
            ),
        ];
        let shown = lines(
            &columns()[1..],
            &rows.map(|row| row[1..].to_vec()),
            None,
            &Paint::off(),
        );
        assert_eq!(shown[1], "web.1       -  -");
        assert!(shown[2].ends_with("would hold"));
    }

    #[test]
    fn a_terminal_too_narrow_for_anything_does_not_panic() {
        let shown = lines(
            &columns(),
            &[row("●", "web.1", "4101", "reason")],
            Some(3),
            &Paint::off(),
        );
        assert_eq!(shown.len(), 2);
    }
}
