//! A gateway whose time stands still, and a world around it whose time does not.

use std::time::{Duration, Instant};

use panorama_gateway::clock::{Clock, Steering};
use panorama_gateway::config::{Environment, GlobalOptions, Purpose, Settings};
use panorama_gateway::observe::Redactor;
use panorama_gateway::runtime::notify::ServiceManager;
use panorama_gateway::runtime::{Gateway, GatewayOptions};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::common::backend::{Middleman, Seen};
use crate::common::{ControlPlane, Machine};

/// Far longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The control plane, and a paired machine that reaches it through somebody.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) control: ControlPlane,
    pub(crate) machine: Machine,
    pub(crate) gateway_id: String,
    pub(crate) resource_id: String,
}

impl World {
    /// `between` makes what the gateway takes for the control plane; its URL.
    pub(crate) fn new<T>(between: impl AsyncFnOnce(&ControlPlane) -> (T, String)) -> (Self, T) {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (control, machine, gateway_id, resource_id, middle) = runtime.block_on(async {
            let control = ControlPlane::start().await;
            let (middle, url) = between(&control).await;
            let machine = Machine::new();
            let code = control.code().await;
            let gateway_id = machine.pair_with(&url, control.server.anon_key(), &code).await;
            machine.allow_control().await;
            let resource_id = control.allow_shell(&gateway_id).await;
            (control, machine, gateway_id, resource_id, middle)
        });
        (Self { runtime, control, machine, gateway_id, resource_id }, middle)
    }

    pub(crate) fn with_middleman() -> (Self, Middleman) {
        Self::new(async |control| {
            let middleman = Middleman::before(&control.url()).await;
            let url = middleman.url.clone();
            (middleman, url)
        })
    }

    /// Queues a shell command; the job's id.
    pub(crate) fn submit(&self, command: &str) -> String {
        let payload = serde_json::json!({"command": command, "resource_id": self.resource_id});
        std::thread::scope(|scope| {
            let submit = self.control.submit(&self.gateway_id, "shell_exec", payload);
            scope.spawn(|| self.runtime.block_on(submit)).join().unwrap()
        })
    }

    pub(crate) fn job(&self, id: &str) -> Value {
        std::thread::scope(|scope| {
            scope
                .spawn(|| self.runtime.block_on(self.control.admin.job(id)).unwrap())
                .join()
                .unwrap()
        })
    }

    /// What the running gateway says of itself.
    pub(crate) async fn status(&self) -> Value {
        self.machine.status().await.unwrap_or_default()
    }

    /// Starts a gateway by clocks that stand still, plays when it is up, and stops it.
    pub(crate) fn play(&self, before: impl FnOnce(&Steering), act: impl AsyncFnOnce(&Steering)) {
        let inside = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        inside.block_on(async {
            // While a blocking task runs, paused time does not pass by itself.
            let (still, held) = std::sync::mpsc::channel::<()>();
            let mut held_still = JoinSet::new();
            held_still.spawn_blocking(move || held.recv());
            let (clock, steering) = Clock::steered();
            before(&steering);
            let gateway = Gateway::prepare(self.options()).unwrap().with_clock(clock);
            let handle = gateway.handle();
            let story = async {
                until("the gateway to be up", async || {
                    let status = self.status().await;
                    (status["phase"] == "up" && status["realtime"]["state"] == "ready")
                        .then_some(())
                })
                .await;
                act(&steering).await;
            };
            let run = gateway.run();
            tokio::pin!(run);
            tokio::select! {
                ended = &mut run => panic!("the gateway ended: {ended:?}"),
                () = story => {}
            }
            handle.stop();
            let ended = loop {
                tokio::select! {
                    ended = &mut run => break ended,
                    () = pass(Duration::from_secs(1)) => {}
                }
            };
            ended.unwrap();
            drop(still);
        });
    }

    fn options(&self) -> GatewayOptions {
        let home = self.machine.home();
        // No agent CLIs: they are another story.
        let path = format!("{}:/usr/bin:/bin", home.join("bin").display());
        let environment =
            Environment::from_pairs([("HOME", home.as_os_str().to_owned()), ("PATH", path.into())]);
        let settings =
            Settings::resolve(&GlobalOptions::default(), environment, Purpose::Start).unwrap();
        GatewayOptions {
            settings,
            redactor: Redactor::default(),
            log: None,
            caller_umask: 0o022,
            service: ServiceManager::none(),
            drive_sync: None,
            relaunch: None,
        }
    }
}

/// Lets what is under way in the real world arrive.
pub(crate) async fn real_pause(time: Duration) {
    tokio::task::spawn_blocking(move || std::thread::sleep(time)).await.unwrap();
}

/// Asks again and again, in real time, until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        real_pause(Duration::from_millis(2)).await;
    }
}

/// So much time passes for the gateway, with room for the world to answer on the way.
pub(crate) async fn pass(time: Duration) {
    const STEP: Duration = Duration::from_millis(250);
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(STEP);
        tokio::time::advance(step).await;
        real_pause(Duration::from_millis(10)).await;
        left -= step;
    }
}

/// What a request is for, in one word.
pub(crate) fn kind(seen: &Seen) -> &'static str {
    match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/auth/v1/token") => "refresh",
        ("GET", "/auth/v1/user") => "check",
        (_, path) if path.ends_with("/gateway-heartbeat") => "heartbeat",
        (_, path) if path.ends_with("/websocket") => "realtime",
        ("GET", "/rest/v1/gateway_jobs") if seen.query.contains("status=eq.queued") => "poll",
        ("PATCH", "/rest/v1/gateway_jobs") => "change",
        _ => "other",
    }
}

/// The requests so far, in order.
pub(crate) fn kinds(middleman: &Middleman) -> Vec<&'static str> {
    middleman.seen().iter().map(kind).collect()
}

pub(crate) fn count(kinds: &[&str], wanted: &str) -> usize {
    kinds.iter().filter(|kind| **kind == wanted).count()
}
