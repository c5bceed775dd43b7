//! Random URLs.

use proptest::prelude::*;

use super::*;

fn read(url: &str) -> Result<HostPort> {
    parse(url).and_then(|uri| address(&uri, url))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) })]

    #[test]
    fn p35_a_url_leads_where_it_says(
        secure in any::<bool>(),
        host in prop_oneof!["[a-z][a-z0-9-]{0,20}(\\.[a-z]{1,8})?", "[0-9]{1,2}\\.0\\.0\\.1", "\\[::[0-9a-f]{1,4}\\]"],
        port in prop::option::of(1u16..),
        path in "(/[a-z]{1,9})?",
    ) {
        let (scheme, usual) = if secure { ("https", 443) } else { ("http", 80) };
        let behind = port.map_or(String::new(), |port| format!(":{port}"));
        let found = read(&format!("{scheme}://{host}{behind}{path}")).unwrap();
        prop_assert_eq!(found.host, host.trim_matches(['[', ']']));
        prop_assert_eq!(found.port, port.unwrap_or(usual));
    }

    #[test]
    fn p35_a_bad_url_is_an_error_that_gives_no_login_away(
        user in "[a-z]{1,6}",
        secret in "SECRET[a-z/:#?\\[\\]@%]{0,9}",
        host in "[a-z\\[\\]:@/ ]{0,12}",
    ) {
        let url = format!("http://{user}:{secret}@{host}");
        if let Err(error) = read(&url) {
            prop_assert!(!error.to_string().contains("SECRET"), "{}", error);
        } else {
            prop_assert!(false, "{} has a login", url);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(url in prop_oneof![any::<String>(), "https?://[\\[\\]:@a-z0-9./-]{0,24}"]) {
        if let Ok(found) = read(&url) {
            prop_assert!(!found.host.is_empty() && found.port != 0);
        }
    }
}
