//! Many sessions of one client on this engine.

use super::{
    Engine, run,
    support::crowd::{live_at_once, refused_without_memory},
    tests,
};

tests![
    hundred_sessions_of_one_client_live_at_once,
    session_without_memory_on_the_host_is_refused,
];

fn hundred_sessions_of_one_client_live_at_once(engine: &Engine) {
    run(live_at_once(engine.place.builder(), 100));
}

fn session_without_memory_on_the_host_is_refused(engine: &Engine) {
    run(refused_without_memory(&engine.place));
}
