//! JSON text to nodes, with the place of every key and value (`serde_json` forgets them).

use crate::node::{Entry, Item, Node, Span, Table};
use crate::report::Report;

/// Depth of tables and lists beyond which a text is refused instead of exhausting the stack.
const DEPTH_MAX: usize = 64;

/// The value of a file. Mistakes of syntax go to the report; then there is none.
pub(crate) fn parse(text: &str, file: u32, report: &mut Report) -> Option<Node> {
    let mut reader = Reader { text, at: 0, file };
    let value = reader.value(0).and_then(|node| {
        reader.blank();
        if reader.at == text.len() {
            Ok(node)
        } else {
            Err("nothing may follow the first value")
        }
    });
    match value {
        Ok(node) => Some(node),
        Err(message) => {
            let end = (reader.at + 1).min(text.len());
            let span = Span::new(file, reader.at.min(text.len())..end);
            report.error(span, "", format!("this is not JSON: {message}"), "");
            None
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    file: u32,
}

type Read<T> = Result<T, &'static str>;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.blank();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self, depth: usize) -> Read<Node> {
        self.blank();
        let start = self.at;
        let item = match self.peek() {
            None => return Err("the text ends where a value should be"),
            Some(_) if depth > DEPTH_MAX => return Err("it is nested too deeply"),
            Some(b'"') => Item::Str(self.string()?),
            Some(b'{') => Item::Table(self.object(depth)?),
            Some(b'[') => Item::List(self.array(depth)?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => self.word()?,
        };
        Ok(Node {
            item,
            span: Span::new(self.file, start..self.at),
        })
    }

    fn word(&mut self) -> Read<Item> {
        for (word, item) in [
            ("true", Item::Bool(true)),
            ("false", Item::Bool(false)),
            ("null", Item::Other("null")),
        ] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(item);
            }
        }
        Err("a value is expected here (texts and keys need double quotes)")
    }

    fn number(&mut self) -> Read<Item> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c))
            .unwrap_or(rest.len());
        let text = &rest[..end];
        let parsed: serde_json::Number = text.parse().map_err(|_| "this is not a number")?;
        self.at += end;
        Ok(match (parsed.as_i64(), parsed.as_f64()) {
            (Some(int), _) => Item::Int(int),
            (None, Some(float)) if float.is_finite() => Item::Float(float),
            _ => Item::Other("a number that is too large"),
        })
    }

    fn string(&mut self) -> Read<String> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start + 1;
        loop {
            match bytes.get(end) {
                None => return Err("a quote is not closed"),
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
            }
        }
        let quoted = self.text.get(start..=end).ok_or("a quote is not closed")?;
        let text = serde_json::from_str(quoted).map_err(|_| "a text holds what it must escape")?;
        self.at = end + 1;
        Ok(text)
    }

    fn array(&mut self, depth: usize) -> Read<Vec<Node>> {
        self.at += 1;
        let mut list = Vec::new();
        if self.take(b']') {
            return Ok(list);
        }
        loop {
            list.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(list);
            }
            if !self.take(b',') {
                return Err("`,` or `]` is expected here");
            }
        }
    }

    fn object(&mut self, depth: usize) -> Read<Table> {
        self.at += 1;
        let mut table = Table::default();
        if self.take(b'}') {
            return Ok(table);
        }
        loop {
            self.blank();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err("a key in double quotes is expected here");
            }
            let key = self.string()?;
            let key_span = Span::new(self.file, start..self.at);
            if table.0.contains_key(&key) {
                self.at = start;
                return Err("this key stands there already");
            }
            if !self.take(b':') {
                return Err("`:` is expected here");
            }
            let node = self.value(depth + 1)?;
            table.0.insert(key, Entry { key: key_span, node });
            if self.take(b'}') {
                return Ok(table);
            }
            if !self.take(b',') {
                return Err("`,` or `}` is expected here");
            }
        }
    }
}
