//! Gives back what of the program itself is in memory, once the start is over: most of it nothing else needs.
//!
//! For each page of a program that is touched the kernel maps its neighbours as well, so at the end of the start half of
//! a large program is there, and counts as the agent's. What is needed again comes back from the page cache, page by
//! page.
//! Knows nothing of: when the start is over.

use rustix::mm::{Advice, madvise};
use std::ffi::c_void;
use std::{fs, io};

pub(crate) fn give_back() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    for code in maps.lines().filter_map(Code::read) {
        // SAFETY: it is a mapping of a file that can be executed and not be written, so what is dropped is in the file
        // as it was here; whoever runs there meanwhile waits for the page.
        unsafe { madvise(code.start as *mut c_void, code.bytes, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// A part of a program's file, or of a library's.
#[derive(Debug, PartialEq, Eq)]
struct Code {
    start: usize,
    bytes: usize,
}

impl Code {
    /// `START-END r-xp OFFSET DEVICE INODE PATH`; `None` for anything else.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let is_code = words.next()? == "r-xp" && words.nth(3)?.starts_with('/');
        let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).ok());
        let (start, end) = (start?, end?);
        is_code.then(|| Self {
            start,
            bytes: end.saturating_sub(start),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_given_back() {
        let check = |line: &str, expected: Option<(usize, usize)>| {
            let expected = expected.map(|(start, bytes)| Code { start, bytes });
            assert_eq!(Code::read(line), expected, "{line}");
        };
        check(
            "5639ee000000-5639ee003000 r-xp 006b5000 08:01 393 /usr/bin/portcullis",
            Some((0x5639_ee00_0000, 0x3000)),
        );
        check(
            "7f0000001000-7f0000002000 r-xp 00028000 08:01 394 /usr/lib/libc.so.6",
            Some((0x7f00_0000_1000, 0x1000)),
        );
        for kept in [
            "5639ee003000-5639ee004000 r--p 006b8000 08:01 393 /usr/bin/portcullis",
            "5639ee004000-5639ee005000 rw-p 006b9000 08:01 393 /usr/bin/portcullis",
            "5639ee004000-5639ee005000 rwxp 006b9000 08:01 393 /usr/bin/portcullis",
            "7f0000003000-7f0000004000 r-xp 00000000 00:00 0",
            "7fff40000000-7fff40002000 r-xp 00000000 00:00 0 [vdso]",
            "",
        ] {
            check(kept, None);
        }
    }

    #[test]
    fn the_program_goes_on() {
        give_back().expect("the kernel takes them");
        assert_eq!("1 2 3".split(' ').count(), 3);
    }
}
