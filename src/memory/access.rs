//! What peers may do with a region.

/// Any of reading and writing, or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerAccess(u8);

impl PeerAccess {
    /// Peers do not reach it.
    pub const NONE: PeerAccess = PeerAccess(0);
    /// Peers read it.
    pub const READ: PeerAccess = PeerAccess(1);
    /// Peers write it.
    pub const WRITE: PeerAccess = PeerAccess(2);
    /// Peers read and write it.
    pub const BOTH: PeerAccess = PeerAccess(3);

    /// The access with these bits: 1 to read, 2 to write. `None`: there are others among them.
    pub fn of_bits(bits: i64) -> Option<Self> {
        u8::try_from(bits).ok().filter(|bits| bits & !Self::BOTH.0 == 0).map(PeerAccess)
    }

    /// All of `wanted` is allowed, which is something.
    pub fn allows(self, wanted: PeerAccess) -> bool {
        wanted != Self::NONE && self.0 & wanted.0 == wanted.0
    }

    /// Peers reach it for something.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// As `remote_accessible` of Mooncake's functions: both or nothing.
impl From<bool> for PeerAccess {
    fn from(is_accessible: bool) -> Self {
        match is_accessible {
            true => Self::BOTH,
            false => Self::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_allows_what_it_names_and_nothing_else() {
        use PeerAccess as Access;
        for (has, allowed) in [
            (Access::NONE, [false; 3]),
            (Access::READ, [true, false, false]),
            (Access::WRITE, [false, true, false]),
            (Access::BOTH, [true; 3]),
        ] {
            assert_eq!([Access::READ, Access::WRITE, Access::BOTH].map(|wanted| has.allows(wanted)), allowed);
            assert!(!has.allows(Access::NONE));
            assert_eq!(has.is_some(), has != Access::NONE);
        }
    }

    #[test]
    fn bits_without_a_meaning_are_no_access() {
        let all = [Access::NONE, Access::READ, Access::WRITE, Access::BOTH];
        assert_eq!([0, 1, 2, 3].map(PeerAccess::of_bits), all.map(Some));
        for bits in [-1, 4, 5, 256, 257, i64::MIN] {
            assert_eq!(PeerAccess::of_bits(bits), None, "{bits}");
        }
    }

    use PeerAccess as Access;
}
