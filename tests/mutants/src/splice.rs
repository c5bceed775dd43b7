//! A source with the changes of all its sites in it, each behind its switch.

use std::ops::Range;

use crate::sites::{Form, Site};

/// `text` with every site's changes. `number` gives each change, by its identity, the number of its switch. Comments around each site
/// (`/*<s7*/ … /*s7>*/`, with the number of its first change) and each change (`m7`) tell later where an error of the compiler lies.
pub fn splice(text: &str, sites: &[Site], number: &impl Fn(&str) -> u32) -> String {
    let mut order: Vec<&Site> = sites.iter().filter(|site| !site.changes.is_empty()).collect();
    order.sort_by_key(|site| (site.range.start, std::cmp::Reverse(site.range.end)));
    Splice { text, number }.render(0..text.len(), &order)
}

struct Splice<'a, N> {
    text: &'a str,
    number: &'a N,
}

impl<N: Fn(&str) -> u32> Splice<'_, N> {
    /// The text of `range` with the sites that lie in it; those come in order, outer ones before what is inside them.
    fn render(&self, range: Range<usize>, sites: &[&Site]) -> String {
        let mut out = String::new();
        let mut at = range.start;
        let mut left = sites;
        while let Some((site, rest)) = left.split_first() {
            if site.range.start < at || site.range.end > range.end {
                left = rest;
                continue;
            }
            let inside = rest.iter().take_while(|inner| inner.range.start < site.range.end).count();
            out.push_str(&self.text[at..site.range.start]);
            out.push_str(&self.site(site, &rest[..inside]));
            at = site.range.end;
            left = &rest[inside..];
        }
        out + &self.text[at..range.end]
    }

    fn site(&self, site: &Site, inside: &[&Site]) -> String {
        let text = self.text;
        let numbers: Vec<u32> = site.changes.iter().map(|change| (self.number)(&change.identity)).collect();
        let switched = numbers.iter().zip(&site.changes);
        let within = |range: Range<usize>| {
            let inner: Vec<_> =
                inside.iter().copied().filter(|inner| range.contains(&inner.range.start)).collect();
            self.render(range, &inner)
        };
        let changed = match &site.form {
            Form::Body => switched.fold(String::new(), |out, (number, change)| {
                out + &format!(
                    " if crate::mutant::on({number}) {{ /*<m{number}*/{}/*m{number}>*/ }}",
                    change.text
                )
            }),
            Form::Not(inner) => {
                let original = format!("!{}", within(inner.clone()));
                choice(switched.map(|(number, _)| (*number, text[inner.clone()].to_string())), &original)
            }
            Form::Binary(operator) => {
                let (left, right) = (site.range.start..operator.start, operator.end..site.range.end);
                let original =
                    format!("{}{}{}", within(left.clone()), &text[operator.clone()], within(right.clone()));
                let with = |other: &str| format!("{}{other}{}", &text[left.clone()], &text[right.clone()]);
                match (&text[operator.clone()], numbers.as_slice()) {
                    // Nothing has to stand there twice.
                    ("==" | "!=", [number]) => format!("(crate::mutant::on({number}) != ({original}))"),
                    _ => choice(switched.map(|(number, change)| (*number, with(&change.text))), &original),
                }
            }
        };
        let first = numbers[0];
        format!("/*<s{first}*/{changed}/*s{first}>*/")
    }
}

fn choice(changed: impl Iterator<Item = (u32, String)>, original: &str) -> String {
    let branches: String = changed
        .map(|(number, text)| {
            format!("if crate::mutant::on({number}) {{ /*<m{number}*/{text}/*m{number}>*/ }} else ")
        })
        .collect();
    format!("({branches}{{ {original} }})")
}

/// What the innermost comments around a place of a spliced text name: a change (`m7`), or a site (`s7`).
pub fn around(spliced: &str, place: usize) -> Option<(char, u32)> {
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(found) = spliced[at..].find("/*") {
        let start = at + found;
        if start > place {
            break;
        }
        let end = start + spliced[start..].find("*/")?;
        let mark = &spliced[start + 2..end];
        at = start + 2;
        if let Some(name) = mark.strip_prefix('<').and_then(parsed) {
            open.push(name);
        } else if mark.strip_suffix('>').and_then(parsed).is_some_and(|name| open.last() == Some(&name)) {
            open.pop();
        }
    }
    open.pop()
}

fn parsed(name: &str) -> Option<(char, u32)> {
    let kind = name.chars().next().filter(|kind| ['m', 's'].contains(kind))?;
    Some((kind, name[1..].parse().ok()?))
}
