//! Which connection requests of a peer were overtaken by a later one.

/// The last connection request of an engine of this project.
#[derive(Default)]
pub(in crate::transport::rdma) struct Asked {
    incarnation: u64,
    number: u64,
}

impl Asked {
    /// Whether the request is newer than the last one of the same engine, or that one again; it is the last one then.
    /// An older one was overtaken: its queue pairs are gone. An incarnation of 0 is unknown, and so is its order.
    pub(in crate::transport::rdma) fn admits(&mut self, incarnation: u64, number: Option<u64>) -> bool {
        let (Some(number), true) = (number, incarnation != 0) else { return true };
        let admitted = self.incarnation != incarnation || number >= self.number;
        if admitted {
            *self = Asked { incarnation, number };
        }
        admitted
    }
}
