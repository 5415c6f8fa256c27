//! Where things are said: data on standard output, talk on standard error, both fit for who reads them.
//!
//! Standard output is buffered here and flushed before every wait, so that a pipe costs few writes and a person sees
//! everything at once. A reader that went away ends the program quietly.

use crate::args::{ColorChoice, Format, Globals};
use crate::failure::{Failure, output};
use crate::paint::{Paint, Role};
use crate::table::{Cell, Column, lines};
use serde::Serialize;
use serde_json::Value;
use std::cell::RefCell;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

/// Bytes kept before they are written without being asked to.
const BUFFER_BYTES: usize = 64 << 10;
/// Width if the terminal does not tell.
const WIDTH_DEFAULT: usize = 80;

/// Both outputs of a command.
pub struct Out {
    format: Format,
    /// Colours of standard output.
    pub paint: Paint,
    /// Colours of standard error.
    pub talk_paint: Paint,
    /// Whether standard output is a terminal.
    pub terminal: bool,
    utf8: bool,
    quiet: bool,
    stdout: RefCell<BufWriter<Stdout>>,
    node: Option<OfNode>,
}

/// What is said is of one node among several.
struct OfNode {
    name: String,
    width: usize,
    documents: RefCell<Vec<Value>>,
    tables: RefCell<Vec<Table>>,
}

/// Columns, and the rows beneath them.
pub type Table = (Vec<Column>, Vec<Vec<Cell>>);

impl Out {
    /// As the options, the environment and the terminal say.
    pub fn new(globals: &Globals) -> Out {
        let terminal = io::stdout().is_terminal();
        let on = |is_terminal: bool| match globals.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                is_terminal && !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Out {
            format: if globals.json {
                Format::Json
            } else {
                globals.format.unwrap_or(Format::Text)
            },
            paint: Paint::new(on(terminal)),
            talk_paint: Paint::new(on(io::stderr().is_terminal())),
            terminal,
            utf8: is_utf8(),
            quiet: globals.quiet,
            stdout: RefCell::new(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())),
            node: None,
        }
    }

    /// The same for one node among several: its name stands before each line, and in each item; whole documents are
    /// kept for the end. It is no terminal: tables are not cut, nothing is redrawn.
    pub fn of_node(mut self, name: &str, width: usize) -> Out {
        self.terminal = false;
        self.node = Some(OfNode {
            name: name.to_owned(),
            width,
            documents: RefCell::default(),
            tables: RefCell::default(),
        });
        self
    }

    /// Documents that were kept.
    pub fn documents(&self) -> Vec<Value> {
        self.node
            .as_ref()
            .map(|node| node.documents.take())
            .unwrap_or_default()
    }

    /// Tables that were kept.
    pub fn tables(&self) -> Vec<Table> {
        self.node
            .as_ref()
            .map(|node| node.tables.take())
            .unwrap_or_default()
    }

    /// A table. Of one node among several it is kept, so that all become one.
    pub fn table(&self, columns: &[Column], rows: Vec<Vec<Cell>>) -> Result<(), Failure> {
        if let Some(node) = &self.node {
            node.tables.borrow_mut().push((columns.to_vec(), rows));
            return Ok(());
        }
        lines(columns, &rows, self.width(), &self.paint)
            .iter()
            .try_for_each(|line| self.line(line))
    }

    /// What was asked for; text unless asked.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether text is wanted.
    pub fn is_text(&self) -> bool {
        self.format == Format::Text
    }

    /// Columns of the terminal; `None` in a pipe.
    pub fn width(&self) -> Option<usize> {
        self.terminal.then(|| {
            let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
            size.map(|size| usize::from(size.ws_col))
                .filter(|width| *width > 0)
                .unwrap_or(WIDTH_DEFAULT)
        })
    }

    /// Rows of the terminal.
    pub fn height(&self) -> usize {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        size.map(|size| usize::from(size.ws_row))
            .filter(|height| *height > 0)
            .unwrap_or(24)
    }

    /// A line of data.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        let mut text = match &self.node {
            Some(node) => {
                let name = format!("{:width$}", node.name, width = node.width);
                format!("{}  {}", self.paint.name(&node.name, &name), self.fit(text))
            }
            None => self.fit(text),
        };
        text.push('\n');
        // At once: the lines of several nodes go to the same place.
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout
            .borrow_mut()
            .write_all(bytes)
            .map_err(|error| output(&error))
    }

    /// Writes what is buffered: before every wait, and at the end.
    pub fn flush(&self) -> Result<(), Failure> {
        self.stdout.borrow_mut().flush().map_err(|error| output(&error))
    }

    /// A document.
    pub fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        if let Some(node) = &self.node {
            node.documents.borrow_mut().push(document(value)?);
            return Ok(());
        }
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(value),
            _ => serde_json::to_string_pretty(value),
        };
        let text = text.map_err(|error| Failure::failed(format!("the answer is no JSON: {error}")))?;
        self.bytes(text.as_bytes()).and_then(|()| self.bytes(b"\n"))
    }

    /// A list: one document, or one line for each with `jsonl`.
    pub fn json_list<T: Serialize>(&self, items: &[T]) -> Result<(), Failure> {
        match self.format {
            Format::Jsonl => items.iter().try_for_each(|item| self.json_line(item)),
            _ if self.node.is_some() => {
                let items: Result<Vec<Value>, Failure> =
                    items.iter().map(|item| self.with_node(item)).collect();
                self.json(&items?)
            }
            _ => self.json(items),
        }
    }

    /// An item with the node it is of.
    fn with_node<T: Serialize + ?Sized>(&self, item: &T) -> Result<Value, Failure> {
        let mut item = document(item)?;
        if let (Some(node), Some(fields)) = (&self.node, item.as_object_mut()) {
            fields.insert("node".to_owned(), node.name.clone().into());
        }
        Ok(item)
    }

    /// One item of a stream, on a line of its own.
    pub fn json_line<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        let text = match &self.node {
            Some(_) => serde_json::to_string(&self.with_node(value)?),
            None => serde_json::to_string(value),
        };
        let mut text = text.map_err(|error| Failure::failed(format!("the answer is no JSON: {error}")))?;
        text.push('\n');
        self.bytes(text.as_bytes())
    }

    /// A line for a person, on standard error, unless `-q`.
    pub fn talk(&self, text: &str) {
        if !self.quiet {
            self.say(text);
        }
    }

    /// A line on standard error, also with `-q`. That nobody reads it is no failure.
    pub fn say(&self, text: &str) {
        let _ = self.flush();
        // In one write: what is typed or printed by others does not come between a line and its end.
        let _ = io::stderr().write_all(format!("{}\n", self.fit(text)).as_bytes());
    }

    /// Says why a command failed.
    pub fn fail(&self, failure: &Failure) {
        let mut text = failure.render(&self.talk_paint);
        if let Some(node) = self.node.as_ref().filter(|_| !text.is_empty()) {
            text = format!("{}: {text}", node.name);
        }
        let _ = self.flush();
        let _ = io::stderr().write_all(self.fit(&text).as_bytes());
    }

    /// Glyph of a state, painted.
    pub fn glyph(&self, state: &str) -> String {
        let (glyph, role) = crate::paint::state(state);
        self.paint.role(role, glyph)
    }

    /// The same for standard error.
    pub fn talk_glyph(&self, state: &str) -> String {
        let (glyph, role) = crate::paint::state(state);
        self.talk_paint.role(role, glyph)
    }

    /// Text dimmed.
    pub fn dim(&self, text: &str) -> String {
        self.paint.role(Role::Dim, text)
    }

    /// Our own signs in ASCII where the terminal has no UTF-8.
    fn fit(&self, text: &str) -> String {
        if self.utf8 || text.is_ascii() {
            text.to_owned()
        } else {
            to_ascii(text)
        }
    }
}

fn document<T: Serialize + ?Sized>(value: &T) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|error| Failure::failed(format!("the answer is no JSON: {error}")))
}

fn to_ascii(text: &str) -> String {
    let mut fitted = String::with_capacity(text.len());
    for c in text.chars() {
        fitted.push_str(match c {
            '●' => "*",
            '○' => "o",
            '◐' => "~",
            '✗' => "x",
            '─' | '–' | '·' | '━' => "-",
            '│' | '┌' => "|",
            '→' => "->",
            '…' => ".",
            other => {
                fitted.push(other);
                continue;
            }
        });
    }
    fitted
}

/// Whether the locale of messages is UTF-8, by the usual order of variables. No locale at all is taken as UTF-8:
/// that is what containers and units have, and what their terminals show.
fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    locale.is_none_or(|value| {
        let value = value.to_ascii_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_have_ascii_forms() {
        assert_eq!(to_ascii("● web ─ 2 → 3 │ ünder"), "* web - 2 -> 3 | ünder");
    }
}
