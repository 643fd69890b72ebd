//! Edge functions that are added through the library.

use reqwest::Method;
use serde_json::{Value, json};

use crate::context::Context;
use crate::fixtures::{ECHO, REFUSE};

#[tokio::test]
async fn an_added_function_gets_the_request_and_gives_its_own_answer() {
    let context = Context::with(|options| options.edge_functions = vec![&ECHO, &REFUSE]).await;
    let ours = context.pair().await;
    let answer = context
        .signed(Method::PUT, "/functions/v1/conformance-echo", &ours.access)
        .header("x-custom", "1")
        .json(&json!({"a": 1}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let seen: Value = answer.json().await.unwrap();
    assert_eq!((&seen["method"], &seen["body"]), (&json!("PUT"), &json!({"a": 1})));
    assert_eq!(seen["headers"]["x-custom"], "1");
    assert!(seen["sub"].is_string(), "{seen}");
    let refused = context.request(Method::POST, "/functions/v1/conformance-fail").send().await;
    let refused = refused.unwrap();
    assert_eq!(refused.status(), 422);
    assert_eq!(refused.json::<Value>().await.unwrap(), json!({"error": "nope"}));
    let large = vec![b'x'; 1024 * 1024 + 1];
    let path = "/functions/v1/conformance-echo";
    let answer = context.signed(Method::POST, path, &ours.access).body(large).send().await;
    assert_eq!(answer.unwrap().status(), 413);
}

#[tokio::test]
async fn a_sandbox_has_no_such_functions_by_itself() {
    let context = Context::new().await;
    for name in [ECHO.name, REFUSE.name] {
        let answer = context.request(Method::POST, &format!("/functions/v1/{name}")).send().await;
        assert_eq!(answer.unwrap().status(), 404);
    }
}
