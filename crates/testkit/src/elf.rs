//! The smallest programs there are, written by hand: static ELF files of some 150 bytes.
//!
//! Benchmarks compare what a supervisor costs with a bare loop, so the program that is started must cost
//! next to nothing itself, and be the same for both. A compiler is not needed to have one.
//! x86_64 is exercised by the tests; the aarch64 words are from the manual and were never run.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Whose instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// AMD64.
    X86_64,
    /// ARM, 64 bits.
    Aarch64,
}

impl Machine {
    /// The one this program was built for, if we know how to write for it.
    pub fn host() -> Option<Machine> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Machine::X86_64),
            "aarch64" => Some(Machine::Aarch64),
            _ => None,
        }
    }

    fn elf_number(self) -> u16 {
        match self {
            Machine::X86_64 => 62,
            Machine::Aarch64 => 183,
        }
    }
}

/// What a program does before it waits for signals for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First<'a> {
    /// Nothing.
    Nothing,
    /// Opens this file (a FIFO, say) for writing and writes its own pid, four bytes in the machine's order.
    TellPid(&'a str),
}

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// The bytes of a program.
pub fn program(machine: Machine, first: First<'_>) -> Vec<u8> {
    let code = match machine {
        Machine::X86_64 => x86_64(first),
        Machine::Aarch64 => aarch64(first),
    };
    let size = HEADERS + code.len() as u64;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2_u16.to_le_bytes()); // Executable, not position-independent.
    file.extend(machine.elf_number().to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend((BASE + HEADERS).to_le_bytes()); // Entry.
    file.extend(64_u64.to_le_bytes()); // Program headers follow this one.
    file.extend(0_u64.to_le_bytes()); // No sections.
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes()); // PT_LOAD.
    file.extend(5_u32.to_le_bytes()); // Readable and executable.
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// Writes a program for this machine to a file that can be executed.
pub fn install(path: &Path, first: First<'_>) -> io::Result<()> {
    let unknown = || {
        io::Error::new(
            io::ErrorKind::Unsupported,
            "no hand-made program for this machine",
        )
    };
    let machine = Machine::host().ok_or_else(unknown)?;
    std::fs::write(path, program(machine, first))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn x86_64(first: First<'_>) -> Vec<u8> {
    let mut code = Vec::new();
    let mut tail = Vec::new();
    if let First::TellPid(path) = first {
        code.extend(b"\xb8\x27\0\0\0\x0f\x05\x50"); // getpid(), pushed.
        code.extend(b"\xb8\x02\0\0\0"); // open
        code.extend(b"\x48\x8d\x3d\0\0\0\0"); // lea rdi, [rip + path]
        let place = code.len();
        code.extend(b"\xbe\x01\0\0\0\x0f\x05"); // O_WRONLY
        code.extend(b"\x89\xc7\x48\x89\xe6\xba\x04\0\0\0\xb8\x01\0\0\0\x0f\x05"); // write(fd, rsp, 4)
        let pause_len = 9;
        let distance = i32::try_from(code.len() + pause_len - place).unwrap_or(0);
        if let Some(hole) = code.get_mut(place - 4..place) {
            hole.copy_from_slice(&distance.to_le_bytes());
        }
        tail.extend(path.as_bytes());
        tail.push(0);
    }
    code.extend(b"\xb8\x22\0\0\0\x0f\x05\xeb\xf7"); // pause(), again and again.
    code.extend(tail);
    code
}

fn aarch64(first: First<'_>) -> Vec<u8> {
    let mov = |register: u32, value: u32| 0xd280_0000 | value << 5 | register;
    let svc = 0xd400_0001;
    let mut words = Vec::new();
    let mut tail = Vec::new();
    if let First::TellPid(path) = first {
        words.extend([mov(8, 172), svc, 0xb81f_0fe0]); // getpid(), to [sp, -16]!
        words.push(0x9280_0c60); // x0 = AT_FDCWD
        let adr = words.len();
        words.push(0); // adr x1, path
        words.extend([mov(2, 1), mov(8, 56), svc]); // openat(…, O_WRONLY)
        words.extend([0x9100_03e1, mov(2, 4), mov(8, 64), svc]); // write(fd, sp, 4)
        let pause_words = 8;
        let distance = u32::try_from(words.len() + pause_words - adr).unwrap_or(0);
        // The distance is a multiple of four, so the two low bits of `adr` are zero.
        if let Some(hole) = words.get_mut(adr) {
            *hole = 0x1000_0001 | distance << 5;
        }
        tail.extend(path.as_bytes());
        tail.push(0);
    }
    // ppoll(NULL, 0, NULL, NULL, 0), again and again: this machine has no pause().
    words.extend([
        mov(0, 0),
        mov(1, 0),
        mov(2, 0),
        mov(3, 0),
        mov(4, 0),
        mov(8, 73),
        svc,
        0x17ff_fff9,
    ]);
    let mut code: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    code.extend(tail);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_hand_made_program_tells_its_pid_and_ends_on_term() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        std::fs::write(&told, b"").unwrap();
        let program = dir.path().join("program");
        install(&program, First::TellPid(told.to_str().unwrap())).unwrap();
        let mut child = std::process::Command::new(&program).spawn().unwrap();
        let mut bytes = Vec::new();
        crate::wait_until(
            std::time::Duration::from_secs(10),
            "the program writes its pid",
            || {
                bytes.clear();
                std::fs::File::open(&told)
                    .unwrap()
                    .read_to_end(&mut bytes)
                    .unwrap();
                bytes.len() == 4
            },
        );
        assert_eq!(u32::from_ne_bytes(bytes.try_into().unwrap()), child.id());
        crate::process::Handle::open(child.id())
            .unwrap()
            .signal(rustix::process::Signal::TERM);
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn the_idle_program_of_both_machines_is_tiny() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let bytes = program(machine, First::Nothing);
            assert!(
                bytes.starts_with(b"\x7fELF") && bytes.len() < 200,
                "{} bytes",
                bytes.len()
            );
        }
    }
}
