//! Exchanging a code.

use panorama_gateway::backend::{BackendError, Http, Pairing, exchange_pairing_code};
use serde_json::{Value, json};

use super::context::{KEY, endpoint, exposed};
use super::fake::{Fake, Reply, json as reply};

fn good() -> Value {
    json!({"success": true, "gateway_id": "g", "team_id": "t", "access_token": "a",
           "refresh_token": "r", "expires_at": "2026-11-21T22:00:00+00:00",
           "token_type": "bearer", "more": [1]})
}

async fn pair_with(
    answer: impl Fn() -> Reply + Send + Sync + 'static,
) -> (Result<Pairing, BackendError>, Fake) {
    let fake = Fake::start(move |_| answer()).await;
    let endpoint = endpoint(&fake.url);
    let http = Http::new(&endpoint).unwrap();
    (exchange_pairing_code(&http, &endpoint, " CODE\n", "my box").await, fake)
}

#[tokio::test]
async fn a_code_becomes_an_identity() {
    let (result, fake) = pair_with(|| reply(200, good())).await;
    let pairing = result.unwrap();
    assert_eq!((pairing.gateway_id.as_str(), pairing.team_id.as_str()), ("g", "t"));
    assert_eq!(exposed(&pairing.tokens.access), "a");
    assert_eq!(exposed(&pairing.tokens.refresh), "r");
    let seen = fake.last();
    assert_eq!(
        seen.line(),
        r#"POST /functions/v1/exchange-gateway-pairing-code? {"code":"CODE","device_name":"my box"}"#
    );
    assert_eq!(seen.header("apikey"), Some(KEY));
    assert_eq!(seen.bearer(), KEY, "the same bytes as apikey");
    assert_eq!(seen.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn refusals_show_the_backends_own_words() {
    for (status, body, wanted) in [
        (400, json!({"success": false, "error": "expired", "message": "m"}), "400: expired"),
        (404, json!({"message": "unknown code"}), "404: unknown code"),
        (401, json!({"message": "Invalid API key"}), "401: Invalid API key"),
        (500, json!({}), "500: Internal Server Error"),
        (200, json!({"success": false, "error": "used"}), "200: used"),
    ] {
        let (result, _) = pair_with(move || reply(status, body.clone())).await;
        let text = result.unwrap_err().to_string();
        assert_eq!(text, format!("the backend answered {wanted}"));
    }
}

#[tokio::test]
async fn an_answer_that_lacks_a_field_names_it() {
    let names = [
        "success",
        "gateway_id",
        "team_id",
        "access_token",
        "refresh_token",
        "expires_at",
        "token_type",
    ];
    for name in names {
        let (result, _) = pair_with(move || {
            let mut body = good();
            body.as_object_mut().unwrap().remove(name);
            reply(200, body)
        })
        .await;
        let error = result.unwrap_err();
        assert!(matches!(error, BackendError::Contract(_)), "{error:?}");
        assert!(error.to_string().contains(&format!("{name} is missing")), "{error}");
    }
}

#[tokio::test]
async fn answers_that_are_no_contract_at_all() {
    for body in ["<html>hello</html>", "{\"success\": tr", "", "[]", "null"] {
        let (result, _) =
            pair_with(|| Reply::Full(200, "content-type: text/html\r\n".into(), body.into())).await;
        let error = result.unwrap_err();
        assert!(matches!(error, BackendError::Contract(_)), "{body}: {error:?}");
        assert!(error.to_string().contains("status 200, text/html"), "{error}");
    }
    // The bound for pairing is 1 MiB.
    let (result, _) = pair_with(|| Reply::Full(200, String::new(), " ".repeat(1_048_577))).await;
    assert!(matches!(result.unwrap_err(), BackendError::TooLarge(1_048_576)));
}
