//! Which connection requests of a peer were overtaken by what has happened since.

/// What is known of the connection requests of the engine of this project that the rail leads to.
#[derive(Default)]
pub(in crate::transport::rdma) struct Asked {
    incarnation: u64,
    /// The least that is not overtaken.
    number: u64,
}

impl Asked {
    /// Whether the request is newer than the last one of the same engine, or that one again; it is the last one then.
    /// An older one was overtaken: its queue pairs are gone. An incarnation of 0 is unknown, and so is its order.
    ///
    /// Those of another engine are all admitted. Which of the two is the successor nobody can tell: to refuse for good what
    /// seems to be the predecessor would shut the living one out where it was seen first.
    pub(in crate::transport::rdma) fn admits(&mut self, incarnation: u64, number: Option<u64>) -> bool {
        let (Some(number), true) = (number, incarnation != 0) else { return true };
        let admitted = self.incarnation != incarnation || number >= self.number;
        if admitted {
            *self = Asked { incarnation, number };
        }
        admitted
    }

    /// The peer has answered a request of ours when it had made `number` of its own: those are about queue pairs that it has
    /// given up for the ones that it has answered with, or about these.
    pub(in crate::transport::rdma) fn overtake(&mut self, incarnation: u64, number: Option<u64>) {
        let (Some(number), true) = (number, incarnation != 0) else { return };
        let before = if self.incarnation == incarnation { self.number } else { 0 };
        *self = Asked { incarnation, number: before.max(number.saturating_add(1)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p06_what_was_overtaken_is_not_admitted() {
        let mut asked = Asked::default();
        let mut admits = |incarnation, number| asked.admits(incarnation, number);
        assert!(admits(7, Some(5)) && admits(7, Some(5)) && !admits(7, Some(4)));
        assert!(admits(0, Some(0)) && admits(7, None) && !admits(7, Some(4)), "without an order all are");
        assert!(
            admits(8, Some(1)) && admits(7, Some(1)) && admits(8, Some(1)),
            "nobody knows which is the later one"
        );
        asked.overtake(8, Some(3));
        asked.overtake(8, Some(2));
        asked.overtake(0, Some(9));
        asked.overtake(8, None);
        assert!(!asked.admits(8, Some(3)) && asked.admits(8, Some(4)));
        asked.overtake(9, Some(2));
        assert!(!asked.admits(9, Some(2)) && asked.admits(9, Some(3)));
    }
}
