//! A small source with its mutants, and what names them.

use crate::sites::{self, Site};
use crate::splice::{around, splice};

fn found(source: &str) -> Vec<Site> {
    sites::find("src/a.rs", source, &syn::parse_file(source).unwrap())
}

fn identities(source: &str) -> Vec<String> {
    found(source).iter().flat_map(|site| &site.changes).map(|change| change.identity.clone()).collect()
}

/// Numbers the changes of one source in the order of the text, from 1.
fn spliced(source: &str) -> String {
    let order = identities(source);
    let number = |identity: &str| order.iter().position(|known| known == identity).unwrap() as u32 + 1;
    splice(source, &found(source), &number)
}

/// Without the comments that mark places.
fn bare(spliced: &str) -> String {
    let mut out = String::new();
    for (at, piece) in spliced.split("/*").enumerate() {
        out += if at == 0 { piece } else { piece.split_once("*/").unwrap().1 };
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn operators_and_bodies_stand_behind_switches() {
    let cases = [
        ("fn f(a: X, b: X) -> X { a + b }", "fn f(a: X, b: X) -> X { (if crate::mutant::on(1) { a - b } else { a + b }) }"),
        (
            "fn f(a: X) -> X { g(a < 3) }",
            "fn f(a: X) -> X { g((if crate::mutant::on(1) { a <= 3 } else if crate::mutant::on(2) { a >= 3 } else { a < 3 })) }",
        ),
        ("fn f(a: X) -> X { g(a == 3) }", "fn f(a: X) -> X { g((crate::mutant::on(1) != (a == 3))) }"),
        ("fn f(a: X) -> X { g(!a) }", "fn f(a: X) -> X { g((if crate::mutant::on(1) { a } else { !a })) }"),
        ("fn f() { g() }", "fn f() { if crate::mutant::on(1) { return ; } g() }"),
        (
            "fn f() -> bool { g() }",
            "fn f() -> bool { if crate::mutant::on(1) { return true; } if crate::mutant::on(2) { return false; } g() }",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(bare(&spliced(source)), expected);
    }
}

#[test]
fn a_body_that_does_nothing_but_return_that_value_is_left_alone() {
    for source in
        ["fn f(a: X) { let _ = a; }", "fn f(a: X) -> Option<X> { let _ = a; None }", "fn f() -> u8 { 0 }"]
    {
        let others = identities(source).into_iter().filter(|identity| !identity.contains("return:1"));
        assert_eq!(others.count(), 0, "{source}");
    }
    assert_eq!(identities("fn f(a: X) { let _ = a.lock(); }").len(), 1);
}

#[test]
fn what_is_inside_a_changed_operator_is_as_it_was() {
    let source = "fn f(a: X, b: X) -> X { g(a == 1 && !b) }";
    let expected = "fn f(a: X, b: X) -> X { g((if crate::mutant::on(1) { a == 1 || !b } else { \
        (crate::mutant::on(2) != (a == 1)) && (if crate::mutant::on(3) { b } else { !b }) })) }";
    assert_eq!(bare(&spliced(source)), expected);
}

#[test]
fn what_the_compiler_evaluates_and_tests_are_left_alone() {
    let sources = [
        "const A: X = 1 + 2;",
        "static A: [u8; 1 + 2] = [0; 3];",
        "const fn f(a: X) -> X { a + 1 }",
        "fn f(a: X) -> X { let b: [X; 1 + 2] = g(); b }",
        "fn f(a: X) -> X { [0; 1 + 2] }",
        "#[cfg(test)] mod tests { fn f() -> bool { a == b } }",
        "#[cfg(not(feature = \"rdma\"))] fn f() -> bool { a == b }",
        "#[test] fn f() { g() }",
        "fn f() -> bool { const { 1 + 2 == 3 } }",
        "fn f() {}",
    ];
    for source in sources {
        let found = identities(source);
        assert!(found.iter().all(|identity| identity.contains("return:")), "{source}: {found:?}");
    }
    assert!(identities("fn f() -> Option<X> { None }").is_empty());
    assert!(identities("fn f() -> Result<()> { Ok(()) }").is_empty());
    assert_eq!(identities("fn f() -> bool { true }").len(), 1);
}

#[test]
fn every_changed_source_can_be_parsed_again() {
    let source = "impl<T> A<T> { fn f(&self) -> Result<Vec<u8>> { // a < b\n if self.a < 1 && !(self.b) || c() { x += 1; } \
        match y { Y::A if p != q => (0..n - 1).map(move |i| i * 2).collect(), _ => Ok(Vec::new()) } } }";
    let text = spliced(source);
    assert!(syn::parse_file(&text).is_ok(), "{text}");
}

#[test]
fn an_identity_lasts_as_long_as_its_function() {
    let function =
        "impl A { fn f(&self, a: u8) -> u8 { if a == 1 { a + 1 } else if a == 2 { a + 2 } else { 7 } } }";
    let names = identities(function);
    assert!(names.iter().any(|name| name.starts_with("src/a.rs A::f ==:!=#2 ")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("src/a.rs A::f return:1#1 ")), "{names:?}");
    let elsewhere = format!("fn before() -> bool {{ 1 == x }}\n{function}\nfn after() {{}}");
    assert!(names.iter().all(|name| identities(&elsewhere).contains(name)));
    let in_other_lines = function.replace("else", "// why\n else");
    assert_eq!(identities(&in_other_lines), names);
    let changed = function.replace('7', "8");
    assert!(identities(&changed).iter().all(|name| !names.contains(name)));
    let two =
        identities("impl A<u8> { fn f(&self) -> bool { g() } } impl A<u8> { fn f(&self) -> bool { g() } }");
    let distinct: std::collections::BTreeSet<_> = two.iter().collect();
    assert_eq!(distinct.len(), 4, "{two:?}");
}

#[test]
fn a_fault_of_the_compiler_is_found_at_the_innermost_change() {
    let text = spliced("fn f(a: X, b: X) -> X { g(a + h(b - c)) }");
    let place = |piece: &str| text.find(piece).unwrap();
    assert_eq!(around(&text, place("a - h")), Some(('m', 1)));
    assert_eq!(around(&text, place("b + c")), Some(('m', 2)));
    assert_eq!(around(&text, place("fn f")), None);
    let last = text.rfind("b - c").unwrap();
    assert_eq!(around(&text, last), Some(('s', 2)));
}
