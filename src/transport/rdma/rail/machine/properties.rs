//! Random lives of a rail, against a model of everything around it: attempts, queue pairs, the peer, flights, time, and
//! threads that have taken a step of the machine and not performed its actions yet. `PROPTEST_CASES` says how many;
//! what fails is shrunk.

mod steps;
mod world;

use proptest::prelude::*;

use steps::Step;
use world::World;

/// The least number of sequences. `make test` asks for 250 000, `make soak` for a million.
const CASES: u32 = 2_000;
/// Most steps of a sequence. Chosen: a failure, a pause, a proof and a second failure with bystanders fit.
const STEPS: usize = 80;

fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(CASES), failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn p06_no_life_of_a_rail_loses_a_flight_or_hangs(
        steps in prop::collection::vec(any::<u32>().prop_map(Step::of), 1..STEPS),
        settles in any::<bool>(),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        if settles {
            world.settle();
        }
        world.stop();
    }
}
