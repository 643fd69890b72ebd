//! What is going to happen to one lane: a pure function of the seed.

use std::time::Duration;

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) jobs: u64,
    pub(crate) faults: u64,
    /// With the faults that take a minute each.
    pub(crate) rare: bool,
}

impl Extent {
    /// One lane's part.
    pub(crate) fn share(self, lane: u64, lanes: u64) -> Self {
        let part = |all: u64| all / lanes + u64::from(lane < all % lanes);
        Self { jobs: part(self.jobs), faults: part(self.faults), rare: self.rare }
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Prints its name.
    Prints,
    /// Prints so many bytes; over 5,000,000 are cut.
    Floods(usize),
    /// Ends with this code.
    Fails(u8),
    /// Ends itself by SIGKILL.
    KillsItself,
    /// Takes so many milliseconds.
    TakesTime(u64),
    /// Leaves work that ends by itself.
    LeavesWork,
    /// Runs into a time limit of so many milliseconds.
    HitsItsLimit(u64),
    /// Is cancelled by its row once it runs.
    IsCancelled,
    /// Is cancelled by its row at once.
    IsCancelledAtOnce,
    /// Prints `gateway.json` with all its secrets.
    Snoops,
}

/// What is done to the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The gateway gets SIGKILL and is started again.
    Kill,
    /// The gateway gets SIGSTOP, and SIGCONT after this.
    Stop(Duration),
    /// The gateway gets SIGTERM and is started again.
    Restart,
    /// Something is wrong with the backend for a while; a kill may hit meanwhile.
    Backend { what: Backend, lasts: Duration, and_kill: bool },
    /// The gateway's disk is full for a while.
    FullDisk(Duration),
    /// The session is revoked, and the machine paired again.
    Revoke,
}

/// What is wrong with the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// No connection lives.
    Cut,
    /// Every answer takes so long.
    Slow(Duration),
    /// Every call, or only those of this path, is answered by this status.
    Answers(u16, &'static str),
    /// Calls of this path are lost before the backend acts.
    LosesRequests(&'static str),
    /// Answers to calls of this path are lost after the backend acted.
    LosesAnswers(&'static str),
}

/// A job and what it is called.
#[derive(Debug, Clone)]
pub(crate) struct PlannedJob {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// One lane's fate.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) jobs: Vec<PlannedJob>,
    /// Each with the pause before it.
    pub(crate) blows: Vec<(Duration, Blow)>,
}

impl Plan {
    pub(crate) fn new(seed: u64, number: u64, extent: Extent) -> Self {
        let mut random =
            fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let jobs = (0..extent.jobs)
            .map(|job| PlannedJob { name: format!("l{number}-j{job}"), kind: kind(&mut random) })
            .collect();
        let blows = (0..extent.faults)
            .map(|_| (millis(&mut random, 0, 1_200), blow(&mut random, extent.rare)))
            .collect();
        Self { number, jobs, blows }
    }
}

fn millis(random: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.u64(from..=to))
}

fn kind(random: &mut fastrand::Rng) -> Kind {
    match random.u32(0..100) {
        0..25 => Kind::Prints,
        25..38 => Kind::Floods(random.usize(50_000..1_000_000)),
        38..40 => Kind::Floods(random.usize(5_000_001..6_000_000)),
        40..52 => Kind::Fails(random.u8(1..=255)),
        52..57 => Kind::KillsItself,
        57..75 => Kind::TakesTime(random.u64(200..2_500)),
        75..82 => Kind::LeavesWork,
        82..90 => Kind::HitsItsLimit(random.u64(50..600)),
        90..92 => Kind::IsCancelled,
        92..94 => Kind::IsCancelledAtOnce,
        _ => Kind::Snoops,
    }
}

fn blow(random: &mut fastrand::Rng, rare: bool) -> Blow {
    match random.u32(0..100) {
        0..35 => Blow::Kill,
        35..45 => Blow::Stop(millis(random, 50, 1_500)),
        45..55 => Blow::Restart,
        55..61 => Blow::FullDisk(millis(random, 100, 1_500)),
        61..64 => Blow::Revoke,
        _ => Blow::Backend {
            what: backend(random, rare),
            lasts: millis(random, 50, 1_500),
            and_kill: random.u32(0..4) == 0,
        },
    }
}

fn backend(random: &mut fastrand::Rng, rare: bool) -> Backend {
    // All calls, the calls on jobs, the writes among them, and the refresh of the session.
    let path = ["", "/gateway_jobs", "PATCH /gateway_jobs", "/token"][random.usize(0..4)];
    match random.u32(0..100) {
        0..20 => Backend::Cut,
        20..30 => Backend::Slow(millis(random, 20, 700)),
        30..38 => Backend::Answers(500, path),
        38..50 => Backend::Answers(503, path),
        50..55 => Backend::Answers(401, "PATCH /gateway_jobs"),
        55..57 if rare => Backend::Answers(429, path),
        55..75 => Backend::LosesRequests(path),
        _ => Backend::LosesAnswers(path),
    }
}
