//! `completions`, `man`, `help`, `version`: about the program itself.

use crate::args_shell::{CompletionsArgs, HelpArgs};
use crate::failure::{Failure, output};
use crate::help;
use crate::out::Out;

/// `completions`.
pub fn completions(out: &Out, args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut help::command(), "gaffer", &mut text);
    out.bytes(&text)?;
    Ok(0)
}

/// `man`: the page in roff.
pub fn man(out: &Out) -> Result<u8, Failure> {
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(help::command().about("launch programs, keep them alive, lose nothing"));
    page.render(&mut text).map_err(|error| output(&error))?;
    for (name, topic) in help::TOPICS {
        text.extend(roff(name, topic).into_bytes());
    }
    out.bytes(&text)?;
    Ok(0)
}

/// A topic as a section; lines stay as they are.
fn roff(name: &str, topic: &str) -> String {
    let mut text = format!(".SH {}\n.nf\n", name.to_uppercase());
    for line in topic.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A dot or quote at the beginning would be a request.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        text.push_str(&format!("{guard}{line}\n"));
    }
    text.push_str(".fi\n");
    text
}

/// `help`.
pub fn help(out: &Out, args: &HelpArgs) -> Result<u8, Failure> {
    let text = if args.reference {
        help::reference()
    } else {
        help::topic(&args.topic)?
    };
    out.bytes(text.trim_end().as_bytes())?;
    out.bytes(b"\n")?;
    Ok(0)
}

/// `version`.
pub fn version(out: &Out) -> Result<u8, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if out.is_text() {
        out.line(&format!("gaffer {version}"))?;
    } else {
        out.json(&serde_json::json!({ "version": version }))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_cannot_hold_requests_of_roff() {
        assert_eq!(
            roff("x", ".so /etc/passwd\na-b"),
            ".SH X\n.nf\n\\&.so /etc/passwd\na\\-b\n.fi\n"
        );
    }
}
