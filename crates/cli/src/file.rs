//! The file in front of the user: found here or in a folder above, gathered with what it includes, checked offline.

use crate::args::FileArgs;
use crate::failure::Failure;
use crate::out::Out;
use gaffer_config::nearest;
use gaffer_config::{Bundle, Config, Diagnostics, GatherOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The file for a folder, this one if none is given.
pub fn find(dir: Option<&Path>) -> Option<PathBuf> {
    let here = match dir {
        Some(dir) => dir.to_owned(),
        None => std::env::current_dir().ok()?,
    };
    gaffer_config::find_file(&here)
}

/// The folder that a command works in.
pub fn folder(args: &FileArgs) -> Result<PathBuf, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::failed(format!("this folder cannot be named: {error}")))?;
    let dir = args
        .dir
        .as_ref()
        .map_or_else(|| here.clone(), |dir| here.join(dir));
    if !dir.is_dir() {
        return Err(Failure::not_found(format!(
            "there is no folder {}",
            dir.display()
        )));
    }
    Ok(dir)
}

/// The session that a file names, without reading more of it than needed: short names must work also while the
/// file has errors.
pub fn session_of(path: &Path) -> Option<String> {
    if path.extension().is_some_and(|extension| extension == "toml") {
        let text = std::fs::read_to_string(path).ok()?;
        return session_line(&text).or_else(|| Some("default".to_owned()));
    }
    let bundle = gaffer_config::gather(&[path.to_owned()], &GatherOptions::default()).ok()?;
    let config = gaffer_config::load(&bundle, &gaffer_config::SystemHost::new()).ok()?;
    Some(config.session.to_string())
}

fn session_line(text: &str) -> Option<String> {
    for line in text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with('['))
    {
        if let Some(value) = line
            .strip_prefix("session")
            .and_then(|rest| rest.trim_start().strip_prefix('='))
        {
            let value = value.trim_start();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            return value[1..].split(quote).next().map(str::to_owned);
        }
    }
    None
}

/// The one file that is named, or the one found here, absolute. It need not be there any more.
pub fn root(paths: &[PathBuf], args: &FileArgs) -> Result<PathBuf, Failure> {
    let dir = folder(args)?;
    let named: Vec<&PathBuf> = args.files.iter().chain(paths).collect();
    let path = match named[..] {
        [] => find(Some(&dir)),
        [one] => Some(dir.join(one)),
        _ => return Err(Failure::usage("one file at a time can be taken back")),
    };
    let path =
        path.ok_or_else(|| Failure::usage("there is no gaffer.toml here").hint("name one:  -f FILE"))?;
    std::path::absolute(&path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Reads the files that are named, or the one found here, with everything they include.
pub fn gather(out: &Out, paths: &[PathBuf], args: &FileArgs) -> Result<Bundle, Failure> {
    gather_with(out, paths, args, false)
}

/// The same for a foreground session: its programs get the environment of the terminal.
pub fn gather_here(out: &Out, args: &FileArgs) -> Result<Bundle, Failure> {
    gather_with(out, &[], args, true)
}

fn gather_with(out: &Out, paths: &[PathBuf], args: &FileArgs, inherit_env: bool) -> Result<Bundle, Failure> {
    let dir = folder(args)?;
    let named: Vec<PathBuf> = args
        .files
        .iter()
        .chain(paths)
        .map(|path| dir.join(path))
        .collect();
    let named = if named.is_empty() {
        find(Some(&dir)).into_iter().collect()
    } else {
        named
    };
    if named.is_empty() {
        return Err(Failure::usage(format!(
            "there is no gaffer.toml and no Procfile in {} or above",
            dir.display()
        ))
        .hint_pair("write one:  gaffer init", "name one:  -f FILE"));
    }
    if let Some(missing) = named.iter().find(|path| !path.exists()) {
        return Err(Failure::not_found(format!(
            "there is no file {}",
            missing.display()
        )));
    }
    let options = GatherOptions {
        profiles: args
            .profile
            .iter()
            .filter(|profile| !profile.is_empty())
            .cloned()
            .collect(),
        vars: pairs(&args.vars)?,
        env_files: args.env_files.iter().map(|path| dir.join(path)).collect(),
        counts: counts(&args.counts)?,
        base_port: args.port,
        inherit_env,
        ..GatherOptions::default()
    };
    gaffer_config::gather(&named, &options).map_err(|diagnostics| invalid(out, &diagnostics))
}

fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| {
        text.split_once('=')
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    texts
        .iter()
        .map(|text| pair(text).ok_or_else(|| Failure::usage(format!("`{text}` is no N=V"))))
        .collect()
}

/// `-c web=2`, also `-c a=2,b=3` as the original had it.
pub fn counts(texts: &[String]) -> Result<BTreeMap<String, u32>, Failure> {
    let mut counts = BTreeMap::new();
    for text in texts.iter().flat_map(|text| text.split(',')) {
        let pair = text
            .split_once('=')
            .and_then(|(job, count)| Some((job.to_owned(), count.parse().ok()?)));
        let (job, count) = pair.ok_or_else(|| Failure::usage(format!("`{text}` is no JOB=N")))?;
        counts.insert(job, count);
    }
    Ok(counts)
}

/// Gives the files their meaning, with the users and folders of this machine.
pub fn load(out: &Out, bundle: &Bundle) -> Result<Config, Failure> {
    gaffer_config::load(bundle, &gaffer_config::SystemHost::new())
        .map_err(|diagnostics| invalid(out, &diagnostics))
}

/// The screen of `gaffer check`.
pub fn invalid(out: &Out, diagnostics: &Diagnostics) -> Failure {
    let mut text = diagnostics.render(out.talk_paint.is_on());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!(
        "{}; nothing was changed\n",
        count(diagnostics.errors(), "error")
    ));
    Failure {
        rendered: Some(text),
        ..Failure::silent(2)
    }
}

/// Says the warnings; how many there are.
pub fn warnings(out: &Out, config: &Config) -> usize {
    for warning in &config.warnings {
        out.talk(warning.render(out.talk_paint.is_on()).trim_end());
    }
    config.warnings.len()
}

/// Leaves only some jobs and what they wait for: all others get no instances.
pub fn only(bundle: &mut Bundle, config: &Config, names: &[String]) -> Result<(), Failure> {
    let known: Vec<String> = config.jobs.keys().map(|id| id.job.to_string()).collect();
    let mut wanted = BTreeSet::new();
    for name in names {
        let id = config
            .jobs
            .keys()
            .find(|id| id.job.to_string() == *name || id.to_string() == *name);
        let Some(id) = id else {
            let guess = nearest(name, known.iter().map(String::as_str))
                .map(|near| format!("did you mean `{near}`?"))
                .unwrap_or_default();
            return Err(
                Failure::not_found(format!("no job `{name}` in {}", shown(&config.file)))
                    .hint_pair(&guess, &format!("its jobs:  {}", known.join(" "))),
            );
        };
        wanted.insert(id.clone());
    }
    loop {
        let needs = wanted.iter().flat_map(|id| config.comes_after(id));
        let more: Vec<_> = needs.filter(|id| !wanted.contains(id)).collect();
        if more.is_empty() {
            break;
        }
        wanted.extend(more);
    }
    for id in config.jobs.keys().filter(|id| !wanted.contains(*id)) {
        bundle.counts.insert(id.job.to_string(), 0);
    }
    Ok(())
}

/// A path as short as it can be said from here.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// `1 job`, `2 jobs`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_read_from_a_file_with_errors() {
        assert_eq!(
            session_line("# x\nsession = \"shop\" # y\n[job.web]\nbroken"),
            Some("shop".to_owned())
        );
        assert_eq!(session_line("[job.web]\nsession = \"other\""), None);
    }

    #[test]
    fn counts_are_written_in_both_ways() {
        let read = counts(&["a=2,b=3".to_owned(), "c=0".to_owned()]).unwrap();
        assert_eq!(
            read,
            BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 3), ("c".to_owned(), 0)])
        );
        assert_eq!(counts(&["a".to_owned()]).unwrap_err().exit, 2);
    }
}
