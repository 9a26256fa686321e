// SPDX-License-Identifier: GPL-2.0-only
//! Names of kernel functions and of static locks, from `/proc/kallsyms`.
//!
//! The file is read through once for all addresses that are wanted, and nothing of it is kept but
//! the best match of each. To keep it whole took 11.5 MiB for 122,000 symbols (Debian's 7.3 has 199,000),
//! and 19.5 MiB at its peak; reading them through takes 39 ms, and Debian's 0.7 s under emulation.

use std::io::BufRead;

/// No function is longer: what is further from a symbol is something else.
const FUNCTION_MAX: u64 = 256 << 10;
/// How far inside an object per lock may be to be called by the object's name.
const OBJECT_MAX: u64 = 4096;
/// What compilers append to the name of a function that they have taken apart.
const SUFFIXES: [&str; 5] = [".isra.", ".constprop.", ".part.", ".cold", ".llvm."];

/// A line of `/proc/kallsyms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Symbol<'a> {
    address: u64,
    /// As `nm` has it: `T`, `d`, ...
    kind: u8,
    name: &'a str,
    in_module: bool,
}

fn parse(line: &str) -> Option<Symbol<'_>> {
    let mut words = line.split_ascii_whitespace();
    Some(Symbol {
        address: u64::from_str_radix(words.next()?, 16).ok()?,
        kind: *words.next()?.as_bytes().first()?,
        name: words.next()?,
        in_module: words.next().is_some(),
    })
}

/// `__mutex_lock` of `__mutex_lock.constprop.0`.
fn without_suffix(name: &str) -> &str {
    let cuts = SUFFIXES.iter().filter_map(|suffix| name.find(suffix));
    match cuts.min() {
        Some(cut) if cut > 0 => &name[..cut],
        _ => name,
    }
}

fn is_function(kind: u8) -> bool {
    matches!(kind, b't' | b'T' | b'w' | b'W')
}

fn is_data(kind: u8) -> bool {
    matches!(kind, b'd' | b'D' | b'b' | b'B')
}

/// The last symbol at or before an address.
#[derive(Clone, Debug, Default)]
struct Match {
    address: u64,
    kind: u8,
    name: String,
    in_module: bool,
}

impl Match {
    /// Whether `symbol` is a better one. Of several at one address that one is best which is
    /// no internal name, then the first.
    fn yields_to(&self, symbol: &Symbol) -> bool {
        let internal = |name: &str| name.starts_with('_');
        self.name.is_empty()
            || symbol.address > self.address
            || (symbol.address == self.address && internal(&self.name) && !internal(symbol.name))
    }

    fn set(&mut self, symbol: &Symbol) {
        self.address = symbol.address;
        self.kind = symbol.kind;
        self.name.clear();
        self.name.push_str(symbol.name);
        self.in_module = symbol.in_module;
    }
}

/// Addresses with their matches, in order.
struct Wanted(Vec<(u64, Match)>);

impl Wanted {
    fn new(addresses: impl Iterator<Item = u64>) -> Self {
        let mut all: Vec<u64> = addresses.collect();
        all.sort_unstable();
        all.dedup();
        Self(all.into_iter().map(|at| (at, Match::default())).collect())
    }

    /// Modules are not in order, so each symbol is noted with the first address behind it; the
    /// others learn of it in `finish`.
    fn note(&mut self, symbol: &Symbol) {
        let behind = self.0.partition_point(|(at, _)| *at < symbol.address);
        if let Some((_, best)) = self.0.get_mut(behind)
            && best.yields_to(symbol)
        {
            best.set(symbol);
        }
    }

    fn finish(&mut self) {
        for i in 1..self.0.len() {
            if self.0[i - 1].1.address > self.0[i].1.address {
                self.0[i].1 = self.0[i - 1].1.clone();
            }
        }
    }

    fn get(&self, at: u64) -> Option<&Match> {
        let i = self.0.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        Some(&self.0[i].1).filter(|best| !best.name.is_empty())
    }
}

/// Where the kernel's own data lie.
#[derive(Default)]
struct DataRanges {
    data: (u64, u64),
    bss: (u64, u64),
}

impl DataRanges {
    fn note(&mut self, symbol: &Symbol) {
        match symbol.name {
            "_sdata" => self.data.0 = symbol.address,
            "_edata" => self.data.1 = symbol.address,
            "__bss_start" => self.bss.0 = symbol.address,
            "__bss_stop" => self.bss.1 = symbol.address,
            _ => {}
        }
    }

    fn contain(&self, at: u64) -> bool {
        (self.data.0..self.data.1).contains(&at) || (self.bss.0..self.bss.1).contains(&at)
    }
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Return address → function that it lies in.
    pub functions: Vec<(u64, String)>,
    /// Address → static object that begins there, `name`, or has it inside, `name+0x10`.
    pub objects: Vec<(u64, String)>,
    /// All addresses were 0: the kernel shows none.
    pub hidden: bool,
}

/// Looks for the functions that `calls` return to, and for the objects at `data`.
///
/// # Errors
/// `kallsyms` cannot be read.
pub fn look_up(kallsyms: impl BufRead, calls: &[u64], data: &[u64]) -> std::io::Result<Found> {
    // a call at the very end of a function returns to the next one: look a byte before
    let mut functions = Wanted::new(calls.iter().map(|at| at.saturating_sub(1)));
    let mut objects = Wanted::new(data.iter().copied());
    let mut ranges = DataRanges::default();
    let mut shown = false;
    let mut read = kallsyms;
    let mut line = String::new();
    while read.read_line(&mut line)? > 0 {
        if let Some(symbol) = parse(&line) {
            shown |= symbol.address != 0;
            if is_function(symbol.kind) {
                functions.note(&symbol);
            }
            objects.note(&symbol);
            if !symbol.in_module {
                ranges.note(&symbol);
            }
        }
        line.clear();
    }
    functions.finish();
    objects.finish();
    let function = |at: &u64| {
        let best = functions.get(at.saturating_sub(1))?;
        let near = at - best.address <= FUNCTION_MAX;
        near.then(|| (*at, without_suffix(&best.name).to_owned()))
    };
    let object = |at: &u64| {
        let best = objects.get(*at)?;
        let (inside, is_ours) = (at - best.address, best.in_module || ranges.contain(*at));
        if !is_data(best.kind) || !is_ours || inside >= OBJECT_MAX {
            return None;
        }
        let name = match inside {
            0 => best.name.clone(),
            _ => format!("{}+{inside:#x}", best.name),
        };
        Some((*at, name))
    };
    Ok(Found {
        functions: calls.iter().filter_map(function).collect(),
        objects: data.iter().filter_map(object).collect(),
        hidden: !shown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000100 t __mutex_lock.constprop.0
ffffffff81000200 T mutex_lock
ffffffff81000300 r some_table
ffffffff82000000 D _sdata
ffffffff82000100 D cgroup_mutex
ffffffff82000120 d lock.12
ffffffff82001000 D _edata
ffffffff82002000 B __bss_start
ffffffff82002400 b zeroes
ffffffff82003000 B __bss_stop
ffffffff82003000 B _end
ffffffffc0300000 t do_something.isra.0.cold\t[xfs]
ffffffffc0400000 d xfs_mutex\t[xfs]
ffffffffc0200000 t earlier_module\t[ext4]
";

    fn found(calls: &[u64], data: &[u64]) -> Found {
        look_up(TEXT.as_bytes(), calls, data).expect("text")
    }

    fn functions(calls: &[u64]) -> Vec<String> {
        let all = found(calls, &[]).functions.into_iter();
        all.map(|(_, name)| name).collect()
    }

    fn object(at: u64) -> Option<String> {
        found(&[], &[at]).objects.pop().map(|(_, name)| name)
    }

    #[test]
    fn a_call_returns_to_the_function_that_it_is_in() {
        assert_eq!(functions(&[0xffff_ffff_8100_0108]), ["__mutex_lock"]);
        assert_eq!(functions(&[0xffff_ffff_8100_0201]), ["mutex_lock"]);
        assert_eq!(
            functions(&[0xffff_ffff_8100_0200]),
            ["__mutex_lock"],
            "its last"
        );
        assert_eq!(functions(&[0xffff_ffff_8100_0008]), ["startup_64"]);
        // many at once, in no order, modules included
        let calls = [0xffff_ffff_c030_0010, 0x55, 0xffff_ffff_c020_0010];
        assert_eq!(functions(&calls), ["do_something", "earlier_module"]);
        let behind_all = [0xffff_ffff_8100_0210, 0xffff_ffff_8100_0220];
        assert_eq!(functions(&behind_all), ["mutex_lock", "mutex_lock"]);
        assert!(functions(&[0xffff_ffff_a000_0000]).is_empty(), "too far");
    }

    #[test]
    fn static_locks_have_the_name_of_their_object() {
        assert_eq!(
            object(0xffff_ffff_8200_0100).as_deref(),
            Some("cgroup_mutex")
        );
        assert_eq!(
            object(0xffff_ffff_8200_0130).as_deref(),
            Some("lock.12+0x10")
        );
        assert_eq!(object(0xffff_ffff_8200_2400).as_deref(), Some("zeroes"));
        assert_eq!(object(0xffff_ffff_c040_0000).as_deref(), Some("xfs_mutex"));
    }

    #[test]
    fn what_is_no_static_object_gets_no_name() {
        let none = [
            0xffff_8880_0000_1230, // allocated
            0xffff_ffff_8100_0210, // a function
            0xffff_ffff_8200_3010, // behind the kernel's data
            0xffff_ffff_c040_1000, // behind a module's
            0xffff_ffff_8200_1fff, // between the two
        ];
        for at in none {
            assert_eq!(object(at), None, "{at:#x}");
        }
    }

    #[test]
    fn hidden_addresses_are_recognised() {
        let hidden = "0000000000000000 T _text\n0000000000000000 D _sdata\n";
        let found = look_up(
            hidden.as_bytes(),
            &[0xffff_ffff_8100_0108],
            &[0xffff_ffff_8200_0100],
        );
        let expected = Found {
            hidden: true,
            ..Found::default()
        };
        assert_eq!(found.expect("text"), expected);
        assert!(!self::found(&[], &[]).hidden);
    }

    #[test]
    fn suffixes_are_stripped_and_nothing_else() {
        for (name, short) in [
            ("foo.isra.0", "foo"),
            ("foo.constprop.0.isra.3", "foo"),
            ("foo.part.0.cold", "foo"),
            ("foo.cold", "foo"),
            ("foo", "foo"),
            ("foo.bar", "foo.bar"),
            (".cold", ".cold"),
        ] {
            assert_eq!(without_suffix(name), short);
        }
    }
}
