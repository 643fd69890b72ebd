//! A claim is on its way when its gateway is killed, and arrives when the next one is there.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::backend::{Fault, Middleman};
use crate::common::marks::Marks;
use crate::common::{ControlPlane, Paired, wait_until};

const CLAIM: &str = "PATCH /gateway_jobs";
const HEARTBEAT: &str = "/gateway-heartbeat";

struct Scene {
    control: ControlPlane,
    middle: Middleman,
    paired: Paired,
    marks: Marks,
}

impl Scene {
    async fn new() -> Self {
        let control = ControlPlane::start().await;
        let middle = Middleman::before(&control.url()).await;
        let paired = Paired::through(&control, &middle.url).await;
        let marks = Marks::in_dir(paired.machine.home());
        Self { control, middle, paired, marks }
    }

    /// A job whose claim is on its way for this long; its gateway is killed.
    async fn killed(&mut self, way: Duration) -> String {
        self.middle.fault(CLAIM, Fault::Adrift(way));
        self.middle.forget();
        let command = format!("{}; echo done", self.marks.note("job"));
        let job = self.paired.submit_shell(&self.control, &command, json!({})).await;
        wait_until("the claim to be sent", || async {
            let seen = self.middle.seen();
            seen.iter().any(|seen| seen.method == "PATCH").then_some(())
        })
        .await;
        self.paired.gateway.kill().await;
        self.middle.heal();
        job
    }

    fn next_gateway(&mut self) {
        self.paired.gateway = self.paired.machine.spawn(&[]);
    }

    async fn row(&self, job: &str) -> Value {
        self.control.admin.job(job).await.unwrap()
    }

    async fn no_record(&self) {
        wait_until("the journal to be empty", || async {
            let files = std::fs::read_dir(self.paired.machine.dir().join("jobs")).unwrap();
            let records = files.flatten().filter(|file| file.path().extension().is_some());
            (records.count() == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_next_gateway_may_claim() {
    let mut scene = Scene::new().await;
    let job = scene.killed(Duration::from_secs(3)).await;
    // Nothing is claimed without a heartbeat that was accepted.
    scene.middle.fault(HEARTBEAT, Fault::Answer(503, "application/json", "{}".into()));
    scene.next_gateway();
    wait_until("the claim to arrive", || async {
        (scene.row(&job).await["status"] == "running").then_some(())
    })
    .await;
    scene.middle.heal();
    let row = scene.control.ended(&job).await;
    assert_eq!(row["status"], "failed", "{row}");
    assert_eq!(row["result"]["error_code"], "gateway_restarted", "{row}");
    assert_eq!(scene.marks.counts().get("job"), None);
    scene.no_record().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_next_gateway_has_claimed() {
    let mut scene = Scene::new().await;
    let job = scene.killed(Duration::from_secs(20)).await;
    scene.next_gateway();
    let row = scene.control.ended(&job).await;
    assert_eq!(row["status"], "completed", "{row}");
    assert_eq!(scene.marks.counts().get("job"), Some(&1));
    scene.no_record().await;
}
