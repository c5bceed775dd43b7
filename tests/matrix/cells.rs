//! What the matrix consists of: transports, faults, moments, and what becomes of the transfers where they meet.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Killed,
    Restarted,
    Stopped,
    Left,
    UnregisteredThere,
    UnregisteredHere,
    UnmappedHere,
    NicDown,
    Dropped,
}

impl Fault {
    /// For the page.
    pub fn text(self) -> &'static str {
        match self {
            Fault::Killed => "the peer is killed",
            Fault::Restarted => "the peer is killed, and started anew under its name",
            Fault::Stopped => "the peer is stopped (SIGSTOP), and goes on later",
            Fault::Left => "the peer destroys its engine",
            Fault::UnregisteredThere => "the memory is unregistered at the peer",
            Fault::UnregisteredHere => "the memory is unregistered here",
            Fault::UnmappedHere => "the memory here is not mapped any more, and still registered",
            Fault::NicDown => "a NIC of this side goes down",
            Fault::Dropped => "no packet arrives any more, over any NIC",
        }
    }
}

/// What is going on when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A first transfer was submitted, and there is no connection yet.
    Connecting,
    Writing,
    Reading,
    /// After transfers; the next ones are submitted afterwards.
    Idle,
}

impl Moment {
    pub const ALL: [Self; 4] = [Moment::Connecting, Moment::Writing, Moment::Reading, Moment::Idle];

    /// For the page.
    pub fn text(self) -> &'static str {
        match self {
            Moment::Connecting => "while it connects",
            Moment::Writing => "under WRITEs",
            Moment::Reading => "under READs",
            Moment::Idle => "between transfers",
        }
    }
}

/// What becomes of the transfers. The classes are those of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// All arrive.
    GoesOn,
    /// Some fail, or the next submit call is refused, each with one of these classes.
    Fails(&'static [&'static str]),
    /// As one or the other: it depends on how far the connection was.
    May(&'static [&'static str]),
}
