//! A store that fails: a full disk, a file that cannot be read. The session outlives it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use panorama_gateway::backend::SessionState;

use super::context::{MemoryStore, access, auth_error, exposed, pair, session, user};
use super::fake::{Fake, Reply};

/// Rotates by the book: a token works once, the live one's parent again and again.
#[derive(Default)]
struct Family {
    live: u32,
    /// What came in, in this order.
    sent: Vec<String>,
    access_tokens: u32,
}

impl Family {
    fn rotate(&mut self, body: &str) -> Reply {
        let sent: HashMap<String, String> = serde_json::from_str(body).unwrap();
        let sent = &sent["refresh_token"];
        self.sent.push(sent.clone());
        let number: u32 = sent.strip_prefix('r').unwrap().parse().unwrap();
        if number == self.live {
            self.live += 1;
        } else if number + 1 != self.live {
            return auth_error(400, "refresh_token_already_used");
        }
        self.access_tokens += 1;
        pair(&access(&format!("a{}", self.access_tokens), 3600), &format!("r{}", self.live))
    }
}

async fn rotating() -> (Fake, Arc<Mutex<Family>>) {
    let family = Arc::<Mutex<Family>>::default();
    let answering = Arc::clone(&family);
    let fake = Fake::start(move |seen| {
        if seen.path != "/auth/v1/token" {
            return user();
        }
        answering.lock().unwrap().rotate(&seen.body)
    })
    .await;
    (fake, family)
}

#[tokio::test]
async fn whatever_the_disk_does_a_restart_finds_a_token_that_works() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (fake, family) = rotating().await;
        let store = MemoryStore::with(&access("first", 10), "r0");
        let mut now = session(&fake, &store);
        let mut steps = Vec::new();
        for _ in 0..12 {
            let step = random.u32(0..5);
            steps.push(step);
            match step {
                0 => store.full.store(random.bool(), Ordering::SeqCst),
                1 => store.unreadable.store(random.bool(), Ordering::SeqCst),
                2 => now.keep_fresh().await.unwrap(),
                3 if !store.unreadable.load(Ordering::SeqCst) => now = session(&fake, &store),
                _ => now.refresh_if_current(&now.access_token()).await.unwrap(),
            }
        }
        store.full.store(false, Ordering::SeqCst);
        store.unreadable.store(false, Ordering::SeqCst);
        let again = session(&fake, &store);
        let result = again.refresh_if_current(&again.access_token()).await;
        assert!(result.is_ok(), "seed {seed}, {steps:?}: {:?}", family.lock().unwrap().sent);
    }
}

#[tokio::test]
async fn once_there_is_room_again_the_newest_pair_is_kept() {
    let (fake, family) = rotating().await;
    let store = MemoryStore::with(&access("first", 10), "r0");
    let session = session(&fake, &store);
    store.full.store(true, Ordering::SeqCst);
    session.authenticate().await.unwrap();
    assert_eq!(store.saved().1, "r0");
    store.full.store(false, Ordering::SeqCst);
    // A refused call refreshes before the regular check has saved what was owed.
    session.refresh_if_current(&session.access_token()).await.unwrap();
    assert_eq!(family.lock().unwrap().sent, ["r0", "r1"]);
    assert_eq!(store.saved(), (exposed(&session.access_token()), "r2".into()));
}

#[tokio::test]
async fn a_token_that_only_memory_knows_is_not_spent_when_the_file_cannot_be_read() {
    let (fake, family) = rotating().await;
    let store = MemoryStore::with(&access("first", 10), "r0");
    let session = session(&fake, &store);
    store.full.store(true, Ordering::SeqCst);
    session.authenticate().await.unwrap();
    store.unreadable.store(true, Ordering::SeqCst);
    session.refresh_if_current(&session.access_token()).await.unwrap();
    assert_eq!(family.lock().unwrap().sent, ["r0", "r0"], "a restart would find r0 spent twice");
}

#[tokio::test]
async fn a_refusal_ends_nothing_until_the_file_was_read_again() {
    let (fake, _) = rotating().await;
    // Somebody else refreshed twice, and the file that says so cannot be read just now.
    let store = MemoryStore::with(&access("old", 10), "r0");
    let session = session(&fake, &store);
    let other = super::context::session(&fake, &store);
    for _ in 0..2 {
        other.refresh_if_current(&other.access_token()).await.unwrap();
    }
    store.unreadable.store(true, Ordering::SeqCst);
    let error = session.refresh_if_current(&session.access_token()).await.unwrap_err();
    assert!(!error.ends_session() && error.is_transient(), "{error:?}");
    assert!(matches!(session.state(), SessionState::Retrying(_)), "{:?}", session.state());
    store.unreadable.store(false, Ordering::SeqCst);
    session.refresh_if_current(&session.access_token()).await.unwrap();
    assert_eq!(session.state(), SessionState::Valid);
    assert_eq!(exposed(&session.access_token()), exposed(&other.access_token()));
}
