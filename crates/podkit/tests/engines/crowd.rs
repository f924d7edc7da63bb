//! Many sessions of one client on this engine.

use super::{Engine, run, support::crowd::live_at_once, tests};

tests![hundred_sessions_of_one_client_live_at_once];

fn hundred_sessions_of_one_client_live_at_once(engine: &Engine) {
    run(live_at_once(engine.place.builder(), 100));
}
