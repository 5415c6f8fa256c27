//! The smallest program there is: a static ELF file of some 190 bytes that waits for signals for ever. With an
//! argument it first opens that file (a FIFO) and writes its own pid there, four bytes in the machine's order.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

#[rustfmt::skip]
const CODE: &[u8] = &[
    0x48, 0x83, 0x3c, 0x24, 0x02,                 // cmp qword [rsp], 2
    0x7c, 0x2c,                                   // jl pause
    0x48, 0x8b, 0x7c, 0x24, 0x10,                 // mov rdi, [rsp + 16]
    0xbe, 1, 0, 0, 0, 0xb8, 2, 0, 0, 0, 0x0f, 5,  // open(rdi, O_WRONLY)
    0x89, 0xc3, 0xb8, 39, 0, 0, 0, 0x0f, 5, 0x50, // getpid, pushed
    0x89, 0xdf, 0x48, 0x89, 0xe6,                 // write(fd, rsp, 4)
    0xba, 4, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0x0f, 5,
    0xb8, 34, 0, 0, 0, 0x0f, 5, 0xeb, 0xf7,       // pause, again and again
];

/// Writes it.
pub fn install(path: &Path) -> io::Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Err(io::Error::other("the program is written for x86_64"));
    }
    let size = HEADERS + CODE.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(CODE);
    std::fs::write(path, file)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// The FIFO and who reads it.
pub struct Told {
    /// To be given to the program.
    pub path: PathBuf,
    fifo: std::fs::File,
}

impl Told {
    /// Made in a directory.
    pub fn new(dir: &Path) -> io::Result<Told> {
        let path = dir.join("told");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o622),
            0,
        )?;
        // Open for writing too: the end of file never comes while nobody else has it open.
        let fifo = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Told { path, fifo })
    }

    /// The next pid.
    pub fn next(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.fifo.read_exact(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }
}
