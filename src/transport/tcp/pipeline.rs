//! The pipeline of one connection: what is sent, what is awaited, and what becomes of the requests when the connection
//! dies. Bookkeeping only, under the lane's lock: no I/O, no clock.

use std::collections::{vec_deque, VecDeque};
use std::sync::atomic::Ordering::Relaxed;

use super::ends::{self, Down, Ends, Rules, Standing};
use super::request::{Attempt, Request};
use super::sock::IOV_MAX;
use super::stats::Stats;
use super::wire::{verdict, Verdict, STATUS_LEN};
use crate::runtime::clock;
use crate::transport::slice::{Op, Slice};

/// Most requests of one send, and most replies of one receive. Follows from [`IOV_MAX`]: each takes two pieces of memory, a
/// header or a frame and a body.
pub(super) const RUN: usize = IOV_MAX / 2;

/// The status frames of one receive, in reply order.
pub(super) type Frames = [[u8; STATUS_LEN]; RUN];

/// What holds for a connection as long as it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// v2 framing.
    pub v2: bool,
    /// More than one request may use it.
    pub reusable: bool,
    /// The peer's incarnation, proven; 0 if it has none.
    pub incarnation: u64,
}

/// What one call moved.
#[derive(Default)]
pub(super) struct Moved {
    /// At least one request was finished.
    pub replies: bool,
    /// At least one byte went either way.
    pub bytes: bool,
    /// The socket takes no more now, and there is more to send.
    pub blocked: bool,
}

/// What was taken out of a pipeline.
pub(super) struct Abandoned {
    /// Nothing touches their memory any more.
    pub slices: Vec<Slice>,
    /// The body of one more is half sent, so it cannot be taken out while the connection lives.
    pub stuck: bool,
    /// The oldest request was taken out unsent, and the next one has its turn.
    pub next: bool,
}

/// The next requests to be sent, or whose replies are to come.
pub(super) struct Run<'a> {
    /// Oldest first.
    pub requests: vec_deque::Iter<'a, Request>,
    /// Bytes of the first one, or of its reply, that are through already.
    pub skip: u64,
}

/// The requests of a lane.
#[derive(Default)]
pub(super) struct Pipeline {
    terms: Terms,
    /// Send one request at a time, and receive one reply at a time.
    cautious: bool,
    /// Oldest first: `sent` whole ones, one partly sent, the rest waiting.
    requests: VecDeque<Request>,
    sent: usize,
    /// Bytes sent of `requests[sent]`.
    sent_bytes: u64,
    /// Bytes received of the oldest request's reply.
    got: u64,
    /// Replies finished since the pipeline was last empty.
    replies_in_burst: u64,
    /// Replies finished since the connection was made.
    replies_ever: u64,
    /// Payload bytes of all requests.
    load: u64,
    /// Bytes sent and received; wraps.
    traffic: u64,
}

impl Pipeline {
    /// There is a fresh connection for the waiting requests. Returns those that are meant for another incarnation of the
    /// peer than the one it leads to.
    pub(super) fn open(&mut self, terms: Terms) -> Vec<Request> {
        self.terms = terms;
        self.cautious = false;
        (self.replies_in_burst, self.replies_ever) = (0, 0);
        let mut strangers = Vec::new();
        for _ in 0..self.requests.len() {
            let Some(request) = self.requests.pop_front() else { break };
            // One that finds no room here is refused by the peer, for the same reason.
            if self.suits(&request) || strangers.try_reserve(1).is_err() {
                self.requests.push_back(request);
            } else {
                self.load -= request.len();
                strangers.push(request);
            }
        }
        (self.sent, self.sent_bytes, self.got) = (0, 0, 0);
        let now_ns = clock::now_ns();
        self.requests.iter().filter_map(Request::slice).for_each(|slice| slice.note_connected(now_ns));
        strangers
    }

    /// Appends `requests` as far as there is memory for them, and gives those to `refuse` that must not be sent: their
    /// region was revoked, or they were given up, or the connection, if it is there (`is_open`), leads to another
    /// incarnation of the peer. Only under the lane's lock: whoever revokes a region or gives a request up looks at the
    /// lanes afterwards. Returns what found no memory, and all that follows.
    pub(super) fn admit<I: Iterator<Item = Request>>(
        &mut self,
        mut requests: I,
        is_open: bool,
        mut refuse: impl FnMut(Request),
    ) -> Option<(Request, I)> {
        while let Some(request) = requests.next() {
            if request.is_revoked() || request.is_given_up() || is_open && !self.suits(&request) {
                refuse(request);
            } else if self.requests.try_reserve(1).is_err() {
                return Some((request, requests));
            } else {
                self.push(request);
            }
        }
        None
    }

    /// The peer at the other end is the incarnation that the request was checked for, or the request is for any.
    fn suits(&self, request: &Request) -> bool {
        request.incarnation == 0 || request.incarnation == self.terms.incarnation
    }

    /// Each reply begins with a status frame.
    pub(super) fn is_v2(&self) -> bool {
        self.terms.v2
    }

    /// Requests waiting or under way.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// There is no request, neither waiting nor under way.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Payload bytes of the requests waiting or under way.
    pub(super) fn load_bytes(&self) -> u64 {
        self.load
    }

    /// Bytes that went either way since the lane was made.
    pub(super) fn traffic(&self) -> u64 {
        self.traffic
    }

    /// Payload of the request whose reply is awaited.
    pub(super) fn awaited_bytes(&self) -> Option<u64> {
        self.requests.front().map(Request::len)
    }

    /// There is something that may be sent now.
    pub(super) fn wants_to_send(&self) -> bool {
        self.sent_bytes > 0 || self.may_begin(self.sent)
    }

    /// The connection is for one request only, and has answered it.
    pub(super) fn is_spent(&self) -> bool {
        !self.terms.reusable && self.replies_ever > 0
    }

    /// Empties the pipeline of a connection that is closed without a word to the peer.
    pub(super) fn close(&mut self) -> Vec<Request> {
        let begun = self.begun();
        let mut requests = self.take_all();
        requests.iter_mut().take(begun).for_each(Request::lose_trail);
        requests
    }

    /// Empties the pipeline.
    pub(super) fn take_all(&mut self) -> Vec<Request> {
        self.load = 0;
        (self.sent, self.sent_bytes, self.got) = (0, 0, 0);
        std::mem::take(&mut self.requests).into()
    }

    fn push(&mut self, request: Request) {
        if self.requests.is_empty() {
            self.replies_in_burst = 0;
        }
        self.load += request.len();
        self.requests.push_back(request);
    }

    /// Requests of which at least a byte is sent.
    fn begun(&self) -> usize {
        self.sent + usize::from(self.sent_bytes > 0)
    }

    /// Request number `index` may be started on this connection now: the connection is not spent, and a request that is to
    /// be alone on it is.
    fn may_begin(&self, index: usize) -> bool {
        let Some(request) = self.requests.get(index).filter(|_| !self.is_spent()) else { return false };
        if index == 0 {
            return true;
        }
        let alone = request.attempt == Attempt::Alone || self.requests[index - 1].attempt == Attempt::Alone;
        self.terms.reusable && !alone
    }

    /// What the next send consists of, with headers filled in. Only while there is something to send.
    pub(super) fn outgoing(&mut self) -> Run<'_> {
        let most = if self.cautious { 1 } else { RUN };
        let v2 = self.terms.v2;
        let mut end = self.sent;
        while end - self.sent < most && (end == self.sent || self.may_begin(end)) {
            self.requests[end].encode(v2);
            end += 1;
        }
        Run { requests: self.requests.range(self.sent..end), skip: self.sent_bytes }
    }

    /// The requests whose replies may come.
    pub(super) fn incoming(&self) -> Run<'_> {
        let most = if self.cautious { 1 } else { RUN };
        Run { requests: self.requests.range(..self.begun().min(most)), skip: self.got }
    }

    /// A buffer of the last call was not mapped: one request at a time from now on, to find out whose.
    pub(super) fn be_cautious(&mut self) {
        self.cautious = true;
    }

    /// The socket took `n` bytes.
    pub(super) fn note_sent(&mut self, mut n: u64, moved: &mut Moved, stats: &Stats) {
        let now_ns = clock::now_ns();
        self.cautious = false;
        moved.bytes = true;
        self.traffic = self.traffic.wrapping_add(n);
        stats.bytes_sent.fetch_add(n, Relaxed);
        while n > 0 {
            let request = &self.requests[self.sent];
            request.slice().into_iter().for_each(|slice| slice.note_posted(now_ns));
            let left = request.send_len() - self.sent_bytes;
            if n < left {
                self.sent_bytes += n;
                break;
            }
            n -= left;
            self.sent += 1;
            self.sent_bytes = 0;
        }
        self.retire(moved, stats, now_ns);
    }

    /// Finishes the oldest requests that are sent whole and whose reply is complete.
    fn retire(&mut self, moved: &mut Moved, stats: &Stats, now_ns: u64) {
        while self.sent > 0
            && self.requests.front().is_some_and(|request| self.got == request.reply_len(self.terms.v2))
        {
            let Some(request) = self.requests.pop_front() else { return };
            self.sent -= 1;
            self.got = 0;
            self.load -= request.len();
            self.replies_in_burst += 1;
            self.replies_ever += 1;
            stats.requests.fetch_add(1, Relaxed);
            // A v1 peer does not answer a WRITE: its bytes were sent, and that is all that is known.
            request.complete(self.terms.v2, now_ns);
            moved.replies = true;
        }
    }

    /// The socket brought `n` bytes; `frames` has those of them that belong to frames, one frame for each request of
    /// [`Pipeline::incoming`].
    pub(super) fn note_received(
        &mut self,
        mut n: u64,
        frames: &mut Frames,
        moved: &mut Moved,
        stats: &Stats,
    ) -> Result<(), Down> {
        self.cautious = false;
        moved.bytes = true;
        self.traffic = self.traffic.wrapping_add(n);
        stats.bytes_received.fetch_add(n, Relaxed);
        let now_ns = clock::now_ns();
        let mut frame = 0;
        while n > 0 {
            let Some(front) = self.requests.front() else { break };
            let (before, front_op) = (self.got, front.op());
            let take = n.min(front.reply_len(self.terms.v2) - before);
            n -= take;
            self.got += take;
            if self.terms.v2 && before < STATUS_LEN as u64 && self.got >= STATUS_LEN as u64 {
                check_frame(frames[frame])?;
                if self.sent == 0 && front_op == Op::Write {
                    let text = "the peer answered a WRITE before it had all of it";
                    return Err(Down::Protocol(text.into()));
                }
            }
            let remaining = self.requests.len();
            self.retire(moved, stats, now_ns);
            if self.requests.len() == remaining {
                break;
            }
            frame += 1;
        }
        if frame > 0 && self.got > 0 && self.got < STATUS_LEN as u64 {
            // The next receive goes on with this frame, and puts it first.
            frames[0] = frames[frame];
        }
        Ok(())
    }

    /// Takes out the slices that `which` picks, as far as that can be done while the connection lives. A request that
    /// was begun stays in its place without its slice, for the reply that is still to come.
    pub(super) fn abandon(&mut self, which: impl Fn(&Slice) -> bool) -> Abandoned {
        let begun = self.begun();
        let half_sent = (self.sent_bytes > 0).then_some(self.sent);
        let mut out = Abandoned { slices: Vec::new(), stuck: false, next: false };
        for (index, request) in self.requests.iter_mut().enumerate() {
            if !request.slice().is_some_and(&which) {
                continue;
            }
            if Some(index) == half_sent && request.op() == Op::Write {
                out.stuck = true;
            } else if out.slices.try_reserve(1).is_ok() {
                out.slices.extend(request.take_slice(index < begun));
            }
        }
        let (mut index, mut first_goes) = (0, false);
        let load = &mut self.load;
        self.requests.retain(|request| {
            let keep = index < begun || request.slice().is_some();
            if !keep {
                *load -= request.len();
                first_goes |= index == 0;
            }
            index += 1;
            keep
        });
        out.next = first_goes && !self.requests.is_empty();
        out
    }

    /// Empties the pipeline of a dead connection and decides about each request.
    pub(super) fn tear_down(&mut self, down: &Down, rules: &Rules<'_>) -> Ends {
        let standing = Standing {
            sent: self.sent,
            begun: self.begun(),
            unanswered: self.replies_ever == 0 || self.replies_in_burst == 0,
        };
        ends::sort(self.take_all(), down, &standing, rules)
    }
}

fn check_frame(frame: [u8; STATUS_LEN]) -> Result<(), Down> {
    match verdict(frame) {
        Verdict::Ok => Ok(()),
        Verdict::Rejected => Err(Down::Rejected),
        Verdict::UnknownCode(code) => Err(Down::Protocol(format!("the peer answered with unknown status {code}"))),
        Verdict::NotAFrame => Err(Down::Protocol(format!(
            "the peer answered {frame:02x?} where a status frame belongs; does it speak v2? (MC_TCP_PROTO=1 forces v1)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::transport::slice::deaf::work;
    use crate::transport::slice::Drained;

    #[test]
    fn p02_only_what_was_begun_leaves_a_trail_when_it_is_given_up() {
        let work = work(2);
        let request = |task: u32| {
            let slice = Slice::new(&work, task, Op::Write, 1, u64::from(task), 8, None);
            Request::new(slice, 0)
        };
        let mut pipeline = Pipeline::default();
        assert!(pipeline.open(Terms { v2: true, reusable: true, incarnation: 0 }).is_empty());
        assert!(pipeline.admit([0, 1].map(request).into_iter(), true, |_| panic!("refused")).is_none());
        assert_eq!(pipeline.outgoing().requests.len(), 2);
        // Both would leave at once, and the socket takes the first.
        pipeline.note_sent(request_len(&pipeline), &mut Moved::default(), &Stats::default());
        let taken = pipeline.abandon(|_| true);
        assert!(taken.slices.len() == 2 && !taken.stuck);
        taken.slices.into_iter().for_each(|slice| slice.fail(Error::invalid("given up")));
        assert_eq!([0, 1].map(|task| work.drained(task)), [Some(Drained::No), Some(Drained::Yes)]);
    }

    /// Two WRITEs of 8 bytes each, of which nothing is sent.
    fn two() -> Pipeline {
        let work = work(2);
        let request =
            |task: u32| Request::new(Slice::new(&work, task, Op::Write, 1, task.into(), 8, None), 0);
        let mut pipeline = Pipeline::default();
        assert!(pipeline.open(Terms { v2: true, reusable: true, incarnation: 0 }).is_empty());
        assert!(pipeline.admit([0, 1].map(request).into_iter(), true, |_| panic!("refused")).is_none());
        pipeline
    }

    #[test]
    fn what_is_answered_is_no_load_any_more() {
        let (mut pipeline, stats, mut moved) = (two(), Stats::default(), Moved::default());
        assert_eq!((pipeline.len(), pipeline.load_bytes()), (2, 16));
        pipeline.outgoing();
        pipeline.note_sent(2 * request_len(&pipeline), &mut moved, &stats);
        let mut frames = [super::super::wire::OK_FRAME; RUN];
        for (left, half) in [(2, true), (1, false), (1, true), (0, false)] {
            assert!(pipeline.note_received(STATUS_LEN as u64 / 2, &mut frames, &mut moved, &stats).is_ok());
            assert_eq!(
                (pipeline.len(), pipeline.load_bytes(), pipeline.got > 0),
                (left, 8 * left as u64, half)
            );
        }
        assert!(pipeline.is_empty() && moved.replies);
    }

    #[test]
    fn another_request_is_next_only_if_the_first_one_is_given_up() {
        for (given_up, next) in [(1, false), (0, true)] {
            let mut pipeline = two();
            let taken = pipeline.abandon(|slice| slice.remote == given_up);
            assert_eq!((taken.next, taken.stuck, taken.slices.len()), (next, false, 1));
            assert_eq!((pipeline.len(), pipeline.load_bytes()), (1, 8));
            taken.slices.into_iter().for_each(|slice| slice.fail(Error::invalid("given up")));
        }
    }

    fn request_len(pipeline: &Pipeline) -> u64 {
        pipeline.requests[0].send_len()
    }
}
