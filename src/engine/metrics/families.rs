//! Metrics as data: families of series, for every form in which they are told.

use std::sync::Arc;

use crate::cluster_key::refusals::{self, CAUSES, PORTS};
use crate::engine::tally::{Direction, Tally, SIZE_CLASSES};
use crate::engine::traffic::ENDS;
use crate::engine::Engine;
use crate::error::Class;
use crate::observe::durations::{self, Timed};
use crate::observe::histogram::Histogram;

/// Series of one name.
pub(super) struct Family {
    /// As Prometheus wants it: the unit, and `_total` for counters, at the end.
    pub name: String,
    /// One line that says what it is.
    pub help: &'static str,
    /// How it is to be read.
    pub kind: Kind,
    /// The series, each with labels of its own.
    pub series: Vec<(Labels, Value)>,
}

/// What kind of numbers a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Values by size.
    Histogram,
}

/// Names and values of labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The value of a series.
pub(super) enum Value {
    /// Of a counter or a gauge.
    Number(u64),
    /// Of a histogram, in the unit that it was counted in.
    Histogram(Histogram),
    /// Of one that was counted in microseconds and is told in seconds.
    Seconds(Histogram),
}

/// Everything that is known. Upstream's families come first, under upstream's names and as upstream counts.
pub(super) fn of(tally: &Tally, engines: &[Arc<Engine>]) -> Vec<Family> {
    let mut families = Vec::new();
    upstreams(&mut families, tally);
    tasks(&mut families, tally);
    timed(&mut families);
    families.push(refused());
    engines_and_transports(&mut families, engines);
    peers(&mut families, engines);
    families.push(queues(engines));
    families
}

fn upstreams(families: &mut Vec<Family>, tally: &Tally) {
    type Number = fn(&Direction) -> u64;
    let numbers: [(&str, [&'static str; 2], Number); 4] = [
        (
            "bytes",
            ["Bytes moved by READs that are COMPLETED", "Bytes moved by WRITEs that are COMPLETED"],
            |d| d.bytes,
        ),
        ("requests", ["READs that have ended", "WRITEs that have ended"], |d| d.requests),
        (
            "failures",
            ["READs that FAILED, other than by time-out", "WRITEs that FAILED, other than by time-out"],
            |d| d.other_failures(),
        ),
        ("timeouts", ["READs that ran out of time", "WRITEs that ran out of time"], |d| d.timeouts()),
    ];
    let sides = [("read", &tally.read), ("write", &tally.write)];
    for (index, (side, direction)) in sides.iter().enumerate() {
        for (what, help, number) in &numbers {
            let name = format!("mooncake_te_{side}_{what}_total");
            families.push(counter(name, help[index], vec![(vec![], number(direction))]));
        }
    }
    for (side, direction) in sides {
        let both = [
            (
                "latency_us",
                "From the submit call to the end of COMPLETED requests, microseconds",
                direction.latency_of_all(),
            ),
            ("size_bytes", "Sizes of COMPLETED requests, bytes", direction.size.clone()),
        ];
        families.extend(both.map(|(what, help, histogram)| Family {
            name: format!("mooncake_te_{side}_{what}"),
            help,
            kind: Kind::Histogram,
            series: vec![(vec![], Value::Histogram(histogram))],
        }));
    }
}

fn tasks(families: &mut Vec<Family>, tally: &Tally) {
    let sides = [("read", &tally.read), ("write", &tally.write)];
    let failures = sides.iter().flat_map(|(side, direction)| {
        Class::NAMES.iter().map(move |(class, name)| {
            (vec![("op", side.to_string()), ("class", name.to_string())], direction.failures[*class as usize])
        })
    });
    families.push(counter(
        "mte_task_failures_total",
        "Requests that FAILED, by what kind of failure",
        failures.collect(),
    ));
    let latencies = sides.iter().flat_map(|(side, direction)| {
        let labels = move |size: &str| vec![("op", side.to_string()), ("size", size.to_string())];
        let classes = SIZE_CLASSES.iter().zip(&direction.latency);
        classes.map(move |((_, size), of_class)| (labels(size), Value::Seconds(of_class.clone())))
    });
    families.push(Family {
        name: "mte_task_duration_seconds".into(),
        help: "From the submit call to the end of COMPLETED requests, by the size that they do not exceed",
        kind: Kind::Histogram,
        series: latencies.collect(),
    });
    let resent = sides.iter().map(|(side, direction)| (vec![("op", side.to_string())], direction.resent));
    families.push(counter(
        "mte_task_resends_total",
        "How often a part of an ended request was sent again",
        resent.collect(),
    ));
}

fn timed(families: &mut Vec<Family>) {
    let so_far = durations::so_far();
    let mut failures = Vec::new();
    for (what, outcomes) in Timed::ALL.iter().zip(so_far) {
        let (name, help) = match what {
            Timed::Handshake => ("handshake", "Exchanges with handshake ports of peers that succeeded"),
            Timed::Store => ("store", "Operations on the metadata store that succeeded"),
            Timed::Registration => {
                ("registration", "Registrations of memory that succeeded, publishing included")
            }
        };
        failures.push((vec![("what", name.to_string())], outcomes.failed));
        families.push(Family {
            name: format!("mte_{name}_seconds"),
            help,
            kind: Kind::Histogram,
            series: vec![(vec![], Value::Seconds(outcomes.done))],
        });
    }
    families.push(counter(
        "mte_control_failures_total",
        "Handshakes, operations on the store and registrations that failed",
        failures,
    ));
}

fn refused() -> Family {
    let so_far = refusals::so_far();
    let ports = PORTS.iter().zip(so_far).flat_map(|((_, port), counts)| {
        let labels = move |cause: &str| vec![("port", port.to_string()), ("cause", cause.to_string())];
        CAUSES.iter().zip(counts).map(move |(cause, count)| (labels(cause), count))
    });
    let help = "Peers refused because they did not prove the cluster key";
    counter("mte_peers_refused_total", help, ports.collect())
}

fn engines_and_transports(families: &mut Vec<Family>, engines: &[Arc<Engine>]) {
    let mut gauges: [Vec<(Labels, u64)>; 5] = Default::default();
    let (mut events, mut nics) = (Vec::new(), [const { Vec::new() }; 3]);
    for engine in engines {
        let own = || vec![("engine", engine.label().to_string())];
        let load = engine.occupation();
        let numbers =
            [load.batches, load.waiting, load.regions, load.segments, usize::from(!engine.is_broken())];
        gauges.iter_mut().zip(numbers).for_each(|(gauge, number)| gauge.push((own(), number as u64)));
        for (transport, stats) in engine.counters() {
            for (event, count) in stats {
                let more = [("transport", transport.to_string()), ("event", event.to_string())];
                events.push((own().into_iter().chain(more).collect(), count));
            }
        }
        for nic in engine.nics() {
            let labels = || own().into_iter().chain([("nic", nic.name.clone())]).collect();
            let numbers = [u64::from(nic.active), nic.inflight_bytes, nic.bandwidth_bps as u64];
            nics.iter_mut().zip(numbers).for_each(|(family, number)| family.push((labels(), number)));
        }
    }
    let [batches, waiting, regions, segments, working] = gauges;
    let [up, inflight, bandwidth] = nics;
    families.extend([
        gauge(
            "mte_engine_up",
            "1; 0 once a call has failed inside the library, so that the engine refuses all others",
            working,
        ),
        gauge("mte_batches", "Batches that are allocated", batches),
        gauge("mte_tasks_waiting", "Requests that have not ended", waiting),
        gauge("mte_regions", "Regions of memory that are registered", regions),
        gauge("mte_segments", "Segments of peers that are open or linger", segments),
        counter(
            "mte_transport_events_total",
            "What transports count; fall-backs begin with fallback",
            events,
        ),
        gauge("mte_nic_up", "1 where the NIC can be used", up),
        gauge("mte_nic_inflight_bytes", "Bytes posted to the NIC and not completed", inflight),
        gauge(
            "mte_nic_bandwidth_bytes_per_second",
            "Measured; the port's rate until something was measured",
            bandwidth,
        ),
    ]);
    let version = vec![(vec![("version", env!("CARGO_PKG_VERSION").to_string())], 1)];
    families.push(gauge("mte_build_info", "The version of this library", version));
}

fn peers(families: &mut Vec<Family>, engines: &[Arc<Engine>]) {
    let (mut bytes, mut tasks, mut resent) = (Vec::new(), Vec::new(), Vec::new());
    for engine in engines {
        for (peer, traffic) in engine.traffic() {
            for (place, op) in ["read", "write"].into_iter().enumerate() {
                let own = [("engine", engine.label()), ("peer", peer.as_str()), ("op", op)];
                let labels = || own.map(|(name, value)| (name, value.to_string())).to_vec();
                bytes.push((labels(), traffic.bytes[place]));
                resent.push((labels(), traffic.resent[place]));
                tasks.extend(ENDS.iter().zip(traffic.ends[place]).map(|(end, count)| {
                    (labels().into_iter().chain([("end", end.to_string())]).collect(), count)
                }));
            }
        }
    }
    families.extend([
        counter("mte_peer_bytes_total", "Bytes of COMPLETED requests, by peer", bytes),
        counter("mte_peer_tasks_total", "Requests that ended, by peer and how", tasks),
        counter(
            "mte_peer_resends_total",
            "How often a part of an ended request was sent again, by peer",
            resent,
        ),
    ]);
}

fn queues(engines: &[Arc<Engine>]) -> Family {
    let queues = engines.iter().flat_map(|engine| {
        engine.queues().into_iter().flat_map(|((transport, peer, queue), (under_way, waiting))| {
            [("under_way", under_way), ("waiting", waiting)].map(|(state, count)| {
                let labels = [
                    ("engine", engine.label()),
                    ("transport", transport),
                    ("peer", &peer),
                    ("queue", &queue),
                    ("state", state),
                ];
                (labels.map(|(name, value)| (name, value.to_string())).to_vec(), count as u64)
            })
        })
    });
    let help = "Requests or pieces of them, by the local NIC or the number of the connection";
    gauge("mte_queue_requests", help, queues.collect())
}

fn counter(name: impl Into<String>, help: &'static str, numbers: Vec<(Labels, u64)>) -> Family {
    family(name.into(), help, Kind::Counter, numbers)
}

fn gauge(name: &str, help: &'static str, numbers: Vec<(Labels, u64)>) -> Family {
    family(name.into(), help, Kind::Gauge, numbers)
}

fn family(name: String, help: &'static str, kind: Kind, numbers: Vec<(Labels, u64)>) -> Family {
    let series = numbers.into_iter().map(|(labels, number)| (labels, Value::Number(number))).collect();
    Family { name, help, kind, series }
}
