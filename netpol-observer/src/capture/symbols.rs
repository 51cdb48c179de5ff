//! The kernel's symbol table: /proc/kallsyms.

use std::sync::Arc;

use crate::flow::Symbol;

/// Functions of the kernel and its modules, by address.
#[derive(Debug, Default)]
pub struct Symbols {
    /// Sorted by address.
    functions: Vec<Function>,
    /// The names, one behind the other.
    names: String,
}

#[derive(Debug)]
struct Function {
    address: u64,
    /// Range in `names`.
    start: u32,
    len: u16,
}

/// Addresses beyond this distance from the last symbol below them belong to nothing known.
const MAX_FUNCTION_LEN: u64 = 1 << 20;

impl Symbols {
    /// Reads the text of /proc/kallsyms: `ffffffff81000000 T _text [module]`.
    ///
    /// Without CAP_SYSLOG (or with kptr_restrict=2) the kernel shows zeros instead of addresses; such lines are left out, so
    /// that the table is then empty.
    pub fn parse(kallsyms: &str) -> Self {
        let mut symbols = Symbols::default();
        for line in kallsyms.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") || name.len() > usize::from(u16::MAX) {
                continue;
            }
            let Ok(start) = u32::try_from(symbols.names.len()) else { break };
            symbols.names.push_str(name);
            symbols.functions.push(Function { address, start, len: name.len() as u16 });
        }
        symbols.functions.sort_by_key(|function| function.address);
        symbols.names.shrink_to_fit();
        symbols
    }

    /// How many functions are known.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether none is: the addresses are hidden from this process.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    fn name(&self, function: &Function) -> &str {
        let start = function.start as usize;
        self.names.get(start..start + usize::from(function.len)).unwrap_or("")
    }

    /// The function `address` lies in.
    pub fn find(&self, address: u64) -> Option<Symbol> {
        let after = self.functions.partition_point(|function| function.address <= address);
        let function = self.functions.get(after.checked_sub(1)?)?;
        let offset = address - function.address;
        (offset < MAX_FUNCTION_LEN).then(|| Symbol { name: Arc::from(self.name(function)), offset })
    }

    /// Address ranges of the functions called `name`, suffixes that the compiler adds (`.isra.0`, `.constprop.0`, `.part.0`,
    /// `.cold`) disregarded. A function ends where the next one begins.
    pub fn ranges<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (u64, u64)> + 'a {
        let is_it = move |function: &Function| {
            self.name(function).strip_prefix(name).is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('.'))
        };
        self.functions.iter().enumerate().filter(move |(_, function)| is_it(function)).map(|(i, function)| {
            // Aliases share an address: the end is the next address that differs.
            let end = self.functions[i..].iter().map(|next| next.address).find(|&next| next > function.address);
            (function.address, end.unwrap_or(function.address + 1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
ffffffff81000000 T _text
ffffffff81000100 t nft_do_chain.isra.0
ffffffff81000100 t nft_alias
ffffffff81000400 T nf_hook_slow
ffffffff81000500 d some_data
ffffffffa0000000 t nfqnl_reinject\t[nfnetlink_queue]
0000000000000000 T hidden
";

    #[test]
    fn finds_the_function_an_address_lies_in() {
        let symbols = Symbols::parse(SAMPLE);
        let found = symbols.find(0xffff_ffff_8100_0410).unwrap();
        assert_eq!((&*found.name, found.offset), ("nf_hook_slow", 0x10));
        assert_eq!(symbols.find(0xffff_ffff_80ff_ffff), None);
        assert_eq!(symbols.find(0xffff_ffff_a100_0000), None, "too far behind the last function");
    }

    #[test]
    fn ranges_disregard_suffixes_and_end_at_the_next_address() {
        let symbols = Symbols::parse(SAMPLE);
        assert_eq!(symbols.ranges("nft_do_chain").collect::<Vec<_>>(), [(0xffff_ffff_8100_0100, 0xffff_ffff_8100_0400)]);
        assert_eq!(symbols.ranges("nft_do").count(), 0, "a prefix is another function");
    }

    #[test]
    fn hidden_addresses_leave_nothing() {
        assert!(Symbols::parse("0000000000000000 T _text\n0000000000000000 t nf_hook_slow\n").is_empty());
        assert!(Symbols::parse("garbage\n\nzz T x\n").is_empty());
    }
}
