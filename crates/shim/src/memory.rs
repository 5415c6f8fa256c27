//! What a process that rests gives back.
//!
//! Loading a thousand jobs, or starting a thousand runs, takes memory that is free afterwards and still counted as ours,
//! and touches program text that is not needed again soon. Both go back to the system in one call; text comes again by
//! itself, page by page, out of the page cache.

use std::io;

/// Gives free heap and untouched text back. Cheap enough for once in a while, not for a hot path.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    // Without it we are only counted larger.
    let _ = unmap_text();
}

/// Text, and what lies before it in the program (constants, tables of the linker), is never written to: what is dropped
/// is read again when it is needed again. What comes behind the text may hold relocated data that is ours alone.
fn unmap_text() -> io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [range, access, .., path] = fields[..] else {
            continue;
        };
        if path != program {
            continue;
        }
        if !matches!(access, "r--p" | "r-xp") {
            break;
        }
        let number = |text| usize::from_str_radix(text, 16).ok();
        let bounds = range
            .split_once('-')
            .and_then(|(begin, end)| Some((number(begin)?, number(end)?)));
        if let Some((begin, end)) = bounds {
            // SAFETY: a mapping of a file that is only read; dropping its pages changes nothing that can be seen.
            unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_DONTNEED) };
        }
        if access == "r-xp" {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_program_goes_on_after_it_has_given_back_its_text() {
        super::unmap_text().expect("maps of our own");
        super::give_back();
        assert_eq!((0..1000).map(|n| n.to_string().len()).sum::<usize>(), 2890);
    }
}
