//! The settings of the cluster key. Whatever is wrong with them keeps an engine from being created: one that was to have a key
//! never runs without it.

use super::key::Key;
use crate::config::{Config, Secret};
use crate::error::{Code, Error, Result};

/// Shortest key, bytes. Chosen: 16 random bytes in hexadecimal; whoever sees connections can try keys at leisure.
const LEAST: usize = 32;
/// Longest file of keys, bytes. Chosen: dozens of keys.
const FILE_LIMIT: u64 = 64 << 10;

/// Puts the keys of `MC_CLUSTER_KEY_FILE` where those of `MC_CLUSTER_KEY` are. An error if they cannot be used, or if the environment
/// says otherwise that there should be some.
pub fn settle(config: &mut Config) -> Result<()> {
    settle_among(config, Config::strangers().iter().map(|stranger| stranger.name.as_str()))
}

/// As [`settle`], where `strangers` are the names in the environment that no setting has.
fn settle_among<'a>(config: &mut Config, mut strangers: impl Iterator<Item = &'a str>) -> Result<()> {
    if let Some(name) = strangers.find(|name| name.starts_with("MC_CLUSTER_KEY")) {
        return Err(Error::invalid(format!(
            "{name} is no setting; is MC_CLUSTER_KEY or MC_CLUSTER_KEY_FILE meant? no engine starts that may lack its key"
        )));
    }
    if let Some(path) = &config.cluster_key_file {
        if config.cluster_key.is_some() {
            return Err(Error::invalid("MC_CLUSTER_KEY and MC_CLUSTER_KEY_FILE are both set; unset one"));
        }
        config.cluster_key = Some(Secret(read(path)?));
    }
    let Some(Secret(text)) = &config.cluster_key else {
        return match config.cluster_key_required {
            Some(true) => Err(Error::invalid("MC_CLUSTER_KEY_REQUIRED=1, and there is no MC_CLUSTER_KEY")),
            _ => Ok(()),
        };
    };
    parse(text).map(drop).map_err(|why| {
        let from = if config.cluster_key_file.is_some() { "MC_CLUSTER_KEY_FILE" } else { "MC_CLUSTER_KEY" };
        Error::invalid(format!("{from}: {why}"))
    })
}

fn read(path: &str) -> Result<String> {
    // Not shown where it may be the key itself.
    let shown = if path.contains('/') || path.len() < LEAST { path } else { "of no folder" };
    let failed = |e: &std::io::Error| {
        Error::io(Code::InvalidArgument, format!("cannot read MC_CLUSTER_KEY_FILE '{shown}'"), e)
    };
    let size = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if size > FILE_LIMIT {
        let text = format!("MC_CLUSTER_KEY_FILE '{shown}' has {size} bytes; is it the right file?");
        return Err(Error::invalid(text));
    }
    std::fs::read_to_string(path).map_err(|e| failed(&e))
}

/// The keys in `text`: separated by commas or lines; a line that begins with `#` is none. Never shows one.
pub(super) fn parse(text: &str) -> std::result::Result<Vec<Key>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let keys: Vec<&str> =
        lines.flat_map(|line| line.split(',')).map(str::trim).filter(|key| !key.is_empty()).collect();
    if keys.is_empty() {
        return Err("there is no key; make one with: openssl rand -hex 32".into());
    }
    // What stands for bytes that are no text would be the same for many keys.
    if keys.iter().any(|key| key.contains(char::REPLACEMENT_CHARACTER)) {
        return Err("a key has to be text; make one with: openssl rand -hex 32".into());
    }
    if let Some(at) = keys.iter().position(|key| key.len() < LEAST) {
        let len = keys[at].len();
        return Err(format!(
            "key {} has {len} characters, {LEAST} are the least; make one with: openssl rand -hex 32",
            at + 1
        ));
    }
    Ok(keys.into_iter().map(Key::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";

    fn settled(config: Config) -> Result<Config> {
        let mut config = config;
        settle_among(&mut config, std::iter::empty()).map(|()| config)
    }

    fn with(text: &str) -> Config {
        Config { cluster_key: Some(Secret(text.into())), ..Config::default() }
    }

    #[test]
    fn p38_keys_that_cannot_be_used_are_an_error_that_does_not_show_them() {
        settled(with(OLD)).unwrap();
        settled(with(&format!(" {OLD} ,{OLD}{OLD},"))).unwrap();
        settled(with(&format!("# of the cluster\n{OLD}\n"))).unwrap();
        for (text, word) in [
            ("", "no key"),
            (" ,\n", "no key"),
            ("# a comment that is as long as a key has to be", "no key"),
            ("tooshort", "8 characters"),
            (&format!("{OLD},short"), "key 2"),
            (&format!("{OLD}\u{fffd}"), "text"),
        ] {
            let error = settled(with(text)).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.text().contains(word) && error.text().contains("MC_CLUSTER_KEY"), "{error}");
            assert!(!error.text().contains("short,") && !error.text().contains("tooshort"), "{error}");
        }
    }

    #[test]
    fn p38_what_hints_at_a_key_is_an_error_without_one() {
        settled(Config::default()).unwrap();
        settled(Config { cluster_key_required: Some(false), ..Config::default() }).unwrap();
        let required = settled(Config { cluster_key_required: Some(true), ..Config::default() });
        assert!(required.unwrap_err().text().contains("there is no MC_CLUSTER_KEY"));
        settle_among(&mut Config::default(), ["MC_OTHER"].into_iter()).unwrap();
        let misspelt = settle_among(&mut Config::default(), ["MC_CLUSTER_KEYS"].into_iter()).unwrap_err();
        assert!(misspelt.text().contains("MC_CLUSTER_KEYS"), "{misspelt}");
        assert!(settled(Config { cluster_key_file: Some(String::new()), ..Config::default() }).is_err());
    }

    #[test]
    fn keys_come_from_a_file_too() {
        let path = std::env::temp_dir().join(format!("mte-keys-{}", std::process::id()));
        let at = Some(path.to_str().unwrap().to_string());
        let config = || Config { cluster_key_file: at.clone(), ..Config::default() };
        let missing = settled(config()).unwrap_err();
        assert!(missing.text().contains("MC_CLUSTER_KEY_FILE"), "{missing}");
        std::fs::write(&path, format!("{OLD}\n")).unwrap();
        assert_eq!(settled(config()).unwrap().cluster_key.unwrap().0.trim(), OLD);
        assert!(settled(Config { cluster_key_file: at.clone(), ..with(OLD) })
            .unwrap_err()
            .text()
            .contains("both set"));
        std::fs::write(&path, "").unwrap();
        assert!(settled(config()).unwrap_err().text().contains("no key"));
        std::fs::remove_file(&path).unwrap();
        let mistaken = Config { cluster_key_file: Some(OLD.into()), ..Config::default() };
        assert!(!settled(mistaken).unwrap_err().text().contains(OLD), "a key where the path should be");
    }
}
