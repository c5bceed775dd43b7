use serde_json::json;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// Every `hex` below `value` that holds a whole typed frame with a JSON body.
fn frames(value: &Value, found: &mut Vec<Vec<u8>>) {
    match value {
        Value::Object(map) => {
            if let (Some(hex), Some(_)) = (map.get("hex").and_then(Value::as_str), map.get("decoded")) {
                found.push(bytes(hex)[9..].to_vec());
            }
            map.values().for_each(|v| frames(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| frames(v, found)),
        _ => {}
    }
}

#[test]
fn recorded_texts_are_reproduced_byte_for_byte() {
    let mut found = Vec::new();
    for file in [
        include_str!("../../tests/vectors/p2p-tcp-exchange.json"),
        include_str!("../../tests/vectors/rdma-connection.json"),
    ] {
        frames(&parse(file.as_bytes()).unwrap(), &mut found);
    }
    assert!(found.len() >= 12, "{}", found.len());
    for body in found {
        let text = write(&parse(&body).unwrap()) + "\n";
        assert_eq!(text, String::from_utf8(body).unwrap());
    }
}

#[test]
fn what_jsoncpp_accepts_is_accepted() {
    for (text, value) in [
        (&b"{} xyz"[..], json!({})),
        (b"{\"a\":1,} // c", json!({"a": 1})),
        (b"[1,2,]", json!([1, 2])),
        (b"/* a */ {\"a\" /**/ : // b\n 1}", json!({"a": 1})),
        (b"{\"a\":1,\"a\":{\"b\":2}}", json!({"a": {"b": 2}})),
        (b"\xef\xbb\xbf null", Value::Null),
        (b"18446744073709551615", json!(u64::MAX)),
        (b"9007199254740993", json!(9007199254740993u64)),
        (b"-9223372036854775808", json!(i64::MIN)),
        (b"[1.5,-2e3,007,1]]", json!([1.5, -2000.0, 7, 1])),
        (b"\"\xff\xc3\xa9\"", json!("\u{fffd}é")),
        (b"\"\\ud83d\\ude00 \\u00e9 \\/ \\n\"", json!("😀 é / \n")),
        (b"\"raw\nnewline\"", json!("raw\nnewline")),
        (b"\"\\udc00\"", json!("\u{fffd}")),
        (b"truetrue", json!(true)),
    ] {
        assert_eq!(parse(text).unwrap(), value, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn what_is_not_json_is_malformed() {
    for text in [
        "",
        "  ",
        "hello",
        "'a'",
        "{'a':1}",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{,}",
        "[",
        "[,]",
        "[1",
        "[1 2]",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12",
        "\"\\u12g4\"",
        "\"\\ud83d\"",
        "\"\\ud83d\\u",
        "-",
        "1e",
        "1e999",
        "tru",
        "/",
        "/* x",
        "// x",
        "}",
        "+1",
        "NaN",
        "\u{4}{}",
        "{1:2}",
    ] {
        let error = parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.code(), Code::MalformedJson, "{text}");
    }
}

#[test]
fn nesting_is_limited() {
    assert!(parse(("[".repeat(127) + &"]".repeat(127)).as_bytes()).is_ok());
    let deep = "[".repeat(1 << 20);
    assert_eq!(parse(deep.as_bytes()).unwrap_err().code(), Code::MalformedJson);
}

#[test]
fn no_prefix_of_a_text_panics() {
    let text =
        b"{\"a\":[1,-2.5e+3,\"\\u00e9\\ud83d\\ude00\\n\",true,null],/* c */\"b\":{\"c\":false}} // end";
    for end in 0..text.len() {
        let _ = parse(&text[..end]);
        let _ = parse(&text[end..]);
    }
}

#[test]
fn writer_escapes_like_jsoncpp() {
    let value = json!({"b": "é😀/\u{7f}\u{1}\"\\\n", "a": [null, true, -1, u64::MAX], "": {}});
    let expected = "{\"\":{},\"a\":[null,true,-1,18446744073709551615],\
                    \"b\":\"\\u00e9\\ud83d\\ude00/\u{7f}\\u0001\\\"\\\\\\n\"}";
    assert_eq!(write(&value), expected);
    assert_eq!(parse(write(&value).as_bytes()).unwrap(), value);
}
