//! Hours and days pass for a gateway, in seconds: its clocks stand still until a story moves them,
//! while the control plane beside it, with a runtime of its own, lives in real time.
//!
//! The gateway runs in this process; what it starts for a job is this binary again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it prints what it counted and measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod away;
mod idle_day;
mod pipe;
mod scene;
mod wakes;

use std::process::ExitCode;
use std::time::Instant;

type Story = (&'static str, fn());

const STORIES: [Story; 9] = [
    ("a_sleep_through_the_tokens_end", wakes::a_sleep_through_the_tokens_end),
    ("a_sleep_with_a_job_in_hand", wakes::a_sleep_with_a_job_in_hand),
    ("a_process_that_stood_still", wakes::a_process_that_stood_still),
    ("the_wall_clock_is_set", wakes::the_wall_clock_is_set),
    ("a_start_with_a_wrong_wall_clock", wakes::a_start_with_a_wrong_wall_clock),
    ("nothing_is_claimed_by_an_old_heartbeat", wakes::nothing_is_claimed_by_an_old_heartbeat),
    ("a_wake_before_the_network_is_back", wakes::a_wake_before_the_network_is_back),
    ("an_hour_without_a_network", away::an_hour_without_a_network),
    ("an_idle_day", idle_day::an_idle_day),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|word| word == panorama_gateway::process::SHIM_WORD) {
        return panorama_gateway::process::shim_main();
    }
    if args.iter().any(|arg| arg == "--list") {
        for (name, _) in STORIES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let meant = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    away::count_warnings();
    for (name, story) in STORIES.into_iter().filter(|(name, _)| meant(name)) {
        let began = Instant::now();
        story();
        println!("passing time: {name}: ok, in {:.1} s", began.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}
