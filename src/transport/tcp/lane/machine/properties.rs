//! Random lives of a lane, with the real pipeline and the real sorting of requests, judged by a model of everything
//! around: attempts, connections, the peer, the link, time. `PROPTEST_CASES` says how many; what fails is shrunk.

mod peer;
mod steps;
mod world;

use proptest::prelude::*;

use steps::steps;
use world::World;

/// The least number of sequences. `make test` asks for 250 000, `make soak` for a million.
const CASES: u32 = 2_000;

fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(CASES), failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn p03_no_life_of_a_lane_loses_a_request_or_hangs(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.finish();
    }
}
