//! Templates: `$NAME` is the environment, `{{ref}}` is gaffer; nothing else is ever expanded.
//!
//! | written | means |
//! |---|---|
//! | `$NAME`, `${NAME}` | the variable; without a value the start fails |
//! | `${NAME:-text}` | the variable, or the text if it is not set or empty |
//! | `$$` | a dollar |
//! | `{{ref}}`, `{{ref-1:02}}` | a value of gaffer; an offset and a width for numbers |
//! | `{{&text}}` | `{{text}}` literally |
//!
//! In a script for a shell every `$` is the shell's. What a `{{ref}}` puts in is never looked at again.

/// One piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// As it is.
    Text(&'a str),
    /// `$NAME`, `${NAME:-text}`.
    Variable {
        name: &'a str,
        otherwise: Option<&'a str>,
    },
    /// `{{name+offset:width}}`.
    Reference(Reference<'a>),
    /// The inside of `{{&…}}`.
    Literal(&'a str),
}

/// A `{{…}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// The whole inside, for messages.
    pub text: &'a str,
    pub name: &'a str,
    pub offset: i64,
    pub width: usize,
    pub zeros: bool,
}

/// Pieces of a text. With `shell`, `$` is not looked at. The error is a sentence.
pub(crate) fn pieces(text: &str, shell: bool) -> Result<Vec<Piece<'_>>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let at = next_mark(rest, shell);
        let (plain, marked) = rest.split_at(at);
        if !plain.is_empty() {
            out.push(Piece::Text(plain));
        }
        rest = if marked.is_empty() {
            marked
        } else if let Some(inside) = marked.strip_prefix("{{") {
            let end = closing(inside).unwrap_or(0);
            out.push(braces(&inside[..end])?);
            &inside[end + 2..]
        } else {
            let (piece, after) = dollar(&marked[1..])?;
            out.push(piece);
            after
        };
    }
    Ok(out)
}

/// Where the inside of a `{{` ends: at the last two of the braces that close it.
fn closing(inside: &str) -> Option<usize> {
    inside.find("}}")
}

/// Where the next `$` or closed `{{` begins, or the end.
fn next_mark(text: &str, shell: bool) -> usize {
    let dollar = if shell { None } else { text.find('$') };
    // A `{{` that is never closed is text; then no later one is closed either.
    let braces = text.find("{{").filter(|at| closing(&text[at + 2..]).is_some());
    match (dollar, braces) {
        (Some(a), Some(b)) => a.min(b),
        (Some(at), None) | (None, Some(at)) => at,
        (None, None) => text.len(),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn dollar(after: &str) -> Result<(Piece<'_>, &str), String> {
    if let Some(rest) = after.strip_prefix('$') {
        return Ok((Piece::Text("$"), rest));
    }
    if let Some(inside) = after.strip_prefix('{') {
        let end = inside.find('}').ok_or("`${` is not closed")?;
        let (body, rest) = (&inside[..end], &inside[end + 1..]);
        let (name, otherwise) = match body.split_once(":-") {
            Some((name, text)) => (name, Some(text)),
            None => (body, None),
        };
        if name.is_empty() || !name.chars().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("`${{{body}}}` is not the name of a variable"));
        }
        return Ok((Piece::Variable { name, otherwise }, rest));
    }
    let end = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
    if end == 0 || after.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a `$` that begins no name is written `$$`".to_owned());
    }
    Ok((
        Piece::Variable {
            name: &after[..end],
            otherwise: None,
        },
        &after[end..],
    ))
}

fn braces(inside: &str) -> Result<Piece<'_>, String> {
    if let Some(literal) = inside.strip_prefix('&') {
        return Ok(Piece::Literal(literal));
    }
    let text = inside.trim();
    let wrong = || format!("`{{{{{text}}}}}` is not a reference; literally it is written `{{{{&{text}}}}}`");
    let (body, format) = match text.split_once(':') {
        Some((body, format)) => (body.trim(), Some(format)),
        None => (text, None),
    };
    let end = body.find(|c: char| !is_name(c) && c != '.').unwrap_or(body.len());
    let (name, tail) = body.split_at(end);
    // A name may hold `-` (a port, a variable of the file); an offset is digits to the end.
    let (name, offset) = match split_offset(name, tail) {
        Some(split) => split,
        None => (body, 0),
    };
    let plain = |c: char| is_name(c) || c == '.' || c == '-' || c == '+';
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(['-', '+', '.']) {
        return Err(wrong());
    }
    let (width, zeros) = match format {
        None => (0, false),
        Some(digits)
            if !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            (digits.parse().unwrap_or(0), digits.starts_with('0'))
        }
        Some(_) => return Err(wrong()),
    };
    Ok(Piece::Reference(Reference {
        text,
        name,
        offset,
        width,
        zeros,
    }))
}

/// `instance-1`: name and offset, if the tail is a sign with digits.
fn split_offset<'a>(name: &'a str, tail: &str) -> Option<(&'a str, i64)> {
    if tail.is_empty() {
        return Some((name, 0));
    }
    let tail = tail.trim();
    let digits = tail.strip_prefix(['-', '+'])?.trim();
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i64 = digits.parse().ok()?;
    Some((name, if tail.starts_with('-') { -number } else { number }))
}

impl Reference<'_> {
    /// The value as text: offset and width are for numbers only.
    pub fn format(&self, value: &str) -> Result<String, String> {
        if self.offset == 0 && self.width == 0 {
            return Ok(value.to_owned());
        }
        let number: i64 = value.parse().map_err(|_| {
            format!(
                "`{{{{{}}}}}` calculates with `{}`, which is not a number",
                self.text, self.name
            )
        })?;
        let (number, width) = (number.saturating_add(self.offset), self.width);
        Ok(if self.zeros {
            format!("{number:0width$}")
        } else {
            format!("{number:width$}")
        })
    }
}

/// A text that expands to itself.
pub fn escape_templates(text: &str) -> String {
    let dollars = text.replace('$', "$$");
    escape_braces(&dollars)
}

/// The same for a script, where `$` is the shell's.
pub(crate) fn escape_braces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let Some(end) = closing(&rest[at + 2..]) else {
            break;
        };
        out.push_str(&rest[..at]);
        out.push_str("{{&");
        out.push_str(&rest[at + 2..at + 2 + end + 2]);
        rest = &rest[at + 2 + end + 2..];
    }
    out.push_str(rest);
    out
}

/// Replaces the references that `value` knows; everything else stays as it is written, to be expanded
/// later. What is put in is escaped, so that it stays what it is.
pub(crate) fn substitute(
    text: &str,
    shell: bool,
    value: &dyn Fn(&str) -> Option<Result<String, String>>,
) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let Some(end) = closing(&rest[at + 2..]) else {
            break;
        };
        let inside = &rest[at + 2..at + 2 + end];
        let whole = &rest[at..at + 2 + end + 2];
        out.push_str(&rest[..at]);
        match braces(inside)? {
            Piece::Reference(reference) => match value(reference.name) {
                Some(found) => {
                    let text = reference.format(&found?)?;
                    out.push_str(&if shell {
                        escape_braces(&text)
                    } else {
                        escape_templates(&text)
                    });
                }
                None => out.push_str(whole),
            },
            _ => out.push_str(whole),
        }
        rest = &rest[at + 2 + end + 2..];
    }
    out.push_str(rest);
    Ok(out)
}

/// A command string to words, by the rules of a POSIX shell: quotes and backslashes group, `{{…}}` is one
/// piece. What is protected from `$` there (single quotes, a backslash) is escaped in the words.
pub(crate) fn split_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            ' ' | '\t' | '\n' | '\r' => {
                words.extend(word.take());
                after
            }
            '\'' => {
                let end = after.find('\'').ok_or("a single quote is not closed")?;
                word.get_or_insert_default()
                    .push_str(&after[..end].replace('$', "$$"));
                &after[end + 1..]
            }
            '"' => double_quoted(after, word.get_or_insert_default())?,
            '\\' => match after.chars().next() {
                None => return Err("nothing follows the last backslash".to_owned()),
                Some('\n') => &after[1..],
                Some(next) => {
                    push_literal(word.get_or_insert_default(), next);
                    &after[next.len_utf8()..]
                }
            },
            '{' => match after.strip_prefix('{').and_then(closing) {
                Some(end) => {
                    word.get_or_insert_default().push_str(&rest[..end + 4]);
                    &rest[end + 4..]
                }
                None => {
                    word.get_or_insert_default().push('{');
                    after
                }
            },
            c => {
                word.get_or_insert_default().push(c);
                after
            }
        };
    }
    words.extend(word);
    Ok(words)
}

fn push_literal(word: &mut String, c: char) {
    if c == '$' {
        word.push('$');
    }
    word.push(c);
}

fn double_quoted<'a>(mut rest: &'a str, word: &mut String) -> Result<&'a str, String> {
    loop {
        let Some(c) = rest.chars().next() else {
            return Err("a double quote is not closed".to_owned());
        };
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '"' => return Ok(after),
            '\\' => match after.chars().next() {
                Some('\n') => &after[1..],
                Some(next @ ('$' | '"' | '\\' | '`')) => {
                    push_literal(word, next);
                    &after[1..]
                }
                _ => {
                    word.push('\\');
                    after
                }
            },
            c => {
                word.push(c);
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let split = |text| split_words(text).unwrap();
        assert_eq!(
            split("prog a 'b c' \"d e\" f\\ g"),
            ["prog", "a", "b c", "d e", "f g"]
        );
        assert_eq!(split("--save ''"), ["--save", ""]);
        assert_eq!(split("sh -c 'echo $X'"), ["sh", "-c", "echo $$X"]);
        assert_eq!(split("echo \"$X\" \\$Y"), ["echo", "$X", "$$Y"]);
        assert_eq!(split("a {{ vars.x }} b"), ["a", "{{ vars.x }}", "b"]);
        assert_eq!(split("a#b # c"), ["a#b", "#", "c"]);
        assert!(split_words("it's").is_err());
        assert!(split_words("a\\").is_err());
    }

    #[test]
    fn every_form_of_the_table_is_read() {
        let variable = |name, otherwise| Piece::Variable { name, otherwise };
        assert_eq!(
            pieces("a$B${C}${D:-e}$$", false).unwrap(),
            [
                Piece::Text("a"),
                variable("B", None),
                variable("C", None),
                variable("D", Some("e")),
                Piece::Text("$")
            ]
        );
        let read = pieces("{{instance-1:02}}{{&x}}", false).unwrap();
        let Piece::Reference(one) = &read[0] else {
            panic!("{read:?}")
        };
        assert_eq!(
            (one.name, one.offset, one.width, one.zeros),
            ("instance", -1, 2, true)
        );
        assert_eq!(one.format("3"), Ok("02".to_owned()));
        assert_eq!(read[1], Piece::Literal("x"));
        assert!(pieces("100$", false).is_err());
        assert!(pieces("$1", false).is_err());
        assert!(pieces("{{a b}}", false).is_err());
        assert_eq!(pieces("$1 {{", true).unwrap(), [Piece::Text("$1 {{")]);
    }

    #[test]
    fn a_port_may_have_a_dash_in_its_name() {
        let read = pieces("{{ports.my-admin}}", false).unwrap();
        let Piece::Reference(one) = &read[0] else {
            panic!("{read:?}")
        };
        assert_eq!((one.name, one.offset), ("ports.my-admin", 0));
    }

    #[test]
    fn what_is_put_in_stays_what_it_is() {
        let value = |name: &str| (name == "vars.x").then(|| Ok("$HOME {{job}}".to_owned()));
        assert_eq!(
            substitute("a {{vars.x}} {{job}} {{&y}}", false, &value).unwrap(),
            "a $$HOME {{&job}} {{job}} {{&y}}"
        );
        assert_eq!(substitute("{{vars.x}}", true, &value).unwrap(), "$HOME {{&job}}");
    }
}
