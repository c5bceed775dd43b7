//! Random calls that wait.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::transport::slice::deaf::Deaf;
use crate::transport::slice::{Op, Sink, Slice, Task, Work};

/// What happens to the list.
#[derive(Clone, Debug)]
enum Step {
    /// A submit call of a batch: so many flights of so many bytes.
    Append(usize, usize, u64),
    /// Room for so many bytes.
    Serve(u64),
    Surplus(u64, usize),
    /// A batch is given up.
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..3, 1usize..9, 1u64..3 * PORTION)
            .prop_map(|(batch, count, len)| Step::Append(batch, count, len)),
        (1u64..20 * PORTION).prop_map(Step::Serve),
        (1u64..20 * PORTION, 0usize..9).prop_map(|(bytes, most)| Step::Surplus(bytes, most)),
        (0usize..3).prop_map(Step::Take),
    ]
}

fn remote(flight: &Flight) -> u64 {
    flight.slice.as_ref().unwrap().remote
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) })]

    #[test]
    fn each_batch_is_served_in_its_order_and_nothing_is_lost(steps in prop::collection::vec(step(), 1..30)) {
        let batches: [Arc<dyn Sink>; 3] = std::array::from_fn(|_| Arc::new(Deaf::default()) as Arc<dyn Sink>);
        let waiting = Waiting::default();
        // The model: what each batch has waiting, by number. The remote address of a flight says it.
        let mut model: [VecDeque<u64>; 3] = Default::default();
        let mut next = 0;
        let batch_of = |flight: &Flight| batches.iter().position(|batch| Arc::as_ptr(batch).cast::<()>() as usize == flight.batch()).unwrap();
        for step in steps {
            match step {
                Step::Append(batch, count, len) => {
                    let work = Work::new(Box::new([Task::default()]), None, batches[batch].clone());
                    let flight = |number| Flight::new(Slice::new(&work, 0, Op::Write, 1, number, len, None), 0, 0);
                    let mut flights: VecDeque<Flight> = (next..next + count as u64).map(flight).collect();
                    model[batch].extend(next..next + count as u64);
                    next += count as u64;
                    waiting.append(&mut flights);
                    prop_assert!(flights.is_empty());
                }
                Step::Serve(mut room) => {
                    let mut posted = Vec::new();
                    let outcome = waiting.change(|turns| turns.serve(|flights, most| {
                        let mut bytes = 0;
                        while bytes < most.min(room) {
                            let Some(flight) = flights.pop_front() else { break };
                            bytes += flight.len();
                            posted.push(flight);
                        }
                        room = room.saturating_sub(bytes);
                        Ok::<_, ()>(if bytes == 0 { Served::Full } else { Served::Posted(bytes) })
                    }));
                    prop_assert_eq!(outcome, Ok(()));
                    for flight in posted {
                        let batch = batch_of(&flight);
                        prop_assert_eq!(model[batch].pop_front(), Some(remote(&flight)));
                        flight.fail(Error::invalid("posted"));
                    }
                    prop_assert!(room == 0 || waiting.is_empty(), "there is room for what waits");
                }
                Step::Surplus(bytes, most) => {
                    let longest = model.iter().map(VecDeque::len).max().unwrap_or(0);
                    let taken = waiting.take_surplus(bytes, most);
                    prop_assert!(taken.len() <= most.min(longest / 2));
                    for flight in taken {
                        let batch = batch_of(&flight);
                        prop_assert_eq!(model[batch].pop_back(), Some(remote(&flight)));
                        flight.fail(Error::invalid("placed elsewhere"));
                    }
                }
                Step::Take(batch) => {
                    let taken = waiting.take(|flight| batch_of(flight) == batch, || false);
                    prop_assert_eq!(taken.len(), std::mem::take(&mut model[batch]).len());
                    taken.into_iter().for_each(|flight| flight.fail(Error::invalid("given up")));
                }
            }
            prop_assert_eq!(waiting.len(), model.iter().map(VecDeque::len).sum::<usize>());
        }
        waiting.take_all().for_each(|flight| flight.fail(Error::invalid("end")));
    }
}
