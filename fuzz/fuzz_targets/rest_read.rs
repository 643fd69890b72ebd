//! GET requests against a real store: SQLite understands every statement that the grammar makes.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use panorama_gateway::model::{GatewayId, TeamId};
use panorama_gateway::sandbox::Caller;
use panorama_gateway::sandbox::rest::{RestRequest, handle};
use panorama_gateway::sandbox::store::Store;
use tokio::runtime::{Builder, Runtime};

static SERVER: LazyLock<(Runtime, Store, tempfile::TempDir)> = LazyLock::new(|| {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = runtime.block_on(async { Store::open(&dir.path().join("fuzz.db")).unwrap() });
    (runtime, store, dir)
});

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (query, prefer) = text.split_once('\n').unwrap_or((&text, ""));
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(prefer) {
        headers.insert("prefer", value);
    }
    let request = RestRequest {
        method: Method::GET,
        path: "gateway_jobs".to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
    };
    let caller = Caller::Gateway {
        user_id: "00000000-0000-4000-8000-0000000000f1".to_owned(),
        session_id: "00000000-0000-4000-8000-0000000000f3".to_owned(),
        gateway_id: GatewayId::new("00000000-0000-4000-8000-0000000000a1"),
        team_id: TeamId::new("00000000-0000-4000-8000-00000000000a"),
    };
    let (runtime, store, _) = &*SERVER;
    let answer = runtime.block_on(handle(store, &caller, request));
    let body = String::from_utf8_lossy(answer.body());
    assert!(!answer.status().is_server_error(), "{} {body}", answer.status());
    assert!(serde_json::from_slice::<serde_json::Value>(answer.body()).is_ok(), "{body}");
});
