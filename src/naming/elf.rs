// SPDX-License-Identifier: GPL-2.0-only
//! What a 64-bit ELF file says of an address in it. The file is anybody's: it is read, never mapped, since
//! it may be cut short meanwhile; a piece at a time, since its tables may claim any size; and nothing of
//! it is kept but the best match.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

/// Program headers and sections that are looked at.
const SEGMENTS_MAX: usize = 128;
const SECTIONS_MAX: usize = 4096;
/// Symbols of one table that are looked at: the largest programs have some hundred thousand.
const SYMBOLS_MAX: u64 = 1 << 20;
const SYMBOL_BYTES: usize = 24;
/// Symbols that are in memory at a time.
const PIECE: usize = 2048;
/// Longest name as it stands in the file, and what may become of it.
pub const NAME_MAX: usize = 1024;
pub const DEMANGLED_MAX: usize = 4096;
/// Most levels of one that is demangled; of 5,921 names of libstdc++ and LLVM none has more than 48.
const LEVELS_MAX: u32 = 64;

const SEGMENT_LOAD: u32 = 1;
const SECTION_SYMTAB: u32 = 2;
const SECTION_DYNSYM: u32 = 11;
const SYMBOL_FUNCTION: u8 = 2;
const SYMBOL_IFUNCTION: u8 = 10;

/// Bytes that may still be read. When they are used up there are no names until there are more.
#[derive(Debug)]
pub struct Budget(pub u64);

impl Budget {
    fn spend(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.checked_sub(bytes as u64)?;
        Some(())
    }
}

/// A file that is read by pieces, at somebody's expense.
struct Reader<'a> {
    file: &'a File,
    budget: &'a mut Budget,
}

impl Reader<'_> {
    fn exact<const N: usize>(&mut self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.budget.spend(N)?;
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }

    /// As much as there is.
    fn some<'b>(&mut self, at: u64, into: &'b mut [u8]) -> Option<&'b [u8]> {
        self.budget.spend(into.len())?;
        let mut filled = 0;
        while filled < into.len() {
            match self
                .file
                .read_at(&mut into[filled..], at.checked_add(filled as u64)?)
            {
                Ok(0) | Err(_) => break,
                Ok(bytes) => filled += bytes,
            }
        }
        Some(&into[..filled])
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn header(reader: &mut Reader) -> Option<[u8; 64]> {
    let header = reader.exact::<64>(0)?;
    // 64 bits, little endian
    header.starts_with(b"\x7fELF\x02\x01").then_some(header)
}

/// Where in memory the linker wanted byte `offset` of the file.
pub fn virtual_address(file: &File, offset: u64, budget: &mut Budget) -> Option<u64> {
    let mut reader = Reader { file, budget };
    let header = header(&mut reader)?;
    let table = u64_at(&header, 32)?;
    let (size, count) = (u16_at(&header, 54)?, u16_at(&header, 56)?);
    for i in 0..usize::from(count).min(SEGMENTS_MAX) {
        let at = table.checked_add(i as u64 * u64::from(size))?;
        let segment = reader.exact::<56>(at)?;
        let (begin, address) = (u64_at(&segment, 8)?, u64_at(&segment, 16)?);
        let inside = offset
            .checked_sub(begin)
            .filter(|inside| u64_at(&segment, 32).is_some_and(|length| *inside < length));
        if let Some(inside) = inside
            && u32_at(&segment, 0)? == SEGMENT_LOAD
        {
            return address.checked_add(inside);
        }
    }
    None
}

/// A piece of the file.
#[derive(Clone, Copy)]
struct Section {
    offset: u64,
    size: u64,
    link: u32,
}

/// The symbol tables: all symbols if there are, and those for the dynamic linker.
fn tables(reader: &mut Reader, header: &[u8; 64]) -> Option<Vec<(Section, Section)>> {
    let start = u64_at(header, 40)?;
    let (size, count) = (u16_at(header, 58)?, u16_at(header, 60)?);
    let mut section = |i: u64| {
        let at = start.checked_add(i.checked_mul(u64::from(size))?)?;
        let bytes = reader.exact::<64>(at)?;
        let section = Section {
            offset: u64_at(&bytes, 24)?,
            size: u64_at(&bytes, 32)?,
            link: u32_at(&bytes, 40)?,
        };
        Some((u32_at(&bytes, 4)?, section))
    };
    let mut all = None;
    let mut dynamic = None;
    for i in 0..usize::from(count).min(SECTIONS_MAX) {
        match section(i as u64)? {
            (SECTION_SYMTAB, found) => all = all.or(Some(found)),
            (SECTION_DYNSYM, found) => dynamic = dynamic.or(Some(found)),
            _ => {}
        }
    }
    let found = [all, dynamic].into_iter().flatten();
    let with_names = found.filter_map(|symbols| {
        let (_, names) = section(u64::from(symbols.link))?;
        Some((symbols, names))
    });
    Some(with_names.collect())
}

/// Where the name stands of the function around `address`, in the table of names.
fn search(reader: &mut Reader, symbols: Section, address: u64) -> Option<u32> {
    let count = (symbols.size / SYMBOL_BYTES as u64).min(SYMBOLS_MAX);
    let mut piece = vec![0; PIECE * SYMBOL_BYTES];
    let mut best: Option<(u64, u32)> = None;
    let mut done = 0;
    while done < count {
        let wanted = usize::try_from(count - done).ok()?.min(PIECE);
        let at = symbols.offset.checked_add(done * SYMBOL_BYTES as u64)?;
        let bytes = reader.some(at, &mut piece[..wanted * SYMBOL_BYTES])?;
        let whole = bytes.chunks_exact(SYMBOL_BYTES);
        if whole.len() == 0 {
            break;
        }
        done += whole.len() as u64;
        for symbol in whole {
            let kind = symbol[4] & 15;
            let (begin, length) = (u64_at(symbol, 8)?, u64_at(symbol, 16)?);
            let inside = address.checked_sub(begin).is_some_and(|at| at < length);
            let is_function = kind == SYMBOL_FUNCTION || kind == SYMBOL_IFUNCTION;
            let is_defined = u16_at(symbol, 6)? != 0;
            if inside && is_function && is_defined && best.is_none_or(|(at, _)| begin > at) {
                best = Some((begin, u32_at(symbol, 0)?));
            }
        }
    }
    best.map(|(_, name)| name)
}

/// The name of the function around `address`, as a programmer wrote it.
pub fn function(file: &File, address: u64, budget: &mut Budget) -> Option<String> {
    let mut reader = Reader { file, budget };
    let header = header(&mut reader)?;
    for (symbols, names) in tables(&mut reader, &header)? {
        let Some(name) = search(&mut reader, symbols, address) else {
            continue;
        };
        let room = names.size.checked_sub(u64::from(name))?;
        let mut bytes = [0; NAME_MAX];
        let wanted = usize::try_from(room).ok()?.min(NAME_MAX);
        let at = names.offset.checked_add(u64::from(name))?;
        let bytes = reader.some(at, &mut bytes[..wanted])?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(&bytes[..end]).ok()?;
        return (!name.is_empty()).then(|| demangled(name));
    }
    None
}

/// Text of bounded length: the rest is refused.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > DEMANGLED_MAX {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// A C++ name. Who looks for what it may stand for tries again and again at each level, and a name of a program's
/// choice has many: real ones have some dozens at the most.
fn parsed(name: &str) -> cpp_demangle::error::Result<Symbol<&str>> {
    Symbol::new_with_options(name, &ParseOptions::default().recursion_limit(LEVELS_MAX))
}

/// A short mangled name may stand for a very long one: then it stays as it is.
pub fn demangled(name: &str) -> String {
    let mut text = Bounded(String::new());
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        if write!(text, "{rust:#}").is_ok() {
            return text.0;
        }
    } else if let Ok(symbol) = parsed(name)
        && name.starts_with("_Z")
        && symbol
            .structured_demangle(&mut text, &DemangleOptions::new())
            .is_ok()
    {
        return text.0;
    }
    name.to_owned()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Much.
    pub const PLENTY: u64 = 1 << 30;

    /// An ELF file with one load segment, and `symbols` as `(name, address, length)`; `claims` is how many
    /// it says it has.
    pub fn elf(symbols: &[(&str, u64, u64)], claims: u64) -> Vec<u8> {
        let mut names = vec![0_u8];
        let mut table = Vec::new();
        for (name, address, length) in symbols {
            table.extend((names.len() as u32).to_le_bytes());
            table.extend([SYMBOL_FUNCTION, 0, 1, 0]);
            table.extend(address.to_le_bytes());
            table.extend(length.to_le_bytes());
            names.extend(name.as_bytes());
            names.push(0);
        }
        let (sections, segments) = (64_u64, 64 + 3 * 64_u64);
        let (table_at, names_at) = (segments + 56, segments + 56 + table.len() as u64);
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(64, 0);
        file[32..40].copy_from_slice(&segments.to_le_bytes());
        file[40..48].copy_from_slice(&sections.to_le_bytes());
        for (at, value) in [(54, 56_u16), (56, 1), (58, 64), (60, 3)] {
            file[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        let table_size = claims * SYMBOL_BYTES as u64;
        for (kind, offset, size, link) in [
            (0_u32, 0, 0, 0_u32),
            (SECTION_SYMTAB, table_at, table_size, 2),
            (3, names_at, names.len() as u64, 0),
        ] {
            let mut section = vec![0; 64];
            section[4..8].copy_from_slice(&kind.to_le_bytes());
            section[24..32].copy_from_slice(&offset.to_le_bytes());
            section[32..40].copy_from_slice(&size.to_le_bytes());
            section[40..44].copy_from_slice(&link.to_le_bytes());
            file.extend(section);
        }
        let mut segment = vec![0; 56];
        segment[..4].copy_from_slice(&SEGMENT_LOAD.to_le_bytes());
        segment[16..24].copy_from_slice(&0x1000_u64.to_le_bytes());
        segment[32..40].copy_from_slice(&0x10_0000_u64.to_le_bytes());
        file.extend(segment);
        file.extend(table);
        file.extend(names);
        file
    }

    fn file(bytes: &[u8]) -> File {
        // SAFETY: a name that lives as long as the call.
        let fd = unsafe { libc::memfd_create(c"elf".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: just made, and ours alone.
        let file: File = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
        file.write_all_at(bytes, 0).expect("written");
        file
    }

    fn named(bytes: &[u8], address: u64) -> Option<String> {
        function(&file(bytes), address, &mut Budget(PLENTY))
    }

    #[test]
    fn functions_are_found_and_demangled() {
        let bytes = elf(
            &[
                ("main", 0x2000, 0x10),
                ("_ZN3trx4lockEPvb", 0x3000, 0x20),
                ("_RNvC1a1f", 0x4000, 1),
            ],
            3,
        );
        assert_eq!(named(&bytes, 0x200f).as_deref(), Some("main"));
        assert_eq!(named(&bytes, 0x2010), None);
        assert_eq!(
            named(&bytes, 0x3001).as_deref(),
            Some("trx::lock(void*, bool)")
        );
        assert_eq!(named(&bytes, 0x4000).as_deref(), Some("a::f"));
        let at = virtual_address(&file(&bytes), 0x234, &mut Budget(PLENTY));
        assert_eq!(at, Some(0x1234));
    }

    #[test]
    fn a_file_that_claims_more_than_it_has_is_read_as_far_as_it_goes() {
        for claims in [5_000_000, u64::MAX / SYMBOL_BYTES as u64] {
            let bytes = elf(&[("f", 0x2000, 8)], claims);
            let mut budget = Budget(PLENTY);
            let found = function(&file(&bytes), 0x2000, &mut budget);
            assert_eq!(found.as_deref(), Some("f"));
            // one piece, and a look behind it
            assert!(PLENTY - budget.0 < 1 << 20, "{}", PLENTY - budget.0);
        }
    }

    #[test]
    fn five_million_symbols_cost_what_the_bound_says() {
        let many = [("f", 0x2000_u64, 8_u64); PIECE];
        let mut bytes = elf(&many, 5_000_000);
        // a hole: reads as symbols without a name
        let holes = file(&[]);
        let last = bytes.len() as u64 + 5_000_000 * SYMBOL_BYTES as u64;
        holes.write_all_at(&bytes, 0).expect("written");
        holes.set_len(last).expect("long");
        let mut budget = Budget(PLENTY);
        assert_eq!(function(&holes, 0x2000, &mut budget).as_deref(), Some("f"));
        let bound = 26 << 20;
        assert!(PLENTY - budget.0 < bound, "{}", PLENTY - budget.0);
        // and no more than there is to spend
        let mut budget = Budget(1 << 20);
        assert_eq!(function(&holes, 0x9_0000, &mut budget), None);
        assert!(budget.0 < 1 << 16);
        bytes.clear();
    }

    #[test]
    fn cut_anywhere_it_is_still_only_a_file() {
        let whole = elf(&[("main", 0x2000, 0x10)], 1);
        for length in 0..whole.len() {
            named(&whole[..length], 0x2000);
            virtual_address(&file(&whole[..length]), 0, &mut Budget(PLENTY));
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                named(&broken, 0x2000);
            }
        }
    }

    #[test]
    fn a_name_that_takes_long_to_read_stays_as_it_is() {
        // found by the fuzzer: a third of a second for 574 bytes
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/symbol/slow");
        let name = std::fs::read_to_string(path).expect("a name");
        let why = parsed(&name).expect_err("refused");
        assert_eq!(why, cpp_demangle::error::Error::TooMuchRecursion);
        assert_eq!(demangled(&name), name);
    }

    #[test]
    fn a_name_that_grows_without_end_stays_as_it_is() {
        // each S_ doubles what is before it
        let mut name = "_Z1fI1aE".to_owned();
        for _ in 0..100 {
            name += "S_IS_S_E";
        }
        assert!(demangled(&name).len() <= DEMANGLED_MAX);
        let mut rust = "_R".to_owned();
        rust += &"T".repeat(500);
        assert!(demangled(&rust).len() <= DEMANGLED_MAX);
    }
}
