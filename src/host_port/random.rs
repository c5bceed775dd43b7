//! Random addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// Hosts as people write them.
fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9][a-z0-9.-]{0,30}",
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_string()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).to_string()),
        (any::<u16>(), "[a-z0-9]{1,8}").prop_map(|(low, scope)| format!("fe80::{low:x}%{scope}")),
    ]
}

/// Texts that look like addresses.
fn nearly() -> impl Strategy<Value = String> {
    prop_oneof!["[\\[\\]:%a-f0-9.@/ -]{0,24}", any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) })]

    #[test]
    fn p33_what_is_written_is_read_again(host in host(), port in 1u16.., other in any::<u16>()) {
        let address = HostPort { host, port };
        let text = address.to_string();
        prop_assert_eq!(parse(&text, other), address.clone());
        prop_assert_eq!(parse_strictly(&text, other), Ok(address.clone()));
        // Without its port it has the usual one.
        let bare = HostPort { port: other, ..address };
        prop_assert_eq!(parse(&bare.host, other), bare.clone());
        prop_assert_eq!(parse_strictly(&bare.host, other), Ok(bare));
    }

    #[test]
    fn what_is_read_strictly_is_read_so_without(text in nearly(), port in 1u16..) {
        let read = parse(&text, port);
        if let Ok(strict) = parse_strictly(&text, port) {
            prop_assert_eq!(&strict, &read);
            prop_assert!(!strict.host.is_empty());
            prop_assert_eq!(parse_strictly(&strict.to_string(), port), Ok(strict));
        }
    }
}
