//! The REST grammar of the sandbox: a query string, then a line a header.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use panorama_gateway::model::{GatewayId, TeamId};
use panorama_gateway::sandbox::Caller;
use panorama_gateway::sandbox::rest::fuzzing::statement;
use panorama_gateway::sandbox::store::schema::Schema;

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::built_in);
const HEADERS: [&str; 6] =
    ["prefer", "accept", "range", "content-type", "accept-profile", "content-profile"];

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let query = lines.next().unwrap_or_default();
    let headers: HeaderMap = HEADERS
        .iter()
        .zip(lines)
        .filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
        })
        .collect();
    let caller = Caller::Gateway {
        user_id: "00000000-0000-4000-8000-0000000000f1".to_owned(),
        session_id: "00000000-0000-4000-8000-0000000000f3".to_owned(),
        gateway_id: GatewayId::new("00000000-0000-4000-8000-0000000000a1"),
        team_id: TeamId::new("00000000-0000-4000-8000-00000000000a"),
    };
    let Some((sql, parameters)) = statement(&SCHEMA, "gateway_jobs", &caller, query, &headers)
    else {
        return;
    };
    assert_eq!(sql.matches('?').count(), parameters, "{sql}");
    // Nothing that ends a literal or a statement can have come from the request.
    assert!(!sql.contains(['\'', ';', '\\', '%']) && sql.is_ascii(), "{sql}");
});
