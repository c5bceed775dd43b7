//! The environment: settings that are misspelt, out of range or without effect, files that they name, and times that do not fit
//! each other.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::finding::Finding;
use crate::cluster_key;
use crate::config::{Config, Stranger};
use crate::tls;

const CHECK: &str = "settings";

/// What the environment has.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// Settings that are set.
    pub count: usize,
    /// What the library says of their values.
    pub warnings: Vec<String>,
    /// Names that nothing reads.
    pub strangers: Vec<Stranger>,
}

impl Settings {
    pub(super) fn read(warnings: Vec<String>) -> Self {
        Settings { count: Config::count_set(), warnings, strangers: Config::strangers() }
    }
}

pub(super) fn findings(settings: &Settings, config: &Config) -> Vec<Finding> {
    let mut found: Vec<Finding> = settings.warnings.iter().map(|warning| of_warning(warning)).collect();
    found.extend(settings.strangers.iter().map(stranger));
    found.extend(missing_files(config));
    found.extend(keys(config));
    found.extend(certificates(config));
    found.extend(times(config));
    if found.is_empty() {
        found.push(Finding::ok(CHECK, format!("{} set, all of them are read", settings.count)));
    }
    found
}

fn of_warning(warning: &str) -> Finding {
    let remedy = match warning.contains(" has no effect") {
        true => "unset it, because nothing reads it here",
        false => "correct or unset it; docs/src/settings.md has the table",
    };
    Finding::warning(CHECK, warning, remedy)
}

fn stranger(stranger: &Stranger) -> Finding {
    let seen = format!("{} is set, and no setting has that name", stranger.name);
    let remedy = match stranger.meant {
        Some(meant) => format!("did you mean {meant}?"),
        None => "correct the name, or unset it if no other program reads it".into(),
    };
    Finding::warning(CHECK, seen, remedy)
}

/// Files and folders that settings name and that are not there.
fn missing_files(config: &Config) -> Vec<Finding> {
    let named = [
        ("MC_CUSTOM_TOPO_JSON", &config.custom_topo_json),
        ("MC_METADATA_CA_FILE", &config.metadata_ca_file),
        ("MC_METADATA_CERT_FILE", &config.metadata_cert_file),
        ("MC_METADATA_KEY_FILE", &config.metadata_key_file),
        ("MC_LOG_DIR", &config.log_dir),
        ("MC_CLUSTER_KEY_FILE", &config.cluster_key_file),
    ];
    let pems = [
        ("MC_TLS_CA_FILE", &config.tls_ca_file),
        ("MC_TLS_CERT_FILE", &config.tls_cert_file),
        ("MC_TLS_KEY_FILE", &config.tls_key_file),
    ];
    let named = named.into_iter().map(|(name, path)| (name, path.as_ref()));
    let named =
        named.chain(pems.into_iter().map(|(name, file)| (name, file.as_ref().map(|file| &file.path))));
    let missing = named.filter_map(|(name, path)| {
        let path = path?;
        let error = std::fs::metadata(path).err()?;
        let remedy = format!("correct {name}, or create what it names");
        Some(Finding::fault(CHECK, format!("{name}={path}: {error}"), remedy))
    });
    missing.collect()
}

/// The cluster key: one that cannot be used keeps engines from starting, and one that is not required keeps nobody out.
fn keys(config: &Config) -> Option<Finding> {
    let named = config.cluster_key_file.as_ref();
    // Told by `missing_files`.
    if named.is_some_and(|path| std::fs::metadata(path).is_err()) {
        return None;
    }
    if let Err(error) = cluster_key::settle(&mut config.clone()) {
        let remedy = "make a key with: openssl rand -hex 32; no engine starts with this one";
        return Some(Finding::fault(CHECK, error.text().to_string(), remedy));
    }
    let mode = named.and_then(|path| Some(std::fs::metadata(path).ok()?.permissions().mode()));
    if mode.is_some_and(|mode| mode & 0o066 != 0) {
        let seen = "MC_CLUSTER_KEY_FILE can be read or written by other users of this host".to_string();
        return Some(Finding::warning(
            CHECK,
            seen,
            "chmod 600 it, and change the key if others have logged in",
        ));
    }
    let has_key = named.is_some() || config.cluster_key.is_some();
    (has_key && config.cluster_key_required == Some(false)).then(|| {
        let seen =
            "MC_CLUSTER_KEY_REQUIRED=0: peers without the cluster key are served all the same".to_string();
        Finding::warning(CHECK, seen, "unset it once every engine has the key")
    })
}

/// TLS between engines, as [`keys`].
fn certificates(config: &Config) -> Option<Finding> {
    let files = [&config.tls_ca_file, &config.tls_cert_file, &config.tls_key_file];
    let mut named = files.iter().filter_map(|file| file.as_ref());
    // Told by `missing_files`.
    if named.any(|file| std::fs::metadata(&file.path).is_err()) {
        return None;
    }
    if let Err(error) = tls::settle(&mut config.clone()) {
        let remedy = "correct the MC_TLS settings or their files; no engine starts with these";
        return Some(Finding::fault(CHECK, error.text().to_string(), remedy));
    }
    let key = config.tls_key_file.as_ref()?;
    let mode = std::fs::metadata(&key.path).ok()?.permissions().mode();
    if mode & 0o066 != 0 {
        let seen = "MC_TLS_KEY_FILE can be read or written by other users of this host".to_string();
        let remedy = "chmod 600 it, and make another key and certificate if others have logged in";
        return Some(Finding::warning(CHECK, seen, remedy));
    }
    (config.tls_required == Some(false)).then(|| {
        let seen = "MC_TLS_REQUIRED=0: peers without TLS are served all the same".to_string();
        Finding::warning(CHECK, seen, "unset it once every engine uses TLS")
    })
}

/// A time that makes another one useless.
struct Pair {
    short: (&'static str, Duration),
    long: (&'static str, Duration),
    /// What happens if the first is not below the second.
    effect: &'static str,
}

/// Pairs of times whose order matters. Defaults are in order.
fn times(config: &Config) -> Vec<Finding> {
    let connect = ("MC_HANDSHAKE_CONNECT_TIMEOUT", config.connect_timeout);
    let exchange = ("MC_HANDSHAKE_TIMEOUT", config.handshake_timeout);
    let stall = ("MC_RDMA_STALL_TIMEOUT_MS", config.rdma_stall_timeout);
    let task = ("MC_RDMA_TASK_TIMEOUT_SEC", config.rdma_task_timeout);
    let liveness = ("MC_TCP_LIVENESS_SEC", config.tcp_liveness);
    let status = ("MC_TCP_STATUS_TIMEOUT_SEC", config.tcp_status_timeout);
    let store = ("MC_METADATA_TIMEOUT_MS", config.metadata_timeout);
    let life = ("MC_METADATA_TTL_SEC", config.metadata_ttl);
    let slice = config.slice_timeout.map(|slice| ("MC_SLICE_TIMEOUT", slice));
    let mut pairs = vec![
        Pair { short: connect, long: exchange, effect: "a handshake ends before its connection may" },
        Pair {
            short: liveness,
            long: status,
            effect: "a request fails before its peer was asked whether it lives",
        },
        Pair { short: store, long: life, effect: "one slow operation of the store loses the engine's keys" },
    ];
    match slice {
        None => pairs.push(Pair {
            short: stall,
            long: task,
            effect: "a request fails before another NIC is tried",
        }),
        Some(slice) => pairs.extend([
            Pair {
                short: connect,
                long: slice,
                effect: "a first transfer fails before its handshake may end",
            },
            Pair { short: stall, long: slice, effect: "a request fails before another NIC is tried" },
        ]),
    }
    let wrong = pairs.into_iter().filter(|pair| pair.short.1 >= pair.long.1);
    let finding = |Pair { short, long, effect }| {
        let seen = format!("{} is {} s, and {} {} s: {effect}", long.0, secs(long.1), short.0, secs(short.1));
        Finding::warning("time-outs", seen, format!("raise {}, or lower {}", long.0, short.0))
    };
    wrong.map(finding).collect()
}

fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::config::Secret;

    #[test]
    fn settings_that_are_read_are_counted() {
        let settings = Settings { count: 3, ..Settings::default() };
        let found = findings(&settings, &Config::default());
        assert!(found.len() == 1 && found[0].level == Level::Ok && found[0].seen.starts_with("3 set"));
    }

    #[test]
    fn what_the_library_warns_of_is_a_warning() {
        let lookup = |name: &str| match name {
            "MC_IB_PORT" => Some("0".into()),
            "MC_USE_TENT" => Some("1".into()),
            _ => None,
        };
        let (config, warnings) = Config::read(lookup);
        let found = findings(&Settings { warnings, ..Settings::default() }, &config);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|finding| finding.level == Level::Warning));
        assert!(found
            .iter()
            .any(|it| it.seen.starts_with("MC_USE_TENT") && it.remedy.starts_with("unset it")));
    }

    #[test]
    fn a_misspelt_name_is_a_warning_with_the_right_one() {
        let stranger = |meant| Stranger { name: "MC_X".into(), meant };
        let strangers = vec![stranger(Some("MC_Y")), stranger(None)];
        let found = findings(&Settings { strangers, ..Settings::default() }, &Config::default());
        assert_eq!(found[0].remedy, "did you mean MC_Y?");
        assert!(found.len() == 2 && found.iter().all(|finding| finding.level == Level::Warning));
    }

    #[test]
    fn a_file_that_is_not_there_is_a_fault() {
        let config = Config { metadata_ca_file: Some("/nonexistent/ca.pem".into()), ..Config::default() };
        let found = missing_files(&config);
        assert!(found.len() == 1 && found[0].level == Level::Fault && found[0].seen.contains("ca.pem"));
    }

    #[test]
    fn a_key_that_protects_nothing_is_told() {
        let key = |text: &str| Config { cluster_key: Some(Secret(text.into())), ..Config::default() };
        assert!(keys(&Config::default()).is_none());
        assert!(keys(&key("0123456789abcdef0123456789abcdef")).is_none());
        let short = keys(&key("short")).unwrap();
        assert!(short.level == Level::Fault && short.seen.contains("5 characters"), "{short:?}");
        let lenient = Config { cluster_key_required: Some(false), ..key("0123456789abcdef0123456789abcdef") };
        assert_eq!(keys(&lenient).unwrap().level, Level::Warning);
        let path = std::env::temp_dir().join(format!("mte-doctor-key-{}", std::process::id()));
        std::fs::write(&path, "0123456789abcdef0123456789abcdef").unwrap();
        let file = Config { cluster_key_file: Some(path.to_str().unwrap().into()), ..Config::default() };
        for (mode, told) in [(0o600, false), (0o640, true), (0o604, true), (0o602, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(keys(&file).is_some(), told, "{mode:o}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn times_that_do_not_fit_are_told_and_the_defaults_fit() {
        let base = Config::default();
        let s = Duration::from_secs;
        assert!(times(&base).is_empty(), "{:?}", times(&base));
        for (config, name) in [
            (Config { slice_timeout: Some(s(4)), ..base.clone() }, "MC_HANDSHAKE_CONNECT_TIMEOUT"),
            (Config { handshake_timeout: s(2), ..base.clone() }, "MC_HANDSHAKE_TIMEOUT"),
            (Config { rdma_task_timeout: s(3), ..base.clone() }, "MC_RDMA_STALL_TIMEOUT_MS"),
            (Config { tcp_status_timeout: s(2), ..base.clone() }, "MC_TCP_LIVENESS_SEC"),
            (Config { metadata_ttl: s(4), ..base.clone() }, "MC_METADATA_TIMEOUT_MS"),
        ] {
            let found = times(&config);
            assert!(found.len() == 1 && found[0].seen.contains(name), "{found:?}");
        }
    }
}
