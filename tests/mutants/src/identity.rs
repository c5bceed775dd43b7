//! What names a mutant in the record: it stays the same while its function does, whatever changes elsewhere.

use std::collections::BTreeMap;
use std::str::FromStr;

use proc_macro2::{TokenStream, TokenTree};

/// Four bytes of FNV-1a over the tokens of a function, so that comments and layout do not count.
pub fn hash(function: &str) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |text: &str| {
        for byte in text.bytes().chain([b' ']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    match TokenStream::from_str(function) {
        Ok(tokens) => walk(tokens, &mut add),
        Err(_) => add(function),
    }
    (hash ^ (hash >> 32)) as u32
}

fn walk(tokens: TokenStream, add: &mut impl FnMut(&str)) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                add(match group.delimiter() {
                    proc_macro2::Delimiter::Brace => "{",
                    proc_macro2::Delimiter::Bracket => "[",
                    _ => "(",
                });
                walk(group.stream(), add);
                add("end");
            }
            other => add(&other.to_string()),
        }
    }
}

/// Numbers equal kinds of change within one function, in the order of the text.
#[derive(Default)]
pub struct Ordinals(BTreeMap<String, usize>);

impl Ordinals {
    pub fn next(&mut self, kind: &str) -> usize {
        let ordinal = self.0.entry(kind.to_string()).or_default();
        *ordinal += 1;
        *ordinal
    }
}
