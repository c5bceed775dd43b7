//! The metadata store: is it there, how long does it take, may we write, and what does its clock say.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::finding::Finding;
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::host_port::HostPort;
use crate::metadata::{self, Own, Store};
use crate::runtime::control::Control;

const CHECK: &str = "store";
/// A read that takes longer is told. Chosen: a hundred times what one takes within a data centre.
const SLOW: Duration = Duration::from_millis(100);
/// Difference between two clocks that is told. Chosen: a store's date has whole seconds, and logs of two hosts can still be laid
/// side by side.
const SKEW_SECS: u64 = 3;

/// What became of the questions to a store.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    /// How long a read took, or why there was none.
    pub read: std::result::Result<Duration, String>,
    /// How long it took to write, read and remove a key; `None`: not asked for.
    pub write: Option<std::result::Result<Duration, String>>,
    /// The store's clock, and ours when it was read, seconds since 1970.
    pub clocks: Option<(u64, u64)>,
}

/// Asks the store that `connection` names. Blocks for as long as `MC_METADATA_TIMEOUT_MS` allows, for each question.
pub(super) fn findings(connection: Option<&str>, write: bool, config: &Config) -> Vec<Finding> {
    let Some(connection) = connection else {
        return vec![Finding::ok(CHECK, "not asked (--metadata)")];
    };
    if metadata::is_peer_to_peer(connection) {
        return vec![Finding::ok(CHECK, "none: peers are asked directly")];
    }
    match ask(connection, write, config) {
        Ok(answers) => judge(&answers),
        Err(error) => {
            vec![Finding::fault(CHECK, error.text(), "correct the connection string or its settings")]
        }
    }
}

fn ask(connection: &str, write: bool, config: &Config) -> Result<Answers> {
    // Nobody has this name, so nothing of an engine is touched.
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| Error::invalid(format!("no random numbers: {e}")))?;
    let name = format!("mte-doctor-{:016x}", u64::from_ne_bytes(random));
    let own = Own { incarnation: name.clone(), descriptor: Arc::new(|| Value::Null) };
    let store = metadata::open(connection, config, own)?;
    let control = Control::start()?;
    // Attempts within one operation end by then; the rest is for looking names up.
    let limit = config.metadata_timeout + Duration::from_secs(1);
    let (asked, asked_name) = (store.clone(), name.clone());
    let read = timed(&control, limit, async move { reached(asked.rpc_address(&asked_name).await) });
    let clocks = store.clock_secs().zip(now_secs());
    let write = (write && read.is_ok()).then(|| timed(&control, 4 * limit, written(store, name)));
    Ok(Answers { read, write, clocks })
}

/// Runs `question` and says how long it took.
fn timed(
    control: &Control,
    limit: Duration,
    question: impl std::future::Future<Output = Result<()>> + Send + 'static,
) -> std::result::Result<Duration, String> {
    let begun = Instant::now();
    let late = move |_| Error::invalid(format!("no answer within {} s", limit.as_secs()));
    let bounded = async move { tokio::time::timeout(limit, question).await.map_err(late)? };
    control.block(bounded).map(|()| begun.elapsed()).map_err(|error| error.to_string())
}

/// A key that is not there is an answer, too.
fn reached<T>(answer: Result<T>) -> Result<()> {
    match answer {
        Err(error) if error.kind() == Class::Metadata => Ok(()),
        other => other.map(drop),
    }
}

/// Writes a key, which expires by itself where the store can do that, reads it and removes it.
async fn written(store: Arc<dyn Store>, name: String) -> Result<()> {
    let address = HostPort { host: "127.0.0.1".into(), port: 1 };
    store.put_rpc_address(&name, &address).await?;
    let read = store.rpc_address(&name).await;
    // Whatever was read: nothing is left behind.
    store.remove_rpc_address(&name).await?;
    match read? {
        found if found == address => Ok(()),
        found => Err(Error::invalid(format!("wrote {} and read {}", address.host, found.host))),
    }
}

fn now_secs() -> Option<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn judge(answers: &Answers) -> Vec<Finding> {
    let mut found = vec![read(&answers.read)];
    found.extend(answers.write.as_ref().map(written_finding));
    found.extend(answers.clocks.map(|(theirs, ours)| clock(theirs, ours)));
    found
}

fn read(read: &std::result::Result<Duration, String>) -> Finding {
    match read {
        Ok(took) if *took > SLOW => Finding::warning(
            CHECK,
            format!("a read took {} ms", took.as_millis()),
            "look at the store's load and at the way to it: segments open no faster than it answers",
        ),
        Ok(took) => Finding::ok(CHECK, format!("a read took {:.1} ms", took.as_secs_f64() * 1e3)),
        Err(why) => Finding::fault(
            CHECK,
            why.clone(),
            "start the store, or correct its address, firewall or login (docs/src/stores)",
        ),
    }
}

fn written_finding(outcome: &std::result::Result<Duration, String>) -> Finding {
    let check = "store writes";
    match outcome {
        Ok(took) => Finding::ok(
            check,
            format!("a key was written, read and removed in {:.1} ms", took.as_secs_f64() * 1e3),
        ),
        Err(why) => {
            Finding::fault(check, why.clone(), "give this login the right to write, or the store room")
        }
    }
}

fn clock(theirs: u64, ours: u64) -> Finding {
    let check = "store clock";
    let skew = theirs.abs_diff(ours);
    if skew < SKEW_SECS {
        return Finding::ok(check, format!("within {SKEW_SECS} s of ours"));
    }
    let order = if theirs > ours { "ahead of" } else { "behind" };
    Finding::warning(
        check,
        format!("{skew} s {order} ours"),
        "synchronise the clocks of both hosts (chronyc tracking): logs cannot be compared, and certificates may fail",
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn answers_are_judged() {
        let answers = |read: std::result::Result<u64, &str>, clocks| Answers {
            read: read.map(Duration::from_millis).map_err(String::from),
            write: None,
            clocks,
        };
        for (answers, levels) in [
            (answers(Ok(1), Some((100, 101))), &[Level::Ok, Level::Ok][..]),
            (answers(Ok(500), None), &[Level::Warning]),
            (answers(Err("refused"), None), &[Level::Fault]),
            (answers(Ok(1), Some((100, 200))), &[Level::Ok, Level::Warning]),
            (Answers { write: Some(Err("403".into())), ..answers(Ok(1), None) }, &[Level::Ok, Level::Fault]),
        ] {
            let found: Vec<Level> = judge(&answers).iter().map(|finding| finding.level).collect();
            assert_eq!(found, levels, "{answers:?}");
        }
        assert!(clock(100, 200).seen.contains("100 s behind"));
        assert!(clock(200, 100).seen.contains("100 s ahead of"));
    }

    #[test]
    fn without_a_store_nothing_is_asked() {
        for connection in [None, Some("P2PHANDSHAKE")] {
            let found = findings(connection, true, &Config::default());
            assert!(found.len() == 1 && found[0].level == Level::Ok, "{found:?}");
        }
        let found = findings(Some("zookeeper://h"), false, &Config::default());
        assert!(found[0].level == Level::Fault && found[0].seen.contains("zookeeper"), "{found:?}");
    }
}
