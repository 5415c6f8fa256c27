//! Rust source without its strings and comments, so that words in them break no rule.

/// Source in which strings, characters and comments are blanks. Lines are where they were.
pub struct Masked {
    text: String,
    tests_from: Option<usize>,
}

impl Masked {
    /// Masks a file.
    pub fn new(source: &str) -> Masked {
        let text = mask(source);
        let tests_from = text
            .lines()
            .position(|line| line.trim() == "#[cfg(test)]")
            .map(|line| line + 1);
        Masked { text, tests_from }
    }

    /// Lines with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(place, line)| (place + 1, line))
    }

    /// Is the line in the unit tests at the end of the file?
    pub fn is_test(&self, number: usize) -> bool {
        self.tests_from.is_some_and(|from| number >= from)
    }
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Of the word `fn`.
    pub line: usize,
    /// From there to the brace that ends it.
    pub lines: usize,
}

/// All functions, nested ones too.
pub fn functions(masked: &Masked) -> Vec<Function> {
    let bytes = masked.text.as_bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut found = Vec::new();
    for (place, _) in masked.text.match_indices("fn ") {
        if place > 0 && bytes.get(place - 1).is_some_and(|byte| word(*byte)) {
            continue;
        }
        let name: String = masked
            .text
            .get(place + 3..)
            .unwrap_or_default()
            .chars()
            .take_while(|c| word(*c as u8))
            .collect();
        // A declaration without a body ends with `;` before any brace; a type (`fn (u8)`) has no name.
        let rest = bytes.get(place..).unwrap_or_default();
        let Some(open) = rest.iter().position(|byte| matches!(byte, b'{' | b';')) else {
            continue;
        };
        if name.is_empty() || rest.get(open) != Some(&b'{') {
            continue;
        }
        let mut depth = 0_usize;
        let end = rest.iter().skip(open).position(|byte| {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let body = rest.get(..open + end.unwrap_or(0)).unwrap_or_default();
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
        found.push(Function {
            name,
            line: count(bytes.get(..place).unwrap_or_default()),
            lines: count(body),
        });
    }
    found
}

fn mask(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let length = span(bytes, at);
        let piece = bytes.get(at..at + length.max(1)).unwrap_or_default();
        match length {
            0 => out.extend(piece),
            _ => out.extend(piece.iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' })),
        }
        at += piece.len().max(1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Length of the comment, string or character that begins here; 0: none does.
fn span(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let until = |end: usize| end.min(rest.len());
    if rest.starts_with(b"//") {
        return rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        let end = rest.windows(2).position(|pair| pair == b"*/");
        return until(end.map_or(rest.len(), |end| end + 2));
    }
    let in_word = at > 0
        && bytes
            .get(at - 1)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    match rest.first() {
        Some(b'r') if !in_word => raw_string(rest),
        // The `b` of `br"…"` stays; the rest is a raw string of its own only if the `b` is no word before it.
        Some(b'b') if !in_word && rest.get(1) == Some(&b'r') => {
            match raw_string(rest.get(1..).unwrap_or_default()) {
                0 => 0,
                length => length + 1,
            }
        }
        Some(b'"') => quoted(rest, b'"'),
        Some(b'\'') => character(rest),
        _ => 0,
    }
}

fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest.iter().skip(1).take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let close: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let start = hashes + 2;
    let end = rest
        .get(start..)
        .unwrap_or_default()
        .windows(close.len())
        .position(|window| window == close);
    end.map_or(rest.len(), |end| start + end + close.len())
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if *byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `'x'` and `'\n'`, but not the lifetime `'x`.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return quoted(rest, b'\'');
    }
    let text = std::str::from_utf8(rest.get(1..rest.len().min(6)).unwrap_or_default());
    let valid =
        text.or_else(|error| std::str::from_utf8(rest.get(1..1 + error.valid_up_to()).unwrap_or_default()));
    let width = valid
        .ok()
        .and_then(|text| text.chars().next())
        .map_or(1, char::len_utf8);
    if rest.get(1 + width) == Some(&b'\'') {
        width + 2
    } else {
        0
    }
}
