//! Old names are understood, not spoken: the command line of the original gaffer, put into today's words before
//! it is read.

/// Options that take a value and may stand before the command.
const WITH_VALUE: [&str; 12] = [
    "--session",
    "--url",
    "--socket",
    "--token-file",
    "--format",
    "--color",
    "--timeout",
    "-f",
    "-d",
    "-e",
    "--file",
    "--dir",
];

/// Puts an old command line into today's words. The first word is the program.
pub fn translate(words: Vec<String>) -> Vec<String> {
    let program_ends = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (ours, theirs) = words.split_at(program_ends);
    let mut words: Vec<String> = ours.iter().cloned().flat_map(option).collect();
    let Some(at) = command_at(&words) else {
        words.extend_from_slice(theirs);
        return words;
    };
    let mut rest = words.split_off(at + 1);
    rest.extend_from_slice(theirs);
    let old = words.pop().unwrap_or_default();
    // The original's options stand before the command; ours that are about a file belong to it.
    let mut i = 1;
    while i + 1 < words.len() {
        if ["-f", "-d", "-e", "--file", "--dir"].contains(&words[i].as_str()) {
            rest.splice(0..0, words.drain(i..i + 2));
        } else {
            i += 1;
        }
    }
    if old == "export" {
        words.push(old);
        words.extend(rest.into_iter().map(export_form));
        return words;
    }
    let new: Vec<&str> = match old.as_str() {
        "ps:scale" => vec!["scale"],
        "ps:info" => vec!["job", "show"],
        "ps:start" => vec!["start"],
        "ps:stop" => vec!["stop"],
        "ps:kill" => vec!["signal"],
        "dev:start" => vec!["dev"],
        "dev:run" => vec!["run", "--"],
        "load" => vec!["apply"],
        _ => {
            words.push(old);
            words.extend(rest);
            return words;
        }
    };
    words.extend(new.into_iter().map(str::to_owned));
    let names_jobs = rest.iter().any(|word| !word.starts_with('-'));
    match old.as_str() {
        // The original's order is the job, then the signal.
        "ps:kill" if rest.len() >= 2 && !rest[0].starts_with('-') => {
            words.push(rest[1].clone());
            words.push(rest[0].clone());
            words.extend(rest.into_iter().skip(2));
        }
        "ps:start" | "ps:stop" if !names_jobs => {
            words.push("--all".to_owned());
            words.extend(rest);
        }
        "load" => words.extend(rest.into_iter().map(|word| {
            if word == "--nostart" {
                "--no-start".to_owned()
            } else {
                word
            }
        })),
        _ => words.extend(rest),
    }
    words
}

/// `export --format ini`, as the original wrote it: the form of the file, not of our talk.
fn export_form(word: String) -> String {
    match word.strip_prefix("--format") {
        Some("") => "--to".to_owned(),
        Some(value) if value.starts_with('=') => format!("--to{value}"),
        _ => word,
    }
}

/// Old options with another name now.
fn option(word: String) -> Vec<String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.clone(), None),
    };
    let new = match name.as_str() {
        "--app" => "--session",
        "-g" | "--gafferd-http-address" | "--endpoint" => "--url",
        "--no-input" => "--yes",
        "--procfile" => "--file",
        "--directory" | "--root" => "--dir",
        _ => return vec![word],
    };
    match value {
        Some(value) => vec![format!("{new}={value}")],
        None => vec![new.to_owned()],
    }
}

/// Where the command stands.
fn command_at(words: &[String]) -> Option<usize> {
    let mut i = 1;
    while let Some(word) = words.get(i) {
        if !word.starts_with('-') {
            return Some(i);
        }
        i += if WITH_VALUE.contains(&word.as_str()) { 2 } else { 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(line: &str) -> String {
        translate(line.split(' ').map(str::to_owned).collect()).join(" ")
    }

    #[test]
    fn old_commands_become_todays() {
        for (old, today) in [
            ("gaffer ps:scale web=3 job+2", "gaffer scale web=3 job+2"),
            ("gaffer --app shop ps:stop", "gaffer --session shop stop --all"),
            ("gaffer ps:kill web HUP", "gaffer signal HUP web"),
            ("gaffer dev:run make test", "gaffer run -- make test"),
            ("gaffer dev:start web", "gaffer dev web"),
            (
                "gaffer -g http://h:1 load --nostart",
                "gaffer --url http://h:1 apply --no-start",
            ),
            ("gaffer ps:info web", "gaffer job show web"),
            ("gaffer export --format ini", "gaffer export --to ini"),
            ("gaffer export web --format=json", "gaffer export web --to=json"),
            (
                "gaffer -f Procfile --root app start",
                "gaffer start --dir app -f Procfile",
            ),
        ] {
            assert_eq!(new(old), today);
        }
    }

    #[test]
    fn todays_commands_stay() {
        for line in [
            "gaffer stop web",
            "gaffer run -- ps:scale --app x",
            "gaffer",
            "gaffer -- x",
        ] {
            assert_eq!(new(line), line);
        }
    }
}
