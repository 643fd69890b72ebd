//! What is known of a provider stays true, without a process more than needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use panorama_gateway::observe::Redactor;
use panorama_gateway::providers::health::{CheckReport, SLOW_AGAIN, Status};
use panorama_gateway::providers::probe::Limits;
use panorama_gateway::providers::{
    Attendant, Check, ErrorCode, Failure, Installed, Provider, ProviderId, Roster, Standing,
};

use tokio::time::Instant;

use super::{FAKE, Machine};

/// Counts the checks and answers as it is told.
struct Checks {
    made: AtomicUsize,
    failure: Option<Failure>,
}

impl Checks {
    fn good() -> Self {
        Self { made: AtomicUsize::new(0), failure: None }
    }

    fn bad() -> Self {
        let message = "not logged in, key correct-horse-battery".to_owned();
        let failure = Failure { code: ErrorCode::ProviderAuth, message, summary: None };
        Self { made: AtomicUsize::new(0), failure: Some(failure) }
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }
}

impl Check for Checks {
    async fn check(&self, _: &dyn Provider, _: &Installed) -> Result<CheckReport, Box<Failure>> {
        self.made.fetch_add(1, Ordering::SeqCst);
        match &self.failure {
            None => Ok(CheckReport { model: Some("m".to_owned()) }),
            Some(failure) => Err(Box::new(failure.clone())),
        }
    }
}

struct World {
    machine: Machine,
    roster: Arc<Roster>,
    attendant: Attendant,
}

impl World {
    fn new() -> Self {
        let machine = Machine::new();
        let redactor = Redactor::default();
        redactor.add_secret("correct-horse-battery");
        let roster = Arc::new(Roster::new(redactor));
        let (settings, asker) = (machine.settings(), machine.asker());
        let attendant = Attendant::new(&FAKE, &settings, asker, Arc::clone(&roster));
        Self { machine, roster, attendant }
    }

    /// One heartbeat.
    async fn beat(&mut self, checks: &Checks) -> Standing {
        self.attendant.light().await;
        self.attendant.full_if_due(checks).await;
        self.roster.standing(ProviderId::Gemini)
    }
}

#[tokio::test]
async fn an_idle_gateway_starts_no_process() {
    let mut world = World::new();
    world.machine.cli("p1/gemini", "0.61.0");
    world.machine.cli("p2/gemini", "0.60.0");
    let checks = Checks::good();
    let standing = world.beat(&checks).await;
    assert!(standing.health.is_ready() && standing.supports.output_schema);
    let asked = world.machine.asked();
    assert_eq!(asked.len(), 4, "two versions, help and extensions of one: {asked:?}");
    for _ in 0..100 {
        assert_eq!(world.beat(&checks).await, standing);
    }
    assert_eq!((world.machine.asked(), checks.made()), (asked, 1));
}

#[tokio::test]
async fn an_idle_gateway_without_the_cli_starts_none_either() {
    let mut world = World::new();
    let checks = Checks::good();
    for _ in 0..10 {
        let standing = world.beat(&checks).await;
        assert_eq!(standing.health.status(), Status::Unavailable);
    }
    assert_eq!(world.machine.asked(), ["shell -lic type -a gemini"]);
    assert_eq!(checks.made(), 0);
}

#[tokio::test]
async fn an_install_an_update_and_a_removal_are_noticed() {
    let mut world = World::new();
    let checks = Checks::good();
    assert_eq!(world.beat(&checks).await.health.status(), Status::Unavailable);
    let cli = world.machine.cli("p1/gemini", "0.61.0");
    let standing = world.beat(&checks).await;
    assert_eq!(standing.installed.unwrap().version.as_deref(), Some("0.61.0"));
    assert_eq!((standing.health.status(), checks.made()), (Status::Healthy, 1));
    world.machine.cli("p1/gemini", "0.62.0 longer");
    let standing = world.beat(&checks).await;
    assert_eq!(standing.installed.unwrap().version.as_deref(), Some("0.62.0 longer"));
    assert_eq!(checks.made(), 1, "the last verdict stands");
    std::fs::remove_file(&cli).unwrap();
    let standing = world.beat(&checks).await;
    assert_eq!((standing.health.status(), standing.installed), (Status::Unavailable, None));
    world.machine.cli("p1/gemini", "0.61.0");
    assert!(world.beat(&checks).await.health.is_ready());
    assert_eq!(checks.made(), 2, "what comes back needs a new verdict");
}

#[tokio::test]
async fn a_check_that_fails_is_one_redacted_line_and_an_update_has_it_repeated() {
    let mut world = World::new();
    world.machine.cli("p1/gemini", "0.61.0");
    let bad = Checks::bad();
    let standing = world.beat(&bad).await;
    assert_eq!(standing.health.status(), Status::Unhealthy);
    assert_eq!(standing.health.error(), Some("not logged in, key [REDACTED]"));
    world.beat(&bad).await;
    assert_eq!(bad.made(), 1);
    world.machine.cli("p1/gemini", "0.62.0 longer");
    let good = Checks::good();
    assert!(world.beat(&good).await.health.is_ready());
}

#[tokio::test]
async fn all_is_asked_anew_when_that_is_wanted() {
    let mut world = World::new();
    world.machine.cli("p1/gemini", "0.61.0");
    let checks = Checks::good();
    world.beat(&checks).await;
    world.attendant.forget();
    world.beat(&checks).await;
    let versions = world.machine.asked().iter().filter(|line| line.ends_with("--version")).count();
    assert_eq!((versions, checks.made()), (2, 1));
}

/// A host that has just started may be slow.
fn brief() -> Limits {
    Limits { choice: Duration::from_secs(2), probe: Duration::from_secs(2) }
}

/// The first of these questions is not answered, the others are.
fn slow_once(version: &str, question: &str) -> String {
    format!(
        "[ \"$1\" = {question} ] && [ ! -e \"$0.asked\" ] && {{ touch \"$0.asked\"; sleep 60; }}; \
         echo {version}"
    )
}

#[tokio::test]
async fn a_command_that_was_too_slow_is_asked_once_more() {
    let mut world = World::new();
    world.attendant = world.attendant.within(brief());
    world.machine.script("p1/gemini", &slow_once("0.61.0", "--version"));
    let standing = world.beat(&Checks::good()).await;
    assert_eq!(standing.installed.unwrap().version.as_deref(), Some("0.61.0"));
    assert!(standing.health.is_ready());
}

#[tokio::test]
async fn the_newest_is_chosen_although_it_is_slow() {
    let mut world = World::new();
    world.attendant = world.attendant.within(brief());
    world.machine.cli("p1/gemini", "0.60.0");
    world.machine.script("p2/gemini", &slow_once("0.61.0", "--version"));
    let standing = world.beat(&Checks::good()).await;
    assert_eq!(standing.installed.unwrap().version.as_deref(), Some("0.61.0"));
}

#[tokio::test]
async fn one_that_never_answers_is_not_told_to_be_absent() {
    let mut world = World::new();
    let limit = Duration::from_millis(400);
    world.attendant = world.attendant.within(Limits { choice: limit, probe: limit });
    world.machine.script("p1/gemini", "sleep 60");
    let standing = world.beat(&Checks::good()).await;
    assert_eq!(standing.health.status(), Status::Unavailable);
    assert!(standing.absence().contains("--version did not end within"), "{standing:?}");
    let again = standing.health.again_at().unwrap();
    assert!(again <= Instant::now() + SLOW_AGAIN, "{standing:?}");
}

#[tokio::test]
async fn a_mute_command_is_known_but_not_usable() {
    let mut world = World::new();
    let cli = world.machine.script("p1/gemini", "exit 1");
    let standing = world.beat(&Checks::good()).await;
    assert_eq!(standing.command.as_deref(), Some(cli.as_path()));
    assert_eq!((standing.health.status(), standing.installed), (Status::Unavailable, None));
    assert!(standing.health.error().unwrap().contains("exit code 1"));
}
