//! `gateway.json`: what is read is written so that it is read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use panorama_gateway::config::fuzzing::saved_config;

fuzz_target!(|data: &[u8]| {
    let Some((config, written)) = saved_config(data) else { return };
    let (again, rewritten) = saved_config(&written).expect("what was written is read");
    assert_eq!(rewritten, written);
    assert_eq!(
        (again.is_paired(), again.full_control(), again.text("teamId")),
        (config.is_paired(), config.full_control(), config.text("teamId"))
    );
});
