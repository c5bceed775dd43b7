//! The state of the store in words: which segments there are, when each was last heard of, and what somebody should look at. Nothing is
//! asked of engines: what a server of keys knows is when keys were written, and for how long.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use transfer_engine::tools::page::{
    ago, amount, for_shell, shown, span, Cell, Column, Level, Problem, Status, Table,
};

use super::facts::{Facts, Kind, Segment};
use super::table::{Gone, Seen, Snapshot};

/// Above the page.
pub(super) const TITLE: &str = "Segments of this metadata server";
/// A segment that wrote its key within this time counts as seen. Chosen: engines write at least every 10 s.
const RECENT: Duration = Duration::from_secs(60);
/// Longest table. Chosen: a page of several hundred KiB.
const MOST_ROWS: usize = 500;
/// Most problems that are told one by one. Chosen: a phone shows a handful at once.
const MOST_PROBLEMS: usize = 20;
/// Part of the memory from which on it is told that it runs out.
const NEARLY_FULL: f64 = 0.8;

/// What the server was started with.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Largest value, bytes.
    pub max_value: usize,
    /// Connections at once.
    pub connections: usize,
    /// Whoever reaches it from another host may change keys.
    pub is_open: bool,
}

/// What is known of a segment's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Its key is renewed.
    Alive,
    /// More than half of its lease has passed; engines renew it within a third.
    Late,
    /// Its lease is over.
    Gone,
    /// Its key has no lease: it stays, whatever becomes of the engine.
    Unknown,
}

impl Life {
    fn of(lease: Option<Duration>, last: Option<Duration>) -> Self {
        match (lease, last) {
            (Some(lease), Some(last)) if last > lease / 2 => Life::Late,
            (Some(_), Some(_)) => Life::Alive,
            _ => Life::Unknown,
        }
    }

    fn cell(self) -> Cell {
        let (word, level) = match self {
            Life::Alive => ("alive", Level::Good),
            Life::Late => ("late", Level::Warn),
            Life::Gone => ("gone", Level::Bad),
            Life::Unknown => ("not known", Level::Plain),
        };
        Cell::text(word).with(level)
    }
}

/// A segment, or what was one.
struct Row<'a> {
    cluster: &'a str,
    name: &'a str,
    life: Life,
    lease: Option<Duration>,
    last: Option<Duration>,
    first: Option<Duration>,
    segment: Option<&'a Segment>,
    address: Option<&'a str>,
    /// Why its descriptor says nothing.
    unread: Option<&'static str>,
}

/// The page.
pub(super) fn of(snapshot: &Snapshot, now: Instant, uptime: Duration, limits: &Limits) -> Status {
    let (mut rows, others) = rows(snapshot, now);
    rows.sort_by_key(|row| (Reverse(row.rank()), row.cluster, row.name));
    // Texts are made for those that are shown: there may be millions of keys.
    let mut problems: Vec<Problem> = rows.iter().filter_map(Row::problem).take(MOST_PROBLEMS).collect();
    let more = rows.iter().filter(|row| row.rank() > 0).count().saturating_sub(MOST_PROBLEMS);
    if more > 0 {
        problems.push(problem(
            Level::Warn,
            format!("{more} more."),
            "The table of segments has them.".into(),
        ));
    }
    let (used, most) = snapshot.used;
    if used as f64 > most as f64 * NEARLY_FULL {
        let what =
            format!("{} of {} for keys and values are in use.", amount(used as f64), amount(most as f64));
        let advice = "When all is used, engines cannot publish (status 507): start the server with a larger --max-total.";
        problems.insert(0, problem(Level::Warn, what, advice.into()));
    }
    Status {
        title: TITLE.into(),
        level: level(&rows, &problems),
        summary: summary(&rows),
        tables: vec![segments(&rows), server(snapshot, others, uptime, limits)],
        problems,
    }
}

/// All segments, and how many keys are of another kind.
fn rows(snapshot: &Snapshot, now: Instant) -> (Vec<Row<'_>>, usize) {
    let mut addresses: BTreeMap<(&str, &str), &Seen> = BTreeMap::new();
    let mut rows = Vec::new();
    let mut others = 0;
    for seen in &snapshot.seen {
        match Kind::of(&seen.key) {
            Kind::Segment { cluster, name } => rows.push(Row::of(cluster, name, seen)),
            Kind::Address { cluster, name } => drop(addresses.insert((cluster, name), seen)),
            Kind::Other => others += 1,
        }
    }
    for row in &mut rows {
        row.address = addresses.remove(&(row.cluster, row.owner())).and_then(|seen| address(&seen.facts));
    }
    // Engines that offer nothing yet, as before their first transport.
    rows.extend(addresses.into_iter().map(|((cluster, name), seen)| Row {
        address: address(&seen.facts),
        unread: None,
        ..Row::of(cluster, name, seen)
    }));
    let gone = || snapshot.gone.iter().map(|gone| (Kind::of(&gone.key), gone));
    for (kind, one) in gone() {
        let Kind::Segment { cluster, name } = kind else { continue };
        let mut row = Row::gone(cluster, name, one, now);
        let own = Kind::Address { cluster, name: row.owner() };
        row.address = gone().find(|(kind, _)| *kind == own).and_then(|(_, other)| address(&other.facts));
        rows.push(row);
    }
    (rows, others)
}

fn address(facts: &Option<Arc<Facts>>) -> Option<&str> {
    match facts.as_deref() {
        Some(Facts::Address(address)) => Some(address),
        _ => None,
    }
}

impl<'a> Row<'a> {
    fn of(cluster: &'a str, name: &'a str, seen: &'a Seen) -> Self {
        let (segment, unread) = match seen.facts.as_deref() {
            Some(Facts::Segment(segment)) => (Some(segment), None),
            Some(Facts::Unread(why)) => (None, Some(*why)),
            _ => (None, None),
        };
        let life = Life::of(seen.life, seen.last);
        let (lease, last, first) = (seen.life, seen.last, seen.first);
        Row { cluster, name, life, lease, last, first, segment, address: None, unread }
    }

    fn gone(cluster: &'a str, name: &'a str, gone: &'a Gone, now: Instant) -> Self {
        let segment = match gone.facts.as_deref() {
            Some(Facts::Segment(segment)) => Some(segment),
            _ => None,
        };
        let last = now.saturating_duration_since(gone.at) + gone.life;
        let (life, lease, last) = (Life::Gone, Some(gone.life), Some(last));
        Row { cluster, name, life, lease, last, first: None, segment, address: None, unread: None }
    }

    /// Under which name its address is.
    fn owner(&self) -> &'a str {
        self.segment.map_or(self.name, |segment| &segment.owner)
    }

    /// What is worst first.
    fn rank(&self) -> u8 {
        match self.life {
            Life::Gone => 3,
            Life::Late => 2,
            _ => u8::from(self.unread.is_some()),
        }
    }

    /// With the cluster before it, if there is one.
    fn full_name(&self) -> String {
        match self.cluster {
            "" => shown(self.name),
            cluster => shown(&format!("{cluster}/{}", self.name)),
        }
    }

    fn problem(&self) -> Option<Problem> {
        let name = self.full_name();
        let at = self.address.map(|address| format!(" at {}", shown(address))).unwrap_or_default();
        let last = self.last.map(ago).unwrap_or_default();
        let lease = self.lease.map(span).unwrap_or_default();
        let command = format!("`mte ping {} --metadata http://THIS-SERVER/metadata`", for_shell(self.name));
        // A tool that was killed is nobody's trouble.
        let is_tool = ["mte-ping-", "mte-bench-"].iter().any(|tool| self.name.starts_with(tool));
        let told = match (self.life, self.unread) {
            (Life::Gone | Life::Late, _) if is_tool => return None,
            (Life::Gone, _) => problem(
                Level::Bad,
                format!("{name}{at} is gone: last seen {last}, and its lease of {lease} is over."),
                "If it was not ended on purpose: look at its host and at the state of its process (`ps`; T is stopped, and `kill -CONT` lets it go on), run `mte doctor` there, and start it again.".into(),
            ),
            (Life::Late, _) => problem(
                Level::Warn,
                format!("{name} is late: last seen {last}, with a lease of {lease}."),
                format!("Ask it with {command}; if it does not answer, run `mte doctor` on its host."),
            ),
            (_, Some(why)) => problem(
                Level::Warn,
                format!("{name} has a value that no engine can read: {why}."),
                "See who wrote it; peers that open it get ERR_METADATA or ERR_MALFORMED_JSON.".into(),
            ),
            _ => return None,
        };
        Some(told)
    }

    fn cells(&self) -> Vec<Cell> {
        let none = || Cell::text("–");
        let time = |time: Option<Duration>, words: fn(Duration) -> String| match time {
            Some(time) => Cell::number(words(time), time.as_secs_f64()),
            None => Cell::text(if self.life == Life::Gone { "–" } else { "before this server's start" }),
        };
        let [mut owner, mut protocol, mut nics, mut buffers, mut bytes] = [(); 5].map(|()| none());
        if let Some(segment) = self.segment {
            owner = Cell::text(&segment.owner);
            protocol = Cell::text(&segment.protocol);
            nics = segment.nics.map_or_else(none, |count| Cell::count(count as u64));
            buffers = Cell::count(segment.buffers as u64);
            bytes = Cell::number(amount(segment.bytes as f64), segment.bytes as f64);
        }
        let lease = self
            .lease
            .map_or_else(|| Cell::text("none"), |lease| Cell::number(span(lease), lease.as_secs_f64()));
        vec![
            Cell::text(&self.full_name()),
            self.life.cell(),
            time(self.last, ago),
            time(self.first, span),
            owner,
            self.address.map_or_else(none, Cell::text),
            protocol,
            nics,
            buffers,
            bytes,
            lease,
        ]
    }
}

fn problem(level: Level, what: String, advice: String) -> Problem {
    Problem { level, what, advice }
}

fn level(rows: &[Row<'_>], problems: &[Problem]) -> Level {
    let worst = problems.iter().map(|problem| problem.level).max();
    let known = rows.iter().any(|row| row.life == Life::Alive);
    worst.unwrap_or(if known { Level::Good } else { Level::Plain })
}

/// Without running times, so that it only changes when something does.
fn summary(rows: &[Row<'_>]) -> String {
    let count = |life| rows.iter().filter(|row| row.life == life).count();
    let all = rows.len();
    let recent = |row: &&Row<'_>| row.life != Life::Gone && row.last.is_some_and(|last| last <= RECENT);
    let seen = rows.iter().filter(recent).count();
    let mut text = match (all, seen) {
        (0, _) => {
            return "No segment is here yet: engines appear when they are created with http://THIS-SERVER/metadata as their store."
                .into()
        }
        (1, 1) => "The only segment was seen in the last minute".to_string(),
        (_, seen) if seen == all => format!("All {all} segments were seen in the last minute"),
        _ => format!("{seen} of {all} segments {} seen in the last minute", if seen == 1 { "was" } else { "were" }),
    };
    let is = |number| if number == 1 { "is" } else { "are" };
    let [late, gone, unknown] = [Life::Late, Life::Gone, Life::Unknown].map(count);
    if gone > 0 {
        text += &format!("; {gone} {} gone", is(gone));
    }
    if late > 0 {
        text += &format!("; {late} {} late", is(late));
    }
    if unknown > 0 {
        let have = if unknown == 1 { "has" } else { "have" };
        text += &format!("; {unknown} {have} no lease, so whether the engine lives is not known here");
    }
    text + "."
}

fn segments(rows: &[Row<'_>]) -> Table {
    let columns = [
        "Segment",
        "State",
        "#Last seen",
        "#Age",
        "Owner",
        "Address",
        "Protocol",
        "#NICs",
        "#Buffers",
        "#Bytes offered",
        "#Lease",
    ];
    Table {
        id: "segments",
        caption: "Segments",
        empty: "None.",
        columns: Column::list(&columns),
        rows: rows.iter().take(MOST_ROWS).map(Row::cells).collect(),
        left_out: rows.len().saturating_sub(MOST_ROWS),
    }
}

fn server(snapshot: &Snapshot, others: usize, uptime: Duration, limits: &Limits) -> Table {
    let bytes = |bytes: usize| Cell::number(amount(bytes as f64), bytes as f64);
    let (used, most) = snapshot.used;
    let none = || Cell::text("–");
    let access = match limits.is_open {
        true => Cell::text("whoever reaches it, without a token").with(Level::Warn),
        false => Cell::text("by token, or this host only"),
    };
    let rows = vec![
        vec![Cell::text("Stored, keys and values"), bytes(used), bytes(most)],
        vec![Cell::text("Keys"), Cell::count(snapshot.seen.len() as u64), none()],
        vec![Cell::text("Keys that are none of an engine's"), Cell::count(others as u64), none()],
        vec![
            Cell::text("Largest value"),
            bytes(snapshot.seen.iter().map(|seen| seen.value.len()).max().unwrap_or(0)),
            bytes(limits.max_value),
        ],
        vec![Cell::text("Connections at once"), none(), Cell::count(limits.connections as u64)],
        vec![Cell::text("Who may change keys"), access, none()],
        vec![Cell::text("Runs for"), Cell::number(span(uptime), uptime.as_secs_f64()), none()],
        vec![Cell::text("Version"), Cell::text(env!("CARGO_PKG_VERSION")), none()],
    ];
    let columns = Column::list(&["This server", "#Now", "#Limit"]);
    Table { id: "server", caption: "This server", empty: "", columns, rows, left_out: 0 }
}

#[cfg(test)]
mod tests;
