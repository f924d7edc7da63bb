//! The examples of the seed on this engine, with a network that exists.

use super::{Engine, run, support::examples::run_all, tests};

tests![examples_of_the_seed_work];

fn examples_of_the_seed_work(engine: &Engine) {
    let network = engine.own_name("network");
    engine.run(&["network", "create", &network]);
    run(run_all(
        || engine.place.builder(),
        engine.place.path(),
        Some(&network),
    ));
    engine.run(&["network", "rm", &network]);
}
