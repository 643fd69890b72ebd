//! A row of a poll: a job, or an error that names the row when it has an id.
#![no_main]

use libfuzzer_sys::fuzz_target;
use panorama_gateway::backend::json::parse_json;
use panorama_gateway::model::Job;

fuzz_target!(|data: &[u8]| {
    let Ok(row) = parse_json(data) else { return };
    let id = row.get("id").and_then(serde_json::Value::as_str).filter(|id| !id.is_empty());
    match Job::decode(&row) {
        Ok(job) => assert_eq!(Some(job.id.as_str()), id),
        Err(error) => assert_eq!(error.id.as_ref().map(|id| id.as_str()), id),
    }
});
