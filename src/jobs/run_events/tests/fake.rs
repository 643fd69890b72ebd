//! A table in memory whose backend fails as a test says.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::backend::BackendError;
use crate::jobs::run_events::writer::Table;
use crate::jobs::run_events::{
    Ended, Figures, Owner, RunEvents, RunEventsDriver, Turns, file_name, open_with,
};
use crate::model::{GatewayId, RunId, SubagentId};
use crate::observe::Redactor;

/// What the backend does with one call.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// Nothing is wrong.
    None,
    /// An error, and nothing was done.
    Before(BackendError),
    /// It was done, and the answer is lost.
    After(BackendError),
    /// Somebody else writes a row first.
    Foreign,
    /// It takes this long before it acts.
    Slow(Duration),
    /// It does nothing and never answers.
    Hang,
    /// It is done, and never answered.
    HangAfter,
}

type Plan = dyn FnMut(&'static str) -> Fault + Send;

pub(super) struct State {
    /// By number.
    pub(super) rows: BTreeMap<i64, (String, Value)>,
    pub(super) plan: Box<Plan>,
    /// An insert with a payload that has `bad` is refused.
    pub(super) refuse_bad: bool,
    /// Of a payload only `n` is stored, for tests of memory.
    pub(super) only_numbers: bool,
    /// Rows of each insert that was tried.
    pub(super) inserts: Vec<usize>,
    /// Most payload bytes in one insert.
    pub(super) largest: usize,
}

/// Cheap to clone: one table.
#[derive(Clone)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
}

pub(super) fn status(status: u16, code: Option<&str>) -> BackendError {
    BackendError::Status {
        status,
        code: code.map(str::to_owned),
        message: "no".into(),
        retry_after: None,
    }
}

pub(super) fn timed_out() -> BackendError {
    BackendError::TimedOut(Duration::from_secs(20))
}

impl Fake {
    pub(super) fn new() -> Self {
        let state = State {
            rows: BTreeMap::new(),
            plan: Box::new(|_| Fault::None),
            refuse_bad: false,
            only_numbers: false,
            inserts: Vec::new(),
            largest: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn plan(&self, plan: impl FnMut(&'static str) -> Fault + Send + 'static) {
        self.state().plan = Box::new(plan);
    }

    /// Each call in turn meets one of these, then all is well.
    pub(super) fn script(&self, faults: impl IntoIterator<Item = (&'static str, Fault)>) {
        let mut faults = faults.into_iter().collect::<VecDeque<_>>();
        self.plan(move |call| {
            faults.pop_front_if(|(name, _)| *name == call).map_or(Fault::None, |(_, fault)| fault)
        });
    }

    pub(super) fn write_foreign(&self) {
        let rows = &mut self.state().rows;
        let next = rows.last_key_value().map_or(0, |(last, _)| last + 1);
        rows.insert(next, ("system".into(), json!({"foreign": next})));
    }

    /// `n` of our rows in the order of their numbers, which are checked to be without a gap.
    pub(super) fn told(&self, first: i64) -> Vec<i64> {
        let state = self.state();
        let wanted = (first..).take(state.rows.len());
        assert!(state.rows.keys().copied().eq(wanted), "a gap: {:?}", state.rows.keys());
        let number = |payload: &Value| payload.get("n").unwrap_or(payload).as_i64();
        state.rows.values().filter_map(|(_, payload)| number(payload)).collect()
    }

    /// Whether the call goes through; `Some(error)` comes instead of the answer, then.
    async fn meet(&self, call: &'static str) -> Result<Option<Fault>, BackendError> {
        let fault = (self.state().plan)(call);
        tokio::task::yield_now().await;
        match fault {
            Fault::None => Ok(None),
            Fault::Before(error) => Err(error),
            Fault::Foreign => {
                self.write_foreign();
                Ok(None)
            }
            Fault::Slow(pause) => {
                tokio::time::sleep(pause).await;
                Ok(None)
            }
            Fault::Hang => std::future::pending().await,
            after @ (Fault::After(_) | Fault::HangAfter) => Ok(Some(after)),
        }
    }

    async fn leave(&self, fault: Option<Fault>) -> Result<(), BackendError> {
        match fault {
            Some(Fault::After(error)) => Err(error),
            Some(_) => std::future::pending().await,
            None => Ok(()),
        }
    }
}

/// As `jsonb` would: other order of keys, other spelling of numbers.
fn stored(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<_> = fields.keys().collect();
            keys.sort_by_key(|key| (key.len(), (*key).clone()));
            let fields = keys.into_iter().map(|key| (key.clone(), stored(&fields[key])));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(stored).collect()),
        Value::Number(number) if number.as_f64() == Some(0.5) => json!(0.50),
        Value::Number(number) if number.as_f64() == Some(1.0) => json!(1),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

impl Table for Fake {
    async fn highest(&self) -> Result<Option<i64>, BackendError> {
        let fault = self.meet("highest").await?;
        let highest = self.state().rows.last_key_value().map(|(number, _)| *number);
        self.leave(fault).await.map(|()| highest)
    }

    async fn rows(&self, from: i64, to: i64) -> Result<Vec<Value>, BackendError> {
        let fault = self.meet("rows").await?;
        let row = |(n, (kind, payload)): (&i64, &(String, Value))| json!({"sequence": n, "event_type": kind, "payload": payload});
        let rows = self.state().rows.range(from..=to).map(row).collect();
        self.leave(fault).await.map(|()| rows)
    }

    async fn insert(&self, events: &[(i64, &str, &Value)]) -> Result<(), BackendError> {
        let fault = self.meet("insert").await?;
        {
            let mut state = self.state();
            state.inserts.push(events.len());
            let bytes = events.iter().map(|event| event.2.to_string().len()).sum();
            state.largest = state.largest.max(bytes);
            if events.iter().any(|event| state.rows.contains_key(&event.0)) {
                return Err(status(409, Some("23505")));
            }
            if state.refuse_bad && events.iter().any(|event| event.2.get("bad").is_some()) {
                return Err(status(400, Some("22P02")));
            }
            for (number, kind, payload) in events {
                let only = payload["n"].clone();
                let payload = if state.only_numbers { only } else { stored(payload) };
                state.rows.insert(*number, ((*kind).to_owned(), payload));
            }
        }
        self.leave(fault).await
    }

    fn may_warn(&self) -> bool {
        true
    }

    async fn pause(&self, _: &BackendError, delay: Duration) {
        tokio::time::sleep(delay).await;
    }
}

/// A run whose events go to a fake.
pub(super) struct Scene {
    pub(super) dir: TempDir,
    pub(super) fake: Fake,
    pub(super) path: PathBuf,
    pub(super) redactor: Redactor,
    turns: Turns,
}

impl Scene {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events").join(file_name(&RunId::new("r")));
        Self {
            dir,
            fake: Fake::new(),
            path,
            redactor: Redactor::default(),
            turns: Turns::default(),
        }
    }

    pub(super) fn open(&self) -> (RunEvents, RunEventsDriver<Fake>) {
        self.open_until(CancellationToken::new())
    }

    pub(super) fn open_until(&self, stop: CancellationToken) -> (RunEvents, RunEventsDriver<Fake>) {
        let owner = Owner {
            gateway: GatewayId::new("g"),
            subagent: SubagentId::new("s"),
            run: RunId::new("r"),
        };
        let (fake, path) = (self.fake.clone(), self.path.clone());
        open_with(fake, &self.turns, owner, path, self.redactor.clone(), stop)
    }

    /// Tells these numbers, waits until all is settled, and ends; what was done.
    pub(super) async fn run(&self, numbers: std::ops::Range<i64>) -> Figures {
        let (events, driver) = self.open();
        let told = async move {
            tell(&events, numbers).await;
            assert!(events.settled().await);
            events.figures()
        };
        let (ended, figures) = tokio::join!(driver.run(), told);
        assert_eq!(ended, Ended::Settled);
        figures
    }

    /// Indexes of the events that lie in the spool.
    pub(super) fn spooled(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let index = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("i")?.as_u64();
        text.lines().filter_map(index).collect()
    }

    /// Waits until so many events lie in the spool.
    pub(super) async fn until_spooled(&self, events: usize) {
        while self.spooled().len() < events {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(super) fn payload(n: i64) -> Map<String, Value> {
    let Value::Object(payload) = json!({"n": n, "zz": 1.0, "a": [0.5, "é"]}) else {
        unreachable!();
    };
    payload
}

pub(super) async fn tell(events: &RunEvents, numbers: std::ops::Range<i64>) {
    for n in numbers {
        events.tell("message", payload(n)).await;
    }
}

pub(super) fn numbers(count: i64) -> Vec<i64> {
    (0..count).collect()
}
