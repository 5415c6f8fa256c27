//! Old names are understood, not spoken: which command line is one of the original gaffer, and how it is said today.

/// What a command line turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// One of today, or an old one in today's words.
    Today(Vec<String>),
    /// A command of the original, whose output is its own.
    Old(Vec<String>),
}

/// Commands that only the original has.
const OLD: [&str; 17] = [
    "load",
    "unload",
    "apps",
    "ps:info",
    "ps:scale",
    "ps:start",
    "ps:stop",
    "ps:kill",
    "recv",
    "send",
    "user:add",
    "user:del",
    "user:setpassword",
    "user:setkey",
    "key",
    "key:create",
    "key:delete",
];

/// What `user` does today; any other word behind it is the name of one.
const USER: [&str; 5] = ["create", "ls", "show", "password", "rm"];

/// Options that take a value and may stand before the command.
const WITH_VALUE: [&str; 25] = [
    "--lookup",
    "-L",
    "--node",
    "--label",
    "--batch",
    "--pause",
    "--min-ok",
    "--session",
    "--url",
    "--socket",
    "--token-file",
    "--api-key",
    "--cacert",
    "--certfile",
    "--keyfile",
    "--format",
    "--color",
    "--timeout",
    "-f",
    "-d",
    "-e",
    "--env",
    "--env-file",
    "--file",
    "--dir",
];

/// Reads a command line. The first word is the program.
pub fn translate(words: Vec<String>) -> Said {
    // It has options of its own under old names, and the original has no such word.
    if command_at(&words).is_some_and(|at| words[at] == "task") {
        return Said::Today(words);
    }
    let program_ends = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (ours, theirs) = words.split_at(program_ends);
    // Words of the original that are the same option today.
    let typed: Vec<&str> = ours.iter().map(String::as_str).collect();
    let mut words: Vec<String> = ours.iter().cloned().flat_map(option).collect();
    let Some(at) = command_at(&words) else {
        words.extend_from_slice(theirs);
        return Said::Today(words);
    };
    if is_old(&words[at], &typed, &words[at + 1..], !theirs.is_empty()) {
        if words[at] == "run" {
            app_first(&mut words, at);
        }
        words.extend_from_slice(theirs);
        return Said::Old(words);
    }
    let mut rest = words.split_off(at + 1);
    rest.extend_from_slice(theirs);
    let command = words.pop().unwrap_or_default();
    // The original's options stand before the command; ours that are about a file belong to it.
    let mut i = 1;
    while i < words.len() {
        let (name, joined) = match words[i].split_once('=') {
            Some((name, _)) => (name, true),
            None => (words[i].as_str(), false),
        };
        if ["-f", "-d", "-e", "--file", "--dir", "--env", "--env-file"].contains(&name) {
            let end = (i + if joined { 1 } else { 2 }).min(words.len());
            let moved: Vec<String> = words.drain(i..end).collect();
            rest.splice(0..0, moved);
        } else {
            i += 1;
        }
    }
    match command.as_str() {
        "export" => {
            words.push(command);
            words.extend(rest.into_iter().map(export_form));
        }
        "dev:start" => {
            words.push("dev".to_owned());
            words.extend(rest.into_iter().map(env_form));
        }
        "dev:run" => {
            words.push("run".to_owned());
            words.extend(dev_run(rest));
        }
        "lookup:nodes" | "lookup:jobs" | "lookup:sessions" | "lookup:session" | "lookup:job" => {
            words.extend(command.split(':').map(str::to_owned));
            words.extend(rest);
        }
        _ => {
            words.push(command);
            words.extend(rest);
        }
    }
    Said::Today(words)
}

/// Is it a command of the original? Where today has the word too, only with an option of the original.
fn is_old(command: &str, typed: &[&str], rest: &[String], has_program: bool) -> bool {
    let typed = |names: &[&str]| {
        let is = |word: &&str| {
            names
                .iter()
                .any(|name| *word == *name || word.split_once('=').is_some_and(|(key, _)| key == *name))
        };
        typed.iter().any(is)
    };
    // Many nodes are looked at and changed by today's commands.
    if typed(&["--lookup", "-L", "--node", "--label", "--all-nodes"]) && !OLD.contains(&command) {
        return false;
    }
    match command {
        // Processes have numbers; all other names are today's targets.
        "send" => first_name(rest, &["-s", "--stream"]).is_some_and(|name| {
            let number = name.split('.').next().unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        }),
        "ps" => typed(&["--app"]),
        "reload" => typed(&["--app", "--from-file", "--no-input"]),
        "logs" => typed(&["--ps"]) || typed(&["--events"]) && typed(&["--app", "--no-color"]),
        "user" => first_name(rest, &[]).is_some_and(|word| !USER.contains(&word)),
        "run" => !has_program && (typed(&["--app", "--graceful-timeout"]) || has_words(rest)),
        _ => OLD.contains(&command),
    }
}

/// The first word that is no option.
fn first_name<'a>(rest: &'a [String], with_value: &[&str]) -> Option<&'a str> {
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        if with_value.contains(&word.as_str()) || WITH_VALUE.contains(&word.as_str()) {
            words.next();
        } else if !word.starts_with('-') || word == "-" {
            return Some(word);
        }
    }
    None
}

/// `run JOB … --app APP`: behind the job its own words begin.
fn app_first(words: &mut Vec<String>, at: usize) {
    let found = words.iter().skip(at).position(|word| {
        word == "--session"
            || word
                .strip_prefix("--session")
                .is_some_and(|rest| rest.starts_with('='))
    });
    if let Some(found) = found.map(|found| found + at) {
        let end = (found + if words[found] == "--session" { 2 } else { 1 }).min(words.len());
        let app: Vec<String> = words.drain(found..end).collect();
        words.splice(1..1, app);
    }
}

/// `run` with words behind the first name that are not today's options of `run`: a command, or a job with arguments, of the
/// original.
fn has_words(rest: &[String]) -> bool {
    let before = [
        "-p",
        "--param",
        "-c",
        "--count",
        "-E",
        "--var",
        "--profile",
        "--port",
    ];
    let mut words = rest.iter();
    let mut named = false;
    while let Some(word) = words.next() {
        let pair = if named { &before[..2] } else { &before[..] };
        let flag = [
            "--attach",
            "--no-wait",
            "--json",
            "-q",
            "-v",
            "-y",
            "--help",
            "-h",
            "--yes",
            "--quiet",
        ];
        if pair.contains(&word.as_str()) || word.starts_with("--") && WITH_VALUE.contains(&word.as_str()) {
            words.next();
        } else if named && !flag.contains(&word.as_str()) && !word.starts_with("--") {
            return true;
        } else if !word.starts_with('-') {
            named = true;
        } else if WITH_VALUE.contains(&word.as_str()) {
            words.next();
        }
    }
    false
}

/// `dev:run [-v] [-c N] CMD…`: once, whatever `-c` says.
fn dev_run(rest: Vec<String>) -> Vec<String> {
    let mut ours = Vec::new();
    let mut words = rest.into_iter().peekable();
    while let Some(word) = words.next_if(|word| word.starts_with('-') && word != "--") {
        match word.as_str() {
            "-c" | "--concurrency" => drop(words.next()),
            word if word.starts_with("--concurrency=") => {}
            "-f" | "--file" => drop(words.next()),
            "-d" | "-e" | "--dir" | "--env" | "--env-file" => {
                ours.push(env_form(word));
                ours.extend(words.next());
            }
            _ => ours.push(env_form(word)),
        }
    }
    ours.push("--".to_owned());
    ours.extend(words.skip_while(|word| word == "--"));
    ours
}

/// `--env FILE`, as the original wrote it.
fn env_form(word: String) -> String {
    match word.strip_prefix("--env") {
        Some("") => "--env-file".to_owned(),
        Some(value) if value.starts_with('=') => format!("--env-file{value}"),
        _ => word,
    }
}

/// `export --format ini`, as the original wrote it: the form of the file, not of our talk.
fn export_form(word: String) -> String {
    match word.strip_prefix("--format") {
        Some("") => "--to".to_owned(),
        Some(value) if value.starts_with('=') => format!("--to{value}"),
        _ => env_form(word),
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

    fn said(line: &str) -> Said {
        translate(line.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn old_commands_become_todays() {
        for (old, today) in [
            ("gaffer dev:run make test", "gaffer run -- make test"),
            (
                "gaffer -e x.env dev:run -v make -j2",
                "gaffer run -e x.env -v -- make -j2",
            ),
            ("gaffer dev:start web", "gaffer dev web"),
            (
                "gaffer --env x dev:start -c web=2 web",
                "gaffer dev --env-file x -c web=2 web",
            ),
            ("gaffer -g http://h:1 --app shop ps:scale", "ps:scale"),
            ("gaffer export --format ini", "gaffer export --to ini"),
            ("gaffer export web --format=json", "gaffer export web --to=json"),
            (
                "gaffer -f Procfile --root app start",
                "gaffer start --dir app -f Procfile",
            ),
            ("gaffer --no-input stop web", "gaffer --yes stop web"),
        ] {
            let Said::Today(words) = said(old) else {
                assert!(old.ends_with(today), "{old}");
                continue;
            };
            assert_eq!(words.join(" "), today);
        }
    }

    #[test]
    fn many_nodes_are_asked_by_todays_commands() {
        for (line, today) in [
            ("gaffer lookup:jobs -L http://h", "gaffer lookup jobs -L http://h"),
            (
                "gaffer -L http://h lookup:job a.b",
                "gaffer -L http://h lookup job a.b",
            ),
            (
                "gaffer -L http://h ps --app shop",
                "gaffer -L http://h ps --session shop",
            ),
        ] {
            assert_eq!(
                said(line),
                Said::Today(today.split(' ').map(str::to_owned).collect())
            );
        }
    }

    #[test]
    fn what_only_the_original_has_is_old() {
        for line in [
            "gaffer load",
            "gaffer -f Procfile --app x load",
            "gaffer ps --app shop",
            "gaffer --app=shop ps",
            "gaffer ps:scale web=3 job+2 -- x",
            "gaffer reload --app shop",
            "gaffer logs --events --app shop",
            "gaffer run make test",
            "gaffer run sh -c true",
            "gaffer run -e x make -j2",
            "gaffer run web -p A=b --app=shop",
            "gaffer run -p A=b --app shop web",
            "gaffer send 17 hello",
            "gaffer send -s ctl 17.err -",
            "gaffer user ana",
            "gaffer --api-key k user:add ana -p x",
            "gaffer key k",
            "gaffer run web --graceful-timeout 5",
        ] {
            assert!(matches!(said(line), Said::Old(_)), "{line}");
        }
    }

    #[test]
    fn todays_commands_stay() {
        for line in [
            "gaffer stop web",
            "gaffer run -- ps:scale --app x",
            "gaffer run web",
            "gaffer run web -- a b",
            "gaffer run -p A=b web",
            "gaffer run web -p A=b --no-wait",
            "gaffer run -e x web --json",
            "gaffer logs --events web",
            "gaffer reload web",
            "gaffer send web.2 hello",
            "gaffer ps web",
            "gaffer --api-key k ps web",
            "gaffer user ls",
            "gaffer user",
            "gaffer login -u ana",
            "gaffer",
            "gaffer -- x",
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(said(line), Said::Today(words));
        }
    }
}
