//! What is not for a person in a managed VM.

use crate::common::{ControlPlane, Machine};
use crate::scene::{ends, up};

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_commands_are_refused_with_a_reason() {
    let control = ControlPlane::start().await;
    let guest = up(&control, "vm-1").await;
    let before = guest.machine.config();
    for words in [
        &["full-control"][..],
        &["full-control", "disable"],
        &["service", "install", "--dry-run"],
        &["service", "status"],
        &["pair", "ABCD-EFGH-2345"],
        &["start", "--daemon"],
        &["start", "--daemon", "--mode", "managed"],
    ] {
        let ran = guest.machine.run_async(words).await;
        assert_eq!(ran.code, 1, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains("managed VM") && ran.stderr.contains("hint: "), "{ran:?}");
    }
    assert_eq!(guest.machine.config(), before);
    let ran = guest.machine.run_async(&["start", "--mode", "managed"]).await;
    assert_eq!(ran.code, 0, "one that runs already is what it is for: {ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn managed_mode_needs_a_vms_identity() {
    let control = ControlPlane::start().await;
    let ran = ends(&Machine::new()).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("PANORAMA_VM_BOOTSTRAP_TOKEN"), "{ran:?}");
    let paired = Machine::new();
    paired.pair(&control).await;
    let ran = ends(&paired).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("a person paired this gateway"), "{ran:?}");
}
