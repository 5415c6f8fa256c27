//! Randomness, hashes, sealing, and passwords.

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs;
use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The SHA-256 of a credential's text. What is compared are hashes of what was guessed, so that the time it takes tells nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// Bytes of the node's sealing key.
const SEAL_BYTES: usize = 32;

/// How the original writes the hash of a password.
const OLD_FORM: &str = "PBKDF2-256$";

/// Rounds of an old hash at most: they come from a file, and each login takes them.
const OLD_ROUNDS_MAX: u32 = 1_000_000;

impl Hash {
    /// Of a text as it was presented.
    pub fn of(text: &str) -> Hash {
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
        Hash(hash)
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash(..)")
    }
}

/// Random bytes as hex digits.
pub fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    fill(&mut random)?;
    Ok(hex(&random))
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| io::Error::other("the system has no randomness"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).ok().filter(|two| two.len() == 2)?, 16).ok())
        .collect()
}

/// Seals what the original's API has to give back: its keys. The key of the seal lies beside the store, not in it.
#[derive(Debug)]
pub struct Seal(LessSafeKey);

impl Seal {
    /// Reads the sealing key, or makes it: a file of 0600 from its first moment.
    pub fn open(path: &Path) -> io::Result<Seal> {
        let mut key = Vec::new();
        match fs::File::open(path) {
            Ok(file) => {
                file.take(SEAL_BYTES as u64 + 1).read_to_end(&mut key)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                key = vec![0; SEAL_BYTES];
                fill(&mut key)?;
                write_new(path, &key)?;
            }
            Err(error) => return Err(error),
        }
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key)
            .map_err(|_| io::Error::other(format!("{} is not {SEAL_BYTES} bytes long", path.display())))?;
        Ok(Seal(LessSafeKey::new(key)))
    }

    /// Seals a text for one credential.
    pub fn seal(&self, id: &str, text: &str) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        fill(&mut nonce)?;
        let mut sealed = text.as_bytes().to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(id), &mut sealed)
            .map_err(|_| io::Error::other("it cannot be sealed"))?;
        let mut all = nonce.to_vec();
        all.append(&mut sealed);
        Ok(all)
    }

    /// The text, if it was sealed by this key for this credential.
    pub fn unseal(&self, id: &str, sealed: &[u8]) -> Option<String> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut rest = rest.to_vec();
        let text = self.0.open_in_place(nonce, Aad::from(id), &mut rest).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// Under another name first, so that there is never half a key.
fn write_new(path: &Path, key: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let _left_over = fs::remove_file(&new);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Hashes a password; takes a noticeable time and 19 MiB, so never on a thread that serves.
pub fn hash_password(password: &str) -> io::Result<String> {
    argon2::Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| io::Error::other(format!("the password cannot be hashed: {error}")))
}

/// Compares a password with its hash, also with one of the original's.
pub fn verify_password(password: &str, hash: &str) -> bool {
    if let Some(rest) = hash.strip_prefix(OLD_FORM) {
        return verify_old(password, rest).is_some();
    }
    PasswordHash::new(hash).is_ok_and(|hash| {
        argon2::Argon2::default()
            .verify_password(password.as_bytes(), &hash)
            .is_ok()
    })
}

/// Should a hash be made anew now that the password is known?
pub fn is_old_form(hash: &str) -> bool {
    hash.starts_with(OLD_FORM)
}

/// `<salt>:<rounds>$<hash>`: HMAC-SHA1, the salt's digits are its bytes.
fn verify_old(password: &str, rest: &str) -> Option<()> {
    let (salted, hash) = rest.split_once('$')?;
    let (salt, rounds) = salted.split_once(':')?;
    let rounds: u32 = rounds.parse().ok().filter(|rounds| *rounds <= OLD_ROUNDS_MAX)?;
    let hash = unhex(hash).filter(|hash| !hash.is_empty())?;
    ring::pbkdf2::verify(
        ring::pbkdf2::PBKDF2_HMAC_SHA1,
        NonZeroU32::new(rounds)?,
        salt.as_bytes(),
        password.as_bytes(),
        &hash,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_comes_back_for_the_same_credential_only() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("access.key");
        let sealed = Seal::open(&path)
            .expect("made")
            .seal("a1", "text")
            .expect("sealed");
        let seal = Seal::open(&path).expect("read");
        assert_eq!(seal.unseal("a1", &sealed).as_deref(), Some("text"));
        assert_eq!(seal.unseal("a2", &sealed), None);
        assert_eq!(seal.unseal("a1", &sealed[..5]), None);
        std::fs::write(&path, b"short").expect("written");
        assert!(Seal::open(&path).is_err());
    }

    #[test]
    fn a_password_is_found_right_in_both_forms() {
        // By Python's hashlib.pbkdf2_hmac("sha1", b"pass:word", b"0123456789abcdef0123456789abcdef", 1000, 24).
        let old = "PBKDF2-256$0123456789abcdef0123456789abcdef:1000$cb87f2b3e7593c9f574953f9aaa9bd7ae88dca51c9ad32b3";
        assert!(verify_password("pass:word", old) && !verify_password("password", old));
        assert!(is_old_form(old));
        let new = hash_password("pass:word").expect("hashed");
        assert!(new.starts_with("$argon2id$") && !is_old_form(&new));
        assert!(verify_password("pass:word", &new) && !verify_password("pass:wor", &new));
        for broken in [
            "",
            "PBKDF2-256$",
            "PBKDF2-256$x:0$00",
            "PBKDF2-256$x:1000$",
            "$argon2id$",
        ] {
            assert!(!verify_password("", broken), "{broken}");
        }
    }
}
