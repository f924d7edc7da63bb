//! Many sessions of one client on this engine.

use super::{
    Engine, run,
    support::crowd::{live_at_once, refused_without_memory},
    tests,
};

tests![
    many_sessions_of_one_client_live_at_once,
    session_without_memory_on_the_host_is_refused,
];

fn many_sessions_of_one_client_live_at_once(engine: &Engine) {
    // Podman takes a second for each; what is ours is the same.
    let count = if engine.name == "docker" { 100 } else { 30 };
    run(live_at_once(engine.place.builder(), count));
}

fn session_without_memory_on_the_host_is_refused(engine: &Engine) {
    run(refused_without_memory(&engine.place));
}
