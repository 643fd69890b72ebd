//! Agent CLIs on this host: Claude Code, Codex CLI and Gemini CLI.
//!
//! A module each knows its CLI's flags and answers, behind one trait; nothing outside this room
//! knows a flag. Plans are built and answers decoded by pure functions: a request and what is
//! installed give a [`Plan`], what a run left gives an [`Outcome`].

pub mod agent;
mod ask;
mod attendant;
mod candidates;
mod claude;
mod codex;
pub mod discovery;
mod gemini;
pub mod health;
pub mod help;
mod id;
pub mod json;
mod model_check;
mod outcome;
mod plan;
pub mod probe;
mod roster;
mod run;
pub mod schema;
mod shell_hint;
mod version;
mod work_dir;
mod wrapper;

pub use ask::{Asker, NoAnswer};
pub use attendant::{Attendant, Check, full_check};
pub use claude::ClaudeCode;
pub use codex::Codex;
pub use gemini::Gemini;
pub use id::ProviderId;
pub(crate) use model_check::work;
pub use model_check::{ModelCheck, WORK as VALIDATION_WORK};
pub use outcome::{Answer, ErrorCode, ErrorSummary, Failure, Left, Outcome};
pub use plan::{
    Effort, FirstSignal, Flags, Format, Installed, ModelRequest, OutputMode, Plan, PlanError,
    PlanFile,
};
pub use roster::{Ran, Roster, Standing, Standings, Worsened};
pub use run::{OUTPUT_LIMIT, Place, PlanRun, PlanRunError, RefusedFile, output_path, run_plan};
pub(crate) use work_dir::remove_tree;
pub use work_dir::{
    KeptBounds, WorkDir, WorkDirError, bound_kept_dirs, remove_work_dir, sweep_work_dirs,
};

use crate::model::ProviderSupports;
use agent::{AgentReader, AgentRequest};

/// One agent CLI: what its help means, how it is called, what its answers mean. Pure.
pub trait Provider: Send + Sync {
    /// Which one.
    fn id(&self) -> ProviderId;

    /// The arguments of the call whose output names its flags, e.g. `exec --help`.
    fn help_args(&self) -> &'static [&'static str];

    /// The flags that a help text names, as whole words; `None`: help failed.
    fn flags(&self, help: Option<&str>) -> Flags;

    /// The call that lists the installed extensions; `None` for a CLI that has none.
    fn extension_args(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// The extensions that the output of that call names.
    fn extensions(&self, listing: &str) -> Vec<String> {
        let _ = listing;
        Vec::new()
    }

    /// Variables for `--version`, help and the list of extensions, without which the CLI would do
    /// more than to answer.
    fn probe_env(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// What follows from what is installed.
    fn supports(&self, installed: &Installed) -> ProviderSupports;

    /// How to get one answer. Only flags that `installed` has are passed.
    fn plan(&self, request: &ModelRequest, installed: &Installed) -> Result<Plan, PlanError>;

    /// What a run of that plan came to.
    fn decode(&self, request: &ModelRequest, plan: &Plan, left: &Left) -> Outcome;

    /// Whether a run can go on with the session of an earlier one.
    fn continues_sessions(&self) -> bool;

    /// Whether an agent of this CLI can be given full control here; the error says why not. In a
    /// managed guest as `guest`; `root`: the gateway runs as root.
    fn full_control(&self, installed: &Installed, root: bool, guest: bool) -> Result<(), String>;

    /// How to carry out a run of a subagent. Only flags that `installed` has are passed.
    fn agent_plan(&self, request: &AgentRequest, installed: &Installed) -> Result<Plan, PlanError>;

    /// What reads the output of a run of that plan.
    fn agent_reader(&self, request: &AgentRequest, plan: &Plan) -> Box<dyn AgentReader>;
}

const ALL: [&dyn Provider; 3] = [&ClaudeCode, &Codex, &Gemini];

/// The number in what a CLI prints for `--version`.
pub fn version_number(printed: &str) -> Option<String> {
    version::read(printed).map(|version| version.to_string())
}

/// Every provider there is, in the order in which people see them.
pub fn all() -> impl Iterator<Item = &'static dyn Provider> {
    ALL.into_iter()
}

/// The provider of this id.
pub fn by_id(id: ProviderId) -> Option<&'static dyn Provider> {
    all().find(|provider| provider.id() == id)
}
