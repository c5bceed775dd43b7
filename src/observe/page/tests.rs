use std::time::Duration;

use hyper::header::{HeaderMap, HeaderValue, HOST};
use hyper::Response;

use super::*;

/// What a stranger would call a segment.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&{{nonce}}</script>";

fn status(name: &str) -> Status {
    Status {
        title: "T".into(),
        level: Level::Bad,
        summary: format!("{name} is gone"),
        problems: vec![Problem {
            level: Level::Bad,
            what: name.into(),
            advice: format!("Ask `mte ping {name}`."),
        }],
        tables: vec![
            Table {
                id: "a",
                caption: "Full",
                empty: "Nothing.",
                columns: Column::list(&["Name", "#Bytes"]),
                rows: vec![vec![Cell::text(name), Cell::count(7).with(Level::Warn)]],
                left_out: 2,
            },
            Table {
                id: "b",
                caption: "Empty",
                empty: "Nothing.",
                columns: Column::list(&["Name"]),
                rows: vec![],
                left_out: 0,
            },
        ],
    }
}

#[test]
fn what_others_named_is_text_and_no_element() {
    let page = html("T", Some(&status(HOSTILE)), "0123");
    let text = "&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;{{nonce}}&lt;/script&gt;";
    // In the summary, the problem, its advice and the cell.
    assert_eq!((page.matches(text).count(), page.matches("<img").count()), (4, 0), "{page}");
    // Every place of the page is filled, and what was put in stays as it is.
    assert_eq!(page.matches("{{").count(), 4);
    assert_eq!(page.matches("nonce=\"0123\"").count(), 2);
    assert_eq!(page.matches("<script").count(), 1);
}

#[test]
fn a_page_without_javascript_has_tables_for_screen_readers() {
    let page = html("T", Some(&status("node")), "0");
    for part in [
        "<html lang=\"en\" data-access=\"open\">",
        "<noscript>",
        "<main>",
        "<h2 id=\"a-head\">Full</h2>",
        "<th scope=\"col\" role=\"columnheader\">Name</th>",
        "<th scope=\"row\" role=\"rowheader\" data-level=\"plain\" data-column=\"Name\" class=\"short\">node</th>",
        "<td role=\"cell\" data-level=\"warn\" data-column=\"Bytes\" class=\"number short\">7</td>",
        "<p>Ask <code>mte ping node</code>.</p>",
        "<p>2 more are not shown.</p>",
        "<h2 id=\"b-head\">Empty</h2><p>Nothing.</p>",
        "aria-live=\"polite\" data-level=\"bad\">node is gone</p>",
    ] {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
}

#[test]
fn a_page_whose_data_needs_a_token_has_none() {
    let page = html("T", None, "0");
    assert!(page.contains("data-access=\"token\"") && !page.contains("<td"), "{page}");
    assert!(page.contains("<div id=\"content\"></div>"), "{page}");
}

#[test]
fn a_page_is_small_and_asks_nobody_else() {
    let page = html("T", None, "0");
    assert!(page.len() < 20 << 10, "{} bytes", page.len());
    for part in [
        "//cdn",
        "http://",
        "https://",
        "@import",
        "url(",
        "innerHTML",
        "insertAdjacent",
        "style=\"",
        " onclick",
    ] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn the_script_reads_what_the_page_shows() {
    let json: serde_json::Value = serde_json::from_str(&status(HOSTILE).json()).unwrap();
    assert_eq!((&json["level"], &json["problems"][0]["what"]), (&"bad".into(), &HOSTILE.into()));
    let table = &json["tables"][0];
    assert_eq!((&table["id"], &table["left_out"]), (&"a".into(), &2.into()));
    assert_eq!(
        (&table["columns"][1]["name"], &table["columns"][1]["number"]),
        (&"Bytes".into(), &true.into())
    );
    assert_eq!(table["rows"][0][0], serde_json::json!({"text": HOSTILE, "value": null, "level": "plain"}));
    assert_eq!(table["rows"][0][1], serde_json::json!({"text": "7", "value": 7.0, "level": "warn"}));
}

#[test]
fn answers_are_kept_from_other_pages() {
    let header = |response: &Response<()>, name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_string()).unwrap_or_default()
    };
    let mut page = Response::new(());
    let mark = nonce().unwrap();
    assert!(mark.len() == 32 && nonce().unwrap() != mark);
    protect(&mut page, Some(&mark));
    let policy = header(&page, "content-security-policy");
    for part in [
        "default-src 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        &format!("script-src 'nonce-{mark}'"),
        &format!("style-src 'nonce-{mark}'"),
    ] {
        assert!(policy.split("; ").any(|found| found == part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let mut data = Response::new(());
    protect(&mut data, None);
    assert!(!header(&data, "content-security-policy").contains("script-src"));
    for response in [&page, &data] {
        assert_eq!(header(response, "x-content-type-options"), "nosniff");
        assert_eq!(header(response, "referrer-policy"), "no-referrer");
        assert_eq!(header(response, "cache-control"), "no-store");
        assert_eq!(header(response, "cross-origin-resource-policy"), "same-origin");
    }
}

#[test]
fn a_name_that_is_not_ours_is_no_name_of_this_server() {
    let names = ["node-7".to_string(), "Status.example".to_string()];
    let asked = |hosts: &[&str]| {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        is_addressed(&headers, &names)
    };
    for host in [
        "127.0.0.1",
        "10.1.2.3:9400",
        "[::1]",
        "[fe80::1]:80",
        "[fe80::1%eth0]:80",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "node-7:9400",
        "status.example.",
    ] {
        assert!(asked(&[host]), "{host}");
    }
    for host in [
        "",
        "evil.example",
        "evil.example:9400",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "node-7.evil.example",
        "127.0.0.1:x",
        "127.0.0.1:80:90",
        "::1",
        "[127.0.0.1]",
        "[localhost]",
        "[::1",
        "[::1]x",
        "evil@127.0.0.1",
        "127.0.0.1/",
    ] {
        assert!(!asked(&[host]), "{host}");
    }
    // Older clients, which are no browsers, name nobody; who names two is no client.
    assert!(asked(&[]) && !asked(&["127.0.0.1", "evil.example"]));
}

#[test]
fn names_are_shown_so_that_they_deceive_nobody() {
    for (text, seen) in [
        ("node-7", "node-7"),
        ("<b>ä", "<b>ä"),
        ("a\nb\u{202e}c\u{200b}", "a\\u{a}b\\u{202e}c\\u{200b}"),
        (&"x".repeat(300), &format!("{}…", "x".repeat(200))),
    ] {
        assert_eq!(shown(text), seen);
    }
    for (name, command) in [
        ("node-7:1", "node-7:1"),
        ("a/b", "a/b"),
        ("$(reboot)", "NAME"),
        ("a b", "NAME"),
        ("a\nb", "NAME"),
        ("-x", "NAME"),
        ("", "NAME"),
    ] {
        assert_eq!(for_shell(name), command);
    }
}

#[test]
fn numbers_are_told_in_fitting_units() {
    for (bytes, text) in
        [(0.0, "0 B"), (1023.0, "1023 B"), (1024.0, "1.0 KiB"), (67108864.0, "64.0 MiB"), (2e9, "1.9 GiB")]
    {
        assert_eq!(amount(bytes), text);
    }
    for (secs, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")] {
        assert_eq!(span(Duration::from_secs(secs)), text);
    }
    assert_eq!(ago(Duration::from_millis(1999)), "1 s ago");
}
