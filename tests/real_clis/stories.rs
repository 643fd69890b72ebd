//! The stories: what they are called, what they need of the others, and where they are told.

use panorama_gateway::providers::ProviderId;

use crate::scene::Scene;
use crate::{direct, hard_ends, model_run, subagents_answers, subagents_ends};

/// What a story needs of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Company {
    /// Others may run beside it.
    Any,
    /// The same, but with CLIs that are all well: where none is, no subagent may run.
    Well,
    /// Only stories without an API to reach.
    WithoutApi,
    /// None.
    Alone,
}

/// A story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    Direct,
    DirectAtFile,
    DirectTool,
    Plain,
    Structured,
    ToolCall,
    SchemaViolated,
    Recovers,
    AnswerCut,
    Unauthorized,
    RateLimited,
    ServerError,
    TimeLimit,
    BigPrompt,
    DashPrompt,
    SlashPrompt,
    AtFilePrompt,
    ToolRefused,
    Refused,
    Cancel,
    GatewayKilled,
    SubagentPlain,
    SubagentTool,
    SubagentRoot,
    SubagentRestricted,
    SubagentStructured,
    SubagentPrompt,
    SubagentResumed,
    SubagentUnauthorized,
    SubagentLimited,
    SubagentCut,
    SubagentLeftover,
    SubagentTimeLimit,
    SubagentCancel,
    SubagentGatewayStopped,
    SubagentGatewayKilled,
}

impl Story {
    pub(crate) const ALL: [Self; 36] = [
        Self::Direct,
        Self::DirectAtFile,
        Self::DirectTool,
        Self::Plain,
        Self::Structured,
        Self::ToolCall,
        Self::SchemaViolated,
        Self::Recovers,
        Self::AnswerCut,
        Self::Unauthorized,
        Self::RateLimited,
        Self::ServerError,
        Self::TimeLimit,
        Self::BigPrompt,
        Self::DashPrompt,
        Self::SlashPrompt,
        Self::AtFilePrompt,
        Self::ToolRefused,
        Self::Refused,
        Self::Cancel,
        Self::GatewayKilled,
        Self::SubagentPlain,
        Self::SubagentTool,
        Self::SubagentRoot,
        Self::SubagentRestricted,
        Self::SubagentStructured,
        Self::SubagentPrompt,
        Self::SubagentResumed,
        Self::SubagentUnauthorized,
        Self::SubagentLimited,
        Self::SubagentCut,
        Self::SubagentLeftover,
        Self::SubagentTimeLimit,
        Self::SubagentCancel,
        Self::SubagentGatewayStopped,
        Self::SubagentGatewayKilled,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectAtFile => "direct-at-file",
            Self::DirectTool => "direct-tool",
            Self::Plain => "plain",
            Self::Structured => "structured",
            Self::ToolCall => "structured-tool-call",
            Self::SchemaViolated => "schema-violated",
            Self::Recovers => "error-500-once",
            Self::AnswerCut => "answer-cut",
            Self::Unauthorized => "error-401",
            Self::RateLimited => "error-429",
            Self::ServerError => "error-500",
            Self::TimeLimit => "time-limit",
            Self::BigPrompt => "prompt-200-kb",
            Self::DashPrompt => "prompt-dash",
            Self::SlashPrompt => "prompt-slash",
            Self::AtFilePrompt => "prompt-at-file",
            Self::ToolRefused => "tool-refused",
            Self::Refused => "refused-connection",
            Self::Cancel => "cancel",
            Self::GatewayKilled => "gateway-killed",
            Self::SubagentPlain => "subagent-plain",
            Self::SubagentTool => "subagent-tool",
            Self::SubagentRoot => "subagent-root",
            Self::SubagentRestricted => "subagent-restricted",
            Self::SubagentStructured => "subagent-structured",
            Self::SubagentPrompt => "subagent-prompt",
            Self::SubagentResumed => "subagent-resume",
            Self::SubagentUnauthorized => "subagent-401",
            Self::SubagentLimited => "subagent-429-once",
            Self::SubagentCut => "subagent-cut",
            Self::SubagentLeftover => "subagent-leftover",
            Self::SubagentTimeLimit => "subagent-time-limit",
            Self::SubagentCancel => "subagent-cancel",
            Self::SubagentGatewayStopped => "subagent-gateway-stopped",
            Self::SubagentGatewayKilled => "subagent-gateway-killed",
        }
    }

    pub(crate) fn company(self) -> Company {
        const ALONE: [Story; 6] = [
            Story::Cancel,
            Story::GatewayKilled,
            Story::SubagentUnauthorized,
            Story::SubagentCancel,
            Story::SubagentGatewayStopped,
            Story::SubagentGatewayKilled,
        ];
        if self == Self::Refused {
            Company::WithoutApi
        } else if ALONE.contains(&self) {
            Company::Alone
        } else if self.name().starts_with("subagent-") {
            Company::Well
        } else {
            Company::Any
        }
    }

    pub(crate) async fn tell(self, scene: &Scene, cli: ProviderId) {
        match self {
            Self::Direct => direct::plain(scene, cli).await,
            Self::DirectAtFile => direct::at_file(scene, cli).await,
            Self::DirectTool => direct::tool(scene, cli).await,
            Self::Plain => model_run::plain(scene, cli).await,
            Self::Structured => model_run::structured(scene, cli).await,
            Self::ToolCall => model_run::tool_call(scene, cli).await,
            Self::SchemaViolated => model_run::schema_violated(scene, cli).await,
            Self::Recovers => model_run::recovers(scene, cli).await,
            Self::AnswerCut => model_run::answer_cut(scene, cli).await,
            Self::Unauthorized => {
                model_run::fails(scene, cli, "[[error 401]]", "provider_auth").await;
            }
            Self::RateLimited => {
                model_run::fails(scene, cli, "[[error 429]]", "provider_rate_limited").await;
            }
            Self::ServerError => {
                model_run::fails(scene, cli, "[[error 500]]", "provider_unavailable").await;
            }
            Self::Refused => model_run::fails(scene, cli, "refused", "provider_unavailable").await,
            Self::TimeLimit => model_run::time_limit(scene, cli).await,
            Self::BigPrompt => model_run::big_prompt(scene, cli).await,
            Self::DashPrompt => model_run::is_data(scene, cli, "--version -h dash").await,
            Self::SlashPrompt => model_run::is_data(scene, cli, "/help slash").await,
            Self::AtFilePrompt => model_run::at_file_prompt(scene, cli).await,
            Self::ToolRefused => model_run::tool_refused(scene, cli).await,
            Self::Cancel => hard_ends::cancel(scene, cli).await,
            Self::GatewayKilled => hard_ends::gateway_killed(scene, cli).await,
            Self::SubagentPlain => subagents_answers::plain(scene, cli).await,
            Self::SubagentTool => subagents_answers::tool(scene, cli).await,
            Self::SubagentRoot => subagents_answers::denied_to_root(scene, cli).await,
            Self::SubagentRestricted => subagents_answers::restricted(scene, cli).await,
            Self::SubagentStructured => subagents_answers::structured(scene, cli).await,
            Self::SubagentPrompt => subagents_answers::prompt_is_data(scene, cli).await,
            Self::SubagentResumed => subagents_answers::resumes(scene, cli).await,
            Self::SubagentUnauthorized => subagents_answers::unauthorized(scene, cli).await,
            Self::SubagentLimited => subagents_answers::limited_once(scene, cli).await,
            Self::SubagentCut => subagents_answers::cut(scene, cli).await,
            Self::SubagentLeftover => subagents_ends::leftover(scene, cli).await,
            Self::SubagentTimeLimit => subagents_ends::time_limit(scene, cli).await,
            Self::SubagentCancel => subagents_ends::cancel(scene, cli).await,
            Self::SubagentGatewayStopped => subagents_ends::gateway_stopped(scene, cli).await,
            Self::SubagentGatewayKilled => subagents_ends::gateway_killed(scene, cli).await,
        }
    }
}
