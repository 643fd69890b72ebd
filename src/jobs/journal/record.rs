//! One record of the journal: what was claimed, by which run it is carried out, how it ended.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::backend::{Completion, Finalization};
use crate::model::{GatewayId, JobId, RunId, SubagentId};
use crate::process::RunIds;

/// The format of records that this version writes.
pub(super) const VERSION: u32 = 1;

/// See the module. JSON on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The format.
    pub(super) version: u32,
    /// `gateway_jobs.id`.
    pub id: JobId,
    /// Who claimed it; a record of an identity that was given up cannot be reported any more.
    pub gateway_id: GatewayId,
    /// `job_type`.
    #[serde(rename = "type")]
    pub job_type: String,
    /// The `started_at` that the claim sends: it tells our claim from another one.
    pub started_at: String,
    /// The processes of the run, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunIds>,
    /// The subagent's run that the job is for, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subagent: Option<SubagentWork>,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<Completion>,
}

/// How far a subagent's run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubagentWork {
    /// The subagent.
    pub subagent_id: SubagentId,
    /// Its run.
    pub run_id: RunId,
    /// How the run ended, once it has: what the backend is to be told, and the events that follow
    /// when it has been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RunEnd>,
}

/// The end of a subagent's run, on its way to the backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    /// For the backend.
    pub finalization: Finalization,
    /// `(event_type, payload)`, in order, the terminal one last.
    pub events: Vec<(String, Map<String, Value>)>,
}

impl Record {
    /// The intent of a claim.
    pub fn intent(id: JobId, gateway_id: GatewayId, job_type: String, started_at: String) -> Self {
        Self {
            version: VERSION,
            id,
            gateway_id,
            job_type,
            started_at,
            run: None,
            subagent: None,
            completion: None,
        }
    }
}

/// Why a file is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    /// Written by a newer version; it is left alone.
    #[error("has format {0}, which this version does not know")]
    Newer(u64),
    /// Not a record.
    #[error("does not parse: {0}")]
    Damaged(String),
}

/// Reads a record's bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let damaged = |error: serde_json::Error| RecordError::Damaged(error.to_string());
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > u64::from(VERSION) {
        return Err(RecordError::Newer(version));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::JobStatus;

    fn record() -> Record {
        let mut record = Record::intent(
            JobId::new("j"),
            GatewayId::new("g"),
            "shell_exec".into(),
            "2026-11-21T22:00:00.000Z".into(),
        );
        record.run = Some(RunIds { run_id: "r".into(), shim_pid: 7, shim_start: 9 });
        record.completion = Some(Completion {
            status: JobStatus::Completed,
            result: json!({"stdout": "a\u{0}b"}),
            error: None,
            completed_at: "2026-11-21T22:00:01.000Z".into(),
        });
        record
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let bytes = serde_json::to_vec(&record()).unwrap();
        assert_eq!(decode(&bytes), Ok(record()));
        let intent = r#"{"version":1,"id":"j","gateway_id":"g","type":"t","started_at":"s"}"#;
        assert_eq!(decode(intent.as_bytes()).unwrap().completion, None);
    }

    #[test]
    fn fields_of_a_later_minor_change_are_ignored_and_a_newer_format_is_named() {
        let mut value = serde_json::to_value(record()).unwrap();
        value["added"] = json!(1);
        assert_eq!(decode(value.to_string().as_bytes()), Ok(record()));
        value["version"] = json!(2);
        assert_eq!(decode(value.to_string().as_bytes()), Err(RecordError::Newer(2)));
    }

    #[test]
    fn every_prefix_of_a_record_is_damaged() {
        let bytes = serde_json::to_vec(&record()).unwrap();
        for length in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..length]), Err(RecordError::Damaged(_))), "{length}");
        }
    }
}
