//! `init`, `export`: files out of what is there.

use crate::args::{ExportArgs, InitArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::file;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// `init`.
pub fn init(ctx: &Context, args: &InitArgs) -> Result<u8, Failure> {
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
    let text = gaffer_config::init(&dir, &gaffer_config::SystemHost::new());
    if args.print {
        ctx.out.bytes(text.as_bytes())?;
        return Ok(0);
    }
    let path = dir.join("gaffer.toml");
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut made = made.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::conflict(format!("{} exists already", file::shown(&path))).hint_pair(
                "look at it:  gaffer check",
                "print a new one:  gaffer init --print",
            )
        }
        _ => Failure::failed(format!("{} cannot be written: {error}", path.display())),
    })?;
    made.write_all(text.as_bytes())
        .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))?;
    ctx.out.talk(&format!(
        "wrote {}          run it here:  gaffer start",
        file::shown(&path)
    ));
    Ok(0)
}

/// `export`.
pub fn export(ctx: &Context, args: &ExportArgs) -> Result<u8, Failure> {
    let bundle = file::gather(&ctx.out, &[], &args.file)?;
    let mut config = file::load(&ctx.out, &bundle)?;
    if let Some(name) = &args.name {
        only(&mut config, name)?;
    }
    let text = gaffer_config::export(&config, kind(&args.to)?);
    match &args.output {
        None => ctx.out.bytes(text.as_bytes())?,
        Some(path) => write(path, &text)?,
    }
    Ok(0)
}

/// Leaves what has this name, whatever it is.
fn only(config: &mut gaffer_config::Config, name: &str) -> Result<(), Failure> {
    let known = config.names();
    if config.retain(name) {
        return Ok(());
    }
    let near = gaffer_config::nearest(name, known.iter().map(String::as_str));
    let guess = near
        .map(|near| format!("did you mean `{near}`?"))
        .unwrap_or_default();
    let message = format!("nothing is named `{name}` in {}", file::shown(&config.file));
    Err(Failure::not_found(message).hint_pair(
        &guess,
        &format!("there are:  {}", Vec::from_iter(known).join(" ")),
    ))
}

fn write(path: &PathBuf, text: &str) -> Result<(), Failure> {
    if path == Path::new("-") {
        return Err(Failure::usage(
            "standard output is what `export` writes to without -o",
        ));
    }
    std::fs::write(path, text)
        .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))
}

fn kind(to: &str) -> Result<gaffer_config::ExportFormat, Failure> {
    to.parse()
        .map_err(|_| Failure::usage(format!("there is no form `{to}`")))
}
