//! Pages of a plugin: files beneath its `_site`, opened by descriptor, never through a link.

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Largest file that is served.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Parts of a path at most.
const DEPTH_MAX: usize = 32;

/// What is at a path.
#[derive(Debug)]
pub enum Page {
    /// A file.
    File {
        /// By its name.
        kind: &'static str,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// A folder that was asked for without the slash at the end.
    Folder,
    /// Nothing.
    Missing,
}

/// Reads what a plugin has at `path` (decoded, without a slash in front). Blocks: files are on a disk.
pub fn page(plugins: &Path, plugin: &str, path: &str) -> Page {
    look(plugins, plugin, path).unwrap_or(Page::Missing)
}

fn look(plugins: &Path, plugin: &str, path: &str) -> Option<Page> {
    if gaffer_core::name::Name::parse(plugin).is_err() {
        return None;
    }
    let slash = path.is_empty() || path.ends_with('/');
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    // Hidden files are nobody's business; the kernel refuses what leaves the folder, whatever is written here.
    let plain = |part: &&str| !part.starts_with('.') && !part.contains(['\0', '\\']);
    if parts.len() > DEPTH_MAX || !parts.iter().all(plain) {
        return None;
    }
    let root = File::open(plugins).ok()?;
    let folder = open(root.into(), plugin, OFlags::DIRECTORY)?;
    let site = match open(folder.try_clone().ok()?, "_site", OFlags::DIRECTORY) {
        Some(site) => site,
        None if open(folder.try_clone().ok()?, "plugin.toml", OFlags::empty()).is_some() => return None,
        None => {
            // The folder itself is the site, if it has a page to begin with.
            open(folder.try_clone().ok()?, "index.html", OFlags::empty())?;
            folder
        }
    };
    let joined = parts.join("/");
    if joined.is_empty() {
        return file(site, "index.html");
    }
    let there = open(site.try_clone().ok()?, &joined, OFlags::empty())?;
    if rustix::fs::FileType::from_raw_mode(fstat(&there).ok()?.st_mode).is_dir() {
        return match slash {
            true => file(site, &format!("{joined}/index.html")),
            false => Some(Page::Folder),
        };
    }
    match slash {
        true => None,
        false => file(site, &joined),
    }
}

/// Opens beneath a folder: no links, no way out, and no waiting for a pipe's other end.
fn open(beneath: OwnedFd, path: &str, more: OFlags) -> Option<OwnedFd> {
    openat2(
        beneath,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | more,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .ok()
}

fn file(site: OwnedFd, path: &str) -> Option<Page> {
    let file = File::from(open(site, path, OFlags::empty())?);
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(Page::File {
        kind: kind_of(path),
        bytes,
    })
}

/// Content type by the name; what is not known is bytes, which no browser runs.
fn kind_of(path: &str) -> &'static str {
    let extension = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "wasm" => "application/wasm",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}
