//! What a configuration has to ask of the machine: users, groups, folders, a file of variables.

use gaffer_core::job::User;
use std::ffi::{CStr, CString};
use std::io;
use std::path::{Path, PathBuf};

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its id.
    pub gid: u32,
}

/// The machine as a configuration sees it. [`SystemHost`] is the real one; tests bring their own.
pub trait Host: Send + Sync {
    /// The user with this name, with the supplementary groups of a login.
    fn user_named(&self, name: &str) -> Option<User>;
    /// The user with this id.
    fn user_with_id(&self, uid: u32) -> Option<User>;
    /// The group with this name.
    fn group_named(&self, name: &str) -> Option<Group>;
    /// Effective uid of the daemon: only root may run jobs as somebody else.
    fn own_uid(&self) -> u32;
    /// Effective gid of the daemon.
    fn own_gid(&self) -> u32;
    /// Is there such a folder?
    fn is_dir(&self, path: &Path) -> bool;
    /// Where a job without a file runs, if it does not say.
    fn current_dir(&self) -> PathBuf;
    /// Text of a file of variables that a definition names (`env_file`).
    fn read_file(&self, path: &Path) -> io::Result<String>;
    /// Does a definition come from the store, where it was checked already? Then the world may have
    /// changed since, and what is missing today must not make the definition unreadable: the start fails instead.
    fn is_store(&self) -> bool {
        false
    }
}

/// This machine, asked through the C library (so that LDAP and the like are known too).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemHost;

/// This machine, for definitions of the store: a user or folder that has gone is no error.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoredHost;

impl SystemHost {
    /// This machine.
    pub fn new() -> SystemHost {
        SystemHost
    }
}

impl Host for SystemHost {
    fn user_named(&self, name: &str) -> Option<User> {
        let name = CString::new(name).ok()?;
        passwd(|entry, buffer, out| {
            // SAFETY: the name ends with NUL, the buffer has the given length, `out` is writable.
            unsafe {
                libc::getpwnam_r(
                    name.as_ptr(),
                    entry,
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    out,
                )
            }
        })
    }

    fn user_with_id(&self, uid: u32) -> Option<User> {
        passwd(|entry, buffer, out| {
            // SAFETY: the buffer has the given length, `out` is writable.
            unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr().cast(), buffer.len(), out) }
        })
    }

    fn group_named(&self, name: &str) -> Option<Group> {
        let c_name = CString::new(name).ok()?;
        let mut buffer = vec![0u8; BUFFER];
        loop {
            // SAFETY: all-zero is a valid `group`: null pointers and a zero id.
            let mut entry: libc::group = unsafe { std::mem::zeroed() };
            let mut found: *mut libc::group = std::ptr::null_mut();
            // SAFETY: the name ends with NUL, the buffer has the given length, `found` is writable.
            let errno = unsafe {
                libc::getgrnam_r(
                    c_name.as_ptr(),
                    &mut entry,
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    &mut found,
                )
            };
            if errno == libc::ERANGE && buffer.len() < BUFFER_MAX {
                buffer.resize(buffer.len() * 4, 0);
                continue;
            }
            if errno != 0 || found.is_null() {
                return None;
            }
            return Some(Group {
                name: name.to_owned(),
                gid: entry.gr_gid,
            });
        }
    }

    fn own_uid(&self) -> u32 {
        // SAFETY: it takes nothing and cannot fail.
        unsafe { libc::geteuid() }
    }

    fn own_gid(&self) -> u32 {
        // SAFETY: it takes nothing and cannot fail.
        unsafe { libc::getegid() }
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn current_dir(&self) -> PathBuf {
        std::env::current_dir().unwrap_or_else(|_| "/".into())
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        use std::os::unix::fs::FileTypeExt;
        // A daemon that reads it again must not wait for somebody to write into it.
        if std::fs::metadata(path)?.file_type().is_fifo() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a pipe, not a file",
            ));
        }
        crate::bundle::read_text(path)
    }
}

impl Host for StoredHost {
    fn user_named(&self, name: &str) -> Option<User> {
        SystemHost.user_named(name)
    }
    fn user_with_id(&self, uid: u32) -> Option<User> {
        SystemHost.user_with_id(uid)
    }
    fn group_named(&self, name: &str) -> Option<Group> {
        SystemHost.group_named(name)
    }
    fn own_uid(&self) -> u32 {
        SystemHost.own_uid()
    }
    fn own_gid(&self) -> u32 {
        SystemHost.own_gid()
    }
    fn is_dir(&self, _path: &Path) -> bool {
        true
    }
    fn current_dir(&self) -> PathBuf {
        SystemHost.current_dir()
    }
    fn read_file(&self, path: &Path) -> io::Result<String> {
        SystemHost.read_file(path)
    }
    fn is_store(&self) -> bool {
        true
    }
}

/// First size of a look-up's buffer, and the size at which we give up (a group can have many members).
const BUFFER: usize = 4 << 10;
const BUFFER_MAX: usize = 4 << 20;

fn passwd(
    mut ask: impl FnMut(&mut libc::passwd, &mut [u8], &mut *mut libc::passwd) -> libc::c_int,
) -> Option<User> {
    let mut buffer = vec![0u8; BUFFER];
    loop {
        // SAFETY: all-zero is a valid `passwd`: null pointers and zero ids.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = std::ptr::null_mut();
        let errno = ask(&mut entry, &mut buffer, &mut found);
        if errno == libc::ERANGE && buffer.len() < BUFFER_MAX {
            buffer.resize(buffer.len() * 4, 0);
            continue;
        }
        if errno != 0 || found.is_null() {
            return None;
        }
        return Some(User {
            name: text(entry.pw_name),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
            groups: login_groups(entry.pw_name, entry.pw_gid),
            home: text(entry.pw_dir),
            shell: text(entry.pw_shell),
        });
    }
}

/// A string of a found entry; its buffer is still alive.
fn text(chars: *const libc::c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: the C library ends its strings with NUL inside the buffer that the caller keeps.
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}

/// Supplementary groups of a login, sorted, without the primary one.
fn login_groups(name: *const libc::c_char, gid: u32) -> Vec<u32> {
    let mut groups = vec![0 as libc::gid_t; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the name ends with NUL; at most `count` entries are written.
        let fits = unsafe { libc::getgrouplist(name, gid, groups.as_mut_ptr(), &mut count) };
        let wanted = usize::try_from(count).unwrap_or(0);
        if fits < 0 && wanted > groups.len() && groups.len() < 65_536 {
            groups.resize(wanted, 0);
            continue;
        }
        groups.truncate(wanted);
        groups.retain(|&group| group != gid);
        groups.sort_unstable();
        groups.dedup();
        return groups;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_by_id() {
        let root = SystemHost.user_named("root").expect("every machine has root");
        assert_eq!(root.uid, 0);
        assert_eq!(SystemHost.user_with_id(0).map(|user| user.name), Some(root.name));
        assert_eq!(SystemHost.group_named("root").map(|group| group.gid), Some(0));
    }

    #[test]
    fn nobody_has_an_impossible_name() {
        assert_eq!(SystemHost.user_named("no such user"), None);
        assert_eq!(SystemHost.user_named("a\0b"), None);
        assert_eq!(SystemHost.group_named("no such group"), None);
    }
}
