//! Procfile: `name: command`, one a line; `#` begins a comment line. `.env` beside it belongs to it.
//!
//! Commands are split into words without a shell, `$NAME` is put in from the environment of the run. Jobs get
//! the whole environment, and start in the order of their lines.

use crate::node::{Item, Node, Span, Table};
use crate::report::Report;
use crate::template::{Piece, escape_braces, pieces, split_words};
use std::path::Path;

/// The line that is no job: a task that runs by itself, once for each definition.
const RELEASE: &str = "release";

/// Words that only a shell understands.
const SHELL_WORDS: &[&str] = &["&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>&1"];

/// The file in the shape of a `gaffer.toml`. `ports`: first port and step, as foreman has them.
pub(crate) fn tree(
    text: &str,
    file: u32,
    path: &Path,
    ports: Option<(u16, u16)>,
    is_root: bool,
    report: &mut Report,
) -> Table {
    let top = Span::new(file, 0..0);
    let mut tree = Table::default();
    if is_root {
        tree.put("session", Node::str(session_of(path), top));
    }
    tree.put(
        "env_file",
        Node::new(Item::List(vec![Node::str("?.env", top)]), top),
    );
    let mut jobs = Table::default();
    let mut offset = 0;
    let mut count = 0u32;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        let Some((name, command, at)) = split_line(line, file, start, report) else {
            continue;
        };
        let span = Span::new(file, start..start + name.len());
        let release = name == RELEASE;
        if jobs.get(name).is_some() || (release && tree.get("task").is_some()) {
            report.error(
                span,
                &format!("job.{name}"),
                format!("`{name}` stands there twice"),
                "each name once",
            );
            continue;
        }
        let cmd = words(
            name,
            command,
            Span::new(file, at..at + command.len()),
            ports.is_some(),
            report,
        );
        let mut job = Table::default();
        job.put("cmd", cmd);
        job.put("env_inherit", Node::str("all", span));
        if release {
            tree.put("task", task(job, span));
            continue;
        }
        job.put("priority", Node::new(Item::Int(i64::from(count)), span));
        if let Some((base, step)) = ports {
            let port = i64::from(base) + i64::from(step) * i64::from(count);
            job.put("port", Node::new(Item::Int(port), span));
        }
        jobs.put(name, Node::table(job, span));
        count += 1;
    }
    if count == 0 && tree.get("task").is_none() && !report.has_errors() {
        report.error(
            top,
            "",
            "there is no line `name: command` in it",
            "write one for each program: web: python3 web.py",
        );
    }
    tree.put("job", Node::table(jobs, top));
    tree
}

/// `release` as the only task, which runs by itself.
fn task(mut table: Table, span: Span) -> Node {
    table.put("start", Node::new(Item::Bool(true), span));
    let mut tasks = Table::default();
    tasks.put(RELEASE, Node::table(table, span));
    Node::table(tasks, span)
}

/// What is wrong with a line: from, to, message, hint.
type Wrong = (usize, usize, String, String);

/// Name, command and where the command begins; what looks wrong is told.
fn split_line<'a>(
    line: &'a str,
    file: u32,
    start: usize,
    report: &mut Report,
) -> Option<(&'a str, &'a str, usize)> {
    let content = line.trim_end();
    if content.trim().is_empty() || content.trim_start().starts_with('#') {
        return None;
    }
    match parts(content) {
        Ok((name, command, at)) => Some((name, command, start + at)),
        Err((from, to, message, help)) => {
            report.error(Span::new(file, start + from..start + to), "", message, &help);
            None
        }
    }
}

fn parts(content: &str) -> Result<(&str, &str, usize), Wrong> {
    let blank = content.len() - content.trim_start().len();
    if blank > 0 {
        let what = if content.starts_with('\t') {
            "a tab"
        } else {
            "a blank"
        };
        return Err((
            0,
            blank,
            format!("the line begins with {what}"),
            "begin it with the name".to_owned(),
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let end = content.find(|c: char| !plain(c)).unwrap_or(content.len());
    let (name, rest) = content.split_at(end);
    let Some(command) = rest.strip_prefix(':') else {
        return Err(no_colon(name, rest, end));
    };
    let form = || "write `name: command`".to_owned();
    if name.is_empty() {
        return Err((0, 1, "the line has no name before its colon".to_owned(), form()));
    }
    if command.trim().is_empty() {
        let help = "write what to run after the colon".to_owned();
        return Err((0, end + 1, format!("`{name}` has no command"), help));
    }
    let at = end + 1 + (command.len() - command.trim_start().len());
    Ok((name, command.trim(), at))
}

/// The line goes on after its name with something else than a colon.
fn no_colon(name: &str, rest: &str, end: usize) -> Wrong {
    match rest.chars().next() {
        Some('\t') => {
            let help = format!("write `{name}: …`: a colon belongs there");
            (end, end + 1, format!("a tab follows `{name}`"), help)
        }
        Some(' ') if rest.trim_start().starts_with(':') => (
            end,
            end + 1,
            "a blank stands before the colon".to_owned(),
            format!("write `{name}: …`"),
        ),
        Some(' ') | None => {
            let message = "the line has no colon after its name".to_owned();
            (0, end.max(1), message, "write `name: command`".to_owned())
        }
        Some(c) => {
            let message = format!("`{}` cannot be part of a name", c.escape_debug());
            (
                end,
                end + c.len_utf8(),
                message,
                "use letters, digits, `_` and `-`".to_owned(),
            )
        }
    }
}

/// The words of a command. Braces are text here.
fn words(name: &str, command: &str, span: Span, has_port: bool, report: &mut Report) -> Node {
    let Ok(words) = split_words(&escape_braces(command)) else {
        // Told when the job is merged.
        return Node::str(command, span);
    };
    let path = format!("job.{name}.cmd");
    let assigns = words.first().is_some_and(|word| {
        word.split_once('=')
            .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    });
    if let Some(word) = words
        .iter()
        .find(|word| SHELL_WORDS.contains(&word.as_str()) || word.ends_with(';'))
    {
        let message = format!("`{word}` is passed to the program as a word: no shell runs this line");
        report.warning(span, &path, message, "write sh -c '…'");
    } else if assigns {
        report.warning(
            span,
            &path,
            "no shell runs this line: a variable cannot be set in front",
            "write env NAME=value program, or put it into .env",
        );
    }
    let uses_port = words.iter().any(|word| {
        pieces(word, false).is_ok_and(|list| {
            list.iter().any(|piece| {
                matches!(
                    piece,
                    Piece::Variable {
                        name: "PORT",
                        otherwise: None
                    }
                )
            })
        })
    });
    if uses_port && !has_port {
        report.warning(
            span,
            &path,
            "`$PORT` comes from the environment or .env",
            "gaffer gives ports with --port 5000",
        );
    }
    Node::new(
        Item::List(words.into_iter().map(|word| Node::str(word, span)).collect()),
        span,
    )
}

/// The session: the folder's name, made to fit the grammar.
pub(crate) fn session_of(path: &Path) -> String {
    let folder = path
        .parent()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned());
    let fits = |c: char| {
        if c.is_ascii_alphanumeric() || "_+-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = folder.unwrap_or_default().chars().map(fits).take(64).collect();
    let name = name.trim_start_matches(['-', '+']).trim_end_matches('-');
    if name.is_empty() {
        "default".to_owned()
    } else if name.bytes().all(|b| b.is_ascii_digit()) {
        format!("_{}", &name[..name.len().min(63)])
    } else {
        name.to_owned()
    }
}
