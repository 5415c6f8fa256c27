//! Files of variables, `.env`. The dialect:
//!
//! | line | gives |
//! |---|---|
//! | `NAME=value`, `export NAME=value` | blanks around name and value do not count |
//! | `# …`, `NAME=value # …` | a comment, after a blank in unquoted values |
//! | `NAME='text'` | as it is, also over several lines |
//! | `NAME="text"` | `\n \r \t \" \\ \$` are what they are elsewhere; also over several lines |
//! | `$X`, `${X}`, `${X:-text}` in unquoted and double-quoted values | an earlier line of this file, else the layer below, else nothing |
//! | a lone `$` | itself |
//!
//! `{{…}}` has no meaning here.

use crate::node::Span;
use crate::report::Report;
use crate::template::{Piece, escape_braces, escape_templates, pieces};
use std::collections::BTreeMap;

/// Longest value, expanded: the kernel takes no longer string.
const VALUE_MAX: usize = 128 << 10;

/// Names and values in the order of their lines. Values are templates: `$X` is the layer below.
pub(crate) type Variables = Vec<(String, String)>;

/// Reads a file of variables; what is no variable goes to the report.
pub(crate) fn parse(text: &str, file: u32, report: &mut Report) -> Variables {
    let mut reader = Reader { text, at: 0 };
    let mut found: Variables = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        reader.skip_blank_lines();
        if reader.at >= text.len() {
            return found;
        }
        let start = reader.at;
        match reader.variable() {
            Ok((name, raw)) => {
                let value = match raw {
                    Raw::Literal(text) => escape_templates(&text),
                    Raw::Open(text) => expand(&text, &found, &seen),
                };
                if value.len() > VALUE_MAX {
                    let span = Span::new(file, start..start + name.len());
                    report.error(span, "", format!("the value of `{name}` is longer than 128K"), "");
                    continue;
                }
                match seen.get(&name) {
                    Some(&at) => found[at].1 = value,
                    None => {
                        seen.insert(name.clone(), found.len());
                        found.push((name, value));
                    }
                }
            }
            Err((message, help)) => {
                let line = text[start..].lines().next().unwrap_or_default();
                let span = Span::new(file, start..start + line.trim_end().len().max(1));
                report.error(span, "", message, help);
                reader.at = (start + line.len()).max(reader.at.min(text.len()));
                reader.skip_line();
            }
        }
    }
}

/// A value before expansion.
enum Raw {
    Literal(String),
    Open(String),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Wrong = (&'static str, &'static str);

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_line(&mut self) {
        self.at += self.rest().find('\n').map_or(self.rest().len(), |at| at + 1);
    }

    fn skip_blank_lines(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !self.rest().starts_with('#') {
                return;
            }
            self.skip_line();
        }
    }

    fn variable(&mut self) -> Result<(String, Raw), Wrong> {
        let line = self.rest().lines().next().unwrap_or_default();
        let Some(equals) = line.find('=') else {
            return Err((
                "this line has no `=`",
                "write NAME=value, or `#` before a comment",
            ));
        };
        let name = line[..equals].trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-';
        if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err((
                "this is not the name of a variable",
                "use letters, digits and `_`",
            ));
        }
        let name = name.to_owned();
        self.at += equals + 1;
        while self.rest().starts_with([' ', '\t']) {
            self.at += 1;
        }
        let value = match self.rest().chars().next() {
            Some('\'') => {
                let inside = &self.rest()[1..];
                let end = inside.find('\'').ok_or(("a single quote is not closed", ""))?;
                let value = Raw::Literal(inside[..end].replace("\r\n", "\n"));
                self.at += end + 2;
                self.end_of_line()?;
                value
            }
            Some('"') => {
                let value = self.double_quoted()?;
                self.end_of_line()?;
                Raw::Open(value)
            }
            _ => {
                let line = self.rest().lines().next().unwrap_or_default();
                let end = line.find(" #").or_else(|| line.find("\t#")).unwrap_or(line.len());
                let value = if line.starts_with('#') {
                    ""
                } else {
                    line[..end].trim()
                };
                let value = Raw::Open(value.to_owned());
                self.skip_line();
                value
            }
        };
        Ok((name, value))
    }

    /// The inside of double quotes; `\$` becomes `$$`, which is a template's dollar.
    fn double_quoted(&mut self) -> Result<String, Wrong> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(out);
                }
                '\r' => {}
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => out.push('\n'),
                    Some('r') => out.push('\r'),
                    Some('t') => out.push('\t'),
                    Some('$') => out.push_str("$$"),
                    Some(c @ ('"' | '\\' | '\'' | '`')) => out.push(c),
                    // The line goes on.
                    Some('\n') => {}
                    Some(c) => out.extend(['\\', c]),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(("a double quote is not closed", ""))
    }

    fn end_of_line(&mut self) -> Result<(), Wrong> {
        let line = self.rest().lines().next().unwrap_or_default().trim();
        if !line.is_empty() && !line.starts_with('#') {
            return Err((
                "something follows the closing quote",
                "put all of the value into quotes",
            ));
        }
        self.skip_line();
        Ok(())
    }
}

/// Puts in earlier lines, leaves other names to the layer below, and makes the rest literal.
fn expand(text: &str, found: &Variables, seen: &BTreeMap<String, usize>) -> String {
    // Braces first: what stands between them is text.
    let text = escape_braces(&lone_dollars(text));
    let Ok(pieces) = pieces(&text, false) else {
        return escape_templates(&text);
    };
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text("$") => out.push_str("$$"),
            Piece::Text(text) => out.push_str(text),
            Piece::Variable { name, otherwise } => match (seen.get(name), otherwise) {
                (Some(&at), None) => out.push_str(&found[at].1),
                (Some(&at), Some(otherwise)) if found[at].1.is_empty() => out.push_str(otherwise),
                (Some(&at), Some(_)) => out.push_str(&found[at].1),
                (None, Some(otherwise)) => out.push_str(&format!("${{{name}:-{otherwise}}}")),
                (None, None) => out.push_str(&format!("${{{name}:-}}")),
            },
            Piece::Literal(text) => out.push_str(&format!("{{{{&{text}}}}}")),
            Piece::Reference(_) => {}
        }
        if out.len() > VALUE_MAX {
            break;
        }
    }
    out
}

/// A `$` that begins no name is doubled.
fn lone_dollars(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        if c == '$' {
            match chars.peek() {
                Some('$') => {
                    out.push('$');
                    chars.next();
                }
                Some(c) if c.is_ascii_alphabetic() || *c == '_' || *c == '{' => {}
                _ => out.push('$'),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> (Variables, String) {
        let mut report = Report::new(Path::new("/x"));
        let file = report.add_file(Path::new("/x/.env"), text);
        let found = parse(text, file, &mut report);
        (found, report.finish().to_string())
    }

    fn one(line: &str) -> String {
        let (found, said) = read(line);
        assert_eq!(said, "", "{line}");
        found
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("|")
    }

    #[test]
    fn the_dialect_is_as_documented() {
        assert_eq!(one("A=1"), "A=1");
        assert_eq!(one(" export A = b c  # d"), "A=b c");
        assert_eq!(one("A=b#c"), "A=b#c");
        assert_eq!(one("A="), "A=");
        assert_eq!(one("A='$x {{y}}' # c"), "A=$$x {{&y}}");
        assert_eq!(one("A=\"x\\n\\\"\\$Y\""), "A=x\n\"$$Y");
        assert_eq!(one("A=\"two\nlines\"\nB=2"), "A=two\nlines|B=2");
        assert_eq!(one("A=1\nB=$A-$C ${A:-z}"), "A=1|B=1-${C:-} 1");
        assert_eq!(one("A=5$ $1"), "A=5$$ $$1");
        assert_eq!(one("A=1\nA=2"), "A=2");
        assert_eq!(one("A={{job}}"), "A={{&job}}");
        assert_eq!(one("\n# only\n\n"), "");
    }

    #[test]
    fn what_is_no_variable_is_told_with_its_line() {
        let (found, said) = read("A=1\nnonsense\nB=2\n");
        assert_eq!(found.len(), 2);
        assert_eq!(
            said,
            "error: this line has no `=`\n  ┌─ .env:2:1\n 2│ nonsense\n  │ ^^^^^^^^ write NAME=value, or `#` before a comment"
        );
        assert!(read("A='open\n").1.contains("a single quote is not closed"));
        assert!(
            read("A=\"x\" y\n")
                .1
                .contains("something follows the closing quote")
        );
    }

    #[test]
    fn a_bomb_of_references_stays_small() {
        let mut text = "A0=xxxxxxxxxxxxxxxx\n".to_owned();
        for n in 1..100 {
            text.push_str(&format!("A{n}=$A{0}$A{0}\n", n - 1));
        }
        let (_, said) = read(&text);
        assert!(said.contains("is longer than 128K"), "{said}");
    }
}
