//! JSON as jsoncpp reads and writes it, which is what upstream peers and stores speak.
//! Reading is lenient and bounded in depth and memory; writing is compact, sorted, ASCII.

pub mod members;

use std::fmt::{self, Write};

use serde_json::{Map, Number, Value};

use crate::error::{Code, Error, Result};
use crate::runtime::headroom;

/// Deepest nesting accepted; bounds the stack that a peer's text can use. Chosen: descriptors nest five deep.
const MAX_DEPTH: u32 = 128;

/// Memory that any text may unfold into, counted in units, which are values of 32 bytes. Chosen: 2 MiB, which is nothing beside the
/// buffers of an engine.
const FREE_UNITS: usize = 1 << 16;
/// What each byte of a text adds to that, in quarters of a unit. Counted: the shortest buffer of a descriptor unfolds
/// into 24 units and has 35 bytes.
const QUARTERS_PER_BYTE: usize = 3;

/// Bytes of a unit.
const UNIT_BYTES: usize = 32;
/// Units that are taken without a look at how much memory is left. Chosen: 1 MiB, in which the descriptors of most engines
/// unfold.
const UNPROVED_UNITS: usize = 1 << 15;

/// What an object costs beside its values. From std's B-tree: even for one member a node has room for eleven names of
/// 24 bytes and eleven values.
const OBJECT_UNITS: usize = 20;

/// Reads the first value of `bytes`.
///
/// Comments, trailing commas, duplicate keys (the last wins), raw control characters in strings, invalid
/// UTF-8 (replaced) and anything after the value are accepted; integers of 64 bits are exact. Empty text and
/// everything else is `ERR_MALFORMED_JSON`, text that unfolds into much more memory than it has bytes, or than there is,
/// `ERR_MEMORY`.
pub fn parse(bytes: &[u8]) -> Result<Value> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let units = FREE_UNITS + text.len() / 4 * QUARTERS_PER_BYTE;
    let mut parser = Parser { text, at: 0, units, taken: 0, proved: UNPROVED_UNITS };
    parser.value(MAX_DEPTH).map_err(|fault| match fault {
        Fault::Syntax(why) => {
            Error::new(Code::MalformedJson, format!("not JSON at byte {}: {why}", parser.at))
        }
        Fault::Memory => Error::out_of_memory("the values of a JSON text"),
    })
}

enum Fault {
    Syntax(&'static str),
    Memory,
}

type Parsed<T> = std::result::Result<T, Fault>;

fn syntax<T>(why: &'static str) -> Parsed<T> {
    Err(Fault::Syntax(why))
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    /// Units that may still be taken.
    units: usize,
    /// Units taken.
    taken: usize,
    /// So many there was memory for when it was last looked at.
    proved: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: u32) -> Parsed<Value> {
        if depth == 0 {
            return syntax("nested too deeply");
        }
        self.charge(1)?;
        match self.next_token() {
            Some(b'{') => self.object(depth - 1),
            Some(b'[') => self.array(depth - 1),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true", Value::Bool(true)),
            Some(b'f') => self.literal(b"false", Value::Bool(false)),
            Some(b'n') => self.literal(b"null", Value::Null),
            Some(_) => syntax("a value was expected"),
            None => syntax("the text ends before a value"),
        }
    }

    fn object(&mut self, depth: u32) -> Parsed<Value> {
        self.charge(OBJECT_UNITS)?;
        let mut map = Map::new();
        self.at += 1;
        loop {
            match self.next_token() {
                Some(b'}') => break,
                Some(b'"') => {}
                _ => return syntax("a member name or '}' was expected"),
            }
            let key = self.string()?;
            if self.next_token() != Some(b':') {
                return syntax("':' was expected after a member name");
            }
            self.at += 1;
            let value = self.value(depth)?;
            map.insert(key, value);
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return syntax("',' or '}' was expected in an object"),
            }
        }
        self.at += 1;
        Ok(Value::Object(map))
    }

    fn array(&mut self, depth: u32) -> Parsed<Value> {
        let mut items = Vec::new();
        self.at += 1;
        while self.next_token() != Some(b']') {
            let item = self.value(depth)?;
            items.try_reserve(1).map_err(|_| Fault::Memory)?;
            items.push(item);
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return syntax("',' or ']' was expected in an array"),
            }
        }
        self.at += 1;
        Ok(Value::Array(items))
    }

    fn string(&mut self) -> Parsed<String> {
        let mut out = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let Some(run) = rest.iter().position(|b| matches!(b, b'"' | b'\\')) else {
                return syntax("a string has no end");
            };
            append_lossy(&mut out, &rest[..run])?;
            self.at += run + 1;
            if rest[run] == b'"' {
                return Ok(out);
            }
            let c = self.escape()?;
            out.try_reserve(4).map_err(|_| Fault::Memory)?;
            out.push(c);
        }
    }

    fn escape(&mut self) -> Parsed<char> {
        let Some(&byte) = self.text.get(self.at) else {
            return syntax("a string has no end");
        };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4()?;
                let mut unit = u32::from(first);
                if (0xd800..0xdc00).contains(&first) {
                    if !self.text[self.at..].starts_with(b"\\u") {
                        return syntax("half of a surrogate pair is missing");
                    }
                    self.at += 2;
                    let second = u32::from(self.hex4()?);
                    unit = 0x10000 + ((unit & 0x3ff) << 10) + (second & 0x3ff);
                }
                char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return syntax("unknown escape in a string"),
        })
    }

    fn hex4(&mut self) -> Parsed<u16> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or(&[]);
        let mut unit = 0;
        for &digit in digits {
            let Some(nibble) = char::from(digit).to_digit(16) else {
                return syntax("four hex digits were expected after \\u");
            };
            unit = unit << 4 | nibble as u16;
        }
        if digits.is_empty() {
            return syntax("four hex digits were expected after \\u");
        }
        self.at += 4;
        Ok(unit)
    }

    fn number(&mut self) -> Parsed<Value> {
        let start = self.at;
        self.at += usize::from(self.text[start] == b'-');
        self.digits();
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.digits();
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits();
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        if whole {
            let exact =
                text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
            if let Ok(number) = exact {
                return Ok(Value::Number(number));
            }
        }
        match text.parse::<f64>().ok().and_then(Number::from_f64) {
            Some(number) => Ok(Value::Number(number)),
            None => syntax("not a number"),
        }
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &[u8], value: Value) -> Parsed<Value> {
        if !self.text[self.at..].starts_with(word) {
            return syntax("a value was expected");
        }
        self.at += word.len();
        Ok(value)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Moves over blanks and comments; the byte found there is not consumed.
    fn next_token(&mut self) -> Option<u8> {
        loop {
            let rest = &self.text[self.at..];
            self.at += match rest {
                [b' ' | b'\t' | b'\r' | b'\n', ..] => 1,
                [b'/', b'/', ..] => {
                    rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len())
                }
                [b'/', b'*', body @ ..] => {
                    body.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |end| end + 4)
                }
                _ => return rest.first().copied(),
            };
        }
    }

    fn charge(&mut self, units: usize) -> Parsed<()> {
        self.units = self.units.checked_sub(units).ok_or(Fault::Memory)?;
        self.taken += units;
        if self.taken > self.proved {
            self.proved = 2 * self.taken;
            if !headroom::has_room(self.taken * UNIT_BYTES) {
                return Err(Fault::Memory);
            }
        }
        Ok(())
    }
}

fn append_lossy(out: &mut String, run: &[u8]) -> Parsed<()> {
    for chunk in run.utf8_chunks() {
        out.try_reserve(chunk.valid().len() + 4).map_err(|_| Fault::Memory)?;
        out.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Ok(())
}

/// The text of `value` as jsoncpp's compact writer makes it: keys in byte order, no blanks, non-ASCII as
/// `\uXXXX`, no newline at the end.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_value(&mut out, value);
    out
}

/// As [`write()`], behind the bytes of `out`; `ERR_MEMORY` if the text does not fit into memory. For values whose size a caller
/// or a peer decides.
pub fn append(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    struct Growing<'a>(&'a mut Vec<u8>);

    impl Write for Growing<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.try_reserve(text.len()).map_err(|_| fmt::Error)?;
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }

    write_value(&mut Growing(out), value).map_err(|_| Error::out_of_memory("a JSON text"))
}

/// The text of `value` and a newline; `ERR_MEMORY` if it does not fit.
pub fn line(value: &Value) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    append_line(&mut text, value)?;
    Ok(text)
}

/// As [`append`], and a newline.
pub fn append_line(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    append(out, value)?;
    out.try_reserve(1).map_err(|_| Error::out_of_memory("a JSON text"))?;
    out.push(b'\n');
    Ok(())
}

fn write_value(out: &mut impl Write, value: &Value) -> fmt::Result {
    match value {
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.write_char('[')?;
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.write_char(',')?;
                }
                write_value(out, item)?;
            }
            out.write_char(']')
        }
        Value::Object(map) => {
            // The map keeps insertion order if some other crate turns serde_json's feature for that on.
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(key, _)| key.as_bytes());
            out.write_char('{')?;
            for (i, (key, item)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.write_char(',')?;
                }
                write_string(out, key)?;
                out.write_char(':')?;
                write_value(out, item)?;
            }
            out.write_char('}')
        }
        scalar => write!(out, "{scalar}"),
    }
}

fn write_string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    let mut rest = text;
    while let Some(plain) = rest.find(|c| matches!(c, '"' | '\\') || !matches!(c, ' '..='\u{7f}')) {
        out.write_str(&rest[..plain])?;
        let mut chars = rest[plain..].chars();
        if let Some(c) = chars.next() {
            write_escaped(out, c)?;
        }
        rest = chars.as_str();
    }
    out.write_str(rest)?;
    out.write_char('"')
}

fn write_escaped(out: &mut impl Write, c: char) -> fmt::Result {
    match c {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\u{8}' => out.write_str("\\b"),
        '\u{c}' => out.write_str("\\f"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        _ => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}")),
    }
}

#[cfg(test)]
mod tests;
