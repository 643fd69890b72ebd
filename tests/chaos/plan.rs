//! What is going to happen to one lane: a pure function of the seed.

use std::time::Duration;

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) jobs: u64,
    pub(crate) faults: u64,
    /// How many faults of a hundred are upgrades. They take seconds each: a file must stand still.
    pub(crate) upgrades: u64,
    /// With the faults that take a minute each.
    pub(crate) rare: bool,
}

impl Extent {
    /// One lane's part.
    pub(crate) fn share(self, lane: u64, lanes: u64) -> Self {
        let part = |all: u64| all / lanes + u64::from(lane < all % lanes);
        Self { jobs: part(self.jobs), faults: part(self.faults), ..self }
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
    /// Is a subagent's run.
    Agent(Does, Called),
    /// Is a cancel of a subagent's run.
    Cancels,
}

/// What a subagent's CLI does in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// So many turns, each with a tool, so many milliseconds apart; then it answers.
    Talks { turns: u32, pause: u64 },
    /// Says that its API failed.
    SaysError,
    /// Ends with this code.
    Fails(u8),
    /// Goes on until it is ended.
    Sleeps,
    /// Says a secret of `gateway.json`.
    Snoops,
}

/// Who wants a subagent's run to end before it does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Called {
    /// Nobody.
    Never,
    /// A cancel job, so many milliseconds after the run's job.
    ByJob(u64),
    /// The run's job is cancelled by its row once the CLI works.
    ByRow,
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
    /// Another file is installed over the gateway's.
    Upgrade(Upgrade),
}

/// What is installed, and what happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Another version.
    Good,
    /// Ours, cut off after so many thousandths of it.
    Truncated(usize),
    /// One that is ready, and crashes when it is told to take over.
    Crashes,
    /// Another version, and a SIGKILL so long after the hand-over has come so far.
    Killed { whom: Victim, at: Stage, after: Duration },
    /// Another version, and something is wrong with the backend once the hand-over has come so far.
    Disturbed { what: Backend, at: Stage, lasts: Duration },
}

/// Who gets the SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The process that runs.
    Old,
    /// Its replacement.
    New,
    /// One right after the other.
    Both { old_first: bool },
}

/// How far a hand-over is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The replacement gets ready.
    Preparing,
    /// The work in hand is finished.
    Draining,
    /// The replacement takes over.
    HandingOver,
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
            .map(|job| {
                // Every third one, give or take.
                let is_agents = random.u32(0..100) < 35;
                let kind = if is_agents { agent(&mut random) } else { kind(&mut random) };
                PlannedJob { name: format!("l{number}-j{job}"), kind }
            })
            .collect();
        let blows = (0..extent.faults)
            .map(|_| (millis(&mut random, 0, 1_200), blow(&mut random, extent)))
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

fn agent(random: &mut fastrand::Rng) -> Kind {
    let talks = |random: &mut fastrand::Rng| Does::Talks {
        turns: random.u32(0..12),
        pause: [0, 0, 20, 200][random.usize(0..4)],
    };
    // About as long as a run takes, its time in the queue included.
    let by_job = |random: &mut fastrand::Rng| Called::ByJob(random.u64(0..2_500));
    match random.u32(0..100) {
        0..50 => Kind::Agent(talks(random), Called::Never),
        50..62 => Kind::Agent(talks(random), by_job(random)),
        62..82 => Kind::Agent(Does::Sleeps, by_job(random)),
        82..87 => Kind::Agent(Does::Sleeps, Called::ByRow),
        87..94 => Kind::Agent(Does::SaysError, Called::Never),
        94..96 => Kind::Agent(Does::Fails(random.u8(1..=125)), Called::Never),
        _ => Kind::Agent(Does::Snoops, Called::Never),
    }
}

fn blow(random: &mut fastrand::Rng, Extent { upgrades, rare, .. }: Extent) -> Blow {
    if random.u64(0..100) < upgrades {
        return Blow::Upgrade(upgrade(random));
    }
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

fn upgrade(random: &mut fastrand::Rng) -> Upgrade {
    let (at, longest) = [
        (Stage::Preparing, 600),
        (Stage::Draining, 300),
        (Stage::HandingOver, 50),
        (Stage::HandingOver, 300),
    ][random.usize(0..4)];
    match random.u32(0..100) {
        0..25 => Upgrade::Good,
        // With half of it missing nothing runs.
        25..38 => Upgrade::Truncated(random.usize(0..500)),
        38..52 => Upgrade::Crashes,
        52..68 => {
            let (what, lasts) = (backend(random, false), millis(random, 50, 1_500));
            Upgrade::Disturbed { what, at, lasts }
        }
        _ => {
            let whom = match random.u32(0..6) {
                0..2 => Victim::Old,
                2..4 => Victim::New,
                _ => Victim::Both { old_first: random.bool() },
            };
            Upgrade::Killed { whom, at, after: millis(random, 0, longest) }
        }
    }
}

fn backend(random: &mut fastrand::Rng, rare: bool) -> Backend {
    // All calls, the calls on jobs, the writes among them, the refresh of the session, and what is
    // told of subagents.
    let path = [
        "",
        "",
        "/gateway_jobs",
        "PATCH /gateway_jobs",
        "/token",
        "/subagent_run_events",
        "/finalize-gateway-subagent-run",
        "PATCH /subagent_runs",
        "PATCH /subagents",
    ][random.usize(0..9)];
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
